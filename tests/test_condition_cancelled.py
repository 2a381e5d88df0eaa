"""Condition: whatever is thrown into a task that waits, it has the lock again before it raises."""

import contextlib
import math
import types
from collections.abc import Callable
from typing import Any

import pytest

from sleeploop import (
    CancelledError,
    CancelScope,
    Condition,
    SleepingLoop,
    TaskGroup,
    checkpoint,
    create_task,
    current_loop,
    move_on_after,
    sleep,
)
from tests.conditions import holds, wait
from tests.helpers import ended, now, outcome, settle, virtual

# ---- cancelled -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["wait", "wait_for"])
def test_who_is_cancelled_has_the_lock_again_before_it_is_raised(kind):
    async def main():
        condition, log = Condition(), []

        async def waiter():
            async with condition:
                try:
                    await (condition.wait() if kind == "wait" else condition.wait_for(bool))
                except CancelledError as error:
                    assert holds(condition)
                    log.append((error.reason, now()))
                    raise

        task = create_task(waiter())
        await sleep(1)
        async with condition:
            task.cancel("enough")
            await sleep(2)
            assert log == []
            assert task.waiting_on is condition.lock
            assert repr(task) == (
                "<Task 'Task-2' test_who_is_cancelled_has_the_lock_again_before_it_is_raised."
                "<locals>.main.<locals>.waiter: waiting for Lock held by task 'Task-1' since "
                "1.0 s, being cancelled>"
            )
        await ended(task)
        assert log == [("enough", 3.0)]
        assert not condition.locked()

    virtual(main())


def test_with_a_free_lock_it_is_raised_in_the_same_step():
    async def main():
        condition = Condition()

        async def waiter():
            async with condition:
                await condition.wait()

        task = create_task(waiter())
        await checkpoint()
        steps = current_loop().stats().steps
        task.cancel()
        await ended(task)
        assert current_loop().stats().steps == steps + 2
        assert not condition.locked()

    virtual(main())


def test_who_was_notified_first_and_cancelled_then_has_been_notified():
    async def main():
        condition, log = Condition(), []

        async def waiter():
            async with condition:
                assert await condition.wait() is True
                log.append("notified")
                with pytest.raises(CancelledError):
                    await checkpoint()
                log.append("cancelled")

        first, second = create_task(waiter()), create_task(wait(condition, log, "second"))
        await settle()
        async with condition:
            condition.notify()
            first.cancel()
            assert first.waiting_on is condition.lock
            assert second.waiting_on is condition
        await settle()
        assert log == ["notified", "cancelled"]
        second.cancel()
        assert not condition.locked()

    virtual(main())


def test_who_was_cancelled_first_leaves_the_notification_to_the_next():
    async def main():
        condition, log = Condition(), []
        first = create_task(wait(condition, log, "first"))
        create_task(wait(condition, log, "second"))
        await settle()
        async with condition:
            first.cancel()
            condition.notify()
        await ended(first)
        await settle()
        assert log == ["second"]

    virtual(main())


def test_cancelled_after_it_has_the_lock_and_before_it_runs():
    async def main():
        condition, log = Condition(), []
        task = create_task(wait(condition, log))
        await settle()
        await condition.acquire()
        condition.notify()
        condition.release()
        assert condition.lock.owner is task
        task.cancel()
        await task
        assert log == ["Task-2"]

    virtual(main())


@pytest.mark.parametrize("kind", ["wait", "wait_for"])
def test_in_a_cancelled_scope_it_raises_and_has_not_released_the_lock(kind):
    async def main():
        condition, calls = Condition(), []
        async with condition:
            with CancelScope() as scope:
                scope.cancel()
                create_task(take(condition, calls))
                try:
                    await (
                        condition.wait()
                        if kind == "wait"
                        else condition.wait_for(lambda: calls.append("predicate"))
                    )
                finally:
                    assert holds(condition)
            assert calls == []
        assert scope.cancelled_caught
        await settle()
        assert calls == ["taken"]

    async def take(condition, calls):
        async with condition:
            calls.append("taken")

    virtual(main())


def test_wait_for_is_cancelled_between_two_looks():
    """Notified, looked, and cancelled before it is parked again."""

    async def main():
        condition, calls = Condition(), []

        def predicate():
            calls.append(now())
            if len(calls) == 2:
                task.cancel()
            return False

        async def waiter():
            async with condition:
                try:
                    await condition.wait_for(predicate)
                finally:
                    assert holds(condition)

        task = create_task(waiter())
        await settle()
        async with condition:
            condition.notify()
        await ended(task)
        assert len(calls) == 2
        assert not condition.locked()

    virtual(main())


def test_a_timeout_ends_when_the_lock_is_had_again():
    async def main():
        condition = Condition()

        async def waiter():
            async with condition:
                with move_on_after(1) as scope:
                    await condition.wait()
                assert scope.cancelled_caught
                assert holds(condition)
                return now()

        task = create_task(waiter())
        await sleep(0.5)
        async with condition:
            await sleep(5)
        assert await task == 5.5

    virtual(main())


def test_a_group_whose_tasks_wait_is_cancelled():
    async def main():
        condition, log = Condition(), []

        async def waiter(name):
            async with condition:
                try:
                    await condition.wait()
                finally:
                    assert holds(condition)
                    log.append(name)

        async with TaskGroup() as group:
            for name in range(3):
                group.create_task(waiter(name))
            await settle()
            async with condition:
                group.cancel_scope.cancel()
                condition.notify_all()  # too late
                assert log == []
        assert log == [0, 1, 2]
        assert repr(condition) == "<Condition of Lock unlocked>"

    virtual(main())


def test_a_trace_tells_who_has_the_lock_that_it_waits_for():
    async def main():
        condition = Condition()
        task = create_task(wait(condition, []), name="waiter")
        await settle()
        async with condition:
            task.cancel()
            await sleep(1)
        await ended(task)

    loop = SleepingLoop(main(), speed=math.inf, trace=True)
    loop.run_until_complete()
    blocks = [
        event for event in loop.trace.events if (event.kind, event.task) == ("block", "waiter")
    ]
    assert [(event.other, event.function) for event in blocks] == [(0, "wait"), (1, "")]


def test_the_exception_has_what_is_being_handled_as_its_context():
    async def main():
        condition, contexts = Condition(), []

        async def waiter():
            async with condition:
                try:
                    raise LookupError
                except LookupError as error:
                    try:
                        await condition.wait()
                    except CancelledError as cancelled:
                        contexts.append(cancelled.__context__ is error)
                        raise

        tasks = [create_task(waiter()) for _ in range(2)]
        await sleep(1)
        tasks[0].cancel()
        await ended(tasks[0])
        async with condition:
            tasks[1].cancel()
            await sleep(1)
        await ended(tasks[1])
        return contexts

    assert virtual(main()) == [True, True]


# ---- thrown into ---------------------------------------------------------------------------------


class Thrown(Exception):
    pass


@types.coroutine
def throwing(awaitable: Any, how: Callable[[Any, BaseException], Any]) -> Any:
    """Await it, but when it is to be resumed, throw into it instead of what was sent."""
    trap = awaitable.send(None)
    while True:
        with contextlib.suppress(CancelledError):
            yield trap
        try:
            trap = how(awaitable, Thrown())
        except StopIteration as stop:
            return stop.value


@pytest.mark.parametrize("notified", [False, True])
@pytest.mark.parametrize("kind", ["wait", "wait_for"])
def test_anything_that_is_thrown_comes_out_with_the_lock_held(kind, notified):
    async def main():
        condition = Condition()

        async def waiter():
            async with condition:
                waiting = condition.wait() if kind == "wait" else condition.wait_for(bool)
                with pytest.raises(Thrown):
                    await throwing(waiting, lambda waiting, exc: waiting.throw(exc))
                assert holds(condition)
                return now()

        task = create_task(waiter())
        await sleep(1)
        async with condition:
            if notified:
                condition.notify()
            else:
                task.cancel()
            await sleep(1)
        time = await outcome_or_cancelled(task)
        assert not condition.locked()
        return time

    async def outcome_or_cancelled(task):
        try:
            return await task
        except CancelledError:
            return "cancelled"

    assert virtual(main()) == 2.0


@pytest.mark.parametrize("regained", [False, True])
def test_what_is_thrown_last_is_what_comes_out(regained):
    async def main():
        condition, errors = Condition(), []

        @types.coroutine
        def twice(waiting):
            trap = waiting.send(None)
            try:
                yield trap
            except CancelledError as error:
                trap = waiting.throw(error)
            try:
                if regained:
                    yield trap
                trap = waiting.throw(Thrown())
                yield trap
                waiting.send(None)
            except Thrown as error:
                errors.append(error)

        async def waiter():
            async with condition:
                await twice(condition.wait())
                assert holds(condition)

        task = create_task(waiter())
        await sleep(1)
        async with condition:
            task.cancel()
            await sleep(1)
        await task
        assert len(errors) == 1
        assert not condition.locked()

    virtual(main())


def test_a_wait_that_is_cancelled_and_swallows_it_waits_on():
    async def main():
        condition = Condition()

        @types.coroutine
        def stubborn(waiting):
            trap = waiting.send(None)
            try:
                yield trap
            except CancelledError:
                with CancelScope(shield=True):
                    yield trap
            try:
                waiting.send(None)
            except StopIteration as stop:
                return stop.value

        async def waiter():
            async with condition:
                assert await stubborn(condition.wait()) is True
                assert holds(condition)

        task = create_task(waiter())
        await settle()
        task.cancel()
        await settle()
        assert task.waiting_on is condition
        assert repr(condition) == "<Condition of Lock unlocked, 1 waiting>"
        async with condition:
            condition.notify()
        await task
        assert repr(condition) == "<Condition of Lock unlocked>"

    virtual(main())


def test_the_task_has_the_lock_by_itself_when_something_is_thrown():
    async def main():
        condition = Condition()

        @types.coroutine
        def clever(waiting):
            trap = waiting.send(None)
            with contextlib.suppress(CancelledError):
                yield trap
            condition.acquire_nowait()
            waiting.throw(Thrown())

        async def waiter():
            async with condition:
                with pytest.raises(Thrown):
                    await clever(condition.wait())
                assert holds(condition)

        task = create_task(waiter())
        await settle()
        task.cancel()
        await task
        assert not condition.locked()

    virtual(main())


@pytest.mark.parametrize("regaining", [False, True])
@pytest.mark.parametrize("how", ["throw", "close"])
def test_somebody_else_throws_into_a_parked_coroutine(how, regaining):
    """It cannot have the lock, so its block is left with an error; nobody else is disturbed."""

    async def main():
        condition, log = Condition(name="c"), []
        coro = wait(condition, log, "victim")
        task = create_task(coro)
        other = create_task(wait(condition, log, "other"))
        await settle()
        holder = create_task(hold(condition))
        await settle()
        with pytest.raises(RuntimeError, match=r"^async with Condition\(\): Lock 'c' held by task"):
            coro.throw(Thrown()) if how == "throw" else coro.close()
        await holder
        assert "cannot reuse" in str(await outcome(task))
        await other
        assert log == ["other"]
        assert repr(condition) == "<Condition 'c' of Lock 'c' unlocked>"

    async def hold(condition):
        async with condition:
            if regaining:
                condition.notify()
            await sleep(1)
            condition.notify_all()

    virtual(main())


@pytest.mark.parametrize("how", ["close", "drop"])
def test_a_task_that_closes_its_own_wait_keeps_the_lock_it_was_given(how):
    async def main():
        condition = Condition()

        @types.coroutine
        def closing(waiting):
            yield waiting.send(None)
            if how == "close":
                waiting.close()

        async def waiter():
            async with condition:
                await closing(condition.wait())
                assert holds(condition)

        task = create_task(waiter())
        await settle()
        async with condition:
            condition.notify()
        await task
        assert not condition.locked()

    virtual(main())


def test_close_before_anything():
    waiting = Condition().wait_for(bool)
    waiting.close()
    with pytest.raises(RuntimeError, match="awaited before"):
        waiting.send(None)
