"""Errors name the function that people have called, and say what to do instead."""

import inspect
import math

import pytest

import sleeploop
from sleeploop import (
    Event,
    LifoQueue,
    PriorityQueue,
    SleepingLoop,
    TaskGroup,
    create_task,
    run,
    sleep,
)
from tests.helpers import give, virtual, yielding


class Number:
    """Not an int, but as good as one: numpy has such."""

    def __init__(self, value):
        self.value = value

    def __index__(self):
        return self.value


def awaited(aw):
    """Up to what it yields first."""
    try:
        return (aw if inspect.iscoroutine(aw) else aw.__await__()).send(None)
    finally:
        if inspect.iscoroutine(aw):
            aw.close()


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("gather()", lambda: awaited(sleeploop.gather())),
        ("gather()", lambda: awaited(sleeploop.gather(sleep(1)))),
        ("first_of()", lambda: awaited(sleeploop.first_of(sleep(1)))),
        ("all_of()", lambda: awaited(sleeploop.all_of(sleep(1)))),
        ("as_completed()", lambda: sleeploop.as_completed([])),
        ("wait_for()", lambda: awaited(sleeploop.wait_for(sleep(1), 1))),
        ("to_thread()", lambda: awaited(sleeploop.to_thread(print))),
        ("timeout()", lambda: sleeploop.timeout(1).__enter__()),
        ("timeout()", lambda: sleeploop.timeout(None).__enter__()),
        ("timeout()", lambda: awaited(sleeploop.timeout(1).__aenter__())),
        ("timeout_at()", lambda: sleeploop.timeout_at(1).__enter__()),
        ("move_on_after()", lambda: sleeploop.move_on_after(math.inf).__enter__()),
        ("move_on_at()", lambda: sleeploop.move_on_at(1).__enter__()),
        ("entering a CancelScope", lambda: sleeploop.CancelScope().__enter__()),
        ("entering a TaskGroup", lambda: awaited(TaskGroup().__aenter__())),
        ("start()", lambda: awaited(TaskGroup().start(give))),
        ("format_tasks()", sleeploop.format_tasks),
        ("find_deadlocks()", sleeploop.find_deadlocks),
        ("all_tasks()", sleeploop.all_tasks),
        ("current_time()", sleeploop.current_time),
        ("current_task()", sleeploop.current_task),
        ("current_loop()", sleeploop.current_loop),
        ("Event.wait()", lambda: awaited(Event().wait())),
    ],
)
def test_outside_of_a_run_each_names_itself(name, call):
    with pytest.raises(RuntimeError) as info:
        call()
    assert str(info.value).startswith(f"{name} needs a running loop: ")


def test_where_no_task_is_each_names_itself_as_well():
    told = []

    def call(*_):
        for function in (
            lambda: awaited(sleeploop.gather()),
            lambda: awaited(sleeploop.wait_for(sleep(1), 1)),
            lambda: sleeploop.timeout(1).__enter__(),
        ):
            with pytest.raises(RuntimeError, match="no task is right now") as info:
                function()
            told.append(str(info.value).partition(":")[0])

    async def main():
        sleeploop.current_loop().call_soon_threadsafe(call)
        await sleep(1)

    virtual(main())
    assert told == ["gather()", "wait_for()", "timeout()"]


def test_an_iteration_taken_out_of_its_run():
    async def main():
        return sleeploop.as_completed([give(1)])

    later = virtual(main())
    with pytest.raises(RuntimeError, match=r"^as_completed\(\) needs a running loop"):
        awaited(next(later))


PUBLIC = [name for name in sleeploop.__all__ if inspect.isbuiltin(getattr(sleeploop, name))]


@pytest.mark.parametrize("name", PUBLIC)
def test_functions_are_sleeploops(name):
    function = getattr(sleeploop, name)
    assert function.__module__ == "sleeploop"
    with pytest.raises((TypeError, RuntimeError)) as info:
        function(nonsense=1)
    assert "_sleeploop" not in str(info.value)
    with pytest.raises((TypeError, RuntimeError)) as info:
        function(1, 2, 3, 4, 5, 6, 7, 8)
    assert "_sleeploop" not in str(info.value)


TYPES = [kind for kind in map(vars(sleeploop).get, sleeploop.__all__) if isinstance(kind, type)]


@pytest.mark.parametrize("kind", TYPES)
def test_no_type_names_a_private_module(kind):
    with pytest.raises(TypeError) as info:
        kind(nonsense=1)
    assert "_sleeploop" not in str(info.value)


@pytest.mark.parametrize("kind", [sleeploop.Queue, LifoQueue, PriorityQueue])
def test_queues_name_themselves(kind):
    with pytest.raises(TypeError, match=rf"\b{kind.__name__}\(\)"):
        kind(nonsense=1)


@pytest.mark.parametrize("speed", ["inf", "1", [], object()])
def test_a_speed_of_a_wrong_type(speed):
    with pytest.raises(TypeError, match=r"^speed must be a positive number or math\.inf, not "):
        SleepingLoop(speed=speed)
    with pytest.raises(TypeError, match=r"math\.inf, not .*; 0 pauses"):
        SleepingLoop().speed = speed


def test_the_environment_does_not_know_the_module_math(monkeypatch):
    monkeypatch.setenv("SLEEPLOOP_SPEED", "fast")
    with pytest.raises(ValueError, match="SLEEPLOOP_SPEED must be a positive number or inf, not"):
        SleepingLoop()


def test_whatever_has_an_index_is_an_int():
    loop = SleepingLoop(seed=Number(3), shuffle=Number(5), trace=Number(7), speed=math.inf)
    assert loop.random("x").random() == SleepingLoop(seed=3).random("x").random()
    assert run(give(1), seed=Number(2**100), speed=math.inf) == 1

    async def main():
        order = []

        async def note(n):
            order.append(n)

        async with TaskGroup() as group:
            for n in range(10):
                group.create_task(note(n))
        return order

    assert run(main(), shuffle=Number(5), speed=math.inf) == run(main(), shuffle=5, speed=math.inf)


@pytest.mark.parametrize("name", ["seed", "shuffle", "trace"])
def test_what_is_wrong_about_an_index(name):
    class Bad:
        def __index__(self):
            raise LookupError

    for wrong in 1.5, "1":
        with pytest.raises(TypeError, match=f"^{name} must be "):
            SleepingLoop(**{name: wrong})
    with pytest.raises(LookupError):
        SleepingLoop(**{name: Bad()})


def test_what_may_be_yielded_is_told():
    async def main():
        await yielding("text")

    with pytest.raises(TypeError, match="own awaitables, or yield a datetime or None"):
        virtual(main())


def test_they_are_still_of_use_inside():
    async def main():
        async with sleeploop.timeout(1), TaskGroup() as group:
            group.create_task(give(1))
        create_task(give(1))
        return await sleeploop.wait_for(give(2), None)

    assert virtual(main()) == 2


def test_a_coroutine_given_to_run_until_complete_as_asyncio_takes_it():
    coro = give(1)
    loop = SleepingLoop(speed=math.inf)
    with pytest.raises(TypeError, match=r"takes no arguments, not .*; give coroutines to Sleepi"):
        loop.run_until_complete(coro)
    task = loop.create_task(coro)
    loop.run_until_complete()
    assert task.result() == 1
