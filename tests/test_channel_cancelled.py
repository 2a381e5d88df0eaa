"""Channels: tasks that are cancelled at them, and what nobody learned of."""

import weakref
from typing import Any

import pytest

from sleeploop import (
    CancelScope,
    ClosedResourceError,
    EndOfChannel,
    TaskGroup,
    WouldBlock,
    checkpoint,
    create_task,
    move_on_after,
    open_channel,
    sleep,
)
from tests.helpers import Thing, awaited_error, cancel_at, now, outcome, virtual
from tests.waits import collect

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
