"""Channels: how they end, by close() or by an end that is dropped."""

import contextlib
import gc
import math
import threading
import weakref

import pytest

import sleeploop
from sleeploop import (
    BrokenResourceError,
    CancelScope,
    ClosedResourceError,
    EndOfChannel,
    SleepingLoop,
    checkpoint,
    create_task,
    move_on_after,
    open_channel,
    sleep,
)
from tests.helpers import OnDel, Thing, outcome, virtual
from tests.waits import collect

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
