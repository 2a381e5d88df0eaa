"""`explore()` in wrong hands, interrupted, and on programs that are not repeatable."""

from __future__ import annotations

import asyncio
import gc
import io
import logging
import math
import re
import sys
import weakref
from typing import Any

import pytest
from _sleeploop import _run_main

import sleeploop
from sleeploop import sleep
from sleeploop.testing import explore
from tests.helpers import fail, virtual, yielding
from tests.test_explore import NoRace, Race, failure, note_of, schedule_of

# ---- programs that depend on something else ------------------------------------------------------


def test_what_fails_once_only() -> None:
    runs = []

    async def main() -> None:
        runs.append(1)
        if len(runs) == 5:
            raise ValueError

    error = failure(main, ValueError)
    assert note_of(error)[0] == (
        "explore(): run 5 of 200 failed, with shuffle=4, but not always when it was run again"
    )
    assert "depends on something else than the order of its tasks" in note_of(error)[1]
    assert len(runs) == 7


def test_what_fails_from_then_on() -> None:
    """So does first in, first out, which has not failed before."""
    runs = []

    async def main() -> None:
        runs.append(1)
        if len(runs) >= 5:
            raise ValueError
        await Race(2).say(1)

    assert "something else" in note_of(failure(main, ValueError))[1]


def test_what_fails_in_another_way_each_time() -> None:
    kinds = iter([ValueError, KeyError, IndexError])

    async def main() -> None:
        raise next(kinds)

    assert "something else" in note_of(failure(main, ValueError))[1]


def test_what_does_not_fail_in_the_end() -> None:
    race = Race(2)

    async def main() -> None:
        if race.runs < 15:
            await race.main()

    race.runs = 0
    counted = failure(main)
    total = race.runs
    assert schedule_of(counted) == (1,)

    async def ends_early() -> None:
        if race.runs < total - 1:
            await race.main()

    race.runs = 0
    assert "something else" in note_of(failure(ends_early))[1]


# ---- stops ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_a_stop_while_it_looks_for_a_failure(kind: type[BaseException]) -> None:
    race = NoRace()
    race.check = lambda: None if race.runs < 7 else raising(kind)  # type: ignore[method-assign]
    error = failure(race.main, kind)
    assert race.runs == 7
    assert not hasattr(error, "__notes__")


def raising(kind: type[BaseException]) -> Any:
    raise kind


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_a_stop_while_it_looks_for_a_simpler_one(kind: type[BaseException]) -> None:
    async def main() -> None:
        await race.main()
        failed.append(1)

    def check() -> None:
        failed.append(race.said != [0, 1, 2, 3])
        if sum(failed) == 4:
            raise kind
        assert not failed[-1]

    race, failed = Race(4, 10), []
    race.check = check  # type: ignore[method-assign]
    failed_first = failure(race.main, kind)
    (note,) = failed_first.__notes__
    assert re.fullmatch(
        r"explore\(\): run \d+ of 200 failed, with shuffle=\d+; "
        r"stopped while it looked for a simpler order",
        note,
    )


# ---- misuse --------------------------------------------------------------------------------------


def test_a_coroutine_instead_of_a_function() -> None:
    """And no warning that it was never awaited."""
    with pytest.raises(TypeError, match=r"pass an async function itself, f instead of f\(\)"):
        explore(Race().main())  # type: ignore[arg-type]
    gc.collect()
    with pytest.raises(TypeError, match="not None"):
        explore(None)  # type: ignore[arg-type]


def test_a_started_coroutine_is_left_alone() -> None:
    async def started() -> None:
        await yielding(None)

    coro = started()
    coro.send(None)
    with pytest.raises(TypeError):
        explore(coro)  # type: ignore[arg-type]
    assert coro.cr_frame is not None
    coro.close()


@pytest.mark.parametrize("result", [None, 5, "coroutine", Race().main])
def test_a_function_that_returns_no_coroutine(result: Any) -> None:
    def wrong() -> Any:
        return result

    with pytest.raises(TypeError, match=r"explore\(\): wrong\(\) must return a new coroutine"):
        explore(wrong)


def test_a_function_that_returns_the_same_coroutine_again() -> None:
    coro = Race().main()
    with pytest.raises(RuntimeError, match=r"a new coroutine each time: .* already finished"):
        explore(lambda: coro)


def test_a_function_that_fails_by_itself() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        explore(lambda: 1 // 0)  # type: ignore[arg-type]
    assert not hasattr(caught.value, "__notes__")


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"runs": 0}, ValueError, "runs must be at least 1, not 0"),
        ({"runs": -1}, ValueError, "runs must be at least 1, not -1"),
        ({"runs": 2.0}, TypeError, "runs must be an int, not 2.0"),
        ({"runs": None}, TypeError, "runs must be an int, not None"),
        ({"first": "1"}, TypeError, "first must be an int, not '1'"),
        ({"shrink": -1}, ValueError, "shrink must be at least 0, not -1"),
        ({"shrink": None}, TypeError, "shrink must be an int, not None"),
        ({"speed": 1}, TypeError, "unexpected keyword argument 'speed'"),
        ({"shuffle": 1}, TypeError, "unexpected keyword argument 'shuffle'"),
        ({"start": 5}, TypeError, "start must be a datetime, not 5"),
        ({"seed": "x"}, TypeError, "seed must be an int, not 'x'"),
        ({"strict": -1}, ValueError, "strict must not be negative, as -1 is"),
    ],
)
def test_wrong_options(options: Any, kind: type[Exception], message: str) -> None:
    race = Race()
    with pytest.raises(kind, match=message):
        explore(race.main, **options)
    assert race.runs == 0


def test_inside_of_a_loop() -> None:
    race = Race()

    async def main() -> None:
        explore(race.main)

    with pytest.raises(RuntimeError, match=r"explore\(\) cannot be called while a loop is running"):
        virtual(main())
    assert race.runs == 0


def test_inside_of_an_asyncio_loop_it_works() -> None:
    async def main() -> None:
        explore(NoRace().main, runs=2)

    asyncio.run(main())


def test_run_main_takes_a_loop_of_one_coroutine() -> None:
    for coros in [], [sleep(1), sleep(2)]:
        with pytest.raises(ValueError, match=r"_run_main\(\) takes a loop of one coroutine"):
            _run_main(sleeploop.SleepingLoop(*coros))
    loop = sleeploop.SleepingLoop(sleep(1), speed=math.inf)
    _run_main(loop)
    with pytest.raises(sleeploop.LoopClosedError):
        _run_main(loop)
    with pytest.raises(RuntimeError, match="__init__"):
        _run_main(sleeploop.SleepingLoop.__new__(sleeploop.SleepingLoop))
    with pytest.raises(TypeError):
        _run_main(5)


# ---- what it leaves ------------------------------------------------------------------------------


def test_nothing_is_kept() -> None:
    """Without a collection: there are no cycles but those of the program itself."""
    loops: list[weakref.ref[Any]] = []

    async def main() -> None:
        loops.append(weakref.ref(sleeploop.current_loop()))
        tasks = [sleeploop.create_task(say(n)) for n in range(3)]
        said.clear()
        for task in tasks:
            await task
        del tasks, task
        assert said[-1] == 2

    async def say(n: int) -> None:
        said.append(n)

    said: list[int] = []
    gc.collect()
    gc.disable()
    try:
        error = failure(main)
        alive = [ref() for ref in loops if ref() is not None]
        assert alive == []
        assert len(loops) > 3
        del error
    finally:
        gc.enable()


def test_failures_that_nobody_has_seen_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        race = NoRace(3)
        await race.main()
        if race.said != [0, 1, 2]:
            sleeploop.create_task(fail(ValueError()))
            await sleep(1)

    failure(main, ValueError)
    assert 1 <= len(caplog.records) <= 2  # when it is found, and in the last run
    logging.getLogger("sleeploop").error("still heard")
    assert caplog.messages[-1] == "still heard"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    rare = Race(5, 0)
    rare.check = lambda: raising(ValueError) if rare.said == [4, 3, 2, 1, 0] else None  # type: ignore[method-assign]

    async def main() -> None:
        clock[0] += 0.7
        await rare.main()

    for stderr in Terminal(), io.StringIO(), None:
        monkeypatch.setattr(sys, "stderr", stderr)
        failure(main, ValueError, runs=1000)
        if isinstance(stderr, Terminal):
            lines = stderr.getvalue().split("\r\x1b[K")
            assert lines[0] == lines[-1] == ""
            assert lines[1] == "explore(): run 3 of 1,000"
            assert re.search(r"; \d+ of 500 runs that look for a simpler order, \d+ dev", lines[-2])
        elif stderr is not None:
            assert stderr.getvalue() == ""


def test_no_progress_of_what_is_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.monotonic", lambda: 5.0)
    monkeypatch.setattr(sys, "stderr", Terminal())
    failure(Race().main)
    assert sys.stderr.getvalue() == ""  # type: ignore[attr-defined]
