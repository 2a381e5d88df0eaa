"""Driving a loop from outside: run_until(), step(), next_wake_time(), close()."""

import contextlib
import gc
import math
import threading
import time
from datetime import UTC, datetime

import pytest

from sleeploop import (
    CancelledError,
    CancelScope,
    DeadlockError,
    LoopClosedError,
    SleepingLoop,
    checkpoint,
    create_task,
    current_loop,
    current_task,
    run,
    sleep,
    sleep_forever,
)
from tests.helpers import cleanup, fail, give, now, virtual_loop


async def ticks(log, period=1):
    while True:
        log.append(now())
        await sleep(period)


# ---- run_until() a time ------------------------------------------------------------------------


def test_time_is_exactly_what_was_asked_for():
    log = []
    with contextlib.closing(virtual_loop(ticks(log))) as loop:
        for when in (0, 0.3, 1, 1, 2.5, 7.0000000015):
            assert loop.run_until(when) is None
            assert loop.time_ns() == round(when * 10**9)
            assert log == [float(t) for t in range(int(when) + 1)]


def test_what_is_due_at_that_time_has_run_and_so_has_what_followed_from_it():
    async def chain():
        await sleep(5)
        task = create_task(give("child", 0))
        await checkpoint()
        return await task

    loop = virtual_loop()
    task = loop.create_task(chain())
    loop.run_until(4.999999999)
    assert not task.done()
    loop.run_until(5)
    assert task.result() == "child"
    loop.close()


def test_a_datetime():
    log = []
    loop = virtual_loop(ticks(log), start=datetime(2024, 2, 29, tzinfo=UTC))
    loop.run_until(datetime(2024, 2, 29, 0, 0, 2, 500_000, tzinfo=UTC))
    assert (loop.time(), log) == (2.5, [0, 1, 2])
    loop.close()


def test_time_passes_though_nobody_is_there():
    loop = virtual_loop()
    loop.run_until(10)
    assert loop.time() == 10
    task = loop.create_task(sleep(1))
    loop.run_until(20)
    assert (task.result().total_seconds(), loop.time()) == (1, 20)
    assert loop.run_until_complete() == []


def test_the_end_of_all_tasks_does_not_end_the_run():
    log = []
    loop = virtual_loop(give(1), give(2, 1))
    daemon = loop.create_task(ticks(log), daemon=True)
    loop.run_until(3)
    assert not daemon.done()
    assert log == [0, 1, 2, 3]
    assert loop.run_until_complete() == [1, 2]
    assert daemon.cancelled()


def test_tasks_that_wait_for_good_are_no_deadlock_for_a_time():
    scope = CancelScope()

    async def wait():
        with scope:
            await sleep_forever()
        return now()

    loop = virtual_loop(wait())
    loop.run_until(7)
    scope.cancel()
    assert loop.run_until_complete() == [7.0]


@pytest.mark.parametrize(
    ("when", "error", "message"),
    [
        (4, ValueError, "run_until(): 4 has passed, as it is 5.0 s"),
        (datetime(1999, 12, 31), ValueError, "has passed, as it is 5.0 s"),
        (math.inf, ValueError, "inf never comes; run_until_complete() runs to the end"),
        (10**300, ValueError, "never comes"),
        (datetime.max, ValueError, "never comes"),
        (-math.inf, ValueError, "-inf has passed"),
        (math.nan, ValueError, "not nan"),
        ("soon", TypeError, "takes a loop time in seconds, a datetime or a Task, not 'soon'"),
        (None, TypeError, "not None"),
    ],
)
def test_bad_times(when, error, message):
    loop = virtual_loop()
    loop.run_until(5)
    with pytest.raises(error) as caught:
        loop.run_until(when)
    assert message in str(caught.value)
    assert loop.time() == 5
    loop.close()


# ---- run_until() a task ------------------------------------------------------------------------


def test_a_task_gives_its_outcome():
    loop = virtual_loop()
    assert loop.run_until(loop.create_task(give("x", 3))) == "x"
    assert loop.time() == 3
    failing = loop.create_task(fail(OSError("no"), 1))
    with pytest.raises(OSError, match="no"):
        loop.run_until(failing)
    with pytest.raises(OSError, match="no"):  # as often as one asks
        loop.run_until(failing)
    assert loop.time() == 4
    loop.close()


def test_a_task_that_is_cancelled():
    loop = virtual_loop()
    task = loop.create_task(sleep(10))
    loop.create_task(give(None, 1))
    task.cancel("enough")
    with pytest.raises(CancelledError, match="enough"):
        loop.run_until(task)
    loop.close()


def test_a_task_of_another_loop():
    one, other = virtual_loop(), virtual_loop()
    task = one.create_task(sleep(1))
    with pytest.raises(ValueError, match="belongs to another loop"):
        other.run_until(task)
    one.close()
    other.close()


def test_a_deadlock_leaves_the_loop_as_it_was():
    cancelled = []

    async def stuck(task):
        try:
            await task
        except CancelledError:
            cancelled.append(now())
            raise

    loop = virtual_loop()
    waiting = loop.create_task(sleep_forever(), name="waiting")
    task = loop.create_task(stuck(waiting), name="stuck")
    with pytest.raises(DeadlockError, match=r"Task 'stuck' .*waiting for task 'waiting'"):
        loop.run_until(task)
    assert not task.done()
    assert "suspended" in repr(loop)
    loop.run_until(8)
    waiting.cancel()
    with pytest.raises(CancelledError):
        loop.run_until(task)
    assert cancelled == [8.0]
    loop.close()


# ---- step() ------------------------------------------------------------------------------------


def test_step_makes_one_pass():
    log = []

    async def main(name):
        for _ in range(2):
            log.append((now(), name))
            await checkpoint()
        await sleep(5)
        log.append((now(), name))

    loop = virtual_loop(main("a"), main("b"))
    seen = []
    while loop.step():
        seen.append((loop.time(), len(log)))
    assert seen == [(0, 2), (0, 4), (0, 4), (5, 6)]
    assert loop.step() is False
    assert loop.run_until_complete() == [None, None]


def test_step_does_not_end_the_run_and_does_not_report_deadlocks():
    loop = virtual_loop(sleep_forever())
    assert loop.step() is True
    assert loop.step() is False
    assert loop.next_wake_time() == math.inf
    assert len(loop.tasks()) == 1
    loop.close()


@pytest.mark.realtime
def test_step_never_waits_and_time_goes_on_between_steps():
    loop = SleepingLoop(sleep(0.05))
    began = time.monotonic()
    assert loop.step() is True
    assert loop.step() is False
    assert time.monotonic() - began < 0.05
    assert loop.next_wake_time() == pytest.approx(0.05, abs=0.04)
    time.sleep(0.06)
    assert loop.time() > 0.05
    assert loop.step() is True
    assert [task.done() for task in loop.tasks()] == []
    assert loop.run_until_complete()[0].total_seconds() >= 0.05


def test_next_wake_time():
    loop = virtual_loop(sleep(4), sleep(3))
    assert loop.next_wake_time() == 0
    loop.run_until(0)
    assert loop.next_wake_time() == 3
    loop.run_until(3.5)
    assert loop.next_wake_time() == 4
    loop.create_task(sleep(0))
    assert loop.next_wake_time() == 3.5
    loop.run_until_complete()
    assert loop.next_wake_time() == math.inf


# ---- real time ---------------------------------------------------------------------------------


@pytest.mark.realtime
@pytest.mark.parametrize("speed", [1, 50])
def test_at_a_finite_speed_time_stands_still_at_the_end(speed):
    log = []
    loop = SleepingLoop(ticks(log, 0.01 * speed), speed=speed)
    began = time.monotonic()
    loop.run_until(0.045 * speed)
    assert time.monotonic() - began >= 0.045
    assert loop.time() == 0.045 * speed
    assert len(log) <= 5
    time.sleep(0.02)
    assert loop.time() == 0.045 * speed
    loop.run_until(loop.time())
    loop.run_until(0.1 * speed)
    assert time.monotonic() - began >= 0.12
    assert loop.time() == 0.1 * speed
    assert max(log) <= loop.time()
    loop.close()


@pytest.mark.realtime
def test_a_busy_task_does_not_keep_a_real_loop_from_coming_back():
    async def busy():
        while True:
            await checkpoint()

    loop = SleepingLoop(busy())
    loop.run_until(0.01)
    assert loop.time() == 0.01
    loop.run_until(0.01)
    loop.close()


@pytest.mark.realtime
def test_stats_count_the_time_of_all_calls():
    loop = SleepingLoop(sleep(0.02))
    loop.run_until(0.01)
    time.sleep(0.01)
    loop.run_until_complete()
    stats = loop.stats()
    assert 0.01 < stats.idle_time < 5
    assert 0 <= stats.busy_time < 5


# ---- the end -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "drive", [lambda loop: loop.run_until(5), lambda loop: [loop.step() for _ in range(9)]]
)
def test_a_failure_ends_the_run(drive):
    log = []
    loop = virtual_loop(fail(OSError("broken"), 1), cleanup(log, "other", 3))
    with pytest.raises(OSError, match="broken"):
        drive(loop)
    assert log == [("other", 4.0)]
    for call in (loop.step, loop.run_until_complete, lambda: loop.run_until(9)):
        with pytest.raises(LoopClosedError):
            call()
    assert loop.close() is None
    assert "closed" in repr(loop)


def test_close_cancels_and_lets_cleanup_run():
    log = []
    loop = virtual_loop(cleanup(log, "a", 1), cleanup(log, "b", 2))
    loop.run_until(10)
    never = loop.create_task(give("never"))
    loop.close()
    assert log == [("a", 11.0), ("b", 12.0)]
    assert never.cancelled()
    assert loop.tasks() == []
    loop.close()


def test_close_before_the_start():
    log = []
    loop = virtual_loop(ticks(log))
    loop.close()
    assert log == []
    assert loop.tasks() == []


def test_close_raises_what_nobody_has_seen(caplog):
    loop = virtual_loop()
    task = loop.create_task(fail(OSError("lost"), 1))
    loop.run_until(2)
    with pytest.raises(OSError, match="lost"):
        loop.close()
    assert "nobody retrieved" in caplog.text
    assert task.done()


def test_close_raises_errors_of_cleanup():
    async def main():
        try:
            await sleep_forever()
        finally:
            raise KeyError("cleanup")

    loop = virtual_loop(main())
    loop.run_until(1)
    with pytest.raises(KeyError, match="cleanup"):
        loop.close()


def test_an_async_generator_that_is_dropped_between_two_calls_is_closed_by_the_next():
    log = []

    async def numbers():
        try:
            yield 1
        finally:
            await sleep(1)
            log.append(now())

    held = []

    async def main():
        held.append(numbers())
        await anext(held[0])

    loop = virtual_loop()
    loop.run_until(loop.create_task(main()))
    held.clear()
    gc.collect()
    assert log == []
    loop.run_until(5)
    assert log == [1.0]
    loop.close()


# ---- misuse ------------------------------------------------------------------------------------


def test_not_inside_of_a_run():
    inner = virtual_loop(sleep(1))

    async def main():
        for call in (inner.step, inner.close, lambda: inner.run_until(1)):
            with pytest.raises(RuntimeError, match="while a loop is running in this thread"):
                call()
        with pytest.raises(RuntimeError, match="while a loop is running"):
            current_loop().step()

    run(main(), speed=math.inf)
    inner.close()


def test_a_loop_that_was_never_initialised():
    loop = SleepingLoop.__new__(SleepingLoop)
    for call in (loop.step, loop.close, lambda: loop.run_until(1), lambda: loop.random("x")):
        with pytest.raises(RuntimeError, match="__init__"):
            call()
    with pytest.raises(RuntimeError, match="__init__"):
        loop.speed = 1
    assert loop.next_wake_time() == math.inf
    assert (loop.lag, loop.schedule) == (0.0, None)


def test_between_two_calls_there_is_no_current_loop():
    loop = virtual_loop(sleep(5))
    loop.run_until(1)
    for ask in (current_loop, current_task):
        with pytest.raises(RuntimeError, match="needs a running loop"):
            ask()
    assert run(give("another loop"), speed=math.inf) == "another loop"
    loop.close()


def test_another_thread_may_go_on():
    loop = virtual_loop(give("done", 10))
    loop.run_until(5)
    results = []
    thread = threading.Thread(target=lambda: results.append(loop.run_until_complete()))
    thread.start()
    thread.join()
    assert results == [["done"]]


def test_another_thread_may_not_drive_it_at_the_same_time():
    loop = SleepingLoop(speed=1)
    running, go_on = threading.Event(), threading.Event()

    async def main():
        running.set()
        go_on.wait(10)

    thread = threading.Thread(target=lambda: loop.run_until(loop.create_task(main())))
    thread.start()
    running.wait(10)
    try:
        for call in (loop.step, loop.close, lambda: loop.run_until(1)):
            with pytest.raises(RuntimeError, match="running in another thread"):
                call()
    finally:
        go_on.set()
        thread.join()
    loop.close()
