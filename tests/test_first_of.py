"""first_of() and all_of(): what they return, who loses, and that nothing gets lost."""

import asyncio
import contextlib
import gc
import inspect
import math
import re
import warnings
import weakref
from datetime import timedelta

import pytest

from sleeploop import (
    CancelledError,
    CancelScope,
    Condition,
    DeadlockError,
    Event,
    Interrupt,
    Lock,
    Queue,
    Resource,
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
    gather,
    move_on_after,
    run,
    sleep,
    sleep_forever,
    timeout,
)
from tests.helpers import OnDel, cleanup, ended, fail, fail_at_the_end, give, now, virtual

BOTH = pytest.mark.parametrize("function", [first_of, all_of])


class Error(Exception):
    """Can be weakly referenced."""


async def hold(lock, seconds):
    async with lock:
        await sleep(seconds)


async def held_lock(name, seconds):
    """A lock that another task has for so long from now on."""
    lock = Lock(name=name)
    create_task(hold(lock, seconds), name=f"has {name}")
    await checkpoint()
    return lock


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


# ---- the caller is cancelled ---------------------------------------------------------------------


@BOTH
def test_before_anything(function):
    async def main():
        lock, event = Lock(), Event()
        with CancelScope() as scope:
            scope.cancel()
            await function(lock.acquire(), event.wait(), give(1))
        assert scope.cancelled_caught
        assert not lock.locked()

    virtual(main())


def test_when_something_has_come_it_is_returned():
    async def main():
        lock, log = Lock(), []
        holder = create_task(hold_until(lock, log))
        await checkpoint()
        with CancelScope() as scope:
            log.append(scope)
            get = lock.acquire()
            done = await first_of(get, sleep(9))
            assert done == {get: True}
            assert lock.owner is current_task()
            with pytest.raises(CancelledError):
                await checkpoint()
            lock.release()
        await holder

    async def hold_until(lock, log):
        async with lock:
            await sleep(1)
        log[0].cancel()  # it has been granted right before

    virtual(main())


def test_all_have_come_when_the_caller_is_cancelled():
    async def main():
        events = [Event(), Event()]
        create_task(set_and_cancel(events))
        with scope:
            done = await all_of(*(event.wait() for event in events))
            assert len(done) == 2
            with pytest.raises(CancelledError):
                await checkpoint()

    async def set_and_cancel(events):
        await sleep(1)
        for event in events:
            event.set()
        scope.cancel()

    scope = CancelScope()
    virtual(main())


def test_not_quite_all_have_come():
    async def main():
        x, y = Lock(), Lock()
        holders = [create_task(hold(x, 1)), create_task(hold(y, 2))]
        await checkpoint()
        with pytest.raises(TimeoutError):
            async with timeout(1.5):
                await all_of(x.acquire(), y.acquire())
        assert not x.locked()
        await gather(*holders)
        assert not y.locked()

    virtual(main())


def test_at_every_point():
    """Whenever it is cancelled: it has all, or none; in the end each lock is free."""

    async def main(when, log):
        locks = [await held_lock(str(i), i) for i in range(1, 4)]
        with move_on_after(when):
            done = await all_of(*(lock.acquire() for lock in locks))
            log.append(len(done))
            for lock in locks:
                lock.release()
        await sleep(4)
        assert not any(lock.locked() for lock in locks)

    results = []
    for when in (0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5):
        virtual(main(when, results))
    assert results == [3]  # at 3 the deadline comes first


# ---- failures ------------------------------------------------------------------------------------


def test_the_first_fails():
    async def main():
        boom = Error("boom")
        lock = await held_lock("x", 5)
        with pytest.raises(Error) as info:
            await first_of(lock.acquire(), fail(boom, 1), give(2, 2))
        assert info.value is boom
        return now()

    assert virtual(main()) == 1.0


def test_a_loser_fails_in_its_cleanup_and_what_the_first_got_is_given_back():
    async def main():
        boom = Error("boom")
        lock = await held_lock("x", 1)
        with pytest.raises(Error) as info:
            await first_of(lock.acquire(), fail_at_the_end(boom))
        assert info.value is boom
        assert not lock.locked()

    virtual(main())


@BOTH
def test_several_failures(function):
    async def main():
        with pytest.raises(ExceptionGroup) as info:
            await function(fail(Error("a"), 1), fail_at_the_end(Error("b")))
        assert info.value.message == f"2 errors in {function.__name__}()"
        assert [str(error) for error in info.value.exceptions] == ["a", "b"]
        assert info.value.__context__ is None

    virtual(main())


@BOTH
def test_a_group_that_is_raised_stays_one(function):
    async def main():
        group = ExceptionGroup("mine", [Error("a"), Error("b")])
        with pytest.raises(ExceptionGroup) as info:
            await function(fail(group), sleep(1))
        assert info.value is group

    virtual(main())


@BOTH
def test_a_task_that_is_cancelled_counts_as_failed(function):
    async def main():
        lock = await held_lock("x", 1)
        task = create_task(sleep_forever(), name="victim")
        create_task(cancel_later(task))
        with pytest.raises(CancelledError, match="victim") as info:
            await function(task, lock.acquire() if function is all_of else sleep(9))
        assert info.value.reason == "no more"
        assert not lock.locked()
        assert now() == 2
        await checkpoint()  # we have not been cancelled

    async def cancel_later(task):
        await sleep(2)
        task.cancel("no more")

    virtual(main())


@BOTH
def test_a_task_of_ours_that_somebody_cancels(function):
    async def main():
        task = create_task(wait(), name="waits")
        await checkpoint()
        await checkpoint()
        for helper in current_loop().tasks()[2:]:
            helper.cancel("meddling")
        with pytest.raises(CancelledError, match="meddling"):
            await task

    async def wait():
        with pytest.raises(CancelledError) as info:
            await function(Event().wait(), Event().wait())
        assert info.value.reason == "meddling"
        raise info.value

    virtual(main())


def test_one_of_a_race_that_somebody_cancels_has_lost():
    async def main():
        create_task(meddle())
        tea = sleep(2)
        assert list(await first_of(Event().wait(), tea)) == [tea]

    async def meddle():
        await sleep(1)
        (task,) = [t for t in current_loop().tasks() if isinstance(t.waiting_on, Event)]
        task.cancel()

    virtual(main())


@BOTH
def test_an_exit_ends_the_run_and_gives_back(function):
    async def main(lock):
        await function(fail(SystemExit(3), 1), lock.acquire() if function is all_of else sleep(9))

    lock = Lock()
    with pytest.raises(SystemExit):
        virtual(main(lock))
    assert not lock.locked()


def test_what_an_inner_one_has_got_is_given_back_as_well():
    async def main():
        x, y = Lock(), Lock()
        with pytest.raises(Error):
            await all_of(all_of(x.acquire(), y.acquire()), fail(Error(), 1))
        assert not x.locked()
        assert not y.locked()
        with pytest.raises(Error):
            await all_of(first_of(x.acquire(), y.acquire()), fail(Error(), 1))
        assert not x.locked()

    virtual(main())


# ---- at a Condition ------------------------------------------------------------------------------


def waiting_at(condition, kind):
    return condition.wait() if kind == "wait" else condition.wait_for(lambda: False)


@pytest.mark.parametrize("until", [1, 4], ids=["free", "held by another one"])
@pytest.mark.parametrize(
    ("function", "how"),
    [
        (first_of, "loses"),
        *((function, how) for function in (first_of, all_of) for how in ("is cancelled", "fails")),
    ],
)
@pytest.mark.parametrize("kind", ["wait", "wait_for"])
def test_who_has_waited_at_a_condition_has_its_lock_whatever_happened(function, kind, how, until):
    """As after the await of a wait() alone: so that the block around it can be left."""

    async def hold(condition):
        async with condition:  # which who waits has released
            assert now() == 0
            await sleep(until)

    async def wait(condition):
        async with condition:
            second = fail(Error(), 2) if how == "fails" else sleep(2)
            try:
                return await function(waiting_at(condition, kind), second)
            finally:
                assert condition.lock.owner is current_task()
                assert now() == max(until, 1 if how == "is cancelled" else 2)

    async def main():
        condition = Condition()
        create_task(hold(condition))
        with move_on_after(1 if how == "is cancelled" else None) as scope:
            if how == "fails":
                with pytest.raises(Error):
                    await wait(condition)
            else:
                assert list((await wait(condition)).values()) == [timedelta(seconds=2)]
        assert scope.cancelled_caught == (how == "is cancelled")
        assert not condition.locked()

    virtual(main())


@BOTH
def test_a_condition_is_waited_at_for_the_caller(function):
    async def main():
        condition = Condition()

        async def notify():
            async with condition:  # which the caller has released
                await sleep(1)
                condition.notify()
                await sleep(1)

        create_task(notify())
        async with condition:
            waiting = condition.wait()
            done = await function(waiting, *([sleep(60)] if function is first_of else [sleep(1)]))
            assert done[waiting] is True
            assert condition.lock.owner is current_task()
            return now()

    assert virtual(main()) == 2


def test_what_comes_before_a_condition_is_waited_at_leaves_the_lock_alone():
    async def main():
        condition, lock = Condition(), Lock()
        async with condition:
            since = repr(condition)
            await sleep(1)
            acquire = lock.acquire()
            assert await first_of(condition.wait(), acquire) == {acquire: True}
            assert repr(condition) == since

    virtual(main())


# ---- wrong use -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("forgetful")
@BOTH
def test_what_cannot_be_awaited(function):
    name = function.__name__
    for junk in (42, None, "text", Lock, print, lambda: None):
        with pytest.raises(TypeError, match=re.escape(f"{name}()")):
            function(junk)
    for several in ([], [sleep(1)], (), {sleep(1)}, (give(i) for i in ())):
        with pytest.raises(TypeError, match="one by one"):
            function(several)


@BOTH
def test_a_coroutine_beside_junk_stays_the_caller_s(function):
    coro = give(1)
    with pytest.raises(TypeError):
        function(coro, 42)
    assert virtual(coro) == 1


@pytest.mark.usefixtures("forgetful")
@BOTH
def test_the_same_twice(function):
    async def main():
        task = create_task(give(1))
        coro, wait = give(2), Event().wait()
        for one in (task, coro, wait):
            with pytest.raises(RuntimeError, match=r"the same .* twice"):
                function(one, sleep(1), one)
        coro.close()
        await task

    virtual(main())


def test_of_nothing():
    with pytest.raises(ValueError, match="at least one"):
        first_of()


@BOTH
def test_what_was_awaited_before(function):
    async def main():
        event = Event()
        event.set()
        wait, coro = event.wait(), give(1)
        await wait
        await coro
        with pytest.raises(RuntimeError, match=r"awaited before: <Event\.wait"):
            function(wait)
        with pytest.raises(RuntimeError, match="already finished"):
            function(coro)
        fresh = event.wait()
        later = function(fresh)
        await fresh
        with pytest.raises(RuntimeError, match="awaited before"):
            await later

    virtual(main())


@BOTH
def test_unhashable(function):
    class Unhashable:
        __hash__ = None

        def __await__(self):
            yield

    with pytest.raises(TypeError, match=r"unhashable <.*Unhashable object"):
        function(Unhashable())


@BOTH
def test_equal_ones(function):
    class Equal:
        def __eq__(self, other):
            return True

        def __hash__(self):
            return 1

        def __await__(self):
            yield

    with pytest.raises(RuntimeError, match="the same awaitable twice"):
        function(Equal(), Equal())


@BOTH
def test_a_hash_that_fails_at_any_time_loses_nothing(function):
    class Fickle:
        good = math.inf  # how many times it still has a hash

        def __hash__(self):
            self.good -= 1
            if self.good < 0:
                raise Error("hash")
            return 1

        def __await__(self):
            yield

    async def main(good):
        lock, fickle = Lock(), Fickle()
        aws = [fickle, lock.acquire()] if function is all_of else [fickle]
        later = function(*aws)
        fickle.good = good
        try:
            await later
        except Error:
            assert not lock.locked()
            return "failed"
        return "fine"

    outcomes = [virtual(main(good)) for good in range(9)]
    assert outcomes[:2] == ["failed"] * 2  # as it is checked, and as the result is made
    assert outcomes[-1] == "fine"


@BOTH
def test_tasks_of_another_loop_and_its_own(function):
    other = SleepingLoop(speed=math.inf)
    task = other.create_task(give(1))

    async def main():
        with pytest.raises(RuntimeError, match="another loop"):
            function(task)
        with pytest.raises(RuntimeError, match=rf"^{function.__name__}\(\) cannot wait for the"):
            await function(current_task())

    virtual(main())
    other.close()


@BOTH
def test_a_lock_of_another_loop(function):
    async def have(lock):
        await lock.acquire()
        await sleep(1)
        lock.release()

    async def main():
        mine, coro = Lock(), give(1)
        with pytest.raises(RuntimeError, match="belongs to another loop"):
            await function(coro, lock.acquire(), mine.acquire())
        assert not mine.locked()
        assert inspect.getcoroutinestate(coro) == inspect.CORO_CLOSED

    lock = Lock()
    other = SleepingLoop(have(lock), speed=math.inf)
    other.run_until(0.5)
    virtual(main())
    other.run_until_complete()


@BOTH
def test_without_a_loop(function):
    wait = function(Event().wait())
    with pytest.raises(RuntimeError, match="needs a running loop"):
        wait.send(None)


@BOTH
def test_awaited_twice(function):
    async def main():
        once = function(give(1))
        await once
        with pytest.raises(RuntimeError, match="cannot reuse"):
            await once

    virtual(main())


@BOTH
def test_never_awaited(function):
    coro, wait = give(1), Event().wait()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        later = function(coro, wait)
        later.close()
        del later
        gc.collect()
    assert inspect.getcoroutinestate(coro) == inspect.CORO_CLOSED


@BOTH
def test_under_asyncio(function):
    async def main():
        with pytest.raises(RuntimeError, match="needs a running loop"):
            await function(Event().wait())

    asyncio.run(main())


# ---- by hand -------------------------------------------------------------------------------------


@BOTH
def test_a_wait_that_is_closed_meanwhile(function):
    async def main():
        lock = await held_lock("x", 1)
        get = lock.acquire()
        create_task(close_later(get))
        with pytest.raises(RuntimeError, match="awaited before"):
            await function(get)
        del get
        gc.collect()
        assert not lock.locked()

    async def close_later(get):
        await sleep(0.5)
        get.close()

    virtual(main())


@BOTH
def test_a_wait_that_somebody_else_awaits_meanwhile(function):
    async def main():
        lock = await held_lock("x", 1)
        get = lock.acquire()
        thief = create_task(steal(get))
        assert await function(get) == {get: True}
        assert lock.owner is current_task()
        lock.release()
        await thief

    async def steal(get):
        with pytest.raises(RuntimeError, match="awaited before"):
            await get

    virtual(main())


@BOTH
def test_a_loop_that_is_dropped_meanwhile(function):
    async def wait(lock, other):
        await function(lock.acquire(), other.acquire())

    async def have(lock):
        await lock.acquire()
        await sleep_forever()

    x, y = Lock(), Lock()
    loop = SleepingLoop(have(x), wait(x, y) if function is all_of else wait(x, x), speed=math.inf)
    loop.run_until(1)
    with pytest.warns(ResourceWarning, match="neither closed nor run to its end"):
        del loop
        gc.collect()

    async def use():
        return repr(x), repr(y)

    assert "waiting" not in "".join(virtual(use()))


@BOTH
def test_a_result_that_runs_code_when_it_dies(function):
    log = []

    async def main():
        lock = Lock()

        async def strange():
            return OnDel(lambda: log.append(lock.locked()))

        async def fail_later():
            await sleep(1)
            raise Error

        with pytest.raises(Error):
            await all_of(lock.acquire(), strange(), fail_later())
        gc.collect()
        done = await function(strange())
        del done

    virtual(main())
    gc.collect()
    assert len(log) == 2


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
def test_a_hundred_thousand_at_once():
    async def main():
        event = Event()
        waits = [event.wait() for _ in range(100_000)]
        create_task(ring(event))
        done = await first_of(*waits)
        assert list(done) == waits
        lock = Lock()
        last = sleep(1)
        done = await first_of(*(Event().wait() for _ in range(50_000)), last)
        assert list(done) == [last]
        return lock.locked()

    async def ring(event):
        await sleep(1)
        event.set()

    assert virtual(main()) is False


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


# ---- interrupted ---------------------------------------------------------------------------------


@BOTH
def test_an_interrupt_takes_the_caller_from_where_it_waits(function):
    async def waiter():
        wait = lock.acquire()
        with pytest.raises(Interrupt) as caught:
            await function(event.wait(), function(wait, cleanup(log, "inner", 2)))
        log.append((caught.value.cause, now(), lock.locked(), wait))
        await checkpoint()

    async def main():
        async with TaskGroup() as group:
            await lock.acquire()
            task = group.create_task(waiter())
            await sleep(1)
            task.interrupt("enough")
            assert task.interrupt("and more")
            lock.release()
            with pytest.raises(Interrupt):
                await task
        raise AssertionError("the second one comes next")

    lock, event, log = Lock(), Event(), []
    with pytest.raises(ExceptionGroup) as caught:
        virtual(main())
    assert [error.cause for error in caught.value.exceptions] == ["and more"]
    assert log[0] == ("inner", 3.0)
    assert log[1][:3] == ("enough", 3.0, False)


@BOTH
def test_an_interrupt_that_came_before_it_begins_to_wait_is_raised_there(function):
    async def waiter():
        await event.wait()
        with pytest.raises(Interrupt):
            await function(sleep(10), Event().wait())
        return now()

    async def main():
        task = create_task(waiter())
        await sleep(1)
        event.set()  # it has arrived, and the interrupt comes at the next await
        task.interrupt()
        return await task

    event = Event()
    assert virtual(main()) == 1.0


def test_what_has_been_got_before_an_interrupt_is_returned_or_given_back():
    async def first():
        done = await first_of(get, sleep(5))
        with pytest.raises(Interrupt):
            await checkpoint()
        return done

    async def both():
        with pytest.raises(Interrupt):
            await all_of(queue.get(), lock.acquire(), sleep(5))

    async def main():
        task = create_task(first())
        await sleep(1)
        queue.put_nowait("item")
        task.interrupt()
        assert await task == {get: "item"}
        queue.put_nowait("next")
        task = create_task(both())
        await sleep(1)
        assert lock.locked()
        assert queue.empty()
        task.interrupt()
        await task
        assert not lock.locked()
        assert queue.get_nowait() == "next"
        assert now() == 2

    queue, lock = Queue(), Lock()
    get = queue.get()
    virtual(main())


def test_who_is_preempted_while_it_waits_for_several_is_told_at_once():
    async def machine():
        async with resource.request(priority=1):
            try:
                await first_of(sleep(10), Event().wait())
            except Interrupt as interrupt:
                return now(), interrupt.cause.resource

    async def main():
        task = create_task(machine())
        await sleep(1)
        async with resource.request(priority=0, preempt=True):
            await sleep(3)
        return await task

    resource = Resource()
    assert virtual(main()) == (1.0, resource)
