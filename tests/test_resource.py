"""Resource and Request: numbered slots, priorities, first come first served, no barging."""

import asyncio
import contextlib
import gc
import math
import threading
import weakref

import pytest

from sleeploop import (
    CancelScope,
    DeadlockError,
    Event,
    Request,
    RequestCancelled,
    Resource,
    SleepingLoop,
    Task,
    TaskGroup,
    checkpoint,
    create_task,
    current_loop,
    current_task,
    format_tasks,
    move_on_after,
    sleep,
    sleep_forever,
)
from tests.helpers import CROWD, awaited_error, now, outcome, references, virtual


async def use(resource, name, log, seconds=1.0, priority=0):
    async with resource.request(priority) as slot:
        log.append((now(), name, slot.number))
        await sleep(seconds)


# ---- slots ---------------------------------------------------------------------------------------


def test_a_block_has_a_slot_for_its_length():
    async def main():
        resource = Resource(2)
        async with resource.request() as slot:
            assert isinstance(slot, Request)
            assert (slot.number, slot.since, slot.task) == (0, 0.0, current_task())
            assert (resource.in_use, resource.users, resource.queue) == (1, (slot,), ())
            await sleep(2)
            async with resource.request() as other:
                assert (other.number, other.since) == (1, 2.0)
                assert resource.users == (slot, other)
        assert (resource.in_use, resource.users) == (0, ())
        assert (slot.number, slot.since, slot.task, slot.preempted) == (None, None, None, False)
        assert slot.resource is resource

    virtual(main())


def test_what_need_not_wait_does_not_switch_tasks():
    async def main():
        steps = current_loop().stats().steps
        resource = Resource()
        async with resource.request():
            pass
        (await resource.request()).release()
        assert current_loop().stats().steps == steps

    virtual(main())


def test_an_await_gives_the_request_itself():
    async def main():
        request = Resource().request(priority=2.5)
        assert (request.priority, request.number, request.task) == (2.5, None, None)
        assert await request is request
        assert request.number == 0
        assert request.release() is None

    virtual(main())


def test_who_comes_gets_the_lowest_free_slot():
    async def main():
        resource = Resource(100)
        slots = [await resource.request() for _ in range(100)]
        assert [slot.number for slot in slots] == list(range(100))
        for n in (70, 3, 50, 99, 0, 4):
            slots[n].release()
        assert [user.number for user in resource.users] == sorted(
            set(range(100)) - {70, 3, 50, 99, 0, 4}
        )
        numbers = [(await resource.request()).number for _ in range(6)]
        assert numbers == [0, 3, 4, 50, 70, 99]

    virtual(main())


def test_first_come_first_served_with_the_slot_that_is_given_back():
    async def main():
        resource = Resource(2)
        async with TaskGroup() as group:
            for n, seconds in enumerate([5, 3, 1, 1, 2, 9]):
                group.create_task(use(resource, n, log, seconds))

    log = []
    virtual(main())
    assert log == [(0, 0, 0), (0, 1, 1), (3, 2, 1), (4, 3, 1), (5, 4, 0), (5, 5, 1)]


def test_the_lower_the_number_the_sooner():
    async def main():
        resource = Resource()
        order = [0, 3, -1, 0.5, math.inf, -math.inf, 3, -0.0, 10**22, -1.5, 5e-324, 0]
        async with TaskGroup() as group:
            for n, priority in enumerate(order):
                group.create_task(use(resource, n, log, 1, priority))
            await sleep(0.5)
            queue = [request.priority for request in resource.queue]
            assert queue == sorted(order[1:])
        return order

    log = []
    order = virtual(main())
    served = [n for _, n, _ in log[1:]]
    assert served == sorted(range(1, len(order)), key=lambda n: order[n])  # stable


@pytest.mark.usefixtures("forgetful")
def test_a_priority_is_told_as_it_was_given():
    class Level(int):
        pass

    request = Resource().request
    for given, told in [
        (3, 3),
        (3.0, 3.0),
        (True, 1),
        (Level(2), 2),
        (10**22, 10**22),
        (-0.0, 0.0),
    ]:
        priority = request(given).priority
        assert (priority, type(priority)) == (told, float if type(given) is float else int)


def test_no_barging_however_urgent():
    async def urgent(resource):
        async with resource.request(-5):
            log.append("urgent")

    async def main():
        resource = Resource()
        slot = await resource.request()
        waiting = create_task(use(resource, "waiting", log, 0))
        await sleep(1)
        slot.release()
        # It is given to the other task, although that has not run since.
        assert [user.task for user in resource.users] == [waiting]
        await urgent(resource)

    log = []
    virtual(main())
    assert log == [(1.0, "waiting", 0), "urgent"]


def test_a_slot_may_be_handed_to_another_task_and_released_there():
    async def worker(slot):
        await sleep(3)
        slot.release()

    async def main():
        resource = Resource()
        slot = await resource.request()
        create_task(worker(slot))
        async with resource.request():
            return now()

    assert virtual(main()) == 3.0


def test_a_slot_stays_in_use_when_its_task_has_ended():
    async def taker(resource):
        await resource.request()

    async def main():
        resource = Resource()
        task = create_task(taker(resource))
        await task
        gc.collect()
        (user,) = resource.users
        assert (resource.in_use, user.task) == (1, task)
        user.release()
        assert resource.in_use == 0

    virtual(main())


def test_a_request_may_be_run_as_a_task():
    async def main():
        resource = Resource()
        slot = await resource.request()
        task = create_task(resource.request())
        await sleep(1)
        assert task.waiting_on is resource
        slot.release()
        got = await task
        assert (got.number, got.task) == (0, task)

    virtual(main())


def test_releasing_early_inside_of_the_block():
    async def main():
        resource = Resource()
        async with resource.request() as slot:
            slot.release()
            async with resource.request() as other:
                assert other.number == 0
            assert resource.in_use == 0

    virtual(main())


def test_a_block_that_fails_gives_its_slot_back():
    async def main():
        resource = Resource()
        with pytest.raises(ZeroDivisionError):
            async with resource.request():
                1 / 0
        assert resource.in_use == 0

    virtual(main())


def test_exit_stack():
    async def main():
        resource = Resource(2)
        async with contextlib.AsyncExitStack() as stack:
            slots = [await stack.enter_async_context(resource.request()) for _ in range(2)]
            assert resource.users == tuple(slots)
        assert resource.in_use == 0

    virtual(main())


# ---- cancel() ------------------------------------------------------------------------------------


def test_a_request_that_waits_can_be_withdrawn():
    async def main():
        resource = Resource(name="desk")
        slot = await resource.request()
        request = resource.request()
        task = create_task(outcome(request))
        await sleep(1)
        assert resource.queue == (request,)
        assert request.cancel() is True
        assert (resource.queue, request.task, request.cancel()) == ((), None, False)
        error = await task
        assert type(error) is RequestCancelled
        assert str(error) == (
            "this request for Resource 'desk' (1 of 1 in use by task 'Task-1') has been withdrawn "
            "by cancel()"
        )
        assert now() == 1.0
        assert slot.cancel() is True
        assert (resource.in_use, slot.cancel()) == (0, False)
        with pytest.raises(RuntimeError, match="it has no slot, it is cancelled"):
            request.release()

    virtual(main())


def test_it_can_be_withdrawn_before_it_is_awaited():
    async def main():
        resource = Resource()
        request = resource.request()
        assert (request.cancel(), request.cancel()) == (True, False)
        with pytest.raises(RequestCancelled):
            await request
        assert (resource.in_use, resource.queue) == (0, ())

    virtual(main())


@pytest.mark.parametrize("method", ["cancel", "release"])
def test_given_and_withdrawn_before_its_task_has_run(method):
    async def main():
        resource = Resource()
        slot = await resource.request()
        request, behind = resource.request(), resource.request()
        tasks = [create_task(outcome(request)), create_task(outcome(behind))]
        await sleep(1)
        slot.release()
        assert request.number == 0
        getattr(request, method)()
        assert (request.number, behind.number) == (None, 0)
        assert isinstance(await tasks[0], RequestCancelled)
        assert await tasks[1] is behind
        assert resource.users == (behind,)

    virtual(main())


def test_withdrawn_between_the_await_and_the_wait():
    class Meddling:
        """Withdraws the request that it awaits, while that is under way."""

        def __init__(self, request):
            self.request = request

        def __await__(self):
            waiting = self.request.__await__()
            trap = waiting.send(None)
            self.request.cancel()
            yield trap
            return waiting.send(None)

    async def main():
        resource = Resource()
        await resource.request()
        request = resource.request()
        with pytest.raises(RequestCancelled):
            await Meddling(request)
        assert (resource.in_use, resource.queue) == (1, ())

    virtual(main())


# ---- the task is cancelled -----------------------------------------------------------------------


def test_who_is_cancelled_while_it_waits_leaves_the_queue():
    async def main():
        resource = Resource()
        async with TaskGroup() as group:
            group.create_task(use(resource, "a", log, 10))
            await checkpoint()
            requests = [resource.request() for _ in range(3)]
            tasks = [group.create_task(outcome(request)) for request in requests]
            await sleep(1)
            tasks[1].cancel()
            assert resource.queue == (requests[0], requests[2])
            assert "its await has ended without a slot" in repr(requests[1])
            await awaited_error(tasks[1])
            assert now() == 1.0
            for request in requests[::2]:
                request.cancel()

    log = []
    virtual(main())


def test_patience():
    async def main():
        resource = Resource()
        slot = await resource.request()
        with move_on_after(2) as scope:
            async with resource.request():
                raise AssertionError
        assert scope.cancelled_caught
        assert (now(), resource.queue, resource.in_use) == (2.0, (), 1)
        slot.release()

    virtual(main())


def test_given_and_cancelled_in_the_same_moment_it_has_the_slot():
    async def main():
        resource = Resource()
        slot = await resource.request()
        scope = CancelScope()

        async def waiting():
            with scope:
                request = await resource.request()
                log.append(request.number)
                try:
                    await checkpoint()
                finally:
                    request.release()

        task = create_task(waiting())
        await sleep(1)
        slot.release()
        scope.cancel()
        await task
        assert (log, resource.in_use) == ([0], 0)

    log = []
    virtual(main())


def test_a_cancelled_task_gets_no_slot_even_if_one_is_free():
    async def main():
        resource = Resource()
        with CancelScope() as scope:
            scope.cancel()
            async with resource.request():
                raise AssertionError
        assert resource.in_use == 0

    virtual(main())


def test_given_and_its_coroutine_closed_before_it_has_run():
    async def main():
        resource = Resource()
        slot = await resource.request()

        async def waiting():
            async with resource.request():
                raise AssertionError

        coro = waiting()
        task = create_task(coro)
        last = create_task(use(resource, "last", log))
        await sleep(1)
        slot.release()
        coro.close()
        await outcome(task)
        await last
        assert resource.in_use == 0

    log = []
    virtual(main())
    assert log == [(1.0, "last", 0)]


def test_closed_by_hand_while_it_waits():
    async def main():
        resource = Resource()
        slot = await resource.request()

        async def waiting():
            await resource.request()

        coro = waiting()
        task = create_task(coro)
        await sleep(1)
        coro.close()
        slot.release()  # to the request whose coroutine is no more
        await outcome(task)
        assert resource.in_use == 0

    virtual(main())


def test_an_exception_thrown_by_hand_gives_back_what_was_given():
    async def main():
        resource = Resource()
        slot = await resource.request()
        request = resource.request()

        class Throwing:
            def __await__(self):
                waiting = request.__await__()
                yield waiting.send(None)
                assert request.number == 0
                waiting.throw(ValueError("by hand"))

        async def waiting():
            await Throwing()

        task = create_task(waiting())
        await sleep(1)
        slot.release()
        assert repr(await outcome(task)) == repr(ValueError("by hand"))
        assert (resource.in_use, request.number) == (0, None)

    virtual(main())


# ---- misuse --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("capacity", "error", "message"),
    [
        (0, ValueError, "capacity must be 1 or more, not 0"),
        (-3, ValueError, "capacity must be 1 or more, not -3"),
        (-(10**30), ValueError, "capacity must be 1 or more, not -1000"),
        (2**31, ValueError, r"capacity must be less than 2\*\*31, not 2147483648"),
        (10**30, ValueError, r"capacity must be less than 2\*\*63, not 1000"),
        (1.5, TypeError, "capacity must be an int, not 1.5"),
        ("2", TypeError, "capacity must be an int, not '2'"),
        (None, TypeError, "capacity must be an int, not None"),
    ],
)
def test_a_wrong_capacity(capacity, error, message):
    with pytest.raises(error, match=message):
        Resource(capacity)


def test_a_capacity_need_not_be_an_exact_int():
    class Two:
        def __index__(self):
            return 2

    assert Resource(Two()).capacity == 2
    assert Resource(2**31 - 1).capacity == 2**31 - 1


@pytest.mark.usefixtures("forgetful")
def test_wrong_arguments():
    with pytest.raises(TypeError, match="name must be a str, not 5"):
        Resource(name=5)
    with pytest.raises(TypeError):
        Resource(1, "name")
    resource = Resource()
    for wrong, error, message in [
        (math.nan, ValueError, "priority must be a number, not nan"),
        (10**400, OverflowError, "too large: it must fit in a float"),
        ("1", TypeError, "priority must be an int or a float, not '1'"),
        (None, TypeError, "priority must be an int or a float, not None"),
    ]:
        with pytest.raises(error, match=message):
            resource.request(wrong)
    with pytest.raises(TypeError, match="takes 2 positional arguments but 3 were given"):
        resource.request(0, True, 1)
    with pytest.raises(TypeError, match="unexpected keyword argument 'wrong'"):
        resource.request(wrong=1)
    with pytest.raises(TypeError):
        Request()
    with pytest.raises(TypeError, match="takes 3 arguments, not 0"):
        resource.request().__aexit__()
    with pytest.raises(RuntimeError, match=r"Resource.stats.*<Resource .*make it with stats=True"):
        resource.stats()


def test_without_a_loop():
    request = Resource().request()
    with pytest.raises(RuntimeError, match=r"Resource.request\(\) needs a running loop"):
        request.send(None)
    with pytest.raises(RuntimeError, match="it has no slot, it is not awaited yet"):
        request.release()


def test_awaited_twice():
    async def main():
        request = Resource(5).request()
        await request
        with pytest.raises(RuntimeError, match="was awaited before: make a new one"):
            await request
        with pytest.raises(RuntimeError, match="was awaited before: make a new one"):
            async with request:
                raise AssertionError
        assert request.number == 0
        request.release()
        with pytest.raises(RuntimeError, match="it has no slot, it is released"):
            request.release()

    virtual(main())


def test_awaited_by_two_tasks():
    async def main():
        resource = Resource()
        slot = await resource.request()
        request = resource.request()
        first, second = create_task(outcome(request)), create_task(outcome(request))
        await sleep(1)
        assert resource.queue == (request,)
        assert "was awaited before" in str(await second)
        slot.release()
        assert await first is request

    virtual(main())


def test_yielded_by_hand():
    async def main():
        resource = Resource()
        with pytest.raises(TypeError, match="'await' it, once and on this loop"):
            await YieldIt(resource.request())
        assert (resource.in_use, resource.queue) == (0, ())

    class YieldIt:
        def __init__(self, obj):
            self.obj = obj

        def __await__(self):
            yield self.obj

    virtual(main())


def test_a_resource_belongs_to_one_loop_while_it_is_in_use():
    resource = Resource(2)
    loops = [SleepingLoop(speed=math.inf) for _ in range(2)]
    slots = []

    async def take():
        slots.append(await resource.request())

    task = loops[0].create_task(take())
    loops[0].run_until(task)
    with pytest.raises(RuntimeError, match="belongs to another loop"):
        loops[1].run_until(loops[1].create_task(take()))
    slots[0].release()
    loops[1].run_until(loops[1].create_task(take()))
    assert [slot.number for slot in slots] == [None, 0]
    slots[1].release()
    for loop in loops:
        loop.run_until_complete()


def test_in_asyncio_it_says_what_is_missing():
    async def main():
        async with Resource().request():
            pass

    with pytest.raises(RuntimeError, match="needs a running loop"):
        asyncio.run(main())


def test_another_thread_is_refused():
    def meddle(slot, waiting, resource):
        for method in (slot.release, slot.cancel, waiting.cancel, resource.stats):
            try:
                method()
            except RuntimeError as error:
                errors.append(error)

    async def main():
        resource = Resource(stats=True)
        slot, waiting = resource.request(), resource.request()
        await slot
        task = create_task(outcome(waiting))
        await checkpoint()
        thread = threading.Thread(target=meddle, args=(slot, waiting, resource))
        thread.start()
        thread.join()
        assert (resource.users, resource.queue) == ((slot,), (waiting,))
        waiting.cancel()
        await task

    errors = []
    virtual(main())
    assert len(errors) == 4
    assert all("runs in another thread" in str(error) for error in errors)


# ---- reports -------------------------------------------------------------------------------------


def test_reprs():
    async def main():
        resource = Resource(2, name="desk")
        assert repr(resource) == "<Resource 'desk' (0 of 2 in use)>"
        assert repr(Resource()) == "<Resource (0 of 1 in use)>"
        requests = [resource.request(n) for n in range(3)]
        assert repr(requests[0]) == "<Request of Resource 'desk', priority 0, not awaited yet>"
        await requests[0]
        assert repr(requests[0]) == (
            "<Request of Resource 'desk', priority 0, slot 0 of task 'Task-1' since 0.0 s>"
        )
        await requests[1]
        task = create_task(outcome(requests[2]))
        await sleep(1)
        assert repr(resource) == (
            "<Resource 'desk' (2 of 2 in use by task 'Task-1', task 'Task-1'), 1 waiting>"
        )
        assert repr(requests[2]) == "<Request of Resource 'desk', priority 2, waiting>"
        assert (
            "waiting for Resource 'desk' (2 of 2 in use by task 'Task-1', task 'Task-1'), since"
            in format_tasks()
        )
        assert (task.waiting_on, task.waiting_since) == (resource, 0.0)
        requests[0].release()
        assert repr(requests[0]) == "<Request of Resource 'desk', priority 0, released>"
        await task

    virtual(main())


def test_who_waits_for_itself_is_a_deadlock():
    async def main():
        resource = Resource(2, name="desk")
        async with resource.request(), resource.request(), resource.request():
            raise AssertionError

    with pytest.raises(DeadlockError, match=r"waiting for Resource 'desk' \(2 of 2 in use by"):
        virtual(main())


def test_a_trace_tells_whose_slot_was_waited_for():
    async def main():
        resource = Resource()
        async with TaskGroup() as group:
            group.create_task(use(resource, "a", [], 2), name="a")
            group.create_task(use(resource, "b", [], 1), name="b")

    loop = SleepingLoop(main(), speed=math.inf, trace=True)
    loop.run_until_complete()
    blocked = [event for event in loop.trace.events if event.kind == "block" and event.task == "b"]
    (holder,) = {event.number for event in loop.trace.events if event.task == "a"}
    assert [event.other for event in blocked] == [holder]


# ---- statistics ----------------------------------------------------------------------------------


def test_statistics():
    async def main():
        await sleep(10)
        resource = Resource(2, stats=True)
        assert resource.stats() == ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), (0, 0, 0.0, 0.0))
        async with TaskGroup() as group:
            for n in range(4):
                group.create_task(use(resource, n, [], 3))
            await checkpoint()
            with move_on_after(1):
                await resource.request()
            stats = resource.stats()
            assert (stats.in_use.now, stats.in_use.max, stats.in_use.mean) == (2.0, 2.0, 2.0)
            assert (stats.queue.now, stats.queue.max, stats.queue.mean) == (2.0, 3.0, 3.0)
            assert stats.waits == (2, 0, 0.0, 0.0)
        await sleep(4)
        stats = resource.stats()
        assert stats.in_use == (0.0, 2.0, 1.2)  # of 10 s: 6 with 2
        assert stats.queue == (0.0, 3.0, 0.7)  # 1 s with 3, 2 s with 2
        assert stats.waits == (4, 2, 1.5, 3.0)

    virtual(main())


# ---- collection ----------------------------------------------------------------------------------


def test_a_released_request_is_let_go_at_once():
    async def main():
        resource = Resource()
        request = resource.request()
        await request
        count = references(resource)
        request.release()
        before = references(current_task())
        del request
        await checkpoint()
        assert references(resource) == count - 1
        async with resource.request():
            pass
        await checkpoint()
        after = references(current_task())
        assert after == before
        assert references(resource) == count - 1

    gc.disable()
    try:
        virtual(main())
    finally:
        gc.enable()


def test_a_cycle_through_a_slot_is_collected():
    async def main():
        resource = Resource()
        await resource.request()
        return weakref.ref(resource)

    ref = virtual(main())
    gc.collect()
    assert ref() is None


def test_a_closed_loop_gives_all_slots_back():
    resource = Resource(2)
    loop = SleepingLoop(speed=math.inf)
    for n in range(5):
        loop.create_task(use(resource, n, [], 100, n))
    loop.run_until(1)
    assert (resource.in_use, len(resource.queue)) == (2, 3)
    loop.close()
    assert (resource.in_use, resource.queue) == (0, ())


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_dropped_loop_and_its_resource():
    resource = Resource()
    loop = SleepingLoop(speed=math.inf)
    for n in range(5):
        loop.create_task(use(resource, n, [], 100, n))
    loop.run_until(1)
    refs = weakref.ref(loop), weakref.ref(resource)
    del loop, resource
    gc.collect()
    gc.collect()
    assert [ref() for ref in refs] == [None, None]


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("survives", [False, True], ids=["", "the resource survives"])
@pytest.mark.parametrize("waiting", [1, 2, 5, 30])
def test_a_loop_is_dropped_when_a_slot_was_given_and_its_task_has_not_run(waiting, survives):
    resource = Resource(2, stats=True)
    loop = SleepingLoop(speed=math.inf)
    for n in range(2 + waiting):
        loop.create_task(use(resource, n, [], 100, n % 3))
    loop.run_until(1)
    for user in resource.users:
        user.release()
        del user
    assert (resource.in_use, len(resource.queue)) == (min(waiting, 2), max(waiting - 2, 0))
    refs = [weakref.ref(loop), weakref.ref(resource)]
    kept = resource if survives else None
    del loop, resource
    for _ in range(3):
        gc.collect()
    if kept is None:
        assert [ref() for ref in refs] == [None, None]
    else:
        assert len(kept.users) == kept.in_use


def test_closed_while_it_waits_and_withdrawn():
    async def main():
        resource = Resource()
        slot = await resource.request()
        request = resource.request()

        async def waiting():
            await request

        coro = waiting()
        task = create_task(coro)
        await sleep(1)
        coro.close()
        assert resource.queue == (request,)
        assert "waiting" in repr(request)
        assert request.cancel() is True
        assert (resource.queue, request.cancel()) == ((), False)
        await outcome(task)
        slot.release()
        assert resource.in_use == 0

    virtual(main())


def test_a_task_that_dies_with_the_release_may_use_the_resource():
    class Meddler:
        def __del__(self):
            log.append((resource.in_use, len(resource.queue)))
            resource.request().cancel()

    async def taker():
        await resource.request()
        return Meddler()

    async def main():
        waiting = create_task(use(resource, "next", log))
        del waiting
        task = create_task(taker())
        await task
        del task
        await sleep(5)
        (user,) = resource.users
        create_task(use(resource, "last", log))
        await sleep(1)
        user.release()  # the request held the task, and that its result
        await sleep(3)

    resource, log = Resource(), []

    async def first():
        slot = await resource.request()
        slot.release()
        await main()

    virtual(first())
    assert (1, 0) in log
    assert log[-1][1] == "last"


# ---- many ----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.no_leak_check  # again and again it would take minutes
def test_a_crowd_most_of_which_leaves():
    async def main():
        resource = Resource()
        slot = await resource.request()
        requests = [resource.request(n % 7) for n in range(CROWD)]
        got = []

        async def waiter(n):
            with contextlib.suppress(RequestCancelled):
                async with requests[n]:
                    got.append(n)

        tasks = [create_task(waiter(n)) for n in range(CROWD)]
        await sleep(1)
        assert len(resource.queue) == CROWD
        for n, request in enumerate(requests):
            if n % 10 == 1:
                tasks[n].cancel()
            elif n % 10 != 0:
                assert request.cancel()
        assert len(resource.queue) == CROWD // 10
        slot.release()
        await sleep(1)
        assert got == sorted(range(0, CROWD, 10), key=lambda n: n % 7)
        assert (resource.in_use, resource.queue) == (0, ())

    virtual(main())


def test_many_slots():
    async def main():
        resource = Resource(10_000)
        async with TaskGroup() as group:
            for n in range(12_000):
                group.create_task(use(resource, n, log, 1 + n % 3))
            await sleep(0.5)
            assert (resource.in_use, len(resource.queue)) == (10_000, 2_000)
        assert resource.in_use == 0

    log = []
    virtual(main())
    assert [number for _, _, number in log[:10_000]] == list(range(10_000))
    assert len(log) == 12_000


def test_event_and_resource_mixed_do_not_disturb_each_other():
    async def main():
        event, resource = Event(), Resource()

        async def both():
            async with resource.request():
                await event.wait()
                return now()

        tasks: list[Task] = [create_task(both()) for _ in range(3)]
        await sleep(2)
        assert [task.waiting_on for task in tasks] == [event, resource, resource]
        event.set()
        assert [await task for task in tasks] == [2.0, 2.0, 2.0]
        idle = create_task(sleep_forever(), daemon=True)
        idle.cancel()

    virtual(main())


def test_statistics_of_more_waiting_than_64_bits_hold():
    async def use(days):
        async with resource.request():
            await sleep(days * 86_400)

    async def main():
        async with TaskGroup() as group:
            group.create_task(use(365))
            for _ in range(999):
                group.create_task(use(0))

    resource = Resource(stats=True)
    virtual(main())
    assert resource.stats().waits.mean == pytest.approx(365 * 86_400 * 999 / 1000)


def test_the_queue_is_told_though_a_collection_changes_it_meanwhile():
    """Which making the tuple may start, on Python 3.11."""

    async def use(resource):
        async with resource.request():
            await sleep(1)

    async def main():
        resource = Resource()
        tasks = [create_task(use(resource)) for _ in range(30)]
        await checkpoint()

        def change(phase, info):
            if phase == "stop" and tasks:
                tasks.pop().cancel()

        gc.callbacks.append(change)
        threshold = gc.get_threshold()
        gc.set_threshold(1)
        try:
            while len(tasks) > 2:
                assert len(resource.queue) <= 29
                gc.collect()
        finally:
            gc.callbacks.remove(change)
            gc.set_threshold(*threshold)

    virtual(main())
