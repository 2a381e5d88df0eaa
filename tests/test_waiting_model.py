"""Random programs of tasks that wait at events and locks, on the loop and beside their rules.

The rules are those of docs/waiting.md, in plain Python, on the loop of tests/reference.py. Each
program is played on both, and everything that any task does or learns is compared, in order.
"""

from __future__ import annotations

import math
import random
from typing import Any

import sleeploop
from sleeploop import BrokenResourceError, DeadlockError, WouldBlock
from tests import reference
from tests.reference import Task, Trap, Turn
from tests.twins import assert_same, come_by, each_seed

# ---- the rules -----------------------------------------------------------------------------------


class Event:
    def __init__(self, *, name: str) -> None:
        self.flag = False
        self.line: list[Task] = []

    async def wait(self) -> bool:
        if not self.flag or reference.current_task().cause():
            await Trap(Turn(self.line))
        return True

    def set(self) -> None:
        self.flag = True
        while self.line:
            reference.current_loop().wake(self.line.pop(0))

    def clear(self) -> None:
        self.flag = False

    def is_set(self) -> bool:
        return self.flag


class Lock:
    def __init__(self, *, name: str) -> None:
        self.owner_task: Task | None = None
        self.is_broken = False
        self.line: list[Task] = []

    def asked(self) -> Task:
        task = reference.current_task()
        task.loop.locks.setdefault(self)
        return task

    def task_ended(self, task: Task) -> None:
        if self.owner_task is task:
            self.is_broken = True
            del task.loop.locks[self]
            while self.line:
                waiter = self.line.pop(0)
                waiter.thrown = BrokenResourceError()
                task.loop.wake(waiter)

    async def acquire(self) -> bool:
        task = self.asked()
        if task.cause():
            await Trap(Turn(self.line))
        if self.owner_task is task:
            raise DeadlockError
        if self.is_broken:
            raise BrokenResourceError
        if self.owner_task is None:
            self.owner_task = task
        else:
            await Trap(Turn(self.line))  # whoever releases it has made it this task's
        return True

    def acquire_nowait(self) -> None:
        task = self.asked()
        if self.owner_task is task:
            raise DeadlockError
        if self.is_broken:
            raise BrokenResourceError
        if self.owner_task is not None:
            raise WouldBlock
        self.owner_task = task

    def release(self) -> None:
        if self.is_broken:
            raise BrokenResourceError
        if self.owner_task is not reference.current_task():
            raise RuntimeError
        self.owner_task = None
        if self.line:
            self.owner_task = self.line.pop(0)
            reference.current_loop().wake(self.owner_task)

    def locked(self) -> bool:
        return self.owner_task is not None

    @property
    def owner(self) -> Task | None:
        return None if self.owner_task is None or self.owner_task.done() else self.owner_task

    async def __aenter__(self) -> None:
        await self.acquire()

    async def __aexit__(self, error: object, *_: object) -> None:
        if error is None or not self.is_broken:
            self.release()


# ---- programs ------------------------------------------------------------------------------------

# (what, which, how long, what is done inside)
Op = tuple[str, int, int, list[Any]]
PLAIN = ["sleep", "checkpoint", "wait", "wait", "set", "set", "clear", "acquire", "release"]
PLAIN += ["acquire_nowait", "cancel", "cancel", "spawn wait", "spawn acquire", "wrap"]
BLOCKS = ["lock", "lock", "lock", "limit", "shield", "try", "by hand"]


def draw_ops(draw: random.Random, depth: int) -> list[Op]:
    ops: list[Op] = []
    for _ in range(draw.randrange(1, 5)):
        is_block = depth < 3 and draw.random() < 0.4
        what = draw.choice(BLOCKS if is_block else PLAIN)
        inside = draw_ops(draw, depth + 1) if is_block else []
        ops.append((what, draw.randrange(12), draw.randrange(4), inside))
    return ops


def draw_program(seed: int) -> list[list[Op]]:
    draw = random.Random(seed)
    return [draw_ops(draw, 0) for _ in range(draw.randrange(2, 7))]


class Again:
    """An awaitable around another that yields what that one does."""

    def __init__(self, awaitable: Any) -> None:
        self.awaitable = awaitable

    def __await__(self) -> Any:
        return (yield from self.awaitable.__await__())


def names(error: BaseException) -> str:
    """Of its type, and of what is in it."""
    inside = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    return " ".join([type(error).__name__, *map(names, inside)])


class Play:
    """One program on one of the two."""

    def __init__(self, api: Any, kinds: tuple[Any, Any], program: list[list[Op]]) -> None:
        self.api, self.program = api, program
        self.log: list[Any] = []
        self.events = [kinds[0](name=f"event {n}") for n in range(2)]
        self.locks = [kinds[1](name=f"lock {n}") for n in range(3)]
        self.tasks: list[Any] = []

    def note(self, *what: Any) -> None:
        owners = [lock.owner and lock.owner.name for lock in self.locks]
        held = [lock.locked() for lock in self.locks]
        flags = [event.is_set() for event in self.events]
        time = self.api.current_loop().time_ns()
        self.log.append((time, self.api.current_task().name, what, owners, held, flags))

    async def op(self, op: Op) -> Any:
        what, which, seconds, inside = op
        event, lock = self.events[which % 2], self.locks[which % 3]
        match what:
            case "sleep":
                return await self.api.sleep(seconds)
            case "checkpoint":
                return await self.api.checkpoint()
            case "wait":
                return await event.wait()
            case "set":
                return event.set()
            case "clear":
                return event.clear()
            case "acquire":
                return await lock.acquire()
            case "acquire_nowait":
                return lock.acquire_nowait()
            case "release":
                return lock.release()
            case "cancel":
                return self.tasks[which % len(self.tasks)].cancel()
            case "spawn wait" | "spawn acquire":
                awaitable = event.wait() if what == "spawn wait" else lock.acquire()
                name = f"{what} {len(self.tasks)}"
                task = self.api.create_task(awaitable, name=name, daemon=bool(seconds % 2))
                self.tasks.append(task)
                return await task if seconds > 1 else None
            case "wrap":
                return await Again(event.wait() if seconds % 2 else lock.acquire())
            case "lock":
                async with lock:
                    self.note("in")
                    await self.ops(inside)
            case "by hand":
                await lock.acquire()
                try:
                    await self.ops(inside)
                finally:
                    lock.release()
            case "limit":
                with self.api.move_on_after(seconds) as scope:
                    await self.ops(inside)
                return scope.cancelled_caught
            case "shield":
                with self.api.move_on_after(seconds, shield=True) as scope:
                    await self.ops(inside)
                return scope.cancelled_caught
            case "try":
                try:
                    await self.ops(inside)
                except sleeploop.CancelledError:
                    self.note("swallowed")
        return None

    async def ops(self, ops: list[Op]) -> None:
        for op in ops:
            self.note("before", op[0], op[1])
            try:
                result = await self.op(op)
            except sleeploop.CancelledError:
                self.note("cancelled", op[0])
                raise
            except (BrokenResourceError, RuntimeError, WouldBlock, DeadlockError) as error:
                self.note("raised", type(error).__name__)
            else:
                self.note("after", op[0], result)

    async def main(self) -> None:
        for number, ops in enumerate(self.program):
            self.tasks.append(self.api.create_task(self.ops(ops), name=f"t{number}"))
        for task in list(self.tasks):
            try:
                await task
            except sleeploop.CancelledError:
                self.note("was cancelled", task.name)
            except BrokenResourceError:
                self.note("failed", task.name)

    def run(self, shuffle: Any) -> list[Any]:
        loop = self.loop = self.api.SleepingLoop(self.main(), speed=math.inf, shuffle=shuffle)
        try:
            self.log.append(loop.run_until_complete())
        except (
            BrokenResourceError, DeadlockError, sleeploop.CancelledError, BaseExceptionGroup
        ) as error:  # fmt: skip
            self.log.append(names(error))
        self.log.append([lock.locked() for lock in self.locks])
        return self.log


def check(seed: int, shuffle: Any = None) -> list[Any]:
    program = draw_program(seed)
    ours = Play(sleeploop, (sleeploop.Event, sleeploop.Lock), program)
    log = ours.run(shuffle)
    schedule = ours.loop.schedule if shuffle is not None else None
    theirs = Play(reference, (Event, Lock), program).run(schedule)
    assert_same(log, theirs, program)
    for thing in (*ours.events, *ours.locks):
        assert "waiting" not in repr(thing)
    return log


def summary(log: list[Any]) -> set[Any]:
    """What kinds of things happened, to know that the programs are worth something."""
    return {entry[2][:2] for entry in log if isinstance(entry, tuple)} | {
        entry for entry in log if isinstance(entry, str)
    }


WANTED = {
    ("cancelled", "wait"), ("cancelled", "acquire"), ("cancelled", "lock"),
    ("raised", "BrokenResourceError"), ("raised", "DeadlockError"),
    ("raised", "WouldBlock"), ("raised", "RuntimeError"),
    ("in",), ("swallowed",), "DeadlockError",
}  # fmt: skip


def test_random_programs() -> None:
    each_seed(check, times=10)
    come_by(lambda seed: summary(check(seed)), WANTED)


def test_random_programs_in_random_orders() -> None:
    each_seed(lambda seed: check(10_000 + seed, shuffle=seed), times=3)
