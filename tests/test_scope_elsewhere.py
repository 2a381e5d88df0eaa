"""A block that is left by hand where it was not entered: that raises there, and changes nothing."""

import contextlib
import gc
import math
import threading

import pytest

from sleeploop import (
    CancelScope,
    SleepingLoop,
    TaskGroup,
    checkpoint,
    create_task,
    current_effective_deadline,
    current_loop,
    first_of,
    gather,
    move_on_after,
    run,
    sleep,
    sleep_forever,
    timeout,
    to_thread,
)
from tests.helpers import fail, give, now, outcome, virtual

NO_ERROR = (None, None, None)
AN_ERROR = (ValueError, ValueError("of somebody else"), None)


def leave(block, args=NO_ERROR):
    """Leave it, without waiting for anything."""
    if isinstance(block, TaskGroup):
        return block.__aexit__(*args).send(None)
    return block.__exit__(*args)


def leaving_fails(block, args=NO_ERROR):
    with pytest.raises(RuntimeError, match="'owner' and cannot be left anywhere else"):
        leave(block, args)


# ---- where it is left ----------------------------------------------------------------------------


async def in_another_task(block):
    async def other():
        leaving_fails(block)

    task = create_task(other())
    await checkpoint()
    await checkpoint()
    return task


async def in_another_task_by_an_error(block):
    async def other():
        leaving_fails(block, AN_ERROR)

    task = create_task(other())
    await checkpoint()
    await checkpoint()
    return task


async def in_a_child(block):
    async def child():
        leaving_fails(block)

    async with TaskGroup() as group:
        return group.create_task(child())


async def in_a_child_that_fails(block):
    async def child():
        leave(block)

    with pytest.raises(ExceptionGroup) as caught:
        async with TaskGroup() as group:
            group.create_task(child())
    assert "cannot be left anywhere else" in str(caught.value.exceptions[0])
    return await create_task(give(None))


async def in_gather(block):
    async def child():
        leave(block)

    with pytest.raises(RuntimeError, match="cannot be left anywhere else"):
        await gather(child(), sleep(5))


async def in_first_of(block):
    async def child():
        leave(block)

    with pytest.raises(RuntimeError, match="cannot be left anywhere else"):
        await first_of(child(), sleep(5))


async def in_another_loop(block):
    async def other():
        leaving_fails(block)

    await to_thread(run, other(), speed=math.inf)


async def in_another_thread(block):
    await to_thread(leaving_fails, block)


async def in_no_task(block):
    current_loop().call_soon_threadsafe(lambda: outside(block))
    failed = []

    def outside(block):
        try:
            leaving_fails(block)
        except BaseException as error:
            failed.append(error)

    await sleep(0.25)
    assert failed == []


WHERE = [function for name, function in globals().items() if name.startswith("in_")]
KINDS = [CancelScope, lambda: move_on_after(5), lambda: timeout(5), TaskGroup]
IDS = ["CancelScope", "move_on_after", "timeout", "TaskGroup"]


@pytest.mark.parametrize("where", WHERE, ids=lambda function: function.__name__)
@pytest.mark.parametrize("make", KINDS, ids=IDS)
def test_it_goes_on_as_if_nothing_had_happened(make, where):
    async def owner():
        block = make()
        async with block:
            await where(block)
            scope = getattr(block, "cancel_scope", block)
            assert " entered" in repr(scope)
            scope.cancel("for good")
            await sleep_forever()
        assert scope.cancelled_caught
        assert current_effective_deadline() == math.inf
        await sleep(100)
        return "fine"

    async def main():
        return await create_task(owner(), name="owner")

    assert virtual(main()) == "fine"


@pytest.mark.parametrize("where", WHERE, ids=lambda function: function.__name__)
def test_a_group_still_has_its_tasks(where):
    """A failure of one is raised where the block ends, and cancels the others."""

    async def owner(others):
        async with TaskGroup() as group:
            others.append(group.create_task(sleep(10)))
            await where(group)
            group.create_task(fail(KeyError("k"), 2))

    async def main():
        others = []
        group = await outcome(create_task(owner(others), name="owner"))
        assert others[0].cancelled()
        return repr(group.exceptions)

    assert virtual(main()) == "(KeyError('k'),)"


@pytest.mark.parametrize("make", KINDS, ids=IDS)
def test_blocks_inside_of_it_are_in_force(make):
    async def owner():
        async with make() as block:
            async with TaskGroup() as group:
                await in_a_child(block)
                group.create_task(sleep(1))
            with move_on_after(1) as inner:
                await in_another_task(block)
                await sleep(3)
            return inner.cancelled_caught, now()

    async def main():
        return await create_task(owner(), name="owner")

    assert virtual(main()) == (True, 2.0)


@pytest.mark.parametrize("make", KINDS, ids=IDS)
def test_the_parent_leaves_a_block_of_its_child(make):
    async def owner(blocks):
        block = make()
        async with block:
            blocks.append(block)
            await sleep(3)
        return now()

    async def main():
        blocks = []
        async with TaskGroup() as group:
            task = group.create_task(owner(blocks), name="owner")
            await sleep(1)
            leaving_fails(blocks[0])
        return task.result()

    assert virtual(main()) == 3.0


@pytest.mark.parametrize("make", KINDS, ids=IDS)
def test_between_two_steps_of_the_loop(make):
    async def owner():
        async with make() as block:
            blocks.append(block)
            await sleep(3)
        return now()

    async def main():
        return await create_task(owner(), name="owner")

    blocks = []
    loop = SleepingLoop(main(), speed=math.inf)
    loop.run_until(1)
    leaving_fails(blocks[0])
    assert loop.run_until_complete() == [3.0]


@pytest.mark.parametrize("make", KINDS, ids=IDS)
def test_after_its_task_has_ended(make):
    """There is nothing left to leave, and nothing to say."""

    async def owner():
        block = make()
        await block.__aenter__()
        return block

    async def careless(blocks):
        blocks.append(await owner())

    async def main():
        blocks = []
        error = await outcome(create_task(careless(blocks), name="owner"))
        assert "'owner' ended inside of a" in str(error)
        if make is TaskGroup:
            with pytest.raises(StopIteration):
                leave(blocks[0])
        else:
            assert leave(blocks[0]) is False
        await sleep(100)

    virtual(main())


@pytest.mark.parametrize("make", KINDS, ids=IDS)
def test_while_its_own_cancellation_is_under_way(make):
    async def owner(blocks):
        async with make() as block:
            blocks.append(block)
            await sleep_forever()

    async def main():
        blocks = []
        task = create_task(owner(blocks), name="owner")
        await sleep(1)
        scope = getattr(blocks[0], "cancel_scope", blocks[0])
        scope.cancel()
        leaving_fails(blocks[0])
        await task
        return scope.cancelled_caught

    assert virtual(main())


# ---- generators that are closed elsewhere --------------------------------------------------------


async def limited(limit=5, shield=False):
    with move_on_after(limit, shield=shield) as scope:
        while True:
            yield scope


def test_a_generator_s_block_goes_with_it_and_those_inside_of_it_stay():
    async def owner(others):
        generator = limited(2)
        await anext(generator)
        async with TaskGroup() as group:
            others.append(group.create_task(sleep(30)))
            error = await create_task(closes(generator))
            assert "'owner' and cannot be left anywhere else" in str(error)
            await sleep(10)
            group.create_task(fail(KeyError("k"), 1))

    async def closes(generator):
        return await outcome(generator.aclose())

    async def main():
        others = []
        group = await outcome(create_task(owner(others), name="owner"))
        assert others[0].cancelled()
        return repr(group.exceptions), now()

    assert virtual(main()) == ("(KeyError('k'),)", 11.0)


def test_a_shield_goes_with_its_generator():
    async def owner():
        generator = limited(math.inf, shield=True)
        await anext(generator)
        with CancelScope() as inner:
            await create_task(closes(generator))
            await sleep(10)
        return "not reached", inner

    async def closes(generator):
        error = await outcome(generator.aclose())
        assert "cannot be left anywhere else" in str(error)

    async def main():
        with move_on_after(3) as scope:
            async with TaskGroup() as group:
                group.create_task(owner(), name="owner")
        return scope.cancelled_caught, now()

    assert virtual(main()) == (True, 3.0)


def test_a_generator_that_another_task_drives_to_its_end():
    """It cannot leave the block there; the one that has entered it is told when it ends."""

    async def once():
        with move_on_after(5):
            yield

    async def owner(generator):
        await anext(generator)
        await sleep(1)
        error = await create_task(drives(generator))
        assert "'owner' and cannot be left anywhere else" in str(error)

    async def drives(generator):
        return await outcome(anext(generator))

    async def main():
        error = await outcome(create_task(owner(once()), name="owner"))
        assert "'owner' ended inside of a CancelScope" in str(error)

    virtual(main())


def test_a_generator_that_a_thread_collects():
    def collects(holder):
        holder.clear()
        gc.collect()

    async def main():
        async def never():
            with contextlib.ExitStack() as stack:
                stack.enter_context(move_on_after(5))
                yield

        holder = [never()]
        await anext(holder[0])
        thread = threading.Thread(target=collects, args=(holder,))
        thread.start()
        thread.join()
        await checkpoint()
        assert current_effective_deadline() == math.inf
        await sleep(10)
        return "fine"

    assert virtual(main()) == "fine"
