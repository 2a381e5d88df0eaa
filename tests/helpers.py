"""Small coroutines and objects that several test files use."""

import math
import types
from collections.abc import Awaitable, Callable, Generator
from typing import Any

from sleeploop import run, sleep


def virtual(coro: Any) -> Any:
    """What it returns, in virtual time."""
    return run(coro, speed=math.inf)


async def give(value: Any, delay: float = 0) -> Any:
    """Return value, later."""
    await sleep(delay)
    return value


async def outcome(awaitable: Awaitable[Any]) -> object:
    """What comes of it, be it a value or an error."""
    try:
        return await awaitable
    except Exception as error:
        return error


@types.coroutine
def yielding(obj: Any) -> Generator[Any, Any, Any]:
    """Yield obj to the loop; what the loop sends back."""
    return (yield obj)


class OnDel:
    """Calls back when it dies."""

    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback = callback

    def __del__(self) -> None:
        self.callback()
