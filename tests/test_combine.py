"""gather(), as_completed() and wait_for(): what they take, close, and keep alive."""

import gc
import inspect
import math
import types
import warnings
import weakref
from datetime import timedelta

import pytest

from sleeploop import (
    CancelScope,
    SleepingLoop,
    as_completed,
    create_task,
    current_loop,
    current_task,
    format_tasks,
    gather,
    move_on_after,
    sleep,
    sleep_forever,
    wait_for,
)
from tests.helpers import Doom, Error, cleanup, fail, give, now, outcome, virtual

BOTH = pytest.mark.parametrize("return_exceptions", [False, True])


# ---- what can be given -------------------------------------------------------------------------


def plain_generator(value, delay):
    yield from sleep(delay)
    return value


@types.coroutine
def marked_generator(value, delay):
    yield from sleep(delay)
    return value


class Duck:
    """A coroutine without __await__: send, throw and close are all that a loop calls."""

    def __init__(self, value, delay):
        coro = give(value, delay)
        self.send, self.throw, self.close = coro.send, coro.throw, coro.close


class Request:
    """No coroutine, but it can be awaited."""

    def __init__(self, value, delay):
        self.value, self.delay = value, delay

    def __await__(self):
        yield from sleep(self.delay)
        return self.value


async def one_result(aw):
    return await next(as_completed([aw]))


async def one_task(aw):
    async for task in as_completed([aw]):
        return await task


async def gathered(aw, return_exceptions):
    (result,) = await gather(aw, return_exceptions=return_exceptions)
    return result


WAYS = {
    "gather": lambda aw: gathered(aw, False),
    "gather return_exceptions": lambda aw: gathered(aw, True),
    "wait_for": lambda aw: wait_for(aw, 10),
    "as_completed for": one_result,
    "as_completed async for": one_task,
}
ways = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())


@ways
@pytest.mark.parametrize(
    "make",
    [give, plain_generator, marked_generator, Duck, Request],
    ids=lambda make: make.__name__,
)
def test_whatever_can_be_run_or_awaited(way, make):
    async def main():
        result = await way(make("v", 3))
        return result, now()

    assert virtual(main()) == ("v", 3.0)


@ways
def test_a_sleep_is_given(way):
    async def main():
        return await way(sleep(3))

    assert virtual(main()) == timedelta(seconds=3)


@ways
@pytest.mark.parametrize("head_start", [0, 1, 5])
def test_a_task_is_given(way, head_start):
    async def main():
        task = create_task(give("v", 3))
        await sleep(head_start)
        result = await way(task)
        assert task.done()
        return result, now()

    assert virtual(main()) == ("v", max(3.0, head_start))


@ways
def test_a_finished_task_of_another_loop_is_given(way):
    async def make():
        task = create_task(give("v", 1))
        await task
        return task

    assert virtual(way(virtual(make()))) == "v"


class AClass:
    async def __await__(self):
        pass

    send = throw = close = None


async def func():
    pass


async def agen():
    yield


CALLS = {
    "gather": lambda aw: gather(aw),
    "wait_for": lambda aw: wait_for(aw, 1),
    "as_completed": lambda aw: as_completed([aw]),
}
calls = pytest.mark.parametrize("name", CALLS)


@calls
@pytest.mark.parametrize(
    ("aw", "message"),
    [
        (5, r"{}\(\) takes a coroutine, not 5"),
        (None, r"{}\(\) takes a coroutine, not None"),
        (func, r"{}\(\) takes a coroutine, not <function func .*call it first"),
        (AClass, r"{}\(\) takes a coroutine, not <class .*AClass'>"),
        (agen(), r"{}\(\) takes a coroutine, not <async_generator .*async for"),
    ],
    ids=["int", "None", "function", "class", "async generator"],
)
def test_what_can_neither_be_run_nor_awaited(name, aw, message):
    async def main():
        with pytest.raises(TypeError, match=message.format(name)):
            CALLS[name](aw)

    virtual(main())


def test_gather_of_a_list_says_to_unpack_it():
    async def main():
        coro = give(1)
        for listed in ([coro], (coro,), {coro}, (c for c in [coro])):
            with pytest.raises(TypeError, match=r"not .*; unpack it: gather\(\*coros\)"):
                gather(listed)
        assert await coro == 1

    virtual(main())


@calls
def test_a_coroutine_that_was_started(name):
    async def main():
        coro = give(1, 1)
        coro.send(None)
        with pytest.raises(RuntimeError, match=rf"{name}\(\) takes .*was already started"):
            CALLS[name](coro)
        coro.close()
        with pytest.raises(RuntimeError, match=rf"{name}\(\) takes .*has already finished"):
            CALLS[name](coro)

    virtual(main())


@calls
def test_a_task_of_another_loop(name):
    other = SleepingLoop(speed=math.inf)
    task = other.create_task(give(1), name="foreign")

    async def main():
        message = rf"{name}\(\) cannot wait for <Task 'foreign' .* belongs to another loop"
        with pytest.raises(RuntimeError, match=message):
            CALLS[name](task)

    virtual(main())
    assert other.run_until_complete() == []


@pytest.mark.parametrize(
    "call",
    [
        lambda good, bad: gather(good, bad),
        lambda good, bad: gather(bad, good, return_exceptions=True),
        lambda good, bad: as_completed([good, bad]),
        lambda good, bad: as_completed([good], timeout=bad),
        lambda good, bad: wait_for(good, bad),
    ],
)
def test_a_refused_call_has_started_nothing(call):
    async def main():
        good = give("v", 1)
        with pytest.raises(TypeError, match="'bad'"):
            call(good, "bad")
        assert inspect.getcoroutinestate(good) == inspect.CORO_CREATED
        assert current_loop().tasks() == [current_task()]
        return await good

    assert virtual(main()) == "v"


@BOTH
def test_the_same_coroutine_twice(return_exceptions):
    async def main():
        coro, other = give(1), sleep(1)
        with pytest.raises(RuntimeError, match=r"gather\(\) was given the same .*coroutine.*give"):
            gather(other, coro, coro, return_exceptions=return_exceptions)
        with pytest.raises(RuntimeError, match=r"as_completed\(\) was given the same .*<sleep 1"):
            as_completed([other, coro, other])
        return await coro, await other

    assert virtual(main()) == (1, timedelta(seconds=1))


@BOTH
def test_the_same_task_twice(return_exceptions):
    async def main():
        task = create_task(give([], 1))
        a, b = await gather(task, task, return_exceptions=return_exceptions)
        assert a is b
        error = Error()
        task = create_task(fail(error, 1))
        results = await outcome(gather(task, task, return_exceptions=return_exceptions))
        assert results == ([error, error] if return_exceptions else error)
        task = create_task(give("t"))
        assert [await t async for t in as_completed([task, task])] == ["t", "t"]

    virtual(main())


def test_a_coroutine_that_was_started_since_the_call():
    async def main():
        first, second = give(1), give(2)
        both = gather(first, second)
        assert await second == 2
        with pytest.raises(RuntimeError, match=r"gather\(\) takes .*has already finished"):
            await both
        del both

    virtual(main())
    gc.collect()  # `first` is closed, and does not warn


@BOTH
def test_gather_cannot_wait_for_the_task_that_awaits_it(return_exceptions):
    async def main():
        log = []
        with pytest.raises(RuntimeError, match="cannot wait for the task that awaits it: <Task"):
            await gather(cleanup(log, "c"), current_task(), return_exceptions=return_exceptions)
        assert log == []
        with pytest.raises(RuntimeError, match="cannot wait for itself"):
            await wait_for(current_task(), 1)
        return await supervise()

    async def supervise():
        # Another task can, also when this one makes the call.
        me = create_task(give("me", 2))
        return await create_task(gather(me, give("other", 1)))

    assert virtual(main()) == ["me", "other"]


def test_both_are_awaited_once():
    async def main():
        for coro in (gather(give(1)), wait_for(give(1), 1)):
            await coro
            with pytest.raises(RuntimeError, match="cannot reuse"):
                await coro

    virtual(main())


def test_a_run_takes_them():
    assert virtual(gather(give(1, 1), give(2, 1))) == [1, 2]
    assert virtual(wait_for(give(1, 1), 5)) == 1
    with pytest.raises(TimeoutError):
        virtual(wait_for(give(1, 5), 1))


# ---- what is never awaited ---------------------------------------------------------------------

GIVEN_AWAY = {
    "gather": lambda *coros: gather(*coros),
    "gather return_exceptions": lambda *coros: gather(*coros, return_exceptions=True),
    "wait_for": lambda coro, other: wait_for(gather(coro, other), 1),
}
given_away = pytest.mark.parametrize("give_away", GIVEN_AWAY.values(), ids=GIVEN_AWAY.keys())


@given_away
def test_dropped_unawaited_it_warns_once_and_closes_what_it_was_given(give_away):
    coros = [give(1), give(2)]
    combined = give_away(*coros)
    name = combined.__qualname__
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del combined
        gc.collect()
    assert [str(w.message) for w in caught] == [f"coroutine '{name}' was never awaited"]
    caught.clear()  # a record holds the coroutine
    assert [inspect.getcoroutinestate(coro) for coro in coros] == [inspect.CORO_CLOSED] * 2


@given_away
def test_closed_unawaited_it_closes_what_it_was_given(give_away):
    coros = [give(1), give(2)]
    combined = give_away(*coros)
    combined.close()
    del combined
    gc.collect()
    assert [inspect.getcoroutinestate(coro) for coro in coros] == [inspect.CORO_CLOSED] * 2


@given_away
def test_a_task_of_it_that_never_starts_closes_what_it_was_given(give_away):
    async def main():
        coros = [give(1), give(2)]
        create_task(give_away(*coros)).cancel()
        await sleep(1)
        return coros

    coros = virtual(main())
    gc.collect()
    assert [inspect.getcoroutinestate(coro) for coro in coros] == [inspect.CORO_CLOSED] * 2


@given_away
def test_in_a_cancelled_scope_nothing_starts_and_all_is_closed(give_away):
    async def never():
        started.append(1)

    async def main():
        with CancelScope() as scope:
            scope.cancel()
            coros[:] = [never(), never()]
            await give_away(*coros)
        assert scope.cancelled_caught

    started, coros = [], []
    virtual(main())
    gc.collect()
    assert started == []
    assert [inspect.getcoroutinestate(coro) for coro in coros] == [inspect.CORO_CLOSED] * 2


def test_what_others_have_started_is_not_closed():
    async def main():
        coro = give("v", 1)
        both = gather(coro, give("w"))
        task = create_task(coro)
        await sleep(0)
        both.close()
        del both
        return await task

    assert virtual(main()) == "v"


def test_a_duck_is_closed_as_well():
    class Closing(Duck):
        def __init__(self):
            super().__init__(1, 1)
            inner = self.close
            self.close = lambda: (closed.append(1), inner())

    closed = []
    combined = gather(Closing())
    combined.close()
    del combined
    assert closed == [1]


# ---- what ends a run ---------------------------------------------------------------------------


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, Doom])
@ways
def test_what_ends_the_run_ends_it(way, error):
    async def main():
        create_task(cleanup(log, "other", 1))
        await way(fail(error(3), 2))

    log = []
    with pytest.raises(error):
        virtual(main())
    assert log == [("other", 3.0)]


# ---- what reports and references tell -----------------------------------------------------------


def test_reports_show_what_was_given():
    async def main():
        given = create_task(sleep_forever(), name="given", daemon=True)
        create_task(gather(Duck(1, 5), Request(1, 5), given, return_exceptions=True), name="all")
        create_task(wait_for(gather(give(1, 5), given), 9), name="limited")
        await sleep(1)
        return format_tasks(), [repr(task) for task in current_loop().tasks()]

    tree, tasks = virtual(main())
    waits = [line.split(",")[0] for line in tree.splitlines()]
    sleeping = "sleeping until 5.0 s"
    assert waits[0].startswith("Task 'Task-1' test_reports_show_what_was_given.<locals>.main: ")
    assert waits[2:] == [
        "  Task 'all' gather: waiting for the 3 tasks of its TaskGroup",
        f"    Task 'Task-5' Duck object: {sleeping}",
        f"    Task 'Task-6' Request object: {sleeping}",
        "    Task 'Task-7' gather: waiting for task 'given'",
        "  Task 'limited' wait_for: waiting for the 2 tasks of its TaskGroup",
        f"    Task 'Task-8' give: {sleeping}",
        "    Task 'Task-9' gather: waiting for task 'given'",
    ]
    assert len(tasks) == len(waits)
    assert "helpers.py" in tree.splitlines()[7]  # where give() is, not where gather() is


async def raise_anew():  # in no variable: that would be a cycle of its own
    await sleep(0)
    raise Error


async def raise_in_cleanup():
    try:
        await sleep_forever()
    finally:
        raise Error


@BOTH
@pytest.mark.parametrize("how", ["coroutine", "task", "cleanup"])
def test_an_error_is_in_no_cycle(return_exceptions, how, no_collector):
    async def call():
        aw = raise_in_cleanup() if how == "cleanup" else raise_anew()
        if how == "task":
            aw = create_task(aw)
        with move_on_after(1):
            try:
                results = await gather(aw, give(1), return_exceptions=return_exceptions)
                return weakref.ref(results[0])
            except Error as error:
                return weakref.ref(error)
            finally:
                del aw

    async def main():
        alive = await create_task(call())
        return alive()

    assert virtual(main()) is None


@pytest.mark.parametrize(
    "combine",
    [
        lambda: gather(raise_anew()),
        lambda: gather(raise_anew(), sleep_forever()),
        lambda: gather(create_task(raise_anew())),
        lambda: gather(gather(create_task(raise_anew()))),
        lambda: wait_for(raise_anew(), 1),
        lambda: wait_for(create_task(raise_anew()), 1),
        lambda: next(as_completed([raise_anew()])),
        lambda: next(as_completed([create_task(raise_anew())])),
        lambda: wait_for(sleep_forever(), 0),
        lambda: next(as_completed([sleep(1)], timeout=0)),
    ],
)
def test_a_task_that_ends_with_an_error_is_in_no_cycle_with_it(combine, no_collector):
    async def main():
        task = create_task(combine())
        await sleep(0.5)
        alive = [weakref.ref(task)]
        if isinstance(task.exception(), Error):
            alive.append(weakref.ref(task.exception()))
        else:
            assert isinstance(task.exception(), TimeoutError)
        del task
        return [ref() for ref in alive if ref() is not None]

    assert virtual(main()) == []


def test_ten_thousand():
    async def main():
        n = 10_000
        assert await gather(*(give(i, i % 10) for i in range(n))) == list(range(n))
        error = Error()
        results = await gather(*(fail(error) for _ in range(n)), return_exceptions=True)
        assert results == [error] * n
        with pytest.raises(ExceptionGroup) as info:
            await gather(*(fail(Error(i)) for i in range(n)))
        assert len(info.value.exceptions) == n

    virtual(main())
