"""Two things at the same moment: what comes first, counts. And cancelling from strange places."""

import contextlib
import math
import os
import signal
import threading
import time

import pytest

from sleeploop import (
    CancelledError,
    CancelScope,
    TaskGroup,
    checkpoint,
    create_task,
    current_loop,
    current_task,
    move_on_after,
    move_on_at,
    run,
    sleep,
    sleep_forever,
    sleep_until,
    timeout,
)
from tests.helpers import OnDel, awaited_error, cancel_at, give, now, virtual


async def events_of(scope, *awaitables):
    """How many of them came to an end, one after the other, inside of scope."""
    done = 0
    with scope:
        for awaitable in awaitables:
            await awaitable
            done += 1
    return done


# ---- a wake-up and a cancellation ----------------------------------------------------------------


@pytest.mark.parametrize("first", ["sleeper", "canceller"])
def test_a_sleep_that_is_over_and_a_cancel_in_the_same_pass(first):
    """All timers of a moment fire before any task runs: the sleeper keeps its result."""

    async def main():
        scope = CancelScope()
        coros = [events_of(scope, sleep(5), checkpoint()), cancel_at(5, scope)]
        tasks = [create_task(c) for c in (coros if first == "sleeper" else coros[::-1])]
        done = await tasks[0 if first == "sleeper" else 1]
        return done, scope.cancelled_caught

    # The sleeper that comes first has begun to step aside before it is cancelled, in vain.
    assert virtual(main()) == ((2, False) if first == "sleeper" else (1, True))


@pytest.mark.usefixtures("forgetful")
def test_a_task_that_steps_aside_is_not_interrupted_but_at_its_next_await():
    async def main():
        scope = CancelScope()
        task = create_task(events_of(scope, checkpoint(), checkpoint(), checkpoint()))
        await checkpoint()  # it stands in its first one
        scope.cancel()
        return await task, scope.cancelled_caught

    assert virtual(main()) == (1, True)


@pytest.mark.parametrize("first", ["task", "canceller"])
def test_a_joined_task_s_end_and_a_cancel_of_the_joiner_in_the_same_pass(first):
    async def join(scope, task):
        with scope:
            return await task
        return "cancelled"

    async def main():
        scope = CancelScope()
        if first == "task":
            task = create_task(give("result", 5))
            canceller = create_task(cancel_at(5, scope))
        else:
            canceller = create_task(cancel_at(5, scope))
            task = create_task(give("result", 5))
        joiner = create_task(join(scope, task))
        result = await joiner
        assert task.result() == "result"  # it was not the one that was cancelled
        assert canceller.done()
        assert scope.cancel_called
        return result, scope.cancelled_caught, now()

    expected = ("result", False, 5.0) if first == "task" else ("cancelled", True, 5.0)
    assert virtual(main()) == expected


@pytest.mark.parametrize("first", ["task", "canceller"])
def test_a_joined_task_s_failure_and_a_cancel_of_the_joiner_in_the_same_pass(first):
    async def fail():
        await sleep(5)
        raise ValueError("v")

    async def join(scope, task):
        with scope:
            await task

    async def main():
        scope = CancelScope()
        makers = [lambda: create_task(fail()), lambda: create_task(cancel_at(5, scope))]
        made = [make() for make in (makers if first == "task" else makers[::-1])]
        task = made[0 if first == "task" else 1]
        try:
            await create_task(join(scope, task))
        except ValueError:
            return "failed"
        assert str(task.exception()) == "v"
        return "cancelled"

    assert virtual(main()) == ("failed" if first == "task" else "cancelled")


@pytest.mark.usefixtures("forgetful")
def test_what_was_cancelled_is_not_woken_any_more():
    """The sleep's time comes while the cancellation is still on its way."""

    async def main():
        scope = CancelScope()
        task = create_task(events_of(scope, sleep(5), sleep(5)))
        await checkpoint()
        scope.cancel()
        assert task.waiting_on is None
        assert task.wake_time is None
        assert await task == 0
        await sleep(20)
        return current_loop().stats().wakeups

    assert virtual(main()) == 1  # that of the last line


# ---- a deadline and a sleep of the same moment ---------------------------------------------------


@pytest.mark.parametrize("speed", [math.inf, 1000.0])
@pytest.mark.parametrize("delay", [0, 1e-9, 1, 5])
def test_a_timeout_beats_the_sleep_of_the_same_length_in_it(speed, delay):
    async def main():
        with timeout(delay):
            await sleep(delay)

    with pytest.raises(TimeoutError):
        run(main(), speed=speed)


@pytest.mark.usefixtures("forgetful")
@pytest.mark.parametrize("first", ["deadline", "sleep"])
def test_a_deadline_and_a_sleep_of_the_same_moment(first):
    """The timers fire in the order in which they were armed."""

    async def main():
        scope = CancelScope(deadline=5 if first == "deadline" else math.inf)
        task = create_task(events_of(scope, sleep_until(5), checkpoint()))
        await sleep(1)
        if first == "sleep":
            scope.deadline = 5
        done = await task
        assert scope.expired()
        return done, scope.cancelled_caught, now()

    assert virtual(main()) == ((0 if first == "deadline" else 1), True, 5.0)


def test_a_deadline_that_is_set_again_to_the_same_moment_is_armed_anew():
    async def main():
        with move_on_at(5) as scope:
            create_task(reset(scope))
            await sleep_until(5)
            return "slept", scope.cancel_called

    async def reset(scope):
        scope.deadline = scope.deadline

    assert virtual(main()) == ("slept", True)


@pytest.mark.parametrize("first", ["deadline", "extension"])
def test_an_extension_in_the_very_moment_of_the_deadline_is_too_late(first):
    async def extend(scope):
        await sleep_until(5)
        scope.deadline = 10

    async def main():
        scope = CancelScope()
        if first == "extension":
            create_task(extend(scope))
            await checkpoint()
        with scope:
            scope.deadline = 5
            if first == "deadline":
                create_task(extend(scope))
            await sleep_forever()
        return now()

    assert virtual(main()) == 5.0


def test_an_extension_just_before_the_deadline_is_in_time():
    async def extend(scope):
        await sleep_until(5 - 1e-9)
        scope.deadline = 10

    async def main():
        with CancelScope(deadline=5) as scope:
            create_task(extend(scope))
            await sleep_forever()
        return now()

    assert virtual(main()) == 10.0


@pytest.mark.parametrize("first", ["inner", "outer"])
def test_two_deadlines_of_the_same_moment_in_either_order(first):
    """By the time the task runs both have passed, and the outermost counts."""

    async def main():
        with CancelScope() as outer, CancelScope() as inner:
            for scope in (inner, outer) if first == "inner" else (outer, inner):
                scope.deadline = 5
            await sleep_forever()
        return outer.cancelled_caught, inner.cancelled_caught, inner.expired()

    assert virtual(main()) == (True, False, True)


@pytest.mark.parametrize("first", ["deadline", "canceller"])
def test_a_deadline_and_a_cancel_in_the_same_pass(first):
    """The deadline wins: no task runs before all timers of the moment have fired."""

    async def main():
        scope = timeout(5)
        if first == "canceller":
            create_task(cancel_at(5, scope))
            await checkpoint()
        with scope:
            if first == "deadline":
                create_task(cancel_at(5, scope))
            await sleep_forever()

    with pytest.raises(TimeoutError):
        virtual(main())


# ---- a cancel and a shield -----------------------------------------------------------------------


@pytest.mark.parametrize("first", ["cancel", "shield"])
def test_a_cancel_and_a_shield_in_the_same_pass(first):
    async def worker(outer, inner):
        with outer, inner:
            await sleep(5)
            return "slept"
        return "cancelled"

    async def main():
        outer, inner = CancelScope(), CancelScope()
        task = create_task(worker(outer, inner))
        await sleep(1)
        if first == "shield":
            inner.shield = True
        outer.cancel()
        inner.shield = True
        result = await task
        return result, now(), outer.cancelled_caught, inner.cancelled_caught

    # Taken from where it waits, it cannot go back there.
    assert virtual(main()) == (
        ("cancelled", 1.0, True, False) if first == "cancel" else ("slept", 5.0, False, False)
    )


def test_a_cancel_and_a_shield_before_the_next_await():
    """It was not waiting: there is nothing that the shield comes too late for."""

    async def main():
        with CancelScope() as outer, CancelScope() as inner:
            outer.cancel()
            inner.shield = True
            await sleep(5)
            inner.shield = False
            await sleep(5)
        return now(), outer.cancelled_caught

    assert virtual(main()) == (5.0, True)


def test_a_shield_is_lowered_and_raised_in_the_same_step():
    async def worker(outer, inner):
        with outer, inner:
            await sleep(5)
            pytest.fail("it was taken from there")
        return now()

    async def main():
        outer, inner = CancelScope(), CancelScope(shield=True)
        task = create_task(worker(outer, inner))
        await sleep(1)
        outer.cancel()
        inner.shield = False
        inner.shield = True
        return await task

    assert virtual(main()) == 1.0


# ---- cancelled from a strange place --------------------------------------------------------------


def test_from_the_block_itself():
    async def main():
        with CancelScope() as scope:
            scope.cancel()
            error = await awaited_error(sleep(1))
            assert error.source_task == current_task().name
            raise error
        return scope.cancelled_caught

    assert virtual(main())


@pytest.mark.parametrize("how", ["after success", "after an error", "while cancelled"])
def test_from_a_finally(how):
    async def main():
        with CancelScope() as outer, contextlib.suppress(ValueError):
            with CancelScope() as scope:
                try:
                    if how == "after an error":
                        raise ValueError("v")
                    if how == "while cancelled":
                        outer.cancel()
                        await checkpoint()
                finally:
                    scope.cancel()
            await checkpoint()
        return scope.cancel_called, scope.cancelled_caught, outer.cancelled_caught

    assert virtual(main()) == (True, False, how == "while cancelled")


def test_from_another_task_s_exception_handler():
    async def other(scope):
        try:
            await sleep(3)
            raise ValueError("v")
        except ValueError as error:
            scope.cancel(error)

    async def main():
        with CancelScope() as scope:
            create_task(other(scope), name="other")
            error = await awaited_error(sleep(10))
            raise error
        assert error.__context__ is None  # what that task was handling is nothing to this one
        return now(), error.source_task, repr(error.reason)

    assert virtual(main()) == (3.0, "other", "ValueError('v')")


def test_from_the_handler_of_another_cancellation():
    """Two tasks that bring each other down."""

    async def main():
        scopes = [CancelScope(), CancelScope()]

        async def worker(i):
            with scopes[i]:
                try:
                    await sleep(5)
                finally:
                    scopes[1 - i].cancel()
            return scopes[i].cancelled_caught

        tasks = [create_task(worker(i)) for i in range(2)]
        await sleep(1)
        scopes[0].cancel()
        return [await t for t in tasks], now()

    assert virtual(main()) == ([True, True], 1.0)


def test_from_a_destructor():
    async def other(scope):
        keep = OnDel(scope.cancel)
        await sleep(3)
        return keep is None  # and it dies as this task ends

    async def main():
        with CancelScope() as scope:
            create_task(other(scope))
            await sleep(10)
        return now(), scope.cancelled_caught

    assert virtual(main()) == (3.0, True)


def test_from_a_task_inside_of_the_block():
    async def main():
        with CancelScope() as scope:
            async with TaskGroup() as group:
                group.create_task(cancel_at(3, scope))
                sleeper = group.create_task(sleep(10))
                await sleep(10)
        assert scope.cancelled_caught
        assert sleeper.cancelled()
        return now()

    assert virtual(main()) == 3.0


def test_a_task_cancels_itself():
    async def stop(events):
        current_task().cancel("enough")
        events.append("still here")
        await checkpoint()
        events.append("never")

    async def go_on():
        current_task().cancel()
        return "result"

    async def main():
        events = []
        task = create_task(stop(events))
        error = await awaited_error(task)
        return events, error.reason, await create_task(go_on())

    assert virtual(main()) == (["still here"], "enough", "result")


def test_task_cancel_is_outermost_but_comes_only_once_it_is_called():
    """Blocks that the task has entered before pass the error on; one already under way stays."""

    async def worker(events):
        with CancelScope() as inner:
            inner.cancel()
            try:
                await checkpoint()
            finally:
                current_task().cancel()
        events.append(inner.cancelled_caught)
        with CancelScope() as other:
            other.cancel()
            await checkpoint()
        events.append("never")

    async def main():
        events = []
        task = create_task(worker(events))
        await awaited_error(task)
        return events, task.cancelled()

    assert virtual(main()) == ([True], True)


# ---- signals, threads, time that really passes ---------------------------------------------------


@pytest.fixture
def on_sigusr1():
    """Sets the handler of SIGUSR1 for the test only."""
    old = signal.getsignal(signal.SIGUSR1)
    yield lambda function: signal.signal(signal.SIGUSR1, function)
    signal.signal(signal.SIGUSR1, old)


@pytest.mark.realtime
@pytest.mark.parametrize("speed", [1.0, math.inf])
def test_from_a_signal_handler_while_the_loop_is_idle(on_sigusr1, speed):
    def handler(signum, frame):
        scope.cancel("by signal")

    async def main():
        with scope:
            error = await awaited_error(sleep_forever())
            raise error
        assert handler.__qualname__ in error.where
        return scope.cancelled_caught, error.source, error.source_task, error.reason

    scope = CancelScope()
    on_sigusr1(handler)
    thread = threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGUSR1))
    thread.start()
    try:
        assert run(main(), speed=speed) == (True, "explicit", None, "by signal")
    finally:
        thread.join()


@pytest.mark.realtime
def test_from_a_signal_handler_in_the_middle_of_a_step(on_sigusr1):
    async def main():
        with CancelScope() as scope:
            on_sigusr1(lambda signum, frame: scope.cancel())
            os.kill(os.getpid(), signal.SIGUSR1)
            while not scope.cancel_called:
                pass
            error = await awaited_error(sleep(10))
            assert error.source_task == "Task-1"
            raise error
        return scope.cancelled_caught

    assert run(main())


@pytest.mark.realtime
def test_another_thread_may_look_but_not_touch():
    def elsewhere(scope, task):
        calls = {
            "cancel": scope.cancel,
            "task": task.cancel,
            "deadline": lambda: setattr(scope, "deadline", 1),
            "none": lambda: setattr(scope, "deadline", None),
            "reschedule": lambda: scope.reschedule(1),
            "shield": lambda: setattr(scope, "shield", True),
        }
        for name, call in calls.items():
            try:
                call()
            except RuntimeError as error:
                if "thread" in str(error):
                    refused.append(name)
        state.extend((scope.shield, scope.cancel_called, scope.expired(), scope.deadline > 90))

    async def main():
        with move_on_after(100) as scope:
            task = create_task(sleep_forever(), daemon=True)
            await checkpoint()
            thread = threading.Thread(target=elsewhere, args=(scope, task))
            thread.start()
            await sleep(0.02)  # also while the loop is idle
            thread.join()
            assert not task.done()
        return scope.cancelled_caught

    refused, state = [], []
    assert run(main()) is False
    assert refused == ["cancel", "task", "deadline", "none", "reschedule", "shield"]
    assert state == [False, False, False, True]


@pytest.mark.realtime
def test_a_deadline_that_passed_during_a_long_step_counts_at_the_next_wait():
    async def main():
        with timeout(0.01):
            time.sleep(0.02)
            await sleep(10)

    started = time.monotonic()
    with pytest.raises(TimeoutError):
        run(main())
    assert time.monotonic() - started < 5


@pytest.mark.realtime
def test_a_loop_of_checkpoints_does_not_outrun_its_deadline():
    async def main():
        with move_on_after(0.02) as scope:
            while True:
                await checkpoint()
        assert scope.cancelled_caught
        return now()

    assert 0.02 <= run(main()) < 5


@pytest.mark.realtime
def test_real_timeouts_are_never_early():
    async def main():
        with move_on_after(0.2) as outer, move_on_after(0.01) as inner:
            try:
                await sleep(1)
            except CancelledError:
                early.append(now() < inner.deadline)
                with CancelScope(shield=True):
                    await sleep_until(outer.deadline)
                raise
        early.append(now() < outer.deadline)
        return inner.cancelled_caught

    early = []
    assert run(main())
    assert early == [False, False]
