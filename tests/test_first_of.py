"""first_of() and all_of(): what they return, who loses, and what is seen of it."""

import contextlib
import gc
import inspect
import math
import re
import weakref

import pytest

from sleeploop import (
    CancelledError,
    CancelScope,
    DeadlockError,
    Event,
    Lock,
    Queue,
    SleepingLoop,
    TaskGroup,
    all_of,
    checkpoint,
    create_task,
    current_loop,
    current_task,
    find_deadlocks,
    first_of,
    format_tasks,
    move_on_after,
    run,
    sleep,
    sleep_forever,
)
from tests.helpers import CROWD, Error, cleanup, ended, fail, give, now, virtual
from tests.waits import BOTH, held_lock

# ---- first_of: who is first ----------------------------------------------------------------------


def test_the_first_and_nobody_else():
    async def main():
        slow, fast = give("slow", 5), give("fast", 2)
        done = await first_of(slow, fast)
        assert done == {fast: "fast"}
        assert slow not in done
        return now()

    assert virtual(main()) == 2.0


def test_of_one():
    async def main():
        one = give(1)
        assert await first_of(one) == {one: 1}

    virtual(main())


def test_losers_run_their_cleanup_first():
    async def main():
        log = []
        quick = sleep(1)
        done = await first_of(quick, cleanup(log, "loser", 3))
        assert list(done) == [quick]
        return log, now()

    assert virtual(main()) == ([("loser", 4.0)], 4.0)


def test_a_loser_that_ends_well_all_the_same_is_in_it_behind_the_first():
    async def stubborn():
        try:
            await sleep_forever()
        except CancelledError as error:
            return error.reason

    async def main():
        loser, first = stubborn(), give("first", 1)
        done = await first_of(loser, first)
        assert list(done.items()) == [(first, "first"), (loser, "another one came first")]

    virtual(main())


def test_all_that_came_at_the_same_time_are_in_it_in_that_order():
    async def main():
        a, b, c = Event(), Event(), Event()
        waits = [event.wait() for event in (a, b, c)]
        create_task(set_later(b, a))
        done = await first_of(*waits)
        assert list(done) == [waits[1], waits[0]]
        assert set(done.values()) == {True}

    async def set_later(*events):
        await sleep(1)
        for event in events:
            event.set()

    virtual(main())


def test_what_need_not_wait_leaves_the_others_alone():
    async def main():
        lock, free = await held_lock("held", 5), Lock(name="free")
        coro, wait = give(1), free.acquire()
        never = free.acquire()
        done = await first_of(coro, lock.acquire(), wait, never, sleep(1))
        assert list(done) == [wait]
        assert inspect.getcoroutinestate(coro) == inspect.CORO_CLOSED
        assert free.owner is current_task()
        assert repr(lock) == "<Lock 'held' held by task 'has held' since 0.0 s>"
        assert now() == 0
        free.release()
        assert await never  # was not touched

    virtual(main())


def test_tasks_are_only_waited_for():
    async def main():
        slow, fast = create_task(give("slow", 5)), create_task(give("fast", 2))
        assert await first_of(slow, fast) == {fast: "fast"}
        assert not slow.done()
        finished = await first_of(fast, slow)
        assert finished == {fast: "fast"}
        assert await first_of(slow, sleep(10)) == {slow: "slow"}
        return now()

    assert virtual(main()) == 5.0


def test_any_awaitable_will_do():
    class Request:
        def __await__(self):
            yield from sleep(1)
            return "response"

    def generator():
        yield from sleep(2)
        return "generated"

    async def main():
        request, later = Request(), generator()
        assert await first_of(request, later) == {request: "response"}
        later = generator()
        assert await all_of(later, request) == {later: "generated", request: "response"}

    virtual(main())


# ---- whose it is ---------------------------------------------------------------------------------


@BOTH
def test_a_lock_belongs_to_the_one_who_awaits(function):
    async def main():
        lock = await held_lock("x", 2)
        get = lock.acquire()
        assert await function(get) == {get: True}
        assert lock.owner is current_task()
        assert repr(lock) == "<Lock 'x' held by task 'Task-1' since 2.0 s>"
        lock.release()
        await function(lock.acquire())
        assert now() == 2.0
        with pytest.raises(DeadlockError, match=r"held by task 'Task-1' since 2\.0 s"):
            await function(lock.acquire())
        lock.release()

    virtual(main())


def test_in_another_within_another():
    async def main():
        x, y = await held_lock("x", 2), Lock(name="y")
        inner = all_of(x.acquire(), y.acquire())
        outer = first_of(first_of(inner), sleep(3))
        await outer
        assert x.owner is y.owner is current_task()
        x.release()
        y.release()

    virtual(main())


def test_a_coroutine_s_lock_is_its_own():
    async def main():
        lock = Lock()

        async def inner():
            await lock.acquire()
            return current_task()

        coro = inner()
        (owner,) = (await first_of(coro)).values()
        assert owner is not current_task()
        assert lock.owner is None  # it has ended, and did not give it back

    virtual(main())


# ---- the queue -----------------------------------------------------------------------------------


def test_it_stands_in_line_as_anybody():
    async def want(lock, name, log):
        await lock.acquire()
        log.append(name)
        lock.release()

    async def main():
        log = []
        lock = await held_lock("x", 3)
        create_task(want(lock, "before", log))
        await checkpoint()
        create_task(want(lock, "after", log))  # stands there after this step
        done = await first_of(lock.acquire(), sleep(9))
        assert len(done) == 1
        log.append("first_of")
        lock.release()
        await sleep(0)
        await sleep(0)
        return log

    assert virtual(main()) == ["before", "first_of", "after"]


def test_who_gives_up_leaves_the_line():
    async def main():
        lock = await held_lock("x", 3)
        with move_on_after(1):
            await first_of(lock.acquire(), sleep(9))
        assert repr(lock).endswith("since 0.0 s>")  # nobody waits
        tea = sleep(1)
        assert list(await first_of(lock.acquire(), tea)) == [tea]
        assert repr(lock).endswith("since 0.0 s>")
        await sleep(2)
        assert not lock.locked()

    virtual(main())


@pytest.mark.parametrize("seed", range(20))
def test_philosophers_who_take_both_forks_never_starve(seed):
    """In whatever order tasks run: each asks for both at the same time."""

    async def philosopher(left, right, log):
        for _ in range(5):
            await all_of(left.acquire(), right.acquire())
            assert left.owner is right.owner is current_task()
            await sleep(current_loop().random("eating").randrange(3))
            left.release()
            right.release()
            log.append(current_task().name)

    async def main():
        forks = [Lock(name=f"fork {i}") for i in range(5)]
        log = []
        async with TaskGroup() as group:
            for i in range(5):
                group.create_task(philosopher(forks[i], forks[(i + 1) % 5], log))
            while len(log) < 25:
                assert find_deadlocks() == []
                await sleep(1)
        assert not any(fork.locked() for fork in forks)

    run(main(), speed=math.inf, shuffle=seed or None, seed=seed)


def test_opposite_orders_are_no_deadlock():
    async def both(first, second, log):
        await checkpoint()
        await all_of(first.acquire(), second.acquire())
        log.append((current_task().name, now()))
        await sleep(1)
        second.release()
        first.release()

    async def main():
        x, y, log = Lock(), Lock(), []
        async with TaskGroup() as group:
            group.create_task(both(x, y, log), name="xy")
            group.create_task(both(y, x, log), name="yx")
        return log

    for seed in range(30):
        assert sorted(run(main(), speed=math.inf, shuffle=seed)) in (
            [("xy", 0.0), ("yx", 1.0)],
            [("xy", 1.0), ("yx", 0.0)],
        )


# ---- all_of --------------------------------------------------------------------------------------


def test_all_in_the_order_given():
    async def main():
        slow, fast = give("slow", 5), give("fast", 2)
        task = create_task(give("task", 3))
        done = await all_of(slow, fast, task)
        assert list(done.items()) == [(slow, "slow"), (fast, "fast"), (task, "task")]
        return now()

    assert virtual(main()) == 5.0


def test_all_of_nothing():
    async def main():
        assert await all_of() == {}

    virtual(main())


def test_both_or_none_when_cancelled():
    async def main():
        x, y = Lock(name="x"), await held_lock("y", 5)
        with move_on_after(2) as scope:
            await all_of(x.acquire(), y.acquire())
        assert scope.cancelled_caught
        assert not x.locked()
        await all_of(y.acquire(), x.acquire())
        return now()

    assert virtual(main()) == 5.0


def test_both_or_none_when_one_fails():
    async def main():
        x = Lock(name="x")
        boom = Error("boom")
        late = await held_lock("late", 1)
        with pytest.raises(Error) as info:
            await all_of(x.acquire(), late.acquire(), fail(boom, 2))
        assert info.value is boom
        assert boom.__context__ is None
        assert not x.locked()
        assert not late.locked()
        return now()

    assert virtual(main()) == 2.0


def test_one_s_own_lock_is_a_deadlock_at_once():
    async def main():
        x, y = Lock(name="x"), Lock(name="y")
        with pytest.raises(DeadlockError, match=r"^Lock.acquire\(\): Lock 'x' held by"):
            await all_of(x.acquire(), y.acquire(), x.acquire())
        assert not x.locked()
        assert not y.locked()

    virtual(main())


def test_one_s_own_lock_later_is_a_circle():
    async def main():
        x = await held_lock("x", 1)
        task = create_task(both(x), name="both")
        await sleep(2)
        (found,) = find_deadlocks()
        assert found.tasks[0] is task
        assert f"Lock 'x' held by task {task.name!r} since 1.0 s" in str(found)
        task.cancel()
        await sleep(0)

    async def both(lock):
        await all_of(lock.acquire(), lock.acquire())

    virtual(main())


def test_the_next_in_line_gets_what_is_given_back():
    async def main():
        x, y = Lock(name="x"), await held_lock("y", 9)
        with CancelScope() as scope:
            create_task(want(x, scope))
            await all_of(x.acquire(), y.acquire())
        assert x.owner.name == "want"

    async def want(lock, scope):
        current_task().name = "want"
        get = create_task(later(scope))
        async with lock:
            assert now() == 1
            await sleep(1)
        await get

    async def later(scope):
        await sleep(1)
        scope.cancel()

    virtual(main())


# ---- tasks that have ended -----------------------------------------------------------------------


def test_a_task_that_has_ended_wins_at_once():
    async def main():
        task = create_task(give("long ago"))
        await task
        queue = Queue()
        queue.put_nowait("item")
        first = cleanup(log, "begun before", 1)
        assert await first_of(first, task, queue.get()) == {task: "long ago"}
        assert queue.qsize() == 1
        assert await first_of(get := queue.get(), task) == {get: "item"}
        queue.put_nowait("next")
        assert await all_of(task, get := queue.get()) == {task: "long ago", get: "next"}
        with CancelScope() as scope:
            scope.cancel()
            await first_of(task)
        assert scope.cancelled_caught
        return now()

    log = []
    assert virtual(main()) == 0.0
    assert log == []  # it had not run


@BOTH
def test_a_task_that_has_failed_or_was_cancelled_counts_first(function):
    async def fail():
        raise Error

    async def main():
        failed, well, victim = create_task(fail()), create_task(give(1)), create_task(sleep(9))
        with pytest.raises(Error):
            await failed
        victim.cancel()
        await ended(victim)
        lock, queue = Lock(), Queue()
        queue.put_nowait("item")
        with pytest.raises(Error):
            await function(failed, well, queue.get())
        with pytest.raises(CancelledError, match="task 'Task-4' was cancelled"):
            await function(victim, well, queue.get())
        if function is all_of:
            with pytest.raises(Error):
                await all_of(lock.acquire(), queue.get(), failed)
        assert not lock.locked()
        assert queue.get_nowait() == "item"

    virtual(main())


@BOTH
@pytest.mark.parametrize("kind", ["coroutine", "live task", "task that has ended"])
def test_an_error_is_in_no_cycle(function, kind):
    async def fail():
        raise Error

    async def main():
        aw = fail() if kind == "coroutine" else create_task(fail())
        if kind == "task that has ended":
            with contextlib.suppress(Error):
                await aw
        try:
            await function(aw, sleep(9))
        except Error as error:
            return weakref.ref(error)
        finally:
            del aw  # this frame is in its traceback

    gc.collect()
    gc.disable()
    try:
        assert virtual(main())() is None
    finally:
        gc.enable()


# ---- what is seen of it --------------------------------------------------------------------------


def test_reports():
    async def main():
        lock, bell = await held_lock("x", 5), Event(name="bell")
        create_task(look())
        await first_of(lock.acquire(), bell.wait(), give("it", 2))

    async def look():
        await sleep(1)
        lines.extend(re.sub(", at .*", "", line) for line in format_tasks().splitlines())

    lines = []
    virtual(main())
    assert lines == [
        "Task 'Task-1' test_reports.<locals>.main: waiting for the first of 3 tasks, since 0.0 s",
        "  Task 'has x' hold: sleeping until 5.0 s, since 0.0 s",
        "  Task 'Task-3' test_reports.<locals>.look: running",
        (
            "  Task 'Task-4' Lock.acquire: waiting for Lock 'x' held by task 'has x' since 0.0 s, "
            "waiting since 0.0 s"
        ),
        "  Task 'Task-5' Event.wait: waiting for Event 'bell', since 0.0 s",
        "  Task 'Task-6' give: sleeping until 2.0 s, since 0.0 s",
    ]


def test_it_is_traced():
    async def main():
        lock = await held_lock("x", 1)
        await first_of(lock.acquire(), sleep(9))
        lock.release()

    loop = SleepingLoop(main(), speed=math.inf, trace=1000)
    loop.run_until_complete()
    kinds = [event.kind for event in loop.trace.events if event.task == "Task-3"]
    assert kinds == ["spawn", "block", "wake", "end"]
    ends = [event.function for event in loop.trace.events if event.kind == "end"]
    assert ends.count("one_of_several") == 2


@BOTH
@pytest.mark.parametrize("several", [False, True])
def test_failures_are_kept_in_no_cycle(function, several):
    async def boom():
        await sleep(1)
        raise Error

    async def main():
        gc.collect()
        gc.disable()
        try:
            try:
                await function(*[boom() for _ in range(1 + several)], Event().wait(), sleep(9))
            except (Error, ExceptionGroup) as error:
                dead = weakref.ref(error.exceptions[1] if several else error)
            assert dead() is None
        finally:
            gc.enable()

    virtual(main())


@BOTH
def test_references(function):
    async def some():
        lock = Lock()
        get = lock.acquire()
        done = await function(get, sleep(0))
        assert get in done
        lock.release()
        with move_on_after(1):
            await function(Event().wait(), sleep(2))

    async def main():
        for _ in range(3):
            await some()
        gc.collect()
        before = len(gc.get_objects())
        for _ in range(20):
            await some()
        gc.collect()
        return len(gc.get_objects()) - before

    assert virtual(main()) < 20


@pytest.mark.slow
def test_a_crowd_at_once():
    async def main():
        event = Event()
        waits = [event.wait() for _ in range(CROWD)]
        create_task(ring(event))
        done = await first_of(*waits)
        assert list(done) == waits
        lock = Lock()
        last = sleep(1)
        done = await first_of(*(Event().wait() for _ in range(CROWD)), last)
        assert list(done) == [last]
        return lock.locked()

    async def ring(event):
        await sleep(1)
        event.set()

    assert virtual(main()) is False
