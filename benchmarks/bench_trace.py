"""Tracing: what an event costs, as the difference between a traced run and the same one untraced.

Virtual sleeps, of which each is two events, and steps aside, of which each is one. Both runs take
turns, and the fastest of each counts. Time covers the run alone.
"""

from __future__ import annotations

from typing import Any

from benchmarks.peers import Peer
from benchmarks.workload import AtMost, Workload, stopwatch

TURNS = 7


async def sleep_often(sleep: Any, times: int) -> None:
    for _ in range(times):
        await sleep(1)


async def step_aside(checkpoint: Any, times: int) -> None:
    for _ in range(times):
        await checkpoint()


def run(peer: Any, worker: Any, rows: list[tuple[Any, ...]], trace: int | None) -> tuple[int, int]:
    """The nanoseconds that it takes, and the number of its events."""
    loop = peer.loop(*(worker(*row) for row in rows), speed=peer.speed, trace=trace)
    elapsed = stopwatch(loop.run_until_complete)
    return elapsed, len(loop.trace.events) if trace else 0


def per_event(peer: Any, worker: Any, rows: list[tuple[Any, ...]]) -> float:
    turns = [
        (run(peer, worker, rows, None)[0], *run(peer, worker, rows, 1_000_000))
        for _ in range(TURNS)
    ]
    untraced = min(turn[0] for turn in turns)
    traced = min(turn[1] for turn in turns)
    return (traced - untraced) / turns[0][2]


def measure(peer: Peer, tasks: int, times: int) -> dict[str, float]:
    return {
        "ns per event of a sleep": per_event(peer, sleep_often, [(peer.sleep, times)] * tasks),
        "ns per step aside": per_event(peer, step_aside, [(peer.checkpoint, times)] * tasks),
    }


WORKLOADS = [
    Workload(
        name="trace",
        title="{tasks:,} tasks, {times} virtual sleeps or steps aside each, traced",
        module="benchmarks.bench_trace",
        figures={
            "ns per event of a sleep": (AtMost(60),),
            "ns per step aside": (AtMost(60),),
        },
        size={"tasks": 1_000, "times": 100},
        quick={"tasks": 1_000, "times": 20},
        needs="virtual time",
        alone=True,
    )
]

if __name__ == "__main__":
    from benchmarks.harness import main

    main(WORKLOADS)
