"""Speeds, start, loop time and its datetime, stats."""

import math
import time
from datetime import UTC, datetime, timedelta, timezone

import pytest

from sleeploop import (
    LoopStats,
    SleepingLoop,
    checkpoint,
    current_loop,
    run,
    sleep,
    sleep_until,
)

START = datetime(2024, 2, 28, 23, 30)


async def look():
    loop = current_loop()
    return loop.time(), loop.time_ns(), loop.now()


def test_virtual_time_stands_still_until_nothing_can_run():
    async def main():
        first = await look()
        for _ in range(10):
            await checkpoint()
        assert await look() == first == (0.0, 0, datetime(2000, 1, 1))
        await sleep(1.5)
        return await look()

    loop_time, ns, now = run(main(), speed=math.inf)
    assert (loop_time, ns, now) == (1.5, 1_500_000_000, datetime(2000, 1, 1, 0, 0, 1, 500_000))


def test_start_is_what_loop_time_zero_stands_for():
    async def main():
        await sleep(3600)
        return current_loop().now()

    assert run(main(), speed=math.inf, start=START) == datetime(2024, 2, 29, 0, 30)


@pytest.mark.parametrize("tz", [UTC, timezone(timedelta(hours=-5, minutes=-30))])
def test_now_in_a_time_zone(tz):
    start = datetime(2024, 3, 1, tzinfo=UTC)
    loop = SleepingLoop(sleep(60), speed=math.inf, start=start)
    assert loop.now(tz) == start
    loop.run_until_complete()
    assert loop.now(tz=tz) == start + timedelta(minutes=1)
    assert loop.now(tz).tzinfo is tz
    assert loop.now().tzinfo is None
    with pytest.raises(TypeError, match="tzinfo"):
        loop.now(5)


@pytest.mark.parametrize("start", [datetime(1, 1, 3), datetime(9999, 12, 28)])
def test_the_ends_of_the_calendar(start):
    async def main():
        await sleep(3600 + 1e-6)
        return current_loop().now()

    assert run(main(), speed=math.inf, start=start) == start + timedelta(hours=1, microseconds=1)


def test_nanoseconds_survive_two_centuries():
    century = 100 * 365 * 86400

    async def main():
        loop = current_loop()
        await sleep(2 * century)
        await sleep(1e-9)
        assert loop.time_ns() == 2 * century * 10**9 + 1
        await sleep(timedelta(microseconds=1))
        return loop.time_ns()

    assert run(main(), speed=math.inf) == 2 * century * 10**9 + 1001


def test_time_before_and_after_the_run():
    loop = SleepingLoop(sleep(2), speed=math.inf)
    assert (loop.time(), loop.time_ns(), loop.speed) == (0.0, 0, math.inf)
    assert repr(loop) == "<sleeploop.SleepingLoop not started at 0.0 s, speed inf, 1 task>"
    loop.run_until_complete()
    assert loop.time() == 2.0
    assert repr(loop) == "<sleeploop.SleepingLoop closed at 2.0 s, speed inf, 0 tasks>"


@pytest.mark.realtime
def test_real_time_is_the_wall_clock():
    async def main():
        loop = current_loop()
        assert abs(loop.now() - datetime.now()) < timedelta(seconds=1)
        began, before = time.monotonic(), loop.time()
        await sleep(0.02)
        passed = loop.time() - before
        assert 0.02 <= passed <= time.monotonic() - began + 1e-3

    run(main(), speed=1)


@pytest.mark.realtime
@pytest.mark.parametrize("start", [None, START])
def test_a_finite_factor(start):
    async def main():
        loop = current_loop()
        began, now = time.monotonic(), loop.now()
        slept = await sleep(60)
        assert slept >= timedelta(minutes=1)
        assert loop.now() - now >= timedelta(minutes=1)
        return (time.monotonic() - began) * loop.speed

    loop_seconds = run(main(), speed=3600.0, start=start)
    assert loop_seconds >= 60 - 1e-3


@pytest.mark.realtime
def test_a_closed_loop_s_clock_stands_still():
    loop = SleepingLoop(sleep(0.001), speed=1)
    loop.run_until_complete()
    first = loop.time_ns()
    time.sleep(0.002)
    assert loop.time_ns() == first > 0


@pytest.mark.parametrize("speed", [5e-324, 1e-300, 1.7e308])
def test_absurd_speeds(speed):
    loop = SleepingLoop(checkpoint(), speed=speed)
    assert loop.run_until_complete() == [None]
    assert loop.speed == speed


def test_the_environment_gives_the_default_speed(monkeypatch):
    for text, speed in [("inf", math.inf), ("60", 60.0), (" 0.5 ", 0.5), ("", 1.0)]:
        monkeypatch.setenv("SLEEPLOOP_SPEED", text)
        assert SleepingLoop().speed == speed
        assert SleepingLoop(speed=2).speed == 2.0
    monkeypatch.delenv("SLEEPLOOP_SPEED")
    assert SleepingLoop().speed == SleepingLoop(speed=None).speed == 1.0
    for text in ("fast", "0", "nan", "-1"):
        monkeypatch.setenv("SLEEPLOOP_SPEED", text)
        with pytest.raises(ValueError, match=f"SLEEPLOOP_SPEED must be .* not '{text}'"):
            SleepingLoop()


def test_stats_in_virtual_time():
    async def main():
        await sleep(1)
        await checkpoint()
        await sleep(2)

    loop = SleepingLoop(main(), main(), speed=math.inf)
    assert loop.stats() == (0, 0, 0.0, 0.0, 0.0, 0.0, 0.0)
    loop.run_until_complete()
    stats = loop.stats()
    assert isinstance(stats, LoopStats)
    assert (stats.steps, stats.wakeups) == (8, 4)
    assert (stats.lateness_max, stats.lateness_p50, stats.lateness_p99) == (0.0, 0.0, 0.0)
    assert stats.idle_time == 0.0
    assert stats.busy_time > 0.0


@pytest.mark.realtime
def test_stats_in_real_time():
    async def nap():
        for _ in range(20):
            await sleep(0.001)

    loop = SleepingLoop(nap(), speed=1)
    loop.run_until_complete()
    stats = loop.stats()
    assert (stats.steps, stats.wakeups) == (21, 20)
    assert 0 < stats.lateness_p50 <= stats.lateness_p99 <= stats.lateness_max < 1
    assert 0.005 < stats.idle_time < loop.time()
    assert stats.busy_time == pytest.approx(loop.time() - stats.idle_time, abs=0.01)


@pytest.mark.parametrize(
    "make", [lambda: sleep_until(datetime(1999, 1, 1)), lambda: sleep_until(-5)]
)
def test_a_moment_that_has_passed_is_not_late_at_any_speed(make):
    order = []

    async def past():
        await make()
        order.append("past")

    async def other():
        await checkpoint()
        order.append("checkpoint")

    for speed in (math.inf, 1, 1000):
        loop = SleepingLoop(past(), other(), speed=speed)
        loop.run_until_complete()
        stats = loop.stats()
        assert (stats.wakeups, stats.lateness_max) == (0, 0.0)
    assert order == ["past", "checkpoint"] * 3


@pytest.mark.parametrize("start", [datetime.min, datetime.max])
def test_a_start_without_room_around_it(start):
    with pytest.raises((ValueError, OverflowError)):
        SleepingLoop(start=start, speed=math.inf)


def test_a_speed_that_no_float_can_hold():
    with pytest.raises(ValueError, match=r"speed must be a positive number or math\.inf, not 1000"):
        SleepingLoop(speed=10**400)
