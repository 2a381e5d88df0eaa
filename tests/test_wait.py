"""wait() and shield(): they wait for tasks, and leave them alone."""

import math
from datetime import timedelta

import pytest

import sleeploop
from sleeploop import (
    ALL_COMPLETED,
    FIRST_COMPLETED,
    FIRST_EXCEPTION,
    CancelledError,
    DeadlockError,
    Event,
    Interrupt,
    SleepingLoop,
    checkpoint,
    create_task,
    current_task,
    find_deadlocks,
    format_tasks,
    move_on_after,
    shield,
    sleep,
    sleep_forever,
    timeout,
    wait,
)
from sleeploop.testing import explore
from tests.helpers import awaited_error, fail, give, now, virtual

# ---- wait(): when it returns ---------------------------------------------------------------------


def names(tasks):
    return sorted(task.name for task in tasks)


def spawn(**seconds):
    return [create_task(give(name, s), name=name) for name, s in seconds.items()]


@pytest.mark.parametrize(
    ("return_when", "at"), [(ALL_COMPLETED, 3), (FIRST_COMPLETED, 1), (FIRST_EXCEPTION, 3)]
)
def test_return_when(return_when, at):
    async def main():
        done, pending = await wait(spawn(a=3, b=1, c=2), return_when=return_when)
        return names(done), names(pending), now()

    done = ["b"] if at == 1 else ["a", "b", "c"]
    assert virtual(main()) == (done, sorted({"a", "b", "c"} - {*done}), at)


def test_the_constants_are_asyncio_s():
    assert (ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION) == (
        "ALL_COMPLETED",
        "FIRST_COMPLETED",
        "FIRST_EXCEPTION",
    )


def test_all_is_what_is_waited_for():
    async def main():
        done, pending = await wait(spawn(a=3, b=1))
        return names(done), pending, now()

    assert virtual(main()) == (["a", "b"], set(), 3.0)


@pytest.mark.parametrize("return_when", [FIRST_EXCEPTION, FIRST_COMPLETED, ALL_COMPLETED])
def test_a_failure_is_not_raised_and_not_seen(return_when):
    async def main():
        tasks = [*spawn(a=1, c=4), create_task(fail(ValueError("b"), 2), name="b")]
        done, pending = await wait(tasks, return_when=return_when)
        assert names(done | pending) == ["a", "b", "c"]
        at.append(now())
        await sleep(10)

    at = []
    with pytest.raises(ValueError, match=r"^b$"):
        virtual(main())
    assert at == [{FIRST_EXCEPTION: 2, FIRST_COMPLETED: 1, ALL_COMPLETED: 4}[return_when]]


def test_a_failure_that_is_retrieved():
    async def main():
        (task,), _ = await wait([create_task(fail(ValueError("b"), 2))])
        return repr(task.exception())

    assert virtual(main()) == "ValueError('b')"


def test_a_task_that_was_cancelled_has_completed_and_not_failed():
    async def main():
        a, b = spawn(a=5, b=3)
        a.cancel()
        done, _ = await wait([a, b], return_when=FIRST_COMPLETED)
        assert (names(done), now()) == (["a"], 0.0)
        done, _ = await wait([a, b], return_when=FIRST_EXCEPTION)
        return names(done), now()

    assert virtual(main()) == (["a", "b"], 3.0)


@pytest.mark.parametrize("return_when", [FIRST_EXCEPTION, FIRST_COMPLETED, ALL_COMPLETED])
def test_what_need_not_wait_does_not_step_aside(return_when):
    async def main():
        tasks = spawn(a=0, b=0)
        await sleep(1)
        stepped = create_task(give("stepped"))
        done, pending = await wait(tasks, return_when=return_when)
        assert (names(done), pending) == (["a", "b"], set())
        assert repr(stepped).endswith("ready to start>")
        with move_on_after(0) as scope:
            await wait(tasks)
        return scope.cancelled_caught

    assert virtual(main())


def test_a_failure_that_has_been_is_enough():
    async def main():
        task = create_task(fail(ValueError()))
        await sleep(1)
        (done,), pending = await wait([*spawn(a=5), task], return_when=FIRST_EXCEPTION)
        assert done.exception() is not None
        return names(pending), now()

    assert virtual(main()) == (["a"], 1.0)


def test_the_same_task_twice_counts_once():
    async def main():
        (task,) = spawn(a=1)
        return await wait(iter([task, task])) == ({task}, set())

    assert virtual(main())


@pytest.mark.parametrize("give_it", [list, set, tuple, iter, dict.fromkeys, lambda aws: (*aws,)])
def test_any_iterable(give_it):
    async def main():
        return len((await wait(give_it(spawn(a=1, b=2))))[0])

    assert virtual(main()) == 2


# ---- wait(): its limit ---------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [2, 2.0, timedelta(seconds=2)])
def test_the_limit_counts_from_the_await_and_raises_nothing(limit):
    async def main():
        waiting = wait(spawn(a=9, b=5), timeout=limit)
        await sleep(4)
        done, pending = await waiting
        assert (names(done), names(pending), now()) == (["b"], ["a"], 6.0)
        await checkpoint()  # nothing is cancelled any more
        assert [await task for task in pending] == ["a"]
        return now()

    assert virtual(main()) == 9.0


@pytest.mark.parametrize("limit", [None, math.inf, 100])
def test_no_limit(limit):
    async def main():
        return names((await wait(spawn(a=9, b=5), timeout=limit))[0]), now()

    assert virtual(main()) == (["a", "b"], 9.0)


@pytest.mark.parametrize("limit", [0, -1])
def test_a_look_steps_aside(limit):
    async def main():
        tasks, looks = [create_task(checkpoint()), create_task(give("v", 0))], 0
        while (await wait(tasks, timeout=limit))[1]:
            looks += 1
            assert looks < 10
        return now()

    assert virtual(main()) == 0.0


def test_a_limit_further_out_is_another_one_s():
    async def main():
        with pytest.raises(TimeoutError):
            async with timeout(1):
                await wait(spawn(a=9), timeout=5)
        return now()

    assert virtual(main()) == 1.0


# ---- wait(): cancelled, interrupted --------------------------------------------------------------


def test_cancelled_while_it_waits():
    async def main():
        tasks = spawn(a=3, b=9)
        with move_on_after(1) as scope:
            await wait(tasks)
        assert scope.cancelled_caught
        assert [task.done() for task in tasks] == [False, False]
        waiter = create_task(wait(tasks, timeout=5))
        await sleep(1)
        waiter.cancel()
        assert (await awaited_error(waiter)).source == "explicit"
        return await tasks[0], await tasks[1], now()

    assert virtual(main()) == ("a", "b", 9.0)


@pytest.mark.parametrize("return_when", [FIRST_EXCEPTION, FIRST_COMPLETED, ALL_COMPLETED])
def test_interrupted_while_it_waits(return_when):
    async def waits(tasks):
        try:
            await wait(tasks, return_when=return_when)
        except Interrupt as interrupt:
            return interrupt.cause, now()

    async def main():
        tasks = spawn(a=3)
        waiter = create_task(waits(tasks))
        await sleep(1)
        waiter.interrupt("no more")
        assert await waiter == ("no more", 1.0)
        return await tasks[0]

    assert virtual(main()) == "a"


def test_the_tasks_ended_first():
    async def waits(tasks):
        done, _ = await wait(tasks)
        await checkpoint()
        return names(done)

    async def main():
        (task,) = spawn(a=3)
        waiter = create_task(waits([task]))
        await task
        waiter.interrupt()
        with pytest.raises(Interrupt):
            await waiter

    virtual(main())


# ---- wait(): wrong use ---------------------------------------------------------------------------


async def coroutine():
    pass


def test_what_is_no_task():
    async def main():
        for wrong in sleep(1), coroutine(), "x", 7:
            with pytest.raises(TypeError, match=r"wait\(\) takes tasks, not .*create_task\(\)"):
                wait([create_task(checkpoint()), wrong])
            if hasattr(wrong, "close"):
                wrong.close()

    virtual(main())


def test_what_is_no_iterable():
    async def main():
        task, coro, nap = create_task(give("v")), give("v"), sleep(1)
        for wrong in task, coro, nap, 7, None:
            with pytest.raises(TypeError, match=r"wait\(\) takes an iterable of tasks, not "):
                wait(wrong)
        await task, await coro, await nap

    virtual(main())


def test_wrong_arguments():
    async def main():
        tasks = spawn(a=1)
        with pytest.raises(ValueError, match=r"wait\(\) takes at least one task"):
            wait([])
        for wrong in "first_completed", None, [], 7:
            with pytest.raises(ValueError, match="FIRST_COMPLETED, FIRST_EXCEPTION or"):
                wait(tasks, return_when=wrong)
        with pytest.raises(ValueError, match="nan"):
            wait(tasks, timeout=math.nan)
        with pytest.raises(TypeError, match="not '1'"):
            wait(tasks, timeout="1")
        with pytest.raises(TypeError):
            wait(tasks, 1)
        with pytest.raises(RuntimeError, match="cannot wait for the task that awaits it"):
            await wait([*tasks, current_task()])

    virtual(main())


def test_a_task_of_another_loop():
    loop = SleepingLoop(sleep(1), speed=math.inf)
    (other,) = loop.tasks()

    async def main():
        with pytest.raises(RuntimeError, match=r"wait\(\) cannot wait for .*another loop"):
            wait([other])
        with pytest.raises(RuntimeError, match=r"wait\(\) cannot wait for .*another loop"):
            await early
        with pytest.raises(RuntimeError, match=r"shield\(\) cannot wait for .*another loop"):
            shield(other)

    early = wait([other])
    virtual(main())
    loop.close()


def test_outside_of_a_run():
    loop = SleepingLoop(sleep(1), speed=math.inf)
    waiting = wait(loop.tasks())
    with pytest.raises(RuntimeError, match=r"wait\(\) needs a running loop"):
        waiting.send(None)
    loop.close()


# ---- wait(): reports and other orders ------------------------------------------------------------


def circle(return_when):
    async def waits():
        await wait([others[0]], return_when=return_when)

    async def joins():
        await waiter

    others = []
    waiter = create_task(waits(), name="waits")
    others.append(create_task(joins(), name="joins"))
    return waiter


@pytest.mark.parametrize("return_when", [FIRST_COMPLETED, ALL_COMPLETED])
def test_reports(return_when):
    async def main():
        circle(return_when)
        await sleep(1)
        (found,) = find_deadlocks()
        return format_tasks(), str(found)

    report, found = virtual(main())
    assert "Task 'waits' circle.<locals>.waits: waiting for " in report
    assert " wait: waiting for task 'joins', since 0.0 s" in report
    assert "which waits for task 'joins', which waits for task 'waits'" in found


def test_a_deadlock_ends_the_run():
    async def main():
        await circle(ALL_COMPLETED)

    with pytest.raises(DeadlockError, match="in a circle"):
        virtual(main())


def test_in_other_orders():
    async def main():
        door = Event()
        tasks = [*spawn(a=1, b=1, c=2), create_task(door.wait(), name="door")]
        done, pending = await wait(tasks, return_when=FIRST_COMPLETED)
        assert {"a", "b"} & {*names(done)}
        assert {"c", "door"} == {*names(pending)} - {"a", "b"}
        door.set()
        done, pending = await wait(tasks)
        assert (len(done), pending, now()) == (4, set(), 2.0)

    assert explore(main, runs=50).schedules > 5


# ---- shield() ------------------------------------------------------------------------------------


def test_a_coroutine_goes_on():
    async def main():
        task = shield(give("v", 3))
        with move_on_after(1) as scope:
            await task
        assert scope.cancelled_caught
        return await task, now()

    assert virtual(main()) == ("v", 3.0)


def test_it_is_a_task_from_the_call_on():
    log = []

    async def note():
        log.append(now())

    async def main():
        shield(note())  # not awaited: no RuntimeWarning, and it runs
        await sleep(1)

    virtual(main())
    assert log == [0.0]


def test_a_cancelled_scope_does_not_keep_it_from_running():
    async def main():
        with move_on_after(0):
            await checkpoint_of(shield(note()))
        await sleep(1)
        return log

    async def checkpoint_of(task):
        await task

    async def note():
        await sleep(0.5)
        log.append("ran")

    log = []
    assert virtual(main()) == ["ran"]


def test_a_failure_after_the_waiter_is_gone_is_not_lost():
    async def main():
        with move_on_after(1):
            await shield(fail(ValueError("late"), 3))
        await sleep(5)

    with pytest.raises(ValueError, match="late"):
        virtual(main())


def test_a_failure_while_it_waits_is_raised():
    async def main():
        with pytest.raises(ValueError, match="soon"):
            await shield(fail(ValueError("soon"), 3))

    virtual(main())


def test_a_task_stays_as_it_is():
    async def main():
        task = create_task(give("v", 3))
        assert shield(task) is task
        with move_on_after(1):
            await shield(task)
        done = await shield(task)
        return done, await shield(task), now()

    assert virtual(main()) == ("v", "v", 3.0)


def test_other_awaitables():
    class Awaitable:
        def __await__(self):
            yield from sleep(2).__await__()
            return "v"

    async def main():
        door = Event()
        waiting = shield(door.wait())
        door.set()
        return await shield(Awaitable()), await waiting, now()

    assert virtual(main()) == ("v", True, 2.0)


@pytest.mark.parametrize("wrong", [7, None, "x", give])
def test_what_cannot_be_shielded(wrong):
    async def main():
        with pytest.raises(TypeError, match=r"shield\(\) .*not "):
            shield(wrong)

    virtual(main())


def test_misuse_of_shield():
    coro = give("v")
    with pytest.raises(RuntimeError, match=r"shield\(\) needs a running loop"):
        shield(coro)

    async def main():
        assert await shield(coro) == "v"
        with pytest.raises(RuntimeError, match=r"shield\(\)"):
            shield(coro)

    virtual(main())


def test_with_wait_for_as_in_asyncio():
    async def main():
        task = create_task(give("v", 3))
        with pytest.raises(TimeoutError):
            await sleeploop.wait_for(shield(task), 1)
        return await task

    assert virtual(main()) == "v"


def test_the_end_of_the_run_cancels_it():
    log = []

    async def note():
        try:
            await sleep_forever()
        except CancelledError as error:
            log.append(error.source)
            raise

    async def main():
        with move_on_after(1):
            await shield(note())

    virtual(main())
    assert log == ["shutdown"]
