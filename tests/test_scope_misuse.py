"""Scopes in wrong hands: wrong order, wrong task, generators that keep one, hostile objects."""

import contextlib
import gc
import math
import threading

import pytest

from sleeploop import (
    CancelScope,
    checkpoint,
    create_task,
    current_effective_deadline,
    move_on_after,
    run,
    sleep,
    sleep_forever,
    timeout,
)
from tests.helpers import nothing_is_in_force, now, outcome, virtual

NO_ERROR = (None, None, None)


def leaving_fails(scope, match):
    with pytest.raises(RuntimeError, match=match):
        scope.__exit__(*NO_ERROR)


# ---- used in a wrong way -------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["inside", "afterwards", "in another loop"])
@pytest.mark.parametrize("make", [CancelScope, lambda: timeout(5), lambda: move_on_after(5)])
def test_a_scope_is_entered_once(make, when):
    async def enter(scope):
        with scope:
            pytest.fail("entered twice")

    async def main():
        with make() as scope:
            if when == "inside":
                with pytest.raises(RuntimeError, match="entered before"):
                    await enter(scope)
        if when == "afterwards":
            with pytest.raises(RuntimeError, match="make a new one for each `with` block"):
                await enter(scope)
        await nothing_is_in_force()
        return scope

    scope = virtual(main())
    if when == "in another loop":
        with pytest.raises(RuntimeError, match="entered before"):
            virtual(enter(scope))


def test_a_scope_is_entered_inside_of_a_task():
    scope = CancelScope()
    with pytest.raises(RuntimeError, match="entering a CancelScope"):
        scope.__enter__()
    with pytest.raises(RuntimeError, match="entering a CancelScope"):
        scope.__aenter__().send(None)

    async def main():
        with scope:  # nothing has happened to it
            scope.cancel()
            await checkpoint()
        return scope.cancelled_caught

    assert virtual(main())


def test_a_scope_is_not_left_before_it_is_entered_nor_twice():
    async def main():
        scope = CancelScope()
        leaving_fails(scope, "has not been entered")
        with scope:
            pass
        leaving_fails(scope, "has been left before")

    virtual(main())


@pytest.mark.parametrize("args", [(), (None,), (None, None), (1, 2, 3), (None,) * 4])
def test_wrong_arguments_of_exit_leave_the_block_alone(args):
    async def main():
        with CancelScope() as scope:
            with pytest.raises(TypeError, match="__exit__"):
                scope.__exit__(*args)
            scope.cancel()
            await checkpoint()
        return scope.cancelled_caught

    assert virtual(main())


def test_what_cannot_be_set_or_subclassed():
    scope = CancelScope()
    for name in ("cancel_called", "cancelled_caught", "unknown"):
        with pytest.raises(AttributeError):
            setattr(scope, name, True)
    for name in ("deadline", "shield"):
        with pytest.raises(TypeError, match=f"{name} cannot be deleted"):
            delattr(scope, name)
    with pytest.raises(TypeError, match="not an acceptable base type"):
        type("Sub", (CancelScope,), {})


def test_the_deadline_of_a_scope_that_counts_from_entering_needs_a_loop():
    scope = timeout(5)
    with pytest.raises(RuntimeError, match="not been entered"):
        scope.deadline
    scope.deadline = 7
    assert scope.deadline == 7.0


@pytest.mark.parametrize("cancelled", [None, "outer", "inner"])
def test_the_outer_scope_is_left_first(cancelled):
    async def main():
        outer, inner = CancelScope(), timeout(3)
        outer.__enter__()
        inner.__enter__()
        if cancelled:
            (outer if cancelled == "outer" else inner).cancel()
        leaving_fails(outer, "CancelScope is left in the wrong order: a timeout was entered inside")
        await nothing_is_in_force()
        leaving_fails(inner, "timeout has been left before, or was torn off by an outer one")
        for scope in (outer, inner):
            scope.cancel()  # in vain
        await nothing_is_in_force()

    virtual(main())


def test_the_middle_one_of_three_is_left_first():
    async def main():
        with CancelScope() as outer:
            middle, inner = CancelScope(), CancelScope()
            middle.__enter__()
            inner.__enter__()
            middle.cancel()
            leaving_fails(middle, "wrong order")
            await sleep(1)  # what is around both is as it was
            outer.deadline = 5
            assert current_effective_deadline() == 5.0
            await sleep_forever()
        return outer.cancelled_caught, now()

    assert virtual(main()) == (True, 5.0)


def test_a_scope_is_left_in_another_task():
    async def other(scope):
        leaving_fails(scope, "entered by task 'owner' and cannot be left anywhere else")

    async def owner(scope):
        with scope:
            await create_task(other(scope))
            await sleep_forever()
        return now()

    async def main():
        return await create_task(owner(move_on_after(3)), name="owner")

    assert virtual(main()) == 3.0


def test_a_scope_is_left_in_another_thread_while_the_loop_waits():
    def generator():
        with move_on_after(0.05) as scope:
            yield scope

    def close(gen):
        try:
            gen.close()
        except RuntimeError as error:
            told.append(str(error))

    async def main():
        gen = generator()
        scope = next(gen)
        thread = threading.Timer(0.01, close, (gen,))
        thread.start()
        await sleep(0.1)  # it would be cancelled
        thread.join()
        assert current_effective_deadline() == math.inf
        return scope.cancel_called

    told = []
    assert run(main()) is False
    assert len(told) == 1
    assert "'Task-1' and cannot be left anywhere else" in told[0]


@pytest.mark.parametrize("depth", [1, 5000])
def test_a_task_that_returns_with_an_open_scope(depth):
    async def main():
        task = create_task(careless(), name="careless")
        error = await outcome(task)
        assert isinstance(error, RuntimeError)
        assert "task 'careless' ended inside of a timeout that it had entered" in str(error)
        assert error.__cause__ is None
        for scope in scopes:  # in force nowhere, and leaving them means nothing any more
            scope.cancel()
            assert not scope.__exit__(*NO_ERROR)
            assert not scope.cancel_called
        await nothing_is_in_force()

    async def careless():
        scopes.extend(timeout(i + 5).__enter__() for i in range(depth))
        return "lost"

    scopes = []
    virtual(main())


def test_a_task_that_fails_with_an_open_scope_tells_both():
    async def careless(error):
        CancelScope().__enter__()
        raise error

    async def main():
        value = ValueError("v")
        error = await outcome(create_task(careless(value)))
        assert isinstance(error, RuntimeError)
        assert error.__cause__ is value

    virtual(main())
    with pytest.raises(KeyboardInterrupt, match="as it is"):
        virtual(careless(KeyboardInterrupt("as it is")))


def test_a_task_that_is_cancelled_by_a_scope_it_has_left_open_has_failed():
    async def careless():
        move_on_after(3).__enter__()
        await sleep_forever()

    async def main():
        task = create_task(careless())
        error = await outcome(task)
        assert not task.cancelled()
        return type(error), str(error.__cause__), now()

    told = (RuntimeError, "the deadline at 3.0 s has passed", 3.0)
    assert virtual(main()) == told


# ---- generators ----------------------------------------------------------------------------------


async def ticks(limit):
    with move_on_after(limit) as scope:
        while True:
            yield scope
            await sleep(1)


def test_an_async_generator_that_is_closed_in_its_block_is_fine():
    async def main():
        async with contextlib.aclosing(ticks(3.5)) as agen:
            async for _ in agen:
                pass
        assert now() == 3.5
        async with contextlib.aclosing(ticks(3)) as agen:
            async for _ in agen:
                break
        await nothing_is_in_force()

    virtual(main())


def test_an_async_generator_s_deadline_passes_in_its_consumer():
    """Nobody catches that error: it is the generator's, and out of its reach."""

    async def consumer():
        async for _ in ticks(3):
            await sleep(10)

    async def main():
        error = await outcome(create_task(consumer()))
        assert isinstance(error, RuntimeError)
        assert "an async generator must not be abandoned" in str(error)
        assert str(error.__cause__) == "the deadline at 3.0 s has passed"
        return now()

    assert virtual(main()) == 3.0


def test_an_async_generator_that_is_abandoned_in_its_block(caplog):
    async def main():
        async for _ in ticks(3):
            break
        gc.collect()
        await checkpoint()  # the loop closes it, in a task of its own
        await nothing_is_in_force()
        return "fine"

    assert virtual(main()) == "fine"
    assert "'Task-1' and cannot be left anywhere else" in caplog.text


def test_an_async_generator_that_is_closed_by_another_task():
    async def consumer(agen):
        await anext(agen)
        await sleep(10)
        return current_effective_deadline()

    async def main():
        agen = ticks(100)
        task = create_task(consumer(agen))
        await sleep(1)
        error = await outcome(agen.aclose())
        assert "cannot be left anywhere else" in str(error)
        return await task

    assert virtual(main()) == math.inf


def test_two_async_generators_in_turns():
    async def main():
        first, second = ticks(50), ticks(50)
        await anext(first)
        await anext(second)
        error = await outcome(first.aclose())
        assert "wrong order" in str(error)
        error = await outcome(second.aclose())
        assert "torn off" in str(error)
        await nothing_is_in_force()

    virtual(main())


def test_a_generator_that_dies_when_its_task_is_over():
    """It leaves the block then, and there is nothing to say."""

    def generator():
        with CancelScope():
            yield

    async def careless():
        kept.append(generator())
        next(kept[0])

    async def main():
        error = await outcome(create_task(careless()))
        assert "ended inside of a CancelScope" in str(error)

    kept = []
    virtual(main())
    kept[0].close()
