"""Functions that block, in threads of their own."""

from __future__ import annotations

import contextlib
import os
import weakref
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from _sleeploop import (
    CancelScope,
    LoopClosedError,
    SleepingLoop,
    _call_from_pool,
    _executor,
    _need_loop,
    _park_for_thread,
    _pool_call,
    _pool_thread,
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

        pool = ThreadPoolExecutor(
            thread_name_prefix="sleeploop",
            initializer=_begin,
            initargs=(weakref.ref(loop),),  # threads wait for work in a loop that may be dropped
        )
        _executor(loop, (os.getpid(), pool))
    return pool


def _begin(ref: weakref.ref[SleepingLoop]) -> None:
    loop = ref()
    if loop is not None:
        _pool_thread(loop)


async def to_thread(function: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Call a function that blocks, in a thread, and return what it returns or raise what it raises.

    While it works, other tasks run, virtual time stands still, and no deadlock is reported. The
    function runs in a copy of the current context. There are as many threads as a
    `concurrent.futures.ThreadPoolExecutor` has by default; what is more waits for its turn.

    A thread cannot be stopped: a cancellation waits until the function has ended, whose result
    is then returned, and takes effect at the next await. One that comes before the call prevents
    it.

    Raises TypeError for what cannot be called, RuntimeError without a running loop, and, in a child
    of os.fork(), RuntimeError for a call whose thread has stayed in the parent.

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
                _call_from_pool(loop, arrival.cancel)

        call = partial(copy_context().run, function, *args, **kwargs)
        # It may call in, be it waited for or not, until it dies; of what it has, this is the last.
        call.under_way = _pool_call(loop)  # type: ignore[attr-defined]
        future = _pool(loop).submit(call)
        del call
        future.add_done_callback(tell)
        if future.done():  # before, so that tell() ran here, where a signal handler may stop it
            _call_from_pool(loop, arrival.cancel)
        await _park_for_thread()
    if not future.done():
        raise RuntimeError("to_thread(): the thread of this call has stayed in the parent process")
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
