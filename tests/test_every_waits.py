"""every(): cancelled waits, two tasks at one schedule, awaitables in wrong hands, jitter."""

import gc
import math
import types
import weakref
from contextlib import suppress

import pytest

from sleeploop import (
    CancelScope,
    SleepingLoop,
    TaskGroup,
    checkpoint,
    create_task,
    every,
    move_on_after,
    run,
    sleep,
)
from tests.helpers import Thing, ended, fail, now, outcome, references, virtual, yielding


async def take(ticks, count):
    return [await anext(ticks) for _ in range(count)]


def facts(ticks):
    return [(tick.index, tick.due, tick.lateness, tick.missed) for tick in ticks]


# ---- cancellation --------------------------------------------------------------------------------


def test_a_wait_that_is_cancelled_loses_no_tick():
    async def main():
        ticks = every(10)
        taken = []
        while len(taken) < 4:
            with move_on_after(4) as scope:
                taken.append(await anext(ticks))
            assert scope.cancelled_caught == (now() % 10 != 0)
        return taken

    assert facts(virtual(main())) == [(k, k * 10.0, 0.0, 0) for k in range(4)]


@pytest.mark.parametrize(
    ("missed", "expected"),
    [
        ("skip", [(4, 4.0, 0.5, 3), (5, 5.0, 0.0, 0)]),
        ("burst", [(1, 1.0, 3.5, 0), (2, 2.0, 2.5, 0)]),
        ("delay", [(1, 1.0, 3.5, 0), (2, 5.5, 0.0, 0)]),
    ],
)
def test_an_overdue_tick_is_not_lost_either(missed, expected):
    async def main():
        ticks = every(1, missed=missed)
        await anext(ticks)
        await sleep(4.5)
        with CancelScope() as scope:
            scope.cancel()
            await anext(ticks)
        assert scope.cancelled_caught
        return await take(ticks, 2)

    assert facts(virtual(main())) == expected


def test_every_await_of_a_cancelled_task_raises():
    async def main():
        ticks = every(1)
        attempts = 0
        with CancelScope() as scope:
            scope.cancel()
            for _ in range(3):
                with pytest.raises(BaseException, match="cancel"):
                    await anext(ticks)
                attempts += 1
        assert attempts == 3
        await sleep(2.5)
        return await take(ticks, 1)

    # The first await, though cancelled, has set the start.
    assert facts(virtual(main())) == [(2, 2.0, 0.5, 2)]


def test_a_tick_that_has_come_is_delivered():
    async def main():
        task = create_task(take(ticks, 1))
        await sleep(1)  # due at the same time, and first
        task.cancel()
        return await task

    ticks = every(1, start=1)
    assert facts(virtual(main())) == [(0, 1.0, 0.0, 0)]


def test_a_cancelled_task_lets_go_of_the_schedule():
    async def main():
        ticks = every(10, start=10)
        task = create_task(take(ticks, 1))
        await sleep(1)
        task.cancel()
        await ended(task)
        return await take(ticks, 1)

    assert facts(virtual(main())) == [(0, 10.0, 0.0, 0)]


def test_a_run_that_ends_cancels_the_wait():
    async def ticker():
        try:
            async for _ in every(10):
                pass
        finally:
            log.append(now())

    async def main():
        create_task(ticker())
        await sleep(15)

    log = []
    virtual(main())
    assert log == [15.0]


# ---- several tasks -------------------------------------------------------------------------------


def test_one_at_a_time():
    async def main():
        ticks = every(1, start=1)
        async with TaskGroup() as group:
            first = group.create_task(take(ticks, 2))
            second = group.create_task(outcome(anext(ticks)))
        assert "one at a time" in str(second.result())
        return first.result() + await take(ticks, 1)

    assert facts(virtual(main())) == [(0, 1.0, 0.0, 0), (1, 2.0, 0.0, 0), (2, 3.0, 0.0, 0)]


def test_two_tasks_take_turns():
    async def main():
        ticks = every(1)
        return [(await create_task(take(ticks, 1)))[0].index for _ in range(4)]

    assert virtual(main()) == [0, 1, 2, 3]


def test_an_awaitable_is_awaited_once():
    async def main():
        ticks = every(1)
        awaitable = anext(ticks)
        assert (await awaitable).index == 0
        with pytest.raises(RuntimeError, match="awaited before"):
            await awaitable
        return await take(ticks, 1)

    assert facts(virtual(main())) == [(1, 1.0, 0.0, 0)]


def test_one_awaitable_in_two_tasks():
    async def wait():
        return await awaitable

    awaitable = anext(every(1, start=1))
    loop = SleepingLoop(wait(), outcome(awaitable), speed=math.inf)
    tick, error = loop.run_until_complete()
    assert tick.index == 0
    assert "awaited before" in str(error)


# ---- by hand -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("forgetful")
def test_awaitables_by_hand():
    ticks = every(1)
    awaitable = ticks.__anext__()
    assert iter(awaitable) is awaitable.__await__() is awaitable
    with pytest.raises(KeyError, match="'x'"):
        awaitable.throw(KeyError("x"))
    with pytest.raises(RuntimeError, match="awaited before"):
        awaitable.send(None)
    with pytest.raises(RuntimeError, match="awaited before"):
        iter(awaitable)
    awaitable.close()
    for wrong, message in (((5,), "takes an exception, not 5"), ((), "argument")):
        with pytest.raises(TypeError, match=message):
            ticks.__anext__().throw(*wrong)


def test_a_task_of_nothing_else():
    async def main():
        return await create_task(every(1, start=3).__anext__())

    assert facts([virtual(main())]) == [(0, 3.0, 0.0, 0)]


@types.coroutine
def impatient(awaitable):
    """Resume it at once, and again, before it reaches the loop."""
    for _ in range(3):
        assert next(awaitable) is awaitable
    while True:
        try:
            yield next(awaitable)
        except StopIteration as stop:
            return stop.value


def test_a_tick_is_never_early():
    async def main():
        tick = await impatient(every(1, start=5).__anext__())
        assert now() == 5
        return tick

    assert facts([virtual(main())]) == [(0, 5.0, 0.0, 0)]


def test_the_wake_up_belongs_to_the_task_that_waits():
    async def thief():
        with pytest.raises(RuntimeError, match="awaited before"):
            next(awaitable)
        with pytest.raises(TypeError, match="cannot wait"):
            await yielding(awaitable)

    async def main():
        task = create_task(thief())
        tick = await awaitable
        await task
        return tick

    awaitable = every(1, start=5).__anext__()
    assert facts([virtual(main())]) == [(0, 5.0, 0.0, 0)]


def test_a_wait_that_another_run_began():
    async def begin():
        assert next(awaitable) is awaitable

    async def main():
        with pytest.raises(RuntimeError, match="awaited before"):
            next(awaitable)
        with pytest.raises(TypeError, match="cannot wait"):
            await yielding(awaitable)

    awaitable = every(1).__anext__()
    virtual(begin())
    virtual(main())


def test_a_wait_that_is_dropped_lets_go_of_the_schedule():
    async def main():
        ticks = every(1)
        awaitable = ticks.__anext__()
        assert next(awaitable) is awaitable
        assert "one at a time" in str(await outcome(anext(ticks)))
        del awaitable
        await anext(ticks)
        for end in (lambda trap: trap.close(), lambda trap: trap.throw(KeyError)):
            awaitable = ticks.__anext__()
            next(awaitable)
            with suppress(KeyError):
                end(awaitable)
            with pytest.raises(RuntimeError, match="awaited before"):
                next(awaitable)
            taken.extend(await take(ticks, 1))

    taken = []
    virtual(main())
    assert facts(taken) == [(1, 1.0, 0.0, 0), (2, 2.0, 0.0, 0)]


@pytest.mark.usefixtures("forgetful")
def test_many_awaitables_of_one_schedule():
    async def main():
        ticks = every(1)
        waits = [ticks.__anext__() for _ in range(100)]
        indexes = [(await waits.pop()).index for _ in range(50)]
        waits.clear()
        indexes += [tick.index for tick in await take(ticks, 50)]
        return indexes

    assert virtual(main()) == list(range(100))


def test_an_awaitable_keeps_its_schedule_alive():
    async def main():
        return await every(1, start=2).__anext__()

    assert facts([virtual(main())]) == [(0, 2.0, 0.0, 0)]


def test_leaving_the_loop_leaves_nothing_behind():
    async def main():
        ticks = every(1)
        before = references(ticks)
        async for tick in ticks:
            if tick.index == 3:
                break
        assert references(ticks) == before
        await checkpoint()
        return now()

    assert virtual(main()) == 3.0


def test_a_failed_run_lets_go_of_the_schedule():
    async def main(thing):
        async for _ in ticks:
            pass

    ticks, thing = every(1), Thing()
    ref, before = weakref.ref(thing), references(ticks)
    loop = SleepingLoop(main(thing), fail(ZeroDivisionError(), 5), speed=math.inf)
    with pytest.raises(ZeroDivisionError):
        loop.run_until_complete()
    del loop, thing
    gc.collect()
    assert ref() is None
    assert references(ticks) == before


# ---- jitter --------------------------------------------------------------------------------------


def dues(*args, count=200, **options):
    return [tick.due_ns for tick in run(take(every(*args, **options), count), speed=math.inf)]


def test_jitter_stays_below_its_limit_and_does_not_add_up():
    late = [due - k * 10**9 for k, due in enumerate(dues(1, jitter=0.25, count=1000))]
    assert 0 <= min(late) < 2_500_000 < 247_500_000 < max(late) < 250_000_000
    assert 120_000_000 < sum(late) / 1000 < 130_000_000


def test_jitter_is_the_same_in_each_run_and_another_for_each_schedule():
    async def main():
        return await take(every(1, jitter=1), 50), await take(every(1, start=50, jitter=1), 50)

    first, second = virtual(main())
    assert [first, second] == list(virtual(main()))
    assert [tick.due_ns - 50 * 10**9 for tick in second] != [tick.due_ns for tick in first]


def test_jitter_is_another_for_each_seed():
    runs = [
        run(take(every(1, jitter=1), 20), speed=math.inf, seed=seed)
        for seed in (0, 1, -1, 10**30, 0, 1, -1, 10**30)
    ]
    assert runs[:4] == runs[4:]
    assert len({tuple(ticks) for ticks in runs}) == 4


@pytest.mark.parametrize("period", [1e-9, 1.7e-9, 3e-9, 1 / 3, 1, 1e300])
def test_jitter_as_long_as_the_period(period):
    times = dues(period, jitter=period, count=1 if period == 1e300 else 200)
    assert times == sorted(times)


def test_no_jitter_is_a_plain_schedule():
    assert dues(1, jitter=0) == dues(1) == dues(1, jitter=1e-9) == [k * 10**9 for k in range(200)]


def test_jitter_belongs_to_the_tick():
    """Not to the number of times that it was asked for, nor of those that came before."""

    async def main(missed):
        ticks = every(1, missed=missed, jitter=0.5)
        taken = {}
        while len(taken) < 20:
            with move_on_after(0.3):
                tick = await anext(ticks)
                taken[tick.index] = tick.due_ns
                await sleep(1.9 * (tick.index % 2))
        return taken

    plain = dict(enumerate(dues(1, jitter=0.5)))
    for missed in ("skip", "burst"):
        taken = virtual(main(missed))
        assert taken == {index: plain[index] for index in taken}


def test_skipping_with_jitter_takes_the_last_tick_that_is_due():
    async def main(busy):
        ticks = every(1, jitter=1)
        await anext(ticks)
        await sleep(busy)
        return await take(ticks, 1), now()

    plain = dues(1, jitter=1)
    for tenth in range(15, 100, 7):
        (tick,), time = virtual(main(tenth / 10))
        due = [k for k, when in enumerate(plain) if when <= time * 1e9]
        assert tick.index == max(1, *due)
        assert tick.missed == tick.index - 1
