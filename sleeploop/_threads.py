"""Functions that block, in threads of their own."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from _sleeploop import (
    CancelledError,
    CancelScope,
    CapacityLimiter,
    LoopClosedError,
    SleepingLoop,
    _call_from_pool,
    _executor,
    _need_loop,
    _need_task,
    _park_for_thread,
    _pool_call,
    _pool_thread,
    checkpoint,
)

from sleeploop._combine import _named
from sleeploop._stacks import frames

if TYPE_CHECKING:
    from concurrent.futures import Future

_P = ParamSpec("_P")
_T = TypeVar("_T")


# ---- what is called, and where -------------------------------------------------------------------


class _Borrower:
    """On behalf of whom a call has its token."""

    def __init__(self, function: Any) -> None:
        self._name = _name(function)

    def __repr__(self) -> str:
        return f"<call of {self._name}>"


def _call(function: Any, *args: Any, **kwargs: Any) -> partial[Any]:
    """What a thread is to call, in a copy of the current context."""
    return partial(copy_context().run, function, *args, **kwargs)


def _name(function: Any) -> str:
    while isinstance(function, partial):
        function = function.func
    return str(getattr(function, "__qualname__", None) or type(function).__qualname__)


class _Threads:
    """A loop's threads, which end with its run; a fork's child needs new ones."""

    def __init__(self, loop: SleepingLoop) -> None:
        from concurrent.futures import ThreadPoolExecutor  # here: most programs need none

        self.owner = os.getpid()
        cpus = getattr(os, "process_cpu_count", os.cpu_count)() or 1
        most = min(32, cpus + 4)  # as it has by default
        self.pool = ThreadPoolExecutor(
            most,
            thread_name_prefix="sleeploop",
            initializer=_begin,
            initargs=(weakref.ref(loop),),  # threads wait for work in a loop that may be dropped
        )
        self.limiter = CapacityLimiter(most, name="threads")


def _threads(loop: SleepingLoop) -> _Threads:
    threads: _Threads | None = _executor(loop)
    if threads is None or threads.owner != os.getpid():
        threads = _Threads(loop)
        _executor(loop, threads)
    return threads


def _begin(ref: weakref.ref[SleepingLoop]) -> None:
    loop = ref()
    if loop is not None:
        _pool_thread(loop)


def _start_thread(call: partial[Any], name: str) -> Future[Any]:
    """Call it in a thread of its own, which holds up no interpreter that ends."""
    from concurrent.futures import Future

    future: Future[Any] = Future()
    threading.Thread(target=_work, args=(future, call), name=name, daemon=True).start()
    return future


def _work(future: Future[Any], call: partial[Any]) -> None:
    try:
        result = call()
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(result)
    finally:
        del future, call  # an exception's traceback leads here


async def _in_thread(
    caller: str,
    function: Any,
    call: partial[Any],
    start: Callable[[partial[Any]], Future[Any]],
    is_left: bool = False,
    release: Callable[[], object] | None = None,
) -> Any:
    """Have start(call) make a thread call it, and wait for that.

    is_left: a cancellation leaves the thread alone and goes on; else it waits. release() is called
    in the loop when the thread has ended, be it waited for or not.
    """
    loop = _need_loop(caller)
    future: Future[Any] | None = None
    releases = [release] if release is not None else []  # who takes it out calls it
    is_waited_for = True

    def tell(_: Future[Any]) -> None:
        with suppress(LoopClosedError):  # a second Ctrl-C: nobody waits
            _call_from_pool(loop, arrival.cancel)
        if not is_waited_for:
            with suppress(IndexError):
                _give_back(loop, releases.pop())

    try:
        with CancelScope(shield=not is_left) as arrival:
            # It may call in, be it waited for or not, until it dies: the last thing that it has.
            call.under_way = _pool_call(loop)  # type: ignore[attr-defined]
            future = start(call)
            del call
            future.add_done_callback(tell)
            if future.done():  # before, so that tell() ran here, where a signal handler may stop it
                _call_from_pool(loop, arrival.cancel)
            try:
                await _park_for_thread()
            except CancelledError:
                if not arrival.cancel_called:
                    raise
                # The thread has ended first. The next await is cancelled.
        if not future.done():
            future = None  # nor will it ever be
            raise RuntimeError(
                f"{caller}: the thread of this call has stayed in the parent process"
            )
        return future.result()
    finally:
        is_waited_for = False
        if future is None or future.done():
            with suppress(IndexError):
                releases.pop()()
        del future  # its exception's traceback leads here


def _give_back(loop: SleepingLoop, release: Callable[[], object]) -> None:
    try:
        _call_from_pool(loop, release)
    except LoopClosedError:
        with suppress(RuntimeError):  # another loop uses it by now
            release()


# ---- the functions -------------------------------------------------------------------------------


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
    return await _in_thread(  # type: ignore[no-any-return]
        "to_thread()", function, _call(function, *args, **kwargs), _threads(loop).pool.submit
    )


def run_sync_in_thread(
    function: Callable[..., _T],
    /,
    *args: Any,
    abandon_on_cancel: bool = False,
    limiter: CapacityLimiter | None = None,
    name: str | None = None,
) -> Coroutine[Any, Any, _T]:
    """Call a function that blocks, in a thread of its own, as trio.to_thread.run_sync() does.

    As to_thread(), with these differences. Keyword arguments for the function are given by
    `functools.partial`.

    abandon_on_cancel: a cancellation, or an interrupt, is raised at once. The thread works on, as
    nothing can stop it, and its outcome is dropped. No time stands still for it then, and a program
    that ends does not wait for it.

    limiter: a CapacityLimiter, of which the call borrows one token, on behalf of itself and not of
    the task, until its thread has ended, even if that has been abandoned. None: one of the loop's,
    with as many tokens as to_thread() has threads.

    name: what the thread is called, a str. None: the function and the task.

    What it returns is awaited once. Raises TypeError for wrong arguments at the call, and what
    to_thread() raises.

    >>> import math, sleeploop, time
    >>> async def main():
    ...     with sleeploop.move_on_after(0.01) as scope:
    ...         await sleeploop.run_sync_in_thread(time.sleep, 0.2, abandon_on_cancel=True)
    ...     return scope.cancelled_caught
    >>> sleeploop.run(main(), speed=1)
    True
    """
    if not callable(function):
        raise TypeError(f"run_sync_in_thread() takes a function, not {function!r:.200}")
    if limiter is not None and not isinstance(limiter, CapacityLimiter):
        raise TypeError(f"limiter must be a CapacityLimiter or None, not {limiter!r:.200}")
    if name is not None and not isinstance(name, str):
        raise TypeError(f"name must be a str or None, not {name!r:.200}")
    return _named(  # type: ignore[no-any-return]
        _run_sync_in_thread(function, args, bool(abandon_on_cancel), limiter, name),
        "run_sync_in_thread",
    )


async def _run_sync_in_thread(
    function: Any,
    args: tuple[Any, ...],
    is_left: bool,
    limiter: CapacityLimiter | None,
    name: str | None,
) -> Any:
    me = _need_task("run_sync_in_thread()")
    if limiter is None:
        limiter = _threads(_need_loop("run_sync_in_thread()")).limiter
    borrower = _Borrower(function)
    await limiter.acquire_on_behalf_of(borrower)
    return await _in_thread(
        "run_sync_in_thread()",
        function,
        _call(function, *args),
        partial(_start_thread, name=name or f"{_name(function)} for {me.name}"),
        is_left,
        partial(limiter.release_on_behalf_of, borrower),
    )


def called_in_thread(coro: Any) -> str | None:
    """What a coroutine has had called in a thread, if it waits for that; for reports."""
    for frame in frames(coro):
        if frame.f_code is _in_thread.__code__:
            names = frame.f_locals
            if names.get("future") is None:  # not yet, or it is over
                return None
            return _name(names["function"])
    return None
