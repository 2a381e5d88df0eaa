"""Loop time ends after 292 years: whoever waits for a later moment then is told so, by the run."""

import math
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from sleeploop import (
    CancelledError,
    CancelScope,
    DeadlockError,
    SleepingLoop,
    TaskGroup,
    checkpoint,
    create_task,
    current_effective_deadline,
    current_loop,
    every,
    move_on_after,
    run,
    sleep,
    sleep_forever,
    sleep_until,
    timeout,
    to_thread,
)
from tests.helpers import virtual

YEAR = 365.25 * 86_400
END = 2**63 - 3  # nanoseconds
MESSAGE = r"^loop time has come to its end, at 9223372036\.8\d+ s \(292 years\), and what waits"


async def ticks() -> None:
    async for _ in every(100 * YEAR):
        pass


async def sleeps() -> None:
    for _ in range(2):
        await sleep(200 * YEAR)


async def until_a_datetime() -> None:
    await sleep(200 * YEAR)
    await sleep_until(current_loop().now() + timedelta(days=200 * 366))


async def deadline() -> None:
    await sleep(200 * YEAR)
    with timeout(200 * YEAR):
        await sleep_forever()


WAYS = [ticks, sleeps, until_a_datetime, deadline]


@pytest.mark.parametrize("program", WAYS)
def test_in_virtual_time(program: Callable[[], Any]) -> None:
    loop = SleepingLoop(program(), speed=math.inf)
    with pytest.raises(OverflowError, match=MESSAGE):
        loop.run_until_complete()
    assert loop.time_ns() == END
    assert loop.tasks() == []


@pytest.mark.realtime
@pytest.mark.parametrize("program", WAYS)
def test_at_a_finite_speed(program: Callable[[], Any]) -> None:
    loop = SleepingLoop(program(), speed=1e20)
    with pytest.raises(OverflowError, match=MESSAGE):
        loop.run_until_complete()
    assert loop.time_ns() == END


@pytest.mark.realtime
def test_short_sleeps_at_the_end() -> None:
    async def main() -> None:
        while True:
            await sleep(1)

    with pytest.raises(OverflowError, match=MESSAGE):
        run(main(), speed=1e19)


@pytest.mark.realtime
def test_a_task_that_never_sleeps_does_not_hide_it() -> None:
    async def busy() -> None:
        while True:
            await checkpoint()

    async def main() -> None:
        create_task(busy())
        await sleep(200 * YEAR)
        await sleep(200 * YEAR)

    with pytest.raises(OverflowError, match=MESSAGE):
        run(main(), speed=1e20)


def test_the_cleanup_runs_and_what_waits_again_is_closed() -> None:
    log: list[object] = []

    async def tidy(seconds: float) -> None:
        try:
            await sleep_forever()
        except CancelledError:
            log.append("tidy")
            with CancelScope(shield=True):
                await checkpoint()
                log.append("still")
                if seconds:
                    await sleep(seconds)
            log.append("done")
            raise
        finally:
            log.append("closed")

    async def main(seconds: float) -> None:
        async with TaskGroup() as group:
            group.create_task(tidy(seconds))
            await sleeps()

    with pytest.raises(OverflowError, match=MESSAGE) as caught:
        virtual(main(0))
    assert type(caught.value) is OverflowError
    assert log == ["tidy", "still", "done", "closed"]
    log.clear()
    with pytest.raises(OverflowError, match=MESSAGE):
        virtual(main(1))
    assert log == ["tidy", "still", "closed"]


@pytest.mark.parametrize("speed", [math.inf, pytest.param(1e20, marks=pytest.mark.realtime)])
def test_a_sleeper_behind_a_shield_does_not_cut_the_cleanup_of_others(speed: float) -> None:
    log: list[object] = []

    async def shielded() -> None:
        with CancelScope(shield=True):
            await sleeps()

    async def tidy() -> None:
        try:
            await sleep_forever()
        finally:
            with CancelScope(shield=True):
                for _ in range(10):
                    await checkpoint()
                log.append(await to_thread(time.sleep, 0.02))
                log.append("done")

    loop = SleepingLoop(shielded(), sleeps(), tidy(), speed=speed)
    with pytest.raises(OverflowError, match=MESSAGE):
        loop.run_until_complete()
    assert log == [None, "done"]
    assert loop.tasks() == []


def test_the_end_may_come_in_the_cleanup() -> None:
    async def main() -> None:
        try:
            await sleep_forever()
        finally:
            with CancelScope(shield=True):
                await sleeps()

    async def fail() -> None:
        await checkpoint()
        raise KeyError("first")

    loop = SleepingLoop(main(), fail(), speed=math.inf)
    with pytest.raises(ExceptionGroup) as caught:
        loop.run_until_complete()
    assert [type(error) for error in caught.value.exceptions] == [KeyError, OverflowError]


def test_other_errors_of_the_run_are_told_as_well() -> None:
    async def main() -> None:
        try:
            await sleeps()
        finally:
            raise KeyError("cleanup")

    with pytest.raises(ExceptionGroup) as caught:
        virtual(main())
    assert [type(error) for error in caught.value.exceptions] == [OverflowError, KeyError]


def test_until_then_it_sleeps_until_cancelled() -> None:
    async def main() -> None:
        await sleep(200 * YEAR)
        task = create_task(sleeps(), name="far")
        waits = create_task(deadline(), daemon=True)
        await sleep(YEAR)
        assert task.wake_time == waits.wake_time == math.inf
        assert repr(task) == "<Task 'far' sleeps: sleeping until cancelled>"
        with move_on_after(100 * YEAR) as scope:
            assert scope.deadline == current_effective_deadline() == math.inf
            assert scope.when() is None
            assert "inf" not in repr(scope)
        task.cancel()
        waits.cancel()
        await sleep(YEAR)

    virtual(main())


def test_what_lies_beyond_it_by_itself_is_no_time_at_all() -> None:
    for never in sleep(300 * YEAR), sleep_until(datetime(2300, 1, 1)):
        with pytest.raises(DeadlockError, match="sleeping until cancelled"):
            virtual(never)

    async def main() -> None:
        create_task(sleep(300 * YEAR), daemon=True)
        await sleep(250 * YEAR)

    virtual(main())


def test_run_until_and_step() -> None:
    loop = SleepingLoop(sleeps(), speed=math.inf)
    loop.run_until(250 * YEAR)
    assert loop.next_wake_time() == math.inf
    for beyond in 300 * YEAR, math.inf, datetime.max:
        with pytest.raises(ValueError, match=r"run_until\(\): .* never comes"):
            loop.run_until(beyond)
    loop.run_until(292 * YEAR)
    with pytest.raises(OverflowError, match=MESSAGE):
        loop.step()
    assert loop.tasks() == []

    loop = SleepingLoop(sleeps(), speed=math.inf)
    assert [loop.step(), loop.step()] == [True, True]
    with pytest.raises(OverflowError, match=MESSAGE):
        loop.step()

    loop = SleepingLoop(sleeps(), speed=math.inf)
    task = loop.tasks()[0]
    with pytest.raises(OverflowError, match=MESSAGE):
        loop.run_until(task)
    assert task.cancelled()


def test_the_last_nanosecond_can_be_slept() -> None:
    async def main() -> None:
        await sleep(9_223_372_035)
        await sleep(1)
        while (left := END - current_loop().time_ns()) > 0:
            await sleep(left / 1e9)
        assert current_loop().time_ns() == END
        await checkpoint()
        await sleep(0)
        await sleep(1e-9)

    with pytest.raises(OverflowError, match=MESSAGE):
        virtual(main())
