"""A pipeline: who is done closes its end, and nobody sends a sentinel.

Three cameras take pictures and send them to two developers, who send prints to an archive. Each
task has an end of a channel for itself, a clone, and leaves it by a `with` block. When the last
camera has closed its end, the developers get what is left, and then their loops end; when the last
developer has closed theirs, so does the archive's. How many cameras there are, and who is the last,
nobody has to know.

At most three pictures lie on the table between them. When it is full, the cameras wait: whatever is
slowest sets the pace of all the others.

On the second day one picture cannot be developed. The task group cancels everybody, who leave their
blocks, and the error comes out at the end of the group's.
"""

import math
import random

from sleeploop import (
    ReceiveChannel,
    SendChannel,
    Task,
    TaskGroup,
    current_loop,
    current_task,
    open_channel,
    run,
    sleep,
)

PICTURES = {"north": 5, "east": 3, "south": 4}
TABLE = 3


def say(text: str) -> None:
    print(f"{current_loop().time():6.2f} s  {current_task().name}: {text}")


class UnderexposedError(Exception):
    """Nothing can be seen on the picture."""


async def shoot(pictures: SendChannel[str], rng: random.Random) -> None:
    """Take pictures, and wait while the table is full."""
    camera = current_task().name
    with pictures:
        for number in range(1, PICTURES[camera] + 1):
            await sleep(rng.uniform(0.5, 1.5))
            asked = current_loop().time()
            await pictures.send(f"{camera} {number}")
            waited = current_loop().time() - asked
            if waited > 0:
                say(f"waited {waited:.2f} s for room on the table")
    say("is done")


async def develop(
    pictures: ReceiveChannel[str], prints: SendChannel[str], rng: random.Random, dark: str
) -> None:
    """Make prints of pictures until there are no more."""
    with pictures, prints:
        async for picture in pictures:
            await sleep(rng.uniform(1, 3))
            if picture == dark:
                raise UnderexposedError(f"nothing to be seen on {picture}")
            await prints.send(picture)
    say("has no more pictures")


async def archive(prints: ReceiveChannel[str], shelf: list[str]) -> None:
    """Put prints on the shelf until there are no more."""
    with prints:
        async for picture in prints:
            say(f"gets {picture}")
            shelf.append(picture)
    say(f"has {len(shelf)} prints")


async def day(shelf: list[str], tasks: list[Task[None]], dark: str = "none") -> None:
    """All that happens on a day; dark: the picture that cannot be developed."""
    rng = current_loop().random("light")
    for_pictures, pictures = open_channel(TABLE, name="table")
    for_prints, prints = open_channel(0, name="hand to hand")
    async with TaskGroup() as group:
        with for_pictures, pictures, for_prints:  # what is used are clones of them
            for camera in PICTURES:
                tasks.append(group.create_task(shoot(for_pictures.clone(), rng), name=camera))
            for name in ("Ada", "Bo"):
                work = develop(pictures.clone(), for_prints.clone(), rng, dark)
                tasks.append(group.create_task(work, name=name))
            tasks.append(group.create_task(archive(prints, shelf), name="archive"))


async def main() -> None:
    current_task().name = "main"
    shelf: list[str] = []
    tasks: list[Task[None]] = []
    await day(shelf, tasks)
    taken = [f"{camera} {n + 1}" for camera in PICTURES for n in range(PICTURES[camera])]
    assert sorted(shelf) == sorted(taken)  # each once
    assert not any(task.cancelled() for task in tasks)

    print("the second day")
    shelf, tasks = [], []
    try:
        await day(shelf, tasks, dark="east 2")
    except* UnderexposedError as group:
        (error,) = group.exceptions
        say(f"{error}; {sum(task.cancelled() for task in tasks)} others were cancelled")
    assert all(task.done() for task in tasks)
    assert "east 2" not in shelf
    assert set(shelf) < set(taken)


if __name__ == "__main__":
    run(main(), speed=math.inf)
