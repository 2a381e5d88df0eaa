"""Awaits that need not wait: they do not switch tasks, and raise a deadline that has passed."""

import contextlib
import math
import time

import pytest

import sleeploop
from sleeploop import (
    CancelledError,
    CancelScope,
    Condition,
    Event,
    Lock,
    TaskGroup,
    all_of,
    as_completed,
    checkpoint,
    create_task,
    first_of,
    gather,
    move_on_after,
    run,
    sleep,
    sleep_forever,
    timeout,
    wait_for,
)
from tests.helpers import virtual


def event():
    it = Event()
    it.set()
    return it


def queue(kind=sleeploop.Queue):
    it = kind()
    it.put_nowait(1)
    return it


def channel():
    send, receive = sleeploop.open_channel(2)
    send.send_nowait(1)
    return send, receive


def container():
    return sleeploop.Container(10, level=5)


def store():
    it = sleeploop.Store()
    it.put_nowait(1)
    return it


async def nothing():
    pass


async def ended():
    task = create_task(nothing())
    await checkpoint()
    await checkpoint()
    assert task.done()
    return task


async def within(block):
    async with block:
        pass


async def first(iteration):
    async for item in iteration:
        return item
    raise AssertionError("it is over")


async def wait_in_condition(it):
    await it.acquire()
    try:
        await it.wait_for(lambda: True)
    finally:
        it.release()


# What is made beforehand, and what is done with it that need not wait.
AWAITS = {
    "Event.wait": (event, lambda it: it.wait()),
    "Lock.acquire": (Lock, lambda it: it.acquire()),
    "Lock block": (Lock, within),
    "Condition.acquire": (Condition, lambda it: it.acquire()),
    "Condition block": (Condition, within),
    "Condition.wait_for": (Condition, wait_in_condition),
    "Semaphore.acquire": (sleeploop.Semaphore, lambda it: it.acquire()),
    "Semaphore block": (sleeploop.Semaphore, within),
    "BoundedSemaphore block": (lambda: sleeploop.BoundedSemaphore(1), within),
    "CapacityLimiter.acquire": (lambda: sleeploop.CapacityLimiter(1), lambda it: it.acquire()),
    "CapacityLimiter.acquire_on_behalf_of": (
        lambda: sleeploop.CapacityLimiter(1),
        lambda it: it.acquire_on_behalf_of("me"),
    ),
    "CapacityLimiter block": (lambda: sleeploop.CapacityLimiter(1), within),
    "Barrier.wait": (lambda: sleeploop.Barrier(1), lambda it: it.wait()),
    "Barrier block": (lambda: sleeploop.Barrier(1), within),
    "Queue.put": (queue, lambda it: it.put(2)),
    "Queue.get": (queue, lambda it: it.get()),
    "Queue.join": (sleeploop.Queue, lambda it: it.join()),
    "Queue iterated": (queue, first),
    "PriorityQueue.get": (lambda: queue(sleeploop.PriorityQueue), lambda it: it.get()),
    "LifoQueue.get": (lambda: queue(sleeploop.LifoQueue), lambda it: it.get()),
    "SendChannel.send": (channel, lambda it: it[0].send(2)),
    "ReceiveChannel.receive": (channel, lambda it: it[1].receive()),
    "ReceiveChannel iterated": (channel, lambda it: first(it[1])),
    "Resource.request": (sleeploop.Resource, lambda it: it.request()),
    "Resource block": (sleeploop.Resource, lambda it: within(it.request())),
    "Container.put": (container, lambda it: it.put(1)),
    "Container.get": (container, lambda it: it.get(1)),
    "Store.put": (store, lambda it: it.put(2)),
    "Store.get": (store, lambda it: it.get()),
    "Store.get with a filter": (store, lambda it: it.get(lambda item: item == 1)),
    "a task that has ended": (ended, lambda it: it),
    "wait_for a task that has ended": (ended, lambda it: wait_for(it, 5)),
    "wait_for what need not wait": (event, lambda it: wait_for(it.wait(), math.inf)),
    "as_completed": (ended, lambda it: first(as_completed([it]))),
    "TaskGroup without a task": (TaskGroup, within),
    "gather of nothing": (lambda: None, lambda _: gather()),
    "all_of nothing": (lambda: None, lambda _: all_of()),
    "all_of what need not wait": (Lock, lambda it: all_of(it.acquire())),
    "first_of what need not wait": (Lock, lambda it: first_of(it.acquire(), sleep_forever())),
    "first_of a task that has ended": (ended, lambda it: first_of(it, sleep_forever())),
}
# These wait for tasks of theirs.
SWITCH = {"all_of what need not wait", "first_of what need not wait"}
every_await = pytest.mark.parametrize(("make", "use"), AWAITS.values(), ids=list(AWAITS))


async def made(make):
    it = make()
    return await it if hasattr(it, "send") else it


def spend(seconds=0.02):
    """In one step, and longer than any clock's grain."""
    time.sleep(seconds)


@pytest.mark.realtime
@every_await
def test_a_deadline_that_has_passed_is_raised_as_any_cancellation(make, use):
    async def main():
        it = await made(make)
        before, errors = repr(it), []
        for scope, late in (CancelScope(), False), (move_on_after(0.005), True):
            with scope:
                if late:
                    spend()
                else:
                    scope.cancel()
                try:
                    await use(it)
                except CancelledError as error:
                    errors.append(error.source)
                    raise
            assert scope.cancelled_caught
            if not isinstance(it, TaskGroup):
                assert repr(it) == before  # nothing has been taken
            else:
                it = TaskGroup()
        return errors

    assert run(main()) == ["explicit", "deadline"]


@pytest.mark.realtime
@every_await
def test_a_deadline_behind_a_shield_or_of_another_task_is_none_of_its_own(make, use):
    async def limited():
        with move_on_after(0.005):
            await sleep_forever()

    async def main():
        it = await made(make)
        create_task(limited())
        await checkpoint()
        with move_on_after(0.005), CancelScope(shield=True):
            spend()
            await use(it)
        return "done"

    assert run(main()) == "done"


@pytest.mark.parametrize("is_limited", [False, True])
@pytest.mark.parametrize("name", [name for name in AWAITS if name not in SWITCH])
def test_they_do_not_switch_tasks(name, is_limited):
    make, use = AWAITS[name]

    async def main():
        switched = Event()

        async def other():
            switched.set()

        it = await made(make)
        create_task(other())
        with timeout(5) if is_limited else contextlib.nullcontext():
            await use(it)
            assert not switched.is_set()
            await checkpoint()
            assert switched.is_set()

    virtual(main())
    run(main())


@every_await
def test_virtual_time_does_not_pass_in_a_step(make, use):
    async def main():
        it = await made(make)
        with move_on_after(1e-9) as scope:
            spend(0.001)
            await use(it)
        return scope.cancel_called

    assert virtual(main()) is False


@pytest.mark.realtime
@pytest.mark.parametrize("speed", [0.5, 1.0, 1000.0])
def test_no_loop_of_them_outlives_its_timeout(speed):
    async def main():
        it = event()
        async with timeout(0.005 * speed):
            while True:
                await it.wait()

    with pytest.raises(TimeoutError):
        run(main(), speed=speed)


@pytest.mark.realtime
def test_a_paused_clock_makes_nothing_late():
    async def main():
        with move_on_after(0.001) as scope:
            sleeploop.current_loop().speed = 0
            spend()
            await event().wait()
        return scope.cancel_called

    assert run(main()) is False


@pytest.mark.realtime
def test_a_clock_is_not_late_beyond_its_limit():
    async def main():
        with move_on_after(0.005) as scope:
            await sleep(0.001)
            spend()
            await event().wait()
        return scope.cancel_called

    loop = sleeploop.SleepingLoop(main())
    loop.run_until(0.004)  # there time stands still
    assert loop.run_until_complete() == [False]


@pytest.mark.realtime
def test_all_that_are_inside_of_the_scope_are_cancelled_with_it():
    async def main():
        log = []

        async def stay():
            try:
                await sleep_forever()
            except CancelledError as error:
                log.append(error.source)
                raise

        with move_on_after(0.005) as outer:
            async with TaskGroup() as group:
                group.create_task(stay())
                await checkpoint()
                with move_on_after(0.001) as inner:
                    spend()
                    await event().wait()
        return log, outer.cancelled_caught, inner.cancelled_caught

    assert run(main()) == (["deadline"], True, False)  # the outermost counts, as ever


@pytest.mark.realtime
def test_the_end_of_an_empty_group_whose_own_deadline_has_passed():
    async def main():
        async with TaskGroup() as group:
            group.cancel_scope.deadline = sleeploop.current_loop().time() + 0.005
            spend()
        return group.cancel_scope.cancelled_caught

    assert run(main()) is False


@pytest.mark.realtime
def test_a_task_that_ended_in_an_earlier_run():
    async def main():
        return await ended()

    old = run(main())

    async def other():
        with move_on_after(0.005) as scope:
            await old
            spend()
            await old
        assert scope.cancelled_caught
        with CancelScope() as scope:
            scope.cancel()
            await old
        return scope.cancelled_caught

    assert run(other()) is True


# ---- deadlines that come to a task otherwise than by a block of its own --------------------------


async def is_late():
    spend()
    try:
        await event().wait()
    except CancelledError:
        return True
    return False


@pytest.mark.realtime
@pytest.mark.parametrize("inner", [contextlib.nullcontext, CancelScope])
def test_a_deadline_set_around_tasks_that_are_there(inner):
    async def task():
        with inner():
            await checkpoint()
            await checkpoint()
            log.append(await is_late())

    async def main():
        async with TaskGroup() as group:
            group.create_task(task())
            await checkpoint()
            group.cancel_scope.deadline = sleeploop.current_loop().time() + 0.005

    log = []
    run(main())
    assert log == [True]


@pytest.mark.realtime
def test_a_deadline_that_is_taken_away_or_moved():
    async def main():
        log = []
        with timeout(0.005) as scope:
            scope.reschedule(None)
            log.append(await is_late())
            scope.reschedule(sleeploop.current_loop().time() + 60)
            log.append(await is_late())
            scope.reschedule(None)
            scope.reschedule(sleeploop.current_loop().time() + 0.005)
            log.append(await is_late())
        log.append(await is_late())
        return log

    assert run(main()) == [False, False, True, False]


@pytest.mark.realtime
def test_a_shield_that_is_taken_away():
    async def main():
        log = []
        with move_on_after(0.005), CancelScope(shield=True) as scope:
            log.append(await is_late())
            scope.shield = False
            log.append(await is_late())
            scope.shield = True
            log.append(await is_late())
        return log

    assert run(main()) == [False, True, False]


@pytest.mark.realtime
def test_a_task_that_moves_into_a_group_with_a_deadline():
    async def task(*, started):
        started()
        log.append(await is_late())

    async def main():
        async with TaskGroup() as group:
            with CancelScope(shield=True):
                group.cancel_scope.deadline = sleeploop.current_loop().time() + 0.005
                await group.start(task)

    log = []
    run(main())
    assert log == [True]


@pytest.mark.realtime
def test_a_deadline_that_was_seen_and_moved_before_the_task_yields():
    """What sees it is driven by hand, and its yield never gets to the loop."""

    async def main():
        with timeout(0.005) as scope:
            spend()
            waiting = event().wait()
            assert waiting.send(None) is waiting  # it has to yield
            scope.reschedule(60)
            await checkpoint()
            await event().wait()
            return scope.expired()

    assert run(main()) is False
