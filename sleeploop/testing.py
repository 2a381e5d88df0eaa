"""For the tests of programs that sleep: does it work in every order?

>>> import sleeploop
>>> from sleeploop.testing import explore
>>> async def main():
...     async with sleeploop.TaskGroup() as group:
...         group.create_task(sleeploop.sleep(1))
...         group.create_task(sleeploop.sleep(1))
>>> explore(main, runs=10).runs
10
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import math
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Coroutine, Iterator
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from _sleeploop import SleepingLoop, _is_running, _run_main

from sleeploop import _steps
from sleeploop._shrink import Choices, Shrinker, deviations

__all__ = ["Exploration", "explore"]

_Shuffle = int | Choices
_STOPS = (KeyboardInterrupt, SystemExit)  # the exploration, at once
_LIBRARIES = (os.path.dirname(__file__) + os.sep, os.path.dirname(os.__file__) + os.sep)
_LONGEST = 100  # choices in a note


class Exploration(NamedTuple):
    """What explore() returns when no run has failed.

    runs: how many there were. schedules: how many different orders were among them.

    >>> from sleeploop.testing import Exploration
    >>> Exploration(runs=200, schedules=17).schedules
    17
    """

    runs: int
    schedules: int


def explore(
    main: Callable[[], Coroutine[Any, Any, object]],
    *,
    runs: int = 200,
    first: int = 1,
    shrink: int = 500,
    start: datetime | None = None,
    debug: bool | None = None,
    seed: int = 0,
    strict: float | timedelta | None = None,
) -> Exploration:
    """Run a program in many orders of its tasks, in virtual time, and look for one that fails.

    main: a function that returns a new coroutine each time, such as an async function without
    arguments. The first run is first in, first out; the others draw at random which of the ready
    tasks goes next, with shuffle=first, first + 1 and so on. start, debug, seed and strict are
    those of SleepingLoop(), for all runs.

    When a run raises, up to `shrink` further ones look for the order that fails in the same way
    and deviates least from first in, first out. Its exception is raised, with a note that tells
    how to run it again and what happens in it, step by step. KeyboardInterrupt and SystemExit
    are raised at once.

    Returns an Exploration if no run fails. Raises TypeError and ValueError for wrong arguments,
    and RuntimeError while a loop is running in this thread, before anything runs.

    >>> import sleeploop
    >>> from sleeploop.testing import explore
    >>> async def main():
    ...     async def keep(n):
    ...         nonlocal latest
    ...         await sleeploop.sleep(1)
    ...         latest = n
    ...     latest = 0
    ...     async with sleeploop.TaskGroup() as group:
    ...         group.create_task(keep(1))
    ...         group.create_task(keep(2))
    ...     assert latest == 2
    >>> try:
    ...     explore(main)
    ... except AssertionError as error:
    ...     print(error.__notes__[0].splitlines()[2])
    run it again: sleeploop.run(main(), speed=math.inf, shuffle=(1,))
    """
    __tracebackhide__ = True  # from pytest: it is the program that is of interest
    _check_int("runs", runs, least=1)
    _check_int("first", first)
    _check_int("shrink", shrink, least=0)
    program = _Program(main, {"start": start, "debug": debug, "seed": seed, "strict": strict})
    schedules: set[int] = set()
    error = None
    with _Progress() as progress:
        for number in range(runs):
            progress.show(f"run {number + 1:,} of {runs:,}")
            shuffle: _Shuffle = first + number - 1 if number else ()
            run = program.run(shuffle)
            if run.error is not None:
                how = f"with shuffle={shuffle}" if number else "first in, first out"
                what = f"run {number + 1:,} of {runs:,} failed, {how}"
                error = _examine(program, run, shuffle, what, shrink, progress)
                break
            schedules.add(hash(run.schedule))
    if error is None:
        return Exploration(runs, len(schedules))
    try:
        raise error
    finally:
        del error, run  # its traceback leads here


def _check_int(name: str, value: object, least: int | None = None) -> None:
    if not isinstance(value, int):
        raise TypeError(f"explore(): {name} must be an int, not {value!r:.200}")
    if least is not None and value < least:
        raise ValueError(f"explore(): {name} must be at least {least}, not {value}")


# ---- runs ----------------------------------------------------------------------------------------


class _Run(NamedTuple):
    """What came of one."""

    schedule: Choices
    error: BaseException | None
    steps: list[str]


class _Program:
    """What is explored."""

    def __init__(self, main: Callable[[], Any], options: dict[str, Any]) -> None:
        if not callable(main):
            if inspect.iscoroutine(main) and inspect.getcoroutinestate(main) == "CORO_CREATED":
                main.close()  # it would warn that nobody has awaited it
            raise TypeError(
                "explore() takes a function that returns a new coroutine each time, not "
                f"{main!r:.200}; pass an async function itself, f instead of f()"
            )
        if _is_running():
            raise RuntimeError(
                "explore() cannot be called while a loop is running in this thread, as it runs "
                "loops of its own; call it from a function that is not async"
            )
        SleepingLoop(speed=math.inf, **options)  # raises what there is to raise
        self.main = main
        self.options = options

    def run(self, shuffle: _Shuffle, trace: bool = False) -> _Run:
        """As sleeploop.run() does it."""
        __tracebackhide__ = True
        loop = self._loop(shuffle, trace)
        try:
            _run_main(loop)
        except _STOPS:
            raise
        except BaseException as error:
            return _Run(loop.schedule, error, _steps.lines(loop) if trace else [])
        else:
            return _Run(loop.schedule, None, [])
        finally:
            del loop  # an error's traceback leads here

    def _loop(self, shuffle: _Shuffle, trace: bool) -> SleepingLoop:
        coro = self.main()
        try:
            return SleepingLoop(coro, speed=math.inf, shuffle=shuffle, trace=trace, **self.options)
        except (TypeError, RuntimeError) as error:
            if inspect.iscoroutine(coro):
                coro.close()
            kind = TypeError if isinstance(error, TypeError) else RuntimeError
            message = f"explore(): {self.name()}() must return a new coroutine each time"
            raise kind(f"{message}: {error}") from None

    def name(self) -> str:
        name = getattr(self.main, "__name__", "")
        return name if isinstance(name, str) and name.isidentifier() else "main"

    def call(self, shuffle: _Shuffle) -> str:
        """How to run it in that order."""
        given = {"shuffle": shuffle} if shuffle != () else {}
        given |= {name: value for name, value in self.options.items() if value is not None}
        if given.get("seed") == 0:
            del given["seed"]
        more = "".join(f", {name}={value!r}" for name, value in given.items())
        return f"sleeploop.run({self.name()}(), speed=math.inf{more})"


# ---- failures ------------------------------------------------------------------------------------


class _Kind(NamedTuple):
    """In which way a run fails."""

    whole: type[BaseException]
    parts: frozenset[tuple[type[BaseException], str, int]]

    @classmethod
    def of(cls, error: BaseException) -> _Kind:
        pending, parts = [error], set()
        while pending:
            part = pending.pop()
            if isinstance(part, BaseExceptionGroup):
                pending += part.exceptions
            else:
                parts.add((type(part), *_place(part)))
        return cls(type(error), frozenset(parts))

    def includes(self, error: BaseException | None) -> bool:
        """Whether it is the same; of a group, some of its parts will do."""
        if error is None:
            return False
        kind = _Kind.of(error)
        return kind.whole is self.whole and kind.parts <= self.parts


def _place(error: BaseException) -> tuple[str, int]:
    """The innermost line that an exception comes from, of the program rather than a library."""
    places = [
        (frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)
    ]
    own = [place for place in places if not place[0].startswith(_LIBRARIES)]
    return (own or places or [("", 0)])[-1]


def _examine(
    program: _Program, run: _Run, shuffle: _Shuffle, what: str, budget: int, progress: _Progress
) -> BaseException:
    """The exception to raise for a run that has failed, with a note of all that can be told."""
    assert run.error is not None
    kind = _Kind.of(run.error)

    def again(choices: Choices) -> Choices | None:
        progress.show(
            f"{what}; {shrinker.attempts:,} of {budget:,} runs that look for a simpler order, "
            f"{len(deviations(shrinker.best)):,} deviations left"
        )
        other = program.run(choices)
        return other.schedule if kind.includes(other.error) else None

    shrinker = Shrinker(run.schedule, again, budget)
    try:
        with _no_logging():
            repeats = again(run.schedule) is not None
            if repeats:
                shrinker.run()
        last = program.run(shrinker.best, trace=True)
    except _STOPS as stop:
        _note(stop, [f"explore(): {what}; stopped while it looked for a simpler order"])
        raise
    if repeats and kind.includes(last.error) and (shrinker.best or shuffle == ()):
        assert last.error is not None
        _note(last.error, _report(program, what, shuffle, shrinker, last.steps))
        return last.error
    _note(run.error, [f"explore(): {what}, but not always when it was run again", *_OTHER_CAUSES])
    return run.error


_OTHER_CAUSES = (
    "So it depends on something else than the order of its tasks. Perhaps on what earlier runs",
    "have left in variables or files, the system's clock, random numbers other than those of",
    "loop.random(), the order of a set, or a thread.",
)


def _report(
    program: _Program, what: str, shuffle: _Shuffle, shrinker: Shrinker, steps: list[str]
) -> list[str]:
    n = len(deviations(shrinker.best))
    simplest = "no other order is needed for that"
    if n:
        simplest = (
            f"the simplest order found that fails like that: {n:,} deviation{'s' * (n > 1)} from "
            f"first in, first out (after {shrinker.attempts:,} further runs)"
        )
    replay = shrinker.best if len(shrinker.best) <= _LONGEST else shuffle
    lines = [f"explore(): {what}", simplest, f"run it again: {program.call(replay)}"]
    if steps:
        lines += [
            "its steps, with -> where it was not the turn of the first task that was ready:",
            *steps,
        ]
    return lines


def _note(error: BaseException, lines: list[str]) -> None:
    """Whatever the exception's class makes of it."""
    with contextlib.suppress(Exception):
        BaseException.add_note(error, "\n".join(lines))


@contextlib.contextmanager
def _no_logging() -> Iterator[None]:
    """One report of a failure that nobody has seen will do, instead of one for each run."""
    logger, thread = logging.getLogger("sleeploop"), threading.get_ident()

    def is_of_another_thread(record: logging.LogRecord) -> bool:
        return record.thread != thread

    logger.addFilter(is_of_another_thread)
    try:
        yield
    finally:
        logger.removeFilter(is_of_another_thread)


class _Progress:
    """A line on the terminal, for what takes longer than a second."""

    def __init__(self) -> None:
        self.file = sys.stderr if sys.stderr is not None and sys.stderr.isatty() else None
        self.next = time.monotonic() + 1
        self.shown = False

    def show(self, text: str) -> None:
        if self.file is not None and time.monotonic() >= self.next:
            self._write(f"explore(): {text}")
            self.next = time.monotonic() + 0.1
            self.shown = True

    def _write(self, text: str) -> None:
        assert self.file is not None
        self.file.write(f"\r\x1b[K{text}")
        self.file.flush()

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self.shown:
            self._write("")
