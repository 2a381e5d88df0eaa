"""What tests.rigs.oom runs while memory runs out: other orders, and exploring them."""

from __future__ import annotations

import math

import sleeploop
from sleeploop import SleepingLoop
from sleeploop.testing import Exploration, explore

from .oom_scenarios import raises, scenario

LATEST: list[int] = []


async def step(n: int, steps: int) -> None:
    for _ in range(steps):
        await sleeploop.checkpoint()
    LATEST.append(n)


async def race() -> None:
    LATEST.clear()
    async with sleeploop.TaskGroup() as group:
        for n in range(3):
            group.create_task(step(n, 3))


async def lost_race() -> None:
    await race()
    if LATEST[-1] != 2:
        raise ZeroDivisionError


@scenario
def drawn_orders() -> None:
    loop = SleepingLoop(*(step(n, 40) for n in range(3)), speed=math.inf, shuffle=1)
    loop.run_until_complete()
    schedule = loop.schedule
    assert schedule is not None
    assert len(schedule) > 64  # more than there is room for at first


@scenario
def given_orders() -> None:
    LATEST.clear()
    shuffle = [2] * 3 + [1] * 100
    loop = SleepingLoop(*(step(n, 0) for n in range(3)), speed=math.inf, shuffle=shuffle)
    loop.run_until_complete()
    assert LATEST == [2, 1, 0]
    assert loop.schedule == (2, 1)


@scenario
def bad_orders() -> None:
    raises(TypeError, SleepingLoop, shuffle="1")
    raises(ValueError, SleepingLoop, shuffle=[1, -1])
    raises(TypeError, SleepingLoop, shuffle=[1, None])


@scenario
def exploring() -> None:
    assert explore(race, runs=4) == Exploration(runs=4, schedules=4)


@scenario
def exploring_a_failure() -> None:
    raises(ZeroDivisionError, explore, lost_race, shrink=20)
