"""What a benchmark declares: a workload, its figures and its targets.

Every child imports this, so it imports little itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Any

# The median of one figure: (workload, peer, figure) -> number, or None if it was not measured.
Median = Callable[[str, str, str], float | None]
# Ours, what it is held against, whether the target is met; None if one of the two is missing.
Verdict = tuple[float, float, bool] | None


@dataclass(frozen=True)
class AtLeast:
    """The peer's figure is at least `times` ours."""

    times: float
    peer: str

    def __str__(self) -> str:
        return f"{self.peer} takes at least {self.times:g}x"

    def judge(self, workload: str, figure: str, median: Median) -> Verdict:
        ours, theirs = median(workload, "sleeploop", figure), median(workload, self.peer, figure)
        if ours is None or theirs is None:
            return None
        return ours, theirs, theirs >= self.times * ours


@dataclass(frozen=True)
class AtMost:
    """Our figure is at most `limit`, or `limit` times our own figure in workload `of`."""

    limit: float
    of: str = ""

    def __str__(self) -> str:
        return f"at most {self.limit:g}" + (f"x that of {self.of}" if self.of else "")

    def judge(self, workload: str, figure: str, median: Median) -> Verdict:
        ours = median(workload, "sleeploop", figure)
        against = median(self.of, "sleeploop", figure) if self.of else self.limit
        if ours is None or against is None:
            return None
        return ours, against, ours <= (self.limit * against if self.of else against)


@dataclass(frozen=True)
class Workload:
    """One workload: `measure(peer, **size)` of `module` returns a number for each of `figures`."""

    name: str
    title: str  # with the fields of `size` in it
    module: str
    figures: Mapping[str, tuple[AtLeast | AtMost, ...]]
    size: Mapping[str, Any]
    quick: Mapping[str, Any] | None  # the size under --quick; None: left out there
    # What a peer may lack, as "real time", "virtual time", "tasks", "timeouts"; see peers.py
    needs: str = ""
    virtual: bool = False  # in virtual time, though that is not what it needs most
    rounds: int = 5
    timeout: float = 60.0
    million: bool = False  # peers only with --million
    alone: bool = False  # without the peers: they have nothing of the kind


def stopwatch(function: Callable[..., object], *args: object) -> int:
    """The nanoseconds that one call takes."""
    began = perf_counter_ns()
    function(*args)
    return perf_counter_ns() - began


def has(primitive: Any, what: str) -> Any:
    """The primitive; an error that says so if the version that is measured has none."""
    if primitive is None:
        raise NotImplementedError(f"this version has no {what}")
    return primitive


def finished(done: list[Any], expected: int) -> None:
    """A loop that loses work would look fast."""
    if len(done) != expected:
        raise RuntimeError(f"{len(done):,} finished instead of {expected:,}")
