"""The classic teaching example: an event loop in a page, for coroutines that sleep.

It knows one thing: a coroutine yields the datetime to be woken at and is sent the actual one. Its
clock can be exchanged, so that nobody has to wait.
"""

from __future__ import annotations

import heapq
import itertools
import time
import types
from collections.abc import Coroutine, Generator
from datetime import datetime, timedelta
from typing import Any


class RealClock:
    def now(self) -> datetime:
        return datetime.now()

    def wait_until(self, when: datetime) -> None:
        while (left := when - datetime.now()) > timedelta(0):
            time.sleep(left.total_seconds())


class VirtualClock:
    """Time passes by waiting for it only, so that no wait takes any."""

    def __init__(self, start: datetime) -> None:
        self.time = start

    def now(self) -> datetime:
        return self.time

    def wait_until(self, when: datetime) -> None:
        self.time = max(self.time, when)


clock: RealClock | VirtualClock = RealClock()


class SleepingLoop:
    def __init__(self, *coros: Coroutine[Any, Any, Any]) -> None:
        self.coros = coros
        self.order = itertools.count()  # of those that wake up at the same time
        self.heap: list[tuple[datetime, int, Coroutine[Any, Any, Any]]] = []

    def run_until_complete(self) -> None:
        for coro in self.coros:
            self.resume(coro, None)
        while self.heap:
            when, _, coro = heapq.heappop(self.heap)
            clock.wait_until(when)
            self.resume(coro, clock.now())

    def resume(self, coro: Coroutine[Any, Any, Any], actual: datetime | None) -> None:
        try:
            when = coro.send(actual)
        except StopIteration:
            return
        heapq.heappush(self.heap, (when, next(self.order), coro))


@types.coroutine
def sleep(seconds: float) -> Generator[datetime, datetime, timedelta]:
    """Sleep, and return how long it really was."""
    asked = clock.now()
    actual = yield asked + timedelta(seconds=seconds)
    return actual - asked
