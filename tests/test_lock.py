"""Lock: who has it, who is next, and what is a mistake."""

import asyncio
import contextlib
import gc
import inspect
import math
import random
import re
import signal
import sys

import pytest

import sleeploop
from sleeploop import (
    BoundedSemaphore,
    CancelScope,
    Condition,
    DeadlockError,
    Event,
    Lock,
    Semaphore,
    SleepingLoop,
    TaskGroup,
    WouldBlock,
    checkpoint,
    create_task,
    current_loop,
    current_task,
    format_tasks,
    move_on_after,
    sleep,
    timeout,
)
from tests.helpers import CROWD, awaited_error, ended, now, virtual
from tests.waits import hold


async def held(lock, seconds=1):
    """A task that has the lock now, for some time."""
    task = create_task(hold(lock, [], "holder", seconds), name="holder")
    await checkpoint()
    assert lock.owner is task
    return task


# ---- normal use ----------------------------------------------------------------------------------


def test_a_new_lock_is_free():
    lock = Lock()
    assert lock.locked() is False
    assert lock.owner is None
    assert lock.name is None
    assert repr(lock) == "<Lock unlocked>"


def test_acquire_and_release():
    async def main():
        lock = Lock()
        assert await lock.acquire() is True
        assert lock.locked() is True
        assert lock.owner is current_task()
        assert lock.release() is None
        assert lock.locked() is False
        assert lock.acquire_nowait() is None
        assert lock.owner is current_task()
        lock.release()
        async with lock as nothing:
            assert nothing is None
            assert lock.owner is current_task()
        assert not lock.locked()

    virtual(main())


def test_first_come_first_served():
    async def main():
        lock, log = Lock(), []
        async with TaskGroup() as group:
            for name in "abcd":
                group.create_task(hold(lock, log, name))
        return log

    assert virtual(main()) == [("a", 0.0), ("b", 1.0), ("c", 2.0), ("d", 3.0)]


def test_what_is_free_is_had_without_switching_tasks():
    async def main():
        lock, log = Lock(), []
        create_task(hold(lock, log, "other"))
        async with lock:
            pass
        await lock.acquire()
        lock.release()
        return log

    assert virtual(main()) == []


def test_nobody_gets_in_between():
    """Who releases and asks again waits behind those who were there."""

    async def main():
        lock, log = Lock(), []

        async def greedy():
            for _ in range(3):
                async with lock:
                    log.append("greedy")

        async with TaskGroup() as group:
            await lock.acquire()
            group.create_task(hold(lock, log, "patient", 0))
            await checkpoint()
            lock.release()
            assert lock.owner is not current_task()
            with pytest.raises(WouldBlock):
                lock.acquire_nowait()
            await greedy()
        return log

    assert virtual(main()) == [("patient", 0.0), "greedy", "greedy", "greedy"]


def test_it_is_handed_over_in_the_moment_of_the_release():
    async def main():
        lock = Lock()
        await lock.acquire()
        task = create_task(hold(lock, [], "next"))
        await checkpoint()
        lock.release()
        assert lock.owner is task  # which has not run yet
        assert lock.locked()
        await task

    virtual(main())


def test_the_block_s_error_comes_out_and_the_lock_is_free():
    async def main():
        lock = Lock()
        with pytest.raises(KeyError, match="x"):
            async with lock:
                raise KeyError("x")
        assert not lock.locked()

    virtual(main())


def test_acquire_as_a_task_of_its_own():
    """Then that task has it, and breaks it by its end."""

    async def main():
        lock = Lock(name="l")
        assert await create_task(lock.acquire(), name="gone") is True
        assert lock.locked()
        assert lock.owner is None
        assert repr(lock) == "<Lock 'l' broken by task 'gone', which ended without release()>"

    virtual(main())


# ---- `async with` by other hands -----------------------------------------------------------------


def test_in_an_exit_stack():
    async def main():
        lock, log = Lock(), []
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(lock)
            waiting = create_task(hold(lock, log, "next"))
            await sleep(1)
            assert lock.owner is current_task()
        assert lock.owner is waiting
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(lock)  # has to wait
            assert now() == 2.0
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_exit(lock)
            await lock.acquire()
        assert not lock.locked()

    virtual(main())


@pytest.mark.parametrize(
    ("enter", "leave"),
    [
        (lambda lock: lock.__aenter__(), lambda lock: lock.__aexit__(None, None, None)),
        (lambda lock: Lock.__aenter__(lock), lambda lock: Lock.__aexit__(lock, None, None, None)),
    ],
)
def test_by_hand(enter, leave):
    async def main():
        lock = Lock()
        assert await enter(lock) is None
        assert lock.owner is current_task()
        assert await leave(lock) is None
        assert not lock.locked()
        task = await held(lock)
        assert await enter(lock) is None
        assert (now(), task.done()) == (1.0, True)
        await leave(lock)

    virtual(main())


@pytest.mark.parametrize("kind", [Lock, Condition, Semaphore, BoundedSemaphore])
def test_entered_by_an_exit_stack(kind):
    """Which calls the methods of the type."""

    async def main():
        thing = kind()
        async with contextlib.AsyncExitStack() as stack:
            assert await stack.enter_async_context(thing) is None
            assert thing.locked()
        assert not thing.locked()

    virtual(main())


@pytest.mark.parametrize("kind", [Lock, Condition, Semaphore, BoundedSemaphore])
@pytest.mark.parametrize("wrong", [None, 5, object(), Event(), lambda: None])
def test_the_methods_of_a_type_refuse_what_is_of_another(kind, wrong):
    for method in (kind.__aenter__, kind.__aexit__):
        for call in (method, method.__get__):
            if call is method or wrong is not None:
                with pytest.raises(TypeError, match="take an object of their type, not "):
                    call(wrong)
        with pytest.raises(TypeError, match="take an object of their type, not None"):
            method()


def test_it_is_an_async_context_manager():
    assert isinstance(Lock(), contextlib.AbstractAsyncContextManager)
    assert hasattr(Lock, "__aenter__")
    assert not hasattr(Lock, "__enter__")

    async def main():
        with pytest.raises(TypeError), Lock():
            pass

    virtual(main())


# ---- names and reports ---------------------------------------------------------------------------


@pytest.mark.usefixtures("forgetful")
def test_names_and_reprs():
    async def main():
        lock = Lock(name="db")
        assert repr(lock) == "<Lock 'db' unlocked>"
        task = await held(lock, 5)
        waiting = create_task(hold(lock, [], "waits"), name="waits")
        await sleep(2)
        assert repr(lock) == "<Lock 'db' held by task 'holder' since 0.0 s, 1 waiting>"
        assert waiting.waiting_on is lock
        assert "waiting for Lock 'db' held by task 'holder' since 0.0 s" in format_tasks()
        text = "<Lock.acquire() of Lock 'db' held by task 'holder' since 0.0 s, not awaited yet>"
        assert repr(lock.acquire()) == text
        with pytest.raises(WouldBlock, match=r"Lock 'db' held by task 'holder' since 0.0 s"):
            lock.acquire_nowait()
        task.cancel()
        await waiting
        assert repr(lock) == "<Lock 'db' unlocked>"

    virtual(main())


async def take(one, other):
    async with one:
        await sleep(1)
        async with other:
            pass


def test_a_deadlock_names_the_locks():
    async def main():
        first, second = Lock(name="first"), Lock(name="second")
        async with TaskGroup() as group:
            group.create_task(take(first, second), name="a")
            group.create_task(take(second, first), name="b")

    with pytest.raises(DeadlockError) as caught:
        virtual(main())
    assert "Task 'a' take: waiting for Lock 'second' held by task 'b'" in str(caught.value)
    assert "Task 'b' take: waiting for Lock 'first' held by task 'a'" in str(caught.value)


# ---- misuse --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [5, b"db", ["db"], object()])
def test_a_name_must_be_a_str(name):
    with pytest.raises(TypeError, match=r"Lock\(\): name must be a str, not "):
        Lock(name=name)


@pytest.mark.parametrize("method", ["acquire", "acquire_nowait", "release", "locked"])
def test_the_methods_take_no_arguments(method):
    with pytest.raises(TypeError, match=method):
        getattr(Lock(), method)(1)


def test_there_are_no_subclasses_and_no_new_attributes():
    with pytest.raises(TypeError):
        type("Sub", (Lock,), {})
    with pytest.raises(TypeError):
        Lock("name")
    for name in ("extra", "owner", "name"):
        with pytest.raises(AttributeError):
            setattr(Lock(), name, None)
    with pytest.raises(TypeError):
        Lock.__aenter__ = None


ASK = {
    "acquire": lambda lock: lock.acquire(),
    "async with": lambda lock: lock.__aenter__(),
    "type": lambda lock: Lock.__aenter__(lock),
}


@pytest.mark.parametrize("ask", ASK.values(), ids=list(ASK))
def test_to_ask_for_one_s_own_lock_is_an_error_at_once(ask):
    async def main():
        lock = Lock(name="mine")
        async with lock:
            with pytest.raises(
                DeadlockError, match=r"'mine' held by task 'Task-1' since .* wait for itself"
            ):
                await ask(lock)
            with pytest.raises(DeadlockError, match=r"Lock\.acquire_nowait\(\): Lock 'mine' held"):
                lock.acquire_nowait()
            assert lock.owner is current_task()
        assert not lock.locked()

    virtual(main())


def test_only_the_owner_releases():
    async def main():
        lock = Lock(name="l")
        with pytest.raises(
            RuntimeError, match=r"Lock\.release\(\): Lock 'l' is not held by anyone"
        ):
            lock.release()
        with pytest.raises(RuntimeError, match="is not held by anyone"):
            await lock.__aexit__(None, None, None)
        task = await held(lock)
        with pytest.raises(RuntimeError, match=r"held by task 'holder' .* only that task"):
            lock.release()
        with pytest.raises(RuntimeError, match=r"held by task 'holder' .* only that task"):
            Lock.__aexit__(lock, None, None, None)
        assert lock.owner is task
        errors = []

        def call():
            with pytest.raises(RuntimeError, match="only that task can release it") as caught:
                lock.release()
            errors.append(caught.value)

        current_loop().call_soon_threadsafe(call)  # where no task is
        await task
        assert len(errors) == 1
        assert not lock.locked()

    virtual(main())


def test_without_a_loop():
    lock = Lock(name="l")
    with pytest.raises(RuntimeError, match=r"async with Lock\(\) needs a running loop"):
        lock.__aenter__()
    with pytest.raises(RuntimeError, match=r"Lock\.acquire_nowait\(\) needs a running loop"):
        lock.acquire_nowait()
    with pytest.raises(RuntimeError, match=r"Lock\.acquire\(\) needs a running loop"):
        lock.acquire().send(None)
    with pytest.raises(RuntimeError, match="is not held by anyone"):
        lock.release()
    with pytest.raises(RuntimeError, match="is not held by anyone"):
        lock.__aexit__(None, None, None)
    assert not lock.locked()


# ---- the loop is gone ----------------------------------------------------------------------------


async def hold_for_ever(lock):
    async with lock:
        await sleep(math.inf)


async def hold_by_hand(lock):
    await lock.acquire()
    try:
        await sleep(math.inf)
    finally:
        lock.release()


@pytest.mark.filterwarnings("ignore:.*was neither closed nor run to its end:ResourceWarning")
@pytest.mark.parametrize("holder", [hold_for_ever, hold_by_hand])
@pytest.mark.parametrize("end", ["dropped", "closed", "abandoned"])
def test_locks_of_a_loop_that_stops_right_away_are_free(holder, end, caplog, monkeypatch):
    """Its tasks' coroutines are closed, in nobody's step."""
    unraisable = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: unraisable.append(repr(args.exc_value)))
    lock = Lock()
    loop = SleepingLoop(*(holder(lock) for _ in range(3)), speed=math.inf)
    if end == "abandoned":
        loop.create_task(interrupt_twice())
        before = signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be ignored
        try:
            with pytest.raises(KeyboardInterrupt):
                loop.run_until_complete()
        finally:
            signal.signal(signal.SIGINT, before)
    else:
        loop.run_until(5)
        assert repr(lock).endswith("since 0.0 s, 2 waiting>")
        with pytest.raises(RuntimeError, match="belongs to another loop"):
            virtual(lock.acquire())
    if end == "closed":
        loop.close()
    del loop
    gc.collect()
    assert repr(lock) == "<Lock unlocked>"
    assert unraisable == []
    assert caplog.messages == []
    assert virtual(lock.acquire()) is True


async def interrupt_twice():
    await sleep(1)
    signal.raise_signal(signal.SIGINT)
    try:
        await sleep(1)
    finally:
        with CancelScope(shield=True):
            await checkpoint()
        signal.raise_signal(signal.SIGINT)
        with CancelScope(shield=True):
            await sleep(1)


def test_a_loop_that_pauses_has_its_locks():
    """Nobody but whoever drives it could be meant; and then it is passed on as ever."""

    async def hold():
        await lock.acquire()
        await sleep(1)
        log.append(now())

    log, lock = [], Lock()
    loop = SleepingLoop(hold(), hold(), speed=math.inf)
    loop.run_until(0.5)
    lock.release()
    assert lock.owner is loop.tasks()[1]
    assert repr(lock) == "<Lock held by task 'Task-2' since 0.5 s>"

    async def other():
        with pytest.raises(RuntimeError, match=r"by task 'Task-2' since .* belongs to another"):
            await lock.acquire()
        return repr(lock)

    others = SleepingLoop(other(), speed=math.inf)
    assert others.run_until_complete()[0] == repr(lock)
    loop.run_until_complete()
    assert log == [1.0, 1.5]


@pytest.mark.filterwarnings("ignore:.*was neither closed nor run to its end:ResourceWarning")
def test_the_owner_is_known_as_long_as_its_loop_can_go_on():
    locks = [Lock() for _ in range(4)]
    loops = [SleepingLoop(hold(lock, [], "holder", 9), speed=math.inf) for lock in locks]
    for loop in loops:
        loop.run_until(1)
    loops[0].run_until(2)
    del loop, loops[1]  # from between the others
    gc.collect()
    loops[1].close()
    first, dropped, closed, last = (lock.owner for lock in locks)
    assert first is loops[0].tasks()[0]
    assert dropped is None
    assert closed is None
    assert last is loops[2].tasks()[0]
    loops[2].close()
    assert locks[3].owner is None
    loops[0].run_until_complete()
    assert locks[0].owner is None


# ---- cancelled -----------------------------------------------------------------------------------


@pytest.mark.parametrize("ask", ASK.values(), ids=list(ASK))
def test_cancelled_while_it_waits(ask):
    async def main():
        lock, log = Lock(), []
        await held(lock, 5)

        async def wait():
            await ask(lock)

        victim = create_task(wait())
        behind = create_task(hold(lock, log, "behind"))
        await sleep(1)
        victim.cancel()
        assert repr(lock).endswith("1 waiting>")
        await ended(victim)
        await behind
        return log

    assert virtual(main()) == [("behind", 5.0)]


@pytest.mark.parametrize("ask", ASK.values(), ids=list(ASK))
def test_cancelled_when_it_has_been_given_already(ask):
    """It has it, so the await returns, and the block is left by the next one that raises."""

    async def main():
        lock, log = Lock(), []
        await lock.acquire()

        async def victim():
            await ask(lock)
            try:
                log.append("has it")
                await awaited_error(sleep(0))
                assert lock.owner is current_task()
            finally:
                lock.release()
            await sleep(0)

        task = create_task(victim())
        behind = create_task(hold(lock, log, "behind"))
        await checkpoint()
        lock.release()
        task.cancel()
        assert lock.owner is task
        await ended(task)
        await behind
        return log

    assert virtual(main()) == ["has it", ("behind", 0.0)]


def test_cancelled_before_the_release():
    async def main():
        lock, log = Lock(), []
        await lock.acquire()
        victim = create_task(hold(lock, log, "victim"))
        behind = create_task(hold(lock, log, "behind"))
        await checkpoint()
        victim.cancel()
        lock.release()
        assert lock.owner is behind
        await ended(victim)
        await behind
        return log

    assert virtual(main()) == [("behind", 0.0)]


@pytest.mark.parametrize("ask", ASK.values(), ids=list(ASK))
@pytest.mark.parametrize("is_free", [True, False])
def test_in_a_cancelled_scope_it_raises_free_or_not(ask, is_free):
    async def main():
        lock = Lock()
        if not is_free:
            await held(lock)
        before = repr(lock)
        with CancelScope() as scope:
            scope.cancel()
            await awaited_error(ask(lock))
            assert repr(lock) == before
            async with lock:
                raise AssertionError("the block was entered")
        assert scope.cancelled_caught
        assert repr(lock) == before

    virtual(main())


def test_the_end_of_the_block_is_not_cancelled():
    """Leaving it is no place to wait, so it cannot fail to release."""

    async def main():
        lock = Lock()
        with move_on_after(1) as scope:
            async with lock:
                with contextlib.suppress(sleeploop.CancelledError):
                    await sleep(5)
        assert not lock.locked()
        assert scope.cancelled_caught is False
        with pytest.raises(TimeoutError):
            async with timeout(1), lock:
                await sleep(5)
        assert not lock.locked()

    virtual(main())


# ---- many ----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("order", ["front to back", "back to front", "at random"])
def test_many_are_cancelled_but_one(order):
    async def main():
        lock, log = Lock(), []
        await lock.acquire()
        tasks = [create_task(hold(lock, log, number, 0)) for number in range(CROWD)]
        await checkpoint()
        stays = tasks.pop(CROWD // 2)
        if order == "back to front":
            tasks.reverse()
        elif order == "at random":
            random.Random(1).shuffle(tasks)
        for number, task in enumerate(tasks):
            task.cancel()
            if number % 2_000 == 0:
                assert repr(lock).endswith(f", {CROWD - number - 1} waiting>")
                await checkpoint()
        lock.release()
        await stays
        assert not lock.locked()
        assert sum(task.cancelled() for task in tasks) == CROWD - 1
        return log

    assert virtual(main()) == [(CROWD // 2, 0.0)]


@pytest.mark.slow
def test_many_have_their_turn():
    async def main():
        lock, log = Lock(), []

        async def take(number):
            async with lock:
                log.append(number)
                if number % 1000 == 0:
                    await checkpoint()

        async with TaskGroup() as group:
            for number in range(CROWD):
                group.create_task(take(number))
        assert not lock.locked()
        return log

    assert virtual(main()) == list(range(CROWD))


@pytest.mark.slow
def test_many_locks():
    """One task has all of them, another gets them one after the other, a third is behind it."""

    async def main():
        locks = [Lock() for _ in range(CROWD)]

        async def follow():
            for lock in locks:
                await lock.acquire()
            await checkpoint()
            for lock in reversed(locks):
                lock.release()

        for lock in locks:
            await lock.acquire()
        tasks = [create_task(follow()), create_task(follow())]
        for lock in locks:
            lock.release()
            await checkpoint()
        for task in tasks:
            await task
        assert not any(lock.locked() for lock in locks)
        return all(task.done() for task in tasks)

    assert virtual(main()) is True


# ---- beside asyncio ------------------------------------------------------------------------------


def test_the_surface_is_asyncio_s():
    """Whatever one can do with asyncio's lock, one can do with this one."""
    for name in vars(asyncio.Lock):
        if not name.startswith("_"):
            assert callable(getattr(Lock, name))
            theirs = [*inspect.signature(getattr(asyncio.Lock, name)).parameters]
            assert [*inspect.signature(getattr(Lock, name)).parameters] == theirs


async def contend(api, log):
    """The same program for both."""
    lock = api.Lock()

    async def work(name):
        for turn in range(3):
            async with lock:
                log.append((name, turn, lock.locked()))
                await api.sleep(0)

    await api.gather(*(work(name) for name in "abc"))
    log.append(lock.locked())


def test_the_same_program_on_asyncio():
    """There who releases a lock and takes it again comes before those who wait, if they have not
    run yet; here it does not."""
    ours, theirs = [], []
    virtual(contend(sleeploop, ours))
    asyncio.run(contend(asyncio, theirs))
    assert ours == [*((name, turn, True) for turn in range(3) for name in "abc"), False]
    assert sorted(theirs[:-1]) == sorted(ours[:-1])
    assert theirs[-1] is False


# ---- since when ----------------------------------------------------------------------------------


def test_since_when_it_is_had_by_whoever_comes_next():
    async def use(seconds):
        async with lock:
            times.append(repr(lock))
            await sleep(seconds)

    async def main():
        async with TaskGroup() as group:
            group.create_task(use(2), name="a")
            group.create_task(use(3), name="b")
            await sleep(6)
            await lock.acquire()
            times.append(repr(lock))
            await sleep(1)
            lock.release()
            await lock.acquire()
            times.append(repr(lock))
        lock.release()

    lock, times = Lock(), []
    virtual(main())
    assert [re.search(r"since (\S+) s", text)[1] for text in times] == ["0.0", "2.0", "6.0", "7.0"]
