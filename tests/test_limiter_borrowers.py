"""CapacityLimiter: borrowers that call back, and how long they live."""

import gc
import math
import weakref

import pytest

from sleeploop import (
    CancelScope,
    CapacityLimiter,
    SleepingLoop,
    WouldBlock,
    create_task,
    move_on_after,
    sleep_forever,
)
from tests.helpers import OnDel, now, outcome, virtual
from tests.waits import have

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
