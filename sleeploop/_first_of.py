"""Several awaitables, of which the first counts, or all or none: first_of(), all_of()."""

from __future__ import annotations

import math
from collections.abc import Coroutine
from typing import Any

from _sleeploop import (
    CancelledError,
    CancelScope,
    Task,
    TaskGroup,
    _act_for,
    _begins_wait,
    _give_back,
    _give_way,
    _is_cancelled,
    _race,
    _take_place,
    checkpoint,
    current_effective_deadline,
)

from sleeploop._combine import (
    _awaitable,
    _check,
    _check_is_not_own,
    _Given,
    _is_expression,
    _named,
)

# _begins_wait(aw): True for a Wait of ours that has not been awaited, False for one that has been,
# None for everything else.


class _One(_Given):
    """One of the awaitables, and what has come of it."""

    __slots__ = ("has_value", "is_cancelled", "key", "value")

    def __init__(self, aw: Any) -> None:
        self.key = aw
        self.value: Any = None
        self.has_value = False
        self.is_cancelled = False  # by no cancellation of ours
        super().__init__(aw)

    def close(self) -> None:
        # One of ours that waits at a Lock or the like has nothing until it is awaited, and may
        # have been awaited by somebody else meanwhile.
        if _begins_wait(self.aw) is None:
            super().close()

    __del__ = close

    def undo(self) -> None:
        if self.has_value:
            self.has_value = False
            value, self.value = self.value, None
            _undo(self.key, value)


def _undo(aw: Any, value: Any) -> None:
    """Give back what an awaitable has got, if that can be done."""
    if _begins_wait(aw) is not None:
        _give_back(aw, value)
    elif _is_of_here(aw):
        for inner in reversed(value):
            _undo(inner, value[inner])


def _check_all(function: str, aws: Any) -> None:
    for aw in aws:
        begins = _begins_wait(aw)
        if begins is None:
            _check(function, aw)
        elif not begins:
            raise RuntimeError(f"{function} was given what has been awaited before: {aw!r:.200}")
    try:
        if len({*aws}) == len(aws):
            return
    except TypeError:
        pass
    _check_keys(function, aws)


def _check_keys(function: str, aws: Any) -> None:
    """Say which of them cannot be keys of one dict."""
    seen = set()
    for aw in aws:
        try:
            hash(aw)
        except TypeError:
            raise TypeError(
                f"{function} takes awaitables that can be keys of its result, not the unhashable "
                f"{aw!r:.200}"
            ) from None
        if aw in seen:
            raise RuntimeError(f"{function} was given the same awaitable twice: {aw!r:.200}")
        seen.add(aw)


def _given(function: str, aws: tuple[Any, ...]) -> list[_One]:
    if len(aws) == 1 and (isinstance(aws[0], (list, tuple, set)) or _is_expression(aws[0])):
        name = function[:-2]
        raise TypeError(
            f"{function} takes awaitables one by one, not {aws[0]!r:.200}; unpack it: {name}(*aws)"
        )
    _check_all(function, aws)
    return [_One(aw) for aw in aws]


def first_of(*aws: Any) -> Coroutine[Any, Any, dict[Any, Any]]:
    """Wait for the first of several awaitables to end, cancel the others, and return its result.

    Takes what gather() takes: coroutines, tasks, and what sleep(), Event.wait(), Lock.acquire() and
    their like return. The result is a dict {awaitable: result}, in the order in which they ended:
    of the first, and of those that had got what they waited for before they could be cancelled.
    What is in it has happened, what is not in it has not: no item and no lock gets lost.

    Locks and the like that it acquires belong to the task that awaits first_of(). The others have
    run their cleanup when it returns. Tasks that were given are only waited for: never cancelled.

    If one fails, the others are cancelled, what they have got from a Lock or the like is given
    back, and the exception is raised as it is; of several, an ExceptionGroup. If the caller is
    cancelled when something has got its result, that is returned, and the next await raises
    CancelledError; else this one does.

    What first_of() returns is awaited once. If it never is, the coroutines are closed.

    Raises TypeError for what can neither be run nor awaited or is not hashable, ValueError without
    any, and RuntimeError for what has been started or awaited, for the same twice, or a task of
    another loop, at the call.

    >>> import math, sleeploop
    >>> async def main():
    ...     bell = sleeploop.Event(name='bell')
    ...     rings, tea = bell.wait(), sleeploop.sleep(3)
    ...     done = await sleeploop.first_of(rings, tea)
    ...     return rings in done, tea in done, sleeploop.current_loop().time()
    >>> sleeploop.run(main(), speed=math.inf)
    (False, True, 3.0)
    """
    given = _given("first_of()", aws)
    if not given:
        raise ValueError("first_of() takes at least one awaitable: of none, none ends first")
    return _named(_first_of(given), "first_of")  # type: ignore[no-any-return]


def all_of(*aws: Any) -> Coroutine[Any, Any, dict[Any, Any]]:
    """Wait for several awaitables and return all results, or none: a dict {awaitable: result}.

    Takes what first_of() takes; the results are in the order of the arguments. As gather(), but if
    one fails or the caller is cancelled before all have ended, then what the others have got from
    a Lock or the like is given back, and the exception is raised; what was put or sent stays. If
    all have ended, it returns their results even then, and the next await raises CancelledError.

    Locks and the like that it acquires belong to the task that awaits all_of(). They are asked for
    all at once, in one step: of tasks that wait for several that way and have nothing else
    meanwhile, one can always go on.

    Raises what first_of() raises; without any awaitables, the result is empty.

    >>> import math, sleeploop
    >>> async def main():
    ...     left, right = sleeploop.Lock(name='left'), sleeploop.Lock(name='right')
    ...     await sleeploop.all_of(left.acquire(), right.acquire())
    ...     print(left, right)
    >>> sleeploop.run(main(), speed=math.inf)
    <Lock 'left' held by task 'Task-1' since 0.0 s> <Lock 'right' held by task 'Task-1' since 0.0 s>
    """
    return _named(_all_of(_given("all_of()", aws)), "all_of")  # type: ignore[no-any-return]


async def _first_of(given: list[_One]) -> dict[Any, Any]:
    return await _run(given, is_race=True)


async def _all_of(given: list[_One]) -> dict[Any, Any]:
    return await _run(given, is_race=False)


def _is_of_here(aw: Any) -> bool:
    return getattr(aw, "cr_code", None) in (_first_of.__code__, _all_of.__code__)


async def _run(given: list[_One], is_race: bool) -> dict[Any, Any]:
    function, enough = ("first_of()", 1) if is_race else ("all_of()", len(given))
    ended: list[_One] = []
    tasks: list[Task[Any]] = []
    errors: list[BaseException] = []
    try:
        _check_all(function, [one.aw for one in given])  # again, for it may have been a while
        _check_is_not_own(given, function)
        try:
            async with TaskGroup() as group:
                _give_way(group)
                if is_race:
                    _race(group)
                _begin(given, is_race, group, tasks, ended)
        except BaseExceptionGroup as failures:
            errors += failures.exceptions
        except CancelledError:
            if len(ended) < enough or not given:
                raise
            # It has happened. The next await is cancelled.
        if not errors:
            if any(one.is_cancelled for one in given):
                _raise_cancelled(given, tasks)
            if len(ended) < enough:
                if group.cancel_scope.cancel_called:  # the caller has been interrupted
                    _undo_all(given, ended)
                    await checkpoint()  # raises the Interrupt
                _raise_cancelled(given, tasks)
            return {one.key: one.value for one in (ended if is_race else given)}
        _undo_all(given, ended)
    except BaseException:
        _undo_all(given, ended)
        raise
    finally:
        tasks.clear()  # these hold exceptions whose tracebacks hold this frame
        _close(given)
    try:
        raise _combined(errors, function)  # here, where none becomes its own context
    finally:
        del errors


def _start(group: TaskGroup, coro: Any, aw: Any) -> tuple[Task[Any], bool]:
    """A task, and whether it has got already what it waits for."""
    if _begins_wait(aw):
        return _take_place(group, coro, aw)  # type: ignore[no-any-return]
    task = group.create_task(coro)
    if _is_of_here(aw):
        _act_for(task)
    return task, False


async def one_of_several(one: _One, ended: list[_One], is_race: bool, scope: CancelScope) -> None:
    """The task for one of the awaitables; it is by this name that pictures of traces show it."""
    try:
        one.value = await _awaitable(one.take())
        one.has_value = True
        ended.append(one)
        if is_race:
            scope.cancel("another one came first")
    except CancelledError:
        if current_effective_deadline() != -math.inf:
            one.is_cancelled = True
            scope.cancel("another one was cancelled")
        raise
    finally:
        del one  # it leads to a task that failed, whose exception leads here


def _begin(
    given: list[_One], is_race: bool, group: TaskGroup, tasks: list[Task[Any]], ended: list[_One]
) -> None:
    """Have a task wait for each, unless its outcome is there, or an earlier one's is enough."""
    scope, name = group.cancel_scope, "first_of" if is_race else "all_of"
    try:
        for one in given:
            if is_over := _has_ended(one.aw):
                task = one.take()
                tasks.append(task)
                one.is_cancelled = task.cancelled()
                if one.is_cancelled:
                    scope.cancel("another one was cancelled")
                    return
                one.value, one.has_value = task.result(), True
                ended.append(one)
            else:
                coro = one_of_several(one, ended, is_race, scope)
                task, is_over = _start(group, _named(coro, name, one.aw), one.aw)
                tasks.append(task)
            if is_over and is_race:
                scope.cancel("another one came first")
                return
    finally:
        one = task = None  # type: ignore[assignment]  # this frame may be in an error's traceback


def _close(given: list[_One]) -> None:
    """Close what was cancelled before its first step, and let go of all."""
    for one in given:
        one.close()
    given.clear()


def _has_ended(aw: Any) -> bool:
    """Whether aw is a task whose outcome can be had at once; in a cancelled scope nothing can."""
    return isinstance(aw, Task) and aw.done() and not _is_cancelled()


def _raise_cancelled(given: list[_One], tasks: list[Task[Any]]) -> None:
    """The CancelledError of what somebody else has cancelled."""
    for one, task in zip(given, tasks, strict=False):
        if one.is_cancelled or not one.has_value:
            (one.key if isinstance(one.key, Task) and one.key.done() else task).result()


def _undo_all(given: list[_One], ended: list[_One]) -> None:
    """The last first, so that items come to stand where they stood."""
    while ended:
        ended.pop().undo()
    for one in given:
        one.undo()


def _combined(errors: list[BaseException], function: str) -> BaseException:
    if len(errors) == 1:
        return errors[0]
    return BaseExceptionGroup(f"{len(errors)} errors in {function}", errors)
