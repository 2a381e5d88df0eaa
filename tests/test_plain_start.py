"""TaskGroup.start() of a plain function, which may call started() before it has a coroutine."""

import threading

import pytest

from sleeploop import (
    CancelledError,
    CancelScope,
    Event,
    Interrupt,
    TaskGroup,
    checkpoint,
    create_task,
    current_loop,
    sleep,
)
from tests.helpers import awaited_error, now, virtual


async def body(log=None):
    await sleep(1)
    if log is not None:
        log.append(now())


def early(value=5, *, started):
    started(value)
    return body()


def test_it_returns_at_once_what_started_was_given():
    async def main():
        log = []
        async with TaskGroup() as group:

            def function(*, started):
                assert started(5) is None
                return body(log)

            other = create_task(checkpoint())
            assert await group.start(function) == 5
            assert not other.done()  # nothing had to be waited for
            assert repr(group) == "<TaskGroup open, 1 task>"
        assert log == [1.0]

    virtual(main())


def test_it_is_a_task_of_the_group_as_any_other():
    async def main():
        async with TaskGroup() as group:
            assert await group.start(early) == 5
            group.create_task(body())
            me, *others = current_loop().tasks()
            assert [task.parent for task in others] == [me, me]
        return now()

    assert virtual(main()) == 1.0


@pytest.mark.parametrize("value", [None, (), StopIteration(3), ValueError("v"), [1]])
def test_any_value(value):
    async def main():
        async with TaskGroup() as group:
            return await group.start(early, value)

    assert virtual(main()) is value


def test_a_failure_of_the_coroutine_is_the_groups():
    async def fails():
        raise ValueError("of the body")

    def function(*, started):
        started()
        return fails()

    async def main():
        async with TaskGroup() as group:
            await group.start(function)
            await sleep(5)

    with pytest.raises(ExceptionGroup) as info:
        virtual(main())
    assert repr(info.value.exceptions) == "(ValueError('of the body'),)"


def test_the_coroutine_may_not_call_it_again():
    async def again(started):
        with pytest.raises(RuntimeError, match="has been called before"):
            started(6)
        return "done"

    def function(*, started):
        started(5)
        return again(started)

    async def main():
        async with TaskGroup() as group:
            return await group.start(function)

    assert virtual(main()) == 5


def test_started_is_of_no_use_after_a_failure():
    kept = []

    def function(*, started):
        kept.append(started)
        return "junk"

    async def main():
        async with TaskGroup() as group:
            with pytest.raises(TypeError, match="'junk'"):
                await group.start(function)
            with pytest.raises(RuntimeError, match="nobody waits"):
                kept[0](5)

    virtual(main())


def test_called_in_a_thread():
    def function(*, started):
        def attempt():
            with pytest.raises(RuntimeError, match="another thread"):
                started("wrong")
            log.append("refused")

        thread = threading.Thread(target=attempt)
        thread.start()
        thread.join()
        return later(started)

    async def later(started):
        await sleep(1)
        started("right")

    async def main():
        async with TaskGroup() as group:
            return await group.start(function), now()

    log = []
    assert virtual(main()) == ("right", 1.0)
    assert log == ["refused"]


# ---- cancelled, interrupted --------------------------------------------------------------------


def test_started_comes_first_and_then_a_cancellation():
    async def main():
        with CancelScope() as scope:

            def function(*, started):
                started(5)
                scope.cancel("afterwards")
                return body()

            async with TaskGroup() as group:
                assert await group.start(function) == 5
                error = await awaited_error(checkpoint())
                assert error.reason == "afterwards"
                raise error
        return scope.cancelled_caught, now()

    assert virtual(main()) == (True, 0.0)


def test_a_cancellation_comes_first():
    async def main():
        with CancelScope() as scope:

            def function(*, started):
                scope.cancel("first")
                assert started(5) is None
                return body()

            async with TaskGroup() as group:
                error = await awaited_error(group.start(function))
                assert error.reason == "first"
                raise error
        return scope.cancelled_caught, now()

    assert virtual(main()) == (True, 0.0)


def test_an_interrupt_before_it():
    """Which the task has yet to get, as it had been woken already."""
    calls = []

    async def main():
        bell = Event()
        task = create_task(starter(bell))
        await checkpoint()
        bell.set()
        task.interrupt("before")
        await task

    async def starter(bell):
        async with TaskGroup() as group:
            await bell.wait()
            with pytest.raises(Interrupt, match="before"):
                await group.start(calls.append)
            assert await group.start(early) == 5

    virtual(main())
    assert calls == []


def test_a_group_that_is_cancelled_meanwhile():
    """By the function, of a group further out than the one who starts."""

    async def main():
        async with TaskGroup() as group:

            def function(*, started):
                started(5)
                group.cancel_scope.cancel()
                return body()

            task = create_task(starter(group, function))
            await sleep(1)
        return await task

    async def starter(group, function):
        return await group.start(function), now()

    assert virtual(main()) == (5, 0.0)


@pytest.mark.parametrize("first", ["close", "started"])
def test_a_function_that_closes_its_start(first):
    async def main():
        async with TaskGroup() as group:
            starts, coros = [], []

            def function(*, started):
                if first == "started":
                    started(5)
                starts[0].close()
                if first == "close":
                    with pytest.raises(RuntimeError, match="nobody waits"):
                        started(5)
                coros.append(body())
                return coros[0]

            starts.append(group.start(function))
            with pytest.raises(RuntimeError, match="was closed by its function"):
                await starts[0]
            coros[0].close()
            assert repr(group) == "<TaskGroup open, 0 tasks>"

    virtual(main())


def test_a_function_that_awaits_its_start():
    async def main():
        async with TaskGroup() as group:
            starts = []

            def function(*, started):
                started(5)
                with pytest.raises(RuntimeError, match="start"):
                    starts[0].send(None)
                return body()

            starts.append(group.start(function))
            assert await starts[0] == 5

    virtual(main())


def test_a_cancelled_error_raised_by_the_function_is_its_own():
    def function(*, started):
        started(5)
        raise CancelledError("by hand")

    async def main():
        async with TaskGroup() as group:
            with pytest.raises(CancelledError, match="by hand"):
                await group.start(function)

    virtual(main())
