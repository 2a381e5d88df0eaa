"""`n_waiting`: how many tasks wait at an object, wherever tasks wait."""

import math
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from sleeploop import (
    Barrier,
    BoundedSemaphore,
    CapacityLimiter,
    Condition,
    Container,
    Event,
    LifoQueue,
    Lock,
    PriorityQueue,
    Queue,
    Resource,
    Semaphore,
    Store,
    create_task,
    open_channel,
    sleep,
    sleep_forever,
)
from tests.helpers import virtual


def full(queue: Queue[int]) -> Queue[int]:
    queue.put_nowait(1)
    return queue


# What it is, how to wait at it, and what lets the first go on.
Way = tuple[Any, Callable[[], Awaitable[object]], Callable[[], object]]


async def channel(sends: bool) -> Way:
    sender, receiver = open_channel(0)
    if sends:
        return sender, lambda: sender.send(1), receiver.receive_nowait
    return receiver, receiver.receive, lambda: sender.send_nowait(1)


async def event() -> Way:
    thing = Event()
    return thing, thing.wait, thing.set


async def lock() -> Way:
    thing = Lock()
    await thing.acquire()
    return thing, thing.acquire, thing.release


async def semaphore() -> Way:
    thing = Semaphore(0)
    return thing, thing.acquire, thing.release


async def bounded_semaphore() -> Way:
    thing = BoundedSemaphore(1)
    await thing.acquire()
    return thing, thing.acquire, thing.release


async def limiter() -> Way:
    thing = CapacityLimiter(1)
    await thing.acquire()
    return thing, thing.acquire, thing.release


async def barrier() -> Way:
    thing = Barrier(5)
    return thing, thing.wait, thing.abort


async def getters() -> Way:
    thing = Queue[int]()
    return thing, thing.get, lambda: thing.put_nowait(1)


async def putters() -> Way:
    thing = full(LifoQueue[int](1))
    return thing, lambda: thing.put(2), thing.get_nowait


async def joiners() -> Way:
    thing = full(PriorityQueue[int]())
    return thing, thing.join, thing.task_done


async def senders() -> Way:
    return await channel(sends=True)


async def receivers() -> Way:
    return await channel(sends=False)


async def resource() -> Way:
    thing = Resource()
    slot = await thing.request()
    return thing, thing.request, slot.release


async def container() -> Way:
    thing = Container()
    return thing, lambda: thing.get(1), lambda: thing.put_nowait(1)


async def full_container() -> Way:
    thing = Container(1, 1)
    return thing, lambda: thing.put(1), lambda: thing.get_nowait(1)


async def store() -> Way:
    thing = Store[int]()
    return thing, thing.get, lambda: thing.put_nowait(1)


async def full_store() -> Way:
    thing = Store[int](1)
    thing.put_nowait(1)
    return thing, lambda: thing.put(2), thing.get_nowait


WAYS = [
    event,
    lock,
    semaphore,
    bounded_semaphore,
    limiter,
    barrier,
    getters,
    putters,
    joiners,
    senders,
    receivers,
    resource,
    container,
    full_container,
    store,
    full_store,
]


@pytest.mark.parametrize("make", WAYS)
def test_n_waiting(make: Callable[[], Awaitable[Way]]) -> None:
    async def main() -> None:
        thing, wait, let_go = await make()
        assert thing.n_waiting == 0

        async def waits() -> None:
            await wait()
            await sleep_forever()  # whatever it has

        tasks = [create_task(waits(), daemon=True) for _ in range(3)]
        assert thing.n_waiting == 0  # they have not come yet
        await sleep(1)
        assert thing.n_waiting == 3
        tasks[1].cancel()
        assert thing.n_waiting == 2
        let_go()
        all_go = thing.n_waiting == 0
        assert all_go == isinstance(thing, (Event, Barrier, PriorityQueue))
        assert all_go or thing.n_waiting == 1
        with pytest.raises(AttributeError):
            thing.n_waiting = 0

    virtual(main())


def test_who_waits_for_the_lock_of_a_condition_waits_at_the_lock() -> None:
    async def main() -> None:
        lock = Lock()
        condition = Condition(lock)

        async def wait() -> None:
            async with condition:
                await condition.wait()

        for _ in range(3):
            create_task(wait())
        await sleep(1)
        assert (condition.n_waiting, lock.n_waiting) == (3, 0)
        async with condition:
            condition.notify(2)
            assert (condition.n_waiting, lock.n_waiting) == (1, 2)
        await sleep(1)
        assert (condition.n_waiting, lock.n_waiting) == (1, 0)
        async with condition:
            condition.notify_all()

    virtual(main())


def test_each_end_of_a_channel_counts_its_own() -> None:
    async def main() -> None:
        sender, receiver = open_channel(0)
        other = sender.clone()
        tasks = [create_task(end.send(1)) for end in (sender, other, other)]  # type: ignore[arg-type]
        await sleep(1)
        assert (sender.n_waiting, other.n_waiting, receiver.n_waiting) == (1, 2, 0)
        for task in tasks:
            await receiver.receive()
            await task

    virtual(main())


def test_several_at_once() -> None:
    async def main() -> None:
        semaphore, event, queue, lock = Semaphore(0), Event(), Queue[int](), Lock()
        for wait in semaphore.acquire(), event.wait(), queue.get():
            create_task(wait, daemon=True)  # type: ignore[arg-type]
        await lock.acquire()
        await sleep(math.pi)
        assert semaphore.n_waiting == event.n_waiting == queue.n_waiting == 1
        assert lock.n_waiting == 0

    virtual(main())
