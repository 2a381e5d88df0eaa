"""Async generators that a run leaves unfinished are closed by it."""

import gc
import sys

import pytest

from sleeploop import (
    CancelledError,
    checkpoint,
    create_task,
    current_loop,
    current_task,
    sleep,
)
from tests.helpers import virtual


async def numbers(log, name="g", rest=1):
    try:
        for i in range(10):
            yield i
    finally:
        await sleep(rest)
        log.append((name, current_loop().time()))


def test_a_dropped_generator_is_closed_while_the_run_goes_on():
    log = []

    async def main():
        async for i in numbers(log):
            if i == 2:
                break
        gc.collect()
        await sleep(5)
        assert log == [("g", 1.0)]

    virtual(main())


def test_one_dropped_at_the_very_end_is_closed_all_the_same():
    log = []

    async def main():
        async for _ in numbers(log, rest=100):
            break
        return "result"

    assert virtual(main()) == "result"
    assert log == [("g", 100.0)]


def test_those_alive_at_the_end_are_closed_in_the_order_of_their_first_iteration():
    log, kept = [], []

    async def main():
        for name in "abc":
            kept.append(numbers(log, name, rest=0))
        for agen in reversed(kept):
            await agen.__anext__()

    virtual(main())
    assert [name for name, _ in log] == ["c", "b", "a"]


def test_a_generator_closed_by_hand_is_left_alone():
    log = []

    async def main():
        agen = numbers(log, rest=0)
        await agen.__anext__()
        await agen.aclose()
        await sleep(1)

    virtual(main())
    assert log == [("g", 0.0)]


def test_errors_of_closing_are_logged(caplog):
    async def broken():
        try:
            yield 1
        finally:
            raise ValueError("on closing")

    async def main():
        async for _ in broken():
            break

    virtual(main())
    assert "on closing" in caplog.text


def test_a_cancelled_task_closes_its_generator_with_awaits_that_work():
    """Cancellation ends the task, not what the loop does for its generators."""
    log = []

    async def main():
        async for _ in numbers(log, rest=3):
            raise ValueError("x")

    with pytest.raises(ValueError, match="x"):
        virtual(main())
    assert log == [("g", 3.0)]


def test_cancelled_inside_a_generator():
    seen = []

    async def agen():
        try:
            yield await sleep(100)
        except CancelledError:
            seen.append("cancelled")
            raise

    async def consumer():
        async for _ in agen():
            pass

    async def main():
        create_task(consumer())
        await sleep(1)

    virtual(main())
    assert seen == ["cancelled"]


def test_a_generator_first_iterated_while_another_is_being_closed():
    log = []

    async def outer():
        try:
            yield 1
        finally:
            inner = numbers(log, "inner", rest=2)
            kept.append(inner)
            await inner.__anext__()

    async def main():
        agen = outer()
        kept.append(agen)
        await agen.__anext__()

    kept = []
    virtual(main())
    assert log == [("inner", 2.0)]


def test_the_hooks_are_put_back():
    def first(agen):
        pass

    async def main():
        inside.append(sys.get_asyncgen_hooks())

    inside = []
    old = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(first, None)
    try:
        virtual(main())
        assert sys.get_asyncgen_hooks() == (first, None)
    finally:
        sys.set_asyncgen_hooks(*old)
    assert inside[0].firstiter is not first


def test_closing_tasks_do_not_show_and_the_generator_may_look_around():
    async def agen():
        try:
            yield 1
        finally:
            await checkpoint()
            names.append(current_task().name)

    async def main():
        async for _ in agen():
            break
        gc.collect()
        assert current_loop().tasks() == [current_task()]
        await sleep(1)

    names = []
    virtual(main())
    assert len(names) == 1
