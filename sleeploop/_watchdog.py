"""What the watchdog of a run logs, and the warning about a run that was given up. Called from C, in
the watchdog's thread or in the loop's own.
"""

from __future__ import annotations

import logging
import sys
import warnings

from _sleeploop import SleepingLoop, _closing, _running_task

from sleeploop._stacks import of_frame
from sleeploop._tree import report

_logger = logging.getLogger("sleeploop")


def _stack(thread: int) -> str:
    return "".join(of_frame(sys._current_frames().get(thread)).format()).rstrip()


def report_step(loop: SleepingLoop, seconds: float, thread: int) -> None:
    """A step holds the loop, and does so now."""
    task = _running_task(loop)
    if task is not None:
        _logger.warning(
            "task %r has held the loop for %.2f s and still does:\n%s",
            task.name,
            seconds,
            _stack(thread),
        )


def report_step_late(loop: SleepingLoop, seconds: float, thread: int) -> None:
    """A step has held the loop, and other threads as well: only its task can still be told."""
    task = _running_task(loop)
    if task is not None:
        _logger.warning(
            "task %r has held the loop for %.2f s, without a chance to see where",
            task.name,
            seconds,
        )


def report_end(loop: SleepingLoop, seconds: float, thread: int) -> None:
    """The end of a run takes long: what it waits for, and where a running task is."""
    task = _running_task(loop)
    closing = _closing(loop)
    lines = [
        report(loop),
        closing and f"  the cleanup of {closing} async generator{'s' * (closing > 1)}",
        task and f"Task {task.name!r} is running:\n{_stack(thread)}",
    ]
    if any(lines):  # else it has ended meanwhile
        what = "\n".join(filter(None, lines))
        _logger.warning("the run has been cancelled for %.1f s and waits for:\n%s", seconds, what)


def warn_dropped(loop: SleepingLoop) -> None:
    """A loop that has begun is garbage."""
    text = f"{loop!r} was neither closed nor run to its end"
    warnings.warn(text, ResourceWarning, stacklevel=2, source=loop)
