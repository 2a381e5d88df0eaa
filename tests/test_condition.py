"""Condition: who is let go and in which order; wrong use, and what is told."""

import contextlib
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from sleeploop import (
    BrokenResourceError,
    CancelledError,
    Condition,
    DeadlockError,
    Lock,
    WouldBlock,
    checkpoint,
    create_task,
    current_loop,
    format_tasks,
    sleep,
)
from tests.conditions import holds, wait
from tests.helpers import now, settle, virtual

# ---- making one ----------------------------------------------------------------------------------


def test_it_has_a_lock_of_its_own_or_the_one_it_is_given():
    condition = Condition()
    assert type(condition.lock) is Lock
    assert (condition.name, condition.lock.name) == (None, None)
    condition = Condition(name="ready")
    assert (condition.name, condition.lock.name) == ("ready", "ready")
    lock = Lock(name="shared")
    first, second = Condition(lock, name="first"), Condition(lock=lock)
    assert first.lock is second.lock is lock
    assert (first.name, second.name) == ("first", None)
    assert Condition(None).lock is not Condition(None).lock
    with pytest.raises(AttributeError):
        first.lock = lock


@pytest.mark.parametrize("lock", [0, "lock", Lock, threading.Lock(), Condition()])
def test_no_other_lock_will_do(lock):
    with pytest.raises(TypeError) as info:
        Condition(lock)
    assert str(info.value) == (f"Condition(): lock must be a sleeploop.Lock or None, not {lock!r}")


def test_wrong_arguments():
    with pytest.raises(TypeError, match=r"Condition\(\): name must be a str, not 5"):
        Condition(name=5)
    with pytest.raises(TypeError, match=r"Condition\(\): name must be a str, not b'x'"):
        Condition(Lock(), name=b"x")
    with pytest.raises(TypeError):
        Condition(None, "name")
    with pytest.raises(TypeError):
        Condition(loop=None)


def test_it_cannot_be_subclassed_or_changed():
    with pytest.raises(TypeError):
        type("Sub", (Condition,), {})
    with pytest.raises(TypeError):
        Condition.wait = None
    with pytest.raises(AttributeError):
        Condition().attribute = 1
    condition = Condition()
    ref = weakref.ref(condition)
    del condition
    assert ref() is None


# ---- its lock ------------------------------------------------------------------------------------


def test_its_methods_are_those_of_the_lock():
    async def main():
        condition = Condition(name="c")
        assert not condition.locked()
        assert await condition.acquire() is True
        assert condition.locked()
        assert condition.lock.locked()
        assert holds(condition)
        with pytest.raises(DeadlockError, match=r"^Condition.acquire\(\): Lock 'c' held by task"):
            await condition.acquire()
        with pytest.raises(DeadlockError, match=r"^Condition.acquire_nowait\(\): Lock 'c' held"):
            condition.acquire_nowait()
        with pytest.raises(DeadlockError, match=r"^async with Condition\(\): Lock 'c' held by"):
            async with condition:
                pass
        assert condition.release() is None
        with pytest.raises(RuntimeError, match=r"^Condition.release\(\): Lock 'c' is not held"):
            condition.release()
        assert condition.acquire_nowait() is None
        condition.lock.release()
        async with condition as nothing:
            assert nothing is None
            assert holds(condition)
            with pytest.raises(WouldBlock, match="Lock 'c' held by task 'Task-1' since"):
                await create_task(nowait(condition))
        assert not condition.locked()
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(condition)
            assert holds(condition)
        assert not condition.locked()

    async def nowait(condition):
        condition.acquire_nowait()

    virtual(main())


def test_a_free_lock_is_had_without_switching_tasks():
    async def main():
        condition = Condition()
        steps = current_loop().stats().steps
        async with condition:
            pass
        await condition.acquire()
        assert current_loop().stats().steps == steps

    virtual(main())


def test_leaving_the_block_without_the_lock_is_an_error():
    async def main():
        condition = Condition()
        with pytest.raises(RuntimeError, match=r"^async with Condition\(\): Lock is not held by"):
            async with condition:
                condition.release()
        with pytest.raises(TypeError, match="takes 0 arguments"):
            condition.__aenter__(1)
        with pytest.raises(TypeError, match="takes 3 arguments"):
            condition.__aexit__()

    virtual(main())


def test_several_conditions_of_one_lock():
    async def main():
        lock, log = Lock(), []
        full, empty = Condition(lock), Condition(lock)
        create_task(wait(full, log, "full"))
        create_task(wait(empty, log, "empty"))
        await settle()
        async with lock:
            full.notify_all()
        await settle()
        assert log == ["full"]
        async with full:
            empty.notify()
        await settle()
        assert log == ["full", "empty"]

    virtual(main())


# ---- wait() and notify() -------------------------------------------------------------------------


def test_waiting_releases_the_lock_and_has_it_again():
    async def main():
        condition, log = Condition(), []

        async def first():
            async with condition:
                log.append("waits")
                assert await condition.wait() is True
                assert holds(condition)
                log.append(("goes on", now()))

        task = create_task(first())
        await checkpoint()
        assert not condition.locked()
        await sleep(2)
        async with condition:
            condition.notify()
            log.append("notified")
            await sleep(3)
            log.append("releases")
        await task
        assert log == ["waits", "notified", "releases", ("goes on", 5.0)]
        assert not condition.locked()

    virtual(main())


def test_notify_lets_the_first_go_and_those_in_their_order():
    async def main():
        condition, log = Condition(), []
        for name in range(6):
            create_task(wait(condition, log, name))
        await settle()
        async with condition:
            assert condition.notify() is None
        await settle()
        assert log == [0]
        async with condition:
            condition.notify(2)
            condition.notify(0)
        await settle()
        assert log == [0, 1, 2]
        async with condition:
            condition.notify(n=100)
        await settle()
        assert log == [0, 1, 2, 3, 4, 5]

    virtual(main())


def test_notify_all_lets_those_go_who_wait_now():
    async def main():
        condition, log = Condition(), []

        async def twice(name):
            async with condition:
                for n in range(2):
                    await condition.wait()
                    log.append((name, n))

        tasks = [create_task(twice(name)) for name in "abc"]
        await settle()
        async with condition:
            assert condition.notify_all() is None
        await settle()
        assert log == [("a", 0), ("b", 0), ("c", 0)]
        async with condition:
            condition.notify_all()
        for task in tasks:
            await task
        assert log[3:] == [("a", 1), ("b", 1), ("c", 1)]

    virtual(main())


def test_nobody_hears_what_was_notified_before_he_waited():
    async def main():
        condition, log = Condition(), []
        async with condition:
            condition.notify()
            condition.notify_all()
        task = create_task(wait(condition, log))
        await settle()
        assert log == []
        task.cancel()

    virtual(main())


def test_who_is_notified_waits_for_the_lock_behind_those_who_do():
    async def main():
        condition, log = Condition(), []

        async def have(name):
            async with condition:
                log.append(name)

        create_task(wait(condition, log, "waiter"))
        await settle()
        async with condition:
            create_task(have("before"))
            await checkpoint()
            condition.notify()
            create_task(have("after"))
            await checkpoint()
        async with condition:  # nobody gets in between
            log.append("notifier")
        assert log == ["before", "waiter", "after", "notifier"]

    virtual(main())


def test_who_is_notified_takes_one_step_only_when_he_has_the_lock():
    async def main():
        condition, log = Condition(), []
        create_task(wait(condition, log))
        await settle()
        async with condition:
            condition.notify()
            steps = current_loop().stats().steps
            await sleep(1)
            assert current_loop().stats().steps == steps + 1  # this task's
        await sleep(1)
        assert log == ["Task-2"]

    virtual(main())


def test_the_one_who_waits_passes_the_lock_on_as_he_begins_to():
    async def main():
        condition, log = Condition(), []

        async def have():
            async with condition:
                log.append("had")
                condition.notify()

        async with condition:
            create_task(have())
            await checkpoint()
            await condition.wait()
            log.append("again")
        assert log == ["had", "again"]

    virtual(main())


@pytest.mark.parametrize("n", [2**63 - 1, sys.maxsize // 2])
def test_a_number_as_large_as_you_like(n):
    async def main():
        condition, log = Condition(), []
        create_task(wait(condition, log, 1))
        create_task(wait(condition, log, 2))
        await settle()
        async with condition:
            condition.notify(n)
        await settle()
        assert log == [1, 2]

    virtual(main())


@pytest.mark.parametrize(
    ("n", "error", "message"),
    [
        (-1, ValueError, r"^Condition.notify\(\): n must be 0 or more, not -1$"),
        (-(2**70), ValueError, r"^Condition.notify\(\): n must be 0 or more, not -118059"),
        (2**63, ValueError, r"^Condition.notify\(\): n must be less than 2\*\*63, not 92233720"),
        (1.0, TypeError, r"^Condition.notify\(\): n must be an int, not 1.0$"),
        (None, TypeError, r"^Condition.notify\(\): n must be an int, not None$"),
        ("2", TypeError, r"^Condition.notify\(\): n must be an int, not '2'$"),
    ],
)
def test_a_wrong_number_notifies_nobody(n, error, message):
    async def main():
        condition, log = Condition(), []
        task = create_task(wait(condition, log))
        await settle()
        async with condition:
            with pytest.raises(error, match=message):
                condition.notify(n)
        await settle()
        assert task.waiting_on is condition
        task.cancel()

    virtual(main())


def test_a_number_that_raises_or_lets_go_of_the_lock():
    class Number:
        def __init__(self, call):
            self.call = call

        def __index__(self):
            return self.call()

    async def main():
        condition = Condition()
        async with condition:
            with pytest.raises(ZeroDivisionError):
                condition.notify(Number(lambda: 1 // 0))
        await condition.acquire()
        with pytest.raises(RuntimeError, match=r"^Condition.notify\(\) is for the task that"):
            condition.notify(Number(lambda: condition.release() or 1))
        with pytest.raises(TypeError, match="positional"):
            condition.notify(1, 2)
        with pytest.raises(TypeError, match="unexpected keyword"):
            condition.notify(m=2)

    virtual(main())


# ---- without the lock ----------------------------------------------------------------------------

USES: dict[str, Callable[[Condition], Any]] = {
    "wait": lambda condition: condition.wait(),
    "wait_for": lambda condition: condition.wait_for(lambda: True),
    "notify": lambda condition: condition.notify(),
    "notify_all": lambda condition: condition.notify_all(),
}


@pytest.mark.parametrize("use", USES)
def test_only_who_has_the_lock_waits_or_notifies(use):
    async def call(condition):
        awaitable = USES[use](condition)
        if awaitable is not None:
            await awaitable

    async def main():
        condition = Condition(name="c")
        with pytest.raises(RuntimeError) as info:
            await call(condition)
        assert str(info.value) == (
            f"Condition.{use}() is for the task that has the lock: Lock 'c' is not held by anyone"
        )
        async with condition:
            with pytest.raises(RuntimeError) as info:
                await create_task(call(condition))
            assert str(info.value) == (
                f"Condition.{use}() is for the task that has the lock: "
                "Lock 'c' held by task 'Task-1' since 0.0 s"
            )
            assert holds(condition)
        assert repr(condition) == "<Condition 'c' of Lock 'c' unlocked>"

    virtual(main())


@pytest.mark.parametrize("use", USES)
def test_there_must_be_a_loop(use):
    condition = Condition()
    awaitable = None
    with pytest.raises(RuntimeError, match=rf"^Condition.{use}\(\) needs a running loop"):
        awaitable = USES[use](condition).send(None)
    assert awaitable is None
    with pytest.raises(RuntimeError, match="needs a running loop"):
        condition.acquire_nowait()
    with pytest.raises(RuntimeError, match="is not held by anyone"):
        condition.release()


@pytest.mark.parametrize("kind", ["wait", "wait_for"])
def test_a_wait_is_awaited_once(kind):
    async def main():
        condition = Condition()
        async with condition:
            waiting = USES[kind](condition)
            create_task(notify(condition))
            await waiting
            with pytest.raises(RuntimeError, match=f"this Condition.{kind}.. was awaited before"):
                await waiting
            assert holds(condition)

    async def notify(condition):
        async with condition:
            condition.notify()

    virtual(main())


def test_a_wait_that_is_run_as_a_task_is_not_of_the_task_that_has_the_lock():
    async def main():
        condition = Condition()
        async with condition:
            with pytest.raises(RuntimeError, match="is for the task that has the lock"):
                await create_task(condition.wait())

    virtual(main())


def test_the_lock_is_lost_between_the_call_and_the_loop():
    """By an awaitable in between, which is no coroutine."""

    class Between:
        def __await__(self):
            waiting = condition.wait()
            trap = waiting.send(None)
            condition.release()
            with pytest.raises(RuntimeError) as info:
                yield trap
            errors.append(str(info.value))

    async def main():
        await condition.acquire()
        await Between()
        assert not condition.locked()

    condition, errors = Condition(), []
    virtual(main())
    assert errors == [
        "Condition.wait() is for the task that has the lock: Lock is not held by anyone"
    ]


# ---- told ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("forgetful")
def test_repr():
    async def main():
        condition = Condition(name="ready")
        assert repr(condition) == "<Condition 'ready' of Lock 'ready' unlocked>"
        create_task(wait(condition, []))
        create_task(wait(condition, []))
        await sleep(1)
        assert repr(condition) == "<Condition 'ready' of Lock 'ready' unlocked, 2 waiting>"
        async with condition:
            condition.notify()
            assert repr(condition) == (
                "<Condition 'ready' of Lock 'ready' held by task 'Task-1' since 1.0 s, 1 waiting>"
            )
            assert repr(condition.lock) == (
                "<Lock 'ready' held by task 'Task-1' since 1.0 s, 1 waiting>"
            )
            condition.notify()
            assert repr(condition) == (
                "<Condition 'ready' of Lock 'ready' held by task 'Task-1' since 1.0 s>"
            )

    virtual(main())
    assert repr(Condition()) == "<Condition of Lock unlocked>"
    assert repr(Condition(name="c").wait()) == (
        "<Condition.wait() of Condition 'c', not awaited yet>"
    )


def test_what_a_waiting_task_tells():
    async def main():
        condition = Condition(name="ready")
        task = create_task(wait(condition, []), name="waiter")
        await sleep(1)
        assert (task.waiting_on, task.waiting_since) == (condition, 0.0)
        assert "Task 'waiter' wait: waiting for Condition 'ready', since 0.0 s" in format_tasks()
        async with condition:
            condition.notify()
            assert (task.waiting_on, task.waiting_since) == (condition.lock, 0.0)
            assert (
                "Task 'waiter' wait: waiting for Lock 'ready' held by task 'Task-1' since 1.0 s, "
                "waiting since 0.0 s" in format_tasks()
            )

    virtual(main())


def test_a_deadlock_is_reported_and_cleanup_has_the_lock():
    cleaned = []

    async def main():
        condition = Condition(name="never")
        async with condition:
            try:
                await condition.wait()
            finally:
                cleaned.append(holds(condition))

    with pytest.raises(DeadlockError, match=r"Task-1' .*waiting for Condition 'never', since 0.0"):
        virtual(main())
    assert cleaned == [True]


@pytest.mark.parametrize("first", ["notified", "cancelled", "neither"])
@pytest.mark.parametrize("kind", ["wait", "wait_for"])
def test_a_lock_whose_holder_ends_without_release_is_never_had_again(kind, first):
    """So the await raises without it, and the block around it has nothing to release."""

    async def waiter(condition):
        async with condition:
            await (condition.wait() if kind == "wait" else condition.wait_for(bool))

    async def main():
        condition = Condition(name="lost")
        task = create_task(waiter(condition))
        await settle()
        await create_task(keep(condition, task), name="keeper")
        with pytest.raises(BrokenResourceError) as info:
            await task
        assert repr(condition) == (
            "<Condition 'lost' of Lock 'lost' broken by task 'keeper', "
            "which ended without release()>"
        )
        what = repr(condition.lock)[1:-1]
        assert str(info.value) == f"Condition.{kind}(): {what}"
        thrown = info.value.__context__
        return type(thrown)

    async def keep(condition, task):
        await condition.acquire()
        if first == "notified":
            condition.notify()
        elif first == "cancelled":
            task.cancel()

    context = virtual(main())
    assert issubclass(context, CancelledError) if first == "cancelled" else context is type(None)


def test_a_condition_whose_lock_is_broken():
    async def main():
        condition = Condition(name="lost")
        await create_task(condition.acquire())
        assert condition.locked()
        for call in condition.notify, condition.notify_all, condition.release:
            with pytest.raises(BrokenResourceError, match="without release"):
                call()
        for call in condition.wait, condition.acquire, lambda: condition.wait_for(bool):
            with pytest.raises(BrokenResourceError, match="without release"):
                await call()
        with pytest.raises(BrokenResourceError, match="without release"):
            condition.acquire_nowait()
        with pytest.raises(BrokenResourceError, match=r"async with Condition\(\): Lock 'lost' b"):
            async with condition:
                pytest.fail("it cannot be had")
        with pytest.raises(BrokenResourceError, match=r"async with Condition"):
            await condition.__aexit__(None, None, None)
        await condition.__aexit__(ValueError, ValueError(), None)

    virtual(main())


@pytest.mark.parametrize("n", [1, 100])
def test_those_who_wait_to_be_notified_at_any_condition_of_a_broken_lock(n):
    """Nobody can ever notify them."""

    async def waiter(condition):
        async with condition:
            await condition.wait()

    async def main():
        lock, other = Lock(), Condition()
        conditions = [Condition(lock), Condition(lock)]
        tasks = [create_task(waiter(condition)) for condition in conditions * n]
        unconcerned = create_task(waiter(other))
        await settle()
        await create_task(lock.acquire())
        for task in tasks:
            with pytest.raises(BrokenResourceError):
                await task
        assert not unconcerned.done()
        unconcerned.cancel()
        await settle()
        return [repr(condition).count("waiting") for condition in (*conditions, other)]

    assert virtual(main()) == [0, 0, 0]
