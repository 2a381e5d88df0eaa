"""Random programs on a CapacityLimiter, beside the rules in plain Python: the same events, in one
order."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Hashable
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from sleeploop import (
    CapacityLimiter,
    Event,
    Task,
    WouldBlock,
    current_task,
    move_on_after,
    run,
)
from tests.twins import Workers, assert_same, examples, look_at_cancellation, neglect


class PlainLimiter:
    """What docs/waiting.md says, with an Event for each who waits."""

    def __init__(self, total: float) -> None:
        self._total = total
        self.holders = list[Hashable]()
        self.grants = list[Event]()  # of each of them: another one each time it gets a token
        self.line = deque[tuple[Hashable, Event, Task[Any]]]()

    @property
    def total_tokens(self) -> float:
        return self._total

    @total_tokens.setter
    def total_tokens(self, total: float) -> None:
        self._total = total
        self.serve()

    @property
    def borrowers(self) -> tuple[Hashable, ...]:
        return tuple(self.holders)

    @property
    def borrowed_tokens(self) -> int:
        return len(self.holders)

    @property
    def available_tokens(self) -> float:
        return self._total - len(self.holders)

    def waiting(self) -> list[Hashable]:
        """Who is in the line: whoever was cancelled is not."""
        return [borrower for borrower, turn, task in self.line if task.waiting_on is turn]

    def serve(self) -> None:
        while self.line and len(self.holders) < self._total:
            borrower, turn, task = self.line.popleft()
            if task.waiting_on is turn:
                self.lend(borrower, turn)
                turn.set()

    def lend(self, borrower: Hashable, grant: Event) -> None:
        self.holders.append(borrower)
        self.grants.append(grant)

    def check(self, borrower: Hashable) -> None:
        if borrower in self.holders or borrower in self.waiting():
            raise RuntimeError

    async def acquire_on_behalf_of(self, borrower: Hashable) -> Event:
        await look_at_cancellation()
        self.check(borrower)
        turn = Event()
        if len(self.holders) < self._total:
            self.lend(borrower, turn)
            return turn
        self.line.append((borrower, turn, current_task()))
        await turn.wait()
        return turn

    async def acquire(self) -> None:
        await self.acquire_on_behalf_of(current_task())

    def acquire_on_behalf_of_nowait(self, borrower: Hashable) -> None:
        self.check(borrower)
        if len(self.holders) >= self._total:
            raise WouldBlock
        self.lend(borrower, Event())

    def acquire_nowait(self) -> None:
        self.acquire_on_behalf_of_nowait(current_task())

    def release_on_behalf_of(self, borrower: Hashable) -> None:
        if borrower not in self.holders:
            raise RuntimeError
        del self.grants[self.holders.index(borrower)]
        self.holders.remove(borrower)
        self.serve()

    def release(self) -> None:
        self.release_on_behalf_of(current_task())

    async def __aenter__(self) -> None:
        await self.acquire()

    async def __aexit__(self, *args: object) -> None:
        self.release()


async def careless(limiter: Any, borrower: Hashable) -> None:
    """Wait for a token, and never look whether one has come: it goes back."""
    if isinstance(limiter, PlainLimiter):
        grant = await limiter.acquire_on_behalf_of(borrower)
        if grant in limiter.grants:  # else it has been released, and is perhaps had anew
            limiter.release_on_behalf_of(borrower)
        return
    if await neglect(limiter.acquire_on_behalf_of(borrower)):
        limiter.release_on_behalf_of(borrower)


# ---- programs ------------------------------------------------------------------------------------

WORKERS = 5
seconds = st.integers(0, 3)
limits = st.none() | st.integers(0, 4)  # of move_on_after()
totals = st.integers(0, 4) | st.just(math.inf)


class Same:
    """All have one hash, and some are equal."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __hash__(self) -> int:
        return 1

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self.name == other.name

    def __repr__(self) -> str:
        return self.name


borrowers = st.sampled_from([1, 1.0, True, "other", Same("a"), Same("b"), Same("b")])
workers = st.integers(0, WORKERS - 1)
ACTIONS = st.one_of(
    st.tuples(st.just("sleep"), seconds),
    st.tuples(st.just("step aside")),
    st.tuples(st.just("block"), limits, seconds),
    st.tuples(st.just("block"), limits, seconds),
    st.tuples(st.just("acquire"), limits),
    st.tuples(st.just("acquire for"), limits, borrowers),
    st.tuples(st.just("careless"), limits, borrowers),
    st.tuples(st.just("nowait")),
    st.tuples(st.just("nowait for"), borrowers),
    st.tuples(st.just("release")),
    st.tuples(st.just("release for"), borrowers),
    st.tuples(st.just("release first")),
    st.tuples(st.just("total"), totals),
    st.tuples(st.just("cancel"), workers),
    st.tuples(st.just("cancel and release first"), workers),
    st.tuples(st.just("release first and cancel"), workers),
)
PROGRAMS = st.lists(st.lists(ACTIONS, max_size=8), min_size=1, max_size=WORKERS)


class Play(Workers):
    def state(self) -> tuple[Any, ...]:
        limiter = self.thing
        names = [b.name if isinstance(b, Task) else repr(b) for b in limiter.borrowers]
        return names, limiter.total_tokens, limiter.borrowed_tokens, limiter.available_tokens

    async def act(self, who: int, action: str, *args: Any) -> None:
        limiter = self.thing
        if action == "acquire for":
            with move_on_after(args[0]):
                await limiter.acquire_on_behalf_of(args[1])
                self.note(who, "has for", args[1])
        elif action == "careless":
            with move_on_after(args[0]):
                await careless(limiter, args[1])
        elif action == "nowait":
            limiter.acquire_nowait()
        elif action == "nowait for":
            limiter.acquire_on_behalf_of_nowait(args[0])
        elif action == "release":
            limiter.release()
        elif action == "release for":
            limiter.release_on_behalf_of(args[0])
        elif action == "total":
            limiter.total_tokens = args[0]
        else:
            for what in action.split(" and "):
                if what == "cancel":
                    self.cancel(args[0])
                elif limiter.borrowers:  # "release first"
                    limiter.release_on_behalf_of(limiter.borrowers[0])


@examples(times=5)
@given(total=totals, program=PROGRAMS, shuffle=st.none() | st.integers(0, 9))
@example(
    total=0,
    program=[
        [],
        [],
        [("step aside",), ("careless", None, 1)],
        [("sleep", 0), ("nowait for", 1)],
        [("total", math.inf), ("step aside",), ("release first",)],
    ],
    shuffle=4,
)
@example(
    total=1,
    program=[
        [("block", None, 2), ("release first and cancel", 1), ("total", 3)],
        [("acquire", 2), ("acquire", None)],
        [("block", 2, 1), ("careless", None, 1)],
        [("acquire for", None, 1), ("sleep", 3)],
        [("acquire for", 2, True), ("cancel and release first", 3)],
    ],
    shuffle=None,
)
def test_random_programs(total, program, shuffle):
    ours = CapacityLimiter(total)
    plain = PlainLimiter(total)
    expected = run(Play(plain, program).play(), speed=math.inf, shuffle=shuffle)
    assert_same(run(Play(ours, program).play(), speed=math.inf, shuffle=shuffle), expected)
    assert "waiting" not in repr(ours)
