"""What tasks did from event to event: the part of a trace that its file and its picture share."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sleeploop.tracing import TraceEvent

_LONGEST = 200  # characters of a name
# What XML does not allow, and what UTF-8 cannot tell.
_UNFIT = re.compile("[\0-\b\v\f\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


def clean(text: str, longest: int = _LONGEST) -> str:
    """A name that can be written down: what no file could hold is replaced, and too much is cut."""
    if len(text) > longest:
        text = text[: longest - 1] + "…"
    return _UNFIT.sub("\ufffd", text)


def place(event: TraceEvent) -> str:
    """`file:line`, the same wherever the file is installed; "" if it is not known."""
    return f"{clean(os.path.basename(event.file))}:{event.line}" if event.line else ""


def awaited(event: TraceEvent | None, names: dict[int, str]) -> str:
    """What a task waits for, as far as it is known: ` for 'db' (writer)`, or ""."""
    if event is None:
        return ""
    who = names.get(event.other, "a task") if event.other else ""
    if not event.object:
        return who and f" for {who}"
    return f" for {clean(event.object)!r}" + (who and f" ({who})")


class Span:
    """What a task did for a while: "run" (or ready to), "sleep" or "block"."""

    __slots__ = ("end", "event", "index", "kind", "start", "waker")

    def __init__(self, kind: str, start: int, index: int, event: TraceEvent | None) -> None:
        self.kind = kind
        self.start = self.end = start  # nanoseconds
        self.index = index  # of the event that began it
        self.event = event  # that of its own task
        self.waker = 0  # number of the task that ended it; 0: none did, or it is not known

    def other_waker(self) -> int:
        """Who ended it, if it is not the task that was waited for at first; else 0.

        A lock, say, may have passed through several hands before it was this task's turn.
        """
        first = self.event.other if self.kind == "block" and self.event is not None else 0
        return self.waker if first and self.waker != first else 0


class History:
    """One task's."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.name = f"Task-{number}"
        self.function = ""
        self.spans: list[Span] = []
        self.end: TraceEvent | None = None
        self.open = False  # the last span

    def begin(self, kind: str, time: int, index: int, event: TraceEvent | None) -> None:
        self.close(time)
        self.spans.append(Span(kind, time, index, event))
        self.open = True

    def close(self, time: int) -> None:
        if self.open:
            self.spans[-1].end = time
            self.open = False

    def must_run(self, time: int, index: int) -> None:
        """It does something now. When it began to run may be lost."""
        if not self.open and self.end is None:
            self.begin("run", time, index, None)

    def label(self) -> str:
        return f"{self.name} {self.function}".rstrip()


def histories(events: Iterable[TraceEvent], functions: dict[int, str]) -> list[History]:
    """Of all tasks, in the order of their numbers. functions: of those that have not finished."""
    found: dict[int, History] = {}
    time = 0
    for index, event in enumerate(events):
        time, number = event.time_ns, event.number
        if event.kind in ("spawn", "wake", "cancel") and event.other:
            _of(found, event.other).must_run(time, index)
        if number == 0:  # the run as a whole
            continue
        task = _of(found, number)
        task.name = clean(event.task)
        if event.kind in ("sleep", "block"):
            task.must_run(time, index)
            task.begin(event.kind, time, index, event)
        elif event.kind in ("spawn", "wake"):
            if task.open:
                task.spans[-1].waker = event.other
            task.begin("run", time, index, event)
        elif event.kind == "checkpoint":
            task.must_run(time, index)
            task.begin("run", time, index, event)
        elif event.kind == "end":
            task.must_run(time, index)
            task.close(time)
            task.end = event
            task.function = clean(event.function)
    for number, task in found.items():
        task.close(time)
        if task.end is None:
            task.function = clean(functions.get(number, ""))
    return [found[number] for number in sorted(found)]


def _of(found: dict[int, History], number: int) -> History:
    task = found.get(number)
    if task is None:
        task = found[number] = History(number)
    return task
