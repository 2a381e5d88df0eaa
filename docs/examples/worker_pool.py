"""A pool of workers that is supervised, and shut down without haste.

Three workers take jobs from an endless supply. A worker that crashes is started again by its
supervisor, after a pause that doubles each time. When the pool is shut down, it takes no more jobs;
those that are under way have a few seconds left to finish, and are rolled back if they do not.

All of it is one task group, and scopes. A job runs behind a shield, so that cancelling the group
stops supervisors, pauses and idle workers at once, but no job; the deadline that is then set on the
shield stops the job. Rolling back takes time as well, and gets it by a shield of its own.
"""

import math
import random
from collections import Counter
from collections.abc import Iterator

from sleeploop import (
    CancelledError,
    CancelScope,
    TaskGroup,
    checkpoint,
    current_loop,
    current_task,
    move_on_after,
    run,
    sleep,
)

WORKERS = 3
SHUTDOWN, GRACE, ROLLBACK = 14, 3, 0.5  # seconds


def say(text: str) -> None:
    print(f"{current_loop().time():6.2f} s  {current_task().name}: {text}")


class Job:
    """Takes some seconds; one in five crashes half way."""

    def __init__(self, number: int, rng: random.Random) -> None:
        self.name = f"job {number}"
        self.seconds, self.crashes = rng.uniform(1, 8), rng.random() < 0.2
        self.state = "new"

    async def do(self) -> None:
        self.state = "begun"
        try:
            await sleep(self.seconds / 2)
            if self.crashes:
                raise ConnectionError("the database went away")
            await sleep(self.seconds / 2)
        except CancelledError as error:
            say(f"{self.name} has to stop: {error}")
            with move_on_after(1, shield=True):
                await sleep(ROLLBACK)
                self.state = "rolled back"
            raise
        except ConnectionError:
            self.state = "crashed"
            raise
        self.state = "done"


class Pool:
    """Workers, each with its supervisor."""

    def __init__(self, jobs: Iterator[Job]) -> None:
        self.jobs = jobs
        self.under_way: list[CancelScope] = []  # a set has no order to rely on
        self.group = TaskGroup()

    async def run(self) -> None:
        """Work until shut down."""
        async with self.group:
            for number in range(1, WORKERS + 1):
                self.group.create_task(self.supervise(), name=f"worker {number}")

    def shut_down(self, grace: float) -> None:
        """Begin no more jobs; those under way have so many seconds."""
        for job in self.under_way:
            job.deadline = current_loop().time() + grace
        self.group.cancel_scope.cancel("the pool is shut down")

    async def supervise(self) -> None:
        """Keep a worker working."""
        pause = 1
        while True:
            try:
                await self.work()
            except ConnectionError as error:
                say(f"crashed, as {error}; a pause of {pause} s")
                await sleep(pause)
                pause *= 2

    async def work(self) -> None:
        """Do one job after the other."""
        while True:
            await checkpoint()  # goes no further once the pool has been shut down
            job = next(self.jobs)
            say(f"{job.name} begins, {job.seconds:.1f} s")
            with CancelScope(shield=True) as scope:
                self.under_way.append(scope)
                try:
                    await job.do()
                finally:
                    self.under_way.remove(scope)
            say(f"{job.name} is {job.state}")


async def main() -> None:
    current_task().name = "main"
    rng = current_loop().random("todo")
    jobs: list[Job] = []

    def supply() -> Iterator[Job]:
        while True:
            jobs.append(Job(len(jobs) + 1, rng))
            yield jobs[-1]

    async with TaskGroup() as group:
        pool = Pool(supply())
        group.create_task(pool.run())
        await sleep(SHUTDOWN)
        say("shuts down the pool")
        pool.shut_down(GRACE)
    say("the pool has ended")

    states = Counter(job.state for job in jobs)
    print(", ".join(f"{count} {state}" for state, count in sorted(states.items())))
    assert set(states) <= {"done", "crashed", "rolled back"}  # nothing is left half done
    assert current_loop().time() <= SHUTDOWN + GRACE + ROLLBACK


if __name__ == "__main__":
    run(main(), speed=math.inf)
