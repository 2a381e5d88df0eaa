"""Task.cancel(): what it reaches, what it tells, and who waits."""

import math
import sys
import threading

import pytest

from sleeploop import (
    CancelledError,
    CancelScope,
    SleepingLoop,
    TaskGroup,
    checkpoint,
    create_task,
    current_task,
    sleep,
    sleep_forever,
    sleep_until,
    timeout,
)
from tests.helpers import OnDel, ended, fail_at_once, give, join, now, virtual

# ---- which tasks it reaches, and when ------------------------------------------


@pytest.mark.parametrize(
    "wait",
    [
        lambda: sleep(5),
        lambda: sleep_forever(),
        lambda: sleep_until(5),
        lambda: create_task(sleep(5)),
        lambda: TaskGroupThatWaits(),
    ],
    ids=["sleep", "forever", "until", "join", "group"],
)
def test_it_takes_a_task_from_where_it_waits(wait):
    async def worker():
        try:
            await wait()
        finally:
            log.append(now())

    async def main():
        task = create_task(worker())
        await sleep(1)
        assert not task.done()
        assert task.cancel() is True
        assert not task.done()  # it has yet to run
        assert not task.cancelled()
        assert "being cancelled" in repr(task)
        await ended(task)
        assert repr(task).endswith(": cancelled>")
        return now()

    log = []
    assert virtual(main()) == 1.0
    assert log == [1.0]


class TaskGroupThatWaits:
    def __await__(self):
        return self.wait().__await__()

    async def wait(self):
        async with TaskGroup() as group:
            group.create_task(sleep(5))


def test_a_task_that_has_not_started_never_runs():
    async def never(_token):
        log.append("ran")

    async def main():
        coro = never(OnDel(lambda: log.append("freed")))
        task = create_task(coro)
        task.cancel()
        await ended(task)
        with pytest.raises(RuntimeError, match="cannot reuse"):
            coro.send(None)  # it was closed
        del coro, task

    log = []
    virtual(main())
    assert log == ["freed"]


def test_cancelled_twice_and_when_it_is_done():
    async def main():
        task = create_task(sleep_forever())
        await checkpoint()
        assert task.cancel("first") is True
        assert task.cancel("second") is True
        assert (await ended(task)).reason == "first"
        assert task.cancel("third") is False
        assert (await ended(task)).reason == "first"

        returned = create_task(give("result"))
        assert await returned == "result"
        assert returned.cancel() is False
        assert await returned == "result"
        assert not returned.cancelled()

        failed = create_task(fail_at_once(ValueError("x")))
        with pytest.raises(ValueError, match="x"):
            await failed
        assert failed.cancel() is False
        assert not failed.cancelled()

    virtual(main())


def test_a_task_cancels_itself():
    async def worker():
        assert current_task().cancel("myself") is True
        log.append("goes on to the next await")
        try:
            await sleep(0)
        finally:
            log.append("which raises")

    async def last_breath():
        current_task().cancel()
        return "returned"  # nothing was interrupted

    async def main():
        error = await ended(create_task(worker(), name="worker"))
        assert (error.source_task, error.reason) == ("worker", "myself")
        task = create_task(last_breath())
        assert await task == "returned"
        assert not task.cancelled()

    log = []
    virtual(main())
    assert log == ["goes on to the next await", "which raises"]


def test_it_is_in_force_until_the_task_ends():
    """Whatever the task does, there is no way back."""

    async def stubborn():
        awaits = [
            lambda: sleep(1),
            lambda: checkpoint(),
            lambda: sleep_forever(),
            lambda: done,
            lambda: create_task(sleep(1)),
        ]
        for make in awaits:
            try:
                await make()
            except CancelledError:
                log.append(now())
        with CancelScope():
            try:
                await sleep(1)
            except CancelledError:
                log.append(now())
        return "all the same"

    async def main():
        nonlocal done
        done = create_task(give("done"))
        await done
        task = create_task(stubborn())
        await checkpoint()
        task.cancel()
        assert await task == "all the same"  # a task that returns has returned
        assert not task.cancelled()

    done, log = None, []
    virtual(main())
    assert log == [0.0] * 6


def test_a_shield_holds_it_back():
    async def worker():
        with CancelScope(shield=True):
            await sleep(5)
            log.append(now())
        await sleep(0)
        log.append("not reached")

    async def main():
        task = create_task(worker())
        await sleep(1)
        task.cancel()
        await ended(task)
        return now()

    log = []
    assert virtual(main()) == 5.0
    assert log == [5.0]


def test_a_result_that_has_arrived_comes_first():
    async def sleeper():
        log.append(await sleep(1))
        await sleep(0)
        log.append("not reached")

    async def joiner(task):
        log.append(await task)
        await sleep(0)
        log.append("not reached")

    async def main():
        source = create_task(give("result", 2))
        tasks = []

        async def cancel_sleeper():
            await sleep(1)
            tasks[0].cancel()  # its timer is due in this pass, too

        async def cancel_joiner():
            await source
            tasks[1].cancel()  # woken by the same task

        for cancel in cancel_sleeper, cancel_joiner:
            create_task(cancel())
        await checkpoint()  # so that they wait first, and are woken first
        tasks += [create_task(sleeper()), create_task(joiner(source))]
        for task in tasks:
            await ended(task)

    log = []
    virtual(main())
    assert len(log) == 2
    assert log[1] == "result"


def test_cancelled_in_the_moment_in_which_it_would_have_woken():
    """The canceller runs earlier in the pass: the sleeper was woken all the same."""

    async def canceller(task):
        task.cancel()

    async def main():
        sleeper = create_task(give("slept", 3))
        await sleep(2)
        create_task(canceller(sleeper))
        await checkpoint()
        error = await ended(sleeper)  # still parked when it was cancelled
        assert (now(), error.source) == (2.0, "explicit")

    virtual(main())


def test_from_another_thread_it_is_refused():
    async def main():
        task = create_task(give("fine", 1))

        def attempt():
            with pytest.raises(RuntimeError, match="another thread"):
                task.cancel()
            refused.append(1)

        thread = threading.Thread(target=attempt)
        thread.start()
        thread.join()
        assert await task == "fine"
        thread = threading.Thread(target=lambda: refused.append(task.cancel()))
        thread.start()
        thread.join()

    refused = []
    virtual(main())
    assert refused == [1, False]  # to look at what is done is allowed anywhere


def test_arguments():
    async def main():
        task = create_task(sleep(1))
        with pytest.raises(TypeError, match=r"at most 1|takes 1 positional argument but 2"):
            task.cancel(1, 2)
        with pytest.raises(TypeError, match="unexpected keyword argument 'msg'"):
            task.cancel(msg="x")
        assert "being cancelled" not in repr(task)
        task.cancel(reason="by keyword")
        assert (await ended(task)).reason == "by keyword"

    virtual(main())


# ---- what it tells -------------------------------------------------------------


def test_attributes_and_text():
    async def worker():
        try:
            await sleep_forever()
        except CancelledError as error:
            errors.append(error)
            raise

    async def main():
        task = create_task(worker(), name="worker")
        await checkpoint()
        line = sys._getframe().f_lineno + 1
        task.cancel("no time left")
        errors.append(await ended(task))
        where = f"{__file__}:{line} in test_attributes_and_text.<locals>.main"
        for error in errors:
            assert error.source == "explicit"
            assert error.source_task == "boss"
            assert error.where == where
            assert error.reason == "no time left"
        text = f"cancelled by task 'boss' at {where}: no time left"
        assert str(errors[0]) == text
        assert str(errors[1]) == f"task 'worker' was cancelled: {text}"
        for ask in task.result, task.exception:
            with pytest.raises(CancelledError) as info:
                ask()
            assert (info.value.reason, info.value.where) == ("no time left", where)

    errors = []
    loop = SleepingLoop(speed=math.inf)
    loop.create_task(main(), name="boss")
    loop.run_until_complete()
    assert len(errors) == 2


@pytest.mark.parametrize("reason", [ValueError("v"), ("a", 1), 0, ""])
def test_a_reason_is_anything(reason):
    async def main():
        task = create_task(sleep(1))
        task.cancel(reason)
        error = await ended(task)
        assert error.reason is reason
        assert str(error).endswith(f": {reason}" if isinstance(reason, str) else f": {reason!r}")

    virtual(main())


def test_without_a_reason():
    async def main():
        task = create_task(sleep(1))
        task.cancel()
        error = await ended(task)
        assert error.reason is None
        assert str(error).endswith("in test_without_a_reason.<locals>.main")

    virtual(main())


def test_a_reason_whose_repr_fails():
    class Bad:
        def __repr__(self):
            raise ZeroDivisionError

    async def main():
        task = create_task(sleep(1))
        task.cancel(Bad())
        assert "<Bad object>" in str(await ended(task))

    virtual(main())


def test_a_name_that_changes_later_and_a_task_that_is_gone():
    """What is told is what held when cancel() was called; it keeps no task alive."""

    async def canceller(task, _token):
        current_task().name = "early"
        task.cancel()
        current_task().name = "late"

    async def main():
        task = create_task(sleep_forever())
        await create_task(canceller(task, OnDel(lambda: log.append("freed"))))
        await checkpoint()
        log.append("end")
        return (await ended(task)).source_task

    log = []
    assert virtual(main()) == "early"
    assert log == ["freed", "end"]


# ---- those who wait ------------------------------------------------------------


def test_cancelling_a_waiter_does_not_cancel_the_task():
    async def main():
        task = create_task(give("result", 5))
        waiters = [create_task(join(task)) for _ in range(3)]
        await sleep(1)
        waiters[1].cancel()
        await ended(waiters[1])
        assert now() == 1.0
        assert not task.done()
        return [await waiters[0], await waiters[2], await task]

    assert virtual(main()) == ["result"] * 3


def test_a_cancelled_task_fails_those_who_await_it_but_does_not_cancel_them():
    async def main():
        task = create_task(sleep_forever(), name="gone")
        waiter = create_task(join(task))
        await sleep(1)
        task.cancel("why")
        with pytest.raises(CancelledError, match="task 'gone' was cancelled") as info:
            await waiter
        assert info.value.reason == "why"
        assert not waiter.cancelled()  # it was not; it has failed, with that error
        assert waiter.exception() is info.value
        await checkpoint()  # nor is this one

    virtual(main())


def test_a_scope_does_not_swallow_another_task_s_cancellation():
    async def main():
        task = create_task(sleep_forever())
        await checkpoint()
        task.cancel()
        with pytest.raises(CancelledError), CancelScope() as scope:
            await task
        assert not scope.cancelled_caught
        with pytest.raises(CancelledError):
            async with timeout(10):
                await task

    virtual(main())


def test_both_are_cancelled():
    async def main():
        task = create_task(sleep_forever())
        waiter = create_task(join(task))
        await checkpoint()
        task.cancel("task")
        waiter.cancel("waiter")  # still parked: so it is this that it raises
        assert (await ended(waiter)).reason == "waiter"
        assert (await ended(task)).reason == "task"

    virtual(main())
