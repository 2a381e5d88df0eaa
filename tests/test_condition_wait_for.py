"""Condition.wait_for(): when its predicate is looked at, and what comes out of it."""

import gc

import pytest

from sleeploop import (
    Condition,
    create_task,
    current_loop,
    current_task,
    sleep,
)
from tests.conditions import holds
from tests.helpers import now, settle, virtual


def test_what_is_true_already_is_not_waited_for():
    async def main():
        condition = Condition()
        steps = current_loop().stats().steps
        value = ["something true"]
        async with condition:
            assert await condition.wait_for(lambda: value) is value
            assert holds(condition)
        assert current_loop().stats().steps == steps

    virtual(main())


def test_the_predicate_is_looked_at_once_for_each_notification_with_the_lock_held():
    async def main():
        condition, seen, value = Condition(), [], 0

        def predicate():
            assert current_task() is task
            assert condition.lock.owner is task
            seen.append((value, now()))
            return value if value >= 2 else None

        async def waiter():
            async with condition:
                result = await condition.wait_for(predicate)
                assert holds(condition)
                return result

        task = create_task(waiter())
        for n in 1, 2:
            await sleep(1)
            value = n
            async with condition:
                condition.notify()
                await sleep(0.5)
        assert await task == 2
        return seen

    assert virtual(main()) == [(0, 0.0), (1, 1.5), (2, 3.0)]


def test_who_finds_that_it_does_not_hold_waits_behind_the_others():
    async def main():
        condition, log, wanted = Condition(), [], ["b"]

        async def waiter(name):
            async with condition:
                await condition.wait_for(lambda: name in wanted)
                log.append(name)

        tasks = [create_task(waiter(name)) for name in "abc"]
        await settle()
        assert log == ["b"]
        wanted += "ac"
        async with condition:
            condition.notify()  # a
            condition.notify()  # c
        for task in tasks:
            await task
        assert log == ["b", "a", "c"]
        wanted.clear()
        first, second = create_task(waiter("x")), create_task(waiter("y"))
        await settle()
        async with condition:
            condition.notify()  # x looks, and goes to the end
        await settle()
        wanted += "xy"
        async with condition:
            condition.notify()
        await settle()
        assert log[3:] == ["y"]
        async with condition:
            condition.notify()
        await first
        await second
        assert log[3:] == ["y", "x"]

    virtual(main())


@pytest.mark.parametrize("when", ["at once", "later"])
def test_what_the_predicate_raises_comes_out_with_the_lock_held(when):
    async def main():
        condition, calls = Condition(), 0

        def predicate():
            nonlocal calls
            calls += 1
            if when == "later" and calls == 1:
                return False
            raise LookupError(when)

        async def waiter():
            async with condition:
                with pytest.raises(LookupError, match=when):
                    await condition.wait_for(predicate)
                assert holds(condition)
            return "released"

        task = create_task(waiter())
        await settle()
        async with condition:
            condition.notify()
        assert await task == "released"
        assert not condition.locked()

    virtual(main())


def test_a_value_whose_truth_raises():
    class Odd:
        def __bool__(self):
            raise ArithmeticError

    async def main():
        condition = Condition()
        async with condition:
            with pytest.raises(ArithmeticError):
                await condition.wait_for(Odd)
            assert holds(condition)

    virtual(main())


@pytest.mark.parametrize("predicate", [None, 5, "x", True])
def test_a_predicate_must_be_something_to_call(predicate):
    with pytest.raises(TypeError) as info:
        Condition().wait_for(predicate)
    assert str(info.value) == (
        f"Condition.wait_for() takes a function without arguments, not {predicate!r}"
    )


@pytest.mark.parametrize("value", [StopIteration(5), (1, 2), KeyError, 10**50, 0.5])
def test_any_value_comes_out_as_it_is(value):
    async def main():
        condition, values = Condition(), [None, value]

        async def waiter():
            async with condition:
                return await condition.wait_for(lambda: values.pop(0))

        task = create_task(waiter())
        await settle()
        async with condition:
            condition.notify()
        assert await task is value
        async with condition:
            assert await condition.wait_for(lambda: value) is value

    virtual(main())


def test_a_predicate_that_gives_the_lock_away():
    async def main():
        condition = Condition(name="c")
        async with condition:
            with pytest.raises(RuntimeError, match="Lock 'c' is not held by anyone"):
                await condition.wait_for(condition.release)
            assert not condition.locked()
            condition.acquire_nowait()

    virtual(main())


def test_a_predicate_that_uses_the_wait_it_belongs_to():
    async def main(late):
        condition, log = Condition(), []

        def use():
            nonlocal late
            if late:
                late = False
                return False
            for call in (
                lambda: waiting.send(None),
                lambda: waiting.throw(LookupError("thrown")),
                lambda: repr(waiting),
                waiting.close,
                gc.collect,
            ):
                try:
                    log.append(call())
                except (RuntimeError, LookupError) as error:
                    log.append(str(error))
            return "value"

        async def waiter():
            nonlocal waiting
            async with condition:
                waiting = condition.wait_for(use)
                try:
                    return await waiting
                finally:
                    assert holds(condition)

        waiting = None
        task = create_task(waiter())
        await settle()
        async with condition:
            condition.notify()
        assert await task == "value"
        assert not condition.locked()
        return log

    for late in False, True:
        log = virtual(main(late))
        assert "awaited before" in log[0]
        assert log[1] in ("thrown", None)
        assert log[2].startswith("<Condition.wait_for() of ")
