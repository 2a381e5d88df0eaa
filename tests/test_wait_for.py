"""wait_for(): its limit, what the limit does, and what it leaves alone."""

import math
from datetime import timedelta

import pytest

from sleeploop import (
    CancelledError,
    CancelScope,
    checkpoint,
    create_task,
    move_on_after,
    sleep,
    sleep_forever,
    wait_for,
)
from tests.helpers import Error, awaited_error, cancel_at, fail, give, now, outcome, virtual


@pytest.mark.parametrize("limit", [None, math.inf, 3, 3.0, timedelta(seconds=3), 10**400])
def test_in_time(limit):
    async def main():
        return await wait_for(give("v", 2.5), limit), now()

    assert virtual(main()) == ("v", 2.5)


@pytest.mark.parametrize("limit", [2, 2.0, timedelta(seconds=2)])
def test_out_of_time(limit):
    async def main():
        await sleep(1)
        with pytest.raises(TimeoutError, match=r"the deadline at 3\.0 s has passed") as info:
            await wait_for(give("v", 2.5), timeout=limit)
        assert isinstance(info.value.__cause__, CancelledError)
        assert info.value.__cause__.source == "deadline"
        assert now() == 3.0
        await checkpoint()  # nothing is cancelled any more

    virtual(main())


@pytest.mark.parametrize(
    ("limit", "error"),
    [(math.nan, ValueError), ("1", TypeError), ([], TypeError), (1j, TypeError)],
)
def test_what_is_no_limit(limit, error):
    async def main():
        coro = give("v")
        with pytest.raises(error, match="nan" if error is ValueError else "not "):
            wait_for(coro, limit)
        return await coro

    assert virtual(main()) == "v"


def test_the_limit_is_to_be_given():
    coro = give("v")
    with pytest.raises(TypeError, match="timeout"):
        wait_for(coro)
    coro.close()


def test_the_limit_counts_from_the_await():
    async def main():
        limited = wait_for(sleep_forever(), 2)
        await sleep(5)
        with pytest.raises(TimeoutError):
            await limited
        return now()

    assert virtual(main()) == 7.0


@pytest.mark.parametrize("limit", [0, -1, timedelta(0), -math.inf])
def test_no_time_at_all(limit):
    async def instantly(value):
        return value

    async def main():
        with pytest.raises(TimeoutError):
            await wait_for(give("v"), limit)
        with pytest.raises(TimeoutError):
            await wait_for(create_task(give("v")), limit)
        assert now() == 0.0
        # What needs no time has enough.
        assert await wait_for(instantly("i"), limit) == "i"
        done, failed, cancelled = (
            create_task(give("d")),
            create_task(fail(Error("f"))),
            create_task(sleep_forever()),
        )
        cancelled.cancel()
        await sleep(1)
        assert await wait_for(done, limit) == "d"
        with pytest.raises(Error, match="f"):
            await wait_for(failed, limit)
        with pytest.raises(CancelledError, match="was cancelled"):
            await wait_for(cancelled, limit)

    virtual(main())


def test_of_a_finished_task_is_an_await():
    async def main():
        task = create_task(give("v"))
        await sleep(1)
        with CancelScope() as scope:
            scope.cancel()
            await wait_for(task, 5)
        assert scope.cancelled_caught

    virtual(main())


def test_a_coroutine_runs_its_cleanup_first():
    async def work():
        try:
            await sleep_forever()
        finally:
            with CancelScope(shield=True):
                await sleep(3)
            log.append(now())

    async def main():
        with pytest.raises(TimeoutError):
            await wait_for(work(), 2)
        log.append("timeout")

    log = []
    virtual(main())
    assert log == [5.0, "timeout"]


def test_a_cleanup_that_fails():
    async def work():
        try:
            await sleep_forever()
        finally:
            raise error

    async def main():
        with pytest.raises(Error) as info:
            await wait_for(work(), 2)
        assert info.value is error
        assert isinstance(error.__context__, CancelledError)

    error = Error()
    virtual(main())


def test_a_coroutine_that_does_not_give_up_gives_its_result():
    async def stubborn():
        try:
            await sleep_forever()
        except CancelledError:
            return "all the same"

    async def main():
        return await wait_for(stubborn(), 2), now()

    assert virtual(main()) == ("all the same", 2.0)


def test_a_task_runs_on():
    async def main():
        task = create_task(give("v", 5))
        with pytest.raises(TimeoutError):
            await wait_for(task, 2)
        assert not task.done()
        assert await wait_for(task, 9) == "v"
        return now()

    assert virtual(main()) == 5.0


def test_a_failure_is_raised_as_it_is():
    async def main():
        error = TimeoutError("of its own")
        for aw in (fail(error, 1), create_task(fail(error, 1))):
            with pytest.raises(TimeoutError) as info:
                await wait_for(aw, 5)
            assert info.value is error
        return now()

    assert virtual(main()) == 1.0


def test_a_cancelled_task_is_no_timeout():
    async def main():
        task = create_task(sleep_forever(), name="t")
        with CancelScope() as scope:
            create_task(cancel_task_at(1, task))
            with pytest.raises(CancelledError, match="task 't' was cancelled"):
                await wait_for(task, 5)
        assert not scope.cancelled_caught
        await checkpoint()

    async def cancel_task_at(when, task):
        await sleep(when)
        task.cancel()

    virtual(main())


@pytest.mark.parametrize("as_task", [False, True])
def test_a_cancelled_caller(as_task):
    async def main():
        log = []

        async def work():
            try:
                await sleep(9)
                log.append("through")
            except CancelledError as error:
                log.append(error.reason)
                raise

        aw = create_task(work()) if as_task else work()
        with CancelScope() as scope:
            create_task(cancel_at(1, scope, "why"))
            error = await awaited_error(wait_for(aw, 5))
            assert (error.source, error.reason) == ("explicit", "why")
            assert now() == 1.0
            await checkpoint()
        assert scope.cancelled_caught
        await sleep(20)
        return log

    assert virtual(main()) == (["through"] if as_task else ["why"])


@pytest.mark.parametrize(
    ("outer", "inner", "expected"),
    [
        (2, 5, ("outer", 2.0)),
        (5, 2, ("inner", 2.0)),
        (3, 3, ("outer", 3.0)),
        (0, 0, ("outer", 0.0)),
    ],
)
def test_nested(outer, inner, expected):
    async def limited():
        try:
            await wait_for(sleep_forever(), inner)
        except TimeoutError:
            return "inner"

    async def main():
        try:
            which = await wait_for(limited(), outer)
        except TimeoutError:
            which = "outer"
        return which, now()

    assert virtual(main()) == expected


def test_at_the_same_moment_the_limit_was_there_first():
    async def main():
        assert isinstance(await outcome(wait_for(sleep(5), 5)), TimeoutError)
        return now()

    assert virtual(main()) == 5.0


def test_a_result_on_its_way_is_not_lost():
    async def cancel(scope):
        scope.cancel()

    async def work(scope):
        await sleep(1)
        create_task(cancel(scope))  # runs when the waiter has been woken, and before it goes on
        return "v"

    async def main():
        with CancelScope() as scope:
            result = await wait_for(create_task(work(scope)), 5)
            assert scope.cancel_called
            await awaited_error(checkpoint())
        return result

    assert virtual(main()) == "v"


def test_a_limit_in_a_cancelled_scope_changes_nothing():
    async def main():
        with move_on_after(1) as scope:
            await sleep(0)
            scope.cancel()
            await wait_for(sleep_forever(), 5)
        return scope.cancelled_caught, now()

    assert virtual(main()) == (True, 0.0)
