"""What a run does with failures: none is lost, and cleanup runs to its end."""

import gc
import logging
import math
import re
import sys

import pytest

from sleeploop import (
    CancelledError,
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
from tests.helpers import fail, give


def finish(*coros):
    return SleepingLoop(*coros, speed=math.inf).run_until_complete()


# ---- results -------------------------------------------------------------------


def test_results_come_in_the_order_given():
    assert finish(give("a", 3), give("b", 1), give("c", 2)) == ["a", "b", "c"]


def test_a_coroutine_that_never_sleeps():
    async def quick():
        return 1

    assert finish(quick()) == [1]
    assert run(quick(), speed=math.inf) == 1


def test_no_coroutine_at_all():
    assert finish() == []


# ---- failures of the roots -------------------------------------------------------


def test_a_failure_cancels_the_rest_and_is_raised_as_it_is():
    events = []

    async def worker():
        try:
            await sleep(100)
        except CancelledError as error:
            events.append((current_loop().time(), str(error)))
            raise
        finally:
            with pytest.raises(CancelledError):  # level-triggered: every await
                await sleep(1)
            events.append("finally")

    error = ValueError("x")
    with pytest.raises(ValueError, match="x") as info:
        finish(worker(), fail(error, 5))
    assert info.value is error
    assert events == [(5.0, "task 'Task-2' failed with ValueError('x')"), "finally"]


def test_a_swallowed_cancellation_is_delivered_again():
    count = 0

    async def stubborn():
        nonlocal count
        while count < 5:
            try:
                await sleep(1)
            except CancelledError:
                count += 1
        return "fine"

    with pytest.raises(ValueError, match="x"):
        finish(stubborn(), fail(ValueError("x")))
    assert count == 5


def test_several_failures_are_a_group():
    first, second = ValueError("first"), KeyError("second")

    async def clumsy():
        try:
            await sleep_forever()
        finally:
            raise second

    with pytest.raises(ExceptionGroup, match="2 failures") as info:
        finish(fail(first), clumsy())
    assert info.value.exceptions == (first, second)
    assert isinstance(second.__context__, CancelledError)


def test_the_same_error_in_several_tasks_is_one():
    async def join(task):
        await task

    error = ValueError("x")

    async def main():
        task = create_task(fail(error, 1))
        for _ in range(2):
            create_task(join(task))
        await task

    with pytest.raises(ValueError, match="x") as info:
        run(main(), speed=math.inf)
    assert info.value is error


def test_unstarted_tasks_are_closed_and_free_their_arguments():
    class Token:
        pass

    async def never(token):
        started.append(token)

    async def main():
        create_task(never(Token()))
        raise ValueError("x")

    started = []
    with pytest.raises(ValueError, match="x"):
        finish(main())
    gc.collect()
    assert started == []
    assert not any(isinstance(o, Token) for o in gc.get_objects())


def test_tasks_made_while_everything_ends_are_cancelled_too():
    started = []

    async def child():
        started.append(1)

    async def worker():
        try:
            await sleep_forever()
        finally:
            task = create_task(child())
            with pytest.raises(CancelledError):
                await task

    with pytest.raises(ValueError, match="x"):
        finish(worker(), fail(ValueError("x"), 1))
    assert started == []


def test_a_result_that_has_arrived_is_not_thrown_away():
    """The sleeper's wake-up and the failure come in the same pass, in either order."""

    async def sleeper(events):
        await sleep(1)
        for i in range(3):
            events.append(i)
            await checkpoint()

    early, late = [], []
    with pytest.raises(ValueError, match="x"):
        finish(sleeper(early), fail(ValueError("x"), 1), sleeper(late))
    # The first was ready again when it was cancelled, by a checkpoint that was over.
    assert (early, late) == ([0, 1], [0])


def test_an_error_keeps_its_traceback():
    with pytest.raises(ValueError, match="x") as info:
        finish(fail(ValueError("x"), 1))
    assert info.traceback[-1].name == "fail"
    assert info.value.__context__ is None


def test_system_exit_ends_the_run():
    cleaned = []

    async def worker():
        try:
            await sleep_forever()
        finally:
            cleaned.append(1)

    async def main():
        create_task(worker())
        create_task(fail(SystemExit(3), 1))
        await sleep(100)

    with pytest.raises(SystemExit, match="3"):
        run(main(), speed=math.inf)
    assert cleaned == [1]


def test_system_exit_wins_and_the_other_errors_are_logged(caplog):
    async def clumsy():
        try:
            await sleep_forever()
        finally:
            raise ValueError("on the way out")

    with pytest.raises(SystemExit):
        finish(clumsy(), fail(SystemExit(1), 1))
    assert "on the way out" in caplog.text


def test_raising_cancelled_error_without_having_been_cancelled():
    with pytest.raises(CancelledError, match="by hand"):
        finish(fail(CancelledError("by hand")), give(1, 5))


def test_returning_a_result_although_cancelled():
    async def survivor():
        try:
            await sleep_forever()
        except CancelledError:
            return "survived"

    loop = SleepingLoop(fail(ValueError("x"), 1), speed=math.inf)
    task = loop.create_task(survivor())
    with pytest.raises(ValueError, match="x"):
        loop.run_until_complete()
    assert task.result() == "survived"


# ---- failures of other tasks ----------------------------------------------------------


def records(caplog):
    return [(r.levelno, r.getMessage(), r.exc_info and r.exc_info[1]) for r in caplog.records]


def test_a_failure_that_nobody_can_retrieve_is_logged_at_once_and_raised(caplog):
    error = ValueError("lost?")

    async def main():
        create_task(fail(error, 1), name="lost")
        await sleep(2)
        seen.append(len(caplog.records))
        await sleep(1)
        return "unreachable"

    seen = []
    loop = SleepingLoop(main(), speed=math.inf)
    with pytest.raises(ValueError, match=r"lost\?") as info:
        loop.run_until_complete()
    assert info.value is error
    assert loop.time() == 3.0  # it did not end the run
    assert seen == [1]
    message = "task 'lost' failed and nobody retrieved its exception"
    assert records(caplog) == [(logging.ERROR, message, error)]
    assert caplog.records[0].name == "sleeploop"


def test_a_failure_still_unseen_at_the_end(caplog):
    async def main():
        tasks.append(create_task(fail(ValueError("kept"), 1)))
        await sleep(2)

    tasks = []
    with pytest.raises(ValueError, match="kept"):
        run(main(), speed=math.inf)
    assert "kept" in caplog.text


@pytest.mark.parametrize("look", ["exception", "result", "await"])
def test_a_failure_that_was_seen_is_nobody_else_s_business(look, caplog):
    async def main():
        task = create_task(fail(ValueError("seen"), 1))
        await sleep(2)
        if look == "await":
            with pytest.raises(ValueError, match="seen"):
                await task
        elif look == "result":
            with pytest.raises(ValueError, match="seen"):
                task.result()
        else:
            assert str(task.exception()) == "seen"
        return 1

    assert run(main(), speed=math.inf) == 1
    assert not caplog.records


def test_a_daemon_s_failure_is_only_logged(caplog):
    async def main():
        create_task(fail(ValueError("daemon"), 1), daemon=True)
        await sleep(2)
        return 1

    assert run(main(), speed=math.inf) == 1
    assert "daemon" in caplog.text


def test_an_awaited_failure_while_the_waiter_is_being_cancelled(caplog):
    """The joiner has its result before the cancellation: it gets the exception."""
    got = []

    async def joiner(task):
        try:
            await task
        except ValueError as error:
            got.append(str(error))

    async def main():
        task = create_task(fail(ValueError("child"), 1))
        create_task(joiner(task))
        await sleep(1)

    assert run(main(), speed=math.inf) is None
    assert got == ["child"]
    assert not caplog.records


def test_a_log_handler_that_fails_loses_nothing(monkeypatch):
    class Broken(logging.Handler):
        def handle(self, record):
            raise OSError("disk full")

    unraisable = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    logger = logging.getLogger("sleeploop")
    handler = Broken()
    logger.addHandler(handler)
    try:
        with pytest.raises(ValueError, match="x"):
            finish(give(1, 2), _spawn_and_forget(ValueError("x")))
    finally:
        logger.removeHandler(handler)
    assert [str(u.exc_value) for u in unraisable] == ["x"]
    unraisable.clear()


async def _spawn_and_forget(error):
    create_task(fail(error))
    await sleep(1)


# ---- deadlock -----------------------------------------------------------------------------


@pytest.mark.parametrize("speed", [math.inf, 1.0, 1000])
def test_tasks_that_wait_for_each_other(speed):
    cleaned = []

    async def wait_for(name):
        try:
            await tasks[name]
        finally:
            cleaned.append(current_task().name)

    loop = SleepingLoop(speed=speed)
    tasks = {}
    tasks["a"] = loop.create_task(wait_for("b"), name="a")
    tasks["b"] = loop.create_task(wait_for("a"), name="b")
    with pytest.raises(DeadlockError) as info:
        loop.run_until_complete()
    report = str(info.value).replace("test_tasks_that_wait_for_each_other.<locals>.", "")
    assert "\n  Task 'a' wait_for: waiting for task 'b', since 0." in report
    assert re.search(r"  Task 'b' .*, at \S+test_errors.py:\d+ in wait_for$", report)
    assert cleaned == ["a", "b"]
    tasks.clear()


def test_the_report_of_a_crowd_is_cut_short():
    with pytest.raises(
        DeadlockError, match=r"until cancelled, since 0\.0 s \(and 99 more like it\)"
    ):
        finish(*[sleep_forever() for _ in range(100)])


def test_a_deadlock_after_which_cleanup_fails_tells_both():
    async def clumsy():
        try:
            await sleep_forever()
        finally:
            raise ValueError("cleanup")

    with pytest.raises(ExceptionGroup) as info:
        finish(clumsy())
    assert [type(e) for e in info.value.exceptions] == [DeadlockError, ValueError]


def test_no_deadlock_while_a_timer_is_left():
    async def main():
        task = create_task(give("late", 1000))
        return await task

    assert run(main(), speed=math.inf) == "late"


# ---- one run, in one place -------------------------------------------------------------------


def test_a_loop_runs_once():
    loop = SleepingLoop(give(1), speed=math.inf)
    loop.run_until_complete()
    with pytest.raises(LoopClosedError, match="make a new SleepingLoop"):
        loop.run_until_complete()
    coro = give(2)
    with pytest.raises(LoopClosedError, match="make a new SleepingLoop"):
        loop.create_task(coro)
    coro.close()
    assert issubclass(LoopClosedError, RuntimeError)
    assert loop.tasks() == []
    assert loop.stats().steps == 2


@pytest.mark.parametrize("call", ["run", "same", "other"])
def test_nested_runs_are_refused_and_lose_nothing(call):
    async def main():
        coro = give(1)
        if call == "run":
            with pytest.raises(
                RuntimeError, match=r"run\(\) cannot be called while .* create_task"
            ):
                run(coro, speed=math.inf)
            assert await coro == 1  # still the caller's
            return
        loop = current_loop() if call == "same" else SleepingLoop(coro, speed=math.inf)
        with pytest.raises(RuntimeError, match="cannot be called while"):
            loop.run_until_complete()
        others.append(loop)
        coro.close()

    others = []
    run(main(), speed=math.inf)
    if call == "other":  # it had not started, and can
        with pytest.raises(RuntimeError, match="already finished"):
            others[0].run_until_complete()


@pytest.mark.parametrize("speed", [0, -1, math.nan, -math.inf])
def test_bad_speeds(speed):
    coro = give(1)
    with pytest.raises(ValueError, match=f"a positive number or math.inf, not {speed}"):
        SleepingLoop(coro, speed=speed)
    with pytest.raises(ValueError, match="speed"):
        run(coro, speed=speed)
    assert run(coro, speed=math.inf) == 1


@pytest.mark.parametrize("kwargs", [{"speed": "fast"}, {"speed": []}, {"start": 5}, {"stop": 1}])
def test_bad_arguments(kwargs):
    coro = give(1)
    for call in (SleepingLoop, run):
        with pytest.raises(TypeError, match=next(iter(kwargs))):
            call(coro, **kwargs)
    coro.close()


def test_a_list_of_coroutines_says_to_unpack_it():
    coro = give(1)
    with pytest.raises(TypeError, match=r"SleepingLoop\(\*coros\)"):
        SleepingLoop([coro])
    coro.close()


def test_one_bad_coroutine_among_good_ones_starts_nothing():
    good = give("good")
    with pytest.raises(TypeError, match="'nonsense'"):
        SleepingLoop(good, "nonsense")
    assert finish(good) == ["good"]


def test_a_cancelled_task_cannot_go_on_by_joining_finished_tasks():
    """Joining one needs no wait, but it is an await, and every await raises."""

    async def spinner(finished):
        with pytest.raises(CancelledError):
            await sleep_forever()
        with pytest.raises(CancelledError):
            await finished

    async def main():
        finished = create_task(give("done"))
        await finished
        create_task(spinner(finished))
        await sleep(1)

    assert run(main(), speed=math.inf) is None


def test_closing_a_task_that_never_started_is_no_step():
    async def quick_failure():
        raise ValueError("x")

    loop = SleepingLoop(quick_failure(), give(1), give(2), speed=math.inf)
    with pytest.raises(ValueError, match="x"):
        loop.run_until_complete()
    assert loop.stats().steps == 1
