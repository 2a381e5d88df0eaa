"""Barrier: who waits for whom, rounds, broken barriers, cancellation."""

import gc
import math
import sys
import threading
import types
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from _sleeploop import _stop

from sleeploop import (
    Barrier,
    BrokenBarrierError,
    CancelledError,
    CancelScope,
    DeadlockError,
    SleepingLoop,
    TaskGroup,
    checkpoint,
    create_task,
    current_loop,
    format_tasks,
    gather,
    move_on_after,
    run,
    sleep,
)
from tests.helpers import CROWD, ended, now, outcome, settle, suspended, virtual
from tests.twins import each_seed


async def arrive(barrier: Barrier, log: list[Any], name: object, delay: float = 0) -> None:
    await sleep(delay)
    log.append((name, await barrier.wait(), now()))


# ---- making one ----------------------------------------------------------------------------------


def test_what_it_tells_of_itself():
    barrier = Barrier(3, name="start")
    assert (barrier.parties, barrier.n_waiting, barrier.broken) == (3, 0, False)
    assert barrier.name == "start"
    assert repr(barrier) == "<Barrier 'start' of 3>"
    assert Barrier(parties=1).name is None
    assert repr(Barrier(sys.maxsize)) == f"<Barrier of {sys.maxsize}>"
    assert Barrier(2**63 - 1).parties == 2**63 - 1
    for attribute in "parties", "n_waiting", "broken", "name":
        with pytest.raises(AttributeError):
            setattr(barrier, attribute, 1)


@pytest.mark.parametrize(
    ("parties", "error", "message"),
    [
        (0, ValueError, "Barrier(): parties must be 1 or more, not 0"),
        (-1, ValueError, "Barrier(): parties must be 1 or more, not -1"),
        (-(10**30), ValueError, f"Barrier(): parties must be 1 or more, not {-(10**30)}"),
        (2**63, ValueError, f"Barrier(): parties must be less than 2**63, not {2**63}"),
        (2.0, TypeError, "Barrier(): parties must be an int, not 2.0"),
        ("2", TypeError, "Barrier(): parties must be an int, not '2'"),
        (None, TypeError, "Barrier(): parties must be an int, not None"),
    ],
)
def test_wrong_parties(parties, error, message):
    with pytest.raises(error) as info:
        Barrier(parties)
    assert str(info.value) == message


def test_wrong_arguments():
    with pytest.raises(TypeError):
        Barrier()
    with pytest.raises(TypeError):
        Barrier(1, "name")
    with pytest.raises(TypeError, match=r"Barrier\(\): name must be a str, not 5"):
        Barrier(1, name=5)
    with pytest.raises(TypeError, match=r"Barrier.__aexit__\(\) takes 3 arguments, not 0"):
        Barrier(1).__aexit__()
    with pytest.raises(TypeError, match=r"Barrier.__aexit__\(\) takes an exception, not 5"):
        Barrier(1).__aexit__(None, 5, None)

    class Number:
        def __index__(self):
            raise LookupError

    with pytest.raises(LookupError):
        Barrier(Number())


def test_it_cannot_be_subclassed_or_changed():
    with pytest.raises(TypeError):
        type("Sub", (Barrier,), {})
    with pytest.raises(TypeError):
        Barrier.wait = None
    with pytest.raises(AttributeError):
        Barrier(1).attribute = 1
    barrier = Barrier(1)
    ref = weakref.ref(barrier)
    del barrier
    assert ref() is None


def test_the_error_is_a_runtime_error():
    assert BrokenBarrierError.__bases__ == (RuntimeError,)
    assert BrokenBarrierError.__module__ == "sleeploop"


# ---- waiting -------------------------------------------------------------------------------------


def test_all_go_on_when_the_last_one_has_come():
    async def main():
        barrier, log = Barrier(3), []
        await gather(*(arrive(barrier, log, name, name) for name in (3, 1, 2)))
        return log

    # The last to come goes on in its own step, the others in the order in which they came.
    assert virtual(main()) == [(3, 2, 3.0), (1, 0, 3.0), (2, 1, 3.0)]


def test_the_last_one_does_not_switch_tasks():
    async def main():
        barrier, log = Barrier(2), []
        task = create_task(arrive(barrier, log, "first"))
        await settle()
        steps = current_loop().stats().steps
        assert await barrier.wait() == 1
        assert current_loop().stats().steps == steps
        assert (log, barrier.n_waiting) == ([], 0)
        await task
        assert log == [("first", 0, 0.0)]

    virtual(main())


def test_a_barrier_of_one_lets_everybody_through():
    async def main():
        barrier = Barrier(1)
        steps = current_loop().stats().steps
        for _ in range(3):
            assert await barrier.wait() == 0
        async with barrier as index:
            assert index == 0
        assert current_loop().stats().steps == steps

    virtual(main())


def test_the_next_round_begins_in_the_same_moment():
    """Without an interval in which those who come have to wait until the others have left."""

    async def main():
        barrier, log = Barrier(2), []
        task = create_task(arrive(barrier, log, "slow"))
        await settle()
        assert await barrier.wait() == 1
        other = create_task(arrive(barrier, log, "next"))
        assert log == []  # "slow" was let go, and has not left yet
        assert await barrier.wait() == 0
        assert log == [("slow", 0, 0.0), ("next", 1, 0.0)]
        await gather(task, other)

    virtual(main())


def test_rounds():
    async def runner(name, seconds):
        for n in range(3):
            await sleep(seconds)
            async with barrier as index:
                log.append((n, name, index, now()))

    async def main():
        await gather(runner("slow", 3), runner("fast", 1))

    barrier, log = Barrier(2), []
    virtual(main())
    assert log == [
        (n, name, index, 3.0 * (n + 1))
        for n in range(3)
        for name, index in (("slow", 1), ("fast", 0))
    ]


def test_more_tasks_than_parties_pass_in_rounds():
    async def main():
        barrier, log = Barrier(2), []
        tasks = [create_task(arrive(barrier, log, name)) for name in range(5)]
        await settle()
        assert barrier.n_waiting == 1
        assert [entry[:2] for entry in log] == [(1, 1), (3, 1), (0, 0), (2, 0)]
        tasks[4].cancel()

    virtual(main())


def test_the_block_waits_at_its_beginning_only():
    async def main():
        barrier = Barrier(2)

        async def enter():
            async with barrier as index:
                return index

        task = create_task(enter())
        await settle()
        with pytest.raises(LookupError):
            async with barrier:
                raise LookupError
        assert await task == 0
        assert barrier.n_waiting == 0

    virtual(main())


@pytest.mark.parametrize("parties", [300, 1000])
def test_large_indices(parties):
    async def main():
        barrier = Barrier(parties)
        indices = await gather(*(barrier.wait() for _ in range(parties)))
        assert indices == list(range(parties))

    virtual(main())


# ---- cancelled -----------------------------------------------------------------------------------


def test_one_who_is_cancelled_has_not_come():
    async def main():
        barrier, log = Barrier(3), []
        tasks = [create_task(arrive(barrier, log, name)) for name in "ab"]
        await settle()
        assert barrier.n_waiting == 2
        tasks[0].cancel()
        assert barrier.n_waiting == 1
        await ended(tasks[0])
        create_task(arrive(barrier, log, "c"))
        await settle()
        assert log == []
        create_task(arrive(barrier, log, "d"))
        await settle()
        # The order is that of those who went on together.
        assert sorted(entry[:2] for entry in log) == [("b", 0), ("c", 1), ("d", 2)]

    virtual(main())


def test_one_who_was_let_go_and_is_cancelled_then_goes_on():
    async def main():
        barrier, log = Barrier(2), []

        async def first():
            log.append(await barrier.wait())
            with pytest.raises(CancelledError):
                await barrier.wait()
            log.append("cancelled")

        task = create_task(first())
        await settle()
        await barrier.wait()
        task.cancel()
        await settle()
        assert log == [0, "cancelled"]
        assert barrier.n_waiting == 0

    virtual(main())


def test_in_a_cancelled_scope_the_last_one_does_not_come_either():
    async def main():
        barrier, log = Barrier(2), []
        task = create_task(arrive(barrier, log, "first"))
        await settle()
        with CancelScope() as scope:
            scope.cancel()
            await barrier.wait()
        assert scope.cancelled_caught
        await settle()
        assert (log, barrier.n_waiting) == ([], 1)
        assert await barrier.wait() == 1
        await task

    virtual(main())


def test_a_timeout():
    async def main():
        barrier = Barrier(2)
        with move_on_after(3) as scope:
            async with barrier:
                raise AssertionError("nobody came")
        assert scope.cancelled_caught
        assert (now(), barrier.n_waiting, barrier.broken) == (3.0, 0, False)

    virtual(main())


# ---- reset and abort -----------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["wait", "async with"])
def test_reset_has_those_fail_who_wait_and_begins_anew(how):
    async def main():
        barrier, log = Barrier(3, name="b"), []

        async def waiter():
            if how == "wait":
                await barrier.wait()
            else:
                async with barrier:
                    raise AssertionError("not let go")

        tasks = [create_task(waiter()) for _ in range(2)]
        await settle()
        assert barrier.reset() is None
        assert (barrier.n_waiting, barrier.broken) == (0, False)
        for task in tasks:
            error = await outcome(task)
            assert type(error) is BrokenBarrierError
            name = "Barrier.wait()" if how == "wait" else "async with Barrier()"
            assert str(error) == f"{name}: Barrier 'b' was reset"
        await gather(*(arrive(barrier, log, name) for name in range(3)))
        assert sorted(entry[:2] for entry in log) == [(0, 0), (1, 1), (2, 2)]

    virtual(main())


def test_abort_has_those_fail_who_wait_and_who_come():
    async def main():
        barrier = Barrier(2, name="b")
        message = "Barrier.wait(): Barrier 'b' is broken: abort() has been called"
        task = create_task(barrier.wait())
        await settle()
        assert barrier.abort() is None
        assert (barrier.n_waiting, barrier.broken) == (0, True)
        assert repr(barrier) == "<Barrier 'b' of 2 broken>"
        assert str(await outcome(task)) == message
        with pytest.raises(BrokenBarrierError) as info:
            await barrier.wait()
        assert str(info.value) == message
        with pytest.raises(BrokenBarrierError, match=r"async with Barrier\(\): Barrier 'b' is"):
            async with barrier:
                pass
        barrier.abort()
        barrier.reset()
        assert not barrier.broken
        task = create_task(barrier.wait())
        await settle()
        assert await barrier.wait() == 1
        assert await task == 0

    virtual(main())


def test_those_who_were_let_go_do_not_hear_of_an_abort():
    async def main():
        barrier, log = Barrier(2), []
        task = create_task(arrive(barrier, log, "first"))
        await settle()
        await barrier.wait()
        barrier.abort()
        await task
        assert log == [("first", 0, 0.0)]

    virtual(main())


@pytest.mark.parametrize("how", ["reset", "abort"])
def test_refused_and_cancelled_then(how):
    """What comes first, counts."""

    async def main():
        barrier, log = Barrier(2), []

        async def waiter():
            try:
                await barrier.wait()
            except BrokenBarrierError:
                log.append("broken")
            await checkpoint()

        task = create_task(waiter())
        await settle()
        getattr(barrier, how)()
        task.cancel()
        await ended(task)
        assert log == ["broken"]
        task = create_task(waiter())
        if how == "reset":
            await settle()
            task.cancel()
            barrier.reset()
            await ended(task)
            assert log == ["broken"]

    virtual(main())


def test_without_a_loop():
    barrier = Barrier(2)
    barrier.abort()
    assert barrier.broken
    barrier.reset()
    with pytest.raises(RuntimeError, match=r"^Barrier.wait\(\) needs a running loop"):
        barrier.wait().send(None)


# ---- told ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("forgetful")
def test_reports():
    async def main():
        barrier = Barrier(3, name="start")
        task = create_task(arrive(barrier, [], "a"), name="runner")
        await sleep(1)
        assert repr(barrier) == "<Barrier 'start' of 3, 1 waiting>"
        assert task.waiting_on is barrier
        assert (
            "Task 'runner' arrive: waiting for Barrier 'start' with 1 of 3 there, since 0.0 s"
            in format_tasks()
        )
        assert repr(barrier.wait()) == (
            "<Barrier.wait() of Barrier 'start' with 1 of 3 there, not awaited yet>"
        )
        await barrier.wait()

    with pytest.raises(DeadlockError, match=r"waiting for Barrier 'start' with 2 of 3 there"):
        virtual(main())


# ---- unusual uses --------------------------------------------------------------------------------


def test_a_wait_is_awaited_once():
    async def main():
        barrier = Barrier(1)
        waiting = barrier.wait()
        assert await waiting == 0
        with pytest.raises(RuntimeError, match="was awaited before"):
            await waiting

    virtual(main())


def test_it_is_broken_between_the_call_and_the_loop():
    class Between:
        def __await__(self):
            trap = barrier.wait().send(None)
            barrier.abort()
            with pytest.raises(BrokenBarrierError):
                yield trap
            log.append("broken")

    async def main():
        await Between()

    barrier, log = Barrier(2), []
    virtual(main())
    assert log == ["broken"]


def test_the_last_one_comes_between_the_call_and_the_loop():
    @types.coroutine
    def between():
        waiting = barrier.wait()
        trap = waiting.send(None)
        other = create_task(barrier.wait())
        others.append(other)
        yield sleep(0).send(None)
        yield trap
        try:
            waiting.send(None)
        except StopIteration as stop:
            return stop.value

    async def main():
        assert await between() == 1
        assert await others[0] == 0

    barrier, others = Barrier(2), []
    virtual(main())


@pytest.mark.parametrize("how", ["throw", "close"])
def test_a_parked_coroutine_is_torn_off(how):
    """Its task stands there all the same, until it is let go and ends."""

    async def main():
        barrier, log = Barrier(2), []
        coro = arrive(barrier, log, "victim")
        task = create_task(coro)
        await settle()
        if how == "throw":
            with pytest.raises(LookupError):
                coro.throw(LookupError())
        else:
            coro.close()
        assert barrier.n_waiting == 1
        assert await barrier.wait() == 1
        assert "cannot reuse" in str(await outcome(task))
        assert log == []

    virtual(main())


def test_in_another_thread():
    async def main():
        barrier, errors = Barrier(2, name="b"), []
        task = create_task(barrier.wait())
        await settle()

        def intrude():
            for call in (barrier.reset, barrier.abort, lambda: run(come(), speed=math.inf)):
                try:
                    call()
                except RuntimeError as error:
                    errors.append(str(error))

        async def come():
            await barrier.wait()

        thread = threading.Thread(target=intrude)
        thread.start()
        thread.join()
        assert len(errors) == 3
        assert all("is used by a loop that runs in another thread" in text for text in errors)
        assert (barrier.n_waiting, barrier.broken) == (1, False)
        await barrier.wait()
        await task

    virtual(main())


def test_two_loops_do_not_meet():
    barrier, log = Barrier(2), []
    loop = suspended(arrive(barrier, log, "first"))
    with pytest.raises(RuntimeError, match="belongs to another loop"):
        virtual(arrive(barrier, log, "other"))
    barrier.abort()  # while it does not run
    with pytest.raises(BrokenBarrierError):
        loop.run_until_complete()
    barrier.reset()
    for _ in range(2):
        virtual(meet(barrier))


async def meet(barrier: Barrier) -> None:
    await gather(barrier.wait(), barrier.wait())


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("how", ["dropped", "stopped", "closed"])
def test_a_loop_ends_while_tasks_wait(how, caplog):
    barrier, log = Barrier(3), []
    loop = suspended(arrive(barrier, log, "a"), arrive(barrier, log, "b"))
    if how == "stopped":
        _stop(loop)
    elif how == "closed":
        loop.close()
    del loop
    gc.collect()
    assert caplog.records == []
    assert (barrier.n_waiting, repr(barrier), log) == (0, "<Barrier of 3>", [])


def test_nothing_is_kept_of_a_wait():
    async def main():
        barrier = Barrier(2)
        ref = weakref.ref(barrier)
        task = create_task(barrier.wait())
        await settle()
        await barrier.wait()
        await task
        del task, barrier
        assert ref() is None

    gc.collect()
    gc.disable()
    try:
        virtual(main())
    finally:
        gc.enable()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["pass", "cancel", "abort"])
def test_a_crowd(how):
    async def main():
        barrier, counts = Barrier(CROWD + 1), [0, 0, 0]

        async def waiter(n):
            try:
                assert await barrier.wait() == n
                counts[0] += 1
            except CancelledError:
                counts[1] += 1
            except BrokenBarrierError:
                counts[2] += 1

        async with TaskGroup() as group:
            for n in range(CROWD):
                group.create_task(waiter(n))
            await settle()
            assert barrier.n_waiting == CROWD
            if how == "pass":
                assert await barrier.wait() == CROWD
            elif how == "cancel":
                group.cancel_scope.cancel()
            else:
                barrier.abort()
            assert barrier.n_waiting == 0
        return counts

    expected: dict[str, list[int]] = {
        "pass": [CROWD, 0, 0],
        "cancel": [0, CROWD, 0],
        "abort": [0, 0, CROWD],
    }
    assert virtual(main()) == expected[how]


# ---- a model -------------------------------------------------------------------------------------


class ModelBarrier:
    """The rules: who waits, in which order, and what comes of it."""

    def __init__(self, parties: int, note: Callable[..., None]) -> None:
        self.parties, self.note = parties, note
        self.waiting: list[int] = []
        self.broken = False

    def arrive(self, who: int) -> None:
        if self.broken:
            self.note(who, "broken")
        elif len(self.waiting) + 1 < self.parties:
            self.waiting.append(who)
        else:
            self.note(who, self.parties - 1)
            waiting, self.waiting = self.waiting, []
            for index, other in enumerate(waiting):
                self.note(other, index)

    def leave(self, who: int) -> None:
        self.note(who, "cancelled")
        self.waiting.remove(who)

    def refuse(self, *, broken: bool) -> None:
        self.broken = broken
        waiting, self.waiting = self.waiting, []
        for who in waiting:
            self.note(who, "broken")


def test_random_programs():
    each_seed(check_program, times=2)


def check_program(seed: int) -> None:
    """One operation after the other, each of which is over before the next begins."""

    async def one(who):
        try:
            index = await barrier.wait()
        except BrokenBarrierError:
            index = "broken"
        except CancelledError:
            log.append((who, "cancelled"))
            raise
        log.append((who, index))

    async def main():
        tasks: dict[int, Any] = {}
        random = current_loop().random("program")
        for who in range(60):
            what = random.random()
            if what < 0.6:
                tasks[who] = create_task(one(who))
                model.arrive(who)
            elif what < 0.85 and model.waiting:
                victims = random.sample(model.waiting, random.randint(1, len(model.waiting)))
                for victim in victims:
                    tasks[victim].cancel()
                    model.leave(victim)
            elif what < 0.93:
                barrier.reset()
                model.refuse(broken=False)
            elif what < 0.96:
                barrier.abort()
                model.refuse(broken=True)
            await settle()
            assert log == expected
            assert barrier.n_waiting == len(model.waiting)
            assert barrier.broken == model.broken
            there = [n for n, task in tasks.items() if task.waiting_on is barrier]
            assert there == sorted(model.waiting)
        for victim in model.waiting:
            tasks[victim].cancel()

    log: list[Any] = []
    expected: list[Any] = []
    barrier = Barrier(2 + seed % 5)
    model = ModelBarrier(barrier.parties, lambda *entry: expected.append(entry))
    run_with_seed(main(), seed)
    assert len(expected) > 5


def run_with_seed(coro: Any, seed: int) -> None:
    SleepingLoop(coro, speed=math.inf, seed=seed).run_until_complete()
