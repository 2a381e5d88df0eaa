"""The trace of a loop: on and off, how much is kept, and reading it whatever the loop does."""

import gc
import math
import threading
import time

import pytest

import sleeploop
from sleeploop import SleepingLoop, checkpoint, create_task, current_loop, sleep
from sleeploop.tracing import Trace

from .helpers import give
from .test_trace import brief, traced

# ---- on and off ----------------------------------------------------------------------------------


@pytest.mark.parametrize("trace", [None, False, 0])
def test_off(trace):
    loop = traced(give(1), trace=trace)
    assert loop.trace is None
    assert SleepingLoop().trace is None


@pytest.mark.parametrize("trace", [1, 3, 10, 11, 12])
def test_a_ring(trace):
    """The same events, but the first ones, which are counted."""
    everything = traced(give(1, 1), give(2, 2), trace=True).trace
    assert len(everything.events) == 8
    assert everything.lost == 0
    ring = traced(give(1, 1), give(2, 2), trace=trace).trace
    assert ring.events == everything.events[-trace:]
    assert ring.lost == max(8 - trace, 0)
    assert repr(everything) == "<Trace: 8 events>"
    lost = f", {8 - trace} before them are lost" if trace < 8 else ""
    n = min(trace, 8)
    assert repr(ring) == f"<Trace: {n} event{'s' * (n != 1)}{lost}>"
    assert ring.summary() in repr(ring)


async def step_aside_often(n):
    for _ in range(n):
        await checkpoint()


def test_how_many_are_kept_by_default():
    trace = traced(step_aside_often(100_000), trace=True).trace
    assert len(trace.events) == 100_000
    assert trace.lost == 2  # of 1 + 100,000 + 1


@pytest.mark.parametrize("trace", ["yes", 1.5, [], object()])
def test_a_wrong_type(trace):
    with pytest.raises(TypeError, match="trace must be None, a bool or the number of events"):
        SleepingLoop(trace=trace)


@pytest.mark.parametrize("trace", [-1, 2**31 + 1, 10**30, -(10**30)])
def test_a_wrong_number(trace):
    coro = give(1)
    with pytest.raises(ValueError, match=rf"trace must be from 0 to 2\*\*31 events, not {trace}"):
        sleeploop.run(coro, trace=trace)
    assert sleeploop.run(coro, speed=math.inf) == 1  # nothing has been started


def test_run_takes_it_too():
    async def main():
        return current_loop().trace

    trace = sleeploop.run(main(), speed=math.inf, trace=5)
    assert brief(trace.events) == [(0.0, "spawn", 1, 0, ""), (0.0, "end", 1, 0, "returned")]
    assert sleeploop.run(main(), speed=math.inf, trace=False) is None


def test_trace_is_read_only():
    loop = SleepingLoop(trace=1)
    with pytest.raises(AttributeError):
        loop.trace = None


def test_a_trace_needs_a_traced_loop():
    with pytest.raises(ValueError, match="not traced"):
        Trace(SleepingLoop())
    with pytest.raises(TypeError):
        Trace(None)


# ---- reading -------------------------------------------------------------------------------------


def test_before_and_in_the_middle_of_a_run():
    seen = []

    async def look():
        await sleep(1)
        task = create_task(give(1), name="before")
        seen.extend(current_loop().trace.events)
        task.name = "after"
        seen.append(current_loop().trace.events[-1])
        await task

    loop = SleepingLoop(look(), speed=math.inf, trace=True)
    assert brief(loop.trace.events) == [(0.0, "spawn", 1, 0, "")]
    loop.run_until_complete()
    assert [e.kind for e in seen] == ["spawn", "sleep", "wake", "spawn", "spawn"]
    assert [e.task for e in seen] == ["Task-1", "Task-1", "Task-1", "before", "after"]
    assert {e.task for e in loop.trace.events if e.number == 2} == {"after"}


def test_a_trace_keeps_its_loop():
    trace = traced(give(1)).trace
    gc.collect()
    assert len(trace.events) == 3


def test_from_another_thread():
    counts = []
    loop = SleepingLoop(step_aside_often(3_000), speed=math.inf, trace=50)

    def look():
        while not counts or loop.tasks():
            counts.append(len(loop.trace.events))

    thread = threading.Thread(target=look)
    thread.start()
    loop.run_until_complete()
    thread.join()
    assert max(counts) <= 50
    assert loop.trace.lost == 3_002 - 50


def test_a_loop_that_is_driven_bit_by_bit():
    loop = SleepingLoop(give(1, 5), speed=math.inf, trace=True)
    loop.run_until(2)
    assert len(loop.trace.events) == 2
    task = loop.create_task(give(2, 1))
    task.cancel()
    loop.call_soon_threadsafe(lambda: loop.create_task(give(3)))
    while loop.step():
        pass
    assert brief(loop.trace.events)[2:] == [
        (2.0, "spawn", 2, 0, ""),
        (2.0, "cancel", 2, 0, "explicit"),
        (2.0, "spawn", 3, 0, ""),
        (2.0, "end", 2, 0, "cancelled"),
        (2.0, "checkpoint", 3, 0, ""),
        (2.0, "end", 3, 0, "returned"),
        (5.0, "wake", 1, 0, ""),
        (5.0, "end", 1, 0, "returned"),
    ]


def test_a_suspended_loop_that_is_closed_or_dropped():
    loop = SleepingLoop(give(1, 5), speed=math.inf, trace=True)
    loop.run_until(2)
    loop.close()
    assert brief(loop.trace.events)[2:] == [
        (2.0, "cancel", 0, 0, "shutdown"),
        (2.0, "wake", 1, 0, ""),
        (2.0, "end", 1, 0, "cancelled"),
    ]
    loop = SleepingLoop(give(1, 5), speed=math.inf, trace=True)
    loop.run_until(2)
    trace = loop.trace
    with pytest.warns(ResourceWarning, match="neither closed"):
        del loop, trace
        gc.collect()


def test_when_the_speed_changes_time_does_not_go_back():
    async def main():
        for speed in (1e6, math.inf, 1e5, math.inf):
            current_loop().speed = speed
            await sleep(1)
            await checkpoint()

    times = [e.time_ns for e in traced(main()).trace.events]
    assert times == sorted(times)
    assert times[-1] >= 4 * 10**9


async def three_steps():
    for _ in range(3):
        await checkpoint()


def test_another_order_is_another_trace():
    one, same, other = (
        SleepingLoop(three_steps(), three_steps(), speed=math.inf, shuffle=s, trace=True)
        for s in ([0], [0], [1])
    )
    for loop in one, same, other:
        loop.run_until_complete()
    assert one.trace.to_json() == same.trace.to_json()
    assert one.trace.to_json() != other.trace.to_json()


@pytest.mark.realtime
def test_in_real_time_an_event_tells_when_it_was():
    async def main():
        await sleep(0.01)
        time.sleep(0.01)
        await sleep(0.01)

    loop = SleepingLoop(main(), trace=True)
    loop.run_until_complete()
    events = loop.trace.events
    assert [e.kind for e in events] == ["spawn", "sleep", "wake", "sleep", "wake", "end"]
    times = [e.time_ns for e in events]
    assert times == sorted(times)
    assert times[3] - times[2] >= 10**7
    assert [e.time for e in events] == [ns / 1e9 for ns in times]
