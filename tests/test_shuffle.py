"""Orders other than first in, first out: `shuffle=` and `loop.schedule`."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

import sleeploop
from sleeploop import (
    CancelledError,
    CancelScope,
    SleepingLoop,
    TaskGroup,
    checkpoint,
    create_task,
    current_loop,
    sleep,
)
from tests.helpers import fail, yielding


async def say(log: list[Any], what: object, steps: int = 1) -> None:
    for step in range(steps):
        log.append(what if steps == 1 else (what, step))
        await checkpoint()


def order_of(shuffle: Any, tasks: int = 4, steps: int = 1) -> tuple[list[Any], Any]:
    """Who says what in which order, and the schedule."""
    log: list[Any] = []
    loop = SleepingLoop(
        *(say(log, i, steps) for i in range(tasks)), speed=math.inf, shuffle=shuffle
    )
    loop.run_until_complete()
    return log, loop.schedule


def order_of_main(main: Callable[[list[Any]], Coroutine[Any, Any, Any]], shuffle: Any) -> Any:
    log: list[Any] = []
    loop = SleepingLoop(main(log), speed=math.inf, shuffle=shuffle)
    loop.run_until_complete()
    return log, loop.schedule


# ---- seeds ---------------------------------------------------------------------------------------


def test_what_one_seed_gives_on_every_machine() -> None:
    """A change here makes every seed that somebody has written down worthless."""
    assert order_of(2030, tasks=3, steps=2) == (
        [(0, 0), (2, 0), (2, 1), (1, 0), (1, 1), (0, 1)],
        (0, 1, 2, 0, 2, 2, 0, 0),
    )


@pytest.mark.parametrize("seed", [0, 1, -1, 2**64 + 3, 2030])
def test_the_numbers_are_those_of_splitmix64(seed: int) -> None:
    mask = 2**64 - 1
    state, expected = seed & mask, []
    for _ in range(50):
        state = state + 0x9E3779B97F4A7C15 & mask
        z = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & mask
        z = (z ^ z >> 27) * 0x94D049BB133111EB & mask
        expected.append((z ^ z >> 31) >> 32)
    schedule = order_of(seed, 7, 100)[1]
    assert schedule[:50] == tuple(number * 7 >> 32 for number in expected)


@pytest.mark.parametrize("seed", [0, 1, -1, 2**63, 2**64 - 1, -(2**63), 10**100, -(10**100)])
def test_any_int_is_a_seed_and_gives_the_same_each_time(seed: int) -> None:
    assert order_of(seed, 20, 3) == order_of(seed, 20, 3)
    assert order_of(seed, 20, 3) != order_of(seed + 1, 20, 3)


def test_every_order_comes_up() -> None:
    found = {tuple(order_of(seed)[0]) for seed in range(300)}
    assert found == set(itertools.permutations(range(4)))


def test_none_is_preferred() -> None:
    first = [order_of(seed, 5)[0][0] for seed in range(1000)]
    assert all(150 < first.count(i) < 250 for i in range(5))


def test_without_it_nothing_is_different() -> None:
    assert order_of(None, 3, 2) == ([(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1)], None)
    assert sleeploop.run(schedule_inside()) is None


async def schedule_inside() -> Any:
    return current_loop().schedule


# ---- schedules -----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_a_schedule_is_what_happened(seed: int) -> None:
    log, schedule = order_of(seed, 6, 3)
    assert order_of(schedule, 6, 3) == (log, schedule)
    assert order_of(list(schedule), 6, 3) == (log, schedule)


def test_a_choice_is_the_place_in_the_queue() -> None:
    assert order_of([2, 0, 1])[0] == [2, 0, 3, 1]
    assert order_of([3, 2, 1])[0] == [3, 2, 1, 0]


def test_no_choices_are_first_in_first_out() -> None:
    log, schedule = order_of((), 3)
    assert log == [0, 1, 2]
    assert schedule == (0, 0, 0, 0, 0)  # all the same it says how much there was to choose


def test_after_the_end_of_the_choices_it_is_the_first() -> None:
    assert order_of([3])[0] == [3, 0, 1, 2]


def test_too_large_means_the_last() -> None:
    log, schedule = order_of([65535, 4, 3], 4)
    assert log == [3, 2, 0, 1]
    assert schedule[:3] == (3, 3, 2)  # what was really chosen; task 3 has ended by now
    assert order_of(schedule) == (log, schedule)


def test_choices_that_are_not_needed_do_not_show() -> None:
    assert order_of([0] * 1000, 2)[1] == (0, 0, 0)


def test_where_there_is_no_choice_none_is_counted() -> None:
    async def alone() -> None:
        for _ in range(10):
            await checkpoint()
            await sleep(1)

    loop = SleepingLoop(alone(), speed=math.inf, shuffle=1)
    loop.run_until_complete()
    assert loop.schedule == ()
    assert order_of([1], 2)[1][0] == 1
    assert order_of([1], 1) == ([0], ())


def test_the_schedule_before_in_the_middle_of_and_after_a_run() -> None:
    seen = []

    async def look() -> None:
        for _ in range(3):
            seen.append(current_loop().schedule)
            await checkpoint()

    loop = SleepingLoop(look(), look(), speed=math.inf, shuffle=7)
    assert loop.schedule == ()
    loop.step()
    seen.append(loop.schedule)
    loop.run_until_complete()
    assert all(loop.schedule[: len(each)] == each for each in seen)
    assert [len(each) for each in seen[:3]] == [1, 2, 2]
    with pytest.raises(AttributeError):
        loop.schedule = ()


def test_a_schedule_longer_than_what_is_given_grows() -> None:
    log, schedule = order_of([1, 2], 10, 100)
    assert len(log) == 1000
    assert len(schedule) > 900
    assert not any(schedule[2:])


# ---- what is not shuffled ------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(30))
def test_timers_keep_their_times(seed: int) -> None:
    async def main(log: list[Any]) -> None:
        async def nap(seconds: float) -> None:
            await sleep(seconds)
            log.append(current_loop().time())

        async with TaskGroup() as group:
            for seconds in (5, 1, 3, 1, 2, 2):
                group.create_task(nap(seconds))

    assert order_of_main(main, seed)[0] == [1, 1, 2, 2, 3, 5]


@pytest.mark.parametrize("seed", range(30))
def test_equal_times_wake_in_any_order(seed: int) -> None:
    """They fire in the order in which they were armed; who runs first is another thing."""
    log, _ = order_of_main(sleepers, seed)
    assert sorted(log) == list(range(3))


async def sleepers(log: list[Any]) -> None:
    async def nap(i: int) -> None:
        await sleep(1)
        log.append(i)

    async with TaskGroup() as group:
        for i in range(3):
            group.create_task(nap(i))


def test_every_order_of_equal_times_comes_up() -> None:
    orders = {tuple(order_of_main(sleepers, seed)[0]) for seed in range(100)}
    assert len(orders) == 6


@pytest.mark.parametrize("shuffle", [1, 2, 3, [1] * 1000, [0, 1] * 500])
def test_a_pass_ends_at_a_finite_speed(shuffle: Any) -> None:
    """Whoever steps aside and is chosen again and again does not keep a timer from firing."""

    async def main() -> int:
        async def busy() -> None:
            nonlocal turns
            while not over:
                turns += 1
                await checkpoint()

        turns, over = 0, False
        tasks = [create_task(busy()) for _ in range(3)]
        await sleep(1)
        over = True
        for task in tasks:
            await task
        return turns

    assert sleeploop.run(main(), speed=1000, shuffle=shuffle) > 0


def test_a_crowd() -> None:
    """At most the first 1,000 are drawn from, so that it does not take long."""
    log, schedule = order_of(1, 20_000)
    assert sorted(log) == list(range(20_000))
    assert max(schedule) == 999
    assert all(later - place < 1000 for place, later in enumerate(log))
    assert order_of(schedule, 20_000) == (log, schedule)
    assert order_of([65535], 2_000)[1][0] == 999


# ---- with everything else ------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(40))
def test_cancelling(seed: int) -> None:
    """Whoever has been woken before is not cancelled any more; nobody is lost."""

    async def main(log: list[Any]) -> None:
        async def victim(i: int) -> None:
            try:
                await sleep(1)
                log.append((i, "slept"))
                await checkpoint()
                log.append((i, "went on"))
            except CancelledError:
                log.append((i, "cancelled"))
                raise

        async with TaskGroup() as group:
            for i in range(4):
                group.create_task(victim(i))
            await sleep(1)
            group.cancel_scope.cancel()

    log, schedule = order_of_main(main, seed)
    assert order_of_main(main, schedule) == (log, schedule)
    assert [i for i, what in sorted(log) if what == "slept"] == [0, 1, 2, 3]
    ends = [what for _, what in log if what != "slept"]
    assert len(ends) == 4


def test_what_is_ready_is_not_cancelled_in_any_order() -> None:
    async def main(log: list[Any]) -> None:
        with CancelScope() as scope:
            create_task(say(log, "other"))
            create_task(cancel(scope))
            await checkpoint()
            log.append("in time")
        log.append("end")

    async def cancel(scope: CancelScope) -> None:
        scope.cancel()

    # It has been ready since it stepped aside: what comes first, counts.
    assert {tuple(order_of_main(main, seed)[0]) for seed in range(100)} == {
        ("other", "in time", "end"),
        ("in time", "end", "other"),
    }


@pytest.mark.parametrize("seed", range(20))
def test_failing(seed: int) -> None:
    async def main() -> None:
        async with TaskGroup() as group:
            group.create_task(fail(ValueError()))
            group.create_task(fail(KeyError()))
            group.create_task(sleep(5))

    loop = SleepingLoop(main(), speed=math.inf, shuffle=seed)
    with pytest.raises(ExceptionGroup) as caught:
        loop.run_until_complete()
    kinds = [type(error) for error in caught.value.exceptions]
    again = SleepingLoop(main(), speed=math.inf, shuffle=loop.schedule)
    with pytest.raises(ExceptionGroup) as caught:
        again.run_until_complete()
    assert [type(error) for error in caught.value.exceptions] == kinds
    assert again.schedule == loop.schedule


def test_daemons_and_async_generators() -> None:
    async def main(log: list[Any]) -> None:
        async def endless() -> Any:
            try:
                while True:
                    yield 1
                    await checkpoint()
            finally:
                log.append("closed")

        async def daemon() -> None:
            async for _ in endless():
                log.append("daemon")

        create_task(daemon(), daemon=True)
        create_task(say(log, "task", 3))
        for _ in range(3):
            await checkpoint()

    logs = set()
    for seed in range(50):
        log, schedule = order_of_main(main, seed)
        assert order_of_main(main, schedule) == (log, schedule)
        assert log.count("closed") == ("daemon" in log)
        logs.add(tuple(map(str, log)))
    assert len(logs) > 20


def test_yields_of_any_kind_are_shuffled() -> None:
    async def main(log: list[Any]) -> None:
        async def bad() -> None:
            try:
                await yielding(42)
            except TypeError:
                log.append("bad")

        async def good() -> None:
            await yielding(None)
            log.append("good")

        async with TaskGroup() as group:
            group.create_task(bad())
            group.create_task(good())

    assert {tuple(order_of_main(main, seed)[0]) for seed in range(20)} == {
        ("bad", "good"),
        ("good", "bad"),
    }


def test_a_loop_driven_bit_by_bit_takes_the_same_order() -> None:
    expected = order_of(5, 4, 4)
    log: list[Any] = []
    loop = SleepingLoop(*(say(log, i, 4) for i in range(4)), speed=math.inf, shuffle=5)
    while loop.step():
        pass
    assert (log, loop.schedule) == expected
    loop.close()


def test_calls_from_outside_come_in_their_order() -> None:
    log: list[Any] = []
    loop = SleepingLoop(say(log, "a"), say(log, "b"), speed=math.inf, shuffle=3)
    for i in range(20):
        loop.call_soon_threadsafe(log.append, i)
    loop.run_until_complete()
    assert log[:20] == list(range(20))


# ---- misuse --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bad", ["1", 1.0, True, False, {1: 2}, {1}, b"\1", range(3), iter([1]), object()]
)
def test_what_it_cannot_be(bad: Any) -> None:
    for make in SleepingLoop, sleeploop.run:
        coro = checkpoint()
        with pytest.raises(TypeError, match="shuffle must be an int, the seed, or a list or tuple"):
            make(coro, shuffle=bad)
        sleeploop.run(coro)  # still the caller's


@pytest.mark.parametrize("bad", [-1, 65536, 2**63, -(10**100), 10**100])
def test_choices_out_of_range(bad: int) -> None:
    for choices in [bad], (0, 1, bad), [bad, None]:
        with pytest.raises(ValueError, match=r"shuffle takes choices of 0 to 65535, not -?\d"):
            SleepingLoop(shuffle=choices)


@pytest.mark.parametrize("bad", [None, "0", 0.0, [0]])
def test_choices_that_are_no_ints(bad: Any) -> None:
    with pytest.raises(TypeError, match="shuffle takes choices of 0 to 65535, not"):
        SleepingLoop(shuffle=[0, bad])


class EvilInt(int):
    def _fail(self, *_: object) -> Any:
        raise AssertionError("called")

    __index__ = __int__ = __eq__ = __lt__ = __and__ = __rshift__ = __bool__ = _fail
    __hash__ = None


def test_subclasses_of_int_are_ints() -> None:
    assert order_of(EvilInt(5), 20) == order_of(5, 20)
    assert order_of([EvilInt(2)]) == order_of([2])
    assert type(order_of([EvilInt(2)])[1][0]) is int


def test_an_int_whose_repr_fails() -> None:
    class Unspeakable(int):
        def __repr__(self) -> str:
            raise ZeroDivisionError

    with pytest.raises((ValueError, ZeroDivisionError)):
        SleepingLoop(shuffle=[Unspeakable(-1)])


def test_subclasses_of_list_are_asked_for_their_items() -> None:
    class Choices(list):  # type: ignore[type-arg]
        def __iter__(self) -> Any:
            return iter([2])

    class Failing(tuple):  # type: ignore[type-arg]
        def __iter__(self) -> Any:
            raise ZeroDivisionError

    assert order_of(Choices([1, 1, 1])) == order_of([2])
    with pytest.raises(ZeroDivisionError):
        SleepingLoop(shuffle=Failing((1, 2)))


def test_a_list_that_changes_while_it_is_read() -> None:
    class Shrinking(list):  # type: ignore[type-arg]
        def __iter__(self) -> Any:
            while self:
                yield self.pop()

    choices = Shrinking([1] * 100)
    assert order_of(choices, 2)[1] == order_of([1] * 100, 2)[1]
    assert choices == []


def test_a_list_is_copied() -> None:
    choices = [1, 1]
    log: list[Any] = []
    loop = SleepingLoop(say(log, "a"), say(log, "b"), speed=math.inf, shuffle=choices)
    choices[:] = [0, 0]
    loop.run_until_complete()
    assert log == ["b", "a"]


def test_init_twice() -> None:
    loop = SleepingLoop(shuffle=[1, 2, 3])
    with pytest.raises(RuntimeError):
        loop.__init__(shuffle=1)  # type: ignore[misc]
    assert loop.schedule == ()


def test_long_lists() -> None:
    choices = random.Random(1).choices(range(10), k=100_000)
    log, schedule = order_of(choices, 10, 100)
    assert len(schedule) <= 1010  # steps
    assert schedule[:500] == tuple(choices[:500])
    assert len(log) == 1000
