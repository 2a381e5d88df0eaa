"""Virtual time: random sleeps, the clock jumping from one wake-up to the next.

The delays are drawn beforehand with a fixed seed, so that every peer has the same ones; they are
kept in arrays, so that fetching scattered floats from memory does not hide what the loops cost.
Time covers making the coroutines, running them and closing the loop; short runs are repeated in
the process, and their median counts.
"""

from __future__ import annotations

import random
from array import array
from statistics import median
from typing import Any

from benchmarks.peers import Peer
from benchmarks.workload import AtLeast, AtMost, Workload, finished, stopwatch


async def await_sleeps(sleep: Any, delays: array[float], done: list[None]) -> None:
    for delay in delays:
        await sleep(delay)
    done.append(None)


def yield_sleeps(sleep: Any, delays: array[float], done: list[None]) -> Any:
    for delay in delays:
        yield sleep(delay)
    done.append(None)


LEAST_WAKE_UPS = 400_000  # in one process

WORKERS = {"await": await_sleeps, "yield": yield_sleeps}


def measure(peer: Peer, tasks: int, sleeps: int) -> dict[str, float]:
    draw = random.Random(1).random
    done: list[None] = []
    delays = [array("d", (draw() * 100 for _ in range(sleeps))) for _ in range(tasks)]
    # A run of some milliseconds says more of the machine's mood than of the loop: repeat it.
    peers = [peer, *(type(peer)(virtual=True) for _ in range(LEAST_WAKE_UPS // (tasks * sleeps)))]
    elapsed = median(
        stopwatch(each.run, WORKERS[peer.style], [(each.sleep, row, done) for row in delays])
        for each in peers
    )
    finished(done, tasks * len(peers))
    return {"ns per wake-up": elapsed / (tasks * sleeps)}


MODULE = "benchmarks.bench_virtual"
WORKLOADS = [
    Workload(
        name="virtual",
        title="{tasks:,} sleepers, {sleeps} virtual sleeps each",
        module=MODULE,
        figures={"ns per wake-up": (AtLeast(5, "simpy"), AtLeast(5, "plain"), AtLeast(80, "trio"))},
        size={"tasks": 1_000, "sleeps": 100},
        quick={"tasks": 1_000, "sleeps": 20},
        needs="virtual time",
    ),
    Workload(
        name="virtual-100k",
        title="{tasks:,} sleepers, {sleeps} virtual sleeps each",
        module=MODULE,
        figures={"ns per wake-up": (AtLeast(8, "simpy"), AtLeast(6, "plain"))},
        size={"tasks": 100_000, "sleeps": 5},
        quick={"tasks": 20_000, "sleeps": 5},
        needs="virtual time",
    ),
    Workload(
        name="virtual-1m",
        title="{tasks:,} sleepers, {sleeps} virtual sleeps each",
        module=MODULE,
        figures={"ns per wake-up": (AtMost(2, of="virtual-100k"),)},
        size={"tasks": 1_000_000, "sleeps": 3},
        quick=None,
        needs="virtual time",
        rounds=3,
        timeout=300,
        million=True,
    ),
]

if __name__ == "__main__":
    from benchmarks.harness import main

    main(WORKLOADS)
