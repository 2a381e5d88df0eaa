"""A loop that was driven, and is dropped before its end."""

import gc
import math
import weakref

import pytest

import sleeploop
from sleeploop import (
    LoopClosedError,
    SleepingLoop,
    TaskGroup,
    sleep,
    sleep_forever,
    sleep_until,
)
from tests.helpers import OnDel, cleanup, give, virtual_loop


async def nested(log, task):
    async with TaskGroup() as group:
        with sleeploop.timeout(100):
            group.create_task(cleanup(log, "never", 1))
            try:
                await task
            finally:
                log.append("closed")


def test_a_dropped_loop_warns_and_closes_its_coroutines():
    log = []

    async def wait(awaitable):
        try:
            await awaitable
        finally:
            log.append("closed")

    def make():
        loop = virtual_loop(wait(sleep(100)), wait(sleep_forever()))
        for task in loop.tasks():
            loop.create_task(wait(task))
        loop.create_task(wait(sleep_until(50)))
        loop.run_until(1)
        return weakref.ref(loop)

    ref = make()
    with pytest.warns(ResourceWarning, match=r"suspended at 1.0 s.*neither closed nor run"):
        gc.collect()
    gc.collect()  # the warning kept the loop, as what it is about
    assert ref() is None
    assert log == 5 * ["closed"]


def test_a_dropped_loop_amid_groups_and_scopes():
    log = []

    def make():
        loop = virtual_loop()
        loop.create_task(nested(log, loop.create_task(sleep_forever())))
        loop.run_until(1)
        dies = OnDel(lambda: log.append("died"))

        async def hold(dies):
            await sleep_forever()

        loop.create_task(hold(dies))
        loop.run_until(2)

    make()
    with pytest.warns(ResourceWarning, match="suspended at 2.0 s"):
        gc.collect()
    assert sorted(log) == ["closed", "died"]


def test_a_dropped_loop_of_a_class_with_a_finalizer_of_its_own():
    log = []

    class Loop(SleepingLoop):
        def __del__(self):
            log.append("loop")

    async def wait(awaitable):
        try:
            await awaitable
        finally:
            log.append("closed")

    def make():
        loop = Loop(wait(sleep(100)), speed=math.inf)
        loop.create_task(wait(loop.tasks()[0]))
        loop.run_until(1)

    make()
    with pytest.warns(ResourceWarning, match="neither closed nor run"):
        gc.collect()
    assert sorted(log) == ["closed", "closed", "loop"]


def test_a_dropped_loop_without_tasks_is_nothing_special():
    virtual_loop(give(1)).run_until(1)
    gc.collect()


def test_a_dropped_loop_may_be_kept_by_what_it_closes():
    kept = []

    async def keep():
        try:
            await sleep_forever()
        finally:
            kept.append(loops[0]())

    loops = []

    def make():
        loop = virtual_loop(keep())
        loops.append(weakref.ref(loop))
        loop.run_until(1)

    make()
    with pytest.warns(ResourceWarning):
        gc.collect()
    for loop in kept:
        if loop is not None:
            assert "closed" in repr(loop)
            with pytest.raises(LoopClosedError):
                loop.step()
