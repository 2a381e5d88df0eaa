"""What tests.rigs.oom runs while memory runs out: tasks that wait on each other."""

from __future__ import annotations

import math

import sleeploop
from sleeploop import BoundedSemaphore, CapacityLimiter, Event, Lock, WouldBlock

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


async def enter(place: BoundedSemaphore | CapacityLimiter, had: list[str]) -> None:
    async with place:
        await sleeploop.sleep(1)
    await place.acquire()
    had.append(sleeploop.current_task().name)
    place.release()


async def give_up(place: BoundedSemaphore | CapacityLimiter) -> None:
    with sleeploop.move_on_after(0.5):
        await place.acquire()


async def enter_in_turn(place: BoundedSemaphore | CapacityLimiter) -> list[str]:
    had = list[str]()
    async with sleeploop.TaskGroup() as group:
        for name in "abc":
            group.create_task(enter(place, had), name=name)
            group.create_task(give_up(place))
        await sleeploop.checkpoint()
        text = ""
        try:
            place.acquire_nowait()
        except WouldBlock as error:
            text = str(error)
        assert "db" in text
        assert "5 waiting" in repr(place)
    return had


@scenario
def semaphores() -> None:
    semaphore = BoundedSemaphore(1, name="db")
    assert sleeploop.run(enter_in_turn(semaphore), speed=math.inf) == ["a", "b", "c"]
    assert semaphore.value == 1


async def borrow_many(limiter: CapacityLimiter) -> None:
    for borrower in range(40):
        limiter.acquire_on_behalf_of_nowait(borrower)
    assert limiter.borrowers == tuple(range(40))
    for borrower in range(40):
        limiter.release_on_behalf_of(borrower)
    text = ""
    try:
        limiter.release()
    except RuntimeError as error:
        text = str(error)
    assert "has no token" in text


@scenario
def limiters() -> None:
    limiter = CapacityLimiter(1, name="db")
    assert sleeploop.run(enter_in_turn(limiter), speed=math.inf) == ["a", "b", "c"]
    limiter.total_tokens = math.inf
    sleeploop.run(borrow_many(limiter), speed=math.inf)
    assert limiter.borrowed_tokens == 0
