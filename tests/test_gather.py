"""gather(): its results, what fails with what, and what is cancelled then."""

import contextvars

import pytest

from sleeploop import (
    CancelledError,
    CancelScope,
    Event,
    Interrupt,
    checkpoint,
    create_task,
    current_loop,
    current_task,
    gather,
    move_on_after,
    sleep,
    sleep_forever,
)
from tests.helpers import Doom, Error, cancel_at, cleanup, fail, give, now, outcome, virtual

BOTH = pytest.mark.parametrize("return_exceptions", [False, True])


async def fail_in_cleanup(error):
    try:
        await sleep_forever()
    finally:
        raise error


async def cancel_myself(then=None):
    current_task().cancel()
    try:
        await sleep(1)
    finally:
        if then is not None:
            raise then


# ---- results and failures ----------------------------------------------------------------------


@BOTH
def test_results_in_the_order_of_the_arguments(return_exceptions):
    async def main():
        coros = [give(n, n) for n in (3, 1, 2)]
        results = await gather(*coros, return_exceptions=return_exceptions)
        assert type(results) is list
        return results, now()

    assert virtual(main()) == ([3, 1, 2], 3.0)


@BOTH
def test_of_nothing(return_exceptions):
    async def main():
        steps = current_loop().stats().steps
        assert await gather(return_exceptions=return_exceptions) == []
        assert current_loop().stats().steps == steps
        with CancelScope() as scope:
            scope.cancel()
            await gather(return_exceptions=return_exceptions)  # is an await, too
        assert scope.cancelled_caught

    virtual(main())


def test_all_start_in_order_in_the_next_pass_with_copies_of_the_context():
    async def child(n):
        log.append((n, var.get()))
        var.set(n)

    async def main():
        var.set("main")
        both = gather(child(1), child(2))
        log.append("called")
        await both
        assert var.get() == "main"

    log, var = [], contextvars.ContextVar("var")
    virtual(main())
    assert log == ["called", (1, "main"), (2, "main")]


def test_a_failure_cancels_the_others_and_is_raised_as_it_is():
    async def main():
        log, error = [], Error("e")
        task = create_task(give("given", 9))
        with pytest.raises(Error) as info:
            await gather(cleanup(log, "c", 4), fail(error, 2), task, cleanup(log, "d", 1))
        assert info.value is error
        assert log == [("d", 3.0), ("c", 6.0)]
        assert now() == 6.0
        assert not task.done()
        return await task  # which is not gather's to cancel

    assert virtual(main()) == "given"


def test_several_failures_are_a_group():
    async def main():
        first, second = Error(1), ValueError(2)
        with pytest.raises(ExceptionGroup, match=r"^2 errors in gather\(\)") as info:
            await gather(fail_in_cleanup(second), fail(first, 1), give(1))
        assert info.value.exceptions == (first, second)
        assert info.value.__context__ is None

    virtual(main())


def test_a_child_s_own_group_stays_whole():
    async def main():
        group = ExceptionGroup("mine", [Error(1), Error(2)])
        assert await outcome(gather(fail(group, 1), sleep_forever())) is group
        other = Error(3)
        inner = gather(fail(group), fail_in_cleanup(other))
        combined = await outcome(gather(inner, sleep_forever()))
        assert combined.exceptions == (group, other)

    virtual(main())


def test_an_error_that_two_children_raise_counts_once():
    async def join(task):
        await task

    async def main():
        error = Error("e")
        task = create_task(fail(error, 1))
        return error, await outcome(gather(join(task), task, join(task)))

    error, raised = virtual(main())
    assert raised is error


def test_with_return_exceptions_nothing_is_cancelled():
    async def main():
        error = Error("e")
        results = await gather(
            fail(error, 1), give("a", 3), create_task(fail(error, 2)), return_exceptions=True
        )
        return results == [error, "a", error], now()

    assert virtual(main()) == (True, 3.0)


@BOTH
def test_an_exception_can_be_a_result(return_exceptions):
    async def main():
        values = [StopIteration(1), Error(), CancelledError()]
        coros = [give(value) for value in values]
        return values == await gather(*coros, return_exceptions=return_exceptions)

    assert virtual(main())


@BOTH
def test_a_base_exception_cancels_the_others_first(return_exceptions):
    async def main():
        await gather(cleanup(log, "c", 1), fail(Doom(), 2), return_exceptions=return_exceptions)

    log = []
    with pytest.raises(Doom):
        virtual(main())
    assert log == [("c", 3.0)]


# ---- cancellation ------------------------------------------------------------------------------


@BOTH
def test_a_cancelled_caller_waits_for_the_cleanup(return_exceptions):
    async def main():
        log = []
        task = create_task(give("t", 9))
        with CancelScope() as scope:
            create_task(cancel_at(2, scope, "why"))
            with pytest.raises(CancelledError) as info:
                await gather(
                    cleanup(log, "a", 3), give("b", 1), task, return_exceptions=return_exceptions
                )
            assert (info.value.reason, info.value.source) == ("why", "explicit")
            assert log == [("a", 5.0)]
            raise info.value
        assert scope.cancelled_caught
        assert now() == 5.0
        return await task

    assert virtual(main()) == "t"


@BOTH
def test_an_error_of_the_cleanup_is_not_lost(return_exceptions):
    async def main():
        error, other = Error(1), Error(2)
        with move_on_after(1) as scope:
            with pytest.raises(Error) as info:
                await gather(
                    fail_in_cleanup(error), give(1, 5), return_exceptions=return_exceptions
                )
            assert info.value is error
            with pytest.raises(CancelledError):
                await sleep(0)
            await sleep(0)
        assert scope.cancelled_caught
        with move_on_after(1), pytest.raises(ExceptionGroup, match="2 errors in gather") as info:
            await gather(
                fail_in_cleanup(error),
                fail_in_cleanup(other),
                fail_in_cleanup(error),  # the same one: counts once
                return_exceptions=return_exceptions,
            )
        assert info.value.exceptions == (error, other)

    virtual(main())


def test_errors_before_the_caller_was_cancelled_are_results_that_nobody_wants():
    async def main():
        with move_on_after(2) as scope:
            await gather(fail(Error(), 1), sleep_forever(), return_exceptions=True)
        return scope.cancelled_caught, now()

    assert virtual(main()) == (True, 2.0)


def test_a_task_that_was_cancelled_by_somebody_else():
    async def cancel(task):
        await sleep(1)
        task.cancel("no")

    async def main():
        log = []
        task = create_task(sleep_forever(), name="t")
        create_task(cancel(task))
        with CancelScope() as scope, pytest.raises(CancelledError, match="task 't' was cancelled"):
            await gather(cleanup(log, "c", 2), task)
        assert not scope.cancelled_caught
        assert log == [("c", 3.0)]

        error, result = await gather(task, give("r", 1), return_exceptions=True)
        assert isinstance(error, CancelledError)
        assert (error.reason, result) == ("no", "r")

    virtual(main())


def test_a_child_that_cancels_itself():
    async def main():
        with pytest.raises(CancelledError, match="was cancelled"):
            await gather(cancel_myself(), give("r", 3))
        error, result = await gather(cancel_myself(), give("r", 3), return_exceptions=True)
        assert isinstance(error, CancelledError)
        return result, now()

    assert virtual(main())[0] == "r"


def test_a_child_that_cancels_itself_and_fails():
    async def main():
        error = Error()
        with pytest.raises(Error) as info:
            await gather(cancel_myself(error), sleep_forever())
        assert info.value is error
        results = await gather(cancel_myself(error), give("r", 3), return_exceptions=True)
        assert results == [error, "r"]

    virtual(main())


def test_a_child_that_is_cancelled_before_its_first_step():
    async def cancel_the_other():
        (other,) = (task for task in current_loop().tasks() if task.name == "Task-3")
        other.cancel()

    async def main():
        return await gather(cancel_the_other(), give(1), return_exceptions=True)

    nothing, error = virtual(main())
    assert nothing is None
    assert isinstance(error, CancelledError)


def test_a_cancelled_error_raised_by_hand():
    async def main():
        log, error = [], CancelledError("mine")
        with CancelScope() as scope, pytest.raises(CancelledError) as info:
            await gather(fail(error, 1), cleanup(log, "c"))
        assert info.value is error
        assert log == [("c", 1.0)]
        assert not scope.cancelled_caught
        return error, await gather(fail(error), give("r", 1), return_exceptions=True)

    error, results = virtual(main())
    assert results == [error, "r"]


@BOTH
def test_nested_gathers_are_cancelled_from_the_outermost(return_exceptions):
    async def main():
        log = []
        inner = gather(cleanup(log, "a", 1), cleanup(log, "b", 2), return_exceptions=True)
        middle = gather(inner, cleanup(log, "c", 3), return_exceptions=return_exceptions)
        with move_on_after(1) as scope:
            await gather(middle, give(1), return_exceptions=return_exceptions)
        assert scope.cancelled_caught
        return log

    assert virtual(main()) == [("a", 2.0), ("b", 3.0), ("c", 4.0)]


def test_a_failure_deep_inside_cancels_all_the_way():
    async def main():
        log, error = [], Error()
        inner = gather(fail(error, 1), cleanup(log, "a", 1))
        with pytest.raises(Error) as info:
            await gather(gather(inner, cleanup(log, "b", 1)), cleanup(log, "c", 1))
        assert info.value is error
        return log

    assert virtual(main()) == [("a", 2.0), ("b", 3.0), ("c", 4.0)]


def test_the_end_of_a_run_cancels_the_children():
    async def main():
        create_task(gather(cleanup(log, "a", 1), gather(cleanup(log, "b", 2))))
        await sleep(1)

    log = []
    virtual(main())
    assert log == [("a", 2.0), ("b", 3.0)]


# ---- interrupted ---------------------------------------------------------------------------------


def interrupted(gathering, at=1):
    """What a task that awaits it returns, or raises, when it is interrupted at a time, and when."""

    async def waiter():
        try:
            result = await gathering
        except Exception as error:
            result = error
        arrived = now()
        try:
            await checkpoint()
        except Interrupt as interrupt:
            return result, arrived, interrupt.cause
        return result, arrived, None

    async def main():
        task = create_task(waiter())
        await sleep(at)
        task.interrupt("enough")
        return await task

    return virtual(main())


@BOTH
def test_an_interrupt_cancels_the_coroutines_and_is_raised_when_they_have_ended(return_exceptions):
    log = []
    coros = [cleanup(log, "slow", 2), cleanup(log, "fast", 1), sleep(0.5)]
    error, arrived, then = interrupted(gather(*coros, return_exceptions=return_exceptions))
    assert isinstance(error, Interrupt)
    assert (error.cause, arrived, then) == ("enough", 3.0, None)
    assert log == [("fast", 2.0), ("slow", 3.0)]


@BOTH
def test_an_interrupt_cancels_no_task_that_was_given(return_exceptions):
    async def waiter():
        with pytest.raises(Interrupt):
            await gather(given, sleep(5), return_exceptions=return_exceptions)
        return now(), given.done(), await given

    async def main():
        nonlocal given
        given = create_task(give(7, 4))
        task = create_task(waiter())
        await sleep(1)
        task.interrupt()
        return await task

    given = None
    assert virtual(main()) == (1.0, False, 7)


@BOTH
def test_what_has_arrived_is_returned_and_the_interrupt_comes_next(return_exceptions):
    """All have been woken when it comes, or do not let themselves be cancelled."""

    async def stubborn():
        with CancelScope(shield=True):
            await sleep(3)
        return "done"

    coros = [give(1, 0.5), stubborn(), fail(Error(), 0.25) if return_exceptions else give(2)]
    results, arrived, then = interrupted(gather(*coros, return_exceptions=return_exceptions))
    assert results[:2] == [1, "done"]
    assert results[2] == 2 or isinstance(results[2], Error)
    assert (arrived, then) == (3.0, "enough")

    async def main():
        async def waiter():
            results = await gather(event.wait(), return_exceptions=return_exceptions)
            with pytest.raises(Interrupt):
                await checkpoint()
            return results

        event = Event()
        task = create_task(waiter())
        await sleep(1)
        event.set()
        task.interrupt()
        return await task

    assert virtual(main()) == [True]


@BOTH
def test_cleanup_that_fails_comes_before_the_interrupt(return_exceptions):
    coros = [fail_in_cleanup(Error("cleanup")), sleep(9)]
    error, arrived, then = interrupted(gather(*coros, return_exceptions=return_exceptions))
    assert isinstance(error, Error)
    assert (arrived, then) == (1.0, "enough")


@BOTH
def test_an_interrupt_before_the_coroutines_have_started(return_exceptions):
    async def waiter():
        await event.wait()
        with pytest.raises(Interrupt):
            await gather(sleep(3), cleanup([], "x"), return_exceptions=return_exceptions)
        return now()

    async def main():
        task = create_task(waiter())
        await sleep(1)
        event.set()
        task.interrupt()
        return await task

    event = Event()
    assert virtual(main()) == 1.0
