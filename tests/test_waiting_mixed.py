"""Random programs over all that tasks wait at, and what must add up when they are over.

Each task takes, brings and waits, plainly or for several at once, while others cancel it, interrupt
it, preempt it, close what it waits at and collect garbage, also from within comparisons, filters
and finalizers. However the run ends - by itself, by a deadlock, dropped half-way, by Ctrl-C - what
was put in has been got or is still there, what was had is free again, and nothing is left alive.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import math
import random
import signal
import weakref
from typing import Any

import pytest

import sleeploop
from sleeploop import CancelledError, CancelScope, SleepingLoop, TaskGroup
from tests.twins import each_seed

ERRORS = (
    sleeploop.WouldBlock,
    sleeploop.Interrupt,
    sleeploop.DeadlockError,
    sleeploop.RequestCancelled,
    sleeploop.QueueShutDown,
    sleeploop.EndOfChannel,
    sleeploop.ClosedResourceError,
    sleeploop.BrokenResourceError,
    sleeploop.BrokenBarrierError,
    RuntimeError,  # the same task twice at a limiter, for itself, what has been awaited
    ZeroDivisionError,
)


class Item:
    """Compared, hashed and freed, each of which may do anything."""

    def __init__(self, world: World) -> None:
        self.number = world.numbers = world.numbers + 1
        self.world = world

    def __lt__(self, other: Any) -> bool:
        self.world.evil(raises=True)
        return bool(self.number % 7 < other.number % 7)

    def __eq__(self, other: Any) -> bool:
        self.world.evil(raises=True)
        return self is other

    def __hash__(self) -> int:
        self.world.evil()
        return self.number % 3

    def __del__(self) -> None:
        self.world.evil()

    def __repr__(self) -> str:
        self.world.evil()
        return f"item {self.number}"


class World:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.seed = seed
        self.numbers = 0
        self.evil_rate = self.random.choice([0, 0, 0.05, 0.3])
        self.in_evil = False
        self.may_shut_down = self.random.random() < 0.3
        self.may_signal = self.random.random() < 0.1
        self.loop: SleepingLoop | None = None
        self.tasks: list[Any] = []
        self.requests: list[Any] = []
        self.spawned = 0
        self.seen = weakref.WeakSet[Any]()
        self.events = [sleeploop.Event(name="e1"), sleeploop.Event()]
        self.locks = [sleeploop.Lock(name="l1"), sleeploop.Lock()]
        self.semaphores = [sleeploop.Semaphore(2), sleeploop.BoundedSemaphore(1, name="s")]
        self.limiter = sleeploop.CapacityLimiter(2, name="limiter")
        self.conditions = [sleeploop.Condition(self.locks[0]), sleeploop.Condition(name="c")]
        self.barrier = sleeploop.Barrier(2)
        stats = self.random.random() < 0.5
        self.queues = [
            sleeploop.Queue[Any](1, stats=stats),
            sleeploop.PriorityQueue[Any](3, stats=stats),
            sleeploop.LifoQueue[Any](2, stats=stats),
        ]
        self.channels = [sleeploop.open_channel(n) for n in (0, 1)]
        self.resources = [
            sleeploop.Resource(1, name="r", stats=stats),
            sleeploop.Resource(2, stats=stats),
        ]
        self.container = sleeploop.Container(10, 5, stats=stats)
        self.store = sleeploop.Store[Any](2, stats=stats)
        self.level = 5
        self.level_slack = 0
        self.put = set[int]()
        self.maybe_put = set[int]()
        self.got = list[int]()
        self.refuses = False  # a finalizer of what is left must not do anything at the end

    # ---- what others do ----

    def evil(self, *, raises: bool = False) -> None:
        # At a rate of 0, nothing depends on when an object is hashed or freed.
        if self.in_evil or self.refuses or self.evil_rate == 0:
            return
        if self.random.random() >= self.evil_rate:
            return
        self.in_evil = True
        try:
            self.meddle()
            if raises and self.random.random() < 0.2:
                raise ZeroDivisionError
        finally:
            self.in_evil = False

    def meddle(self) -> None:
        choice = self.random.random() * 21
        task = self.random.choice(self.tasks) if self.tasks else None
        with contextlib.suppress(RuntimeError, ValueError, *ERRORS):
            if choice < 3 and task is not None:
                task.cancel("meddling")
            elif choice < 6 and task is not None:
                task.interrupt(self.numbers)
            elif choice < 7:
                gc.collect(self.random.randrange(3))
            elif choice < 8:
                sleeploop.find_deadlocks(self.loop)
            elif choice < 9:
                sleeploop.format_tasks(self.loop)
            elif choice < 11 and self.requests:
                self.random.choice(self.requests).cancel()
            elif choice < 13:
                event = self.random.choice(self.events)
                self.random.choice([event.set, event.clear])()
            elif choice < 14:
                self.limiter.total_tokens = self.random.choice([0, 1, 2, 3, math.inf])
            elif choice < 15:
                self.random.choice([self.barrier.reset, self.barrier.abort])()
                self.barrier.reset()
            elif choice < 16:
                self.put_now()
            elif choice < 18:
                self.get_now()
            elif choice < 19:
                for thing in self.things():
                    repr(thing)
                    if hasattr(thing, "stats"):
                        thing.stats()
                repr(self.tasks)
                repr(self.requests)
                [resource.users + resource.queue for resource in self.resources]
            elif choice < 20 and self.may_shut_down:
                self.shut_down()
            elif self.may_signal and self.random.random() < 0.1:
                signal.raise_signal(signal.SIGINT)

    def things(self) -> list[Any]:
        return [
            *self.events, *self.locks, *self.semaphores, self.limiter, *self.conditions,
            self.barrier, *self.queues, *self.resources, self.container, self.store,
            *(end for ends in self.channels for end in ends),
        ]  # fmt: skip

    def shut_down(self) -> None:
        n = self.random.randrange(5)
        if n < 3:
            self.queues[n].shutdown()
        elif n == 3:
            self.random.choice(self.channels)[0].close()
        else:
            self.evil_rate *= 0.9

    def put_now(self) -> None:
        item = Item(self)
        put = self.random.choice(
            [
                *(queue.put_nowait for queue in self.queues),
                *(ends[0].send_nowait for ends in self.channels),
                self.store.put_nowait,
            ]
        )
        put(item)
        self.put.add(item.number)

    def get_now(self) -> None:
        get = self.random.choice(
            [
                *(queue.get_nowait for queue in self.queues),
                *(ends[1].receive_nowait for ends in self.channels),
                self.store.get_nowait,
            ]
        )
        self.got.append(get().number)

    # ---- what a task does ----

    def wish(self, bag: list[Any]) -> tuple[Any, Any, Any]:
        """An awaitable, what to do if it has happened, with its result, and if nobody knows."""
        rand = self.random
        choice = rand.randrange(19)
        if choice == 0:
            return rand.choice(self.events).wait(), None, None
        if choice in (1, 2):
            lock = rand.choice([*self.locks, *self.conditions])
            return lock.acquire(), lambda _: bag.append(lock.release), None
        if choice == 3:
            semaphore = rand.choice(self.semaphores)
            return semaphore.acquire(), lambda _: bag.append(semaphore.release), None
        if choice == 4:
            return self.limiter.acquire(), lambda _: bag.append(self.limiter.release), None
        if choice == 5:
            borrower = Item(self)
            return (
                self.limiter.acquire_on_behalf_of(borrower),
                lambda _: bag.append(lambda: self.limiter.release_on_behalf_of(borrower)),
                None,
            )
        if choice == 6:
            return self.barrier.wait(), None, None
        if choice in (7, 8, 9):
            request = rand.choice(self.resources).request(rand.randrange(3), rand.random() < 0.4)
            self.requests.append(request)

            def release(slot: Any = request) -> None:
                if slot.number is not None:
                    slot.release()

            return request, lambda slot: bag.append(release), None
        if choice == 10:
            amount = rand.randrange(6)

            def put_amount(_: Any) -> None:
                self.level += amount

            def slack(amount: int = amount) -> None:
                self.level_slack += amount

            return self.container.put(amount), put_amount, slack
        if choice == 11:
            amount = rand.randrange(6)

            def got_amount(_: Any) -> None:
                self.level -= amount

            def slack_down(amount: int = amount) -> None:
                self.level_slack += amount

            return self.container.get(amount), got_amount, slack_down
        if choice in (12, 13, 14):
            item = Item(self)
            number = item.number
            put = rand.choice(
                [
                    *(queue.put for queue in self.queues),
                    *(ends[0].send for ends in self.channels),
                    self.store.put,
                ]
            )
            return (
                put(item),
                lambda _: self.put.add(number),
                lambda: self.maybe_put.add(number),
            )
        if choice in (15, 16, 17):
            get = rand.choice(
                [
                    *(queue.get for queue in self.queues),
                    *(ends[1].receive for ends in self.channels),
                    self.store.get,
                    lambda: self.store.get(self.filter),
                    lambda: self.store.get(self.filter),
                ]
            )
            return get(), lambda item: self.got.append(item.number), None
        return sleeploop.sleep(rand.randrange(4)), None, None

    def filter(self, item: Any) -> bool:
        self.evil(raises=True)
        return bool(item.number % 2)

    async def plain(self, bag: list[Any]) -> None:
        aw, happened, unknown = self.wish(bag)
        try:
            result = await aw
        except GeneratorExit:
            if unknown is not None:
                unknown()
            raise
        if happened is not None:
            happened(result)

    async def several(self, bag: list[Any], depth: int = 0) -> None:
        wishes = [self.wish(bag) for _ in range(self.random.randrange(1, 4))]
        more: list[Any] = []
        inner: Any = None
        learn: dict[Any, Any] = {aw: happened for aw, happened, _ in wishes}
        function = self.random.choice([sleeploop.first_of, sleeploop.all_of])
        aws = [aw for aw, _, _ in wishes]
        if self.random.random() < 0.3:
            more = [self.wish(bag) for _ in range(2)]
            wishes += more
            inner = self.random.choice([sleeploop.first_of, sleeploop.all_of])(
                *(aw for aw, _, _ in more)
            )
            aws.append(inner)

            def learn_inner(results: Any) -> None:
                for aw, happened, _ in more:
                    if aw in results and happened is not None:
                        happened(results[aw])

            learn[inner] = learn_inner
        self.random.shuffle(aws)
        try:
            results = await function(*aws)
        except BaseException:
            self.undone(wishes)
            raise
        if inner not in results:
            self.undone(more)
        for aw, result in results.items():
            if learn[aw] is not None:
                learn[aw](result)

    def undone(self, wishes: list[Any]) -> None:
        """What others have got meanwhile cannot be given back."""
        for _, _, unknown in wishes:
            if unknown is not None:
                unknown()

    async def at_a_condition(self) -> None:
        condition = self.random.choice(self.conditions)
        async with condition:
            choice = self.random.randrange(4)
            if choice == 0:
                await condition.wait()
                assert condition.locked()
            elif choice == 1:
                await condition.wait_for(self.predicate)
            elif choice == 2:
                condition.notify(self.random.randrange(3))
            else:
                condition.notify_all()
                await sleeploop.sleep(1)

    def predicate(self) -> bool:
        self.evil(raises=True)
        return self.random.random() < 0.4

    async def in_a_block(self) -> None:
        thing = self.random.choice([*self.locks, *self.semaphores, self.limiter])
        async with thing:
            await sleeploop.sleep(self.random.randrange(3))

    async def in_a_slot(self) -> None:
        request = self.random.choice(self.resources).request(
            self.random.randrange(3), preempt=self.random.random() < 0.5
        )
        self.requests.append(request)
        async with request:
            await sleeploop.sleep(self.random.randrange(3))

    async def by_hand(self) -> None:
        """Drives what is awaited, or closes it, as no program should."""
        bag = list[Any]()
        aw, happened, _unknown = self.wish(bag)
        self.random.choice(self.seen_by_hand).append(aw)
        for _ in range(self.random.randrange(1, 4)):
            choice = self.random.randrange(3)
            try:
                if choice == 0:
                    aw.close()
                elif choice == 1:
                    aw.throw(ZeroDivisionError())
                elif self.random.random() < 0.3:
                    aw.send(None)
            except StopIteration as stop:
                if happened is not None:
                    happened(stop.value)
                    for undo in bag:
                        undo()
                return
            except ERRORS:
                pass
            except RuntimeError:
                pass

    seen_by_hand: tuple[list[Any], ...] = ([],)

    async def step(self, bag: list[Any], depth: int) -> None:
        choice = self.random.randrange(24)
        if choice < 8:
            await self.plain(bag)
        elif choice < 13:
            await self.several(bag)
        elif choice < 15:
            await self.at_a_condition()
        elif choice < 17:
            await self.in_a_slot()
        elif choice < 18:
            await self.in_a_block()
        elif choice < 19:
            self.meddle()
        elif choice < 20 and bag:
            self.random.shuffle(bag)
            self.undo(bag)
        elif choice < 21 and depth < 3 and self.spawned < 40:
            async with TaskGroup() as group:
                for _ in range(self.random.randrange(1, 3)):
                    self.spawn(group.create_task, depth + 1)
                await sleeploop.sleep(self.random.randrange(2))
        elif choice < 22 and self.tasks:
            task = self.random.choice(self.tasks)
            if not task.done() and self.random.random() < 0.3:
                with sleeploop.move_on_after(3):
                    await task
        elif choice < 23:
            await self.by_hand()
        else:
            await sleeploop.checkpoint()

    def undo(self, bag: list[Any]) -> None:
        undo = bag.pop()
        try:
            undo()
        except ZeroDivisionError:  # of a comparison: it has not happened
            rate, self.evil_rate = self.evil_rate, 0
            undo()
            self.evil_rate = rate
        except RuntimeError:  # see check()
            pass

    def spawn(self, create: Any, depth: int) -> None:
        self.spawned += 1
        task = create(self.task(depth), name=self.random.choice([None, "x"]))
        self.tasks.append(task)
        self.seen.add(task)

    async def task(self, depth: int) -> None:
        bag = list[Any]()
        try:
            for _ in range(self.random.randrange(1, 9)):
                try:
                    choice = self.random.random()
                    if choice < 0.4:
                        with sleeploop.move_on_after(self.random.randrange(4)):
                            await self.step(bag, depth)
                    elif choice < 0.45:
                        with CancelScope(shield=True), sleeploop.move_on_after(5):
                            await self.step(bag, depth)
                    else:
                        await self.step(bag, depth)
                except ERRORS:
                    pass
                except CancelledError:
                    if self.random.random() < 0.5:
                        raise
                except BaseExceptionGroup as group:
                    _, rest = group.split(ERRORS)
                    if rest is not None and (rest := rest.split(CancelledError)[1]) is not None:
                        raise rest from None
        finally:
            while bag:
                self.undo(bag)

    async def main(self) -> None:
        for _ in range(self.random.randrange(2, 6)):
            self.spawn(sleeploop.create_task, 0)
        for _ in range(self.random.randrange(10)):
            with contextlib.suppress(*ERRORS):
                await sleeploop.sleep(self.random.choice([0, 0, 1, 2]))
            self.meddle()
        self.spawn(sleeploop.create_task, 1)

    # ---- the run, and its end ----

    def play(self) -> None:
        rand = self.random
        loop = self.loop = SleepingLoop(
            self.main(),
            speed=math.inf,
            seed=self.seed,
            debug=rand.random() < 0.2,
            shuffle=self.seed if rand.random() < 0.5 else None,
            trace=20 if rand.random() < 0.2 else None,
        )
        self.seen.add(loop)
        way = rand.randrange(6)
        try:
            if way == 0:
                for _ in range(rand.randrange(60)):
                    if not loop.step():
                        break
                    if rand.random() < 0.1:
                        self.meddle()
            elif way == 1:
                for when in range(rand.randrange(8)):
                    loop.run_until(when)
                    self.meddle()
            if way != 0 and (way > 1 or rand.random() < 0.5):
                loop.run_until_complete()
        except (*ERRORS, KeyboardInterrupt):
            pass
        except (CancelledError, BaseExceptionGroup):
            pass
        if way in (1, 2):
            self.loop = None
            with contextlib.suppress(CancelledError, BaseExceptionGroup, *ERRORS):
                loop.close()

    def check(self) -> None:
        rest = list[int]()
        for queue in self.queues:
            while not queue.empty():
                rest.append(queue.get_nowait().number)
        for _, end in self.channels:
            with contextlib.suppress(sleeploop.WouldBlock, sleeploop.EndOfChannel):
                while True:
                    rest.append(end.receive_nowait().number)
        rest += [item.number for item in self.store.items]
        there = self.got + rest
        assert len(there) == len(set(there)), "nothing is got twice"
        assert self.put - self.maybe_put <= set(there), "nothing is lost"
        assert set(there) <= self.put | self.maybe_put, "nothing comes from nowhere"
        assert abs(self.container.level - self.level) <= self.level_slack
        assert not any(lock.locked() for lock in [*self.locks, *self.conditions])
        assert [semaphore.value for semaphore in self.semaphores] == [2, 1]
        assert self.limiter.borrowed_tokens == 0
        assert self.limiter.borrowers == ()
        for resource in self.resources:
            assert (resource.in_use, resource.users, resource.queue) == (0, (), ())
        assert self.barrier.n_waiting == 0
        assert [repr(thing) for thing in self.things() if "waiting" in repr(thing)] == []


def play(seed: int) -> None:
    world = World(seed)
    World.seen_by_hand = ([], [])
    world.play()
    seen, things = world.seen, [weakref.ref(thing) for thing in world.things()]
    world.refuses = True
    world.tasks.clear()
    world.requests.clear()
    World.seen_by_hand = ([], [])
    things_know_tasks = world.limiter.borrowers or any(r.users for r in world.resources)
    if things_know_tasks and world.loop is not None:  # and these keep their loop alive
        with contextlib.suppress(CancelledError, BaseExceptionGroup, *ERRORS):
            world.loop.close()
    del things_know_tasks
    world.loop = None
    gc.collect()
    if not world.may_signal:  # what a KeyboardInterrupt comes between, nobody knows
        world.check()
    World.seen_by_hand = ([], [])
    del world
    gc.collect()
    assert not seen
    assert not any(ref() for ref in things)


@pytest.mark.filterwarnings("ignore")
def test_what_is_left_adds_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("sleeploop"), "disabled", True)  # it keeps tracebacks
    each_seed(play)
