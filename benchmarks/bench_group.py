"""Task groups: open one, start a task in it that does nothing, wait for its end; one by one.

trio's group is a nursery, gevent's a `pool.Group`.
"""

from __future__ import annotations

from typing import Any

from benchmarks.peers import Peer
from benchmarks.workload import AtLeast, Workload, finished, stopwatch


async def nothing() -> None:
    pass


async def await_group(open_group: Any, times: int, done: list[None]) -> None:
    for _ in range(times):
        async with open_group() as group:
            group.create_task(nothing())
        done.append(None)


async def await_nursery(open_nursery: Any, times: int, done: list[None]) -> None:
    for _ in range(times):
        async with open_nursery() as nursery:
            nursery.start_soon(nothing)
        done.append(None)


async def await_spawn(open_group: Any, times: int, done: list[None]) -> None:
    for _ in range(times):
        async with open_group() as group:
            await group.spawn(nothing)
        done.append(None)


def call_group(open_group: Any, times: int, done: list[None]) -> None:
    for _ in range(times):
        group = open_group()
        group.spawn(lambda: None)
        group.join()
        done.append(None)


WORKERS = {
    "sleeploop": await_group,
    "asyncio": await_group,
    "uvloop": await_group,
    "trio": await_nursery,
    "curio": await_spawn,
    "gevent": call_group,
}


def measure(peer: Peer, times: int) -> dict[str, float]:
    done: list[None] = []
    elapsed = stopwatch(peer.run, WORKERS[peer.name], [(peer.group, times, done)])
    finished(done, times)
    return {"ns per group": elapsed / times}


WORKLOADS = [
    Workload(
        name="group",
        title="{times:,} times: a task group with one task",
        module="benchmarks.bench_group",
        figures={"ns per group": (AtLeast(5, "asyncio"), AtLeast(8, "trio"))},
        size={"times": 100_000},
        quick={"times": 10_000},
        needs="groups",
    )
]

if __name__ == "__main__":
    from benchmarks.harness import main

    main(WORKLOADS)
