"""Preemption: an urgent request takes the slot of one that is less urgent, once and at once."""

import contextlib
import gc
import math
import weakref

import pytest

from sleeploop import (
    CancelScope,
    DeadlockError,
    Event,
    Interrupt,
    Preempted,
    RequestCancelled,
    Resource,
    SleepingLoop,
    Store,
    TaskGroup,
    checkpoint,
    create_task,
    current_task,
    first_of,
    sleep,
    sleep_forever,
)
from tests.helpers import now, outcome, virtual


async def use(resource, name, log, *, seconds=10.0, priority=0, preempt=False):
    slot = resource.request(priority, preempt)
    try:
        async with slot:
            log.append((now(), name, slot.number))
            await sleep(seconds)
            log.append((now(), name, "done"))
    except Interrupt as interrupt:
        assert slot.preempted
        log.append((now(), name, interrupt.cause))


def names(causes):
    return [
        (*entry[:2], entry[2].by.name if isinstance(entry[2], Preempted) else entry[2])
        for entry in causes
    ]


def test_the_least_urgent_loses_its_slot_in_that_moment():
    async def main():
        resource = Resource(2, name="machine")
        async with TaskGroup() as group:
            group.create_task(use(resource, "a", log, priority=1))
            await sleep(1)
            group.create_task(use(resource, "b", log, priority=2))
            await sleep(1)
            urgent = resource.request(priority=0, preempt=True)
            _, second = resource.users
            await urgent
            assert [user.priority for user in resource.users] == [1, 0]
            assert (urgent.number, urgent.since, urgent.task) == (1, 2.0, current_task())
            assert (second.preempted, second.number, second.since) == (True, None, None)
            assert second.task is None
            assert repr(second) == "<Request of Resource 'machine', priority 2, preempted>"
            await checkpoint()
            assert log[-1] == (2.0, "b", Preempted((current_task(), resource, 1.0, 1)))
            assert second.release() is None
            assert second.cancel() is False
            assert resource.in_use == 2
            await sleep(1)
            urgent.release()
        assert resource.in_use == 0

    log = []
    virtual(main())
    assert log[-1] == (10.0, "a", "done")


def test_the_cause_tells_what_was_lost():
    async def main():
        resource = Resource()
        create_task(use(resource, "a", log, priority=5))
        await sleep(3)
        async with resource.request(4, preempt=True):
            await checkpoint()
        cause = log[-1][2]
        assert type(cause) is Preempted
        assert cause == (current_task(), resource, 0.0, 0)
        assert (cause.by, cause.resource, cause.since, cause.number) == tuple(cause)

    log = []
    virtual(main())
    assert len(log) == 2


def test_of_equals_the_one_that_got_its_slot_last():
    async def main():
        resource = Resource(4)
        async with TaskGroup() as group:
            for name, priority in [("a", 1), ("b", 2), ("c", 2), ("d", 1)]:
                group.create_task(use(resource, name, log, priority=priority))
            await sleep(1)
            for name in "vwxyz":
                group.create_task(use(resource, name, log, seconds=1, preempt=True), name=name)

    log = []
    virtual(main())
    lost = [(name, cause) for _, name, cause in names(log) if isinstance(cause, str)]
    assert lost[:4] == [("c", "v"), ("b", "w"), ("d", "x"), ("a", "y")]
    assert (2.0, "z", 2) in log  # nobody was less urgent: it has waited, for who came first


@pytest.mark.parametrize("priority", [1, 2, 1.0])
def test_only_from_one_that_is_less_urgent(priority):
    async def main():
        resource = Resource()
        async with TaskGroup() as group:
            group.create_task(use(resource, "a", log, seconds=3, priority=1))
            await sleep(1)
            group.create_task(use(resource, "b", log, priority=priority, preempt=True))

    log = []
    virtual(main())
    assert log == [(0, "a", 0), (3, "a", "done"), (3, "b", 0), (13, "b", "done")]


def test_a_free_slot_comes_first():
    async def main():
        resource = Resource(2)
        create_task(use(resource, "a", log, priority=9))
        await sleep(1)
        async with resource.request(0, preempt=True) as slot:
            assert slot.number == 1

    log = []
    virtual(main())
    assert log == [(0, "a", 0)]


def test_it_does_not_overtake_who_waits():
    async def main():
        resource = Resource()
        async with TaskGroup() as group:
            group.create_task(use(resource, "a", log, seconds=5, priority=9))
            await sleep(1)
            group.create_task(use(resource, "b", log, seconds=1, priority=3))
            await sleep(1)
            group.create_task(use(resource, "c", log, seconds=1, priority=3, preempt=True))
            await sleep(1)
            assert [request.priority for request in resource.queue] == [3, 3]
            group.create_task(use(resource, "d", log, seconds=1, priority=2, preempt=True))

    log = []
    virtual(main())
    assert names(log)[:3] == [(0, "a", 0), (3, "d", 0), (3, "a", log[2][2].by.name)]
    assert [entry for entry in log[3:] if entry[2] == 0] == [(4, "b", 0), (5, "c", 0)]


def test_no_task_takes_a_slot_from_itself():
    async def main():
        resource = Resource()
        async with resource.request(5), resource.request(0, preempt=True):
            raise AssertionError

    with pytest.raises(DeadlockError):
        virtual(main())


def test_a_task_that_has_ended_is_not_missed():
    async def taker(resource):
        return await resource.request(5)

    async def main():
        resource = Resource()
        lost = await create_task(taker(resource))
        async with resource.request(0, preempt=True) as slot:
            assert (slot.number, lost.preempted) == (0, True)

    virtual(main())


def test_leaving_the_block_gives_nothing_back():
    async def victim(resource):
        async with resource.request(5) as slot:
            try:
                await sleep(10)
            except Interrupt:
                await sleep(2)
        log.append((now(), slot.preempted, resource.in_use))

    async def main():
        resource = Resource()
        task = create_task(victim(resource))
        await sleep(1)
        async with resource.request(0, preempt=True):
            await task
        assert resource.in_use == 0

    log = []
    virtual(main())
    assert log == [(3.0, True, 1)]


def test_who_waits_for_another_slot_of_the_same_resource():
    async def victim(resource):
        async with resource.request(5):
            try:
                async with resource.request(5):
                    raise AssertionError
            except Interrupt as interrupt:
                log.append((now(), interrupt.cause.number))

    async def main():
        resource = Resource()
        task = create_task(victim(resource))
        await sleep(1)
        async with resource.request(0, preempt=True):
            assert resource.queue == ()
            await task
        assert resource.in_use == 0

    log = []
    virtual(main())
    assert log == [(1.0, 0)]


def test_given_and_taken_away_before_its_task_has_run():
    async def victim(request):
        assert await request is request
        log.append((request.preempted, request.number))
        try:
            await checkpoint()
        except Interrupt as interrupt:
            log.append(interrupt.cause.number)

    async def main():
        resource = Resource()
        slot = await resource.request(0)
        request = resource.request(5)
        task = create_task(victim(request))
        await sleep(1)
        slot.release()
        assert request.number == 0
        async with resource.request(1, preempt=True) as other:
            assert (request.number, other.number) == (None, 0)
            await task
        assert resource.in_use == 0

    log = []
    virtual(main())
    assert log == [(True, None), 0]


def test_one_after_the_other_takes_it():
    async def main():
        resource = Resource(stats=True)
        async with TaskGroup() as group:
            for priority in range(5, 0, -1):
                name = str(priority)
                coro = use(resource, name, log, priority=priority, preempt=True)
                group.create_task(coro, name=name)
        stats = resource.stats()
        assert (stats.in_use.max, stats.in_use.mean, stats.waits) == (1.0, 1.0, (5, 0, 0.0, 0.0))

    log = []
    virtual(main())
    assert names(log) == [
        *((0.0, str(n), 0) for n in range(5, 0, -1)),
        *((0.0, str(n), str(n - 1)) for n in range(5, 1, -1)),
        (10.0, "1", "done"),
    ]


def test_a_victim_that_is_being_cancelled():
    async def victim(resource, scope):
        with scope:
            async with resource.request(5):
                try:
                    await sleep_forever()
                finally:
                    with CancelScope(shield=True):
                        try:
                            await sleep(5)
                        except Interrupt as interrupt:
                            log.append((now(), interrupt.cause.number))

    async def main():
        resource, scope = Resource(), CancelScope()
        task = create_task(victim(resource, scope))
        await sleep(1)
        scope.cancel()
        await sleep(1)
        async with resource.request(0, preempt=True):
            await task
        assert (now(), resource.in_use) == (2.0, 0)

    log = []
    virtual(main())
    assert log == [(2.0, 0)]


def test_a_cancelled_task_preempts_nobody():
    async def main():
        resource = Resource()
        task = create_task(use(resource, "a", log, seconds=1, priority=5))
        await checkpoint()
        with CancelScope() as scope:
            scope.cancel()
            async with resource.request(0, preempt=True):
                raise AssertionError
        await task

    log = []
    virtual(main())
    assert log == [(0, "a", 0), (1, "a", "done")]


def test_an_interrupt_that_is_not_caught_ends_the_task():
    async def victim(resource):
        async with resource.request(5):
            await sleep(10)

    async def main():
        resource = Resource()
        task = create_task(outcome(victim(resource)))
        await sleep(1)
        async with resource.request(0, preempt=True):
            error = await task
        assert type(error) is Interrupt
        assert error.cause.by is current_task()
        assert resource.in_use == 0

    virtual(main())


def test_the_victim_dies_with_its_slot_and_uses_the_resource():
    class Meddler:
        def __del__(self):
            log.append((resource.in_use, [user.priority for user in resource.users]))
            resource.request().cancel()

    async def taker():
        await resource.request(5)
        return Meddler()

    async def main():
        await create_task(taker())
        await checkpoint()
        async with resource.request(0, preempt=True) as slot:
            assert resource.users == (slot,)

    resource, log = Resource(), []
    virtual(main())
    gc.collect()
    assert log == [(1, [0])]


def test_shuffled_the_same_slots_are_lost():
    async def main():
        log = []
        resource = Resource(3)
        async with TaskGroup() as group:
            for n in range(3):
                group.create_task(use(resource, n, log, priority=n))
                await sleep(1)
            for n in range(3):
                coro = use(resource, n + 10, log, priority=-1, preempt=True)
                group.create_task(coro, name=str(n + 10))
                await sleep(1)
        return names(log)

    expected = virtual(main())
    assert [entry[1] for entry in expected if entry[2] in ("10", "11", "12")] == [2, 1, 0]
    for seed in range(5):
        loop = SleepingLoop(main(), speed=math.inf, shuffle=seed)
        assert sorted(loop.run_until_complete()[0], key=str) == sorted(expected, key=str)


def test_in_a_trace_it_is_a_wake():
    async def main():
        resource = Resource()
        create_task(use(resource, "a", [], priority=5), name="victim")
        await sleep(1)
        async with resource.request(0, preempt=True):
            await checkpoint()

    loop = SleepingLoop(main(), speed=math.inf, trace=True)
    loop.run_until_complete()
    woken = [event for event in loop.trace.events if event.kind == "wake" and event.other == 1]
    assert [(event.task, event.time) for event in woken] == [("victim", 1.0)]


def test_in_first_of_it_is_the_caller_who_preempts_and_who_has_the_slot():
    async def main():
        resource = Resource(name="machine")
        async with TaskGroup() as group:
            group.create_task(use(resource, "a", log, priority=1))
            await sleep(1)
            urgent = resource.request(priority=0, preempt=True)
            assert await first_of(urgent, sleep(5)) == {urgent: urgent}
            assert urgent.task is current_task()
            await checkpoint()
            assert log.pop()[2].by is current_task()
        nap = sleep(1)  # no task takes a slot from itself
        assert nap in await first_of(resource.request(priority=-1, preempt=True), nap)
        assert resource.users == (urgent,)
        urgent.release()

    log = []
    virtual(main())


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_loop_dropped_while_one_is_to_get_an_interrupt_is_freed():
    async def main(resource):
        await resource.request(priority=1)
        create_task(urgent(resource))
        async with TaskGroup() as group:  # the Interrupt has to wait for its end
            group.create_task(shielded())
            await checkpoint()
            group.cancel_scope.cancel()

    async def shielded():
        with CancelScope(shield=True):
            await sleep_forever()

    async def urgent(resource):
        slot = await resource.request(priority=0, preempt=True)
        slot.release()

    resource = Resource()
    loop = SleepingLoop(main(resource), speed=math.inf)
    for _ in range(3):
        loop.step()
    assert resource.in_use == 0
    assert loop.tasks()[0].waiting_since is not None  # at the end of the group
    gone = weakref.ref(loop)
    del loop
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("act", ["withdraw", "release"])
def test_what_the_victim_waited_with_acts_when_it_dies(act):
    """Withdraws the request that preempts, or gives back the slot that has been taken."""

    class Accepts:
        def __call__(self, item):
            return False

        def __del__(self):
            if act == "withdraw":
                log.append(urgent.cancel())
            else:
                victims.release()

    class Victim:
        """A coroutine that has the slot and keeps nothing of what it waits with."""

        def send(self, _):
            with pytest.raises(StopIteration):
                victims.__await__().send(None)
            return Store().get(Accepts()).__await__().send(None)

        def throw(self, error):
            log.append(error)
            raise StopIteration

        def close(self):
            pass

    async def main():
        create_task(Victim())
        await checkpoint()
        assert resource.users == (victims,)
        if act == "withdraw":
            with pytest.raises(RequestCancelled):
                await urgent
            assert resource.users == ()
            await checkpoint()
        else:
            async with urgent:
                assert resource.users == (urgent,)
                await checkpoint()
        assert victims.preempted  # whatever came afterwards, and that is what it is told
        assert log.pop().cause == Preempted((current_task(), resource, 0.0, 0))

    resource, log = Resource(), []
    victims = resource.request(priority=1)
    urgent = resource.request(priority=0, preempt=True)
    virtual(main())
    assert log == ([True] if act == "withdraw" else [])


@pytest.mark.parametrize("act", ["withdraw", "release"])
@pytest.mark.parametrize("is_waiting", [True, False])
@pytest.mark.parametrize("n", range(1, 9))
def test_a_collection_acts_in_the_middle_of_it(act, is_waiting, n):
    """Up to CPython 3.11 one runs where memory is allocated. Whoever gets an Interrupt has lost its
    slot, and whoever has lost its slot gets one.
    """

    async def victim():
        async with victims:
            try:
                if is_waiting:
                    await sleep(10)
                else:
                    await bell.wait()
                await sleep(10)
            except Interrupt as interrupt:
                log.append(interrupt)

    def collected(phase, info):
        left[0] -= phase == "start"
        if left[0] != 0:
            return
        left[0] = -1
        if act == "withdraw":
            urgent.cancel()
        elif victims.number is not None:
            victims.release()

    async def main():
        create_task(victim())
        await sleep(1)
        bell.set()  # it has been woken, and does not wait any more
        gc.callbacks.append(collected)
        threshold = gc.get_threshold()
        gc.set_threshold(1)
        try:
            with contextlib.suppress(RequestCancelled):
                left[0] = n
                await urgent
                left[0] = -1
        finally:
            gc.set_threshold(*threshold)
            gc.callbacks.remove(collected)
        if urgent.number is not None:
            urgent.release()
        await sleep(20)
        assert len(log) == victims.preempted
        assert resource.users == ()
        assert "waiting" not in repr(resource)

    resource, log, left, bell = Resource(), [], [-1], Event()
    victims = resource.request(priority=1)
    urgent = resource.request(priority=0, preempt=True)
    virtual(main())
