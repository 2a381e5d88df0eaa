"""as_completed(): its order, its two ways to iterate, its consumers, its timeout."""

import logging
import math
import weakref
from datetime import timedelta

import pytest

from sleeploop import (
    CancelledError,
    CancelScope,
    DeadlockError,
    SleepingLoop,
    Task,
    as_completed,
    checkpoint,
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
from tests.helpers import Error, awaited_error, cancel_at, fail, give, now, outcome, virtual


async def consume(iteration, log, name):
    async for task in iteration:
        log.append((name, await task, now()))


def test_repr():
    async def main():
        iteration = as_completed([give(1, 1), give(2, 1), give(3, 2)])
        texts = [repr(iteration)]
        async for _ in iteration:
            texts.append(repr(iteration))
        return texts

    assert virtual(main()) == [
        "<as_completed() with 3 to come, 0 of them finished>",
        "<as_completed() with 2 to come, 1 of them finished>",
        "<as_completed() with 1 to come, 0 of them finished>",
        "<as_completed() with 0 to come, 0 of them finished>",
    ]


# ---- two ways to iterate -----------------------------------------------------------------------


def test_async_for_gives_finished_tasks_as_they_finish():
    async def main():
        given = create_task(give("given", 2))
        seen = []
        async for task in as_completed([give("c", 3), given, give("a", 1)]):
            assert isinstance(task, Task)
            assert task.done()
            assert (task is given) == (task.result() == "given")
            seen.append((await task, now()))
        return seen

    assert virtual(main()) == [("a", 1.0), ("given", 2.0), ("c", 3.0)]


def test_for_gives_as_many_awaitables():
    async def main():
        seen = []
        for aw in as_completed([give("c", 3), create_task(give("b", 2)), give("a", 1)]):
            seen.append((await aw, now()))
        return seen

    assert virtual(main()) == [("a", 1.0), ("b", 2.0), ("c", 3.0)]


def test_next_and_anext():
    async def main():
        iteration = as_completed([give("c", 3), give("b", 2), give("a", 1)])
        assert iter(iteration) is iteration
        assert aiter(iteration) is iteration
        assert await next(iteration) == "a"
        assert (await anext(iteration)).result() == "b"
        assert await next(iteration) == "c"
        assert next(iteration, "end") == "end"
        assert await anext(iteration, "end") == "end"

    virtual(main())


def test_awaitables_can_be_awaited_in_any_order():
    async def main():
        first, second, third = as_completed([give(n, n) for n in (1, 2, 3)])
        assert await third == 1  # it is the first to wait
        return await gather(second, first)

    assert virtual(main()) == [2, 3]


def test_of_nothing():
    async def main():
        assert list(as_completed([])) == []
        assert [task async for task in as_completed(iter(()))] == []
        assert current_loop().tasks() == [current_task()]

    virtual(main())


def test_an_iterator_is_given():
    async def main():
        return [await aw for aw in as_completed(give(n, n) for n in (2, 1))]

    assert virtual(main()) == [1, 2]


def test_what_finishes_together_comes_in_the_order_of_its_end():
    async def main():
        finished = [create_task(give(n, n)) for n in (2, 1)]
        await sleep(5)
        coros = [give(3, 1), give(4, 1)]
        aws = [coros[1], finished[0], coros[0], finished[1]]
        return [await task async for task in as_completed(aws)]

    assert virtual(main()) == [2, 1, 4, 3]  # those that have finished: in the order given


def test_failures_are_those_of_their_tasks():
    async def main():
        error, other = Error(1), Error(2)
        seen = [task async for task in as_completed([fail(error, 2), give("v", 1)])]
        assert await seen[0] == "v"
        assert seen[1].exception() is error
        results = [await outcome(aw) for aw in as_completed([fail(other, 1), give("w", 2)])]
        assert results == [other, "w"]

    virtual(main())


def test_a_cancelled_task_is_given_as_well():
    async def main():
        task = create_task(sleep_forever(), name="t")
        other = create_task(sleep_forever(), name="o")
        task.cancel()
        async for finished in as_completed([task]):
            assert finished.cancelled()
        with CancelScope() as scope:
            other.cancel("why")
            with pytest.raises(CancelledError, match=r"task 'o' was cancelled.*why"):
                await next(as_completed([other]))
            await checkpoint()
        assert not scope.cancelled_caught

    virtual(main())


@pytest.mark.parametrize("aws", [5, None, give, Error()])
def test_what_is_no_iterable(aws):
    async def main():
        with pytest.raises(TypeError, match=r"as_completed\(\) takes an iterable of"):
            as_completed(aws)

    virtual(main())


def test_a_single_awaitable_is_no_iterable():
    async def main():
        coro, task, nap = give(1), create_task(give(2)), sleep(3)
        for aw in (coro, task, nap):
            with pytest.raises(TypeError, match=r"takes an iterable of awaitables, not <"):
                as_completed(aw)
        return await gather(coro, task, nap)

    assert virtual(main()) == [1, 2, timedelta(seconds=3)]


def test_without_a_loop():
    coro = give(1)
    with pytest.raises(RuntimeError, match="loop"):
        as_completed([coro])
    coro.close()


def test_an_awaitable_that_is_not_awaited_warns():
    async def main():
        iteration = as_completed([give(1, 1)])
        with pytest.warns(RuntimeWarning, match="'as_completed' was never awaited"):
            next(iteration)

    virtual(main())


def test_an_iteration_of_another_loop():
    iterations = []

    async def make():
        iterations.append(as_completed([give(1, 1), give(2, 2)]))

    async def main():
        with pytest.raises(RuntimeError, match=r"as_completed\(\) belongs to another loop"):
            await next(iterations[0])
        with pytest.raises(RuntimeError, match=r"as_completed\(\) belongs to another loop"):
            await anext(iterations[0])

    virtual(make())
    virtual(main())


# ---- timeouts ----------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [2, 2.0, timedelta(seconds=2)])
def test_a_timeout_counts_from_the_call(timeout):
    async def main():
        await sleep(5)
        iteration = as_completed([give("a", 1), give("b", 9)], timeout=timeout)
        await sleep(0.5)
        assert await (await anext(iteration)) == "a"
        with pytest.raises(TimeoutError, match=r"the deadline at 7\.0 s has passed"):
            await anext(iteration)
        return now()

    assert virtual(main()) == 7.0


@pytest.mark.parametrize("timeout", [None, math.inf, 100, 10**400])
def test_time_enough(timeout):
    async def main():
        return [await aw for aw in as_completed([give(9, 9), give(1, 1)], timeout=timeout)]

    assert virtual(main()) == [1, 9]


@pytest.mark.parametrize("timeout", [0, -5, -math.inf, timedelta(-1)])
def test_no_time_gives_what_has_finished(timeout):
    async def main():
        finished = create_task(give("f"))
        await sleep(1)
        results = [outcome(aw) for aw in as_completed([give("v"), finished], timeout=timeout)]
        first, second = [await result for result in results]
        assert first == "f"
        assert isinstance(second, TimeoutError)
        return now()

    assert virtual(main()) == 1.0


@pytest.mark.parametrize(("timeout", "error"), [(math.nan, ValueError), ("1", TypeError)])
def test_what_is_no_timeout(timeout, error):
    async def main():
        coro = give("v")
        with pytest.raises(error):
            as_completed([coro], timeout=timeout)
        return await coro

    assert virtual(main()) == "v"


def test_a_for_loop_ends_though_each_await_times_out():
    async def main():
        results = [
            await outcome(aw) for aw in as_completed([give(n, n) for n in (1, 5, 6)], timeout=2)
        ]
        assert results[0] == 1
        assert [type(result) for result in results[1:]] == [TimeoutError, TimeoutError]
        return now()

    assert virtual(main()) == 2.0


def test_after_a_timeout_the_rest_can_be_had_once_it_has_finished():
    async def main():
        iteration = as_completed([give(n, n) for n in (1, 5, 6)], timeout=2)
        seen = []
        with pytest.raises(TimeoutError):
            await consume(iteration, seen, "before")
        await sleep(8)
        await consume(iteration, seen, "after")
        return seen

    assert virtual(main()) == [("before", 1, 1.0), ("after", 5, 10.0), ("after", 6, 10.0)]


def test_a_timeout_cancels_no_task():
    async def main():
        task = create_task(give("t", 5))
        with pytest.raises(TimeoutError):
            await next(as_completed([task], timeout=1))
        return await task

    assert virtual(main()) == "t"


# ---- several consumers, and cancelled ones -------------------------------------------------------


def test_consumers_share_the_results_in_the_order_in_which_they_wait():
    async def main():
        iteration = as_completed([give(n, n) for n in range(1, 6)])
        log = []
        await gather(*(consume(iteration, log, name) for name in "abc"))
        return log

    assert virtual(main()) == [
        ("a", 1, 1.0),
        ("b", 2, 2.0),
        ("c", 3, 3.0),
        ("a", 4, 4.0),
        ("b", 5, 5.0),
    ]


def test_what_finishes_together_goes_to_different_consumers():
    async def main():
        iteration = as_completed([give(n, 1) for n in range(4)])
        log = []
        await gather(*(consume(iteration, log, name) for name in "abcd"))
        return log

    assert virtual(main()) == [(name, n, 1.0) for n, name in enumerate("abcd")]


def test_a_consumer_that_is_cancelled_while_it_waits_takes_nothing():
    async def main():
        iteration = as_completed([give(1, 2), give(2, 3)])
        log = []
        with move_on_after(1) as scope:
            await consume(iteration, log, "first")
        assert (scope.cancelled_caught, log) == (True, [])
        with move_on_after(1):
            await next(iteration)
        await consume(iteration, log, "second")
        return log

    assert virtual(main()) == [("second", 1, 2.0), ("second", 2, 3.0)]


@pytest.mark.parametrize("how", ["async for", "for"])
def test_a_result_on_its_way_to_a_cancelled_consumer_is_not_lost(how):
    async def main():
        iteration = as_completed([work(current_task()), give("second", 5)])
        with scope:
            log.append(await next(iteration) if how == "for" else (await anext(iteration)).result())
            log.append(type(await awaited_error(checkpoint())))
        async for task in iteration:
            log.append(await task)

    async def work(consumer):
        await sleep(1)
        create_task(cancel_when_woken(consumer))
        return "first"

    async def cancel_when_woken(consumer):
        while consumer.waiting_on is not None:
            await checkpoint()
        assert "ready" in repr(consumer)  # it has not gone on yet
        scope.cancel()

    log, scope = [], CancelScope()
    virtual(main())
    assert log == ["first", CancelledError, "second"]


def test_a_consumer_that_was_cancelled_first_leaves_the_result_to_the_next():
    async def main():
        iteration = as_completed([work(), give("second", 9)])
        create_task(consume(iteration, log, "other"))
        with scope:
            await consume(iteration, log, "cancelled")

    async def work():
        await sleep(1)
        scope.cancel()  # before anybody is told of the result
        return "first"

    log, scope = [], CancelScope()
    SleepingLoop(main(), speed=math.inf).run_until_complete()
    assert scope.cancelled_caught
    assert log == [("other", "first", 1.0), ("other", "second", 9.0)]


def test_a_consumer_that_fails_while_a_result_is_on_its_way():
    class Interrupted:
        """Raises in what it awaits, instead of resuming it."""

        def __init__(self, aw):
            self.aw = aw

        def __await__(self):
            coro = self.aw.__await__()
            trap = coro.send(None)
            try:
                yield trap
            except CancelledError:
                coro.throw(Error("instead"))

    async def main():
        iteration = as_completed([give("v", 1)])
        with pytest.raises(Error, match="instead"):
            await Interrupted(next(iteration))
        return [await task async for task in iteration], now()

    assert virtual(main()) == (["v"], 1.0)


def test_a_finished_result_in_a_cancelled_scope():
    async def main():
        iteration = as_completed([give("v", 1)])
        await sleep(2)
        with CancelScope() as scope:
            scope.cancel()
            await anext(iteration)  # every await raises
        assert scope.cancelled_caught
        return [await task async for task in iteration]

    assert virtual(main()) == ["v"]


def test_a_cancelled_caller_leaves_the_tasks_alone():
    async def main():
        iteration = as_completed([give("v", 3)])
        with CancelScope() as scope:
            create_task(cancel_at(1, scope))
            await next(iteration)
        (task,) = [task async for task in iteration]
        return task.result(), now()

    assert virtual(main()) == ("v", 3.0)


# ---- given up ----------------------------------------------------------------------------------


def test_given_up_early_the_tasks_run_on():
    async def main():
        async for task in as_completed([give("a", 1), note(3)]):
            return task.result()

    async def note(delay):
        await sleep(delay)
        log.append(now())

    log = []
    loop = SleepingLoop(main(), speed=math.inf)
    assert loop.run_until_complete() == ["a"]
    assert log == [3.0]


def test_given_up_early_no_failure_is_lost(caplog):
    async def main():
        return await next(as_completed([give("a", 1), fail(error, 3)]))

    error = Error("later")
    with caplog.at_level(logging.ERROR, "sleeploop"), pytest.raises(Error) as info:
        SleepingLoop(main(), speed=math.inf).run_until_complete()
    assert info.value is error
    assert "nobody retrieved its exception" in caplog.text


def test_given_up_it_keeps_nothing_alive():
    async def main():
        iteration = as_completed([give("a", 1), give("b", 2)])
        alive = weakref.ref(iteration)
        await next(iteration)
        del iteration
        await sleep(5)
        assert alive() is None
        assert current_loop().tasks() == [current_task()]

    virtual(main())


# ---- the run -----------------------------------------------------------------------------------


def test_there_are_no_other_tasks_than_those_given():
    async def main():
        iteration = as_completed([give("a", 1), give("b", 2)])
        tasks = current_loop().tasks()
        assert [task.name for task in tasks] == ["Task-1", "Task-2", "Task-3"]
        assert [task.parent for task in tasks] == [None, current_task(), current_task()]
        tree = format_tasks().splitlines()
        assert [line.split(",")[0] for line in tree[1:]] == [
            "  Task 'Task-2' give: ready to start",
            "  Task 'Task-3' give: ready to start",
        ]
        return [await task async for task in iteration]

    assert virtual(main()) == ["a", "b"]


@pytest.mark.parametrize("begun", ["before", "within"])
def test_in_a_shielded_cleanup_at_the_end_of_a_run(begun):
    async def work(delay):
        try:
            await sleep_forever()
        finally:
            with CancelScope(shield=True):
                await sleep(delay)

    async def collect(iteration):
        async for task in iteration:
            log.append((task.cancelled(), now()))

    async def background():
        tasks = [create_task(work(2)), create_task(work(1))]
        iteration = as_completed(tasks) if begun == "before" else None
        try:
            await sleep_forever()
        finally:
            with CancelScope(shield=True):
                await collect(iteration or as_completed([*tasks, give("never starts")]))

    async def main():
        create_task(background())
        await sleep(1)

    log = []
    virtual(main())
    never_started = [] if begun == "before" else [(True, 1.0)]
    assert log == [*never_started, (True, 2.0), (True, 3.0)]


def test_a_deadlock_is_one():
    async def main():
        await next(as_completed([create_task(sleep_forever(), name="stuck")]))

    with pytest.raises(DeadlockError, match="'stuck'") as info:
        virtual(main())
    assert "main: waiting to be woken" in str(info.value)


def test_the_usual_first_of_several():
    async def main():
        fastest = next(as_completed([give("slow", 5), give("fast", 1)]))
        return await wait_for(fastest, 2), now()

    assert virtual(main()) == ("fast", 1.0)


def test_ten_thousand():
    async def main():
        n = 10_000
        iteration = as_completed([give(i, i % 10) for i in range(n)])
        assert sorted(await gather(*iteration)) == list(range(n))
        results = [await task async for task in as_completed(give(i, 1) for i in range(n))]
        assert results == list(range(n))

    virtual(main())
