"""Scopes, groups and their awaitables in reference cycles; what a million blocks leave behind."""

import gc
import sys
import tracemalloc

import pytest

from sleeploop import (
    CancelledError,
    CancelScope,
    TaskGroup,
    checkpoint,
    create_task,
    current_loop,
    current_task,
    move_on_after,
    sleep_forever,
    timeout,
)
from tests.helpers import OnDel, awaited_error, ended, fail, give, references, virtual


class Own(CancelledError):
    """A subclass, as a program may have one."""


class Knot:
    """A reason for a cancellation that leads back to what has been cancelled."""


async def serve(*_, started):
    started()


# ---- cycles: each maker returns a Knot that can be reached from itself, through one type ---------


async def through_a_scope():
    knot = Knot()
    knot.scope = CancelScope()
    knot.scope.cancel(knot)
    return knot


async def through_an_error():
    knot = Knot()
    with CancelScope() as scope:
        scope.cancel(knot)
        try:
            await checkpoint()
        except CancelledError as error:
            knot.error = error.with_traceback(None)
    return knot


async def through_an_error_of_one_s_own():
    knot = Knot()
    knot.error = Own("by hand")
    knot.error.knot = knot
    return knot


async def through_a_group():
    knot = Knot()
    knot.group = TaskGroup()
    knot.group.cancel_scope.cancel(knot)
    return knot


async def through_the_beginning_of_a_group():
    """An awaitable that has its value already, and was not awaited."""
    knot = await through_a_group()
    knot.begin = knot.group.__aenter__()
    await knot.group.__aexit__(None, None, None)
    del knot.group
    return knot


async def through_the_beginning_of_a_scope():
    knot = Knot()
    scope = CancelScope()
    knot.begin = scope.__aenter__()
    scope.cancel(knot)
    scope.__exit__(None, None, None)
    return knot


async def through_the_end_of_a_group():
    knot = await through_a_group()
    knot.end = knot.group.__aexit__(None, None, None)
    del knot.group
    return knot


async def through_what_a_group_ends_with():
    knot = Knot()
    error = ValueError("of the block")
    error.knot = knot
    knot.end = TaskGroup().__aexit__(ValueError, error, None)
    return knot


async def through_a_start():
    knot = Knot()
    knot.start = TaskGroup().start(serve, knot)
    return knot


async def through_a_start_that_was_awaited():
    knot = await through_a_group_that_is_open()
    async with TaskGroup() as group:
        knot.start = group.start(serve, knot)
        await knot.start
        group.cancel_scope.cancel(knot)
    return knot


async def through_a_group_that_is_open():
    """Nobody can leave it any more; it is torn off when its task ends."""
    knot = Knot()

    async def host():
        knot.group = TaskGroup()
        async with knot.group:
            knot.group.cancel_scope.cancel(knot)

    await create_task(host())
    return knot


async def through_a_task():
    knot = Knot()
    knot.task = create_task(sleep_forever())
    await checkpoint()
    knot.task.cancel(knot)
    await ended(knot.task)
    return knot


async def through_a_task_that_failed_in_a_group():
    knot = Knot()
    error = ValueError("of a task")
    try:
        async with TaskGroup() as group:
            knot.task = group.create_task(fail(error))
    except* ValueError:
        pass
    error.knot = knot
    return knot


MAKERS = [maker for name, maker in globals().items() if name.startswith("through_")]


@pytest.mark.usefixtures("forgetful")
@pytest.mark.parametrize("maker", MAKERS, ids=lambda maker: maker.__name__)
def test_a_cycle_is_found_and_broken(maker):
    async def main():
        knot = await maker()
        knot.token = OnDel(lambda: freed.append("token"))
        del knot
        await checkpoint()

    freed = []
    gc.collect()
    gc.disable()
    try:
        virtual(main())
        assert freed == []  # or it was no cycle
        gc.collect()
        assert freed == ["token"]
    finally:
        gc.enable()


def test_a_scope_that_is_its_own_reason():
    """Nothing but the scope itself can break this one."""

    def scopes():
        return sum(type(obj) is CancelScope for obj in gc.get_objects())

    gc.collect()
    before = scopes()
    for _ in range(10):
        scope = CancelScope()
        scope.cancel(scope)
    del scope
    gc.collect()
    assert scopes() == before


def test_a_start_that_was_told_of_itself():
    """Nothing but the start itself can break this one: a tuple cannot."""

    async def child(started):
        started((holder[0], OnDel(lambda: freed.append("value"))))

    async def main():
        async with TaskGroup() as group:
            holder.append(group.start(lambda started: child(started)))
            holder[0].send(None)
            await checkpoint()
            holder.pop().close()  # before anybody has taken the value

    freed, holder = [], []
    gc.collect()
    gc.disable()
    try:
        virtual(main())
        assert freed == []
        gc.collect()
        assert freed == ["value"]
    finally:
        gc.enable()


def test_the_collector_is_shown_what_is_held():
    """Also what is no garbage as long as the other is held."""

    async def child(started):
        shown.append(gc.get_referents(started.__self__))
        started()

    async def main():
        with CancelScope() as outer, CancelScope() as inner:
            assert outer in gc.get_referents(inner)
        async with TaskGroup() as group:
            await group.start(child_of_start)
        assert current_task() in shown[0]
        assert [type(obj) for obj in shown[0]].count(type(current_task())) == 2

    async def child_of_start(*, started):
        await child(started)

    shown = []
    virtual(main())


def test_a_group_that_dies_with_what_has_failed_in_it():
    """The failure leads back to the group, and is not lost by the collector."""

    async def main():
        group = TaskGroup()
        await group.__aenter__()
        error = ValueError("kept")
        error.group = group
        task = group.create_task(fail(error))
        await awaited_error(sleep_forever())
        assert task in gc.get_referents(group)
        assert error in gc.get_referents(task)
        del group, error, task
        gc.collect()

    with pytest.raises(BaseExceptionGroup) as caught:
        virtual(main())
    kept, left_open = caught.value.exceptions
    assert str(kept) == "kept"
    assert "ended inside of a TaskGroup" in str(left_open)
    assert left_open.__cause__ is None  # main() did not fail before
    assert kept.group.cancel_scope.cancel_called
    del kept.group  # or pytest keeps the cycle


# ---- reference counts ----------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["in time", "timed out", "cancelled", "failed", "started"])
def test_blocks_are_neutral(how):
    """The reference counts of what each of them touches are as before."""

    async def once(reason):
        if how == "in time":
            async with timeout(10), TaskGroup() as group:
                group.create_task(give(reason))
        elif how == "timed out":
            with move_on_after(0):
                await give(reason, 1)
        elif how == "cancelled":
            async with TaskGroup() as group:
                group.create_task(give(reason, 1))
                group.cancel_scope.cancel(reason)
        elif how == "failed":
            try:
                async with TaskGroup() as group:
                    group.create_task(fail(ValueError(reason)))
            except* ValueError:
                pass
        else:
            async with TaskGroup() as group:
                await group.start(serve, reason)

    async def main():
        reason = object()
        counted = (reason, current_task(), current_loop(), CancelScope, TaskGroup, CancelledError)
        before = []
        for _ in range(3):
            for _ in range(10):
                await once(reason)
            gc.collect()
            before.append([references(each) for each in counted])
        return before

    first, second, third = virtual(main())
    assert first == second == third


# ---- a million blocks ----------------------------------------------------------------------------


@pytest.mark.no_leak_check
def test_a_million_timeouts_that_never_fire_leave_nothing_behind():
    """Each has a timer in the heap while it is open."""

    async def blocks(times):
        for _ in range(times):
            with timeout(10):
                pass

    async def switching_blocks(times):
        for _ in range(times):
            async with timeout(10):
                await checkpoint()

    async def main():
        await blocks(1_000)
        await switching_blocks(1_000)
        gc.collect()
        before = sys.getallocatedblocks()
        tracemalloc.start()
        try:
            await switching_blocks(20_000)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        await blocks(980_000)
        gc.collect()
        return peak, sys.getallocatedblocks() - before

    peak, blocks_left = virtual(main())
    assert peak < 100_000  # bytes, with what Python itself takes; a timer each would be 320,000
    assert blocks_left < 100
