"""CapacityLimiter: who gets a token, when, and what is wrong use."""

import contextlib
import gc
import math
import weakref
from typing import Any

import pytest

from sleeploop import (
    CancelledError,
    CancelScope,
    CapacityLimiter,
    DeadlockError,
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
from tests.helpers import OnDel, now, outcome, virtual, yielding


async def use(limiter: CapacityLimiter, seconds: float, log: list[Any]) -> None:
    async with limiter:
        log.append((current_task().name, now()))
        await sleep(seconds)


async def have(limiter: CapacityLimiter, borrower: Any, log: list[Any]) -> None:
    assert await limiter.acquire_on_behalf_of(borrower) is None
    log.append(borrower)


# ---- borrowed and given back ---------------------------------------------------------------------


def test_so_many_are_in_at_a_time_and_the_others_follow_in_order():
    async def main():
        limiter = CapacityLimiter(2)
        async with TaskGroup() as group:
            for name, seconds in (("a", 3), ("b", 1), ("c", 1), ("d", 1), ("e", 1)):
                group.create_task(use(limiter, seconds, log), name=name)
        assert limiter.borrowed_tokens == 0

    log = []
    virtual(main())
    assert log == [("a", 0.0), ("b", 0.0), ("c", 1.0), ("d", 2.0), ("e", 3.0)]


def test_a_token_that_is_free_is_had_without_switching_tasks():
    async def main():
        limiter = CapacityLimiter(3)
        steps = current_loop().stats().steps
        assert await limiter.acquire_on_behalf_of("a") is None
        assert limiter.acquire_on_behalf_of_nowait("b") is None
        async with limiter as nothing:
            assert nothing is None
            assert limiter.borrowers == ("a", "b", current_task())
        assert await limiter.acquire() is None
        assert limiter.release() is None
        assert limiter.acquire_nowait() is None
        assert limiter.release_on_behalf_of("a") is None
        assert limiter.borrowers == ("b", current_task())
        assert current_loop().stats().steps == steps

    virtual(main())


def test_the_numbers():
    async def main():
        limiter = CapacityLimiter(total_tokens=2)
        assert (limiter.total_tokens, limiter.borrowed_tokens, limiter.available_tokens) == (
            2,
            0,
            2,
        )
        for n in range(2):
            limiter.acquire_on_behalf_of_nowait(n)
        assert (limiter.total_tokens, limiter.borrowed_tokens, limiter.available_tokens) == (
            2,
            2,
            0,
        )
        limiter.total_tokens = 0
        assert (limiter.total_tokens, limiter.available_tokens) == (0, -2)
        limiter.total_tokens = math.inf
        assert (limiter.total_tokens, limiter.available_tokens) == (math.inf, math.inf)
        limiter.total_tokens = 2**63 - 1
        assert limiter.available_tokens == 2**63 - 3
        assert limiter.borrowed_tokens == 2

    virtual(main())


def test_a_token_given_back_belongs_to_the_first_who_waits_from_that_moment_on():
    async def main():
        limiter, log = CapacityLimiter(1), []
        await limiter.acquire()
        tasks = [create_task(have(limiter, name, log)) for name in "ab"]
        await checkpoint()
        limiter.release()
        assert limiter.borrowers == ("a",)
        with pytest.raises(WouldBlock):
            limiter.acquire_nowait()
        tasks.append(create_task(have(limiter, "newcomer", log)))
        await checkpoint()
        assert log == ["a"]
        limiter.release_on_behalf_of("a")
        limiter.release_on_behalf_of("b")
        assert limiter.borrowers == ("newcomer",)
        for task in tasks:
            await task
        assert log == ["a", "b", "newcomer"]

    virtual(main())


def test_infinitely_many_tokens():
    async def main():
        limiter = CapacityLimiter(math.inf)
        for n in range(1000):
            await limiter.acquire_on_behalf_of(n)
        assert limiter.borrowers == tuple(range(1000))
        assert limiter.available_tokens == math.inf

    virtual(main())


def test_the_borrower_is_the_task_that_awaits():
    async def main():
        limiter = CapacityLimiter(2)
        task = create_task(limiter.acquire())
        await task
        assert limiter.borrowers == (task,)
        await limiter.acquire()
        assert limiter.borrowers == (task, current_task())
        limiter.release_on_behalf_of(task)
        with pytest.raises(RuntimeError, match="has no token"):
            limiter.release_on_behalf_of(task)
        assert limiter.borrowers == (current_task(),)

    virtual(main())


def test_tokens_are_borrowed_and_released_for_others():
    async def main():
        limiter, log = CapacityLimiter(1), []
        current_loop().call_soon_threadsafe(limiter.acquire_on_behalf_of_nowait, "callback")
        await sleep(1)
        task = create_task(have(limiter, "other", log))
        await sleep(1)
        current_loop().call_soon_threadsafe(limiter.release_on_behalf_of, "callback")
        await task
        assert limiter.borrowers == ("other",)
        return limiter

    limiter = virtual(main())
    limiter.release_on_behalf_of("other")  # that needs no loop
    assert limiter.borrowers == ()


# ---- one token each ------------------------------------------------------------------------------


def test_a_second_token_is_an_error():
    async def main():
        limiter = CapacityLimiter(5, name="db")
        await limiter.acquire()
        text = (
            r"\(\): task 'Task-1' has a token of CapacityLimiter 'db' already, and cannot have a "
            r"second one$"
        )
        with pytest.raises(RuntimeError, match=r"CapacityLimiter\.acquire" + text):
            await limiter.acquire()
        with pytest.raises(RuntimeError, match=r"CapacityLimiter\.acquire_nowait" + text):
            limiter.acquire_nowait()
        with pytest.raises(RuntimeError, match=r"async with CapacityLimiter" + text):
            async with limiter:
                raise AssertionError
        with pytest.raises(RuntimeError, match=r"CapacityLimiter\.acquire_on_behalf_of" + text):
            await limiter.acquire_on_behalf_of(current_task())
        assert limiter.borrowers == (current_task(),)
        limiter.acquire_on_behalf_of_nowait(1)
        for equal in (1, 1.0, True):
            with pytest.raises(RuntimeError, match="has a token"):
                limiter.acquire_on_behalf_of_nowait(equal)
        assert limiter.borrowed_tokens == 2

    virtual(main())


def test_even_when_none_is_left():
    async def main():
        limiter = CapacityLimiter(1)
        await limiter.acquire()
        with pytest.raises(RuntimeError, match="has a token"):
            limiter.acquire_nowait()
        with pytest.raises(RuntimeError, match="has a token"):
            await limiter.acquire()
        assert repr(limiter) == "<CapacityLimiter (1 of 1 tokens borrowed by task 'Task-1')>"

    virtual(main())


def test_a_borrower_waits_for_one_token_at_most():
    async def main():
        limiter, log = CapacityLimiter(0, name="db"), []
        task = create_task(have(limiter, "who", log))
        await checkpoint()
        text = "'who' waits for a token of CapacityLimiter 'db' already"
        with pytest.raises(RuntimeError, match=text):
            await limiter.acquire_on_behalf_of("who")
        with pytest.raises(RuntimeError, match=text):
            limiter.acquire_on_behalf_of_nowait("who")
        with pytest.raises(RuntimeError, match="'who' still waits for a token"):
            limiter.release_on_behalf_of("who")
        task.cancel()  # it is out of the line at once
        second = create_task(have(limiter, "who", log))
        await sleep(1)
        assert limiter.borrowers == ()
        limiter.total_tokens = 1
        await second
        assert log == ["who"]
        assert limiter.borrowers == ("who",)

    virtual(main())


def test_to_release_what_one_has_not_is_an_error():
    async def main():
        limiter = CapacityLimiter(1, name="db")
        with pytest.raises(
            RuntimeError,
            match=r"^CapacityLimiter\.release\(\): task 'Task-1' has no token of "
            r"CapacityLimiter 'db'$",
        ):
            limiter.release()
        await limiter.acquire_on_behalf_of("other")
        with pytest.raises(RuntimeError, match="'me' has no token"):
            limiter.release_on_behalf_of("me")
        with pytest.raises(RuntimeError, match="task 'Task-1' has no token"):
            limiter.release()
        assert limiter.borrowers == ("other",)
        limiter.release_on_behalf_of("other")
        with pytest.raises(
            RuntimeError, match=r"async with CapacityLimiter\(\): task 'Task-1' has"
        ):
            async with limiter:
                limiter.release()
        assert limiter.borrowed_tokens == 0

    virtual(main())


# ---- total_tokens --------------------------------------------------------------------------------


def test_more_tokens_wake_those_who_wait_in_order_and_at_once():
    async def main():
        limiter, log = CapacityLimiter(1), []
        limiter.acquire_on_behalf_of_nowait("first")
        tasks = [create_task(have(limiter, n, log)) for n in range(5)]
        await checkpoint()
        limiter.total_tokens = 4
        assert limiter.borrowers == ("first", 0, 1, 2)
        await checkpoint()
        assert log == [0, 1, 2]
        limiter.total_tokens = math.inf
        assert limiter.borrowers == ("first", 0, 1, 2, 3, 4)
        for task in tasks:
            await task
        assert log == [0, 1, 2, 3, 4]

    virtual(main())


def test_fewer_tokens_take_nothing_away():
    async def main():
        limiter, log = CapacityLimiter(3), []
        for n in range(3):
            limiter.acquire_on_behalf_of_nowait(n)
        task = create_task(have(limiter, "waiter", log))
        await checkpoint()
        limiter.total_tokens = 1
        assert limiter.available_tokens == -2
        for n in range(2):
            limiter.release_on_behalf_of(n)
            await checkpoint()
            assert log == []
        assert limiter.available_tokens == 0
        limiter.release_on_behalf_of(2)
        await task
        assert limiter.borrowers == ("waiter",)

    virtual(main())


def test_no_tokens_are_a_pause():
    async def main():
        limiter, log = CapacityLimiter(2), []
        limiter.total_tokens = 0
        with pytest.raises(WouldBlock):
            limiter.acquire_nowait()
        async with TaskGroup() as group:
            for name in "abc":
                group.create_task(use(limiter, 1, log), name=name)
            await sleep(5)
            assert log == []
            limiter.total_tokens = 2
        assert log == [("a", 5.0), ("b", 5.0), ("c", 6.0)]

    virtual(main())


# ---- cancelled -----------------------------------------------------------------------------------


def test_who_is_cancelled_while_it_waits_has_got_nothing():
    async def main():
        limiter, log = CapacityLimiter(1), []
        await limiter.acquire()
        tasks = [create_task(have(limiter, name, log)) for name in "abc"]
        await checkpoint()
        tasks[0].cancel()
        limiter.release()
        assert limiter.borrowers == ("b",)
        await checkpoint()
        assert tasks[0].cancelled()
        assert log == ["b"]
        tasks[2].cancel()
        await sleep(1)
        limiter.release_on_behalf_of("b")
        assert repr(limiter) == "<CapacityLimiter (0 of 1 tokens borrowed)>"

    virtual(main())


@pytest.mark.parametrize("block", [False, True])
def test_who_is_cancelled_after_it_was_given_a_token_has_it(block):
    async def main():
        limiter, log = CapacityLimiter(1), []
        await limiter.acquire()
        coro = use(limiter, 5, log) if block else have(limiter, "waiter", log)
        task = create_task(coro, name="waiter")
        await checkpoint()
        limiter.release()
        task.cancel()
        await checkpoint()
        assert log == ([("waiter", 0.0)] if block else ["waiter"])
        await sleep(1)
        assert task.cancelled() == block  # the other had no await left that could raise
        assert limiter.borrowers == (() if block else ("waiter",))

    virtual(main())


@pytest.mark.parametrize("total", [0, 1])
def test_in_a_cancelled_scope_nothing_is_taken(total):
    async def main():
        limiter = CapacityLimiter(total)
        with CancelScope() as scope:
            scope.cancel()
            with pytest.raises(CancelledError):
                await limiter.acquire()
            with pytest.raises(CancelledError):
                await limiter.acquire_on_behalf_of("other")
            with pytest.raises(CancelledError):
                async with limiter:
                    raise AssertionError
            assert limiter.borrowers == ()

    virtual(main())


def test_a_timeout_while_waiting():
    async def main():
        limiter = CapacityLimiter(0)
        for _ in range(3):
            with move_on_after(3) as scope:
                async with limiter:
                    raise AssertionError
            assert scope.cancelled_caught
        assert now() == 9.0
        assert repr(limiter) == "<CapacityLimiter (0 of 0 tokens borrowed)>"

    virtual(main())


# ---- nobody learns of it -------------------------------------------------------------------------


async def careless(limiter: CapacityLimiter, borrower: Any) -> None:
    """Wait for a token by hand, and never look whether one has come."""
    wait = limiter.acquire_on_behalf_of(borrower)
    await yielding(wait.send(None))
    del wait


def test_a_token_that_nobody_learns_of_goes_to_the_next():
    async def main():
        limiter, log = CapacityLimiter(1), []
        await limiter.acquire()
        create_task(careless(limiter, "careless"))
        second = create_task(have(limiter, "second", log))
        await checkpoint()
        limiter.release()
        assert limiter.borrowers == ("careless",)
        await second
        assert limiter.borrowers == ("second",)

    virtual(main())


def test_a_token_that_nobody_learns_of_may_have_been_released_already():
    async def main():
        limiter = CapacityLimiter(1)
        await limiter.acquire()
        task = create_task(careless(limiter, "careless"))
        await checkpoint()
        limiter.release()
        limiter.release_on_behalf_of("careless")
        limiter.acquire_on_behalf_of_nowait("careless")  # another one, which stays
        await task
        gc.collect()
        assert limiter.borrowers == ("careless",)

    virtual(main())


def test_a_parked_wait_that_is_closed_by_hand():
    async def main():
        limiter = CapacityLimiter(0)
        wait = limiter.acquire()

        async def by_hand():
            await yielding(wait.send(None))

        task = create_task(by_hand())
        await checkpoint()
        wait.close()
        limiter.total_tokens = 1
        await task
        return limiter

    limiter = virtual(main())
    gc.collect()
    assert limiter.borrowers == ()


def test_a_task_that_ends_without_a_release_keeps_its_token():
    async def main():
        limiter = CapacityLimiter(1, name="db")
        task = create_task(limiter.acquire(), name="gone")
        await task
        assert limiter.borrowers == (task,)
        with pytest.raises(WouldBlock, match="borrowed by task 'gone'"):
            limiter.acquire_nowait()
        limiter.release_on_behalf_of(task)
        limiter.acquire_nowait()

    virtual(main())


# ---- the collector -------------------------------------------------------------------------------


def test_borrowers_are_let_go():
    async def main():
        limiter = CapacityLimiter(1)
        refs = []
        for _ in range(2):
            borrower = OnDel(lambda: None)
            refs.append(weakref.ref(borrower))
            await limiter.acquire_on_behalf_of(borrower)
            with move_on_after(1):
                waiter = OnDel(lambda: None)
                refs.append(weakref.ref(waiter))
                await limiter.acquire_on_behalf_of(waiter)
            limiter.release_on_behalf_of(borrower)
            del borrower, waiter
        return [ref() for ref in refs]

    gc.disable()
    try:
        assert virtual(main()) == [None] * 4
    finally:
        gc.enable()


def test_the_collector_runs_while_the_borrowers_are_listed():
    async def main():
        for n in range(50):
            limiter.acquire_on_behalf_of_nowait(n)
        garbage = OnDel(lambda: limiter.release_on_behalf_of(0))
        garbage.itself = garbage
        del garbage
        gc.enable()
        borrowers = limiter.borrowers  # before 3.12 the collector begins where memory is asked for
        gc.disable()
        gc.collect()
        assert borrowers in (tuple(range(50)), tuple(range(1, 50)))
        assert limiter.borrowers == tuple(range(1, 50))

    limiter = CapacityLimiter(50)
    threshold = gc.get_threshold()
    gc.disable()
    gc.set_threshold(1)
    try:
        virtual(main())
    finally:
        gc.set_threshold(*threshold)
        gc.enable()


def test_a_cycle_of_a_limiter_and_a_borrower():
    async def main():
        limiter = CapacityLimiter(1)
        borrower = OnDel(lambda: died.append(1))
        borrower.limiter = limiter
        await limiter.acquire_on_behalf_of(borrower)

    died = []
    virtual(main())
    gc.collect()
    assert died == [1]


def test_a_loop_that_is_dropped_while_tasks_have_tokens_and_wait():
    async def block(limiter, local):
        async with limiter:
            await sleep_forever()

    async def main():
        limiter = CapacityLimiter(1)
        refs.append(weakref.ref(limiter))
        for _ in range(3):
            local = OnDel(lambda: died.append(1))
            create_task(block(limiter, local))
            create_task(have(limiter, local, []))
        await sleep_forever()

    refs, died = [], []
    loop = SleepingLoop(main(), speed=math.inf)
    loop.run_until(1)
    assert repr(refs[0]()).endswith("(1 of 1 tokens borrowed by task 'Task-2'), 5 waiting>")
    with pytest.warns(ResourceWarning, match="neither closed nor run"):
        del loop
        gc.collect()
    gc.collect()
    assert refs[0]() is None
    assert died == [1, 1, 1]


# ---- borrowers that call back --------------------------------------------------------------------


class Evil:
    """Has the hash of any other, and does something when it is compared."""

    def __init__(self, name, compared=None):
        self.name = name
        self.compared = compared

    def __hash__(self):
        return 7

    def __eq__(self, other):
        if self.compared is not None:
            compared, self.compared = self.compared, None
            compared()
        return self is other

    def __repr__(self):
        return self.name


def test_borrowers_of_the_same_hash():
    async def main():
        limiter = CapacityLimiter(20)
        borrowers = [Evil(str(n)) for n in range(20)]
        for borrower in borrowers:
            limiter.acquire_on_behalf_of_nowait(borrower)
        assert limiter.borrowers == tuple(borrowers)
        for borrower in borrowers[::3]:
            limiter.release_on_behalf_of(borrower)
        rest = [borrower for n, borrower in enumerate(borrowers) if n % 3]
        assert list(limiter.borrowers) == rest
        for borrower in rest:
            limiter.release_on_behalf_of(borrower)
        assert limiter.borrowed_tokens == 0

    virtual(main())


def test_a_borrower_that_takes_the_last_token_when_it_is_compared():
    async def main():
        limiter = CapacityLimiter(2)
        thief = Evil("thief", lambda: limiter.acquire_on_behalf_of_nowait("booty"))
        limiter.acquire_on_behalf_of_nowait(thief)
        with pytest.raises(WouldBlock):
            limiter.acquire_on_behalf_of_nowait(Evil("late"))
        assert limiter.borrowers == (thief, "booty")

    virtual(main())


def test_a_borrower_that_releases_what_is_compared():
    async def main():
        limiter = CapacityLimiter(3)

        def vanish():
            limiter.release_on_behalf_of(evil)
            nonlocal died
            died = weakref.ref(others.pop())

        evil = Evil("evil", vanish)
        others = [Evil("other")]
        for borrower in (*others, evil):
            limiter.acquire_on_behalf_of_nowait(borrower)
        limiter.release_on_behalf_of(others[0])
        assert limiter.borrowers == ()
        evil.compared = lambda: None
        limiter.acquire_on_behalf_of_nowait(evil)
        assert limiter.borrowers == (evil,)

    died = None
    virtual(main())
    assert died() is None


def test_a_borrower_that_is_compared_while_the_table_grows():
    async def main():
        limiter = CapacityLimiter(math.inf)

        def grow():
            for n in range(100):
                limiter.acquire_on_behalf_of_nowait(n)

        evil = Evil("evil", grow)
        limiter.acquire_on_behalf_of_nowait(evil)
        last = Evil("last")
        with pytest.raises(RuntimeError, match="7 has a token"):
            limiter.acquire_on_behalf_of_nowait(7)  # after it has grown
        limiter.acquire_on_behalf_of_nowait(last)
        assert limiter.borrowers == (evil, *range(100), last)
        for n in range(100):
            limiter.release_on_behalf_of(n)
        limiter.release_on_behalf_of(last)
        assert limiter.borrowers == (evil,)

    virtual(main())


@pytest.mark.parametrize("method", ["acquire_on_behalf_of_nowait", "release_on_behalf_of"])
def test_a_borrower_that_fails_when_it_is_compared(method):
    async def main():
        def fail():
            raise LookupError

        limiter = CapacityLimiter(5)
        evil = Evil("evil", fail)
        limiter.acquire_on_behalf_of_nowait(evil)
        with pytest.raises(LookupError):
            getattr(limiter, method)(Evil("other"))
        evil.compared = fail
        assert isinstance(await outcome(limiter.acquire_on_behalf_of(Evil("other"))), LookupError)
        assert limiter.borrowers == (evil,)

    virtual(main())


def test_a_borrower_that_awaits_the_same_thing_when_it_is_compared():
    async def main():
        limiter = CapacityLimiter(5)

        def await_it():
            with pytest.raises(RuntimeError, match="was awaited before"):
                wait.send(None)

        evil, other = Evil("evil", await_it), Evil("other")
        limiter.acquire_on_behalf_of_nowait(evil)
        wait = limiter.acquire_on_behalf_of(other)
        await wait
        assert limiter.borrowers == (evil, other)
        limiter.release_on_behalf_of(other)

    virtual(main())


def test_a_borrower_that_has_what_is_waited_for_when_it_is_compared_again():
    """The second question is asked when the task is about to be parked."""

    async def main():
        limiter, log = CapacityLimiter(1), []

        def first():
            evil.compared = second

        def second():
            limiter.total_tokens = 2

        evil = Evil("evil", first)
        limiter.acquire_on_behalf_of_nowait(evil)
        other = Evil("other")
        await have(limiter, other, log)
        assert limiter.borrowers == (evil, other)
        assert now() == 0.0

    virtual(main())


def test_a_borrower_that_cancels_the_task_that_is_about_to_be_parked():
    async def main():
        limiter = CapacityLimiter(1)
        with CancelScope() as scope:

            def first():
                evil.compared = scope.cancel

            evil = Evil("evil", first)
            limiter.acquire_on_behalf_of_nowait(evil)
            await limiter.acquire_on_behalf_of(Evil("other"))
        assert scope.cancelled_caught
        assert repr(limiter) == "<CapacityLimiter (1 of 1 tokens borrowed by evil)>"

    virtual(main())


def test_a_borrower_without_a_hash_that_can_be_had():
    class Unhashable:
        def __hash__(self):
            raise LookupError

    async def main():
        limiter = CapacityLimiter(1)
        for method in (
            limiter.acquire_on_behalf_of,
            limiter.acquire_on_behalf_of_nowait,
            limiter.release_on_behalf_of,
        ):
            with pytest.raises(TypeError, match="unhashable type: 'list'"):
                method([])
            with pytest.raises(LookupError):
                method(Unhashable())
        assert limiter.borrowed_tokens == 0

    virtual(main())


def test_a_borrower_whose_hash_changes():
    """It is found neither by its old nor by its new one, and gone with the limiter."""

    class Changing:
        hash = 1

        def __hash__(self):
            return self.hash

    async def main():
        limiter, borrower = CapacityLimiter(2), Changing()
        await limiter.acquire_on_behalf_of(borrower)
        Changing.hash = 2
        with pytest.raises(RuntimeError, match="has no token"):
            limiter.release_on_behalf_of(borrower)
        await limiter.acquire_on_behalf_of(borrower)
        assert limiter.borrowers == (borrower, borrower)
        limiter.release_on_behalf_of(borrower)
        Changing.hash = 1
        limiter.release_on_behalf_of(borrower)
        assert limiter.borrowers == ()

    virtual(main())


def test_a_borrower_that_borrows_when_it_dies():
    async def main():
        limiter = CapacityLimiter(1)
        await limiter.acquire_on_behalf_of(
            OnDel(lambda: limiter.acquire_on_behalf_of_nowait("heir"))
        )
        limiter.release_on_behalf_of(limiter.borrowers[0])
        assert limiter.borrowers == ("heir",)

    virtual(main())


# ---- misuse --------------------------------------------------------------------------------------

WRONG = [
    (-1, ValueError, "total_tokens must be 0 or more, not -1"),
    (2**63, ValueError, r"total_tokens must be less than 2\*\*63, not 9223372036854775808"),
    (1.0, TypeError, r"total_tokens must be an int or math\.inf, not 1\.0"),
    (-math.inf, TypeError, r"total_tokens must be an int or math\.inf, not -inf"),
    (math.nan, TypeError, r"total_tokens must be an int or math\.inf, not nan"),
    ("two", TypeError, r"total_tokens must be an int or math\.inf, not 'two'"),
    (None, TypeError, r"total_tokens must be an int or math\.inf, not None"),
]


@pytest.mark.parametrize(("total", "error", "text"), WRONG)
def test_numbers_of_tokens_that_are_none(total, error, text):
    with pytest.raises(error, match=r"^CapacityLimiter\(\): " + text):
        CapacityLimiter(total)
    limiter = CapacityLimiter(3)
    with pytest.raises(error, match=r"^CapacityLimiter\.total_tokens: " + text):
        limiter.total_tokens = total
    assert limiter.total_tokens == 3


def test_arguments_and_attributes():
    assert CapacityLimiter(1, name="db").name == "db"
    assert CapacityLimiter(1).name is None
    assert CapacityLimiter(True).total_tokens == 1
    with pytest.raises(TypeError, match=r"CapacityLimiter\(\): name must be a str, not 5"):
        CapacityLimiter(1, name=5)
    for args in ((), (1, "db")):
        with pytest.raises(TypeError, match="CapacityLimiter"):
            CapacityLimiter(*args)
    limiter = CapacityLimiter(2)
    for name in ("name", "borrowers", "borrowed_tokens", "available_tokens", "anything"):
        with pytest.raises(AttributeError):
            setattr(limiter, name, 1)
    with pytest.raises(AttributeError, match=r"CapacityLimiter\.total_tokens cannot be deleted"):
        del limiter.total_tokens
    with pytest.raises(TypeError, match="not an acceptable base type"):
        type("Sub", (CapacityLimiter,), {})


@pytest.mark.usefixtures("forgetful")
def test_what_acquire_gives_is_awaited_once():
    async def main():
        limiter = CapacityLimiter(2)
        wait = limiter.acquire_on_behalf_of("a")
        assert repr(wait) == (
            "<CapacityLimiter.acquire_on_behalf_of() of CapacityLimiter (0 of 2 tokens borrowed), "
            "not awaited yet>"
        )
        await wait
        with pytest.raises(RuntimeError, match=r"CapacityLimiter\.acquire_on_behalf_of\(\)"):
            await wait
        limiter.acquire()  # never awaited
        assert limiter.borrowers == ("a",)

    virtual(main())


def test_without_a_loop():
    limiter = CapacityLimiter(1)
    for attempt in (
        limiter.acquire_nowait,
        limiter.release,
        limiter.__aenter__,
        lambda: limiter.acquire().send(None),
        lambda: limiter.acquire_on_behalf_of_nowait(1),
    ):
        with pytest.raises(RuntimeError, match="needs a running loop"):
            attempt()
    with pytest.raises(RuntimeError, match="1 has no token"):
        limiter.release_on_behalf_of(1)
    assert limiter.borrowed_tokens == 0


def test_another_loop():
    async def take():
        async with limiter:
            await sleep(5)

    async def other():
        for attempt in (
            limiter.acquire_nowait,
            limiter.__aenter__,
            lambda: limiter.acquire_on_behalf_of_nowait(1),
        ):
            with pytest.raises(RuntimeError, match=r"CapacityLimiter.* belongs to another loop"):
                attempt()
        with pytest.raises(RuntimeError, match="has no token"):
            limiter.release()
        return await outcome(limiter.acquire())

    limiter = CapacityLimiter(2)
    loop = SleepingLoop(take(), speed=math.inf)
    loop.run_until(1)
    assert "belongs to another loop" in str(virtual(other()))
    assert limiter.borrowed_tokens == 1
    loop.run_until_complete()
    virtual(take())
    assert limiter.borrowed_tokens == 0


def test_another_thread():
    def in_thread():
        with pytest.raises(RuntimeError, match=r"runs in another thread.*call_soon_threadsafe"):
            limiter.release_on_behalf_of(1)
        with pytest.raises(RuntimeError, match="runs in another thread"):
            limiter.total_tokens = 2
        with pytest.raises(RuntimeError, match="needs a running loop"):
            limiter.acquire_on_behalf_of_nowait(2)
        with pytest.raises(RuntimeError, match="runs in another thread"):
            run(limiter.acquire(), speed=math.inf)
        loop.call_soon_threadsafe(limiter.release_on_behalf_of, 1)
        return limiter.borrowers, limiter.available_tokens, limiter.total_tokens

    async def main():
        nonlocal loop
        loop = current_loop()
        await limiter.acquire_on_behalf_of(1)
        seen = await to_thread(in_thread)
        await limiter.acquire()
        return seen

    loop, limiter = None, CapacityLimiter(1)
    assert run(main()) == ((1,), 0, 1)


def test_the_methods_of_the_block_called_by_hand():
    async def main():
        limiter = CapacityLimiter(1)
        with pytest.raises(TypeError):
            limiter.__aenter__(1)
        with pytest.raises(TypeError, match="takes 3 arguments, not 0"):
            limiter.__aexit__()
        assert limiter.borrowed_tokens == 0
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(limiter)
            assert limiter.borrowers == (current_task(),)
        with pytest.raises(LookupError):
            async with limiter:
                raise LookupError
        assert limiter.borrowed_tokens == 0

    virtual(main())


# ---- reports -------------------------------------------------------------------------------------


def test_what_it_looks_like():
    async def main():
        limiter = CapacityLimiter(9, name="db")
        assert repr(limiter) == "<CapacityLimiter 'db' (0 of 9 tokens borrowed)>"
        texts = []
        for borrower in (current_task(), "text", 3, 4, 5):
            limiter.acquire_on_behalf_of_nowait(borrower)
            texts.append(repr(limiter).partition(" tokens borrowed by ")[2])
        assert texts == [
            "task 'Task-1')>",
            "task 'Task-1', 'text')>",
            "task 'Task-1', 'text', 3)>",
            "task 'Task-1', 'text', 3 and 1 more)>",
            "task 'Task-1', 'text', 3 and 2 more)>",
        ]
        limiter.total_tokens = math.inf
        assert "(5 of inf tokens" in repr(limiter)

    virtual(main())


def test_a_long_borrower_is_cut_short():
    async def main():
        limiter = CapacityLimiter(1)
        await limiter.acquire_on_behalf_of("x" * 10_000)
        return len(repr(limiter))

    assert virtual(main()) < 300


def test_a_borrower_that_knows_the_limiter():
    async def main():
        limiter = CapacityLimiter(2, name="db")
        for _ in range(2):
            limiter.acquire_on_behalf_of_nowait((limiter, _))
        return repr(limiter)

    inner = "(<CapacityLimiter 'db' (...)>, {})"
    assert virtual(main()) == (
        f"<CapacityLimiter 'db' (2 of 2 tokens borrowed by {inner.format(0)}, {inner.format(1)})>"
    )


def test_a_borrower_that_has_no_repr():
    class Silent:
        def __repr__(self):
            raise LookupError

    class Rude:
        def __repr__(self):
            raise KeyboardInterrupt

    async def main():
        limiter = CapacityLimiter(2)
        limiter.acquire_on_behalf_of_nowait(Silent())
        assert repr(limiter) == "<CapacityLimiter (1 of 2 tokens borrowed by <Silent object>)>"
        limiter.acquire_on_behalf_of_nowait(Rude())
        with pytest.raises(KeyboardInterrupt):
            repr(limiter)
        limiter.release_on_behalf_of(limiter.borrowers[1])
        assert "<Silent object>)>" in repr(limiter)

    virtual(main())


def test_borrowers_that_release_themselves_when_they_are_looked_at():
    class Shy:
        def __repr__(self):
            for borrower in limiter.borrowers:
                limiter.release_on_behalf_of(borrower)
            return "shy"

    async def main():
        for _ in range(5):
            limiter.acquire_on_behalf_of_nowait(Shy())
        assert repr(limiter) == (
            "<CapacityLimiter (5 of 5 tokens borrowed by shy, shy, shy and 2 more)>"
        )
        assert limiter.borrowers == ()

    limiter = CapacityLimiter(5)
    virtual(main())


def test_a_limiter_that_dies_while_a_report_looks_at_it():
    """The borrower's repr drives the loop to its end; only the wait had the limiter."""

    class Driver:
        def __repr__(self):
            refs[0]().release_on_behalf_of(self)
            loop.run_until_complete()
            died.append(refs[0]() is None)
            return "driver"

    async def main(limiter):
        refs.append(weakref.ref(limiter))
        await limiter.acquire_on_behalf_of(Driver())
        wait = limiter.acquire()
        del limiter
        await wait

    refs, died = [], []
    loop = SleepingLoop(main(CapacityLimiter(1)), speed=math.inf)
    loop.run_until(1)
    (task,) = loop.tasks()
    assert "waiting for CapacityLimiter (1 of 1 tokens borrowed by driver)" in repr(task)
    assert died == [False]  # the report holds it
    assert refs[0]() is None


def test_reports_tell_who_has_the_tokens():
    async def main():
        limiter = CapacityLimiter(2, name="db")
        tasks = [create_task(use(limiter, math.inf, []), name=name) for name in "abc"]
        await checkpoint()
        await checkpoint()
        text = "CapacityLimiter 'db' (2 of 2 tokens borrowed by task 'a', task 'b')"
        assert f"Task 'c' use: waiting for {text}, since 0.0 s" in format_tasks()
        assert repr(limiter) == f"<{text}, 1 waiting>"
        assert tasks[2].waiting_on is limiter
        with pytest.raises(WouldBlock) as caught:
            limiter.acquire_nowait()
        assert str(caught.value).endswith(f"_nowait() would have to wait: {text}")
        await tasks[2]

    with pytest.raises(DeadlockError, match=r"waiting for CapacityLimiter 'db' \(2 of 2 tokens"):
        virtual(main())


# ---- crowds --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_crowd():
    async def one(n):
        async with limiter:
            order.append(n)

    async def main():
        tasks = [create_task(one(n)) for n in range(100_000)]
        await checkpoint()
        for task in tasks[1::2]:
            task.cancel()
        limiter.total_tokens = 10
        await sleep(1)
        assert limiter.borrowed_tokens == 0
        limiter.total_tokens = math.inf
        for n in range(100_000):
            limiter.acquire_on_behalf_of_nowait(n)
        assert limiter.borrowers == tuple(range(100_000))
        for n in range(100_000):
            limiter.release_on_behalf_of(n)
        limiter.acquire_on_behalf_of_nowait("last")
        assert limiter.borrowers == ("last",)

    limiter, order = CapacityLimiter(0), []
    virtual(main())
    assert order == list(range(0, 100_000, 2))


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_limiter_does_not_keep_the_loop_of_those_who_only_wait():
    limiter = CapacityLimiter(0)

    async def main():
        async with limiter:
            raise AssertionError("there is none")

    loop = SleepingLoop(main(), speed=math.inf)
    loop.step()
    assert "1 waiting" in repr(limiter)
    gone = weakref.ref(loop)
    del loop
    gc.collect()
    assert gone() is None
    assert "waiting" not in repr(limiter)


def test_a_chain_of_limiters_that_lend_to_each_other_is_freed_without_recursion():
    async def main():
        first = limiter = CapacityLimiter(1)
        for _ in range(100_000):
            following = CapacityLimiter(1)
            limiter.acquire_on_behalf_of_nowait(following)
            limiter = following
        return first, weakref.ref(limiter)

    first, last = virtual(main())
    assert last() is not None
    del first
    assert last() is None
