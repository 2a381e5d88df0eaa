"""Dining philosophers: a deadlock that is found while the others eat, and one that cannot happen.

Two tables with five philosophers and five forks each, a fork between any two; who eats needs both
beside him. At the first table each takes the fork on his left, and after a while the other one. So
they can come to sit there, each with a fork and waiting for the next. A waiter looks once a minute
whether some of them wait for each other in a circle, and asks one to put his fork down.

At the second table a philosopher takes both forks at once or none, by all_of(): a circle can never
come about, and no waiter is needed. Those who are cancelled there at closing time while they wait
have nothing in their hands: in the end all forks are on the table.
"""

import math

from sleeploop import (
    CancelScope,
    Lock,
    TaskGroup,
    all_of,
    current_loop,
    current_task,
    find_deadlocks,
    move_on_after,
    run,
    sleep,
)

NAMES = ["Arendt", "Beauvoir", "Camus", "Diotima", "Erasmus"]
EVENING = 4 * 3600.0
MINUTE = 60.0


def say(text: str) -> None:
    time = int(current_loop().time())
    print(f"{time // 3600}:{time // 60 % 60:02}:{time % 60:02}  {text}")


class Philosopher:
    """Thinks and eats. left, right: the forks on the table."""

    def __init__(self, name: str, left: Lock, right: Lock) -> None:
        self.name = name
        self.left, self.right = left, right
        self.meals = 0
        self.hungry = CancelScope()  # around it all, from the first fork on

    async def wait(self, minutes: float) -> None:
        rng = current_loop().random(self.name)
        await sleep(rng.expovariate(1 / (minutes * MINUTE)))

    async def eat(self) -> None:
        assert self.left.owner is self.right.owner is current_task()
        await self.wait(10)
        self.meals += 1

    async def careless(self) -> None:
        """Takes one fork after the other."""
        while True:
            await self.wait(5)
            with CancelScope() as self.hungry:
                async with self.left:
                    await self.wait(5)
                    async with self.right:
                        await self.eat()

    async def careful(self) -> None:
        """Takes both, or none."""
        while True:
            await self.wait(10)
            await all_of(self.left.acquire(), self.right.acquire())
            try:
                await self.eat()
            finally:
                self.left.release()
                self.right.release()


async def waiter(table: dict[str, Philosopher]) -> None:
    while True:
        await sleep(MINUTE)
        for deadlock in find_deadlocks():
            names = [task.name for task in deadlock.tasks]
            say(f"{', '.join(names)} wait for each other; {names[0]} puts the fork down")
            table[names[0]].hungry.cancel()


async def nobody_needed() -> None:
    """Looks as often as the waiter, and never sees anything."""
    while True:
        await sleep(MINUTE)
        assert find_deadlocks() == []


def laid_table() -> tuple[list[Lock], dict[str, Philosopher]]:
    forks = [Lock(name=f"fork {i}") for i in range(len(NAMES))]
    return forks, {name: Philosopher(name, forks[i], forks[i - 1]) for i, name in enumerate(NAMES)}


async def main() -> None:
    for way in ("careless", "careful"):
        forks, table = laid_table()
        say(f"the {way} sit down")
        with move_on_after(EVENING):
            async with TaskGroup() as group:
                for name, philosopher in table.items():
                    group.create_task(getattr(philosopher, way)(), name=name)
                if way == "careless":
                    group.create_task(waiter(table), name="waiter")
                else:
                    group.create_task(nobody_needed(), name="guest")
        meals = ", ".join(f"{name} {philosopher.meals}" for name, philosopher in table.items())
        say(f"they have eaten: {meals}")
        assert not any(fork.locked() for fork in forks)
        assert all(philosopher.meals > 0 for philosopher in table.values())


if __name__ == "__main__":
    run(main(), speed=math.inf)
