"""every(): arguments, schedules, what happens with overdue ticks, sharing."""

import math
import threading
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import pytest

import sleeploop
from sleeploop import (
    DeadlockError,
    Every,
    SleepingLoop,
    Tick,
    checkpoint,
    create_task,
    current_loop,
    every,
    format_tasks,
    run,
    sleep,
)
from tests.helpers import now, outcome, virtual, yielding


async def take(ticks, count, *, busy=0):
    """So many ticks, from a loop whose body sleeps."""
    taken = []
    async for tick in ticks:
        taken.append(tick)
        if len(taken) == count:
            return taken
        if busy:
            await sleep(busy)


def facts(ticks):
    return [(tick.index, tick.due, tick.lateness, tick.missed) for tick in ticks]


class Floaty:
    calls = 0

    def __float__(self):
        self.calls += 1
        return 1.5


class Indexy:
    def __index__(self):
        return 3


# ---- the schedule --------------------------------------------------------------------------------


def test_ticks_come_at_their_times():
    async def main():
        times = []
        async for tick in every(0.1):
            times.append((tick.index, tick.due_ns, tick.due, tick.lateness, tick.missed))
            assert current_loop().time_ns() == tick.due_ns
            if tick.index == 1000:
                return times

    assert virtual(main()) == [(k, k * 10**8, k / 10, 0.0, 0) for k in range(1001)]


@pytest.mark.parametrize(
    ("period", "ns"),
    [
        (1, 1_000_000_000),
        (0.1, 100_000_000),
        (1.1, 1_100_000_000),
        (True, 1_000_000_000),
        (1e-9, 1),
        (1e-12, 1),  # there is no shorter one
        (Floaty(), 1_500_000_000),
        (Indexy(), 3_000_000_000),
        (Decimal("0.25"), 250_000_000),
        (Fraction(1, 8), 125_000_000),
        (timedelta(days=1, microseconds=7), 86_400_000_007_000),
        (8_000_000.1, 8_000_000_100_000_000),
    ],
)
def test_every_kind_of_period(period, ns):
    ticks = every(period)
    first, second, third = virtual(take(ticks, 3))
    assert (first.due_ns, second.due_ns, third.due_ns) == (0, ns, 2 * ns)
    assert ticks.period == (1e-12 if period == 1e-12 else ns / 1e9)


def test_a_period_is_asked_once_what_it_is():
    period = Floaty()
    every(period)
    assert period.calls == 1


@pytest.mark.parametrize(
    ("period", "exact"),
    [
        (0.1, 10**8),
        (1e-9, 1),
        (1 / 3, Fraction(1 / 3) * 10**9),
        (2 / 3, Fraction(2 / 3) * 10**9),
        (math.pi, Fraction(math.pi) * 10**9),
        (1.3e-9, Fraction(1.3e-9) * 10**9),
        (70.1, 70_100_000_000),
    ],
)
@pytest.mark.parametrize("k", [1, 2, 999, 10**6, 123_456_789])
def test_nothing_drifts(period, exact, k):
    async def main():
        await sleep(period * k * 0.999999)
        async for tick in every(period, start=0):
            if tick.index == k:
                return tick.due_ns
            await sleep(period * max(k - tick.index - 1.5, 0))

    assert virtual(main()) == round(exact * k)


@pytest.mark.parametrize("period", [1e300, 10**30, 2**63, timedelta.max])
def test_endless_periods_have_one_tick(period):
    async def main():
        ticks = every(period)
        assert facts(await take(ticks, 1)) == [(0, 0.0, 0.0, 0)]
        task = create_task(take(ticks, 1))
        await sleep(5)
        assert task.wake_time == math.inf
        assert task.waiting_on is ticks
        assert repr(ticks).endswith("s, next tick 1 never due>")
        await task

    with pytest.raises(DeadlockError, match=r"take: sleeping until cancelled, since 0\.0 s"):
        virtual(main())


def test_a_schedule_that_runs_past_the_end_of_time():
    async def main():
        ticks = every(4_000_000_000)
        assert [tick.due for tick in await take(ticks, 3)] == [0.0, 4e9, 8e9]
        task = create_task(take(ticks, 1))
        await checkpoint()
        assert task.wake_time == math.inf
        assert repr(ticks) == "<every 4000000000.0 s, next tick 3 never due>"
        await task

    with pytest.raises(OverflowError, match="loop time has come to its end"):
        virtual(main())


# ---- start ---------------------------------------------------------------------------------------


def test_it_starts_when_the_first_tick_is_asked_for():
    async def main():
        ticks = every(2)
        await sleep(5)
        return await take(ticks, 3)

    assert facts(virtual(main())) == [(0, 5.0, 0.0, 0), (1, 7.0, 0.0, 0), (2, 9.0, 0.0, 0)]


def test_it_starts_at_a_loop_time():
    assert facts(virtual(take(every(2, start=3.5), 2))) == [(0, 3.5, 0.0, 0), (1, 5.5, 0.0, 0)]


@pytest.mark.parametrize(
    ("missed", "expected"),
    [
        ("skip", [(3, -1.0, 1.0, 3), (4, 3.0, 0.0, 0)]),
        ("burst", [(0, -13.0, 13.0, 0), (1, -9.0, 9.0, 0), (2, -5.0, 5.0, 0), (3, -1.0, 1.0, 0)]),
        ("delay", [(0, -13.0, 13.0, 0), (1, 4.0, 0.0, 0)]),
    ],
)
def test_it_starts_in_the_past(missed, expected):
    ticks = every(4, start=-13, missed=missed)
    assert facts(virtual(take(ticks, len(expected)))) == expected


@pytest.mark.parametrize("tz", [None, UTC])
def test_it_starts_at_a_datetime(tz):
    noon = datetime(2030, 1, 1, 12, tzinfo=tz)
    ticks = every(timedelta(hours=1), start=noon + timedelta(minutes=5))
    first, second = run(take(ticks, 2), speed=math.inf, start=noon)
    assert (first.due, second.due) == (300.0, 3900.0)
    # One that has passed gives the minute all the same.
    ticks = every(timedelta(hours=1), start=noon - timedelta(days=3, minutes=-5))
    first, second = run(take(ticks, 2), speed=math.inf, start=noon)
    assert facts([first, second]) == [(71, -3300.0, 3300.0, 71), (72, 300.0, 0.0, 0)]


def test_a_datetime_on_the_systems_clock():
    """Here loop time 0 is a moment of the system's clock, a little after `start`."""
    start = datetime.now(UTC) - timedelta(hours=10, minutes=30)
    (tick,) = run(take(every(3600, start=start), 1), speed=1)
    assert (tick.index, tick.missed) == (10, 10)
    assert tick.due < 0 < tick.lateness


@pytest.mark.parametrize("missed", ["skip", "burst", "delay"])
def test_starts_at_the_ends_of_time(missed):
    async def first(period, start):
        (tick,) = await take(every(period, start=start, missed=missed), 1)
        assert tick.missed == tick.index
        return tick.index, tick.lateness

    async def main():
        oldest = (0, (2**63 - 1) / 1e9)
        skipped = (9_223_372_036, 0.854775807)
        for start in (-math.inf, datetime.min):
            assert await first(1, start) == (skipped if missed == "skip" else oldest)
        await sleep(9_000_000_000)
        skipped = (2**63 - 1 + 9 * 10**18, 0.0)
        assert await first(1e-9, -math.inf) == (skipped if missed == "skip" else oldest)
        index, lateness = await first(1.5e-9, -math.inf)
        if missed == "skip":  # the fraction has no more than a double's 53 bits
            assert index == pytest.approx(skipped[0] / 1.5, rel=1e-15)
            assert 0 <= lateness < 1e-5
        await first(1, math.inf)

    with pytest.raises(DeadlockError):
        virtual(main())


# ---- overdue ticks -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("missed", "expected"),
    [
        ("skip", [(0, 0.0, 0.0, 0), (2, 2.0, 0.5, 1), (5, 5.0, 0.0, 2), (7, 7.0, 0.5, 1)]),
        ("burst", [(0, 0.0, 0.0, 0), (1, 1.0, 1.5, 0), (2, 2.0, 3.0, 0), (3, 3.0, 4.5, 0)]),
        ("delay", [(0, 0.0, 0.0, 0), (1, 1.0, 1.5, 0), (2, 3.5, 1.5, 0), (3, 6.0, 1.5, 0)]),
    ],
)
def test_a_body_that_is_too_slow(missed, expected):
    ticks = every(1, missed=missed)
    assert ticks.missed == missed
    assert facts(virtual(take(ticks, 4, busy=2.5))) == expected


@pytest.mark.parametrize(
    ("missed", "expected"),
    [
        ("skip", [(3, 3.0, 0.25, 2), (4, 4.0, 0.0, 0)]),
        ("burst", [(1, 1.0, 2.25, 0), (2, 2.0, 1.25, 0), (3, 3.0, 0.25, 0), (4, 4.0, 0.0, 0)]),
        ("delay", [(1, 1.0, 2.25, 0), (2, 4.25, 0.0, 0), (3, 5.25, 0.0, 0)]),
    ],
)
def test_one_delay(missed, expected):
    async def main():
        ticks = every(1, missed=missed)
        await take(ticks, 1)
        await sleep(3.25)
        return await take(ticks, len(expected))

    assert facts(virtual(main())) == expected


@pytest.mark.parametrize("missed", ["skip", "burst", "delay"])
def test_a_tick_that_is_due_just_now_is_not_late(missed):
    ticks = virtual(take(every(1 / 3, missed=missed), 4))
    assert [tick.due_ns for tick in ticks] == [0, 333333333, 666666667, 1000000000]
    assert {(tick.lateness, tick.missed) for tick in ticks} == {(0.0, 0)}


def test_each_step_is_a_checkpoint():
    order = []

    async def ticker():
        async for tick in every(1, start=-2, missed="burst"):
            order.append(tick.index)
            if tick.index == 2:
                return

    async def other():
        for name in "abc":
            order.append(name)
            await sleeploop.checkpoint()

    loop = SleepingLoop(ticker(), other(), speed=math.inf)
    loop.run_until_complete()
    assert order == ["a", 0, "b", 1, "c", 2]
    assert loop.time() == 0


def test_equal_times_come_in_the_order_of_asking():
    order = []

    async def ticker(name):
        async for tick in every(1):
            order.append((name, tick.index))
            if tick.index == 2:
                return

    async def sleeper():
        for k in range(3):
            order.append(("sleep", k))
            await sleep(1)

    SleepingLoop(ticker("a"), sleeper(), ticker("b"), speed=math.inf).run_until_complete()
    assert [name for name, _ in order[3:]] == ["sleep", "a", "b"] * 2


def test_between_two_drives_of_a_loop_no_tick_is_overdue():
    """Loop time stands still there; but it may come to stand between two ticks."""

    async def ticker():
        async for tick in every(1):
            log.append((tick.index, tick.lateness, now()))

    log = []
    loop = SleepingLoop(ticker(), speed=math.inf)
    for when in (2.5, 2.75, 4):
        loop.run_until(when)
        log.append(when)
    assert [(k, 0.0, float(k)) for k in range(3)] == log[:3]
    assert log[3:] == [2.5, 2.75, (3, 0.0, 3.0), (4, 0.0, 4.0), 4]
    loop.close()


@pytest.mark.realtime
@pytest.mark.parametrize("speed", [1.0, 1000.0])
def test_no_tick_is_early(speed):
    async def main():
        loop = current_loop()
        async for tick in every(0.0007 * speed):
            read = loop.time_ns()
            assert read >= tick.due_ns + tick.lateness * 1e9 - 1
            assert tick.lateness >= 0
            if tick.index > 30:
                return loop.stats()

    stats = run(main(), speed=speed)
    assert stats.lateness_max > 0  # ticks are counted there


# ---- an Every ------------------------------------------------------------------------------------


def test_it_is_an_iterator_that_goes_on_where_it_was_left():
    async def main():
        ticks = every(1)
        assert isinstance(ticks, AsyncIterator)
        assert aiter(ticks) is ticks
        assert await anext(ticks) == (await take(every(1), 1))[0]
        return [tick.index for tick in await take(ticks, 2) + await take(ticks, 2)]

    assert virtual(main()) == [1, 2, 3, 4]


@pytest.mark.usefixtures("forgetful")
def test_repr():
    async def main():
        ticks = every(0.1)
        assert repr(ticks) == "<every 0.1 s, not begun>"
        assert repr(ticks.__anext__()) == "<next of <every 0.1 s, not begun>>"
        await take(ticks, 3)
        assert repr(ticks) == "<every 0.1 s, next tick 3 due 0.3 s>"
        task = create_task(take(ticks, 1))
        await sleep(0.75)  # it has ended meanwhile
        assert repr(task.result()) == "[<Tick 3 due 0.3 s, 0.0 s late, 0 missed>]"
        task = create_task(take(ticks, 1))
        await sleeploop.checkpoint()
        assert repr(ticks) == "<every 0.1 s, next tick 9 due 0.9 s>"  # the one that will come

    virtual(main())


def test_what_a_task_tells_while_it_waits():
    async def main():
        ticks = every(10, start=25)
        task = create_task(take(ticks, 2), name="ticker")
        await sleep(1)
        assert (task.wake_time, task.waiting_since, task.waiting_on) == (25.0, 0.0, ticks)
        assert "<Task 'ticker' take: sleeping until 25.0 s>" in repr(task)
        assert "Task 'ticker' take: sleeping until 25.0 s, since 0.0 s, at " in format_tasks()
        await sleep(30)
        assert (task.wake_time, task.waiting_since) == (35.0, 25.0)
        await task

    virtual(main())


def test_ticks():
    first, second = ticks = virtual(take(every(1, start=-2, missed="burst"), 2))
    again = virtual(take(every(1, start=-2, missed="burst"), 2))
    assert first != second
    assert (first == second, first != 0, ticks == again) == (False, True, True)
    assert len({*ticks, *again}) == 2
    assert isinstance(first, Tick)
    for wrong in (lambda: first < second, Tick, Every, lambda: setattr(first, "index", 5)):
        with pytest.raises((TypeError, AttributeError)):
            wrong()


# ---- wrong use -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "period",
    [0, 0.0, -1, -0.5, math.inf, -math.inf, math.nan, -(10**30), timedelta(0), timedelta(-1),
     Decimal("inf")],
)  # fmt: skip
def test_periods_that_are_none(period):
    with pytest.raises(ValueError, match="every") as info:
        every(period)
    assert repr(period) in str(info.value)


@pytest.mark.parametrize("bad", ["5", None, b"1", [1], object(), 1j, datetime(2030, 1, 1)])
def test_wrong_types_are_named(bad):
    for call in (lambda: every(bad), lambda: every(1, jitter=bad)):
        with pytest.raises(TypeError, match="every") as info:
            call()
        assert repr(bad)[:20] in str(info.value)


@pytest.mark.parametrize("bad", ["5", b"1", [1], object(), 1j, timedelta(1)])
def test_wrong_starts_are_named(bad):
    with pytest.raises(TypeError, match="start=") as info:
        every(1, start=bad)
    assert repr(bad)[:20] in str(info.value)
    with pytest.raises(ValueError, match="nan"):
        every(1, start=math.nan)


@pytest.mark.parametrize("bad", ["SKIP", "", "never", None, 5, b"skip", ["skip"]])
def test_wrong_policies_are_named(bad):
    with pytest.raises(ValueError, match="'skip', 'burst' or 'delay'") as info:
        every(1, missed=bad)
    assert repr(bad) in str(info.value)


@pytest.mark.parametrize("bad", [-1, 1.1, math.inf, -math.inf, math.nan, timedelta(seconds=2)])
def test_jitter_is_from_zero_to_the_period(bad):
    with pytest.raises(ValueError, match="jitter") as info:
        every(1, jitter=bad)
    assert repr(bad) in str(info.value)


@pytest.mark.parametrize("call", [every, lambda: every(1, 2), lambda: every(1, often=True)])
def test_wrong_arguments(call):
    with pytest.raises(TypeError, match="argument"):
        call()


def test_errors_of_a_number_are_its_own():
    class Broken:
        def __float__(self):
            raise ZeroDivisionError("mine")

    for call in (lambda: every(Broken()), lambda: every(1, jitter=Broken())):
        with pytest.raises(ZeroDivisionError, match="mine"):
            call()


def test_without_a_loop():
    ticks = every(1)
    with pytest.raises(RuntimeError, match="needs a running loop"):
        take(ticks, 1).send(None)
    assert facts(virtual(take(ticks, 1))) == [(0, 0.0, 0.0, 0)]  # it has not begun before


def test_on_two_loops():
    async def main(ticks):
        with pytest.raises(RuntimeError, match="another loop"):
            await take(ticks, 1)

    ticks = every(1)
    virtual(take(ticks, 1))
    virtual(main(ticks))


def test_in_two_threads_at_once():
    async def main():
        task = create_task(take(ticks, 1))
        await sleep(1)
        thread = threading.Thread(target=lambda: errors.append(virtual(outcome(take(ticks, 1)))))
        thread.start()
        thread.join()
        return await task

    errors = []
    ticks = every(5, start=5)
    assert facts(virtual(main())) == [(0, 5.0, 0.0, 0)]
    assert [type(error) for error in errors] == [RuntimeError]


def test_it_is_for_async_for():
    async def main():
        with pytest.raises(TypeError, match="await"):
            await every(1)

    virtual(main())
    with pytest.raises(TypeError, match="not iterable"):
        iter(every(1))


def test_an_awaitable_that_is_yielded_and_not_awaited():
    async def main():
        with pytest.raises(TypeError, match="'await' it, once"):
            await yielding(every(1).__anext__())
        assert now() == 0

    virtual(main())
