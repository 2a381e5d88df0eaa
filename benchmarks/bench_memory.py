"""Memory: what a loop adds to a coroutine that sleeps.

In one process and in this order, with nothing freed in between, the resident set is read

1. before anything,
2. when N coroutines have been made, started and left suspended in a list, awaiting one shared
   object that allocates nothing: what the coroutines cost without any loop,
3. when N more of the same coroutines sleep for an hour in the loop under test.  One sleeper more
   than the N, given to the loop last, sleeps for a moment and reads it: by then all others sleep.

The figure is (third - second) - (second - first), by N: task, timer, awaitable and the loop's own
tables, the slack that they grew by included.  A greenlet has no coroutine in it, so nothing is
subtracted for gevent: its figure is the whole greenlet and its stack.  SimPy's coroutine is a
generator.  On systems without /proc the peak resident set stands in for the current one.
"""

from __future__ import annotations

import itertools
import os
import resource
import sys
from collections.abc import Callable
from typing import Any

from benchmarks.child import answer
from benchmarks.peers import Peer
from benchmarks.workload import AtMost, Workload

HOUR = 3600.0


async def await_sleep(sleep: Any, delay: float, woken: Callable[[], None]) -> None:
    await sleep(delay)
    woken()


def call_sleep(sleep: Any, delay: float, woken: Callable[[], None]) -> None:
    sleep(delay)
    woken()


def yield_sleep(sleep: Any, delay: float, woken: Callable[[], None]) -> Any:
    yield sleep(delay)
    woken()


WORKERS = {"await": await_sleep, "call": call_sleep, "yield": yield_sleep}


class Parked:
    """A sleep that allocates nothing: one object is the awaitable and the iterator of everyone."""

    def __await__(self) -> Parked:
        return self

    def __iter__(self) -> Parked:
        return self

    def __next__(self) -> None:
        return None

    def __call__(self, delay: float) -> Parked:
        return self


def resident() -> int:
    try:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGESIZE")
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def measure(peer: Peer, sleepers: int) -> dict[str, float]:
    def woken() -> None:
        in_loop = resident() - suspended
        answer({"bytes per sleeper": (in_loop - (suspended - before)) / sleepers})

    worker = WORKERS[peer.style]
    parked = Parked()
    bare: list[Any] = []
    before = resident()
    if peer.style != "call":
        for _ in range(sleepers):
            bare.append(worker(parked, HOUR, woken))
            bare[-1].send(None)
    suspended = resident()
    others = itertools.repeat((peer.sleep, HOUR, woken), sleepers)
    peer.run(worker, itertools.chain(others, [(peer.sleep, 0.1, woken)]))
    raise RuntimeError("the loop ended without waking the one that looks")


WORKLOADS = [
    Workload(
        name="memory",
        title="{sleepers:,} sleeping coroutines, beyond the coroutines themselves",
        module="benchmarks.bench_memory",
        figures={"bytes per sleeper": (AtMost(300),)},
        size={"sleepers": 100_000},
        quick={"sleepers": 20_000},
        rounds=3,
    )
]

if __name__ == "__main__":
    from benchmarks.harness import main

    main(WORKLOADS)
