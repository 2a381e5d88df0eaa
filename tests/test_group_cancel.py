"""Cancelling a TaskGroup: from inside and outside, by scopes, shields and deadlines."""

# ruff: noqa: PT012 -- an `async with` block raises at its end, whatever is in it

from datetime import timedelta

import pytest

from sleeploop import (
    CancelledError,
    CancelScope,
    TaskGroup,
    checkpoint,
    create_task,
    move_on_after,
    sleep,
    sleep_forever,
    timeout,
)
from tests.helpers import cleanup, fail, fail_at_the_end, give, now, virtual


async def cancel_later(cancellable, delay=1):
    await sleep(delay)
    cancellable.cancel()


@pytest.mark.parametrize("who", ["body", "child", "stranger"])
def test_cancel_scope_cancels_the_body_and_all_tasks(who):
    async def cancel(group):
        await sleep(2)
        group.cancel_scope.cancel("enough")

    async def main():
        async with TaskGroup() as group:
            tasks = [group.create_task(sleep(n)) for n in (1, 10)]
            if who == "child":
                group.create_task(cancel(group))
            elif who == "stranger":
                create_task(cancel(group))
            else:
                await cancel(group)
                log.append("without an await the body goes on")
            await sleep(5)
            log.append("not reached")
        assert [task.cancelled() for task in tasks] == [False, True]
        assert group.cancel_scope.cancelled_caught
        return now()

    log = []
    assert virtual(main()) == 2.0
    assert log == (["without an await the body goes on"] if who == "body" else [])


def test_a_group_cancelled_while_closing_just_ends():
    async def main():
        async with TaskGroup() as group:
            group.create_task(cleanup(log, "slow", 4))
            create_task(cancel_later(group.cancel_scope))
        assert group.cancel_scope.cancelled_caught
        return now()

    log = []
    assert virtual(main()) == 5.0  # it waits for what the cancelled still have to do
    assert log == [("slow", 5.0)]


def test_a_group_cancelled_when_all_is_done_has_caught_nothing():
    async def main():
        async with TaskGroup() as group:
            task = group.create_task(give("result"))
            await task
            group.cancel_scope.cancel()
        assert group.cancel_scope.cancel_called
        assert not group.cancel_scope.cancelled_caught
        await checkpoint()  # it is not in force any more
        return task.result()

    assert virtual(main()) == "result"


def test_a_group_cancelled_before_it_is_entered():
    async def main():
        group = TaskGroup()
        group.cancel_scope.cancel()
        async with group:
            task = group.create_task(cleanup(log, "never", 1))
            log.append("body")
            await checkpoint()
            log.append("not reached")
        assert task.cancelled()

    log = []
    virtual(main())
    assert log == ["body"]


def test_a_task_added_to_a_cancelled_group_never_starts():
    async def straggler(group):
        try:
            await sleep_forever()
        finally:
            tasks.append(group.create_task(never()))

    async def never():
        tasks.append("ran")

    async def main():
        async with TaskGroup() as group:
            group.create_task(straggler(group))
            await checkpoint()
            group.cancel_scope.cancel()
        (task,) = tasks
        assert task.cancelled()

    tasks = []
    virtual(main())


def test_a_group_in_a_scope_that_is_cancelled_already():
    async def main():
        with CancelScope() as scope:
            scope.cancel()
            async with TaskGroup() as group:
                tasks.append(group.create_task(cleanup(log, "never", 1)))
                log.append("body")  # to enter is no await
            log.append("not reached")
        assert scope.cancelled_caught
        assert not group.cancel_scope.cancelled_caught
        assert not group.cancel_scope.cancel_called
        assert tasks[0].cancelled()

    log, tasks = [], []
    virtual(main())
    assert log == ["body"]


def test_the_end_of_the_block_is_an_await_even_without_tasks():
    async def main():
        with CancelScope() as scope:
            async with TaskGroup():
                scope.cancel()
            log.append("not reached")
        assert scope.cancelled_caught

    log = []
    virtual(main())
    assert log == []


def test_children_that_end_cancelled_are_no_failure():
    async def main():
        async with TaskGroup() as group:
            gone = group.create_task(sleep(10))
            stays = group.create_task(give("stays", 3))
            await sleep(1)
            assert gone.cancel()
        assert gone.cancelled()
        assert not group.cancel_scope.cancel_called
        return stays.result(), now()

    assert virtual(main()) == ("stays", 3.0)


@pytest.mark.parametrize("closing", [False, True])
def test_cancelling_the_host_cancels_all_tasks_and_waits_for_them(closing):
    async def host():
        async with TaskGroup() as group:
            group.create_task(cleanup(log, "child", 2))
            if not closing:
                await sleep_forever()
        log.append("not reached")

    async def main():
        task = create_task(host())
        await sleep(1)
        task.cancel("host")
        with pytest.raises(CancelledError) as info:
            await task
        assert info.value.reason == "host"
        return now()

    log = []
    assert virtual(main()) == 3.0
    assert log == [("child", 3.0)]


def test_failures_count_more_than_a_cancellation_from_outside():
    async def main():
        with move_on_after(1) as scope:
            async with TaskGroup() as group:
                group.create_task(fail_at_the_end(ValueError("cleanup")))
        log.append(scope)

    log = []
    with pytest.raises(ExceptionGroup) as info:
        virtual(main())
    assert repr(info.value.exceptions) == "(ValueError('cleanup'),)"
    assert log == []


def test_inner_and_outer_groups():
    async def main():
        async with TaskGroup() as outer:
            uncle = outer.create_task(give("uncle", 4))
            async with TaskGroup() as inner:
                nephew = inner.create_task(sleep(10))
                await sleep(1)
                inner.cancel_scope.cancel()
            assert (now(), nephew.cancelled()) == (1.0, True)  # the outer one is untouched
            await sleep(1)
        assert uncle.result() == "uncle"

        async with TaskGroup() as outer:
            async with TaskGroup() as inner:
                nephew = inner.create_task(cleanup(log, "nephew", 1))
                outer.create_task(cleanup(log, "uncle", 2))
                await sleep(1)
                outer.cancel_scope.cancel()
            log.append("not reached")
        assert nephew.cancelled()
        assert not inner.cancel_scope.cancelled_caught
        assert outer.cancel_scope.cancelled_caught

    log = []
    virtual(main())
    assert log == [("nephew", 6.0), ("uncle", 7.0)]


def test_a_failure_in_the_outer_group_reaches_the_inner_one():
    async def worker():
        async with TaskGroup() as inner:
            inner.create_task(cleanup(log, "grandchild", 1))

    async def main():
        with pytest.raises(ExceptionGroup) as info:
            async with TaskGroup() as outer:
                outer.create_task(worker())
                outer.create_task(fail(ValueError(), 1))
        assert len(info.value.exceptions) == 1

    log = []
    virtual(main())
    assert log == [("grandchild", 2.0)]


def test_shields_in_children():
    async def shielded():
        with CancelScope(shield=True):
            await sleep(5)
        log.append(now())
        await sleep(0)
        log.append("not reached")

    async def main():
        async with TaskGroup() as group:
            task = group.create_task(shielded())
            await sleep(1)
            group.cancel_scope.cancel()
        return task.cancelled(), now()

    log = []
    assert virtual(main()) == (True, 5.0)
    assert log == [5.0]


def test_a_shield_on_the_group_s_own_scope():
    async def main():
        with move_on_after(1) as scope:
            async with TaskGroup() as group:
                group.cancel_scope.shield = True
                task = group.create_task(give("done", 3))
                assert await task == "done"
            log.append("not reached")  # the end of the block lies outside of the shield
        assert scope.cancelled_caught
        with move_on_after(1):
            async with TaskGroup() as group:
                group.cancel_scope.shield = True
                task = group.create_task(sleep(9))
                await sleep(2)
                group.cancel_scope.cancel()  # it does not hold back its own
        return task.cancelled(), now()

    log = []
    assert virtual(main()) == (True, 5.0)
    assert log == []


def test_deadlines():
    async def main():
        group = TaskGroup()
        group.cancel_scope.deadline = 2
        async with group:
            tasks = [group.create_task(sleep(n)) for n in (1, 3)]
        assert [task.cancelled() for task in tasks] == [False, True]
        assert now() == 2.0
        async with TaskGroup() as group:
            task = group.create_task(give("extended", 3))
            group.cancel_scope.deadline = now() + 1
            await sleep(0.5)
            group.cancel_scope.deadline = now() + 10
        assert task.result() == "extended"
        with pytest.raises(TimeoutError):
            async with timeout(timedelta(seconds=5)), TaskGroup() as group:
                group.create_task(cleanup(log, "late", 1))
        assert not group.cancel_scope.cancelled_caught
        return now()

    log = []
    assert virtual(main()) == 11.0
    assert log == [("late", 11.0)]


def test_a_cancelled_error_raised_by_hand_is_nobody_s():
    """No scope is cancelled, so it is an error like any other."""
    error = CancelledError("by hand")

    async def main():
        with pytest.raises(BaseExceptionGroup) as info:
            async with TaskGroup() as group:
                group.create_task(fail(error))
        assert info.value.exceptions == (error,)
        with pytest.raises(BaseExceptionGroup) as info:
            async with TaskGroup() as group:
                task = group.create_task(sleep(5))
                raise error
        assert info.value.exceptions == (error,)
        assert task.cancelled()

    virtual(main())


def test_cancelled_errors_inside_of_exception_groups():
    async def gather():
        try:
            await sleep_forever()
        except CancelledError as error:
            raise BaseExceptionGroup("both", [error, ValueError("x")]) from None

    async def main():
        with pytest.raises(BaseExceptionGroup) as info:
            async with TaskGroup() as group:
                create_task(cancel_later(group.cancel_scope))
                await gather()
        (rest,) = info.value.exceptions
        assert repr(rest.exceptions) == "(ValueError('x'),)"
        assert group.cancel_scope.cancelled_caught

    virtual(main())


def test_a_shield_in_the_body_does_not_protect_the_tasks():
    async def main():
        async with TaskGroup() as group:
            with CancelScope(shield=True):
                task = group.create_task(cleanup(log, "task", 0))
                await sleep(1)
                group.cancel_scope.cancel()
                await sleep(1)
                log.append(("body", now()))
                assert task.cancelled()
            await sleep(1)
            log.append("not reached")

    log = []
    virtual(main())
    assert log == [("task", 1.0), ("body", 2.0)]


def test_a_cancellation_from_outside_outlasts_the_failures_that_were_raised():
    """The failures come out first; the next await tells of the cancellation."""

    async def main():
        with move_on_after(1) as scope:
            with pytest.raises(ExceptionGroup):
                async with TaskGroup() as group:
                    group.create_task(fail_at_the_end(ValueError("cleanup")))
            log.append("handled")
            await checkpoint()
            log.append("not reached")
        return scope.cancelled_caught

    log = []
    assert virtual(main())
    assert log == ["handled"]


def test_a_task_that_falls_to_another_task_s_cancellation_has_failed():
    """It was not cancelled itself, and what it waited for will never come."""

    async def join(task):
        return await task

    async def main():
        stranger = create_task(sleep_forever(), name="stranger")
        with pytest.raises(BaseExceptionGroup) as info:
            async with TaskGroup() as group:
                task = group.create_task(join(stranger))
                sibling = group.create_task(sleep_forever())
                await sleep(1)
                stranger.cancel("gone")
        (error,) = info.value.exceptions
        assert isinstance(error, CancelledError)
        assert error.reason == "gone"
        return task.cancelled(), sibling.cancelled()

    assert virtual(main()) == (False, True)
