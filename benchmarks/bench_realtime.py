"""Real time: 20,000 sleepers at once, how late they wake and how much CPU that takes.

Each sleeper itself measures its lateness: the monotonic clock after the sleep, less the clock
before it, less the time asked for.  The percentiles are over all sleeps of a run; a least
lateness below zero is a loop that wakes early.  CPU is user and
system time of the process by getrusage: "CPU s" over the run alone, start-up and imports left out,
"CPU s of process" from the interpreter's start.  The delays are uniform and the same for all.
"""

from __future__ import annotations

import random
import resource
from time import monotonic_ns
from typing import Any

from benchmarks.peers import Peer
from benchmarks.workload import AtLeast, Workload, finished


async def await_sleeps(sleep: Any, delays: list[tuple[float, int]], late: list[int]) -> None:
    for delay, delay_ns in delays:
        before = monotonic_ns()
        await sleep(delay)
        late.append(monotonic_ns() - before - delay_ns)


def call_sleeps(sleep: Any, delays: list[tuple[float, int]], late: list[int]) -> None:
    for delay, delay_ns in delays:
        before = monotonic_ns()
        sleep(delay)
        late.append(monotonic_ns() - before - delay_ns)


WORKERS = {"await": await_sleeps, "call": call_sleeps}


def cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def measure(peer: Peer, sleepers: int, sleeps: int, longest: float) -> dict[str, float]:
    rng = random.Random(1)
    draws = [rng.randrange(int(longest * 1e9)) for _ in range(sleepers * sleeps)]
    pairs = [(ns / 1e9, ns) for ns in draws]
    late: list[int] = []
    rows = [(peer.sleep, pairs[i : i + sleeps], late) for i in range(0, len(pairs), sleeps)]
    start_up = cpu()
    peer.run(WORKERS[peer.style], rows)
    end = cpu()
    finished(late, sleepers * sleeps)
    late.sort()
    return {
        "CPU s": end - start_up,
        "CPU s of process": end,
        "least late, us": late[0] / 1e3,
        "p50 late, us": late[len(late) // 2] / 1e3,
        "p99 late, us": late[len(late) * 99 // 100] / 1e3,
        "worst late, us": late[-1] / 1e3,
    }


WORKLOADS = [
    Workload(
        name="realtime",
        title="{sleepers:,} sleepers, {sleeps} sleeps each of up to {longest:g} s",
        module="benchmarks.bench_realtime",
        figures={
            "CPU s": (AtLeast(4, "asyncio"),),
            "CPU s of process": (),
            "least late, us": (),
            "p50 late, us": (AtLeast(2, "asyncio"),),
            "p99 late, us": (AtLeast(1, "plain"),),
            "worst late, us": (),
        },
        size={"sleepers": 20_000, "sleeps": 5, "longest": 1.0},
        quick={"sleepers": 5_000, "sleeps": 3, "longest": 0.3},
        needs="real time",
        rounds=3,
    )
]

if __name__ == "__main__":
    from benchmarks.harness import main

    main(WORKLOADS)
