"""Cancelling a crowd: sleepers in one group, each with a `finally` that counts it.

Time covers the cancellation and everything until the group has ended. They are cancelled one by one
with `task.cancel()`, except where there is no such thing: on trio by the nursery's scope, on curio
and gevent by the group.
"""

from __future__ import annotations

from time import perf_counter_ns
from typing import Any

from benchmarks.peers import Peer
from benchmarks.workload import AtLeast, Workload, finished


async def sleeper(sleep: Any, done: list[None]) -> None:
    try:
        await sleep(3600)
    finally:
        done.append(None)


async def await_tasks(peer: Peer, tasks: int, took: list[int], done: list[None]) -> None:
    async with peer.group() as group:
        crowd = [group.create_task(sleeper(peer.sleep, done)) for _ in range(tasks)]
        await peer.sleep(0.01)
        began = perf_counter_ns()
        for task in crowd:
            task.cancel()
    took.append(perf_counter_ns() - began)


async def await_nursery(peer: Peer, tasks: int, took: list[int], done: list[None]) -> None:
    async with peer.group() as nursery:
        for _ in range(tasks):
            nursery.start_soon(sleeper, peer.sleep, done)
        await peer.sleep(0.01)
        began = perf_counter_ns()
        nursery.cancel_scope.cancel()
    took.append(perf_counter_ns() - began)


def call_group(peer: Peer, tasks: int, took: list[int], done: list[None]) -> None:
    started = 0

    def sleeper() -> None:
        nonlocal started
        started += 1
        try:
            peer.sleep(3600)
        finally:
            done.append(None)

    group = peer.group()
    for _ in range(tasks):
        group.spawn(sleeper)
    while started < tasks:  # many greenlets take several turns to start
        peer.sleep(0.01)
    began = perf_counter_ns()
    group.kill()
    took.append(perf_counter_ns() - began)


WORKERS = {
    "sleeploop": await_tasks,
    "asyncio": await_tasks,
    "uvloop": await_tasks,
    "trio": await_nursery,
    "gevent": call_group,
}


def measure(peer: Peer, tasks: int) -> dict[str, float]:
    took: list[int] = []
    done: list[None] = []
    peer.run(WORKERS[peer.name], [(peer, tasks, took, done)])
    finished(done, tasks)
    return {"ns per task": took[0] / tasks}


WORKLOADS = [
    Workload(
        name="cancel",
        title="cancel {tasks:,} sleeping tasks and wait for their cleanup",
        module="benchmarks.bench_cancel",
        figures={"ns per task": (AtLeast(5, "asyncio"),)},
        size={"tasks": 100_000},
        quick={"tasks": 10_000},
        needs="cancellation",
    )
]

if __name__ == "__main__":
    from benchmarks.harness import main

    main(WORKLOADS)
