"""Ticks: one task, something every second of virtual time.

sleeploop does it by `async for tick in every(1)`. The others have no ticks that do not drift, and
in virtual time need none: they sleep for a second, again and again. So does sleeploop, too, for the
figure `ns per sleep`. The last tick has to be due at its very second.
"""

from __future__ import annotations

from typing import Any

from benchmarks.peers import Peer
from benchmarks.workload import AtLeast, AtMost, Workload, finished, stopwatch


async def await_ticks(every: Any, ticks: int, done: list[int]) -> None:
    async for tick in every(1):
        if tick.index == ticks - 1:
            done.append(tick.due_ns)
            return


async def await_sleeps(sleep: Any, ticks: int, done: list[int]) -> None:
    for _ in range(ticks):
        await sleep(1)
    done.append(ticks)


def yield_sleeps(sleep: Any, ticks: int, done: list[int]) -> Any:
    for _ in range(ticks):
        yield sleep(1)
    done.append(ticks)


SLEEPERS = {"await": await_sleeps, "yield": yield_sleeps}


def measure(peer: Peer, ticks: int) -> dict[str, float]:
    done: list[int] = []
    sleeping = stopwatch(peer.run, SLEEPERS[peer.style], [(peer.sleep, ticks, done)])
    finished(done, 1)
    if peer.every is None:
        return {"ns per tick": sleeping / ticks}
    ticking = stopwatch(type(peer)(virtual=True).run, await_ticks, [(peer.every, ticks, done)])
    if done[1:] != [(ticks - 1) * 10**9]:
        raise RuntimeError(f"the last tick was due at {done[1:]} ns")
    return {"ns per sleep": sleeping / ticks, "ns per tick": ticking / ticks}


MODULE = "benchmarks.bench_every"
WORKLOADS = [
    Workload(
        name="every",
        title="{ticks:,} ticks, one each second of virtual time",
        module=MODULE,
        figures={
            "ns per sleep": (),
            "ns per tick": (AtMost(333), AtLeast(4, "simpy"), AtLeast(20, "asyncio")),
        },
        size={"ticks": 500_000},
        quick={"ticks": 50_000},
        needs="virtual time",
    ),
    Workload(
        name="every-year",
        title="{ticks:,} ticks, one each second of a virtual year",
        module=MODULE,
        figures={"ns per sleep": (), "ns per tick": (AtMost(333),)},
        size={"ticks": 31_536_000},
        quick=None,
        needs="virtual time",
        rounds=1,
        timeout=600,
        million=True,
    ),
]

if __name__ == "__main__":
    from benchmarks.harness import main

    main(WORKLOADS)
