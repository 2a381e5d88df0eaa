"""The plain-Python peer: the classic teaching design of an event loop for coroutines that sleep.

A heap of (wake-up datetime, counter, coroutine); `send()` drives each coroutine; `sleep()` yields
the datetime to wake up at and is sent the actual one.  The clock says what the time is and how to
wait for a later one, so that the same loop runs in real and in virtual time.
"""

from __future__ import annotations

import heapq
import time
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from datetime import datetime, timedelta
from itertools import count
from typing import Any

Sleep = Callable[[float], Awaitable[timedelta]]


class RealClock:
    now = staticmethod(datetime.now)

    def wait_until(self, when: datetime) -> None:
        seconds = (when - datetime.now()).total_seconds()
        if seconds > 0:
            time.sleep(seconds)


class VirtualClock:
    def __init__(self) -> None:
        self.time = datetime(2000, 1, 1)

    def now(self) -> datetime:
        return self.time

    def wait_until(self, when: datetime) -> None:
        self.time = when


def sleep_by(clock: RealClock | VirtualClock) -> Sleep:
    now = clock.now

    @types.coroutine
    def sleep(seconds: float) -> Generator[datetime, datetime, timedelta]:
        start = now()
        woken = yield start + timedelta(seconds=seconds)
        return woken - start

    return sleep


class PlainLoop:
    def __init__(self, *coros: Coroutine[Any, Any, Any], clock: RealClock | VirtualClock) -> None:
        self.coros = coros
        self.clock = clock

    def run_until_complete(self) -> None:
        now, wait_until = self.clock.now, self.clock.wait_until
        order = count()  # equal times: first come, first served; coroutines do not compare
        heap: list[tuple[datetime, int, Coroutine[Any, Any, Any]]] = []
        for coro in self.coros:
            self.step(coro, None, heap, order)
        while heap:
            when, _, coro = heapq.heappop(heap)
            wait_until(when)
            self.step(coro, now(), heap, order)

    def step(self, coro: Any, value: datetime | None, heap: list[Any], order: count[int]) -> None:
        try:
            wake_at = coro.send(value)
        except StopIteration:
            return
        heapq.heappush(heap, (wake_at, next(order), coro))
