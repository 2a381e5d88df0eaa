"""The module in several interpreters of one process, each with its own types and state."""

import importlib
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import pytest

import sleeploop

ROOT = Path(sleeploop.__file__).parent.parent


def import_first(*names: str) -> Any:
    for name in names:
        try:
            return importlib.import_module(name)
        except ImportError:
            pass
    return pytest.importorskip(names[-1])


# CPython loses some references with each interpreter that has used datetime or contextvars.
pytestmark = pytest.mark.no_leak_check

interpreters = import_first("_interpreters", "_xxsubinterpreters")

PREAMBLE = f"""
import sys
sys.path[:] = {sys.path!r}
import math
import sleeploop
from sleeploop import *

def virtual(coro):
    return run(coro, speed=math.inf)

async def give(value, delay=0):
    await sleep(delay)
    return value
"""


def create(own_gil: bool) -> Any:
    if interpreters.__name__ == "_interpreters":
        return interpreters.create("isolated" if own_gil else "legacy")
    if sys.version_info >= (3, 12):
        return interpreters.create(isolated=own_gil)
    return interpreters.create(isolated=False)


def execute(interpreter: Any, script: str) -> None:
    failure = interpreters.run_string(interpreter, PREAMBLE + textwrap.dedent(script))
    # Up to 3.12 it raises; from 3.13 on it returns what happened.
    assert failure is None, failure.formatted


def run_in_one(script: str, own_gil: bool) -> None:
    interpreter = create(own_gil)
    try:
        execute(interpreter, script)
    finally:
        interpreters.destroy(interpreter)


needs_own_gil = pytest.mark.skipif(
    sys.version_info < (3, 12), reason="interpreters share the GIL before 3.12"
)
both_kinds = pytest.mark.parametrize(
    "own_gil", [False, pytest.param(True, marks=needs_own_gil)], ids=["shared GIL", "own GIL"]
)

EVERYTHING = """
import datetime

async def endless(log):
    try:
        while True:
            yield 1
    finally:
        await sleep(1)
        log.append("closed")

async def until(when):
    return await sleep_until(when)

async def main():
    log = []
    await anext(endless(log))
    tasks = [create_task(give(i, datetime.timedelta(days=i))) for i in range(5)]
    create_task(sleep_forever(), daemon=True)
    await checkpoint()
    assert await sleep(1.5) == datetime.timedelta(seconds=1.5)
    await sleep_until(current_loop().now() + datetime.timedelta(hours=1))
    assert repr(sleep(1)) == "<sleep 1.0 s>"
    return [await task for task in tasks], log

result = virtual(main())
assert result == ([0, 1, 2, 3, 4], ["closed"]), result
assert run(sleep(0.001)) >= datetime.timedelta(milliseconds=1)
try:
    virtual(sleep_forever())
except DeadlockError as error:
    assert "sleeping until cancelled" in str(error)
else:
    raise AssertionError
"""


@both_kinds
def test_everything_works_in_a_subinterpreter(own_gil):
    run_in_one(EVERYTHING, own_gil)


OWN_BUILTINS = """
import datetime
code = '''
async def main():
    await sleep_until(current_loop().now() + hour)
    await Event().wait()
SleepingLoop(speed=inf).random("x")
run(main(), speed=inf, start=start)
'''
variables = {**globals(), "__builtins__": {}, "inf": math.inf}
variables["hour"] = datetime.timedelta(hours=1)
variables["start"] = datetime.datetime(2030, 1, 1)
try:
    exec(code, variables)
except DeadlockError:
    pass
else:
    raise AssertionError
"""


@both_kinds
def test_code_with_builtins_of_its_own_works_there_too(own_gil):
    run_in_one(OWN_BUILTINS, own_gil)


@both_kinds
def test_import_run_destroy_repeat(own_gil):
    for _ in range(20):
        run_in_one("assert virtual(give(1, 5)) == 1", own_gil)
    assert sleeploop.run(sleeploop.sleep(1), speed=float("inf")).total_seconds() == 1


@both_kinds
def test_objects_that_outlive_the_module_of_their_interpreter(own_gil):
    """Kept where an interpreter clears last, in cycles, with finalizers that use the module."""
    run_in_one(
        """
        import builtins, logging

        logging.getLogger("sleeploop").disabled = True

        class Last:
            def __init__(self, *things):
                self.things = things
                self.me = self

            def __del__(self, sleep=sleep, make=SleepingLoop, virtual=virtual, sleeploop=sleeploop):
                [repr(thing) for thing in self.things]
                try:
                    sleep(1), make(sleep(2)), virtual(sleep(3)), sleeploop.checkpoint()
                except Exception:
                    pass

        async def fail():
            raise ValueError

        async def main():
            tasks = [create_task(give(1)), create_task(fail(), daemon=True), current_task()]
            await sleep(1)
            return [*tasks, tasks[0].__await__(), current_loop(), current_loop().stats()]

        kept = virtual(main())
        kept += [SleepingLoop(sleep(1), sleep_forever()), sleep(1), CancelledError()]
        kept += kept[-3].tasks()
        builtins.kept = [Last(thing) for thing in kept]
        builtins.kept.append(builtins.kept)
        sys.kept = Last(*kept)
        sys.modules["kept"] = Last(*kept)
        """,
        own_gil,
    )


WAITING = """
class Item:  # in a cycle with all that it may meet
    pass

item = Item()
item.lock, item.queue = Lock(name="lock"), Queue(1, name="queue", stats=True)
item.future, item.lost = Future(name="future"), Future(name="lost")
item.resource, item.condition = Resource(name="resource", stats=True), Condition(name="condition")

async def work(log, name):
    async with item.lock:
        async with item.resource.request() as slot:
            await sleep(1)
            await item.queue.put((name, slot.number))
    async with item.condition:
        log.append(name)
        item.condition.notify_all()

async def main():
    log = []
    item.future.set_result(item)
    assert await item.future is item
    async with TaskGroup() as group:
        for name in "abc":
            group.create_task(work(log, name))
        got = [await item.queue.get() for _ in range(3)]
        async with item.condition:
            assert await item.condition.wait_for(lambda: len(log) == 3)
    assert item.resource.stats().waits.count == item.queue.stats().gets.count == 3
    return got

assert virtual(main()) == [("a", 0), ("b", 0), ("c", 0)]

async def all_at_once():
    await first_of(item.future, item.lost)
    await all_of(item.lock.acquire(), item.queue.put(item), item.resource.request())
    async with item.condition:
        await first_of(item.condition.wait(), item.resource.request(), item.queue.put(1))

try:
    virtual(all_at_once())
except DeadlockError as error:
    assert "Condition 'condition'" in str(error)
else:
    raise AssertionError
item.lost.set_exception(ValueError("lost"))
item.lost.exception()
"""


@both_kinds
def test_what_tasks_wait_at_works_in_a_subinterpreter(own_gil):
    for _ in range(3):
        run_in_one(WAITING, own_gil)


@both_kinds
@pytest.mark.parametrize("how", ["held", "kept last", "in a finalizer"])
def test_an_interpreter_that_ends_while_tasks_wait_and_have_what_others_wait_for(own_gil, how):
    """The loops are in the middle of their runs: nothing has been given back."""
    run_in_one(
        f"""
        import builtins, sys

        class Item:
            def __init__(self, *things):
                self.things = things
                self.me = self

            def __del__(self, sleeploop=sleeploop, how={how!r}):
                [repr(thing) for thing in self.things]
                if how == "in a finalizer":
                    for thing in self.things:
                        for name in "release", "shutdown", "notify_all", "cancel", "get_nowait":
                            try:
                                getattr(thing, name)()
                            except Exception:
                                pass

        lock, queue = Lock(name="lock"), Queue(1, name="queue")
        resource, condition = Resource(name="resource"), Condition(name="condition")
        request = resource.request()
        things = [lock, queue, resource, condition, request]

        async def hold():
            await lock.acquire()
            await queue.put(Item(*things))
            await request
            await sleep_forever()

        async def wait(coro):
            try:
                await coro
            finally:
                [repr(thing) for thing in things]

        async def notified():
            async with condition:
                await condition.wait()

        async def several():
            await first_of(lock.acquire(), queue.put(1), resource.request())

        loop = SleepingLoop(hold(), speed=math.inf)
        waits = [lock.acquire(), queue.put(Item(*things)), resource.request(), notified()]
        for coro in [wait(each) for each in waits] + [several(), notified()]:
            things.append(loop.create_task(coro, daemon=True))
        loop.run_until(1)
        assert lock.locked() and queue.full() and resource.in_use == 1 and len(resource.queue) == 2
        assert "2 waiting" in repr(condition), condition
        waits = [lock.acquire(), queue.get(), resource.request(), condition.wait()]
        if {how!r} != "held":
            kept = [Item(*things, *waits, loop), things, waits]
            kept.append(kept)
            builtins.kept = kept
            sys.kept = Item(kept)
        """,
        own_gil,
    )


@both_kinds
def test_interpreters_share_nothing(own_gil):
    interpreter = create(own_gil)
    try:
        execute(interpreter, "import builtins; builtins.addresses = id(SleepingLoop), id(sleep)")
        execute(
            interpreter,
            f"""
            assert builtins.addresses == (id(SleepingLoop), id(sleep)), "imported once"
            assert id(SleepingLoop) != {id(sleeploop.SleepingLoop)}
            assert id(CancelledError) != {id(sleeploop.CancelledError)}
            """.replace("builtins", "__import__('builtins')"),
        )
    finally:
        interpreters.destroy(interpreter)


@both_kinds
def test_a_loop_inside_a_step_of_another_interpreter_s_loop(own_gil):
    """Same thread, but another interpreter: neither is inside of the other."""

    async def main():
        run_in_one("assert virtual(give(1, 3600)) == 1", own_gil)
        await sleeploop.sleep(1)
        return sleeploop.current_loop().time()

    assert sleeploop.run(main(), speed=float("inf")) == 1


@both_kinds
def test_loops_in_interpreters_in_threads(own_gil):
    errors = []

    def body() -> None:
        try:
            for _ in range(3):
                run_in_one(EVERYTHING, own_gil)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=body) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def in_process(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
    )


def test_an_interpreter_still_there_at_the_end_of_the_process():
    done = in_process(
        f"""
import {interpreters.__name__} as interpreters
kept = interpreters.create()
result = interpreters.run_string(kept, {PREAMBLE + EVERYTHING!r})
assert result is None, result
print("end")
"""
    )
    assert (done.returncode, done.stdout) == (0, "end\n")


def test_a_module_imported_anew_has_new_types():
    done = in_process(
        """
        import gc, math, sys
        import sleeploop as first

        task, = first.SleepingLoop(first.sleep(1), speed=math.inf).tasks()
        del sys.modules["sleeploop"], sys.modules["_sleeploop"]
        import sleeploop as second

        assert first.SleepingLoop is not second.SleepingLoop
        for module in first, second:
            assert module.run(module.sleep(1), speed=math.inf).total_seconds() == 1

        async def mixed():
            await first.sleep(0)

        # To each, the other's sleep is another loop's: it is spoken to in datetimes.
        second.run(mixed(), speed=math.inf)
        sleep = first.sleep
        del first, module
        gc.collect()
        assert "ready" in repr(task)
        nap = sleep(1)
        assert repr(nap) == "<sleep 1.0 s>"
        nap.close()
        del task, sleep, nap
        gc.collect()
        print("end")
        """
    )
    assert (done.stdout, done.stderr, done.returncode) == ("end\n", "", 0)


@pytest.mark.parametrize("reference", ["first", "last"])
def test_a_module_collected_with_objects_that_use_it(reference):
    done = in_process(
        f"""
        import gc, sys, _sleeploop

        class Last:  # without slots or dict: the collector does not see it
            __slots__ = ()

            def __del__(self, sleep=_sleeploop.sleep, make=_sleeploop.SleepingLoop):
                sleep(1), make(), make(sleep(1)), repr(sleep(1))

        class Node:
            pass

        def cycle():
            node = Node()
            node.node = node
            node.last = Last()
            node.module = sys.modules["_sleeploop"]
            node.loop = _sleeploop.SleepingLoop(_sleeploop.sleep(1))
            return node

        node = cycle()
        if {reference == "first"}:
            gc.collect()
        del node, sys.modules["_sleeploop"], _sleeploop, Last
        gc.collect()
        print("end")
        """
    )
    assert (done.stdout, done.returncode) == ("end\n", 0)
