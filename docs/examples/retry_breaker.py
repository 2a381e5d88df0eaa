"""Retries with exponential backoff and a circuit breaker, through a day of outages.

Twenty clients ask a service once a minute. One call in twenty fails at random, and three times a
day the service is down: then calls hang. Every call has a timeout. What fails is tried again after
a pause that doubles each time and is drawn at random, so that the clients do not come back all at
once. The breaker that they share opens after a few failures in a row, and nobody waits for a
timeout any more; every five minutes it lets a single call through, to see whether all is well.
"""

import math
from collections import Counter
from collections.abc import Awaitable, Callable

from sleeploop import TaskGroup, current_loop, every, run, sleep, sleep_forever, timeout

MINUTE, HOUR, DAY = 60, 3600, 86400
OUTAGES = [(3 * HOUR, 3.25 * HOUR), (9.5 * HOUR, 9.6 * HOUR), (20 * HOUR, 20.5 * HOUR)]
CLIENTS, TIMEOUT = 20, 2

Call = Callable[[], Awaitable[None]]


class CircuitOpenError(ConnectionError):
    """The breaker is open: the service has not even been asked."""


class Breaker:
    """Closed: calls go through. Open: none does. Half-open: one does, and decides."""

    def __init__(self, limit: int, pause: float) -> None:
        self.limit, self.pause = limit, pause
        self.state, self.failures, self.retry_at = "closed", 0, math.inf
        self.changes: list[tuple[float, str]] = []

    async def call(self, function: Call) -> None:
        """Call the function, if the state allows it, and learn from what comes of it."""
        if self.state == "open" and current_loop().time() >= self.retry_at:
            self.change("half-open")
        elif self.state != "closed":
            raise CircuitOpenError(f"the breaker is {self.state}")
        admitted = self.state
        try:
            await function()
        except BaseException as error:
            # A call that was cancelled tells nothing, but another one must get a chance to.
            if isinstance(error, OSError) or admitted == "half-open":
                self.failed(admitted)
            raise
        self.succeeded(admitted)

    def failed(self, admitted: str) -> None:
        self.failures += 1
        # A call that was admitted before the state changed comes too late to change it.
        if admitted == self.state and (admitted == "half-open" or self.failures >= self.limit):
            self.retry_at = current_loop().time() + self.pause
            self.change("open")

    def succeeded(self, admitted: str) -> None:
        self.failures = 0
        if admitted == self.state == "half-open":
            self.change("closed")

    def change(self, state: str) -> None:
        print(f"{current_loop().now():%H:%M:%S}  {self.state} -> {state}")
        self.changes.append((current_loop().time(), state))
        self.state = state


async def retry(function: Call, attempts: int, pause: float) -> int:
    """Try until it works, at most so many times; how many it took."""
    rng = current_loop().random("pauses")
    for attempt in range(1, attempts):
        try:
            await function()
            return attempt
        except OSError:  # ConnectionError and TimeoutError are among them
            await sleep(rng.uniform(0, pause))
            pause *= 2
    await function()
    return attempts


class Service:
    """Answers within half a second, fails now and then, and hangs when it is down."""

    calls_in_vain = 0

    async def call(self) -> None:
        if any(begin <= current_loop().time() < end for begin, end in OUTAGES):
            self.calls_in_vain += 1
            await sleep_forever()
        rng = current_loop().random("service")
        await sleep(rng.uniform(0.1, 0.5))
        if rng.random() < 0.05:
            raise ConnectionResetError("the connection was reset")


async def client(number: int, service: Service, breaker: Breaker, seen: Counter[str]) -> None:
    """Ask once a minute, for a day."""

    async def ask() -> None:
        async with timeout(TIMEOUT):
            await service.call()

    async for tick in every(MINUTE, start=number * MINUTE / CLIENTS):
        if tick.due >= DAY:
            break
        try:
            attempts = await retry(lambda: breaker.call(ask), attempts=5, pause=1)
            seen["at once" if attempts == 1 else "after retries"] += 1
        except CircuitOpenError:
            seen["refused by the breaker"] += 1
        except OSError:
            seen["failed"] += 1


async def main() -> None:
    service, breaker = Service(), Breaker(5, 5 * MINUTE)
    seen: Counter[str] = Counter()
    async with TaskGroup() as group:
        for number in range(CLIENTS):
            group.create_task(client(number, service, breaker, seen), name=f"client {number}")

    print(f"\n{seen.total():,} requests")
    for outcome, count in seen.most_common():
        print(f"{count:7,} {outcome}")
    down = sum(end - begin for begin, end in OUTAGES)
    print(f"{service.calls_in_vain:7,} calls in vain, in {down / MINUTE:.0f} minutes of outages")

    # What must hold.
    assert seen.total() == CLIENTS * DAY // MINUTE
    for begin, end in OUTAGES:
        during = [state for when, state in breaker.changes if begin <= when < end + TIMEOUT]
        assert during[0] == "open"
        assert "closed" not in during
        # All is well again with the first probe after it, or the second: one may fail by accident.
        later = end + 2 * (breaker.pause + MINUTE)
        assert "closed" in [state for when, state in breaker.changes if end <= when < later]
    assert service.calls_in_vain < 50  # without the breaker: some 5,000


if __name__ == "__main__":
    run(main(), speed=math.inf)
