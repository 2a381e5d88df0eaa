"""Forks while other threads run loops, and in the middle of a task."""

import faulthandler
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from typing import NoReturn

import sleeploop
from sleeploop.testing import explore

warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads


async def nap(delay: float, result: object = None) -> object:
    await sleeploop.sleep(delay)
    return result


def wait_for_child(pid: int) -> None:
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0:
        raise SystemExit("the child failed")


def finish_child(text: str) -> None:
    print(f"child: {text}", flush=True)
    os._exit(0)


def threads() -> None:
    """In the child, thirty threads at once run loops, among the remains of eight others."""
    started = threading.Barrier(9)
    go = threading.Event()
    results = []

    async def main(i: int) -> None:
        started.wait()
        while not go.is_set():
            await sleeploop.sleep(0.01)
        results.append(i)

    parents = [threading.Thread(target=sleeploop.run, args=(main(i),)) for i in range(8)]
    for thread in parents:
        thread.start()
    started.wait()
    pid = os.fork()
    if pid == 0:
        begin = threading.Event()

        def body(i: int) -> None:
            begin.wait()
            results.append(sleeploop.run(nap(3600, i), speed=math.inf))

        children = [threading.Thread(target=body, args=(i,)) for i in range(30)]
        for thread in children:
            thread.start()
        begin.set()
        for thread in children:
            thread.join()
        finish_child(str(len(set(results))))
    wait_for_child(pid)
    go.set()
    for thread in parents:
        thread.join()
    print("parent:", sorted(results))


def interrupt() -> None:
    """In the child the forking thread is the main one; the parent's loop is no more there."""
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def fork() -> None:
        time.sleep(0.1)
        pid = os.fork()
        if pid == 0:
            try:
                os.kill(os.getpid(), signal.SIGINT)
                for _ in range(100):
                    time.sleep(0.001)
            except KeyboardInterrupt:
                finish_child("interrupted")
            finish_child("the signal was lost")
        wait_for_child(pid)

    thread = threading.Thread(target=fork)
    thread.start()
    sleeploop.run(nap(0.3))
    thread.join()
    print("parent: went on")


def in_child(work: Callable[[], str]) -> NoReturn:
    """The child ends here, whatever happens: its finalization would wait for threads that it does
    not have.
    """
    try:
        print("child:", work(), flush=True)
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def refusal(call: Callable[[], object]) -> str:
    try:
        call()
    except RuntimeError as error:
        return str(error)
    raise AssertionError(call)


async def everything() -> str:
    """What needs descriptors, threads, signals and generators."""
    alarms = []
    signal.signal(signal.SIGALRM, lambda *_: alarms.append(sleeploop.current_loop().time()))
    signal.setitimer(signal.ITIMER_REAL, 0.01)

    async def endless():
        try:
            while True:
                yield 1
        finally:
            await sleeploop.sleep(0.001)
            alarms.append("closed")

    await anext(endless())
    async with sleeploop.TaskGroup() as group:
        group.create_task(nap(0.05))
        got = await sleeploop.to_thread(lambda: threading.get_ident() != ident)
    assert len(alarms) == 2
    coro = nap(1)
    assert "while a loop is running" in refusal(lambda: sleeploop.run(coro))
    coro.close()
    return f"everything {got}"


ident = threading.get_ident()


def in_a_step(loop: sleeploop.SleepingLoop, parents: sleeploop.Task) -> str:
    """In the middle of a step of the parent's."""
    assert sleeploop.current_loop() is loop
    assert sleeploop.current_task() is parents
    told = [sleeploop.run(everything()), sleeploop.run(nap(3600, "jump"), speed=math.inf)]
    own = sleeploop.SleepingLoop(nap(2), speed=math.inf)
    own.run_until(1)
    own.close()
    explore(everything_virtual, runs=3)
    for refused in loop.run_until_complete, loop.step, loop.close:
        assert "while a loop is running" in refusal(refused)
    foreign = refusal(lambda: sleeploop.run(waits_for(parents), speed=math.inf))
    assert "another loop" in foreign
    assert sleeploop.current_loop() is loop
    assert sleeploop.current_task() is parents
    assert signal.getsignal(signal.SIGINT).__self__ is loop
    return " ".join(told)


async def everything_virtual() -> None:
    await sleeploop.gather(nap(1), nap(2))


async def waits_for(task: sleeploop.Task) -> None:
    await task


def task() -> None:
    """In the child both work: a run of its own, and then the parent's loop."""
    signal.signal(signal.SIGINT, signal.default_int_handler)

    async def main() -> None:
        beside = sleeploop.create_task(nap(0.2, "beside"))
        await sleeploop.sleep(0.05)
        pid = os.fork()
        if pid == 0:
            try:
                told = in_a_step(sleeploop.current_loop(), sleeploop.current_task())
                finish_child(f"{told} {await beside}")
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        assert await beside == "beside"
        await sleeploop.to_thread(wait_for_child, pid)

    sleeploop.run(main())
    print("parent: went on")


def target() -> None:
    print("child:", sleeploop.run(everything()), flush=True)
    sys.exit(3)


def process() -> None:
    """As multiprocessing forks."""

    async def main() -> None:
        beside = sleeploop.create_task(nap(0.3, "beside"))
        await sleeploop.sleep(0)
        child = multiprocessing.get_context("fork").Process(target=target)
        child.start()
        await sleeploop.to_thread(child.join)
        print("parent:", child.exitcode, await beside)

    try:
        sleeploop.run(main())
    finally:
        print("end", flush=True)


def left_behind() -> None:
    """Forked by a thread of the loop's own: its loop is not there any more, and says so."""

    async def main() -> None:
        loop, bell = sleeploop.current_loop(), sleeploop.Event()
        waiting = sleeploop.create_task(waits_for_event(bell))
        await sleeploop.sleep(0)
        await sleeploop.to_thread(fork, loop, bell, waiting)
        bell.set()
        await waiting

    async def waits_for_event(bell: sleeploop.Event) -> None:
        await bell.wait()

    def fork(loop: sleeploop.SleepingLoop, bell: sleeploop.Event, task: sleeploop.Task) -> None:
        pid = os.fork()
        if pid == 0:
            in_child(lambda: look(loop, bell, task))
        wait_for_child(pid)

    def look(loop: sleeploop.SleepingLoop, bell: sleeploop.Event, task: sleeploop.Task) -> str:
        coro = nap(1)
        for call in (
            loop.step,
            loop.close,
            task.cancel,
            lambda: loop.create_task(coro),
            lambda: loop.call_soon_threadsafe(print),
        ):
            assert "the process that this one was forked from" in refusal(call)
        coro.close()
        repr(loop), loop.tasks(), loop.stats(), repr(bell)
        return sleeploop.run(everything())

    sleeploop.run(main())
    print("parent: went on")


def ctrl_c() -> None:
    """In the child, Ctrl-C comes to what runs there."""
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def plainly() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(10)

    async def cleans_up(log: list) -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            await sleeploop.sleep(10)
        finally:
            with sleeploop.CancelScope(shield=True):
                await sleeploop.sleep(0.01)
                log.append("cleaned up")

    async def main() -> None:
        pid = os.fork()
        if pid == 0:
            in_child(child)
        await sleeploop.to_thread(wait_for_child, pid)

    def child() -> str:
        log: list = []
        for call in plainly, lambda: sleeploop.run(cleans_up(log)), plainly:
            try:
                call()
            except KeyboardInterrupt:
                log.append("interrupted")
        return " ".join(log)

    sleeploop.run(main())
    print("parent: went on")


faulthandler.dump_traceback_later(30, exit=True)
globals()[sys.argv[1]]()
