"""The rules of docs/waiting.md under bad use: what each wait has got, it has, or it goes on to the
next; and no Python code whatever brings a place into disorder."""

import contextlib
import copy
import gc
import math
import operator
import pickle
import sys
import threading
import types
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
    current_task,
    gather,
    sleep,
    wait_for,
)
from tests.helpers import OnDel, awaited_error, ended, now, outcome, references, virtual, yielding

WAITS = {"Event.wait()": lambda: Event().wait(), "Lock.acquire()": lambda: Lock().acquire()}
every_wait = pytest.mark.parametrize("make", WAITS.values(), ids=list(WAITS))


async def hold(lock, log, name, seconds=1):
    async with lock:
        log.append((name, now()))
        await sleep(seconds)


async def taken(log, name="holder", seconds=1):
    """A lock that another task has, for some time."""
    lock = Lock(name="l")
    create_task(hold(lock, log, name, seconds), name=name)
    await checkpoint()
    return lock


async def used(lock):
    """The lock is as it should be: it can be had, and given back."""
    async with lock:
        assert lock.owner is current_task()
    assert repr(lock) == "<Lock 'l' unlocked>"


class Wrapped:
    """An awaitable around another, with something to do before each step that the loop makes."""

    def __init__(self, awaitable, before_parking=None, instead=None):
        self.steps = awaitable.__await__()
        self.before_parking = before_parking
        self.instead = instead

    def __await__(self):
        try:
            trap = self.steps.send(None)
            while True:
                if self.before_parking is not None:
                    self.before_parking()
                sent = yield trap
                if self.instead is not None:
                    return self.instead()
                trap = self.steps.send(sent)
        except StopIteration as stop:
            return stop.value


# ---- once ----------------------------------------------------------------------------------------


def test_a_wait_is_awaited_once():
    async def main():
        lock = await taken([])
        event = Event()
        event.set()
        for wait in (lock.acquire(), event.wait()):
            assert await wait is True
            with pytest.raises(
                RuntimeError, match=r"this .*\(\) was awaited before: make a new one"
            ):
                await wait
            assert repr(wait).endswith(", done>")
        lock.release()
        await used(lock)

    virtual(main())


@pytest.mark.usefixtures("forgetful")
@every_wait
def test_a_wait_that_was_closed_is_used_up(make):
    async def main():
        wait = make()
        wait.close()
        wait.close()
        with pytest.raises(RuntimeError, match="awaited before"):
            await wait
        wait = make()
        with pytest.raises(KeyError, match="x"):
            wait.throw(KeyError("x"))
        with pytest.raises(RuntimeError, match="awaited before"):
            await wait
        wait = make()
        for bad in (5, "KeyError", None, object):
            with pytest.raises(TypeError):
                wait.throw(bad)
        with pytest.raises(TypeError, match="1 to 3 arguments"):
            wait.throw()
        assert repr(wait).endswith(", not awaited yet>")

    virtual(main())


def test_two_tasks_cannot_await_the_same_wait():
    async def main():
        lock, log = await taken([]), []
        wait = lock.acquire()

        async def first():
            assert await wait
            log.append(now())
            lock.release()

        task = create_task(first())
        await checkpoint()
        with pytest.raises(RuntimeError, match="awaited before"):
            await wait
        await task
        await used(lock)
        return log

    assert virtual(main()) == [1.0]


def test_a_wake_up_is_not_taken_by_another_task():
    """Who drives the granted wait of another task by hand gets an error; that one has it still."""

    async def main():
        lock = await taken([])
        wait = lock.acquire()

        async def first():
            assert await wait is True
            assert lock.owner is current_task()
            lock.release()

        task = create_task(first())
        await sleep(1)  # until the pass in which it is handed over
        while lock.owner is not task:
            await checkpoint()
        for drive in (lambda: wait.send(None), lambda: next(wait)):
            with pytest.raises(RuntimeError, match="awaited before"):
                drive()
        await task
        await used(lock)

    virtual(main())


@every_wait
def test_yielded_instead_of_awaited(make):
    async def main():
        with pytest.raises(
            TypeError, match="'await' it, once and on this loop, instead of yielding"
        ):
            await yielding(make())
        wait = make()
        wait.close()
        with pytest.raises(TypeError, match="instead of yielding it"):
            await yielding(wait)

    virtual(main())


def test_the_wait_of_another_task_yielded():
    async def main():
        lock, log = await taken([]), []
        wait = lock.acquire()

        async def first():
            assert await wait
            log.append(now())
            lock.release()

        create_task(first())
        await checkpoint()
        with pytest.raises(TypeError, match="instead of yielding it"):
            await yielding(wait)  # parked by the other
        await sleep(2)
        await used(lock)
        return log

    assert virtual(main()) == [1.0]


def test_a_wait_begun_by_one_task_and_yielded_by_another():
    """Where it would be parked, the first one would be woken."""

    async def begin(wait):
        assert wait.send(None) is wait

    async def main():
        lock, event = await taken([]), Event()
        for wait in (lock.acquire(), event.wait()):
            task = create_task(begin(wait))
            await task
            with pytest.raises(TypeError, match="instead of yielding it"):
                await yielding(wait)
        event.set()
        await sleep(1)
        await used(lock)

    virtual(main())


def test_a_wait_begun_by_hand_and_left_alone():
    """It has never been parked, so nothing can come of it."""

    async def main():
        lock, event = await taken([]), Event()
        for wait in (lock.acquire(), event.wait()):
            assert wait.send(None) is wait
            assert repr(wait).endswith(", waiting>")
            with pytest.raises(RuntimeError, match="awaited before"):
                wait.send(None)
        assert repr(event) == "<Event not set>"
        del wait
        await sleep(1)
        await used(lock)

    virtual(main())


def test_the_same_wait_yielded_again_by_a_wrapper():
    """Which wakes it for nothing: it goes back to the end of the line."""

    class Stubborn:
        def __init__(self, wait, scope):
            self.wait, self.scope = wait, scope

        def __await__(self):
            trap = self.wait.send(None)
            with contextlib.suppress(sleeploop.CancelledError):
                yield trap
            log.append(("cancelled", now()))
            with CancelScope(shield=True):
                yield trap
                yield trap  # granted: there is nothing to wait for
            try:
                self.wait.send(None)
            except StopIteration as stop:
                return stop.value

    log = []

    async def main():
        lock = await taken([], seconds=5)

        async def first(scope):
            with scope:
                assert await Stubborn(lock.acquire(), scope) is True
                log.append(("first", now()))
                lock.release()

        scope = CancelScope()
        create_task(first(scope))
        await checkpoint()
        second = create_task(hold(lock, log, "second"))
        await sleep(1)
        scope.cancel()
        await second
        await sleep(1)
        await used(lock)

    virtual(main())
    assert log == [("cancelled", 1.0), ("second", 5.0), ("first", 6.0)]


# ---- close() and throw() by hand -----------------------------------------------------------------


def throw(steps):
    with pytest.raises(KeyError, match="by hand"):
        steps.throw(KeyError("by hand"))


ENDS = {"close": lambda steps: steps.close(), "throw": throw}
every_end = pytest.mark.parametrize("end", ENDS.values(), ids=list(ENDS))


@every_end
@pytest.mark.parametrize("what", ["wait", "coroutine"])
@pytest.mark.parametrize("when", ["parked", "granted"])
def test_a_wait_is_ended_by_hand(end, what, when):
    """The lock goes on to the next who waits, and the task fails or is over."""

    async def main():
        log = []
        lock = await taken([])

        async def victim():
            await box.pop()
            log.append("never")

        box = [lock.acquire()]
        wait = box[0]
        steps = wait if what == "wait" else victim()
        task = create_task(victim() if what == "wait" else steps)
        await checkpoint()
        behind = create_task(hold(lock, log, "behind"))
        await checkpoint()
        if when == "granted":
            await sleep(1)
            while lock.owner is not task:
                await checkpoint()
        del wait
        end(steps)
        if when == "granted":
            assert lock.owner is behind
        else:
            assert repr(lock).endswith("2 waiting>")
        del steps
        assert isinstance(await outcome(task), RuntimeError)
        await behind
        await used(lock)
        return log

    assert virtual(main()) == [("behind", 1.0)]


@every_end
def test_an_event_s_wait_is_ended_by_hand(end):
    async def main():
        event = Event()
        wait = event.wait()

        async def victim():
            await wait

        task = create_task(victim())
        other = create_task(event.wait())
        await checkpoint()
        end(wait)
        event.set()
        assert isinstance(await outcome(task), RuntimeError)
        assert await other is True

    virtual(main())


def test_a_closed_wait_that_somebody_keeps_passes_on_what_it_gets():
    async def main():
        log = []
        lock = await taken([])
        wait = lock.acquire()

        async def victim():
            await wait

        task = create_task(victim())
        await checkpoint()
        behind = create_task(hold(lock, log, "behind"))
        wait.close()
        assert isinstance(await outcome(task), RuntimeError)
        await behind
        assert repr(wait).endswith(", done>")
        await used(lock)
        return log

    assert virtual(main()) == [("behind", 1.0)]


def test_an_exception_that_ends_the_wait_while_it_is_made():
    """throw() calls a class, which may do anything with the wait before."""

    class Sly(Exception):
        def __init__(self):
            super().__init__()
            try:
                wait.send(None)
            except StopIteration as stop:
                log.append(stop.value)

    class Around:
        def __await__(self):
            yield wait.send(None)
            try:
                wait.throw(Sly)
            except Sly:
                return lock.owner is current_task()

    log = []

    async def main():
        nonlocal lock, wait
        lock = await taken([])
        wait = lock.acquire()
        assert await Around() is True
        with pytest.raises(RuntimeError, match="awaited before"):
            wait.send(None)
        lock.release()
        await used(lock)

    lock = wait = None
    virtual(main())
    assert log == [True]


# ---- granted, and never taken --------------------------------------------------------------------


def test_a_wake_up_that_is_not_passed_on():
    """The wrapper lets the wait go, and with it the lock."""

    async def main():
        log = []
        lock = await taken(log)

        async def forgetful():
            assert await Wrapped(lock.acquire(), instead=lambda: "instead") == "instead"
            assert lock.owner is not current_task()
            log.append("forgot")

        task = create_task(forgetful())
        await checkpoint()
        await hold(lock, log, "behind")
        assert task.done()
        await used(lock)
        return log

    assert virtual(main()) == [("holder", 0.0), "forgot", ("behind", 1.0)]


@pytest.mark.parametrize("again", [False, True])
def test_released_without_having_taken_it(again):
    """The wait is kept, the lock released by its task all the same: the wait that dies later must
    not take it from somebody else, not even from the same task."""

    async def main():
        log = []
        lock = await taken(log)

        async def sly():
            wrapper = Wrapped(lock.acquire(), instead=lambda: None)
            await wrapper
            assert lock.owner is current_task()
            lock.release()
            if again:
                await lock.acquire()
            else:
                await sleep(0.5)
            owner = lock.owner
            assert owner is not None
            del wrapper
            assert lock.owner is owner
            if again:
                lock.release()

        task = create_task(sly())
        await checkpoint()
        await hold(lock, log, "behind")
        await task
        await used(lock)
        return log

    assert virtual(main()) == [("holder", 0.0), ("behind", 1.0)]


def test_a_granted_wait_in_a_garbage_cycle():
    async def main():
        log = []
        lock = await taken(log)

        async def forgetful():
            box = [Wrapped(lock.acquire(), instead=lambda: None)]
            box.append(box)
            await box[0]

        gc.disable()
        try:
            task = create_task(forgetful())
            await checkpoint()
            behind = create_task(hold(lock, log, "behind"))
            await sleep(3)
            assert task.done()
            assert log == [("holder", 0.0)]
            gc.collect()
        finally:
            gc.enable()
        assert lock.owner is behind
        await behind
        await used(lock)
        return log

    assert virtual(main()) == [("holder", 0.0), ("behind", 3.0)]


@pytest.mark.realtime
def test_a_granted_wait_that_another_thread_collects_wakes_the_loop():
    def work():
        try:
            sleeploop.run(main())
        finally:
            ready.set()

    async def main():
        log = []
        lock = await taken(log, seconds=0.01)

        async def forgetful():
            box = [Wrapped(lock.acquire(), instead=lambda: None)]
            box.append(box)
            await box[0]

        create_task(forgetful())
        await checkpoint()
        behind = create_task(hold(lock, log, "behind", 0))
        await sleep(0.05)
        assert not behind.done()
        current_loop().call_soon_threadsafe(ready.set)
        with CancelScope(deadline=60) as scope:
            await behind
        ends.append(scope.cancelled_caught)

    ends, ready = [], threading.Event()
    gc.disable()
    try:
        thread = threading.Thread(target=work)
        thread.start()
        ready.wait()
        threading.Event().wait(0.05)  # it is idle by then; if not, the test shows nothing
        gc.collect()
        thread.join()
    finally:
        gc.enable()
    assert ends == [False]


def test_a_task_whose_cancellation_meets_a_wait_that_was_yielded_again():
    """Granted, but cancelled at the yield: it has not happened, so the next one has it."""

    class Again:
        def __await__(self):
            trap = wait.send(None)
            yield trap
            scope.cancel()
            yield trap
            raise AssertionError("went on")

    async def main():
        nonlocal wait
        log = []
        lock = await taken(log)
        wait = lock.acquire()
        behind = None

        async def again():
            with scope:
                try:
                    await Again()
                finally:
                    pending = sys.exception()
                    with pytest.raises(sleeploop.CancelledError):
                        wait.throw(pending)
                    del pending

        create_task(again())
        await checkpoint()
        behind = create_task(hold(lock, log, "behind"))
        await behind
        await used(lock)
        return log

    wait, scope = None, CancelScope()
    assert virtual(main()) == [("holder", 0.0), ("behind", 1.0)]
    assert scope.cancelled_caught


# ---- between the yield and the parking -----------------------------------------------------------


def test_what_comes_between_the_yield_and_the_parking_is_not_lost():
    async def main():
        event = Event()
        assert await Wrapped(event.wait(), before_parking=event.set) is True
        event.clear()
        with CancelScope(deadline=now() + 1) as scope:
            await Wrapped(event.wait(), before_parking=lambda: (event.set(), event.clear()))
        assert scope.cancelled_caught  # nobody waited yet when it was set
        with CancelScope() as scope:
            await Wrapped(event.wait(), before_parking=scope.cancel)
        assert scope.cancelled_caught
        assert repr(event) == "<Event not set>"

    virtual(main())


def test_the_holder_s_coroutine_is_closed_by_another_task():
    """It leaves its block in a step that is not its own: the lock stays with the task."""

    async def main():
        lock = await taken([])
        owner = lock.owner
        with pytest.raises(
            RuntimeError, match=r"held by task 'holder' .* only that task can release"
        ):
            await Wrapped(lock.acquire(), before_parking=owner.coro.close)
        assert lock.owner is owner
        assert isinstance(await outcome(owner), RuntimeError)
        assert lock.owner is None
        assert lock.locked()

    virtual(main())


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


# ---- the two methods that stand in a lock itself -------------------------------------------------


def test_they_keep_the_lock_and_not_the_other_way_round():
    lock = Lock(name="kept")
    ref = weakref.ref(lock)
    enter, leave = lock.__aenter__, lock.__aexit__
    before = references(lock)
    more = [lock.__aenter__ for _ in range(100)]
    assert {id(method) for method in more} == {id(enter)}
    assert references(enter) >= 101
    assert references(lock) == before  # once for all of them
    del more, lock
    assert enter.__self__ is ref()
    assert "Lock 'kept'" in repr(enter)
    del enter
    assert ref() is not None
    assert leave.__self__ is ref()
    del leave
    assert ref() is None


def test_they_are_used_when_nobody_else_has_the_lock():
    async def main():
        enter = Lock(name="only").__aenter__
        assert await enter() is None
        lock = enter.__self__
        del enter
        assert lock.owner is current_task()
        leave = lock.__aexit__
        del lock
        await leave(None, None, None)
        assert "unlocked" in repr(leave)

    virtual(main())


def test_made_and_dropped_again_and_again():
    lock = Lock()
    before = references(lock)
    for _ in range(1000):
        lock.__aenter__
        (lock.__aexit__, lock.__aenter__, lock.__aexit__)
    assert references(lock) == before


def test_wrong_arguments():
    async def main():
        lock = Lock(name="l")
        for call in (
            lambda: lock.__aenter__(1),
            lambda: lock.__aenter__(x=1),
            lambda: lock.__aexit__(),
            lambda: lock.__aexit__(None, None),
            lambda: lock.__aexit__(None, None, None, None),
            lambda: lock.__aexit__(None, None, tb=None),
            lambda: Lock.__aenter__(),
            lambda: Lock.__aenter__(lock, 1),
            lambda: Lock.__aexit__(lock),
            lambda: Lock.__aenter__(5),
            lambda: Lock.__aenter__(Event()),
            lambda: Lock.__aexit__(object(), None, None, None),
            lambda: Lock.__aenter__(self=lock),
        ):
            with pytest.raises(TypeError, match=r"__a(enter|exit)__"):
                call()
            assert not lock.locked()

    virtual(main())


def test_found_in_the_type_by_those_who_look_there():
    for name in ("__aenter__", "__aexit__"):
        found = vars(Lock)[name]
        assert found.__get__(None, Lock) is found
        lock = Lock()
        assert found.__get__(lock) is getattr(lock, name)
        for other in (object(), 5, Event(), Lock, found):
            with pytest.raises(TypeError, match="take an object of their type"):
                found.__get__(other)
        assert types.MethodType(found, lock).__self__ is lock
        assert not hasattr(found, "__set__")
        assert not hasattr(found, "__dict__")

    class Borrower:
        __aenter__, __aexit__ = Lock.__aenter__, Lock.__aexit__

    async def main():
        with pytest.raises(TypeError, match="take an object of their type"):
            async with Borrower():
                pass

    virtual(main())


def test_they_have_no_life_of_their_own():
    lock = Lock()
    enter = lock.__aenter__
    with pytest.raises(TypeError, match="weak reference"):
        weakref.ref(enter)
    with pytest.raises(AttributeError):
        enter.extra = 1
    with pytest.raises(AttributeError):
        enter.__self__ = 5
    assert not gc.is_tracked(enter)
    assert hash(enter) == hash(lock.__aenter__)
    assert enter != lock.__aexit__
    assert enter != Lock().__aenter__
    assert gc.get_referents(enter) == []


def test_the_last_reference_goes_while_it_is_called():
    """The call itself holds it."""

    async def main():
        stack = [Lock(name="l")]
        wait = stack.pop().__aenter__()
        await wait
        with pytest.raises(TypeError):
            Lock().__aexit__(OnDel(gc.collect))
        async with Lock():
            gc.collect()
        async with contextlib.AsyncExitStack() as exits:
            ref = weakref.ref(await_lock := Lock())
            await exits.enter_async_context(await_lock)
            del await_lock
            gc.collect()
            assert ref().locked()
        assert ref() is None

    virtual(main())


def test_everything_the_collector_knows_can_be_looked_at():
    async def main():
        lock, event = await taken([]), Event()
        tasks = [create_task(event.wait()), create_task(lock.acquire())]
        await checkpoint()
        seen = []
        for thing in gc.get_objects():
            if type(thing).__name__ == "Wait":
                kind, what = gc.get_referents(thing)
                assert kind is type(thing)
                seen += [repr(thing)] * (what in (lock, event))
        assert sorted(seen) == [
            "<Event.wait() of Event, waiting>",
            "<Lock.acquire() of Lock 'l' held by task 'holder' since 0.0 s, waiting>",
        ]
        event.set()
        for task in tasks:
            assert await task

    gc.collect()
    virtual(main())


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
