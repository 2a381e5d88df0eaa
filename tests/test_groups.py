"""TaskGroup: who waits for whom, what fails with what, and what is cancelled then."""

# ruff: noqa: PT012 -- an `async with` block raises at its end, whatever is in it

import contextlib
import contextvars
import gc
import math

import pytest

from sleeploop import (
    CancelledError,
    SleepingLoop,
    Task,
    TaskGroup,
    checkpoint,
    create_task,
    current_loop,
    current_task,
    sleep,
    sleep_forever,
)
from tests.helpers import cleanup, fail, fail_at_the_end, give, now, virtual

# ---- the block and its tasks ---------------------------------------------------


def test_the_block_waits_for_all_its_tasks():
    async def main():
        async with TaskGroup() as group:
            tasks = [group.create_task(give(n, n)) for n in (3, 1, 2)]
            assert now() == 0.0
        assert now() == 3.0
        assert all(isinstance(task, Task) and task.done() for task in tasks)
        return [task.result() for task in tasks]

    assert virtual(main()) == [3, 1, 2]


def test_a_group_without_tasks_does_not_step_aside():
    async def main():
        steps = current_loop().stats().steps
        async with TaskGroup():
            pass
        assert current_loop().stats().steps == steps

    virtual(main())


def test_tasks_start_in_the_next_pass_in_the_order_of_creation():
    async def child(n):
        order.append(n)

    async def main():
        async with TaskGroup() as group:
            for n in range(4):
                group.create_task(child(n))
            order.append("body")
        order.append("after")

    order = []
    virtual(main())
    assert order == ["body", 0, 1, 2, 3, "after"]


def test_the_body_can_await_a_task_of_its_group():
    async def main():
        async with TaskGroup() as group:
            value = await group.create_task(give("v", 2))
            group.create_task(give(None, 1))
            return value, now()  # leaves the block, which still waits

    loop = SleepingLoop(main(), speed=math.inf)
    assert loop.run_until_complete() == [("v", 2.0)]
    assert loop.time() == 3.0


def test_repr_tells_the_state_and_the_number_of_tasks():
    async def main():
        group = TaskGroup()
        assert repr(group) == "<TaskGroup not entered, 0 tasks>"
        async with group as entered:
            assert entered is group
            group.create_task(give(1, 1))
            assert repr(group) == "<TaskGroup open, 1 task>"
            group.create_task(give(1, 1))
            group.cancel_scope.cancel()
            assert repr(group) == "<TaskGroup open, 2 tasks, cancelled>"
        assert repr(group) == "<TaskGroup finished, 0 tasks, cancelled>"

    virtual(main())


def test_what_the_tasks_and_the_host_tell_of_each_other():
    async def child(group):
        await sleep(1)
        host = current_task().parent
        assert host.waiting_on is group
        assert (host.waiting_since, host.wake_time) == (0.5, None)
        assert "waiting for the 2 tasks of its TaskGroup" in repr(host)
        # The host is the parent, whoever calls create_task().
        grandchild = group.create_task(sleep(0))
        assert grandchild.parent is host
        return host

    async def main():
        async with TaskGroup() as group:
            task = group.create_task(child(group))
            group.create_task(sleep(1))
            await sleep(0.5)
        assert task.result() is current_task()

    virtual(main())


def test_names_and_contexts():
    var = contextvars.ContextVar("var", default="default")

    async def child():
        value = var.get()
        var.set("changed by the child")
        return value, current_task().name

    async def main():
        var.set("main's")
        own = contextvars.Context()
        async with TaskGroup() as group:
            copied = group.create_task(child())
            given = group.create_task(child(), name="given", context=own)
            var.set("too late")
        assert copied.result() == ("main's", "Task-2")
        assert given.result() == ("default", "given")
        assert var.get() == "too late"
        assert own[var] == "changed by the child"  # it ran in that very context
        assert given.context is own

    virtual(main())


def test_any_task_of_the_loop_can_add_one_until_the_block_has_been_left():
    async def grow(group, depth):
        await sleep(1)
        if depth > 0:
            group.create_task(grow(group, depth - 1))

    async def stranger(group):
        await sleep(2.5)  # the block is waiting
        group.create_task(sleep(10))

    async def main():
        async with TaskGroup() as group:
            create_task(stranger(group))
            group.create_task(grow(group, 5))
        return now()

    assert virtual(main()) == 12.5


def test_a_task_added_when_the_last_one_has_just_ended_is_waited_for():
    """The host has been woken, and another task runs before it does."""

    async def stranger(group):
        await sleep(1)
        assert current_loop().tasks() == [host, current_task()]
        group.create_task(sleep(5))

    async def main():
        nonlocal host
        host = current_task()
        async with TaskGroup() as group:
            group.create_task(sleep(1))
            create_task(stranger(group))
        return now()

    host = None
    assert virtual(main()) == 6.0


def test_loop_level_tasks_do_not_belong_to_the_group():
    async def main():
        async with TaskGroup() as group:
            task = create_task(give("free", 5))
            group.create_task(sleep(1))
            group.cancel_scope.cancel()
        assert (now(), task.done()) == (0.0, False)
        return await task

    assert virtual(main()) == "free"


def test_crowds_and_chains():
    async def chain(group, n):
        if n > 0:
            group.create_task(chain(group, n - 1))
            await checkpoint()

    async def nest(n):
        async with TaskGroup() as group:
            group.create_task(nest(n - 1) if n > 0 else sleep(1))

    async def main():
        async with TaskGroup() as group:
            tasks = [group.create_task(give(n, n % 7)) for n in range(2000)]
            group.create_task(chain(group, 2000))
            group.create_task(nest(200))
        return sum(task.result() for task in tasks), now()

    assert virtual(main()) == (1999 * 1000, 6.0)


# ---- failures ------------------------------------------------------------------


def test_a_failure_cancels_the_others_and_is_raised_in_a_group():
    async def main():
        with pytest.raises(ExceptionGroup, match="1 error in a TaskGroup") as info:
            async with TaskGroup() as group:
                sibling = group.create_task(cleanup(log, "sibling", 3))
                group.create_task(fail(error, 2), name="bad")
                try:
                    await sleep_forever()
                finally:
                    log.append(("body", now()))
        assert info.value.exceptions == (error,)
        assert sibling.cancelled()
        assert now() == 5.0  # nothing outlives the block

    log, error = [], ValueError("x")
    virtual(main())
    assert log == [("body", 2.0), ("sibling", 5.0)]


def test_what_the_cancelled_are_told_about_a_failure():
    async def main():
        with pytest.raises(ExceptionGroup):
            async with TaskGroup() as group:
                group.create_task(fail(ValueError("x"), 1), name="bad")
                try:
                    await sleep_forever()
                except CancelledError as error:
                    errors.append(error)
                    raise

    errors = []
    virtual(main())
    (error,) = errors
    assert str(error) == error.reason == "task 'bad' failed with ValueError('x')"
    assert (error.source, error.source_task, error.where) == ("failure", "bad", None)


def test_the_body_s_failure_cancels_the_tasks():
    async def main():
        error = KeyError("k")
        with pytest.raises(ExceptionGroup) as info:
            async with TaskGroup() as group:
                task = group.create_task(cleanup(log, "task", 1))
                await sleep(1)
                unstarted = group.create_task(cleanup(log, "unstarted", 1))
                raise error
        assert info.value.exceptions == (error,)
        assert task.cancelled()
        assert unstarted.cancelled()

    log = []
    virtual(main())
    assert log == [("task", 2.0)]  # the other one never ran


def test_all_failures_are_collected_in_the_order_in_which_they_came():
    first, second, third, fourth = (ValueError(n) for n in range(4))

    async def main():
        async with TaskGroup() as group:
            group.create_task(fail_at_the_end(third))
            group.create_task(fail(first, 1))
            group.create_task(fail(second, 1))  # it is due in the same pass
            try:
                await sleep_forever()
            finally:
                raise fourth

    with pytest.raises(ExceptionGroup, match="4 errors in a TaskGroup") as info:
        virtual(main())
    # The body's own is the last: it is looked at when all the tasks have ended.
    assert info.value.exceptions == (first, second, third, fourth)


def test_the_same_exception_counts_once():
    async def join(task):
        await task

    async def main():
        error = ValueError("x")
        with pytest.raises(ExceptionGroup) as info:
            async with TaskGroup() as group:
                task = group.create_task(fail(error, 1))
                group.create_task(join(task))
                await task
        assert info.value.exceptions == (error,)
        with pytest.raises(ExceptionGroup) as info:  # equal ones are two
            async with TaskGroup() as group:
                group.create_task(fail(ValueError("x")))
                group.create_task(fail(ValueError("x")))
        assert len(info.value.exceptions) == 2

    virtual(main())


def test_nested_groups_raise_nested_groups():
    async def main():
        async with TaskGroup() as outer:
            outer.create_task(sleep(1))
            async with TaskGroup() as inner:
                inner.create_task(fail(ValueError("x")))

    with pytest.raises(ExceptionGroup) as info:
        virtual(main())
    (inner,) = info.value.exceptions
    assert isinstance(inner, ExceptionGroup)
    assert repr(inner.exceptions) == "(ValueError('x'),)"


def test_except_star():
    caught = []

    async def main():
        try:
            async with TaskGroup() as group:
                group.create_task(fail(ValueError(1)))
                group.create_task(fail(KeyError(2)))
        except* ValueError as errors:
            caught.extend(errors.exceptions)
        except* KeyError as errors:
            caught.extend(errors.exceptions)
        return "goes on"

    assert virtual(main()) == "goes on"
    assert [repr(error) for error in caught] == ["ValueError(1)", "KeyError(2)"]


def test_a_failure_that_is_no_exception_makes_a_base_exception_group():
    class Odd(BaseException):
        pass

    async def main():
        with pytest.raises(BaseExceptionGroup) as info:
            async with TaskGroup() as group:
                group.create_task(fail(Odd()))
        assert not isinstance(info.value, ExceptionGroup)
        with pytest.raises(BaseExceptionGroup):
            async with TaskGroup():
                raise Odd
        return "goes on"  # it has been raised here, and ends no run

    assert virtual(main()) == "goes on"


def test_a_failure_while_the_block_is_closing():
    async def main():
        with pytest.raises(ExceptionGroup):
            async with TaskGroup() as group:
                group.create_task(sleep(100))
                group.create_task(fail(ValueError(), 3))
        return now()

    assert virtual(main()) == 3.0


def test_a_body_that_swallows_its_cancellation_is_cancelled_again():
    async def main():
        rounds = 0
        with pytest.raises(ExceptionGroup) as info:
            async with TaskGroup() as group:
                group.create_task(fail(ValueError()))
                while rounds < 4:
                    try:
                        await sleep(9)
                    except CancelledError:
                        rounds += 1
        assert len(info.value.exceptions) == 1
        return rounds, now()

    assert virtual(main()) == (4, 0.0)


def test_what_a_group_raises_is_not_reported_a_second_time(caplog):
    async def main():
        with pytest.raises(ExceptionGroup):
            async with TaskGroup() as group:
                group.create_task(fail(ValueError()))
                group.create_task(fail_at_the_end(KeyError()))

    virtual(main())
    gc.collect()
    assert caplog.records == []


def test_a_result_that_has_arrived_is_kept_when_another_task_fails():
    async def sleeper():
        await sleep(1)
        log.append("kept")
        await checkpoint()
        log.append("not reached")

    async def main():
        with pytest.raises(ExceptionGroup):
            async with TaskGroup() as group:
                group.create_task(fail(ValueError(), 1))
                group.create_task(sleeper())

    log = []
    virtual(main())
    assert log == ["kept"]


def test_an_error_keeps_its_traceback():
    async def main():
        async with TaskGroup() as group:
            group.create_task(fail(ValueError(), 1))

    with pytest.raises(ExceptionGroup) as info:
        virtual(main())
    traceback = info.value.exceptions[0].__traceback__
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    assert traceback.tb_frame.f_code.co_name == "fail"


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_what_stands_alone_comes_out_of_the_body_as_it_is(kind, caplog):
    error = kind("now")

    async def main():
        with pytest.raises(kind) as info:
            async with TaskGroup() as group:
                task = group.create_task(cleanup(log, "task", 2))
                group.create_task(fail_at_the_end(ValueError("lost?")))
                await sleep(1)
                raise error
        assert info.value is error
        assert task.cancelled()
        raise info.value

    log = []
    with pytest.raises(kind) as info:
        virtual(main())
    assert info.value is error
    assert log == [("task", 3.0)]  # all of them end first
    assert "ValueError: lost?" in caplog.text


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_what_stands_alone_ends_the_run_when_a_task_raises_it(kind):
    async def main():
        async with TaskGroup() as group:
            group.create_task(fail(kind("now"), 1), name="child")
            try:
                await sleep_forever()
            except CancelledError as error:
                told.append((error.source, str(error)))
                raise

    told = []
    with pytest.raises(kind, match="now"):
        virtual(main())
    assert told == [("shutdown", f"task 'child' failed with {kind.__name__}('now')")]


# ---- more than one ---------------------------------------------------------------


def test_a_context_is_that_of_the_maker_not_of_the_host():
    var = contextvars.ContextVar("var")

    async def child():
        return var.get()

    async def ready(*, started):
        started(var.get())

    async def maker(group):
        var.set("maker's")
        task = group.create_task(child())
        return await group.start(ready), await task

    async def main():
        var.set("host's")
        async with TaskGroup() as group:
            return await create_task(maker(group))

    assert virtual(main()) == ("maker's", "maker's")


def test_failures_at_the_same_time_in_a_group_and_in_one_inside_of_it():
    """Each group collects its own, and the outer one all."""

    async def main():
        with pytest.raises(ExceptionGroup) as info:
            async with TaskGroup() as outer:
                outer.create_task(fail(KeyError("outer"), 1))
                async with TaskGroup() as inner:
                    inner.create_task(fail(ValueError("inner"), 1))
                    await sleep_forever()
                log.append("not reached")
        await checkpoint()  # nothing is in force any more
        return info.value.exceptions

    log = []
    first, second = virtual(main())
    assert repr(first) == "KeyError('outer')"
    assert repr(second.exceptions) == "(ValueError('inner'),)"
    assert log == []


@pytest.mark.parametrize("where", ["task", "block"])
def test_a_context_manager_around_a_group(where):
    """Its block is the group's, as if it stood there."""

    @contextlib.asynccontextmanager
    async def service():
        async with TaskGroup() as group:
            log.append(group.create_task(fail(error, 1) if where == "task" else sleep(100)))
            yield group

    async def main():
        with pytest.raises(ExceptionGroup) as info:
            async with contextlib.AsyncExitStack() as stack:
                await stack.enter_async_context(service())
                if where == "block":
                    await sleep(1)
                    raise error
                await sleep_forever()
        assert info.value.exceptions == (error,)
        assert log[0].done()
        return now()

    log, error = [], ValueError("x")
    assert virtual(main()) == 1.0
