"""What a traced loop has done, step by step, as text."""

from __future__ import annotations

import os

from _sleeploop import SleepingLoop, _trace_rows

from sleeploop._history import awaited
from sleeploop.tracing import TraceEvent

# What ends a step.
_WHAT = {"sleep": "sleeps", "checkpoint": "steps aside", "block": "waits", "end": ""}
_MOST = 60  # lines


def _columns(event: TraceEvent, names: dict[int, str]) -> tuple[str, str, str]:
    what = event.how or _WHAT[event.kind]
    if event.kind == "block":
        what += awaited(event, names)
    place = f"{os.path.basename(event.file)}:{event.line} in {event.function}"
    return event.task, what, place if event.file else ""


def lines(loop: SleepingLoop) -> list[str]:
    """A line for each step, with an arrow where it was not the first task's turn.

    What comes in the middle of a long list is left out.
    """
    assert loop.trace is not None
    events = loop.trace.events
    choices = [row[-1] for row in _trace_rows(loop)[1]]
    names = {event.number: event.task for event in events}
    steps = [
        ("->" if choice else "  ", f"{event.time:8.3f} s", *_columns(event, names))
        for event, choice in zip(events, choices, strict=True)
        if event.kind in _WHAT
    ]
    hidden = len(steps) - _MOST
    if hidden > 0:
        steps[_MOST // 2 : _MOST // 2 + hidden] = []
    widths = [max(map(len, column)) for column in zip(*steps, strict=True)]
    text = ["  ".join(map(str.ljust, step, widths)).rstrip() for step in steps]
    if hidden > 0:
        text.insert(_MOST // 2, f"... {hidden:,} steps")
    return text
