"""Random programs, on the loop and on the plain-Python reference: they must not differ in anything.

A program is a tree of tasks made of operations. Everything that its tasks can see is compared, in
order and with loop time: each operation's result or exception, what the run returns or raises, and
what it logs.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
import random
import re
import subprocess
import sys
import types
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sleeploop
from sleeploop import DeadlockError
from tests import reference

Choose = Callable[[Sequence[Any]], Any]


# ---- programs ----------------------------------------------------------------------------------

# Few values, so that many wake up at once; and the edges of each form.
DELAYS = (
    0, 1, 1.0, 2, 0.5, timedelta(seconds=1), timedelta(seconds=0.5), 3, 0.1,
    1e-6, 1e-9, 1.7e-9, 1e-12, -1, -0.5, timedelta(-1), -math.inf,
    True, 3600, 86_400.25, timedelta.max, 1e300, math.inf,
)  # fmt: skip
EPOCH = datetime(2000, 1, 1)  # loop time 0 at speed inf
LOCAL = [EPOCH + timedelta(seconds=seconds) for seconds in (1, 0, 0.5, 2, -1, 3600)]
NEPAL = timezone(timedelta(hours=5, minutes=45))
MOMENTS = (*LOCAL, *(t.astimezone(UTC) for t in LOCAL), *(t.astimezone(NEPAL) for t in LOCAL))


class Op:
    """One operation of a task. What perform() returns or raises goes into the log."""

    @classmethod
    def any(cls, choose: Choose, depth: int) -> Op:
        return cls()

    async def perform(self, play: Play, where: str) -> Any:
        raise NotImplementedError


Ops = tuple[Op, ...]


@dataclass(frozen=True)
class Sleep(Op):
    delay: float | timedelta

    @classmethod
    def any(cls, choose: Choose, depth: int) -> Op:
        return cls(choose(DELAYS[: choose((3, 9, len(DELAYS)))]))

    async def perform(self, play: Play, where: str) -> Any:
        return await play.api.sleep(self.delay)


@dataclass(frozen=True)
class SleepUntil(Op):
    when: float | datetime

    @classmethod
    def any(cls, choose: Choose, depth: int) -> Op:
        return cls(choose((1, 0, 2.5, 3, -1, 1e-9, *MOMENTS)))

    async def perform(self, play: Play, where: str) -> Any:
        return await play.api.sleep_until(self.when)


@dataclass(frozen=True)
class SleepForever(Op):
    async def perform(self, play: Play, where: str) -> Any:
        return await play.api.sleep_forever()


@dataclass(frozen=True)
class Checkpoint(Op):
    async def perform(self, play: Play, where: str) -> Any:
        return await play.api.checkpoint()


@dataclass(frozen=True)
class Emit(Op):
    """A bare `yield`: of None, a datetime, or something that no loop can wait for."""

    value: object

    @classmethod
    def any(cls, choose: Choose, depth: int) -> Op:
        return cls(choose((*MOMENTS, None, None, None, 42)))

    async def perform(self, play: Play, where: str) -> Any:
        return await emit(self.value)


@types.coroutine
def emit(value: object) -> Generator[object, Any, Any]:
    return (yield value)


@dataclass(frozen=True)
class Spawn(Op):
    ops: Ops
    name: str | None
    daemon: bool
    kept: bool  # or nobody can await it, and its failure is reported as soon as it has failed
    foreign: bool  # no native coroutine

    @classmethod
    def any(cls, choose: Choose, depth: int) -> Spawn:
        return cls(
            any_ops(choose, depth - 1),
            name=choose((None, "named")),
            daemon=choose((False, False, True)),
            kept=choose((True, True, False)),
            foreign=choose((False, False, True)),
        )

    async def perform(self, play: Play, where: str) -> Any:
        return self.start(play, play.api.create_task, where)

    def start(self, play: Play, create_task: Callable[..., Any], where: str) -> str:
        coro = play.act(self.ops, where)
        task = create_task(
            Foreign(coro) if self.foreign else coro, name=self.name, daemon=self.daemon
        )
        if self.kept:
            play.handles.append(task)
        return str(task.name)


class Foreign:
    """The least that a loop must be content with."""

    def __init__(self, coro: Any) -> None:
        self.send, self.throw, self.close = coro.send, coro.throw, coro.close
        self.__qualname__ = coro.__qualname__


@dataclass(frozen=True)
class Join(Op):
    """Any other task that has a handle by now: done or not, joined before or not."""

    index: int

    @classmethod
    def any(cls, choose: Choose, depth: int) -> Op:
        return cls(choose(range(8)))

    async def perform(self, play: Play, where: str) -> Any:
        task = play.pick(self.index)
        return await task if task is not None else None


class Ask(Join):
    async def perform(self, play: Play, where: str) -> Any:
        task = play.pick(self.index)
        return ask(task) if task is not None else None


@dataclass(frozen=True)
class JoinSelf(Op):
    async def perform(self, play: Play, where: str) -> Any:
        await play.api.current_task()


@dataclass(frozen=True)
class Raise(Op):
    type: type[BaseException]

    @classmethod
    def any(cls, choose: Choose, depth: int) -> Op:
        return cls(choose(9 * (ValueError,) + (sleeploop.CancelledError, Doom, SystemExit)))

    async def perform(self, play: Play, where: str) -> Any:
        raise self.type(where)


class Doom(BaseException):
    """Ends the run, whoever raises it."""


@dataclass(frozen=True)
class Return(Op):
    value: int

    @classmethod
    def any(cls, choose: Choose, depth: int) -> Op:
        return cls(choose(range(3)))

    async def perform(self, play: Play, where: str) -> Any:
        return self


@dataclass(frozen=True)
class Finally(Op):
    ops: Ops
    cleanup: Ops

    @classmethod
    def any(cls, choose: Choose, depth: int) -> Op:
        return cls(any_ops(choose, depth - 1), any_ops(choose, depth - 1))

    async def perform(self, play: Play, where: str) -> Any:
        try:
            return await play.perform(self.ops, f"{where} try")
        finally:
            await play.perform(self.cleanup, f"{where} finally")


@dataclass(frozen=True)
class Swallow(Op):
    """Even a cancellation, which then has to come again."""

    ops: Ops

    @classmethod
    def any(cls, choose: Choose, depth: int) -> Op:
        return cls(any_ops(choose, depth - 1))

    async def perform(self, play: Play, where: str) -> Any:
        try:
            return await play.perform(self.ops, f"{where} try")
        except (Exception, sleeploop.CancelledError) as exc:
            return f"swallowed {type(exc).__name__}"


LEAVES = (
    12 * (Sleep,) + 3 * (Checkpoint,) + 3 * (Emit,) + 3 * (SleepUntil,)
    + 5 * (Join,) + 2 * (Ask,) + (Raise, JoinSelf)
)  # fmt: skip
NODES = 10 * (Spawn,) + 4 * (Finally,) + 3 * (Swallow,)
ENDS = (SleepForever, Raise, Return)


def any_ops(choose: Choose, depth: int) -> Ops:
    ops: list[Op] = []
    while len(ops) < 8 and choose((False,) + 7 * (True,)):
        ops.append(choose(LEAVES + NODES if depth > 0 else LEAVES).any(choose, depth))
    if choose((False, False, True)):
        ops.append(choose(ENDS).any(choose, depth))
    return tuple(ops)


@dataclass(frozen=True)
class Program:
    roots: tuple[Ops, ...]
    early: tuple[Spawn, ...]  # by create_task() before the run
    main_only: bool  # run(main) instead of SleepingLoop(*roots)


def any_program(choose: Choose) -> Program:
    """One source of programs for two sources of choices: Hypothesis, and a seeded Random."""
    if choose((False, True)):
        return Program((any_ops(choose, 3),), (), main_only=True)
    return Program(
        tuple(any_ops(choose, 3) for _ in range(choose((1, 2, 3, 0)))),
        tuple(Spawn.any(choose, 3) for _ in range(choose((0, 0, 1, 2)))),
        main_only=False,
    )


@st.composite
def programs(draw: st.DrawFn) -> Program:
    return any_program(lambda options: draw(st.sampled_from(options)))


# ---- a performance -----------------------------------------------------------------------------


class Play(logging.Handler):
    """One run of a program on one implementation, and the log of all that could be seen of it."""

    def __init__(self, api: Any, shuffle: Any = None) -> None:
        super().__init__()
        self.api, self.shuffle = api, shuffle
        self.log: list[tuple[object, ...]] = []
        self.handles: list[Any] = []
        self.loop: Any = None

    def pick(self, index: int) -> Any:
        """A task to wait for, the latest first."""
        others = [task for task in self.handles if task is not self.api.current_task()]
        return others[-1 - index % len(others)] if others else None

    async def act(self, ops: Ops, where: str, *, publish: bool = False) -> Any:
        """What a task does."""
        self.loop = self.api.current_loop()
        if publish:
            self.handles.append(self.api.current_task())
        self.note(where, "starts")
        outcome = await self.perform(ops, where)
        return outcome.value if isinstance(outcome, Return) else where

    async def perform(self, ops: Ops, where: str) -> Return | None:
        for number, op in enumerate(ops):
            here = f"{where}.{number}"
            try:
                result = await op.perform(self, here)
            except BaseException as exc:
                self.note(here, shape(exc))
                raise
            self.note(here, repr(result))
            if isinstance(result, Return):
                return result
        return None

    def note(self, where: str, what: str) -> None:
        now = self.api.current_loop().time_ns()
        self.log.append((now, self.api.current_task().name, where, what))

    def emit(self, record: logging.LogRecord) -> None:
        assert record.exc_info
        self.log.append(("logged", record.getMessage(), shape(record.exc_info[1])))

    def run(self, program: Program) -> list[tuple[object, ...]]:
        logger = logging.getLogger("sleeploop")
        logger.addHandler(self)
        logger.propagate = False
        try:
            self.log.append(("outcome", repr(self.outcome(program))))
        except (Exception, sleeploop.CancelledError, SystemExit, BaseExceptionGroup, Doom) as exc:
            self.log.append(("raised", shape(exc)))
        finally:
            logger.removeHandler(self)
            logger.propagate = True
        self.log += [("handle", task.name, ask(task)) for task in self.handles]
        return self.log

    def outcome(self, program: Program) -> Any:
        roots = [self.act(ops, str(n), publish=True) for n, ops in enumerate(program.roots)]
        if program.main_only:
            return self.api.run(*roots, speed=math.inf, shuffle=self.shuffle)
        loop = self.api.SleepingLoop(*roots, speed=math.inf, shuffle=self.shuffle)
        for number, spawn in enumerate(program.early):
            spawn.start(self, loop.create_task, f"early {number}")
        return loop.run_until_complete(), loop.time_ns(), loop.tasks(), loop.stats().wakeups


def play(api: Any, program: Program, shuffle: Any = None) -> list[tuple[object, ...]]:
    return Play(api, shuffle).run(program)


def ask(task: Any) -> str:
    if not task.done() or task.cancelled():
        return f"done {task.done()}, cancelled {task.cancelled()}, wakes at {task.wake_time}"
    exc = task.exception()
    return shape(exc) if exc is not None else f"returned {task.result()!r}"


def shape(exc: BaseException | None) -> str:
    """An exception, with those that it groups and the one that it was raised on top of."""
    if exc is None:
        return "none"
    parts = [shape(part) for part in exc.exceptions] if isinstance(exc, BaseExceptionGroup) else ""
    context = f"<- {shape(exc.__context__)}" if exc.__context__ is not None else ""
    message = without_places(exc) if isinstance(exc, DeadlockError) else exc
    return f"{type(exc).__name__}: {message} {parts}{context}".rstrip()


def without_places(report: DeadlockError) -> str:
    """Without the lines of code at which the tasks are, and the circles, which test_deadlocks.py
    compares with rules of their own."""
    return re.sub(r", at .*|\n  (in a circle|for ever|\.\.\. and \d+ more such).*", "", str(report))


# ---- the tests -----------------------------------------------------------------------------------


def assert_same(program: Program) -> None:
    assert play(sleeploop, program) == play(reference, program), program


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(programs())
def test_random_programs(program: Program) -> None:
    assert_same(program)


@pytest.mark.parametrize("block", range(8))
def test_seeded_programs(block: int) -> None:
    for seed in range(block * 250, block * 250 + 250):
        assert_same(any_program(random.Random(seed).choice))


def test_the_programs_do_it_all() -> None:
    """The seeded programs come by what they are there for, or they prove nothing."""
    logs = repr(seeded_logs(range(400)))
    for event in (
        "DeadlockError: every task",
        "sleeping until cancelled",
        "waiting for task",
        "cannot wait for itself",
        "CancelledError: the run is over",
        "CancelledError: task",
        "CancelledError: every task waits: a deadlock",
        "SleepingLoop cannot wait for",
        "nobody retrieved",
        "ended with SystemExit",
        "BaseExceptionGroup: 2 tasks",
        "ExceptionGroup: 3 tasks",
        "swallowed CancelledError",
        "swallowed ValueError",
        "swallowed TypeError",
        "Doom",
        "finally",
    ):
        assert event in logs, event


def seeded_logs(seeds: Iterable[int]) -> list[object]:
    return [play(sleeploop, any_program(random.Random(seed).choice)) for seed in seeds]


def digest(seeds: Iterable[int]) -> str:
    return hashlib.sha256(repr(seeded_logs(seeds)).encode()).hexdigest()


def test_twice_the_same() -> None:
    assert digest(range(100)) == digest(range(100))


def test_a_failure_joined_on_top_of_another() -> None:
    """Neither is lost, as if `raise` stood there."""

    async def child() -> None:
        raise ValueError("child")

    async def main() -> None:
        task = sleeploop.create_task(child())
        try:
            raise KeyError("in flight")
        finally:
            await task

    with pytest.raises(ValueError, match="child") as caught:
        sleeploop.run(main(), speed=math.inf)
    assert isinstance(caught.value.__context__, KeyError)


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_the_same_in_every_process(hash_seed: str) -> None:
    code = "from tests import test_model; print(test_model.digest(range(100)))"
    environment = os.environ | {
        "PYTHONHASHSEED": hash_seed,
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    output = subprocess.check_output(
        [sys.executable, "-c", code],
        env=environment,
        cwd=Path(__file__).resolve().parent.parent,
        text=True,
    )
    assert output.strip() == digest(range(100))
