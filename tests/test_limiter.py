"""CapacityLimiter: who gets a token, and when."""

import gc
import math
import weakref
from typing import Any

import pytest

from sleeploop import (
    CancelledError,
    CancelScope,
    CapacityLimiter,
    SleepingLoop,
    TaskGroup,
    WouldBlock,
    checkpoint,
    create_task,
    current_loop,
    current_task,
    move_on_after,
    sleep,
)
from tests.helpers import CROWD, now, virtual, yielding
from tests.waits import have, use

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


# ---- crowds --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_crowd():
    async def one(n):
        async with limiter:
            order.append(n)

    async def main():
        tasks = [create_task(one(n)) for n in range(CROWD)]
        await checkpoint()
        for task in tasks[1::2]:
            task.cancel()
        limiter.total_tokens = 10
        await sleep(1)
        assert limiter.borrowed_tokens == 0
        limiter.total_tokens = math.inf
        for n in range(CROWD):
            limiter.acquire_on_behalf_of_nowait(n)
        assert limiter.borrowers == tuple(range(CROWD))
        for n in range(CROWD):
            limiter.release_on_behalf_of(n)
        limiter.acquire_on_behalf_of_nowait("last")
        assert limiter.borrowers == ("last",)

    limiter, order = CapacityLimiter(0), []
    virtual(main())
    assert order == list(range(0, CROWD, 2))


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
