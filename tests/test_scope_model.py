"""Random programs of groups, scopes and deadlines, on the loop and on the plain-Python reference.

As test_model.py, for structured concurrency: what a program does is compared event by event. And
whatever the reference says, no task may outlive its group, and no exception may vanish.
"""

from __future__ import annotations

import inspect
import logging
import math
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sleeploop
from sleeploop import CancelledError, DeadlockError
from tests import reference
from tests.test_model import without_places

Choose = Callable[[Sequence[Any]], Any]


# ---- programs ----------------------------------------------------------------------------------

# Few values, so that many things fall into the same moment.
DELAYS = (0, 1, 2, 0.5, 1, 3, 5)
LIMITS = (1, 2, 3, 0.5, 0, 5, -1)
REASONS = (None, "why", 42)
CAUGHT = (Exception, CancelledError, BaseExceptionGroup)


class Op:
    """One operation of a task. What perform() returns or raises goes into the log."""

    @classmethod
    def any(cls, choose: Choose, depth: int) -> Op:
        return cls()

    async def perform(self, play: Play, where: str) -> Any:
        raise NotImplementedError


Ops = tuple[Op, ...]


class Doom(BaseException):
    """No Exception, and no cancellation."""


# ---- waiting


@dataclass(frozen=True)
class Sleep(Op):
    delay: float

    @classmethod
    def any(cls, choose: Choose, depth: int) -> Op:
        return cls(choose(DELAYS))

    async def perform(self, play: Play, where: str) -> Any:
        return await play.api.sleep(self.delay)


class SleepForever(Op):
    async def perform(self, play: Play, where: str) -> Any:
        return await play.api.sleep_forever()


class Checkpoint(Op):
    async def perform(self, play: Play, where: str) -> Any:
        return await play.api.checkpoint()


@dataclass(frozen=True)
class Join(Op):
    """Any other task that has a handle by now: done or not, joined before or not."""

    index: int

    @classmethod
    def any(cls, choose: Choose, depth: int) -> Op:
        return cls(choose(range(6)))

    async def perform(self, play: Play, where: str) -> Any:
        task = play.pick_task(self.index)
        return await task if task is not None else None


class Ask(Join):
    async def perform(self, play: Play, where: str) -> Any:
        task = play.pick_task(self.index)
        return play.ask(task) if task is not None else None


# ---- cancelling


@dataclass(frozen=True)
class OnScope(Op):
    """Something that is done to a scope, a group's or one of its own, from wherever."""

    whose: str
    index: int
    value: Any

    @classmethod
    def any(cls, choose: Choose, depth: int) -> Op:
        return cls(choose(("mine", "open", "open", "all")), choose(range(6)), cls.any_value(choose))

    @classmethod
    def any_value(cls, choose: Choose) -> Any:
        return None

    async def perform(self, play: Play, where: str) -> Any:
        found = play.pick_scope(self.whose, self.index)
        return found and (found[0], self.act(play, found[1]))

    def act(self, play: Play, scope: Any) -> Any:
        raise NotImplementedError


class Cancel(OnScope):
    @classmethod
    def any_value(cls, choose: Choose) -> Any:
        return choose(REASONS)

    def act(self, play: Play, scope: Any) -> Any:
        return scope.cancel(self.value)


class SetDeadline(OnScope):
    """Never to none behind a shield: a run that waits there for ever has no rules."""

    @classmethod
    def any_value(cls, choose: Choose) -> Any:
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
    def any_value(cls, choose: Choose) -> Any:
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
    def any(cls, choose: Choose, depth: int) -> Op:
        return cls(choose((None, *range(6))), choose(REASONS))

    async def perform(self, play: Play, where: str) -> Any:
        task = play.api.current_task() if self.index is None else play.pick_task(self.index)
        return task and (task.name, task.cancel(self.reason))


@dataclass(frozen=True)
class Raise(Op):
    type: type[BaseException]

    @classmethod
    def any(cls, choose: Choose, depth: int) -> Op:
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
    def any(cls, choose: Choose, depth: int) -> Op:
        return cls(any_ops(choose, depth - 1), choose((False, True)), choose((True, True, False)))

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
    def any(cls, choose: Choose, depth: int) -> Op:
        return cls(choose((0, 0, 1, 2)), any_ops(choose, depth - 1), choose((True, True, False)))

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
    def any(cls, choose: Choose, depth: int) -> Op:
        return cls(
            choose((0, 0, 1, 2)),
            any_ops(choose, depth - 1),
            choose((1, 1, 1, 1, 0, 2)),
            any_ops(choose, depth - 1),
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
    def any(cls, choose: Choose, depth: int) -> Op:
        return cls(choose(range(3)))

    async def perform(self, play: Play, where: str) -> Any:
        return play.started and play.started[-1 - self.index % len(play.started)](where)


# ---- blocks


@dataclass(frozen=True)
class Finally(Op):
    ops: Ops
    cleanup: Ops

    @classmethod
    def any(cls, choose: Choose, depth: int) -> Op:
        return cls(any_ops(choose, depth - 1), any_ops(choose, depth - 1))

    async def perform(self, play: Play, where: str) -> Any:
        try:
            await play.perform(self.ops, f"{where} try")
        except BaseException as exc:
            try:
                await play.perform(self.cleanup, f"{where} finally")
            except BaseException:
                play.see(exc)  # Python itself lets it go
                raise
            raise
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
        except CAUGHT as exc:
            play.see(exc)
            return f"swallowed {type(exc).__name__}"


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
    def any(cls, choose: Choose, depth: int) -> Op:
        shield = choose((False, False, True))
        return cls(
            choose(
                ("CancelScope", "move_on_after", "move_on_at", "timeout", "timeout", "timeout_at")
            ),
            choose(LIMITS if shield else (*LIMITS, None, math.inf, None)),
            shield,
            (Cancel("all", 0, "early"),) if choose(9 * (False,) + (True,)) else (),
            any_ops(choose, depth - 1),
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
    def any(cls, choose: Choose, depth: int) -> Op:
        return cls(any_ops(choose, depth - 1))

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


def any_ops(choose: Choose, depth: int) -> Ops:
    ops: list[Op] = []
    while len(ops) < 6 and choose((False,) + 3 * (True,)):
        is_node = depth > 0 and choose((False, True))
        ops.append(choose(NODES if is_node else LEAVES).any(choose, depth))
    if choose((False, False, False, True)):
        ops.append(choose(ENDS).any(choose, depth))
    return tuple(ops)


@dataclass(frozen=True)
class Program:
    roots: tuple[Ops, ...]
    main_only: bool  # run(main) instead of SleepingLoop(*roots)


def any_program(choose: Choose) -> Program:
    """One source of programs for two sources of choices: Hypothesis, and a seeded Random."""
    main_only = choose((True, False))
    n = 1 if main_only else choose((1, 2, 3))
    return Program(tuple((Group.any(choose, 4), *any_ops(choose, 3)) for _ in range(n)), main_only)


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
        self.scopes: list[tuple[str, Any]] = []  # all, also those of groups
        self.open: list[tuple[str, Any]] = []
        self.stacks: dict[str, list[tuple[str, Any]]] = {}  # the open ones of each task
        self.groups: list[tuple[str, Any]] = []
        self.started: list[Any] = []
        self.coros: list[Any] = []
        self.members: dict[str, list[Any]] = {}
        self.raised: list[BaseException] = []
        self.seen: list[BaseException] = []
        self.loop: Any = None

    def now(self) -> float:
        return self.loop.time_ns() / 1e9

    # ---- what there is -------------------------------------------------------------------------

    def pick_task(self, index: int) -> Any:
        """Not this one; the latest first."""
        others = [task for task in self.handles if task is not self.api.current_task()]
        return others[-1 - index % len(others)] if others else None

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
        """To be a task's, perhaps a group's, which it must not outlive."""
        self.coros.append(coro)
        if group is not None:
            self.members.setdefault(group, []).append(coro)
        return coro

    # ---- what happens --------------------------------------------------------------------------

    async def act(self, ops: Ops, where: str, *, publish: bool = False) -> str:
        """What a task does."""
        self.loop = self.api.current_loop()
        if publish:
            self.handles.append(self.api.current_task())
        self.note(where, "starts")
        await self.perform(ops, where)
        return where

    async def perform(self, ops: Ops, where: str) -> None:
        for number, op in enumerate(ops):
            here = f"{where}.{number}"
            try:
                result = await op.perform(self, here)
            except BaseException as exc:
                if self.is_cancelled():
                    # One raised by hand counts as that cancellation, also inside of a group.
                    self.seen += [part for part in parts(exc) if isinstance(part, CancelledError)]
                self.note(here, f"{type(op).__name__} raises {shape(exc)}")
                raise
            self.note(here, f"{type(op).__name__} -> {result!r}")

    def new_error(self, type: type[BaseException]) -> BaseException:
        exc = type(f"error {len(self.raised)}")
        self.raised.append(exc)
        return exc

    def is_cancelled(self) -> bool:
        return self.api.current_effective_deadline() == -math.inf

    def see(self, exc: BaseException) -> None:
        self.seen += parts(exc)

    def note(self, where: str, what: str) -> None:
        self.log.append((self.loop.time_ns(), self.api.current_task().name, where, what))

    def ask(self, task: Any) -> str:
        if not task.done() or task.cancelled():
            return f"done {task.done()}, cancelled {task.cancelled()}, wakes at {task.wake_time}"
        exc = task.exception()
        if exc is not None:
            self.see(exc)
        return shape(exc) if exc is not None else f"returned {task.result()!r}"

    def emit(self, record: logging.LogRecord) -> None:
        assert record.exc_info
        exc = record.exc_info[1]
        assert exc is not None
        self.see(exc)
        self.log.append(("logged", record.getMessage(), shape(exc)))

    def run(self, program: Program) -> list[tuple[object, ...]]:
        logger = logging.getLogger("sleeploop")
        logger.addHandler(self)
        logger.propagate = False
        try:
            self.log.append(("outcome", repr(self.outcome(program))))
        except (*CAUGHT, SystemExit, Doom) as exc:
            self.see(exc)
            self.log.append(("raised", shape(exc)))
        finally:
            logger.removeHandler(self)
            logger.propagate = True
        self.check()
        stats = self.loop.stats()
        self.log.append(("in all", self.loop.time_ns(), stats.wakeups, stats.steps))
        self.log += [("handle", task.name, self.ask(task)) for task in self.handles]
        self.log += [("scope", where, look(scope)) for where, scope in self.scopes]
        return self.log

    def outcome(self, program: Program) -> Any:
        roots = [
            self.coroutine(self.act(ops, str(n), publish=True))
            for n, ops in enumerate(program.roots)
        ]
        if program.main_only:
            return self.api.run(*roots, speed=math.inf, shuffle=self.shuffle)
        loop = self.api.SleepingLoop(*roots, speed=math.inf, shuffle=self.shuffle)
        return loop.run_until_complete()

    def check(self) -> None:
        """What has to be true, whatever the program."""
        assert self.loop.tasks() == []
        assert all(task.done() for task in self.handles)
        assert all(inspect.getcoroutinestate(coro) == "CORO_CLOSED" for coro in self.coros)
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


def shape(exc: BaseException | None) -> str:
    """An exception, with those that it groups and its cause."""
    if exc is None:
        return "none"
    message = without_places(exc) if isinstance(exc, DeadlockError) else exc
    text = f"{type(exc).__name__}: {message}"
    if isinstance(exc, CancelledError):
        text += f" {exc.source} {exc.source_task} {exc.where} {exc.reason!r}"
    if isinstance(exc, BaseExceptionGroup):
        text += f" {[shape(part) for part in exc.exceptions]}"
    return f"{text} <- {shape(exc.__cause__)}" if exc.__cause__ is not None else text


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


def seeded_logs(seeds: Iterable[int]) -> list[object]:
    return [play(sleeploop, any_program(random.Random(seed).choice)) for seed in seeds]
