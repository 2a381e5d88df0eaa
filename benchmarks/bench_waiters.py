"""Cancelling those who wait for one lock, which somebody keeps, one by one, the last one first.

That is where a line that is searched from its beginning takes longest.  In random order it would be
the processor's caches that are measured: 100,000 tasks do not fit into them.
The cost for each should not depend on how many they are.  Fewer ones are cancelled crowd after
crowd, until they are as many.  Time covers the cancellations and everything until the last of a
crowd has ended.
"""

from __future__ import annotations

from time import perf_counter_ns
from typing import Any

from benchmarks.peers import Peer
from benchmarks.workload import AtMost, Workload, finished


async def waiter(lock: Any, done: list[None]) -> None:
    try:
        async with lock:
            raise RuntimeError("has got the lock")
    finally:
        done.append(None)


async def await_tasks(
    peer: Peer, waiters: int, crowds: int, took: list[int], done: list[None]
) -> None:
    lock = peer.lock()
    await lock.acquire()
    for _ in range(crowds):
        async with peer.group() as group:
            crowd = [group.create_task(waiter(lock, done)) for _ in range(waiters)]
            await peer.sleep(0.01)
            began = perf_counter_ns()
            for task in reversed(crowd):
                task.cancel()
        took.append(perf_counter_ns() - began)


async def await_scopes(
    peer: Any, waiters: int, crowds: int, took: list[int], done: list[None]
) -> None:
    async def scoped(scope: Any) -> None:
        with scope:
            await waiter(lock, done)

    lock = peer.lock()
    await lock.acquire()
    for _ in range(crowds):
        async with peer.group() as nursery:
            scopes = [peer.scope() for _ in range(waiters)]
            for scope in scopes:
                nursery.start_soon(scoped, scope)
            await peer.sleep(0.01)
            began = perf_counter_ns()
            for scope in reversed(scopes):
                scope.cancel()
        took.append(perf_counter_ns() - began)


def call_greenlets(peer: Any, waiters: int, crowds: int, took: list[int], done: list[None]) -> None:
    started = 0

    def waiter() -> None:
        nonlocal started
        started += 1
        try:
            lock.acquire()
        finally:
            done.append(None)

    lock = peer.lock()
    lock.acquire()
    for _ in range(crowds):
        started = 0
        crowd = [peer.spawn(waiter) for _ in range(waiters)]
        while started < waiters:  # many greenlets take several turns to start
            peer.sleep(0.01)
        began = perf_counter_ns()
        for greenlet in reversed(crowd):
            greenlet.kill(block=False)
        peer.joinall(crowd)
        took.append(perf_counter_ns() - began)


WORKERS = {
    "sleeploop": await_tasks,
    "asyncio": await_tasks,
    "uvloop": await_tasks,
    "trio": await_scopes,
    "gevent": call_greenlets,
}


def measure(peer: Peer, waiters: int, crowds: int) -> dict[str, float]:
    took: list[int] = []
    done: list[None] = []
    peer.run(WORKERS[peer.name], [(peer, waiters, crowds, took, done)])
    finished(done, waiters * crowds)
    return {"ns per waiter": sum(took) / (waiters * crowds)}


MODULE = "benchmarks.bench_waiters"
WORKLOADS = [
    Workload(
        name="waiters",
        title="cancel {waiters:,} tasks that wait for one lock",
        module=MODULE,
        figures={"ns per waiter": (AtMost(1.5, of="waiters-1k"),)},
        size={"waiters": 100_000, "crowds": 1},
        quick={"waiters": 10_000, "crowds": 1},
        needs="cancelling waiters",
        rounds=3,
    ),
    Workload(
        name="waiters-1k",
        title="cancel {waiters:,} tasks that wait for one lock, {crowds} times",
        module=MODULE,
        figures={"ns per waiter": ()},
        size={"waiters": 1_000, "crowds": 100},
        quick={"waiters": 1_000, "crowds": 10},
        needs="cancelling waiters",
        rounds=3,
    ),
]

if __name__ == "__main__":
    from benchmarks.harness import main

    main(WORKLOADS)
