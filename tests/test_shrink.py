"""Making schedules simpler, without a loop: `sleeploop/_shrink.py`."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleeploop._shrink import Choices, Shrinker, cost, deviations, stripped
from tests.twins import examples

READY = 5  # tasks, at any time


def run(choices: Choices, length: int = 200) -> Choices:
    """What a loop would choose."""
    made = [min(choice, READY - 1) for choice in choices[:length]]
    return (*made, *[0] * (length - len(made)))


def shrunk(choices: Choices, fails: Callable[[Choices], bool], budget: int = 100_000) -> Shrinker:
    tried = []

    def attempt(candidate: Choices) -> Choices | None:
        made = run(candidate)
        assert candidate not in tried
        tried.append(candidate)
        return made if fails(made) else None

    assert fails(run(choices))
    shrinker = Shrinker(run(choices), attempt, budget)
    shrinker.run()
    assert shrinker.attempts == len(tried) <= budget
    assert fails(run(shrinker.best))
    assert cost(shrinker.best) <= cost(stripped(run(choices)))
    return shrinker


NOISE = tuple(random.Random(1).choices(range(READY), k=200))


def test_what_fails_always() -> None:
    shrinker = shrunk(NOISE, lambda made: True)
    assert shrinker.best == ()
    assert shrinker.attempts == 1


@pytest.mark.parametrize("place", [0, 1, 7, 99, 199])
def test_one_choice_that_counts(place: int) -> None:
    choices = (*NOISE[:place], 3, *NOISE[place + 1 :])
    assert shrunk(choices, lambda made: made[place] == 3).best == (*[0] * place, 3)
    assert shrunk(choices, lambda made: made[place] > 0).best == (*[0] * place, 1)


def test_one_choice_anywhere() -> None:
    """It comes to the front, and becomes as small as may be."""
    assert shrunk(NOISE, lambda made: any(made)).best == (1,)
    assert shrunk(NOISE, lambda made: 4 in made).best == (4,)
    assert shrunk((0,) * 150 + (2,), lambda made: any(c >= 2 for c in made)).best == (2,)


def test_choices_in_a_row() -> None:
    def fails(made: Choices) -> bool:
        return any(made[i : i + 3] == (2, 0, 2) for i in range(len(made)))

    assert shrunk((*NOISE, 2, 0, 2)[-200:], fails).best == (2, 0, 2)


def test_another_deviation_instead_of_two() -> None:
    """Neither of them can be left out, but there is a third one."""

    def fails(made: Choices) -> bool:
        return made[30] == made[50] == 1 or made[80] == READY - 1

    both = run((*[0] * 30, 1, *[0] * 19, 1))
    assert shrunk(both, fails).best == (*[0] * 80, READY - 1)


def test_the_budget() -> None:
    for budget in range(20):
        shrinker = shrunk(NOISE, lambda made: made[51] > 0 and made[101] > 0, budget)
        assert shrinker.attempts == budget
    assert shrunk(NOISE, any, 0).best == stripped(NOISE)


def test_few_attempts_for_a_long_schedule() -> None:
    choices = tuple(random.Random(2).choices(range(READY), k=10_000))

    def attempt(candidate: Choices) -> Choices | None:
        made = run(candidate, 10_000)
        return made if made[3000] and made[7000] else None

    shrinker = Shrinker((*choices[:3000], 1, *choices[3001:7000], 1, *choices[7001:]), attempt, 200)
    shrinker.run()
    assert deviations(shrinker.best) == [3000, 7000]


def test_a_run_that_ends_earlier() -> None:
    """What was not needed any more does not stay."""

    def attempt(candidate: Choices) -> Choices | None:
        return candidate[:2] if any(candidate) else None

    shrinker = Shrinker((1, 1, 1, 1), attempt, 9)
    shrinker.run()
    assert shrinker.best == (1,)


@examples(times=2)
@given(st.lists(st.integers(0, READY), max_size=30), st.data())
def test_no_single_deviation_is_too_much(choices: list[int], data: st.DataObject) -> None:
    made = run(tuple(choices))
    needed = data.draw(st.sets(st.sampled_from(range(30)), max_size=4))

    def fails(made: Choices) -> bool:
        return all(made[place] >= least[place] for place in needed)

    least = {place: made[place] for place in needed}
    best = shrunk(tuple(choices), fails).best
    assert run(best) == run(tuple(least.get(place, 0) for place in range(30)))


def test_stripped() -> None:
    assert stripped((0, 1, 0, 0)) == (0, 1)
    assert stripped((0, 0)) == stripped(()) == ()
