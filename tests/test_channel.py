"""open_channel(): what is sent, who gets it, and how it ends."""

import contextlib
import copy
import gc
import math
import threading
import weakref
from decimal import Decimal
from typing import Any

import pytest

import sleeploop
from sleeploop import (
    BrokenResourceError,
    CancelledError,
    CancelScope,
    ClosedResourceError,
    DeadlockError,
    EndOfChannel,
    ReceiveChannel,
    SendChannel,
    SleepingLoop,
    TaskGroup,
    WouldBlock,
    checkpoint,
    create_task,
    current_task,
    format_tasks,
    move_on_after,
    open_channel,
    sleep,
)
from tests.helpers import OnDel, awaited_error, cancel_at, now, outcome, virtual


async def collect(receive: Any, log: list[Any], tag: object = None) -> None:
    async for value in receive:
        log.append(value if tag is None else (tag, value))
    log.append("end" if tag is None else (tag, "end"))


async def send_all(send: Any, values: Any) -> None:
    with send:
        for value in values:
            await send.send(value)


class Thing:
    """Something to refer to weakly."""


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


# ---- how it ends ---------------------------------------------------------------------------------


def test_when_all_send_ends_are_closed_what_is_left_is_received_and_then_the_end():
    async def main():
        send, receive = open_channel(5)
        other = send.clone()
        for end in (send, other):
            end.send_nowait(1)
            end.send_nowait(2)
        send.close()
        assert await receive.receive() == 1
        other.close()
        assert receive.receive_nowait() == 2
        assert [value async for value in receive] == [1, 2]
        for _ in range(2):
            with pytest.raises(EndOfChannel, match=r"receive\(\): ReceiveChannel: all send ends"):
                await receive.receive()
            with pytest.raises(EndOfChannel, match=r"receive_nowait\(\): ReceiveChannel: all"):
                receive.receive_nowait()
            assert [value async for value in receive] == []

    virtual(main())


def test_the_last_send_end_wakes_those_who_wait_to_receive():
    async def main():
        send, receive = open_channel(3, name="numbers")
        other = send.clone()
        log = []
        tasks = [create_task(outcome(end.receive())) for end in (receive, receive.clone())]
        create_task(collect(receive, log))
        await sleep(1)
        send.close()
        await sleep(1)
        assert not any(task.done() for task in tasks)
        other.close()
        errors = [await task for task in tasks]
        assert [type(error) for error in errors] == [EndOfChannel, EndOfChannel]
        assert str(errors[0]) == (
            "ReceiveChannel.receive(): ReceiveChannel 'numbers': "
            "all send ends are closed, and nothing is left"
        )
        assert log == ["end"]

    virtual(main())


def test_the_last_receive_end_wakes_those_who_wait_to_send_and_drops_what_is_buffered():
    async def main():
        send, receive = open_channel(2, name="numbers")
        other = receive.clone()
        things = [Thing() for _ in range(4)]
        refs = [weakref.ref(thing) for thing in things]
        tasks = [create_task(outcome(send.send(thing))) for thing in things]
        del things
        await sleep(1)
        receive.close()
        await sleep(1)
        assert [task.done() for task in tasks] == [True, True, False, False]
        assert all(ref() for ref in refs)
        other.close()
        assert [ref() is None for ref in refs] == [True, True, False, False]
        errors = [await task for task in tasks]
        assert errors[:2] == [None, None]
        assert [type(error) for error in errors[2:]] == [BrokenResourceError] * 2
        assert str(errors[2]) == (
            "SendChannel.send(): SendChannel 'numbers': no receive end is open any more"
        )
        with pytest.raises(
            BrokenResourceError, match=r"send_nowait\(\): SendChannel 'numbers': no"
        ):
            send.send_nowait(1)
        with pytest.raises(BrokenResourceError):
            await send.send(1)
        del tasks, errors  # whose traceback leads to what was not sent
        assert not any(ref() for ref in refs)
        assert repr(send) == (
            "<SendChannel 'numbers' (0 of 2 buffered, open ends: 1 to send, 0 to receive)>"
        )

    virtual(main())


def test_closing_a_clone_wakes_only_those_who_wait_on_it():
    async def main():
        send, receive = open_channel(0, name="x")
        ends = [receive, receive.clone(), receive.clone()]
        tasks = [create_task(outcome(ends[i % 3].receive())) for i in range(6)]
        await checkpoint()
        ends[1].close()
        await sleep(1)
        assert [task.done() for task in tasks] == [False, True, False] * 2
        assert str(await tasks[1]) == (
            "ReceiveChannel.receive(): ReceiveChannel 'x' has been closed"
        )
        assert [type(await tasks[i]) for i in (1, 4)] == [ClosedResourceError] * 2
        for i in range(4):
            await send.send(i)
        assert [await tasks[i] for i in (0, 2, 3, 5)] == [0, 1, 2, 3]

        sends = [send, send.clone(), send.clone()]
        tasks = [create_task(outcome(sends[i % 3].send(i))) for i in range(6)]
        await checkpoint()
        sends[2].close()
        await sleep(1)
        assert [type(await tasks[i]) for i in (2, 5)] == [ClosedResourceError] * 2
        assert [await receive.receive() for _ in range(4)] == [0, 1, 3, 4]
        assert [await tasks[i] for i in (0, 1, 3, 4)] == [None] * 4

    virtual(main())


def test_closing_wakes_in_the_order_in_which_they_came():
    async def main():
        send, receive = open_channel(0)
        log = []

        async def receiver(end, name):
            error = await outcome(end.receive())
            log.append((name, type(error)))

        clone = receive.clone()
        for name in range(6):
            create_task(receiver(clone if name % 2 else receive, name))
        await checkpoint()
        clone.close()
        send.close()
        await checkpoint()
        return log

    assert virtual(main()) == [(n, ClosedResourceError) for n in (1, 3, 5)] + [
        (n, EndOfChannel) for n in (0, 2, 4)
    ]


def test_a_closed_end_refuses_everything():
    async def main():
        send, receive = open_channel(3, name="x")
        kept = send.clone(), receive.clone()
        send.send_nowait("value")
        for end in (send, receive):
            assert end.closed is False
            end.close()
            assert end.closed is True
            end.close()
            await end.aclose()
        for call in (send.send_nowait, send.send):
            with pytest.raises(ClosedResourceError, match=r"send.*\(\): SendChannel 'x' has been"):
                await call("value")
        with pytest.raises(
            ClosedResourceError, match=r"receive_nowait\(\): ReceiveChannel 'x' has"
        ):
            receive.receive_nowait()
        with pytest.raises(ClosedResourceError, match=r"receive\(\): ReceiveChannel 'x' has been"):
            await receive.receive()
        with pytest.raises(ClosedResourceError, match="async for on a ReceiveChannel: "):
            [value async for value in receive]
        for end in (send, receive):
            with pytest.raises(ClosedResourceError, match=r"\.clone\(\)"):
                end.clone()
            with end:
                pass
            async with end as entered:
                assert entered is end
        assert kept[1].receive_nowait() == "value"
        kept[1].close()
        with pytest.raises(ClosedResourceError):  # rather than the other side's being closed
            await send.send("value")

    virtual(main())


@pytest.mark.parametrize("which", [0, 1])
def test_with_closes_in_the_end(which):
    async def main():
        end = open_channel(3)[which]
        with end as entered:
            assert entered is end
            assert not end.closed
        assert end.closed
        end = open_channel(3)[which]
        with pytest.raises(LookupError):  # noqa: PT012
            async with end as entered:
                assert entered is end
                raise LookupError
        assert end.closed
        end = open_channel(3)[which]
        async with contextlib.aclosing(end) as entered:
            assert entered is end
        assert end.closed
        async with contextlib.AsyncExitStack() as stack:
            end = await stack.enter_async_context(open_channel(3)[which])
            assert not end.closed
        assert end.closed

    virtual(main())
    for end in open_channel(3):
        for name in ("__exit__", "__aexit__"):
            with pytest.raises(TypeError, match=rf"{name}\(\) takes 3 arguments, not 0"):
                getattr(end, name)()
            with pytest.raises(TypeError, match="takes an exception, not 5"):
                getattr(end, name)(None, 5, None)
        assert not end.closed


def test_an_end_is_closed_in_a_cancelled_scope_as_well():
    async def main():
        send, receive = open_channel(3)
        with CancelScope() as scope:
            scope.cancel()
            async with send:
                await send.aclose()
            assert send.closed
            await receive.aclose()
            await checkpoint()
            pytest.fail("it goes on")
        assert receive.closed

    virtual(main())


def test_closing_while_one_is_on_its_way():
    """What has been handed over has been, whatever is closed before the task runs."""

    async def main():
        send, receive = open_channel(0)
        task = create_task(receive.receive())
        await checkpoint()
        await send.send("value")
        receive.close()
        send.close()
        assert await task == "value"

        send, receive = open_channel(0)
        task = create_task(send.send("value"))
        await checkpoint()
        assert receive.receive_nowait() == "value"
        send.close()
        receive.close()
        assert await task is None

    virtual(main())


def test_the_first_reason_counts():
    async def main():
        send, receive = open_channel(0)
        task = create_task(outcome(receive.receive()))
        await checkpoint()
        send.close()
        receive.close()
        assert type(await task) is EndOfChannel

        send, receive = open_channel(0)
        task = create_task(outcome(receive.receive()))
        await checkpoint()
        receive.close()
        send.close()
        assert type(await task) is ClosedResourceError

        send, receive = open_channel(0)
        task = create_task(outcome(send.send(1)))
        await checkpoint()
        receive.close()
        send.close()
        assert type(await task) is BrokenResourceError

    virtual(main())


def test_the_body_of_a_loop_closes_the_end_that_it_iterates():
    async def main():
        send, receive = open_channel(5)
        for i in range(3):
            send.send_nowait(i)
        with pytest.raises(ClosedResourceError):  # noqa: PT012
            async for value in receive:
                if value == 1:
                    receive.close()
        return repr(send)

    assert "0 of 5 buffered" in virtual(main())


# ---- ends that are dropped -----------------------------------------------------------------------


def test_a_dropped_end_counts_as_closed():
    async def main():
        send, receive = open_channel(5)
        other = send.clone()
        task = create_task(receive.receive())
        await checkpoint()
        del send
        await sleep(1)
        assert not task.done()
        other.send_nowait(1)
        other.send_nowait(2)
        del other
        assert await task == 1
        assert [value async for value in receive] == [2]

        send, receive = open_channel(0)
        task = create_task(outcome(send.send("value")))
        await checkpoint()
        del receive
        assert type(await task) is BrokenResourceError

    virtual(main())


@pytest.mark.parametrize("how", ["returns", "fails", "is cancelled"])
def test_the_consumer_of_a_producer_that_is_gone_ends(how):
    async def produce(send):
        await send.send(1)
        if how == "fails":
            raise LookupError
        if how == "is cancelled":
            await sleep(math.inf)

    async def main():
        send, receive = open_channel(0)
        task = create_task(produce(send))
        del send
        log = []
        consumer = create_task(collect(receive, log))
        await sleep(1)
        task.cancel()
        if how == "fails":
            with pytest.raises(LookupError):
                await task
            assert log == [1]  # the traceback keeps the end, and the task its error
        del task
        await consumer
        return log

    assert virtual(main()) == [1, "end"]


def test_the_consumer_of_a_producer_that_fails_in_a_block_ends():
    async def produce(send):
        with send:
            await send.send(1)
            raise LookupError

    async def main():
        send, receive = open_channel(0)
        task = create_task(produce(send))
        log = []
        await collect(receive, log)
        with pytest.raises(LookupError):
            await task
        return log

    assert virtual(main()) == [1, "end"]


def test_whoever_waits_or_will_keeps_its_end():
    async def main():
        send, receive = open_channel(0)
        sending, receiving = send.send("value"), receive.receive()
        del send, receive
        task = create_task(receiving)
        await checkpoint()
        await sending
        assert await task == "value"

    virtual(main())


def test_an_end_in_a_cycle_is_closed_when_the_cycle_is_collected():
    async def main():
        send, receive = open_channel(5)
        box = [send]
        box.append(box)
        task = create_task(receive.receive())
        await checkpoint()
        del send, box
        gc.collect()
        return await outcome(task)

    assert type(virtual(main())) is EndOfChannel


def test_finalizers_in_a_cycle_find_its_ends_open():
    async def produce(send, box):
        try:
            await sleep(1)
        finally:
            send.send_nowait(send.closed)

    async def main():
        send, receive = open_channel(math.inf)
        for _ in range(20):
            box = [send.clone()]
            box.append(produce(box[0], box))
            box[1].send(None)
        del send, box
        gc.collect()
        return [value async for value in receive]

    assert virtual(main()) == [False] * 20


def test_a_channel_in_a_cycle_through_what_is_buffered():
    ends = [*open_channel(5), *open_channel(5)]
    refs = [weakref.ref(end) for end in ends]
    ends[0].send_nowait(ends)
    ends[2].send_nowait((ends[1], OnDel(lambda: log.append(ends_seen()))))

    def ends_seen():
        return [ref() is not None for ref in refs]

    log = []
    del ends
    gc.collect()
    assert [ref() for ref in refs] == [None] * 4
    assert len(log) == 1


@pytest.mark.filterwarnings("ignore:.*was neither closed nor run")
def test_a_channel_in_a_cycle_through_who_waits():
    async def wait(box):
        await box[0].send(box)

    box = list(open_channel(0))
    refs = [weakref.ref(end) for end in box]
    loop = SleepingLoop(wait(box), wait(box), speed=math.inf)
    loop.step()
    assert repr(box[0]) == "<SendChannel (0 of 0 buffered), 2 waiting>"
    box.append(loop)
    del box, loop
    gc.collect()
    assert [ref() for ref in refs] == [None] * 2


def test_a_chain_of_channels_is_freed_without_recursion():
    held = Thing()
    last = weakref.ref(held)
    for _ in range(100_000):
        send, receive = open_channel(1)
        send.send_nowait(held)
        held = receive
        del send
    del receive, held
    assert last() is None


def test_a_chain_of_channels_is_closed_without_recursion():
    held = Thing()
    last = weakref.ref(held)
    for _ in range(100_000):
        send, receive = open_channel(1)
        send.send_nowait((held, send))
        held = receive
    with held:
        del send, receive
    assert last() is None


@pytest.mark.parametrize("drop", ["close", "del"])
def test_what_is_dropped_may_use_the_channel(drop):
    def evil():
        seen.append(repr(send))
        for attempt in (lambda: send.send_nowait(1), send.clone, lambda: receives.clear()):
            try:
                attempt()
            except BrokenResourceError as error:
                seen.append(type(error))
        gc.collect()

    seen = []
    send, receive = open_channel(5, name="x")
    for _ in range(3):
        send.send_nowait(OnDel(evil))
    receives = [receive]
    del receive
    if drop == "close":
        receives[0].close()
    else:
        receives.clear()
    assert len(seen) == 6
    assert seen[1] is BrokenResourceError


def test_what_is_dropped_may_wait_for_the_end_of_the_channel():
    """The value's death is the death of the send end that its receiver waits for."""

    async def main():
        first, second = open_channel(3), open_channel(3)
        task = create_task(outcome(second[1].receive()))
        await checkpoint()
        first[0].send_nowait(second[0])
        del second
        first[1].close()
        return await task

    assert type(virtual(main())) is EndOfChannel


@pytest.mark.realtime
def test_an_end_dropped_in_another_thread_wakes_a_loop_that_waits_for_time():
    async def main():
        send, receive = open_channel(0)
        ends.append(send)
        del send
        threading.Timer(0.05, ends.clear).start()
        with move_on_after(60):
            return [value async for value in receive]

    ends = []
    assert sleeploop.run(main()) == []


def test_weak_references():
    send, receive = open_channel(1)
    log = []
    refs = [weakref.ref(end, lambda ref: log.append(ref())) for end in (send, receive)]
    assert [ref() for ref in refs] == [send, receive]
    del send, receive
    assert log == [None, None]


# ---- cancelled -----------------------------------------------------------------------------------


def test_a_send_that_was_cancelled_has_not_been_sent():
    async def main():
        send, receive = open_channel(1)
        await send.send("buffered")
        log = []

        async def sender(value, seconds):
            with move_on_after(seconds):
                await send.send(value)
                log.append(value)

        for value, seconds in (("a", 9), ("b", 1), ("c", 9)):
            create_task(sender(value, seconds))
        await sleep(2)
        got = [await receive.receive() for _ in range(3)]
        await checkpoint()
        assert log == ["a", "c"]
        with pytest.raises(WouldBlock):
            receive.receive_nowait()
        return got

    assert virtual(main()) == ["buffered", "a", "c"]


def test_a_receive_that_was_cancelled_has_taken_nothing():
    async def main():
        send, receive = open_channel(1)
        scope = CancelScope()

        async def receiver():
            with scope:
                await receive.receive()

        create_task(receiver())
        task = create_task(receive.receive())
        await checkpoint()
        scope.cancel()
        send.send_nowait("value")
        assert await task == "value"

    virtual(main())


@pytest.mark.parametrize("n", [0, 1])
def test_in_a_cancelled_scope_nothing_is_done(n):
    async def main():
        send, receive = open_channel(n)
        if n:
            send.send_nowait("value")
        else:
            create_task(send.send("value"))
        await checkpoint()
        with CancelScope() as scope:
            scope.cancel("no")
            await awaited_error(receive.receive())
            await awaited_error(anext(receive))
        assert receive.receive_nowait() == "value"
        task = None if n else create_task(receive.receive())
        await checkpoint()
        with CancelScope() as scope:
            scope.cancel("no")
            await awaited_error(send.send("more"))
        with pytest.raises(WouldBlock):
            receive.receive_nowait()
        send.close()
        if task is not None:
            assert type(await outcome(task)) is EndOfChannel

    virtual(main())


def test_granted_and_then_cancelled_it_has_it():
    async def main():
        send, receive = open_channel(0)
        log = []

        async def use(awaitable):
            with scope:
                log.append(await awaitable)
                await checkpoint()
                log.append("not cancelled")

        scope = CancelScope()
        create_task(use(receive.receive()))
        await checkpoint()
        send.send_nowait("value")
        scope.cancel()
        await checkpoint()
        assert log == ["value"]

        scope = CancelScope()
        create_task(use(send.send("other")))
        await checkpoint()
        assert receive.receive_nowait() == "other"
        scope.cancel()
        await checkpoint()
        assert log == ["value", None]

    virtual(main())


def test_refused_and_then_cancelled_it_is_refused():
    async def main():
        send, receive = open_channel(0)
        scope = CancelScope()

        async def receiver():
            with scope:
                return await outcome(receive.receive())

        task = create_task(receiver())
        await checkpoint()
        send.close()
        scope.cancel()
        return await task

    assert type(virtual(main())) is EndOfChannel


def test_cancelled_and_then_closed_it_is_cancelled():
    async def main():
        send, receive = open_channel(0)
        tasks = [create_task(receive.receive()), create_task(receive.receive())]
        await checkpoint()
        tasks[0].cancel("first")
        second = create_task(outcome(tasks[1]))
        await checkpoint()
        assert repr(receive) == "<ReceiveChannel (0 of 0 buffered), 1 waiting>"
        receive.close()
        send.close()
        assert "first" in str(await awaited_error(tasks[0]))
        assert type(await second) is ClosedResourceError

    virtual(main())


def test_a_timeout_while_iterating():
    async def main():
        send, receive = open_channel(0)
        got = []
        create_task(send_slowly(send))
        with move_on_after(2.5):
            await collect(receive, got)
        return [*got, await receive.receive()]

    async def send_slowly(send):
        for i in range(4):
            await sleep(1)
            await send.send(i)

    assert virtual(main()) == [0, 1, 2]


def test_many_are_cancelled_at_once():
    async def main():
        send, receive = open_channel(0)
        with CancelScope() as scope:
            async with TaskGroup() as group:
                for i in range(1000):
                    group.create_task(send.send(i))
                create_task(cancel_at(1, scope))
        assert repr(send) == "<SendChannel (0 of 0 buffered)>"
        with pytest.raises(WouldBlock):
            receive.receive_nowait()
        return now()

    assert virtual(main()) == 1.0


# ---- given back ----------------------------------------------------------------------------------


class Half:
    """A task's coroutine that drives another one, and may let go of it."""

    def __init__(self, coro: Any) -> None:
        self.coro = coro

    def send(self, value: Any) -> Any:
        if self.coro is None:
            raise StopIteration("let go")
        return self.coro.send(value)

    def throw(self, exc: BaseException) -> Any:
        raise exc

    def close(self) -> None:
        pass

    def let_go(self) -> None:
        coro, self.coro = self.coro, None
        coro.close()


async def received(receive: Any) -> Any:
    return await receive.receive()


async def next_of(receive: Any) -> Any:
    return await anext(receive)


@pytest.mark.parametrize("how", [received, next_of])
def test_a_value_that_nobody_learned_of_goes_back_to_the_front(how):
    async def main():
        send, receive = open_channel(1)
        halves = [Half(how(receive)) for _ in range(2)]
        for half in halves:
            create_task(half)
        await checkpoint()
        for value in "abc":
            send.send_nowait(value)
        halves[1].let_go()
        halves[0].let_go()
        assert repr(receive) == "<ReceiveChannel (3 of 1 buffered)>"
        with pytest.raises(WouldBlock):
            send.send_nowait("d")
        task = create_task(send.send("d"))
        await checkpoint()
        got = [receive.receive_nowait(), receive.receive_nowait()]
        assert not (await outcome(sleep(0)), task.done())[1]
        got += [receive.receive_nowait(), receive.receive_nowait()]
        await task
        return got

    assert virtual(main()) == list("abcd")


def test_a_value_that_nobody_learned_of_goes_to_who_waits_next():
    async def main():
        send, receive = open_channel(0)
        half = Half(received(receive))
        create_task(half)
        await checkpoint()
        tasks = [create_task(receive.receive()) for _ in range(2)]
        await checkpoint()
        send.send_nowait("first")
        half.let_go()
        await checkpoint()
        assert [task.done() for task in tasks] == [True, False]
        send.send_nowait("second")
        return [await task for task in tasks]

    assert virtual(main()) == ["first", "second"]


def test_what_came_back_is_received_rather_than_the_end():
    """Whoever has been told of the end, but has not run yet, gets it."""

    async def main():
        send, receive = open_channel(0)
        half = Half(received(receive))
        create_task(half)
        await checkpoint()
        log = []
        create_task(collect(receive, log))
        await checkpoint()
        send.send_nowait("value")
        send.close()
        half.let_go()
        await sleep(1)
        return log

    assert virtual(main()) == ["value", "end"]


def test_what_came_back_is_not_for_an_end_that_has_been_closed_since():
    async def main():
        send, receive = open_channel(0)
        clone = receive.clone()
        half = Half(received(receive))
        create_task(half)
        await checkpoint()
        task = create_task(outcome(clone.receive()))
        await checkpoint()
        send.send_nowait("value")
        send.close()
        clone.close()
        half.let_go()
        assert type(await task) is EndOfChannel
        return receive.receive_nowait()

    assert virtual(main()) == "value"


def test_what_came_back_when_nobody_can_receive_it_is_dropped():
    async def main():
        send, receive = open_channel(0)
        half = Half(received(receive))
        create_task(half)
        await checkpoint()
        thing = Thing()
        ref = weakref.ref(thing)
        await send.send(thing)
        del thing
        receive.close()
        assert ref() is not None
        half.let_go()
        assert ref() is None
        return repr(send)

    assert virtual(main()).startswith("<SendChannel (0 of 0 buffered")


def test_a_send_that_nobody_learned_of_has_been_sent():
    async def main():
        send, receive = open_channel(0)

        async def sender():
            await send.send("value")

        half = Half(sender())
        create_task(half)
        await checkpoint()
        assert receive.receive_nowait() == "value"
        half.let_go()
        with pytest.raises(WouldBlock):
            receive.receive_nowait()

    virtual(main())


def test_a_coroutine_that_is_closed_while_it_is_parked():
    async def main():
        send, receive = open_channel(0)
        half, other = Half(received(receive)), create_task(receive.receive())
        task = create_task(half)
        await checkpoint()
        half.let_go()
        await send.send("first")
        send.send_nowait("second")
        return await outcome(other), await outcome(task)

    first, second = virtual(main())
    assert (first, second) == ("first", "let go")


# ---- loops, threads, no loop ---------------------------------------------------------------------


def test_without_a_loop():
    send, receive = open_channel(2)
    send.send_nowait(1)
    with pytest.raises(RuntimeError, match=r"SendChannel.send\(\) needs a running loop"):
        send.send(2).send(None)
    with pytest.raises(RuntimeError, match=r"ReceiveChannel.receive\(\) needs a running loop"):
        receive.receive().send(None)
    with pytest.raises(RuntimeError, match="async for on a ReceiveChannel needs a running loop"):
        receive.__anext__().send(None)
    assert receive.receive_nowait() == 1
    with send, receive:
        pass
    assert send.closed
    assert receive.closed


def test_a_channel_goes_from_loop_to_loop():
    async def put():
        for i in range(3):
            await send.send(i)

    async def get():
        return [await receive.receive() for _ in range(3)]

    send, receive = open_channel(3)
    for _ in range(3):
        virtual(put())
        assert virtual(get()) == [0, 1, 2]


@pytest.mark.parametrize("clone", [False, True])
@pytest.mark.parametrize("waiting", ["sender", "receiver"])
def test_while_tasks_of_a_loop_wait_another_one_is_refused(waiting, clone):
    """At whichever end, of which each has a loop that used it."""

    async def wait():
        await (send.send("theirs") if waiting == "sender" else receive.receive())

    async def main():
        used = (send.clone(), receive.clone()) if clone else (send, receive)
        for call in (lambda: used[0].send("ours"), used[1].receive):
            with pytest.raises(RuntimeError, match=r"Channel.*belongs to another loop, whose task"):
                await call()

    send, receive = open_channel(0)
    virtual(touch_both(*open_channel(1)))
    loop = SleepingLoop(wait(), speed=math.inf)
    loop.step()
    virtual(main())
    if waiting == "sender":
        assert receive.receive_nowait() == "theirs"
    else:
        send.send_nowait("ours")
    loop.run_until_complete()
    virtual(touch_both(send, receive, buffered=False))


async def touch_both(send, receive, *, buffered=True):
    if buffered:
        await send.send(1)
        assert await receive.receive() == 1
    else:
        task = create_task(receive.receive())
        await checkpoint()
        await send.send(1)
        assert await task == 1


def test_what_is_on_its_way_keeps_another_loop_out():
    async def main():
        with pytest.raises(RuntimeError, match="belongs to another loop"):
            await send.send(2)

    send, receive = open_channel(5)
    loop = SleepingLoop(receive.receive(), speed=math.inf)
    loop.step()
    send.send_nowait(1)
    virtual(main())
    assert loop.run_until_complete() == [1]
    virtual(touch_both(send, receive))


def test_another_thread_is_refused_and_breaks_nothing():
    async def main():
        send, receive = open_channel(3, name="x")
        send.send_nowait(1)
        clone = receive.clone()
        assert await clone.receive() == 1
        del clone
        errors = []

        def call(function, *args):
            try:
                function(*args)
            except RuntimeError as error:
                errors.append(str(error))

        async def use(end):
            await (end.send(5) if end is send else end.receive())

        def thread():
            call(send.send_nowait, 1)
            call(receive.receive_nowait)
            for end in (send, receive):
                call(end.close)
                call(end.clone)
                call(end.__exit__, None, None, None)
                call(virtual, use(end))

        other = threading.Thread(target=thread)
        other.start()
        other.join()
        assert len(errors) == 10
        assert errors[0] == (
            "SendChannel.send_nowait(): <SendChannel 'x' (0 of 3 buffered)> is used by a loop that "
            "runs in another thread; have it called there, by loop.call_soon_threadsafe()"
        )
        assert all("is used by a loop that runs in another thread" in error for error in errors)
        await send.send(2)
        assert await receive.receive() == 2
        return send.closed, receive.closed

    assert sleeploop.run(main(), speed=math.inf) == (False, False)


def test_the_loop_counts_that_uses_the_channel_at_whichever_end():
    async def use(wait):
        return await wait

    async def main():
        send, receive = open_channel(3, name="x")
        wait = receive.receive()
        await send.send(1)
        errors = []

        def thread():
            errors.append(outcome_of(lambda: virtual(use(wait))))

        other = threading.Thread(target=thread)
        other.start()
        other.join()
        assert "is used by a loop that runs in another thread" in str(errors[0])
        return await receive.receive()

    assert sleeploop.run(main(), speed=math.inf) == 1


def outcome_of(call):
    try:
        return call()
    except RuntimeError as error:
        return error


class InAThread:
    """Runs a loop in another thread, until the block is left."""

    def __init__(self, coro: Any = None, loop: SleepingLoop | None = None) -> None:
        self.loop = loop or SleepingLoop(coro, speed=math.inf)

    def __enter__(self) -> None:
        used, self.go_on = threading.Event(), threading.Event()

        async def stay():
            await sleep(1)
            used.set()
            await sleeploop.to_thread(self.go_on.wait)

        self.loop.create_task(stay())
        self.thread = threading.Thread(target=self.loop.run_until_complete)
        self.thread.start()
        used.wait()

    def __exit__(self, *args: object) -> None:
        self.go_on.set()
        self.thread.join()


def test_an_end_belongs_to_the_loop_that_uses_a_clone_of_it():
    send, receive = open_channel(3)
    clones = send.clone(), receive.clone()
    virtual(touch_both(send, receive))
    with InAThread(touch_both(*clones)):
        for end in (send, receive):
            for call in (end.close, end.clone):
                assert "runs in another thread" in str(outcome_of(call))
        assert "runs in another thread" in str(outcome_of(receive.receive_nowait))
        assert "runs in another thread" in str(outcome_of(lambda: send.send_nowait(1)))
        assert "runs in another thread" in str(
            outcome_of(lambda: virtual(touch_both(send, receive)))
        )
    virtual(touch_both(send, receive))


def test_a_loop_that_used_an_end_is_forgotten_when_another_uses_the_channel():
    send, receive = open_channel(3)
    clones = send.clone(), receive.clone()
    first = SleepingLoop(touch_both(send, receive), speed=math.inf)
    first.step()
    virtual(touch_both(*clones))
    with InAThread(loop=first):
        virtual(touch_both(send, receive))
        with send, receive:
            pass
    assert send.closed


@pytest.mark.filterwarnings("ignore:.*was neither closed nor run")
def test_a_loop_is_dropped_while_its_tasks_wait():
    async def wait(awaitable):
        with contextlib.suppress(RuntimeError):
            await awaitable

    send, receive = open_channel(0)
    loop = SleepingLoop(wait(send.send(1)), wait(send.send(2)), speed=math.inf)
    loop.step()
    del loop
    gc.collect()
    assert repr(send) == "<SendChannel (0 of 0 buffered)>"
    with pytest.raises(WouldBlock):
        receive.receive_nowait()
    loop = SleepingLoop(wait(receive.receive()), speed=math.inf)
    loop.step()
    del loop
    gc.collect()
    assert repr(receive) == "<ReceiveChannel (0 of 0 buffered)>"
    virtual(touch_both(send, receive, buffered=False))


def test_a_run_that_ends_cancels_those_who_wait():
    async def main():
        create_task(wait())
        await checkpoint()

    async def wait():
        try:
            await receive.receive()
        except CancelledError:
            log.append("cancelled")
            raise

    send, receive = open_channel(0)
    log = []
    virtual(main())
    assert log == ["cancelled"]
    with pytest.raises(WouldBlock):
        send.send_nowait(1)


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
def test_a_hundred_thousand_wait():
    many = 100_000

    async def main():
        send, receive = open_channel(0)
        tasks = [create_task(receive.receive()) for _ in range(many)]
        await checkpoint()
        for i in range(many // 2):
            send.send_nowait(i)
        for task in reversed(tasks[3 * many // 4 :]):
            task.cancel()
        send.close()
        results = [await outcome(task) for task in tasks[: 3 * many // 4]]
        assert results[: many // 2] == list(range(many // 2))
        assert {type(result) for result in results[many // 2 :]} == {EndOfChannel}

        send, receive = open_channel(10)
        clones = [send.clone() for _ in range(many)]
        tasks = [create_task(outcome(clone.send(i))) for i, clone in enumerate(clones)]
        await checkpoint()
        for clone in clones[: many // 2]:
            clone.close()
        got = [receive.receive_nowait() for _ in range(many // 2 + 10)]
        assert got == [*range(10), *range(many // 2, many)]
        await tasks[-1]

    virtual(main())
