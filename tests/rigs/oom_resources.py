"""What tests.rigs.oom runs while memory runs out: resources."""

from __future__ import annotations

import math

import sleeploop
from sleeploop import Interrupt, RequestCancelled, Resource

from .oom_scenarios import scenario


async def be_served(resource: Resource, priority: int, preempt: bool, log: list[int]) -> None:
    try:
        async with resource.request(priority, preempt) as slot:
            assert slot in resource.users
            await sleeploop.sleep(1)
            log.append(priority)
    except Interrupt as interrupt:
        log.append(-priority if interrupt.cause.resource is resource else 0)


async def serve() -> list[int]:
    resource, log = Resource(2, name="desk", stats=True), list[int]()
    async with sleeploop.TaskGroup() as group:
        for priority in (7, 8, 9):
            group.create_task(be_served(resource, priority, False, log))
        await sleeploop.checkpoint()
        assert repr(resource) == (
            "<Resource 'desk' (2 of 2 in use by task 'Task-2', task 'Task-3'), 1 waiting>"
        )
        group.create_task(be_served(resource, 1, True, log))
        waiting = resource.request(20)
        withdrawn = group.create_task(expect_withdrawal(waiting))
        await sleeploop.checkpoint()
        assert resource.queue[-1] is waiting
        waiting.cancel()
        await withdrawn
    assert resource.in_use == 0
    assert resource.stats().waits.count == 4
    return log


async def expect_withdrawal(request: sleeploop.Request) -> None:
    try:
        await request
    except RequestCancelled:
        return
    raise AssertionError


@scenario
def resources() -> None:
    assert sleeploop.run(serve(), speed=math.inf) == [-8, 7, 1, 9]


async def many() -> int:
    resource = Resource(100)
    slots = [await resource.request(n) for n in range(20)]
    for slot in slots[::-1]:
        slot.release()
    return resource.in_use


@scenario
def resources_grow() -> None:
    assert sleeploop.run(many(), speed=math.inf) == 0
