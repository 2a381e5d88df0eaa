"""Code with builtins of its own, as the methods of a namedtuple have: no `__import__` in them."""

import collections
import datetime
import gc
import logging
import math
import os
import re
import signal
import time
from pathlib import Path

import pytest

import sleeploop
from sleeploop import DeadlockError, LagError, SleepingLoop, Task, run, sleep
from sleeploop.testing import explore
from tests.helpers import fail, give

ROOT = Path(__file__).resolve().parent.parent

# What asks the frame that happens to run for its globals or builtins.
OF_THE_FRAME = (
    r"PyImport_\w+|PyCapsule_Import|PyEval_(?:Get)?(?:Frame)?(?:Builtins|Globals|Locals)\w*"
    r"|PyErr_\w*Warn\w*|PyRun_\w+|Py_Compile\w+|PyObject_Dir|__import__|__build_class__"
)
# import_module(); what is said where nothing can be imported; and a warning without a source, for
# which CPython imports nothing.
ALLOWED = {
    "compat.h": {"PyImport_ImportModuleLevelObject", "PyImport_GetModule"},
    "abandon.h": {"PyErr_ResourceWarning"},
    "forgotten.h": {"PyErr_WarnFormat"},
}


def alone(code, **names):
    """Run code whose builtins are empty; return its variables."""
    variables = {**vars(sleeploop), "__name__": "alone", "inf": math.inf, **names}
    variables["__builtins__"] = {}
    exec(code, variables)
    return variables


def test_it_is_such_code():
    with pytest.raises(ImportError, match="__import__ not found"):
        alone("import sys")
    new = collections.namedtuple("new", "x").__new__
    assert "__import__" not in new.__globals__["__builtins__"]


def test_nothing_in_c_asks_the_frame_for_its_builtins():
    """Nor imports anything but by import_module()."""
    for path in [ROOT / "_sleeploop.c", *sorted((ROOT / "csrc").rglob("*.h"))]:
        text = re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.DOTALL)
        found = set(re.findall(OF_THE_FRAME, text)) - ALLOWED.get(path.name, set())
        assert not found, f"{path}: {found}"


def test_a_run_and_its_result():
    assert alone("got = run(give(5, 1), speed=inf)", give=give)["got"] == 5


def test_a_loop_with_everything():
    code = """
loop = SleepingLoop(give(5, 1), speed=inf, debug=True, start=start, strict=1, seed=3, shuffle=7,
                    trace=True)
numbers = loop.random('x').random()
result = loop.run_until_complete()
events = loop.trace.events
stats, schedule, when = loop.stats(), loop.schedule, loop.now()
"""
    start = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
    got = alone(code, give=give, start=start)
    assert got["result"] == [5]
    assert got["numbers"] == SleepingLoop(seed=3, speed=1).random("x").random()
    assert got["events"]
    assert got["when"].timestamp() == start.timestamp() + 1


def test_the_environment_is_asked(monkeypatch):
    monkeypatch.setenv("SLEEPLOOP_SPEED", "inf")
    assert alone("speed = SleepingLoop().speed")["speed"] == math.inf


def test_a_deadlock():
    with pytest.raises(DeadlockError, match="bell"):
        alone("run(f(), speed=inf)", f=wait_for_ever)


async def wait_for_ever():
    await sleeploop.Event(name="bell").wait()


def test_deadlocks_found_inside():
    code = """
async def main(lock):
    await lock.acquire()
    await lock.acquire()
run(main(Lock()), speed=inf)
"""
    with pytest.raises(DeadlockError, match="wait for itself"):
        alone(code)


@pytest.mark.realtime
def test_real_time_and_its_signals():
    alone("run(sleep_a_bit, speed=1)", sleep_a_bit=give(None, 0.001))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.realtime
def test_a_signal_in_the_middle_of_a_wait():
    seen = []
    old = signal.signal(signal.SIGALRM, lambda *_: seen.append(loop.time()))
    code = """
async def main():
    arm()
    await sleep(0.1)
loop.create_task(main())
"""
    loop = SleepingLoop(speed=1)
    try:
        alone(code, loop=loop, arm=lambda: signal.setitimer(signal.ITIMER_REAL, 0.01))
        alone("loop.run_until_complete()", loop=loop)
    finally:
        signal.signal(signal.SIGALRM, old)
    assert len(seen) == 1
    assert signal.set_wakeup_fd(-1) == -1


@pytest.mark.realtime
def test_ctrl_c():
    code = """
async def main():
    interrupt()
    await sleep(10)
run(main(), speed=1)
"""
    with pytest.raises(KeyboardInterrupt):
        alone(code, interrupt=lambda: os.kill(os.getpid(), signal.SIGINT))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.realtime
def test_lag():
    code = """
async def main():
    create_task(sleep_a_bit)
    await sleep(0)
    busy()
    await sleep(0.01)
run(main(), speed=1, strict=0.01)
"""
    with pytest.raises(LagError):
        alone(code, sleep_a_bit=give(None, 0.01), busy=lambda: time.sleep(0.05))


def test_a_group_in_a_cancelled_block():
    code = """
async def main():
    with CancelScope() as scope:
        scope.cancel()
        raise group([error, CancelledError()])
run(main(), speed=inf)
"""
    error = ValueError("important")
    with pytest.raises(BaseExceptionGroup) as info:
        alone(code, error=error, group=lambda errors: BaseExceptionGroup("several", errors))
    assert info.value.exceptions == (error,)


def test_a_group_of_which_nothing_is_left():
    code = """
async def main():
    with CancelScope() as scope:
        scope.cancel()
        raise group([CancelledError()])
run(main(), speed=inf)
"""
    alone(code, group=lambda errors: BaseExceptionGroup("several", errors))


def test_a_failure_that_nobody_has_seen(caplog):
    """In the middle of a namedtuple's __new__, which the log must not depend on."""
    box = []

    async def main():
        box.append(sleeploop.create_task(fail(ValueError("unseen")), daemon=True))
        await sleep(1)
        alone("box.pop()", box=box)
        gc.collect()

    with caplog.at_level(logging.ERROR, "sleeploop"):
        run(main(), speed=math.inf)
    assert [record.exc_info[1].args for record in caplog.records] == [("unseen",)]


def test_a_failure_that_is_collected_there(caplog):
    async def main():
        task = sleeploop.create_task(fail(ValueError("unseen")), daemon=True)
        await sleep(1)
        cycle = [task]
        cycle.append(cycle)
        del cycle, task
        alone("collect()", collect=gc.collect)

    with caplog.at_level(logging.ERROR, "sleeploop"):
        run(main(), speed=math.inf)
    assert [record.exc_info[1].args for record in caplog.records] == [("unseen",)]


@pytest.mark.parametrize("how", ["dropped", "collected"])
def test_a_loop_that_is_given_up(how):
    loop = SleepingLoop(give(None, 5), speed=math.inf)
    loop.run_until(1)
    box = [loop]
    with pytest.warns(ResourceWarning, match="neither closed nor run"):
        del loop
        if how == "collected":
            box.append(box)
            del box
            alone("collect()", collect=gc.collect)
        else:
            alone("box.clear()", box=box)
            gc.collect()


def test_an_await_that_is_forgotten():
    with pytest.warns(RuntimeWarning, match="'sleep' was never awaited"):
        alone("sleep(1)")


def test_async_generators_are_closed():
    closed = []
    code = """
async def numbers(name):
    try:
        while 1:
            yield name
    finally:
        await sleep(1)
        closed.append(name)

async def main():
    first, second = numbers('first'), numbers('second')
    await first.__anext__()
    await second.__anext__()
    del first
    await sleep(5)
    keep.append(second)
run(main(), speed=inf)
"""
    alone(code, closed=closed, keep=[])
    assert closed == ["first", "second"]


def test_threads():
    code = """
async def main():
    return await to_thread(get)
got = run(main(), speed=inf)
"""
    assert alone(code, get=lambda: 7)["got"] == 7


def test_slow_steps_are_told_of(caplog):
    code = """
async def main():
    busy()
    await sleep(0)
run(main(), speed=inf, debug=True)
"""
    with caplog.at_level(logging.WARNING, "sleeploop"):
        alone(code, busy=lambda: time.sleep(0.3))
    assert "test_hostile_builtins" in caplog.text or "<string>" in caplog.text


def test_debug_remembers_where_tasks_were_made():
    code = """
async def main():
    task = create_task(sleep_a_bit)
    made.append(task.created_at)
    await task
run(main(), speed=inf, debug=True)
"""
    made = []
    alone(code, made=made, sleep_a_bit=give(None, 1))
    assert made[0][-1].name == "main"


def test_interrupts_and_several_waits():
    code = """
async def main():
    task = current_task()
    create_task(soon(lambda: task.interrupt('now')))
    try:
        await first_of(Event().wait(), sleep(10))
    except Interrupt as interrupt:
        got.append(interrupt.cause)
    got.append(await gather(give(1, 1), give(2, 1)))
    got.append(await wait_for(give(3, 1), 5))
    async for task in as_completed([give(4, 1)]):
        got.append(await task)
    async with TaskGroup() as group:
        got.append(await group.start(begin))
run(main(), speed=inf)
"""

    async def soon(call):
        await sleep(1)
        call()

    async def begin(*, started):
        started(5)

    got = []
    alone(code, got=got, soon=soon, give=give, begin=begin)
    assert got == ["now", [1, 2], 3, 4, 5]


def test_datetimes():
    code = """
async def main():
    await sleep_until(current_loop().now() + hour)
    await sleep(hour)
    async for tick in every(hour):
        return current_loop().now()
got = run(main(), speed=inf, start=start)
"""
    start = datetime.datetime(2030, 1, 1)
    got = alone(code, start=start, hour=datetime.timedelta(hours=1))["got"]
    assert got >= start + datetime.timedelta(hours=2)


def test_exploring():
    async def main():
        await sleep(1)

    seen = alone("explore(main, runs=3)", main=main, explore=explore)
    assert seen is not None


def test_what_names_the_current_task():
    code = """
async def main():
    return current_task()
got = run(main(), speed=inf)
"""
    assert isinstance(alone(code)["got"], Task)
