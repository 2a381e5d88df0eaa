"""A speed that changes during the run; lag and `strict`; streams of random numbers."""

import math
import os
import random
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import pytest

from sleeploop import (
    LagError,
    LoopClosedError,
    SleepingLoop,
    checkpoint,
    create_task,
    current_loop,
    run,
    sleep,
    sleep_until,
)
from tests.helpers import cleanup, give, now

# ---- loop.speed = ... --------------------------------------------------------------------------


@pytest.mark.realtime
def test_from_real_to_virtual_time_and_back():
    async def main():
        loop = current_loop()
        other = create_task(sleep(5000))
        await sleep(0.01)
        first = loop.time()
        loop.speed = math.inf
        assert loop.time() >= first
        await sleep(1000)
        second = loop.time()
        loop.speed = 1
        began = time.monotonic()
        await sleep(0.02)
        real, third = time.monotonic() - began, loop.time()
        loop.speed = 1e6
        await other
        return first, second, third, real, loop.time(), loop.speed

    first, second, third, real, last, speed = run(main(), speed=1)
    assert 0.01 <= first < 100
    assert second - first >= 1000
    assert third - second >= 0.02
    assert real >= 0.02
    assert last >= 5000
    assert speed == 1e6


@pytest.mark.realtime
def test_at_speed_zero_time_stands_still_and_what_is_ready_runs():
    log = []

    async def count():
        loop = current_loop()
        loop.speed = 0
        paused_at = loop.time()
        for _ in range(3):
            await checkpoint()
            log.append(loop.time() == paused_at)
        loop.call_soon_threadsafe(resume, loop)
        await sleep(0.01)
        return loop.time() - paused_at

    def resume(loop):
        log.append("resumed")
        loop.speed = 1

    assert run(count()) >= 0.01
    assert log == [True, True, True, "resumed"]


def test_paused_and_driven_from_outside():
    loop = SleepingLoop(sleep(10), speed=math.inf)
    loop.run_until(4)
    loop.speed = 0
    loop.run_until(4)
    assert (loop.step(), loop.time(), loop.next_wake_time()) == (False, 4, 10)
    loop.speed = math.inf
    assert loop.run_until_complete() == [timedelta(seconds=10)]


@pytest.mark.realtime
def test_never_early_while_the_speed_changes_all_the_time():
    speeds = random.Random(7)

    async def sleeper(seconds):
        before = current_loop().time_ns()
        slept = await sleep(seconds)
        assert current_loop().time_ns() - before >= seconds * 10**9
        assert slept >= timedelta(seconds=seconds)

    async def main():
        loop = current_loop()
        tasks = [create_task(sleeper(speeds.random() * 3)) for _ in range(200)]
        last = 0
        while not all(task.done() for task in tasks):
            loop.speed = speeds.choice([0.5, 1, 60, 1e3, 1e5, math.inf])
            await sleep(speeds.random() / 50)
            assert loop.time_ns() >= last
            last = loop.time_ns()
        for task in tasks:
            await task

    run(main(), speed=1)


def test_the_wall_clock_is_the_systems_only_at_speed_one():
    loop = SleepingLoop(speed=1)
    loop.run_until(0)
    assert abs(loop.now(UTC) - datetime.now(UTC)) < timedelta(minutes=1)
    loop.speed = math.inf
    loop.run_until(loop.time() + 86_400)
    assert abs(loop.now(UTC) - datetime.now(UTC) - timedelta(days=1)) < timedelta(minutes=1)
    loop.speed = 1
    assert loop.now(UTC) - datetime.now(UTC) > timedelta(hours=23)
    loop.close()


@pytest.mark.realtime
def test_the_wall_clock_does_not_jump_with_the_speed():
    loop = SleepingLoop(speed=1)
    loop.run_until(0.2)
    before = loop.now(UTC)
    loop.speed = 3600
    assert timedelta(0) <= loop.now(UTC) - before < timedelta(seconds=0.15)
    loop.close()


def test_before_the_run():
    async def main():
        await sleep_until(datetime.now(UTC) + timedelta(hours=1))
        return now()

    loop = SleepingLoop(main(), speed=1)
    loop.speed = math.inf
    assert loop.run_until_complete()[0] == pytest.approx(3600, abs=60)


@pytest.mark.parametrize(
    ("speed", "error", "message"),
    [
        (-1, ValueError, "speed must be a positive number or math.inf, not -1; 0 pauses"),
        (math.nan, ValueError, "not nan"),
        (10**400, ValueError, "not 1000"),
        ("1", TypeError, "not '1'; 0 pauses"),
        (None, TypeError, "not None"),
    ],
)
def test_bad_speeds(speed, error, message):
    loop = SleepingLoop(speed=60)
    with pytest.raises(error, match=message):
        loop.speed = speed
    assert loop.speed == 60
    with pytest.raises(AttributeError, match="cannot be deleted"):
        del loop.speed
    loop.run_until_complete()
    with pytest.raises(LoopClosedError, match="speed: this loop has run"):
        loop.speed = 1


def test_zero_is_no_speed_to_begin_with():
    with pytest.raises(ValueError, match="positive"):
        SleepingLoop(speed=0)


# ---- lag and strict ----------------------------------------------------------------------------


async def hold(seconds):
    """A step that takes its time, while something else would be due."""
    task = create_task(sleep(0.001))
    await checkpoint()
    time.sleep(seconds)
    await checkpoint()
    lag = current_loop().lag
    await task
    return lag


@pytest.mark.realtime
@pytest.mark.parametrize("speed", [1, 20])
def test_lag(speed):
    async def main():
        before = current_loop().lag
        late = await hold(0.02)
        await sleep(0.05 * speed)
        return before, late

    before, late = run(main(), speed=speed)
    assert before == 0
    assert late >= 0.01 * speed


@pytest.mark.realtime
def test_lag_tells_also_of_what_is_due_and_has_had_no_chance_yet():
    async def main():
        create_task(sleep(0.001))
        await checkpoint()
        time.sleep(0.02)
        return current_loop().lag

    assert run(main()) >= 0.01


def test_virtual_time_has_no_lag():
    async def main():
        return await hold(0.002), current_loop().lag

    assert run(main(), speed=math.inf, strict=0) == (0.0, 0.0)


@pytest.mark.realtime
def test_strict_ends_a_run_that_falls_behind():
    log = []
    loop = SleepingLoop(hold(0.05), cleanup(log, "other", 0), strict=timedelta(seconds=0.02))
    with pytest.raises(LagError) as caught:
        loop.run_until_complete()
    assert "s behind: a timer of 0.00" in str(caught.value)
    assert "strict=0.02" in str(caught.value)
    assert "speed 1.0" in str(caught.value)
    assert [name for name, _ in log] == ["other"]
    assert loop.lag == 0


@pytest.mark.realtime
def test_strict_says_nothing_when_the_loop_keeps_up():
    assert run(hold(0.001), strict=5) < 5


@pytest.mark.parametrize(
    ("strict", "error"),
    [(-0.5, ValueError), (math.nan, ValueError), ("1", TypeError), (timedelta(-1), ValueError)],
)
def test_bad_strict(strict, error):
    coro = give(1)
    with pytest.raises(error, match="strict"):
        SleepingLoop(coro, strict=strict)
    assert run(coro, speed=math.inf, strict=math.inf) == 1


# ---- loop.random() -----------------------------------------------------------------------------


def test_streams_do_not_depend_on_each_other():
    one, two = SleepingLoop(seed=5), SleepingLoop(seed=5)
    a = [one.random("a").random() for _ in range(3)]
    b = [one.random("b").random() for _ in range(3)]
    assert [two.random("b").random() for _ in range(3)] == b
    assert [two.random("a").random() for _ in range(3)] == a
    assert a != b
    assert SleepingLoop(seed=6).random("a").random() != a[0]
    assert SleepingLoop().random("a").random() == SleepingLoop(seed=0).random("a").random()
    assert SleepingLoop(seed=-1).random("").random() != SleepingLoop(seed=1).random("").random()
    assert one.random("a") is one.random("a")
    assert type(one.random("a")) is random.Random


def test_the_same_on_every_python_and_with_every_hash_seed():
    program = (
        "import sleeploop; loop = sleeploop.SleepingLoop(seed=2**70)\n"
        "print(loop.random('service').random(), loop.random('\\u00fc').getrandbits(64))"
    )
    for hash_seed in ("0", "1"):
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.stdout == "0.5525922898994952 5653447938419179485\n"


@pytest.mark.parametrize(
    ("seed", "name", "message"),
    [
        (1.5, "x", "seed must be an int, not 1.5"),
        ("1", "x", "seed must be an int, not '1'"),
        (1, 1, "takes the name of a stream, a str, not 1"),
        (1, None, "not None"),
    ],
)
def test_bad_seeds_and_names(seed, name, message):
    with pytest.raises(TypeError, match=message):
        SleepingLoop(seed=seed).random(name)


def test_a_seed_too_long_to_be_written_down():
    assert SleepingLoop(seed=10**4000).random("x").random() < 1
    with pytest.raises(ValueError, match="digits"):
        SleepingLoop(seed=10**5000)


def test_names_that_play_tricks():
    class Name(str):
        def __hash__(self):
            raise RuntimeError("no hash")

        def __eq__(self, other):
            raise RuntimeError("no comparison")

    loop = SleepingLoop()
    assert loop.random(Name("x")) is loop.random("x")
    with pytest.raises(UnicodeEncodeError):
        loop.random("\ud800")
