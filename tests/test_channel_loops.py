"""Channels: between loops and threads, and without a loop."""

import contextlib
import gc
import math
import threading
from typing import Any

import pytest

import sleeploop
from sleeploop import (
    CancelledError,
    SleepingLoop,
    WouldBlock,
    checkpoint,
    create_task,
    open_channel,
    sleep,
)
from tests.helpers import virtual

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
