"""What was begun in one place and is yielded in another: it counts for the task that began it."""

import gc
import itertools
import math
import types
from collections.abc import Callable, Generator
from typing import Any

import pytest

from sleeploop import (
    Event,
    Lock,
    Queue,
    Resource,
    SleepingLoop,
    TaskGroup,
    checkpoint,
    create_task,
    current_loop,
    every,
    move_on_after,
    move_on_at,
    run,
    sleep,
    sleep_forever,
    sleep_until,
)
from tests.helpers import give, now, virtual


@types.coroutine
def yielded(trap: Any) -> Generator[Any, Any, Any]:
    return (yield trap)


def begun(awaitable: Any) -> Any:
    """It has made its first step, as `await` does it, and what it yielded is itself."""
    steps = awaitable.__await__()
    trap = steps.send(None)
    assert trap is steps
    return trap


async def starting(*, started: Callable[[], None]) -> None:
    await sleep_forever()


WAYS: dict[str, Callable[[], Any]] = {
    "sleep": lambda: sleep(5),
    "sleep that steps aside": lambda: sleep(0),
    "sleep_until": lambda: sleep_until(5),
    "sleep_forever": sleep_forever,
    "checkpoint": checkpoint,
    "tick": lambda: anext(every(5, start=5)),
    "join": lambda: create_task(sleep_forever(), daemon=True),
    "event": lambda: Event().wait(),
    "queue": lambda: Queue[int]().get(),
}


async def begin(make: Callable[[], Any], held: list[Any]) -> None:
    held.append(begun(make()))


@pytest.mark.parametrize("make", WAYS.values(), ids=WAYS)
def test_another_task_cannot_wait_for_it(make: Callable[[], Any]) -> None:
    async def main() -> None:
        held: list[Any] = []
        await create_task(begin(make, held))
        with pytest.raises(TypeError, match=r"SleepingLoop cannot wait for .*'await' it, once and"):
            await yielded(held[0])
        assert now() == 0

    virtual(main())


@pytest.mark.parametrize("make", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("closed", [True, False])
def test_nor_can_a_task_of_another_loop_that_has_the_same_number(
    make: Callable[[], Any], closed: bool
) -> None:
    held: list[Any] = []

    async def first() -> None:
        held.append(begun(make()))
        if not closed:
            await sleep(1000)

    async def second() -> None:
        await sleep(3)
        with pytest.raises(TypeError, match=r"SleepingLoop cannot wait for .*'await' it, once and"):
            await yielded(held[0])
        assert (now(), current_loop().lag) == (3, 0)

    loop = SleepingLoop(first(), speed=math.inf)
    if closed:
        loop.run_until_complete()
        del loop
        gc.collect()
    else:
        loop.run_until(1)
    virtual(second())
    if not closed:
        loop.close()


def test_nor_one_that_was_begun_by_no_task() -> None:
    async def main() -> None:
        held: list[Any] = []
        loop = current_loop()
        loop.call_soon_threadsafe(lambda: held.append(begun(sleep(5))))
        await sleep(1)
        with pytest.raises(TypeError, match="cannot wait for"):
            await yielded(held[0])

    virtual(main())


@pytest.mark.parametrize("where", ["same loop", "other loop"])
def test_it_can_be_resumed_by_its_task_alone(where: str) -> None:
    held: list[Any] = []

    async def first() -> None:
        await begin(lambda: sleep(5), held)

    async def second() -> None:
        with pytest.raises(RuntimeError, match=r"this sleep\(\) was awaited before"):
            held[0].send(None)

    async def both() -> None:
        await create_task(first())
        await second()

    if where == "same loop":
        virtual(both())
    else:
        virtual(first())
        virtual(second())


LATE: dict[str, Callable[[], Any]] = {
    "sleep": lambda: sleep(5),
    "sleep_until": lambda: sleep_until(5),
    "tick": lambda: anext(every(5, start=5)),
}


@pytest.mark.parametrize("make", LATE.values(), ids=LATE)
@pytest.mark.parametrize("strict", [None, 1])
def test_its_own_task_may_yield_it_later_and_it_is_over_then(
    make: Callable[[], Any], strict: float | None
) -> None:
    lags: list[float] = []

    async def look() -> None:
        for _ in range(3):
            lags.append(current_loop().lag)
            await checkpoint()

    async def main() -> None:
        trap = begun(make())
        await sleep(100)
        create_task(look())
        await yielded(trap)
        assert now() == 100
        trap = begun(sleep(50))
        await sleep(20)
        await yielded(trap)  # that is not over yet
        assert now() == 150
        await checkpoint()

    run(main(), speed=math.inf, strict=strict)
    assert lags == [0, 0, 0]


@pytest.mark.realtime
def test_nor_is_a_loop_late_in_real_time() -> None:
    async def main() -> None:
        trap = begun(sleep(10))
        await sleep(4000)
        lag = current_loop().lag
        await yielded(trap)
        assert current_loop().lag < 3000 + 2 * lag

    run(main(), speed=100_000)


def test_several_may_be_begun_in_one_step_and_yielded_in_any_order() -> None:
    async def main() -> None:
        traps = [begun(sleep(seconds)) for seconds in (3, 2, 5, 1)]
        times = []
        for trap in traps:
            await yielded(trap)
            times.append(now())
        assert times == [3, 3, 5, 5]

    virtual(main())


def test_the_start_and_the_end_of_a_group_belong_to_its_task() -> None:
    async def stranger(trap: Any) -> None:
        with pytest.raises(TypeError, match="cannot wait for"):
            await yielded(trap)

    async def main() -> None:
        group = TaskGroup()
        await group.__aenter__()
        start = begun(group.start(starting))
        await create_task(stranger(start))
        start.close()
        task = group.create_task(give(1, 5))
        leave = begun(group.__aexit__(None, None, None))
        await create_task(stranger(leave))
        assert now() == 0
        await leave
        assert (now(), task.result()) == (5, 1)

    virtual(main())


def test_a_lock_and_a_slot_that_were_begun_elsewhere() -> None:
    lock, desk = Lock(), Resource()

    async def main() -> None:
        held: list[Any] = []
        await lock.acquire()
        slot = await desk.request()
        await create_task(begin(lock.acquire, held))
        await create_task(begin(desk.request, held))
        for trap in held:
            with pytest.raises(TypeError, match="cannot wait for"):
                await yielded(trap)
        lock.release()
        slot.release()

    virtual(main())
    assert not lock.locked()
    assert desk.in_use == 0


def test_a_deadline_that_has_passed_is_no_lag() -> None:
    async def main() -> None:
        await sleep(100)
        with move_on_at(5):
            await sleep(1)
        with move_on_after(50) as scope:
            scope.deadline = 7
            await sleep(1)
        assert (now(), current_loop().lag) == (100, 0)
        await checkpoint()
        assert current_loop().lag == 0

    virtual(main())


def test_a_join_serves_the_task_that_began_it() -> None:
    async def main() -> None:
        target = create_task(give(1, 5))
        trap = begun(target)
        await sleep(2)
        assert await yielded(trap) is None
        assert now() == 5

    virtual(main())


def impostors(size: int) -> Generator[bytes, None, None]:
    """Objects of that size, made of what a waiting sleep is made of, as far as one can say."""
    content = bytearray(b"\0\1\0\0".ljust(size - bytes.__basicsize__, b"\0"))
    while True:
        yield bytes(content)


def resumed(trap: Any) -> None:
    with pytest.raises(StopIteration):
        trap.send(None)


def thrown(trap: Any) -> None:
    with pytest.raises(KeyError):
        trap.throw(KeyError)


@pytest.mark.parametrize(
    "end", [lambda trap: None, lambda trap: trap.close(), thrown, resumed],
    ids=["dropped", "closed", "thrown", "resumed"],
)  # fmt: skip
def test_what_lies_where_an_awaitable_was_is_none(end: Callable[[Any], None]) -> None:
    async def main() -> None:
        spare = sleep(5)
        spare.close()  # whose memory the next sleep gets, but not a bytes object
        objects = impostors(type(spare).__basicsize__)
        others = [next(objects) for _ in range(5_000)]  # so that there are no gaps among them
        trap = begun(sleep(5))
        end(trap)
        address = id(trap)
        del spare, trap
        for obj in itertools.islice(objects, 100_000):
            if id(obj) == address:
                with pytest.raises(TypeError, match=r"SleepingLoop cannot wait for b'"):
                    await yielded(obj)
                return
            others.append(obj)
        pytest.skip("no object came to lie where the awaitable was")

    virtual(main())
