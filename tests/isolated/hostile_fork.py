"""Forks while other threads run loops."""

import faulthandler
import math
import os
import signal
import sys
import threading
import time
import warnings

import sleeploop

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


faulthandler.dump_traceback_later(30, exit=True)
{"threads": threads, "interrupt": interrupt}[sys.argv[1]]()
