"""What a traceback shows, however often it is raised: the frames of who failed and of who asks."""

import contextlib
import gc
import math
import traceback
import weakref

import pytest

from sleeploop import (
    SleepingLoop,
    TaskGroup,
    all_of,
    as_completed,
    checkpoint,
    create_task,
    first_of,
    gather,
    sleep,
    sleep_forever,
    wait_for,
)
from tests.helpers import Thing, awaited_error, give, outcome, virtual


def frames(error):
    """The functions in its traceback, outermost first."""
    return [frame.name for frame in traceback.extract_tb(error.__traceback__)]


def told(error):
    return "".join(traceback.format_exception(error))


async def fails():
    await sleep(1)
    raise ValueError("once")


# ---- the same exception, raised again and again --------------------------------------------------


async def by_await(task):
    await task


async def by_result(task):
    task.result()


async def by_exception(task):
    raise task.exception()


async def by_gather(task):
    await gather(task, give(1))


async def by_first_of(task):
    await first_of(task, sleep(5))


async def by_all_of(task):
    await all_of(task, give(1))


async def by_wait_for(task):
    await wait_for(task, 5)


async def by_as_completed(task):
    async for done in as_completed([task]):
        await done


async def by_next_as_completed(task):
    await next(as_completed([task]))


async def by_start(task):
    async def child(*, started):
        await task

    async with TaskGroup() as group:
        with pytest.raises(ValueError, match="once") as caught:
            await group.start(child)
    raise caught.value.with_traceback(caught.value.__traceback__)


async def by_group(task):
    async def child():
        await task

    try:
        async with TaskGroup() as group:
            group.create_task(child())
    except ExceptionGroup as caught:
        (error,) = caught.exceptions
        raise error from None


async def by_another_task(task):
    await create_task(by_await(task))


WAYS = [function for name, function in globals().items() if name.startswith("by_")]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_traceback_is_the_same_each_time(way):
    async def main():
        task = create_task(fails())
        await sleep(2)
        seen = set()
        for _ in range(20):
            with pytest.raises(ValueError, match="once") as caught:
                await way(task)
            seen.add(tuple(frames(caught.value)))
        (one,) = seen
        assert one[0] == "main"
        assert one[-1] == "fails"

    virtual(main())


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_waiter_s_locals_go_with_the_next_raise(way):
    async def poll(task):
        thing = Thing()
        things.append(weakref.ref(thing))
        with contextlib.suppress(ValueError):
            await way(task)

    async def main():
        task = create_task(fails())
        await sleep(2)
        for _ in range(10):
            await poll(task)
        gc.collect()
        return sum(thing() is not None for thing in things)

    things = []
    assert virtual(main()) <= 1


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_nobody_sees_the_frames_of_another(way):
    async def first(task):
        try:
            await way(task)
        except ValueError as error:
            texts.append(told(error))

    async def second(task):
        try:
            await way(task)
        except ValueError as error:
            texts.append(told(error))

    async def main():
        task = create_task(fails())
        if way in (by_result, by_exception):
            await sleep(2)
        async with TaskGroup() as group:
            group.create_task(first(task))
            group.create_task(second(task))
            group.create_task(first(task))

    texts = []
    virtual(main())
    assert ["in first" in text for text in texts] == [True, False, True]
    assert ["in second" in text for text in texts] == [False, True, False]


async def waits_while_handling(task):
    try:
        raise KeyError("of a waiter")
    except KeyError:
        await task


def test_what_a_waiter_was_handling_is_no_business_of_the_next():
    async def main():
        task = create_task(fails())
        await sleep(2)
        error = await outcome(waits_while_handling(task))
        assert isinstance(error.__context__, KeyError)
        with pytest.raises(ValueError, match="once") as caught:
            await task
        assert caught.value.__context__ is None

    virtual(main())


def test_what_the_task_was_handling_is_told_to_all():
    async def main():
        task = create_task(fails_again())
        await sleep(2)
        for _ in range(2):
            await outcome(waits_while_handling(task))
            with pytest.raises(ValueError, match="again") as caught:
                task.result()
            assert str(caught.value.__context__) == "once"
            assert str(task.exception().__context__) == "once"

    async def fails_again():
        try:
            await fails()
        except ValueError:
            raise ValueError("again")  # noqa: B904

    virtual(main())


def test_contexts_make_no_circle():
    """Of two exceptions each has been raised while the other was being handled."""

    async def main():
        task = create_task(both())
        await checkpoint()
        inner = await raises_the_context(task)
        assert inner.__context__ is task.exception()
        with pytest.raises(ValueError, match="outer") as caught:
            await task
        assert caught.value.__context__ is None
        inner.__context__ = inner.__cause__ = inner  # what programs can do
        caught.value.__context__ = inner
        with pytest.raises(ValueError, match="outer"):
            await task

    async def raises_the_context(task):
        try:
            await task
        except ValueError as error:
            try:
                raise error.__context__
            except KeyError as inner:
                return inner

    async def both():
        try:
            raise KeyError("inner")
        except KeyError:
            raise ValueError("outer")  # noqa: B904

    virtual(main())


def test_the_one_that_is_being_handled_keeps_its_traceback():
    async def main():
        task = create_task(fails())
        error = await outcome(looks_and_raises(task))
        assert frames(error) == ["outcome", "looks_and_raises", "fails"]
        assert frames(task.exception()) == ["fails"]

    async def looks_and_raises(task):
        try:
            await task
        except ValueError:
            seen.extend(frames(task.exception()))
            raise

    seen = []
    virtual(main())
    assert seen == ["looks_and_raises", "fails"]


def test_what_a_run_raises_is_what_its_task_has_failed_with():
    async def main():
        await sleep(1)
        raise ValueError("of a root")

    async def waits(task):
        with pytest.raises(ValueError, match="of a root"):
            await task
        with pytest.raises(ValueError, match="of a root"):
            task.result()

    loop = SleepingLoop(main(), speed=math.inf)
    loop.create_task(waits(loop.tasks()[0]))
    loop.create_task(waits(loop.tasks()[0]))
    with pytest.raises(ValueError, match="of a root") as caught:
        loop.run_until_complete()
    names = frames(caught.value)
    assert names[-1] == "main"
    assert "waits" not in names


def test_what_a_cancelled_task_raises_is_new_each_time():
    async def main():
        task = create_task(sleep_forever())
        await checkpoint()
        task.cancel()
        first, second = await awaited_error(task), await awaited_error(task)
        assert first is not second
        assert frames(first) == frames(second) == ["awaited_error"]

    virtual(main())


def test_a_task_that_failed_lets_go_of_all_when_it_is_collected():
    class Failure(Exception):
        pass

    async def child(holder):
        thing = Thing()
        things.append(weakref.ref(thing))
        await checkpoint()
        try:
            raise KeyError
        except KeyError:
            raise Failure(holder)  # noqa: B904

    async def main():
        holder = []
        holder.append(create_task(child(holder)))
        with pytest.raises(Failure):
            await holder[0]
        holder[0].exception().__traceback__ = None  # the task has another
        holder[0].exception().__context__ = None

    things = []
    virtual(main())
    gc.collect()
    assert things[0]() is None
