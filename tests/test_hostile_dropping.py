"""Loops that are dropped and kept, or dropped at a bad moment: no crash, and no noise."""

import gc
import math
import sys
import warnings

import pytest
from _sleeploop import _stop

from sleeploop import (
    CancelScope,
    Lock,
    LoopClosedError,
    SleepingLoop,
    TaskGroup,
    as_completed,
    create_task,
    current_loop,
    every,
    gather,
    sleep,
    sleep_forever,
    timeout,
    wait_for,
)
from tests.helpers import give, virtual_loop

# ---- resurrection ------------------------------------------------------------------------------

kept = []


class Phoenix(SleepingLoop):
    def __del__(self):
        kept.append(self)


class Rescuer:
    def __init__(self, loop):
        self.loop = loop

    def __del__(self):
        kept.append(self.loop)


async def guarded(*_):
    with CancelScope(deadline=50):
        await sleep(20)


async def join(task):
    await task


def fill(loop):
    """A loop that has not begun, in cycles with tasks that will wait in various places."""
    first = loop.create_task(guarded(Rescuer(loop) if type(loop) is SleepingLoop else None))
    loop.create_task(join(first))
    loop.create_task(join(first))


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@pytest.mark.parametrize("kind", [SleepingLoop, Phoenix])
def test_a_loop_that_somebody_keeps_when_it_is_dropped_never_runs(kind):
    """Else its tasks would be parked when it is dropped again, without a finalizer to help."""
    fill(kind(speed=math.inf, trace=True))
    gc.collect()
    loop = kept.pop()
    with pytest.raises(LoopClosedError):
        loop.step()
    with pytest.raises(LoopClosedError):
        loop.run_until(1)
    assert len(loop.tasks()) == 3
    loop.tasks()[0].cancel()
    del loop
    gc.collect()
    assert kept == []


def test_a_suspended_loop_that_somebody_keeps_is_closed():
    log = []

    async def main():
        try:
            await sleep(100)
        finally:
            log.append("closed")

    loop = Phoenix(main(), speed=math.inf)
    loop.run_until(1)
    del loop
    with pytest.warns(ResourceWarning, match="neither closed nor run"):
        gc.collect()
    assert log == ["closed"]
    loop = kept.pop()
    assert loop.tasks() == []
    with pytest.raises(LoopClosedError):
        loop.step()


def test_a_finalizer_may_drive_the_loop_on():
    log = []

    class Driven(SleepingLoop):
        def __del__(self):
            self.run_until(10)
            self.create_task(note(20))

    async def note(when):
        await sleep(when)
        log.append(when)
        await sleep_forever()

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loop = Driven(speed=math.inf)
        loop.create_task(note(5))
        loop.run_until(1)
        del loop
        gc.collect()
        gc.collect()
    assert log == [5]
    assert [w.category for w in caught] == [ResourceWarning]


# ---- dropped, in silence -----------------------------------------------------------------------


async def in_scope():
    with CancelScope():
        await sleep(100)


async def in_group():
    async with TaskGroup() as group:
        group.create_task(sleep(100))
        await sleep(50)


async def at_the_end_of_a_group():
    async with TaskGroup() as group:
        group.create_task(in_group())


async def in_timeout():
    async with timeout(1000):
        await gather(sleep(100), in_scope())


async def in_as_completed():
    async for task in as_completed([sleep(100), sleep(50)]):
        await task


async def in_start():
    async def slow(*, started):
        await sleep(60)

    async with TaskGroup() as group:
        await group.start(slow)


async def in_every():
    with CancelScope():
        async for _ in every(3):
            pass


async def in_wait_for():
    await wait_for(sleep(100), 50)


async def in_an_older_coroutine(older):
    await older


async def returns_from_a_block():
    with CancelScope():
        try:
            await sleep(100)
        except GeneratorExit:
            return


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("older", ["the coroutine", "the loop"])
@pytest.mark.parametrize(
    "where",
    [
        in_scope,
        in_group,
        at_the_end_of_a_group,
        in_timeout,
        in_as_completed,
        in_start,
        in_every,
        in_wait_for,
        in_an_older_coroutine,
        returns_from_a_block,
    ],
)
@pytest.mark.parametrize("trace", [None, 8])
def test_coroutines_of_a_dropped_loop_leave_their_blocks_in_silence(
    where, older, trace, monkeypatch, caplog
):
    """Also when the collector comes to the coroutine first, and closes it by itself."""
    heard = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: heard.append(args.exc_value))
    loop = virtual_loop(trace=trace) if older == "the loop" else None
    coro = where(in_scope()) if where is in_an_older_coroutine else where()
    loop = loop or virtual_loop(coro, trace=trace)
    if older == "the loop":
        loop.create_task(coro)
    del coro
    loop.run_until(5)
    del loop
    gc.collect()
    assert heard == []
    assert caplog.records == []


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_loop_is_dropped_in_the_middle_of_another_ones_step():
    log = []

    async def main(name):
        try:
            async with TaskGroup() as group:
                group.create_task(sleep_forever())
                await sleep_forever()
        finally:
            log.append((name, current_loop() is outer))
            if name == "inner":
                create_task(give(None, 1))  # where this runs now: on the outer loop

    async def collect():
        loop = inner.pop()
        del loop
        gc.collect()
        log.append(len(outer.tasks()))

    inner = [virtual_loop(main("inner"), trace=True)]
    inner[0].run_until(3)
    outer = virtual_loop(main("outer"), trace=True)
    outer.create_task(collect())
    outer.run_until(1)
    assert log == [("inner", True), 4]
    outer.close()
    assert log[2:] == [("outer", True)]


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("older", ["the coroutine", "the loop"])
@pytest.mark.parametrize("in_a_step", [False, True])
def test_a_lock_is_free_when_the_loop_of_the_task_that_has_it_is_gone(
    in_a_step, older, monkeypatch, caplog
):
    async def hold():
        async with lock:
            await sleep_forever()

    async def queue():
        async with lock:
            raise AssertionError("it has the lock")

    async def collect():
        loops.clear()
        gc.collect()

    async def use():
        async with lock:
            return "free"

    heard = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: heard.append(args.exc_value))
    lock = Lock(name="free")
    if older == "the loop":
        loops = [virtual_loop()]
        loops[0].create_task(hold())
        loops[0].create_task(queue())
    else:
        loops = [virtual_loop(hold(), queue())]
    loops[0].run_until(1)
    assert repr(lock) == "<Lock 'free' held by task 'Task-1' since 0.0 s, 1 waiting>"
    if in_a_step:
        virtual_loop(collect()).run_until_complete()
    else:
        loops.clear()
        gc.collect()
    assert heard == []
    assert caplog.records == []
    assert repr(lock) == "<Lock 'free' unlocked>"
    assert virtual_loop(use()).run_until_complete() == ["free"]


def test_a_lock_is_released_by_hand_as_its_loop_stops_right_away(caplog):
    async def hold():
        await lock.acquire()
        try:
            await sleep_forever()
        finally:
            lock.release()

    lock = Lock()
    loop = virtual_loop(hold())
    loop.run_until(1)
    _stop(loop)
    assert caplog.records == []
    assert not lock.locked()
