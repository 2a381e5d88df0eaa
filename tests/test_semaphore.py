"""Semaphore and BoundedSemaphore: who gets a unit, when, and what is wrong use."""

import contextlib
import gc
import math
import weakref
from typing import Any

import pytest

from sleeploop import (
    BoundedSemaphore,
    CancelledError,
    CancelScope,
    DeadlockError,
    Lock,
    Semaphore,
    SleepingLoop,
    TaskGroup,
    WouldBlock,
    checkpoint,
    create_task,
    current_loop,
    current_task,
    format_tasks,
    move_on_after,
    run,
    sleep,
    sleep_forever,
    to_thread,
)
from tests.helpers import CROWD, now, outcome, references, virtual, yielding

KINDS = pytest.mark.parametrize("kind", [Semaphore, BoundedSemaphore])


async def use(semaphore: Semaphore, name: Any, seconds: float, log: list[Any]) -> None:
    async with semaphore:
        log.append((name, now()))
        await sleep(seconds)


async def have(semaphore: Semaphore, name: Any, log: list[Any]) -> None:
    assert await semaphore.acquire() is True
    log.append(name)


# ---- taken and given back ------------------------------------------------------------------------


@KINDS
def test_so_many_are_in_at_a_time_and_the_others_follow_in_order(kind):
    async def main():
        semaphore = kind(2)
        async with TaskGroup() as group:
            for name, seconds in (("a", 3), ("b", 1), ("c", 1), ("d", 1), ("e", 1)):
                group.create_task(use(semaphore, name, seconds, log))
        assert semaphore.value == 2

    log = []
    virtual(main())
    assert log == [("a", 0.0), ("b", 0.0), ("c", 1.0), ("d", 2.0), ("e", 3.0)]


@KINDS
def test_the_value_is_one_unless_told(kind):
    assert kind().value == 1
    assert kind(5).value == 5
    assert kind(value=0).value == 0


@KINDS
def test_a_unit_that_is_free_is_had_without_switching_tasks(kind):
    async def main():
        semaphore = kind(3)
        steps = current_loop().stats().steps
        assert await semaphore.acquire() is True
        assert semaphore.acquire_nowait() is None
        async with semaphore as nothing:
            assert nothing is None
            assert semaphore.value == 0
            assert semaphore.locked()
        assert semaphore.value == 1
        assert not semaphore.locked()
        assert current_loop().stats().steps == steps

    virtual(main())


@KINDS
def test_acquire_returns_true_after_a_wait_too(kind):
    async def main():
        semaphore, log = kind(), []
        await semaphore.acquire()
        task = create_task(have(semaphore, "waiter", log))
        await sleep(1)
        assert log == []
        semaphore.release()
        await task
        assert log == ["waiter"]

    virtual(main())


@KINDS
def test_a_unit_given_back_belongs_to_the_first_who_waits_from_that_moment_on(kind):
    async def main():
        semaphore, log = kind(), []
        await semaphore.acquire()
        tasks = [create_task(have(semaphore, name, log)) for name in "ab"]
        await checkpoint()
        semaphore.release()
        assert semaphore.locked()
        assert semaphore.value == 0
        with pytest.raises(WouldBlock):
            semaphore.acquire_nowait()
        tasks.append(create_task(have(semaphore, "newcomer", log)))
        await checkpoint()
        assert log == ["a"]
        for _ in range(2):
            semaphore.release()
        for task in tasks:
            await task
        assert log == ["a", "b", "newcomer"]
        assert semaphore.value == 0

    virtual(main())


@KINDS
def test_who_releases_and_comes_back_stands_behind_the_others(kind):
    async def ping_pong(semaphore, name):
        for _ in range(3):
            async with semaphore:
                log.append(name)
                await checkpoint()

    async def main():
        semaphore = kind()
        async with TaskGroup() as group:
            for name in "abc":
                group.create_task(ping_pong(semaphore, name))

    log = []
    virtual(main())
    assert "".join(log) == "abcabcabc"


def test_anybody_may_release_and_more_often_than_was_acquired():
    async def main():
        semaphore, log = Semaphore(0), []
        consumers = [create_task(have(semaphore, n, log)) for n in range(3)]
        await checkpoint()
        for _ in range(5):
            semaphore.release()
        assert semaphore.value == 2
        for task in consumers:
            await task
        assert log == [0, 1, 2]
        assert semaphore.value == 2

    virtual(main())


def test_a_bounded_one_cannot_be_released_too_often():
    async def main():
        semaphore = BoundedSemaphore(2, name="pool")
        with pytest.raises(
            ValueError,
            match=r"^BoundedSemaphore\.release\(\): BoundedSemaphore "
            r"'pool' has all of its units \(2\) already$",
        ):
            semaphore.release()
        assert semaphore.value == 2
        await semaphore.acquire()
        semaphore.release()
        with pytest.raises(ValueError, match="has all of its units"):
            semaphore.release()
        with pytest.raises(ValueError, match="has all of its units"):
            async with semaphore:
                semaphore.release()
        assert semaphore.value == 2

    virtual(main())


def test_a_bounded_one_of_no_units_can_never_be_released():
    with pytest.raises(ValueError, match=r"has all of its units \(0\)"):
        BoundedSemaphore(0).release()


def test_release_needs_no_loop_and_no_task():
    async def main():
        assert await semaphore.acquire()
        current_loop().call_soon_threadsafe(semaphore.release)
        assert await semaphore.acquire()
        assert now() == 0.0

    semaphore = Semaphore(0)
    semaphore.release()
    assert semaphore.value == 1
    virtual(main())


def test_acquire_nowait_needs_a_loop_but_no_task():
    async def main():
        current_loop().call_soon_threadsafe(semaphore.acquire_nowait)
        await sleep(1)
        assert semaphore.value == 0

    semaphore = Semaphore()
    with pytest.raises(RuntimeError, match=r"Semaphore\.acquire_nowait\(\) needs a running loop"):
        semaphore.acquire_nowait()
    virtual(main())


@KINDS
def test_would_block_says_why(kind):
    async def main():
        with pytest.raises(WouldBlock, match=f"wait: {kind.__name__} 'db' has no unit left$"):
            kind(0, name="db").acquire_nowait()

    virtual(main())


# ---- cancelled -----------------------------------------------------------------------------------


@KINDS
def test_who_is_cancelled_while_it_waits_has_got_nothing(kind):
    async def main():
        semaphore, log = kind(), []
        await semaphore.acquire()
        tasks = [create_task(have(semaphore, name, log)) for name in "abc"]
        await checkpoint()
        tasks[0].cancel()
        await checkpoint()
        assert tasks[0].cancelled()
        assert semaphore.value == 0
        semaphore.release()
        semaphore.release() if kind is Semaphore else None
        await tasks[1]
        if kind is BoundedSemaphore:
            semaphore.release()
        await tasks[2]
        assert log == ["b", "c"]
        semaphore.release()
        assert semaphore.value == 1

    virtual(main())


@KINDS
def test_the_unit_goes_to_the_next_in_the_pass_in_which_the_first_is_cancelled(kind):
    """The first is not in the line any more, even before it has run."""

    async def main():
        semaphore, log = kind(), []
        await semaphore.acquire()
        first, second = (create_task(have(semaphore, name, log)) for name in "ab")
        await checkpoint()
        first.cancel()
        semaphore.release()
        await checkpoint()
        assert log == ["b"]
        assert first.cancelled()
        assert second.done()

    virtual(main())


@KINDS
def test_who_is_cancelled_after_it_was_given_a_unit_has_it(kind):
    async def main():
        semaphore, log = kind(), []
        await semaphore.acquire()

        async def waiter():
            assert await semaphore.acquire() is True
            log.append("has it")
            try:
                await checkpoint()
            finally:
                semaphore.release()

        task = create_task(waiter())
        await checkpoint()
        semaphore.release()
        task.cancel()
        await checkpoint()
        assert log == ["has it"]
        await sleep(1)
        assert task.cancelled()
        assert semaphore.value == 1

    virtual(main())


@KINDS
def test_the_same_in_a_block(kind):
    async def main():
        semaphore, log = kind(), []
        await semaphore.acquire()
        task = create_task(use(semaphore, "block", 5, log))
        await checkpoint()
        semaphore.release()
        task.cancel()
        await checkpoint()
        assert log == [("block", 0.0)]
        await sleep(1)
        assert task.cancelled()
        assert semaphore.value == 1

    virtual(main())


@KINDS
@pytest.mark.parametrize("value", [0, 1])
def test_in_a_cancelled_scope_nothing_is_taken(kind, value):
    async def main():
        semaphore = kind(value)
        with CancelScope() as scope:
            scope.cancel()
            with pytest.raises(CancelledError):
                await semaphore.acquire()
            with pytest.raises(CancelledError):
                async with semaphore:
                    raise AssertionError
            assert semaphore.value == value
            assert not semaphore.locked() or not value

    virtual(main())


@KINDS
def test_a_timeout_while_waiting(kind):
    async def main():
        semaphore = kind()
        async with semaphore:
            with move_on_after(3) as scope:
                await semaphore.acquire()
            assert scope.cancelled_caught
            assert now() == 3.0
            assert repr(semaphore).startswith(f"<{kind.__name__} value 0")
            assert "waiting" not in repr(semaphore)
        assert semaphore.value == 1

    virtual(main())


# ---- nobody learns of it -------------------------------------------------------------------------


async def careless(semaphore: Semaphore, how: str = "acquire") -> None:
    """Wait for a unit by hand, and never look whether one has come."""
    wait = getattr(semaphore, how)()
    await yielding(wait.send(None))
    del wait


@KINDS
@pytest.mark.parametrize("how", ["acquire", "__aenter__"])
def test_a_unit_that_nobody_learns_of_goes_to_the_next(kind, how):
    async def main():
        semaphore, log = kind(), []
        await semaphore.acquire()
        create_task(careless(semaphore, how))
        second = create_task(have(semaphore, "second", log))
        await checkpoint()
        semaphore.release()
        await second
        semaphore.release()
        assert semaphore.value == 1
        await careless_and_alone(semaphore)

    async def careless_and_alone(semaphore):
        await semaphore.acquire()
        task = create_task(careless(semaphore, how))
        await checkpoint()
        semaphore.release()
        await task
        assert semaphore.value == 1

    virtual(main())


def test_a_bounded_one_never_gets_more_than_its_units_back():
    """Somebody else released the unit of a task that never learned of it."""

    async def main():
        semaphore = BoundedSemaphore()
        await semaphore.acquire()
        task = create_task(careless(semaphore))
        await checkpoint()
        semaphore.release()
        semaphore.release()
        assert semaphore.value == 1
        await task
        assert semaphore.value == 1

    virtual(main())


@pytest.mark.parametrize("how", ["close", "throw"])
def test_a_granted_wait_that_is_closed_by_hand_gives_the_unit_back(how):
    async def main():
        semaphore = Semaphore(0)
        waits = []

        async def by_hand():
            waits.append(semaphore.acquire())
            await yielding(waits[0].send(None))
            await sleep(1)

        task = create_task(by_hand())
        await checkpoint()
        semaphore.release()
        await checkpoint()
        assert semaphore.value == 0
        if how == "close":
            waits[0].close()
            waits[0].close()
        else:
            with pytest.raises(KeyError):
                waits[0].throw(KeyError())
        assert semaphore.value == 1
        await task

    virtual(main())


@KINDS
def test_a_parked_wait_that_is_closed_by_hand(kind):
    """Its task stands in the line all the same; what it is given then goes back."""

    async def main():
        semaphore = kind()
        await semaphore.acquire()
        wait = semaphore.acquire()

        async def by_hand():
            await yielding(wait.send(None))

        task = create_task(by_hand())
        await checkpoint()
        wait.close()
        semaphore.release()
        await task
        return semaphore

    semaphore = virtual(main())
    gc.collect()
    assert semaphore.value == 1


def test_a_loop_that_is_dropped_while_tasks_wait():
    async def main(semaphore):
        await semaphore.acquire()
        for _ in range(3):
            create_task(have(semaphore, "never", []))
        await sleep_forever()

    semaphore = Semaphore()
    loop = SleepingLoop(main(semaphore), speed=math.inf)
    loop.run_until(1)
    assert repr(semaphore) == "<Semaphore value 0, 3 waiting>"
    with pytest.warns(ResourceWarning, match="neither closed nor run"):
        del loop
        gc.collect()
    assert repr(semaphore) == "<Semaphore value 0>"
    ref = weakref.ref(semaphore)
    del semaphore
    assert ref() is None


# ---- misuse --------------------------------------------------------------------------------------


class Index:
    def __init__(self, value):
        self.value = value

    def __index__(self):
        if isinstance(self.value, type):
            raise self.value("evil")
        return self.value


@KINDS
@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (-1, ValueError, r"\(\): value must be 0 or more, not -1$"),
        (-(2**70), ValueError, r"must be 0 or more, not -1180591620717411303424$"),
        (2**63, ValueError, r"must be less than 2\*\*63, not 9223372036854775808$"),
        (1.0, TypeError, r"\(\): value must be an int, not 1\.0$"),
        (math.inf, TypeError, "must be an int, not inf$"),
        ("two", TypeError, "must be an int, not 'two'$"),
        (None, TypeError, "must be an int, not None$"),
        (Index(KeyError), KeyError, "evil"),
        (Index("no int"), TypeError, "__index__"),
    ],
)
def test_values_that_are_none(kind, value, error, text):
    with pytest.raises(error, match=text):
        kind(value)


@KINDS
def test_values_and_arguments(kind):
    assert kind(Index(4)).value == 4
    assert kind(True).value == 1
    assert kind(2**63 - 1).value == 2**63 - 1
    assert kind(name=None).name is None
    assert kind(name="db").name == "db"
    with pytest.raises(TypeError, match=rf"{kind.__name__}\(\): name must be a str, not 5"):
        kind(1, name=5)
    with pytest.raises(TypeError, match=kind.__name__):
        kind(1, "db")
    with pytest.raises(TypeError):
        kind(limit=1)


def test_there_is_an_end_to_units():
    semaphore = Semaphore(2**63 - 1)
    with pytest.raises(OverflowError, match="Semaphore cannot have more units than it has"):
        semaphore.release()
    assert semaphore.value == 2**63 - 1


@KINDS
def test_attributes_are_for_reading_and_types_are_final(kind):
    semaphore = kind(2, name="db")
    for name in ("value", "name", "anything"):
        with pytest.raises(AttributeError):
            setattr(semaphore, name, 1)
    with pytest.raises(TypeError, match="not an acceptable base type"):
        type("Sub", (kind,), {})
    with pytest.raises(TypeError):
        semaphore.__class__ = Semaphore
    assert semaphore.value == 2


def test_a_bounded_one_is_a_semaphore():
    assert issubclass(BoundedSemaphore, Semaphore)
    assert not isinstance(Semaphore(), BoundedSemaphore)


@pytest.mark.usefixtures("forgetful")
@KINDS
def test_what_acquire_gives_is_awaited_once(kind):
    async def main():
        semaphore = kind(2)
        wait = semaphore.acquire()
        await wait
        with pytest.raises(RuntimeError, match=r"Semaphore\.acquire\(\)"):
            await wait
        assert semaphore.value == 1
        assert await create_task(semaphore.acquire()) is True
        assert semaphore.value == 0
        assert repr(semaphore.acquire()) == (
            f"<Semaphore.acquire() of {kind.__name__}, not awaited yet>"
        )

    virtual(main())


@KINDS
def test_what_was_never_awaited_takes_nothing(kind):
    semaphore = kind()
    with pytest.warns(RuntimeWarning, match=r"'Semaphore\.acquire' was never awaited"):
        semaphore.acquire()
    assert semaphore.value == 1


def test_without_a_loop():
    semaphore = Semaphore()
    with pytest.raises(RuntimeError, match="needs a running loop"):
        semaphore.acquire().send(None)
    with pytest.raises(RuntimeError, match=r"async with Semaphore\(\) needs a running loop"):
        semaphore.__aenter__()
    assert semaphore.value == 1


@KINDS
def test_another_loop_while_units_are_out(kind):
    async def take():
        await semaphore.acquire()
        await sleep(5)
        semaphore.release()

    async def other():
        for attempt in (semaphore.acquire_nowait, semaphore.__aenter__):
            with pytest.raises(RuntimeError, match=f"{kind.__name__} 'db' .*> belongs to another"):
                attempt()
        return await outcome(semaphore.acquire())

    semaphore = kind(2, name="db")
    loop = SleepingLoop(take(), speed=math.inf)
    loop.run_until(1)
    assert "belongs to another loop" in str(virtual(other()))
    assert semaphore.value == 1
    loop.run_until_complete()
    assert semaphore.value == 2
    virtual(semaphore.acquire())
    assert semaphore.value == 1


def test_another_loop_while_tasks_wait():
    async def other():
        semaphore.release()
        return await outcome(semaphore.acquire())

    semaphore = Semaphore(0)
    loop = SleepingLoop(semaphore.acquire(), semaphore.acquire(), speed=math.inf)
    loop.step()
    error = virtual(other())
    assert isinstance(error, RuntimeError)
    assert semaphore.value == 0
    semaphore.release()
    assert loop.run_until_complete() == [True, True]


def test_signals_may_be_used_up_in_one_run_and_go_on_in_the_next():
    """No unit is missing of a semaphore that had none at first."""

    async def consume():
        await semaphore.acquire()

    semaphore = Semaphore(0)
    for _ in range(3):
        semaphore.release()
        semaphore.release()
        virtual(consume())
    assert semaphore.value == 3


def test_another_thread():
    def in_thread():
        for attempt in (semaphore.release, lambda: semaphore.__aexit__(None, None, None)):
            with pytest.raises(RuntimeError, match=r"runs in another thread.*call_soon_threadsafe"):
                attempt()
        with pytest.raises(RuntimeError, match="needs a running loop"):
            semaphore.acquire_nowait()
        with pytest.raises(RuntimeError, match="runs in another thread"):
            run(semaphore.acquire(), speed=math.inf)
        loop.call_soon_threadsafe(semaphore.release)
        return semaphore.value, semaphore.locked()

    async def main():
        nonlocal loop
        loop = current_loop()
        await semaphore.acquire()
        seen = await to_thread(in_thread)
        await semaphore.acquire()
        return seen

    loop, semaphore = None, Semaphore()
    assert run(main()) == (0, True)


@KINDS
def test_the_methods_of_the_block_called_by_hand(kind):
    async def main():
        semaphore = kind()
        enter, leave = semaphore.__aenter__, semaphore.__aexit__
        assert enter.__self__ is semaphore
        with pytest.raises(TypeError, match="takes 0 arguments"):
            enter(1)
        with pytest.raises(TypeError, match="takes 3 arguments"):
            leave()
        assert semaphore.value == 1
        await kind.__aenter__(semaphore)
        assert semaphore.value == 0
        await Semaphore.__aexit__(semaphore, None, None, None)
        assert semaphore.value == 1
        for wrong in (Lock(), 5):
            with pytest.raises(TypeError, match="take an object of their type"):
                kind.__aenter__(wrong)
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(semaphore)
            assert semaphore.value == 0
        assert semaphore.value == 1
        before = references(semaphore)
        del enter, leave
        assert references(semaphore) == before - 2

    virtual(main())


@KINDS
def test_the_exception_of_a_block_goes_on_and_the_unit_comes_back(kind):
    async def main():
        semaphore = kind()
        with pytest.raises(LookupError):
            async with semaphore:
                raise LookupError
        assert semaphore.value == 1

    virtual(main())


# ---- reports -------------------------------------------------------------------------------------


def test_what_it_looks_like():
    assert repr(Semaphore()) == "<Semaphore value 1>"
    assert repr(Semaphore(3, name="db")) == "<Semaphore 'db' value 3>"
    assert repr(BoundedSemaphore(3, name="db")) == "<BoundedSemaphore 'db' value 3 of 3>"


def test_reports_name_it():
    async def main():
        semaphore = Semaphore(0, name="db")
        task = create_task(have(semaphore, "nothing", []), name="waiter")
        await checkpoint()
        assert repr(semaphore) == "<Semaphore 'db' value 0, 1 waiting>"
        assert task.waiting_on is semaphore
        assert "Task 'waiter' have: waiting for Semaphore 'db', since 0.0 s" in format_tasks()
        await task

    with pytest.raises(DeadlockError, match="waiting for Semaphore 'db'"):
        virtual(main())


# ---- crowds --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_crowd():
    async def one(n):
        async with semaphore:
            order.append(n)

    async def main():
        await semaphore.acquire()
        tasks = [create_task(one(n)) for n in range(CROWD)]
        await checkpoint()
        assert repr(semaphore) == f"<BoundedSemaphore value 0 of 1, {CROWD} waiting>"
        for task in tasks[1::2]:
            task.cancel()
        semaphore.release()
        await tasks[-2]
        assert current_task().waiting_on is None
        assert semaphore.value == 1

    semaphore, order = BoundedSemaphore(), []
    virtual(main())
    assert order == list(range(0, CROWD, 2))
