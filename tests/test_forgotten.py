"""A forgotten `await` is said to be forgotten; what somebody has dealt with is not."""

import asyncio
import contextlib
import gc
import math
import subprocess
import sys
import types
import warnings
import weakref
from collections.abc import Callable, Coroutine, Iterator
from datetime import datetime
from typing import Any

import pytest

import sleeploop
from sleeploop import (
    Barrier,
    CancelledError,
    CapacityLimiter,
    Condition,
    Container,
    Event,
    Lock,
    Queue,
    Resource,
    Semaphore,
    SleepingLoop,
    Store,
    TaskGroup,
    all_of,
    as_completed,
    checkpoint,
    create_task,
    every,
    first_of,
    gather,
    move_on_after,
    open_channel,
    sleep,
    sleep_forever,
    sleep_until,
    wait_for,
)
from tests.helpers import fail, give, now, virtual, yielding


@pytest.fixture
def said() -> Iterator[list[str]]:
    """The warnings that there have been, each of which may come again and again."""
    messages: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield messages
        gc.collect()
    messages += [f"{warning.category.__name__}: {warning.message}" for warning in caught]


@pytest.fixture
def nothing_said() -> Iterator[None]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
        gc.collect()
    assert [str(warning.message) for warning in caught] == []


async def server(*, started: Callable[[], object]) -> None:
    started()


AWAITABLES: dict[str, Callable[[], Any]] = {
    "sleep": lambda: sleep(1),
    "sleep_until": lambda: sleep_until(1),
    "sleep_forever": sleep_forever,
    "checkpoint": checkpoint,
    "Every.__anext__": lambda: every(1).__anext__(),
    "TaskGroup.start": lambda: TaskGroup().start(server),
    "TaskGroup.__aexit__": lambda: TaskGroup().__aexit__(None, None, None),
    "Event.wait": lambda: Event().wait(),
    "Lock.acquire": lambda: Lock().acquire(),
    "Semaphore.acquire": lambda: Semaphore().acquire(),
    "CapacityLimiter.acquire": lambda: CapacityLimiter(1).acquire(),
    "Condition.wait": lambda: Condition().wait(),
    "Barrier.wait": lambda: Barrier(2).wait(),
    "Queue.put": lambda: Queue().put(1),
    "Queue.get": lambda: Queue().get(),
    "Queue.join": lambda: Queue().join(),
    "SendChannel.send": lambda: open_channel(1)[0].send(1),
    "ReceiveChannel.receive": lambda: open_channel(1)[1].receive(),
    "Resource.request": lambda: Resource().request(),
    "Container.put": lambda: Container().put(1),
    "Store.get": lambda: Store().get(),
}
every_awaitable = pytest.mark.parametrize("name", AWAITABLES)


# ---- forgotten -----------------------------------------------------------------------------------


@every_awaitable
def test_what_is_dropped_is_said_to_be_forgotten(name):
    async def main():
        with pytest.warns(RuntimeWarning) as caught:
            AWAITABLES[name]()
        return caught

    for caught in (virtual(main()), main().send):
        if callable(caught):  # without a loop as well
            with pytest.raises(StopIteration) as stop:
                caught(None)
            caught = stop.value.value
        assert [str(warning.message) for warning in caught] == [
            f"coroutine '{name}' was never awaited"
        ]
        assert caught[0].filename == __file__


@every_awaitable
def test_it_is_named_like_a_coroutine(name):
    aw = AWAITABLES[name]()
    assert isinstance(aw, Coroutine)
    if name != "TaskGroup.__aexit__":
        assert (aw.__qualname__, aw.__name__) == (name, name.rpartition(".")[2])
    aw.close()


def test_a_statement_without_await_is_an_error_to_type_checkers() -> None:
    """The comments are checked: one that is not needed is an error, too."""

    async def main() -> None:
        queue, lock = Queue[int](), Lock()
        sleep(1)  # type: ignore[unused-coroutine]
        checkpoint()  # type: ignore[unused-coroutine]
        queue.put(1)  # type: ignore[unused-coroutine]
        lock.acquire()  # type: ignore[unused-coroutine]
        TaskGroup().start(server)  # type: ignore[unused-coroutine]

    with pytest.warns(RuntimeWarning) as caught:
        sleeploop.run(main(), speed=math.inf)
    assert len(caught) == 5


@every_awaitable
def test_in_a_cycle(name, said):
    box = [AWAITABLES[name]()]
    box.append(box)
    del box
    gc.collect()
    said.append("collected")


@every_awaitable
def test_each_is_said_once_even_if_a_hook_keeps_it(name, monkeypatch):
    kept = []
    monkeypatch.setattr(
        sys, "unraisablehook", lambda args: kept.append((args.object, args.exc_value))
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        aw = AWAITABLES[name]()
        kind = type(aw)
        del aw
        ((aw, error),) = kept
        assert type(aw) is kind
        assert repr(error) == f"RuntimeWarning(\"coroutine '{name}' was never awaited\")"
        with pytest.raises(RuntimeError, match="awaited before"):
            aw.send(None)
        kept.clear()
        del aw, error
        gc.collect()
    assert kept == []


def test_an_error_that_is_on_its_way_is_not_lost(nothing_said):
    def forget():
        warnings.simplefilter("error")
        aw = sleep(1)
        raise LookupError(aw.__name__)

    unraisable = []  # only what it was: the collector does not see the hook's arguments
    hook, sys.unraisablehook = sys.unraisablehook, lambda args: unraisable.append(args.exc_type)
    try:
        with warnings.catch_warnings(), pytest.raises(LookupError, match="sleep"):
            forget()
        gc.collect()
    finally:
        sys.unraisablehook = hook
    assert unraisable == [RuntimeWarning]


def test_a_filter_that_ignores_coroutines_ignores_these(nothing_said):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "coroutine '.*' was never awaited")
        for make in AWAITABLES.values():
            make()


def test_code_with_builtins_of_its_own():
    code = "def forget(sleep):\n    sleep(1)\n"
    scope: dict[str, Any] = {"__builtins__": {}}
    exec(code, scope)
    with pytest.warns(RuntimeWarning, match="'sleep' was never awaited"):
        scope["forget"](sleep)

    async def main():
        scope["forget"](sleep)

    with pytest.warns(RuntimeWarning, match="'sleep' was never awaited\nCoroutine created at"):
        sleeploop.run(main(), speed=math.inf, debug=True)


def test_refused_arguments_are_the_caller_s_again(said):
    aw = sleep(1)
    for call in (gather, first_of, all_of):
        with pytest.raises(TypeError):
            call(aw, 42)
    with pytest.raises(TypeError):
        wait_for(aw, "soon")
    with pytest.raises(TypeError):
        SleepingLoop(aw, 42)
    assert virtual(aw).total_seconds() == 1


def test_at_the_end_of_the_process():
    program = (
        "import math, sleeploop\n"
        "async def main():\n"
        "    global kept, task\n"
        "    kept = sleeploop.sleep(1), sleeploop.Queue().put(1)\n"
        "    task = sleeploop.create_task(sleeploop.sleep_forever(), daemon=True)\n"
        "sleeploop.run(main(), speed=math.inf)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")
    assert sorted(line.partition("coroutine")[2] for line in done.stderr.splitlines()) == [
        " 'Queue.put' was never awaited",
        " 'sleep' was never awaited",
    ]


# ---- not forgotten -------------------------------------------------------------------------------


@pytest.mark.usefixtures("nothing_said")
@every_awaitable
def test_what_is_closed_or_thrown_into(name):
    AWAITABLES[name]().close()
    with pytest.raises(LookupError):
        AWAITABLES[name]().throw(LookupError())


@pytest.mark.usefixtures("nothing_said")
@pytest.mark.parametrize("name", [name for name in AWAITABLES if "aexit" not in name])
def test_what_was_awaited_in_vain(name):
    """Without a loop: the error has said so. A sleep gets a datetime out of it."""
    aw = AWAITABLES[name]()
    with contextlib.suppress(RuntimeError):
        assert isinstance(aw.send(None), datetime)


@pytest.mark.usefixtures("nothing_said")
@every_awaitable
def test_a_task_that_is_cancelled_before_its_first_step(name):
    async def main():
        task = create_task(AWAITABLES[name]())
        task.cancel()
        with pytest.raises(CancelledError):
            await task

    virtual(main())


@pytest.mark.usefixtures("nothing_said")
@every_awaitable
def test_a_loop_that_never_runs(name):
    SleepingLoop(AWAITABLES[name]()).create_task(AWAITABLES[name]())
    gc.collect()


@pytest.mark.usefixtures("nothing_said")
@pytest.mark.parametrize("function", [gather, first_of, all_of])
@every_awaitable
def test_what_is_given_away_and_never_begun(function, name):
    async def main():
        with move_on_after(0):
            await function(sleep(1), AWAITABLES[name]())
        given = function(AWAITABLES[name](), sleep(1))
        given.close()
        box = [given]
        box.append(box)

    virtual(main())


@pytest.mark.usefixtures("nothing_said")
@every_awaitable
def test_wait_for_and_as_completed(name):
    async def main():
        with move_on_after(0), contextlib.suppress(RuntimeError):
            await wait_for(AWAITABLES[name](), 5)
        wait_for(AWAITABLES[name](), 5).close()
        with pytest.raises(TimeoutError):
            async for _ in as_completed([AWAITABLES["sleep"](), sleep(3)], timeout=0):
                pass

    virtual(main())


@pytest.mark.usefixtures("nothing_said")
def test_a_gather_that_fails_closes_the_rest():
    async def main():
        event = Event()
        with pytest.raises(LookupError):
            await gather(fail(LookupError()), event.wait(), sleep(5), Queue().get())
        return now()

    assert virtual(main()) == 0


@pytest.mark.usefixtures("nothing_said")
def test_what_came_too_late_in_a_race():
    """It is left as it is, and can still be awaited."""

    async def main():
        event, lock = Event(), Lock()
        event.set()
        never, nap = lock.acquire(), sleep(5)
        await first_of(event.wait(), never, nap, lock.acquire())
        await never
        await first_of(event.wait(), Queue().get(), sleep(5))

    virtual(main())


@pytest.mark.usefixtures("nothing_said")
def test_what_is_withdrawn_or_refused():
    async def main():
        Resource().request().cancel()
        with pytest.raises(TypeError, match="'await' it"):
            await yielding(sleep(1))

    virtual(main())


@pytest.mark.usefixtures("nothing_said")
def test_the_ways_of_everyday():
    async def main():
        lock, event, queue = Lock(), Event(), Queue(1)
        async with lock, Resource().request(), TaskGroup() as group:
            group.create_task(queue.put(1))
            await group.start(server)
        async for _ in queue:
            queue.shutdown()
        async for _ in every(1):
            break
        create_task(event.wait(), daemon=True)
        await gather(give(1), sleep(0))

    virtual(main())


@pytest.mark.usefixtures("nothing_said")
def test_on_another_loop():
    async def main():
        steps = sleep(0).__await__()
        assert isinstance(steps.send(None), datetime)

    asyncio.run(main())


# ---- where it was made ---------------------------------------------------------------------------


def test_a_debug_run_says_where():
    async def main():
        with pytest.warns(RuntimeWarning) as caught:
            forget()
        return str(caught[0].message).splitlines()

    def forget():
        Queue().put(1)

    first, second, *lines = sleeploop.run(main(), speed=math.inf, debug=True)
    assert first == "coroutine 'Queue.put' was never awaited"
    assert second == "Coroutine created at (most recent call last)"
    assert lines[-1].strip() == "Queue().put(1)"
    assert lines[-2].endswith("in test_a_debug_run_says_where.<locals>.forget")
    assert lines[-3].strip() == "forget()"
    assert len(lines) <= 20
    assert sleeploop.run(main(), speed=math.inf, debug=False) == [first]


@every_awaitable
def test_of_each(name):
    async def main():
        with pytest.warns(RuntimeWarning, match=r"never awaited\nCoroutine created at") as caught:
            AWAITABLES[name]()
        assert len(caught) == 1

    sleeploop.run(main(), speed=math.inf, debug=True)


def test_nothing_is_kept_when_no_debug_run_is_under_way():
    def make():
        return sleep(1)

    async def main():
        code = make.__code__.replace(co_filename=name)
        made = types.FunctionType(code, globals())()
        made.close()
        del code
        assert sys.getrefcount(name) > before

    async def other():
        await sleep(1)

    name = "a file".upper()
    outer = SleepingLoop(other(), speed=math.inf, debug=True)
    outer.run_until(0.5)
    before = sys.getrefcount(name)
    sleeploop.run(main(), speed=math.inf, debug=True)
    outer.run_until_complete()
    gc.collect()
    assert sys.getrefcount(name) == before


def test_a_debug_loop_that_is_dropped_while_suspended():
    async def main():
        await sleep(1)

    loop = SleepingLoop(main(), speed=math.inf, debug=True)
    loop.run_until(0.5)
    ref = weakref.ref(loop)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # a record of it would keep the loop
        del loop
        gc.collect()
    assert ref() is None
    with pytest.warns(RuntimeWarning) as caught:
        sleep(1)
    assert str(caught[0].message) == "coroutine 'sleep' was never awaited"
