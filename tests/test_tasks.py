"""Task, create_task, joining, contexts, names and what a repr tells."""

import contextvars
import gc
import math
import types
from datetime import timedelta

import pytest

import sleeploop
from sleeploop import (
    CancelledError,
    Event,
    SleepingLoop,
    Task,
    checkpoint,
    create_task,
    current_loop,
    current_task,
    run,
    sleep,
    sleep_forever,
)
from tests.helpers import virtual


async def give(value, delay=1):
    await sleep(delay)
    return value


async def fail(error, delay=1):
    await sleep(delay)
    raise error


def test_await_gives_the_result_to_everyone_who_asks():
    async def join(task):
        return await task

    async def main():
        task = create_task(give([1]))
        joiners = [create_task(join(task)) for _ in range(3)]
        results = [await t for t in joiners]
        return results, await task, task.result()

    results, again, result = virtual(main())
    assert results == [[1]] * 3
    assert all(r is again is result for r in results)


def test_joiners_wake_in_order_and_in_the_pass_after():
    order = []

    async def join(i, task):
        await task
        order.append((i, current_loop().time()))

    async def main():
        task = create_task(give(None, 2))
        joiners = [create_task(join(i, task)) for i in range(3)]
        for t in joiners:
            await t

    virtual(main())
    assert order == [(0, 2.0), (1, 2.0), (2, 2.0)]


def test_await_raises_the_very_exception():
    error = ValueError("x")

    async def main():
        task = create_task(fail(error))
        with pytest.raises(ValueError, match="x") as info:
            await task
        assert info.value is error is task.exception()
        with pytest.raises(ValueError, match="x"):
            task.result()

    virtual(main())


@pytest.mark.parametrize("value", [None, (1, 2), StopIteration(3), ValueError("v"), ()])
def test_results_that_look_like_something_else(value):
    async def main():
        return await create_task(give(value))

    assert virtual(main()) is value


def test_a_finished_task_is_joined_without_stepping_aside():
    async def main():
        task = create_task(give(5, 0))
        await sleep(1)
        steps = current_loop().stats().steps
        assert await task == 5
        assert current_loop().stats().steps == steps

    virtual(main())


def test_a_task_cannot_wait_for_itself():
    async def main():
        with pytest.raises(RuntimeError, match="cannot wait for itself"):
            await current_task()

    virtual(main())


def test_a_task_of_another_loop():
    tasks = []

    async def keep():
        tasks.append(current_task())
        await sleep(1)

    async def main(task):
        assert await task is None  # it is finished, and that can be had anywhere
        other = SleepingLoop(speed=math.inf)
        unfinished = other.create_task(give(1))
        with pytest.raises(RuntimeError, match="another loop"):
            await unfinished

    virtual(keep())
    virtual(main(tasks[0]))
    with pytest.warns(RuntimeWarning, match="'give' was never awaited"):
        gc.collect()  # the loop that never ran


def test_a_task_is_awaited_only_on_a_loop():
    loop = SleepingLoop(speed=math.inf)
    task = loop.create_task(give(1))
    with pytest.raises(RuntimeError, match="needs a running loop"):
        task.__await__().send(None)
    loop.run_until_complete()
    with pytest.raises(StopIteration) as info:
        task.__await__().send(None)
    assert info.value.value == 1


def test_attributes_through_a_task_s_life():
    async def main():
        coro = give(7, 3)
        task = create_task(coro, name="seven")
        assert isinstance(task, Task)
        assert (task.name, task.coro, task.daemon) == ("seven", coro, False)
        assert (task.done(), task.cancelled(), task.wake_time) == (False, False, None)
        assert task.waiting_on is None
        for unfinished in (task.result, task.exception):
            with pytest.raises(RuntimeError, match="'seven' give: ready to start"):
                unfinished()
        await sleep(1)
        assert task.wake_time == 3.0
        assert repr(task.waiting_on) == "<sleep 3.0 s>"
        me = current_task()
        assert me.waiting_on is None
        task.name = "renamed"

        async def watch():
            assert me.waiting_on is task
            assert me.wake_time is None
            assert "waiting for task 'renamed'" in repr(me)

        create_task(watch())
        assert await task == 7
        assert task.done()
        assert not task.cancelled()
        assert task.exception() is None
        assert task.wake_time is None
        assert task.waiting_on is None
        assert task.coro is coro

    virtual(main())


def test_repr_in_every_state():
    async def main():
        tasks = {
            "ready to start": create_task(give(1)),
            "sleeping until 3.0 s": create_task(give(1, 3)),
            "sleeping until cancelled": create_task(sleep_forever(), daemon=True),
            "returned 'r'": create_task(give("r", 0)),
            "failed with KeyError('k')": create_task(fail(KeyError("k"), 0)),
        }
        assert "ready to start" in repr(tasks.pop("ready to start"))
        assert ": running>" in repr(current_task())
        await sleep(2)
        for text, task in tasks.items():
            assert text in repr(task)
            assert repr(task).startswith(f"<Task '{task.name}' ")
        with pytest.raises(KeyError, match="k"):
            await tasks["failed with KeyError('k')"]

    virtual(main())


def test_repr_of_a_cancelled_task():
    async def stubborn():
        try:
            await sleep_forever()
        finally:
            texts.append(repr(current_task()))

    async def main():
        tasks.append(create_task(stubborn(), name="stubborn"))
        await checkpoint()

    texts, tasks = [], []
    virtual(main())
    assert "running, being cancelled" in texts[0]
    assert repr(tasks[0]).endswith(": cancelled>")
    assert tasks[0].cancelled()
    for ask in (tasks[0].result, tasks[0].exception):
        with pytest.raises(CancelledError, match="task 'stubborn' was cancelled"):
            ask()


def test_names_are_numbered_by_each_loop():
    async def name():
        return current_task().name

    for _ in range(2):
        loop = SleepingLoop(name(), name(), speed=math.inf)
        assert loop.run_until_complete() == ["Task-1", "Task-2"]


def test_a_name_is_a_str():
    async def main():
        coro = give(1)
        with pytest.raises(TypeError, match="name must be a str, not 5"):
            create_task(coro, name=5)
        task = create_task(coro)  # the coroutine was left alone
        with pytest.raises(TypeError, match="name must be a str, not 6"):
            task.name = 6
        del task.name
        assert task.name == "Task-2"

    virtual(main())


def test_tasks_cannot_be_made_by_hand():
    with pytest.raises(TypeError, match=r"cannot create 'sleeploop.Task' instances"):
        Task()
    assert Task[int].__origin__ is Task


@pytest.mark.parametrize(
    ("bad", "hint"),
    [
        (5, "5"),
        (give, r"call it first"),
        (Event().wait, r"call it first"),
        (sleep, "takes a coroutine"),
        (types.SimpleNamespace(send=1, throw=2), "takes a coroutine"),
    ],
)
def test_what_is_no_coroutine_is_refused(bad, hint):
    async def main():
        with pytest.raises(TypeError, match=hint):
            create_task(bad)

    virtual(main())
    with pytest.raises(TypeError, match=hint):
        SleepingLoop(bad)
    with pytest.raises(TypeError, match=hint):
        run(bad)


def test_an_async_generator_is_no_coroutine():
    async def agen():
        yield 1

    with pytest.raises(TypeError, match="async for"):
        SleepingLoop(agen())


@pytest.mark.parametrize("call", [lambda: create_task(), lambda: create_task(1, 2)])
def test_create_task_arguments(call):
    async def main():
        with pytest.raises(TypeError, match="create_task"):
            call()
        coro = give(1)
        with pytest.raises(TypeError, match="unexpected keyword argument 'nam'"):
            create_task(coro, nam="x")
        with pytest.raises(TypeError, match="multiple values for argument 'coro'"):
            create_task(coro, coro=coro)
        coro.close()

    virtual(main())


def test_without_a_loop():
    for function in (current_task, current_loop):
        with pytest.raises(RuntimeError, match=f"{function.__name__}.*needs a running loop"):
            function()
    coro = give(1)
    with pytest.raises(RuntimeError, match=r"create_task\(\) needs a running loop"):
        create_task(coro)
    coro.close()


def test_tasks_lists_the_unfinished_in_order_of_creation():
    async def main():
        loop = current_loop()
        first = create_task(give(1, 1))
        second = create_task(give(2, 2))
        listed = loop.tasks()
        assert listed == [current_task(), first, second]
        listed.clear()  # a copy
        await sleep(1.5)
        assert loop.tasks() == [current_task(), second]

    virtual(main())


def test_each_task_runs_in_its_own_copy_of_the_context():
    var = contextvars.ContextVar("var", default=0)
    seen = []

    async def child():
        seen.append(var.get())
        var.set(var.get() + 1)
        await checkpoint()
        seen.append(var.get())
        return current_task().context

    async def main():
        var.set(10)
        tasks = [create_task(child()), create_task(child())]
        var.set(20)  # too late for the children
        contexts = [await t for t in tasks]
        assert var.get() == 20
        assert [c[var] for c in contexts] == [11, 11]

    virtual(main())
    assert seen == [10, 10, 11, 11]
    assert var.get() == 0


def test_the_roots_take_the_context_of_where_the_loop_is_made():
    var = contextvars.ContextVar("var")

    async def root():
        value = var.get()
        var.set("changed")
        return value

    def make_and_run():
        var.set("made")
        loop = SleepingLoop(root(), root(), speed=math.inf)
        var.set("run")
        assert loop.run_until_complete() == ["made", "made"]
        assert var.get() == "run"

    contextvars.copy_context().run(make_and_run)


def test_generators_and_duck_coroutines_run():
    @types.coroutine
    def generator():
        yield
        return "generator"

    class Duck:
        def __init__(self):
            self.left = 2

        def send(self, value):
            assert value is None
            self.left -= 1
            if self.left < 0:
                raise StopIteration("duck")

        def throw(self, *args):
            raise args[0]

        def close(self):
            pass

    loop = SleepingLoop(generator(), Duck(), sleep(2), speed=math.inf)
    assert loop.run_until_complete() == ["generator", "duck", timedelta(seconds=2)]


def test_a_duck_that_fails_by_stop_iteration_in_throw_has_returned():
    class Duck:
        def send(self, value):
            return object()  # nonsense, so that the loop throws

        def throw(self, error):
            assert isinstance(error, TypeError)
            raise StopIteration(error.__class__.__name__)

        def close(self):
            pass

    assert SleepingLoop(Duck(), speed=math.inf).run_until_complete() == ["TypeError"]


@pytest.mark.parametrize("how", ["finished", "running", "started"])
def test_a_coroutine_that_is_not_new(how):
    async def two_steps():
        await checkpoint()

    async def main():
        if how == "running":
            coro = current_task().coro
            match = "is running"
        else:
            coro = two_steps()
            coro.send(None)
            match = "already started"
            if how == "finished":
                coro.close()
                match = "already finished"
        for refuse in (create_task, SleepingLoop):
            with pytest.raises(RuntimeError, match=match):
                refuse(coro)
        if how == "started":
            coro.close()

    virtual(main())


def test_the_same_coroutine_twice():
    coro = give(1)
    with pytest.raises(RuntimeError, match="same coroutine twice"):
        SleepingLoop(coro, coro, speed=math.inf)
    assert SleepingLoop(coro, speed=math.inf).run_until_complete() == [1]

    async def main():
        coro = give(2)
        first, second = create_task(coro), create_task(coro)
        with pytest.raises(RuntimeError, match="already started elsewhere"):
            await second
        return await first

    assert virtual(main()) == 2


def test_the_same_coroutine_twice_is_closed_by_neither():
    async def main():
        coro = give("first", 2)
        task = create_task(coro)
        await checkpoint()  # it runs, and what follows is cancelled before it starts
        loop = SleepingLoop(speed=math.inf)
        with pytest.raises(RuntimeError, match="already started"):
            loop.create_task(coro)
        return await task

    assert virtual(main()) == "first"


def test_a_coroutine_awaited_twice_closed_or_driven_by_others():
    async def awaits(coro):
        return await coro

    async def main():
        coro = give(1)
        task = create_task(coro)
        await checkpoint()
        with pytest.raises(RuntimeError, match="being awaited already"):
            await awaits(coro)
        assert await task == 1

        closed = give(2)
        task = create_task(closed)
        await checkpoint()
        closed.close()
        with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
            await task

        driven = give(3)
        task = create_task(driven)
        await checkpoint()
        with pytest.raises(RuntimeError, match="awaited before"):
            driven.send(None)  # behind the loop's back: the sleep is the task's
        with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
            await task

    virtual(main())


def test_daemons_are_not_waited_for():
    async def background():
        try:
            while True:
                await sleep(1)
        finally:
            ended.append(current_loop().time())

    ended = []
    loop = SleepingLoop(give(1, 2.5), speed=math.inf)
    task = loop.create_task(background(), daemon=True)
    assert task.daemon
    assert loop.run_until_complete() == [1]
    assert ended == [2.5]
    assert task.cancelled()


def test_run_until_complete_waits_for_tasks_but_run_does_not():
    done = []

    async def child():
        await sleep(10)
        done.append(1)

    async def main():
        create_task(child())
        return "main"

    loop = SleepingLoop(main(), speed=math.inf)
    assert loop.run_until_complete() == ["main"]
    assert (done, loop.time()) == ([1], 10.0)
    assert sleeploop.run(main(), speed=math.inf) == "main"
    assert done == [1]


def test_a_task_that_nobody_keeps_runs_on():
    """The loop holds it."""
    done = []

    async def child():
        await sleep(1)
        await create_task(give(None))
        done.append(current_loop().time())

    async def main():
        create_task(child())
        await checkpoint()
        gc.collect()
        await sleep(1.5)
        gc.collect()
        await sleep(8.5)

    virtual(main())
    assert done == [2.0]


# ---- asyncio's names -----------------------------------------------------------------------------


def test_asyncio_names_of_a_tasks_attributes():
    async def main():
        task = create_task(sleep(1), name="first")
        assert task.get_name() == task.name == "first"
        task.set_name("second")
        assert task.get_name() == task.name == "second"
        assert task.get_coro() is task.coro
        assert task.get_context() is task.context
        with pytest.raises(TypeError, match="name must be a str, not 7"):
            task.set_name(7)
        task.set_name(None)
        return task.get_name()

    assert virtual(main()) == "Task-2"


def test_asyncio_names_of_the_loop_and_its_tasks():
    async def main():
        loop = sleeploop.get_running_loop()
        assert loop is current_loop()
        task = create_task(sleep(1))
        assert sleeploop.all_tasks() == sleeploop.all_tasks(loop) == {task, current_task()}
        await task
        assert sleeploop.all_tasks() == {current_task()}
        return loop, sleeploop.current_time()

    loop, time = virtual(main())
    assert (sleeploop.all_tasks(loop), time) == (set(), 1.0)
    assert sleeploop.TimeoutError is TimeoutError
    for name in "get_running_loop", "current_time":
        with pytest.raises(RuntimeError, match=rf"{name}\(\) needs a running loop"):
            getattr(sleeploop, name)()
    with pytest.raises(RuntimeError, match="needs a running loop"):
        sleeploop.all_tasks()
    with pytest.raises(TypeError, match="takes a SleepingLoop, not 7"):
        sleeploop.all_tasks(7)
