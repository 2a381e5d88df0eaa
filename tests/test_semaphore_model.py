"""Random programs on a Semaphore, beside the rules in plain Python: the same events in order."""

from __future__ import annotations

import contextlib
import math
from collections import deque
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sleeploop import (
    BoundedSemaphore,
    Event,
    Semaphore,
    Task,
    WouldBlock,
    current_task,
    move_on_after,
    run,
)
from tests.twins import Workers, assert_same, examples, look_at_cancellation, neglect


class PlainSemaphore:
    """What docs/waiting.md says, with an Event for each who waits."""

    def __init__(self, value: int, bounded: bool) -> None:
        self.value = value
        self.bound = value if bounded else math.inf
        self.line = deque[tuple[Event, Task[Any]]]()

    async def acquire(self) -> bool:
        await look_at_cancellation()
        if self.value:
            self.value -= 1
            return True
        turn = Event()
        self.line.append((turn, current_task()))
        await turn.wait()
        return True

    def acquire_nowait(self) -> None:
        if not self.value:
            raise WouldBlock
        self.value -= 1

    def release(self) -> None:
        if self.value >= self.bound:
            raise ValueError
        while self.line:
            turn, task = self.line.popleft()
            if task.waiting_on is turn:  # else it has been cancelled
                turn.set()
                return
        self.value += 1

    def locked(self) -> bool:
        return not self.value

    async def __aenter__(self) -> None:
        await self.acquire()

    async def __aexit__(self, *args: object) -> None:
        self.release()


async def careless(semaphore: Any) -> None:
    """Wait for a unit, and never look whether one has come: it goes back."""
    if isinstance(semaphore, PlainSemaphore):
        await semaphore.acquire()
    elif not await neglect(semaphore.acquire()):
        return
    with contextlib.suppress(ValueError):
        semaphore.release()


# ---- programs ------------------------------------------------------------------------------------

WORKERS = 5
seconds = st.integers(0, 3)
limits = st.none() | st.integers(0, 4)  # of move_on_after()
ACTIONS = st.one_of(
    st.tuples(st.just("sleep"), seconds),
    st.tuples(st.just("step aside")),
    st.tuples(st.just("block"), limits, seconds),
    st.tuples(st.just("block"), limits, seconds),
    st.tuples(st.just("acquire"), limits),
    st.tuples(st.just("careless"), limits),
    st.tuples(st.just("nowait")),
    st.tuples(st.just("release")),
    st.tuples(st.just("cancel"), st.integers(0, WORKERS - 1)),
    st.tuples(st.just("release and cancel"), st.integers(0, WORKERS - 1)),
    st.tuples(st.just("cancel and release"), st.integers(0, WORKERS - 1)),
)
PROGRAMS = st.lists(st.lists(ACTIONS, max_size=8), min_size=1, max_size=WORKERS)


class Play(Workers):
    def state(self) -> tuple[Any, ...]:
        return self.thing.value, self.thing.locked()

    def release(self, who: int) -> None:
        try:
            self.thing.release()
        except ValueError:
            self.note(who, "cannot be released")

    async def act(self, who: int, action: str, *args: Any) -> None:
        if action == "careless":
            with move_on_after(args[0]):
                await careless(self.thing)
        elif action == "nowait":
            self.thing.acquire_nowait()
        else:
            for what in action.split(" and "):
                if what == "release":
                    self.release(who)
                else:
                    self.cancel(args[0])


@pytest.mark.parametrize("bounded", [False, True])
@examples(times=5)
@given(value=st.integers(0, 3), program=PROGRAMS, shuffle=st.none() | st.integers(0, 9))
@example(
    value=1,
    program=[
        [("block", None, 2), ("release and cancel", 1)],
        [("acquire", 2), ("sleep", 1)],
        [("block", 2, 1)],
        [("acquire", None)],
    ],
    shuffle=None,
)
def test_random_programs(bounded, value, program, shuffle):
    plain = PlainSemaphore(value, bounded)
    ours = (BoundedSemaphore if bounded else Semaphore)(value)
    expected = run(Play(plain, program).play(), speed=math.inf, shuffle=shuffle)
    assert_same(run(Play(ours, program).play(), speed=math.inf, shuffle=shuffle), expected)
    assert "waiting" not in repr(ours)
