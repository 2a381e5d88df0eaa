"""What tests.rigs.oom runs while memory runs out: callbacks of tasks, futures, wait(), shield()."""

from __future__ import annotations

import math

import sleeploop
from sleeploop import Future, Task

from .oom_scenarios import Undone, countdown, raises, scenario

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


had = list[object]()


async def get(future: Future[str]) -> None:
    had.append(await future)


def note_future(future: Future[str]) -> None:
    had.append(future.done())


async def futures() -> None:
    soup, fish, meat = (Future[str](name=name) for name in ("soup", "fish", "meat"))
    async with sleeploop.TaskGroup() as group:
        for _ in range(2):
            group.create_task(get(soup))
        await sleeploop.checkpoint()
        for callback in note_future, print, note_future:
            soup.add_done_callback(callback)
        assert soup.remove_done_callback(print) == 1
        soup.set_result("leek")
        assert repr(soup) == "<Future 'soup' with result 'leek'>"
    soup.add_done_callback(note_future)
    await sleeploop.sleep(1)
    fish.set_exception(LookupError)
    meat.cancel("none left")
    assert meat.cancel() is False
    for ask in fish.result, lambda: fish.__await__().send(None):
        raises(LookupError, ask)
    raises(sleeploop.CancelledError, meat.result)
    raises(RuntimeError, fish.set_result, "one more")


@scenario
def futures_are_set() -> None:
    """Whoever waits goes on, and every callback is made, or there is an error."""
    had.clear()
    sleeploop.run(futures(), speed=math.inf)
    if had != [True, True, "leek", "leek", True]:
        raise Undone(had)


async def lose() -> None:
    kept.append(Future())
    kept[0].set_exception(LookupError("kept"))
    Future[None](name="dropped").set_exception(LookupError("dropped"))


kept = list[Future[None]]()


@scenario
def failures_of_futures() -> None:
    """Nobody retrieves them: the run raises both."""
    kept.clear()
    error = raises(ExceptionGroup, sleeploop.run, lose(), speed=math.inf)
    assert isinstance(error, ExceptionGroup)
    if error.subgroup(MemoryError):
        raise error
    assert [str(one) for one in error.exceptions] == ["dropped", "kept"]
