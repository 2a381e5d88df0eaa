"""CancelScope: what a cancellation ends, and which tasks it reaches."""

import contextlib
import math
from datetime import datetime, timedelta

import pytest

from sleeploop import (
    CancelledError,
    CancelScope,
    SleepingLoop,
    TaskGroup,
    checkpoint,
    create_task,
    current_effective_deadline,
    current_loop,
    current_task,
    move_on_after,
    run,
    sleep,
    sleep_forever,
    sleep_until,
    timeout,
)
from tests.helpers import awaited_error, cancel_at, give, now, virtual, yielding

# What one can wait for; each makes an awaitable that would take 10 s, or forever.
LONG_WAITS = {
    "sleep": lambda: sleep(10),
    "timedelta": lambda: sleep(timedelta(seconds=10)),
    "sleep_until": lambda: sleep_until(10),
    "datetime": lambda: sleep_until(current_loop().now() + timedelta(seconds=10)),
    "sleep_forever": sleep_forever,
    "yielded datetime": lambda: yielding(datetime.max),
    "join": lambda: create_task(give("joined", 10)),
}

# Likewise, but what would not wait, or just step aside.
SHORT_WAITS = {
    "sleep(0)": lambda: sleep(0),
    "sleep(-1)": lambda: sleep(-1),
    "in the past": lambda: sleep_until(-1),
    "checkpoint": checkpoint,
    "yielded None": lambda: yielding(None),
    "yielded past": lambda: yielding(datetime.min),
}


# ---- a block that is cancelled -------------------------------------------------------------------


@pytest.mark.parametrize("wait", LONG_WAITS.values(), ids=LONG_WAITS)
def test_a_cancellation_ends_every_kind_of_wait_at_once(wait):
    async def main():
        with CancelScope() as scope:
            create_task(cancel_at(3, scope))
            await wait()
            pytest.fail("it was cancelled")
        assert scope.cancel_called
        assert scope.cancelled_caught
        return now()

    assert virtual(main()) == 3.0


@pytest.mark.parametrize("wait", (LONG_WAITS | SHORT_WAITS).values(), ids=LONG_WAITS | SHORT_WAITS)
def test_every_await_in_a_cancelled_block_raises_and_takes_no_time(wait):
    async def main():
        with CancelScope() as scope:
            scope.cancel()
            for _ in range(3):
                await awaited_error(wait())
            await wait()
        assert scope.cancelled_caught
        return now()

    assert run(main(), speed=math.inf) == 0.0


def test_joining_a_finished_task_is_an_await_like_any_other():
    async def main():
        task = create_task(give("done"))
        await task
        with CancelScope() as scope:
            scope.cancel()
            error = await awaited_error(task)
            assert error.source == "explicit"
            assert task.result() == "done"  # that is no await
            await task
        assert scope.cancelled_caught
        return await task

    assert virtual(main()) == "done"


def test_what_raised_cancelled_error_has_not_happened():
    """The task that was waited for goes on, and can be waited for again."""

    async def main():
        task = create_task(give("result", 5))
        with move_on_after(1) as scope:
            await task
        assert scope.cancelled_caught
        assert not task.done()
        assert await task == "result"
        return now()

    assert virtual(main()) == 5.0


def test_a_block_ends_only_where_it_awaits():
    async def main():
        seen = []
        with CancelScope() as scope:
            scope.cancel()
            seen.append("synchronous code goes on")
        assert scope.cancel_called
        assert not scope.cancelled_caught  # nothing was interrupted
        await checkpoint()
        return seen

    assert virtual(main()) == ["synchronous code goes on"]


def test_a_cancelled_block_that_swallows_the_error_has_caught_nothing():
    async def main():
        with CancelScope() as scope:
            scope.cancel()
            with contextlib.suppress(CancelledError):
                await sleep(1)
        assert scope.cancel_called
        assert not scope.cancelled_caught
        await sleep(1)  # behind the block all is as before
        return now()

    assert virtual(main()) == 1.0


def test_cleanup_that_awaits_is_cancelled_as_well():
    async def main():
        events = []
        with CancelScope() as scope:
            try:
                scope.cancel()
                await sleep_forever()
            finally:
                events.append("first line")
                await sleep_forever()
                events.append("never")
        assert scope.cancelled_caught
        return events

    assert virtual(main()) == ["first line"]


def test_an_error_on_the_way_out_takes_the_place_of_the_cancellation():
    async def main():
        scope = CancelScope()
        with pytest.raises(ValueError, match="cleanup") as info:
            await clumsy(scope)
        assert isinstance(info.value.__context__, CancelledError)
        assert scope.cancel_called
        assert not scope.cancelled_caught

    async def clumsy(scope):
        with scope:
            scope.cancel()
            try:
                await sleep(1)
            finally:
                raise ValueError("cleanup")

    virtual(main())


def test_cancelled_error_is_no_exception():
    async def main():
        with CancelScope() as scope:
            scope.cancel()
            try:
                await sleep(1)
            except Exception:
                pytest.fail("`except Exception` must let it through")
        return scope.cancelled_caught

    assert virtual(main())


def test_cancelling_before_the_block_is_entered():
    async def main():
        scope = CancelScope()
        assert scope.cancel("too late") is None
        assert scope.cancel_called
        await checkpoint()  # not inside yet
        with scope:
            error = await awaited_error(checkpoint())
            raise error
        assert scope.cancelled_caught
        return error.reason, error.source_task

    assert virtual(main()) == ("too late", "Task-1")


def test_the_first_cancellation_counts():
    async def main():
        with CancelScope() as scope:
            scope.cancel("first")
            scope.cancel("second")
            error = await awaited_error(checkpoint())
            scope.cancel("third")
        return error.reason

    assert virtual(main()) == "first"


def test_cancelling_a_block_that_has_been_left_changes_nothing():
    async def main():
        with CancelScope() as scope:
            await checkpoint()
        scope.cancel()
        await checkpoint()
        return scope.cancel_called, scope.cancelled_caught

    assert virtual(main()) == (False, False)


def test_async_with_is_the_same_and_never_steps_aside():
    async def main():
        steps = current_loop().stats().steps
        async with CancelScope() as scope, timeout(5) as other:
            assert isinstance(scope, CancelScope)
            assert isinstance(other, CancelScope)
        with CancelScope():
            pass
        assert current_loop().stats().steps == steps
        async with CancelScope() as scope:
            scope.cancel()
            async with CancelScope():  # entering is no await that would raise
                entered = True
            await checkpoint()
        return entered, scope.cancelled_caught

    assert virtual(main()) == (True, True)


def test_blocks_made_of_blocks():
    @contextlib.contextmanager
    def limit(seconds):
        with timeout(seconds) as scope:
            yield scope

    @contextlib.asynccontextmanager
    async def alimit(seconds):
        async with move_on_after(seconds) as scope:
            yield scope

    async def main():
        with pytest.raises(TimeoutError), limit(2):
            await sleep(5)
        async with alimit(2) as scope:
            await sleep(5)
        assert scope.cancelled_caught
        with contextlib.ExitStack() as stack:
            scopes = [stack.enter_context(CancelScope()) for _ in range(10)]
            scopes[4].cancel()
            await sleep(1)
        assert [s.cancelled_caught for s in scopes] == [i == 4 for i in range(10)]
        return now()

    assert virtual(main()) == 4.0


# ---- which tasks a scope is around ---------------------------------------------------------------


def test_a_task_of_the_loop_is_outside_of_its_maker_s_blocks():
    async def main():
        with CancelScope() as scope:
            task = create_task(give("unharmed", 5))
            await checkpoint()
            scope.cancel()
            await checkpoint()
        return await task

    assert virtual(main()) == "unharmed"


def test_a_task_of_a_group_is_inside_the_blocks_around_the_group_not_around_its_maker():
    async def child(name):
        try:
            await sleep(10)
        finally:
            ends[name] = now()

    async def main():
        with move_on_after(5) as around:
            async with TaskGroup() as group:
                with move_on_after(1) as within:
                    group.create_task(child("made inside of both"))
                    await sleep_forever()
                assert within.cancelled_caught
        assert around.cancelled_caught

    ends = {}
    virtual(main())
    assert ends == {"made inside of both": 5.0}


def test_tasks_of_one_scope_are_cancelled_in_the_order_of_creation_outer_ones_first():
    async def child(name):
        try:
            if name.isupper():
                async with TaskGroup() as group:
                    for i in "12":
                        group.create_task(child(name.lower() + i))
                    await sleep_forever()
            await sleep_forever()
        except CancelledError:
            order.append(name)
            raise

    async def main():
        with CancelScope() as scope:
            async with TaskGroup() as group:
                for name in "ABc":
                    group.create_task(child(name))
                await sleep(1)
                order.append(current_task().name)
                scope.cancel()

    order = []
    virtual(main())
    # "A" and "B" are told when their own tasks, which come later, have ended.
    assert order == ["Task-1", "c", "a1", "a2", "b1", "b2", "A", "B"]


def test_a_task_of_a_cancelled_scope_never_starts():
    async def main():
        with CancelScope() as scope:
            async with TaskGroup() as group:
                task = group.create_task(give(1))
                scope.cancel()
        assert scope.cancelled_caught
        return task.cancelled(), current_loop().stats().steps

    assert virtual(main()) == (True, 2)  # of the main task: the end of the group is an await


@pytest.mark.parametrize("shielded", [False, True])
def test_five_thousand_blocks_one_inside_of_the_other(shielded):
    async def main():
        with contextlib.ExitStack() as stack:
            scopes = [stack.enter_context(CancelScope()) for _ in range(5000)]
            scopes[4998].shield = shielded
            scopes[10].cancel()
            if shielded:
                await sleep(1)
                scopes[4998].shield = False
            await sleep(1)
        assert [i for i, s in enumerate(scopes) if s.cancelled_caught] == [10]
        return now()

    assert virtual(main()) == float(shielded)


def test_five_thousand_functions_each_with_a_timeout():
    """Deep in generators; only the outermost deadline passes, and each `finally` runs."""
    left = []

    async def chain():  # 50 coroutines, each with 100 blocks
        coro = sleep_forever()
        for _ in range(50):
            coro = nest(coro)
        await coro

    async def nest(inner):
        with contextlib.ExitStack() as stack:
            for i in range(100):
                stack.enter_context(timeout(1000 + i))
            try:
                await inner
            finally:
                left.append(current_effective_deadline())

    async def main():
        with pytest.raises(TimeoutError, match=r"the deadline at 7\.0 s"), timeout(7):
            await chain()
        return now()

    assert SleepingLoop(main(), speed=math.inf).run_until_complete() == [7.0]
    assert left == [-math.inf] * 50
