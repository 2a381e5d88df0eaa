"""Random programs with Conditions that share Locks, beside the rules in plain Python.

The programs are lists of operations for each task. The model runs them in the order of the loop's
own rules - what is ready runs first in, first out, a step goes on until something has to be waited
for - and knows nothing of waits, places or threads of C. What each task notes is compared, in one
order for all of them, and who waits for what in the end of each.
"""

import math
import random
from collections import deque
from collections.abc import Generator
from typing import Any

from sleeploop import (
    CancelledError,
    CancelScope,
    Condition,
    Lock,
    SleepingLoop,
    checkpoint,
    create_task,
    current_task,
)
from tests.twins import assert_same, come_by, each_seed

Log = list[tuple[Any, ...]]
Program = list[tuple[Any, ...]]


# ---- programs ------------------------------------------------------------------------------------

TASKS, CONDITIONS, LOCKS = 6, 3, 2


def make_program(rng: random.Random) -> Program:
    """Operations of one task. "have" has a block of its own, in which the lock is held."""
    program: Program = []
    for _ in range(rng.randint(2, 5)):
        what = rng.random()
        if what < 0.7:
            condition = rng.randrange(CONDITIONS)
            body: Program = []
            for _ in range(rng.randint(1, 4)):
                inner = rng.random()
                if inner < 0.35:
                    body.append(("wait", condition))
                elif inner < 0.5:
                    body.append(("wait_for", condition, rng.randrange(1, 8)))
                elif inner < 0.7:
                    body.append(("notify", condition, rng.randrange(4)))
                elif inner < 0.75:
                    body.append(("notify_all", condition))
                elif inner < 0.85:
                    body.append(("add", rng.randint(1, 2)))
                elif inner < 0.95:
                    body.append(("step",))
                else:
                    body.append((rng.choice(["cancel", "time out"]), rng.randrange(TASKS)))
            program.append(("have", condition, rng.random() < 0.5, body))
        elif what < 0.85:
            program.append(("step",))
        elif what < 0.94:
            program.append((rng.choice(["cancel", "time out"]), rng.randrange(TASKS)))
        else:
            program.append(("wrong", rng.randrange(CONDITIONS)))
    return program


WITH_CONDITION = {"wait", "wait_for", "notify", "notify_all", "have", "wrong"}

# ---- the real thing ------------------------------------------------------------------------------


class Real:
    def __init__(self, programs: list[Program], lock_of: list[int]) -> None:
        self.log: Log = []
        self.value = 0
        self.locks = [Lock(name=str(n)) for n in range(LOCKS)]
        self.conditions = [Condition(self.locks[n]) for n in lock_of]
        self.programs = programs
        self.tasks: list[Any] = []
        self.scopes: list[CancelScope | None] = [None] * TASKS

    async def block(self, who: int, program: Program) -> None:
        for operation in program:
            await self.one(who, *operation)

    async def one(self, who: int, what: str, *args: Any) -> None:
        condition = self.conditions[args[0]] if what in WITH_CONDITION else None
        match what:
            case "step":
                await checkpoint()
                self.log.append((who, "step"))
            case "add":
                self.value += args[0]
            case "cancel":
                self.log.append((who, "cancels", args[0]))
                self.tasks[args[0]].cancel()
            case "time out":
                self.log.append((who, "times out", args[0]))
                scope = self.scopes[args[0]]
                if scope is not None:
                    scope.cancel()
            case "wrong":
                try:
                    condition.notify()
                except RuntimeError:
                    self.log.append((who, "wrong"))
                else:
                    raise AssertionError("it does not have the lock")
            case "notify":
                condition.notify(args[1])
                self.log.append((who, "notifies", *args))
            case "notify_all":
                condition.notify_all()
                self.log.append((who, "notifies", *args))
            case "wait" | "wait_for":
                try:
                    if what == "wait":
                        value = await condition.wait()
                    else:
                        value = await condition.wait_for(lambda: self.look(who, condition, args[1]))
                except CancelledError:
                    self.log.append((who, "wait cancelled", condition.lock.owner is current_task()))
                    raise
                self.log.append((who, what, value, condition.lock.owner is current_task()))
            case "have":
                async with condition:
                    self.log.append((who, "has", args[0]))
                    if args[1]:  # a scope that ends in the block: the task goes on
                        with CancelScope() as self.scopes[who]:
                            await self.block(who, args[2])
                        if self.scopes[who].cancelled_caught:
                            self.log.append((who, "timed out", condition.lock.owner.name))
                        self.scopes[who] = None
                    else:
                        await self.block(who, args[2])
                    self.log.append((who, "releases", args[0]))

    def look(self, who: int, condition: Condition, wanted: int) -> int | None:
        assert condition.lock.owner is current_task()
        self.log.append((who, "looks", self.value))
        return self.value if self.value >= wanted else None

    async def task(self, who: int) -> None:
        try:
            await self.block(who, self.programs[who])
        except CancelledError:
            self.log.append((who, "cancelled"))
            raise
        self.log.append((who, "ends"))

    async def main(self) -> None:
        self.tasks = [create_task(self.task(who), name=str(who)) for who in range(TASKS)]
        for _ in range(200):
            await checkpoint()
        self.log.append(("waiting", *self.waiting()))
        for who, task in enumerate(self.tasks):
            if task.cancel():
                self.log.append(("main", "cancels", who))
        for _ in range(200):
            await checkpoint()
        self.log.append(("waiting", *self.waiting()))

    def waiting(self) -> list[tuple[str, int] | None]:
        def one(thing: object) -> tuple[str, int] | None:
            if isinstance(thing, Lock):
                return ("lock", self.locks.index(thing))
            return ("condition", self.conditions.index(thing)) if thing is not None else None

        return [one(task.waiting_on) for task in self.tasks]


# ---- the rules -----------------------------------------------------------------------------------


class Cancelled(Exception):
    """With whether it is the task that is cancelled, or only a block in it."""


class ModelTask:
    def __init__(self, steps: Generator[Any, Any, None]) -> None:
        self.steps = steps
        self.started = self.cancelled = self.done = False
        self.firm = False  # it waits for a lock that it will have, whatever happens
        self.throw = False
        self.in_scope = self.timed_out = False
        self.place: tuple[str, int] | None = None


class Model:
    """Steps are generators, which yield when their task has to wait: "ready", for the next pass,
    or the name of a place, where they stay until somebody takes them from there."""

    def __init__(self, programs: list[Program], lock_of: list[int]) -> None:
        self.log: Log = []
        self.value = 0
        self.lock_of = lock_of
        self.owner: list[ModelTask | None] = [None] * LOCKS
        self.places: dict[tuple[str, int], list[ModelTask]] = {}
        self.ready: deque[ModelTask] = deque()
        self.tasks = [ModelTask(self.run(who, program)) for who, program in enumerate(programs)]
        self.current: ModelTask

    # Places and locks.

    def stand(self, task: ModelTask, place: tuple[str, int]) -> None:
        self.places.setdefault(place, []).append(task)
        task.place = place

    def leave(self, task: ModelTask) -> None:
        assert task.place is not None
        self.places[task.place].remove(task)
        task.place = None

    def release(self, lock: int) -> None:
        """To the first who waits, at once."""
        waiting = self.places.get(("lock", lock))
        self.owner[lock] = waiting[0] if waiting else None
        if waiting:
            first = waiting[0]
            self.leave(first)
            self.ready.append(first)

    def cancel(self, task: ModelTask) -> None:
        if task.done or task.cancelled:
            return
        task.cancelled = True
        self.reach(task)

    def time_out(self, task: ModelTask) -> None:
        if task.in_scope and not task.timed_out:
            task.timed_out = True
            self.reach(task)

    def reach(self, task: ModelTask) -> None:
        if task.place is not None and not task.firm:
            self.leave(task)
            task.throw = True
            self.ready.append(task)

    # What tasks do.

    def check(self) -> Generator[Any, Any, None]:
        """Every await of a cancelled task raises; it steps aside before."""
        if self.current.cancelled or self.current.timed_out:
            yield "cancelled"

    def regain(self, lock: int) -> Generator[Any, Any, None]:
        """Whatever happens."""
        task = self.current
        if self.owner[lock] is None:
            self.owner[lock] = task
            return
        task.firm = True
        yield ("lock", lock)
        task.firm = False

    def wait(self, who: int, condition: int) -> Generator[Any, Any, None]:
        lock = self.lock_of[condition]
        task = self.current
        yield from self.check()
        self.release(lock)
        try:
            yield ("condition", condition)
        except Cancelled:
            yield from self.regain(lock)
            raise
        assert self.owner[lock] is task
        task.firm = False

    def wait_for(self, who: int, condition: int, wanted: int) -> Generator[Any, Any, int]:
        yield from self.check()
        while True:
            self.log.append((who, "looks", self.value))
            if self.value >= wanted:
                return self.value
            yield from self.wait(who, condition)

    def notify(self, condition: int, n: int) -> None:
        for task in self.places.get(("condition", condition), [])[:n]:
            self.leave(task)
            task.firm = True
            self.stand(task, ("lock", self.lock_of[condition]))

    def block(self, who: int, program: Program) -> Generator[Any, Any, None]:
        for operation in program:
            yield from self.one(who, *operation)

    def one(self, who: int, what: str, *args: Any) -> Generator[Any, Any, None]:
        match what:
            case "step":
                yield from self.check()
                yield "ready"
                self.log.append((who, "step"))
            case "add":
                self.value += args[0]
            case "cancel":
                self.log.append((who, "cancels", args[0]))
                self.cancel(self.tasks[args[0]])
            case "time out":
                self.log.append((who, "times out", args[0]))
                self.time_out(self.tasks[args[0]])
            case "wrong":
                self.log.append((who, "wrong"))
            case "notify" | "notify_all":
                self.notify(args[0], args[1] if what == "notify" else TASKS)
                self.log.append((who, "notifies", *args))
            case "wait" | "wait_for":
                try:
                    value: Any = True
                    if what == "wait":
                        yield from self.wait(who, args[0])
                    else:
                        value = yield from self.wait_for(who, *args)
                except Cancelled:
                    self.log.append((who, "wait cancelled", True))
                    raise
                self.log.append((who, what, value, True))
            case "have":
                lock = self.lock_of[args[0]]
                yield from self.check()
                if self.owner[lock] is None:
                    self.owner[lock] = self.current
                else:
                    yield ("lock", lock)
                try:
                    self.log.append((who, "has", args[0]))
                    if args[1]:
                        yield from self.scope(who, args[2])
                    else:
                        yield from self.block(who, args[2])
                    self.log.append((who, "releases", args[0]))
                finally:
                    self.release(lock)

    def scope(self, who: int, program: Program) -> Generator[Any, Any, None]:
        task = self.current
        task.in_scope = True
        try:
            yield from self.block(who, program)
        except Cancelled as error:
            if error.args[0]:
                raise
            self.log.append((who, "timed out", str(who)))
        finally:
            task.in_scope = task.timed_out = False

    def run(self, who: int, program: Program) -> Generator[Any, Any, None]:
        try:
            yield from self.block(who, program)
        except Cancelled:
            self.log.append((who, "cancelled"))
            return
        self.log.append((who, "ends"))

    # The loop.

    def step(self, task: ModelTask) -> None:
        if not task.started and task.cancelled:
            task.done = True
            return
        self.current, task.started = task, True
        try:
            if task.throw:
                task.throw = False
                where = task.steps.throw(Cancelled(task.cancelled))
            else:
                where = next(task.steps)
        except StopIteration:
            task.done = True
            return
        if where == "cancelled":
            task.throw = True
            self.ready.append(task)
        elif where == "ready":
            self.ready.append(task)
        else:
            self.stand(task, where)

    def main(self) -> None:
        self.ready.extend(self.tasks)
        self.passes()
        self.log.append(("waiting", *(task.place for task in self.tasks)))
        for who, task in enumerate(self.tasks):
            if not task.done:
                self.cancel(task)
                self.log.append(("main", "cancels", who))
        self.passes()
        self.log.append(("waiting", *(task.place for task in self.tasks)))

    def passes(self) -> None:
        while self.ready:
            self.step(self.ready.popleft())


# ---- side by side --------------------------------------------------------------------------------


def compare(seed: int) -> Log:
    rng = random.Random(seed)
    programs = [make_program(rng) for _ in range(TASKS)]
    lock_of = [rng.randrange(LOCKS) for _ in range(CONDITIONS)]
    real, model = Real(programs, lock_of), Model(programs, lock_of)
    SleepingLoop(real.main(), speed=math.inf).run_until_complete()
    model.main()
    assert_same(real.log, model.log, programs, lock_of)
    assert not any(lock.locked() for lock in real.locks)
    assert [repr(lock) for lock in real.locks] == [f"<Lock '{n}' unlocked>" for n in range(LOCKS)]
    assert not any("waiting" in repr(condition) for condition in real.conditions)
    return real.log


WANTED = {"wait", "wait_for", "wait cancelled", "timed out", "wrong", "looks", "ends"}


def test_random_programs():
    for log in each_seed(compare, times=5):
        assert log[-1] == ("waiting", *[None] * TASKS)


def test_what_they_do_is_not_always_the_same():
    come_by(lambda seed: [entry[1] for entry in compare(seed) if len(entry) > 1], WANTED, 100)
