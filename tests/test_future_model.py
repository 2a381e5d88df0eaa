"""Random programs of tasks that set, await and cancel Futures, on the loop and beside their rules.

The rules are those of docs/waiting.md, in plain Python, on the loop of tests/reference.py. Each
program is played on both, and everything that any task does or learns is compared, in order; so is
what the run raises in the end.
"""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

import sleeploop
from sleeploop import CancelledError, DeadlockError
from tests import reference
from tests.reference import Task, Trap, Turn


class Failed(Exception):
    pass


# ---- the rules -----------------------------------------------------------------------------------


class Future:
    def __init__(self, *, name: str) -> None:
        self.error: BaseException | None = None
        self.value: Any = None
        self.is_done = self.is_cancelled = self.is_seen = False
        self.line: list[Task] = []

    def settle(self, value: Any, error: BaseException | None, is_cancelled: bool = False) -> None:
        if self.is_done:
            raise RuntimeError
        self.is_done, self.is_cancelled = True, is_cancelled
        self.value, self.error = value, error
        while self.line:
            reference.current_loop().wake(self.line.pop(0))

    def set_result(self, value: Any) -> None:
        self.settle(value, None)

    def set_exception(self, error: BaseException) -> None:
        self.settle(None, error)

    def cancel(self) -> bool:
        if not self.is_done:
            self.settle(None, None, is_cancelled=True)
            return True
        return False

    def done(self) -> bool:
        return self.is_done

    def result(self) -> Any:
        if not self.is_done:
            raise RuntimeError
        self.is_seen = True
        if self.is_cancelled:
            raise reference.CancelledError("", reference.CancelScope())  # of no one's scope
        if self.error is not None:
            raise self.error
        return self.value

    def exception(self) -> BaseException | None:
        try:
            self.result()
        except Failed as error:
            return error
        return None

    def __await__(self) -> Any:
        if not self.is_done or reference.current_task().cause():
            yield from Trap(Turn(self.line)).__await__()
        return self.result()

    @property
    def n_waiting(self) -> int:
        return len(self.line)


# ---- programs ------------------------------------------------------------------------------------

# (what, which, how long, what is done inside)
Op = tuple[str, int, int, list[Any]]
PLAIN = ["sleep", "checkpoint", "await", "await", "await", "set_result", "set_exception", "cancel"]
PLAIN += ["result", "exception", "cancel task", "cancel task", "spawn", "renew"]
BLOCKS = ["limit", "shield", "try", "group"]
N_FUTURES = 4


def draw_ops(draw: random.Random, depth: int) -> list[Op]:
    ops: list[Op] = []
    for _ in range(draw.randrange(1, 5)):
        is_block = depth < 3 and draw.random() < 0.3
        what = draw.choice(BLOCKS if is_block else PLAIN)
        inside = draw_ops(draw, depth + 1) if is_block else []
        ops.append((what, draw.randrange(12), draw.randrange(4), inside))
    return ops


def draw_program(seed: int) -> list[list[Op]]:
    draw = random.Random(seed)
    return [draw_ops(draw, 0) for _ in range(draw.randrange(2, 7))]


def names(error: BaseException) -> list[str]:
    """Of all that is in it, in any order: a run knows of tasks before it knows of futures."""
    if isinstance(error, BaseExceptionGroup):
        return sorted(name for one in error.exceptions for name in names(one))
    return [f"{type(error).__name__} {error}" if isinstance(error, Failed) else kind(error)]


def kind(error: BaseException) -> str:
    return "CancelledError" if isinstance(error, CancelledError) else type(error).__name__


class Play:
    """One program on one of the two."""

    def __init__(self, api: Any, make: Any, program: list[list[Op]]) -> None:
        self.api, self.make, self.program = api, make, program
        self.log: list[Any] = []
        self.tasks: list[Any] = []
        self.all: list[Any] = []  # no future is dropped before the end
        self.errors = 0
        self.futures = [self.new() for _ in range(N_FUTURES)]

    def new(self) -> Any:
        future = self.make(name=f"future {len(self.all)}")
        self.all.append(future)
        return future

    def note(self, *what: Any) -> None:
        state = [(future.done(), future.n_waiting) for future in self.futures]
        time = self.api.current_loop().time_ns()
        self.log.append((time, self.api.current_task().name, what, state))

    async def get(self, future: Any) -> Any:
        return await future

    async def op(self, op: Op) -> Any:
        what, which, seconds, inside = op
        future = self.futures[which % N_FUTURES]
        match what:
            case "sleep":
                return await self.api.sleep(seconds)
            case "checkpoint":
                return await self.api.checkpoint()
            case "await":
                return await future
            case "set_result":
                return future.set_result(len(self.log))
            case "set_exception":
                self.errors += not future.done()
                return future.set_exception(Failed(self.errors))
            case "cancel" | "result":
                return getattr(future, what)()
            case "exception":
                return str(future.exception())
            case "cancel task":
                return self.tasks[which % len(self.tasks)].cancel()
            case "spawn":
                name = f"{what} {len(self.tasks)}"
                task = self.api.create_task(self.get(future), name=name, daemon=bool(seconds % 2))
                self.tasks.append(task)
                return await task if seconds > 1 else None
            case "renew":
                self.futures[which % N_FUTURES] = self.new()
            case "limit":
                with self.api.move_on_after(seconds) as scope:
                    await self.ops(inside)
                return scope.cancelled_caught
            case "shield":
                with self.api.move_on_after(seconds, shield=True) as scope:
                    await self.ops(inside)
                return scope.cancelled_caught
            case "group":
                async with self.api.TaskGroup() as group:
                    group.create_task(self.get(future), name=f"in group {len(self.log)}")
                    await self.ops(inside)
            case "try":
                try:
                    await self.ops(inside)
                except CancelledError:
                    self.note("swallowed")
        return None

    async def ops(self, ops: list[Op]) -> None:
        for op in ops:
            self.note("before", op[0], op[1])
            try:
                result = await self.op(op)
            except CancelledError:
                self.note("cancelled", op[0])
                raise
            except (RuntimeError, Failed, BaseExceptionGroup) as error:
                self.note("raised", op[0], names(error))
                if op[2] == 3 and not isinstance(error, RuntimeError):
                    raise
            else:
                self.note("after", op[0], result)

    async def main(self) -> None:
        for number, ops in enumerate(self.program):
            self.tasks.append(self.api.create_task(self.ops(ops), name=f"t{number}"))
        for task in list(self.tasks):
            try:
                await task
            except (CancelledError, Failed, BaseExceptionGroup) as error:
                self.note("ended", task.name, names(error), task.cancelled())

    def run(self, shuffle: Any) -> list[Any]:
        loop = self.loop = self.api.SleepingLoop(self.main(), speed=math.inf, shuffle=shuffle)
        errors: list[str] = []
        try:
            loop.run_until_complete()
        except (Failed, DeadlockError, CancelledError, BaseExceptionGroup) as error:
            errors += names(error)
        if self.api is reference:  # it does not know of futures
            unseen = [f.error for f in self.all if f.error is not None and not f.is_seen]
            errors = sorted({*errors, *(name for error in unseen for name in names(error))})
        self.log.append(sorted(set(errors)))
        self.log.append([(future.done(), future.n_waiting) for future in self.all])
        return self.log


def check(seed: int, shuffle: Any = None) -> list[Any]:
    program = draw_program(seed)
    ours = Play(sleeploop, sleeploop.Future, program)
    log = ours.run(shuffle)
    schedule = ours.loop.schedule if shuffle is not None else None
    theirs = Play(reference, Future, program).run(schedule)
    for index, (mine, other) in enumerate(zip(log, theirs, strict=False)):
        assert mine == other, (seed, index, log[max(0, index - 5) : index], program)
    assert len(log) == len(theirs)
    return log


def summary(log: list[Any]) -> set[Any]:
    """What kinds of things happened, to know that the programs are worth something."""
    return {entry[2][:2] for entry in log if isinstance(entry, tuple)} | {
        name.partition(" ")[0] for name in log[-2]
    }


@pytest.mark.parametrize("block", range(8))
def test_random_programs(block: int) -> None:
    seen: set[Any] = set()
    for seed in range(block * 150, block * 150 + 150):
        seen |= summary(check(seed))
    assert {
        ("cancelled", "await"), ("raised", "await"), ("after", "await"), ("raised", "group"),
        ("raised", "set_result"), ("raised", "result"), ("swallowed",), "Failed", "DeadlockError",
        "CancelledError",
    } <= seen  # fmt: skip


@pytest.mark.parametrize("block", range(4))
def test_random_programs_in_random_orders(block: int) -> None:
    for seed in range(block * 100, block * 100 + 100):
        check(10_000 + seed, shuffle=seed)
