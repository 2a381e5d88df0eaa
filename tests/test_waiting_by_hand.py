"""The core of waiting under bad use: what each wait has got, it has, or it goes on to the next."""

import contextlib
import gc
import sys
import threading

import pytest

import sleeploop
from sleeploop import (
    CancelScope,
    Event,
    Lock,
    checkpoint,
    create_task,
    current_loop,
    current_task,
    sleep,
)
from tests.helpers import now, outcome, virtual, yielding
from tests.waits import hold, taken, used

WAITS = {"Event.wait()": lambda: Event().wait(), "Lock.acquire()": lambda: Lock().acquire()}


every_wait = pytest.mark.parametrize("make", WAITS.values(), ids=list(WAITS))


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


def of_queue():
    queue = sleeploop.Queue()
    return queue.get(), lambda: queue.put_nowait(7), lambda: queue.qsize() == 1


def of_store():
    store = sleeploop.Store()
    return store.get(), lambda: store.put_nowait(7), lambda: store.items == (7,)


def of_channel():
    send_channel, receive_channel = sleeploop.open_channel(1)
    receive = receive_channel.receive()
    return (
        receive,
        lambda: send_channel.send_nowait(7),
        lambda: receive_channel.receive_nowait() == 7,
    )


def of_container():
    container = sleeploop.Container(5)
    return container.get(3), lambda: container.put_nowait(3), lambda: container.level == 3


def of_semaphore():
    semaphore = sleeploop.Semaphore(0)
    return semaphore.acquire(), semaphore.release, lambda: semaphore.value == 1


def of_limiter():
    limiter = sleeploop.CapacityLimiter(1)
    limiter.acquire_on_behalf_of_nowait("other")
    give = lambda: limiter.release_on_behalf_of("other")  # noqa: E731
    return limiter.acquire(), give, lambda: limiter.borrowed_tokens == 0


@pytest.mark.parametrize(
    "make", [of_queue, of_store, of_channel, of_container, of_semaphore, of_limiter]
)
def test_what_it_was_granted_goes_back_once_if_its_finalizer_is_called_by_hand(make):
    async def main():
        wait, give, is_there = make()
        task = create_task(outcome(wait))
        await checkpoint()
        give()
        wait.__del__()
        assert "was awaited before" in str(await task)
        assert is_there()

    virtual(main())
