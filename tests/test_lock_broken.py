"""A Lock whose owner has ended without release(): nobody has it again, and whoever asks is told."""

import contextlib
import gc
import math

import pytest

from sleeploop import (
    BrokenResourceError,
    CancelledError,
    CancelScope,
    DeadlockError,
    Event,
    Interrupt,
    Lock,
    SleepingLoop,
    TaskGroup,
    all_of,
    checkpoint,
    create_task,
    current_task,
    first_of,
    format_tasks,
    move_on_after,
    run,
    sleep,
    sleep_forever,
)
from tests.helpers import now, outcome, virtual

BROKEN = "Lock 'l' broken by task 'keeper', which ended without release()"


async def keep(lock, seconds=0.0):
    await lock.acquire()
    await sleep(seconds)


async def want(lock):
    async with lock:
        return "had"


async def want_by_hand(lock):
    await lock.acquire()
    return "had"


def error_of(outcome):
    assert type(outcome) is BrokenResourceError, outcome
    return str(outcome)


# ---- who is told, and when -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ask", "function"), [(want, "async with Lock()"), (want_by_hand, "Lock.acquire()")]
)
def test_those_who_wait_are_told_when_the_owner_ends(ask, function):
    async def main():
        lock, log = Lock(name="l"), []

        async def one(name):
            log.append((name, error_of(await outcome(ask(lock))), now()))

        create_task(keep(lock, 3), name="keeper")
        await checkpoint()
        async with TaskGroup() as group:
            for name in "abc":
                group.create_task(one(name))
            await sleep(1)
            assert log == []
            assert "held by task 'keeper'" in format_tasks()
        assert repr(lock) == f"<{BROKEN}>"
        return log

    assert virtual(main()) == [(name, f"{function}: {BROKEN}", 3.0) for name in "abc"]


def test_who_comes_later_is_told_at_once():
    async def main():
        lock = Lock(name="l")
        await create_task(keep(lock), name="keeper")
        assert lock.locked()
        assert lock.owner is None
        switched = create_task(checkpoint())
        for _ in range(2):  # it stays so
            assert error_of(await outcome(lock.acquire())) == f"Lock.acquire(): {BROKEN}"
            assert error_of(await outcome(want(lock))) == f"async with Lock(): {BROKEN}"
            with pytest.raises(BrokenResourceError) as info:
                lock.acquire_nowait()
            assert str(info.value) == f"Lock.acquire_nowait(): {BROKEN}"
            with pytest.raises(BrokenResourceError) as info:
                lock.release()
            assert str(info.value) == f"Lock.release(): {BROKEN}"
        assert not switched.done()
        return lock

    lock = virtual(main())
    for _ in range(2):  # another loop's tasks, too
        with pytest.raises(BrokenResourceError, match="by task 'keeper'"):
            virtual(lock.acquire())
        with pytest.raises(BrokenResourceError, match="by task 'keeper'"):
            lock.release()
    assert repr(lock) == f"<{BROKEN}>"


def test_a_task_without_a_name_and_a_lock_without_one():
    async def main():
        lock = Lock()
        await create_task(keep(lock))
        return error_of(await outcome(lock.acquire()))

    text = "Lock.acquire(): Lock broken by task 'Task-2', which ended without release()"
    assert virtual(main()) == text


def test_a_task_of_the_next_loop_has_the_number_of_the_one_that_is_gone():
    lock = Lock(name="l")
    virtual(lock.acquire())

    async def other():
        assert lock.owner is None
        with pytest.raises(BrokenResourceError):
            lock.acquire_nowait()
        with pytest.raises(BrokenResourceError):
            await lock.acquire()
        with pytest.raises(BrokenResourceError):
            lock.release()

    virtual(other())


@pytest.mark.parametrize("end", ["return", "fail", "cancel", "interrupt", "exit", "end of run"])
def test_however_the_owner_ends(end):
    async def main():
        async def owner():
            await lock.acquire()
            ready.set()
            if end == "fail":
                await sleep(1)
                raise ValueError
            await (sleep(1) if end == "return" else sleep_forever())

        ready = Event()
        task = create_task(owner(), name="keeper")
        await ready.wait()
        waiting = create_task(outcome(lock.acquire()))
        await sleep(1)
        if end == "end of run":
            return "Lock.acquire(): " + BROKEN  # the one who waits is cancelled as well
        if end == "cancel":
            task.cancel()
        elif end == "interrupt":
            task.interrupt()
        elif end == "exit":
            task.interrupt(SystemExit())
        told = error_of(await waiting)
        await outcome(create_task(ended(task)))
        return told

    async def ended(task):
        with contextlib.suppress(CancelledError, Interrupt, ValueError):
            await task

    lock = Lock(name="l")
    assert run(main(), speed=math.inf) == f"Lock.acquire(): {BROKEN}"
    with pytest.raises(BrokenResourceError, match="keeper"):
        virtual(lock.acquire())


def test_whoever_a_failure_cancels_as_well_is_cancelled():
    """The group raises what has failed, and not what that has led to."""

    async def main():
        async def fails():
            await lock.acquire()
            await sleep(1)
            raise ValueError

        async with TaskGroup() as group:
            group.create_task(fails(), name="keeper")
            await checkpoint()
            group.create_task(want(lock))

    lock = Lock(name="l")
    with pytest.raises(ExceptionGroup) as info:
        virtual(main())
    assert [type(error) for error in info.value.exceptions] == [ValueError]
    assert repr(lock) == f"<{BROKEN}>"


def test_who_has_been_cancelled_or_interrupted_first():
    async def main():
        lock, log = Lock(name="l"), []

        async def one():
            try:
                await lock.acquire()
            except (CancelledError, Interrupt) as error:
                log.append(type(error))
                raise

        async def owner():
            await lock.acquire()
            await sleep(1)
            tasks[0].cancel()
            tasks[1].interrupt()

        create_task(owner(), name="keeper")
        await checkpoint()
        tasks = [create_task(one()) for _ in range(3)]
        await sleep(2)
        assert tasks[0].cancelled()
        assert isinstance(tasks[1].exception(), Interrupt)
        assert isinstance(tasks[2].exception(), BrokenResourceError)
        return log

    assert virtual(main()) == [CancelledError, Interrupt]


def test_who_has_been_told_is_cancelled_at_its_next_await():
    async def main():
        lock, log = Lock(name="l"), []

        async def one():
            with CancelScope() as scope:
                scopes.append(scope)
                log.append(error_of(await outcome(lock.acquire())))
                await checkpoint()
                log.append("not reached")

        async def owner():
            await lock.acquire()
            await sleep(1)

        async def after(task):
            await task
            scopes[0].cancel()

        scopes = []
        create_task(after(create_task(owner(), name="keeper")))
        await checkpoint()
        await create_task(one())
        return log

    assert virtual(main()) == [f"Lock.acquire(): {BROKEN}"]


def test_many_wait_and_many_locks():
    async def main():
        n = 200
        locks = [Lock(name=f"{i}") for i in range(n)]  # more than a task's counter can tell
        free = [Lock() for _ in range(n)]

        async def owner():
            for lock in locks:
                await lock.acquire()
            for lock in free:
                async with lock:
                    pass
            await sleep(1)
            for lock in locks[1::2]:
                lock.release()

        create_task(owner(), name="keeper")
        await checkpoint()
        outcomes = [create_task(outcome(want(lock))) for lock in locks * 2]
        await sleep(2)
        assert all([await want(lock) == "had" for lock in free])
        return {type(await outcomes[i]) for i in range(0, n, 2)}, {
            await outcomes[i] for i in range(1, n, 2)
        }

    assert virtual(main()) == ({BrokenResourceError}, {"had"})


@pytest.mark.parametrize("n", [254, 255, 256, 300])
@pytest.mark.parametrize("is_released", [False, True])
def test_a_task_with_more_locks_than_are_counted(n, is_released):
    async def main():
        locks = [Lock() for _ in range(n)]

        async def owner():
            for lock in locks:
                await lock.acquire()
            if is_released:
                for lock in locks[:-1]:
                    lock.release()

        await create_task(owner())
        return [type(await outcome(want(lock))) for lock in locks]

    broken = [BrokenResourceError]
    assert virtual(main()) == ([str] * (n - 1) + broken if is_released else broken * n)


def test_a_lock_that_is_released_again_and_again_is_not_broken():
    async def main():
        lock = Lock()

        async def owner():
            for _ in range(600):
                await lock.acquire()
                lock.release()

        await create_task(owner())
        return await want(lock)

    assert virtual(main()) == "had"


# ---- whose it is ---------------------------------------------------------------------------------


@pytest.mark.parametrize("several", [first_of, all_of])
def test_what_is_got_by_several_at_once_is_the_caller_s(several):
    async def main():
        lock = Lock(name="l")

        async def owner():
            await several(lock.acquire())
            assert lock.owner is current_task()
            await sleep(1)

        create_task(owner(), name="keeper")
        await checkpoint()
        assert error_of(await outcome(first_of(lock.acquire(), sleep_forever())))
        assert now() == 1.0
        return error_of(await outcome(several(lock.acquire())))

    assert virtual(main()) == f"Lock.acquire(): {BROKEN}"


def test_what_is_got_by_several_at_once_and_released():
    async def main():
        lock = Lock(name="l")

        async def owner(ask):
            await ask()
            lock.release()

        async def all_or_none():
            try:
                await all_of(lock.acquire(), fails())
            except ValueError:
                assert not lock.locked()  # given back
                await lock.acquire()

        async def fails():
            await checkpoint()
            raise ValueError

        for ask in lambda: first_of(lock.acquire()), lambda: all_of(lock.acquire()), all_or_none:
            await create_task(owner(ask))
        return await want(lock)

    assert virtual(main()) == "had"


def test_handed_over_to_a_task_that_is_ending():
    """It has been given the lock, is cancelled, and raises at its next await without release()."""

    async def main():
        lock = Lock(name="l")

        async def ends():
            await lock.acquire()
            await checkpoint()

        async with lock:
            task = create_task(ends(), name="keeper")
            await checkpoint()
            waiting = create_task(outcome(lock.acquire()))
            await checkpoint()
        task.cancel()
        return error_of(await waiting), task.cancelled()

    assert virtual(main()) == (f"Lock.acquire(): {BROKEN}", True)


def test_released_between_two_runs():
    async def main():
        await create_task(keep(lock, 10))

    lock = Lock(name="l")
    loop = SleepingLoop(main(), speed=math.inf)
    loop.run_until(5)
    lock.release()  # whoever calls is believed
    loop.run_until_complete()
    assert virtual(want(lock)) == "had"


def test_taken_between_two_runs_of_its_loop_by_another():
    async def other():
        with pytest.raises(RuntimeError, match="belongs to another loop"):
            await lock.acquire()

    lock = Lock(name="l")
    loop = SleepingLoop(keep(lock, 10), speed=math.inf)
    loop.run_until(5)
    virtual(other())
    loop.run_until_complete()
    with pytest.raises(BrokenResourceError, match="by task 'Task-1'"):
        virtual(lock.acquire())


@pytest.mark.filterwarnings("ignore:.*was neither closed nor run to its end:ResourceWarning")
@pytest.mark.parametrize("end", ["dropped", "closed"])
def test_a_loop_that_stops_right_away_with_a_lock_that_nobody_releases(end):
    lock = Lock(name="l")
    loop = SleepingLoop(keep(lock, 10), outcome(lock.acquire()), speed=math.inf)
    loop.run_until(5)
    if end == "closed":
        loop.close()
    del loop
    gc.collect()
    with pytest.raises(BrokenResourceError, match="by task 'Task-1'"):
        virtual(lock.acquire())


def test_the_lock_may_die_before_its_owner_and_its_loop_before_the_lock():
    async def main():
        for _ in range(3):
            await Lock().acquire()
        await lock.acquire()

    lock = Lock()
    virtual(main())
    gc.collect()
    assert "broken by task 'Task-1'" in repr(lock)


# ---- async generators that are left unfinished ---------------------------------------------------


async def items(lock, seconds=0.0):
    async with lock:
        try:
            yield 1
        finally:
            with CancelScope(shield=True):
                await sleep(seconds)


@pytest.mark.parametrize("seconds", [0, 3])
def test_a_generator_that_the_owner_leaves_behind_releases_it(seconds):
    """It is closed by the loop, after the task has ended."""

    async def main():
        lock = Lock(name="l")

        async def first():
            async for _ in items(lock, seconds):
                await sleep(1)
                return

        task = create_task(first())
        await checkpoint()
        waiting = create_task(want(lock))
        await task
        assert await want(lock) == "had"
        assert await waiting == "had"
        return now()

    assert virtual(main()) == 1.0 + seconds


def test_the_generator_does_not_release_it():
    async def main():
        async def leaky():
            await lock.acquire()
            try:
                yield 1
            finally:
                await sleep(3)

        async def first():
            async for _ in leaky():
                return

        lock = Lock(name="l")
        task = create_task(first(), name="keeper")
        waiting = create_task(outcome(lock.acquire()))
        await task
        told = error_of(await waiting), now()
        return told

    assert virtual(main()) == (f"Lock.acquire(): {BROKEN}", 3.0)


def test_a_generator_that_outlives_its_task_finds_the_lock_broken():
    async def main():
        lock, kept = Lock(name="l"), []

        async def first():
            kept.append(items(lock))
            async for _ in kept[0]:
                return

        await create_task(first(), name="keeper")
        assert error_of(await outcome(lock.acquire())) == f"Lock.acquire(): {BROKEN}"
        await kept.pop().aclose()
        return error_of(await outcome(lock.acquire()))

    assert virtual(main()) == f"Lock.acquire(): {BROKEN}"


# ---- the end of a block --------------------------------------------------------------------------


def test_the_end_of_a_block_of_a_lock_that_somebody_else_has_broken():
    """A block that has released its lock by hand, so that another task could take it."""

    async def main(error):
        lock = Lock(name="l")
        async with lock:
            lock.release()
            await create_task(keep(lock), name="keeper")
            if error is not None:
                raise error

    with pytest.raises(BrokenResourceError, match="broken by task 'keeper'"):
        virtual(main(None))
    with pytest.raises(ValueError, match="mine"):
        virtual(main(ValueError("mine")))


def test_in_a_cancelled_scope_the_cancellation_comes_first():
    async def main():
        lock = Lock(name="l")
        await create_task(keep(lock), name="keeper")
        with move_on_after(0) as scope:
            await lock.acquire()
        return scope.cancelled_caught

    assert virtual(main()) is True


def test_no_false_deadlock_and_no_deadlock_unseen():
    async def main():
        lock = Lock(name="l")
        create_task(keep(lock, 5), name="keeper")
        await checkpoint()
        with pytest.raises(BrokenResourceError):
            await lock.acquire()
        await Event().wait()

    with pytest.raises(DeadlockError, match=r"Event"):
        virtual(main())
