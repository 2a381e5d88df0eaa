"""Spawn and join: one task after another, each created and awaited before the next.

The child does nothing at all.  trio has no single task to join, so there it is a nursery each.
"""

from __future__ import annotations

from typing import Any

from benchmarks.peers import Peer
from benchmarks.workload import Workload, finished, stopwatch


async def nothing() -> None:
    pass


async def await_task(create_task: Any, times: int, done: list[None]) -> None:
    for _ in range(times):
        done.append(await create_task(nothing()))


async def await_nursery(open_nursery: Any, times: int, done: list[None]) -> None:
    for _ in range(times):
        async with open_nursery() as nursery:
            nursery.start_soon(nothing)
        done.append(None)


async def await_join(spawn: Any, times: int, done: list[None]) -> None:
    for _ in range(times):
        task = await spawn(nothing)
        done.append(await task.join())


def call_join(spawn: Any, times: int, done: list[None]) -> None:
    for _ in range(times):
        done.append(spawn(lambda: None).join())


def yield_process(process: Any, times: int, done: list[None]) -> Any:
    def nothing() -> Any:
        return
        yield

    for _ in range(times):
        done.append((yield process(nothing())))


WORKERS = {
    "sleeploop": await_task,
    "asyncio": await_task,
    "uvloop": await_task,
    "trio": await_nursery,
    "curio": await_join,
    "gevent": call_join,
    "simpy": yield_process,
}


def measure(peer: Peer, times: int) -> dict[str, float]:
    done: list[None] = []
    elapsed = stopwatch(peer.run, WORKERS[peer.name], [(peer.spawn, times, done)])
    finished(done, times)
    return {"ns per task": elapsed / times}


WORKLOADS = [
    Workload(
        name="spawn",
        title="{times:,} times: create a task and await it",
        module="benchmarks.bench_spawn",
        figures={"ns per task": ()},
        size={"times": 100_000},
        quick={"times": 20_000},
        needs="tasks",
    )
]

if __name__ == "__main__":
    from benchmarks.harness import main

    main(WORKLOADS)
