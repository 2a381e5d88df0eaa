"""Loops in several threads, loops in the wrong thread, and processes that fork under a loop."""

import contextlib
import gc
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sleeploop import (
    SleepingLoop,
    checkpoint,
    create_task,
    current_loop,
    current_task,
    run,
    sleep,
)
from tests.helpers import give, isolated, virtual

# CPython warns of every fork in a process with threads. Ours is about what happens then.
ignore_fork_warning = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")


def in_threads(n: int, work: Callable[[], Any]) -> list[Any]:
    """What work() returned or raised in each of n threads that began together."""
    outcomes: list[Any] = []
    barrier = threading.Barrier(n)

    def body() -> None:
        barrier.wait()
        try:
            outcomes.append(work())
        except BaseException as error:
            outcomes.append(error)

    threads = [threading.Thread(target=body) for _ in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


# ---- several threads -----------------------------------------------------------------------------


def test_every_thread_has_a_loop_of_its_own():
    async def child():
        await sleep(1)
        return current_loop()

    async def main():
        loops = {await create_task(child()) for _ in range(50)}
        assert loops == {current_loop()}
        return loop_id(current_loop())

    def loop_id(loop):
        kept.append(loop)
        return id(loop)

    kept = []
    ids = in_threads(8, lambda: virtual(main()))
    assert len(set(ids)) == 8
    assert all(isinstance(i, int) for i in ids)


@pytest.mark.realtime
def test_loops_in_threads_sleep_beside_each_other():
    began = time.monotonic()
    assert in_threads(8, lambda: run(give(1, 0.1))) == [1] * 8
    assert time.monotonic() - began < 0.5


def test_only_one_thread_can_run_a_loop():
    for _ in range(20):
        loop = SleepingLoop(give(1, 3600), speed=math.inf)
        outcomes = in_threads(4, loop.run_until_complete)
        assert outcomes.count([1]) == 1
        assert sum(isinstance(outcome, RuntimeError) for outcome in outcomes) == 3


def test_only_one_thread_can_run_a_loop_even_while_it_starts(monkeypatch):
    """Both are let go at the one place where starting a run calls Python code."""
    genuine = threading.main_thread
    together = threading.Barrier(2)

    def main_thread():
        with contextlib.suppress(threading.BrokenBarrierError):
            together.wait(0.2)
        return genuine()

    loop = SleepingLoop(give(1, 3600), speed=math.inf)
    monkeypatch.setattr(threading, "main_thread", main_thread)
    outcomes = in_threads(2, loop.run_until_complete)
    assert [1] in outcomes
    (error,) = (outcome for outcome in outcomes if outcome != [1])
    assert isinstance(error, RuntimeError)


def test_a_loop_is_used_in_its_own_thread():
    ready, go = threading.Event(), threading.Event()
    loops = []

    async def main():
        loops.append(current_loop())
        task = create_task(give("task", 1))
        loops.append(task)
        ready.set()
        go.wait()
        return await task

    thread = threading.Thread(target=virtual, args=(main(),))
    thread.start()
    try:
        ready.wait()
        loop, task = loops
        coro = give(1)
        with pytest.raises(RuntimeError, match="another thread"):
            loop.create_task(coro)
        with pytest.raises(RuntimeError, match="another thread"):
            loop.run_until_complete()
        coro.close()
        for outside in (current_loop, current_task):
            with pytest.raises(RuntimeError, match="needs a running loop"):
                outside()
        with pytest.raises(RuntimeError, match="needs a running loop"):
            task.__await__().send(None)
        with pytest.raises(RuntimeError, match="belongs to another loop"):
            virtual(waiting(task))
        # To look is harmless.
        assert loop.tasks()[1] is task
        assert "ready to start" in repr(task)
        assert "running" in repr(loop)
        assert (loop.time(), loop.stats().steps, task.done()) == (0.0, 1, False)
    finally:
        go.set()
        thread.join()
    assert task.result() == "task"


async def waiting(task: Any) -> Any:
    return await task


def test_a_loop_made_here_and_run_there():
    loop = SleepingLoop(give(1), speed=math.inf)
    task = loop.create_task(give(2, 1))
    assert in_threads(1, loop.run_until_complete) == [[1]]
    assert task.result() == 2


def test_a_task_made_elsewhere_just_when_the_run_begins():
    """What is asked about its arguments takes until the loop runs in another thread."""
    asked, running, done = threading.Event(), threading.Event(), threading.Event()

    class Daemon:
        def __bool__(self):
            asked.set()
            running.wait()
            return False

    async def main():
        running.set()
        await checkpoint()
        done.wait()

    def spawn():
        coro = give(1)
        try:
            return loop.create_task(coro, daemon=Daemon())
        except RuntimeError as error:
            coro.close()
            return error
        finally:
            done.set()

    loop = SleepingLoop(main(), speed=math.inf)
    outcomes = []
    thread = threading.Thread(target=lambda: outcomes.append(spawn()))
    thread.start()
    asked.wait()
    loop.run_until_complete()
    thread.join()
    assert isinstance(outcomes[0], RuntimeError)
    assert loop.tasks() == []


def test_looking_at_a_loop_that_is_busy_in_another_thread():
    stop = threading.Event()

    async def main():
        for i in range(300):
            for _ in range(10):
                create_task(give(i, i % 5))
            await sleep(1)
        stop.set()

    loop = SleepingLoop(main(), speed=math.inf)
    lock = threading.Lock()

    def look():
        looks = 0
        while not stop.is_set() or not looks:
            for task in loop.tasks():
                repr(task), task.wake_time, task.waiting_on, task.done(), task.coro, task.context
            repr(loop), loop.stats(), loop.now(), gc.get_referents(loop)
            looks += 1
        return looks

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        outcomes = in_threads(
            2, lambda: look() if lock.acquire(False) else loop.run_until_complete()
        )
    finally:
        sys.setswitchinterval(interval)
    assert [None] in outcomes
    assert sum(isinstance(outcome, int) and outcome > 0 for outcome in outcomes) == 1


def test_an_async_generator_collected_in_another_thread():
    """While its loop waits in the depths of a sleep: it wakes, and closes the generator."""
    events = []

    async def endless():
        try:
            while True:
                yield 1
        finally:
            events.append(threading.current_thread() is main_thread)
            await sleep(0)
            events.append("closed")

    async def main():
        box = [endless()]
        await anext(box[0])
        thread = threading.Timer(0.05, box.clear)
        thread.start()
        began = time.monotonic()
        await sleep(0.3)
        thread.join()
        return events.copy(), time.monotonic() - began

    main_thread = threading.current_thread()
    seen, passed = run(main())
    assert seen == [True, "closed"]
    assert 0.3 <= passed < 5


def test_async_generators_collected_in_another_thread_all_the_time():
    closed = []

    async def numbers(i):
        try:
            yield i
        finally:
            await sleep(1)
            closed.append(i)

    async def main():
        boxes = []
        stop = threading.Event()

        def drop():
            while boxes or not stop.is_set():
                if boxes:
                    boxes.pop()

        thread = threading.Thread(target=drop)
        thread.start()
        try:
            for i in range(500):
                generator = numbers(i)
                await anext(generator)
                boxes.append(generator)
                del generator
                await sleep(0.001)
        finally:
            stop.set()
            thread.join()

    virtual(main())
    assert sorted(closed) == list(range(500))


def test_a_step_that_waits_for_a_thread_with_a_loop():
    async def main():
        return in_threads(2, lambda: virtual(give("inner", 10)))

    assert virtual(main()) == ["inner", "inner"]


# ---- the end of the process ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "how",
    [
        *("idle", "busy", "never run", "left by an error", "generator", "in a cycle"),
        *("waiting", "waiting, suspended"),
    ],
)
def test_a_process_that_ends_under_its_loops_is_silent(how):
    done = isolated("hostile_exit.py", how)
    assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "")


# ---- fork ----------------------------------------------------------------------------------------


def child_exit(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@contextlib.contextmanager
def the_child_ends_here() -> Iterator[None]:
    """Whatever happens: it must not run the rest of the tests."""
    parent = os.getpid()
    succeeded = False
    try:
        yield
        succeeded = True
    finally:
        if os.getpid() != parent:
            os._exit(not succeeded)


@needs_fork
@ignore_fork_warning
@pytest.mark.realtime
def test_both_sides_of_a_fork_go_on_with_their_timers():
    """And each for itself: a child's timer must not move its parent's."""

    async def other(log):
        for i in range(4):
            await sleep(0.03)
            log.append(i)

    async def main(log):
        task = create_task(other(log))
        await sleep(0.04)
        pid = os.fork()
        if pid == 0:
            await sleep(0.01)
        else:
            await sleep(0.2)
        await task
        return pid, current_loop().time()

    log = []
    with the_child_ends_here():
        pid, passed = run(main(log))
        assert log == [0, 1, 2, 3]
        assert (0.24 if pid else 0.12) <= passed < 2
    assert child_exit(pid) == 0


@needs_fork
@ignore_fork_warning
def test_both_sides_of_a_fork_in_virtual_time():
    async def main():
        tasks = [create_task(give(i, i * 3600)) for i in range(10)]
        await sleep(4 * 3600)
        pid = os.fork()
        if pid == 0:
            await sleep(1800)
        return pid, [await task for task in tasks], current_loop().time()

    with the_child_ends_here():
        pid, results, passed = virtual(main())
        assert (results, passed) == (list(range(10)), 9 * 3600)
    assert child_exit(pid) == 0


@needs_fork
@ignore_fork_warning
def test_a_child_makes_loops_of_its_own_in_any_thread():
    """Other threads' loops are dead in the child, and new threads may get their addresses."""
    done = isolated("hostile_fork.py", "threads")
    assert (done.returncode, done.stdout) == (0, "child: 30\nparent: [0, 1, 2, 3, 4, 5, 6, 7]\n")


@needs_fork
@ignore_fork_warning
@pytest.mark.realtime
def test_a_child_whose_loop_stayed_behind_can_be_interrupted():
    """Forked by a thread, while the main thread's loop had Ctrl-C to itself."""
    done = isolated("hostile_fork.py", "interrupt")
    assert (done.returncode, done.stdout) == (0, "child: interrupted\nparent: went on\n")


@needs_fork
@pytest.mark.realtime
@pytest.mark.parametrize(
    ("how", "out"),
    [
        ("task", "child: everything True jump beside\nparent: went on\n"),
        ("process", "child: everything True\nparent: 3 beside\nend\n"),
        ("left_behind", "child: everything True\nparent: went on\n"),
        ("ctrl_c", "child: interrupted cleaned up interrupted interrupted\nparent: went on\n"),
    ],
)
def test_a_child_of_a_task_runs_loops_of_its_own(how, out):
    done = isolated("hostile_fork.py", how)
    assert (done.returncode, done.stdout, done.stderr) == (0, out, "")


def test_a_handler_of_a_finished_run_that_somebody_put_back_still_interrupts():
    async def main():
        return signal.signal(signal.SIGINT, signal.SIG_IGN)

    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        signal.signal(signal.SIGINT, run(main()))
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


# ---- Ctrl-C and what is closed after it ----------------------------------------------------------


@pytest.mark.realtime
def test_no_spinning_while_generators_close_after_ctrl_c():
    async def endless():
        try:
            yield 1
        finally:
            await sleep(0.2)

    async def main():
        await anext(endless())  # dropped at once, and being closed from now on
        await checkpoint()
        signal.raise_signal(signal.SIGINT)
        await sleep(10)

    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    loop = SleepingLoop(main())
    try:
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete()
    finally:
        signal.signal(signal.SIGINT, before)
    stats = loop.stats()
    assert stats.idle_time > 0.15 > stats.busy_time
