"""What the tests of things that tasks wait at share."""

import math
import types
from typing import Any

import pytest

from sleeploop import Lock, Store, all_of, checkpoint, create_task, current_task, first_of, sleep
from tests.helpers import now

# ---- locks ---------------------------------------------------------------------------------------


async def hold(lock, log, name, seconds=1):
    async with lock:
        log.append((name, now()))
        await sleep(seconds)


async def taken(log, name="holder", seconds=1):
    """A lock that another task has, for some time."""
    lock = Lock(name="l")
    create_task(hold(lock, log, name, seconds), name=name)
    await checkpoint()
    return lock


async def used(lock):
    """The lock is as it should be: it can be had, and given back."""
    async with lock:
        assert lock.owner is current_task()
    assert repr(lock) == "<Lock 'l' unlocked>"


# ---- first_of() and all_of() ---------------------------------------------------------------------

BOTH = pytest.mark.parametrize("function", [first_of, all_of])


async def held_lock(name, seconds):
    """A lock that another task has for so long from now on."""
    lock = Lock(name=name)
    create_task(hold(lock, [], name, seconds), name=f"has {name}")
    await checkpoint()
    return lock


# ---- channels, limiters, stores ------------------------------------------------------------------


async def collect(receive: Any, log: list[Any], tag: object = None) -> None:
    async for value in receive:
        log.append(value if tag is None else (tag, value))
    log.append("end" if tag is None else (tag, "end"))


async def use(limiter: Any, seconds: float, log: list[Any]) -> None:
    async with limiter:
        log.append((current_task().name, now()))
        await sleep(seconds)


async def have(limiter: Any, borrower: Any, log: list[Any]) -> None:
    assert await limiter.acquire_on_behalf_of(borrower) is None
    log.append(borrower)


async def note(log, name, wait):
    log.append((name, await wait, now()))


async def within(scope, wait):
    """Await it in the scope; what it came to, or "cancelled"."""
    with scope:
        return await wait
    return "cancelled"


def is_(thing):
    return lambda item: item == thing


def filled(*items, capacity=math.inf):
    store = Store(capacity)
    for item in items:
        store.put_nowait(item)
    return store


@types.coroutine
def drop(wait, kept):
    """Wait, and let the await go by without looking at it."""
    trap = wait.send(None)
    yield trap
    kept.append(wait)
