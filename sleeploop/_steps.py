"""What a traced loop has done, step by step, as text."""

from __future__ import annotations

from typing import Any

TRACE: dict[str, Any] = {}  # the arguments that make SleepingLoop() a traced one


def lines(loop: Any) -> list[str]:
    """A line for each step, an arrow where it was not the turn of the first of those ready."""
    return []
