"""Tracing among strange names, strange code, and Python code that runs where none should."""

import contextlib
import functools
import gc
import json
import math
import sys
import threading
import types
import weakref

import pytest

import sleeploop
from sleeploop import (
    CancelScope,
    SleepingLoop,
    TaskGroup,
    checkpoint,
    create_task,
    current_loop,
    sleep,
)

from .helpers import OnDel, give, isolated, yielding
from .test_trace_files import check_chrome_trace, check_svg


def run(*coros, trace=True):
    loop = SleepingLoop(*coros, speed=math.inf, trace=trace)
    loop.run_until_complete()
    return loop.trace


def check(trace):
    check_chrome_trace(trace.to_json())
    return check_svg(trace.to_svg())


# ---- names ---------------------------------------------------------------------------------------


class Str(str):
    """Dies with a call."""

    died = 0

    def __del__(self):
        Str.died += 1


NAMES = [
    "",
    "<script>alert(1)</script>",
    "&amp; ]]> <!-- \"'",
    "\ud800 lone \udfff",
    "nul \0 \x1b \ufffe \uffff",
    "line\nbreak\ttab\r",
    "x" * 10_000,
    "\u202e right to left",
    "e\u0301" * 300,
    Str("subclass"),
]


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_names(name):
    async def main():
        await create_task(give(1, 1), name=name)

    trace = run(main())
    told = [e.task for e in trace.events if e.number == 2]
    assert told == [name or "Task-2"] * 4
    assert {type(n) for n in told} == {str}
    check(trace)
    for text in trace.to_json(), trace.to_svg():
        assert len(text) < 15_000
        assert "\0" not in text
        text.encode()


def test_a_name_that_dies_in_the_ring():
    """Overwritten events drop names; those run nothing."""

    async def main():
        for n in range(50):
            await create_task(give(n), name=Str(f"task {n}"))
        return [e.task for e in current_loop().trace.events if e.kind == "end"]

    Str.died = 0
    assert sleeploop.run(main(), speed=math.inf, trace=8)[-1] == "task 49"
    assert Str.died == 50


def test_a_function_called_strangely():
    async def nap():
        await sleep(1)

    nap.__qualname__ = "<&>" * 200
    trace = run(nap(), give(1))
    assert trace.events[-1].function.endswith("nap")  # what the code is called
    check(trace)


# ---- code ----------------------------------------------------------------------------------------


def test_code_that_came_from_a_string():
    for name in ("<string>", "", "a/b\ud800<&>.py", "/" * 5_000):
        space = {"sleep": sleep}
        exec(compile("async def f():\n\n await sleep(1)\n", name, "exec"), space)
        trace = run(space["f"]())
        assert [(e.file, e.line) for e in trace.events if e.kind == "sleep"] == [(name, 3)]
        check(trace)


def test_code_without_lines():
    async def f():
        await sleep(1)

    f.__code__ = f.__code__.replace(co_linetable=b"", co_firstlineno=0)
    trace = run(f())
    assert {e.line for e in trace.events[1:]} == {0}
    check(trace)


def test_code_is_kept_until_the_loop_goes():
    """To drop it when an event is overwritten could run Python: here a callback does."""
    died = []

    async def main():
        refs = []
        for n in range(50):
            space = {"checkpoint": checkpoint}
            exec(compile("async def f():\n await checkpoint()", f"file {n}", "exec"), space)
            refs.append(weakref.ref(space["f"].__code__, died.append))
            await space["f"]()
        return refs

    loop = SleepingLoop(main(), speed=math.inf, trace=5)
    (refs,) = loop.run_until_complete()
    assert len(loop.trace.events) == 5
    del loop
    gc.collect()
    assert len(died) == len(refs) == 50


def test_more_places_than_there_is_room_for():
    async def main():
        for _ in range(132):
            await types.FunctionType(code.replace(), globals())()

    space = {}
    exec(compile("async def f():\n" + " await checkpoint()\n" * 500, "long", "exec"), space)
    code = space["f"].__code__
    lines = [e.line for e in run(main()).events if e.kind == "checkpoint"]
    assert len(lines) == 66_000
    known = lines.index(0)
    assert 65_000 < known < 65_536
    assert lines[:known] == [2 + n % 500 for n in range(known)]
    assert set(lines[known:]) == {0}


# ---- where no Python code is running -------------------------------------------------------------


class Plain:
    pass


KEPT = []


def die_at_return(callback):
    local = Plain()
    KEPT.append(weakref.ref(local, callback))


class DieAtReturn:
    def __init__(self, callback):
        local = Plain()
        KEPT.append(weakref.ref(local, callback))


def test_cancelled_while_a_frame_dies():
    """The interpreter then calls C code from a frame that is its own, or none."""

    async def main():
        with contextlib.ExitStack() as stack:
            cancels = [stack.enter_context(CancelScope()).cancel for _ in range(5)]
            list(map(die_at_return, cancels[:1]))
            list(map(DieAtReturn, cancels[1:2]))
            die_at_return(cancels[2])
            DieAtReturn(cancels[3])
            functools.partial(DieAtReturn, cancels[4])()

    trace = run(main())
    cancels = [e for e in trace.events if e.kind == "cancel"]
    assert len(cancels) == 5
    assert {e.file for e in cancels} <= {__file__, ""}
    check(trace)
    KEPT.clear()


async def end_with_a_local(callback):
    local = Plain()
    KEPT.append(weakref.ref(local, callback))
    await checkpoint()


async def end_in_a_group():
    async with TaskGroup() as group:
        group.create_task(end_with_a_local(group.cancel_scope.cancel))
        group.create_task(sleep(math.inf))


def test_cancelled_while_a_coroutine_dies():
    events = run(end_in_a_group()).events
    (cancel,) = (e for e in events if e.kind == "cancel")
    assert (cancel.number, cancel.how) == (1, "explicit")
    KEPT.clear()


def test_tasks_made_and_traces_read_from_del():
    seen = []

    def callback():
        seen.append(len(current_loop().trace.events))
        create_task(give(1, 1))
        check(current_loop().trace)

    async def main():
        for _ in range(3):
            await yielding_nonsense(OnDel(callback))
        OnDel(callback)
        await sleep(5)

    trace = run(main())
    assert len(seen) == 4
    assert sum(e.kind == "spawn" for e in trace.events) == 5
    check(trace)


async def yielding_nonsense(obj):
    with pytest.raises(TypeError):
        await yielding([obj])


def test_with_a_trace_function():
    """sys.settrace, and a profiler that cancels and reads from within."""
    calls = 0

    def profile(frame, event, arg):
        nonlocal calls
        calls += 1
        if calls % 7 == 0:
            assert current_loop().trace.events

    async def main():
        sys.setprofile(profile)
        try:
            for n in range(20):
                await sleep(n)
                await create_task(give(n, n))
        finally:
            sys.setprofile(None)

    trace = run(main(), trace=50)
    assert calls > 100
    check(trace)


def test_driven_by_hand():
    """A trap that is sent to by hand and not yielded leaves nothing behind."""

    async def main():
        by_hand = sleep(9).__await__()
        by_hand.send(None)
        await yielding(None)
        by_hand = sleep(9).__await__()
        by_hand.send(None)
        await yielding(by_hand)
        by_hand.close()

    events = run(main()).events
    assert [(e.kind, e.line > 0) for e in events[1:3]] == [("checkpoint", False), ("sleep", True)]


# ---- size and life -------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_hundred_thousand_tasks():
    async def main():
        async with TaskGroup() as group:
            for n in range(100_000):
                group.create_task(sleep(n % 7))

    trace = run(main())
    assert trace.lost > 250_000
    assert len(trace.events) == 100_000
    svg = trace.to_svg()
    check_svg(svg)
    assert " tasks that did less" in svg


def test_deep_chains_of_tasks():
    async def main(n):
        if n:
            await create_task(main(n - 1))

    check(run(main(3_000)))


def test_collected_while_traced():
    """Never run; in a cycle; with a coroutine that is left in the middle."""

    async def main():
        current_loop().myself = current_loop()
        await create_task(give(1), name="kid")

    class Loop(SleepingLoop):
        pass

    for n in range(3):
        loop = Loop(main(), speed=math.inf, trace=100)
        loop.myself = loop
        loop.held = loop.trace
        ref = weakref.ref(loop)
        if n:
            loop.run_until_complete()
        else:
            loop.tasks()[0].coro.close()
        del loop
        gc.collect()
        assert ref() is None


def test_no_room_for_the_ring():
    coro = give(1)
    try:
        loop = SleepingLoop(trace=2**31)  # 64 GiB, of which none is touched
    except MemoryError:
        with pytest.raises(MemoryError):
            sleeploop.run(coro, trace=2**31)
    else:
        assert loop.trace.events == []
    assert sleeploop.run(coro, speed=math.inf) == 1


def test_threads_with_loops_of_their_own():
    def work(n):
        async def main():
            for _ in range(200):
                await create_task(give(n, 1))

        traces[n] = run(main())

    traces = {}
    threads = [threading.Thread(target=work, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({trace.to_json() for trace in traces.values()}) == 1
    assert all(json.loads(t.to_json()) for t in traces.values())


def test_a_loop_in_a_loop():
    async def outer():
        await sleep(1)
        return [e.number for e in run_in_thread().events]

    def run_in_thread():
        found = []
        thread = threading.Thread(target=lambda: found.append(run(give(1, 1), give(2, 2))))
        thread.start()
        thread.join()
        return found[0]

    loop = SleepingLoop(outer(), speed=math.inf, trace=True)
    assert loop.run_until_complete() == [[1, 2, 1, 2, 1, 1, 2, 2]]
    assert {e.number for e in loop.trace.events} == {1}


def test_an_audit_hook_when_a_task_ends():
    """It cannot be taken away again, so another process has it."""
    done = isolated("hostile_audit.py")
    assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "")
