"""Several awaitables at once: gather(), as_completed(), wait_for()."""

from __future__ import annotations

import math
import weakref
from collections import OrderedDict, deque
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Sequence,
)
from datetime import timedelta
from types import GeneratorType
from typing import Any

from _sleeploop import (
    CancelledError,
    CancelScope,
    Interrupt,
    Task,
    TaskGroup,
    _check_awaitable,
    _excuse,
    _give_way,
    _need_loop,
    _need_task,
    _park,
    _unwatch,
    _wait_done,
    _watch,
    checkpoint,
    create_task,
    current_effective_deadline,
    timeout_at,
)
from _sleeploop import timeout as time_limit

# ---- what is given -------------------------------------------------------------------------------


def _is_coroutine(aw: Any) -> bool:
    """Whether a task can run it as it is; if not, one can await it."""
    if isinstance(aw, Task):
        return False
    return hasattr(aw, "send") or getattr(type(aw), "__await__", None) is None


def _check(function: str, aw: Any) -> None:
    """Refuse what cannot be run or awaited, before anything has started."""
    if isinstance(aw, Task) or _is_coroutine(aw):
        _check_awaitable(function, aw)


def _check_several(function: str, aws: Iterable[Any]) -> None:
    seen = set()
    for aw in aws:
        _check(function, aw)
        if not isinstance(aw, Task) and _is_coroutine(aw):
            if id(aw) in seen:
                raise RuntimeError(f"{function} was given the same coroutine twice: {aw!r:.200}")
            seen.add(id(aw))


class _Given:
    """Holds an awaitable until it runs. A coroutine that never does is closed, as by a task."""

    __slots__ = ("aw", "is_cut_short")

    def __init__(self, aw: Any) -> None:
        _excuse(aw)
        self.aw = aw
        self.is_cut_short = False  # by a cancellation of all of us

    def take(self) -> Any:
        aw, self.aw = self.aw, None
        return aw

    def close(self) -> None:
        aw = self.take()
        if aw is not None and _is_coroutine(aw):
            try:
                _check_awaitable("closing it", aw)
            except RuntimeError:  # somebody else has started it
                return
            aw.close()

    __del__ = close


class _Awaitable:
    """Lets `await` take whatever a task can run, a plain generator for one."""

    def __init__(self, coro: Any) -> None:
        self.cr_await = coro  # as a coroutine has it: reports find the way to the innermost line
        self.send = coro.send
        self.throw = coro.throw
        self.close = coro.close

    def __await__(self) -> Any:
        return self

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        return self.send(None)


def _awaitable(aw: Any) -> Any:
    return aw if getattr(type(aw), "__await__", None) is not None else _Awaitable(aw)


def _named(coro: Any, name: str, aw: Any = None) -> Any:
    """A coroutine of ours, to be called like what it awaits, or like the public function."""
    if aw is not None and not isinstance(aw, Task):
        name = getattr(aw, "__qualname__", None)  # type: ignore[assignment]
        if not isinstance(name, str):
            name = f"{type(aw).__name__} object"
    coro.__qualname__ = name
    return coro


async def _wait(aw: Any) -> Any:
    try:
        return await aw
    finally:
        del aw  # a task that failed: its exception is not to hold it


# ---- gather --------------------------------------------------------------------------------------


def gather(*aws: Any, return_exceptions: bool = False) -> Coroutine[Any, Any, list[Any]]:
    """Run coroutines side by side, wait for tasks and other awaitables, and return all results.

    The results are a list in the order of the arguments. If one fails, the coroutines that are left
    are cancelled and run their cleanup; then its exception is raised as it is; of several, an
    ExceptionGroup. Tasks that were given are only waited for: they are never cancelled.

    With return_exceptions, nothing is cancelled: an exception stands where its result would, also
    the CancelledError of a task that was cancelled. When the caller itself is cancelled, so are the
    coroutines, and CancelledError is raised; or, where cleanup fails, what that raised. Likewise
    when it is interrupted; but if all have ended nevertheless, it returns their results, and the
    next await raises the Interrupt.

    What gather() returns is awaited once. If it never is, the coroutines are closed.

    Raises TypeError for what can neither be run nor awaited, and RuntimeError for a coroutine that
    has been started or is given twice, or a task of another loop, at the call.

    >>> import math, sleeploop
    >>> async def double(x):
    ...     await sleeploop.sleep(x)
    ...     return 2 * x
    >>> async def main():
    ...     results = await sleeploop.gather(double(3), double(1), double(2))
    ...     return results, sleeploop.current_loop().time()
    >>> sleeploop.run(main(), speed=math.inf)
    ([6, 2, 4], 3.0)
    """
    if len(aws) == 1 and (isinstance(aws[0], (list, tuple, set)) or _is_expression(aws[0])):
        raise TypeError(
            f"gather() takes awaitables one by one, not {aws[0]!r:.200}; unpack it: gather(*coros)"
        )
    _check_several("gather()", aws)
    given = [_Given(aw) for aw in aws]
    return _named(_gather(given, return_exceptions), "gather")  # type: ignore[no-any-return]


def _is_expression(aw: Any) -> bool:
    """`(f(x) for x in xs)` is a generator, but nobody means it as a coroutine."""
    return isinstance(aw, GeneratorType) and aw.gi_code.co_name == "<genexpr>"


async def _gather(given: list[_Given], return_exceptions: bool) -> list[Any]:
    errors: dict[int, BaseException] = {}  # by id: each counts once
    try:
        _check_several("gather()", [one.aw for one in given])  # again, for it may have been a while
        _check_is_not_own(given)
        async with TaskGroup() as group:
            _give_way(group)
            run = _outcome if return_exceptions else _coroutine
            tasks = [group.create_task(run(one, errors)) for one in given]
        if not (group.cancel_scope.cancel_called and any(map(_is_cut_short, given, tasks))):
            return [_result(task) if return_exceptions else task.result() for task in tasks]
        if not errors:
            await checkpoint()  # raises the Interrupt: it was that which cancelled
    except BaseExceptionGroup as failures:
        errors.update((id(error), error) for error in failures.exceptions)
    except CancelledError:
        if not errors:
            raise
    finally:
        tasks = []  # they hold exceptions whose tracebacks hold this frame
        for one in given:
            one.close()  # what was cancelled before its first step
    try:
        raise _combined(list(errors.values()))  # here, where none becomes its own context
    finally:
        del errors


def _check_is_not_own(given: Sequence[_Given], function: str = "gather()") -> None:
    me = _need_task(function)
    if any(one.aw is me for one in given):
        raise RuntimeError(f"{function} cannot wait for the task that awaits it: {me!r:.200}")


def _coroutine(given: _Given, _: dict[int, BaseException]) -> Any:
    """What a task can run."""
    aw = given.take()
    return aw if _is_coroutine(aw) else _named(_wait(aw), "gather", aw)


async def _run_outcome(given: _Given, late: dict[int, BaseException]) -> Any:
    try:
        return await _awaitable(given.take())
    except (Exception, CancelledError) as error:
        if current_effective_deadline() == -math.inf:
            if isinstance(error, Exception):
                late[id(error)] = error  # nobody gets the results
            else:
                given.is_cut_short = True
        return error
    finally:
        del late  # as it holds the exception, whose traceback holds this frame


def _outcome(given: _Given, late: dict[int, BaseException]) -> Any:
    """What a task can run, to return the exception as well."""
    return _named(_run_outcome(given, late), "gather", given.aw)


def _is_cut_short(given: _Given, task: Task[Any]) -> bool:
    return given.is_cut_short or task.cancelled()


def _result(task: Any) -> Any:
    try:
        return task.result()
    except CancelledError as error:  # before its first step
        return error
    finally:
        del task  # the result is not to hold it


def _combined(errors: list[BaseException]) -> BaseException:
    if len(errors) == 1:
        return errors[0]
    return BaseExceptionGroup(f"{len(errors)} errors in gather()", errors)


# ---- as_completed --------------------------------------------------------------------------------


def as_completed(aws: Iterable[Any], *, timeout: float | timedelta | None = None) -> _AsCompleted:
    """Run coroutines, wait for tasks and other awaitables, and iterate over them as they finish.

    `async for task in as_completed(aws)` gives finished tasks in the order in which they finish:
    those that were given, and for everything else a new one. `await task` then gives the result or
    raises the exception. As in asyncio, a plain `for` or next() gives as many awaitables instead,
    each of which waits for the next result.

    Several tasks may share the iteration. One that is cancelled while it waits takes nothing: what
    it would have got goes to another, or to the next `async for`.

    The new tasks belong to the loop: they run on when the iteration is given up.

    timeout: seconds or a timedelta from the call on, after which waiting raises TimeoutError. What
    has finished is still given.

    Raises TypeError for what can neither be run nor awaited, RuntimeError for a coroutine that has
    been started or is given twice, or a task of another loop, and RuntimeError without a running
    loop, at the call.

    >>> import math, sleeploop
    >>> async def double(x):
    ...     await sleeploop.sleep(x)
    ...     return 2 * x
    >>> async def main():
    ...     async for task in sleeploop.as_completed([double(3), double(1)]):
    ...         print(await task, sleeploop.current_loop().time())
    >>> sleeploop.run(main(), speed=math.inf)
    2 1.0
    6 3.0
    """
    _need_loop("as_completed()")
    limit = time_limit(timeout)
    try:
        iterator = iter(aws)
    except TypeError:
        iterator = None
    if iterator is None or hasattr(aws, "__await__"):  # a sleep has both
        raise TypeError(f"as_completed() takes an iterable of awaitables, not {aws!r:.200}")
    listed = list(iterator)
    _check_several("as_completed()", listed)
    return _AsCompleted(listed, limit.deadline)


class _Waiter:
    """A task that waits for the next result."""

    __slots__ = ("given", "scope", "task")

    def __init__(self) -> None:
        self.given: Task[Any] | None = None
        self.scope = CancelScope()  # cancelled to wake it
        self.task = _need_task("as_completed()")


class _AsCompleted(AsyncIterator[Any], Iterator[Any]):
    """What as_completed() returns."""

    def __init__(self, aws: list[Any], deadline: float) -> None:
        self._loop = _need_loop("as_completed()")
        self._deadline = deadline
        self._turns = len(aws)  # results that nobody has been promised
        self._missed = 0  # those that were promised to somebody who was cancelled
        self._finished: deque[Task[Any]] = deque()
        self._watchers: dict[int, Task[Any]] = {}  # of what has not finished
        self._waiters: OrderedDict[_Waiter, None] = OrderedDict()
        tasks = [aw if isinstance(aw, Task) else create_task(_runnable(aw)) for aw in aws]
        for i, task in enumerate(tasks):
            if task.done():
                self._finished.append(task)
            else:
                # Made here: if there is no memory for it, nobody is to wait for it in vain.
                done = _wait_done(task)
                self._watchers[i] = _watch(_deliver_when_done(weakref.ref(self), i, task, done))

    def __del__(self, unwatch: Callable[[Task[Any]], None] = _unwatch) -> None:
        for watcher in self._watchers.values():
            unwatch(watcher)

    def __repr__(self) -> str:
        left, ready = self._turns + self._missed, len(self._finished)
        return f"<as_completed() with {left} to come, {ready} of them finished>"

    def _finish(self, i: int, task: Task[Any]) -> None:
        del self._watchers[i]
        self._deliver(task)

    def _deliver(self, task: Task[Any]) -> None:
        while self._waiters:
            waiter, _ = self._waiters.popitem(last=False)
            if waiter.task.waiting_on is not None:  # else it has been cancelled before
                waiter.given = task
                waiter.scope.cancel()
                return
        self._finished.append(task)

    async def _next(self) -> Any:
        if _need_loop("as_completed()") is not self._loop:
            raise RuntimeError("this as_completed() belongs to another loop")
        if self._finished:
            await _wait_done(self._finished[0])  # which only waits to be cancelled, if we are
            return self._finished.popleft()
        waiter = _Waiter()
        self._waiters[waiter] = None
        try:
            with timeout_at(self._deadline):
                try:
                    with waiter.scope:
                        await _park()
                except CancelledError:
                    if waiter.given is None:
                        raise
                    # The result came first. The next await is cancelled.
            return waiter.given
        except BaseException:
            self._waiters.pop(waiter, None)
            if waiter.given is not None:
                self._deliver(waiter.given)
            raise
        finally:
            del waiter  # its task may end with what is raised here

    async def __anext__(self) -> Any:
        if self._missed > 0:
            self._missed -= 1
        elif self._turns > 0:
            self._turns -= 1
        else:
            raise StopAsyncIteration
        try:
            return await self._next()
        except BaseException:
            self._missed += 1
            raise

    def __next__(self) -> Coroutine[Any, Any, Any]:
        if self._turns == 0:
            raise StopIteration
        self._turns -= 1
        return _named(self._next_result(), "as_completed")  # type: ignore[no-any-return]

    async def _next_result(self) -> Any:
        try:
            task = await self._next()
        except BaseException:
            self._missed += 1
            raise
        try:
            return task.result()
        finally:
            del task  # its exception is not to hold it


async def _deliver_when_done(
    ref: weakref.ref[_AsCompleted], i: int, task: Task[Any], done: Awaitable[None]
) -> None:
    if ref() is None:
        return
    try:
        await done
    except Interrupt:  # the iteration has been dropped: see there
        return
    completed = ref()
    if completed is not None:
        completed._finish(i, task)


def _runnable(aw: Any) -> Any:
    return aw if _is_coroutine(aw) else _named(_wait(aw), "as_completed", aw)


# ---- wait_for ------------------------------------------------------------------------------------


def wait_for(aw: Any, timeout: float | timedelta | None) -> Coroutine[Any, Any, Any]:
    """Await something for a limited time: its result, or TimeoutError.

    A coroutine is cancelled when the time is over, and runs its cleanup first. A task is only
    waited for: it runs on, since cancelling who waits for a task does not cancel the task. One that
    has finished gives its result at any timeout.

    timeout: seconds or a timedelta from the `await` on; None or inf: no limit.

    What wait_for() returns is awaited once. If it never is, a coroutine is closed.

    Raises TypeError for what cannot be awaited or is no time, ValueError for nan, and RuntimeError
    for a coroutine that has been started or a task of another loop, at the call.

    >>> import math, sleeploop
    >>> async def main():
    ...     try:
    ...         await sleeploop.wait_for(sleeploop.sleep(10), timeout=3)
    ...     except TimeoutError:
    ...         return sleeploop.current_loop().time()
    >>> sleeploop.run(main(), speed=math.inf)
    3.0
    """
    limit = time_limit(timeout)
    _check("wait_for()", aw)
    return _named(_wait_for(_Given(aw), limit), "wait_for")  # type: ignore[no-any-return]


async def _wait_for(given: _Given, limit: CancelScope) -> Any:
    aw = given.take()
    try:
        if isinstance(aw, Task) and aw.done():
            return await aw
        _need_task("wait_for()")
        with limit:
            return await _awaitable(aw)
    finally:
        del aw  # a task that failed: its exception is not to hold it
