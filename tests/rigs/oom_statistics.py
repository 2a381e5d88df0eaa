"""What tests.rigs.oom runs while memory runs out: statistics, subclasses, the end of time."""

from __future__ import annotations

import math
from typing import Any

import sleeploop
from sleeploop import Container, LifoQueue, PriorityQueue, Queue, Resource, SleepingLoop, Store

from .oom_scenarios import scenario


class Machine(Resource):
    """A part of a model with attributes of its own."""

    def __init__(self, name: str, loop: SleepingLoop) -> None:
        super().__init__(2, name=name, stats=True, loop=loop)
        self.log: list[int] = []


class Tank(Container):
    pass


class Shelf(Store[int]):
    pass


class Jobs(PriorityQueue[int]):
    pass


KINDS: list[Any] = [Tank, Shelf, Jobs, Queue, LifoQueue]


async def fill(things: list[Any]) -> None:
    for thing in things:
        await thing.put(1)
    await sleeploop.sleep(10)


def several_runs() -> None:
    things = [kind(10, name=kind.__name__, stats=True) for kind in KINDS]
    for _ in range(2):
        loop = SleepingLoop(fill(things), speed=math.inf)
        try:
            loop.run_until(5)
            loop.run_until_complete()
            loop.reset_stats()
            assert loop.stats()._asdict()["steps"] == 0
        finally:
            loop.close()
    assert [thing.stats()[0]._asdict()["mean"] for thing in things] == [1.5] * 5


@scenario
def statistics_of_several_runs() -> None:
    several_runs()


@scenario
def a_part_bound_to_a_loop() -> None:
    loop = SleepingLoop(speed=math.inf)
    try:
        machine = Machine("press", loop)
        assert repr(machine) == "<Machine 'press' (0 of 2 in use)>"
        assert (machine.n_waiting, machine.stats().in_use.mean) == (0, 0)
    finally:
        loop.close()


async def beyond() -> None:
    for _ in range(2):
        await sleeploop.sleep(6e9)


@scenario
def the_end_of_time() -> None:
    try:
        sleeploop.run(beyond(), speed=math.inf)
    except OverflowError:
        return
    raise AssertionError
