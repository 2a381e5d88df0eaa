"""What tests.rigs.oom runs while memory runs out: conditions and barriers."""

from __future__ import annotations

import math

import sleeploop
from sleeploop import Barrier, BrokenBarrierError, Condition

from .oom_scenarios import scenario


async def take(filled: Condition, things: list[int], taken: list[int]) -> None:
    async with filled:
        try:
            if len(taken) % 2:
                await filled.wait()
            await filled.wait_for(lambda: things)
        finally:
            assert filled.lock.owner is sleeploop.current_task()
        taken.append(things.pop())


async def give_up(filled: Condition) -> bool:
    async with filled:
        with sleeploop.move_on_after(1) as scope:
            await filled.wait()
        assert filled.lock.owner is sleeploop.current_task()
    return scope.cancelled_caught


async def notify() -> list[int]:
    filled, things, taken = Condition(name="filled"), list[int](), list[int]()
    async with sleeploop.TaskGroup() as group:
        for _ in range(2):
            group.create_task(take(filled, things, taken))
        impatient = group.create_task(give_up(filled))
        await sleeploop.sleep(0.5)
        assert repr(filled) == "<Condition 'filled' of Lock 'filled' unlocked, 3 waiting>"
        async with filled:
            await sleeploop.sleep(1)
            assert "waiting for Lock 'filled' held by task" in repr(impatient)
            things += [1, 2]
            filled.notify_all()
    assert impatient.result()
    return taken


@scenario
def conditions() -> None:
    assert sleeploop.run(notify(), speed=math.inf) == [2, 1]


async def come(barrier: Barrier, indices: list[int]) -> None:
    async with barrier as index:
        indices.append(index)
    try:
        await barrier.wait()
    except BrokenBarrierError:
        indices.append(-1)


async def meet() -> list[int]:
    barrier, indices = Barrier(4, name="barrier"), list[int]()
    async with sleeploop.TaskGroup() as group:
        for _ in range(3):
            group.create_task(come(barrier, indices))
        await sleeploop.sleep(1)
        assert repr(barrier) == "<Barrier 'barrier' of 4, 3 waiting>"
        assert await barrier.wait() == 3
        await sleeploop.sleep(1)
        barrier.reset()
    return indices


@scenario
def barriers() -> None:
    assert sleeploop.run(meet(), speed=math.inf) == [0, 1, 2, -1, -1, -1]
