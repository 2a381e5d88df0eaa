"""What tests.rigs.oom runs while memory runs out: tasks that wait on each other."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Generator
from typing import Any

import sleeploop
from sleeploop import (
    Barrier,
    BoundedSemaphore,
    BrokenBarrierError,
    CapacityLimiter,
    Condition,
    Event,
    LifoQueue,
    Lock,
    PriorityQueue,
    Queue,
    ReceiveChannel,
    SendChannel,
    WouldBlock,
)

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


@scenario
def events_and_locks() -> None:
    assert sleeploop.run(share(), speed=math.inf) == [3, 2, 1]


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


async def produce(queue: Queue[tuple[int, int]], numbers: range) -> None:
    for number in numbers:
        await queue.put((number % 3, number))


async def consume(queue: Queue[tuple[int, int]], log: list[int]) -> None:
    async for _, number in queue:
        log.append(number)
        await sleeploop.sleep(1)
        queue.task_done()


async def send_all(send: SendChannel[int], numbers: range) -> None:
    async with send:
        for number in numbers:
            await send.send(number)


async def receive_all(receive: ReceiveChannel[int], got: list[int]) -> None:
    with receive:
        async for number in receive:
            got.append(number)


async def pipe(size: float) -> list[int]:
    send: SendChannel[int]
    receive: ReceiveChannel[int]
    send, receive = sleeploop.open_channel(size, name="numbers")
    got: list[int] = []
    async with sleeploop.TaskGroup() as group:
        with send, receive:
            for first in (0, 20):
                group.create_task(send_all(send.clone(), range(first, first + 20)))
            for _ in range(2):
                group.create_task(receive_all(receive.clone(), got))
            await sleeploop.checkpoint()
            assert "'numbers', 0 of 0 buffered" in repr(send) or size > 0
    return sorted(got)


@scenario
def channels() -> None:
    assert sleeploop.run(pipe(0), speed=math.inf) == [*range(40)]
    assert sleeploop.run(pipe(3), speed=math.inf) == [*range(40)]


async def refuse() -> None:
    send: SendChannel[int]
    receive: ReceiveChannel[int]
    send, receive = sleeploop.open_channel(10**30)
    other = receive.clone()
    waiting = sleeploop.create_task(other.receive())
    also = sleeploop.create_task(receive.receive())
    await sleeploop.checkpoint()
    other.close()
    send.close()
    for task, error in (
        (waiting, sleeploop.ClosedResourceError),
        (also, sleeploop.EndOfChannel),
    ):
        try:
            await task
        except error:
            continue
        raise AssertionError
    receive.close()
    for call in (receive.clone, receive.receive_nowait, lambda: send.send_nowait(1)):
        try:
            call()
        except sleeploop.ClosedResourceError:
            continue
        raise AssertionError


@scenario
def closed_channels() -> None:
    sleeploop.run(refuse(), speed=math.inf)


async def give_back() -> list[int]:
    send: SendChannel[int]
    receive: ReceiveChannel[int]
    send, receive = sleeploop.open_channel(1)
    waits = [receive.receive() for _ in range(20)]
    tasks = [sleeploop.create_task(wait) for wait in waits]
    await sleeploop.checkpoint()
    for number in range(20):
        send.send_nowait(number)
    for wait in reversed(waits):
        wait.close()
    for task in tasks:
        try:
            await task
        except RuntimeError:
            continue
        raise AssertionError
    return [receive.receive_nowait() for _ in range(20)]


@scenario
def channels_take_back() -> None:
    assert sleeploop.run(give_back(), speed=math.inf) == [*range(20)]


async def hand_on(kind: type[Queue[tuple[int, int]]]) -> list[int]:
    """Through the waiting of either side, and through an end of which both are told."""
    queue, log = kind(2, name="jobs", stats=True), list[int]()
    async with sleeploop.TaskGroup() as group:
        for _ in range(2):
            group.create_task(receive_all(queue, log))
        group.create_task(send_all(queue, range(6)))
        group.create_task(send_all(queue, range(6, 12)))
        await sleeploop.sleep(20)
        await queue.join()
        assert "2 waiting" in repr(queue)
        queue.shutdown()
    assert queue.stats().gets.count == 12
    return sorted(log)


@scenario
def queues() -> None:
    for kind in (Queue, LifoQueue, PriorityQueue):
        assert sleeploop.run(hand_on(kind), speed=math.inf) == list(range(12))


async def lend(queue: Queue[int]) -> list[int]:
    """What comes back when it cannot be handed over, and what does not fit."""
    full = [sleeploop.create_task(queue.put(number)) for number in range(20)]
    await sleeploop.checkpoint()
    got = [await queue.get() for _ in range(10)]
    queue.shutdown()
    try:
        await queue.put(99)
    except sleeploop.QueueShutDown as error:
        assert "shut down" in str(error)
    else:
        raise AssertionError
    try:
        while True:
            got.append(queue.get_nowait())
    except sleeploop.QueueShutDown:
        pass
    for task in full:
        try:
            await task
        except sleeploop.QueueShutDown:
            pass
    return got


@scenario
def queues_that_are_full() -> None:
    for kind in (Queue, PriorityQueue):
        assert sleeploop.run(lend(kind(4)), speed=math.inf) == list(range(14))


async def lose_patience(place: BoundedSemaphore | CapacityLimiter) -> None:
    with sleeploop.move_on_after(0.5):
        await place.acquire()


async def enter(place: BoundedSemaphore | CapacityLimiter, had: list[str]) -> None:
    async with place:
        await sleeploop.sleep(1)
    await place.acquire()
    had.append(sleeploop.current_task().name)
    place.release()


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


async def enter_in_turn(place: BoundedSemaphore | CapacityLimiter) -> list[str]:
    had = list[str]()
    async with sleeploop.TaskGroup() as group:
        for name in "abc":
            group.create_task(enter(place, had), name=name)
            group.create_task(lose_patience(place))
        await sleeploop.checkpoint()
        try:
            place.acquire_nowait()
        except WouldBlock as error:
            assert "db" in str(error)
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
    try:
        limiter.release()
    except RuntimeError as error:
        assert "has no token" in str(error)


@scenario
def limiters() -> None:
    limiter = CapacityLimiter(1, name="db")
    assert sleeploop.run(enter_in_turn(limiter), speed=math.inf) == ["a", "b", "c"]
    limiter.total_tokens = math.inf
    sleeploop.run(borrow_many(limiter), speed=math.inf)
    assert limiter.borrowed_tokens == 0


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
