"""Loops driven from outside, with signals, exceptions and collections at bad moments."""

import _signal
import _thread
import gc
import math
import signal
import sys
import threading
import time

import pytest

import sleeploop._threads
from sleeploop import (
    CancelScope,
    SleepingLoop,
    create_task,
    current_loop,
    current_task,
    sleep,
    sleep_forever,
    to_thread,
)
from tests.helpers import give, virtual_loop

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

    async def join(task):
        await task

    async def main():
        tasks = [current_task()]
        tasks.append(create_task(join(tasks[0])))
        await wait_for_each_other(tasks)

    loop = SleepingLoop(main())
    rescue = threading.Timer(5, loop.call_soon_threadsafe, [scope.cancel, "too late"])
    rescue.start()
    try:
        loop.run_until_complete()
    finally:
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
