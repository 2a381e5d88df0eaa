"""Event: who waits, who is let go, and in which order."""

import random

import pytest

from sleeploop import (
    Event,
    SleepingLoop,
    TaskGroup,
    checkpoint,
    create_task,
    current_loop,
    current_task,
    format_tasks,
    move_on_after,
    sleep,
    timeout,
)
from tests.helpers import CROWD, awaited_error, ended, now, virtual


async def note(event, log, name):
    log.append((name, await event.wait(), now()))


# ---- normal use ----------------------------------------------------------------------------------


def test_a_new_event_is_not_set():
    event = Event()
    assert event.is_set() is False
    assert event.name is None
    assert repr(event) == "<Event not set>"


def test_set_lets_all_go_in_the_order_in_which_they_came():
    async def main():
        event, log = Event(), []
        async with TaskGroup() as group:
            for name in "abc":
                group.create_task(note(event, log, name))
            await sleep(2)
            assert log == []
            event.set()
            assert log == []  # set() itself does not switch tasks
        return log

    assert virtual(main()) == [("a", True, 2.0), ("b", True, 2.0), ("c", True, 2.0)]


def test_what_is_set_need_not_be_waited_for():
    async def main():
        event, log = Event(), []
        event.set()
        assert event.is_set() is True
        create_task(note(event, log, "other"))
        assert await event.wait() is True
        assert await event.wait() is True
        return log

    assert virtual(main()) == []  # the other task has not had a turn


def test_clear_has_wait_wait_again():
    async def main():
        event, log = Event(), []
        event.set()
        event.clear()
        assert event.is_set() is False
        task = create_task(note(event, log, "a"))
        await sleep(1)
        assert log == []
        event.set()
        await task
        return log

    assert virtual(main()) == [("a", True, 1.0)]


def test_who_waits_when_it_is_set_goes_on_although_it_is_cleared():
    async def main():
        event, log = Event(), []
        async with TaskGroup() as group:
            group.create_task(note(event, log, "a"))
            await checkpoint()
            event.set()
            event.clear()
            late = group.create_task(note(event, log, "late"))
            await sleep(1)
            assert log == [("a", True, 0.0)]
            assert not late.done()
            event.set()
        return log

    assert virtual(main()) == [("a", True, 0.0), ("late", True, 1.0)]


def test_set_and_clear_any_number_of_times():
    event = Event()
    for _ in range(3):
        assert event.set() is None
        assert event.is_set()
    for _ in range(3):
        assert event.clear() is None
        assert not event.is_set()


def test_one_task_may_wait_for_the_same_event_again_and_again():
    async def main():
        event, times = Event(), []

        async def follow():
            for _ in range(3):
                await event.wait()
                event.clear()
                times.append(now())

        task = create_task(follow())
        while not task.done():
            await sleep(1)
            event.set()
        return times

    assert virtual(main()) == [1.0, 2.0, 3.0]


def test_wait_as_a_task_of_its_own():
    async def main():
        event = Event(name="e")
        task = create_task(event.wait(), name="w")
        assert "ready to start" in repr(task)
        await sleep(1)
        assert task.waiting_on is event
        event.set()
        return await task

    assert virtual(main()) is True


# ---- names and reports ---------------------------------------------------------------------------


@pytest.mark.usefixtures("forgetful")
def test_names_and_reprs():
    async def main():
        event = Event(name="door")
        create_task(event.wait(), name="w", daemon=True)
        await checkpoint()
        assert event.name == "door"
        assert repr(event) == "<Event 'door' not set, 1 waiting>"
        assert format_tasks().splitlines()[1].startswith("  Task 'w' ")
        assert "waiting for Event 'door', since 0.0 s" in format_tasks()
        event.set()
        assert repr(event) == "<Event 'door' set>"
        assert repr(event.wait()) == "<Event.wait() of Event 'door', not awaited yet>"

    virtual(main())


def test_the_name_is_an_exact_str_without_surprises():
    class Str(str):
        __slots__ = ()

    event = Event(name=Str("x"))
    assert type(event.name) is str
    assert Event(name=None).name is None
    assert Event(name="").name == ""
    with pytest.raises(AttributeError):
        event.name = "y"


# ---- misuse --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [5, b"door", ["door"], object()])
def test_a_name_must_be_a_str(name):
    with pytest.raises(TypeError, match=r"Event\(\): name must be a str, not "):
        Event(name=name)


@pytest.mark.parametrize("call", [lambda: Event("door"), lambda: Event(value=1)])
def test_arguments_that_there_are_not(call):
    with pytest.raises(TypeError):
        call()


@pytest.mark.parametrize("method", ["set", "clear", "is_set", "wait"])
def test_the_methods_take_no_arguments(method):
    with pytest.raises(TypeError, match=method):
        getattr(Event(), method)(1)


def test_there_are_no_subclasses_and_no_new_attributes():
    with pytest.raises(TypeError):
        type("Sub", (Event,), {})
    with pytest.raises(AttributeError):
        Event().extra = 1
    with pytest.raises(TypeError):
        Event.extra = 1


def test_waiting_needs_a_loop_and_a_task():
    event = Event()
    wait = event.wait()
    with pytest.raises(RuntimeError, match=r"Event\.wait\(\) needs a running loop"):
        wait.send(None)

    async def main():
        errors = []

        def call():
            with pytest.raises(RuntimeError, match="no task is right now") as caught:
                event.wait().send(None)
            errors.append(caught.value)

        current_loop().call_soon_threadsafe(call)
        await sleep(1)
        assert len(errors) == 1
        create_task(note(event, errors, "a"))
        await checkpoint()
        current_loop().call_soon_threadsafe(event.set)  # which needs no task
        await sleep(1)
        assert errors[1:] == [("a", True, 1.0)]
        assert await wait is True  # it had not begun

    virtual(main())


# ---- cancelled -----------------------------------------------------------------------------------


def test_cancelled_while_it_waits():
    async def main():
        event, log = Event(), []
        first, second, third = (create_task(note(event, log, name)) for name in "abc")
        await sleep(1)
        second.cancel("enough")
        assert repr(event) == "<Event not set, 2 waiting>"
        assert str(await ended(second)).endswith(": enough")
        event.set()
        await first
        await third
        return log

    assert virtual(main()) == [("a", True, 1.0), ("c", True, 1.0)]


def test_a_timeout():
    async def main():
        event = Event()
        with pytest.raises(TimeoutError):
            async with timeout(3):
                await event.wait()
        assert now() == 3.0
        assert repr(event) == "<Event not set>"

    virtual(main())


def test_cancelled_when_it_has_been_set_already():
    """It has happened, so the await tells so; the next one raises."""

    async def main():
        event, log = Event(), []

        async def victim():
            await event.wait()
            log.append("set")
            await awaited_error(sleep(0))
            log.append("cancelled")
            await sleep(0)

        task = create_task(victim())
        await checkpoint()
        event.set()
        task.cancel()
        await ended(task)
        return log

    assert virtual(main()) == ["set", "cancelled"]


def test_cancelled_before_it_is_set():
    async def main():
        event, log = Event(), []
        task = create_task(note(event, log, "a"))
        await checkpoint()
        task.cancel()
        event.set()
        await ended(task)
        return log

    assert virtual(main()) == []


@pytest.mark.parametrize("is_set", [False, True])
def test_in_a_cancelled_scope_it_raises_set_or_not(is_set):
    async def main():
        event = Event()
        if is_set:
            event.set()
        with move_on_after(0) as scope:
            await awaited_error(event.wait())
            await event.wait()
        assert scope.cancelled_caught
        assert event.is_set() is is_set
        assert repr(event).endswith("set>")  # nobody waits

    virtual(main())


def test_the_deadline_comes_with_the_event():
    """What is due in one moment is woken before anybody runs, so the deadline is first."""

    async def main():
        event = Event()

        async def set_at(when):
            await sleep(when)
            event.set()

        create_task(set_at(2))
        await checkpoint()
        with move_on_after(2) as scope:
            await event.wait()
        assert (now(), event.is_set()) == (2.0, True)
        assert scope.cancelled_caught

    virtual(main())


# ---- many ----------------------------------------------------------------------------------------


def crowd(loop_main):
    """Runs with CROWD tasks that wait; they are made in a loop, without a group."""

    async def main():
        event, came = Event(), []

        async def wait(number):
            await event.wait()
            came.append(number)

        tasks = [create_task(wait(number)) for number in range(CROWD)]
        await checkpoint()
        assert repr(event) == f"<Event not set, {CROWD} waiting>"
        await loop_main(event, tasks)
        return came

    return virtual(main())


@pytest.mark.slow
def test_many_are_let_go_in_order():
    async def main(event, tasks):
        event.set()
        event.clear()
        await tasks[-1]

    assert crowd(main) == list(range(CROWD))


@pytest.mark.slow
@pytest.mark.parametrize("order", ["front to back", "back to front", "at random"])
def test_many_are_cancelled_but_one(order):
    async def main(event, tasks):
        stays = tasks.pop(CROWD // 2)
        if order == "back to front":
            tasks.reverse()
        elif order == "at random":
            random.Random(1).shuffle(tasks)
        for number, task in enumerate(tasks):
            task.cancel()
            if number % 10_000 == 0:
                assert repr(event) == f"<Event not set, {CROWD - number - 1} waiting>"
                await checkpoint()
        event.set()
        await stays
        assert sum(task.cancelled() for task in tasks) == CROWD - 1

    assert crowd(main) == [CROWD // 2]


def test_the_task_that_sets_may_be_none_at_all():
    """Between two calls that drive the loop."""

    async def wait():
        await event.wait()
        return current_task().name

    event = Event()
    loop = SleepingLoop(wait(), speed=float("inf"))
    loop.run_until(1)
    event.set()
    assert loop.run_until_complete() == ["Task-1"]
