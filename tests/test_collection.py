"""Who owns what: reference counts, cycles, weak references, long chains and resurrection."""

import gc
import itertools
import logging
import math
import sys
import warnings
import weakref
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from sleeploop import (
    Barrier,
    BoundedSemaphore,
    CancelledError,
    CancelScope,
    CapacityLimiter,
    Condition,
    Container,
    Event,
    LifoQueue,
    Lock,
    PriorityQueue,
    Queue,
    Resource,
    Semaphore,
    SleepingLoop,
    Store,
    Task,
    TaskGroup,
    checkpoint,
    create_task,
    current_loop,
    current_task,
    every,
    open_channel,
    run,
    sleep,
    sleep_forever,
    timeout,
)
from tests.helpers import OnDel, Thing, fail_at_once, give, references, virtual


class SubLoop(SleepingLoop):
    """A subclass has a dict, and its instances own a reference to it."""


@pytest.fixture
def unraisable(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The errors that nobody could catch, as text: the objects themselves are let go."""
    errors: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: errors.append(repr(args.exc_value)))
    return errors


# ---- reference counts ----------------------------------------------------------------------------


def in_a_run(make: Callable[[], object]) -> object:
    async def main() -> object:
        return make()

    return virtual(main())


def instant() -> object:
    scope = CancelScope()
    begin = scope.__aenter__()
    scope.__exit__(None, None, None)
    return begin


class OwnCancelledError(CancelledError):
    """A subclass, made in Python."""


def held_lock() -> Lock:
    lock = Lock()
    lock.acquire_nowait()
    return lock


def set_event() -> Event:
    event = Event()
    event.set()
    return event


async def awaited(wait: Any) -> Any:
    """Itself, used up."""
    assert await wait is True
    return wait


def channel(ends: tuple[object, object]) -> object:
    """What the two ends share."""
    (shared,) = (obj for obj in gc.get_referents(ends[0]) if not isinstance(obj, type))
    return shared


def join() -> object:
    return create_task(give(1)).__await__()


def borrowed() -> object:
    limiter = CapacityLimiter(1)
    limiter.acquire_on_behalf_of_nowait(0)
    return limiter


def resource_in_use() -> object:
    resource = Resource(3)
    return virtual(give_after_request(resource))


async def give_after_request(resource: Resource) -> Resource:
    for _ in range(2):
        await resource.request()
    return resource


def full_store() -> object:
    store = Store[list[int]](5, name="shelf", stats=True)
    store.put_nowait([1])
    return store


INSTANCES = {
    "SleepingLoop": SleepingLoop,
    "SleepingLoop with tasks": lambda: SleepingLoop(sleep(1), sleep(2)),
    "traced SleepingLoop": lambda: SleepingLoop(sleep(1), trace=5),
    "subclass": SubLoop,
    "Task": lambda: SleepingLoop(sleep(1)).tasks()[0],
    "finished Task": lambda: in_a_run(current_task),
    "Sleep": lambda: sleep(1),
    "Join": lambda: in_a_run(join),
    "Every": lambda: every(1),
    "NextTick": lambda: every(1).__anext__(),
    "Tick": lambda: virtual(anext(every(1))),
    "LoopStats": lambda: SleepingLoop().stats(),
    "CancelledError": lambda: CancelledError("reason"),
    "CancelledError of one's own": lambda: OwnCancelledError("reason"),
    "CancelScope": CancelScope,
    "timeout": lambda: timeout(5, shield=True),
    "TaskGroup": TaskGroup,
    "Start": lambda: TaskGroup().start(give, 1),
    "Leave": lambda: TaskGroup().__aexit__(None, None, None),
    "Instant": lambda: in_a_run(instant),
    "Event": Event,
    "Lock": lambda: Lock(name="named"),
    "Lock that is held": lambda: in_a_run(held_lock),
    "Wait for an Event": lambda: Event().wait(),
    "Wait for a Lock": lambda: Lock().acquire(),
    "Wait that is over": lambda: virtual(awaited(set_event().wait())),
    "Condition": Condition,
    "Wait of a Condition": lambda: Condition().wait_for(dict),
    "Barrier": lambda: Barrier(2),
    "Semaphore": lambda: Semaphore(name="name"),
    "BoundedSemaphore": BoundedSemaphore,
    "Semaphore.acquire()": lambda: Semaphore().acquire(),
    "CapacityLimiter": lambda: in_a_run(borrowed),
    "CapacityLimiter.acquire()": lambda: CapacityLimiter(1).acquire(),
    "Token": lambda: gc.get_referents(CapacityLimiter(1).acquire_on_behalf_of(0))[-1],
    "Queue": Queue,
    "PriorityQueue": lambda: PriorityQueue(3, name="jobs", stats=True),
    "LifoQueue": LifoQueue,
    "Wait": lambda: Queue().put(1),
    "QueueStats": lambda: Queue(stats=True).stats(),
    "SendChannel": lambda: open_channel(1)[0],
    "ReceiveChannel": lambda: open_channel(1)[1],
    "Channel": lambda: channel(open_channel(1)),
    "Wait for a Channel": lambda: open_channel(1)[1].receive(),
    "Resource": lambda: Resource(2, stats=True),
    "Resource in use": resource_in_use,
    "Request": lambda: Resource().request(),
    "ResourceStats": lambda: Resource(stats=True).stats(),
    "Container": lambda: Container(5, 2, name="tank", stats=True),
    "ContainerStats": lambda: Container(stats=True).stats(),
    "Store": full_store,
    "StoreStats": lambda: Store(stats=True).stats(),
    "Wait for a Store": lambda: Store().get(bool),
}


@pytest.mark.usefixtures("forgetful")
@pytest.mark.parametrize("make", INSTANCES.values(), ids=list(INSTANCES))
def test_an_instance_owns_one_reference_to_its_type(make):
    kind = type(make())
    gc.collect()
    before = references(kind)
    instances = [make() for _ in range(100)]
    if not isinstance(instances[0], Task):  # each of those keeps a loop alive
        assert {type(instance) for instance in instances} == {kind}
    assert references(kind) - before == 100
    if gc.is_tracked(instances[0]):
        assert kind in gc.get_referents(instances[0])
    del instances
    gc.collect()
    assert references(kind) == before


def test_arguments_and_results_are_let_go(no_collector):
    async def main(argument):
        await sleep(1)
        local = Thing()
        refs.extend(map(weakref.ref, (argument, local)))
        await create_task(give(local))
        del local
        assert refs[1]() is None
        return argument

    refs = []
    loop = SleepingLoop(main(Thing()), speed=math.inf)
    (result,) = loop.run_until_complete()
    assert refs[0]() is result
    del result
    assert refs[0]() is None


def test_a_stop_iteration_belongs_to_whoever_catches_it():
    """Held, changed or dropped with something attached that drives other awaitables."""

    def end(trap, value=None):
        try:
            while True:
                trap.send(value)
        except StopIteration as stop:
            stop.__traceback__ = None
            return stop

    def ends():
        kept.append(end(sleep(0)))
        end(sleep(0))
        kept.clear()

    async def main():
        first = end(sleep(0))
        first.args = ("changed",)
        second = end(sleep(0))
        assert second is not first
        first.value = None
        assert (second.value, second.args) != (None, ("changed",))
        second.attached = OnDel(ends)
        del first, second
        return [end(sleep(0)).value for _ in range(3)]

    kept = []
    assert virtual(main()) == [timedelta(0)] * 3


def test_a_finished_run_is_no_cycle(no_collector):
    async def main():
        refs.append(weakref.ref(current_task()))
        refs.append(weakref.ref(create_task(give(1, 1))))
        refs.append(weakref.ref(create_task(sleep_forever(), daemon=True)))
        await sleep(2)

    refs = []
    loop = SubLoop(main(), speed=math.inf)
    refs.append(weakref.ref(loop))
    loop.run_until_complete()
    assert [ref() for ref in refs] == [loop, None, None, None]
    del loop
    assert refs[0]() is None


def test_a_failed_run_is_no_cycle(no_collector):
    refs = []

    async def main():
        refs.append(weakref.ref(current_loop()))
        refs.append(weakref.ref(current_task()))
        raise LookupError

    async def other():
        refs.append(weakref.ref(current_task()))
        await sleep_forever()

    try:
        SleepingLoop(other(), main(), speed=math.inf).run_until_complete()
    except LookupError as error:
        error.__traceback__ = None
    assert [ref() for ref in refs] == [None] * 3


@pytest.mark.usefixtures("forgetful")
def test_cancelling_leaves_no_cycle_and_frees_the_locals_promptly(no_collector):
    died = []

    async def victim(name):
        local = OnDel(lambda: died.append(name))
        waits = {"forever": sleep_forever, "ticking": anext(every(9, start=9)).__await__}
        await (create_task(sleep(9)) if name == "joining" else waits[name]())
        return local

    async def main():
        create_task(victim("forever"), daemon=True)
        create_task(victim("joining"), daemon=True)
        create_task(victim("ticking"), daemon=True)
        await checkpoint()
        await checkpoint()

    virtual(main())
    assert died == ["forever", "joining", "ticking"]


def test_a_loop_that_never_ran_is_collected_with_its_tasks():
    loop = SleepingLoop(sleep(1), sleep(2))
    loop.create_task(sleep(3))
    refs = [weakref.ref(loop), *map(weakref.ref, loop.tasks())]
    del loop
    gc.collect()
    assert [ref() for ref in refs] == [None] * 4


def test_a_task_keeps_its_loop_and_the_other_way_round():
    loop = SubLoop(give(1), speed=math.inf)
    loop.marker = Thing()
    marker = weakref.ref(loop.marker)
    (task,) = loop.tasks()
    del loop
    gc.collect()
    assert marker() is not None
    (loop,) = (obj for obj in gc.get_referents(task) if isinstance(obj, SubLoop))
    assert loop.run_until_complete() == [1]
    assert task.result() == 1


def test_a_loop_that_nobody_else_holds_lives_through_its_run():
    async def main():
        gc.collect()
        await sleep(1)
        gc.collect()
        return repr(current_loop())

    (text,) = SubLoop(main(), speed=math.inf).run_until_complete()
    assert "running at 1.0 s" in text


def test_the_collector_at_every_allocation():
    async def main():
        async def count():
            try:
                for number in itertools.count():
                    yield number
            finally:
                await sleep(1)

        async for number in count():
            if number == 3:
                break
        tasks = [create_task(give([i], i)) for i in range(10)]
        create_task(sleep_forever(), daemon=True)
        return [await task for task in reversed(tasks)]

    threshold = gc.get_threshold()
    gc.set_threshold(1, 1, 1)
    try:
        result = virtual(main())
    finally:
        gc.set_threshold(*threshold)
    assert result == [[i] for i in reversed(range(10))]


def test_waiting_at_a_place_leaves_no_cycle(no_collector):
    """Granted, cancelled, or neither when the run ends: all dies by its reference count."""

    async def wait(awaitable, local):
        await awaitable
        return local

    async def main():
        event, lock, semaphore = Event(), Lock(), Semaphore()
        refs.extend(map(weakref.ref, (event, lock)))
        async with lock:
            for awaitable in (event.wait(), semaphore.acquire(), lock.acquire(), event.wait()):
                local = Thing()
                task = create_task(wait(awaitable, local), daemon=True)
                refs.extend(map(weakref.ref, (task, local)))
            del task, local, awaitable
            await checkpoint()
            refs[-2]().cancel()
            await checkpoint()
            gone = [ref() is None for ref in refs]
            assert gone == [False] * 4 + [True] * 2 + [False] * 2 + [True] * 2
        return len(refs)

    refs = []
    assert virtual(main()) == 10
    assert [ref() for ref in refs] == [None] * 10


def test_a_wait_that_is_a_task_s_coroutine_dies_with_it(no_collector):
    async def main():
        event = Event()
        task = create_task(event.wait(), daemon=True)
        await checkpoint()
        refs.extend((weakref.ref(task), weakref.ref(event)))
        task.waiting_on.set()
        await task

    refs = []
    virtual(main())
    assert [ref() for ref in refs] == [None, None]


def test_a_lock_and_its_methods_hold_nothing_but_each_other(no_collector):
    lock = Lock(name="x")
    ref = weakref.ref(lock)
    methods = [lock.__aenter__, lock.__aexit__] * 100
    types = [references(type(method)) for method in methods[:2]]
    del lock
    assert ref() is not None
    methods.pop()
    assert [references(type(method)) for method in methods[:2]] == types
    del methods
    assert ref() is None


# ---- long chains ---------------------------------------------------------------------------------

MANY = 100_000


def test_a_chain_of_results_is_freed_without_recursion():
    async def main():
        task = None
        for _ in range(MANY):
            task = create_task(give_at_once(task))
        await sleep(1)
        return task

    async def give_at_once(value):
        return value

    task = virtual(main())
    last = weakref.ref(task)
    del task
    assert last() is None


def test_a_chain_of_tasks_that_wait_for_each_other():
    async def follow(task):
        return await task + 1 if task is not None else 0

    async def main():
        task = None
        for _ in range(MANY):
            task = create_task(follow(task))
        return await task

    assert virtual(main()) == MANY - 1


def test_tasks_that_wait_for_each_other_are_cancelled():
    ended = 0

    async def follow(task):
        nonlocal ended
        try:
            await (task or sleep_forever())
        finally:
            ended += 1

    async def main():
        task = None
        for _ in range(MANY // 10):
            task = create_task(follow(task))
        await checkpoint()

    virtual(main())
    assert ended == MANY // 10


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
def test_a_chain_of_loops_never_run():
    """Each holds the next one as an argument of its coroutine."""
    loop = None
    for _ in range(MANY // 10):
        loop = SleepingLoop(give(loop))
    last = weakref.ref(loop)
    del loop
    gc.collect()
    assert last() is None


# ---- finalizers ----------------------------------------------------------------------------------


def test_a_result_that_collects_when_it_dies():
    async def main():
        for _ in range(10):
            create_task(give(OnDel(gc.collect)))
        await sleep(1)

    virtual(main())


def test_work_begun_by_a_dying_object():
    outcomes = []

    def work():
        coro = give("run in __del__")
        try:
            outcomes.append(virtual(coro))
        except RuntimeError:
            outcomes.append(create_task(coro))

    async def main():
        create_task(give(OnDel(work)))
        await sleep(1)
        return await outcomes[0]

    assert virtual(main()) == "run in __del__"
    outcomes.clear()
    OnDel(work)
    assert outcomes == ["run in __del__"]


@pytest.mark.parametrize("by", ["reference count", "collector"])
def test_a_log_handler_that_brings_the_dying_task_back(by):
    class Rescue(logging.Handler):
        def emit(self, record):
            messages.append(record.getMessage())
            rescued.extend(record.exc_info[1].args[0] or [refs[0]()])

    async def main():
        box = []
        task = create_task(fail_at_once(ValueError(box)), name="phoenix")
        refs.append(weakref.ref(task))
        if by == "collector":
            box.append(task)
        del task, box
        await sleep(1)
        gc.collect()
        assert messages == ["task 'phoenix' failed and nobody retrieved its exception"]

    refs, rescued, messages = [], [], []
    logger = logging.getLogger("sleeploop")
    handler = Rescue()
    logger.addHandler(handler)
    try:
        with pytest.raises(ValueError):  # noqa: PT011
            virtual(main())
        task = rescued.pop()
        assert "failed with" in repr(task)
        assert isinstance(task.exception(), ValueError)
        del task
        gc.collect()
    finally:
        logger.removeHandler(handler)
    assert len(messages) == 1


def test_a_subclass_with_a_finalizer():
    class Phoenix(SleepingLoop):
        def __del__(self):
            lives.append(self)
            results.append(self.run_until_complete())

    lives, results = [], []
    Phoenix(sleep(1), speed=math.inf)
    gc.collect()
    assert len(results) == 1
    assert "closed" in repr(lives[0])
    lives.clear()
    gc.collect()
    assert len(results) == 1


def test_coroutines_that_collect_when_they_are_closed():
    class Duck:
        def send(self, value):
            return sleeper.send(value)

        def throw(self, exc):
            gc.collect()
            raise exc

        def close(self):
            gc.collect()

        def __del__(self):
            gc.collect()

    async def main():
        for _ in range(5):
            create_task(Duck(), daemon=True)
        await checkpoint()
        create_task(Duck(), daemon=True)

    sleeper = sleep_forever()
    virtual(main())
    SleepingLoop(Duck(), Duck())
    gc.collect()


def test_loops_and_tasks_in_a_garbage_cycle_with_finalizers():
    """The finalizers see everything whole; nothing has been cleared yet."""
    seen = []

    class Look:
        def __del__(self):
            seen.append((repr(self.task), repr(self.loop), self.loop.tasks() == [self.task]))

    look = Look()
    look.loop = SubLoop(sleep(1))
    look.loop.look = look
    (look.task,) = look.loop.tasks()
    del look
    gc.collect()
    assert seen == [
        (
            "<Task 'Task-1' sleep: ready to start>",
            f"<{SubLoop.__name__} not started at 0.0 s, speed 1.0, 1 task>",
            True,
        )
    ] or (len(seen) == 1 and seen[0][2])


# ---- weak references -----------------------------------------------------------------------------


def test_weak_references_to_tasks_and_loops_call_back():
    died = []

    async def main():
        task = create_task(give(1))
        refs.append(weakref.ref(task, lambda ref: died.append((ref(), current_loop().time()))))
        refs.append(weakref.ref(task, lambda ref: create_task(give(2))))
        await sleep(1)
        assert refs[0]() is task
        del task
        assert refs[0]() is None
        return len(current_loop().tasks())

    refs = []
    assert virtual(main()) == 2
    assert died == [(None, 1.0)]
    loop = SleepingLoop()
    refs.append(weakref.ref(loop, died.append))
    del loop
    assert died[1] is refs[2]


def test_a_weak_reference_dies_before_what_the_task_holds():
    order = []

    async def main():
        task = create_task(give(OnDel(lambda: order.append(ref() is None))))
        ref = weakref.ref(task)
        await task
        del task

    virtual(main())
    assert order == [True]


# ---- coroutines that nobody awaits ---------------------------------------------------------------


def test_a_coroutine_never_started_is_warned_of_once(unraisable):
    """With warnings as errors, which cannot be raised where a coroutine dies."""
    loop = SleepingLoop(give(1), give(2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del loop
        gc.collect()
    assert unraisable == [repr(RuntimeWarning("coroutine 'give' was never awaited"))] * 2


def test_a_coroutine_that_the_end_of_the_run_overtook_is_closed_without_a_warning(unraisable):
    async def main():
        create_task(give(1))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        virtual(main())
        gc.collect()
    assert unraisable == []


def test_a_refused_coroutine_is_still_warned_of(unraisable):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match="speed"):
            SleepingLoop(give(1), speed=-1)
        with pytest.raises(ValueError, match="speed"):
            run(give(1), speed=-1)
        gc.collect()
    assert unraisable == [repr(RuntimeWarning("coroutine 'give' was never awaited"))] * 2


# ---- async generators ----------------------------------------------------------------------------


async def endless(log: list[str]) -> Any:
    try:
        while True:
            yield len(log)
    finally:
        await sleep(1)
        log.append("closed")


def test_an_async_generator_in_a_cycle_is_closed():
    async def main():
        log, box = [], []
        generator = endless(log)
        box.extend((generator, box))
        await anext(generator)
        del generator, box
        gc.collect()
        await sleep(2)
        return log

    assert virtual(main()) == ["closed"]


def test_an_async_generator_dropped_by_the_last_step():
    log = []

    async def main():
        await anext(endless(log))
        local = endless(log)
        await anext(local)

    virtual(main())
    assert log == ["closed", "closed"]


def test_an_async_generator_dropped_after_the_run(unraisable):
    """It outlives the loop that knew it: closed at the end of the run, so that nothing is left."""
    log = []

    async def main():
        generator = endless(log)
        await anext(generator)
        return generator

    generator = virtual(main())
    assert log == ["closed"]
    del generator
    gc.collect()
    assert unraisable == []


def test_an_async_generator_dropped_by_a_log_handler_at_the_very_end():
    log, kept = [], []

    class Drop(logging.Handler):
        def emit(self, record):
            kept.clear()

    async def iterate():
        kept.append(endless(log))
        await anext(kept[0])

    async def main():
        failing.append(create_task(fail_at_once(ValueError())))
        await iterate()
        await sleep(1)

    failing = []
    logger = logging.getLogger("sleeploop")
    handler = Drop()
    logger.addHandler(handler)
    try:
        with pytest.raises(ValueError):  # noqa: PT011
            virtual(main())
    finally:
        logger.removeHandler(handler)
    assert log == ["closed"]
