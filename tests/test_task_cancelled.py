"""After Task.cancel(): what the coroutine may do about it, and what the run makes of it."""

import gc
import math
import signal

import pytest

from sleeploop import (
    CancelledError,
    CancelScope,
    SleepingLoop,
    checkpoint,
    create_task,
    current_loop,
    current_task,
    run,
    sleep,
    sleep_forever,
)
from tests.helpers import OnDel, ended, give, join, now, references, virtual

# ---- what a coroutine may do about it ------------------------------------------


def test_another_exception_instead():
    error = ValueError("cleanup")

    async def worker():
        try:
            await sleep_forever()
        finally:
            raise error

    async def main():
        task = create_task(worker())
        await checkpoint()
        task.cancel("why")
        with pytest.raises(ValueError, match="cleanup") as info:
            await task
        assert info.value is error is task.exception()
        assert isinstance(error.__context__, CancelledError)
        assert error.__context__.reason == "why"
        assert not task.cancelled()

    virtual(main())


def test_another_exception_that_nobody_asks_for_is_reported(caplog):
    async def worker():
        try:
            await sleep_forever()
        except CancelledError as error:
            raise ValueError("cleanup") from error

    async def main():
        create_task(worker(), name="worker")
        await checkpoint()
        current_loop().tasks()[-1].cancel()
        await sleep(1)

    with pytest.raises(ValueError, match="cleanup") as info:
        virtual(main())
    assert isinstance(info.value.__cause__, CancelledError)
    assert "task 'worker' failed and nobody retrieved its exception" in caplog.text


def test_a_cancellation_that_nobody_asks_for_is_not_reported(caplog):
    async def main():
        create_task(sleep_forever())
        await checkpoint()
        current_loop().tasks()[-1].cancel()
        return "fine"

    assert virtual(main()) == "fine"
    gc.collect()
    assert caplog.records == []


def test_cleanup_that_takes_time_needs_a_shield():
    async def worker():
        try:
            await sleep_forever()
        finally:
            with pytest.raises(CancelledError):
                await sleep(1)
            with CancelScope(shield=True):
                await sleep(3)
            log.append(now())

    async def main():
        task = create_task(worker())
        await checkpoint()
        task.cancel()
        task.cancel()
        await ended(task)

    log = []
    virtual(main())
    assert log == [3.0]


def test_cancel_from_a_finally():
    """While it is being cancelled itself, a task cancels others, and again itself."""

    async def worker(other):
        try:
            await sleep_forever()
        finally:
            assert other.cancel("by worker") is True
            assert current_task().cancel("again") is True

    async def main():
        other = create_task(sleep_forever())
        task = create_task(worker(other), name="worker")
        await checkpoint()
        task.cancel("first")
        assert (await ended(task)).reason == "first"
        error = await ended(other)
        assert (error.reason, error.source_task) == ("by worker", "worker")

    virtual(main())


def test_cancel_while_the_coroutine_is_being_closed():
    async def worker():
        try:
            await sleep_forever()
        finally:
            results.append(task.cancel())

    async def main():
        nonlocal task
        coro = worker()
        task = create_task(coro)
        await checkpoint()
        coro.close()
        with pytest.raises((CancelledError, RuntimeError)):
            await task
        assert task.done()

    task, results = None, []
    virtual(main())
    assert results == [True]


def test_raised_by_hand():
    async def by_hand():
        raise CancelledError("by hand")

    async def swallows_and_raises():
        try:
            await sleep_forever()
        except CancelledError:
            raise CancelledError("another") from None

    async def main():
        task = create_task(by_hand())
        with pytest.raises(CancelledError, match="by hand") as info:
            await task
        assert not task.cancelled()  # nobody cancelled it: a failure
        assert info.value.source == "unknown"
        assert info.value.source_task is info.value.where is info.value.reason is None

        task = create_task(swallows_and_raises())
        await checkpoint()
        task.cancel("why")
        assert (await ended(task)).reason == "why"  # counts as what is in force there

    virtual(main())


# ---- roots, daemons, the run ---------------------------------------------------


def test_a_root_that_is_cancelled():
    """The others go on, and the run ends by what the cancelled one has come to."""

    async def canceller():
        await sleep(1)
        current_loop().tasks()[0].cancel("root")

    loop = SleepingLoop(sleep_forever(), canceller(), give("third", 3), speed=math.inf)
    with pytest.raises(CancelledError, match="task 'Task-1' was cancelled") as info:
        loop.run_until_complete()
    assert info.value.reason == "root"
    assert loop.time() == 3.0


def test_the_main_task_of_run_is_cancelled():
    async def main():
        create_task(worker())
        current_task().cancel("main")
        await sleep(5)

    async def worker():
        try:
            await sleep_forever()
        except CancelledError as error:
            told.append(error.source)
            raise

    told = []
    with pytest.raises(CancelledError) as info:
        virtual(main())
    assert info.value.reason == "main"
    assert told in ([], ["shutdown"])


def test_daemons():
    async def daemon():
        try:
            await sleep_forever()
        finally:
            log.append(now())

    async def main():
        task = create_task(daemon(), daemon=True)
        await sleep(1)
        task.cancel()
        await ended(task)
        await sleep(1)

    log = []
    virtual(main())
    assert log == [1.0]


def test_before_the_run():
    async def never():
        log.append("ran")

    log = []
    loop = SleepingLoop(give("root"), speed=math.inf)
    task = loop.create_task(never())
    assert task.cancel("too early") is True
    assert "being cancelled" in repr(task)
    assert not task.done()
    assert loop.run_until_complete() == ["root"]
    assert task.cancelled()
    assert log == []
    with pytest.raises(CancelledError) as info:
        task.result()
    assert (info.value.reason, info.value.source_task) == ("too early", None)
    assert info.value.where.endswith("in test_before_the_run")
    assert task.cancel() is False


def test_a_loop_that_never_runs():
    coro = give("unharmed")
    loop = SleepingLoop(speed=math.inf)
    task = loop.create_task(coro)
    assert task.cancel() is True
    del loop, task
    with pytest.warns(RuntimeWarning, match="never awaited"):
        del coro
        gc.collect()


def test_when_the_run_is_ending_already():
    async def worker():
        try:
            await sleep_forever()
        finally:
            results.append(other.cancel("late"))

    async def stubborn():
        try:
            await sleep_forever()
        except CancelledError as error:
            told.append(error.source)
            raise

    async def main():
        nonlocal other
        create_task(worker())
        other = create_task(stubborn())
        await checkpoint()

    other, results, told = None, [], []
    virtual(main())
    assert (results, told) == ([True], ["shutdown"])  # the outermost is the one that is told


def test_in_a_signal_handler():
    def handler(*_):
        task.cancel("signal")

    async def main():
        nonlocal task
        task = create_task(sleep_forever())
        await checkpoint()
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        error = await ended(task)
        assert (error.reason, error.source) == ("signal", "explicit")
        return error.source_task, error.where

    task = None
    old = signal.signal(signal.SIGALRM, handler)
    try:
        source_task, where = run(main(), speed=1)
    finally:
        signal.signal(signal.SIGALRM, old)
    assert source_task is None  # it came while the loop waited
    assert where.endswith("in test_in_a_signal_handler.<locals>.handler")


def test_crowds():
    async def main():
        tasks = [create_task(sleep_forever()) for _ in range(5000)]
        waiters = [create_task(join(task)) for task in tasks[:100]]
        await checkpoint()
        for task in reversed(tasks):
            task.cancel()
        for task in tasks:
            await ended(task)
        for waiter in waiters:
            with pytest.raises(CancelledError):
                await waiter

    virtual(main())


def test_reference_counts():
    async def worker(_token):
        await sleep_forever()

    async def main():
        reason = object()
        before = references(reason)
        for started in False, True:
            task = create_task(worker(OnDel(lambda: log.append("freed"))))
            if started:
                await checkpoint()
            task.cancel(reason)
            await ended(task)
            await checkpoint()
            del task
            log.append("end")
        assert references(reason) == before

    log = []
    gc.collect()
    gc.disable()
    try:
        virtual(main())
    finally:
        gc.enable()
    assert log == ["freed", "end"] * 2


def test_a_reason_in_a_cycle_is_collected():
    async def main():
        token = OnDel(lambda: log.append("freed"))
        token.task = create_task(sleep_forever())
        token.task.cancel(token)
        await ended(token.task)

    log = []
    virtual(main())
    gc.collect()
    assert log == ["freed"]
