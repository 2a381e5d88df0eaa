"""Random programs, on the loop and on the plain-Python reference: they must not differ in anything.

A program is a tree of tasks made of operations. Everything that its tasks can see is compared, in
order and with loop time: each operation's result or exception, what the run returns or raises, and
what it logs.
"""

from __future__ import annotations

import hashlib
import math
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sleeploop
from tests import reference, twins
from tests.helpers import yielding
from tests.twins import (
    Ask,
    Checkpoint,
    Doom,
    Finally,
    Join,
    Op,
    Ops,
    Program,
    Return,
    SleepForever,
    Swallow,
    come_by,
    each_seed,
    examples,
)

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


@dataclass(frozen=True)
class Sleep(Op):
    delay: float | timedelta

    @classmethod
    def any(cls, choose: Maker, depth: int) -> Op:
        return cls(choose(DELAYS[: choose((3, 9, len(DELAYS)))]))

    async def perform(self, play: Play, where: str) -> Any:
        return await play.api.sleep(self.delay)


@dataclass(frozen=True)
class SleepUntil(Op):
    when: float | datetime

    @classmethod
    def any(cls, choose: Maker, depth: int) -> Op:
        return cls(choose((1, 0, 2.5, 3, -1, 1e-9, *MOMENTS)))

    async def perform(self, play: Play, where: str) -> Any:
        return await play.api.sleep_until(self.when)


@dataclass(frozen=True)
class Emit(Op):
    """A bare `yield`: of None, a datetime, or something that no loop can wait for."""

    value: object

    @classmethod
    def any(cls, choose: Maker, depth: int) -> Op:
        return cls(choose((*MOMENTS, None, None, None, 42)))

    async def perform(self, play: Play, where: str) -> Any:
        return await yielding(self.value)


@dataclass(frozen=True)
class Spawn(Op):
    ops: Ops
    name: str | None
    daemon: bool
    kept: bool  # or nobody can await it, and its failure is reported as soon as it has failed
    foreign: bool  # no native coroutine

    @classmethod
    def any(cls, choose: Maker, depth: int) -> Spawn:
        return cls(
            choose.ops(depth - 1),
            name=choose((None, "named")),
            daemon=choose((False, False, True)),
            kept=choose((True, True, False)),
            foreign=choose((False, False, True)),
        )

    async def perform(self, play: Play, where: str) -> Any:
        return self.start(play, play.api.create_task, where)

    def start(self, play: Play, create_task: Callable[..., Any], where: str) -> str:
        coro = play.coroutine(play.act(self.ops, where))
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
class JoinSelf(Op):
    async def perform(self, play: Play, where: str) -> Any:
        await play.api.current_task()


@dataclass(frozen=True)
class Raise(Op):
    type: type[BaseException]

    @classmethod
    def any(cls, choose: Maker, depth: int) -> Op:
        return cls(choose(9 * (ValueError,) + (sleeploop.CancelledError, Doom, SystemExit)))

    async def perform(self, play: Play, where: str) -> Any:
        raise self.type(where)


LEAVES = (
    12 * (Sleep,) + 3 * (Checkpoint,) + 3 * (Emit,) + 3 * (SleepUntil,)
    + 5 * (Join,) + 2 * (Ask,) + (Raise, JoinSelf)
)  # fmt: skip
NODES = 10 * (Spawn,) + 4 * (Finally,) + 3 * (Swallow,)
ENDS = (SleepForever, Raise, Return)


class Maker(twins.Maker):
    def ops(self, depth: int) -> Ops:
        ops: list[Op] = []
        while len(ops) < 8 and self((False,) + 7 * (True,)):
            ops.append(self(LEAVES + NODES if depth > 0 else LEAVES).any(self, depth))
        if self((False, False, True)):
            ops.append(self(ENDS).any(self, depth))
        return tuple(ops)


def any_program(source: Callable[[Sequence[Any]], Any]) -> Program:
    """One source of programs for two sources of choices: Hypothesis, and a seeded Random."""
    choose = Maker(source)
    if choose((False, True)):
        return Program((choose.ops(3),), (), main_only=True)
    return Program(
        tuple(choose.ops(3) for _ in range(choose((1, 2, 3, 0)))),
        tuple(Spawn.any(choose, 3) for _ in range(choose((0, 0, 1, 2)))),
        main_only=False,
    )


@st.composite
def programs(draw: st.DrawFn) -> Program:
    return any_program(lambda options: draw(st.sampled_from(options)))


# ---- a performance -----------------------------------------------------------------------------


class Play(twins.Play):
    def shape(self, exc: BaseException) -> str:
        """Also the one that it was raised on top of."""
        context = f"<- {self.shape(exc.__context__)}" if exc.__context__ is not None else ""
        return f"{super().shape(exc)}{context}"


def play(api: Any, program: Program, shuffle: Any = None) -> list[tuple[object, ...]]:
    return Play(api, shuffle).run(program)


# ---- the tests -----------------------------------------------------------------------------------


def assert_same(program: Program) -> None:
    twins.assert_same(play(sleeploop, program), play(reference, program), program)


@examples()
@given(programs())
def test_random_programs(program: Program) -> None:
    assert_same(program)


def test_seeded_programs() -> None:
    each_seed(lambda seed: assert_same(any_program(random.Random(seed).choice)), times=10)


EVENTS = (
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
    "BaseExceptionGroup: 2 failures",
    "ExceptionGroup: 3 failures",
    "swallowed CancelledError",
    "swallowed ValueError",
    "swallowed TypeError",
    "Doom",
    "finally",
)


def test_the_programs_do_it_all() -> None:
    def events(seed: int) -> list[str]:
        log = repr(seeded_logs([seed]))
        return [event for event in EVENTS if event in log]

    come_by(events, EVENTS)


def seeded_logs(seeds: Iterable[int]) -> list[object]:
    return [play(sleeploop, any_program(random.Random(seed).choice)) for seed in seeds]


def digest(seeds: Iterable[int]) -> str:
    return hashlib.sha256(repr(seeded_logs(seeds)).encode()).hexdigest()


def test_twice_the_same() -> None:
    assert digest(range(40)) == digest(range(40))


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
    code = "from tests import test_model; print(test_model.digest(range(40)))"
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
    assert output.strip() == digest(range(40))
