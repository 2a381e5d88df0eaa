"""The harness of the random programs: each is played by the real thing and by its twin in Python.

Seeds make them, the same ones each time; a failure tells its seed. Each test plays 20 of them, or
as many times 20 as it says; with `make nightly` ten times as many. SLEEPLOOP_SEEDS=first:last takes
others.
"""

from __future__ import annotations

import inspect
import itertools
import logging
import math
import os
import random
import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings

import sleeploop
from sleeploop import (
    CancelledError,
    CancelScope,
    DeadlockError,
    TaskGroup,
    checkpoint,
    create_task,
    move_on_after,
    sleep,
)
from tests.helpers import Doom, now, yielding

T = TypeVar("T")

# ---- many of them --------------------------------------------------------------------------------

FIRST, LAST = map(int, os.environ.get("SLEEPLOOP_SEEDS", "0:20").split(":"))


def each_seed(check: Callable[[int], T], times: int = 1) -> list[T]:
    """What it returns for each of the seeds."""
    return list(checked(check, range(FIRST * times, LAST * times)))


def checked(check: Callable[[int], T], seeds: Iterable[int]) -> Iterator[T]:
    for seed in seeds:
        try:
            yield check(seed)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise


def come_by(
    kinds: Callable[[int], Iterable[Hashable]],
    wanted: Iterable[Hashable],
    most: int = 400,
    *,
    times: int = 1,
) -> None:
    """The programs come by all that they are there for, so many times, or they prove nothing."""
    missing = Counter(dict.fromkeys(wanted, times))
    for seen in checked(kinds, range(most)):
        missing -= Counter(seen)  # which keeps what is above 0
        if not missing:
            return
    raise AssertionError(f"{most} programs do not come by these: {missing}")


def examples(times: int = 1) -> settings:
    """As many of Hypothesis: for what it can make simpler when it fails."""
    return settings(
        max_examples=(LAST - FIRST) * times,
        deadline=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow],
    )


def assert_same(ours: Sequence[Any], theirs: Sequence[Any], *told: object) -> None:
    """Entry by entry: of a difference, what came before it, and what else there is to tell."""
    for n, (mine, other) in enumerate(itertools.zip_longest(ours, theirs, fillvalue="no more")):
        if mine != other:
            before = "".join(f"\n    {entry}" for entry in ours[max(0, n - 5) : n])
            raise AssertionError(f"{before}\nreally {mine}\ntwin   {other}\nof {told}")


# ---- trees of operations, on the loop and on tests/reference.py ----------------------------------

CAUGHT = (Exception, CancelledError, BaseExceptionGroup)
Ops = tuple["Op", ...]


class Maker:
    """Makes programs, of a source of choices: Hypothesis, or a seeded Random."""

    def __init__(self, choose: Callable[[Sequence[Any]], Any]) -> None:
        self.choose = choose

    def __call__(self, options: Sequence[Any]) -> Any:
        return self.choose(options)

    def ops(self, depth: int) -> Ops:
        raise NotImplementedError


class Op:
    """One operation of a task. What perform() returns or raises goes into the log."""

    @classmethod
    def any(cls, choose: Maker, depth: int) -> Op:
        return cls()

    async def perform(self, play: Any, where: str) -> Any:
        raise NotImplementedError


@dataclass(frozen=True)
class SleepForever(Op):
    async def perform(self, play: Any, where: str) -> Any:
        return await play.api.sleep_forever()


@dataclass(frozen=True)
class Checkpoint(Op):
    async def perform(self, play: Any, where: str) -> Any:
        return await play.api.checkpoint()


@dataclass(frozen=True)
class Join(Op):
    """Any other task that has a handle by now: done or not, joined before or not."""

    index: int

    @classmethod
    def any(cls, choose: Maker, depth: int) -> Op:
        return cls(choose(range(8)))

    async def perform(self, play: Any, where: str) -> Any:
        task = play.pick_task(self.index)
        return await task if task is not None else None


class Ask(Join):
    async def perform(self, play: Any, where: str) -> Any:
        task = play.pick_task(self.index)
        return play.ask(task) if task is not None else None


@dataclass(frozen=True)
class Return(Op):
    value: int

    @classmethod
    def any(cls, choose: Maker, depth: int) -> Op:
        return cls(choose(range(3)))

    async def perform(self, play: Any, where: str) -> Any:
        return self


@dataclass(frozen=True)
class Finally(Op):
    ops: Ops
    cleanup: Ops

    @classmethod
    def any(cls, choose: Maker, depth: int) -> Op:
        return cls(choose.ops(depth - 1), choose.ops(depth - 1))

    async def perform(self, play: Any, where: str) -> Any:
        try:
            result = await play.perform(self.ops, f"{where} try")
        except BaseException as exc:
            try:
                await play.perform(self.cleanup, f"{where} finally")
            except BaseException:
                play.see(exc)  # Python itself lets it go
                raise
            raise
        await play.perform(self.cleanup, f"{where} finally")
        return result


@dataclass(frozen=True)
class Swallow(Op):
    """Even a cancellation, which then has to come again."""

    ops: Ops

    @classmethod
    def any(cls, choose: Maker, depth: int) -> Op:
        return cls(choose.ops(depth - 1))

    async def perform(self, play: Any, where: str) -> Any:
        try:
            return await play.perform(self.ops, f"{where} try")
        except CAUGHT as exc:
            play.see(exc)
            return f"swallowed {type(exc).__name__}"


@dataclass(frozen=True)
class Program:
    roots: tuple[Ops, ...]
    early: tuple[Any, ...]  # by create_task() before the run
    main_only: bool  # run(main) instead of SleepingLoop(*roots)


class Play(logging.Handler):
    """One run of a program on one implementation, and the log of all that could be seen of it."""

    def __init__(self, api: Any, shuffle: Any = None) -> None:
        super().__init__()
        self.api, self.shuffle = api, shuffle
        self.log: list[tuple[object, ...]] = []
        self.handles: list[Any] = []
        self.coros: list[Any] = []
        self.loop: Any = None

    def run(self, program: Program) -> list[tuple[object, ...]]:
        logger = logging.getLogger("sleeploop")
        logger.addHandler(self)
        logger.propagate = False
        try:
            self.log.append(("outcome", repr(self.outcome(program))))
        except (*CAUGHT, SystemExit, Doom) as exc:
            self.see(exc)
            self.log.append(("raised", self.shape(exc)))
        finally:
            logger.removeHandler(self)
            logger.propagate = True
        assert all(inspect.getcoroutinestate(coro) == "CORO_CLOSED" for coro in self.coros)
        self.log += [("handle", task.name, self.ask(task)) for task in self.handles]
        return self.log

    def outcome(self, program: Program) -> Any:
        roots = [
            self.coroutine(self.act(ops, str(n), publish=True))
            for n, ops in enumerate(program.roots)
        ]
        if program.main_only:
            return self.api.run(*roots, speed=math.inf, shuffle=self.shuffle)
        loop = self.make_loop(roots, program)
        for number, spawn in enumerate(program.early):
            spawn.start(self, loop.create_task, f"early {number}")
        return self.complete(loop), loop.time_ns(), loop.tasks(), loop.stats().wakeups

    def make_loop(self, roots: list[Any], program: Program) -> Any:
        return self.api.SleepingLoop(*roots, speed=math.inf, shuffle=self.shuffle)

    def complete(self, loop: Any) -> Any:
        return loop.run_until_complete()

    # What happens.

    def coroutine(self, coro: Any) -> Any:
        """To be a task's, which the run must not leave behind."""
        self.coros.append(coro)
        return coro

    async def act(self, ops: Ops, where: str, *, publish: bool = False) -> Any:
        """What a task does."""
        self.loop = self.api.current_loop()
        if publish:
            self.handles.append(self.api.current_task())
        self.note(where, "starts")
        result = await self.perform(ops, where)
        return result.value if isinstance(result, Return) else where

    async def perform(self, ops: Ops, where: str) -> Return | None:
        for number, op in enumerate(ops):
            here = f"{where}.{number}"
            try:
                result = await op.perform(self, here)
            except BaseException as exc:
                self.see_raised(exc)
                self.note(here, f"{type(op).__name__} raises {self.shape(exc)}")
                raise
            self.note(here, f"{type(op).__name__} -> {result!r}")
            if isinstance(result, Return):
                return result
        return None

    def pick_task(self, index: int) -> Any:
        """Not this one; the latest first."""
        others = [task for task in self.handles if task is not self.api.current_task()]
        return others[-1 - index % len(others)] if others else None

    # What is seen of it.

    def note(self, where: str, what: str) -> None:
        now = self.api.current_loop().time_ns()
        self.log.append((now, self.api.current_task().name, where, what))

    def see(self, exc: BaseException) -> None:
        """Somebody has got it."""

    def see_raised(self, exc: BaseException) -> None:
        """It goes through an operation."""

    def ask(self, task: Any) -> str:
        if not task.done() or task.cancelled():
            return f"done {task.done()}, cancelled {task.cancelled()}, wakes at {task.wake_time}"
        exc = task.exception()
        if exc is None:
            return f"returned {task.result()!r}"
        self.see(exc)
        return self.shape(exc)

    def emit(self, record: logging.LogRecord) -> None:
        assert record.exc_info
        exc = record.exc_info[1]
        assert exc is not None
        self.see(exc)
        self.log.append(("logged", record.getMessage(), self.shape(exc)))

    def shape(self, exc: BaseException) -> str:
        """An exception, with those that it groups."""
        parts = [self.shape(p) for p in exc.exceptions] if is_group(exc) else ""
        message = without_places(exc) if isinstance(exc, DeadlockError) else exc
        return f"{type(exc).__name__}: {message} {parts}".rstrip()


def is_group(exc: BaseException) -> bool:
    return isinstance(exc, BaseExceptionGroup)


def without_places(report: DeadlockError) -> str:
    """Without the lines of code at which the tasks are, and the circles, which test_deadlocks.py
    compares with rules of their own."""
    return re.sub(r", at .*|\n  (in a circle|for ever|\.\.\. and \d+ more such).*", "", str(report))


# ---- scripts that workers follow at one thing, and then at its twin ------------------------------


class Workers:
    """What happens to whom, and when, in that order."""

    def __init__(self, thing: Any, scripts: list[list[tuple[Any, ...]]]) -> None:
        self.thing, self.scripts = thing, scripts
        self.events: list[tuple[Any, ...]] = []
        self.scopes = [CancelScope() for _ in scripts]  # around what each worker is doing

    def state(self) -> tuple[Any, ...]:
        """What the thing says of itself, compared after each action."""
        raise NotImplementedError

    async def act(self, who: int, action: str, *args: Any) -> None:
        """All other actions."""
        raise NotImplementedError

    def note(self, who: int, *what: Any) -> None:
        self.events.append((now(), who, *what, *self.state()))

    def cancel(self, who: int) -> None:
        if who < len(self.scopes):
            self.scopes[who].cancel()

    async def one(self, who: int, action: str, *args: Any) -> None:
        if action == "sleep":
            await sleep(args[0])
        elif action == "step aside":
            await checkpoint()
        elif action == "block":
            with move_on_after(args[0]):
                async with self.thing:
                    self.note(who, "in")
                    await sleep(args[1])
                    self.note(who, "out")
        elif action == "acquire":
            with move_on_after(args[0]):
                self.note(who, "has", await self.thing.acquire())
        else:
            await self.act(who, action, *args)

    async def follow(self, who: int, script: list[tuple[Any, ...]]) -> None:
        for action in script:
            with self.scopes[who]:
                try:
                    await self.one(who, *action)
                except CancelledError:
                    self.note(who, "cancelled")
                    raise
                except (RuntimeError, ValueError, sleeploop.WouldBlock) as error:
                    self.note(who, type(error).__name__)
            self.scopes[who] = CancelScope()
            self.note(who, "did", action)

    async def play(self) -> list[tuple[Any, ...]]:
        with move_on_after(100):
            async with TaskGroup() as group:
                for who, script in enumerate(self.scripts):
                    group.create_task(self.follow(who, script), name=f"worker {who}")
        self.note(-1, "end")
        return self.events


async def look_at_cancellation() -> None:
    """An await that need not wait: it raises in a cancelled scope, and does nothing else."""
    event = sleeploop.Event()
    event.set()
    await event.wait()


async def neglect(wait: Any) -> bool:
    """Wait, and never look what has come of it: whether it came at once."""
    try:
        wait.send(None)
    except StopIteration:
        return True
    await yielding(wait)
    return False


# ---- tasks that do random things to one thing, and the same to its twin --------------------------


class Visitors:
    """`thing` and `twin` are made by whoever is derived from it."""

    thing: Any
    twin: Any  # with .getters, .putters, .granted

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.names = itertools.count()
        self.scopes: dict[int, CancelScope] = {}
        # Who had to wait and was let go, what for, and when, in that order.
        self.log: list[tuple[Any, ...]] = []
        self.expected: list[tuple[Any, ...]] = []

    async def wait(self) -> None:
        """One waiting call, which somebody may cancel."""
        raise NotImplementedError

    def act(self) -> None:
        """Something that needs no waiting."""
        raise NotImplementedError

    def leave(self, name: int) -> None:
        """The twin's part of a cancellation."""
        raise NotImplementedError

    def compare(self) -> None:
        """Between two steps nothing may differ; whoever was let go runs in that order."""
        waiting = len(self.twin.getters) + len(self.twin.putters)
        assert repr(self.thing).endswith(f", {waiting} waiting>" if waiting else ")>")
        self.expected += [(*grant, now()) for grant in self.twin.granted]
        self.twin.granted.clear()

    def cancel_one(self) -> None:
        if self.scopes:
            name = self.rng.choice(sorted(self.scopes))
            self.leave(name)
            self.scopes[name].cancel()

    async def visit(self) -> None:
        for _ in range(self.rng.randrange(1, 8)):
            action = self.rng.random()
            if action < 0.5:
                await self.wait()
            elif action < 0.85:
                self.act()
                self.compare()
            else:
                await self.rng.choice([checkpoint, lambda: sleep(self.rng.randrange(3))])()

    async def main(self) -> None:
        async with TaskGroup() as group:
            for _ in range(self.rng.randrange(2, 12)):
                group.create_task(self.visit())
            create_task(self.end(), daemon=True)
        self.compare()

    async def end(self) -> None:
        """Who waits for ever is cancelled, one by one."""
        await sleep(100)
        while self.scopes:
            self.cancel_one()
            self.compare()
            await sleep(10)
