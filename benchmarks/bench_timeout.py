"""Timeouts that do not fire: a block with a limit of 10 s around one switch, in one task.

The limit is the loop's usual one: `timeout(10)`, on trio `fail_after(10)`, on curio
`timeout_after(10)`, on gevent `Timeout(10)`.
"""

from __future__ import annotations

from typing import Any

from benchmarks.peers import Peer
from benchmarks.workload import AtLeast, Workload, finished, stopwatch


async def await_async_blocks(timeout: Any, step_aside: Any, times: int, done: list[None]) -> None:
    for _ in range(times):
        async with timeout(10):
            await step_aside(0)
        done.append(None)


async def await_checkpoints(timeout: Any, checkpoint: Any, times: int, done: list[None]) -> None:
    for _ in range(times):
        async with timeout(10):
            await checkpoint()
        done.append(None)


async def await_blocks(timeout: Any, checkpoint: Any, times: int, done: list[None]) -> None:
    for _ in range(times):
        with timeout(10):
            await checkpoint()
        done.append(None)


def call_blocks(timeout: Any, sleep: Any, times: int, done: list[None]) -> None:
    for _ in range(times):
        with timeout(10):
            sleep(0)
        done.append(None)


WORKERS = {
    "sleeploop": await_checkpoints,
    "asyncio": await_async_blocks,
    "uvloop": await_async_blocks,
    "trio": await_blocks,
    "curio": await_async_blocks,
    "gevent": call_blocks,
}


def measure(peer: Peer, times: int) -> dict[str, float]:
    done: list[None] = []
    row = (peer.timeout, peer.checkpoint or peer.sleep, times, done)
    elapsed = stopwatch(peer.run, WORKERS[peer.name], [row])
    finished(done, times)
    return {"ns per block": elapsed / times}


WORKLOADS = [
    Workload(
        name="timeout",
        title="{times:,} times: a timeout of 10 s around one switch",
        module="benchmarks.bench_timeout",
        figures={"ns per block": (AtLeast(5, "asyncio"), AtLeast(4, "uvloop"))},
        size={"times": 200_000},
        quick={"times": 20_000},
        needs="timeouts",
    )
]

if __name__ == "__main__":
    from benchmarks.harness import main

    main(WORKLOADS)
