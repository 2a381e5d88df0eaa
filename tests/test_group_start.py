"""TaskGroup.start(): a task that says when it is ready, and whose it is until then."""

# ruff: noqa: PT012 -- an `async with` block raises at its end, whatever is in it

import contextvars
import gc

import pytest

from sleeploop import (
    CancelledError,
    CancelScope,
    DeadlockError,
    TaskGroup,
    checkpoint,
    create_task,
    current_loop,
    current_task,
    move_on_after,
    sleep,
    sleep_forever,
    timeout,
)
from tests.helpers import now, outcome, virtual


async def server(*args, started, before=1.0, after=10.0):
    await sleep(before)
    started(args)
    await sleep(after)
    return "served"


async def never_ready(*, started):
    await sleep_forever()


async def cancel_later(scope):
    await sleep(1)
    scope.cancel("why")


# ---- what it gives back --------------------------------------------------------


def test_start_waits_for_started_and_returns_its_value():
    async def main():
        async with TaskGroup() as group:
            assert await group.start(server, "a", 2) == ("a", 2)
            assert now() == 1.0
            assert repr(group) == "<TaskGroup open, 1 task>"
        return now()

    assert virtual(main()) == 11.0


@pytest.mark.parametrize("value", [None, (), (1, 2), StopIteration(3), ValueError("v"), [1]])
def test_values_that_look_like_something_else(value):
    async def ready(*, started):
        started(value)

    async def main():
        async with TaskGroup() as group:
            return await group.start(ready)

    assert virtual(main()) is value


def test_the_value_is_none_by_default():
    async def ready(*, started):
        assert started() is None
        await sleep(1)

    async def main():
        async with TaskGroup() as group:
            return await group.start(ready)

    assert virtual(main()) is None


def test_a_task_may_end_right_after_started():
    """In the same step: the starter is woken by started(), and finds a task that is done."""

    async def ready(*, started):
        started("value")

    async def brief(*, started):
        started("value")
        raise ValueError("after")

    async def main():
        async with TaskGroup() as group:
            assert await group.start(ready) == "value"
        with pytest.raises(ExceptionGroup) as info:
            async with TaskGroup() as group:
                assert await group.start(brief) == "value"  # what came first, counts
                log.append("body")
                await sleep(1)
        assert repr(info.value.exceptions) == "(ValueError('after'),)"

    log = []
    virtual(main())
    assert log == ["body"]


def test_the_task_runs_in_the_next_pass_in_a_copy_of_the_starter_s_context():
    var = contextvars.ContextVar("var")

    async def child(*, started):
        log.append("child")
        seen = var.get()
        var.set("child's")
        started(seen)

    async def other():
        log.append("other")

    async def main():
        var.set("main's")
        create_task(other())
        async with TaskGroup() as group:
            assert await group.start(child) == "main's"
        assert var.get() == "main's"

    log = []
    virtual(main())
    assert log == ["other", "child"]


def test_what_a_starter_tells_while_it_waits():
    async def main():
        async with TaskGroup() as group:
            create_task(watch(current_task(), group))
            await sleep(0.5)
            await group.start(server)

    async def watch(starter, group):
        await sleep(1)
        task = starter.waiting_on
        assert task.parent is starter
        assert (starter.waiting_since, starter.wake_time) == (0.5, None)
        assert f"waiting for task '{task.name}' to start" in repr(starter)
        assert repr(group) == "<TaskGroup open, 1 task>"
        await sleep(1)
        assert task.parent is starter  # it is the host's now, which is the same here
        assert not task.done()
        log.append(task)

    log = []
    virtual(main())
    assert log[0].result() == "served"


def test_start_without_a_keyword_for_arguments():
    async def main():
        async with TaskGroup() as group:
            with pytest.raises(TypeError):
                group.start(server, before=2)
            with pytest.raises(TypeError, match="missing the argument 'async_fn'"):
                group.start()

    virtual(main())


def test_nothing_happens_before_it_is_awaited():
    async def main():
        async with TaskGroup() as group:
            start = group.start(server)
            await sleep(5)
            assert len(current_loop().tasks()) == 1
            await start
            assert now() == 6.0
            with pytest.raises(RuntimeError, match="awaited before"):
                await start
            with pytest.warns(RuntimeWarning, match=r"'TaskGroup\.start' was never awaited"):
                group.start(server)  # no harm done

    virtual(main())


# ---- failures before started() -------------------------------------------------


def test_a_failure_before_started_is_raised_by_start_as_it_is(caplog):
    error = ValueError("not ready")

    async def bad(*, started):
        await sleep(1)
        raise error

    async def main():
        async with TaskGroup() as group:
            sibling = group.create_task(sleep(5))
            with pytest.raises(ValueError, match="not ready") as info:
                await group.start(bad)
            assert info.value is error
            assert info.traceback[-1].name == "bad"
        assert not sibling.cancelled()  # the group has nothing to do with it
        assert not group.cancel_scope.cancel_called
        return now()

    assert virtual(main()) == 5.0
    gc.collect()
    assert caplog.records == []


@pytest.mark.parametrize("how", ["returns", "cancels itself"])
def test_a_task_that_ends_without_started(how):
    async def odd(*, started):
        await sleep(1)
        if how != "returns":
            current_task().cancel()
            await sleep(1)

    async def main():
        async with TaskGroup() as group:
            with pytest.raises(RuntimeError, match=r"ended without a call of started\(\)"):
                await group.start(odd)
        assert not group.cancel_scope.cancel_called

    virtual(main())


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_what_stands_alone_ends_the_run(kind):
    async def bad(*, started):
        raise kind("now")

    async def main():
        async with TaskGroup() as group:
            with pytest.raises(kind):  # this one hears of it, too
                await group.start(bad)
            await sleep(1)
            log.append("not reached")

    log = []
    with pytest.raises(kind, match="now"):
        virtual(main())
    assert log == []


def test_a_failure_in_the_group_ends_start():
    async def bad():
        await sleep(1)
        raise ValueError

    async def main():
        with pytest.raises(ExceptionGroup) as info:
            async with TaskGroup() as group:
                group.create_task(bad())
                await group.start(server, 1, 2)
        return info.value.exceptions, now()

    # The server is ready just in time, and then cancelled with the rest.
    errors, time = virtual(main())
    assert [type(error) for error in errors] == [ValueError]
    assert time == 1.0


# ---- whose task it is ----------------------------------------------------------


def test_afterwards_it_is_a_task_of_the_group():
    async def bad_later(*, started):
        started()
        await sleep(2)
        raise ValueError("later")

    async def main():
        with pytest.raises(ExceptionGroup) as info:
            async with TaskGroup() as group:
                with CancelScope() as scope:  # around the start only
                    await group.start(bad_later)
                scope.cancel()
                await sleep(10)
        assert repr(info.value.exceptions) == "(ValueError('later'),)"
        async with TaskGroup() as group:
            await group.start(server)
            group.cancel_scope.cancel()
        return now()

    assert virtual(main()) == 3.0


@pytest.mark.parametrize("from_outside", [False, True])
def test_cancelling_the_starter_cancels_the_task_and_waits_for_it(from_outside):
    async def slow(*, started):
        try:
            await sleep_forever()
        except CancelledError as error:
            log.append(error.reason)
            with CancelScope(shield=True):
                await sleep(2)
            raise

    async def starter(group):
        await group.start(slow)

    async def main():
        async with TaskGroup() as group:
            if from_outside:
                task = create_task(starter(group))
                await sleep(1)
                task.cancel("why")
                with pytest.raises(CancelledError):
                    await task
            else:
                with CancelScope() as scope:
                    create_task(cancel_later(scope))
                    await group.start(slow)
                assert scope.cancelled_caught
            assert now() == 3.0
        assert not group.cancel_scope.cancel_called  # a scope around start() is not the group's

    log = []
    virtual(main())
    assert log == ["why"]


def test_a_deadline_around_start():
    async def main():
        async with TaskGroup() as group:
            with pytest.raises(TimeoutError):
                async with timeout(3):
                    await group.start(never_ready)
            with move_on_after(3):
                await group.start(server)
            await sleep(5)  # its deadline is that of start() and not that of the task
        return now()

    assert virtual(main()) == 14.0


def test_a_scope_that_is_cancelled_already():
    async def main():
        async with TaskGroup() as group:
            with CancelScope() as scope:
                scope.cancel()
                await group.start(lambda **_: called.append(1))
            assert scope.cancelled_caught

    called = []
    virtual(main())
    assert called == []


def test_what_the_task_does_when_its_starter_is_cancelled():
    async def fails(*, started):
        try:
            await sleep_forever()
        finally:
            raise ValueError("cleanup")

    async def returns(*, started):
        try:
            await sleep_forever()
        except CancelledError:
            return

    async def too_late(*, started):
        try:
            await sleep_forever()
        except CancelledError:
            started("too late")
            started("again")  # no error: it cannot know
            await sleep(100)

    async def main():
        async with TaskGroup() as group:
            with move_on_after(1), pytest.raises(ValueError, match="cleanup"):
                await group.start(fails)
            for function in returns, too_late:
                with move_on_after(1) as scope:
                    await group.start(function)
                assert scope.cancelled_caught, function
            assert not group.cancel_scope.cancel_called
            assert repr(group) == "<TaskGroup open, 0 tasks>"
        return now()

    assert virtual(main()) == 3.0


@pytest.mark.parametrize("first", ["started", "cancelled"])
def test_started_and_a_cancellation_of_the_starter_in_the_same_pass(first):
    """What comes first, counts: for the one that waits as for the task."""

    async def canceller(scope):
        if first == "started":
            await checkpoint()  # so that its timer is armed after the server's
        await sleep(1)
        scope.cancel()

    async def main():
        async with TaskGroup() as group:
            with CancelScope() as scope:
                create_task(canceller(scope))
                log.append(await group.start(server, "value"))
                await checkpoint()
                log.append("not reached")
            assert scope.cancelled_caught
            assert now() == 1.0
        return now()

    log = []
    time = virtual(main())
    assert (time, log) == ((11.0, [("value",)]) if first == "started" else (1.0, []))


def test_the_group_stays_open_while_a_start_is_under_way():
    """A task that is not the group's starts one in it, while the block is closing."""

    async def stranger(group):
        await sleep(1)
        await group.start(server, 1)
        log.append(("started", now()))

    async def main():
        async with TaskGroup() as group:
            create_task(stranger(group))
            group.create_task(sleep(1.5))
        return now()

    log = []
    assert virtual(main()) == 12.0
    assert log == [("started", 2.0)]


def test_a_start_that_fails_lets_the_group_close():
    async def bad(*, started):
        await sleep(4)
        raise ValueError

    async def stranger(group):
        await outcome(group.start(bad))
        await sleep(100)

    async def main():
        async with TaskGroup() as group:
            create_task(stranger(group))
            await sleep(1)
        return now()

    assert virtual(main()) == 4.0


def test_a_group_cancelled_during_a_start_from_outside():
    """The task is not the group's yet; it is cancelled as soon as it is."""

    async def stranger(group):
        log.append(await group.start(server, 1))

    async def main():
        async with TaskGroup() as group:
            task = create_task(stranger(group))
            await sleep(0.5)
            group.cancel_scope.cancel()
        assert group.cancel_scope.cancelled_caught
        time = now()
        await task
        return time

    log = []
    assert virtual(main()) == 1.0
    assert log == [(1,)]


def test_two_groups_and_a_failing_start():
    """A start() into one group, run by a task of another: its failure is the other's."""

    async def bad(*, started):
        await sleep(3)
        raise ValueError

    async def starter(group):
        await group.start(bad)

    async def main():
        async with TaskGroup() as target:
            with pytest.raises(ExceptionGroup):
                async with TaskGroup() as starters:
                    starters.create_task(starter(target))
                    await target.start(never_ready)
            assert now() == 3.0
            assert starters.cancel_scope.cancel_called
            assert not target.cancel_scope.cancel_called

    virtual(main())


def test_a_chain_of_starts():
    async def link(n, *, started):
        async with TaskGroup() as group:
            value = await group.start(link, n - 1) if n > 0 else 0
            started(value + 1)
            await sleep(1)

    async def main():
        async with TaskGroup() as group:
            return await group.start(link, 50)

    assert virtual(main()) == 51


def test_started_inside_of_scopes_of_its_own():
    """What the task has entered moves along with it."""

    async def child(*, started):
        with move_on_after(5) as scope:
            async with TaskGroup() as inner:
                inner.create_task(sleep(100))
                started()
                await sleep(100)
        log.append(("timed out", now(), scope.cancelled_caught))
        await sleep(100)

    async def shielded(*, started):
        with CancelScope(shield=True):
            started()
            await sleep(2)
        log.append(("shielded", now()))

    async def main():
        async with TaskGroup() as group:
            with CancelScope() as around:
                await group.start(child)
            around.cancel()
            await sleep(10)
            group.cancel_scope.cancel()
            with CancelScope(shield=True):
                await group.start(shielded)
        return now()

    log = []
    assert virtual(main()) == 12.0
    assert log == [("timed out", 5.0, True), ("shielded", 12.0)]


def test_a_deadlock_names_the_starter():
    async def main():
        async with TaskGroup() as group:
            await group.start(never_ready)

    with pytest.raises(DeadlockError, match="waiting for task 'Task-2' to start"):
        virtual(main())


def test_a_function_that_can_be_awaited_as_well():
    async def both(*, started=lambda value=None: None):
        started("ready")
        await sleep(1)
        return "done"

    async def main():
        async with TaskGroup() as group:
            assert await group.start(both) == "ready"
        return await both()

    assert virtual(main()) == "done"


# ---- a start() inside of a start() ---------------------------------------------


def test_what_a_task_starts_joins_the_group_with_it():
    """Another task says that it has started, while it still waits for one of its own."""

    async def outer(group, *, started):
        said.append(started)
        await group.start(inner)

    async def inner(*, started):
        said[0]("ready")
        await sleep(5)
        started()

    async def main():
        async with TaskGroup() as group:
            with CancelScope() as scope:
                assert await group.start(outer, group) == "ready"
            assert not scope.cancel_called
            scope.cancel()  # which has been left
        return now()

    said = []
    assert virtual(main()) == 5.0


def test_what_a_task_starts_is_cancelled_with_it():
    async def outer(group, *, started):
        await group.start(never_ready)

    async def main():
        async with TaskGroup() as group:
            task = create_task(start_in(group))
            await sleep(1)
            task.cancel("why")
        assert task.cancelled()
        return now()

    async def start_in(group):
        await group.start(outer, group)

    assert virtual(main()) == 1.0


def test_a_stop_iteration_of_the_function_is_no_value():
    def function(*, started):
        raise StopIteration(5)

    async def main():
        async with TaskGroup() as group:
            with pytest.raises(RuntimeError, match=r"start\(\) raised StopIteration"):
                await group.start(function)

    virtual(main())
