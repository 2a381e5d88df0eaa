"""Functions that block, in threads of their own."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from _sleeploop import (
    CancelScope,
    LoopClosedError,
    SleepingLoop,
    _executor,
    _need_loop,
    _park_for_thread,
    checkpoint,
)

from sleeploop._stacks import frames

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

_P = ParamSpec("_P")
_T = TypeVar("_T")


def _pool(loop: SleepingLoop) -> ThreadPoolExecutor:
    """The loop's threads, which end with its run; a fork's child needs new ones."""
    owner, pool = _executor(loop) or (0, None)
    if pool is None or owner != os.getpid():
        from concurrent.futures import ThreadPoolExecutor  # here: most programs need none

        pool = ThreadPoolExecutor(thread_name_prefix="sleeploop")
        _executor(loop, (os.getpid(), pool))
    return pool


async def to_thread(function: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Call a function that blocks, in a thread, and return what it returns or raise what it raises.

    While it works, other tasks run, virtual time stands still, and no deadlock is reported. The
    function runs in a copy of the current context. There are as many threads as a
    `concurrent.futures.ThreadPoolExecutor` has by default; what is more waits for its turn.

    A thread cannot be stopped: a cancellation waits until the function has ended, whose result
    is then returned, and takes effect at the next await. One that comes before the call prevents
    it.

    Raises TypeError for what cannot be called, and RuntimeError without a running loop.

    >>> import math, sleeploop
    >>> async def main():
    ...     task = sleeploop.create_task(sleeploop.sleep(3600))
    ...     total = await sleeploop.to_thread(sum, range(1000))
    ...     print(total, sleeploop.current_loop().time(), task.done())
    >>> sleeploop.run(main(), speed=math.inf)
    499500 0.0 False
    """
    if not callable(function):
        raise TypeError(f"to_thread() takes a function, not {function!r:.200}")
    loop = _need_loop("to_thread()")
    await checkpoint()
    with CancelScope(shield=True) as arrival:

        def tell(_: Future[_T]) -> None:
            with contextlib.suppress(LoopClosedError):  # a second Ctrl-C: nobody waits
                loop.call_soon_threadsafe(arrival.cancel)

        call = partial(copy_context().run, function, *args, **kwargs)
        future = _pool(loop).submit(call)
        future.add_done_callback(tell)
        if future.done():  # before, so that tell() ran here, where a signal handler may stop it
            loop.call_soon_threadsafe(arrival.cancel)
        await _park_for_thread()
    try:
        return future.result()
    finally:
        del future  # its exception's traceback leads here


def called_in_thread(coro: Any) -> str | None:
    """What a coroutine has had called by to_thread(), if it waits for that; for reports."""
    for frame in frames(coro):
        if frame.f_code is to_thread.__code__:
            names = frame.f_locals
            if "future" not in names:  # not yet, or it is over
                return None
            function: Any = names["function"]
            while isinstance(function, partial):
                function = function.func
            return str(getattr(function, "__qualname__", None) or type(function).__qualname__)
    return None
