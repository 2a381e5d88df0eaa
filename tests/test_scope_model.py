"""Random programs of groups, scopes and deadlines, on the loop and on the plain-Python reference.

As test_model.py, for structured concurrency: what a program does is compared event by event. And
whatever the reference says, no task may outlive its group, and no exception may vanish.
"""

from __future__ import annotations

import inspect
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

import sleeploop
from sleeploop import CancelledError
from tests import reference, twins
from tests.twins import (
    CAUGHT,
    Ask,
    Checkpoint,
    Doom,
    Finally,
    Join,
    Op,
    Ops,
    Program,
    SleepForever,
    Swallow,
    each_seed,
    examples,
)

# ---- programs ----------------------------------------------------------------------------------

# Few values, so that many things fall into the same moment.
DELAYS = (0, 1, 2, 0.5, 1, 3, 5)
LIMITS = (1, 2, 3, 0.5, 0, 5, -1)
REASONS = (None, "why", 42)


# ---- waiting


@dataclass(frozen=True)
class Sleep(Op):
    delay: float

    @classmethod
    def any(cls, choose: Maker, depth: int) -> Op:
        return cls(choose(DELAYS))

    async def perform(self, play: Play, where: str) -> Any:
        return await play.api.sleep(self.delay)


# ---- cancelling


@dataclass(frozen=True)
class OnScope(Op):
    """Something that is done to a scope, a group's or one of its own, from wherever."""

    whose: str
    index: int
    value: Any

    @classmethod
    def any(cls, choose: Maker, depth: int) -> Op:
        return cls(choose(("mine", "open", "open", "all")), choose(range(6)), cls.any_value(choose))

    @classmethod
    def any_value(cls, choose: Maker) -> Any:
        return None

    async def perform(self, play: Play, where: str) -> Any:
        found = play.pick_scope(self.whose, self.index)
        return found and (found[0], self.act(play, found[1]))

    def act(self, play: Play, scope: Any) -> Any:
        raise NotImplementedError


class Cancel(OnScope):
    @classmethod
    def any_value(cls, choose: Maker) -> Any:
        return choose(REASONS)

    def act(self, play: Play, scope: Any) -> Any:
        return scope.cancel(self.value)


class SetDeadline(OnScope):
    """Never to none behind a shield: a run that waits there for ever has no rules."""

    @classmethod
    def any_value(cls, choose: Maker) -> Any:
        return choose((0, 1, 2, 3)), choose(LIMITS), choose((False, False, True))

    def act(self, play: Play, scope: Any) -> Any:
        how, limit, is_in = self.value
        when = play.now() + limit if is_in else limit
        if how == 0 and not scope.shield:
            scope.deadline = None if limit < 1 else math.inf
        elif how == 1:
            scope.reschedule(when)
        else:
            scope.deadline = when
        return scope.deadline, scope.cancel_called


class SetShield(OnScope):
    @classmethod
    def any_value(cls, choose: Maker) -> Any:
        return choose((True, True, False)), choose(LIMITS[:4])

    def act(self, play: Play, scope: Any) -> Any:
        on, limit = self.value
        if on and scope.deadline == math.inf:
            scope.deadline = play.now() + limit
        scope.shield = on
        return on


class Look(OnScope):
    def act(self, play: Play, scope: Any) -> Any:
        return look(scope)


class EffectiveDeadline(Op):
    async def perform(self, play: Play, where: str) -> Any:
        return play.api.current_effective_deadline()


@dataclass(frozen=True)
class CancelTask(Op):
    index: int | None  # None: itself
    reason: object

    @classmethod
    def any(cls, choose: Maker, depth: int) -> Op:
        return cls(choose((None, *range(6))), choose(REASONS))

    async def perform(self, play: Play, where: str) -> Any:
        task = play.api.current_task() if self.index is None else play.pick_task(self.index)
        return task and (task.name, task.cancel(self.reason))


@dataclass(frozen=True)
class Raise(Op):
    type: type[BaseException]

    @classmethod
    def any(cls, choose: Maker, depth: int) -> Op:
        return cls(choose(14 * (ValueError,) + 3 * (CancelledError,) + (Doom, SystemExit)))

    async def perform(self, play: Play, where: str) -> Any:
        raise play.new_error(self.type)


# ---- tasks


@dataclass(frozen=True)
class Spawn(Op):
    """A task of the loop: of no group, in no scope."""

    ops: Ops
    daemon: bool
    kept: bool  # or nobody can await it, and its failure is reported as soon as it has failed

    @classmethod
    def any(cls, choose: Maker, depth: int) -> Op:
        return cls(choose.ops(depth - 1), choose((False, True)), choose((True, True, False)))

    async def perform(self, play: Play, where: str) -> Any:
        coro = play.coroutine(play.act(self.ops, where))
        task = play.api.create_task(coro, daemon=self.daemon)
        if self.kept:
            play.handles.append(task)
        return task.name


@dataclass(frozen=True)
class Child(Op):
    """A task of any group that there is: it may be closing, or closed."""

    index: int
    ops: Ops
    kept: bool

    @classmethod
    def any(cls, choose: Maker, depth: int) -> Op:
        return cls(choose((0, 0, 1, 2)), choose.ops(depth - 1), choose((True, True, False)))

    async def perform(self, play: Play, where: str) -> Any:
        found = play.pick_group(self.index)
        if found is None:
            return None
        label, group = found
        coro = play.coroutine(play.act(self.ops, where), label)
        try:
            task = group.create_task(coro)
        except RuntimeError:
            coro.close()
            raise
        if self.kept:
            play.handles.append(task)
        return label, task.name


@dataclass(frozen=True)
class StartChild(Op):
    """By group.start()."""

    index: int
    before: Ops
    calls: int  # of started()
    after: Ops

    @classmethod
    def any(cls, choose: Maker, depth: int) -> Op:
        return cls(
            choose((0, 0, 1, 2)),
            choose.ops(depth - 1),
            choose((1, 1, 1, 1, 0, 2)),
            choose.ops(depth - 1),
        )

    async def perform(self, play: Play, where: str) -> Any:
        found = play.pick_group(self.index)
        if found is None:
            return None
        label, group = found

        def function(*args: Any, started: Any) -> Any:
            play.started.append(started)
            return play.coroutine(self.run(play, *args, started=started), label)

        return label, await group.start(function, where)

    async def run(self, play: Play, where: str, *, started: Any) -> None:
        play.handles.append(play.api.current_task())
        play.note(where, "starts")
        await play.perform(self.before, f"{where} before")
        for _ in range(self.calls):
            play.note(where, f"says {started(where)!r}")
        await play.perform(self.after, f"{where} after")


@dataclass(frozen=True)
class SayStarted(Op):
    """For another task."""

    index: int

    @classmethod
    def any(cls, choose: Maker, depth: int) -> Op:
        return cls(choose(range(3)))

    async def perform(self, play: Play, where: str) -> Any:
        return play.started and play.started[-1 - self.index % len(play.started)](where)


# ---- blocks


class Replace(Swallow):
    """Raises an error of its own instead."""

    async def perform(self, play: Play, where: str) -> Any:
        try:
            return await play.perform(self.ops, f"{where} try")
        except CAUGHT as exc:
            play.see(exc)
            raise play.new_error(KeyError) from None


@dataclass(frozen=True)
class Scope(Op):
    function: str
    limit: float | None
    shield: bool
    early: Ops  # done when it is there, but not entered
    ops: Ops
    is_async: bool

    @classmethod
    def any(cls, choose: Maker, depth: int) -> Op:
        shield = choose((False, False, True))
        return cls(
            choose(
                ("CancelScope", "move_on_after", "move_on_at", "timeout", "timeout", "timeout_at")
            ),
            choose(LIMITS if shield else (*LIMITS, None, math.inf, None)),
            shield,
            (Cancel("all", 0, "early"),) if choose(9 * (False,) + (True,)) else (),
            choose.ops(depth - 1),
            choose((False, True)),
        )

    async def perform(self, play: Play, where: str) -> Any:
        if self.function == "CancelScope":
            scope = play.api.CancelScope(deadline=self.limit, shield=self.shield)
        else:
            scope = getattr(play.api, self.function)(self.limit, shield=self.shield)
        play.scopes.append((where, scope))
        await play.perform(self.early, f"{where} early")
        try:
            if self.is_async:
                async with scope:
                    await self.inside(play, where, scope)
            else:
                with scope:
                    await self.inside(play, where, scope)
        finally:
            play.note(where, f"left {look(scope)}")

    async def inside(self, play: Play, where: str, scope: Any) -> None:
        with play.open_scope(where, scope):
            await play.perform(self.ops, where)


@dataclass(frozen=True)
class Group(Op):
    ops: Ops

    @classmethod
    def any(cls, choose: Maker, depth: int) -> Op:
        return cls(choose.ops(depth - 1))

    async def perform(self, play: Play, where: str) -> Any:
        group = play.api.TaskGroup()
        scope = group.cancel_scope
        play.scopes.append((where, scope))
        play.groups.append((where, group))
        play.open.append((where, scope))
        try:
            async with group:
                mine = play.mine()
                mine.append((where, scope))
                try:
                    await play.perform(self.ops, where)
                finally:
                    mine.remove((where, scope))
        finally:
            play.open.remove((where, scope))
            play.note(where, f"left {look(scope)}")
            for coro in play.members.get(where, ()):
                assert inspect.getcoroutinestate(coro) == "CORO_CLOSED", "it outlives its group"


def look(scope: Any) -> str:
    return (
        f"cancelled {scope.cancel_called}, caught {scope.cancelled_caught}, "
        f"deadline {scope.deadline} {scope.when()} {scope.expired()}, shield {scope.shield}"
    )


LEAVES = (
    12 * (Sleep,) + 3 * (Checkpoint,) + 3 * (Join,) + 2 * (Ask,) + 2 * (Raise,)
    + 4 * (Cancel,) + 2 * (CancelTask,) + 2 * (SetDeadline,) + 3 * (SetShield,)
    + (Look, EffectiveDeadline, SayStarted)
)  # fmt: skip
NODES = (
    3 * (Spawn,) + 8 * (Child,) + 3 * (StartChild,) + 6 * (Scope,) + 6 * (Group,)
    + 2 * (Finally,) + 3 * (Swallow,) + (Replace,)
)  # fmt: skip
ENDS = (SleepForever, Raise, Join)


class Maker(twins.Maker):
    def ops(self, depth: int) -> Ops:
        ops: list[Op] = []
        while len(ops) < 6 and self((False,) + 3 * (True,)):
            is_node = depth > 0 and self((False, True))
            ops.append(self(NODES if is_node else LEAVES).any(self, depth))
        if self((False, False, False, True)):
            ops.append(self(ENDS).any(self, depth))
        return tuple(ops)


def any_program(source: Callable[[Sequence[Any]], Any]) -> Program:
    """One source of programs for two sources of choices: Hypothesis, and a seeded Random."""
    choose = Maker(source)
    main_only = choose((True, False))
    n = 1 if main_only else choose((1, 2, 3))
    roots = tuple((Group.any(choose, 4), *choose.ops(3)) for _ in range(n))
    return Program(roots, (), main_only)


@st.composite
def programs(draw: st.DrawFn) -> Program:
    return any_program(lambda options: draw(st.sampled_from(options)))


# ---- a performance -----------------------------------------------------------------------------


class Play(twins.Play):
    def __init__(self, api: Any, shuffle: Any = None) -> None:
        super().__init__(api, shuffle)
        self.scopes: list[tuple[str, Any]] = []  # all, also those of groups
        self.open: list[tuple[str, Any]] = []
        self.stacks: dict[str, list[tuple[str, Any]]] = {}  # the open ones of each task
        self.groups: list[tuple[str, Any]] = []
        self.started: list[Any] = []
        self.members: dict[str, list[Any]] = {}
        self.raised: list[BaseException] = []
        self.seen: list[BaseException] = []

    def run(self, program: Program) -> list[tuple[object, ...]]:
        super().run(program)
        self.check()
        stats = self.loop.stats()
        self.log.append(("in all", self.loop.time_ns(), stats.wakeups, stats.steps))
        self.log += [("scope", where, look(scope)) for where, scope in self.scopes]
        return self.log

    def now(self) -> float:
        return self.loop.time_ns() / 1e9

    # ---- what there is -------------------------------------------------------------------------

    def pick_scope(self, whose: str, index: int) -> tuple[str, Any] | None:
        scopes = {"mine": self.mine(), "open": self.open, "all": self.scopes}[whose]
        return scopes[-1 - index % len(scopes)] if scopes else None

    def pick_group(self, index: int) -> tuple[str, Any] | None:
        return self.groups[-1 - index % len(self.groups)] if self.groups else None

    def mine(self) -> list[tuple[str, Any]]:
        return self.stacks.setdefault(self.api.current_task().name, [])

    def open_scope(self, where: str, scope: Any) -> OpenScope:
        return OpenScope(self, (where, scope))

    def coroutine(self, coro: Any, group: str | None = None) -> Any:
        """Perhaps a group's, which it must not outlive."""
        if group is not None:
            self.members.setdefault(group, []).append(coro)
        return super().coroutine(coro)

    # ---- what happens --------------------------------------------------------------------------

    def see_raised(self, exc: BaseException) -> None:
        if self.is_cancelled():
            # One raised by hand counts as that cancellation, also inside of a group.
            self.seen += [part for part in parts(exc) if isinstance(part, CancelledError)]

    def new_error(self, type: type[BaseException]) -> BaseException:
        exc = type(f"error {len(self.raised)}")
        self.raised.append(exc)
        return exc

    def is_cancelled(self) -> bool:
        return self.api.current_effective_deadline() == -math.inf

    def see(self, exc: BaseException) -> None:
        self.seen += parts(exc)

    def shape(self, exc: BaseException) -> str:
        """Also its cause, and all of a cancellation."""
        text = super().shape(exc)
        if isinstance(exc, CancelledError):
            text += f" {exc.source} {exc.source_task} {exc.where} {exc.reason!r}"
        return f"{text} <- {self.shape(exc.__cause__)}" if exc.__cause__ is not None else text

    def check(self) -> None:
        """What has to be true, whatever the program."""
        assert self.loop.tasks() == []
        assert all(task.done() for task in self.handles)
        assert self.open == []
        seen = {id(exc) for exc in self.seen}
        lost = [exc for exc in self.raised if id(exc) not in seen]
        assert not lost, f"nobody has seen {lost!r}"


class OpenScope:
    """While the task is inside of it."""

    def __init__(self, play: Play, entry: tuple[str, Any]) -> None:
        self.lists = play.mine(), play.open
        self.entry = entry

    def __enter__(self) -> None:
        for each in self.lists:
            each.append(self.entry)

    def __exit__(self, *exc: object) -> None:
        for each in self.lists:
            each.remove(self.entry)


def play(api: Any, program: Program, shuffle: Any = None) -> list[tuple[object, ...]]:
    return Play(api, shuffle).run(program)


def parts(exc: BaseException) -> Iterator[BaseException]:
    """It and, if it groups others, those."""
    yield exc
    if isinstance(exc, BaseExceptionGroup):
        for part in exc.exceptions:
            yield from parts(part)


# ---- the tests -----------------------------------------------------------------------------------


def assert_same(program: Program) -> None:
    twins.assert_same(play(sleeploop, program), play(reference, program), program)


@examples()
@given(programs())
def test_random_programs(program: Program) -> None:
    assert_same(program)


def test_seeded_programs() -> None:
    each_seed(lambda seed: assert_same(any_program(random.Random(seed).choice)), times=10)
