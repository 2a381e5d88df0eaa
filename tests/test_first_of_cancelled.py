"""first_of() and all_of(): cancelled, failed, interrupted; nothing gets lost."""

from datetime import timedelta

import pytest

from sleeploop import (
    CancelledError,
    CancelScope,
    Condition,
    Event,
    Interrupt,
    Lock,
    Queue,
    Resource,
    TaskGroup,
    all_of,
    checkpoint,
    create_task,
    current_loop,
    current_task,
    first_of,
    gather,
    move_on_after,
    sleep,
    sleep_forever,
    timeout,
)
from tests.helpers import Error, cleanup, fail, fail_at_the_end, give, now, virtual
from tests.waits import BOTH, held_lock, hold

# ---- the caller is cancelled ---------------------------------------------------------------------


@BOTH
def test_before_anything(function):
    async def main():
        lock, event = Lock(), Event()
        with CancelScope() as scope:
            scope.cancel()
            await function(lock.acquire(), event.wait(), give(1))
        assert scope.cancelled_caught
        assert not lock.locked()

    virtual(main())


def test_when_something_has_come_it_is_returned():
    async def main():
        lock, log = Lock(), []
        holder = create_task(hold_until(lock, log))
        await checkpoint()
        with CancelScope() as scope:
            log.append(scope)
            get = lock.acquire()
            done = await first_of(get, sleep(9))
            assert done == {get: True}
            assert lock.owner is current_task()
            with pytest.raises(CancelledError):
                await checkpoint()
            lock.release()
        await holder

    async def hold_until(lock, log):
        async with lock:
            await sleep(1)
        log[0].cancel()  # it has been granted right before

    virtual(main())


def test_all_have_come_when_the_caller_is_cancelled():
    async def main():
        events = [Event(), Event()]
        create_task(set_and_cancel(events))
        with scope:
            done = await all_of(*(event.wait() for event in events))
            assert len(done) == 2
            with pytest.raises(CancelledError):
                await checkpoint()

    async def set_and_cancel(events):
        await sleep(1)
        for event in events:
            event.set()
        scope.cancel()

    scope = CancelScope()
    virtual(main())


def test_not_quite_all_have_come():
    async def main():
        x, y = Lock(), Lock()
        holders = [create_task(hold(lock, [], "", n)) for n, lock in ((1, x), (2, y))]
        await checkpoint()
        with pytest.raises(TimeoutError):
            async with timeout(1.5):
                await all_of(x.acquire(), y.acquire())
        assert not x.locked()
        await gather(*holders)
        assert not y.locked()

    virtual(main())


def test_at_every_point():
    """Whenever it is cancelled: it has all, or none; in the end each lock is free."""

    async def main(when, log):
        locks = [await held_lock(str(i), i) for i in range(1, 4)]
        with move_on_after(when):
            done = await all_of(*(lock.acquire() for lock in locks))
            log.append(len(done))
            for lock in locks:
                lock.release()
        await sleep(4)
        assert not any(lock.locked() for lock in locks)

    results = []
    for when in (0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5):
        virtual(main(when, results))
    assert results == [3]  # at 3 the deadline comes first


# ---- failures ------------------------------------------------------------------------------------


def test_the_first_fails():
    async def main():
        boom = Error("boom")
        lock = await held_lock("x", 5)
        with pytest.raises(Error) as info:
            await first_of(lock.acquire(), fail(boom, 1), give(2, 2))
        assert info.value is boom
        return now()

    assert virtual(main()) == 1.0


def test_a_loser_fails_in_its_cleanup_and_what_the_first_got_is_given_back():
    async def main():
        boom = Error("boom")
        lock = await held_lock("x", 1)
        with pytest.raises(Error) as info:
            await first_of(lock.acquire(), fail_at_the_end(boom))
        assert info.value is boom
        assert not lock.locked()

    virtual(main())


@BOTH
def test_several_failures(function):
    async def main():
        with pytest.raises(ExceptionGroup) as info:
            await function(fail(Error("a"), 1), fail_at_the_end(Error("b")))
        assert info.value.message == f"2 errors in {function.__name__}()"
        assert [str(error) for error in info.value.exceptions] == ["a", "b"]
        assert info.value.__context__ is None

    virtual(main())


@BOTH
def test_a_group_that_is_raised_stays_one(function):
    async def main():
        group = ExceptionGroup("mine", [Error("a"), Error("b")])
        with pytest.raises(ExceptionGroup) as info:
            await function(fail(group), sleep(1))
        assert info.value is group

    virtual(main())


@BOTH
def test_a_task_that_is_cancelled_counts_as_failed(function):
    async def main():
        lock = await held_lock("x", 1)
        task = create_task(sleep_forever(), name="victim")
        create_task(cancel_later(task))
        with pytest.raises(CancelledError, match="victim") as info:
            await function(task, lock.acquire() if function is all_of else sleep(9))
        assert info.value.reason == "no more"
        assert not lock.locked()
        assert now() == 2
        await checkpoint()  # we have not been cancelled

    async def cancel_later(task):
        await sleep(2)
        task.cancel("no more")

    virtual(main())


@BOTH
def test_a_task_of_ours_that_somebody_cancels(function):
    async def main():
        task = create_task(wait(), name="waits")
        await checkpoint()
        await checkpoint()
        for helper in current_loop().tasks()[2:]:
            helper.cancel("meddling")
        with pytest.raises(CancelledError, match="meddling"):
            await task

    async def wait():
        with pytest.raises(CancelledError) as info:
            await function(Event().wait(), Event().wait())
        assert info.value.reason == "meddling"
        raise info.value

    virtual(main())


def test_one_of_a_race_that_somebody_cancels_has_lost():
    async def main():
        create_task(meddle())
        tea = sleep(2)
        assert list(await first_of(Event().wait(), tea)) == [tea]

    async def meddle():
        await sleep(1)
        (task,) = [t for t in current_loop().tasks() if isinstance(t.waiting_on, Event)]
        task.cancel()

    virtual(main())


@BOTH
def test_an_exit_ends_the_run_and_gives_back(function):
    async def main(lock):
        await function(fail(SystemExit(3), 1), lock.acquire() if function is all_of else sleep(9))

    lock = Lock()
    with pytest.raises(SystemExit):
        virtual(main(lock))
    assert not lock.locked()


def test_what_an_inner_one_has_got_is_given_back_as_well():
    async def main():
        x, y = Lock(), Lock()
        with pytest.raises(Error):
            await all_of(all_of(x.acquire(), y.acquire()), fail(Error(), 1))
        assert not x.locked()
        assert not y.locked()
        with pytest.raises(Error):
            await all_of(first_of(x.acquire(), y.acquire()), fail(Error(), 1))
        assert not x.locked()

    virtual(main())


# ---- at a Condition ------------------------------------------------------------------------------


def waiting_at(condition, kind):
    return condition.wait() if kind == "wait" else condition.wait_for(lambda: False)


@pytest.mark.parametrize("until", [1, 4], ids=["free", "held by another one"])
@pytest.mark.parametrize(
    ("function", "how"),
    [
        (first_of, "loses"),
        *((function, how) for function in (first_of, all_of) for how in ("is cancelled", "fails")),
    ],
)
@pytest.mark.parametrize("kind", ["wait", "wait_for"])
def test_who_has_waited_at_a_condition_has_its_lock_whatever_happened(function, kind, how, until):
    """As after the await of a wait() alone: so that the block around it can be left."""

    async def hold(condition):
        async with condition:  # which who waits has released
            assert now() == 0
            await sleep(until)

    async def wait(condition):
        async with condition:
            second = fail(Error(), 2) if how == "fails" else sleep(2)
            try:
                return await function(waiting_at(condition, kind), second)
            finally:
                assert condition.lock.owner is current_task()
                assert now() == max(until, 1 if how == "is cancelled" else 2)

    async def main():
        condition = Condition()
        create_task(hold(condition))
        with move_on_after(1 if how == "is cancelled" else None) as scope:
            if how == "fails":
                with pytest.raises(Error):
                    await wait(condition)
            else:
                assert list((await wait(condition)).values()) == [timedelta(seconds=2)]
        assert scope.cancelled_caught == (how == "is cancelled")
        assert not condition.locked()

    virtual(main())


@BOTH
def test_a_condition_is_waited_at_for_the_caller(function):
    async def main():
        condition = Condition()

        async def notify():
            async with condition:  # which the caller has released
                await sleep(1)
                condition.notify()
                await sleep(1)

        create_task(notify())
        async with condition:
            waiting = condition.wait()
            done = await function(waiting, *([sleep(60)] if function is first_of else [sleep(1)]))
            assert done[waiting] is True
            assert condition.lock.owner is current_task()
            return now()

    assert virtual(main()) == 2


def test_what_comes_before_a_condition_is_waited_at_leaves_the_lock_alone():
    async def main():
        condition, lock = Condition(), Lock()
        async with condition:
            since = repr(condition)
            await sleep(1)
            acquire = lock.acquire()
            assert await first_of(condition.wait(), acquire) == {acquire: True}
            assert repr(condition) == since

    virtual(main())


# ---- interrupted ---------------------------------------------------------------------------------


@BOTH
def test_an_interrupt_takes_the_caller_from_where_it_waits(function):
    async def waiter():
        wait = lock.acquire()
        with pytest.raises(Interrupt) as caught:
            await function(event.wait(), function(wait, cleanup(log, "inner", 2)))
        log.append((caught.value.cause, now(), lock.locked(), wait))
        await checkpoint()

    async def main():
        async with TaskGroup() as group:
            await lock.acquire()
            task = group.create_task(waiter())
            await sleep(1)
            task.interrupt("enough")
            assert task.interrupt("and more")
            lock.release()
            with pytest.raises(Interrupt):
                await task
        raise AssertionError("the second one comes next")

    lock, event, log = Lock(), Event(), []
    with pytest.raises(ExceptionGroup) as caught:
        virtual(main())
    assert [error.cause for error in caught.value.exceptions] == ["and more"]
    assert log[0] == ("inner", 3.0)
    assert log[1][:3] == ("enough", 3.0, False)


@BOTH
def test_an_interrupt_that_came_before_it_begins_to_wait_is_raised_there(function):
    async def waiter():
        await event.wait()
        with pytest.raises(Interrupt):
            await function(sleep(10), Event().wait())
        return now()

    async def main():
        task = create_task(waiter())
        await sleep(1)
        event.set()  # it has arrived, and the interrupt comes at the next await
        task.interrupt()
        return await task

    event = Event()
    assert virtual(main()) == 1.0


def test_what_has_been_got_before_an_interrupt_is_returned_or_given_back():
    async def first():
        done = await first_of(get, sleep(5))
        with pytest.raises(Interrupt):
            await checkpoint()
        return done

    async def both():
        with pytest.raises(Interrupt):
            await all_of(queue.get(), lock.acquire(), sleep(5))

    async def main():
        task = create_task(first())
        await sleep(1)
        queue.put_nowait("item")
        task.interrupt()
        assert await task == {get: "item"}
        queue.put_nowait("next")
        task = create_task(both())
        await sleep(1)
        assert lock.locked()
        assert queue.empty()
        task.interrupt()
        await task
        assert not lock.locked()
        assert queue.get_nowait() == "next"
        assert now() == 2

    queue, lock = Queue(), Lock()
    get = queue.get()
    virtual(main())


def test_who_is_preempted_while_it_waits_for_several_is_told_at_once():
    async def machine():
        async with resource.request(priority=1):
            try:
                await first_of(sleep(10), Event().wait())
            except Interrupt as interrupt:
                return now(), interrupt.cause.resource

    async def main():
        task = create_task(machine())
        await sleep(1)
        async with resource.request(priority=0, preempt=True):
            await sleep(3)
        return await task

    resource = Resource()
    assert virtual(main()) == (1.0, resource)
