"""What waits for tasks that live long leaves nothing behind at them, however it ends."""

import contextlib
import gc
import math
import threading

import pytest

from sleeploop import (
    CancelledError,
    SleepingLoop,
    all_of,
    as_completed,
    checkpoint,
    create_task,
    first_of,
    gather,
    move_on_after,
    run,
    sleep,
    sleep_forever,
    wait_for,
)
from tests.helpers import settle, virtual


def in_memory():
    """How many tasks there are, and how many that wait for one of them."""
    gc.collect()
    kinds = [type(thing).__name__ for thing in gc.get_objects()]
    return kinds.count("Task"), kinds.count("Join")


def left_behind(call, times=20):
    """What there is in memory, after so many calls, that was not there before."""

    async def main():
        forever = [create_task(sleep_forever(), daemon=True) for _ in range(3)]
        await settle()
        before = in_memory()
        for _ in range(times):
            await call(forever)
        await settle()
        return [now - then for now, then in zip(in_memory(), before, strict=True)]

    return virtual(main())


# ---- as_completed() ------------------------------------------------------------------------------


async def time_out(tasks):
    with pytest.raises(TimeoutError):
        async for _ in as_completed(tasks, timeout=1):
            pass


async def be_cancelled(tasks):
    with move_on_after(1):
        async for _ in as_completed(tasks):
            pass


async def break_out(tasks):
    async for task in as_completed([*tasks, sleep(1)]):
        assert task not in tasks
        break


async def never_iterate(tasks):
    as_completed(tasks)


async def drop_later(tasks):
    iteration = as_completed(tasks)
    await settle()
    del iteration
    await checkpoint()


async def drop_a_cycle(tasks):
    iteration = as_completed(tasks)
    iteration.itself = iteration
    await settle()
    del iteration
    gc.collect()


async def drop_in_another_thread(tasks):
    box = [as_completed(tasks)]
    await settle()
    thread = threading.Thread(target=box.clear)
    thread.start()
    thread.join()
    await settle()


async def by_generator(tasks):
    """Closed by aclose(), in the middle of an iteration."""

    async def generator():
        async for task in as_completed([sleep(1), *tasks]):
            yield task

    async with contextlib.aclosing(generator()) as generated:
        await anext(generated)


async def by_for(tasks):
    for awaitable in as_completed(tasks, timeout=1):
        with pytest.raises(TimeoutError):
            await awaitable


async def the_same_twice(tasks):
    with move_on_after(1):
        async for _ in as_completed([tasks[0], tasks[0], *tasks]):
            pass


async def several_consumers(tasks):
    async def consume():
        async for _ in iteration:
            pass

    iteration = as_completed(tasks)
    consumers = [create_task(consume()) for _ in range(3)]
    await sleep(1)
    for consumer in consumers:
        consumer.cancel()
        with pytest.raises(CancelledError):
            await consumer


@pytest.mark.parametrize(
    "call",
    [
        time_out,
        be_cancelled,
        break_out,
        never_iterate,
        drop_later,
        drop_a_cycle,
        drop_in_another_thread,
        by_generator,
        by_for,
        the_same_twice,
        several_consumers,
    ],
)
def test_as_completed(call):
    assert left_behind(call) == [0, 0]


def test_what_is_kept_goes_on():
    """After a timeout the rest can still be had: so long there is a watcher, and no longer."""

    async def main():
        slow = create_task(sleep(10))
        iteration = as_completed([slow], timeout=1)
        with pytest.raises(TimeoutError):
            await anext(iteration)
        await slow
        await settle()
        assert await anext(iteration) is slow
        with pytest.raises(StopAsyncIteration):
            await anext(iteration)
        tasks = in_memory()
        del iteration
        assert in_memory() == tasks

    virtual(main())


def test_dropped_while_what_it_waits_for_ends():
    """Whichever comes first."""

    async def main():
        for n in range(6):
            ends = create_task(sleep(1))
            iteration = as_completed([ends])
            await sleep(1)
            for _ in range(n):
                await checkpoint()
            del iteration
            await settle()
            assert ends.done()

    virtual(main())


def test_dropped_when_the_loop_has_ended_or_is_suspended():
    async def main(kept):
        forever = create_task(sleep_forever(), daemon=True)
        kept.append(as_completed([forever]))
        await sleep(1)

    kept = []
    run(main(kept), speed=math.inf)
    kept.clear()
    loop = SleepingLoop(main(kept), speed=math.inf)
    loop.run_until(5)
    before = in_memory()
    kept.clear()
    while loop.step():
        pass
    assert [now - then for now, then in zip(in_memory(), before, strict=True)] == [-1, -1]
    kept.append(loop)
    loop.close()


def test_a_loop_that_is_dropped_with_an_iteration():
    async def main():
        iteration = as_completed([create_task(sleep_forever())])
        await sleep_forever()
        del iteration

    before = in_memory()
    loop = SleepingLoop(main(), speed=math.inf)
    loop.run_until(5)
    with pytest.warns(ResourceWarning):
        del loop
        gc.collect()
    assert in_memory() == before


# ---- the others ----------------------------------------------------------------------------------


def given_up(wait):
    async def call(tasks):
        with move_on_after(1):
            await wait(tasks)

    return call


@pytest.mark.parametrize(
    "wait",
    [
        lambda tasks: gather(*tasks),
        lambda tasks: gather(*tasks, return_exceptions=True),
        lambda tasks: first_of(*tasks),
        lambda tasks: first_of(sleep(0.5), *tasks),
        lambda tasks: all_of(sleep(0.5), *tasks),
        lambda tasks: wait_for(tasks[0], 2),
        lambda tasks: wait_for(gather(*tasks), 2),
        lambda tasks: first_of(all_of(*tasks), sleep(0.5)),
    ],
)
def test_others(wait):
    assert left_behind(given_up(wait)) == [0, 0]


def test_wait_for_that_times_out():
    async def call(tasks):
        with pytest.raises(TimeoutError):
            await wait_for(tasks[0], 1)

    assert left_behind(call) == [0, 0]
