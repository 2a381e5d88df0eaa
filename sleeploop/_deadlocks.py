"""Circles of tasks that wait for each other: find_deadlocks(), and the report of a deadlock.

Some wait for one task, some for all of several, and some for any of several. A task has a way out
if it waits for no task, or if enough of those it waits for have one. The others are stuck; and
whoever follows in there from one to the next must come to a circle, or to a task that is gone.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any

from _sleeploop import (
    DeadlockError,
    SleepingLoop,
    _blockers,
    _describe_wait,
    _effective_deadline,
    _need_loop,
    _wait_graph,
)

from sleeploop._tree import report as report_tasks
from sleeploop._tree import seconds

_LONGEST = 20  # tasks of a circle that are told
_MOST = 10  # circles in the report of a deadlock


class _Graph:
    """Nodes are the numbers of tasks and, below zero, what several tasks have together."""

    def __init__(self, loop: SleepingLoop) -> None:
        self.tasks: dict[int, Any] = {}  # by number, those that have not finished
        self.how: dict[int, str] = {}
        self.next: dict[int, list[int]] = {}  # who waits -> whom for
        shared: dict[Any, int] = {}
        late: list[tuple[int, int]] = []
        for task, number, how, what in _wait_graph(loop):
            self.tasks[number] = task
            self.how[number] = how
            if how in ("one", "join"):
                self.next[number] = [what]
            elif how == "start":
                self.next[number] = [starting for starting in what[:1] if starting]
                if what[0] and what[1]:
                    late.append((what[1], what[0]))
            elif how in ("group", "race"):
                self.next[number] = what
            elif how == "shared":
                node = shared.get(what)
                if node is None:
                    node = shared[what] = -1 - len(shared)
                    self.next[node] = _blockers(task)
                self.next[number] = [node]
        for host, number in late:  # the group waits for those that are starting as well
            if self.how.get(host) == "group":
                self.next[host].append(number)

    def stuck(self) -> dict[int, list[int]]:
        """The nodes without a way out, in order, each with those it waits for that are stuck, too.

        Those that are gone are not among them.
        """
        waiters: dict[int, list[int]] = {}
        missing: dict[int, int] = {}  # how many of those it waits for have to have a way out
        free = [number for number in self.tasks if not self.next.get(number)]
        for node, blockers in self.next.items():
            missing[node] = len(blockers) if self.how.get(node) == "group" else 1
            for blocker in blockers:
                waiters.setdefault(blocker, []).append(node)
            if not blockers and node < 0:
                free.append(node)
        found = set(free)
        while free:
            for node in waiters.get(free.pop(), ()):
                missing[node] -= 1
                if missing[node] <= 0 and node not in found:
                    found.add(node)
                    free.append(node)
        return {
            node: [b for b in blockers if b in self.next and b not in found]
            for node, blockers in self.next.items()
            if node not in found
        }


def _components(graph: dict[int, list[int]]) -> list[list[int]]:
    """Its strongly connected components of more than one node, by Tarjan's algorithm."""
    index: dict[int, int] = {}
    low: dict[int, int] = {}
    found, path, on_path = [], [], set()
    for root in graph:
        if root in index:
            continue
        index[root] = low[root] = len(index)
        path.append(root)
        on_path.add(root)
        pending = [(root, iter(graph[root]))]
        while pending:
            node, successors = pending[-1]
            for successor in successors:
                if successor not in index:
                    index[successor] = low[successor] = len(index)
                    path.append(successor)
                    on_path.add(successor)
                    pending.append((successor, iter(graph[successor])))
                    break
                if successor in on_path:
                    low[node] = min(low[node], index[successor])
            else:
                pending.pop()
                if pending:
                    outer = pending[-1][0]
                    low[outer] = min(low[outer], low[node])
                if low[node] == index[node]:
                    at = len(path) - 1
                    while path[at] != node:
                        at -= 1
                    component = path[at:]
                    del path[at:]
                    on_path.difference_update(component)
                    if len(component) > 1 or node in graph[node]:
                        found.append(component)
    return found


def _circle_through(
    start: int, inside: dict[int, list[int]], shorter_than: float, left: list[int]
) -> list[int] | None:
    """A shortest circle through a node, in tasks: what several have together counts nothing.

    left: how many steps may be made, less those that are.
    """
    came_from = {start: start}
    length = {start: 0}
    done = set()
    pending = deque([start])
    best, last = shorter_than, None
    while pending:
        node = pending.popleft()
        if node in done:
            continue
        done.add(node)
        cost = length[node] + (node > 0)
        if cost >= best:
            continue
        for successor in inside[node]:
            left[0] -= 1
            if successor == start:
                best, last = cost, node
                break
            if cost < length.get(successor, math.inf):
                length[successor] = cost
                came_from[successor] = node
                (pending.append if successor > 0 else pending.appendleft)(successor)
    if last is None:
        return None
    circle = [last]
    while circle[-1] != start:
        circle.append(came_from[circle[-1]])
    circle.reverse()
    return circle


def _shortest_circle(component: list[int], graph: dict[int, list[int]]) -> list[int]:
    """A shortest circle in a component; if that is large and tangled, a short one."""
    members = set(component)
    inside = {node: [b for b in graph[node] if b in members] for node in component}
    # Unless they all form one circle, each circle leads through a node where there is a choice.
    choices = sorted(node for node in component if len(inside[node]) > 1) or [min(component)]
    left = [100_000 + 20 * sum(map(len, inside.values()))]
    best: list[int] = []
    length = math.inf
    for start in choices:
        circle = _circle_through(start, inside, length, left)
        if circle is not None:
            best, length = circle, sum(node > 0 for node in circle)
        if length <= 1 or (best and left[0] <= 0):
            break
    at = best.index(min(node for node in best if node > 0))
    return best[at:] + best[:at]


def _name(task: Any) -> str:
    return f"task {task.name!r}"


def _wait_text(graph: _Graph, number: int, other: str) -> str:
    """What a task waits for, which is or belongs to the other: `waits for ...`"""
    task = graph.tasks[number]
    deadline = _effective_deadline(task)
    until = f" until {seconds(deadline)}" if -math.inf < deadline < math.inf else ""
    how = graph.how[number]
    if how == "start":
        what = f"{other} to start"
    elif how == "group":
        what = f"{other} of its TaskGroup"
    elif how == "race":
        what = f"the first of {len(graph.next[number])} tasks, none of which can end, as {other}"
    elif how in ("one", "shared"):
        title, since = _describe_wait(task)
        if how == "shared" and other:
            what = title if other in title else f"{title}, of which {other} has some"
        elif how == "shared":
            what = f"{title}, of which tasks that are gone have all"
        elif since is not None and other:
            what = f"{title} held by {other} since {seconds(since)}"
        elif since is not None:
            what = f"{title} held since {seconds(since)} by a task that is gone"
        else:
            what = title
    else:
        what = other
    return f"waits{until} for {what}"


def _waits_for_itself(graph: _Graph, number: int) -> bool:
    whom = graph.next[number]
    return number in whom or any(number in graph.next[node] for node in whom if node < 0)


def _error(graph: _Graph, circle: list[int]) -> DeadlockError:
    """circle: numbers of tasks; a single one waits for itself, or for one who is gone."""
    tasks = tuple(graph.tasks[number] for number in circle)
    names = [_name(task) for task in tasks]
    if len(circle) == 1 and not _waits_for_itself(graph, circle[0]):
        others = [""]
    else:
        others = names[1:] + names[:1]
    texts = []
    for i, number in enumerate(circle):
        if len(circle) > _LONGEST and i == _LONGEST // 2:
            texts.append(f"which waits for one of {len(circle) - _LONGEST + 1} more")
        if len(circle) <= _LONGEST or not _LONGEST // 2 <= i <= len(circle) - _LONGEST // 2:
            who = names[0] if i == 0 else "which"
            texts.append(f"{who} {_wait_text(graph, number, others[i])}")
    error = DeadlockError(", ".join(texts))
    error.tasks = tasks
    return error


def _find(loop: SleepingLoop) -> list[DeadlockError]:
    graph = _Graph(loop)
    stuck = graph.stuck()
    circles = []
    for component in _components(stuck):
        circle = [node for node in _shortest_circle(component, stuck) if node > 0]
        circles.append(circle)
    for node, whom in stuck.items():
        shared = len(whom) == 1 and whom[0] < 0
        if node > 0 and not (stuck[whom[0]] if shared else whom):
            circles.append([node])  # who has it is gone
    circles.sort()
    return [_error(graph, circle) for circle in circles]


def find_deadlocks(loop: SleepingLoop | None = None) -> list[DeadlockError]:
    """The circles of tasks that wait for each other right now, while others may still run.

    Each is a DeadlockError, which is returned, not raised: its message tells the circle, and its
    `tasks` are a tuple of those in it. Each waits for the next, and the last for the first, the one
    with the lowest number. Where circles hang together, one of the shortest stands for all.

    Tasks wait for each other at a Lock that another has, by `await task`, at the end of a
    TaskGroup, and in start(). What several have together, or the first of several, is no way out
    only if all of them are stuck. A task that waits for what somebody has who is gone, without
    having given it back, is reported alone. A deadline may end a wait all the same: the message
    tells until when.

    loop: the default is the current loop; RuntimeError where none is.

    >>> import math, sleeploop
    >>> async def take_both(first, second):
    ...     async with first:
    ...         await sleeploop.sleep(1)
    ...         async with second:
    ...             pass
    >>> async def main():
    ...     x, y = sleeploop.Lock(name='x'), sleeploop.Lock(name='y')
    ...     async with sleeploop.TaskGroup() as group:
    ...         group.create_task(take_both(x, y), name='a')
    ...         group.create_task(take_both(y, x), name='b')
    ...         await sleeploop.sleep(2)
    ...         for deadlock in sleeploop.find_deadlocks():
    ...             print(str(deadlock).replace(', which', ',\\nwhich'))
    ...             deadlock.tasks[0].cancel()
    >>> sleeploop.run(main(), speed=math.inf)
    task 'a' waits for Lock 'y' held by task 'b' since 0.0 s,
    which waits for Lock 'x' held by task 'a' since 0.0 s
    """
    return _find(_need_loop("find_deadlocks()") if loop is None else loop)


def ending(loop: SleepingLoop) -> DeadlockError:
    """What ends a run in which every task waits: the circles, and all tasks."""
    lines = ["every task waits for something that cannot happen any more:"]
    circles = _find(loop)
    for circle in circles[:_MOST]:
        kind = "in a circle" if len(circle.tasks) > 1 else "for ever"
        lines.append(f"  {kind}: {circle}")
    if len(circles) > _MOST:
        lines.append(f"  ... and {len(circles) - _MOST} more such")
    lines.append(report_tasks(loop))
    error = DeadlockError("\n".join(lines))
    if circles:
        error.tasks = circles[0].tasks
    return error
