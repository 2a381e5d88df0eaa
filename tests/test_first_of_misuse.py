"""first_of() and all_of() in wrong hands, and driven by hand."""

import asyncio
import gc
import inspect
import math
import re
import warnings

import pytest

from sleeploop import (
    Event,
    Lock,
    SleepingLoop,
    all_of,
    create_task,
    current_task,
    first_of,
    sleep,
    sleep_forever,
)
from tests.helpers import Error, OnDel, give, virtual
from tests.waits import BOTH, held_lock

# ---- wrong use -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("forgetful")
@BOTH
def test_what_cannot_be_awaited(function):
    name = function.__name__
    for junk in (42, None, "text", Lock, print, lambda: None):
        with pytest.raises(TypeError, match=re.escape(f"{name}()")):
            function(junk)
    for several in ([], [sleep(1)], (), {sleep(1)}, (give(i) for i in ())):
        with pytest.raises(TypeError, match="one by one"):
            function(several)


@BOTH
def test_a_coroutine_beside_junk_stays_the_caller_s(function):
    coro = give(1)
    with pytest.raises(TypeError):
        function(coro, 42)
    assert virtual(coro) == 1


@pytest.mark.usefixtures("forgetful")
@BOTH
def test_the_same_twice(function):
    async def main():
        task = create_task(give(1))
        coro, wait = give(2), Event().wait()
        for one in (task, coro, wait):
            with pytest.raises(RuntimeError, match=r"the same .* twice"):
                function(one, sleep(1), one)
        coro.close()
        await task

    virtual(main())


def test_of_nothing():
    with pytest.raises(ValueError, match="at least one"):
        first_of()


@BOTH
def test_what_was_awaited_before(function):
    async def main():
        event = Event()
        event.set()
        wait, coro = event.wait(), give(1)
        await wait
        await coro
        with pytest.raises(RuntimeError, match=r"awaited before: <Event\.wait"):
            function(wait)
        with pytest.raises(RuntimeError, match="already finished"):
            function(coro)
        fresh = event.wait()
        later = function(fresh)
        await fresh
        with pytest.raises(RuntimeError, match="awaited before"):
            await later

    virtual(main())


@BOTH
def test_unhashable(function):
    class Unhashable:
        __hash__ = None

        def __await__(self):
            yield

    with pytest.raises(TypeError, match=r"unhashable <.*Unhashable object"):
        function(Unhashable())


@BOTH
def test_equal_ones(function):
    class Equal:
        def __eq__(self, other):
            return True

        def __hash__(self):
            return 1

        def __await__(self):
            yield

    with pytest.raises(RuntimeError, match="the same awaitable twice"):
        function(Equal(), Equal())


@BOTH
def test_a_hash_that_fails_at_any_time_loses_nothing(function):
    class Fickle:
        good = math.inf  # how many times it still has a hash

        def __hash__(self):
            self.good -= 1
            if self.good < 0:
                raise Error("hash")
            return 1

        def __await__(self):
            yield

    async def main(good):
        lock, fickle = Lock(), Fickle()
        aws = [fickle, lock.acquire()] if function is all_of else [fickle]
        later = function(*aws)
        fickle.good = good
        try:
            await later
        except Error:
            assert not lock.locked()
            return "failed"
        return "fine"

    outcomes = [virtual(main(good)) for good in range(9)]
    assert outcomes[:2] == ["failed"] * 2  # as it is checked, and as the result is made
    assert outcomes[-1] == "fine"


@BOTH
def test_tasks_of_another_loop_and_its_own(function):
    other = SleepingLoop(speed=math.inf)
    task = other.create_task(give(1))

    async def main():
        with pytest.raises(RuntimeError, match="another loop"):
            function(task)
        with pytest.raises(RuntimeError, match=rf"^{function.__name__}\(\) cannot wait for the"):
            await function(current_task())

    virtual(main())
    other.close()


@BOTH
def test_a_lock_of_another_loop(function):
    async def have(lock):
        await lock.acquire()
        await sleep(1)
        lock.release()

    async def main():
        mine, coro = Lock(), give(1)
        with pytest.raises(RuntimeError, match="belongs to another loop"):
            await function(coro, lock.acquire(), mine.acquire())
        assert not mine.locked()
        assert inspect.getcoroutinestate(coro) == inspect.CORO_CLOSED

    lock = Lock()
    other = SleepingLoop(have(lock), speed=math.inf)
    other.run_until(0.5)
    virtual(main())
    other.run_until_complete()


@BOTH
def test_without_a_loop(function):
    wait = function(Event().wait())
    with pytest.raises(RuntimeError, match="needs a running loop"):
        wait.send(None)


@BOTH
def test_awaited_twice(function):
    async def main():
        once = function(give(1))
        await once
        with pytest.raises(RuntimeError, match="cannot reuse"):
            await once

    virtual(main())


@BOTH
def test_never_awaited(function):
    coro, wait = give(1), Event().wait()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        later = function(coro, wait)
        later.close()
        del later
        gc.collect()
    assert inspect.getcoroutinestate(coro) == inspect.CORO_CLOSED


@BOTH
def test_under_asyncio(function):
    async def main():
        with pytest.raises(RuntimeError, match="needs a running loop"):
            await function(Event().wait())

    asyncio.run(main())


# ---- by hand -------------------------------------------------------------------------------------


@BOTH
def test_a_wait_that_is_closed_meanwhile(function):
    async def main():
        lock = await held_lock("x", 1)
        get = lock.acquire()
        create_task(close_later(get))
        with pytest.raises(RuntimeError, match="awaited before"):
            await function(get)
        del get
        gc.collect()
        assert not lock.locked()

    async def close_later(get):
        await sleep(0.5)
        get.close()

    virtual(main())


@BOTH
def test_a_wait_that_somebody_else_awaits_meanwhile(function):
    async def main():
        lock = await held_lock("x", 1)
        get = lock.acquire()
        thief = create_task(steal(get))
        assert await function(get) == {get: True}
        assert lock.owner is current_task()
        lock.release()
        await thief

    async def steal(get):
        with pytest.raises(RuntimeError, match="awaited before"):
            await get

    virtual(main())


@BOTH
def test_a_loop_that_is_dropped_meanwhile(function):
    async def wait(lock, other):
        await function(lock.acquire(), other.acquire())

    async def have(lock):
        await lock.acquire()
        await sleep_forever()

    x, y = Lock(), Lock()
    loop = SleepingLoop(have(x), wait(x, y) if function is all_of else wait(x, x), speed=math.inf)
    loop.run_until(1)
    with pytest.warns(ResourceWarning, match="neither closed nor run to its end"):
        del loop
        gc.collect()

    async def use():
        return repr(x), repr(y)

    assert "waiting" not in "".join(virtual(use()))


@BOTH
def test_a_result_that_runs_code_when_it_dies(function):
    log = []

    async def main():
        lock = Lock()

        async def strange():
            return OnDel(lambda: log.append(lock.locked()))

        async def fail_later():
            await sleep(1)
            raise Error

        with pytest.raises(Error):
            await all_of(lock.acquire(), strange(), fail_later())
        gc.collect()
        done = await function(strange())
        del done

    virtual(main())
    gc.collect()
    assert len(log) == 2
