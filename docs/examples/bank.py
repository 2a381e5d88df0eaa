"""A bank with one counter, 100,000 customers, and what queueing theory says about it.

Customers come at random (a Poisson process), are served one by one in the order of arrival, and
being served takes a random time (exponential). First everybody waits as long as it takes: the M/M/1
queue. Then more customers come than can be served, but each has a limited patience (exponential as
well) and leaves when it is over: the M/M/1+M queue. Both have a solution on paper, and the
simulation must agree with it: within five standard errors, which it estimates itself.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean, stdev

from sleeploop import Resource, TaskGroup, current_loop, move_on_after, run, sleep

CUSTOMERS = 100_000
SERVICE = 60  # seconds, on average
BATCH = 2_000  # customers; how much the means of batches differ tells the standard error


@dataclass
class Customer:
    """What one customer has seen."""

    queue: int  # how many were waiting when it came
    busy: bool  # whether somebody was being served
    came: float
    served: bool = False
    waited: float = 0.0
    stayed: float = 0.0


async def visit(me: Customer, counter: Resource, patience: float, service: float) -> None:
    """Queue up, be served, leave."""
    with move_on_after(patience):
        slot = await counter.request()
        me.served = True  # if its turn has come, it has, even if patience is over in this moment
    me.waited = current_loop().time() - me.came
    if me.served:
        await sleep(service)
        slot.release()
    me.stayed = current_loop().time() - me.came


async def simulate(interval: float, patience: float) -> list[Customer]:
    """A customer every `interval` seconds, on average; all of them, in the order of arrival."""

    def times(name: str, mean: float) -> Iterator[float]:
        rng = current_loop().random(name)
        while True:
            yield rng.expovariate(1 / mean) if mean < math.inf else mean

    intervals, services = times("intervals", interval), times("services", SERVICE)
    patiences = times("patiences", patience)

    counter, customers = Resource(name="counter", stats=True), []
    async with TaskGroup() as group:
        for _ in range(CUSTOMERS):
            await sleep(next(intervals))
            me = Customer(len(counter.queue), counter.in_use > 0, current_loop().time())
            customers.append(me)
            group.create_task(visit(me, counter, next(patiences), next(services)))
    assert counter.stats().waits.count == sum(customer.served for customer in customers)
    return customers


def theory(interval: float, patience: float) -> list[float]:
    """What to expect, from how likely it is that n customers are in the bank, for each n.

    A customer comes every `interval` seconds; of n customers, one goes at the rate
    1 / SERVICE + (n - 1) / patience. In balance, n - 1 become n as often as n become n - 1.
    """
    weights = [1.0]
    while weights[-1] > 1e-15:
        n = len(weights)
        weights.append(weights[-1] / interval / (1 / SERVICE + (n - 1) / patience))
    busy = 1 - 1 / sum(weights)
    queue = sum((n - 1) * weight for n, weight in enumerate(weights) if n) / sum(weights)
    # A mean time is a mean number times the interval: Little's law.
    return [busy * interval / SERVICE, busy, queue, queue * interval, (queue + busy) * interval]


def compare(interval: float, patience: float) -> None:
    """Simulate, and hold what was measured against the theory."""
    expected = theory(interval, patience)
    if patience == math.inf:  # the textbook has it shorter
        assert math.isclose(expected[-1], 1 / (1 / SERVICE - 1 / interval))

    customers = run(simulate(interval, patience), speed=math.inf)
    served = sum(customer.served for customer in customers)
    print(f"A customer every {interval} s, service {SERVICE} s, patience {patience} s:")
    print(f"{served:,} have been served, {CUSTOMERS - served:,} have left the queue.\n")
    print(f"{'':24}measured  +-       theory")
    measured: dict[str, list[float]] = {
        "share that is served": [customer.served for customer in customers],
        # Who comes at random sees the average: what is so for customers is so for all the time.
        "share of time in use": [customer.busy for customer in customers],
        "customers in the queue": [customer.queue for customer in customers],
        "seconds in the queue": [customer.waited for customer in customers],
        "seconds in the bank": [customer.stayed for customer in customers],
    }
    for (name, values), theoretical in zip(measured.items(), expected, strict=True):
        means = [fmean(values[i : i + BATCH]) for i in range(0, CUSTOMERS, BATCH)]
        mean, error = fmean(means), stdev(means) / math.sqrt(len(means))
        print(f"{name:24}{mean:8.4g}  {error:<8.2g}{theoretical:7.4g}")
        assert abs(mean - theoretical) <= 5 * error + 1e-9


if __name__ == "__main__":
    compare(interval=75, patience=math.inf)
    print("\n")
    compare(interval=50, patience=300)
