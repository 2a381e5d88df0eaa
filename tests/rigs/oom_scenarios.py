"""What tests.rigs.oom runs while memory runs out.

Each scenario is short, makes its own loop, and checks its results: one that ends without an
exception must have done everything right. Coroutines and classes are defined at import time, so
that it is sleeploop's allocations that fail and not the compiler's. Virtual time throughout.
"""

from __future__ import annotations

import math
import types
from collections.abc import AsyncGenerator, Callable, Generator
from datetime import UTC, datetime, timedelta

import sleeploop
from sleeploop import (
    SleepingLoop,
)

SCENARIOS: dict[str, Callable[[], object]] = {}


class Undone(Exception):
    """Something was not done that nobody waits for. Then an error must at least be reported."""


def scenario(function: Callable[[], object]) -> Callable[[], object]:
    SCENARIOS[function.__name__] = function
    return function


def raises(
    expected: type[BaseException] | tuple[type[BaseException], ...],
    call: Callable[..., object],
    *args: object,
    **options: object,
) -> BaseException:
    try:
        call(*args, **options)
    except expected as error:
        return error
    raise AssertionError(f"no {expected}")


# ---- the plain case ----------------------------------------------------------------------------


async def countdown(label: str, length: int, *, delay: float = 0) -> str:
    await sleeploop.sleep(delay)
    while length:
        slept = await sleeploop.sleep(1)
        assert slept >= timedelta(seconds=1)
        length -= 1
    return label


@scenario
def several_countdowns() -> None:
    loop = SleepingLoop(
        countdown("A", 3), countdown("B", 2, delay=2), countdown("C", 2, delay=1), speed=math.inf
    )
    assert loop.run_until_complete() == ["A", "B", "C"]


async def nap(seconds: float) -> float:
    await sleeploop.sleep(seconds)
    return seconds


@scenario
def many_timers() -> None:
    """The heap and the ready ring grow, and must grow cleanly."""
    loop = SleepingLoop(*[nap(n % 7) for n in range(100)], speed=math.inf)
    assert loop.run_until_complete() == [n % 7 for n in range(100)]


async def every_way() -> str:
    await sleeploop.checkpoint()
    await sleeploop.sleep(timedelta(hours=1))
    loop = sleeploop.current_loop()
    await sleeploop.sleep_until(loop.time() + 60)
    await sleeploop.sleep_until(loop.now() + timedelta(days=1))
    await sleeploop.sleep_until(loop.now(UTC) + timedelta(days=1))
    assert loop.time() >= 3660 + 2 * 86400
    return "slept"


@scenario
def every_way_to_sleep() -> None:
    assert sleeploop.run(every_way(), speed=math.inf) == "slept"


async def ticker() -> list[sleeploop.Tick]:
    ticks = sleeploop.every(timedelta(minutes=1), missed="burst", jitter=0.5)
    assert repr(ticks)
    taken = []
    async for tick in ticks:
        taken.append(tick)
        if tick.index == 2:
            await sleeploop.sleep(120)
        if tick.index == 4:
            break
    with sleeploop.move_on_after(1):
        await anext(ticks)
    assert (await anext(ticks)).index == 5
    assert repr(ticks)
    assert repr(taken[-1])
    return taken


@scenario
def ticks_of_a_schedule() -> None:
    taken = sleeploop.run(ticker(), speed=math.inf)
    assert [tick.index for tick in taken] == list(range(5))
    assert all(60 * tick.index <= tick.due < 60 * tick.index + 0.5 for tick in taken)
    assert taken[3].lateness > 58
    assert taken[3].due_ns > 0
    assert taken[3].missed == 0
    raises(ValueError, sleeploop.every, 0)
    raises(TypeError, sleeploop.every, "often")
    raises(ValueError, sleeploop.every, 1, missed="never")
    raises(ValueError, sleeploop.every, 1, jitter=2)
    raises(RuntimeError, anext(sleeploop.every(1)).__await__().send, None)


# ---- what a coroutine may yield ----------------------------------------------------------------


@types.coroutine
def until(moment: datetime) -> Generator[datetime, datetime, datetime]:
    return (yield moment)


@types.coroutine
def bare() -> Generator[None, None, None]:
    yield


@types.coroutine
def nonsense() -> Generator[object, object, None]:
    yield {"neither": "trap nor datetime"}


async def naive(start: datetime) -> None:
    got = await until(start + timedelta(minutes=5))
    assert got.tzinfo is None
    assert got >= start + timedelta(minutes=5)
    await bare()


async def aware(start: datetime) -> None:
    got = await until(start + timedelta(minutes=5))
    assert got.tzinfo is not None
    assert got >= start + timedelta(minutes=5)


async def caught() -> str:
    try:
        await nonsense()
    except TypeError:
        return "caught"
    return "not caught"


@scenario
def naive_datetimes() -> None:
    start = datetime(2024, 2, 29, 12)
    SleepingLoop(naive(start), naive(start), speed=math.inf, start=start).run_until_complete()


@scenario
def aware_datetimes() -> None:
    start = datetime(2024, 2, 29, 12, tzinfo=UTC)
    SleepingLoop(aware(start), aware(start), speed=math.inf, start=start).run_until_complete()


@scenario
def wrong_yield() -> None:
    assert sleeploop.run(caught(), speed=math.inf) == "caught"


# ---- tasks -------------------------------------------------------------------------------------


async def failing(seconds: float) -> None:
    await sleeploop.sleep(seconds)
    raise LookupError(seconds)


async def parent() -> list[float]:
    tasks = [sleeploop.create_task(nap(n), name=f"child {n}") for n in range(5)]
    return [await task for task in tasks]


async def patient_parent() -> str:
    task = sleeploop.create_task(failing(1))
    try:
        await task
    except LookupError:
        assert isinstance(task.exception(), LookupError)
        return "consoled"
    return "not told"


async def deserter() -> str:
    """Returns while its tasks still sleep: they are cancelled."""
    for n in range(3):
        sleeploop.create_task(nap(1000 + n), daemon=n == 0)
    await sleeploop.checkpoint()
    return "gone"


@scenario
def spawn_and_join() -> None:
    assert sleeploop.run(parent(), speed=math.inf) == [0, 1, 2, 3, 4]


@scenario
def failing_child() -> None:
    assert sleeploop.run(patient_parent(), speed=math.inf) == "consoled"


@scenario
def tasks_left_over() -> None:
    assert sleeploop.run(deserter(), speed=math.inf) == "gone"


@scenario
def failing_main() -> None:
    loop = SleepingLoop(failing(1), nap(5), nap(7), speed=math.inf)
    raises(LookupError, loop.run_until_complete)


async def waits_for_ever() -> None:
    try:
        await sleeploop.sleep_forever()
    finally:
        try:
            await sleeploop.checkpoint()  # once cancelled, every await raises
        except sleeploop.CancelledError:
            pass
        else:
            raise AssertionError("not cancelled")


@scenario
def several_fail() -> None:
    loop = SleepingLoop(failing(1), failing(1), waits_for_ever(), speed=math.inf)
    raises(ExceptionGroup, loop.run_until_complete)


@scenario
def deadlock() -> None:
    loop = SleepingLoop(waits_for_ever(), waits_for_ever(), speed=math.inf)
    error = raises(sleeploop.DeadlockError, loop.run_until_complete)
    assert str(error)


# ---- asynchronous generators -------------------------------------------------------------------


async def ticks(log: list[str]) -> AsyncGenerator[int, None]:
    try:
        n = 0
        while True:
            yield n
            await sleeploop.sleep(1)
            n += 1
    finally:
        await sleeploop.sleep(0)
        log.append("closed")


async def reads_a_few(log: list[str]) -> None:
    async for n in ticks(log):
        if n == 2:
            break


async def leaves_one_open(log: list[str], keep: list[object]) -> None:
    generator = ticks(log)
    keep.append(generator)
    assert await anext(generator) == 0


@scenario
def generator_dropped() -> None:
    log: list[str] = []
    sleeploop.run(reads_a_few(log), speed=math.inf)
    if log != ["closed"]:
        raise Undone(log)


@scenario
def generator_left_open() -> None:
    log: list[str] = []
    sleeploop.run(leaves_one_open(log, []), speed=math.inf)
    if log != ["closed"]:
        raise Undone(log)


# ---- looking and misusing ----------------------------------------------------------------------


async def looker() -> None:
    loop = sleeploop.current_loop()
    task = sleeploop.create_task(nap(3), name="napper")
    await sleeploop.sleep(1)
    assert task in loop.tasks()
    assert "napper" in repr(task)
    assert repr(loop)
    assert repr(task.waiting_on)
    assert loop.stats()
    assert task.wake_time is not None
    assert task.context is not None
    assert task.coro is not None
    assert sleeploop.current_task() in loop.tasks()
    assert not task.done()
    assert loop.time_ns() == 1_000_000_000
    assert await task == 3
    assert task.result() == 3
    assert task.exception() is None
    assert repr(task)


@scenario
def introspection() -> None:
    sleeploop.run(looker(), speed=math.inf)


async def sleeps_badly() -> None:
    for wrong, expected in ((math.nan, ValueError), ("soon", TypeError), (None, TypeError)):
        try:
            await sleeploop.sleep(wrong)  # type: ignore[arg-type]
        except expected:
            continue
        raise AssertionError(wrong)


@scenario
def bad_arguments() -> None:
    raises(TypeError, SleepingLoop, nap)
    raises(TypeError, SleepingLoop, 42)
    raises(ValueError, SleepingLoop, speed=-1)
    raises(ValueError, SleepingLoop, speed=math.nan)
    raises(TypeError, SleepingLoop, start="today")
    raises(RuntimeError, sleeploop.current_loop)
    sleeploop.run(sleeps_badly(), speed=math.inf)


@scenario
def loop_never_run() -> None:
    """Its coroutines are closed."""
    loop = SleepingLoop(nap(1), nap(2), speed=math.inf)
    assert len(loop.tasks()) == 2
