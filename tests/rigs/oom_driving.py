"""What tests.rigs.oom runs while memory runs out: loops that are driven from outside."""

from __future__ import annotations

import contextlib
import gc
import math
import sys
import warnings
from datetime import datetime

from _sleeploop import _drive, _pause, _stop, _take_errors

import sleeploop
from sleeploop import SleepingLoop

from .oom_scenarios import countdown, raises, scenario


async def forever() -> None:
    await sleeploop.sleep_forever()


@scenario
def driven_in_pieces() -> None:
    loop = SleepingLoop(countdown("A", 3), speed=math.inf)
    loop.run_until(1.5)
    assert loop.time() == 1.5
    while loop.step():
        pass
    loop.run_until(datetime(2000, 1, 1, 0, 0, 9))
    assert loop.next_wake_time() == math.inf
    assert loop.run_until_complete() == ["A"]


@scenario
def driven_to_a_task() -> None:
    loop = SleepingLoop(speed=math.inf)
    assert loop.run_until(loop.create_task(countdown("A", 2))) == "A"
    stuck = loop.create_task(forever())
    raises(sleeploop.DeadlockError, loop.run_until, stuck)
    loop.close()
    assert stuck.cancelled()


def a_suspended_loop_is_dropped() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loop = SleepingLoop(forever(), countdown("A", 5), speed=math.inf)
        loop.run_until(2)
        del loop
        gc.collect()


if sys.version_info >= (3, 12):  # 3.11 crashes by itself where a warning finds no memory
    scenario(a_suspended_loop_is_dropped)


@scenario
def bad_goals() -> None:
    loop = SleepingLoop(speed=math.inf)
    loop.run_until(5)
    raises(ValueError, loop.run_until, 4)
    raises(ValueError, loop.run_until, math.inf)
    raises(TypeError, loop.run_until, "soon")
    loop.close()


CALLED: list[int] = []


async def wait_for_calls(n: int) -> None:
    while len(CALLED) < n:
        await sleeploop.checkpoint()


@scenario
def calls_from_outside() -> None:
    CALLED.clear()
    loop = SleepingLoop(wait_for_calls(3), speed=math.inf)
    for i in range(3):
        loop.call_soon_threadsafe(CALLED.append, i)
    loop.run_until_complete()
    assert CALLED == [0, 1, 2]


@scenario
def streams_of_random_numbers() -> None:
    loop = SleepingLoop(seed=7, speed=math.inf)
    first = loop.random("a").random()
    assert loop.random("b").random() != first
    assert SleepingLoop(seed=7).random("a").random() == first
    loop.close()


@scenario
def shuffled() -> None:
    loop = SleepingLoop(*(countdown("A", 2) for _ in range(50)), speed=math.inf, shuffle=5)
    assert loop.run_until_complete() == 50 * ["A"]
    schedule = loop.schedule
    again = SleepingLoop(*(countdown("A", 2) for _ in range(50)), speed=math.inf, shuffle=schedule)
    again.run_until_complete()
    assert again.schedule == schedule
    raises(TypeError, SleepingLoop, shuffle="x")
    raises(ValueError, SleepingLoop, shuffle=[-1])


@scenario
def speeds() -> None:
    loop = SleepingLoop(countdown("A", 2), speed=math.inf, strict=3600)
    loop.run_until(1)
    loop.speed = 1e9
    loop.speed = math.inf
    assert loop.run_until_complete() == ["A"]
    with contextlib.suppress(sleeploop.LagError):
        sleeploop.run(late(), speed=1e9, strict=0)


async def late() -> None:
    for _ in range(3):
        await sleeploop.sleep(1)


async def pauses(loop: SleepingLoop) -> None:
    await sleeploop.sleep(1)
    _pause(loop)
    await sleeploop.sleep(1)


async def fails() -> None:
    raise LookupError


async def drops_a_failure() -> None:
    sleeploop.create_task(fails())
    await sleeploop.sleep(1)


@scenario
def driven_by_the_private_functions() -> None:
    loop = SleepingLoop(speed=math.inf)
    task = loop.create_task(pauses(loop))
    with contextlib.suppress(sleeploop.DeadlockError):
        assert _drive(loop) is True
    if task.done():
        task.result()  # what kept it from pausing
    assert _drive(loop, 1.5, 10) is False
    loop.create_task(forever())
    raises(sleeploop.DeadlockError, _drive, loop)
    _stop(loop)
    loop = SleepingLoop(speed=math.inf)
    loop.run_until(loop.create_task(drops_a_failure()))
    errors = _take_errors(loop)
    assert [type(error) for error in errors] == [LookupError]
    loop.close()


TOLD: list[int] = []


def told() -> None:
    TOLD.append(1)


@scenario
def a_driver_is_told() -> None:
    TOLD.clear()
    loop = SleepingLoop(forever(), speed=math.inf)
    try:
        loop.step()
        loop.set_wakeup(told)
        loop.call_soon_threadsafe(CALLED.append, 1)
        loop.step()
        loop.tasks()[0].cancel()
        loop.set_wakeup(None)
    finally:
        loop.close()
    assert TOLD == [1, 1]


async def give_up_iterations() -> None:
    task = sleeploop.create_task(forever(), daemon=True)
    for _ in range(2):
        iteration = sleeploop.as_completed([task], timeout=1)
        with contextlib.suppress(TimeoutError):
            await anext(iteration)
        del iteration


@scenario
def iterations_that_are_given_up() -> None:
    sleeploop.run(give_up_iterations(), speed=math.inf)
