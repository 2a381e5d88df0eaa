"""run_sync_in_thread(): whom it waits for, whom it leaves behind, and whose token it has."""

import contextvars
import functools
import gc
import math
import subprocess
import sys
import threading
import weakref

import pytest

from sleeploop import (
    CancelledError,
    CapacityLimiter,
    DeadlockError,
    Event,
    Interrupt,
    SleepingLoop,
    TaskGroup,
    checkpoint,
    create_task,
    current_loop,
    current_task,
    find_deadlocks,
    format_tasks,
    move_on_after,
    run,
    run_sync_in_thread,
    sleep,
)
from tests.helpers import awaited_error, now, virtual

VARIABLE = contextvars.ContextVar("VARIABLE", default="unset")


class Gate:
    """What a thread waits at until it is opened."""

    def __init__(self):
        self.entered, self.opened = threading.Event(), threading.Event()
        self.threads = []

    def pass_through(self, value=None):
        self.threads.append(threading.current_thread())
        self.entered.set()
        assert self.opened.wait(30)
        return value

    def close(self):
        self.opened.set()
        for thread in self.threads:
            thread.join(30)


@pytest.fixture
def gate():
    gate = Gate()
    yield gate
    gate.close()


async def until(condition):
    while not condition():
        await run_sync_in_thread(functools.partial(threading.Event().wait, 0.001))


# ---- as to_thread() ------------------------------------------------------------------------------


def test_the_result_in_a_thread_of_its_own_while_time_stands_still():
    def work(a, b):
        assert threading.current_thread() is not threading.main_thread()
        return a + b, VARIABLE.get(), VARIABLE.set("in the thread")

    async def main():
        VARIABLE.set("the task's")
        sleeper = create_task(sleep(3600))
        assert (await run_sync_in_thread(work, 1, 2))[:2] == (3, "the task's")
        return VARIABLE.get(), now(), sleeper.done()

    assert virtual(main()) == ("the task's", 0.0, False)


@pytest.mark.parametrize("kind", [ValueError, KeyError, StopIteration])
def test_what_it_raises(kind):
    def work():
        raise kind("no")

    async def main():
        try:
            await run_sync_in_thread(work)
        except RuntimeError as error:
            return type(error.__cause__)
        except Exception as error:
            return type(error)

    assert virtual(main()) is kind


def test_keyword_arguments_come_by_a_partial():
    async def main():
        with pytest.raises(TypeError, match="base"):
            run_sync_in_thread(int, "11", base=2)
        return await run_sync_in_thread(functools.partial(int, "11", base=2))

    assert virtual(main()) == 3


def test_a_cancellation_waits_for_the_thread(gate):
    async def main():
        task = create_task(work())
        await until(gate.entered.is_set)
        task.cancel()
        for _ in range(5):
            await checkpoint()
        assert not task.done()
        gate.opened.set()
        await awaited_error(task)
        return log

    async def work():
        log.append(await run_sync_in_thread(gate.pass_through, "v"))
        await checkpoint()

    log = []
    assert virtual(main()) == ["v"]


@pytest.mark.parametrize("abandon", [False, True])
def test_a_cancellation_before_the_call_prevents_it(abandon):
    async def main():
        with move_on_after(0) as scope:
            await run_sync_in_thread(log.append, 1, abandon_on_cancel=abandon)
        return scope.cancelled_caught

    log = []
    assert virtual(main())
    assert log == []


def test_the_name():
    def name():
        return threading.current_thread().name

    async def main():
        return await run_sync_in_thread(name, name="mine"), await run_sync_in_thread(name)

    mine, default = virtual(main())
    assert mine == "mine"
    assert default == "test_the_name.<locals>.name for Task-1"


# ---- abandoned -----------------------------------------------------------------------------------


@pytest.mark.parametrize("speed", [1, 1000, math.inf])
def test_a_cancellation_leaves_the_thread_behind(speed, gate):
    async def main():
        task = create_task(run_sync_in_thread(gate.pass_through, abandon_on_cancel=True))
        await until(gate.entered.is_set)
        task.cancel("no time")
        assert (await awaited_error(task)).reason == "no time"
        assert gate.threads[0].is_alive()
        await sleep(0.01)  # no time stands still for it
        return now() >= 0.01

    assert run(main(), speed=speed)
    assert gate.threads[0].is_alive()


def test_an_interrupt_does_so_too(gate):
    async def main():
        task = create_task(run_sync_in_thread(gate.pass_through, abandon_on_cancel=True))
        await until(gate.entered.is_set)
        task.interrupt("now")
        with pytest.raises(Interrupt):
            await task

    virtual(main())


def test_the_outcome_is_dropped(gate):
    def fails():
        gate.pass_through()
        raise ValueError("nobody sees this")

    async def main():
        task = create_task(run_sync_in_thread(fails, abandon_on_cancel=True))
        await until(gate.entered.is_set)
        task.cancel()
        await awaited_error(task)
        gate.close()
        for _ in range(5):
            await checkpoint()

    virtual(main())


def test_a_thread_that_has_ended_first_is_not_abandoned(gate):
    async def main():
        task = create_task(work())
        await until(gate.entered.is_set)
        gate.close()  # in this step: the loop learns of the end after the cancellation
        task.cancel()
        await awaited_error(task)
        return log

    async def work():
        log.append(await run_sync_in_thread(gate.pass_through, "v", abandon_on_cancel=True))
        await checkpoint()

    log = []
    assert virtual(main()) in ([], ["v"])


def test_a_program_does_not_wait_for_it_at_its_end():
    program = (
        "import sleeploop, threading\n"
        "async def main():\n"
        "    with sleeploop.move_on_after(0.01):\n"
        "        await sleeploop.run_sync_in_thread(threading.Event().wait,\n"
        "                                           abandon_on_cancel=True)\n"
        "    print('left')\n"
        "sleeploop.run(main(), speed=1)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr, done.returncode) == ("left\n", "", 0)


def test_a_loop_that_is_over_is_told_nothing(gate):
    limiter = CapacityLimiter(1)

    async def main():
        task = create_task(
            run_sync_in_thread(gate.pass_through, abandon_on_cancel=True, limiter=limiter)
        )
        await until(gate.entered.is_set)
        task.cancel()
        await awaited_error(task)
        assert limiter.borrowed_tokens == 1

    async def again():
        return await run_sync_in_thread(int, limiter=limiter)

    virtual(main())
    gate.close()
    assert limiter.borrowed_tokens == 0
    assert virtual(again()) == 0


# ---- tokens --------------------------------------------------------------------------------------


def test_a_call_borrows_one_token_and_gives_it_back(gate):
    limiter = CapacityLimiter(2, name="db")

    async def main():
        async with TaskGroup() as group:
            for _ in range(3):
                group.create_task(run_sync_in_thread(gate.pass_through, limiter=limiter))
            await until(lambda: len(gate.threads) == 2)
            assert (limiter.borrowed_tokens, limiter.n_waiting) == (2, 1)
            assert repr(limiter.borrowers[0]) == "<call of Gate.pass_through>"
            gate.opened.set()
        assert len(gate.threads) == 3
        assert limiter.borrowed_tokens == 0

        async with limiter:  # another one than the task's own
            await run_sync_in_thread(int, limiter=limiter)
        with pytest.raises(ZeroDivisionError):
            await run_sync_in_thread(divmod, 1, 0, limiter=limiter)
        assert limiter.borrowed_tokens == 0

    virtual(main())


def test_more_threads_than_to_thread_has(gate):
    async def main():
        limiter = CapacityLimiter(50)
        async with TaskGroup() as group:
            for _ in range(50):
                group.create_task(run_sync_in_thread(gate.pass_through, limiter=limiter))
            await until(lambda: len(gate.threads) == 50)
            gate.opened.set()

    virtual(main())


def test_by_default_as_many_as_to_thread_has():
    running, most, lock = [0], [0], threading.Lock()

    def work():
        with lock:
            running[0] += 1
            most[0] = max(running[0], most[0])
        threading.Event().wait(0.002)
        with lock:
            running[0] -= 1

    async def main():
        async with TaskGroup() as group:
            for _ in range(100):
                group.create_task(run_sync_in_thread(work))

    virtual(main())
    assert 1 < most[0] <= 32


@pytest.mark.parametrize("speed", [1, math.inf])
def test_an_abandoned_call_keeps_its_token_until_its_thread_has_ended(speed, gate):
    limiter = CapacityLimiter(1, name="db")

    async def main():
        task = create_task(
            run_sync_in_thread(gate.pass_through, abandon_on_cancel=True, limiter=limiter)
        )
        await until(gate.entered.is_set)
        task.cancel()
        await awaited_error(task)
        assert limiter.borrowed_tokens == 1
        threading.Timer(0.05, gate.opened.set).start()
        # Nothing else goes on meanwhile, and yet that is no deadlock.
        assert await run_sync_in_thread(lambda: "v", limiter=limiter) == "v"
        assert limiter.borrowed_tokens == 0

    run(main(), speed=speed)


def test_a_deadlock_once_no_thread_is_left(gate):
    async def main():
        task = create_task(run_sync_in_thread(gate.pass_through, abandon_on_cancel=True))
        await until(gate.entered.is_set)
        task.cancel()
        await awaited_error(task)
        threading.Timer(0.05, gate.opened.set).start()
        await Event().wait()

    with pytest.raises(DeadlockError):
        virtual(main())


def test_cancelled_while_it_waits_for_its_token():
    async def main():
        limiter = CapacityLimiter(1)
        async with limiter:
            with move_on_after(1) as scope:
                await run_sync_in_thread(int, limiter=limiter)
            assert scope.cancelled_caught
            assert limiter.n_waiting == 0
        assert limiter.borrowed_tokens == 0

    virtual(main())


def test_a_thread_that_cannot_be_started(monkeypatch):
    def start(thread):
        raise RuntimeError("can't start new thread")

    async def main():
        limiter = CapacityLimiter(1)
        monkeypatch.setattr(threading.Thread, "start", start)
        with pytest.raises(RuntimeError, match="can't start"):
            await run_sync_in_thread(int, limiter=limiter)
        monkeypatch.undo()
        return await run_sync_in_thread(int, limiter=limiter)

    assert virtual(main()) == 0


# ---- reports -------------------------------------------------------------------------------------


def test_reports(gate):
    async def main():
        limiter = CapacityLimiter(1, name="db")
        tasks = [
            create_task(run_sync_in_thread(gate.pass_through, limiter=limiter)) for _ in range(2)
        ]
        await until(gate.entered.is_set)
        report = format_tasks()
        assert find_deadlocks() == []
        gate.opened.set()
        for task in tasks:
            await task
        return report

    report = virtual(main())
    assert "run_sync_in_thread: waiting for a thread, which calls Gate.pass_through" in report
    assert "waiting for CapacityLimiter 'db'" in report


# ---- wrong use -----------------------------------------------------------------------------------


def test_wrong_arguments():
    for call, message in (
        (lambda: run_sync_in_thread("x"), r"run_sync_in_thread\(\) takes a function, not 'x'"),
        (lambda: run_sync_in_thread(int, limiter=3), "limiter must be a CapacityLimiter .*not 3"),
        (lambda: run_sync_in_thread(int, name=3), "name must be a str or None, not 3"),
    ):
        with pytest.raises(TypeError, match=message):
            call()


def test_outside_of_a_run():
    coro = run_sync_in_thread(int)
    with pytest.raises(RuntimeError, match=r"run_sync_in_thread\(\) needs a running loop"):
        coro.send(None)


def test_a_coroutine_that_is_closed_while_a_thread_works(gate):
    limiter = CapacityLimiter(1)
    loop = SleepingLoop(speed=math.inf)
    task = loop.create_task(run_sync_in_thread(gate.pass_through, limiter=limiter))

    async def drop():
        await until(gate.entered.is_set)
        raise KeyboardInterrupt

    async def twice():
        try:
            await drop()
        finally:
            raise KeyboardInterrupt

    loop.create_task(twice())
    threading.Timer(0.5, gate.opened.set).start()  # cleanup waits for the thread
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete()
    assert task.done()
    assert limiter.borrowed_tokens == 0


def test_nothing_stays_behind():
    class Argument:
        pass

    async def main():
        argument = Argument()
        ref = weakref.ref(argument)
        await run_sync_in_thread(id, argument)
        with pytest.raises(TypeError):
            await run_sync_in_thread(int, argument)
        del argument
        for _ in range(50):  # its thread is about to end
            if ref() is None:
                break
            await checkpoint()
            threading.Event().wait(0.01)
            gc.collect()
        return ref() is None

    assert virtual(main())


def test_the_loop_and_the_task_are_the_ones_that_await():
    async def main():
        coro = run_sync_in_thread(lambda: None)
        task = create_task(coro, name="other")
        await task
        assert current_task() is not task
        assert current_loop() is not None
        task = create_task(run_sync_in_thread(int))
        task.cancel()
        with pytest.raises(CancelledError):
            await task

    virtual(main())
