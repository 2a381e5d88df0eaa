"""`explore()`: many orders, and the simplest one that fails."""

from __future__ import annotations

import functools
import math
import re
import types
import unittest
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

import sleeploop
from sleeploop import CancelledError, DeadlockError, TaskGroup, checkpoint, sleep
from sleeploop.testing import Exploration, explore
from tests.helpers import fail, virtual


class Race:
    """Several tasks; the last one to say something has to be the last one made."""

    def __init__(self, tasks: int = 3, steps: int = 1) -> None:
        self.tasks, self.steps, self.runs = tasks, steps, 0
        self.said: list[int] = []

    async def say(self, n: int) -> None:
        for _ in range(self.steps):
            await checkpoint()
        self.said.append(n)

    async def main(self) -> None:
        self.runs += 1
        self.said = []
        async with TaskGroup() as group:
            for n in range(self.tasks):
                group.create_task(self.say(n))
        self.check()

    def check(self) -> None:
        assert self.said[-1] == self.tasks - 1


class NoRace(Race):
    def check(self) -> None:
        assert sorted(self.said) == list(range(self.tasks))


def note_of(error: BaseException) -> list[str]:
    (note,) = error.__notes__
    return note.splitlines()


def schedule_of(error: BaseException) -> tuple[int, ...]:
    """The one that its note tells to run again."""
    found = re.search(r"shuffle=\(([\d, ]*)\)", note_of(error)[2])
    return tuple(int(n) for n in found[1].split(",") if n.strip()) if found else ()


def failure(main: Callable[[], Any], kind: type[BaseException] = Exception, **options: Any) -> Any:
    with pytest.raises(kind) as caught:
        explore(main, **options)
    return caught.value


# ---- without a failure ---------------------------------------------------------------------------


def test_nothing_fails() -> None:
    race = NoRace()
    result = explore(race.main)
    assert isinstance(result, Exploration)
    assert result.runs == race.runs == 200
    assert 20 < result.schedules < 200  # some are drawn twice


def test_a_program_with_one_order() -> None:
    async def main() -> None:
        await sleep(1)

    assert explore(main, runs=10) == (10, 1)


def test_every_order_of_a_few_tasks() -> None:
    seen = set()
    race = NoRace(tasks=4, steps=0)
    race.check = lambda: seen.add(tuple(race.said))  # type: ignore[method-assign]
    explore(race.main, runs=300)
    assert len(seen) == 24


def test_the_first_run_is_first_in_first_out() -> None:
    race = NoRace(tasks=5)
    race.check = lambda: seen.append(race.said)  # type: ignore[method-assign]
    seen: list[list[int]] = []
    explore(race.main, runs=20)
    assert seen[0] == [0, 1, 2, 3, 4]
    assert [0, 1, 2, 3, 4] not in seen[1:3]


def test_first_says_which_seeds() -> None:
    def orders(**options: Any) -> list[list[int]]:
        race, seen = NoRace(tasks=8), []
        race.check = lambda: seen.append(race.said)  # type: ignore[method-assign]
        explore(race.main, **options)
        return seen[1:]

    assert orders(runs=10, first=5) == orders(runs=14, first=1)[4:]
    assert orders(runs=10) == orders(runs=10, first=1)
    race = NoRace(tasks=8)
    sleeploop.run(race.main(), speed=math.inf, shuffle=7)
    assert orders(runs=2, first=7) == [race.said]
    assert len(orders(runs=3, first=-(10**30))) == 2


def test_options_are_those_of_the_loops() -> None:
    async def main() -> None:
        loop = sleeploop.current_loop()
        seen.append((loop.speed, loop.now(), loop.debug, loop.random("x").random()))

    seen: list[Any] = []
    explore(main, runs=2, start=datetime(2030, 1, 1), debug=True, seed=5, strict=0.5)
    explore(main, runs=2)
    draws = [sleeploop.SleepingLoop(seed=seed).random("x").random() for seed in (5, 0)]
    assert seen == [
        *[(math.inf, datetime(2030, 1, 1), True, draws[0])] * 2,
        *[(math.inf, datetime(2000, 1, 1), False, draws[1])] * 2,
    ]


@pytest.mark.parametrize("wrap", [functools.partial, lambda main: lambda: main()])
def test_other_functions_that_return_coroutines(wrap: Any) -> None:
    race = Race(2)
    error = failure(wrap(race.main))
    assert "sleeploop.run(main(), speed=math.inf, shuffle=(" in note_of(error)[2]


def test_generators_will_do() -> None:
    @types.coroutine
    def main() -> Any:
        yield from checkpoint()

    assert explore(main, runs=3).runs == 3  # type: ignore[arg-type]


# ---- with one ------------------------------------------------------------------------------------


def test_a_race() -> None:
    race = Race()
    error = failure(race.main, AssertionError)
    schedule = schedule_of(error)
    assert sum(map(bool, schedule)) == 1
    lines = note_of(error)
    assert re.fullmatch(r"explore\(\): run \d+ of 200 failed, with shuffle=\d+", lines[0])
    assert re.fullmatch(
        r"the simplest order found that fails like that: 1 deviation from first in, first out "
        r"\(after \d+ further runs\)",
        lines[1],
    )
    assert lines[2] == f"run it again: sleeploop.run(main(), speed=math.inf, shuffle={schedule})"
    with pytest.raises(AssertionError):
        sleeploop.run(race.main(), speed=math.inf, shuffle=schedule)
    seed = int(lines[0].rpartition("=")[2])
    with pytest.raises(AssertionError):
        sleeploop.run(race.main(), speed=math.inf, shuffle=seed)
    virtual(race.main())


def test_the_simplest_order_of_a_long_program() -> None:
    """Of hundreds of choices one is left, at the beginning."""
    for tasks in 3, 8:
        schedule = schedule_of(failure(Race(tasks, steps=60).main))
        assert len(schedule) <= 2
        assert sum(map(bool, schedule)) == 1


def test_its_steps() -> None:
    """Which task went when, and where its step ended."""
    lines = note_of(failure(Race(2).main))
    assert lines[3].startswith("its steps, with -> where")
    steps = [re.split("  +", re.sub(r":\d+", "", line[2:].strip())) for line in lines[4:]]
    file = "test_explore.py in"
    assert steps == [
        ["0.000 s", "Task-1", "waits", f"{file} Race.main"],
        ["0.000 s", "Task-3", "steps aside", f"{file} Race.say"],
        ["0.000 s", "Task-2", "steps aside", f"{file} Race.say"],
        ["0.000 s", "Task-3", "returned", f"{file} Race.say"],
        ["0.000 s", "Task-2", "returned", f"{file} Race.say"],
        ["0.000 s", "Task-1", "failed", f"{file} Race.main"],
    ]
    assert [line[:2] for line in lines[4:]] == ["  ", "->", "  ", "  ", "  ", "  "]


def test_steps_of_all_kinds() -> None:
    async def main() -> None:
        task = sleeploop.create_task(sleep(5), name="sleeper")
        with sleeploop.move_on_after(1):
            await task
        await sleep(1)
        raise ValueError

    lines = [re.sub(r" +\S+:\d+ in .*", "", line) for line in note_of(failure(main))[4:]]
    assert lines == [
        "       0.000 s  Task-1   waits for sleeper",
        "       0.000 s  sleeper  sleeps",
        "       1.000 s  Task-1   sleeps",
        "       2.000 s  Task-1   failed",
        "       2.000 s  sleeper  cancelled",
    ]


def test_long_lists_of_steps_are_cut_in_the_middle() -> None:
    lines = note_of(failure(Race(8, 100).main))
    assert len(lines) == 4 + 61
    assert re.fullmatch(r"\.\.\. \d+ steps", lines[4 + 30])
    assert "failed" in lines[-1]


def test_two_deviations_that_it_takes() -> None:
    """They are far apart, and one alone does no harm."""

    async def main() -> None:
        said = []

        async def say(n: int) -> None:
            said.append(n)

        for _ in range(3):
            async with TaskGroup() as group:
                group.create_task(say(0))
                group.create_task(say(1))
        if said[:2] == [1, 0] and said[4:] == [1, 0]:
            raise ValueError(said)

    error = failure(main, ValueError)
    assert sum(map(bool, schedule_of(error))) == 2
    assert error.args == ([1, 0, 0, 1, 1, 0],)  # the one in the middle is as it should be


def test_a_failure_of_every_order() -> None:
    async def main() -> None:
        await sleep(1)
        raise KeyError("plain")

    error = failure(main, KeyError)
    assert note_of(error)[:3] == [
        "explore(): run 1 of 200 failed, first in, first out",
        "no other order is needed for that",
        "run it again: sleeploop.run(main(), speed=math.inf)",
    ]


def test_a_deadlock() -> None:
    async def main() -> None:
        async def waits() -> None:
            if ready:
                await sleeploop.sleep_forever()

        async def prepares() -> None:
            ready.append(1)

        ready: list[int] = []
        async with TaskGroup() as group:
            group.create_task(waits())
            group.create_task(prepares())

    error = failure(main, DeadlockError)
    assert schedule_of(error) == (1,)
    assert "sleeping until cancelled" in str(error)


def test_the_options_are_told() -> None:
    error = failure(Race(2).main, seed=5, start=datetime(2030, 1, 1), strict=1, debug=False)
    assert note_of(error)[2] == (
        "run it again: sleeploop.run(main(), speed=math.inf, shuffle=(1,), "
        "start=datetime.datetime(2030, 1, 1, 0, 0), debug=False, seed=5, strict=1)"
    )


def test_options_left_out_are_not_told() -> None:
    error = failure(Race(2).main, seed=None, start=None)
    assert note_of(error)[2].endswith("speed=math.inf, shuffle=(1,))")


def test_the_exception_is_that_of_the_last_run() -> None:
    async def main() -> None:
        errors.append(AssertionError())
        race = Race(2)
        race.check = lambda: None  # type: ignore[method-assign]
        await race.main()
        if race.said != [0, 1]:
            raise errors[-1]

    errors: list[Exception] = []
    assert failure(main) is errors[-1]
    assert errors[-1].__context__ is None
    assert [hasattr(error, "__notes__") for error in errors] == [False] * (len(errors) - 1) + [True]


def test_another_failure_is_not_the_same() -> None:
    """A simpler order that fails at another line is of no use."""

    async def main() -> None:
        race = NoRace(3, 0)
        await race.main()
        if race.said == [2, 1, 0]:
            raise ValueError("the one")
        if race.said != [0, 1, 2]:
            raise other

    for other in ValueError("at another line"), KeyError():
        errors = [failure(main, first=first) for first in range(1, 100)]
        found = [error for error in errors if error is not other]
        assert found
        assert all(sum(map(bool, schedule_of(error))) == 2 for error in found)


def test_groups_are_compared_by_their_parts() -> None:
    async def main() -> None:
        async def bad(kind: type[Exception]) -> None:
            if not good:
                raise kind

        async def first() -> None:
            good.append(1)

        good: list[int] = []
        async with TaskGroup() as group:
            group.create_task(first())
            group.create_task(bad(ValueError))
            group.create_task(bad(KeyError))

    error = failure(main, ExceptionGroup)
    assert sum(map(bool, schedule_of(error))) == 1
    assert {type(part) for part in error.exceptions} <= {ValueError, KeyError}


def test_a_failing_line_of_a_library_is_told_apart_by_who_called_it() -> None:
    case = unittest.TestCase()

    async def main() -> None:
        race = NoRace(3, 0)
        await race.main()
        if race.said == [2, 1, 0]:
            case.fail("the one")
        if race.said[0] == 2:
            case.fail("another")

    errors = [failure(main, first=first) for first in range(1, 30)]
    assert {(str(error), sum(map(bool, schedule_of(error)))) for error in errors} == {
        ("the one", 2),
        ("another", 1),
    }


def test_no_further_runs() -> None:
    race = Race(5, 3)
    error = failure(race.main, shrink=0)
    assert len(schedule_of(error)) > 5
    assert race.runs == int(note_of(error)[0].split()[2]) + 2  # once more, and to raise it
    assert "(after 0 further runs)" in note_of(error)[1]


@pytest.mark.parametrize("shrink", [1, 3, 10])
def test_so_many_further_runs(shrink: int) -> None:
    race = Race(8, 10)
    error = failure(race.main, shrink=shrink)
    assert f"(after {shrink} further runs)" in note_of(error)[1]
    assert race.runs == int(note_of(error)[0].split()[2]) + 2 + shrink


def test_a_long_schedule_is_told_by_its_seed() -> None:
    error = failure(Race(8, 100).main, shrink=0)
    assert re.search(r"shuffle=\d+\)$", note_of(error)[2])


def test_an_exception_that_takes_no_notes() -> None:
    class Bad(Exception):
        __notes__ = 5

        def add_note(self, note: str) -> None:
            raise AssertionError

    async def main() -> None:
        raise Bad

    assert isinstance(failure(main), Bad)


def test_exceptions_that_are_no_exception() -> None:
    for kind in CancelledError, GeneratorExit, pytest.fail.Exception:
        error = failure(lambda kind=kind: fail(kind()), kind)  # type: ignore[misc]
        assert "run 1 of 200" in note_of(error)[0]
