"""Random programs on a Semaphore, beside the rules in plain Python: the same events in order."""

from __future__ import annotations

import contextlib
import math
from collections import deque
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sleeploop import (
    BoundedSemaphore,
    CancelledError,
    CancelScope,
    Event,
    Semaphore,
    Task,
    TaskGroup,
    WouldBlock,
    checkpoint,
    current_task,
    move_on_after,
    run,
    sleep,
)
from tests.helpers import now, yielding


async def look_at_cancellation() -> None:
    """An await that need not wait: it raises in a cancelled scope, and does nothing else."""
    event = Event()
    event.set()
    await event.wait()


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
        at_once = True
    else:
        wait = semaphore.acquire()
        at_once = False
        try:
            wait.send(None)
        except StopIteration:
            at_once = True
        else:
            await yielding(wait)
        del wait
    if at_once:
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


async def play(semaphore: Any, program: list[list[tuple[Any, ...]]]) -> list[tuple[Any, ...]]:
    """What happens to whom, and when, in that order."""
    events: list[tuple[Any, ...]] = []
    scopes = [CancelScope() for _ in program]  # around what each worker is doing

    def note(who: int, *what: Any) -> None:
        events.append((now(), who, *what, semaphore.value, semaphore.locked()))

    def release(who: int) -> None:
        try:
            semaphore.release()
        except ValueError:
            note(who, "cannot be released")

    async def act(who: int, action: str, *args: Any) -> None:
        if action == "sleep":
            await sleep(args[0])
        elif action == "step aside":
            await checkpoint()
        elif action == "block":
            with move_on_after(args[0]):
                async with semaphore:
                    note(who, "in")
                    await sleep(args[1])
                    note(who, "out")
        elif action == "acquire":
            with move_on_after(args[0]):
                assert await semaphore.acquire() is True
                note(who, "has")
        elif action == "careless":
            with move_on_after(args[0]):
                await careless(semaphore)
        elif action == "nowait":
            with contextlib.suppress(WouldBlock):
                semaphore.acquire_nowait()
        else:
            if action.startswith("release"):
                release(who)
            if "cancel" in action and args[0] < len(scopes):
                scopes[args[0]].cancel()
            if action.endswith("and release"):
                release(who)

    async def worker(who: int, actions: list[tuple[Any, ...]]) -> None:
        for action in actions:
            with scopes[who]:
                try:
                    await act(who, *action)
                except CancelledError:
                    note(who, "cancelled")
                    raise
                except ValueError:  # the end of a block whose unit somebody released
                    note(who, "has nothing to give back")
            scopes[who] = CancelScope()
            note(who, "did", action)

    with move_on_after(100):
        async with TaskGroup() as group:
            for who, actions in enumerate(program):
                group.create_task(worker(who, actions))
    note(-1, "end")
    return events


@pytest.mark.parametrize("bounded", [False, True])
@settings(max_examples=300, deadline=None)
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
    expected = run(play(plain, program), speed=math.inf, shuffle=shuffle)
    assert run(play(ours, program), speed=math.inf, shuffle=shuffle) == expected
    assert "waiting" not in repr(ours)
