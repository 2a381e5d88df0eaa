"""What a traced loop has done: events, Chrome's trace format, and a picture.

`SleepingLoop(..., trace=True)` and `run(..., trace=True)` keep the last events of a loop;
`loop.trace` reads them.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from _sleeploop import SleepingLoop, _trace_rows, _trace_size

from sleeploop import _chrometrace, _timeline

__all__ = ["Trace", "TraceEvent"]

# By the numbers of csrc/core/trace.h and csrc/api/traceread.h.
_KINDS = ("spawn", "sleep", "checkpoint", "block", "wake", "cancel", "end")
_BLOCK, _END = _KINDS.index("block"), _KINDS.index("end")
_HOW = (
    *("", "returned", "failed", "cancelled"),
    *("explicit", "deadline", "failure", "shutdown"),
)


class TraceEvent(NamedTuple):
    """One thing that happened to a task.

    time: loop time in seconds; time_ns: the same in nanoseconds, exact.
    kind: "spawn", "sleep", "checkpoint", "block", "wake", "cancel" or "end".
    task, number: the task's name and its number, from 1 on in the order of creation.
    other: the number of the task that did it, or that it waits for; 0: none, as when a timer wakes.
    how: of an end "returned", "failed" or "cancelled"; of a cancel "explicit", "deadline",
        "failure" or "shutdown"; else "".
    object: the name of what a task waits at, as it was given to Lock(name=...); "" if it has none.
    file, line, function: the code that spawned, awaits or cancels; of an end, the function that
        has ended. "", 0 and "" if that is not known.

    >>> from sleeploop.tracing import TraceEvent
    >>> TraceEvent(1.0, 10**9, "wake", "Task-1", 1, 0, "", "", 0, "", "").kind
    'wake'
    """

    time: float
    time_ns: int
    kind: str
    task: str
    number: int
    other: int
    how: str
    file: str
    line: int
    function: str
    object: str = ""


class Trace:
    """What a traced loop has noted. `loop.trace` gives it, while the loop runs and afterwards.

    >>> import math, sleeploop
    >>> async def nap(seconds):
    ...     await sleeploop.sleep(seconds)
    >>> loop = sleeploop.SleepingLoop(nap(2), speed=math.inf, trace=True)
    >>> loop.run_until_complete()
    [None]
    >>> for event in loop.trace.events:
    ...     print(event.time, event.kind, event.how or "-", event.function or "-")
    0.0 spawn - <module>
    0.0 sleep - nap
    2.0 wake - -
    2.0 end returned nap
    """

    def __init__(self, loop: SleepingLoop) -> None:
        _trace_size(loop)  # raises what there is to raise
        self._loop = loop

    def __repr__(self) -> str:
        return f"<Trace: {self.summary()}>"

    def summary(self) -> str:
        """How much there is: `36 events`, `100 events, 23 before them are lost`."""
        left, lost = _trace_size(self._loop)
        text = f"{left:,} event{'s' * (left != 1)}"
        return text + (f", {lost:,} before them are lost" if lost else "")

    @property
    def events(self) -> list[TraceEvent]:
        """The events that are left, the oldest first: a new list of TraceEvent."""
        return self._read()[0]

    @property
    def lost(self) -> int:
        """How many older events have been overwritten."""
        lost: int = _trace_size(self._loop)[1]
        return lost

    def _read(self) -> tuple[list[TraceEvent], int, dict[int, str]]:
        """The events, how many are lost, and the functions of tasks that have not finished."""
        total, rows, places, live = _trace_rows(self._loop)
        unknown = ("", 0, "")
        found: list[tuple[str, int, str]] = [
            unknown,
            *((file, max(line, 0), name) for file, line, name in places),
        ]
        names = {row[2]: row[6] for row in rows if row[1] == _END and row[6] is not None}
        names.update((number, name) for number, (name, _) in live.items() if name is not None)
        names[0] = ""
        events = [
            TraceEvent(
                time / 1e9,
                time,
                _KINDS[kind],
                names.get(number) or (f"Task-{number}" if number else ""),
                number,
                other,
                _HOW[how],
                file,
                line,
                function,
                (name or "") if kind == _BLOCK else "",
            )
            for time, kind, number, other, place, how, name, _ in rows
            for file, line, function in (found[place],)
        ]
        functions = {number: function or "" for number, (_, function) in live.items()}
        return events, total - len(rows), functions

    def to_json(self) -> str:
        """The trace in Chrome's trace-event format, for https://ui.perfetto.dev or chrome://tracing.

        Each task is a track; arrows lead from who woke or made a task to that task. Times are loop
        time. In virtual time the same program gives the same text, every time.
        """
        return _chrometrace.to_json(*self._read())

    def to_svg(self) -> str:
        """A timeline as one SVG file: a row for each task, the first 200 of them.

        It needs no script and no other file, follows the reader's light or dark colours, and tells
        more where the pointer rests.
        """
        return _timeline.to_svg(*self._read())

    def write_json(self, path: str | os.PathLike[str]) -> None:
        """Write to_json() to a file. Raises OSError if that cannot be done."""
        _write(path, self.to_json())

    def write_svg(self, path: str | os.PathLike[str]) -> None:
        """Write to_svg() to a file. Raises OSError if that cannot be done."""
        _write(path, self.to_svg())


def _write(path: str | os.PathLike[str], text: str) -> None:
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        file.write(text)
