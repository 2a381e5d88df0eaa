"""Times and delays at the edge of what a number can be, and timers that play tricks."""

import gc
import itertools
import math
import sys
import time
import tracemalloc
from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from sleeploop import (
    CancelledError,
    DeadlockError,
    SleepingLoop,
    checkpoint,
    create_task,
    current_loop,
    run,
    sleep,
    sleep_forever,
    sleep_until,
)
from tests.helpers import virtual

NS = 10**9
LONGEST = (2**63 - 1) // NS  # seconds; from here on a sleep has no end


class Number:
    """What numpy's scalars look like: a number by its methods alone."""

    def __init__(self, value: float) -> None:
        self.value = value

    def __float__(self) -> float:
        return float(self.value)

    def __repr__(self) -> str:
        return f"Number({self.value})"


class Index:
    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value

    def __repr__(self) -> str:
        return f"Index({self.value})"


async def slept_ns(awaitable: Any) -> int:
    before = current_loop().time_ns()
    await awaitable
    return current_loop().time_ns() - before


# ---- numbers -------------------------------------------------------------------------------------

FINITE = [
    (0, 0),
    (0.0, 0),
    (-0.0, 0),
    (-1, 0),
    (-1e-9, 0),
    (-math.inf, 0),
    (-(10**30), 0),
    (-sys.maxsize - 1, 0),
    (-sys.float_info.max, 0),
    (timedelta.min, 0),
    (False, 0),
    (True, NS),
    (1e-9, 1),
    (1e-10, 1),
    (sys.float_info.min, 1),
    (5e-324, 1),
    (0.1, NS // 10),
    (0.3, 3 * NS // 10),
    (2**31, 2**31 * NS),
    (2**32 + 1, (2**32 + 1) * NS),
    (LONGEST - 1, (LONGEST - 1) * NS),
    (Decimal("1.5"), 3 * NS // 2),
    (Decimal("1e-9"), 1),
    (Fraction(1, 4), NS // 4),
    (Number(2.5), 5 * NS // 2),
    (Number(-2.5), 0),
    (Index(7), 7 * NS),
    (Index(-(10**30)), 0),
    (timedelta(microseconds=1), 1000),
    (timedelta(days=1), 86400 * NS),
    (timedelta(days=100_000, microseconds=1), 100_000 * 86400 * NS + 1000),
]


@pytest.mark.parametrize(("delay", "ns"), FINITE, ids=repr)
def test_a_delay_is_kept_to_the_nanosecond(delay, ns):
    assert virtual(slept_ns(sleep(delay))) == ns


@pytest.mark.parametrize(
    "delay",
    [
        math.inf,
        sys.maxsize,
        2**54,
        2**55,
        float(2**54),
        10**30,
        10**400,
        sys.float_info.max,
        LONGEST,
        float(LONGEST),
        Decimal("Infinity"),
        Fraction(10**30),
        Number(1e300),
        Index(2**63),
        timedelta.max,
    ],
    ids=str,
)
def test_a_delay_past_the_end_of_time_never_ends(delay):
    async def main():
        endless = create_task(sleep(delay), daemon=True)
        until = None
        if not isinstance(delay, timedelta):
            until = create_task(sleep_until(delay), daemon=True)
        await sleep(LONGEST - 1)
        return endless.wake_time, until is None or until.wake_time, current_loop().time_ns()

    assert virtual(main()) in (
        (math.inf, math.inf, (LONGEST - 1) * NS),
        (math.inf, True, (LONGEST - 1) * NS),
    )
    with pytest.raises(DeadlockError, match="sleeping until cancelled"):
        virtual(sleep(delay))


@pytest.mark.parametrize("nan", [math.nan, -math.nan, Decimal("nan"), Number(math.nan)], ids=repr)
def test_nan_is_no_time(nan):
    for function in (sleep, sleep_until):
        with pytest.raises(ValueError, match="nan"):
            function(nan)
    with pytest.raises(ValueError, match="positive"):
        SleepingLoop(speed=nan)


def test_numbers_that_cannot_say_what_they_are():
    class Evil:
        def __init__(self, answer: Any) -> None:
            self.answer = answer

        def tell(self) -> Any:
            if isinstance(self.answer, BaseException):
                raise self.answer
            return self.answer

    class Float(Evil):
        __float__ = Evil.tell

    class Int(Evil):
        __index__ = Evil.tell

    for function in (sleep, sleep_until):
        for bad in (Float("text"), Float(1), Float(None), Int(1.5), Int("1"), 1j, "1", [], None):
            with pytest.raises(TypeError):
                function(bad)
        for kind in (Float, Int):
            for error in (ZeroDivisionError(), KeyboardInterrupt(), StopIteration()):
                with pytest.raises(type(error)):
                    function(kind(error))
        with pytest.raises((ValueError, OverflowError)):
            function(Decimal("snan"))
        with pytest.raises(OverflowError):
            function(Fraction(10**400))


@pytest.mark.parametrize("method", ["__float__", "__index__"])
def test_numbers_that_call_back(method):
    """They run inside of sleep(), inside of a step."""
    spawned = []

    def tell(self):
        spawned.append(create_task(sleep(1)))
        with pytest.raises(RuntimeError, match="while a loop is running"):
            run(sleep(1))
        gc.collect()
        return 2 if method == "__index__" else 2.0

    delay = type("Number", (), {method: tell})()

    async def main():
        both = await slept_ns(sleep(delay)), await slept_ns(sleep_until(delay))
        return both, [await task for task in spawned]

    assert virtual(main()) == ((2 * NS, 0), [timedelta(seconds=1)] * 2)


def test_subclasses_of_numbers():
    class Float(float):
        def __float__(self):
            return 3.0

    class Int(int):
        def __index__(self):
            return 4

        __int__ = __float__ = __index__

    async def main():
        return await slept_ns(sleep(Float(2))), await slept_ns(sleep(Int(2)))

    as_float, as_int = virtual(main())
    assert as_float in (2 * NS, 3 * NS)
    assert as_int == 2 * NS


# ---- the far future ------------------------------------------------------------------------------


def test_after_decades_a_nanosecond_is_still_a_nanosecond():
    async def main():
        times = []
        for delay in (30 * 365 * 86400, 1e-9, 1e-6, 0.1, timedelta(days=36525), 1e-9, 123e-9):
            times.append(await slept_ns(sleep(delay)))
        return times, current_loop().time_ns()

    decades, century = 30 * 365 * 86400 * NS, 36525 * 86400 * NS
    times, now = virtual(main())
    assert times == [decades, 1, 1000, NS // 10, century, 1, 123]
    assert now == sum(times)


def test_equal_times_after_decades_keep_their_order():
    order = []

    async def note(i):
        await sleep(1)
        order.append((i, current_loop().time_ns()))

    async def main():
        await sleep(2**32)
        await sleep(1e-9)
        for i in range(100):
            create_task(note(i))
        await sleep(2)

    virtual(main())
    assert order == [(i, (2**32 + 1) * NS + 1) for i in range(100)]


def test_the_last_moment_of_time():
    async def main():
        loop = current_loop()
        assert await slept_ns(sleep_until(LONGEST - 1)) == (LONGEST - 1) * NS
        spinning = [await sleep(0) for _ in range(3)]
        endless = create_task(sleep(10), daemon=True)
        await checkpoint()
        return endless.wake_time, spinning, loop.time()

    wake_time, spinning, now = virtual(main())
    assert wake_time == math.inf
    assert spinning == [timedelta(0)] * 3
    assert now == LONGEST - 1


@pytest.mark.parametrize("start", [datetime(1, 1, 3), datetime(9999, 12, 29)], ids=str)
def test_a_calendar_that_ends_before_the_run_does(start):
    async def main():
        await sleep(280 * 365 * 86400 if start.year == 1 else 5 * 86400)
        try:
            return current_loop().now().year
        except (ValueError, OverflowError):
            return None

    assert run(main(), speed=math.inf, start=start) in (280, None)


# ---- never early, and not twice ------------------------------------------------------------------


@pytest.mark.realtime
@pytest.mark.parametrize("speed", [1, 1000, 0.5, math.pi, 1e6])
def test_never_early_at_any_speed(speed):
    async def main():
        for delay in (0, 1e-9, 1e-7, 3.7e-5, 1e-4, 0.0011):
            scaled = delay * max(speed, 1)
            before = current_loop().time_ns()
            told = await sleep(scaled)
            passed = current_loop().time_ns() - before
            assert passed >= int(scaled * NS)
            assert told >= timedelta(seconds=scaled)

    run(main(), speed=speed)


def test_an_overdue_timer_fires_once():
    woken = []

    async def wait(name, delay):
        await sleep(delay)
        woken.append(name)
        await sleep_forever()

    async def main():
        for i in range(20):
            create_task(wait(i, i), daemon=True)
        await sleep(50)
        for i in range(20, 40):
            create_task(wait(i, 0), daemon=True)
        await sleep(50)

    virtual(main())
    assert woken == list(range(40))


@pytest.mark.realtime
def test_a_busy_step_does_not_shorten_the_sleeps_that_follow():
    async def busy():
        for _ in range(3):
            end = time.perf_counter() + 0.02
            while time.perf_counter() < end:
                pass
            before = time.perf_counter()
            slept = await sleep(0.01)
            assert time.perf_counter() - before >= 0.01
            assert slept >= timedelta(seconds=0.01)

    SleepingLoop(busy(), busy()).run_until_complete()


@pytest.mark.realtime
def test_a_busy_step_lets_overdue_timers_run_once_each_and_in_order():
    woken = []

    async def wait(i):
        await sleep(0.001 * i)
        woken.append(i)

    async def busy():
        time.sleep(0.02)

    loop = SleepingLoop(*map(wait, reversed(range(10))), busy())
    loop.run_until_complete()
    assert woken == list(range(10))
    assert loop.stats().wakeups <= 10


# ---- timers that start and stop timers -----------------------------------------------------------


def test_timers_started_from_wake_ups():
    """Each wake-up starts two more, half of them for the very moment that is being served."""
    order = []

    async def spawn(depth):
        order.append((current_loop().time(), depth))
        if depth:
            await sleep(0)
            create_task(spawn(depth - 1))
            await sleep(1)
            create_task(spawn(depth - 1))

    async def main():
        await spawn(8)
        await sleep(100)

    virtual(main())
    assert len(order) == 2**9 - 1
    assert [when for when, _ in order] == sorted(when for when, _ in order)


def test_timers_cancelled_by_a_wake_up_among_them():
    """One of many that are due at the same moment fails, and so cancels all the others."""
    outcomes = []

    async def wait(i):
        try:
            await sleep(1 + i % 3)
        except CancelledError:
            outcomes.append((i, current_loop().time()))
            raise
        if i == 300:
            raise LookupError
        outcomes.append(i)

    with pytest.raises(LookupError):
        SleepingLoop(*map(wait, range(1000)), speed=math.inf).run_until_complete()
    woken = {outcome for outcome in outcomes if isinstance(outcome, int)}
    cancelled = dict(outcome for outcome in outcomes if isinstance(outcome, tuple))
    # Those that were due as well had their result already: that is not taken away.
    assert woken == {i for i in range(1000) if i % 3 == 0 and i != 300}
    assert set(cancelled) == {i for i in range(1000) if i % 3}
    assert set(cancelled.values()) == {1.0}


def test_what_is_cancelled_can_sleep_no_more_and_never_wakes_the_clock():
    async def stubborn():
        tries = 0
        while tries < 100:
            try:
                await sleep(3600)
            except CancelledError:
                tries += 1
        return tries

    async def main():
        task = create_task(stubborn(), daemon=True)
        await sleep(1)
        tasks.append(task)

    tasks = []
    loop = SleepingLoop(main(), speed=math.inf)
    loop.run_until_complete()
    assert (tasks[0].result(), loop.time()) == (100, 1)


def heap_bytes(work: Callable[[], object]) -> int:
    """The most that was allocated at a time while working."""
    gc.collect()
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_the_memory_of_timers_is_bounded_by_the_living():
    """A hundred thousand sleeps, but never more than a hundred at a time."""

    async def sleeper(i, rounds):
        for j in range(rounds):
            await sleep(1 + (i * j) % 7)

    def sleepers(rounds):
        return lambda: SleepingLoop(
            *(sleeper(i, rounds) for i in range(100)), speed=math.inf
        ).run_until_complete()

    sleepers(10)()
    assert heap_bytes(sleepers(1000)) < 1.5 * heap_bytes(sleepers(10)) + 50_000


def test_the_memory_of_a_crowd_is_given_back():
    async def main():
        loop = current_loop()
        before = tracemalloc.get_traced_memory()[0]
        tasks = [create_task(sleep(1 + i % 10)) for i in range(20_000)]
        await checkpoint()
        crowd = tracemalloc.get_traced_memory()[0] - before
        tasks.clear()
        del tasks
        await sleep(20)
        gc.collect()
        left = tracemalloc.get_traced_memory()[0] - before
        return crowd, left, len(loop.tasks())

    tracemalloc.start()
    try:
        crowd, left, alive = virtual(main())
    finally:
        tracemalloc.stop()
    assert alive == 1
    assert left < crowd / 20


def test_half_a_million_deadlines():
    async def main():
        loop = current_loop()
        for delay in itertools.cycle((1, 1e-9, 0, 3600)):
            await sleep(delay)
            if loop.stats().steps > 500_000:
                break
        return loop.time_ns()

    assert virtual(main()) == 125_000 * (3601 * NS + 1)
