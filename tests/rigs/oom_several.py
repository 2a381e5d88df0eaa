"""What tests.rigs.oom runs while memory runs out: waiting for several, and deadlocks."""

from __future__ import annotations

import math

import sleeploop
from sleeploop import Event, Lock

from .oom_scenarios import scenario


async def dine(first: Lock, second: Lock, scope: sleeploop.CancelScope) -> None:
    with scope:
        done = await sleeploop.all_of(first.acquire(), second.acquire())
        assert list(done.values()) == [True, True]
        await sleeploop.sleep(1)
        first.release()
        second.release()


async def tea(event: Event, lock: Lock) -> list[float]:
    seen = list[float]()
    rings, fork, nap = event.wait(), lock.acquire(), sleeploop.sleep(2)
    done = await sleeploop.first_of(sleeploop.all_of(fork, rings), nap)
    assert list(done) == [nap]
    seen.append(sleeploop.current_loop().time())
    event.set()
    got = lock.acquire()
    assert await sleeploop.first_of(got, sleeploop.sleep(1)) == {got: True}
    lock.release()
    try:
        await sleeploop.all_of(lock.acquire(), lock.acquire())
    except sleeploop.DeadlockError:
        seen.append(sleeploop.current_loop().time())
    return seen


async def dinner() -> list[float]:
    forks, scopes = [Lock() for _ in range(3)], [sleeploop.CancelScope() for _ in range(3)]
    async with sleeploop.TaskGroup() as group:
        for i in range(3):
            group.create_task(dine(forks[i], forks[i - 1], scopes[i]))
        await sleeploop.checkpoint()
        scopes[2].cancel()
    assert not any(fork.locked() for fork in forks)
    return await tea(Event(), forks[0])


@scenario
def first_of_and_all_of() -> None:
    assert sleeploop.run(dinner(), speed=math.inf) == [4, 4]


async def crossed(first: Lock, second: Lock) -> None:
    async with first:
        await sleeploop.sleep(1)
        async with second:
            raise AssertionError("who has both?")


async def circle() -> str:
    x, y = Lock(name="x"), Lock(name="y")
    async with sleeploop.TaskGroup() as group:
        for name, first, second in (("a", x, y), ("b", y, x)):
            group.create_task(crossed(first, second), name=name)
        await sleeploop.sleep(2)
        (found,) = sleeploop.find_deadlocks()
        group.cancel_scope.cancel()
    return str(found)


@scenario
def deadlocks() -> None:
    assert sleeploop.run(circle(), speed=math.inf) == (
        "task 'a' waits for Lock 'y' held by task 'b' since 0.0 s, "
        "which waits for Lock 'x' held by task 'a' since 0.0 s"
    )
    x, y = Lock(), Lock()
    loop = sleeploop.SleepingLoop(crossed(x, y), crossed(y, x), speed=math.inf)
    tasks = tuple(loop.tasks())
    try:
        loop.run_until_complete()
    except sleeploop.DeadlockError as error:
        told = error.tasks
    assert told == tasks
