"""Queueing theory as a test: what long runs measure is what the textbook says."""

import math
from statistics import fmean, stdev

import pytest

import sleeploop
from sleeploop import Resource, ResourceStats, TaskGroup, current_loop, sleep


async def queueing_system(rate, service_rate, capacity, customers, priorities=1):
    """A Poisson process of customers who are served in an exponential time; M/M/c."""
    resource = Resource(capacity, stats=True)
    arrivals, services = current_loop().random("arrivals"), current_loop().random("services")
    classes = current_loop().random("classes")
    waits = [[] for _ in range(priorities)]

    async def customer(priority):
        came = current_loop().time()
        async with resource.request(priority) as slot:
            waits[priority].append(slot.since - came)
            await sleep(services.expovariate(service_rate))

    async with TaskGroup() as group:
        for _ in range(customers):
            await sleep(arrivals.expovariate(rate))
            group.create_task(customer(classes.randrange(priorities)))
        stats = resource.stats()
    assert resource.in_use == 0
    assert sum(map(len, waits)) == customers
    return stats, waits


def simulate(*args) -> tuple[ResourceStats, list[list[float]]]:
    return sleeploop.run(queueing_system(*args), speed=math.inf, seed=4)


def erlang_c(offered, servers):
    """How likely it is that one who comes has to wait."""
    terms = [offered**n / math.factorial(n) for n in range(servers)]
    last = offered**servers / math.factorial(servers) * servers / (servers - offered)
    return last / (sum(terms) + last)


def check(values, theory):
    """The mean is what it should be, within four standard errors, and those are small.

    How much the means of batches differ tells the standard error.
    """
    size = len(values) // 50
    means = [fmean(values[i : i + size]) for i in range(0, 50 * size, size)]
    error = stdev(means) / math.sqrt(len(means))
    assert abs(fmean(means) - theory) < 4 * error
    assert error < 0.08 * theory


@pytest.mark.slow
@pytest.mark.parametrize(("rate", "servers"), [(0.5, 1), (0.8, 1), (1.5, 2), (4.0, 5)])
def test_mmc(rate, servers):
    stats, (waits,) = simulate(rate, 1.0, servers, 100_000)
    waiting = erlang_c(rate, servers)
    check(waits, waiting / (servers - rate))
    check([wait > 0 for wait in waits], waiting)
    assert stats.in_use.mean == pytest.approx(rate, rel=0.02)
    assert stats.in_use.max == servers
    # Of those who had been served at the time of the last arrival: nearly all of them.
    assert stats.waits.count == pytest.approx(len(waits), abs=100)
    assert stats.waits.mean == pytest.approx(fmean(waits), rel=0.01)
    assert stats.waits.waited == pytest.approx(sum(wait > 0 for wait in waits), abs=100)
    assert stats.queue.mean == pytest.approx(rate * fmean(waits), rel=0.02)  # Little's law


@pytest.mark.slow
def test_two_classes_of_priority():
    """Cobham's formula: who is urgent waits for another one only if that is being served."""
    _, waits = simulate(0.8, 1.0, 1, 100_000, 2)
    residual = 0.8  # of the service that one who comes finds under way, on average
    check(waits[0], residual / (1 - 0.4))
    check(waits[1], residual / ((1 - 0.4) * (1 - 0.8)))


def test_statistics_agree_with_what_the_customers_see():
    stats, waits = simulate(0.8, 1.0, 1, 2_000, 2)
    served = stats.waits.count
    assert served <= 2_000
    all_waits = [wait for one in waits for wait in one]
    assert stats.waits.max <= max(all_waits)
    assert stats.waits.mean == pytest.approx(math.fsum(all_waits) / len(all_waits), rel=0.05)
