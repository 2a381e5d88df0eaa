"""More of what tests.rigs.oom runs while memory runs out: scopes, groups, cancelling, reports."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import sleeploop
from sleeploop import (
    CancelledError,
    CancelScope,
    SleepingLoop,
    Task,
    TaskGroup,
    checkpoint,
    create_task,
    current_effective_deadline,
    current_task,
    sleep,
    sleep_forever,
    timeout,
)

from .oom_scenarios import Undone, failing, nap, raises, scenario

# ---- cancel scopes -----------------------------------------------------------------------------


async def awaited_error(awaitable: Awaitable[object]) -> CancelledError:
    """The CancelledError of an await that has to raise one."""
    try:
        await awaitable
    except CancelledError as error:
        return error
    raise AssertionError("not cancelled")


def check_told(error: CancelledError, source: str, by: str | None, reason: object) -> None:
    """What the error tells is right; of what it costs memory to note, some may be missing."""
    assert error.source == source
    assert error.source_task == by
    assert error.reason == reason or (source != "explicit" and error.reason is None)
    assert error.where is None or "oom_scopes" in error.where
    assert str(error)
    assert repr(error).startswith("CancelledError(")


def in_virtual_time(main: Callable[[], Any]) -> Any:
    return sleeploop.run(main(), speed=math.inf)


async def cancels_its_scopes() -> float:
    with CancelScope() as scope:
        scope.cancel("enough")
        scope.cancel("the second time")
        check_told(await awaited_error(sleep(1)), "explicit", "Task-1", "enough")
        await checkpoint()
    assert scope.cancel_called
    assert scope.cancelled_caught
    early = CancelScope()
    early.cancel(("no", "string"))
    async with early:
        check_told(await awaited_error(sleep_forever()), "explicit", "Task-1", ("no", "string"))
        await sleep_forever()
    assert early.cancelled_caught
    return sleeploop.current_loop().time()


@scenario
def cancelled_scopes() -> None:
    assert in_virtual_time(cancels_its_scopes) == 0


async def cancels_around_shields() -> list[str]:
    done = []
    with CancelScope() as outer:
        with CancelScope(shield=True) as shield, CancelScope() as inner:
            outer.cancel()
            await sleep(1)
            inner.cancel()
            done.append("shielded")
            await awaited_error(sleep(1))
            shield.shield = False
            await sleep(1)
        done.append("not reached")
    assert outer.cancelled_caught
    assert not inner.cancelled_caught
    assert not shield.cancelled_caught
    return done


@scenario
def shielded_scopes() -> None:
    assert in_virtual_time(cancels_around_shields) == ["shielded"]


async def sets_deadlines() -> float:
    loop = sleeploop.current_loop()
    with CancelScope(deadline=2) as scope:
        assert current_effective_deadline() == 2
        scope.deadline = loop.now() + timedelta(seconds=3)
        scope.reschedule(1.5)
        assert scope.when() == 1.5
        with sleeploop.move_on_at(loop.now(UTC) + timedelta(seconds=60)) as later:
            assert "deadline 60.0 s" in repr(later)
            await sleep(10)
    assert scope.expired()
    assert scope.cancelled_caught
    assert not later.cancel_called
    with sleeploop.move_on_after(timedelta(seconds=1)) as scope:
        scope.reschedule(None)
        await sleep(2)
        scope.deadline = 3
        check_told(await awaited_error(checkpoint()), "deadline", None, None)
        assert current_effective_deadline() == -math.inf
    assert not scope.cancelled_caught
    return loop.time()


@scenario
def deadlines() -> None:
    assert in_virtual_time(sets_deadlines) == 3.5


async def times_out() -> list[str]:
    told = []
    try:
        async with timeout(5):
            await sleep(10)
    except TimeoutError as error:
        if isinstance(error.__cause__, CancelledError):
            told.append(str(error))
    with contextlib.suppress(TimeoutError), sleeploop.timeout_at(5.5):
        with timeout(None):
            await sleep_forever()
        told.append("not reached")
    with timeout(10) as limit:
        limit.cancel()
        await checkpoint()
    with sleeploop.move_on_after(-1) as late:
        await checkpoint()
    assert limit.cancelled_caught
    assert late.expired()
    return told


@scenario
def timeouts() -> None:
    assert in_virtual_time(times_out) == ["timed out: the deadline at 5.0 s has passed"]


async def enters_many() -> float:
    """The heap grows while a scope is entered."""
    with contextlib.ExitStack() as stack:
        scopes = [stack.enter_context(timeout(1000 - n)) for n in range(70)]
        assert current_effective_deadline() == 931
        scopes[0].reschedule(7)
        with contextlib.suppress(CancelledError):
            await sleep_forever()
        assert [scope for scope in scopes if scope.cancel_called] == scopes[:1]
        for scope in scopes:
            scope.reschedule(None)
    await checkpoint()
    assert current_effective_deadline() == math.inf
    return sleeploop.current_loop().time()


@scenario
def many_deadlines() -> None:
    assert in_virtual_time(enters_many) == 7


async def shows_scopes() -> None:
    texts = [repr(CancelScope()), repr(CancelScope(deadline=5, shield=True)), repr(timeout(2))]
    texts.append(repr(sleeploop.timeout_at(datetime(2030, 1, 1, tzinfo=UTC))))
    with timeout(1) as scope:
        scope.cancel()
        texts.append(repr(scope))
    texts.append(repr(TaskGroup()))
    assert texts[0] == "<CancelScope not entered>"
    assert texts[4] == "<timeout entered, deadline 1.0 s, cancelled>"
    assert timeout(3).deadline == 3
    for wrong in (math.nan, "soon"):
        for make in (sleeploop.move_on_after, sleeploop.move_on_at, timeout):
            raises((TypeError, ValueError), make, wrong)
    raises(TypeError, CancelScope, 5)
    raises(TypeError, setattr, scope, "deadline", "soon")


@scenario
def looking_at_scopes() -> None:
    in_virtual_time(shows_scopes)


async def tears_scopes() -> int:
    mistakes = 0
    outer, inner = CancelScope(), timeout(9)
    outer.__enter__()
    raises(RuntimeError, outer.__enter__)
    inner.__enter__()
    try:
        outer.__exit__(None, None, None)
    except RuntimeError:
        mistakes += 1
    try:
        inner.__exit__(None, None, None)
    except RuntimeError:
        mistakes += 1
    assert current_effective_deadline() == math.inf
    try:
        await create_task(leaves_one_entered())
    except RuntimeError as error:
        mistakes += isinstance(error.__cause__, LookupError)
    return mistakes


async def leaves_one_entered() -> None:
    CancelScope().__enter__()
    raise LookupError


@scenario
def torn_scopes() -> None:
    raises(RuntimeError, CancelScope().__enter__)
    assert in_virtual_time(tears_scopes) == 3


# ---- CancelledError ----------------------------------------------------------------------------


class Own(CancelledError):
    pass


class Reason:
    def __repr__(self) -> str:
        raise KeyError


async def raises_own(scope: CancelScope) -> None:
    with scope:
        scope.cancel()
        raise Own("by hand")


class Nameless:
    """A coroutine."""

    def send(self, _: object) -> None:
        raise StopIteration

    def throw(self, error: BaseException) -> None:
        raise error

    def close(self) -> None:
        pass


async def looks_at_errors() -> list[str]:
    task = create_task(sleep_forever(), name="sleeper")
    nameless: Any = Nameless()
    assert "Nameless object" in repr(create_task(nameless))
    await checkpoint()
    assert task.cancel("no time")
    error = await awaited_error(task)
    check_told(error, "explicit", "Task-1", "no time")
    assert "task 'sleeper' was cancelled" in str(error)
    own = Own("by", "hand")
    assert (own.source, own.source_task, own.where, own.reason) == ("unknown", None, None, None)
    assert repr(own) == "Own('by', 'hand')"
    with CancelScope() as scope:
        scope.cancel(Reason())
        text = str(await awaited_error(checkpoint()))
    assert text.endswith(": <Reason object>")
    scope = CancelScope()
    await raises_own(scope)
    assert scope.cancelled_caught
    with CancelScope(deadline=0) as scope:
        check_told(await awaited_error(checkpoint()), "deadline", None, None)
    ends: list[tuple[object, ...]] = []
    with contextlib.suppress(LookupError):
        await sleeploop.gather(tells(sleep_forever(), ends), failing(1))
    ((source, by, reason),) = ends
    assert source == "failure"
    assert by == "Task-5"
    assert reason is None or "LookupError" in str(reason)
    return [source]


async def tells(awaitable: Awaitable[object], ends: list[tuple[object, ...]]) -> None:
    error = await awaited_error(awaitable)
    ends.append((error.source, error.source_task, error.reason))
    raise error


@scenario
def cancelled_errors() -> None:
    assert in_virtual_time(looks_at_errors) == ["failure"]


@scenario
def told_of_the_end() -> None:
    ends: list[tuple[object, ...]] = []
    loop = SleepingLoop(failing(1), tells(sleep_forever(), ends), speed=math.inf)
    raises(LookupError, loop.run_until_complete)
    ((source, by, reason),) = ends
    assert (source, by) == ("shutdown", "Task-1")
    assert "LookupError" in str(reason) or reason == "the run is over"


# ---- cancelling tasks --------------------------------------------------------------------------


async def waits_for(task: Task[object]) -> object:
    return await task


async def cancels_tasks() -> list[bool]:
    sleeper = create_task(sleep(50))
    joiner = create_task(waits_for(sleeper))
    forever = create_task(sleep_forever(), daemon=True)
    await checkpoint()
    never = create_task(sleep(50))
    for task, reason in ((joiner, None), (forever, 7), (never, None)):
        if not task.cancel(reason):
            await task  # it has failed
    assert never.cancel("again")
    await awaited_error(joiner)
    check_told(await awaited_error(forever), "explicit", "Task-1", 7)
    await awaited_error(never)
    assert not forever.cancel()
    assert not sleeper.done()
    with sleeploop.move_on_after(1) as scope:
        await sleeper
    assert scope.cancelled_caught
    with CancelScope() as scope:
        scope.cancel()
        await awaited_error(forever)  # finished, but to join it is an await
    sleeper.cancel()
    await awaited_error(sleeper)
    create_task(cancels_itself())
    await sleep(1)
    return [task.cancelled() for task in (sleeper, joiner, forever, never)]


async def cancels_itself() -> None:
    task = current_task()
    with timeout(1), CancelScope():
        task.cancel()
        await checkpoint()


@scenario
def cancelled_tasks() -> None:
    assert in_virtual_time(cancels_tasks) == [True] * 4


# ---- groups ------------------------------------------------------------------------------------


async def grows_a_group() -> list[float]:
    async with TaskGroup() as group:
        tasks = [group.create_task(nap(n), name=f"child {n}") for n in (3, 1, 2)]
        await checkpoint()
        group.create_task(spawns_into(group, tasks))
        assert repr(group) == "<TaskGroup open, 4 tasks>"
    assert repr(group) == "<TaskGroup finished, 0 tasks>"
    return [task.result() for task in tasks]


async def spawns_into(group: TaskGroup, tasks: list[Task[float]]) -> None:
    await sleep(2)
    tasks.append(group.create_task(nap(4)))


@scenario
def group() -> None:
    assert in_virtual_time(grows_a_group) == [3, 1, 2, 4]


async def fails_when_cancelled(error: BaseException) -> None:
    try:
        await sleep_forever()
    except CancelledError:
        raise error from None


async def children_fail() -> list[str]:
    told = []
    try:
        async with TaskGroup() as group:
            group.create_task(failing(1))
            group.create_task(fails_when_cancelled(KeyError()))
            group.create_task(sleep_forever())
            await sleep_forever()
    except* KeyError:
        told.append("KeyError")
    except* LookupError as errors:
        told += [repr(error) for error in errors.exceptions]
    return told


@scenario
def group_with_failing_children() -> None:
    with contextlib.suppress(KeyError):  # if the group had no room for it, the run raises it
        assert in_virtual_time(children_fail) == ["KeyError", "LookupError(1)"]


async def fails_again_and_again() -> list[str]:
    """The same error in several tasks, one of which is asked twice; one under a cancellation."""
    error = LookupError("the same")
    told = []
    task = create_task(fails_when_cancelled(error))
    await checkpoint()
    task.cancel()
    for _ in range(2):
        try:
            await task
        except LookupError as raised:
            told.append(repr(raised))
    try:
        async with TaskGroup() as group:
            group.create_task(fails_when_cancelled(error))
            group.create_task(fails_when_cancelled(error))
            await checkpoint()
            group.cancel_scope.cancel()
    except* LookupError as errors:
        told += [repr(raised) for raised in errors.exceptions]
    with CancelScope() as scope:
        try:
            scope.cancel()
            raise KeyError("under way")
        finally:
            await checkpoint()
    return told


@scenario
def failing_again_and_again() -> None:
    with contextlib.suppress(LookupError):  # if the group had no room for it, the run raises it
        told = sleeploop.run(fails_again_and_again(), speed=math.inf, debug=True)
        assert len(told) in (3, 4)  # without memory it may stand there twice
        assert set(told) == {"LookupError('the same')"}


async def body_fails() -> list[str]:
    ends: list[tuple[object, ...]] = []
    told: list[str] = []
    try:
        async with TaskGroup() as group:
            child = group.create_task(tells(sleep_forever(), ends))
            await sleep(1)
            raise LookupError("body")
    except* LookupError as errors:
        told += [repr(error) for error in errors.exceptions]
    assert child.cancelled()
    ((source, by, reason),) = ends
    assert (source, by) == ("failure", "Task-1")
    assert reason is None or "LookupError" in str(reason)
    return told


@scenario
def group_with_a_failing_body() -> None:
    assert in_virtual_time(body_fails) == ["LookupError('body')"]


async def nests_groups() -> list[str]:
    """The inner one fails in its body and in a child; the scope around takes its own part."""
    told = []
    try:
        with CancelScope() as scope:
            async with TaskGroup() as outer:
                outer.create_task(sleep_forever())
                async with TaskGroup() as inner:
                    inner.create_task(fails_when_cancelled(LookupError("inner")))
                    await checkpoint()
                    scope.cancel()
                    try:
                        await checkpoint()
                    except CancelledError as error:
                        raise BaseExceptionGroup("both", [error, KeyError("kept")]) from None
    except* KeyError:
        told.append("KeyError")
    except* LookupError as errors:
        told += [type(error).__name__ for error in errors.exceptions]
    return told


@scenario
def nested_groups() -> None:
    try:
        assert in_virtual_time(nests_groups) == ["KeyError", "ExceptionGroup"]
    except BaseExceptionGroup as errors:
        if errors.message != "both":  # for which a group had no room: the run raises it
            raise


async def cancels_groups() -> float:
    async with TaskGroup() as group:
        child = group.create_task(sleep_forever())
        await sleep(1)
        group.cancel_scope.cancel()
        late = group.create_task(nap(1))  # cancelled before it starts
    assert group.cancel_scope.cancelled_caught
    assert child.cancelled()
    assert late.cancelled()
    try:
        with timeout(1):
            async with TaskGroup() as group:
                last = group.create_task(cleans_up())
    except TimeoutError:
        assert last.cancelled()
        assert not group.cancel_scope.cancelled_caught
        return sleeploop.current_loop().time()
    return 0


async def cleans_up() -> None:
    try:
        await sleep_forever()
    finally:
        with CancelScope(shield=True):
            await sleep(1)


@scenario
def cancelled_groups() -> None:
    assert in_virtual_time(cancels_groups) == 3


async def exits() -> None:
    async with TaskGroup() as group:
        group.create_task(fails_when_cancelled(LookupError()))
        await checkpoint()
        raise SystemExit(3)


@scenario
def system_exit_in_a_group() -> None:
    assert raises(SystemExit, in_virtual_time, exits).args == (3,)


async def misuses_groups() -> None:
    group = TaskGroup()
    coro = nap(1)
    raises(RuntimeError, group.create_task, coro)
    raises(TypeError, group.create_task, 42)
    raises(TypeError, TaskGroup, 42)
    raises(TypeError, group.start, 42)
    async with group:
        pass
    raises(RuntimeError, group.create_task, coro)
    coro.close()
    try:
        async with group:
            raise AssertionError("entered twice")
    except RuntimeError:
        pass
    try:
        async with TaskGroup() as group:
            CancelScope().__enter__()
    except* RuntimeError:
        pass
    else:
        raise AssertionError("a scope was left open")


@scenario
def misused_groups() -> None:
    in_virtual_time(misuses_groups)


class Wrapper:
    """Runs a coroutine that is closed behind its back."""

    def __init__(self, coro: Any) -> None:
        self.send, self.throw, self.close = coro.send, coro.throw, coro.close


async def leaves_children() -> None:
    async with TaskGroup() as group:
        group.create_task(sleep_forever())
        group.create_task(fails_when_cancelled(LookupError()))


async def abandons_a_group() -> None:
    coro = leaves_children()
    wrapper: Any = Wrapper(coro)
    task: Task[None] = create_task(wrapper)
    await sleep(1)
    coro.close()  # while it waits at the end of its block
    try:
        await task
    except RuntimeError as error:
        if isinstance(error.__cause__, MemoryError):
            raise
        return
    raise AssertionError("not told")


@scenario
def abandoned_group() -> None:
    """Its tasks are the loop's then, and are cancelled."""
    raises(LookupError, in_virtual_time, abandons_a_group)


# ---- start() -----------------------------------------------------------------------------------


async def serve(port: int, seconds: float, *, started: Callable[..., None]) -> str:
    await sleep(seconds)
    started(f"at {port}")
    await sleep(5)
    return "served"


async def starts_servers() -> float:
    async with TaskGroup() as group:
        assert await group.start(serve, 80, 1) == "at 80"
        assert await group.start(serve, 81, 0) == "at 81"
    return sleeploop.current_loop().time()


@scenario
def started() -> None:
    assert in_virtual_time(starts_servers) == 6


async def fails_to_start(how: str, *, started: Callable[..., None]) -> None:
    if how == "fails":
        await sleep(1)
        raise LookupError
    if how == "twice":
        started()
        raises(RuntimeError, started, "again")


async def start_goes_wrong() -> list[str]:
    wrong: list[str] = []
    not_async: Any = int
    async with TaskGroup() as group:
        for how in ("fails", "ends", "twice"):
            try:
                await group.start(fails_to_start, how)
            except (LookupError, RuntimeError):
                wrong.append(how)
        try:
            await group.start(nap, 1)  # it takes no started=
        except TypeError:
            wrong.append("call")
        try:
            await group.start(not_async, "1")
        except TypeError:
            wrong.append("no coroutine")
    return wrong


@scenario
def failing_starts() -> None:
    assert in_virtual_time(start_goes_wrong) == ["fails", "ends", "call", "no coroutine"]


async def gives_up_starting() -> list[object]:
    seen: list[object] = []
    async with TaskGroup() as group:
        with sleeploop.move_on_after(2) as scope:
            await group.start(serve, 80, 50)
        seen.append(scope.cancelled_caught)
        starter = create_task(waits_for(group.start(serve, 81, 50)))  # type: ignore[arg-type]
        await sleep(1)
        seen.append(str(starter.waiting_on)[:12])
        starter.cancel()
        await awaited_error(starter)
        with CancelScope() as scope:
            scope.cancel()
            await awaited_error(group.start(serve, 82, 0))
    seen.append(sleeploop.current_loop().time())
    return seen


@scenario
def starts_given_up() -> None:
    assert in_virtual_time(gives_up_starting) == [True, "<Task 'Task-", 3]


# ---- several at once ---------------------------------------------------------------------------


async def gathers() -> Any:
    task = create_task(nap(2))
    results: Any = await sleeploop.gather(nap(3), task, sleep(1))
    assert results == [3, 2, timedelta(seconds=1)]
    mixed: Any = await sleeploop.gather(failing(1), nap(1), return_exceptions=True)
    try:
        await sleeploop.gather(failing(1), sleep_forever())
    except LookupError:
        return mixed
    raise AssertionError("not told")


@scenario
def gathered() -> None:
    for result, kind in zip(in_virtual_time(gathers), (LookupError, int), strict=True):
        if isinstance(result, MemoryError):
            raise result
        assert isinstance(result, kind)


async def takes_as_completed() -> list[float]:
    done = [
        await task async for task in sleeploop.as_completed([nap(3), create_task(nap(1)), nap(2)])
    ]
    for wait in sleeploop.as_completed([nap(2), nap(1)], timeout=9):
        done.append(await wait)
    try:
        async for task in sleeploop.as_completed([nap(9), nap(1)], timeout=2):
            done.append(await task)
    except TimeoutError:
        return done
    raise AssertionError("in time")


@scenario
def completed() -> None:
    assert in_virtual_time(takes_as_completed) == [1, 2, 3, 1, 2, 1]


async def waits_a_while() -> float:
    task = create_task(nap(5))
    assert await sleeploop.wait_for(nap(1), 2) == 1
    for awaitable in (nap(10), task):
        try:
            await sleeploop.wait_for(awaitable, timedelta(seconds=1))
        except TimeoutError:
            continue
        raise AssertionError("in time")
    return await task + sleeploop.current_loop().time()


@scenario
def waited_for() -> None:
    assert in_virtual_time(waits_a_while) == 10


# ---- reports -----------------------------------------------------------------------------------


async def looks_around() -> None:
    async with TaskGroup() as group:
        child = group.create_task(nap(50), name="napper")
        others = [
            create_task(waits_for(child), name="joiner", daemon=True),
            create_task(waits_for(group.start(serve, 1, 50)), name="starter"),  # type: ignore[arg-type]
        ]
        with timeout(30):
            await sleep(2)
            for task in others:
                if task.done():
                    task.result()  # it has failed
            looks_at_the_tree()
    assert child.parent is current_task()


def looks_at_the_tree() -> None:
    loop = sleeploop.current_loop()
    text = sleeploop.format_tasks()
    lines = text.splitlines()
    assert len(lines) == 5
    assert [line.strip().split()[1] for line in lines] == [
        "'Task-1'", "'napper'", "'joiner'", "'starter'", "'Task-5'",
    ]  # fmt: skip
    for task in loop.tasks():
        assert task.parent in (None, loop.tasks()[0])
        assert repr(task)
        assert task.waiting_on is not None or task is current_task()
        assert task.waiting_since is not None or task is current_task()
    if loop.debug:
        assert all(task.created_at or task.created_at is None for task in loop.tasks())


@scenario
def formatted_tasks() -> None:
    in_virtual_time(looks_around)


async def waits_in_a_circle() -> None:
    async with TaskGroup() as group:
        group.create_task(waits_for(current_task()))
        group.create_task(sleep_forever(), name="sleeper")
        group.create_task(waits_for(group.start(serve, 1, math.inf)))  # type: ignore[arg-type]


@scenario
def deadlock_in_a_group() -> None:
    error = raises(sleeploop.DeadlockError, in_virtual_time, waits_in_a_circle)
    assert "sleeper" in str(error)


# ---- debug runs --------------------------------------------------------------------------------


@scenario
def debug_run() -> None:
    sleeploop.run(looks_around(), speed=math.inf, debug=True)


async def remembers() -> None:
    task = create_task(nap(1))
    made = task.created_at
    assert made is None or made[-1].name == "remembers"
    assert await task == 1


@scenario
def created_at() -> None:
    sleeploop.run(remembers(), speed=math.inf, debug=True)


@scenario
def deadlock_in_a_debug_run() -> None:
    loop = SleepingLoop(waits_in_a_circle(), speed=math.inf, debug=True)
    raises(sleeploop.DeadlockError, loop.run_until_complete)


async def holds_the_loop() -> None:
    time.sleep(0.13)  # longer than a step should take; the watchdog reports it


class Records(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@scenario
def slow_step() -> None:
    records = Records()
    logger = logging.getLogger("sleeploop")
    logger.addHandler(records)
    # Else a thread that logs leaves an object with a weak reference that calls back, and CPython
    # loses memory when it has none to call it.
    logging.logThreads = False
    try:
        sleeploop.run(holds_the_loop(), speed=math.inf, debug=True)
    finally:
        logging.logThreads = True
        logger.removeHandler(records)
    if not any("has held the loop" in message for message in records.messages):
        raise Undone("no report")
