"""Condition: several loops and threads, loops that stop or are dropped, who owns what, crowds."""

import gc
import math
import sys
import threading
import weakref
from typing import Any

import pytest
from _sleeploop import _stop

from sleeploop import (
    CancelledError,
    CancelScope,
    Condition,
    Lock,
    SleepingLoop,
    TaskGroup,
    create_task,
    current_loop,
    run,
    sleep,
    sleep_forever,
)
from tests.conditions import holds, wait
from tests.helpers import (
    CROWD,
    OnDel,
    ended,
    outcome,
    references,
    settle,
    suspended,
    virtual,
    yielding,
)

# ---- loops ---------------------------------------------------------------------------------------


def test_another_loop_may_use_it_when_nobody_does_any_more():
    async def main():
        log = []
        task = create_task(wait(condition, log, "let go"))
        await settle()
        async with condition:
            condition.notify()
        await task
        return log

    condition = Condition()
    for _ in range(2):
        assert virtual(main()) == ["let go"]


def test_who_waits_keeps_the_lock_for_his_loop():
    """The lock is free, but those who wait at the condition will need it."""
    condition, log = Condition(name="c"), []
    loop = suspended(wait(condition, log, "waited"))
    assert not condition.locked()

    async def intrude():
        with pytest.raises(RuntimeError, match="<Lock 'c' unlocked> belongs to another loop"):
            await condition.acquire()
        with pytest.raises(RuntimeError, match="<Lock 'c' unlocked> belongs to another loop"):
            async with condition.lock:
                pass
        with pytest.raises(RuntimeError, match=r"<Condition 'c' .*> belongs to another loop"):
            condition.notify()
        with pytest.raises(RuntimeError, match=r"<Condition 'c' .*> belongs to another loop"):
            await condition.wait()

    virtual(intrude())

    async def let_go():
        async with condition:
            condition.notify()

    loop.create_task(let_go())
    loop.run_until_complete()
    assert log == ["waited"]
    virtual(acquire(condition))


async def acquire(condition: Condition) -> None:
    async with condition:
        pass


def test_a_lock_that_another_loop_has_meanwhile_is_an_error():
    """It was cancelled, but has not run since, and for that moment nobody has anything."""
    condition = Condition(name="c")
    errors = []

    async def waiter():
        async with condition:
            try:
                await condition.wait()
            except RuntimeError as error:
                errors.append((str(error), type(error.__context__)))
                raise

    async def main():
        task = create_task(waiter())
        await sleep(2)
        task.cancel()
        current_loop().task = task
        _pause_here()
        return await outcome(task)

    class Loop(SleepingLoop):
        pass

    from _sleeploop import _drive, _pause

    loop = Loop(main(), speed=math.inf)

    def _pause_here():
        _pause(loop)

    _drive(loop)

    other = suspended(hold_on(condition))
    with pytest.raises(RuntimeError, match=r"belongs to another loop|only that task"):
        raise loop.run_until_complete()[0]
    ((message, context),) = errors
    assert message.startswith(
        "Condition.wait(): <Lock 'c' held by task 'Task-1' since 0.0 s> belongs to another loop"
    )
    assert context is CancelledError
    other.close()


async def hold_on(condition: Condition) -> None:
    async with condition:
        await sleep_forever()


def test_in_another_thread():
    async def main():
        condition = Condition(name="c")

        async def waiter():
            await wait(condition, [])

        create_task(waiter())
        await settle()
        errors = []

        async def intrude():
            for call in (condition.notify, condition.acquire_nowait):
                try:
                    call()
                except RuntimeError as error:
                    errors.append(str(error))

        thread = threading.Thread(target=lambda: run(intrude(), speed=math.inf))
        thread.start()
        thread.join()
        assert len(errors) == 2
        assert all("used by a loop that runs in another thread" in error for error in errors)

    virtual(main())


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    errors: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: errors.append(args.exc_value))
    return errors


async def hold_and_notify(condition: Condition) -> None:
    await sleep(0.5)
    async with condition:
        condition.notify(2)
        await sleep_forever()


STATES = ["waiting", "regaining", "cancelled"]


def crew(condition: Condition, state: str) -> list[Any]:
    coros: list[Any] = [wait(condition, [], name) for name in range(4)]
    return coros if state == "waiting" else [*coros, hold_and_notify(condition)]


def crowd(condition: Condition, state: str, older: str) -> SleepingLoop:
    """A loop with tasks that wait at the condition, and for its lock."""
    coros = crew(condition, state) if older != "the loop" else []
    loop = SleepingLoop(speed=math.inf)
    if older == "the loop":
        coros = crew(condition, state)
    tasks = [loop.create_task(coro) for coro in coros]
    loop.run_until(0.25)
    if state == "cancelled":
        for task in tasks[:2]:
            task.cancel()
    loop.run_until(1)
    return loop


@pytest.mark.parametrize("state", STATES)
def test_a_loop_that_stops_right_away(state, caplog):
    condition = Condition()
    loop = crowd(condition, state, "the coroutines")
    _stop(loop)
    assert caplog.records == []
    assert repr(condition) == "<Condition of Lock unlocked>"
    virtual(acquire(condition))


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("older", ["the coroutines", "the loop"])
@pytest.mark.parametrize("state", STATES)
def test_a_loop_that_is_dropped(state, older, caplog, heard):
    condition = Condition()
    loop = crowd(condition, state, older)
    del loop
    gc.collect()
    assert caplog.records == []
    assert heard == []
    assert condition.lock.owner is None
    assert "waiting" not in repr(condition)
    virtual(acquire(condition))


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("state", STATES)
def test_a_loop_and_its_condition_are_dropped(state, caplog, heard):
    condition = Condition()
    died = weakref.ref(condition)
    loop = crowd(condition, state, "the loop")
    del loop, condition
    gc.collect()
    assert died() is None
    assert caplog.records == []
    assert heard == []


@pytest.mark.parametrize("state", STATES)
def test_a_loop_that_is_closed(state):
    condition = Condition()
    loop = crowd(condition, state, "the coroutines")
    loop.close()
    assert repr(condition) == "<Condition of Lock unlocked>"


@pytest.mark.parametrize("notified", [False, True])
def test_a_coroutine_that_waits_is_closed_while_its_loop_is_suspended(notified):
    """It does not have the lock, and nobody loses it."""

    async def have():
        async with condition:
            if notified:
                condition.notify()
            await sleep(10)
            assert holds(condition)
            condition.notify_all()

    condition, log = Condition(), []
    coro = wait(condition, log, "closed")
    loop = SleepingLoop(speed=math.inf)
    task = loop.create_task(coro)
    loop.create_task(wait(condition, log, "other"))
    loop.run_until(0.5)
    loop.create_task(have())
    loop.run_until(1)
    coro.close()
    assert condition.locked()
    with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
        loop.run_until_complete()
    assert task.done()
    assert log == ["other"]
    assert not condition.locked()


# ---- who owns what -------------------------------------------------------------------------------


def test_nothing_is_kept_of_a_wait():
    async def main():
        condition = Condition()
        died = weakref.ref(condition)

        class Predicate:
            def __call__(self):
                return looked.pop(0)

        looked = [False, True, True]
        predicate = Predicate()
        gone = weakref.ref(predicate)
        task = create_task(waiter(condition, predicate))
        del predicate
        await settle()
        async with condition:
            condition.notify()
        await task
        assert gone() is None
        lock = condition.lock
        refs = references(lock)
        del task, condition
        assert died() is None
        assert references(lock) == refs - 1

    async def waiter(condition, predicate):
        async with condition:
            await condition.wait_for(predicate)

    gc.collect()
    gc.disable()
    try:
        virtual(main())
    finally:
        gc.enable()


def test_a_condition_that_dies_while_its_task_regains_the_lock():
    async def main():
        lock, log = Lock(), []
        condition = Condition(lock)
        ref = weakref.ref(condition, lambda _: log.append(("died", repr(lock))))
        task = create_task(waiter(condition))
        await settle()
        await lock.acquire()
        task.cancel()
        del condition
        await sleep(1)
        lock.release()
        await ended(task)
        assert ref() is None
        return log

    async def waiter(condition):
        await condition.acquire()
        waiting = condition.wait()
        lock = condition.lock
        del condition
        try:
            await waiting
        finally:
            lock.release()

    gc.collect()
    assert virtual(main()) == [("died", "<Lock held by task 'Task-1' since 0.0 s>")]


def test_a_predicate_that_dies_in_the_wait_calls_back():
    async def main():
        condition, log = Condition(), []

        class Predicate(OnDel):
            def __call__(self):
                return log.append("looked")

        def died():
            log.append(("died", holds(condition)))
            gc.collect()

        async def waiter():
            async with condition:
                await condition.wait_for(Predicate(died))

        task = create_task(waiter())
        await sleep(1)
        async with condition:
            task.cancel()
            await sleep(1)
        await ended(task)
        return log

    assert virtual(main()) == ["looked", ("died", False)]


@pytest.mark.usefixtures("forgetful")
def test_a_cycle_through_a_predicate():
    class Thing:
        pass

    async def main():
        thing = Thing()
        thing.condition = Condition()
        thing.waiting = thing.condition.wait_for(lambda: thing)
        return weakref.ref(thing)

    ref = virtual(main())
    gc.collect()
    assert ref() is None


# ---- a crowd -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_crowd_is_let_go_in_order():
    async def main():
        condition, log = Condition(), []

        async def waiter(n):
            async with condition:
                await condition.wait()
                log.append(n)

        async with TaskGroup() as group:
            for n in range(CROWD):
                group.create_task(waiter(n))
            await settle()
            async with condition:
                assert f"{CROWD} waiting" in repr(condition)
                condition.notify_all()
                assert f"{CROWD} waiting" in repr(condition.lock)
        assert log == list(range(CROWD))
        assert repr(condition) == "<Condition of Lock unlocked>"

    virtual(main())


@pytest.mark.slow
@pytest.mark.parametrize("held", [False, True])
def test_a_crowd_is_cancelled(held):
    async def main():
        condition, count = Condition(), 0

        async def waiter():
            nonlocal count
            async with condition:
                try:
                    await condition.wait()
                finally:
                    assert condition.locked()
                    count += 1

        async with TaskGroup() as group:
            for _ in range(CROWD):
                group.create_task(waiter())
            await settle()
            if held:
                async with condition:
                    group.cancel_scope.cancel()
                    with CancelScope(shield=True):
                        await sleep(1)
            else:
                group.cancel_scope.cancel()
        assert count == CROWD
        assert repr(condition) == "<Condition of Lock unlocked>"

    virtual(main())


def test_yielded_by_somebody_else():
    """Only the task whose wait it is can be parked with it."""

    async def main():
        condition = Condition()
        await condition.acquire()
        waiting = condition.wait()
        trap = waiting.send(None)

        async def other():
            with pytest.raises(TypeError, match=r"cannot wait for <Condition\.wait"):
                await yielding(trap)

        await create_task(other())
        waiting.close()
        assert holds(condition)
        condition.release()

    virtual(main())
