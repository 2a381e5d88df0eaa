"""Scopes among objects that call back or die at the worst moment, and what is left behind."""

import contextlib
import gc
import math
import weakref

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
    sleep,
    sleep_forever,
    timeout,
)
from tests.helpers import OnDel, awaited_error, give, nothing_is_in_force, now, virtual

NO_ERROR = (None, None, None)


# ---- objects that call back ----------------------------------------------------------------------


class Callback:
    """Calls back when it is looked at as a number or as a truth value."""

    def __init__(self, callback):
        self.callback = callback

    def __float__(self):
        self.callback()
        return 5.0

    def __bool__(self):
        self.callback()
        return True


class Splits(BaseExceptionGroup):
    """Calls back when a scope looks for its own errors in it."""

    callback = None

    def split(self, condition):
        self.callback()
        return super().split(condition)

    def derive(self, exceptions):
        return BaseExceptionGroup(self.message, exceptions)


async def raise_splits(scope, callback):
    with scope:
        scope.cancel()
        error = await awaited_error(checkpoint())
        group = Splits("splits", [error, ValueError("v")])
        group.callback = callback
        raise group


def test_setting_a_deadline_cancels_leaves_or_enters_the_scope():
    async def main():
        with CancelScope() as scope:
            scope.deadline = Callback(scope.cancel)
            await checkpoint()
        assert scope.cancelled_caught

        scope = CancelScope().__enter__()
        scope.deadline = Callback(lambda: scope.__exit__(*NO_ERROR))
        await nothing_is_in_force()

        scope = CancelScope()
        scope.deadline = Callback(scope.__enter__)  # which has passed
        await awaited_error(checkpoint())
        scope.__exit__(*NO_ERROR)

    virtual(main())


def test_setting_a_shield_leaves_or_enters_the_scope():
    async def main():
        scope = CancelScope().__enter__()
        scope.shield = Callback(lambda: scope.__exit__(*NO_ERROR))
        await nothing_is_in_force()

        with CancelScope() as outer:
            outer.cancel()
            scope = CancelScope()
            scope.shield = Callback(scope.__enter__)
            await sleep(1)
            scope.__exit__(*NO_ERROR)
            await checkpoint()
        return outer.cancelled_caught

    assert virtual(main())


def test_taking_errors_out_of_a_group_leaves_the_scope():
    async def main():
        scope = CancelScope()
        with pytest.raises(ExceptionGroup, match="splits"):
            await raise_splits(scope, lambda: scope.__exit__(*NO_ERROR))
        await nothing_is_in_force()

    virtual(main())


def test_taking_errors_out_of_a_group_fails():
    def fail():
        raise OSError("no split")

    async def main():
        with pytest.raises(OSError, match="no split"):
            await raise_splits(CancelScope(), fail)
        await nothing_is_in_force()

    virtual(main())


def test_taking_errors_out_of_a_group_enters_another_scope():
    """The one that is being left is in force nowhere, also not in what was entered meanwhile."""

    async def main():
        inner = CancelScope()
        with contextlib.suppress(ExceptionGroup, RuntimeError):
            await raise_splits(CancelScope(), inner.__enter__)
        gc.collect()
        await nothing_is_in_force()
        with contextlib.suppress(RuntimeError):
            inner.__exit__(*NO_ERROR)

    virtual(main())


def test_telling_why_a_group_ends_enters_another_scope():
    class Enters(Exception):
        def __repr__(self):
            inner.__enter__()
            return "Enters()"

    async def block():
        async with TaskGroup():
            raise Enters

    async def main():
        with contextlib.suppress(ExceptionGroup, RuntimeError):
            await block()
        gc.collect()
        await nothing_is_in_force()
        with contextlib.suppress(RuntimeError):
            inner.__exit__(*NO_ERROR)

    inner = CancelScope()
    virtual(main())


def test_a_reason_that_calls_back_when_it_dies():
    async def main():
        with CancelScope() as outer:
            scope = CancelScope()
            with scope:
                scope.cancel(OnDel(outer.cancel))
                await checkpoint()
            await checkpoint()  # the error that holds the scope was on its way until here
            assert not outer.cancel_called
            del scope
            assert outer.cancel_called
            await checkpoint()
        return outer.cancelled_caught

    assert virtual(main())


def test_a_coroutine_that_is_closed_by_hand_leaves_its_blocks():
    async def block(scope):
        with scope:
            await sleep_forever()

    async def main():
        scope = move_on_after(5)
        coro = block(scope)
        coro.send(None)  # in this task, which does not wait for what that yielded
        assert current_effective_deadline() == 5.0
        coro.close()
        await nothing_is_in_force()
        return scope.cancel_called

    assert virtual(main()) is False


# ---- garbage -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("how", ["cancel", "deadline", "timeout", "task", "group"])
def test_what_was_cancelled_frees_its_locals_at_once(how):
    """Without the collector: a CancelledError is in no cycle with its scope."""

    async def victim():
        local = OnDel(lambda: dead.append(now()))
        await sleep_forever()
        return local

    async def block():
        if how == "task":
            task = create_task(victim())
            await sleep(3)
            task.cancel()
            await outcome_of_cancelled(task)
        elif how == "group":
            async with TaskGroup() as group:
                group.create_task(victim())
                await sleep(3)
                group.cancel_scope.cancel()
        else:
            with timeout(3) if how == "timeout" else CancelScope() as scope:
                if how == "cancel":
                    create_task(cancel_later(scope))
                scope.deadline = math.inf if how == "cancel" else 3
                await victim()

    async def outcome_of_cancelled(task):
        with contextlib.suppress(CancelledError):
            await task

    async def cancel_later(scope):
        await sleep(3)
        scope.cancel()

    async def main():
        with contextlib.suppress(TimeoutError):
            await block()
        await checkpoint()  # whoever throws an error into a coroutine holds it until that yields
        assert dead == [3.0]

    dead = []
    virtual(main())


@pytest.mark.usefixtures("no_collector")
def test_blocks_leave_nothing_to_the_collector():
    async def main():
        for i in range(100):
            with move_on_after(i) as scope:
                await sleep(5)
            with contextlib.suppress(TimeoutError):
                async with timeout(i):
                    with CancelScope(shield=True):
                        scope = None
                    await sleep(5)
        return scope

    virtual(main())
    assert not [o for o in gc.get_objects() if type(o) is CancelScope]
    assert gc.collect() == 0


def test_cycles_through_a_reason_are_collected():
    class Token:
        pass

    async def main():
        token = Token()
        with CancelScope() as scope:
            token.scope = scope
            scope.cancel(token)
            token.error = await awaited_error(checkpoint())
        with CancelScope() as other:
            other.cancel(other)
        return weakref.ref(token)

    ref = virtual(main())
    gc.collect()
    assert ref() is None
    assert not [o for o in gc.get_objects() if type(o) is CancelScope]


def test_an_error_that_is_kept_keeps_its_scope_and_no_task():
    async def main():
        async with TaskGroup() as group:
            task = group.create_task(victim(), name="victim")
            await checkpoint()
            group.cancel_scope.cancel("why")
        assert task.cancelled()
        return await awaited_error(task)

    async def victim():
        await sleep_forever()

    error = virtual(main())
    error.__traceback__ = None
    gc.collect()
    assert (error.reason, error.source_task) == ("why", "Task-1")
    assert not [t for t in gc.get_objects() if type(t) is type_of_tasks()]
    assert len([o for o in gc.get_objects() if type(o) is CancelScope]) == 1


def type_of_tasks():
    from sleeploop import Task

    return Task


def test_a_loop_that_is_dropped_with_scopes_around():
    """Also one that is interrupted twice, and closes what is left."""

    async def stubborn(events):
        with CancelScope(shield=True) as scope:
            try:
                await sleep_forever()
            finally:
                events.append(scope.cancel_called)

    async def main(events):
        create_task(stubborn(events))
        loop = SleepingLoop(give(1), speed=math.inf)
        create_task(give(2), daemon=True)
        await sleep(1)
        del loop
        gc.collect()
        return current_task().done(), current_loop().time()

    events = []
    with pytest.warns(RuntimeWarning, match="never awaited"):
        from sleeploop import DeadlockError

        with pytest.raises(DeadlockError):
            virtual(main(events))
    assert events == [False]
    gc.collect()
    assert not [o for o in gc.get_objects() if type(o) is CancelScope]
