"""What other threads may do: call_soon_threadsafe(), and to_thread() as the loop sees it."""

import contextvars
import functools
import gc
import math
import os
import signal
import subprocess
import sys
import threading
import time
import weakref

import pytest

from sleeploop import (
    CancelledError,
    CancelScope,
    DeadlockError,
    Event,
    Lock,
    LoopClosedError,
    SleepingLoop,
    TaskGroup,
    checkpoint,
    create_task,
    current_loop,
    current_task,
    move_on_after,
    run,
    sleep,
    sleep_forever,
    to_thread,
)
from tests.helpers import give, in_thread, now, virtual

VARIABLE = contextvars.ContextVar("VARIABLE", default="unset")


# ---- call_soon_threadsafe() --------------------------------------------------------------------


def test_calls_come_in_order_in_the_loops_thread_and_the_callers_context():
    log = []

    def note(name):
        log.append((name, threading.get_ident(), VARIABLE.get()))

    def caller(loop):
        VARIABLE.set("caller's")
        for i in range(5):
            loop.call_soon_threadsafe(note, i)

    async def main():
        in_thread(caller, current_loop())
        assert log == []
        await checkpoint()

    virtual(main())
    assert log == [(i, threading.get_ident(), "caller's") for i in range(5)]


@pytest.mark.realtime
@pytest.mark.parametrize("speed", [1, 1000, math.inf])
def test_a_call_wakes_a_loop_that_waits(speed):
    async def main():
        loop = current_loop()
        with CancelScope() as scope:
            threading.Timer(0.02, loop.call_soon_threadsafe, [scope.cancel]).start()
            if speed == math.inf:
                await to_thread(time.sleep, 0.05)
            await sleep_forever()
        return "woken"

    began = time.monotonic()
    assert run(main(), speed=speed) == "woken"
    assert time.monotonic() - began < 30


def test_before_the_run_between_two_calls_and_after():
    log = []
    loop = SleepingLoop(sleep(10), speed=math.inf)
    loop.call_soon_threadsafe(log.append, 1)
    assert log == []
    loop.run_until(0)
    assert log == [1]
    loop.call_soon_threadsafe(log.append, 2)
    assert loop.next_wake_time() == 0
    assert loop.step() is True
    assert log == [1, 2]
    loop.call_soon_threadsafe(log.append, 3)
    loop.run_until(loop.time())
    assert log == [1, 2, 3]
    loop.call_soon_threadsafe(log.append, 4)
    loop.run_until_complete()
    assert log == [1, 2, 3, 4]
    with pytest.raises(LoopClosedError, match="call_soon_threadsafe"):
        loop.call_soon_threadsafe(log.append, 5)


def test_a_call_may_make_tasks_and_further_calls():
    log = []

    def again(n):
        log.append(n)
        if n:
            loop.call_soon_threadsafe(again, n - 1)
        else:
            loop.create_task(give(None, 1)).name = "made"

    async def main():
        loop.call_soon_threadsafe(again, 3)
        for _ in range(5):
            await checkpoint()
        return [task.name for task in loop.tasks()]

    loop = SleepingLoop(main(), speed=math.inf)
    assert loop.run_until_complete() == [["Task-1", "made"]]
    assert log == [3, 2, 1, 0]


def test_an_error_of_a_call_ends_the_run():
    def broken():
        raise OSError("broken call")

    async def main():
        current_loop().call_soon_threadsafe(broken)
        current_loop().call_soon_threadsafe(after.append, "still called")
        await sleep_forever()

    after = []
    with pytest.raises(OSError, match="broken call"):
        virtual(main())
    assert after == ["still called"]


def test_a_call_that_the_deadlock_waits_for_is_not_overlooked():
    """Signal handlers are looked for by Python code, in which another thread may call."""

    async def main():
        with CancelScope() as scope:
            current_loop().call_soon_threadsafe(scope.cancel)
            await sleep_forever()
        return now()

    assert virtual(main()) == 0


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((), "needs a function"),
        ((5,), "takes a function, not 5"),
        ((None,), "not None"),
    ],
)
def test_bad_calls(args, message):
    loop = SleepingLoop(speed=math.inf)
    with pytest.raises(TypeError, match=message):
        loop.call_soon_threadsafe(*args)
    loop.close()


def test_calls_that_are_never_made_are_freed():
    class Held:
        def __call__(self):
            raise AssertionError

    loop, held = SleepingLoop(speed=math.inf), Held()
    held.loop = loop
    loop.call_soon_threadsafe(held, loop)
    ref = weakref.ref(held)
    del loop, held
    gc.collect()
    assert ref() is None


def test_a_storm_of_calls():
    seen, stop = [], threading.Event()

    def storm(loop, name):
        for i in range(2000):
            loop.call_soon_threadsafe(seen.append, (name, i))

    async def main():
        loop = current_loop()
        threads = [threading.Thread(target=storm, args=(loop, n)) for n in range(4)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            with move_on_after(0.0001):
                await sleep(1)
        await checkpoint()
        stop.set()

    run(main(), speed=1)
    assert len(seen) == 8000
    for name in range(4):
        assert [i for n, i in seen if n == name] == list(range(2000))


@pytest.mark.realtime
def test_a_call_by_a_signal_handler_is_never_left_lying():
    """Whenever the signal comes: also between the last look and the wait."""
    answers = threading.Semaphore(0)
    handled = []

    def handler(number, frame):
        loop.call_soon_threadsafe(answers.release)

    def ask():
        for _ in range(2000):
            os.kill(os.getpid(), signal.SIGUSR1)
            handled.append(answers.acquire(timeout=5))
        loop.call_soon_threadsafe(scope.cancel)

    async def main():
        with scope:
            await sleep_forever()

    scope, loop = CancelScope(), SleepingLoop(main())
    old = signal.signal(signal.SIGUSR1, handler)
    try:
        thread = threading.Thread(target=ask)
        thread.start()
        loop.run_until_complete()
        thread.join()
    finally:
        signal.signal(signal.SIGUSR1, old)
    assert handled == 2000 * [True]


# ---- to_thread() -------------------------------------------------------------------------------


def test_virtual_time_stands_still_while_a_thread_works():
    async def main():
        timer = create_task(sleep(0.001))
        result = await to_thread(slow, "x", key="y")
        return result, now(), timer.done()

    def slow(*args, **kwargs):
        time.sleep(0.02)
        return args, kwargs, VARIABLE.get()

    VARIABLE.set("main's")
    try:
        assert virtual(main()) == ((("x",), {"key": "y"}, "main's"), 0.0, False)
    finally:
        VARIABLE.set("unset")


def test_other_tasks_run_meanwhile():
    go_on = threading.Event()

    async def other():
        await checkpoint()
        go_on.set()
        return "ran"

    async def main():
        task = create_task(other())
        assert await to_thread(go_on.wait, 10)
        return task.result()

    assert virtual(main()) == "ran"


def test_several_at_once_may_wait_for_each_other():
    barrier = threading.Barrier(3)

    async def main():
        async with TaskGroup() as group:
            tasks = [group.create_task(to_thread(barrier.wait, 10)) for _ in range(3)]
        return sorted(task.result() for task in tasks)

    assert virtual(main()) == [0, 1, 2]


@pytest.mark.parametrize("kind", [OSError, KeyError, CancelledError])
def test_what_the_function_raises(kind):
    error = kind("no")

    def broken():
        raise error

    async def main():
        with pytest.raises(kind) as caught:
            await to_thread(broken)
        return caught.value is error

    assert virtual(main()) is True


def test_system_exit_ends_the_run():
    async def main():
        await to_thread(functools.partial(exit_now, 3))

    def exit_now(code):
        raise SystemExit(code)

    with pytest.raises(SystemExit):
        virtual(main())


def test_a_cancellation_waits_for_the_thread_and_takes_effect_at_the_next_await():
    log, started, go_on = [], threading.Event(), threading.Event()

    def work():
        started.set()
        go_on.wait(10)
        return "result"

    async def worker():
        log.append(await to_thread(work))
        try:
            await checkpoint()
        finally:
            log.append("cancelled" if current_task() else None)

    async def main():
        task = create_task(worker())
        while not started.is_set():
            await checkpoint()
        task.cancel("too late")
        await checkpoint()
        go_on.set()
        with pytest.raises(CancelledError, match="too late"):
            await task

    virtual(main())
    assert log == ["result", "cancelled"]


def test_a_cancellation_before_the_call_prevents_it():
    called = []

    async def main():
        with CancelScope() as scope:
            scope.cancel()
            await to_thread(called.append, 1)

    virtual(main())
    assert called == []


def test_no_deadlock_while_a_thread_works_and_one_afterwards():
    async def main():
        await to_thread(time.sleep, 0.01)
        await current_waiter

    async def stuck():
        await sleep_forever()

    loop = SleepingLoop(speed=math.inf)
    current_waiter = loop.create_task(stuck())
    task = loop.create_task(main())
    with pytest.raises(DeadlockError, match="stuck: sleeping until cancelled"):
        loop.run_until(task)
    loop.close()


def test_driven_in_pieces():
    go_on = threading.Event()
    loop = SleepingLoop(speed=math.inf)
    task = loop.create_task(to_thread(go_on.wait, 10))
    while loop.step():
        pass
    assert not task.done()
    go_on.set()
    loop.run_until(5)
    assert (task.result(), loop.time()) == (True, 5)
    loop.close()


def test_many_calls_in_few_threads():
    names = set()

    def work(i):
        names.add(threading.current_thread().name)
        return i

    async def main():
        async with TaskGroup() as group:
            tasks = [group.create_task(to_thread(work, i)) for i in range(300)]
        return [task.result() for task in tasks]

    assert virtual(main()) == list(range(300))
    assert all(name.startswith("sleeploop") for name in names)
    assert len(names) <= min(32, (os.cpu_count() or 1) + 4)


def test_the_threads_end_with_the_run():
    async def main():
        await to_thread(int)
        return [t for t in threading.enumerate() if t.name.startswith("sleeploop")]

    loop = SleepingLoop(main(), speed=math.inf)
    (threads,) = loop.run_until_complete()
    assert threads
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


@pytest.mark.parametrize("bad", [5, None, "f"])
def test_what_cannot_be_called(bad):
    async def main():
        with pytest.raises(TypeError, match=f"takes a function, not {bad!r}"):
            await to_thread(bad)

    virtual(main())


def test_outside_of_a_run():
    coro = to_thread(int)
    with pytest.raises(RuntimeError, match="needs a running loop"):
        coro.send(None)


@pytest.mark.realtime
def test_ctrl_c_while_a_thread_works():
    def work():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.02)
        done.append("work")

    async def main():
        await to_thread(work)
        done.append("result")
        await checkpoint()

    done = []
    with pytest.raises(KeyboardInterrupt):
        virtual(main())
    assert done == ["work", "result"]


@pytest.mark.realtime
def test_a_second_ctrl_c_does_not_wait_for_the_thread():
    go_on = threading.Event()

    def interrupt_twice():
        for _ in range(2):
            time.sleep(0.02)
            os.kill(os.getpid(), signal.SIGINT)

    async def main():
        threading.Thread(target=interrupt_twice).start()
        await to_thread(go_on.wait, 20)

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        virtual(main())
    go_on.set()
    assert time.monotonic() - began < 15


@pytest.mark.realtime
def test_a_loop_waits_for_an_event_while_another_thread_may_set_it():
    async def main():
        loop, event = current_loop(), Event()
        threading.Timer(0.05, loop.call_soon_threadsafe, [event.set]).start()
        return await event.wait()

    assert run(main(), speed=1) is True


@pytest.mark.realtime
def test_it_reports_a_deadlock_when_that_thread_has_ended():
    """In a process of its own: here other tests may have left threads."""
    program = """
import threading, sleeploop
async def main():
    threading.Timer(0.05, print, ["the thread ends"]).start()
    await sleeploop.Queue(name="mail").get()
sleeploop.run(main(), speed=1)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30
    )
    assert done.stdout == "the thread ends\n"
    assert "DeadlockError: every task waits" in done.stderr
    assert "waiting for Queue 'mail' (empty)" in done.stderr


@pytest.mark.realtime
def test_a_lock_that_a_task_has_is_a_deadlock_whatever_threads_there_are():
    async def main():
        lock = Lock()
        await lock.acquire()
        await create_task(lock.acquire())

    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        with pytest.raises(DeadlockError, match="waiting for Lock"):
            run(main(), speed=1)
    finally:
        stop.set()
        thread.join()
