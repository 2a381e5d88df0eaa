"""`Task.add_done_callback()`: called once, in order, before who waits; and none gets lost."""

import contextvars
import functools
import gc
import math
import threading
import weakref

import pytest

from sleeploop import (
    CancelScope,
    LoopClosedError,
    SleepingLoop,
    TaskGroup,
    as_completed,
    create_task,
    current_loop,
    current_task,
    run,
    sleep,
    sleep_forever,
)
from sleeploop.testing import explore
from tests.helpers import OnDel, fail, give, now, virtual

VARIABLE = contextvars.ContextVar("VARIABLE", default="unset")


class Equal:
    """Is equal to others of its name, whichever they are, once something has happened."""

    def __init__(self, name, meanwhile=lambda: None):
        self.name, self.meanwhile = name, meanwhile

    def __call__(self, task):
        raise AssertionError(self.name)

    def __eq__(self, other):
        self.meanwhile()
        return self.name == other.name

    __hash__ = None


# ---- when ----------------------------------------------------------------------------------------


def test_in_order_of_adding_with_the_task_as_the_only_argument():
    log = []

    async def main():
        task = create_task(give("v", 2))
        for i in range(3):
            task.add_done_callback(lambda *args, i=i: log.append((i, *args, now())))
        await sleep(5)
        assert log == [(0, task, 2.0), (1, task, 2.0), (2, task, 2.0)]

    virtual(main())


@pytest.mark.parametrize("add_first", [True, False])
def test_before_those_who_wait_whoever_came_first(add_first):
    async def main(log):
        async def wait():
            log.append(await task)

        async def note():
            task.add_done_callback(lambda task: log.append("called"))

        async with TaskGroup() as group:
            task = group.create_task(give("v", 2))
            for coro in (note(), wait()) if add_first else (wait(), note()):
                group.create_task(coro)
            for _ in range(3):  # ready at the same time
                group.create_task(sleep(2))
        return log

    def check():
        return assert_called_first(main([]))

    async def assert_called_first(coro):
        assert await coro == ["called", "v"]

    assert explore(check, runs=50).schedules > 1


def test_whatever_becomes_of_the_task():
    async def main():
        log = []
        with CancelScope() as scope:
            tasks = [create_task(give(1)), create_task(fail(ValueError())), create_task(sleep(9))]
            tasks += [create_task(sleep(9))]  # never starts
            for task in tasks:
                task.add_done_callback(log.append)
            tasks[3].cancel()
            await sleep(1)
            tasks[2].cancel()
            scope.cancel()
        assert isinstance(tasks[1].exception(), ValueError)
        await sleep(1)
        return sorted(map(tasks.index, log)), log.index(tasks[2])

    assert virtual(main()) == ([0, 1, 2, 3], 3)


def test_of_a_task_that_has_finished_at_the_same_time():
    log = []

    async def main():
        task = create_task(give("v", 2))
        sleeper = create_task(sleep(7))
        await task
        task.add_done_callback(lambda task: log.append((task.result(), now())))
        assert log == []
        await sleep(0)
        assert log == [("v", 2.0)]
        task.add_done_callback(lambda task: task.add_done_callback(chain))
        await sleeper

    def chain(task):  # each makes the next; time does not jump past one
        log.append(now())
        if len(log) < 5:
            task.add_done_callback(chain)

    virtual(main())
    assert log == [("v", 2.0), 2.0, 2.0, 2.0, 2.0]


def test_the_task_that_runs():
    log = []

    async def main():
        current_task().add_done_callback(lambda task: log.append((task.result(), now())))
        create_task(tell_when_cancelled())
        await sleep(3)
        return "v"

    async def tell_when_cancelled():
        try:
            await sleep_forever()
        finally:
            log.append("cancelled")

    assert virtual(main()) == "v"
    assert log == [("v", 3.0), "cancelled"]


def test_the_same_one_twice_is_called_twice():
    async def main():
        log = []
        task = create_task(give("v"))
        task.add_done_callback(log.append)
        task.add_done_callback(log.append)
        await task
        return log == [task, task]

    assert virtual(main())


def test_it_may_make_tasks_and_add_further_ones():
    async def main():
        made = []
        task, other = create_task(give(1, 2)), create_task(give(2, 4))
        task.add_done_callback(lambda _: made.append(create_task(give("made", 1))))
        task.add_done_callback(lambda _: other.add_done_callback(made.append))
        await sleep(5)
        return await made[0], made[1] is other

    assert virtual(main()) == ("made", True)


# ---- where ---------------------------------------------------------------------------------------


def test_the_context():
    log = []

    def note(task):
        log.append((VARIABLE.get(), threading.get_ident()))
        VARIABLE.set("by a callback")

    async def main():
        task = create_task(give("v"))
        context = contextvars.copy_context()
        context.run(VARIABLE.set, "given")
        VARIABLE.set("when it was added")
        task.add_done_callback(note)
        VARIABLE.set("later")
        task.add_done_callback(note, context=context)
        task.add_done_callback(note, context=None)
        await task
        assert context[VARIABLE] == "by a callback"
        assert VARIABLE.get() == "later"

    virtual(main())
    names = ["when it was added", "given", "later"]
    assert log == [(name, threading.get_ident()) for name in names]


def test_no_task_runs_meanwhile():
    async def main():
        asked = []
        task = create_task(give("v"))

        def ask(_):
            asked.append(current_loop())
            with pytest.raises(RuntimeError, match="no task is right now"):
                current_task()

        task.add_done_callback(ask)
        await task
        assert asked == [current_loop()]

    virtual(main())


# ---- the end of the run --------------------------------------------------------------------------


@pytest.mark.parametrize("speed", [1, math.inf])
def test_of_tasks_that_end_in_the_cleanup(speed):
    log = []

    async def main():
        for name in "ab":
            task = create_task(sleep_forever(), name=name)
            task.add_done_callback(lambda task: log.append((task.name, task.cancelled())))
        await sleep(0)

    run(main(), speed=speed)
    assert log == [("a", True), ("b", True)]


def test_of_a_loop_that_is_closed_before_its_first_step():
    log = []
    loop = SleepingLoop(sleep(1), speed=math.inf)
    (task,) = loop.tasks()
    task.add_done_callback(log.append)
    loop.close()
    assert log == [task]
    assert task.cancelled()


def test_of_tasks_that_a_second_ctrl_c_closes():
    log = []

    async def main():
        task = create_task(sleep_forever())
        task.add_done_callback(log.append)
        await sleep(0)
        current_task().add_done_callback(log.append)
        raise KeyboardInterrupt

    async def stubborn():
        try:
            await sleep_forever()
        finally:
            raise KeyboardInterrupt

    async def both():
        create_task(stubborn()).add_done_callback(log.append)
        await main()

    with pytest.raises(KeyboardInterrupt):
        virtual(both())
    assert len(log) == 3
    assert all(task.done() for task in log)


def test_after_the_run_it_is_refused():
    async def main():
        return current_task()

    task = virtual(main())
    with pytest.raises(LoopClosedError, match=r"add_done_callback\(\): this loop has run already"):
        task.add_done_callback(print)
    assert task.remove_done_callback(print) == 0


def test_a_chain_is_refused_at_the_end_of_the_run():
    refused = []

    def chain(task):
        try:
            task.add_done_callback(chain)
        except LoopClosedError as error:
            refused.append(str(error))

    async def main():
        current_task().add_done_callback(chain)

    virtual(main())
    (message,) = refused
    assert message.startswith("add_done_callback(): the run is over")


def test_an_error_ends_the_run_and_the_others_are_called_nevertheless():
    log = []

    def broken(task):
        raise ValueError("broken")

    async def main():
        task = create_task(give("v", 1))
        task.add_done_callback(broken)
        task.add_done_callback(log.append)
        try:
            await sleep(5)
        finally:
            log.append(now())

    with pytest.raises(ValueError, match="broken"):
        virtual(main())
    assert log[1:] == [1.0]


# ---- driven bit by bit ---------------------------------------------------------------------------


def test_whoever_drives_the_loop_to_a_task_finds_them_called():
    log = []
    loop = SleepingLoop(sleep(9), speed=math.inf)
    task = loop.create_task(give("v", 2))
    task.add_done_callback(lambda task: log.append(loop.time()))
    assert loop.run_until(task) == "v"
    assert log == [2.0]
    task.add_done_callback(lambda task: log.append(loop.time()))
    assert loop.next_wake_time() == 2.0
    assert loop.step()
    assert log == [2.0, 2.0]
    loop.close()


def test_the_driver_is_told():
    log = []
    loop = SleepingLoop(speed=math.inf)
    task = loop.create_task(give("v", 2))
    loop.run_until(task)
    loop.set_wakeup(lambda: log.append("woken"))
    task.add_done_callback(log.append)
    assert log == ["woken"]
    loop.step()
    assert log == ["woken", task]
    loop.set_wakeup(loop.step)  # has it made at once
    task.add_done_callback(log.append)
    assert log == ["woken", task, task]
    loop.run_until(5)  # and time goes on
    loop.close()


# ---- taking back ---------------------------------------------------------------------------------


def test_removing():
    async def main():
        log = []
        task = create_task(give("v", 2))
        assert task.remove_done_callback(print) == 0
        for callback in log.append, print, log.append, log.clear, print:
            task.add_done_callback(callback)
        assert task.remove_done_callback(print) == 2
        assert task.remove_done_callback(print) == 0
        assert task.remove_done_callback(log.clear) == 1
        await task
        assert log == [task, task]
        assert task.remove_done_callback(log.append) == 0

    virtual(main())


def test_removing_the_only_one_and_adding_again():
    async def main():
        log = []
        task = create_task(give("v", 2))
        for _ in range(3):
            task.add_done_callback(log.append)
            assert task.remove_done_callback(log.append) == 1
        task.add_done_callback(log.append)
        await task
        assert log == [task]

    virtual(main())


def test_what_has_fallen_due_is_not_taken_back():
    async def main():
        log = []
        task = create_task(give("v"))
        task.add_done_callback(lambda task: log.append(task.remove_done_callback(log.append)))
        task.add_done_callback(log.append)
        await task
        return log == [0, task]

    assert virtual(main())


def test_a_comparison_that_fails_or_interferes():
    log = []

    async def main():
        task = create_task(sleep_forever())
        todo = [lambda: 1 // 0]
        for name in "aba":
            task.add_done_callback(Equal(name, lambda: todo and todo.pop()()))
        with pytest.raises(ZeroDivisionError):
            task.remove_done_callback(Equal("a"))
        todo.append(lambda: log.append(task.remove_done_callback(Equal("a"))))
        assert task.remove_done_callback(Equal("a")) == 0
        assert log == [2]
        todo.append(lambda: task.add_done_callback(Equal("c")))
        assert task.remove_done_callback(Equal("b")) == 1
        assert task.remove_done_callback(Equal("c")) == 1
        task.cancel()
        await sleep(1)
        assert log == [2]

    virtual(main())


def test_a_comparison_that_ends_the_task():
    log = []
    loop = SleepingLoop(speed=math.inf)
    task = loop.create_task(sleep_forever())

    class Ending(Equal):
        def __call__(self, task):
            log.append(task)

    task.add_done_callback(Ending("a", loop.close))
    assert task.remove_done_callback(Ending("a")) == 0  # too late
    assert log == [task]


# ---- wrong use -----------------------------------------------------------------------------------


def test_what_cannot_be_called():
    async def main():
        task = create_task(give("v"))
        with pytest.raises(TypeError, match=r"add_done_callback\(\) takes a function, not 'x'"):
            task.add_done_callback("x")
        with pytest.raises(TypeError, match=r"context must be a contextvars\.Context, not 7"):
            task.add_done_callback(print, context=7)
        with pytest.raises(TypeError, match="missing the argument 'fn'"):
            task.add_done_callback()
        await task

    virtual(main())


def test_from_another_thread_it_is_refused():
    async def main():
        task = create_task(give("v"))
        task.add_done_callback(print)
        errors = []

        def touch():
            for method in task.add_done_callback, task.remove_done_callback:
                with pytest.raises(RuntimeError) as info:
                    method(print)
                errors.append(info.value)

        thread = threading.Thread(target=touch)
        thread.start()
        thread.join()
        assert task.remove_done_callback(print) == 1
        return [str(error) for error in errors]

    for name, message in zip(("add", "remove"), virtual(main()), strict=True):
        assert message.startswith(f"{name}_done_callback(): this loop is running in another thread")


def test_a_task_of_the_loops_own():
    async def agen():
        try:
            yield
        finally:
            with pytest.raises(RuntimeError, match=r"the loop's own, or garbage"):
                current_task().add_done_callback(print)
            log.append("tried")

    async def main():
        generator = agen()
        await anext(generator)
        del generator
        gc.collect()
        await sleep(1)

    log = []
    virtual(main())
    assert log == ["tried"]


# ---- memory --------------------------------------------------------------------------------------


def test_nothing_stays_behind():
    async def main():
        task = create_task(give("v", 1))
        callback = OnDel(lambda: log.append("gone"))
        callback.__class__.__call__ = lambda self, task: None
        task.add_done_callback(callback)
        del callback
        await task
        assert log == ["gone"]

    log = []
    virtual(main())


def test_a_loop_in_a_circle_with_its_callbacks_is_collected():
    def make():
        loop = SleepingLoop(speed=math.inf)
        task = loop.create_task(sleep_forever())
        task.add_done_callback(lambda _: loop)
        return weakref.ref(loop)

    ref = make()
    gc.collect()
    assert ref() is None


def test_those_of_a_loop_that_was_dropped_are_freed():
    loop = SleepingLoop(speed=math.inf)
    task = loop.create_task(give("v"))
    loop.run_until(task)
    task.add_done_callback(functools.partial(print, task))
    ref = weakref.ref(task)
    loop.create_task(sleep_forever()).add_done_callback(functools.partial(print, task))
    del task
    with pytest.warns(ResourceWarning, match="neither closed nor run"):
        del loop
        gc.collect()
    gc.collect()
    assert ref() is None


def test_lists_that_were_changed_by_the_collector_are_an_error():
    async def main():
        task = create_task(give("v", 1))
        task.add_done_callback(print)
        (callbacks,) = (
            found
            for found in gc.get_referents(current_loop())
            if isinstance(found, dict) and list(map(type, found.values())) == [list]
        )
        (found,) = callbacks.values()
        found[:] = [None, (1, 2), (contextvars.copy_context(),)]
        with pytest.raises(SystemError):
            task.remove_done_callback(print)
        await sleep(5)

    with pytest.raises(BaseExceptionGroup) as info:
        virtual(main())
    assert [type(error) for error in info.value.exceptions] == [SystemError] * 3


def test_as_completed_and_callbacks_go_together():
    async def main():
        log = []
        tasks = [create_task(give(i, 3 - i)) for i in range(3)]
        for task in tasks:
            task.add_done_callback(lambda task: log.append(f"{task.result()} called"))
        async for task in as_completed(tasks):
            log.append(await task)
        return log

    assert virtual(main()) == ["2 called", 2, "1 called", 1, "0 called", 0]
