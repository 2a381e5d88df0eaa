"""The tree of tasks as text: who made whom, and what each waits for."""

from __future__ import annotations

import math
from collections.abc import Container, Iterator
from typing import Any

from _sleeploop import SleepingLoop, _task_tree, current_loop

from sleeploop._stacks import innermost

_MOST = 50  # tasks of a report of a deadlock


def seconds(time: float) -> str:
    return f"{round(time, 3)!r} s"  # in real time nobody reads nanoseconds


def _line(task: Any, deadline: float) -> str:
    """One task: `Task 'name' function: what it does, since when, until when, where`."""
    parts = [repr(task)[1:-1]]
    if task.waiting_since is not None:
        word = "waiting since" if " since " in parts[0] else "since"  # else whose that one is?
        parts.append(f"{word} {seconds(task.waiting_since)}")
    if -math.inf < deadline < math.inf:
        parts.append(f"deadline {seconds(deadline)}")
    line = innermost(task.coro)
    if line is not None:
        parts.append(f"at {line}")
    if task.created_at:
        made = task.created_at[-1]
        parts.append(f"made at {made.filename}:{made.lineno} in {made.name}")
    return ", ".join(parts)


def lines(
    loop: SleepingLoop, most: float = math.inf, of: Container[Any] | None = None
) -> Iterator[str]:
    """A line for each task that has not finished, children indented below their parents.

    of: only these tasks and their children.
    """
    rows = _task_tree(loop)
    numbers = {number for _, number, _, _ in rows}
    tops = {row[1] for row in rows if row[2] not in numbers or (of is not None and row[0] in of)}
    children: dict[int, list[Any]] = {}
    for row in reversed(rows):
        children.setdefault(0 if row[1] in tops else row[2], []).append(row)
    # Without recursion, since a task can be the child of a child of 20,000 others.
    pending = [(row, 0) for row in children.get(0, ()) if of is None or row[0] in of]
    shown = 0
    while pending:
        if shown >= most:
            yield f"... and {len(rows) - shown} more"
            return
        (task, number, _, deadline), depth = pending.pop()
        yield "  " * depth + _line(task, deadline)
        shown += 1
        pending += [(row, depth + 1) for row in children.get(number, ())]


def format_tasks(loop: SleepingLoop | None = None) -> str:
    """The tasks of a loop that have not finished, as a tree: a line each, children indented.

    A line tells the task's name and function, what it waits for, since when and until when in loop
    time, the deadline that is in force where it is, and the innermost line of its own code; in a
    debug run also where the task was made.

    loop: the default is the current loop; RuntimeError where none is.

    >>> import math, sleeploop
    >>> async def child():
    ...     await sleeploop.sleep(5)
    >>> async def main():
    ...     async with sleeploop.TaskGroup() as group:
    ...         group.create_task(child(), name='child')
    ...         await sleeploop.sleep(1)
    ...         print(sleeploop.format_tasks())
    >>> sleeploop.run(main(), speed=math.inf)
    Task 'Task-1' main: running, at <doctest format_tasks[2]>:5 in main
      Task 'child' child: sleeping until 5.0 s, since 0.0 s, at <doctest format_tasks[1]>:2 in child
    """
    return "\n".join(lines(current_loop() if loop is None else loop))


def report(loop: SleepingLoop) -> str:
    """The same for the message of an error: indented, and not more than people read."""
    return "\n".join(f"  {line}" for line in lines(loop, _MOST))
