"""What tests.rigs.oom runs while memory runs out: callbacks of tasks, wait(), shield()."""

from __future__ import annotations

import math

import sleeploop
from sleeploop import Task

from .oom_scenarios import Undone, countdown, scenario

called = list[str]()


def note(task: Task[str]) -> None:
    called.append(task.name)


def again(task: Task[str]) -> None:
    task.add_done_callback(note)


async def main() -> None:
    tasks = [sleeploop.create_task(countdown(name, n), name=name) for n, name in enumerate("ab")]
    for task in tasks:
        for callback in note, id, again, id:
            task.add_done_callback(callback)
        assert task.remove_done_callback(id) == 2
    tasks[0].remove_done_callback(note)
    sleeper = sleeploop.create_task(sleeploop.sleep_forever(), name="c")
    sleeper.add_done_callback(note)
    await tasks[1]


@scenario
def callbacks_of_tasks() -> None:
    """None is lost without an error."""
    called.clear()
    sleeploop.run(main(), speed=math.inf)
    if called != ["a", "b", "b", "c"]:
        raise Undone(called)


async def waiting() -> tuple[int, int]:
    tasks = [sleeploop.create_task(countdown(name, n)) for n, name in enumerate("abc")]
    done, pending = await sleeploop.wait(tasks, return_when=sleeploop.FIRST_COMPLETED)
    assert len(done) == 1
    done, pending = await sleeploop.wait(tasks, timeout=1)
    assert await sleeploop.shield(countdown("d", 1)) == "d"
    return len(done), len(pending)


@scenario
def wait_and_shield() -> None:
    assert sleeploop.run(waiting(), speed=math.inf) == (2, 1)
