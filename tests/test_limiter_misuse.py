"""CapacityLimiter: wrong use, and what is told of it."""

import contextlib
import math
import weakref

import pytest

from sleeploop import (
    CapacityLimiter,
    DeadlockError,
    SleepingLoop,
    WouldBlock,
    checkpoint,
    create_task,
    current_loop,
    current_task,
    format_tasks,
    run,
    sleep,
    to_thread,
)
from tests.helpers import outcome, virtual
from tests.waits import use

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
