"""open_channel(): what is sent and who gets it; what is told of it; hostile values."""

import contextlib
import copy
import math
import weakref
from decimal import Decimal
from typing import Any

import pytest

from sleeploop import (
    BrokenResourceError,
    ClosedResourceError,
    DeadlockError,
    EndOfChannel,
    ReceiveChannel,
    SendChannel,
    TaskGroup,
    WouldBlock,
    checkpoint,
    create_task,
    current_task,
    format_tasks,
    open_channel,
    sleep,
)
from tests.helpers import CROWD, OnDel, Thing, now, outcome, virtual
from tests.waits import collect


async def send_all(send: Any, values: Any) -> None:
    with send:
        for value in values:
            await send.send(value)


# ---- made ----------------------------------------------------------------------------------------


def test_the_ends_come_in_the_order_in_which_values_flow():
    send, receive = open_channel(1)
    assert type(send) is SendChannel
    assert type(receive) is ReceiveChannel
    send.send_nowait("value")
    assert receive.receive_nowait() == "value"


class Index:
    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value


@pytest.mark.parametrize("n", [0, 1, 3, 10**6, True, Index(2)])
def test_so_many_are_buffered_and_no_more(n):
    size = n.__index__()
    send, receive = open_channel(n)
    for i in range(min(size, 10)):
        send.send_nowait(i)
    if size <= 10:
        with pytest.raises(WouldBlock):
            send.send_nowait("one more")
    assert [receive.receive_nowait() for _ in range(min(size, 10))] == list(range(min(size, 10)))
    with pytest.raises(WouldBlock):
        receive.receive_nowait()


@pytest.mark.parametrize("n", [math.inf, 2**63 - 1])
def test_without_a_limit(n):
    async def main():
        for i in range(1000):
            await send.send(i)
            send.send_nowait(i)

    send, receive = open_channel(n)
    virtual(main())
    assert [receive.receive_nowait() for _ in range(2000)] == [i // 2 for i in range(2000)]


@pytest.mark.parametrize(
    ("n", "error"),
    [
        (-1, ValueError),
        (-(10**30), ValueError),
        (2**63, ValueError),
        (Index(-2), ValueError),
        (-math.inf, TypeError),
        (math.nan, TypeError),
        (3.0, TypeError),
        ("3", TypeError),
        (None, TypeError),
        (Decimal("Infinity"), TypeError),
    ],
)
def test_a_wrong_size_is_named(n, error):
    with pytest.raises(error, match=r"open_channel\(\): n must ") as caught:
        open_channel(n)
    assert repr(-2 if isinstance(n, Index) else n)[:20] in str(caught.value)


def test_wrong_arguments():
    with pytest.raises(TypeError, match="name must be a str, not 5"):
        open_channel(1, name=5)
    with pytest.raises(TypeError, match="missing the argument 'n'"):
        open_channel()
    with pytest.raises(TypeError, match="1 positional argument but 2"):
        open_channel(1, "name")
    with pytest.raises(TypeError, match="unexpected keyword argument 'size'"):
        open_channel(1, size=3)
    ends = open_channel(n=2)
    assert repr(ends[0]) == "<SendChannel (0 of 2 buffered)>"


def test_an_index_that_fails():
    class Evil:
        def __index__(self):
            raise LookupError

    with pytest.raises(LookupError):
        open_channel(Evil())


@pytest.mark.usefixtures("forgetful")
@pytest.mark.parametrize("kind", [SendChannel, ReceiveChannel])
def test_only_open_channel_makes_an_end(kind):
    with pytest.raises(TypeError):
        kind()
    with pytest.raises(TypeError):
        object.__new__(kind)
    with pytest.raises(TypeError):
        type("Sub", (kind,), {})
    end = open_channel(0)[kind is ReceiveChannel]
    with pytest.raises(TypeError):
        copy.copy(end)
    with pytest.raises(TypeError):
        type(end.send("x") if kind is SendChannel else end.receive())()
    assert str(kind[int]) == f"sleeploop.{kind.__name__}[int]"


# ---- sent and received ---------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 1, 2, 100, math.inf])
def test_everything_arrives_once_and_in_order(n):
    async def main():
        send, receive = open_channel(n)
        log = []
        async with TaskGroup() as group:
            group.create_task(send_all(send, range(100)))
            group.create_task(collect(receive, log))
        return log

    assert virtual(main()) == [*range(100), "end"]


def test_any_value_can_be_sent():
    values = [None, True, (), (1, 2), StopIteration(5), ValueError(), [[]], StopAsyncIteration()]

    async def main(n):
        send, receive = open_channel(n)
        create_task(send_all(send, values))
        if n:
            await checkpoint()
            first = receive.receive_nowait()
        else:
            first = await receive.receive()
        return [first, *[value async for value in receive]]

    for n in (0, 1, 100):
        assert all(a is b for a, b in zip(virtual(main(n)), values, strict=True))


def test_a_rendezvous_waits_until_somebody_receives():
    async def main():
        send, receive = open_channel(0)
        log = []

        async def sender():
            await send.send("value")
            log.append(("sent", now()))

        create_task(sender())
        await sleep(2)
        assert log == []
        assert await receive.receive() == "value"
        await checkpoint()
        assert log == [("sent", 2.0)]
        with pytest.raises(WouldBlock):
            send.send_nowait("nobody waits")
        task = create_task(receive.receive())
        await checkpoint()
        send.send_nowait("somebody waits")
        with pytest.raises(WouldBlock):
            send.send_nowait("who has got it already")
        return await task

    assert virtual(main()) == "somebody waits"


def test_who_waits_to_send_is_let_in_one_by_one():
    async def main():
        send, receive = open_channel(2)
        log = []

        async def sender(value):
            await send.send(value)
            log.append((now(), value))

        for value in range(5):
            create_task(sender(value))
        await sleep(1)
        assert (repr(send), repr(receive)) == (
            "<SendChannel (2 of 2 buffered), 3 waiting>",
            "<ReceiveChannel (2 of 2 buffered)>",
        )
        got = []
        for _ in range(5):
            got.append(receive.receive_nowait())
            await sleep(1)
        assert got == [0, 1, 2, 3, 4]
        return log

    assert virtual(main()) == [(0.0, 0), (0.0, 1), (1.0, 2), (2.0, 3), (3.0, 4)]


def test_what_need_not_wait_does_not_switch_tasks():
    async def main():
        send, receive = open_channel(1)
        log = []

        async def other():
            log.append("other")

        create_task(other())
        await send.send(1)
        assert await receive.receive() == 1
        await send.send(2)
        send.close()
        assert [value async for value in receive] == [2]
        assert log == []
        await checkpoint()
        assert log == ["other"]

    virtual(main())


def test_receivers_are_served_in_the_order_in_which_they_came():
    async def main():
        send, receive = open_channel(3)
        log = []

        async def receiver(name):
            log.append((name, await receive.receive()))

        for name in "abcde":
            create_task(receiver(name))
        await checkpoint()
        for value in range(5):
            send.send_nowait(value)
        with pytest.raises(WouldBlock):
            receive.receive_nowait()
        await checkpoint()
        return log

    assert virtual(main()) == list(zip("abcde", range(5), strict=True))


@pytest.mark.parametrize("n", [0, 1])
def test_nobody_gets_in_between(n):
    """The next in line has it in the moment in which it is handed over, before it runs."""

    async def main():
        send, receive = open_channel(n)
        waiting = create_task(receive.receive())
        await checkpoint()
        await send.send("first")
        barging = create_task(receive.receive())
        with pytest.raises(WouldBlock):
            receive.receive_nowait()
        assert await waiting == "first"
        await checkpoint()
        send.send_nowait("second")
        assert await barging == "second"

        for _ in range(n):
            send.send_nowait("buffered")
        waiting = create_task(send.send("third"))
        await checkpoint()
        for _ in range(n):
            assert receive.receive_nowait() == "buffered"
        with contextlib.suppress(WouldBlock):
            send.send_nowait("fourth")
            assert n == 0
        assert receive.receive_nowait() == "third"
        await waiting

    virtual(main())


def test_clones_stand_in_one_line():
    async def main():
        send, receive = open_channel(0)
        sends = [send, send.clone(), send.clone()]
        receives = [receive, receive.clone()]
        tasks = [create_task(sends[i % 3].send(i)) for i in range(6)]
        await checkpoint()
        got = [await receives[i % 2].receive() for i in range(6)]
        for task in tasks:
            await task
        return got

    assert virtual(main()) == list(range(6))


def test_a_value_goes_to_one_of_the_clones():
    async def main():
        send, receive = open_channel(0)
        log = []
        async with TaskGroup() as group:
            with receive:
                for tag in "ab":
                    group.create_task(collect(receive.clone(), log, tag))
            await checkpoint()
            await send_all(send, range(4))
        return log

    assert sorted(virtual(main()), key=str) == [
        ("a", "end"), ("a", 0), ("a", 2), ("a", 3), ("b", "end"), ("b", 1),
    ]  # fmt: skip


def test_what_is_awaited_may_be_a_task_and_only_once():
    async def main():
        send, receive = open_channel(1)
        sending = send.send("value")
        await create_task(sending)
        with pytest.raises(RuntimeError, match=r"this SendChannel.send\(\) was awaited before"):
            await sending
        receiving = receive.receive()
        assert await create_task(receiving) == "value"
        with pytest.raises(RuntimeError, match=r"this ReceiveChannel.receive\(\) was awaited"):
            await receiving
        following = anext(receive)
        send.close()
        with pytest.raises(StopAsyncIteration):
            await following
        with pytest.raises(RuntimeError, match="this async for on a ReceiveChannel was awaited"):
            await following

    virtual(main())


# ---- reprs and reports ---------------------------------------------------------------------------


@pytest.mark.usefixtures("forgetful")
def test_the_repr_tells_how_full_it_is_and_what_is_open():
    async def main():
        send, receive = open_channel(3, name="x")
        send.send_nowait(1)
        clone = send.clone()
        assert clone.name == "x"
        assert repr(receive) == (
            "<ReceiveChannel 'x' (1 of 3 buffered, open ends: 2 to send, 1 to receive)>"
        )
        clone.close()
        assert repr(clone) == "<SendChannel 'x' (closed, 1 of 3 buffered)>"
        assert repr(send) == "<SendChannel 'x' (1 of 3 buffered)>"
        unlimited = open_channel(math.inf)
        assert repr(unlimited[0]) == "<SendChannel (0 buffered)>"
        assert unlimited[1].name is None
        assert repr(send.send(1)) == "<SendChannel.send() of SendChannel 'x', not awaited yet>"
        send.send_nowait(2)
        send.send_nowait(3)
        with pytest.raises(
            WouldBlock,
            match=r"^SendChannel.send_nowait\(\) would have to wait: SendChannel 'x' \(full\)$",
        ):
            send.send_nowait(4)
        for end in (send.send, send.clone().send):
            create_task(end(5))
        await checkpoint()
        assert repr(send) == (
            "<SendChannel 'x' (3 of 3 buffered, open ends: 2 to send, 1 to receive), 1 waiting>"
        )
        for _ in range(5):
            receive.receive_nowait()
        with pytest.raises(
            WouldBlock, match=r"_nowait\(\) would have to wait: ReceiveChannel 'x' \(empty\)$"
        ):
            receive.receive_nowait()
        receiving = receive.receive()
        assert repr(receiving) == (
            "<ReceiveChannel.receive() of ReceiveChannel 'x' (empty), not awaited yet>"
        )
        receive.close()
        assert "ReceiveChannel 'x' (closed)" in repr(receiving)

    virtual(main())


def test_waiting_on_is_the_end_and_reports_name_it():
    async def main():
        send, receive = open_channel(0, name="x")
        clone = receive.clone()
        task = create_task(clone.receive(), name="consumer")
        await checkpoint()
        assert task.waiting_on is clone
        assert (
            "Task 'consumer' ReceiveChannel.receive: waiting for ReceiveChannel 'x' (nobody sends)"
            in (format_tasks())
        )
        send.send_nowait(1)
        assert task.waiting_on is None
        task = create_task(send.send(1), name="producer")
        await checkpoint()
        assert task.waiting_on is send
        assert (
            "Task 'producer' SendChannel.send: waiting for SendChannel 'x' (nobody receives)"
            in (format_tasks())
        )
        assert receive.receive_nowait() == 1
        current_task().name = "main"
        await receive.receive()

    with pytest.raises(
        DeadlockError, match=r"(?s)'main' .*waiting for ReceiveChannel 'x' \(nobody sends"
    ):
        virtual(main())


# ---- hostile -------------------------------------------------------------------------------------


def test_a_value_is_never_looked_at():
    class Evil:
        def __eq__(self, other):
            raise AssertionError

        def __bool__(self):
            raise AssertionError

        __hash__ = __repr__ = __await__ = __eq__

    async def main():
        send, receive = open_channel(0)
        value = Evil()
        create_task(send_all(send, [value] * 3))
        assert await receive.receive() is value
        return sum([got is value async for got in receive])

    assert virtual(main()) == 2


def test_references_are_counted():
    async def main(n):
        send, receive = open_channel(n)
        thing = Thing()
        ref = weakref.ref(thing)
        task = create_task(send.send(thing))
        del thing
        await checkpoint()
        assert ref() is not None
        assert await receive.receive() is ref()
        await task
        del task
        assert ref() is None
        thing = Thing()
        ref = weakref.ref(thing)
        task = create_task(send.send(thing))
        second = create_task(send.send(thing))
        del thing
        await checkpoint()
        second.cancel()
        task.cancel()
        await sleep(1)
        del task, second
        if n:
            receive.receive_nowait()
        return ref()

    for n in (0, 1):
        assert virtual(main(n)) is None


def test_a_wait_driven_by_hand():
    async def main():
        send, receive = open_channel(0)
        wait = receive.receive()
        wait.close()
        with pytest.raises(RuntimeError, match="was awaited before"):
            await wait
        wait = receive.receive()
        with pytest.raises(LookupError):
            wait.throw(LookupError)
        wait = receive.receive()
        yielded = wait.send(None)
        assert yielded is wait
        with pytest.raises(RuntimeError):
            wait.send(None)
        with pytest.raises(WouldBlock):
            send.send_nowait("nobody is parked")
        with pytest.raises(LookupError):
            wait.throw(LookupError)
        create_task(send.send("value"))
        await checkpoint()
        with pytest.raises(StopIteration) as caught:
            receive.receive().send(None)
        assert caught.value.value == "value"

    virtual(main())


def test_the_end_is_closed_between_the_await_and_the_parking():
    class Meddler:
        def __init__(self, wait, meddle):
            self.wait, self.meddle = wait, meddle

        def __await__(self):
            self.wait.send(None)
            self.meddle()
            return (yield self.wait)

    async def main():
        send, receive = open_channel(0)
        other = receive.clone()
        with pytest.raises(ClosedResourceError):
            await Meddler(receive.receive(), receive.close)
        with pytest.raises(EndOfChannel):
            await Meddler(other.receive(), send.close)
        send, receive = open_channel(0)
        with pytest.raises(BrokenResourceError):
            await Meddler(send.send(1), receive.close)
        send, receive = open_channel(1)
        wait = receive.receive()
        await Meddler(wait, lambda: send.send_nowait("value"))
        with pytest.raises(StopIteration) as caught:
            wait.send(None)
        assert caught.value.value == "value"

    virtual(main())


def test_the_other_side_is_closed_by_a_dying_value():
    async def main():
        send, receive = open_channel(2)
        other = open_channel(0)
        task = create_task(outcome(other[1].receive()))
        await checkpoint()
        send.send_nowait(OnDel(other[0].close))
        receive.close()
        return await task

    assert type(virtual(main())) is EndOfChannel


@pytest.mark.slow
def test_a_crowd_waits():
    async def main():
        send, receive = open_channel(0)
        tasks = [create_task(receive.receive()) for _ in range(CROWD)]
        await checkpoint()
        for i in range(CROWD // 2):
            send.send_nowait(i)
        for task in reversed(tasks[3 * CROWD // 4 :]):
            task.cancel()
        send.close()
        results = [await outcome(task) for task in tasks[: 3 * CROWD // 4]]
        assert results[: CROWD // 2] == list(range(CROWD // 2))
        assert {type(result) for result in results[CROWD // 2 :]} == {EndOfChannel}

        send, receive = open_channel(10)
        clones = [send.clone() for _ in range(CROWD)]
        tasks = [create_task(outcome(clone.send(i))) for i, clone in enumerate(clones)]
        await checkpoint()
        for clone in clones[: CROWD // 2]:
            clone.close()
        got = [receive.receive_nowait() for _ in range(CROWD // 2 + 10)]
        assert got == [*range(10), *range(CROWD // 2, CROWD)]
        await tasks[-1]

    virtual(main())
