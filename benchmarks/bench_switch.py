"""Switching: tasks that do nothing but step aside.

Each task takes the cheapest public way there is: `checkpoint()` where the loop has one, else
`sleep(0)`.  Time covers making the coroutines, running them and closing the loop.
"""

from __future__ import annotations

from typing import Any

from benchmarks.peers import Peer
from benchmarks.workload import AtLeast, Workload, finished, stopwatch


async def await_checkpoint(checkpoint: Any, switches: int, done: list[None]) -> None:
    for _ in range(switches):
        await checkpoint()
    done.append(None)


async def await_sleep(sleep: Any, switches: int, done: list[None]) -> None:
    for _ in range(switches):
        await sleep(0)
    done.append(None)


def call_sleep(sleep: Any, switches: int, done: list[None]) -> None:
    for _ in range(switches):
        sleep(0)
    done.append(None)


def yield_sleep(sleep: Any, switches: int, done: list[None]) -> Any:
    for _ in range(switches):
        yield sleep(0)
    done.append(None)


WORKERS = {"await": await_sleep, "call": call_sleep, "yield": yield_sleep}


def measure(peer: Peer, tasks: int, switches: int) -> dict[str, float]:
    worker = await_checkpoint if peer.checkpoint else WORKERS[peer.style]
    done: list[None] = []
    rows = [(peer.checkpoint or peer.sleep, switches, done)] * tasks
    elapsed = stopwatch(peer.run, worker, rows)
    finished(done, tasks)
    return {"ns per switch": elapsed / (tasks * switches)}


WORKLOADS = [
    Workload(
        name="switch",
        title="{tasks:,} tasks step aside {switches} times each",
        module="benchmarks.bench_switch",
        figures={"ns per switch": (AtLeast(4, "asyncio"), AtLeast(2, "uvloop"))},
        size={"tasks": 1_000, "switches": 200},
        quick={"tasks": 1_000, "switches": 50},
    )
]

if __name__ == "__main__":
    from benchmarks.harness import main

    main(WORKLOADS)
