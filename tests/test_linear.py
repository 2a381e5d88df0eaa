"""What many of something cost: in proportion to how many they are, or nearly so."""

import random
import sys

import pytest

from benchmarks import scaling
from sleeploop import (
    CancelScope,
    Interrupt,
    Resource,
    TaskGroup,
    checkpoint,
    find_deadlocks,
    format_tasks,
    sleep,
    sleep_forever,
)
from tests.helpers import awaited_error, virtual


def calls(function):
    """How many, of Python functions and of C functions, it makes."""
    count = 0

    def profile(frame, event, arg):
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        function()
    finally:
        sys.setprofile(before)
    return count


def test_reports_of_a_tree_eight_times_as_deep_take_eight_times_as_many_calls():
    async def report(counts):
        counts.append(calls(lambda: format_tasks(limit=10)))
        counts.append(calls(find_deadlocks))
        assert format_tasks(limit=10).count("\n") == 10
        assert find_deadlocks() == []

    def of(n):
        counts = []
        virtual(scaling.nested(n, [], lambda: report(counts)))
        return counts

    for few, many in zip(of(100), of(800), strict=True):
        assert many < 12 * few


@pytest.mark.parametrize("workload", scaling.WORKLOADS, ids=lambda workload: workload.__name__)
def test_what_is_timed_in_the_benchmarks_is_right(workload):
    with workload(100) as ready:
        ready()


def test_the_outermost_counts_in_whatever_order_scopes_are_cancelled():
    """And shielded, beside a look at all of them from the outside in."""

    async def main(rng):
        scopes = [CancelScope() for _ in range(rng.randint(1, 8))]
        for scope in scopes:
            scope.__enter__()
        for _ in range(20):
            scope = rng.choice(scopes)
            if rng.random() < 0.3:
                scope.cancel(scope)
            else:
                scope.shield = rng.random() < 0.4
            in_force = []
            for scope in scopes:
                in_force = ([] if scope.shield else in_force) + [scope] * scope.cancel_called
            if in_force:
                assert (await awaited_error(checkpoint())).reason is in_force[0]
            else:
                await checkpoint()
        for scope in reversed(scopes):
            scope.__exit__(None, None, None)

    for seed in range(500):
        virtual(main(random.Random(seed)))


def test_who_loses_its_slot_first_beside_a_look_at_all():
    async def main(rng):
        async def hold(priority):
            with CancelScope() as scope:
                try:
                    async with resource.request(priority=priority, preempt=True) as request:
                        scopes[request] = scope
                        await sleep_forever()
                except Interrupt as interrupt:
                    lost.append(interrupt.cause.number)

        resource, scopes, lost = Resource(rng.randint(1, 6)), {}, []
        async with TaskGroup() as group:
            for _ in range(40):
                users = resource.users
                if users and rng.random() < 0.3:
                    scopes[rng.choice(users)].cancel()
                    await sleep(1)
                    continue
                priority = rng.randint(0, 5)
                worst = max(users, key=lambda user: (user.priority, user.since), default=None)
                is_full = len(users) == resource.capacity
                lost.clear()
                task = group.create_task(hold(priority))
                expected = [worst.number] if is_full and worst.priority > priority else []
                await sleep(1)
                assert lost == expected
                if is_full and not expected:
                    task.cancel()  # it waits
                    await sleep(1)
            group.cancel_scope.cancel()

    for seed in range(100):
        virtual(main(random.Random(seed)))
