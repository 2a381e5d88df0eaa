"""TaskGroup.start() misused: driven by hand, at the wrong time, with what is no async function."""

import gc
import threading
import types

import pytest

from sleeploop import (
    TaskGroup,
    checkpoint,
    create_task,
    sleep,
    sleep_forever,
)
from tests.helpers import OnDel, now, outcome, references, virtual


async def server(*args, started):
    await sleep(1)
    started(args)
    await sleep(10)


def refusals(started):
    """What two calls too many are told."""
    told = []
    for call in (lambda: started("again"), lambda: started()):
        with pytest.raises(RuntimeError) as info:
            call()
        told.append(str(info.value))
    return told


def test_started_twice():
    async def child(*, started):
        started(1)
        told.extend(refusals(started))
        await sleep(1)
        told.extend(refusals(started))

    async def main():
        async with TaskGroup() as group:
            assert await group.start(child) == 1

    told = []
    virtual(main())
    assert ["has been called before" in text for text in told[:2]] == [True, True]
    assert len(told) == 4


def test_started_after_the_end():
    async def child(*, started):
        kept.append(started)

    async def main():
        async with TaskGroup() as group:
            with pytest.raises(RuntimeError, match="without a call"):
                await group.start(child)
            assert all("nobody waits" in text for text in refusals(kept[0]))

    kept = []
    virtual(main())
    assert all("nobody waits" in text for text in refusals(kept[0]))  # nor when the run is over


def test_started_by_another_task():
    async def child(*, started):
        kept.append(started)
        await sleep(5)

    async def helper():
        await sleep(1)
        kept[0]("by the helper")

    async def main():
        async with TaskGroup() as group:
            create_task(helper())
            assert await group.start(child) == "by the helper"
            return now()

    kept = []
    assert virtual(main()) == 1.0


def test_started_by_another_thread():
    async def child(*, started):
        def attempt():
            with pytest.raises(RuntimeError, match="another thread"):
                started("wrong")
            log.append("refused")

        thread = threading.Thread(target=attempt)
        thread.start()
        thread.join()
        started("right")

    async def main():
        async with TaskGroup() as group:
            return await group.start(child)

    log = []
    assert virtual(main()) == "right"
    assert log == ["refused"]


def test_arguments_of_started():
    async def child(*, started):
        with pytest.raises(TypeError, match="at most 1 argument"):
            started(1, 2)
        with pytest.raises(TypeError):
            started(value=1)
        started("right")

    async def main():
        async with TaskGroup() as group:
            return await group.start(child)

    assert virtual(main()) == "right"


def junk(*, started):
    return "junk"


def raises(*, started):
    raise KeyError("from the call")


def starts_junk(*, started):
    started("for nothing")


def starts_and_raises(*, started):
    started("for nothing")
    raise KeyError("from the call")


def starts_twice(*, started):
    started("for nothing")
    started("again")


async def agen(*, started):
    yield


@pytest.mark.parametrize(
    ("function", "error", "match"),
    [
        (junk, TypeError, "takes a coroutine, not 'junk'"),
        (raises, KeyError, "from the call"),
        (starts_junk, TypeError, "takes a coroutine, not None"),
        (starts_and_raises, KeyError, "from the call"),
        (starts_twice, RuntimeError, "has been called before"),
        (agen, TypeError, "coroutine"),
        (5, TypeError, "not 5"),
        (server(started=None), TypeError, "async function"),
        (sleep, TypeError, "keyword"),
    ],
)
def test_what_is_no_async_function(function, error, match):
    async def main():
        async with TaskGroup() as group:
            with pytest.raises(error, match=match):
                await group.start(function)
            assert repr(group) == "<TaskGroup open, 0 tasks>"
            assert not group.cancel_scope.cancel_called

    virtual(main())
    if isinstance(function, types.CoroutineType):
        function.close()


def test_a_function_that_closes_or_cancels_the_group():
    async def leaves(group):
        await group.__aexit__(None, None, None)

    async def main():
        async with TaskGroup() as group:

            def cancels(*, started):
                group.cancel_scope.cancel()
                return server(started=started)

            await group.start(cancels)
            log.append("not reached")
        assert group.cancel_scope.cancelled_caught

        group = TaskGroup()
        await group.__aenter__()

        def closes(*, started):
            with pytest.raises(StopIteration):
                leaves(group).send(None)
            coros.append(server(started=started))
            return coros[0]

        with pytest.raises(RuntimeError, match="is finished"):
            await group.start(closes)
        coros[0].close()

    log, coros = [], []
    virtual(main())
    assert log == []


def test_before_and_after_the_block():
    async def main():
        group = TaskGroup()
        with pytest.raises(RuntimeError, match="has not been entered"):
            await group.start(server)
        async with group:
            start = group.start(server)
        with pytest.raises(RuntimeError, match="is finished"):
            await start
        return group

    group = virtual(main())
    with pytest.raises(RuntimeError, match="needs a running loop"):
        group.start(server).send(None)


def test_driven_by_hand():
    async def main():
        async with TaskGroup() as group:
            start = group.start(server, "value")
            assert start.send(None) is start
            assert repr(group) == "<TaskGroup open, 1 task>"
            await sleep(2)
            with pytest.raises(StopIteration) as info:  # the task has called started()
                next(start)
            assert info.value.value == ("value",)
            with pytest.raises(RuntimeError, match="awaited before"):
                start.send(None)
        assert now() == 11.0

    virtual(main())


def test_resumed_by_hand_too_early():
    async def child(*, started):
        await sleep(1)
        told.extend(refusals(started))

    async def main():
        async with TaskGroup() as group:
            start = group.start(child)
            start.send(None)
            with pytest.raises(RuntimeError, match="somebody else than its loop"):
                start.send(None)
            await sleep(2)
            assert repr(group) == "<TaskGroup open, 0 tasks>"

    told = []
    virtual(main())
    assert len(told) == 2


def test_driven_by_another_task():
    async def other(start):
        with pytest.raises(RuntimeError, match="awaited before"):
            await start

    async def main():
        async with TaskGroup() as group:
            start = group.start(server, "value")
            start.send(None)
            await create_task(other(start))
            await sleep(1)
            with pytest.raises(StopIteration):
                start.send(None)

    virtual(main())


@pytest.mark.parametrize("how", ["close", "throw"])
def test_given_up_by_hand(how):
    """The task goes on as a task of where it was started, until that block is left."""

    async def child(*, started):
        try:
            await sleep(1)
            log.extend(refusals(started))
            await sleep_forever()
        finally:
            log.append("cancelled")

    async def main():
        async with TaskGroup() as group:
            start = group.start(child)
            start.send(None)
            if how == "close":
                start.close()
            else:
                with pytest.raises(KeyError):
                    start.throw(KeyError("x"))
            with pytest.raises(RuntimeError, match="awaited before"):
                start.send(None)
            assert repr(group) == "<TaskGroup open, 0 tasks>"
            await sleep(5)
        await checkpoint()

    log = []
    virtual(main())
    assert log[-1] == "cancelled"
    assert len(log) == 3


def test_dropped_by_hand():
    """The task keeps what it was started with, so the group waits, and gets it."""

    async def main():
        async with TaskGroup() as group:
            group.start(server).send(None)
            gc.collect()
            assert repr(group) == "<TaskGroup open, 1 task>"
        return now()

    assert virtual(main()) == 11.0


def test_a_starter_whose_coroutine_is_closed():
    async def child(*, started):
        await sleep(1)
        told.extend(refusals(started))
        await sleep(2)

    async def starter(group):
        await group.start(child)

    async def main():
        async with TaskGroup() as group:
            coro = starter(group)
            task = create_task(coro)
            await sleep(0.5)
            coro.close()
            assert repr(group) == "<TaskGroup open, 0 tasks>"
            with pytest.raises(RuntimeError, match="already awaited"):
                await task  # it stays where it waits, until the child has ended
        return now()

    told = []
    assert virtual(main()) == 3.0
    assert len(told) == 2


def test_reference_counts_and_cycles():
    async def child(token, *, started):
        started(token)
        await sleep(1)

    async def bad(token, *, started):
        raise ValueError

    async def main():
        async with TaskGroup() as group:
            before = references(group)
            for function in child, bad:
                token = OnDel(lambda: log.append("freed"))
                await outcome(group.start(function, token))
                await sleep(2)
                assert references(group) == before, function
                del token
                log.append("end")
            group.start(child, OnDel(lambda: log.append("freed"))).close()
            log.append("end")

    log = []
    gc.collect()
    gc.disable()
    try:
        virtual(main())
    finally:
        gc.enable()
    assert log == ["freed", "end"] * 3


@pytest.mark.usefixtures("forgetful")
def test_a_cycle_of_a_start_that_never_began_is_collected():
    log = []

    def make():
        token = OnDel(lambda: log.append("freed"))
        token.start = TaskGroup().start(server, token)

    make()
    gc.collect()
    assert log == ["freed"]
