"""The module is collected when nobody refers to it any more, also if its own objects lie in it."""

import subprocess
import sys
import textwrap

import pytest


def in_process(program: str, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), *args],
        capture_output=True,
        text=True,
        check=False,
    )


def assert_ends_well(program: str, *args: str) -> None:
    done = in_process(program, *args)
    assert (done.stdout, done.stderr, done.returncode) == ("end\n", "", 0)


# What may lie in the module for long, one of each type; but for a Tick, see csrc/time/tick.h, and
# for statistics: when a struct sequence of CPython dies, it asks its type how many fields it has,
# which has been cleared by then.
KEPT = {
    "nothing": "None",
    "SleepingLoop": "m.SleepingLoop()",
    "SleepingLoop with tasks": "m.SleepingLoop(m.Event().wait(), m.Queue().get())",
    "Task": "m.SleepingLoop(m.Event().wait()).tasks()[0]",
    "CancelledError": "m.CancelledError('reason')",
    "CancelScope": "m.timeout(5)",
    "TaskGroup": "m.TaskGroup()",
    "Start": "m.TaskGroup().start(give)",
    "Every": "m.every(1)",
    "Event": "m.Event(name='name')",
    "Wait": "m.Event().wait()",
    "Lock": "m.Lock()",
    "Condition": "m.Condition(name='name')",
    "Barrier": "m.Barrier(2)",
    "Semaphore": "m.Semaphore()",
    "BoundedSemaphore": "m.BoundedSemaphore(2)",
    "CapacityLimiter": "m.CapacityLimiter(1)",
    "Queue": "m.Queue(stats=True)",
    "PriorityQueue": "m.PriorityQueue()",
    "LifoQueue": "m.LifoQueue()",
    "channels": "m.open_channel(1)",
    "Resource": "m.Resource(stats=True)",
    "Request": "m.Resource().request()",
    "Container": "m.Container(5)",
    "Store": "m.Store()",
    "a method": "m.Lock().release",
    "the method of a type": "m.Lock.__aenter__",
    "an error": "m.DeadlockError('text')",
}

COLLECT = """
import gc, importlib, math, sys, weakref

async def give(value, *, started=None):
    return value

def virtual(coro):
    return m.run(coro, speed=math.inf)

async def main():
    lock, condition, semaphore = m.Lock(), m.Condition(), m.Semaphore()
    async with lock, semaphore, condition, m.TaskGroup() as group:
        group.create_task(m.sleep(1))
        async for tick in m.every(1):
            if tick.index == 3:
                break

for used in (False, True):
    m = importlib.import_module("_sleeploop")
    if used:
        virtual(main())
    m.kept = {kept}
    with_close = getattr(m.kept, "send", None) and m.kept.close()
    ref = weakref.ref(m)
    del m, sys.modules["_sleeploop"]
    gc.collect()
    gc.collect()
    assert ref() is None, used
print("end")
"""


@pytest.mark.parametrize("kept", KEPT)
def test_the_module_is_collected_with_what_lies_in_it(kept):
    assert_ends_well(COLLECT.replace("{kept}", KEPT[kept]))


def test_the_package_is_collected_after_all_of_it_has_been_used():
    assert_ends_well(
        """
        import gc, math, sys, threading, weakref

        def use():
            import sleeploop, sleeploop.tracing, sleeploop.testing
            refs.extend(map(weakref.ref, (sleeploop, sys.modules["_sleeploop"])))

            async def main():
                lock = sleeploop.Lock()
                done = await sleeploop.first_of(lock.acquire(), sleeploop.sleep(5))
                await sleeploop.gather(sleeploop.sleep(1), sleeploop.to_thread(len, ""))
                async for _ in sleeploop.as_completed([sleeploop.sleep(1)], timeout=5):
                    sleeploop.format_tasks()
                await sleeploop.wait_for(sleeploop.sleep(1), 5)
                return sleeploop.find_deadlocks()

            async def stuck():
                await sleeploop.Event().wait()

            sleeploop.run(main(), speed=math.inf, trace=100)
            try:
                sleeploop.run(stuck(), speed=math.inf)
            except sleeploop.DeadlockError:
                pass
            sleeploop.kept = sleeploop.Lock()

        refs = []
        for _ in range(3):
            use()
            for thread in threading.enumerate()[1:]:
                thread.join()  # those of to_thread() end by themselves, soon after the run
            for name in list(sys.modules):
                if name.partition(".")[0] in ("sleeploop", "_sleeploop"):
                    del sys.modules[name]
            gc.collect()
            gc.collect()
            assert [ref() for ref in refs] == [None] * len(refs)
        print("end")
        """
    )


def test_reloads_cost_no_more_than_those_of_an_empty_module():
    """What CPython keeps of each type that ever was is counted at a module that has as many."""
    assert_ends_well(
        """
        import gc, importlib, sys

        def blocks_of_reloads(n):
            for _ in range(n):
                importlib.import_module("_sleeploop").kept = None
                del sys.modules["_sleeploop"]
                gc.collect()
            return sys.getallocatedblocks()

        blocks_of_reloads(5)
        first = blocks_of_reloads(10)
        second = blocks_of_reloads(10)
        assert second - first < 10 * 20, (first, second)
        print("end")
        """
    )


def test_an_inline_method_that_is_held_outlives_the_module():
    """It is not seen by the collector, but keeps its object, which keeps its types."""
    assert_ends_well(
        """
        import gc, importlib, sys, weakref

        for make in ("Lock", "Condition", "Semaphore"):
            m = importlib.import_module("_sleeploop")
            held = getattr(m, make)().__aenter__
            ref = weakref.ref(m)
            del m, sys.modules["_sleeploop"]
            gc.collect()
            try:
                held()
            except RuntimeError as error:
                assert "needs a running loop" in str(error)
            assert ref() is not None
            assert held.__self__.__aenter__ is held
            del held
            gc.collect()
            assert ref() is None
        print("end")
        """
    )
