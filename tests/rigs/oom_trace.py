"""More of what tests.rigs.oom runs while memory runs out: loops that are traced, and read."""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine
from typing import Any

import _sleeploop

import sleeploop
from sleeploop import CancelScope, SleepingLoop, TaskGroup, checkpoint, create_task, sleep
from sleeploop.tracing import Trace

from .oom_scenarios import nap, raises, scenario

LINES = 200  # more places than there is room for at first
space: dict[str, Any] = {"checkpoint": checkpoint}
exec("async def steps():\n" + " await checkpoint()\n" * LINES, space)
steps: Callable[[], Coroutine[Any, Any, None]] = space["steps"]


async def does_everything() -> None:
    child = create_task(nap(1), name="child")
    assert await child == 1
    async with TaskGroup() as group:
        group.create_task(nap(2))
        group.create_task(nap(3), name="three")
    with CancelScope() as scope:
        scope.cancel()
        await sleep(9)
    with sleeploop.move_on_after(1):
        await sleep(9)


def check(trace: Trace, kinds: dict[str, int]) -> None:
    """All events are there, though of where they were some may be missing."""
    events = trace.events
    assert {kind: sum(e.kind == kind for e in events) for kind in kinds} == kinds
    assert {e.task for e in events} == {"Task-1", "child", "Task-3", "three"}
    assert all(not e.line or e.function for e in events)
    assert trace.lost == 0
    assert trace.to_json()
    assert trace.to_svg()


@scenario
def traced_run() -> None:
    loop = SleepingLoop(does_everything(), speed=math.inf, trace=100)
    loop.run_until_complete()
    trace = loop.trace
    assert trace is not None
    check(trace, {"spawn": 4, "end": 4, "block": 2, "cancel": 2, "sleep": 4, "checkpoint": 1})


@scenario
def many_places() -> None:
    loop = SleepingLoop(steps(), speed=math.inf, trace=True)
    loop.run_until_complete()
    trace = loop.trace
    assert trace is not None
    lines = [event.line for event in trace.events if event.kind == "checkpoint"]
    assert len(lines) == LINES
    assert all(line in (n, 0) for n, line in enumerate(lines, 2))


async def reads_itself() -> int:
    task = create_task(nap(1), name="child")
    await checkpoint()
    trace = sleeploop.current_loop().trace
    assert trace is not None
    assert [event.task for event in trace.events if event.kind == "sleep"] == ["child"]
    assert repr(trace) == "<Trace: 4 events>"
    await task
    return len(trace.events)


@scenario
def trace_read_in_the_run() -> None:
    assert sleeploop.run(reads_itself(), speed=math.inf, trace=50) == 8


@scenario
def bad_trace_arguments() -> None:
    raises(TypeError, SleepingLoop, trace="all")
    raises(ValueError, SleepingLoop, trace=-1)
    raises(ValueError, Trace, SleepingLoop())


@scenario
def every_loop_traced() -> None:
    seen: list[Trace | None] = []
    try:
        _sleeploop._trace_all(20, lambda loop: seen.append(loop.trace))
        sleeploop.run(nap(1), speed=math.inf)
    finally:
        _sleeploop._trace_all(0, None)
    (trace,) = seen
    assert trace is not None
    assert [event.kind for event in trace.events] == ["spawn", "sleep", "wake", "end"]
