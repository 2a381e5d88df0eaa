"""`Task.interrupt()`: raised once, in order, and never in place of what has arrived."""

import gc
import math
import random
import threading
import weakref
from datetime import timedelta

import pytest

import sleeploop
from sleeploop import (
    CancelledError,
    CancelScope,
    Event,
    Interrupt,
    Lock,
    SleepingLoop,
    TaskGroup,
    checkpoint,
    create_task,
    current_loop,
    current_task,
    every,
    gather,
    sleep,
    sleep_forever,
    timeout,
)
from tests.helpers import awaited_error, now
from tests.twins import each_seed


def run(coro, **options):
    return sleeploop.run(coro, speed=math.inf, **options)


async def note_interrupts(log, wait, rounds=1):
    for _ in range(rounds):
        try:
            result = await wait()
            log.append((now(), result))
        except Interrupt as interrupt:
            log.append((now(), interrupt.cause))


@pytest.mark.parametrize(
    "wait",
    [
        lambda: sleep(5),
        sleep_forever,
        lambda: sleeploop.sleep_until(7),
        lambda: Event().wait(),
        lambda: every(5, start=5).__anext__(),
        lambda: create_task(sleep(5), daemon=True),
    ],
    ids=["sleep", "forever", "until", "event", "tick", "join"],
)
def test_it_ends_every_kind_of_wait_at_once(wait):
    log = []

    async def main():
        task = create_task(note_interrupts(log, wait))
        await sleep(2)
        assert task.interrupt("now") is True
        assert log == []  # it has not run yet
        await task
        assert current_loop().next_wake_time() in (5.0, math.inf)  # the joined task's

    run(main())
    assert log == [(2.0, "now")]


def test_a_lock_that_was_waited_for_goes_to_the_next():
    async def main():
        lock, log = Lock(), []
        await lock.acquire()
        first = create_task(note_interrupts(log, lock.acquire))
        second = create_task(note_interrupts(log, lock.acquire))
        await sleep(1)
        first.interrupt("no more")
        await first
        lock.release()
        assert lock.owner is second
        await second
        return log

    assert run(main()) == [(1.0, "no more"), (1.0, True)]


def test_two_at_one_instant_both_arrive_in_order():
    log = []

    async def main():
        task = create_task(note_interrupts(log, sleep_forever, rounds=3))
        await sleep(1)
        task.interrupt(1)
        task.interrupt(2)
        task.interrupt(3)
        await task

    run(main())
    assert log == [(1.0, 1), (1.0, 2), (1.0, 3)]


def test_what_has_arrived_comes_first():
    log = []

    async def waiter(event):
        log.append(await event.wait())
        with pytest.raises(Interrupt) as caught:
            await sleep(5)
        log.append((now(), caught.value.cause))

    async def main():
        event = Event()
        task = create_task(waiter(event))
        await sleep(1)
        event.set()
        task.interrupt("late")
        await task

    run(main())
    assert log == [True, (1.0, "late")]


def test_a_sleep_that_is_over_has_been_slept():
    async def sleeper():
        slept = await sleep(1)
        with pytest.raises(Interrupt):
            await checkpoint()
        return slept.total_seconds(), now()

    async def main():
        task = create_task(sleeper())
        await sleep(1)  # both are over now, and the other one has not run yet
        task.interrupt()
        return await task

    assert run(main()) == (1.0, 1.0)


def test_it_is_raised_by_an_await_that_need_not_wait():
    async def waits(what):
        with pytest.raises(Interrupt):
            await what()
        return await what()  # once only

    async def main():
        event, lock, done = Event(), Lock(), create_task(sleep(0))
        event.set()
        await done
        results = []
        for what in (event.wait, lock.acquire, lambda: done, checkpoint):
            task = create_task(waits(what))
            task.interrupt()  # before it has started
            results.append(await task)
            if lock.locked():
                lock = Lock()
        return results[:2]

    assert run(main()) == [True, True]


def test_async_with_a_free_lock_raises_it_too():
    async def work(lock):
        with pytest.raises(Interrupt):
            async with lock:
                raise AssertionError("not entered")
        assert not lock.locked()
        async with lock:
            return "had it"

    async def main():
        task = create_task(work(Lock()))
        task.interrupt()
        return await task

    assert run(main()) == "had it"


def test_at_the_end_of_a_group_it_is_a_failure_of_the_block():
    """Its tasks are cancelled, and run their cleanup, before the group raises it."""

    async def slow():
        try:
            await sleep(5)
        except CancelledError as error:
            log.append((now(), error.reason))
            with CancelScope(shield=True):
                await sleep(1)
            raise

    async def host():
        with pytest.raises(ExceptionGroup) as caught:
            async with TaskGroup() as group:
                group.create_task(slow())
        log.append((now(), [error.cause for error in caught.value.exceptions]))
        try:
            await sleep(1)
        except Interrupt as interrupt:
            log.append((now(), interrupt.cause))

    async def main():
        task = create_task(host(), name="host")
        await sleep(1)
        task.interrupt("patience")
        task.interrupt("really")
        await task

    log = []
    run(main())
    assert log == [
        (1.0, "task 'host' failed with Interrupt('patience')"),
        (2.0, ["patience"]),
        (2.0, "really"),
    ]


def test_one_that_came_before_the_end_of_a_group_began_to_wait():
    async def host():
        await event.wait()
        with pytest.raises(ExceptionGroup) as caught:
            async with TaskGroup() as group:
                group.create_task(sleep(5))
        return now(), [error.cause for error in caught.value.exceptions]

    async def main():
        task = create_task(host())
        await sleep(1)
        event.set()
        task.interrupt("early")
        return await task

    event = Event()
    assert run(main()) == (1.0, ["early"])


def test_a_group_that_is_cancelled_already_or_empty_leaves_it_to_the_next_await():
    async def host(scope):
        async with TaskGroup() as group:
            scope.append(group.cancel_scope)
            group.create_task(shielded())
        try:
            await checkpoint()
        except Interrupt as interrupt:
            return now(), interrupt.cause

    async def shielded():
        with CancelScope(shield=True):
            await sleep(3)

    async def main():
        scope = []
        task = create_task(host(scope))
        await sleep(1)
        scope[0].cancel()
        task.interrupt("during")
        assert await task == (3.0, "during")

        task = create_task(host(scope))
        await sleep(3)
        await checkpoint()
        task.interrupt("too late for the group")  # its last task has ended, just now
        return await task

    assert run(main()) == (6.0, "too late for the group")


def test_a_failure_of_the_cleanup_stands_beside_it():
    async def fails():
        try:
            await sleep(5)
        finally:
            raise KeyError

    async def host():
        async with TaskGroup() as group:
            group.create_task(fails())

    async def main():
        task = create_task(host())
        await sleep(1)
        task.interrupt()
        with pytest.raises(ExceptionGroup) as caught:
            await task
        assert list(map(type, caught.value.exceptions)) == [Interrupt, KeyError]

    run(main())


def test_a_cause_whose_repr_interrupts_again():
    class Cause:
        def __repr__(self):
            if task.interrupt("again"):
                raise ValueError
            return ""

    async def host():
        with pytest.raises(ExceptionGroup) as caught:
            async with TaskGroup() as group:
                group.create_task(child())
        causes = [error.cause for error in caught.value.exceptions]
        with pytest.raises(Interrupt) as caught:
            await checkpoint()
        return [*causes, caught.value.cause]

    async def child():
        error = await awaited_error(sleep(5))
        assert "task 'Task-2' failed with" in str(error)

    async def main():
        nonlocal task
        task = create_task(host())
        await checkpoint()
        await checkpoint()
        task.interrupt(cause)
        return await task

    task, cause = None, Cause()
    assert run(main()) == [cause, "again"]


def test_it_waits_for_start():
    async def starts(*, started):
        await sleep(2)
        started()

    async def host():
        async with TaskGroup() as group:
            await group.start(starts)
            try:
                await sleep(1)
            except Interrupt as interrupt:
                return now(), interrupt.cause

    async def main():
        task = create_task(host())
        await sleep(1)
        task.interrupt("patience")
        return await task

    assert run(main()) == (2.0, "patience")


def test_a_cancellation_comes_first_and_the_interrupt_after_it():
    log = []

    async def work():
        with CancelScope() as scope:
            scope.cancel()
            for _ in range(2):
                try:
                    await sleep(1)
                except CancelledError:
                    log.append("cancelled")
        with pytest.raises(Interrupt):
            await sleep(1)
        log.append("interrupted")

    async def main():
        task = create_task(work())
        task.interrupt()
        await task

    run(main())
    assert log == ["cancelled", "cancelled", "interrupted"]


def test_an_interrupt_on_its_way_is_not_replaced_by_a_cancellation():
    log = []

    async def work():
        try:
            await sleep(5)
        except Interrupt:
            log.append("interrupted")
        await sleep(5)

    async def main():
        task = create_task(work())
        await sleep(1)
        task.interrupt()
        task.cancel()
        with pytest.raises(CancelledError):
            await task

    run(main())
    assert log == ["interrupted"]


def test_uncaught_it_is_a_failure_like_any_other():
    async def main():
        task = create_task(sleep(5))
        await sleep(1)
        task.interrupt("why")
        with pytest.raises(Interrupt) as caught:
            await task
        return caught.value

    error = run(main())
    assert error.cause == "why"
    assert repr(error) == "Interrupt('why')"


def test_the_cause_of_one_made_by_hand():
    assert Interrupt("a").cause == "a"
    assert Interrupt().cause is None
    with pytest.raises(AttributeError):
        Interrupt().cause = 5

    class Special(Interrupt):
        pass

    assert Special(1, 2).cause == 1


def test_wrong_use():
    async def main():
        with pytest.raises(RuntimeError, match=r"a task cannot interrupt itself"):
            current_task().interrupt()
        with pytest.raises(TypeError, match=r"interrupt\(\) takes 1 positional argument but 2"):
            current_task().interrupt(1, 2)
        await checkpoint()  # nothing comes of it
        done = create_task(sleep(0))
        await done
        assert done.interrupt("late") is False

        task, errors = create_task(sleep(1)), []

        def other_thread():
            try:
                task.interrupt()
            except RuntimeError as error:
                errors.append(str(error))

        thread = threading.Thread(target=other_thread)
        thread.start()
        thread.join()
        await task
        return errors

    [error] = run(main())
    assert error.startswith("interrupt(): this loop is running in another thread")


def test_from_outside_of_a_suspended_loop():
    log = []
    loop = SleepingLoop(note_interrupts(log, lambda: sleep(5)), speed=math.inf)
    loop.run_until(2)
    [task] = loop.tasks()
    task.interrupt("outside")
    loop.run_until_complete()
    assert log == [(2.0, "outside")]


def test_those_that_never_came_go_with_the_task():
    class Cause:
        pass

    causes = [Cause(), Cause()]
    refs = [weakref.ref(cause) for cause in causes]

    async def main():
        task = create_task(checkpoint())
        await checkpoint()
        for cause in causes:
            assert task.interrupt(cause)  # it has been woken, and ends without another await
        causes.clear()
        del cause
        await task
        return [ref() for ref in refs]

    assert run(main()) == [None, None]
    gc.collect()


def test_a_timeout_around_it_is_no_business_of_it():
    async def work():
        async with timeout(5):
            await sleep_forever()

    async def main():
        task = create_task(work())
        await sleep(1)
        task.interrupt("first")
        with pytest.raises(Interrupt):
            await task

    run(main())


def test_random_interrupts_arrive_once_each_and_in_order():
    each_seed(check_interrupts, times=2)


def check_interrupts(seed):
    """However many there are, and whatever the task is doing: what is sent arrives, in order."""
    rng = random.Random(seed)
    sent, got = [], []

    async def worker(event):
        while len(got) < 20:
            try:
                kind = rng.randrange(5)
                if kind == 0:
                    await sleep(rng.random())
                elif kind == 1:
                    await event.wait()
                elif kind == 2:
                    await checkpoint()
                elif kind == 3:
                    with CancelScope(deadline=now() + rng.random()):
                        await sleep(rng.random())
                else:
                    async with TaskGroup() as group:
                        group.create_task(sleep(rng.random()))
            except* Interrupt as group:  # also one that comes alone
                got.extend(interrupt.cause for interrupt in group.exceptions)

    async def main():
        event = Event()
        task = create_task(worker(event))
        while len(sent) < 20:
            for _ in range(rng.randrange(4)):
                sent.append(len(sent))
                assert task.interrupt(sent[-1])
            if rng.random() < 0.3:
                event.set()
                event.clear()
            await (checkpoint() if rng.random() < 0.5 else sleep(rng.random()))
        async with timeout(1000):
            while not task.done():
                event.set()
                await sleep(1)
        assert got == sent[: len(got)]
        assert len(got) >= 20

    run(main(), shuffle=seed if seed % 2 else None)


@pytest.mark.parametrize("tamper", [dict.clear, lambda d: d.update({n: [5] for n in d})])
def test_interrupts_that_somebody_found_by_the_collector_and_changed(tamper):
    async def main():
        task = create_task(sleep(1))
        task.interrupt("before it has started")
        for found in gc.get_referents(current_loop()):
            if type(found) is dict and any(isinstance(v, list) for v in found.values()):
                tamper(found)
        with pytest.raises(SystemError, match="the task's interrupts are gone"):
            await task

    run(main())


def test_a_hash_among_them_that_empties_them():
    class Evil:
        left = 0

        def __init__(self, number):
            self.number = number

        def __hash__(self):
            return self.number

        def __eq__(self, other):
            self.left -= 1
            if self.left == 0:
                pending.clear()
            return False

    async def main():
        nonlocal pending
        other, task = create_task(sleep(1)), create_task(sleep(1))
        other.interrupt()  # it has not started: it has to wait
        pending = next(d for d in gc.get_referents(current_loop()) if type(d) is dict and d)
        pending[evil := Evil(next(iter(pending)) + 1)] = None
        task.interrupt("in time")
        evil.left = 2  # it is looked for when it is taken, and when it is deleted
        results = await gather(other, task, return_exceptions=True)
        assert all(isinstance(result, (Interrupt, SystemError)) for result in results)

    pending = {}
    run(main())


def test_a_hash_among_them_that_raises():
    class Evil:
        is_bad = False

        def __init__(self, number):
            self.number = number

        def __hash__(self):
            return self.number

        def __eq__(self, other):
            if self.is_bad:
                raise ArithmeticError
            return False

    async def main():
        other, task = create_task(sleep(1)), create_task(sleep(1))
        other.interrupt()
        pending = next(d for d in gc.get_referents(current_loop()) if type(d) is dict and d)
        pending[evil := Evil(next(iter(pending)) + 1)] = None
        evil.is_bad = True
        with pytest.raises(ArithmeticError):
            task.interrupt()
        evil.is_bad = False
        results = await gather(other, task, return_exceptions=True)
        assert isinstance(results[0], Interrupt)
        assert results[1] == timedelta(seconds=1)

    run(main())
