"""How failures are told: each once, in words that somebody asks for, and not lost under others."""

import contextlib
import gc
import logging
import math
import weakref

import pytest
from _sleeploop import _stop

import sleeploop
from sleeploop import (
    CancelledError,
    CancelScope,
    SleepingLoop,
    TaskGroup,
    checkpoint,
    create_task,
    first_of,
    gather,
    move_on_after,
    run,
    sleep,
    sleep_forever,
    timeout,
)
from tests.helpers import Thing, awaited_error, cleanup, fail, give, outcome, virtual

# ---- groups --------------------------------------------------------------------------------------


def nested(depth, how):
    async def level(k):
        async with TaskGroup() as group:
            if k == 0 and how == "body":
                raise ValueError("went wrong")
            if k == 0:
                group.create_task(fail(ValueError("went wrong")))
                await sleep(5)
            elif how == "task":
                group.create_task(level(k - 1))
                await sleep(5)
            else:
                await level(k - 1)

    with pytest.raises(ExceptionGroup) as caught:
        virtual(level(depth))
    return caught.value


@pytest.mark.parametrize("how", ["body", "child", "task"])
def test_nested_groups_tell_each_error_once(how):
    for depth in (0, 3):
        error = nested(depth, how)
        while isinstance(error, ExceptionGroup):
            assert error.__context__ is None
            assert error.__cause__ is None
            (error,) = error.exceptions
        assert str(error) == "went wrong"


async def in_a_group(body, *tasks):
    try:
        async with TaskGroup() as group:
            for task in tasks:
                group.create_task(task)
            await body
    except BaseExceptionGroup as error:
        return error


def test_what_was_handled_around_a_group_is_its_context():
    async def main():
        error = KeyError("around")
        for seconds in (1, 3):  # once the body is cancelled, on top of that
            group = await outcome(while_handling(error, ValueError("v"), seconds))
            assert group.__context__ is error
            group = await outcome(while_handling(error, error, seconds))
            assert group.exceptions == (error,)
            assert group.__context__ is None

    async def while_handling(error, failure, seconds):
        try:
            raise error
        except KeyError:
            async with TaskGroup() as group:
                group.create_task(fail(failure, 2))
                await sleep(seconds)

    virtual(main())


def test_what_a_cancellation_has_taken_the_place_of_is_the_context():
    async def body(error):
        try:
            await awaited_error(sleep_forever())
            raise error
        finally:
            await checkpoint()

    async def main():
        error = KeyError("under way")
        group = await in_a_group(body(error), fail(ValueError("v"), 1))
        assert [str(each) for each in group.exceptions] == ["v"]
        assert group.__context__ is error

    virtual(main())


def test_a_group_that_the_body_raises_is_told_once():
    """Of it there is only a part in what comes out: without the cancellation."""

    async def body():
        cancelled = await awaited_error(sleep_forever())
        raise BaseExceptionGroup("of the body", [cancelled, KeyError("k")])

    async def main():
        group = await in_a_group(body(), fail(ValueError("v"), 1))
        assert [repr(error) for error in group.exceptions] == [
            "ValueError('v')",
            "ExceptionGroup('of the body', [KeyError('k')])",
        ]
        assert group.__context__ is None

    virtual(main())


def test_a_cancellation_from_outside_is_the_context():
    async def main():
        with move_on_after(1) as scope:
            group = await in_a_group(sleep(5), fail_when_cancelled(ValueError("v")))
            assert isinstance(group.__context__, CancelledError)
            assert group.__context__.source == "deadline"
        assert not scope.cancelled_caught

    async def fail_when_cancelled(error):
        await awaited_error(sleep_forever())
        raise error

    virtual(main())


# ---- words ---------------------------------------------------------------------------------------


class Loud(Exception):
    """Tells when it is put into words."""

    asked = 0

    def __repr__(self):
        Loud.asked += 1
        return "Loud()"

    __str__ = __repr__


async def a_group_with(error, log=()):
    async def other():
        cancelled = await awaited_error(sleep_forever())
        for each in log:
            each(cancelled)
        errors.append(cancelled)
        raise cancelled

    errors = []
    with contextlib.suppress(BaseExceptionGroup):
        async with TaskGroup() as group:
            task = group.create_task(other())
            group.create_task(fail(error, 1), name="bad")
    return errors[0], task


@pytest.mark.parametrize("how", ["a group", "the body", "gather", "first_of", "an interrupt"])
def test_nobody_asks(how):
    async def main():
        if how == "a group":
            await a_group_with(Loud())
        elif how == "the body":
            await in_a_group(fail(Loud(), 1), sleep(5))
        elif how == "an interrupt":
            task = create_task(in_a_group(give(1), sleep(5)))
            await sleep(1)
            task.interrupt(Loud())
            await task
        else:
            call = gather if how == "gather" else first_of
            with pytest.raises(Loud):
                await call(fail(Loud(), 1), sleep(5))

    Loud.asked = 0
    virtual(main())
    assert Loud.asked == 0


def test_nobody_asks_why_a_run_ends():
    Loud.asked = 0
    with pytest.raises(Loud):
        SleepingLoop(fail(Loud(), 1), sleep(5), speed=math.inf).run_until_complete()
    assert Loud.asked == 0


def test_who_asks_is_told_in_full_until_the_block_is_over():
    words = []
    cancelled, task = virtual(a_group_with(Loud(), [lambda error: words.append(str(error))]))
    assert words == ["task 'bad' failed with Loud()"]
    assert str(cancelled) == cancelled.reason == "task 'bad' failed with Loud"
    with pytest.raises(CancelledError, match=r"was cancelled: task 'bad' failed with Loud$"):
        task.result()


@pytest.mark.parametrize(
    ("kind", "args", "words"),
    [
        (ValueError, ("no luck",), "ValueError('no luck')"),
        (ValueError, (), "ValueError()"),
        (OSError, (2, "none"), "FileNotFoundError(2, 'none')"),
        (KeyError, (None, 1.5), "KeyError(None, 1.5)"),
        (ValueError, ("x" * 1000,), "ValueError"),
        (ValueError, (10**1000,), "ValueError"),
        (ValueError, ([1],), "ValueError"),
        (ValueError, tuple(range(9)), "ValueError"),
        (ExceptionGroup, ("g", [ValueError()]), "ExceptionGroup"),
        (CancelledError, ("by hand",), "CancelledError('by hand')"),
    ],
    ids=lambda given: f"{given!r:.20}",
)
def test_what_is_kept_for_later(kind, args, words):
    cancelled, _ = virtual(a_group_with(kind(*args)))
    assert str(cancelled) == f"task 'bad' failed with {words}"


@pytest.mark.parametrize("leave", ["fails", "returns"])
def test_a_scope_does_not_keep_the_exception(leave):
    """Its traceback leads to a frame that leads to the scope."""

    async def host():
        thing = Thing()
        things.append(weakref.ref(thing))
        async with TaskGroup() as group:
            task = group.create_task(sleep_forever())
            await checkpoint()
            if leave == "fails":
                raise ValueError(thing)
            group.create_task(raises(thing))
        return task

    async def raises(thing):
        raise ValueError(thing)

    async def main():
        with contextlib.suppress(ExceptionGroup):
            await host()
        await checkpoint()
        return things[0]()

    things = []
    gc.collect()
    gc.disable()
    try:
        assert virtual(main()) is None
    finally:
        gc.enable()


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, MemoryError, RecursionError])
def test_what_comes_out_of_a_repr_is_raised_to_who_asks(error):
    class Hostile(Exception):
        def __repr__(self):
            raise error("out of a repr")

    def ask(cancelled):
        for words in (str, repr, lambda cancelled: cancelled.reason):
            with pytest.raises(error, match="out of a repr"):
                words(cancelled)
        with pytest.raises(error, match="out of a repr"):
            create_task(Hostile())
        asked.append(True)

    asked = []
    virtual(a_group_with(Hostile(), [ask]))
    assert asked


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_comes_out_of_a_log_ends_the_run(error, monkeypatch):
    """As where nobody retrieves a failure: there is nobody else to raise it to."""

    class Handler(logging.Handler):
        def emit(self, record):
            raise error("out of a log")

    async def main():
        create_task(fail(ValueError("unseen")))
        await sleep(5)

    monkeypatch.setattr("sys.unraisablehook", lambda _: None)  # gets what was to be logged
    logger = logging.getLogger("sleeploop")
    monkeypatch.setattr(logger, "handlers", [Handler()])
    with pytest.raises(BaseException, match=r".*") as caught:
        virtual(main())
    raised = getattr(caught.value, "exceptions", [caught.value])
    assert error in map(type, raised)


# ---- how much work -------------------------------------------------------------------------------


def test_many_failures_of_a_run():
    n = 2_000
    loop = SleepingLoop(*(fail(ValueError(i)) for i in range(n)), speed=math.inf)
    with pytest.raises(ExceptionGroup) as caught:
        loop.run_until_complete()
    assert len(caught.value.exceptions) == n


# ---- what a cancellation takes the place of ------------------------------------------------------


class Connection:
    """Its end awaits, without a shield."""

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await sleep(1)


async def replaced(scope, error):
    async with Connection():
        scope.cancel()
        raise error


def test_an_error_that_is_replaced_is_the_context_of_the_cancellation():
    async def main():
        error = ValueError("under way")
        with CancelScope() as scope:
            cancelled = await awaited_error(replaced(scope, error))
            assert cancelled.__context__ is error

    virtual(main())


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("where", ["a scope", "a group", "a task", "twice"])
def test_a_debug_run_tells_what_was_replaced(where, debug, caplog):
    async def main():
        error = ValueError("under way")
        if where == "a scope":
            with CancelScope() as scope:
                await replaced(scope, error)
        elif where == "a group":
            async with TaskGroup() as group:
                await replaced(group.cancel_scope, error)
        elif where == "a task":
            async with TaskGroup() as group:
                group.create_task(replaced(group.cancel_scope, error))
        else:
            with CancelScope() as scope:
                async with Connection():
                    await replaced(scope, error)

    caplog.set_level(logging.DEBUG, "sleeploop")
    run(main(), speed=math.inf, debug=debug)
    assert len(caplog.records) == debug
    for record in caplog.records:
        assert record.levelname == "DEBUG"
        assert "a cancellation that has ended here came on top of this error" in record.message
        assert "in replaced" in caplog.text
        assert "ValueError: under way" in caplog.text


def test_a_debug_run_has_nothing_to_tell_of_a_plain_cancellation(caplog):
    async def main():
        with move_on_after(1):
            await sleep_forever()
        create_task(sleep_forever()).cancel()
        async with TaskGroup() as group:
            group.create_task(sleep_forever())
            await checkpoint()
            group.cancel_scope.cancel()

    caplog.set_level(logging.DEBUG, "sleeploop")
    run(main(), speed=math.inf, debug=True)
    assert caplog.records == []


BLOCKS = {
    "CancelScope": CancelScope,
    "timeout": lambda: timeout(5),
    "TaskGroup": TaskGroup,
    "Lock": sleeploop.Lock,
    "Condition": sleeploop.Condition,
    "Semaphore": sleeploop.Semaphore,
    "BoundedSemaphore": lambda: sleeploop.BoundedSemaphore(1),
    "CapacityLimiter": lambda: sleeploop.CapacityLimiter(1),
    "Barrier": lambda: sleeploop.Barrier(1),
    "Request": lambda: sleeploop.Resource(1).request(),
    "SendChannel": lambda: sleeploop.open_channel(1)[0],
    "ReceiveChannel": lambda: sleeploop.open_channel(1)[1],
}


@pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS)
def test_the_end_of_a_block_of_ours_replaces_nothing(block):
    async def body(scope, error):
        async with block():
            scope.cancel()
            raise error

    async def main():
        error = ValueError("under way")
        with CancelScope() as scope:
            raised = await outcome(body(scope, error))
        assert raised is error or raised.exceptions == (error,)

    virtual(main())


def test_what_a_block_has_failed_with_is_told_when_its_coroutine_is_closed():
    """As by the second Ctrl-C, while the end of the block waits for its tasks."""

    async def main():
        async with TaskGroup() as group:
            group.create_task(cleanup([], "slow", 10))
            await checkpoint()
            raise ValueError("of the body")

    loop = SleepingLoop(main(), speed=math.inf)
    loop.run_until(1)
    with pytest.raises(ValueError, match="of the body"):
        _stop(loop)
