"""To wait for tasks and leave them alone, by asyncio's names: wait(), shield()."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from datetime import timedelta
from typing import Any

from _sleeploop import (
    CancelScope,
    Task,
    TaskGroup,
    _check_awaitable,
    _give_way,
    _has_failed,
    _need_loop,
    _need_task,
    _race,
    _wait_done,
    checkpoint,
    create_task,
)
from _sleeploop import timeout as time_limit

from sleeploop._combine import _check, _is_coroutine, _named
from sleeploop._combine import _wait as _await

FIRST_COMPLETED = "FIRST_COMPLETED"
FIRST_EXCEPTION = "FIRST_EXCEPTION"
ALL_COMPLETED = "ALL_COMPLETED"

# Which task that has finished is enough for wait() to return, though others have not.
_ENOUGH: dict[Any, Callable[[Task[Any]], bool]] = {
    FIRST_COMPLETED: lambda task: True,
    FIRST_EXCEPTION: _has_failed,
    ALL_COMPLETED: lambda task: False,
}


def wait(
    aws: Iterable[Task[Any]],
    *,
    timeout: float | timedelta | None = None,
    return_when: str = ALL_COMPLETED,
) -> Coroutine[Any, Any, tuple[set[Task[Any]], set[Task[Any]]]]:
    """Wait for tasks, and return two sets: those that have finished, and those that have not.

    No task is cancelled, and no exception of theirs raised: ask each in the first set for its
    result() or await it. What nobody asks for is a failure that nobody has seen, as of any task. A
    set has no order; as_completed() gives tasks in the order in which they finish.

    timeout: seconds or a timedelta from the `await` on, after which it returns what there is; None
    or inf: no limit. There is no TimeoutError. With 0 or less it looks, and steps aside once if it
    would have to wait.

    return_when: ALL_COMPLETED; FIRST_COMPLETED: as soon as one has finished, be it by a failure or
    a cancellation; FIRST_EXCEPTION: as soon as one has failed, or all have finished.

    Raises TypeError for what is no task, a coroutine for one, ValueError for none at all, for nan,
    and for another return_when, and RuntimeError for a task of another loop, at the call; and
    RuntimeError if the task that awaits it is among them.

    >>> import math, sleeploop
    >>> async def main():
    ...     tea, bell = (sleeploop.create_task(sleeploop.sleep(s), name=str(s)) for s in (3, 5))
    ...     done, pending = await sleeploop.wait([tea, bell], timeout=4)
    ...     return done == {tea}, pending == {bell}, sleeploop.current_time()
    >>> sleeploop.run(main(), speed=math.inf)
    (True, True, 4.0)
    """
    limit = time_limit(timeout)
    if not isinstance(return_when, str) or return_when not in _ENOUGH:
        raise ValueError(
            f"wait() takes FIRST_COMPLETED, FIRST_EXCEPTION or ALL_COMPLETED as return_when, not "
            f"{return_when!r:.200}"
        )
    if hasattr(aws, "__await__") or not hasattr(aws, "__iter__"):  # a sleep has both
        raise TypeError(f"wait() takes an iterable of tasks, not {aws!r:.200}")
    tasks = list(dict.fromkeys(_tasks(aws)))  # in order, that they are woken in the same each time
    if not tasks:
        raise ValueError("wait() takes at least one task: for none there is nothing to wait for")
    return _named(_wait(tasks, limit, _ENOUGH[return_when]), "wait")  # type: ignore[no-any-return]


def _tasks(aws: Iterable[Any]) -> Iterable[Task[Any]]:
    for aw in aws:
        if not isinstance(aw, Task):
            raise TypeError(
                f"wait() takes tasks, not {aw!r:.200}; make one of it, by create_task()"
            )
        _check_awaitable("wait()", aw)
        yield aw


async def _wait(
    tasks: list[Task[Any]], limit: CancelScope, is_enough: Callable[[Task[Any]], bool]
) -> tuple[set[Task[Any]], set[Task[Any]]]:
    me = _need_task("wait()")
    for task in tasks:
        _check_awaitable("wait()", task)  # again, for it may have been a while
        if task is me:
            raise RuntimeError(f"wait() cannot wait for the task that awaits it: {me!r:.200}")

    def is_over() -> bool:
        return all(task.done() for task in tasks) or any(
            task.done() and is_enough(task) for task in tasks
        )

    if is_over():
        await _wait_done(next(task for task in tasks if task.done()))  # raises, if we are cancelled
    else:
        with suppress(TimeoutError), limit:
            async with TaskGroup() as group:
                _give_way(group)
                if is_enough is _ENOUGH[FIRST_COMPLETED]:
                    _race(group)
                for task in tasks:
                    if not task.done():
                        one = until_done(task, is_enough, group.cancel_scope)
                        group.create_task(_named(one, "wait"))
            if not is_over():
                await checkpoint()  # raises the Interrupt: it was that which ended the group
    done = {task for task in tasks if task.done()}
    return done, {task for task in tasks if task not in done}


async def until_done(
    task: Task[Any], is_enough: Callable[[Task[Any]], bool], scope: CancelScope
) -> None:
    """The task that waits for one of them; it is by this name that pictures of traces show it."""
    await _wait_done(task)
    if is_enough(task):
        scope.cancel("another one came first")


def shield(aw: Any) -> Task[Any]:
    """Have a coroutine run as a task, so that to cancel who awaits it does not cancel it.

    Returns the task, which `await shield(coro)` waits for: it has been made when shield() returns,
    belongs to the loop, and goes on when the one that awaits it is cancelled. If it then fails,
    that is a failure that nobody has seen, as of any task, and is raised by the run. To await a
    task never cancels it here, so one that is given is returned as it is. At the end of the run it
    is cancelled as all are: a CancelScope with shield=True holds back that, too.

    aw: a coroutine, a task, or anything else that can be awaited.

    Raises TypeError for what can neither be run nor awaited, and RuntimeError for a coroutine that
    has been started, for a task of another loop, and without a running loop.

    >>> import math, sleeploop
    >>> async def save():
    ...     await sleeploop.sleep(3)
    ...     print('saved at', sleeploop.current_time())
    >>> async def main():
    ...     with sleeploop.move_on_after(1):
    ...         await sleeploop.shield(save())
    ...     print('gave up at', sleeploop.current_time())
    ...     await sleeploop.sleep(5)
    >>> sleeploop.run(main(), speed=math.inf)
    gave up at 1.0
    saved at 3.0
    """
    _need_loop("shield()")
    _check("shield()", aw)
    if isinstance(aw, Task):
        return aw
    return create_task(aw if _is_coroutine(aw) else _named(_await(aw), "shield", aw))
