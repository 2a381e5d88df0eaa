"""Small functions, coroutines and objects that several test files use."""

import math
import os
import subprocess
import sys
import threading
import types
from collections.abc import Awaitable, Callable, Generator
from pathlib import Path
from typing import Any

from sleeploop import (
    CancelledError,
    CancelScope,
    SleepingLoop,
    checkpoint,
    current_effective_deadline,
    current_loop,
    run,
    sleep,
    sleep_forever,
    sleep_until,
)

CROWD = 20_000  # so many at once; what they cost is seen in benchmarks/scaling.py
ISOLATED = Path(__file__).with_name("isolated")


def virtual(coro: Any) -> Any:
    """What it returns, in virtual time."""
    return run(coro, speed=math.inf)


def virtual_loop(*coros: Any, **options: Any) -> SleepingLoop:
    return SleepingLoop(*coros, speed=math.inf, **options)


def suspended(*coros: Any) -> SleepingLoop:
    """At time 1, with more to do."""
    loop = virtual_loop(*coros)
    loop.run_until(1)
    return loop


def in_thread(function: Callable[..., object], *args: object) -> None:
    """Call it in a thread of its own."""
    thread = threading.Thread(target=function, args=args)
    thread.start()
    thread.join()


async def give(value: Any, delay: float = 0) -> Any:
    """Return value, later."""
    await sleep(delay)
    return value


async def fail(error: BaseException, delay: float = 0) -> None:
    """Raise error, later."""
    await sleep(delay)
    raise error


async def fail_at_once(error: BaseException) -> None:
    raise error


async def fail_at_the_end(error: BaseException) -> None:
    """Raise error, once cancelled."""
    try:
        await sleep_forever()
    finally:
        raise error


async def cleanup(log: list[Any], name: str, seconds: float = 0) -> None:
    """Sleep for good; once cancelled, take some time behind a shield."""
    try:
        await sleep_forever()
    finally:
        with CancelScope(shield=True):
            await sleep(seconds)
        log.append((name, now()))


async def outcome(awaitable: Awaitable[Any]) -> object:
    """What comes of it, be it a value or an error."""
    try:
        return await awaitable
    except Exception as error:
        return error


def now() -> float:
    """The time of the loop that is running."""
    return current_loop().time()


async def settle() -> None:
    """What is ready may go on, and what follows from it."""
    for _ in range(5):
        await checkpoint()


async def join(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


async def nothing_is_in_force() -> None:
    """Where the task is, no block is around it any more."""
    assert current_effective_deadline() == math.inf
    await sleep(1000)


async def cancel_at(when: float, scope: CancelScope, reason: object = None) -> None:
    """Cancel a scope, later."""
    await sleep_until(when)
    scope.cancel(reason)


async def awaited_error(awaitable: Awaitable[Any]) -> CancelledError:
    """The CancelledError of an await that has to raise one."""
    try:
        value = await awaitable
    except CancelledError as error:
        return error
    raise AssertionError(f"the await gave {value!r}, instead of being cancelled")


async def ended(task: Any) -> CancelledError:
    """The CancelledError of a task that ends by it."""
    error = await awaited_error(task)
    assert task.done()
    assert task.cancelled()
    try:
        return error
    finally:
        del error  # its traceback leads here


@types.coroutine
def yielding(obj: Any) -> Generator[Any, Any, Any]:
    """Yield obj to the loop; what the loop sends back."""
    return (yield obj)


def references(*one: object) -> int:
    """How many there are to an object. In a tuple, since CPython does not always count those of
    arguments and local variables from 3.14 on."""
    return sys.getrefcount(one[0])


class Thing:
    """Something to refer to weakly."""


class Error(Exception):
    """Can be weakly referenced."""


class Doom(BaseException):
    """No Exception, and no cancellation."""


class OnDel:
    """Calls back when it dies."""

    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback = callback

    def __del__(self) -> None:
        self.callback()


def isolated(script: str, *args: str) -> subprocess.CompletedProcess[str]:
    """Run a script of tests/isolated in a process of its own."""
    return subprocess.run(
        [sys.executable, "-X", "faulthandler", str(ISOLATED / script), *args],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(ISOLATED.parent.parent)},
    )
