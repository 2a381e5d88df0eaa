"""What many of something cost: in proportion to how many they are, or nearly so."""

import math
import random
import time

import pytest

from sleeploop import (
    CancelledError,
    CancelScope,
    Interrupt,
    Resource,
    TaskGroup,
    checkpoint,
    current_task,
    find_deadlocks,
    format_tasks,
    run,
    sleep,
    sleep_forever,
)
from tests.helpers import awaited_error, virtual


async def scopes_from_inside(n):
    scopes = [CancelScope() for _ in range(n)]
    for scope in scopes:
        scope.__enter__()
    for scope in reversed(scopes):
        scope.cancel()
        await_once = checkpoint()
        with pytest.raises(CancelledError):
            await await_once
    for scope in reversed(scopes):
        scope.__exit__(None, None, None)


async def shields_from_inside(n):
    with CancelScope() as around:
        scopes = [CancelScope() for _ in range(n)]
        for scope in scopes:
            scope.__enter__()
        around.cancel()
        for shield in (True, False):
            for scope in reversed(scopes):
                scope.shield = shield
        for scope in reversed(scopes):
            scope.__exit__(None, None, None)


async def nested(n, tasks, at_the_bottom):
    tasks.append(current_task())
    async with TaskGroup() as group:
        if n > 0:
            group.create_task(nested(n - 1, tasks, at_the_bottom))
        else:
            await at_the_bottom()


async def tasks_from_inside(n):
    tasks = []
    async with TaskGroup() as group:
        group.create_task(nested(n, tasks, sleep_forever))
        await sleep(1)
        for task in reversed(tasks):
            task.cancel()


async def reports_of_a_deep_tree(n):
    async def report():
        assert format_tasks(limit=10).count("\n") == 10
        assert find_deadlocks() == []

    await nested(n, [], report)


async def preemption(n):
    async def hold(priority):
        try:
            async with resource.request(priority=priority, preempt=True):
                await sleep_forever()
        except Interrupt:
            pass

    resource = Resource(n)
    async with TaskGroup() as group:
        for i in range(2 * n):
            group.create_task(hold(2 * n - i))
        await sleep(1)
        assert sorted(request.priority for request in resource.users) == list(range(1, n + 1))
        group.cancel_scope.cancel()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("work", "n"),
    [
        (scopes_from_inside, 2000),
        (shields_from_inside, 4000),
        (tasks_from_inside, 1000),
        (reports_of_a_deep_tree, 1000),
        (preemption, 1000),
    ],
)
def test_eight_times_as_many_take_nothing_like_64_times_as_long(work, n):
    def seconds(n):
        times = []
        for _ in range(3):
            began = time.process_time()
            run(work(n), speed=math.inf)
            times.append(time.process_time() - began)
        return min(times)

    assert seconds(8 * n) < 30 * seconds(n)


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
