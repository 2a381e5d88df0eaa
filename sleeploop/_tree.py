"""The tree of tasks as text: who made whom, and what each waits for."""

from __future__ import annotations

import math
import operator
from collections.abc import Container, Iterator
from typing import Any, SupportsIndex

from _sleeploop import (
    SleepingLoop,
    _effective_deadline,
    _need_loop,
    _suspended_loop,
    _task_tree,
)

from sleeploop._stacks import innermost
from sleeploop._threads import called_in_thread

_MOST = 50  # lines in the message of an error


def seconds(time: float) -> str:
    return f"{round(time, 3)!r} s"  # in real time nobody reads nanoseconds


def _line(task: Any) -> str:
    """One task: `Task 'name' function: what it does, since when, until when, where`."""
    parts = [repr(task)[1:-1]]
    call = called_in_thread(task.coro)
    if call is not None:
        parts.append(f"which calls {call}")
    if task.waiting_since is not None:
        word = "waiting since" if " since " in parts[0] else "since"  # else whose that one is?
        parts.append(f"{word} {seconds(task.waiting_since)}")
    deadline = _effective_deadline(task)
    if -math.inf < deadline < math.inf:
        parts.append(f"deadline {seconds(deadline)}")
    line = innermost(task.coro)
    if line is not None:
        parts.append(f"at {line}")
    if task.created_at:
        made = task.created_at[-1]
        parts.append(f"made at {made.filename}:{made.lineno} in {made.name}")
    return ", ".join(parts)


def _kind(task: Any) -> tuple[Any, ...]:
    """What tasks have in common that do the same: their function, and the kind of their wait."""
    try:
        return getattr(task.coro, "__qualname__", None), type(task.waiting_on)
    except Exception:  # a report is not to fail by what it reports on
        return ()


class _Tree:
    """The tasks to be shown, by those that they stand below."""

    def __init__(self, loop: SleepingLoop, of: Container[Any] | None) -> None:
        self.rows: list[Any] = []  # whoever made one stands before it
        self.children: dict[int, list[Any]] = {0: []}  # by number; 0: at the margin
        for row in _task_tree(loop):
            task, number, parent = row
            is_below = parent > 0 and parent in self.children and (of is None or task not in of)
            if is_below or of is None or task in of:
                self.rows.append(row)
                self.children[number] = []
                self.children[parent if is_below else 0].append(row)

    def fold(self) -> dict[int, tuple[int, int]]:
        """Of tasks that stand side by side and do the same, as do all below them, keep the first.

        Returns by that one's number how many are like it, and how many tasks go with these.
        """
        shapes: dict[Any, int] = {}
        shape: dict[int, int] = {}
        size: dict[int, int] = {}
        for task, number, _ in reversed(self.rows):  # who was made is younger than who made it
            below = self.children[number]
            key = (_kind(task), frozenset(shape[child[1]] for child in below))
            shape[number] = shapes.setdefault(key, len(shapes))
            size[number] = 1 + sum(size[child[1]] for child in below)
        folded: dict[int, tuple[int, int]] = {}
        for parent, below in self.children.items():
            first: dict[int, Any] = {}
            for row in below:
                kept = first.setdefault(shape[row[1]], row)
                if kept is not row:
                    count, tasks = folded.get(kept[1], (0, 0))
                    folded[kept[1]] = count + 1, tasks + size[row[1]]
            self.children[parent] = list(first.values())
        return folded


def lines(
    loop: SleepingLoop, most: float = math.inf, of: Container[Any] | None = None
) -> Iterator[str]:
    """A line for each task that has not finished, children indented below their parents.

    most: where there are more of them, like tasks are one line with their count; and if there are
    still more, the rest is counted. of: only these tasks and their children.
    """
    tree = _Tree(loop, of)
    left = len(tree.rows)
    folded = tree.fold() if left > most else {}
    # Without recursion, since a task can be the child of a child of 20,000 others.
    pending = [(row, 0) for row in reversed(tree.children[0])]
    shown = 0
    while pending:
        if shown >= most:
            yield f"... and {left:,} more"
            return
        (task, number, _), depth = pending.pop()
        like, tasks = folded.get(number, (0, 0))
        more = f" (and {like:,} more like it)" if like else ""
        yield "  " * depth + _line(task) + more
        shown += 1
        left -= 1 + tasks
        pending += [(row, depth + 1) for row in reversed(tree.children[number])]


def format_tasks(loop: SleepingLoop | None = None, *, limit: SupportsIndex | None = 100) -> str:
    """The tasks of a loop that have not finished, as a tree: a line each, children indented.

    A line tells the task's name and function, what it waits for, since when and until when in loop
    time, the deadline that is in force where it is, and the innermost line of its own code; in a
    debug run also where the task was made.

    loop: the default is the current loop; where none is running, as in a debugger after a failed
    test, the one that this thread has driven last and that can go on. RuntimeError if there is
    none.
    limit: how many lines there may be, 1 or more; None: any number. Where there are more tasks,
    those that stand side by side, with the same function and the same kind of wait, are one line
    with their count; what is still too much is counted at the end. Raises TypeError and ValueError.

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
    most: float = math.inf
    if limit is not None:
        try:
            most = operator.index(limit)
        except TypeError:
            text = f"format_tasks(): limit must be an int or None, not {limit!r:.200}"
            raise TypeError(text) from None
        if most < 1:
            raise ValueError(f"format_tasks(): limit must be 1 or more, not {limit!r:.200}")
    if loop is None:
        try:
            loop = _need_loop("format_tasks()")
        except RuntimeError:
            loop = _suspended_loop()
            if loop is None:
                raise
    return "\n".join(lines(loop, most))


def report(loop: SleepingLoop, of: Container[Any] | None = None) -> str:
    """The same for the message of an error: indented, and not more than people read."""
    return "\n".join(f"  {line}" for line in lines(loop, _MOST, of))
