"""A lock that nobody else wants: one task enters and leaves `async with lock` again and again.

Time covers making the loop's one task, the blocks and closing the loop.  On gevent it is a
`BoundedSemaphore`, its lock for greenlets.
"""

from __future__ import annotations

from typing import Any

from benchmarks.peers import Peer
from benchmarks.workload import AtLeast, Workload, finished, stopwatch


async def await_lock(lock: Any, blocks: int, done: list[None]) -> None:
    for _ in range(blocks):
        async with lock:
            pass
    done.append(None)


def call_lock(lock: Any, blocks: int, done: list[None]) -> None:
    for _ in range(blocks):
        with lock:
            pass
    done.append(None)


WORKERS = {"await": await_lock, "call": call_lock}


def measure(peer: Peer, blocks: int) -> dict[str, float]:
    done: list[None] = []
    elapsed = stopwatch(peer.run, WORKERS[peer.style], [(peer.lock(), blocks, done)])
    finished(done, 1)
    return {"ns per block": elapsed / blocks}


WORKLOADS = [
    Workload(
        name="lock",
        title="one task, {blocks:,} blocks with a lock that is free",
        module="benchmarks.bench_lock",
        figures={"ns per block": (AtLeast(4, "asyncio"), AtLeast(20, "trio"))},
        size={"blocks": 500_000},
        quick={"blocks": 50_000},
        needs="locks",
    )
]

if __name__ == "__main__":
    from benchmarks.harness import main

    main(WORKLOADS)
