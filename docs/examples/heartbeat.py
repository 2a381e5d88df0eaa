"""A heartbeat monitor: which of fifty devices are alive, for an hour.

Every device sends a beat a second, more or less, over a network that delays each of them. The
monitor has one task per device, which waits in a block with a deadline; each beat moves that
deadline. There is nothing to poll: the block ends when a device has been silent for too long. Then
the task waits for an `Event`, the next beat.

With bounds on all delays, there are two promises: a device that beats is never reported lost, and
one that has stopped is reported within a known time.
"""

import math

from sleeploop import (
    CancelScope,
    Event,
    TaskGroup,
    current_loop,
    every,
    move_on_after,
    move_on_at,
    run,
    sleep,
    sleep_forever,
)

HOUR = 3600
PERIOD = 1.0  # of the beats
JITTER = 0.2  # a beat is sent so much late at most,
DELAY = 0.5  # and takes so long at most to arrive
PATIENCE = 1.8  # more than PERIOD + JITTER + DELAY, the longest silence of a device that is well
DEVICES = 50
# When a device stops beating, and when it begins again: a crash, a long stall, a short one.
SILENCES = {7: (600, math.inf), 23: (1200.5, 1500), 42: (2400, 2403), 49: (2400.25, math.inf)}


class Monitor:
    """Reports devices that are lost, and those that are back."""

    def __init__(self) -> None:
        self.alive: dict[str, CancelScope] = {}  # each scope ends with the patience
        self.lost: dict[str, Event] = {}  # each is set by the next beat
        self.reports: list[tuple[float, str, str]] = []

    def beat(self, device: str) -> None:
        """A beat of a device has arrived."""
        if device in self.alive:
            self.alive[device].deadline = current_loop().time() + PATIENCE
        elif device in self.lost:
            self.lost[device].set()

    async def watch(self, device: str) -> None:
        """Wait for its silence, then for its return, and so on."""
        while True:
            with move_on_after(PATIENCE) as self.alive[device]:
                await sleep_forever()
            del self.alive[device]
            self.report(device, "lost")
            self.lost[device] = Event(name=f"beat of {device}")
            await self.lost[device].wait()
            del self.lost[device]
            self.report(device, "back")

    def report(self, device: str, what: str) -> None:
        print(f"{current_loop().time():9.3f} s  {device} is {what}")
        self.reports.append((current_loop().time(), device, what))


async def device(number: int, monitor: Monitor) -> None:
    """Beat once in every period, except in a silence."""
    name = f"device {number}"
    rng = current_loop().random(name)
    begin, end = SILENCES.get(number, (math.inf, math.inf))

    async def deliver() -> None:
        await sleep(rng.uniform(0, DELAY))
        monitor.beat(name)

    async with TaskGroup() as network:
        async for tick in every(PERIOD, jitter=JITTER):
            if not begin <= tick.due < end:
                network.create_task(deliver(), name=f"beat {tick.index} of {name}")


async def main() -> None:
    monitor = Monitor()
    with move_on_at(HOUR):
        async with TaskGroup() as group:
            for number in range(DEVICES):
                group.create_task(device(number, monitor), name=f"device {number}")
                group.create_task(monitor.watch(f"device {number}"), name=f"watch {number}")

    # Each report has its silence, and comes in time.
    promised = []
    for number, (begin, end) in SILENCES.items():
        promised.append((begin, begin + DELAY + PATIENCE, f"device {number}", "lost"))
        if end < math.inf:
            promised.append((end, end + PERIOD + JITTER + DELAY, f"device {number}", "back"))
    print("\nreported after, in seconds, and at most:")
    for (since, until, *what), (when, *reported) in zip(
        sorted(promised), monitor.reports, strict=True
    ):
        print(f"{when - since:6.3f}  {until - since:6.3f}  {' '.join(what)}")
        assert what == reported
        assert since <= when <= until


if __name__ == "__main__":
    run(main(), speed=math.inf)
