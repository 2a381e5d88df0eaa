"""Deadlines of scopes: timeout(), move_on_after() and their like, and what is due next."""

import gc
import math
import time
import tracemalloc
from datetime import UTC, datetime, timedelta

import pytest

from sleeploop import (
    CancelledError,
    CancelScope,
    SleepingLoop,
    TaskGroup,
    checkpoint,
    create_task,
    current_effective_deadline,
    current_loop,
    move_on_after,
    move_on_at,
    run,
    sleep,
    sleep_forever,
    sleep_until,
    timeout,
    timeout_at,
)
from tests.helpers import awaited_error, give, now, virtual

START = datetime(2030, 1, 1, tzinfo=UTC)


async def stay(scope, delay=math.inf):
    """Sleep inside of a block that scope is."""
    with scope:
        await sleep(delay)


async def set_deadline_at(when, scope, deadline):
    await sleep_until(when)
    scope.deadline = deadline


# ---- the four functions --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "end"),
    [
        (lambda: move_on_after(5), 7.0),
        (lambda: move_on_after(timedelta(seconds=5)), 7.0),
        (lambda: move_on_after(0.25), 2.25),
        (lambda: move_on_at(5), 5.0),
        (lambda: move_on_at(START + timedelta(seconds=6)), 6.0),
        (lambda: move_on_at((START + timedelta(seconds=6)).astimezone().replace(tzinfo=None)), 6.0),
        (lambda: CancelScope(deadline=5), 5.0),
        (lambda: CancelScope(deadline=START + timedelta(seconds=6)), 6.0),
    ],
)
def test_moving_on(make, end):
    async def main():
        await sleep(2)
        with make() as scope:
            assert isinstance(scope, CancelScope)
            assert scope.deadline == scope.when() == current_effective_deadline() == end
            await sleep_forever()
        assert scope.cancelled_caught
        assert scope.cancel_called
        assert scope.expired()
        return now()

    assert run(main(), speed=math.inf, start=START) == end


@pytest.mark.parametrize(
    ("make", "end"),
    [
        (lambda: timeout(5), 7.0),
        (lambda: timeout(timedelta(seconds=5)), 7.0),
        (lambda: timeout_at(5), 5.0),
        (lambda: timeout_at(START + timedelta(seconds=6)), 6.0),
    ],
)
def test_timing_out(make, end):
    async def main():
        await sleep(2)
        scope = make()
        with pytest.raises(TimeoutError) as info:
            await stay(scope)
        assert type(info.value) is TimeoutError
        assert str(info.value) == f"timed out: the deadline at {end} s has passed"
        assert isinstance(info.value.__cause__, CancelledError)
        assert info.value.__cause__.source == "deadline"
        assert scope.cancelled_caught
        assert scope.expired()
        return now()

    assert run(main(), speed=math.inf, start=START) == end


@pytest.mark.parametrize("make", [timeout, timeout_at, move_on_after, move_on_at])
def test_a_block_that_is_through_in_time(make):
    async def main():
        async with make(5) as scope:
            result = await give("result", 4)
        assert not scope.cancel_called
        assert not scope.cancelled_caught
        assert not scope.expired()
        await sleep(10)  # the deadline is gone with its block
        assert not scope.expired()
        return result

    assert virtual(main()) == "result"


def test_deadlines_of_blocks_that_were_left_hold_nobody_up():
    async def main():
        for make in (timeout, move_on_after, timeout_at, move_on_at):
            with make(1000):
                await sleep(1)

    loop = SleepingLoop(main(), speed=math.inf)
    loop.run_until_complete()
    assert loop.time() == 4.0
    assert loop.stats().wakeups == 4


@pytest.mark.parametrize("make", [timeout, timeout_at, move_on_after, move_on_at])
@pytest.mark.parametrize("limit", [None, math.inf, 1e30])
def test_no_limit(make, limit):
    async def main():
        with make(limit) as scope:
            assert scope.deadline == math.inf
            assert scope.when() is None
            assert current_effective_deadline() == math.inf
            await sleep(1e6)
        assert not scope.expired()
        return now()

    assert virtual(main()) == 1e6


@pytest.mark.parametrize("make", [timeout, timeout_at, move_on_after, move_on_at])
@pytest.mark.parametrize("limit", [0, -1, -math.inf])
def test_no_time_at_all(make, limit):
    async def main():
        with make(limit) as scope:
            assert scope.cancel_called
            assert current_effective_deadline() == -math.inf
            error = await awaited_error(checkpoint())
        assert error.source == "deadline"
        assert scope.expired()
        assert not scope.cancelled_caught  # as the block is through, it is no TimeoutError either
        try:
            await stay(make(limit), 0)
        except TimeoutError:
            return "timed out", now()
        return "moved on", now()

    assert virtual(main()) == ("moved on" if "move_on" in make.__name__ else "timed out", 0.0)


@pytest.mark.parametrize("make", [timeout, move_on_after])
@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (math.nan, ValueError),
        ("5", TypeError),
        ([], TypeError),
        (START, TypeError),
        (3j, TypeError),
    ],
)
def test_what_is_no_delay(make, bad, error):
    with pytest.raises(error, match=rf"{make.__name__}\(\)"):
        make(bad)


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (math.nan, ValueError),
        ("5", TypeError),
        ([], TypeError),
        (timedelta(1), TypeError),
        (START.date(), TypeError),
    ],
)
def test_what_is_no_moment(bad, error):
    for make in (timeout_at, move_on_at):
        with pytest.raises(error, match=rf"{make.__name__}\(\)"):
            make(bad)
    with pytest.raises(error, match="deadline"):
        CancelScope(deadline=bad)
    scope = CancelScope(deadline=5)
    with pytest.raises(error, match="deadline"):
        scope.deadline = bad
    with pytest.raises(error, match=r"reschedule\(\)"):
        scope.reschedule(bad)
    assert scope.deadline == 5.0  # as it was


@pytest.mark.parametrize(
    "call",
    [
        lambda: CancelScope(5),
        lambda: CancelScope(timeout=5),
        lambda: timeout(),
        lambda: timeout(1, True),
        lambda: timeout(1, sheild=True),
        lambda: move_on_at(when=1, delay=2),
        lambda: CancelScope().cancel("a", "b"),
        lambda: CancelScope().cancel(why="a"),
    ],
)
def test_wrong_arguments(call):
    with pytest.raises(TypeError):
        call()


@pytest.mark.parametrize("make", [timeout, timeout_at, move_on_after, move_on_at])
def test_all_of_them_take_a_shield(make):
    async def main():
        with CancelScope() as outer:
            outer.cancel()
            try:
                with make(3, shield=True) as scope:
                    assert scope.shield is True
                    await sleep_forever()
            except TimeoutError:
                assert "timeout" in make.__name__
            assert scope.cancelled_caught
            assert make(3).shield is False
            assert make(3, shield=0).shield is False
        return now()

    assert virtual(main()) == 3.0


@pytest.mark.parametrize(
    ("make", "end"), [(timeout, 8), (move_on_after, 8), (timeout_at, 5), (move_on_at, 5)]
)
def test_a_delay_counts_from_entering_the_block(make, end):
    async def main():
        scope = make(5)
        await sleep(3)
        try:
            await stay(scope)
        except TimeoutError:
            assert "timeout" in make.__name__
        assert scope.expired()
        return now()

    assert virtual(main()) == end


# ---- when a timeout is none ----------------------------------------------------------------------


def test_a_timeout_that_was_cancelled_is_left_quietly():
    async def main():
        with timeout(5) as scope:
            scope.cancel()
            await sleep_forever()
        assert scope.cancelled_caught
        assert not scope.expired()
        return now()

    assert virtual(main()) == 0.0


def test_a_deadline_that_passes_after_cancel_changes_nothing():
    async def main():
        with timeout(5) as scope:
            scope.cancel("first")
            with CancelScope(shield=True):
                await sleep(10)
            assert not scope.expired()
            error = await awaited_error(checkpoint())
            raise error
        return error.source, error.reason

    assert virtual(main()) == ("explicit", "first")


def test_cancel_after_the_deadline_has_passed_changes_nothing():
    async def main():
        with pytest.raises(TimeoutError):
            await expire_and_cancel()

    async def expire_and_cancel():
        with timeout(1) as scope:
            with CancelScope(shield=True):
                await sleep(2)
            scope.cancel()
            assert scope.expired()
            await checkpoint()

    virtual(main())


def test_a_block_that_is_through_although_its_time_is_over():
    async def main():
        with timeout(1) as scope, CancelScope(shield=True):
            await sleep(2)
        assert scope.expired()
        assert not scope.cancelled_caught
        return now()

    assert virtual(main()) == 2.0


def test_the_block_s_own_errors_are_no_business_of_the_timeout():
    own = TimeoutError("of the block itself")

    async def main():
        with pytest.raises(TimeoutError) as info:
            await fail_late(own)
        assert info.value is own
        with pytest.raises(KeyError):
            await fail_late(KeyError("k"))

    async def fail_late(error):
        with timeout(1) as scope:
            try:
                await sleep(2)
            finally:
                assert scope.expired()
                raise error

    virtual(main())


@pytest.mark.parametrize(("outer", "inner"), [(5, 10), (5, 5), (10, 5)])
def test_of_nested_timeouts_only_the_one_whose_time_it_was_raises(outer, inner):
    async def main():
        events = []
        try:
            with timeout(outer):
                try:
                    with timeout(inner):
                        await sleep_forever()
                except TimeoutError:
                    events.append("inner")
                    raise
        except TimeoutError as error:
            events.append(str(error.__cause__))
        return events, now()

    told = ["the deadline at 5.0 s has passed"]
    assert virtual(main()) == (["inner", *told] if inner < outer else told, 5.0)


def test_a_timeout_in_a_group_of_errors():
    """Its own errors alone are a TimeoutError; what is left otherwise comes out instead."""

    async def main():
        with pytest.raises(TimeoutError) as timed_out:
            await raise_group([])
        assert isinstance(timed_out.value.__cause__, BaseExceptionGroup)
        value = ValueError("v")
        with pytest.raises(ExceptionGroup) as info:
            await raise_group([value])
        assert info.value.exceptions == (value,)
        assert info.value.__cause__ is None

    async def raise_group(others):
        with timeout(1):
            error = await awaited_error(sleep(2))
            raise BaseExceptionGroup("group", [error, *others])

    virtual(main())


# ---- deadlines that change -----------------------------------------------------------------------


def test_a_deadline_can_be_set_before_during_and_after():
    async def main():
        scope = move_on_after(5)
        assert scope.deadline == 5.0
        await sleep(1)
        assert scope.deadline == 6.0  # if it was entered now
        scope.deadline = 4
        with scope:
            assert scope.deadline == 4.0
            scope.deadline = 20
            await sleep(9)  # until 10: not at 4, nor at 6
            scope.deadline = START + timedelta(seconds=12)
            assert scope.deadline == 12.0
            await sleep_forever()
        assert now() == 12.0
        scope.deadline = 99
        scope.shield = True
        assert (scope.deadline, scope.shield) == (99.0, True)
        await sleep(100)
        return scope.cancelled_caught

    assert run(main(), speed=math.inf, start=START)


@pytest.mark.parametrize("none", [None, math.inf, 1e300])
def test_taking_a_deadline_away(none):
    async def main():
        with move_on_after(5) as scope:
            scope.deadline = none
            assert scope.deadline == math.inf
            await sleep(10)
            scope.reschedule(12)
            scope.reschedule(none)
            assert scope.when() is None
            await sleep(10)
        return scope.cancel_called

    assert virtual(main()) is False


@pytest.mark.parametrize(("new", "end"), [(3, 3.0), (1, 2.0), (-5, 2.0), (9, 9.0)])
def test_another_task_moves_the_deadline(new, end):
    async def main():
        with move_on_after(5) as scope:
            create_task(set_deadline_at(2, scope, new))
            await sleep_forever()
        assert scope.deadline == new
        return now()

    assert virtual(main()) == end


def test_no_deadline_undoes_a_cancellation():
    async def main():
        for scope in (move_on_after(0), CancelScope()):
            with scope:
                scope.cancel()
                for later in (math.inf, None, 1000):
                    scope.deadline = later
                    scope.shield = True
                    assert scope.cancel_called
                    await awaited_error(checkpoint())
                await checkpoint()
            assert scope.cancelled_caught

    virtual(main())


def test_asyncio_s_names():
    async def main():
        async with timeout(5) as scope:
            assert scope.when() == 5.0
            scope.reschedule(now() + 10)
            await sleep(7)
            assert not scope.expired()
            assert scope.reschedule(None) is None
            await sleep(7)
            scope.reschedule(20)
        scope = timeout_at(21)
        with pytest.raises(TimeoutError):
            await stay(scope)
        return now(), scope.expired()

    assert virtual(main()) == (21.0, True)


@pytest.mark.realtime
def test_a_deadline_that_passes_in_a_step_that_never_awaits():
    async def main():
        with move_on_after(0.01) as by_attribute, timeout(0.01) as by_method:
            assert not by_attribute.cancel_called
            time.sleep(0.02)
            assert by_attribute.cancel_called
            assert by_method.expired()
            await checkpoint()
        return by_attribute.cancelled_caught, by_method.cancelled_caught

    assert run(main()) == (True, False)


# ---- current_effective_deadline() ----------------------------------------------------------------


def test_the_effective_deadline_is_the_earliest_up_to_a_shield():
    async def main():
        seen = []

        def look():
            seen.append(current_effective_deadline())

        look()
        with timeout(10) as outer:
            with timeout(20):
                look()
                with timeout(30, shield=True) as shielded:
                    look()
                    with timeout(40):
                        look()
                        shielded.shield = False
                        look()
                        outer.deadline = 15
                        look()
                        shielded.deadline = 12
                        look()
            look()
            outer.deadline = None
            look()
            outer.cancel()
            look()
            with CancelScope(shield=True, deadline=50):
                look()
        look()
        return seen

    inf = math.inf
    assert virtual(main()) == [inf, 10, 30, 30, 10, 15, 12, 15, inf, -inf, 50, inf]


def test_the_effective_deadline_of_other_tasks():
    async def look():
        return current_effective_deadline()

    async def main():
        with timeout(20):
            async with TaskGroup() as group:
                with timeout(10):
                    child, stranger = group.create_task(look()), create_task(look())
                    await checkpoint()
                    group.cancel_scope.deadline = 15
                    late = group.create_task(look())
        return [await task for task in (child, stranger, late)]

    assert virtual(main()) == [20.0, math.inf, 15.0]


def test_the_effective_deadline_needs_a_task():
    with pytest.raises(RuntimeError, match=r"current_effective_deadline\(\) needs"):
        current_effective_deadline()


# ---- crowds --------------------------------------------------------------------------------------


def peak_memory(coro):
    """By how many bytes memory grows at most while it runs."""
    gc.collect()
    tracemalloc.start()
    try:
        virtual(coro)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_deadline_that_changes_100_000_times_takes_no_room():
    async def main(times):
        with move_on_after(1000) as scope:
            create_task(sleep(1e6), daemon=True)  # a living timer among the dead ones
            for i in range(times):
                scope.deadline = 1000 + i % 7
            assert current_loop().stats().wakeups == 0
            await sleep_forever()
        assert now() == scope.deadline

    assert peak_memory(main(100_000)) < peak_memory(main(100)) + 10_000


def test_200_000_timeouts_that_never_fire_take_no_room():
    async def main(times):
        for _ in range(times):
            with timeout(10):
                pass

    assert peak_memory(main(200_000)) < peak_memory(main(100)) + 10_000


@pytest.mark.slow
def test_a_million_timeouts_that_never_fire():
    """Each around a step, a thousand at a time: the heap of timers is full of dead ones."""

    async def worker(times):
        for _ in range(times):
            async with timeout(10):
                await checkpoint()

    loop = SleepingLoop(*[worker(1000) for _ in range(1000)], speed=math.inf)
    loop.run_until_complete()
    assert loop.time() == 0.0
    assert loop.stats().wakeups == 0


def test_10_000_deadlines_pass_in_their_order():
    async def worker(i):
        with move_on_after(1 + i * 7919 % 10_007):
            await sleep_forever()
        ends.append((now(), i))

    ends = []
    SleepingLoop(*[worker(i) for i in range(10_000)], speed=math.inf).run_until_complete()
    assert ends == sorted((1.0 + i * 7919 % 10_007, i) for i in range(10_000))


def test_10_000_deadlines_pass_at_once():
    async def worker(i):
        with move_on_after(5):
            await sleep_forever()
        ends.append(i)

    ends = []
    SleepingLoop(*[worker(i) for i in range(10_000)], speed=math.inf).run_until_complete()
    assert ends == list(range(10_000))
