"""Where a coroutine is, and where a call comes from: for reports, and for debug runs."""

from __future__ import annotations

import gc
import os
import sys
import traceback
import warnings
from collections.abc import Iterator
from types import AsyncGeneratorType, FrameType, TracebackType
from typing import Any

PACKAGE = os.path.dirname(__file__) + os.sep  # what the names of our own files begin with
# What these wait for can only be found as the collector finds it.
_OPAQUE = ("async_generator_asend", "async_generator_athrow", "coroutine_wrapper")
_DEEPEST = 1_000  # links of a chain that leads on, perhaps in a circle


def _get(obj: Any, name: str) -> Any:
    """An attribute, or None: a report is not to fail by what it reports on."""
    try:
        return getattr(obj, name, None)
    except Exception:
        return None


def _next(link: Any) -> Any:
    """What a suspended coroutine, generator or async generator awaits, or None.

    One that runs awaits nothing; and before CPython 3.13 its attribute may be any memory whatever.
    """
    if _get(link, "cr_running") is True or _get(link, "gi_running") is True:
        return None
    if type(link).__name__ in _OPAQUE:
        for inner in gc.get_referents(link):
            if hasattr(inner, "cr_frame") or isinstance(inner, AsyncGeneratorType):
                return inner
        return None
    for name in ("cr_await", "gi_yieldfrom", "ag_await"):
        inner = _get(link, name)
        if inner is not None:
            return inner
    return None


def _frame(link: Any) -> FrameType | None:
    for name in ("cr_frame", "gi_frame", "ag_frame"):
        frame = _get(link, name)
        if isinstance(frame, FrameType):
            return frame
    return None


def frames(coro: Any) -> Iterator[FrameType]:
    """Where a coroutine is, the innermost frame last."""
    link = coro
    for _ in range(_DEEPEST):
        if link is None:
            break
        frame = _frame(link)
        if frame is not None:
            yield frame
        link = _next(link)


def _frames(coro: Any) -> Iterator[FrameType]:
    """Likewise, in the user's own code."""
    return (f for f in frames(coro) if not f.f_code.co_filename.startswith(PACKAGE))


def innermost(coro: Any) -> str | None:
    """The innermost line of the user's own code that a coroutine is at: file:line in function."""
    found = None
    for frame in _frames(coro):
        code = frame.f_code
        found = f"{code.co_filename}:{frame.f_lineno} in {code.co_qualname}"
    return found


def traceback_of(coro: Any) -> TracebackType | None:
    """The traceback that an exception would have which a suspended coroutine raised now."""
    found = None
    for frame in reversed(list(_frames(coro))):
        found = TracebackType(found, frame, frame.f_lasti, frame.f_lineno)
    return found


def of_caller() -> traceback.StackSummary:
    """The stack of the calling code, innermost last, without this package's own frames."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(PACKAGE):
        frame = frame.f_back
    return of_frame(frame)


def warn_forgotten(name: str, origin: list[tuple[str, int, str, None]] | None) -> None:
    """An awaitable has died that nobody awaited. origin: where it was made, if that is known."""
    text = f"coroutine {name!r} was never awaited"
    if origin is not None:
        lines = traceback.StackSummary.from_list(origin).format()
        text += "\nCoroutine created at (most recent call last)\n" + "".join(lines).rstrip("\n")
    warnings.warn(text, RuntimeWarning, stacklevel=2)


def of_frame(frame: FrameType | None) -> traceback.StackSummary:
    """The stack that ends in a frame, innermost last."""
    stack = traceback.StackSummary.extract(traceback.walk_stack(frame), lookup_lines=False)
    stack.reverse()
    return stack
