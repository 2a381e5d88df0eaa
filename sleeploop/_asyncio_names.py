"""What people who come from asyncio reach for, and what another public name says already."""

from __future__ import annotations

from typing import Any, TypeVar

from _sleeploop import SleepingLoop, _need_loop
from _sleeploop import sleep as _sleep

_T = TypeVar("_T")


async def sleep(delay: Any, result: _T) -> _T:
    """What `sleep(delay, result)` returns: C has looked at `delay` by then."""
    await _sleep(delay)
    return result


def all_tasks(loop: SleepingLoop | None = None) -> set[Any]:
    """The tasks of a loop that have not finished, a set; `loop.tasks()` has them in order.

    loop: the default is the current loop; RuntimeError where none is. TypeError for what is no
    loop.

    >>> import math, sleeploop
    >>> async def main():
    ...     task = sleeploop.create_task(sleeploop.sleep(1))
    ...     return sleeploop.all_tasks() == {task, sleeploop.current_task()}
    >>> sleeploop.run(main(), speed=math.inf)
    True
    """
    if loop is None:
        loop = _need_loop("all_tasks()")
    elif not isinstance(loop, SleepingLoop):
        raise TypeError(f"all_tasks() takes a SleepingLoop, not {loop!r:.200}")
    return set(loop.tasks())
