"""M/M/1: customers who arrive at random, at one server whose work takes a random time.

A task or process for each customer, who waits for a Resource with one place, is served and leaves;
another one makes them.  The times between arrivals (rate 0.9) and of service (rate 1.0) are drawn
beforehand with a fixed seed, the same for everyone.  Time covers making the source, running it
until the last customer has left and closing the loop, in virtual time.

The mean time in the system has to be what Lindley's recursion gives for these very numbers; and at
the full size near 10, which it is in theory: 1 / (1.0 - 0.9).
"""

from __future__ import annotations

import math
import random
from array import array
from typing import Any

from benchmarks.peers import Peer
from benchmarks.workload import AtLeast, Workload, finished, has, stopwatch

ARRIVALS, SERVICE = 0.9, 1.0  # rates
IN_THEORY = 1 / (SERVICE - ARRIVALS)
ENOUGH = 1_000_000  # customers for a mean within 1 of that: its standard deviation is about 0.3

Draws = list["array[float]"]  # array can be subscripted from 3.12 on


def draw(customers: int) -> Draws:
    """Times between arrivals, and of service."""
    source = random.Random(1)
    gaps, services = array("d"), array("d")
    for _ in range(customers):
        gaps.append(source.expovariate(ARRIVALS))
        services.append(source.expovariate(SERVICE))
    return [gaps, services]


def mean_by_recursion(draws: Draws) -> float:
    """Whoever comes waits as long as the one before had to wait and be served, but for the time
    between their arrivals."""
    wait = total = before = 0.0
    for gap, service in zip(*draws, strict=True):
        wait = max(0.0, wait + before - gap)
        before = service
        total += wait + service
    return total / len(draws[0])


async def await_customer(
    resource: Any, sleep: Any, time: Any, service: float, spent: array[float]
) -> None:
    arrived = time()
    async with resource.request():
        await sleep(service)
    spent.append(time() - arrived)


async def await_source(peer: Any, resource: Any, draws: Draws, spent: array[float]) -> None:
    sleep, spawn, time = peer.sleep, peer.spawn, peer.current_loop().time
    for gap, service in zip(*draws, strict=True):
        await sleep(gap)
        spawn(await_customer(resource, sleep, time, service, spent))


def yield_customer(env: Any, resource: Any, service: float, spent: array[float]) -> Any:
    arrived = env.now
    with resource.request() as request:
        yield request
        yield env.timeout(service)
    spent.append(env.now - arrived)


def yield_source(peer: Any, resource: Any, draws: Draws, spent: array[float]) -> Any:
    env = peer.env
    for gap, service in zip(*draws, strict=True):
        yield env.timeout(gap)
        env.process(yield_customer(env, resource, service, spent))


SOURCES = {"await": await_source, "yield": yield_source}


def measure(peer: Peer, customers: int) -> dict[str, float]:
    draws, spent = draw(customers), array("d")
    resource = has(peer.resource, "Resource")(capacity=1)
    elapsed = stopwatch(peer.run, SOURCES[peer.style], [(peer, resource, draws, spent)])
    finished(list(spent), customers)
    mean, expected = sum(spent) / customers, mean_by_recursion(draws)
    if not math.isclose(mean, expected, rel_tol=1e-6):
        raise RuntimeError(f"a mean time in the system of {mean} instead of {expected}")
    if customers >= ENOUGH and abs(mean - IN_THEORY) > 1:
        raise RuntimeError(f"a mean time in the system of {mean}, in theory {IN_THEORY}")
    return {"ns per customer": elapsed / customers, "mean time": mean}


WORKLOADS = [
    Workload(
        name="mm1",
        title="M/M/1, {customers:,} customers, one server, 90 % busy",
        module="benchmarks.bench_mm1",
        figures={"ns per customer": (AtLeast(4, "simpy"),), "mean time": ()},
        size={"customers": 1_000_000},
        quick={"customers": 50_000},
        needs="resources",
        virtual=True,
        rounds=3,
        timeout=300,
    )
]

if __name__ == "__main__":
    from benchmarks.harness import main

    main(WORKLOADS)
