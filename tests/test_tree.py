"""Who made whom and who waits for what: format_tasks(), and the report of a deadlock."""

import functools
import inspect
import math
import re
import sys
import threading
import types
from datetime import datetime, timedelta

import pytest

import sleeploop
from sleeploop import (
    CancelScope,
    DeadlockError,
    SleepingLoop,
    TaskGroup,
    checkpoint,
    create_task,
    current_loop,
    current_task,
    format_tasks,
    run,
    sleep,
    sleep_forever,
    sleep_until,
    timeout,
)
from tests import helpers
from tests.helpers import give, outcome, virtual, yielding


def shown(text: str) -> list[str]:
    """The lines of a dump, with this file's lines written as distances from the tests' own."""
    text = text.replace(f"{__file__}:", "here:").replace(f"{helpers.__file__}:", "helpers:")
    return re.sub(r"test_\w+\.<locals>\.", "", text).splitlines()


def line_of(function: types.FunctionType, text: str) -> int:
    """The line of this file at which a piece of a function's source stands."""
    lines, first = inspect.getsourcelines(function)
    (found,) = [i for i, line in enumerate(lines) if text in line]
    return first + found


# ---- what a line tells ---------------------------------------------------------------------------


def test_each_way_of_waiting():
    async def sleeper():
        await sleep(5)

    async def late():
        await sleep_until(7)

    async def forever():
        await sleep_forever()

    async def joiner():
        await tasks[0]

    async def host():
        async with TaskGroup() as group:
            group.create_task(sleeper(), name="member")

    async def starter():
        async with TaskGroup() as group:
            await group.start(slow_start)

    async def slow_start(started):
        await sleep(9)
        started()

    async def example():
        await yielding(datetime(2000, 1, 1, 0, 0, 8))

    async def main():
        await sleep(1)
        for function in (sleeper, late, forever, joiner, host, starter, example, give):
            coro = function() if function is not give else give("unstarted")
            tasks.append(create_task(coro, name=function.__name__))
            if function is not give:
                await checkpoint()
        return shown(format_tasks())

    tasks = []
    assert virtual(main()) == [
        f"Task 'Task-1' main: running, at here:{line_of(main, 'format_tasks')} in main",
        (
            "  Task 'sleeper' sleeper: sleeping until 6.0 s, since 1.0 s, "
            f"at here:{line_of(sleeper, 'sleep(5)')} in sleeper"
        ),
        (
            "  Task 'late' late: sleeping until 7.0 s, since 1.0 s, "
            f"at here:{line_of(late, '(7)')} in late"
        ),
        (
            "  Task 'forever' forever: sleeping until cancelled, since 1.0 s, "
            f"at here:{line_of(forever, 'sleep_forever')} in forever"
        ),
        (
            "  Task 'joiner' joiner: waiting for task 'sleeper', since 1.0 s, "
            f"at here:{line_of(joiner, 'tasks[0]')} in joiner"
        ),
        (
            "  Task 'host' host: waiting for the 1 task of its TaskGroup, since 1.0 s, "
            f"at here:{line_of(host, 'async with')} in host"
        ),
        (
            "    Task 'member' sleeper: sleeping until 6.0 s, since 1.0 s, "
            f"at here:{line_of(sleeper, 'sleep(5)')} in sleeper"
        ),
        (
            "  Task 'starter' starter: waiting for task 'Task-9' to start, since 1.0 s, "
            f"at here:{line_of(starter, 'slow_start')} in starter"
        ),
        (
            "    Task 'Task-9' slow_start: sleeping until 10.0 s, since 1.0 s, "
            f"at here:{line_of(slow_start, 'sleep(9)')} in slow_start"
        ),
        (
            "  Task 'example' example: sleeping until 8.0 s, since 1.0 s, "
            f"at helpers:{line_of(yielding, 'yield obj')} in yielding"
        ),
        (f"  Task 'give' give: ready to start, at helpers:{line_of(give, 'def give')} in give"),
    ]


def test_the_innermost_line_is_the_user_s_own():
    """Through whatever one can await; not that of gather(), which is ours."""

    class Awaitable:
        def __await__(self):
            return (yield from sleep(5).__await__())

    async def generator():
        yield await sleep(5)

    async def through_a_class():
        await Awaitable()

    async def through_a_generator():
        async for _ in generator():
            pass

    async def deeper():
        await sleep(5)

    async def through_calls():
        await deeper()

    async def through_ours():
        await sleeploop.gather(deeper(), deeper())

    async def main():
        tasks = [
            create_task(function(), name=function.__name__)
            for function in (through_a_class, through_a_generator, through_calls, through_ours)
        ]
        await checkpoint()
        await checkpoint()
        places = [line.rpartition(", at here:")[2] for line in shown(format_tasks())]
        del tasks
        return places

    assert virtual(main())[1:] == [
        f"{line_of(Awaitable.__await__, 'yield from')} in Awaitable.__await__",
        f"{line_of(generator, 'yield await')} in generator",
        f"{line_of(deeper, 'sleep(5)')} in deeper",
        f"{line_of(through_ours, 'gather')} in through_ours",
        f"{line_of(deeper, 'sleep(5)')} in deeper",
        f"{line_of(deeper, 'sleep(5)')} in deeper",
    ]


def test_deadlines_and_cancellation():
    async def child():
        with timeout(30):
            await sleep(10)

    async def shielded():
        with CancelScope(shield=True):
            await sleep(10)

    async def main():
        with timeout(20):
            async with TaskGroup() as group:
                for function in (child, shielded):
                    group.create_task(function(), name=function.__name__)
                await sleep(1)
                before = format_tasks()
                group.cancel_scope.cancel()
                after = format_tasks()
        return [re.sub(", at .*", "", line).lstrip() for line in shown(before) + shown(after)]

    assert virtual(main()) == [
        "Task 'Task-1' main: running, deadline 20.0 s",
        "Task 'child' child: sleeping until 10.0 s, since 0.0 s, deadline 20.0 s",
        "Task 'shielded' shielded: sleeping until 10.0 s, since 0.0 s",
        "Task 'Task-1' main: running, being cancelled",
        "Task 'child' child: ready, being cancelled",
        "Task 'shielded' shielded: sleeping until 10.0 s, since 0.0 s",
    ]


def test_since_when_a_task_waits():
    async def main():
        await sleep(2)
        task = create_task(sleep(5))
        assert task.waiting_since is None
        await sleep(1)
        assert task.waiting_since == 2.0
        waiter = create_task(join(task))
        assert current_task().waiting_since is None
        await checkpoint()
        assert waiter.waiting_since == 3.0
        await waiter
        assert task.waiting_since is None
        assert waiter.waiting_since is None

    async def join(task):
        await task

    virtual(main())


# ---- the tree ------------------------------------------------------------------------------------


def names(text: str) -> list[str]:
    """The tasks of a dump, each with its indentation."""
    return re.findall(r"^( *)Task '(.*?)'", text, re.MULTILINE)


def test_children_stand_below_those_who_made_them():
    async def family(depth):
        if depth:
            create_task(family(depth - 1), name=f"only child {depth}")
            async with TaskGroup() as group:
                group.create_task(sleep_forever(), name=f"member {depth}")
        await sleep_forever()

    async def main():
        create_task(family(2), name="a")
        create_task(family(0), name="b")
        await sleep(1)
        return format_tasks()

    assert names(virtual(main())) == [
        ("", "Task-1"),
        ("  ", "a"),
        ("    ", "only child 2"),
        ("      ", "only child 1"),
        ("      ", "member 1"),
        ("    ", "member 2"),
        ("  ", "b"),
    ]


def test_a_task_whose_parent_has_finished_stands_at_the_margin():
    async def parent():
        create_task(sleep_forever(), name="orphan")

    async def main():
        made = create_task(parent(), name="parent")
        await made
        (_, orphan) = current_loop().tasks()
        assert orphan.parent is None
        return format_tasks()

    assert names(virtual(main())) == [("", "Task-1"), ("", "orphan")]


def test_parents():
    async def main():
        assert current_task().parent is None
        child = create_task(give(1))
        assert child.parent is current_task()
        async with TaskGroup() as group:
            member = group.create_task(add_to(group))
        assert member.parent is current_task()
        assert (await member).parent is current_task()  # whose group it is

    async def add_to(group):
        return group.create_task(give(2))

    virtual(main())


def test_a_family_of_2_000_generations():
    async def parent(n):
        if n:
            create_task(parent(n - 1))
        await sleep_forever()

    async def main():
        create_task(parent(2_000))
        await sleep(1)
        return format_tasks(limit=None)

    lines = virtual(main()).splitlines()
    assert len(lines) == 2_002
    assert lines[-1].startswith("  " * 2_001 + "Task 'Task-2002' ")


def test_a_name_is_shown_so_that_a_line_stays_a_line():
    async def main():
        create_task(sleep_forever(), name="two\nlines")
        await checkpoint()
        return format_tasks()

    assert len(virtual(main()).splitlines()) == 2


# ---- more of them than people read ---------------------------------------------------------------


def crowd(text: str) -> list[str]:
    """The lines without what they say of times and places."""
    return [re.sub(r",? (since|at) [^()]*(?= \(|$)", "", line) for line in shown(text)]


def test_like_tasks_are_one_line_with_their_count():
    event = sleeploop.Event()

    async def nap(seconds):
        await sleep(seconds)

    async def family(seconds):
        async with TaskGroup() as group:
            group.create_task(nap(seconds))
            group.create_task(event.wait())

    async def main():
        async with TaskGroup() as group:
            for i in range(1_000):
                group.create_task(nap(10 + i))
                group.create_task(family(20 + i))
            group.create_task(event.wait())
            await sleep(1)
            whole, same, short = (format_tasks(limit=limit) for limit in (None, 4_002, 4_001))
            assert same == whole
            group.cancel_scope.cancel()
        return whole, short, group

    whole, short, _ = virtual(main())
    assert len(whole.splitlines()) == 1 + 1_000 + 3_000 + 1
    assert crowd(short) == [
        "Task 'Task-1' main: running",
        "  Task 'Task-2' nap: sleeping until 10.0 s (and 999 more like it)",
        "  Task 'Task-3' family: waiting for the 2 tasks of its TaskGroup (and 999 more like it)",
        "    Task 'Task-2003' nap: sleeping until 20.0 s",
        "    Task 'Task-2004' Event.wait: waiting for Event",
        "  Task 'Task-2002' Event.wait: waiting for Event",
    ]


def test_what_is_still_too_much_is_counted():
    def function(i):
        async def function():
            await sleep_forever()

        function.__qualname__ = f"function_{i}"
        return function()

    async def main():
        for i in range(200):
            create_task(function(i % 150))
        await sleep(1)
        return [format_tasks(), *(format_tasks(limit=limit) for limit in (1, 150, 151, 201))]

    default, one, less, enough, whole = (text.splitlines() for text in virtual(main()))
    assert (len(default), default[-1]) == (101, "... and 51 more")
    assert (len(one), one[-1]) == (2, "... and 200 more")
    assert (len(less), less[-1]) == (151, "... and 1 more")
    assert len(enough) == 151
    assert sum("(and 1 more like it)" in line for line in enough) == 50
    assert len(whole) == 201
    assert not any("like it" in line for line in whole)


def test_what_a_thread_works_at():
    gate = threading.Event()

    class Work:
        def wait(self, n):
            return gate.wait(n)

    async def main():
        tasks = [
            create_task(sleeploop.to_thread(function, 60))
            for function in (Work().wait, functools.partial(functools.partial(Work().wait)))
        ]
        text = format_tasks()
        assert "calls" not in text
        await checkpoint()
        await checkpoint()
        text = format_tasks()
        gate.set()
        for task in tasks:
            await task
        return text

    for line in virtual(main()).splitlines()[1:]:
        assert "to_thread: waiting for a thread, which calls test_what" in line
        assert "Work.wait, since 0.0 s" in line


# ---- whose tasks ---------------------------------------------------------------------------------


def test_of_a_loop_that_does_not_run():
    loop = SleepingLoop(give(1), speed=math.inf)
    assert shown(format_tasks(loop))[0].startswith("Task 'Task-1' give: ready to start, at ")
    loop.run_until_complete()
    assert format_tasks(loop) == ""


def test_wrong_arguments():
    with pytest.raises(RuntimeError, match="needs a running loop"):
        format_tasks()
    with pytest.raises(TypeError, match="'a loop'"):
        format_tasks("a loop")
    with pytest.raises(TypeError, match=r"limit must be an int or None, not 1\.5"):
        format_tasks(limit=1.5)
    for limit in 0, -1:
        with pytest.raises(ValueError, match=f"limit must be 1 or more, not {limit}"):
            format_tasks(limit=limit)


@pytest.mark.realtime
def test_from_another_thread():
    def look():
        dumps.append(format_tasks(loop))
        ready.set()

    async def main():
        thread.start()
        ready.wait(10)
        await sleep(0)

    dumps, ready = [], threading.Event()
    thread = threading.Thread(target=look)
    loop = SleepingLoop(main())
    loop.run_until_complete()
    thread.join()
    (line,) = shown(dumps[0])
    assert re.fullmatch(r"Task 'Task-1' main: running, at here:\d+ in main", line)


# ---- coroutines that answer strangely ------------------------------------------------------------


class Duck:
    """A coroutine of no known kind."""

    def __init__(self):
        self.inner = sleep_forever()

    def send(self, value):
        return self.inner.send(value)

    def throw(self, exc):
        self.inner.throw(exc)

    def close(self):
        self.inner.close()


def test_a_coroutine_that_says_nothing_of_where_it_is():
    async def main():
        create_task(Duck(), name="duck")
        await checkpoint()
        return format_tasks()

    assert virtual(main()).splitlines()[1] == (
        "  Task 'duck' Duck object: sleeping until cancelled, since 0.0 s"
    )


@pytest.mark.parametrize("answer", ["itself", "junk"])
def test_a_coroutine_that_leads_in_a_circle_or_nowhere(answer):
    class Circular(Duck):
        cr_frame = "no frame"

        @property
        def cr_await(self):
            return self if answer == "itself" else 42

    async def main():
        create_task(Circular(), name="circular")
        await checkpoint()
        return format_tasks()

    assert virtual(main()).splitlines()[1] == (
        "  Task 'circular' Circular object: sleeping until cancelled, since 0.0 s"
    )


# ---- deadlocks -----------------------------------------------------------------------------------


def test_a_deadlock_carries_the_tree():
    async def child(name):
        await tasks[name]

    async def main():
        async with TaskGroup() as group:
            for name, other in ("a", "b"), ("b", "a"):
                tasks[name] = group.create_task(child(other), name=name)

    tasks = {}
    with pytest.raises(DeadlockError) as info:
        run(main(), speed=math.inf)
    tasks.clear()
    place = f"since 0.0 s, at here:{line_of(child, 'tasks[name]')} in child"
    assert shown(str(info.value)) == [
        "every task waits for something that cannot happen any more:",
        "  in a circle: task 'a' waits for task 'b', which waits for task 'a'",
        (
            "  Task 'Task-1' main: waiting for the 2 tasks of its TaskGroup, since 0.0 s, "
            f"at here:{line_of(main, 'async with')} in main"
        ),
        f"    Task 'a' child: waiting for task 'b', {place}",
        f"    Task 'b' child: waiting for task 'a', {place}",
    ]


def test_a_report_does_not_fail_by_what_it_reports_on():
    class Broken(Duck):
        @property
        def cr_await(self):
            raise ZeroDivisionError("cr_await")

        cr_frame = cr_await

    with pytest.raises(DeadlockError, match="Task 'Task-1' Broken object: sleeping"):
        run(Broken(), speed=math.inf)


def test_times_are_as_people_read_them():
    async def main():
        task = create_task(sleep(timedelta(hours=1)))
        await sleep(1 / 3)
        late = create_task(sleep_forever())
        await checkpoint()
        del task, late
        return format_tasks()

    first, second = virtual(main()).splitlines()[1:]
    assert "sleeping until 3600.0 s, since 0.0 s" in first
    assert "sleeping until cancelled, since 0.333 s" in second


def test_from_a_trace_function_as_something_is_thrown_into_a_coroutine():
    """What a running coroutine awaits is any memory whatever on CPython 3.12.1."""

    @types.coroutine
    def pause():
        for _ in range(3):
            yield None

    async def waits():
        await pause()

    async def main():
        task = create_task(waits())
        await checkpoint()
        task.interrupt()
        sys.settrace(trace)
        try:
            await sleep(1)
        finally:
            sys.settrace(before)
        return await outcome(task)

    def trace(frame, event, arg):
        if event == "exception":
            texts.append(format_tasks())
        return trace

    before, texts = sys.gettrace(), []
    assert isinstance(run(main(), speed=math.inf), sleeploop.Interrupt)
    assert any("waits: running" in text for text in texts)


def test_since_when_it_waits_and_since_when_another_has_it_are_told_apart():
    async def use(lock):
        async with lock:
            await sleep(5)

    async def main():
        lock = sleeploop.Lock(name="db")
        async with TaskGroup() as group:
            group.create_task(use(lock), name="first")
            await sleep(1)
            group.create_task(use(lock), name="second")
            await sleep(1)
            return format_tasks().splitlines()[2]

    line = virtual(main())
    held = "waiting for Lock 'db' held by task 'first' since 0.0 s"
    assert line.startswith("  Task 'second' ")
    assert f": {held}, waiting since 1.0 s, at " in line


def test_a_suspended_loop_is_shown_where_none_is_running():
    with pytest.raises(RuntimeError):
        format_tasks()
    loop = SleepingLoop(speed=math.inf)
    loop.create_task(sleep(5), name="half way")
    loop.run_until(1)
    assert format_tasks() == "Task 'half way' sleep: sleeping until 5.0 s, since 0.0 s"
    loop.close()
    with pytest.raises(RuntimeError):
        format_tasks()
