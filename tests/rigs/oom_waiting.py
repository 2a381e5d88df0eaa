"""What tests.rigs.oom runs while memory runs out: tasks that wait on each other."""

from __future__ import annotations

import math
import warnings
from collections.abc import Awaitable, Generator
from typing import Any

import sleeploop
from sleeploop import Event, Lock

from .oom_scenarios import scenario


async def have(lock: Lock, seconds: float, had: list[float]) -> None:
    async with lock:
        await sleeploop.sleep(seconds)
    assert await lock.acquire()
    had.append(seconds)
    lock.release()


async def share() -> list[float]:
    lock, event, had = Lock(name="lock"), Event(name="event"), list[float]()
    async with sleeploop.TaskGroup() as group:
        for seconds in (3, 2, 1):
            group.create_task(have(lock, seconds, had))
        waiting = group.create_task(event.wait())
        await sleeploop.checkpoint()
        assert repr(lock) == "<Lock 'lock' held by task 'Task-2' since 0.0 s, 2 waiting>"
        event.set()
        assert await waiting
    return had


@scenario
def events_and_locks() -> None:
    assert sleeploop.run(share(), speed=math.inf) == [3, 2, 1]


class ByHand:
    """Steps `lock.acquire()` by send(), and keeps each StopIteration, so that another is made."""

    def __init__(self, lock: Lock) -> None:
        self.lock = lock

    def __await__(self) -> Generator[Any, Any, Any]:
        steps = self.lock.acquire()
        sent = None
        while True:
            try:
                trap = steps.send(sent)
            except StopIteration as stop:
                kept.append(stop)
                return stop.value
            sent = yield trap


kept: list[StopIteration] = []


async def insist(lock: Lock, awaitable: Awaitable[bool]) -> bool:
    """Has the lock, or has not got it because there was no memory; never without knowing."""
    try:
        assert await awaitable
    except MemoryError:
        assert lock.owner is not sleeploop.current_task()
        return False
    assert lock.owner is sleeploop.current_task()
    await sleeploop.checkpoint()
    lock.release()
    return True


async def insist_all() -> list[bool]:
    lock, got = Lock(), list[bool]()
    kept.clear()
    for awaitable in (ByHand(lock), lock.acquire(), ByHand(lock)):
        got.append(await insist(lock, awaitable))
    tasks = [sleeploop.create_task(insist(lock, a)) for a in (lock.acquire(), ByHand(lock))]
    got += [await task for task in tasks]
    assert not lock.locked()
    kept.clear()
    return got


@scenario
def locks_are_not_lost() -> None:
    if not all(sleeploop.run(insist_all(), speed=math.inf)):
        raise MemoryError


async def keep(lock: Lock) -> None:
    await lock.acquire()
    await sleeploop.sleep(1)


async def told(awaitable: Awaitable[object]) -> str:
    try:
        await awaitable
    except sleeploop.BrokenResourceError as error:
        return str(error)
    raise AssertionError("nobody can have it")


async def regain(condition: sleeploop.Condition) -> None:
    async with condition:
        await condition.wait()


async def break_locks() -> list[str]:
    condition = sleeploop.Condition(name="c")
    lock = condition.lock
    regains = sleeploop.create_task(told(regain(condition)))
    await sleeploop.checkpoint()
    owner = sleeploop.create_task(keep(lock), name="keeper")
    await sleeploop.checkpoint()
    waits = sleeploop.create_task(told(lock.acquire()))
    await owner
    return [await waits, await regains, await told(lock.acquire())]


@scenario
def locks_that_break() -> None:
    for text in sleeploop.run(break_locks(), speed=math.inf):
        assert "Lock 'c' broken by " in text
        assert "without release()" in text


async def interrupted(got: list[object]) -> None:
    while len(got) < 3:
        try:
            await sleeploop.sleep_forever()
        except sleeploop.Interrupt as interrupt:
            got.append(interrupt.cause)


async def interrupt() -> list[object]:
    got: list[object] = []
    task = sleeploop.create_task(interrupted(got))
    await sleeploop.sleep(1)
    for n in range(3):
        task.interrupt(n)
    await task
    return got


@scenario
def interrupts() -> None:
    assert sleeploop.run(interrupt(), speed=math.inf) == [0, 1, 2]


async def leaving(got: list[object]) -> None:
    try:
        async with sleeploop.TaskGroup() as group:
            group.create_task(sleeploop.sleep_forever())
    except* sleeploop.Interrupt as group:
        got += [error.cause for error in group.exceptions if isinstance(error, sleeploop.Interrupt)]
    try:
        await sleeploop.sleep(1)
    except sleeploop.Interrupt as interrupt:
        got.append(interrupt.cause)


async def interrupt_the_end() -> list[object]:
    got: list[object] = []
    task = sleeploop.create_task(leaving(got))
    await sleeploop.sleep(1)
    task.interrupt("first")
    task.interrupt("second")
    await task
    return got


@scenario
def interrupts_at_the_end_of_a_group() -> None:
    assert sleeploop.run(interrupt_the_end(), speed=math.inf) == ["first", "second"]


async def forget() -> int:
    """In a debug run, so that each notes where it was made."""
    lock, queue = Lock(), sleeploop.Queue[int]()
    for aw in (sleeploop.sleep(1), lock.acquire(), queue.put(1)):
        del aw
    await queue.put(2)
    return await queue.get()


@scenario
def forgotten_awaitables() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        assert sleeploop.run(forget(), speed=math.inf, debug=True) == 2


@scenario
def advice_to_another_loop() -> None:
    coro = sleeploop.sleep(1)
    asked = coro.send(None)
    assert str(asked)[:2] == "20"
    coro.close()
