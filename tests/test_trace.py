"""Tracing: which events there are, and what they tell."""

import contextlib
import inspect
import linecache
import math

import pytest

import sleeploop
from sleeploop import (
    CancelledError,
    CancelScope,
    SleepingLoop,
    TaskGroup,
    checkpoint,
    create_task,
    current_loop,
    move_on_after,
    sleep,
    sleep_forever,
)
from sleeploop.tracing import TraceEvent

from .helpers import cancel_at, fail, give, yielding


def traced(*coros, trace=True):
    """The loop, after a run in virtual time that may fail."""
    loop = SleepingLoop(*coros, speed=math.inf, trace=trace)
    with contextlib.suppress(ExceptionGroup):
        loop.run_until_complete()
    return loop


def brief(events):
    """Without where it was."""
    return [(e.time, e.kind, e.number, e.other, e.how) for e in events]


def source(event):
    """The line of code that an event names."""
    return linecache.getline(event.file, event.line).strip()


# ---- the kinds of events -------------------------------------------------------------------------


async def step_aside():
    await checkpoint()
    await sleep(0)
    await yielding(None)
    await sleep(2)


def test_one_task():
    events = traced(step_aside()).trace.events
    assert brief(events) == [
        (0.0, "spawn", 1, 0, ""),
        (0.0, "checkpoint", 1, 0, ""),
        (0.0, "checkpoint", 1, 0, ""),
        (0.0, "checkpoint", 1, 0, ""),
        (0.0, "sleep", 1, 0, ""),
        (2.0, "wake", 1, 0, ""),
        (2.0, "end", 1, 0, "returned"),
    ]
    assert {e.task for e in events} == {"Task-1"}
    assert [source(e) for e in events] == [
        "loop = SleepingLoop(*coros, speed=math.inf, trace=trace)",
        "await checkpoint()",
        "await sleep(0)",
        "",  # a bare yield
        "await sleep(2)",
        "",
        "async def step_aside():",
    ]
    assert [e.function for e in events] == [
        *("traced", "step_aside", "step_aside", "", "step_aside", "", "step_aside"),
    ]
    assert {e.file for e in events} == {__file__, ""}
    assert events[-1] == TraceEvent(
        *(2.0, 2 * 10**9, "end", "Task-1", 1, 0, "returned", __file__),
        *(inspect.getsourcelines(step_aside)[1], "step_aside"),
    )


async def join_a_child():
    child = create_task(give("x", 1), name="child")
    assert await child == "x"


def test_a_task_that_waits_for_another():
    events = traced(join_a_child()).trace.events
    assert brief(events) == [
        (0.0, "spawn", 1, 0, ""),
        (0.0, "spawn", 2, 1, ""),
        (0.0, "block", 1, 2, ""),
        (0.0, "sleep", 2, 0, ""),
        (1.0, "wake", 2, 0, ""),
        (1.0, "end", 2, 0, "returned"),
        (1.0, "wake", 1, 2, ""),
        (1.0, "end", 1, 0, "returned"),
    ]
    assert [e.task for e in events if e.number == 2] == ["child"] * 4
    assert source(events[1]) == 'child = create_task(give("x", 1), name="child")'
    assert source(events[2]) == 'assert await child == "x"'
    assert events[3].function == events[5].function == "give"


async def serve(*, started):
    await sleep(1)
    started()
    await sleep(1)


async def start_a_server():
    async with TaskGroup() as group:
        await group.start(serve)


def test_start_and_the_end_of_a_group():
    events = traced(start_a_server()).trace.events
    assert brief(events) == [
        (0.0, "spawn", 1, 0, ""),
        (0.0, "spawn", 2, 1, ""),
        (0.0, "block", 1, 2, ""),
        (0.0, "sleep", 2, 0, ""),
        (1.0, "wake", 2, 0, ""),
        (1.0, "wake", 1, 2, ""),
        (1.0, "sleep", 2, 0, ""),
        (1.0, "block", 1, 0, ""),
        (2.0, "wake", 2, 0, ""),
        (2.0, "end", 2, 0, "returned"),
        (2.0, "wake", 1, 2, ""),
        (2.0, "end", 1, 0, "returned"),
    ]
    assert source(events[1]) == source(events[2]) == "await group.start(serve)"
    assert source(events[7]) == "async with TaskGroup() as group:"


async def cancel_two_ways():
    with move_on_after(1):
        await sleep_forever()
    with CancelScope() as scope:
        create_task(cancel_at(2, scope))
        await sleep(9)


def test_cancelled_scopes():
    events = traced(cancel_two_ways()).trace.events
    assert brief(events) == [
        (0.0, "spawn", 1, 0, ""),
        (0.0, "sleep", 1, 0, ""),
        (1.0, "cancel", 1, 0, "deadline"),
        (1.0, "wake", 1, 0, ""),
        (1.0, "spawn", 2, 1, ""),
        (1.0, "sleep", 1, 0, ""),
        (1.0, "sleep", 2, 0, ""),
        (2.0, "wake", 2, 0, ""),
        (2.0, "cancel", 1, 2, "explicit"),
        (2.0, "wake", 1, 2, ""),
        (2.0, "end", 2, 0, "returned"),
        (2.0, "end", 1, 0, "returned"),
    ]
    assert source(events[8]) == "scope.cancel(reason)"
    assert events[8].function == "cancel_at"
    assert source(events[2]) == ""


async def enter_what_is_cancelled():
    scope = CancelScope()
    create_task(cancel_at(1, scope))
    await sleep(2)
    with scope:
        await sleep(1)


def test_a_scope_that_was_cancelled_before_it_is_entered():
    (cancel,) = [e for e in traced(enter_what_is_cancelled()).trace.events if e.kind == "cancel"]
    assert brief([cancel]) == [(2.0, "cancel", 1, 2, "explicit")]


async def cancel_a_task():
    task = create_task(sleep_forever())
    await checkpoint()
    task.cancel()
    task.cancel()
    with pytest.raises(CancelledError):
        await task


def test_a_cancelled_task():
    events = traced(cancel_a_task()).trace.events
    assert brief(events)[-8:] == [
        (0.0, "checkpoint", 1, 0, ""),
        (0.0, "sleep", 2, 0, ""),
        (0.0, "cancel", 2, 1, "explicit"),
        (0.0, "wake", 2, 1, ""),
        (0.0, "block", 1, 2, ""),
        (0.0, "end", 2, 0, "cancelled"),
        (0.0, "wake", 1, 2, ""),
        (0.0, "end", 1, 0, "returned"),
    ]
    assert source(events[-6]) == "task.cancel()"
    assert events[-3].function == ""  # no coroutine of Python
    assert events[-7].line == 0


async def fail_in_a_group():
    async with TaskGroup() as group:
        group.create_task(fail(ValueError(), 1))
        group.create_task(sleep_forever())


def test_a_failure_cancels_a_group_and_the_run():
    events = traced(fail_in_a_group(), give(1, 9)).trace.events
    assert brief(events)[8:] == [
        (1.0, "wake", 3, 0, ""),
        (1.0, "end", 3, 0, "failed"),
        (1.0, "cancel", 1, 3, "failure"),
        (1.0, "wake", 4, 3, ""),
        (1.0, "end", 4, 0, "cancelled"),
        (1.0, "wake", 1, 4, ""),
        (1.0, "end", 1, 0, "failed"),
        (1.0, "cancel", 0, 1, "shutdown"),
        (1.0, "wake", 2, 1, ""),
        (1.0, "end", 2, 0, "cancelled"),
    ]
    assert [e.task for e in events if e.number == 0] == [""]


async def await_while_cancelled():
    with CancelScope() as scope:
        scope.cancel()
        for _ in range(2):
            with pytest.raises(CancelledError):
                await sleep(1)


def test_an_await_that_raises_steps_aside():
    events = traced(await_while_cancelled()).trace.events
    assert brief(events)[1:4] == [
        (0.0, "cancel", 1, 1, "explicit"),
        (0.0, "checkpoint", 1, 0, ""),
        (0.0, "checkpoint", 1, 0, ""),
    ]
    assert source(events[2]) == source(events[3]) == "await sleep(1)"


async def yield_nonsense():
    with pytest.raises(TypeError):
        await yielding(5)


async def sleep_by_the_wall():
    await yielding(current_loop().now().replace(year=2001))


def test_what_is_yielded_by_hand_has_no_place():
    assert brief(traced(yield_nonsense()).trace.events)[1:] == [
        (0.0, "checkpoint", 1, 0, ""),
        (0.0, "end", 1, 0, "returned"),
    ]
    events = traced(sleep_by_the_wall()).trace.events
    assert [e.kind for e in events] == ["spawn", "sleep", "wake", "end"]
    assert events[1].line == 0


async def gather_two():
    await sleeploop.gather(give(1, 1), give(2, 2), return_exceptions=True)
    async for _ in sleeploop.as_completed([give(3, 1)], timeout=5):
        pass


def test_the_loops_own_tasks_are_not_shown():
    """as_completed() watches with tasks that nobody sees."""
    events = traced(gather_two()).trace.events
    shown = {e.number for e in events if e.kind == "spawn"}
    assert shown == {e.number for e in events}
    assert {e.other for e in events} <= shown | {0}
    assert {e.number for e in events if e.kind == "end"} == shown


async def take_ticks():
    async for tick in sleeploop.every(5):
        if tick.index == 2:
            break


def test_ticks():
    events = traced(take_ticks()).trace.events
    assert brief(events) == [
        (0.0, "spawn", 1, 0, ""),
        (0.0, "checkpoint", 1, 0, ""),
        (0.0, "sleep", 1, 0, ""),
        (5.0, "wake", 1, 0, ""),
        (5.0, "sleep", 1, 0, ""),
        (10.0, "wake", 1, 0, ""),
        (10.0, "end", 1, 0, "returned"),
    ]
    assert source(events[2]) == "async for tick in sleeploop.every(5):"


async def call_the_package():
    await sleeploop.gather(give(1, 1), give(2, 2), return_exceptions=True)
    await sleeploop.wait_for(give(3, 1), 5)
    await sleeploop.to_thread(len, "")
    async for _ in sleeploop.as_completed([give(4, 1), give(5, 1)]):
        pass


def test_the_places_are_those_of_the_code_that_calls_the_package():
    events = traced(call_the_package()).trace.events
    waits = [e for e in events if e.number == 1 and e.kind == "block"]
    spawns = [e for e in events if e.number > 1 and e.kind == "spawn"]
    assert {e.function for e in waits + spawns} == {"call_the_package"}
    first = call_the_package.__code__.co_firstlineno
    assert [e.line - first for e in waits] == [1, 3, 4]
    assert [e.line - first for e in spawns] == [1, 1, 4, 4]
    assert {e.function for e in events if e.kind == "sleep"} == {"give"}
    assert [e for e in events if e.kind == "cancel"] == []  # which is how they wake a task


def test_where_the_package_waits_by_itself():
    """The loop's caller further out has nothing to do with it."""

    async def main():
        await sleeploop.gather(create_task(give(1, 1)))

    (event,) = (e for e in traced(main()).trace.events if e.kind == "block" and e.other)
    assert event.file.endswith("_combine.py")
