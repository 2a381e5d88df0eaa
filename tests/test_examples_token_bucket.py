"""The token bucket of docs/examples, with arrivals at random."""

from __future__ import annotations

import math
import runpy
from collections.abc import Awaitable, Callable
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sleeploop import TaskGroup, current_task, move_on_after, run, sleep_until
from tests.helpers import cancel_at, now, virtual
from tests.twins import examples

EXAMPLE = Path(__file__).parent.parent / "docs" / "examples" / "token_bucket.py"
TokenBucket: Any = runpy.run_path(str(EXAMPLE))["TokenBucket"]


class Arrival(NamedTuple):
    """Somebody who wants n tokens, and waits for them until `leaves` at most."""

    at: float
    n: float
    leaves: float | None


class Grant(NamedTuple):
    who: int
    at: float
    n: float


async def play(rate: float, burst: float, arrivals: list[Arrival]) -> tuple[list[int], list[Grant]]:
    """In which order they ask for tokens; and who gets them, and when, in that order."""
    bucket = TokenBucket(rate, burst)
    asked, grants = [], []

    async def one(who: int, arrival: Arrival) -> None:
        await sleep_until(arrival.at)
        limit = None if arrival.leaves is None else arrival.leaves - arrival.at
        with move_on_after(limit):
            asked.append(who)
            await bucket.acquire(arrival.n)
            grants.append(Grant(who, now(), arrival.n))

    async with TaskGroup() as group:
        for who, arrival in enumerate(arrivals):
            group.create_task(one(who, arrival))
    assert not bucket.turn.locked()
    return asked, grants


def expected(rate: int, burst: int, arrivals: list[Arrival]) -> list[Grant]:
    """The same by hand: each in turn, as soon as all before it are gone and the level allows it.

    Who gives up at that very moment is gone: all who do so at one time do it before the turn of one
    of them passes on, and a deadline that was set before a sleep comes before its end.
    """
    turn, level, measured_at = Fraction(0), Fraction(burst), Fraction(0)
    grants = []
    for who, (at, n, leaves) in enumerate(arrivals):
        turn = max(turn, Fraction(at))
        when = max(turn, measured_at + (n - level) / rate)
        if leaves is not None and leaves <= when:
            turn = max(turn, Fraction(leaves))
            continue
        level = min(Fraction(burst), level + (when - measured_at) * rate) - Fraction(n)
        turn = measured_at = when
        grants.append(Grant(who, float(when), n))
    return grants


@st.composite
def exact_cases(draw: Callable[..., Any]) -> tuple[int, int, list[Arrival]]:
    """Whatever happens here happens at quarters of a second; but giving up, between two of them."""
    rate, burst = draw(st.sampled_from((1, 2, 4))), draw(st.integers(1, 6))
    quarters = sorted(draw(st.lists(st.integers(0, 40), max_size=12)))
    patience = st.none() | st.integers(0, 30)
    arrivals = [
        Arrival(at / 4, n, None if quits is None else (at + quits) / 4 + 1 / 8)
        for at in quarters
        for n, quits in [draw(st.tuples(st.integers(1, burst), patience))]
    ]
    return rate, burst, arrivals


BOTH_GIVE_UP = [
    *(Arrival(0.0, 1, None) for _ in range(6)),
    Arrival(0.0, 2, None),
    Arrival(6.0, 2, 7.125),
    Arrival(6.5, 1, 7.125),
]


@examples(times=2)
@given(exact_cases())
@example((1, 2, BOTH_GIVE_UP))
def test_each_gets_its_tokens_at_the_first_possible_moment(case):
    rate, burst, arrivals = case
    asked, grants = virtual(play(rate, burst, arrivals))
    assert asked == list(range(len(arrivals)))
    assert grants == expected(rate, burst, arrivals)


@st.composite
def any_cases(draw: Callable[..., Any]) -> tuple[float, float, list[Arrival]]:
    """Times of any kind, and many at once."""
    rate, burst = draw(st.floats(0.01, 100)), draw(st.floats(0.5, 20))
    times = st.floats(0, 30) | st.integers(0, 5).map(lambda k: k * burst / rate)
    arrivals = []
    for at in sorted(draw(st.lists(times, max_size=15))):
        n = draw(st.floats(burst / 100, burst) | st.just(burst))
        arrivals.append(Arrival(at, n, draw(st.none() | times.map(lambda wait, at=at: at + wait))))
    return rate, burst, arrivals


@examples(times=2)
@given(any_cases(), st.none() | st.integers(0, 99))
def test_never_too_many_in_any_window_and_nobody_overtakes(case, shuffle):
    rate, burst, arrivals = case
    asked, grants = run(play(rate, burst, arrivals), speed=math.inf, shuffle=shuffle)
    given_to = [grant.who for grant in grants]
    assert given_to == [who for who in asked if who in given_to]
    assert set(given_to) >= {who for who, one in enumerate(arrivals) if one.leaves is None}
    for i, first in enumerate(grants):
        total = 0.0
        for last in grants[i:]:
            total += last.n
            assert total <= burst + rate * (last.at - first.at) + 1e-6


async def queue_of_three(spoil: Callable[[Any, Any], Awaitable[None]]) -> list[tuple[str, float]]:
    """An empty bucket, a second a token; a, b and c want two each; something happens to b."""
    bucket, got, tasks = TokenBucket(1, 2), [], {}
    await bucket.acquire(2)

    async def take(name: str) -> None:
        tasks[name] = current_task()
        await bucket.acquire(2)
        got.append((name, now()))

    async with TaskGroup() as group:
        for name in "abc":
            group.create_task(take(name), name=name)
        group.create_task(spoil(bucket, tasks))
    return got


@pytest.mark.parametrize("moment", [0, 1, 2, 3, 3.5])
def test_a_task_that_is_cancelled_gives_its_turn_back(moment):
    async def spoil(bucket: Any, tasks: Any) -> None:
        await sleep_until(moment)
        tasks["b"].cancel()

    assert virtual(queue_of_three(spoil)) == [("a", 2.0), ("c", 4.0)]


def test_tokens_that_have_been_given_stay_given():
    async def spoil(bucket: Any, tasks: Any) -> None:
        await sleep_until(4)  # asked for later than b's sleep until 4, so b comes first
        tasks["b"].cancel()

    assert virtual(queue_of_three(spoil)) == [("a", 2.0), ("b", 4.0), ("c", 6.0)]


def test_the_first_and_the_next_cancelled_at_once():
    async def spoil(bucket: Any, tasks: Any) -> None:
        await sleep_until(1)
        tasks["a"].cancel()
        tasks["b"].cancel()

    assert virtual(queue_of_three(spoil)) == [("c", 2.0)]


def test_a_whole_group_of_waiters_is_cancelled():
    async def main() -> float:
        bucket = TokenBucket(1, 2)
        await bucket.acquire(2)
        async with TaskGroup() as group:
            for _ in range(3):
                group.create_task(bucket.acquire(2))
            group.create_task(cancel_at(1, group.cancel_scope))
        assert not bucket.turn.locked()
        await bucket.acquire(2)
        return now()

    assert virtual(main()) == 2


@pytest.mark.parametrize("n", [0, -1, 2.5, float("nan")])
def test_more_than_the_bucket_holds_is_refused_at_once(n):
    async def main() -> None:
        bucket = TokenBucket(1, 2)
        with pytest.raises(ValueError, match="the bucket holds 2"):
            await bucket.acquire(n)
        assert not bucket.turn.locked()

    virtual(main())
