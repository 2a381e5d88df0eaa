"""The protocol of the teaching example, both ways: each side's sleep on the other side's loop."""

from __future__ import annotations

import asyncio
import concurrent.futures
import math
import sys
import time
import types
import weakref
from collections.abc import Callable, Coroutine, Generator, Iterator
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sleeploop
from sleeploop import SleepingLoop, checkpoint, sleep, sleep_forever, sleep_until
from tests import plainloop
from tests.helpers import yielding
from tests.twins import examples

SECOND = timedelta(seconds=1)
MICROSECOND = timedelta(microseconds=1)


# ---- one program, two loops --------------------------------------------------------------------

PROGRAM = """
from {module} import SleepingLoop, sleep

async def countdown(name, count, *, delay=0):
    print(name, "waited", await sleep(delay * {second}))
    while count:
        print(name, count)
        await sleep({second})
        count -= 1
    print(name, "lift-off")

def main():
    loop = SleepingLoop(countdown("A", 5), countdown("B", 3, delay=2), countdown("C", 4, delay=1))
    loop.run_until_complete()

main()
"""


def output_of(module: str, second: float, capsys: pytest.CaptureFixture[str]) -> list[str]:
    exec(PROGRAM.format(module=module, second=second), {})
    return capsys.readouterr().out.splitlines()


def test_the_program_is_the_same_on_both(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(plainloop, "clock", plainloop.VirtualClock(datetime(2000, 1, 1)))
    monkeypatch.setenv("SLEEPLOOP_SPEED", "inf")
    lines = output_of("sleeploop", 1, capsys)
    assert lines == output_of("tests.plainloop", 1, capsys)
    assert lines == [
        "A waited 0:00:00", "A 5", "C waited 0:00:01", "C 4", "A 4", "B waited 0:00:02", "B 3",
        "C 3", "A 3", "B 2", "C 2", "A 2", "B 1", "C 1", "A 1", "B lift-off", "C lift-off",
        "A lift-off",
    ]  # fmt: skip


@pytest.mark.realtime
def test_the_program_is_the_same_in_real_time(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("SLEEPLOOP_SPEED", raising=False)
    began = time.monotonic()
    ours = output_of("sleeploop", 0.02, capsys)
    took = time.monotonic() - began
    theirs = output_of("tests.plainloop", 0.02, capsys)
    assert took >= 0.1
    for name in "ABC":
        said = [line for line in ours if line[0] == name and "waited" not in line]
        assert said == [line for line in theirs if line[0] == name and "waited" not in line]


# ---- ours, elsewhere ---------------------------------------------------------------------------


def begin(awaitable: Any) -> tuple[Any, datetime]:
    """Its first step, as another loop makes it, and what it yields."""
    steps = awaitable.__await__()
    return steps, steps.send(None)


def end(steps: Any, value: object) -> Any:
    with pytest.raises(StopIteration) as caught:
        steps.send(value)
    return caught.value.value


def run_on_plainloop(*coros: Coroutine[Any, Any, Any]) -> None:
    plainloop.SleepingLoop(*coros).run_until_complete()


@pytest.mark.parametrize(
    ("delay", "wait"),
    [
        (5, 5 * SECOND),
        (0.25, SECOND / 4),
        (90 * SECOND, 90 * SECOND),
        (1e-9, MICROSECOND),  # a datetime has no less; never early
        (1.0000001, SECOND + MICROSECOND),
        (0, timedelta(0)),
        (-5, timedelta(0)),
        (timedelta(-1), timedelta(0)),
        (-math.inf, timedelta(0)),
    ],
)
def test_sleep_yields_the_moment_and_returns_the_time_slept(
    delay: float | timedelta, wait: timedelta
) -> None:
    before = datetime.now()
    steps, asked = begin(sleep(delay))
    after = datetime.now()
    assert isinstance(asked, datetime)
    assert asked.tzinfo is None
    assert before - MICROSECOND <= asked - wait <= after
    # That it went to sleep at asked - wait is known to the microsecond.
    assert end(steps, asked + 3 * SECOND) == wait + 3 * SECOND


@pytest.mark.parametrize("delay", [math.inf, 1e300, 10**30, timedelta.max])
def test_a_sleep_without_end_is_a_valid_datetime(delay: float | timedelta) -> None:
    steps, asked = begin(sleep(delay))
    assert asked.year > 2300
    asked.astimezone(timezone(timedelta(hours=14)))  # anywhere
    steps.close()


@pytest.mark.parametrize(
    "when",
    [
        datetime(2050, 6, 1, 12, 0, 0, 123457),
        datetime(1999, 1, 1),
        datetime(2050, 6, 1, tzinfo=UTC),
        datetime(2050, 6, 1, tzinfo=timezone(timedelta(hours=-9, minutes=-30))),
    ],
)
def test_sleep_until_yields_that_moment(when: datetime) -> None:
    steps, asked = begin(sleep_until(when))
    assert asked == when
    assert (asked.tzinfo is None) == (when.tzinfo is None)
    assert 10 * SECOND <= end(steps, datetime.now(when.tzinfo) + 10 * SECOND) < 20 * SECOND


def test_checkpoint_yields_the_present() -> None:
    before = datetime.now()
    steps, asked = begin(checkpoint())
    assert before - MICROSECOND <= asked <= datetime.now()
    assert end(steps, asked) is None


def test_what_the_other_loop_sends_may_be_anything() -> None:
    steps, asked = begin(sleep(5))
    assert end(steps, asked.astimezone(UTC)) == 5 * SECOND
    steps, asked = begin(sleep(5))
    assert end(steps, asked - 100 * SECOND) == timedelta(0)
    for nothing in (None, 5, "now"):
        steps, _ = begin(sleep(5))
        assert timedelta(0) <= end(steps, nothing) < 5 * SECOND  # as the wall clock says
    steps, _ = begin(checkpoint())
    assert end(steps, None) is None


def test_a_sleep_is_used_once_there_too() -> None:
    steps, asked = begin(sleep(5))
    end(steps, asked)
    with pytest.raises(RuntimeError, match="awaited before"):
        steps.send(None)


def test_each_end_keeps_its_own_result() -> None:
    """Those who step by hand may hold the StopIteration for as long as they like."""
    ends = []
    for seconds in (5, 6, 7):
        steps, asked = begin(sleep(seconds))
        try:
            steps.send(asked)
        except StopIteration as stop:
            ends.append(stop)
    assert [stop.value for stop in ends] == [5 * SECOND, 6 * SECOND, 7 * SECOND]


def test_an_exception_comes_out_of_a_sleep_there_too() -> None:
    steps, _ = begin(sleep(5))
    with pytest.raises(KeyError, match="thrown"):
        steps.throw(KeyError("thrown"))
    with pytest.raises(RuntimeError, match="awaited before"):
        steps.send(None)


def test_on_plainloop_in_virtual_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plainloop, "clock", plainloop.VirtualClock(datetime.now()))
    results: list[object] = []

    async def day() -> None:
        results.append(await sleep(24 * 3600))

    async def hour() -> None:
        results.append(await sleep(timedelta(hours=1)))

    run_on_plainloop(day(), hour())
    assert results == [timedelta(hours=1), timedelta(days=1)]


@pytest.mark.realtime
def test_on_plainloop_in_real_time() -> None:
    results: list[Any] = []

    async def ours() -> None:
        results.append(await sleep(0.02))
        results.append(await sleep(0.02 * SECOND))
        results.append(await sleep_until(datetime.now() + 0.02 * SECOND))
        await checkpoint()
        results.append(await sleep(-1))

    async def mixed() -> None:
        for _ in range(3):
            assert await sleep(0.005) >= 0.005 * SECOND
            assert await plainloop.sleep(0.005) >= 0.005 * SECOND

    began = time.monotonic()
    run_on_plainloop(ours(), mixed())
    assert time.monotonic() - began >= 0.06
    assert results[0] >= 0.02 * SECOND
    assert results[1] >= 0.02 * SECOND
    assert timedelta(0) < results[2] < SECOND
    assert results[3] >= timedelta(0)


def test_an_aware_datetime_stays_aware_on_another_loop() -> None:
    async def until(when: datetime) -> None:
        await sleep_until(when)

    when = datetime(2050, 1, 1, tzinfo=timezone(timedelta(hours=2)))
    coro = until(when)
    asked = coro.send(None)
    assert asked == when
    assert asked.utcoffset() is not None
    coro.close()


def test_sleep_forever_there_ends_by_close() -> None:
    events = []

    async def server() -> None:
        try:
            await sleep_forever()
        finally:
            events.append("closed")

    coro = server()
    loop = plainloop.SleepingLoop(coro)
    loop.resume(coro, None)
    ((when, _, waiting),) = loop.heap
    assert (when.year, waiting) == (9999, coro)
    assert events == []
    coro.close()
    assert events == ["closed"]


def test_loop_time_means_nothing_there() -> None:
    async def confused() -> None:
        with pytest.raises(RuntimeError, match=r"sleep_until\(\) with a loop time"):
            await sleep_until(5)
        events.append("went on")

    events: list[str] = []
    run_on_plainloop(confused())
    assert events == ["went on"]


def test_tasks_and_loops_are_not_there() -> None:
    async def lost() -> None:
        for function in (sleeploop.current_task, sleeploop.current_loop):
            with pytest.raises(RuntimeError, match=function.__name__):
                function()
        events.append("went on")

    events: list[str] = []
    run_on_plainloop(lost())
    assert events == ["went on"]


# ---- theirs, here: datetimes -------------------------------------------------------------------

START = datetime(2026, 10, 24, 12, tzinfo=UTC)


class Stamp(datetime):
    """Somebody's own datetime."""


@pytest.fixture(params=["UTC0", "CET-1CEST,M3.5.0,M10.5.0/3", "NST3:30", "LINT-14"])
def local_zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", request.param)
        time.tzset()
        yield
    time.tzset()


def assert_wakes_at(asked: datetime, start: datetime = START) -> None:
    """At speed inf: at that very moment, and the actual time is told in the same zone."""

    async def main() -> None:
        actual = await yielding(asked)
        expected = max(asked.astimezone(UTC), start.astimezone(UTC))
        loop = sleeploop.current_loop()
        assert loop.time_ns() == (expected - start.astimezone(UTC)) // MICROSECOND * 1000
        assert type(actual) is datetime
        assert actual.tzinfo is asked.tzinfo
        # UTC, since within one zone `==` would not see the fold.
        assert actual.astimezone(UTC) == expected
        assert loop.now(UTC) == expected

    sleeploop.run(main(), speed=math.inf, start=start)


@pytest.mark.usefixtures("local_zone")
def test_naive_datetimes_are_local_time() -> None:
    for wait in (SECOND, 5 * MICROSECOND, timedelta(days=400, microseconds=1), timedelta(0)):
        local = (START + wait).astimezone().replace(tzinfo=None)
        assert_wakes_at(local)
        assert_wakes_at(local, start=START.astimezone().replace(tzinfo=None))
        assert_wakes_at(Stamp.fromtimestamp((START + wait).timestamp()))


@pytest.mark.usefixtures("local_zone")
@pytest.mark.parametrize("fold", [0, 1])
def test_naive_datetimes_when_local_time_jumps(fold: int) -> None:
    assert_wakes_at(datetime(2026, 10, 25, 2, 30, fold=fold))
    spring = datetime(2026, 3, 28, tzinfo=UTC)
    assert_wakes_at(datetime(2026, 3, 29, 2, 30, fold=fold), start=spring)


@pytest.mark.parametrize(
    "zone", [UTC, timezone(timedelta(hours=5, minutes=45)), timezone(-timedelta(hours=12))]
)
def test_aware_datetimes(zone: tzinfo) -> None:
    for wait in (SECOND, MICROSECOND, timedelta(days=20_000, microseconds=999_999), timedelta(0)):
        assert_wakes_at((START + wait).astimezone(zone))
        assert_wakes_at(Stamp.fromtimestamp((START + wait).timestamp(), zone))


@pytest.fixture
def berlin() -> ZoneInfo:
    try:
        return ZoneInfo("Europe/Berlin")
    except ZoneInfoNotFoundError:
        pytest.skip("no time zone data (Debian package: tzdata)")


@pytest.mark.parametrize("fold", [0, 1])
def test_time_zones_that_jump(berlin: ZoneInfo, fold: int) -> None:
    twice = datetime(2026, 10, 25, 2, 30, tzinfo=berlin, fold=fold)
    assert_wakes_at(twice)
    never = datetime(2026, 3, 29, 2, 30, tzinfo=berlin, fold=fold)
    assert_wakes_at(never, start=datetime(2026, 3, 28, tzinfo=UTC))


def test_the_actual_time_says_which_half_past_two(berlin: ZoneInfo) -> None:
    async def main() -> None:
        first = await yielding(datetime(2026, 10, 25, 2, 30, tzinfo=berlin))
        second = await yielding(datetime(2026, 10, 25, 2, 30, tzinfo=berlin, fold=1))
        assert (first.fold, second.fold) == (0, 1)
        assert second.timestamp() - first.timestamp() == 3600

    sleeploop.run(main(), speed=math.inf, start=START)


@pytest.mark.parametrize("before", [MICROSECOND, SECOND, timedelta(days=100_000)])
@pytest.mark.parametrize("zone", [None, UTC])
def test_the_past_steps_aside_once(before: timedelta, zone: tzinfo | None) -> None:
    events = []

    async def late() -> None:
        actual = await yielding((START - before).astimezone(zone).replace(tzinfo=zone))
        events.append("late")
        assert actual.astimezone(UTC) == START

    async def other() -> None:
        events.append("other")

    SleepingLoop(late(), other(), speed=math.inf, start=START).run_until_complete()
    assert events == ["other", "late"]


zones: Any = st.none() | st.integers(-86399, 86399).map(lambda s: timezone(timedelta(seconds=s)))


@examples(times=2)
@given(
    asked=st.datetimes(datetime(1910, 1, 1), datetime(2290, 1, 1), timezones=zones),
    start=st.datetimes(datetime(2000, 1, 1), datetime(2030, 1, 1), timezones=zones),
)
def test_any_datetime(asked: datetime, start: datetime) -> None:
    assert_wakes_at(asked, start)


def test_a_zone_that_is_microseconds_off() -> None:
    zone = timezone(timedelta(hours=1, microseconds=5))
    assert_wakes_at((START + SECOND).astimezone(zone))
    assert_wakes_at((START + SECOND + MICROSECOND).astimezone(zone))


@pytest.mark.parametrize("year", [2400, 9999])
def test_a_datetime_out_of_range_sleeps_until_cancelled(year: int) -> None:
    events = []

    async def sleeper() -> None:
        try:
            await yielding(datetime(year, 12, 1, tzinfo=UTC))
        finally:
            events.append("cancelled")

    with pytest.raises(sleeploop.DeadlockError, match="sleeping until cancelled"):
        SleepingLoop(sleeper(), speed=math.inf).run_until_complete()
    assert events == ["cancelled"]


@pytest.mark.usefixtures("local_zone")
def test_the_first_and_the_last_datetime() -> None:
    """In most zones they are no moments at all; they mean always and never all the same."""

    async def last() -> None:
        await yielding(datetime.max)

    async def main() -> None:
        assert (await yielding(datetime.min.replace(tzinfo=UTC))).tzinfo is UTC
        assert (await yielding(datetime.min)).year == 2000
        assert sleeploop.current_loop().time_ns() == 0
        task = sleeploop.create_task(last(), daemon=True)
        await sleep(10**9)
        assert task.wake_time == math.inf

    sleeploop.run(main(), speed=math.inf)


class BrokenZone(tzinfo):
    """Works until it has been asked `good` times."""

    def __init__(self, good: int) -> None:
        self.good = good

    def utcoffset(self, when: datetime | None) -> timedelta:
        self.good -= 1
        if self.good < 0:
            raise LookupError("no such place")
        return timedelta(0)

    def dst(self, when: datetime | None) -> None:
        return None

    def tzname(self, when: datetime | None) -> str:
        return "broken"

    def fromutc(self, when: datetime) -> datetime:
        self.utcoffset(when)
        return when


def test_a_broken_zone_fails_at_the_yield() -> None:
    async def main() -> None:
        failures = 0
        for good in range(10):
            zone = BrokenZone(good)
            try:
                await yielding(datetime(2000, 1, 1, 0, 0, 5, tzinfo=zone))
            except LookupError:
                failures += 1
            else:
                break
        assert failures >= 2  # when it was yielded, and when its time had come
        await sleep(1)

    sleeploop.run(main(), speed=math.inf)


def test_one_heap_for_all_kinds() -> None:
    """Equal moments in the order in which they were asked for, whichever way."""
    events: list[str] = []
    local = datetime(2000, 1, 1, 0, 0, 5)

    async def wait(name: str, awaitable: Any) -> None:
        await awaitable
        events.append(name)

    ways = {
        "naive": yielding(local),
        "sleep": sleep(5),
        "aware": yielding(local.astimezone(UTC)),
        "until": sleep_until(5),
        "until local": sleep_until(local),
        "delta": sleep(5 * SECOND),
    }
    SleepingLoop(*(wait(*way) for way in ways.items()), speed=math.inf).run_until_complete()
    assert events == list(ways)


def test_plainloops_sleep_here(monkeypatch: pytest.MonkeyPatch) -> None:
    here = types.SimpleNamespace(now=lambda: sleeploop.current_loop().now())
    monkeypatch.setattr(plainloop, "clock", here)

    async def main() -> list[timedelta]:
        return [await plainloop.sleep(3600), await sleep(60), await plainloop.sleep(0.25)]

    loop = SleepingLoop(main(), speed=math.inf)
    assert loop.run_until_complete() == [[3600 * SECOND, 60 * SECOND, SECOND / 4]]
    assert loop.time() == 3660.25


def test_a_result_belongs_to_who_awaited_it() -> None:
    class Result:
        pass

    async def child() -> Result:
        await sleep(1)
        return Result()

    async def main() -> None:
        task = sleeploop.create_task(child())
        result = weakref.ref(await task)
        del task
        assert result() is None

    sleeploop.run(main(), speed=math.inf)


def test_a_generator_is_a_task_like_any() -> None:
    @types.coroutine
    def teaching() -> Generator[Any, Any, Any]:
        first = yield datetime(2000, 1, 1, 0, 0, 5)
        nothing = yield
        second = yield first + SECOND
        slept = yield from sleep(2)
        return second, nothing, slept

    second = datetime(2000, 1, 1, 0, 0, 6)
    loop = SleepingLoop(teaching(), speed=math.inf)
    assert loop.run_until_complete() == [(second, None, 2 * SECOND)]
    assert loop.time() == 8.0


@pytest.mark.realtime
@pytest.mark.parametrize("zone", [None, UTC, timezone(timedelta(hours=-7))])
def test_never_early_in_real_time(zone: tzinfo | None) -> None:
    async def main() -> None:
        for wait in (0.02, 0.005, 0.001, 0.0001, 0, -1):
            asked = datetime.now(zone) + wait * SECOND
            actual = await yielding(asked)
            assert type(actual) is datetime
            assert actual.tzinfo is zone
            assert asked <= actual <= datetime.now(zone)
            assert actual - asked < 5 * SECOND or wait < 0

    sleeploop.run(main(), speed=1)


@pytest.mark.realtime
def test_plainloops_sleep_here_in_real_time() -> None:
    async def main() -> timedelta:
        slept = timedelta(0)
        for _ in range(5):
            slept += await plainloop.sleep(0.004)
            assert await sleep(0.004) >= 0.004 * SECOND
        return slept

    began = time.monotonic()
    assert sleeploop.run(main(), speed=1) >= 0.02 * SECOND
    assert time.monotonic() - began >= 0.04


@pytest.mark.realtime
@pytest.mark.parametrize(("speed", "start"), [(100, None), (100, START), (1, START)])
def test_datetimes_follow_the_loops_own_clock(speed: float, start: datetime | None) -> None:
    async def main() -> None:
        loop = sleeploop.current_loop()
        asked = loop.now(UTC) + timedelta(seconds=0.02 * speed)
        actual = await yielding(asked)
        assert asked <= actual <= loop.now(UTC)
        assert loop.time() >= 0.02 * speed

    began = time.monotonic()
    sleeploop.run(main(), speed=speed, start=start)
    assert 0.019 < time.monotonic() - began < 10


# ---- theirs, here: anything else ---------------------------------------------------------------


def asyncio_future() -> asyncio.Future[None]:
    loop = asyncio.new_event_loop()
    loop.close()
    return asyncio.Future(loop=loop)


class NoAttributes:
    """As a proxy whose object is out of reach."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(f"no {name} outside of a request")


class NoRepr:
    def __repr__(self) -> str:
        raise RuntimeError("beyond words")


class BadRepr:
    def __repr__(self) -> Any:
        return 42


class NoClass:
    """Claims to be a datetime."""

    __class__: Any = property(lambda self: datetime)


@pytest.mark.parametrize(
    ("make", "name", "hint"),
    [
        (lambda: 42, "42", "own awaitables"),
        (object, "<object object at", "own awaitables"),
        (lambda: "text", "'text'", "own awaitables"),
        (lambda: 1.5, "1.5", "own awaitables"),
        (lambda: "x" * 1000, "'" + 100 * "x", "own awaitables"),
        (lambda: date(2000, 1, 1), "datetime.date(2000, 1, 1)", "own awaitables"),
        (lambda: SECOND, "datetime.timedelta(seconds=1)", "own awaitables"),
        (lambda: datetime, "<class 'datetime.datetime'>", "own awaitables"),
        (asyncio_future, "<Future pending>", "asyncio.run() in a thread"),
        (concurrent.futures.Future, "state=pending", "its result() in a thread"),
        (NoRepr, "<NoRepr object>", "own awaitables"),
        (BadRepr, "<BadRepr object>", "own awaitables"),
        (NoClass, "NoClass object", "own awaitables"),
        (lambda: sleep(1), "<sleep 1.0 s>", "'await' it"),
        (lambda: sleep_until(1), "<sleep until 1.0 s>", "'await' it"),
        (sleep_forever, "<sleep_forever>", "'await' it"),
        (checkpoint, "<checkpoint>", "'await' it"),
        (sleeploop.current_task, "<Task 'Task-1' test_", "own awaitables"),
        (sleeploop.Future, "<Future pending>", "own awaitables"),
        (lambda: sleeploop.current_task().__await__(), "Join object", "'await' it"),
    ],
)  # fmt: skip
def test_garbage_is_refused_inside_the_coroutine(
    make: Callable[[], object], name: str, hint: str
) -> None:
    async def main() -> str:
        with pytest.raises(TypeError) as caught:
            await yielding(make())
        assert name in str(caught.value)
        assert hint in str(caught.value)
        assert len(str(caught.value)) < 400
        assert await sleep(1) == SECOND
        return "went on"

    assert sleeploop.run(main(), speed=math.inf) == "went on"


def test_garbage_not_caught_is_the_runs_error() -> None:
    async def main() -> None:
        await yielding(42)

    with pytest.raises(TypeError, match="cannot wait for 42"):
        sleeploop.run(main(), speed=math.inf)


def test_the_refusal_comes_in_the_next_pass() -> None:
    """As from any await: the others are not made to wait."""
    events: list[object] = []

    async def refused() -> None:
        for _ in range(2):
            try:
                await yielding(42)
            except TypeError:
                events.append("refused")

    async def other() -> None:
        for n in range(2):
            events.append(n)
            await yielding(None)

    SleepingLoop(refused(), other(), speed=math.inf).run_until_complete()
    assert events == [0, "refused", 1, "refused"]


def test_a_garbage_object_may_fail_at_every_attribute(monkeypatch: pytest.MonkeyPatch) -> None:
    unraisable: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda report: unraisable.append(str(report)))

    async def main() -> None:
        with pytest.raises(TypeError, match=r"cannot wait for .*NoAttributes"):
            await yielding(NoAttributes())

    sleeploop.run(main(), speed=math.inf)
    assert unraisable == []


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_a_repr_that_exits_is_not_held_up(error: type[BaseException]) -> None:
    class Exit:
        def __repr__(self) -> str:
            raise error("from __repr__")

    async def main() -> str:
        with pytest.raises(error, match="from __repr__"):
            await yielding(Exit())
        return "went on"

    assert sleeploop.run(main(), speed=math.inf) == "went on"


def test_none_steps_aside_once() -> None:
    events: list[tuple[str, object]] = []

    async def step(name: str) -> None:
        for _ in range(2):
            events.append((name, await yielding(None)))

    SleepingLoop(step("a"), step("b"), speed=math.inf).run_until_complete()
    assert events == [("a", None), ("b", None), ("a", None), ("b", None)]


def test_a_sleep_may_be_stepped_by_hand() -> None:
    """`yield from`, spelled out: what a sleep yields here is what the loop takes."""

    async def main() -> Any:
        steps = sleep(5).__await__()
        assert await yielding(steps.send(None)) is None
        return end(steps, None)

    assert sleeploop.run(main(), speed=math.inf) == 5 * SECOND


def test_a_sleep_that_is_over_is_garbage() -> None:
    async def main() -> None:
        used = sleep(1)
        await used
        with pytest.raises(TypeError, match="'await' it, once"):
            await yielding(used)
        with pytest.raises(RuntimeError, match="awaited before"):
            await used

    sleeploop.run(main(), speed=math.inf)


def test_a_sleep_begun_elsewhere_is_garbage() -> None:
    steps, _ = begin(sleep(1))

    async def main() -> None:
        with pytest.raises(TypeError, match="'await' it, once and on this loop"):
            await yielding(steps)

    sleeploop.run(main(), speed=math.inf)
