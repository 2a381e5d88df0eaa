"""sleep, sleep_until, sleep_forever and checkpoint: arguments, results, order."""

import math
import random
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import pytest

import sleeploop
from sleeploop import (
    CancelledError,
    DeadlockError,
    SleepingLoop,
    checkpoint,
    current_loop,
    run,
    sleep,
    sleep_forever,
    sleep_until,
)


def elapsed_ns(awaitable, *, start=None):
    """Virtual nanoseconds that awaiting takes, and what it returns."""

    async def main():
        result = await awaitable
        return current_loop().time_ns(), result

    return run(main(), speed=math.inf, start=start)


class Floaty:
    def __float__(self):
        return 1.5


class Indexy:
    def __index__(self):
        return 3


@pytest.mark.parametrize(
    ("delay", "ns"),
    [
        (1, 1_000_000_000),
        (0.1, 100_000_000),
        (1.1, 1_100_000_000),
        (1e-9, 1),
        (1e-12, 1),  # a positive time never becomes zero
        (2.5e-9, 2),  # else the nearest nanosecond, even when halfway
        (True, 1_000_000_000),
        (Floaty(), 1_500_000_000),
        (Indexy(), 3_000_000_000),
        (Decimal("0.25"), 250_000_000),
        (Fraction(1, 8), 125_000_000),
        (timedelta(days=1, microseconds=7), 86_400_000_007_000),
        (123456789.123456789, round(Fraction(123456789.123456789) * 10**9)),
    ],
)
def test_sleep_takes_every_kind_of_number(delay, ns):
    got, result = elapsed_ns(sleep(delay))
    assert got == ns
    assert result == timedelta(microseconds=-(-ns // 1000))  # rounded up, never early


@pytest.mark.parametrize("delay", [0, 0.0, -1, -0.5, -math.inf, -(10**30), timedelta(-1), -0.0])
def test_zero_and_negative_sleeps_step_aside_once(delay):
    order = []

    async def sleeper():
        order.append("before")
        assert await sleep(delay) == timedelta(0)
        order.append("after")

    async def other():
        order.append("other")

    loop = SleepingLoop(sleeper(), other(), speed=math.inf)
    loop.run_until_complete()
    assert order == ["before", "other", "after"]
    assert loop.time_ns() == 0


@pytest.mark.parametrize("delay", [math.inf, 10**30, 1e300, 2**63, timedelta.max])
def test_endless_sleeps_last_until_cancelled(delay):
    ended = []

    async def sleeper():
        try:
            await sleep(delay)
        except CancelledError:
            ended.append(current_loop().time())
            raise

    async def main():
        task = sleeploop.create_task(sleeper())
        await sleep(5)
        assert task.wake_time == math.inf

    run(main(), speed=math.inf)
    assert ended == [5.0]


def test_longest_finite_sleep():
    years = 9_223_372_035  # seconds: the last whole one of int64 nanoseconds, less one
    assert elapsed_ns(sleep(years))[0] == years * 10**9


@pytest.mark.parametrize("function", [sleep, sleep_until])
@pytest.mark.parametrize("bad", ["5", None, b"1", [1], object(), 1j, sleep])
def test_wrong_types_are_named(function, bad):
    with pytest.raises(TypeError, match=function.__name__) as info:
        function(bad)
    assert repr(bad)[:20] in str(info.value)


@pytest.mark.parametrize("function", [sleep, sleep_until])
def test_nan_is_refused(function):
    with pytest.raises(ValueError, match="nan"):
        function(math.nan)


def test_errors_of_a_number_are_its_own():
    class Broken:
        def __float__(self):
            raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        sleep(Broken())


@pytest.mark.parametrize(
    "call",
    [
        sleep,
        sleep_until,
        lambda: sleep(1, 2, 3),
        lambda: sleep(result=1),
        lambda: sleep(1, delay=1),
        lambda: sleep(1, value=1),
        lambda: checkpoint(1),
    ],
)
def test_wrong_number_of_arguments(call):
    with pytest.raises(TypeError, match="argument"):
        call()


def test_sleep_with_a_result():
    result = object()

    async def main():
        assert await sleep(delay=1) == timedelta(seconds=1)
        assert await sleep(1, result) is result
        assert await sleep(delay=1, result=None) is None
        task = sleeploop.create_task(sleep(5, result))
        with sleeploop.move_on_after(2) as scope:
            await sleep(3, result)
        assert scope.cancelled_caught
        await sleep(1)
        task.cancel()
        with pytest.raises(sleeploop.CancelledError):
            await task
        return sleeploop.current_time()

    assert sleeploop.run(main(), speed=math.inf) == 6


@pytest.mark.parametrize("delay", ["5", None, math.nan])
def test_sleep_with_a_result_refuses_a_wrong_delay_at_the_call(delay):
    with pytest.raises((TypeError, ValueError), match=r"sleep\(\)"):
        sleep(delay, "result")


def test_sleep_until_loop_time_and_the_past():
    async def main():
        loop = current_loop()
        assert await sleep_until(10) == timedelta(seconds=10)
        assert await sleep_until(4) == timedelta(0)
        assert await sleep_until(-math.inf) == timedelta(0)
        await sleep_until(10.5)
        return loop.time()

    assert run(main(), speed=math.inf) == 10.5


@pytest.mark.parametrize("tz", [None, UTC])
def test_sleep_until_datetime(tz):
    start = datetime(2030, 1, 1, 12, tzinfo=tz)

    async def main():
        await sleep_until(start + timedelta(hours=1, microseconds=3))
        loop = current_loop()
        assert loop.now(tz) == start + timedelta(hours=1, microseconds=3)
        await sleep_until(start)  # has passed
        return loop.time_ns()

    assert run(main(), speed=math.inf, start=start) == 3_600_000_003_000


def test_equal_deadlines_wake_in_the_order_they_were_scheduled():
    order = []

    async def sleeper(i, first, second):
        await sleep(first)
        await sleep(second)
        order.append(i)

    # All wake at 3; they armed their last timer at 1, 2 and 0.
    run_all = SleepingLoop(sleeper(0, 1, 2), sleeper(1, 2, 1), sleeper(2, 0, 3), speed=math.inf)
    run_all.run_until_complete()
    assert order == [2, 0, 1]


def test_ready_tasks_run_before_due_timers_that_come_later():
    order = []

    async def busy():
        for i in range(3):
            order.append(i)
            await checkpoint()

    async def timer():
        await sleep(1)
        order.append("timer")

    SleepingLoop(busy(), timer(), speed=math.inf).run_until_complete()
    assert order == [0, 1, 2, "timer"]


@pytest.mark.realtime
def test_a_checkpoint_loop_starves_no_timer():
    woken = False

    async def timer():
        nonlocal woken
        await sleep(0.001)
        woken = True

    async def spinner():
        while not woken:
            await checkpoint()

    SleepingLoop(timer(), spinner()).run_until_complete()
    assert woken


@pytest.mark.parametrize("make", [lambda: sleep(1), lambda: sleep_until(1), checkpoint])
def test_an_awaitable_is_awaited_once(make):
    async def main():
        awaitable = make()
        await awaitable
        with pytest.raises(RuntimeError, match="awaited before"):
            await awaitable
        await sleep(1)  # and the task goes on

    run(main(), speed=math.inf)


def test_one_awaitable_in_two_tasks():
    async def first():
        return await awaitable

    async def second():
        with pytest.raises(RuntimeError, match="awaited before"):
            await awaitable

    awaitable = sleep(1)
    loop = SleepingLoop(first(), second(), speed=math.inf)
    assert loop.run_until_complete() == [timedelta(seconds=1), None]


@pytest.mark.usefixtures("forgetful")
def test_sleep_is_awaitable_by_hand():
    awaitable = sleep(1)
    assert iter(awaitable) is awaitable
    assert awaitable.__await__() is awaitable
    with pytest.raises(KeyError, match="'x'"):
        awaitable.throw(KeyError("x"))
    with pytest.raises(RuntimeError, match="awaited before"):
        awaitable.send(None)
    awaitable.close()
    with pytest.raises(TypeError, match="takes an exception, not 5"):
        sleep(1).throw(5)
    with pytest.raises(TypeError, match="argument"):
        sleep(1).throw()


@pytest.mark.parametrize(
    ("awaitable", "text"),
    [
        (sleep(1.5), "<sleep 1.5 s>"),
        (sleep(math.inf), "<sleep until cancelled>"),
        (sleep_until(3), "<sleep until 3.0 s>"),
        (sleep_until(datetime(2030, 1, 2, 3, 4, 5)), "<sleep until 2030-01-02 03:04:05>"),
        (
            sleep_until(datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)),
            "<sleep until 2030-01-02 03:04:05+00:00>",
        ),
        (sleep_forever(), "<sleep_forever>"),
        (checkpoint(), "<checkpoint>"),
    ],
)
def test_repr(awaitable, text):
    assert repr(awaitable) == text


@pytest.mark.parametrize(
    ("awaitable", "name"),
    [
        (sleep(1), "sleep"),
        (sleep_until(3), "sleep_until"),
        (sleep_until(datetime(2030, 1, 2)), "sleep_until"),
        (sleep_forever(), "sleep_forever"),
        (checkpoint(), "checkpoint"),
    ],
)
def test_its_name_as_a_task(awaitable, name):
    assert awaitable.__qualname__ == name
    assert repr(SleepingLoop(awaitable).tasks()[0]) == f"<Task 'Task-1' {name}: ready to start>"


def test_sleep_forever_in_virtual_time_is_a_deadlock():
    with pytest.raises(DeadlockError, match="sleeping until cancelled"):
        run(sleep_forever(), speed=math.inf)


@pytest.mark.realtime
def test_never_early_on_a_thousand_random_sleeps():
    rng = random.Random(7)
    early = []

    async def sleeper(delay):
        before = time.monotonic_ns()
        slept = await sleep(delay)
        passed = time.monotonic_ns() - before
        if passed < delay * 1e9 or slept < timedelta(seconds=delay):
            early.append((delay, passed, slept))

    delays = [rng.choice([rng.random() * 0.2, rng.random() * 1e-3, 1e-6]) for _ in range(1000)]
    SleepingLoop(*map(sleeper, delays), speed=1.0).run_until_complete()
    assert early == []
