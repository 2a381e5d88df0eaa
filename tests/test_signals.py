"""Ctrl-C and other signals, during idle waits and during steps; real time, briefly."""

import contextlib
import math
import os
import signal
import socket
import threading
import time

import pytest

from sleeploop import (
    CancelledError,
    Queue,
    SleepingLoop,
    checkpoint,
    create_task,
    current_loop,
    every,
    format_tasks,
    run,
    sleep,
    sleep_forever,
    to_thread,
)

pytestmark = pytest.mark.realtime


def send_after(delay, signum=signal.SIGINT, times=1):
    """Signal this process from a thread, which is joined by the caller."""

    def send():
        for _ in range(times):
            time.sleep(delay)
            os.kill(os.getpid(), signum)

    thread = threading.Thread(target=send)
    thread.start()
    return thread


@pytest.fixture
def handler():
    """Sets a handler for the test only: handler(signum, function)."""
    old = {}

    def set_handler(signum, function):
        old[signum] = signal.signal(signum, function)

    yield set_handler
    for signum, function in old.items():
        signal.signal(signum, function)


def test_ctrl_c_ends_an_hours_sleep_at_once_with_cleanup():
    events = []

    async def sleeper():
        try:
            await sleep(3600)
        except CancelledError as error:
            events.append(str(error))
            raise
        finally:
            events.append("cleanup")

    thread = send_after(0.05)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        SleepingLoop(sleeper(), sleep_forever(), speed=1).run_until_complete()
    assert time.monotonic() - began < 5
    thread.join()
    assert events == ["interrupted by Ctrl-C", "cleanup"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("speed", [1, math.inf])
def test_ctrl_c_while_busy(speed):
    cleaned = []

    async def spinner():
        try:
            while True:
                await checkpoint()
        finally:
            cleaned.append(1)

    thread = send_after(0.02)
    with pytest.raises(KeyboardInterrupt):
        run(spinner(), speed=speed)
    thread.join()
    assert cleaned == [1]


def test_ctrl_c_inside_a_step_lets_the_step_end():
    steps = []

    async def main():
        signal.raise_signal(signal.SIGINT)
        steps.append("same step")
        with pytest.raises(CancelledError):
            await sleep(1)
        steps.append("next step")

    with pytest.raises(KeyboardInterrupt):
        run(main(), speed=math.inf)
    assert steps == ["same step", "next step"]


def test_a_second_ctrl_c_stops_right_away():
    events = []

    async def stubborn():
        while True:
            try:
                await sleep(1)
            except CancelledError:
                events.append("swallowed")
                if len(events) == 3:
                    signal.raise_signal(signal.SIGINT)

    async def other():
        try:
            await sleep_forever()
        except CancelledError:
            while True:
                try:
                    await sleep(1)
                except CancelledError:
                    pass
                except GeneratorExit:
                    events.append("closed")
                    raise

    loop = SleepingLoop(stubborn(), other(), speed=math.inf)

    async def interrupt():
        signal.raise_signal(signal.SIGINT)

    loop.create_task(interrupt())
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete()
    assert events == ["swallowed"] * 3 + ["closed"]
    assert loop.tasks() == []


def test_errors_on_the_way_out_are_logged(caplog):
    async def clumsy():
        try:
            await sleep_forever()
        finally:
            raise ValueError("cleanup failed")

    async def interrupt():
        signal.raise_signal(signal.SIGINT)
        await sleep(1)

    with pytest.raises(KeyboardInterrupt):
        SleepingLoop(clumsy(), interrupt(), speed=math.inf).run_until_complete()
    assert "cleanup failed" in caplog.text


def test_other_handlers_run_promptly_and_the_sleep_goes_on(handler):
    times = []
    handler(signal.SIGUSR1, lambda *_: times.append(time.monotonic()))
    began = time.monotonic()
    thread = send_after(0.03, signal.SIGUSR1, times=3)
    slept = run(sleep(0.3), speed=1)
    thread.join()
    assert len(times) == 3
    assert times[0] - began < 0.2
    assert slept.total_seconds() >= 0.3


def test_a_handler_may_call_back_into_the_loop(handler):
    async def child():
        woken.append(current_loop().time())
        await checkpoint()

    def on_signal(*_):
        loop.create_task(child())
        woken.append(len(loop.tasks()))
        loop.stats(), repr(loop)

    woken = []
    handler(signal.SIGUSR1, on_signal)
    loop = SleepingLoop(sleep(0.2), speed=1)
    thread = send_after(0.05, signal.SIGUSR1)
    loop.run_until_complete()
    thread.join()
    assert woken[0] == 2
    assert 0.04 < woken[1] < 0.2


async def ticks():
    async for _ in every(3600):
        pass


async def paused():
    current_loop().speed = 0
    await sleep(1)


@pytest.mark.parametrize(
    ("wait", "speed"),
    [
        (lambda: sleep(3600), 1),  # with a timer
        (lambda: sleep(0.0009), 1e-6),  # to the last millisecond
        (sleep_forever, 1),  # with none
        (ticks, 60),
        (Queue().get, 1),
        (sleep_forever, math.inf),  # a handler may still act
        (paused, 1),
        (lambda: to_thread(GO_ON.wait, 20), math.inf),
    ],
)
@pytest.mark.parametrize("act", ["cancel", "post"])
def test_a_handler_ends_whatever_is_waited_for(handler, act, wait, speed):
    """By the loop's own methods, right away: what it waits for would not come."""

    async def waits():
        await wait()

    async def main():
        task.append(create_task(waits(), name="waiting"))
        with contextlib.suppress(CancelledError):
            await task[0]
        return "cancelled"

    def on_signal(*_):
        GO_ON.set()
        log.append(format_tasks(loop))
        if act == "cancel":
            assert task[0].cancel("by a signal")
        else:
            loop.call_soon_threadsafe(task[0].cancel, "by a signal")

    GO_ON.clear()
    log, task = [], []
    handler(signal.SIGUSR1, on_signal)
    loop = SleepingLoop(main(), speed=speed)
    thread = send_after(0.03, signal.SIGUSR1)
    began = time.monotonic()
    assert loop.run_until_complete() == ["cancelled"]
    assert time.monotonic() - began < 15
    thread.join()
    assert "Task 'waiting' " in log[0]


GO_ON = threading.Event()


@pytest.mark.parametrize("error", [TimeoutError("alarm"), KeyboardInterrupt("mine")])
def test_a_handler_that_raises_ends_the_run(handler, error):
    cleaned = []

    async def main():
        try:
            await sleep(3600)
        finally:
            cleaned.append(1)

    def on_signal(*_):
        raise error

    handler(signal.SIGUSR1, on_signal)
    thread = send_after(0.02, signal.SIGUSR1)
    with pytest.raises(type(error), match=str(error)) as info:
        run(main(), speed=1)
    thread.join()
    assert info.value is error
    assert cleaned == [1]


def test_somebody_else_s_sigint_handler_is_left_alone(handler):
    got = []
    mine = lambda *_: got.append(1)  # noqa: E731
    handler(signal.SIGINT, mine)
    thread = send_after(0.02)
    run(sleep(0.1), speed=1)
    thread.join()
    assert got == [1]
    assert signal.getsignal(signal.SIGINT) is mine


def test_a_handler_set_during_the_run_stays(handler):
    handler(signal.SIGINT, signal.default_int_handler)
    mine = lambda *_: None  # noqa: E731

    async def main():
        signal.signal(signal.SIGINT, mine)

    run(main(), speed=math.inf)
    assert signal.getsignal(signal.SIGINT) is mine


def test_no_deadlock_while_a_signal_handler_could_still_act(handler):
    async def main():
        await task

    def on_signal(*_):
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)  # from now on it is a deadlock

    handler(signal.SIGUSR1, on_signal)
    loop = SleepingLoop(speed=math.inf)
    task = loop.create_task(sleep_forever())
    loop.create_task(main())
    thread = send_after(0.05, signal.SIGUSR1)
    began = time.monotonic()
    with pytest.raises(RuntimeError, match="waiting for task 'Task-1'"):
        loop.run_until_complete()
    thread.join()
    assert time.monotonic() - began > 0.04


def test_a_storm_of_two_signals_starves_neither(handler):
    counts = {signal.SIGUSR1: 0, signal.SIGUSR2: 0}

    def count(signum, _):
        counts[signum] += 1

    for signum in counts:
        handler(signum, count)
    threads = [send_after(0.001, signum, times=100) for signum in counts]
    run(sleep(0.5), speed=1)
    for thread in threads:
        thread.join()
    assert all(n > 10 for n in counts.values())  # pending signals of a kind merge


def test_a_wakeup_descriptor_of_somebody_else_gets_its_bytes(handler):
    handler(signal.SIGUSR1, lambda *_: None)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setblocking(False)
        old = signal.set_wakeup_fd(theirs.fileno())
        try:
            thread = send_after(0.03, signal.SIGUSR1)
            run(sleep(0.1), speed=1)
            thread.join()
            assert signal.set_wakeup_fd(-1) == theirs.fileno()
        finally:
            signal.set_wakeup_fd(old)
        assert ours.recv(10) == bytes([signal.SIGUSR1])


def test_a_loop_in_another_thread_leaves_signals_to_the_main_thread(handler):
    """It installs nothing, and the main thread gets the Ctrl-C."""
    handler(signal.SIGINT, signal.default_int_handler)
    results = []
    thread = threading.Thread(target=lambda: results.append(run(sleep(0.2), speed=1)))
    thread.start()
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012
        time.sleep(0.05)
        signal.raise_signal(signal.SIGINT)
    thread.join()
    assert len(results) == 1


def test_the_gil_is_free_while_idle():
    ticks = 0
    stop = threading.Event()

    def tick():
        nonlocal ticks
        while not stop.is_set():
            ticks += 1
            time.sleep(0.001)

    thread = threading.Thread(target=tick)
    thread.start()
    run(sleep(0.2), speed=1)
    stop.set()
    thread.join()
    assert ticks > 10


def test_a_task_spawned_by_a_handler_during_an_idle_wait_runs_at_once(handler):
    at = []

    async def child():
        at.append(current_loop().time())

    async def main():
        task = create_task(sleep(0.3))
        handler(signal.SIGALRM, lambda *_: create_task(child()))
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        await task

    run(main(), speed=1)
    assert at
    assert at[0] < 0.25
