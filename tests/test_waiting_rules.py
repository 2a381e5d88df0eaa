"""The core of waiting on each other: loops and threads, who owns what, all in company."""

import copy
import gc
import math
import operator
import pickle
import threading
import weakref

import pytest

import sleeploop
from sleeploop import (
    CancelScope,
    Event,
    Lock,
    SleepingLoop,
    TaskGroup,
    checkpoint,
    create_task,
    current_loop,
    gather,
    sleep,
    wait_for,
)
from tests.helpers import awaited_error, ended, now, virtual
from tests.waits import hold, taken, used

# ---- loops and threads ---------------------------------------------------------------------------


def test_made_anywhere_and_used_by_one_loop_after_the_other():
    async def use(lock, event):
        async with TaskGroup() as group:
            tasks = [group.create_task(hold(lock, [], number)) for number in range(3)]
            waiting = group.create_task(event.wait())
            await checkpoint()
            event.set()
            event.clear()
        return now(), len(tasks), waiting.result()

    lock, event = Lock(name="l"), Event()
    for _ in range(3):
        assert virtual(use(lock, event)) == (3.0, 3, True)
        assert repr(lock) == "<Lock 'l' unlocked>"


def test_a_wait_made_in_one_loop_is_awaited_in_the_next():
    async def make():
        return lock.acquire()

    async def use(wait):
        assert await wait
        lock.release()

    lock = Lock()
    virtual(use(virtual(make())))
    assert not lock.locked()


@pytest.mark.parametrize("what", ["event", "lock"])
def test_two_loops_at_once(what):
    """In one thread, by turns."""

    async def wait():
        if what == "event":
            return await event.wait()
        async with lock:
            await sleep(2)
        return True

    event, lock = Event(name="e"), Lock(name="l")
    first = SleepingLoop(wait(), wait(), speed=math.inf)
    first.run_until(1)
    with pytest.raises(RuntimeError, match=r"belongs to another loop, whose tasks have it or wait"):
        virtual(wait())
    event.set()
    assert first.run_until_complete() == [True, True]
    assert virtual(wait()) is True


def in_a_thread(function):
    """What it raises there."""
    errors = []

    def call():
        try:
            function()
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    return errors


def test_another_thread():
    async def main():
        event, lock = Event(name="e"), Lock(name="l")
        create_task(event.wait())
        create_task(hold(lock, [], "holder"))
        await checkpoint()
        for call in (event.set, event.clear):
            (error,) = in_a_thread(call)
            assert type(error) is RuntimeError
            assert "Event 'e' not set" in str(error)
            assert "call_soon_threadsafe()" in str(error)
        for call in (lock.release, lambda: lock.__aexit__(None, None, None)):
            (error,) = in_a_thread(call)
            assert "only that task can release it" in str(error)

        async def take():
            await lock.acquire()

        for call in (lambda: virtual(take()), lambda: virtual(wait_here(event))):
            (error,) = in_a_thread(call)
            assert "is used by a loop that runs in another thread" in str(error)
        for look in (repr, operator.methodcaller("__sizeof__")):
            assert in_a_thread(lambda look=look: (look(event), look(lock))) == []
        assert not event.is_set()
        current_loop().call_soon_threadsafe(event.set)
        await event.wait()
        await sleep(1)
        await used(lock)

    virtual(main())


async def wait_here(event):
    await event.wait()


def test_a_loop_that_pauses():
    log = []

    async def wait(name):
        await event.wait()
        log.append((name, now()))

    event = Event()
    loop = SleepingLoop(wait("a"), speed=math.inf)
    loop.create_task(wait("b"))
    loop.step()
    assert repr(event) == "<Event not set, 2 waiting>"
    loop.run_until(5)
    event.set()
    assert (log, repr(event)) == ([], "<Event set>")
    event.clear()
    loop.create_task(wait("c"))
    loop.run_until(6)
    assert repr(event) == "<Event not set, 1 waiting>"
    event.set()
    loop.run_until_complete()
    assert log == [("a", 5.0), ("b", 5.0), ("c", 6.0)]


@pytest.mark.filterwarnings("ignore:.*was neither closed nor run to its end:ResourceWarning")
@pytest.mark.parametrize("cycle", [False, True])
def test_a_loop_is_dropped_while_its_tasks_wait(cycle, caplog):
    async def wait(awaitable):
        try:
            await awaitable
        except GeneratorExit:
            log.append("closed")
            raise

    log, event, lock = [], Event(), Lock()
    loop = SleepingLoop(hold(lock, [], "holder", 9), speed=math.inf)
    for _ in range(3):
        loop.create_task(wait(event.wait()))
    for _ in range(3):
        loop.create_task(wait(lock.acquire()))
    loop.run_until(1)
    assert repr(event) == "<Event not set, 3 waiting>"
    if cycle:
        box = [loop, loop.tasks()]
        box.append(box)
        del box
    died = weakref.ref(loop)
    del loop
    gc.collect()
    assert died() is None
    assert repr(event) == "<Event not set>"
    assert log == ["closed"] * 6
    assert "waiting" not in repr(lock)
    event.set()
    assert virtual(event.wait()) is True
    assert caplog.messages == []


def test_the_run_ends_while_tasks_wait():
    async def main():
        create_task(event.wait(), daemon=True)
        create_task(hold(lock, [], "holder", 9), daemon=True)
        create_task(hold(lock, [], "behind"), daemon=True)
        await sleep(1)
        assert repr(event) == "<Event not set, 1 waiting>"

    event, lock = Event(), Lock(name="l")
    virtual(main())
    assert repr(event) == "<Event not set>"
    assert "waiting" not in repr(lock)


# ---- who owns what -------------------------------------------------------------------------------


def test_a_wait_keeps_its_object_and_a_task_its_wait():
    async def main():
        task = create_task(Event(name="mine").wait(), name="t")
        await checkpoint()
        ref = weakref.ref(task.waiting_on)
        gc.collect()
        assert ref().name == "mine"
        ref().set()
        assert await task is True
        del task
        assert ref() is None

    virtual(main())


def test_weak_references():
    for kind in (Event, Lock):
        died, thing = [], kind()
        ref = weakref.ref(thing, lambda ref, died=died: died.append(ref()))
        assert ref() is thing
        assert len({thing, kind()}) == 2
        del thing
        assert died == [None]


@pytest.mark.usefixtures("forgetful")
@pytest.mark.parametrize("make", [Event, Lock, lambda: Event().wait(), lambda: Lock().__aenter__])
@pytest.mark.parametrize(
    "clone",
    [copy.copy, copy.deepcopy, *(lambda x, n=n: pickle.dumps(x, n) for n in range(2, 6))],
)
def test_they_are_not_copied(make, clone):
    with pytest.raises(TypeError, match="cannot pickle 'sleeploop"):
        clone(make())


@pytest.mark.usefixtures("forgetful")
def test_the_types_of_waits_are_not_called():
    for thing in (Event().wait(), Lock().__aenter__, Lock.__aenter__):
        with pytest.raises(TypeError, match="cannot create 'sleeploop"):
            type(thing)()
        with pytest.raises(TypeError):
            type("Sub", (type(thing),), {})


# ---- in company ----------------------------------------------------------------------------------


def test_with_the_combinators():
    async def main():
        event, lock = Event(), Lock(name="l")
        later = create_task(hold(lock, [], "holder", 2))
        await checkpoint()
        with pytest.raises(TimeoutError):
            await wait_for(event.wait(), 1)
        with pytest.raises(TimeoutError):
            await wait_for(lock.acquire(), 0.5)
        assert repr(lock).endswith("0.0 s>")
        results = gather(event.wait(), event.wait(), later)
        event.set()
        assert await results == [True, True, None]
        await used(lock)

    virtual(main())


@pytest.mark.parametrize("shuffle", range(5))
def test_a_shuffled_loop_keeps_to_the_order_of_the_place(shuffle):
    """Who waits first is first; in which order those run who are let go at once is the loop's."""

    async def main():
        lock, event, locks, woken = Lock(), Event(), [], []

        async def wait(name):
            await event.wait()
            woken.append(name)

        async def take(name):
            async with lock:
                locks.append(name)
                await checkpoint()

        await lock.acquire()
        tasks = []
        for number in range(10):
            tasks += [create_task(wait(number)), create_task(take(number))]
            await sleep(1)
        lock.release()
        event.set()
        for task in tasks:
            await task
        return locks, woken

    locks, woken = sleeploop.run(main(), speed=math.inf, shuffle=shuffle)
    assert locks == list(range(10))
    assert sorted(woken) == list(range(10))
    assert shuffle != 3 or woken != sorted(woken)


def test_a_trace_of_waits():
    async def main():
        lock, event = Lock(), Event()
        async with TaskGroup() as group:
            await lock.acquire()
            group.create_task(hold(lock, [], "a"), name="a")
            group.create_task(event.wait(), name="b")
            victim = group.create_task(lock.acquire(), name="c")
            await sleep(1)
            lock.release()
            event.set()
            victim.cancel()

    loop = SleepingLoop(main(), speed=math.inf, trace=True)
    loop.run_until_complete()
    events = [(e.time, e.kind, e.number, e.other, e.how) for e in loop.trace.events]
    assert [event for event in events if event[2] in (3, 4) or event[1] == "block"] == [
        (0.0, "spawn", 3, 1, ""),
        (0.0, "spawn", 4, 1, ""),
        (0.0, "block", 2, 1, ""),  # by the task that has the lock
        (0.0, "block", 3, 0, ""),
        (0.0, "block", 4, 1, ""),
        (1.0, "wake", 3, 1, ""),
        (1.0, "cancel", 4, 1, "explicit"),
        (1.0, "wake", 4, 1, ""),
        (1.0, "block", 1, 0, ""),  # the group's end
        (1.0, "end", 3, 0, "returned"),
        (1.0, "end", 4, 0, "cancelled"),
    ]
    assert (1.0, "wake", 2, 1, "") in events


@pytest.mark.usefixtures("forgetful")
def test_a_long_chain_of_waits_that_bring_each_other():
    wait = None
    for _ in range(100_000):
        wait = sleeploop.Queue().put(wait)
    last = weakref.ref(queue := sleeploop.Queue())
    wait = queue.put(wait)
    del queue
    del wait
    assert last() is None


def test_ended_by_a_cancellation_in_every_place():
    async def main():
        lock, event = await taken([]), Event()
        tasks = [create_task(lock.acquire()), create_task(event.wait())]
        await checkpoint()
        for task in tasks:
            task.cancel()
            await ended(task)
        with CancelScope() as scope:
            scope.cancel()
            await awaited_error(lock.acquire())
            await awaited_error(event.wait())
        await sleep(2)
        await used(lock)

    virtual(main())


# ---- errors that look like the end of an await ---------------------------------------------------


class Stops:
    """Raises it when it is compared, or called."""

    def __init__(self, error):
        self.error = error

    def stop(self, *args):
        raise self.error

    __lt__ = __eq__ = __call__ = stop

    def __hash__(self):
        return 1


async def wait_for_it(stops):
    condition = sleeploop.Condition()
    async with condition:
        await condition.wait_for(stops)


async def wait_for_it_later(stops):
    condition, answers = sleeploop.Condition(), [False]

    async def notify():
        async with condition:
            condition.notify()

    create_task(notify())
    async with condition:
        await condition.wait_for(lambda: answers.pop() if answers else stops())


async def put(stops):
    queue = sleeploop.PriorityQueue()
    await queue.put(stops)
    await queue.put(stops)


async def put_later(stops):
    queue = sleeploop.PriorityQueue(2)
    await queue.put(1)
    await queue.put(stops)
    task = create_task(queue.put(stops))
    await checkpoint()
    queue.get_nowait()
    await task


async def get(stops, iterate=False):
    class Item:
        is_bad = False

        def __lt__(self, other):
            return stops() if Item.is_bad else False

    queue = sleeploop.PriorityQueue()
    for _ in range(4):
        queue.put_nowait(Item())
    Item.is_bad = True
    try:
        if iterate:
            async for _ in queue:
                raise AssertionError
        else:
            await queue.get()
    finally:
        assert queue.qsize() == 4


async def acquire_for(stops):
    limiter = sleeploop.CapacityLimiter(2)
    await limiter.acquire_on_behalf_of(Stops(stops.error))
    await limiter.acquire_on_behalf_of(stops)


async def acquire_for_later(stops):
    """It is looked for once as the await begins, and once as the task is parked."""

    class Later:
        asked = 0

        def __hash__(self):
            return 1

        def __eq__(self, other):
            self.asked += 1
            return stops() if self.asked == 2 else False

    limiter = sleeploop.CapacityLimiter(1)
    await limiter.acquire_on_behalf_of(Stops(stops.error))
    limiter.release_on_behalf_of(limiter.borrowers[0])
    await limiter.acquire_on_behalf_of(Later())
    await limiter.acquire_on_behalf_of(Later())


async def get_from_store(stops):
    store = sleeploop.Store()
    store.put_nowait(1)
    await store.get(stops)


WAYS = [
    wait_for_it,
    wait_for_it_later,
    put,
    put_later,
    get,
    acquire_for,
    acquire_for_later,
    get_from_store,
]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_stop_iteration_of_somebody_s_is_no_result(way):
    error = StopIteration("junk")
    with pytest.raises(RuntimeError, match=r"\w+\.\w+\(\) raised StopIteration") as caught:
        virtual(way(Stops(error)))
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("error", [StopIteration("junk"), StopAsyncIteration("junk")])
def test_it_is_not_the_end_of_async_for_either(error):
    with pytest.raises(RuntimeError, match=r"async for .* raised Stop") as caught:
        virtual(get(Stops(error), iterate=True))
    assert caught.value.__cause__ is error
