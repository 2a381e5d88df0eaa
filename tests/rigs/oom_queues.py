"""What tests.rigs.oom runs while memory runs out: queues."""

from __future__ import annotations

import contextlib
import math

import sleeploop
from sleeploop import LifoQueue, PriorityQueue, Queue

from .oom_scenarios import scenario


async def produce(queue: Queue[tuple[int, int]], numbers: range) -> None:
    for number in numbers:
        await queue.put((number % 3, number))


async def consume(queue: Queue[tuple[int, int]], log: list[int]) -> None:
    async for _, number in queue:
        log.append(number)
        await sleeploop.sleep(1)
        queue.task_done()


async def hand_on(queue: Queue[tuple[int, int]]) -> list[int]:
    """Through the waiting of either side, and through an end of which both are told."""
    log = list[int]()
    async with sleeploop.TaskGroup() as group:
        for _ in range(2):
            group.create_task(consume(queue, log))
        group.create_task(produce(queue, range(6)))
        group.create_task(produce(queue, range(6, 12)))
        await sleeploop.sleep(20)
        await queue.join()
        assert "2 waiting" in repr(queue)
        queue.shutdown()
    assert queue.stats().gets.count == 12
    return sorted(log)


@scenario
def queues() -> None:
    for kind in (Queue, LifoQueue, PriorityQueue):
        queue: Queue[tuple[int, int]] = kind(2, name="jobs", stats=True)
        assert sleeploop.run(hand_on(queue), speed=math.inf) == list(range(12))


async def lend(queue: Queue[int]) -> list[int]:
    """What comes back when it cannot be handed over, and what does not fit."""
    full = [sleeploop.create_task(queue.put(number)) for number in range(20)]
    await sleeploop.checkpoint()
    got = [await queue.get() for _ in range(10)]
    queue.shutdown()
    with contextlib.suppress(sleeploop.QueueShutDown):
        await queue.put(99)
        raise AssertionError
    with contextlib.suppress(sleeploop.QueueShutDown):
        while True:
            got.append(queue.get_nowait())
    for task in full:
        with contextlib.suppress(sleeploop.QueueShutDown):
            await task
    return got


@scenario
def queues_that_are_full() -> None:
    for kind in (Queue, PriorityQueue):
        assert sleeploop.run(lend(kind(4)), speed=math.inf) == list(range(14))
