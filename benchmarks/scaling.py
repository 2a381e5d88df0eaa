"""`python -m benchmarks.scaling`: what many of something cost, in proportion to how many they are.

What C code walks through or searches cannot be counted from Python, as tests count what Python code
does; so it is timed, for so many and for eight times as many. In proportion that takes 8 times as
long, in its square 64 times. Who is over 24 is named, and the exit status is 1.

A workload makes ready what is then timed. tests/test_linear.py runs each of them, small.
"""

from __future__ import annotations

import gc
import math
import random
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import wraps
from typing import Any

from sleeploop import (
    CancelledError,
    CancelScope,
    CapacityLimiter,
    Event,
    Interrupt,
    Lock,
    Request,
    Resource,
    SleepingLoop,
    Task,
    TaskGroup,
    checkpoint,
    create_task,
    current_task,
    first_of,
    run,
    sleep,
    sleep_forever,
)

Workload = Callable[[int], AbstractContextManager[Callable[[], object]]]


def in_virtual_time(work: Callable[[int], Coroutine[Any, Any, Any]]) -> Workload:
    @contextmanager
    @wraps(work)
    def ready(n: int) -> Iterator[Callable[[], object]]:
        yield lambda: run(work(n), speed=math.inf)

    return ready


# ---- scopes, tasks, slots ------------------------------------------------------------------------


@in_virtual_time
async def scopes_from_inside(n: int) -> None:
    scopes = [CancelScope() for _ in range(n)]
    for scope in scopes:
        scope.__enter__()
    for scope in reversed(scopes):
        scope.cancel()
        try:
            await checkpoint()
        except CancelledError:
            continue
        raise AssertionError("nothing was raised in a cancelled scope")
    for scope in reversed(scopes):
        scope.__exit__(None, None, None)


@in_virtual_time
async def shields_from_inside(n: int) -> None:
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


async def nested(
    n: int, tasks: list[Any], at_the_bottom: Callable[[], Coroutine[Any, Any, Any]]
) -> None:
    """Groups in tasks of groups, so many."""
    tasks.append(current_task())
    async with TaskGroup() as group:
        if n > 0:
            group.create_task(nested(n - 1, tasks, at_the_bottom))
        else:
            await at_the_bottom()


@in_virtual_time
async def tasks_from_inside(n: int) -> None:
    tasks: list[Any] = []

    async def wait() -> None:
        await sleep_forever()

    async with TaskGroup() as group:
        group.create_task(nested(n, tasks, wait))
        await sleep(1)
        for task in reversed(tasks):
            task.cancel()


@in_virtual_time
async def preemption(n: int) -> None:
    async def hold(priority: int) -> None:
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


# ---- lines ---------------------------------------------------------------------------------------


async def leave(tasks: list[Task[Any]]) -> None:
    """In any order, all but one, whose turn then comes."""
    await checkpoint()
    random.Random(1).shuffle(tasks)
    for task in tasks[1:]:
        task.cancel()
    await checkpoint()


@in_virtual_time
async def waiters_of_a_lock_leave(n: int) -> None:
    lock = Lock()
    await lock.acquire()
    tasks = [create_task(lock.acquire()) for _ in range(n)]
    await leave(tasks)
    lock.release()
    assert await tasks[0]


@in_virtual_time
async def borrowers_come_and_go(n: int) -> None:
    limiter = CapacityLimiter(0)
    tasks = [create_task(limiter.acquire_on_behalf_of(i)) for i in range(n)]
    await leave(tasks)
    limiter.total_tokens = n
    await tasks[0]
    (first,) = limiter.borrowers
    limiter.release_on_behalf_of(first)
    for i in range(n):
        limiter.acquire_on_behalf_of_nowait(i)
    for i in range(n):
        limiter.release_on_behalf_of(i)


@in_virtual_time
async def requests_leave(n: int) -> None:
    async def visit(request: Request) -> None:
        async with request:
            await sleep(1)

    resource = Resource()
    async with TaskGroup() as group:
        requests = [resource.request(i % 7) for i in range(n)]
        tasks = [group.create_task(visit(request)) for request in requests]
        await leave(tasks)


@in_virtual_time
async def one_of_many_comes_first(n: int) -> None:
    last = sleep(1)
    assert list(await first_of(*(Event().wait() for _ in range(n)), last)) == [last]


# ---- failures of a group -------------------------------------------------------------------------


async def fail(error: Exception) -> None:
    await sleep(0)  # until all of them are on their way
    raise error


async def failed(errors: list[Exception]) -> BaseExceptionGroup[Any]:
    try:
        async with TaskGroup() as group:
            for error in errors:
                group.create_task(fail(error))
    except BaseExceptionGroup as raised:
        return raised
    raise AssertionError("nothing was raised")


@in_virtual_time
async def many_failures(n: int) -> None:
    assert len((await failed([ValueError(i) for i in range(n)])).exceptions) == n


@in_virtual_time
async def the_same_failure_many_times(n: int) -> None:
    error = ValueError()
    assert (await failed([error] * n)).exceptions == (error,)


# ---- many loops that are suspended at the same time ----------------------------------------------


async def wait_for(event: Event) -> None:
    await event.wait()


def suspended(drive: Callable[[SleepingLoop, Event], object]) -> Workload:
    @contextmanager
    @wraps(drive)
    def ready(n: int) -> Iterator[Callable[[], object]]:
        pairs = [(SleepingLoop(sleep(1), speed=math.inf), Event()) for _ in range(n)]
        for loop, event in pairs:
            loop.create_task(wait_for(event))
            loop.step()

        def driven() -> None:
            for loop, event in pairs:
                drive(loop, event)

        yield driven
        for loop, _ in pairs:
            loop.close()

    return ready


@suspended
def step(loop: SleepingLoop, _: Event) -> object:
    return loop.step()


@suspended
def wake_and_step(loop: SleepingLoop, event: Event) -> object:
    event.set()
    return loop.step()


@suspended
def run_until(loop: SleepingLoop, _: Event) -> object:
    return loop.run_until(2)


@suspended
def close(loop: SleepingLoop, _: Event) -> object:
    return loop.close()


@suspended
def repr_of_a_task(loop: SleepingLoop, _: Event) -> object:
    return repr(loop.tasks()[0])


WORKLOADS = {
    scopes_from_inside: 2000,
    shields_from_inside: 4000,
    tasks_from_inside: 1000,
    preemption: 1000,
    waiters_of_a_lock_leave: 2000,
    borrowers_come_and_go: 2000,
    requests_leave: 2000,
    one_of_many_comes_first: 2000,
    many_failures: 2000,
    the_same_failure_many_times: 2000,
    step: 500,
    wake_and_step: 500,
    run_until: 500,
    close: 500,
    repr_of_a_task: 500,
}


def seconds(workload: Workload, n: int) -> float:
    """Of the processor; the best of three."""
    best = math.inf
    for _ in range(3):
        gc.collect()
        gc.disable()  # what it looks through is more each time
        try:
            with workload(n) as ready:
                began = time.process_time()
                ready()
                best = min(best, time.process_time() - began)
        finally:
            gc.enable()
    return best


def main() -> int:
    over = False
    for workload, n in WORKLOADS.items():
        few, many = seconds(workload, n), seconds(workload, 8 * n)
        ratio = many / max(few, 0.0005)
        verdict = "" if ratio < 24 else "  NOT IN PROPORTION"
        over = over or ratio >= 24
        print(
            f"{workload.__name__:<28} {n:>5} {1e3 * few:8.1f} ms  "
            f"{8 * n:>6} {1e3 * many:8.1f} ms  {ratio:5.1f}x{verdict}"
        )
    return over


if __name__ == "__main__":
    sys.exit(main())
