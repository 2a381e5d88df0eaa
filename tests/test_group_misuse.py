"""TaskGroup used wrongly: at the wrong time, in the wrong place, by hand; and what it keeps."""

# ruff: noqa: PT012 -- an `async with` block raises at its end, whatever is in it

import gc
import threading

import pytest

from sleeploop import (
    CancelledError,
    CancelScope,
    DeadlockError,
    TaskGroup,
    checkpoint,
    create_task,
    sleep,
    sleep_forever,
)
from tests.helpers import OnDel, cleanup, fail, give, now, references, virtual


def test_before_and_after_the_block_nothing_is_accepted():
    async def main():
        group, coro = TaskGroup(), give("unharmed")
        with pytest.raises(RuntimeError, match="has not been entered"):
            group.create_task(coro)
        async with group:
            pass
        with pytest.raises(RuntimeError, match="is finished"):
            group.create_task(coro)
        with pytest.raises(RuntimeError, match="has been entered before"):
            async with group:
                pass
        return await coro

    assert virtual(main()) == "unharmed"


def test_arguments():
    async def main():
        with pytest.raises(TypeError, match="takes no arguments"):
            TaskGroup(5)
        with pytest.raises(TypeError, match="not an acceptable base type"):
            type("Sub", (TaskGroup,), {})
        coro = give(1)
        async with TaskGroup() as group:
            with pytest.raises(TypeError, match="call it first"):
                group.create_task(give)
            with pytest.raises(TypeError, match="name must be a str"):
                group.create_task(coro, name=5)
            with pytest.raises(TypeError, match=r"must be a contextvars.Context, not \{\}"):
                group.create_task(coro, context={})
            with pytest.raises(TypeError, match="unexpected keyword argument 'daemon'"):
                group.create_task(coro, daemon=True)
            with pytest.raises(AttributeError):
                group.cancel_scope = None
            with pytest.raises(TypeError, match="3 arguments"):
                group.__aexit__()
            with pytest.raises(TypeError, match="exception"):
                group.__aexit__(int, 5, None)
            assert repr(group) == "<TaskGroup open, 0 tasks>"
            task = group.create_task(coro)  # which all that has left alone
        assert task.result() == 1
        with pytest.raises(TypeError, match="context manager"), TaskGroup():
            pass

    virtual(main())


def test_outside_of_a_task():
    group = TaskGroup()
    with pytest.raises(RuntimeError, match="needs a running loop"):
        group.__aenter__()
    coro = give(1)
    with pytest.raises(RuntimeError, match="needs a running loop"):
        group.create_task(coro)
    coro.close()

    async def main():
        async with group:  # no harm was done
            return await group.create_task(give(2))

    assert virtual(main()) == 2


def test_other_threads_are_refused():
    async def main():
        async with TaskGroup() as group:
            task = group.create_task(give("fine", 1))
            refused = []

            def attempt(call):
                try:
                    call()
                except RuntimeError as error:
                    refused.append(str(error))

            coro = give(1)
            for call in (
                lambda: group.create_task(coro),
                lambda: group.cancel_scope.cancel(),
                lambda: setattr(group.cancel_scope, "deadline", 0),
                lambda: setattr(group.cancel_scope, "shield", True),
            ):
                thread = threading.Thread(target=attempt, args=[call])
                thread.start()
                thread.join()
            coro.close()
        assert len(refused) == 4
        assert "needs a running loop" in refused[0]
        assert all("another thread" in text for text in refused[1:])
        return task.result()

    assert virtual(main()) == "fine"


def test_left_in_the_wrong_order():
    async def main():
        with pytest.raises(ExceptionGroup) as info:
            async with TaskGroup() as group:
                task = group.create_task(cleanup(log, "task", 1))
                await sleep(1)
                inner = CancelScope(deadline=5)
                inner.__enter__()
        (error,) = info.value.exceptions
        assert isinstance(error, RuntimeError)
        assert "wrong order" in str(error)
        assert task.cancelled()
        with pytest.raises(RuntimeError, match="torn off"):
            inner.__exit__(None, None, None)
        await sleep(10)  # neither is in force any more

        outer = CancelScope()
        outer.__enter__()
        group = TaskGroup()
        await group.__aenter__()
        task = group.create_task(sleep(100))
        with pytest.raises(RuntimeError, match="wrong order: a TaskGroup was entered inside"):
            outer.__exit__(None, None, None)
        with pytest.raises(RuntimeError, match="is finished"):
            group.create_task(task.coro)
        with pytest.raises(CancelledError):
            await task
        with pytest.raises(RuntimeError, match="torn off"):
            await group.__aexit__(None, None, None)
        return now()

    log = []
    assert virtual(main()) == 12.0
    assert log == [("task", 2.0)]


def test_left_by_another_task():
    async def thief(group):
        with pytest.raises(RuntimeError, match="was entered by task 'Task-1'"):
            await group.__aexit__(None, None, None)
        assert repr(group) == "<TaskGroup open, 1 task>"

    async def main():
        async with TaskGroup() as group:
            group.create_task(sleep(100))
            await create_task(thief(group))
            await sleep(1)
        return now()

    assert virtual(main()) == 100.0


def test_a_task_that_ends_inside_of_a_group():
    async def careless():
        await groups[0].__aenter__()
        tasks.append(groups[0].create_task(cleanup(log, "child", 2)))
        await sleep(1)

    async def main():
        with pytest.raises(RuntimeError, match="ended inside of a TaskGroup"):
            await create_task(careless())
        assert now() == 1.0
        with pytest.raises(CancelledError, match="the block that it was made in is gone"):
            await tasks[0]
        assert repr(groups[0]) == "<TaskGroup finished, 0 tasks, cancelled>"

    log, groups, tasks = [], [TaskGroup()], []
    virtual(main())
    assert log == [("child", 3.0)]


def test_an_async_generator_abandoned_inside_of_a_group():
    async def agen():
        async with TaskGroup() as group:
            tasks.append(group.create_task(sleep(100)))
            yield

    async def main():
        with pytest.raises(RuntimeError, match="ended inside of a TaskGroup"):
            await create_task(abandon())
        with pytest.raises(CancelledError):
            await tasks[0]
        return now()

    async def abandon():
        async for _ in gen:
            break

    gen, tasks = agen(), []
    assert virtual(main()) == 0.0


def test_the_end_driven_by_hand():
    async def main():
        group = TaskGroup()
        entered = group.__aenter__()
        assert await entered is group
        with pytest.raises(RuntimeError, match="awaited before"):
            await entered
        task = group.create_task(give("result", 1))
        end = group.__aexit__(None, None, None)
        assert end.send(None) is end
        assert end.send(None) is end  # it waits, and tells it again
        await sleep(2)
        with pytest.raises(StopIteration):
            end.send(None)
        with pytest.raises(RuntimeError, match="awaited before"):
            end.send(None)
        assert repr(group) == "<TaskGroup finished, 0 tasks>"
        return task.result()

    assert virtual(main()) == "result"


@pytest.mark.parametrize("how", ["close", "throw"])
def test_the_end_given_up_by_hand(how):
    async def main():
        group = TaskGroup()
        await group.__aenter__()
        task = group.create_task(sleep(100))
        end = group.__aexit__(None, None, None)
        end.send(None)
        if how == "close":
            end.close()
        else:
            with pytest.raises(KeyError):
                end.throw(KeyError)
        assert repr(group) == "<TaskGroup finished, 1 task, cancelled>"
        with pytest.raises(CancelledError):
            await task

    virtual(main())


def test_a_host_whose_coroutine_is_closed_while_it_waits_for_its_tasks():
    async def host():
        async with TaskGroup() as group:
            tasks.append(group.create_task(cleanup(log, "child", 2)))

    async def main():
        coro = host()
        task = create_task(coro)
        await sleep(1)
        coro.close()
        assert "finished, 1 task, cancelled" in repr(task.waiting_on)
        with pytest.raises(RuntimeError, match="already awaited"):
            await task
        with pytest.raises(CancelledError):
            await tasks[0]

    log, tasks = [], []
    virtual(main())
    assert log == [("child", 3.0)]


@pytest.mark.parametrize("torn", ["end closed", "group dropped", "task ended", "host closed"])
def test_what_has_failed_in_a_group_torn_off_is_raised_by_the_run(torn):
    """The end of its block does not come, so that the group itself cannot raise it."""

    async def host():
        group = TaskGroup()
        await group.__aenter__()
        group.create_task(fail(KeyError("kept"), 1))
        if torn != "task ended":
            group.create_task(cleanup([], "child", 2))
        with pytest.raises(CancelledError, match="failed with KeyError"):
            await sleep_forever()
        if torn == "end closed":
            end = group.__aexit__(None, None, None)
            end.send(None)
            end.close()
        elif torn == "host closed":
            await group.__aexit__(None, None, None)
        elif torn == "group dropped":
            del group
            gc.collect()
        return torn

    async def main():
        coro = host()
        task = create_task(coro)
        await sleep(2)
        if torn == "host closed":
            coro.close()
        if torn == "end closed":
            assert await task == torn
        else:
            with pytest.raises(RuntimeError, match=r"ended inside of a|already awaited"):
                await task

    with pytest.raises(KeyError, match="kept"):
        virtual(main())


@pytest.mark.parametrize("before", [[], ["KeyError('child')"]])
def test_what_the_block_raises_cannot_be_split(before):
    """That is a failure of the block, and what its tasks have raised is not lost by it."""

    class Unsplittable(BaseExceptionGroup):
        def split(self, condition):
            raise OSError("no split")

    async def main():
        with pytest.raises(ExceptionGroup) as caught:
            async with TaskGroup() as group:
                if before:
                    group.create_task(fail(KeyError("child")))
                else:
                    group.cancel_scope.cancel()
                with pytest.raises(CancelledError):
                    await sleep(1)
                raise Unsplittable("", [ValueError()])
        return [repr(error) for error in caught.value.exceptions]

    assert virtual(main()) == [*before, "OSError('no split')"]


def test_its_scope_entered_or_left_by_hand():
    async def main():
        group = TaskGroup()
        with group.cancel_scope, pytest.raises(RuntimeError, match="has been entered before"):
            async with group:
                pass
        with pytest.raises(RuntimeError, match="has been left before"):
            async with TaskGroup() as group:
                task = group.create_task(sleep(9))
                group.cancel_scope.__exit__(None, None, None)
                with pytest.raises(RuntimeError, match="is finished"):
                    group.create_task(task.coro)
        with pytest.raises(CancelledError):
            await task

    virtual(main())


def test_a_deadlock_tells_who_waits_for_the_group():
    async def main():
        async with TaskGroup() as group:
            group.create_task(sleep_forever(), name="stuck")

    with pytest.raises(DeadlockError) as info:
        virtual(main())
    assert "'Task-1' " in str(info.value)
    assert "waiting for the 1 task of its TaskGroup" in str(info.value)
    assert "'stuck' " in str(info.value)


# ---- memory --------------------------------------------------------------------


def test_tasks_die_while_the_group_goes_on():
    async def child(_token):
        await checkpoint()

    async def main():
        async with TaskGroup() as group:
            group.create_task(child(OnDel(lambda: log.append("freed"))))
            await sleep(1)
            log.append("body")

    log = []
    gc.disable()
    try:
        virtual(main())
    finally:
        gc.enable()
    assert log == ["freed", "body"]


@pytest.mark.parametrize("end", ["quiet", "failure", "cancelled"])
def test_a_group_leaves_no_cycle(end):
    async def child(_token):
        await sleep(1)
        if end == "failure":
            raise ValueError

    async def host(token):
        async with TaskGroup() as group:
            group.create_task(child(token))
            if end == "cancelled":
                await checkpoint()
                group.cancel_scope.cancel()
            await sleep(2)

    async def main():
        try:
            await host(OnDel(lambda: log.append("freed")))
        except ExceptionGroup:
            log.append("caught")
        await checkpoint()  # what was thrown lives until the step ends
        log.append("end")

    log = []
    gc.collect()
    gc.disable()
    try:
        virtual(main())
    finally:
        gc.enable()
    assert log == (["caught"] if end == "failure" else []) + ["freed", "end"]


def test_a_cycle_through_a_group_is_collected():
    log = []

    def make():
        group = TaskGroup()
        token = OnDel(lambda: log.append("freed"))
        token.group = group
        group.cancel_scope.cancel(token)  # the reason keeps it, and it keeps the group

    make()
    gc.collect()
    assert log == ["freed"]


def test_reference_counts():
    async def main():
        error = ValueError()
        group = TaskGroup()
        before = references(group), references(error)
        try:
            async with group:
                group.create_task(fail(error, 1))
                group.create_task(sleep(5))
        except ExceptionGroup:
            pass
        error.__traceback__ = None
        assert (references(group), references(error)) == before

    virtual(main())
