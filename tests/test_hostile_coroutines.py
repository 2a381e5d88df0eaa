"""Coroutines that are driven, observed, entered and torn down in unusual ways."""

import contextlib
import gc
import math
import sys
import types
import weakref
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from sleeploop import (
    CancelledError,
    Lock,
    SleepingLoop,
    checkpoint,
    create_task,
    current_loop,
    current_task,
    sleep,
    sleep_forever,
)
from tests.helpers import OnDel, fail, give, outcome, virtual, yielding


class Duck:
    """A coroutine by its methods alone, which sleeps until it is stopped."""

    sleeper: Any = None

    def send(self, value: Any) -> Any:
        if self.sleeper is None:
            self.sleeper = sleep_forever()
        return self.sleeper.send(value)

    def throw(self, exc: BaseException) -> Any:
        raise exc

    def close(self) -> None:
        pass


# ---- odd errors ----------------------------------------------------------------------------------


def test_stop_iteration_as_the_error_of_a_task_that_others_wait_for():
    """A coroutine cannot fail with it, but what is made to look like one can, in close()."""

    class Stubborn(Duck):
        def close(self):
            raise StopIteration("odd")

    async def main():
        await checkpoint()
        raise LookupError

    async def wait(task):
        try:
            await task
        except CancelledError:
            outcomes.append(repr(await_again(task)))
            raise

    def await_again(task):
        with pytest.raises(StopIteration) as caught:
            task.result()
        return caught.value

    async def late():
        try:
            await sleep_forever()
        finally:
            tasks.append(create_task(Stubborn()))
            create_task(wait(tasks[0]))

    tasks, outcomes = [], []
    with pytest.raises(BaseExceptionGroup) as caught:
        SleepingLoop(main(), late(), speed=math.inf).run_until_complete()
    assert tasks[0].done()
    assert "LookupError" in repr(caught.value)


def test_errors_with_a_meaning_of_their_own():
    async def main():
        return [await outcome(create_task(fail(e))) for e in (StopIteration(1), end)]

    end = StopAsyncIteration()
    first, second = virtual(main())
    assert (type(first), type(first.__cause__)) == (RuntimeError, StopIteration)
    assert second is end
    with pytest.raises(GeneratorExit):
        virtual(fail(GeneratorExit()))


def test_a_stop_iteration_is_not_asked_for_its_value():
    """What it was made with counts, as for CPython's own await; no Python runs for that."""

    class Lie(StopIteration):
        @property
        def value(self):
            raise ZeroDivisionError

    class Thrown(Duck):
        def throw(self, exc):
            raise Lie("truth")

    async def main():
        await checkpoint()
        raise LookupError

    thrown = Thrown()
    loop = SleepingLoop(main(), speed=math.inf)
    task = loop.create_task(thrown)
    with pytest.raises(LookupError):
        loop.run_until_complete()
    assert task.result() == "truth"


def test_a_cancelled_error_thrown_while_another_is_being_handled():
    seen = []

    async def handling():
        try:
            raise KeyError
        except KeyError as handled:
            try:
                await sleep_forever()
            finally:
                seen.append((handled, sys.exc_info()[1]))

    async def failing():
        await checkpoint()
        raise LookupError

    with pytest.raises(LookupError) as caught:
        SleepingLoop(handling(), failing(), speed=math.inf).run_until_complete()
    ((handled, cancelled),) = seen
    assert isinstance(cancelled, CancelledError)
    assert cancelled.__context__ is handled
    assert handled.__context__ is None
    assert caught.value.__context__ is None


def test_what_is_being_handled_survives_an_await():
    handled = []

    async def main():
        try:
            raise LookupError
        except LookupError:
            for awaitable in (sleep(1), create_task(give(1)), yielding(None), outcome(yielding(5))):
                await awaitable
                handled.append(sys.exc_info()[0])
        handled.append(sys.exc_info()[0])

    virtual(main())
    assert handled == [LookupError] * 4 + [None]
    assert sys.exc_info() == (None, None, None)


def test_an_error_raised_again_and_again_becomes_no_cycle():
    async def wait(task):
        try:
            await task
        except ValueError:
            await task

    async def main():
        task = create_task(fail(ValueError("same")))
        errors = [await outcome(create_task(wait(task))) for _ in range(3)]
        assert errors == [task.exception()] * 3
        return errors[0]

    error = virtual(main())
    seen = []
    while error is not None:
        assert error not in seen
        seen.append(error)
        error = error.__context__


def test_the_caller_s_error_is_still_being_handled_after_a_run():
    try:
        raise LookupError
    except LookupError:
        assert virtual(give(1)) == 1
        handled = sys.exc_info()[0]
    assert handled is LookupError


# ---- under observation ---------------------------------------------------------------------------


async def sleeping():
    return [await sleep(delay) for delay in (0, 1, timedelta(days=1), -1)]


async def yielding_datetimes():
    await yielding(None)
    moment = current_loop().now() + timedelta(seconds=5)
    return await yielding(moment) >= moment, await outcome(yielding("nonsense")) is None


async def joining():
    tasks = [create_task(outcome(c)) for c in (give(1), fail(LookupError("gone")), sleep(2))]
    return [repr(await task) for task in tasks]


async def generating():
    async def count():
        try:
            for i in range(3):
                yield await give(i, 1)
        finally:
            await sleep(1)

    numbers = [number async for number in count()]
    async for number in count():
        numbers.append(number)
        break
    return numbers


async def nested(depth=50):
    return await nested(depth - 1) if depth else await give("deep", 1)


async def cancelling():
    ended = []

    async def victim():
        try:
            await sleep_forever()
        except CancelledError:
            ended.append(current_task().name)
            raise

    tasks = [create_task(victim(), daemon=True) for _ in range(2)]
    await checkpoint()
    return [task.waiting_on is not None for task in tasks], repr(tasks[0])


SCENARIOS = [sleeping, yielding_datetimes, joining, generating, nested, cancelling]


def scenario_result(scenario: Callable[[], Any]) -> tuple[Any, ...]:
    loop = SleepingLoop(scenario(), scenario(), speed=math.inf)
    loop.create_task(sleep_forever(), daemon=True)
    results = loop.run_until_complete()
    return results, loop.time_ns(), loop.stats().steps, loop.stats().wakeups


Callback = Callable[[str, types.CodeType], object]


@contextlib.contextmanager
def tracing(callback: Callback) -> Iterator[None]:
    def trace(frame: types.FrameType, event: str, arg: Any) -> Any:
        frame.f_trace_opcodes = True
        callback(event, frame.f_code)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


@contextlib.contextmanager
def profiling(callback: Callback) -> Iterator[None]:
    before = sys.getprofile()
    sys.setprofile(lambda frame, event, arg: callback(event, frame.f_code))
    try:
        yield
    finally:
        sys.setprofile(before)


@contextlib.contextmanager
def monitoring(callback: Callback) -> Iterator[None]:
    tool = sys.monitoring
    names = [name for name in vars(tool.events) if name.isupper() and name != "NO_EVENTS"]
    tool.use_tool_id(tool.PROFILER_ID, "sleeploop tests")
    try:
        events = 0
        for name in names:
            event = getattr(tool.events, name)
            tool.register_callback(
                tool.PROFILER_ID, event, lambda code, *args, name=name: callback(name, code)
            )
            if name not in ("C_RAISE", "C_RETURN"):  # these come with CALL
                events |= event
        tool.set_events(tool.PROFILER_ID, events)
        yield
    finally:
        tool.set_events(tool.PROFILER_ID, 0)
        tool.free_tool_id(tool.PROFILER_ID)


needs_monitoring = pytest.mark.skipif(sys.version_info < (3, 12), reason="came with 3.12")
observers = pytest.mark.parametrize(
    "observe", [tracing, profiling, pytest.param(monitoring, marks=needs_monitoring)]
)


@observers
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_same_when_watched(scenario, observe):
    plain = scenario_result(scenario)
    events = set()
    with observe(lambda event, code: events.add(event)):
        watched = scenario_result(scenario)
    assert watched == plain
    assert len(events) > 2


@observers
def test_an_observer_that_calls_back(observe):
    spawned = 0

    def spawn(event, code):
        nonlocal spawned
        with contextlib.suppress(RuntimeError):  # outside of a task
            task = current_task()
            repr(task)
            task.wake_time
            if spawned < 20:
                spawned += 1
                create_task(sleep(spawned))

    plain = scenario_result(joining)
    with observe(spawn):
        watched = scenario_result(joining)
    assert watched[0] == plain[0]
    assert spawned == 20


@observers
@pytest.mark.usefixtures("forgetful")
@pytest.mark.skipif(
    sys.version_info >= (3, 14) and hasattr(sys, "gettotalrefcount"),
    reason="an assert of the debug build's own fails, for any coroutine whatever drives it",
)
def test_an_observer_that_raises(observe):
    """At each of its calls in turn. Whatever comes of that, it comes from the run."""

    class Stop(Exception):
        pass

    async def main():
        task = create_task(give(1, 1))
        await sleep(1)
        return await task

    ours = {main.__code__, give.__code__}
    stopped = 0
    for n in range(1, 100):
        calls = 0

        def count(event, code, n=n):
            nonlocal calls
            # Only there: what is being handled in other code, CPython may then never let go.
            calls += code in ours
            if calls == n and code in ours:
                raise Stop

        loop = SleepingLoop(main(), speed=math.inf)
        try:
            with observe(count):
                loop.run_until_complete()
        except Stop:
            stopped += 1
        assert (loop.tasks(), calls >= n) == ([], True) or loop.time() == 1
    assert stopped > 2


# ---- coroutines without frames -------------------------------------------------------------------


async def numbers() -> Any:
    for number in (1, 2):
        await sleep(1)
        yield number


def awaitables_in_c() -> list[Any]:
    return [
        sleep(1),
        checkpoint(),
        give(1, 1).__await__(),
        numbers().asend(None),
        numbers().athrow(LookupError),
        numbers().aclose(),
        anext(numbers(), None),
    ]


def test_awaitables_in_c_run_as_tasks():
    async def main():
        outcomes = [outcome(create_task(awaitable)) for awaitable in awaitables_in_c()]
        return [await each for each in outcomes]

    *values, error, closed, last = (lambda r: [*r[:4], r[4], r[5], r[6]])(virtual(main()))
    assert values == [timedelta(seconds=1), None, 1, 1]
    assert isinstance(error, LookupError)
    assert (closed, last) == (None, 1)


def test_awaitables_in_c_have_a_repr_and_are_cancelled():
    async def main():
        tasks = [create_task(awaitable, daemon=True) for awaitable in awaitables_in_c()]
        reprs = [repr(task) for task in tasks]
        await checkpoint()
        return tasks, reprs, [repr(task) for task in tasks if task.wake_time is not None]

    tasks, before, sleeping = virtual(main())
    assert all("ready to start" in text for text in before)
    assert len(sleeping) == 4
    assert all("sleeping until 1.0 s" in text for text in sleeping)
    assert all(task.done() for task in tasks)


# ---- teardown ------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["return", "raise", "cancel"])
@pytest.mark.parametrize("other", [False, True], ids=["itself", "another"])
def test_a_dying_local_drives_a_coroutine_while_the_frame_is_cleared(how, other):
    answers = []

    def drive():
        for step in (lambda: coro.send(None), lambda: coro.throw(KeyError), coro.close):
            try:
                answers.append(step())
            except (RuntimeError, ValueError, StopIteration, KeyError) as error:
                answers.append(error)

    async def work():
        local = OnDel(drive)
        await sleep(1)
        if how == "raise":
            raise LookupError
        if how == "cancel":
            await sleep_forever()
        return local is None

    async def main():
        nonlocal coro
        driven = work()
        coro = yielding(None) if other else driven
        task = create_task(driven, daemon=True)
        del driven
        await sleep(2)
        return None if how == "cancel" else await outcome(task)

    coro = None
    result = virtual(main())
    assert isinstance(result, LookupError) == (how == "raise")
    del result  # its traceback holds the frame
    gc.collect()
    assert len(answers) == 3
    coro.close()
    answers.clear()


def test_a_dying_local_steps_the_loop_s_own_awaitables():
    traps = {}

    def drive():
        for trap in traps.values():
            with contextlib.suppress(RuntimeError, StopIteration, KeyError):
                trap.send(None)
            with contextlib.suppress(KeyError):
                trap.throw(KeyError)
            trap.close()

    async def work():
        local = OnDel(drive)
        traps["sleep"] = sleep(1)
        await traps["sleep"]
        return local is None

    async def main():
        task = create_task(work())
        traps["join"] = task.__await__()
        return await task

    assert virtual(main()) is False


def test_the_locals_of_a_cancelled_task_die_at_once():
    class Local:
        pass

    order = []

    async def work():
        local = Local()
        order.append(weakref.ref(local, lambda ref: order.append("died")))
        await sleep_forever()

    async def failing():
        await checkpoint()
        raise LookupError

    async def last():
        try:
            await sleep_forever()
        finally:
            order.append("next task's cleanup")

    gc.disable()
    try:
        with pytest.raises(LookupError):
            SleepingLoop(work(), failing(), last(), speed=math.inf).run_until_complete()
        assert order[1:] == ["died", "next task's cleanup"]
    finally:
        gc.enable()


@pytest.mark.parametrize("cleanup", ["returns", "fails"])
def test_a_coroutine_closed_by_somebody_else(cleanup):
    async def work():
        try:
            await sleep(5)
        finally:
            if cleanup == "fails":
                raise LookupError

    async def main():
        coro = work()
        task = create_task(coro)
        await sleep(1)
        with contextlib.suppress(LookupError):
            coro.close()
        error = await outcome(task)
        return error, current_loop().time()

    error, time = virtual(main())
    assert isinstance(error, RuntimeError)
    assert "already awaited" in str(error)
    assert time == 5


def test_a_coroutine_driven_by_somebody_else_between_its_steps():
    """The sleep is its task's; nobody else's send() makes it end early."""

    async def work():
        with pytest.raises(RuntimeError, match="awaited before"):
            await sleep(5)
        await sleep(5)
        return "done"

    async def main():
        coro = work()
        task = create_task(coro)
        await sleep(1)
        coro.send(None)
        return await outcome(task), current_loop().time()

    # From the second sleep it was woken at the time of the first, and that is an error, too.
    error, time = virtual(main())
    assert "awaited before" in str(error)
    assert time == 5


def test_a_lock_that_is_released_before_its_task_learns_that_it_has_it():
    async def odd():
        waiting = lock.acquire()
        assert await yielding(waiting.send(None)) is None
        lock.release()  # it has been told by the way it was woken, but not by the await
        await sleep(1)
        assert lock.owner is other
        del waiting
        assert lock.owner is other

    async def hold(seconds):
        async with lock:
            await sleep(seconds)

    async def main():
        nonlocal other
        first, task = create_task(hold(1)), create_task(odd())
        await checkpoint()
        other = create_task(hold(5))
        await first
        await task
        assert lock.owner is other
        await other

    lock, other = Lock(), None
    virtual(main())


def test_a_coroutine_that_drives_itself():
    async def main():
        with pytest.raises(ValueError, match="already executing"):
            current_task().coro.send(None)

    virtual(main())


@pytest.mark.parametrize("depth", [100, 20_000])
def test_deep_chains_of_awaits(depth):
    async def wrap(inner):
        return await inner

    coro = give("deep", 1)
    chain = [coro]
    for _ in range(depth):
        coro = wrap(coro)
        chain.append(coro)
    try:
        assert virtual(coro) == "deep"
    except RecursionError:  # not from 3.14 on, where awaits do not count as calls
        assert depth > sys.getrecursionlimit()
        assert sys.version_info < (3, 14)
    while chain:  # from the outermost in: freeing the chain at once is deep recursion in CPython
        chain.pop().close()
    assert virtual(give(1)) == 1
