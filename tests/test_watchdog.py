"""What a run says of those who hold it up: slow steps in a debug run, ends that take long."""

import gc
import logging
import math
import os
import signal
import sys
import threading
import time

import pytest

import sleeploop._watchdog
from sleeploop import (
    CancelScope,
    SleepingLoop,
    TaskGroup,
    checkpoint,
    create_task,
    current_loop,
    current_task,
    run,
    sleep,
    sleep_forever,
)
from tests.helpers import give


@pytest.fixture
def warnings(caplog):
    """The messages of the watchdog so far."""
    caplog.set_level(logging.WARNING, logger="sleeploop")

    def messages():
        assert {record.name for record in caplog.records} <= {"sleeploop"}
        assert {record.levelname for record in caplog.records} <= {"WARNING"}
        return [record.getMessage() for record in caplog.records]

    return messages


def wait_for(condition, seconds=10):
    """Blocks, as a careless step does; lets other threads run."""
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.01)
    return condition()


# ---- slow steps ----------------------------------------------------------------------------------


@pytest.mark.realtime
def test_a_step_that_holds_the_loop_is_told_while_it_does(warnings):
    async def careless():
        await checkpoint()
        block()

    def block():
        seen.append(wait_for(warnings))

    async def main():
        await create_task(careless(), name="careless")

    seen = []
    run(main(), speed=math.inf, debug=True)
    (message,) = seen[0]  # it was there before the step had ended
    first, *stack = message.splitlines()
    assert first.startswith("task 'careless' has held the loop for 0.")
    assert first.endswith(" s and still does:")
    assert any(f"{__file__}" in line and line.endswith("in careless") for line in stack)
    assert any(f"{__file__}" in line and line.endswith("in block") for line in stack)
    assert "seen.append(wait_for(warnings))" in message
    assert warnings() == [message]  # once


@pytest.mark.realtime
def test_each_slow_step_is_told_once(warnings):
    async def main():
        for n in range(1, 3):
            assert wait_for(lambda n=n: len(warnings()) == n)
            time.sleep(0.15)
            await checkpoint()

    run(main(), debug=True)
    assert len(warnings()) == 2


@pytest.mark.realtime
def test_a_step_that_holds_the_gil_as_well_is_told_when_it_ends(warnings):
    async def main():
        until = time.monotonic() + 0.15
        while time.monotonic() < until:
            sum(range(10_000_000))  # one call that lets no other thread run
        await checkpoint()

    run(main(), debug=True)
    assert len(warnings()) == 1
    assert warnings()[0].startswith("task 'Task-1' has held the loop for 0.")


@pytest.mark.realtime
def test_waiting_is_not_holding(warnings):
    async def main():
        await sleep(0.2)

    run(main(), debug=True)
    assert warnings() == []


@pytest.mark.realtime
def test_without_debug_a_slow_step_is_nobody_s_business(warnings):
    async def main():
        time.sleep(0.2)
        await checkpoint()

    run(main())
    assert warnings() == []


@pytest.mark.realtime
def test_the_exception_of_a_slow_step_is_still_raised(warnings):
    async def main():
        wait_for(warnings)
        raise ValueError("slow, and failed")

    with pytest.raises(ValueError, match="slow, and failed"):
        run(main(), debug=True)
    assert len(warnings()) == 1


@pytest.mark.realtime
def test_logging_that_fails_goes_to_the_unraisable_hook(monkeypatch, warnings):
    def fail(record):
        raise ZeroDivisionError("filter")

    unraisable = []
    monkeypatch.setattr("sys.unraisablehook", lambda args: unraisable.append(args.exc_type))
    logger = logging.getLogger("sleeploop")
    logger.addFilter(fail)
    try:

        async def main():
            wait_for(lambda: unraisable)

        run(main(), debug=True)
    finally:
        logger.removeFilter(fail)
    assert unraisable == [ZeroDivisionError]


# ---- debug ---------------------------------------------------------------------------------------


def test_each_task_remembers_where_it_was_made():
    async def main():
        task = make()
        async with TaskGroup() as group:
            member = group.create_task(give(2))
            started = await group.start(starts)
        assert started == "started"
        line = " made at "
        assert line in sleeploop.format_tasks()
        return current_task().created_at, task.created_at, member.created_at

    def make():
        return create_task(give(1))

    async def starts(started):
        started("started")

    root, task, member = run(main(), speed=math.inf, debug=True)
    assert [frame.name for frame in task][-2:] == ["main", "make"]
    assert task[-1].filename == __file__
    assert task[-1].line == "return create_task(give(1))"
    assert member[-1].name == "main"
    assert root[-1].name == "test_each_task_remembers_where_it_was_made"


def test_without_debug_they_do_not():
    async def main():
        return create_task(give(1)).created_at, current_task().created_at, current_loop().debug

    assert run(main(), speed=math.inf, debug=False) == (None, None, False)


def test_where_a_task_was_made_is_forgotten_with_it():
    def remembered():
        (stacks,) = [
            obj for obj in gc.get_referents(current_loop()) if type(obj) is dict and 1 in obj
        ]
        return len(stacks)

    async def main():
        for _ in range(100):
            await create_task(give(1))
        task = create_task(give(1))
        await task
        assert task.created_at is not None
        return remembered()

    assert run(main(), speed=math.inf, debug=True) == 2


@pytest.mark.parametrize(("text", "debug"), [("1", True), ("0", False), ("", False), (None, False)])
def test_the_environment_is_the_default(monkeypatch, text, debug):
    monkeypatch.delenv("SLEEPLOOP_DEBUG", raising=False)
    if text is not None:
        monkeypatch.setenv("SLEEPLOOP_DEBUG", text)
    assert SleepingLoop().debug is debug
    assert SleepingLoop(debug=True).debug is True
    assert SleepingLoop(debug=False).debug is False


def test_wrong_values(monkeypatch):
    class Undecided:
        def __bool__(self):
            raise ZeroDivisionError("undecided")

    coro = give(1)
    with pytest.raises(ZeroDivisionError, match="undecided"):
        SleepingLoop(coro, debug=Undecided())
    monkeypatch.setenv("SLEEPLOOP_DEBUG", "yes")
    with pytest.raises(ValueError, match="SLEEPLOOP_DEBUG must be 0 or 1, not 'yes'"):
        run(coro)
    assert run(coro, debug=False) == 1  # nothing had been started


# ---- ends of runs --------------------------------------------------------------------------------


@pytest.mark.realtime
@pytest.mark.slow
def test_an_end_that_a_task_holds_up_without_an_await(warnings):
    """It never comes back to the loop, and yet the loop says which task it is, and where."""

    async def stubborn():
        try:
            await sleep_forever()
        finally:
            seen.append(wait_for(warnings))

    async def main():
        create_task(stubborn(), name="stubborn")
        await checkpoint()

    seen = []
    run(main())
    (message,) = seen[0]
    assert message.startswith("the run has been cancelled for 1.")
    assert "\n  Task 'stubborn' " in message
    assert "\nTask 'stubborn' is running:\n" in message
    assert "seen.append(wait_for(warnings))" in message
    assert warnings() == [message]


@pytest.mark.realtime
@pytest.mark.slow
def test_an_end_that_cleanup_holds_up(warnings):
    async def slow_cleanup():
        try:
            await sleep_forever()
        finally:
            with CancelScope(shield=True):
                await sleep(1.3)

    async def main():
        create_task(slow_cleanup(), name="cleaner")
        await checkpoint()

    run(main())
    (message,) = warnings()
    assert "\n  Task 'cleaner' " in message
    assert ": sleeping until " in message
    assert "is running" not in message


@pytest.mark.realtime
@pytest.mark.slow
def test_an_end_that_a_swallowed_cancellation_holds_up(warnings):
    """At speed inf as well: it is real time that counts."""

    async def swallows():
        until = time.monotonic() + 1.3
        while time.monotonic() < until:
            try:
                await sleep_forever()
            except sleeploop.CancelledError:
                time.sleep(0.01)

    async def main():
        create_task(swallows(), name="swallower")
        await checkpoint()

    run(main(), speed=math.inf)
    (message,) = warnings()
    assert "\n  Task 'swallower' " in message


@pytest.mark.realtime
@pytest.mark.slow
def test_an_end_that_async_generators_hold_up(warnings):
    """Their tasks are nobody's; so it tells of the generators instead."""

    async def numbers():
        try:
            yield 1
        finally:
            with CancelScope(shield=True):
                await sleep(1.3)

    async def main():
        left = [numbers(), numbers()]
        for one in left:
            async for _ in one:
                break
        return left

    assert len(run(main())) == 2
    (message,) = warnings()
    assert message.endswith(" s and waits for:\n  the cleanup of 2 async generators")


@pytest.mark.realtime
@pytest.mark.slow
def test_an_end_that_is_over_when_the_watchdog_comes_is_not_told(warnings):
    """It comes when it gets the GIL, which whoever ends has held for all of the time."""

    async def holds_the_gil():
        try:
            await sleep_forever()
        finally:
            interval = sys.getswitchinterval()
            sys.setswitchinterval(1000)
            try:
                until = time.monotonic() + 1.3
                while time.monotonic() < until:
                    pass
            finally:
                switch.append(interval)

    async def main():
        create_task(holds_the_gil())
        await checkpoint()

    switch = []
    try:
        run(main(), speed=math.inf)
    finally:
        sys.setswitchinterval(switch[0])
    assert warnings() == []


@pytest.mark.parametrize("tasks", [0, 1])
def test_there_is_something_behind_what_it_says_of_an_end(tasks, warnings):
    loop = SleepingLoop(*[sleep(1) for _ in range(tasks)])
    sleeploop._watchdog.report_end(loop, 1.0, threading.get_ident())
    loop.close()
    assert [message.partition(" waits for:\n")[2] for message in warnings()] == [
        "  Task 'Task-1' sleep: ready to start"
    ][:tasks]


@pytest.mark.realtime
def test_an_end_that_takes_its_time_but_not_a_second(warnings):
    async def cleaner():
        try:
            await sleep_forever()
        finally:
            with CancelScope(shield=True):
                await sleep(0.1)

    async def main():
        create_task(cleaner())
        await checkpoint()

    run(main())
    assert warnings() == []


@pytest.mark.realtime
def test_a_signal_finds_the_main_thread_not_the_watchdog(warnings):
    def handler(number, frame):
        handled.append(threading.current_thread() is threading.main_thread())

    async def main():
        os.kill(os.getpid(), signal.SIGUSR1)
        await sleep(0.05)

    handled = []
    former = signal.signal(signal.SIGUSR1, handler)
    try:
        run(main(), debug=True)
    finally:
        signal.signal(signal.SIGUSR1, former)
    assert handled == [True]


@pytest.mark.realtime
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_fork_in_a_debug_run_goes_on_on_both_sides(warnings):
    async def main():
        child = os.fork()
        await sleep(0.01)
        return child

    child = run(main(), debug=True)
    if child == 0:
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="needs /proc")
@pytest.mark.parametrize("debug", [False, True])
def test_no_thread_is_left(debug):
    """Neither of a run that ends with tasks left, nor of a debug run or one that never began."""

    async def main():
        create_task(sleep_forever())
        await checkpoint()

    def threads():
        return len(os.listdir("/proc/self/task"))

    before = threads()
    for _ in range(20):
        SleepingLoop(debug=debug)
        run(main(), speed=math.inf, debug=debug)
    assert wait_for(lambda: threads() <= before)
