"""Loops driven from outside, in hostile hands: dropped, resurrected, interrupted anywhere."""

import _signal
import _thread
import gc
import math
import signal
import sys
import threading
import time
import warnings

import pytest

import sleeploop._threads
from sleeploop import (
    CancelScope,
    LoopClosedError,
    SleepingLoop,
    TaskGroup,
    as_completed,
    create_task,
    current_loop,
    current_task,
    every,
    gather,
    sleep,
    sleep_forever,
    timeout,
    to_thread,
    wait_for,
)
from tests.helpers import give


def virtual_loop(*coros, **options):
    return SleepingLoop(*coros, speed=math.inf, **options)


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


# ---- signals -----------------------------------------------------------------------------------


async def interrupt_and(then):
    signal.raise_signal(signal.SIGINT)
    await then


@pytest.mark.parametrize(
    "drive",
    [
        SleepingLoop.step,
        lambda loop: loop.run_until(0),
        lambda loop: loop.run_until(loop.tasks()[0]),
        SleepingLoop.run_until_complete,
    ],
)
def test_ctrl_c_in_the_last_pass_of_a_call_is_raised_by_that_call(drive):
    log = []

    async def other():
        try:
            await sleep_forever()
        finally:
            log.append("cleanup")

    loop = virtual_loop(give(1), other())
    loop.create_task(interrupt_and(give(1)))
    with pytest.raises(KeyboardInterrupt):
        drive(loop)
    assert log == ["cleanup"]
    assert "closed" in repr(loop)


@pytest.mark.parametrize(
    "drive",
    [
        SleepingLoop.step,
        lambda loop: loop.run_until(0),
        SleepingLoop.run_until_complete,
        SleepingLoop.close,
    ],
)
def test_ctrl_c_that_comes_after_the_last_step(drive):
    """interrupt_main() is C code that leaves the signal pending."""
    loop = virtual_loop()
    loop.call_soon_threadsafe(_thread.interrupt_main)
    with pytest.raises(KeyboardInterrupt):
        drive(loop)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("speed", [1, math.inf])
@pytest.mark.parametrize("handler", [None, print])
def test_what_a_handler_does_right_before_the_loop_waits(handler, speed, monkeypatch):
    """The loop asks for handlers when it finds no timer, and waits or reports a deadlock: unless
    there is a timer now."""
    scope = CancelScope()

    def getsignal(_):
        if scope.deadline == math.inf:
            loop.speed = speed
            scope.deadline = loop.time() + 0.01
        return handler

    async def wait_for_each_other(tasks):
        with scope:
            monkeypatch.setattr(_signal, "getsignal", getsignal)
            try:
                await tasks[1]
            finally:
                monkeypatch.undo()
        tasks[1].cancel()

    async def main():
        tasks = [current_task()]
        tasks.append(create_task(join(tasks[0])))
        await wait_for_each_other(tasks)

    loop = SleepingLoop(main())
    rescue = threading.Timer(5, loop.call_soon_threadsafe, [scope.cancel, "too late"])
    rescue.start()
    loop.run_until_complete()
    rescue.cancel()
    assert scope.cancelled_caught
    assert 0.01 <= loop.time() < 5


# ---- to_thread() -------------------------------------------------------------------------------


class RaisedByHandlerError(Exception):
    pass


def raise_at(n, seen):
    """A trace function that raises where n lines of to_thread() have been run in this thread, as
    a signal handler might."""
    main = threading.get_ident()

    def trace(frame, event, _):
        if frame.f_code.co_filename != sleeploop._threads.__file__:
            return None
        if event == "line" and threading.get_ident() == main:
            seen.append(frame.f_lineno)
            if len(seen) == n:
                raise RaisedByHandlerError
        return trace

    return trace


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_an_exception_anywhere_in_to_thread_does_not_stop_virtual_time():
    async def main():
        try:
            return await to_thread(time.sleep, 0.001)
        except RaisedByHandlerError:
            return None

    n, reached = 0, True
    while reached:
        n += 1
        seen = []
        loop = virtual_loop()
        task = loop.create_task(main())
        sys.settrace(raise_at(n, seen))
        try:
            for _ in range(5000):
                if task.done():
                    break
                loop.step()
                time.sleep(0.0002)
        finally:
            sys.settrace(None)
        assert task.done()
        reached = len(seen) >= n
        later = loop.create_task(sleep(3600))
        for _ in range(5000):
            if later.done():
                break
            if not loop.step():  # a call may still come
                time.sleep(0.0002)
        assert loop.time() == 3600
    assert n > 15


def test_threads_that_cannot_start(monkeypatch):
    async def main():
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", fail_to_start)
            with pytest.raises(RuntimeError, match="can't start new thread"):
                await to_thread(int)
        await sleep(10)
        return await to_thread(int), current_loop().time()

    def fail_to_start(_):
        raise RuntimeError("can't start new thread")

    assert sleeploop.run(main(), speed=math.inf) == (0, 10)


# ---- calls -------------------------------------------------------------------------------------


def test_a_collection_in_the_middle_of_call_soon_threadsafe_loses_no_call():
    accepted, done = [], []

    class Caller:
        def __init__(self):
            self.me = self

        def __del__(self):
            loop.call_soon_threadsafe(done.append, "del")
            accepted.append("del")

    loop = virtual_loop()
    threshold = gc.get_threshold()
    try:
        for _ in range(20):
            gc.collect()
            Caller()
            gc.set_threshold(1)
            loop.call_soon_threadsafe(done.append, "call")
            gc.set_threshold(0)
            accepted.append("call")
            gc.collect()
            loop.step()
    finally:
        gc.set_threshold(*threshold)
    loop.close()
    assert sorted(done) == sorted(accepted)
    assert len(done) == 40


def test_a_call_that_empties_the_list_it_stands_in():
    loop = virtual_loop()
    done = []

    def clear(*_):
        for thing in lists:
            thing.clear()
        done.append("first")

    loop.call_soon_threadsafe(clear, object())
    loop.call_soon_threadsafe(done.append, "second")
    lists = [thing for thing in gc.get_referents(loop) if type(thing) is list]
    assert lists
    loop.step()
    assert done == ["first"]
    loop.close()
