"""What drives a loop from outside for the pytest plugin: private functions, and the runner."""

import gc
import math
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar, copy_context

import pytest
from _sleeploop import (
    _begin_piece,
    _drive,
    _in_group,
    _open_blocks,
    _pause,
    _piece_scope,
    _share_context,
    _stop,
    _suspended_loop,
    _take_errors,
    _tear_off,
    _was_torn,
)

import sleeploop
from sleeploop import (
    CancelScope,
    DeadlockError,
    LoopClosedError,
    SleepingLoop,
    TaskGroup,
    checkpoint,
    create_task,
    current_task,
    sleep,
    sleep_forever,
)
from sleeploop._runner import Owner, Runner
from tests.helpers import fail, give


@pytest.fixture
def loop():
    loop = SleepingLoop(speed=math.inf)
    yield loop
    loop.close()


# ---- _drive() and _pause() ---------------------------------------------------------------------


def test_drive_returns_when_somebody_pauses_it(loop):
    async def main():
        await sleep(5)
        assert _pause(loop)
        await checkpoint()
        order.append("after")

    order = []
    task = loop.create_task(main())
    assert _drive(loop) is True
    assert (loop.time(), order) == (5.0, [])
    loop.run_until(task)
    assert order == ["after"]


def test_a_pause_before_the_call_is_none(loop):
    async def main():
        await sleep(5)
        _pause(loop)

    _pause(loop)
    loop.create_task(main())
    assert _drive(loop) is True
    assert loop.time() == 5


def test_drive_ends_at_its_limit(loop):
    async def tick():
        while True:
            times.append(loop.time())
            await sleep(2)

    times = []
    loop.create_task(tick())
    assert _drive(loop, 5) is False
    assert (loop.time(), times) == (5.0, [0.0, 2.0, 4.0])
    assert _drive(loop, 6) is False
    assert (loop.time(), times) == (6.0, [0.0, 2.0, 4.0, 6.0])
    assert _drive(loop, 1) is False  # it has passed: only what is ready
    assert loop.time() == 6.0


def test_drive_ends_after_so_many_passes(loop):
    async def spin():
        while True:
            spins.append(loop.time())
            await checkpoint()

    spins = []
    loop.create_task(spin())
    assert _drive(loop, math.inf, 3) is False
    assert spins == [0.0] * 3
    assert _drive(loop, math.inf, 0) is False
    assert len(spins) == 3


def test_a_deadlock_is_one_before_the_limit(loop):
    async def stuck():
        await sleep(5)
        await sleep_forever()

    loop.create_task(stuck(), name="stuck")
    with pytest.raises(DeadlockError, match="'stuck'"):
        _drive(loop, 1000)
    assert loop.time() == 5
    with pytest.raises(DeadlockError, match="'stuck'"):
        _drive(loop)


def test_drive_in_real_time_waits_until_its_limit():
    for coro in sleep(60), sleep_forever():
        loop = SleepingLoop(speed=1000)
        loop.create_task(coro)
        assert _drive(loop, 1.5) is False
        assert loop.time() == 1.5
        loop.close()


def test_pause_tells_when_the_run_is_ending(loop):
    async def main():
        try:
            await sleep_forever()
        finally:
            told.append(_pause(loop))

    told = []
    loop.create_task(main())
    loop.run_until(1)
    loop.close()
    assert told == [False]


def test_misuse(loop):
    for function in _drive, _pause, _stop, _take_errors, _in_group, _share_context:
        with pytest.raises(TypeError, match=f"{function.__name__}.*cannot take 5"):
            function(5)
    for args in (), (loop, 1, 2, 3), (loop, "soon"), (loop, 1, "many"), (loop, None):
        with pytest.raises(TypeError):
            _drive(*args)
    with pytest.raises(OverflowError):
        _drive(loop, 1, -1)

    async def inside():
        with pytest.raises(RuntimeError, match="while a loop is running"):
            _drive(loop)
        with pytest.raises(RuntimeError, match="while a loop is running"):
            _stop(loop)

    loop.run_until(loop.create_task(inside()))
    loop.close()
    with pytest.raises(LoopClosedError):
        _drive(loop)
    with pytest.raises(LoopClosedError):
        _stop(loop)
    assert _take_errors(loop) == []
    assert not _pause(loop)


# ---- _stop(), _take_errors(), _in_group(), _suspended_loop() -----------------------------------


@pytest.mark.parametrize("started", [True, False])
def test_stop_closes_without_another_await(loop, started):
    async def swallow():
        while True:
            try:
                await sleep(1)
            except sleeploop.CancelledError:
                log.append("cancelled")
            finally:
                log.append("finally")

    log = []
    task = loop.create_task(swallow())
    if started:
        loop.run_until(0)
    _stop(loop)
    assert (task.done(), log) == (True, ["finally"] if started else [])
    with pytest.raises(LoopClosedError):
        loop.run_until(1)


def test_errors_that_are_taken_are_not_raised_in_the_end(loop, caplog):
    error = ValueError("dropped")

    async def main():
        create_task(fail(error))
        await sleep(1)

    assert _take_errors(loop) == []
    loop.run_until(loop.create_task(main()))
    assert _take_errors(loop) == [error]
    assert _take_errors(loop) == []
    error.__traceback__ = None
    caplog.clear()


def test_in_group(loop):
    async def main():
        async with TaskGroup() as group:
            inside = group.create_task(sleep(1))
            outside = create_task(sleep(1))
            assert _in_group(inside)
            assert not _in_group(outside)
            assert not _in_group(current_task())
        assert not _in_group(inside)

    loop.run_until(loop.create_task(main()))


def test_no_group_sees_to_the_tasks_of_a_block_that_is_gone(loop):
    async def main():
        group = await TaskGroup().__aenter__()
        task = group.create_task(sleep(1))
        _tear_off(_open_blocks()[0])
        assert not _in_group(task)
        await checkpoint()
        assert task.cancelled()

    loop.run_until(loop.create_task(main()))


def test_the_suspended_loop():
    assert _suspended_loop() is None
    first, then = SleepingLoop(speed=math.inf), SleepingLoop(speed=math.inf)
    for loop in first, then, first:
        loop.run_until(loop.time() + 1)
        assert _suspended_loop() is loop

    async def inside():
        return _suspended_loop()

    assert then.run_until(then.create_task(inside())) is first
    with ThreadPoolExecutor() as pool:
        assert pool.submit(_suspended_loop).result() is None  # they are this thread's
    then.close()
    assert _suspended_loop() is first
    first.close()
    assert _suspended_loop() is None


# ---- _share_context() --------------------------------------------------------------------------


def test_a_task_in_the_context_of_whoever_drives_it(loop):
    async def main():
        variable.set("task")
        seen.append(current_task().context[variable])
        child = create_task(give(variable))
        await sleep(1)
        seen.append(variable.get())
        assert (await child).get() == "caller"
        variable.set("again")

    def drive(until):
        variable.set("caller")
        loop.run_until(until)
        return variable.get()

    variable, seen = ContextVar("variable", default="unset"), []
    task = loop.create_task(main())
    _share_context(task)
    context = copy_context()
    assert context.run(drive, 0.5) == "task"
    assert variable.get() == "unset"
    assert context.run(drive, 2) == "again"
    assert seen == ["task", "caller"]
    with pytest.raises(RuntimeError, match="has started"):
        _share_context(task)


# ---- pieces: _piece_scope(), _open_blocks(), _tear_off(), _begin_piece() -------------------


def test_outside_of_a_task():
    for function in _open_blocks, _begin_piece, _was_torn:
        with pytest.raises(RuntimeError, match=function.__name__):
            function()
    with pytest.raises(RuntimeError, match="_tear_off"):
        _tear_off(CancelScope())


def test_open_blocks(loop):
    async def main():
        assert _open_blocks() == []
        with CancelScope() as outer:
            async with TaskGroup() as group:
                group.create_task(child())
                assert _open_blocks() == [outer, group.cancel_scope]
            assert _open_blocks() == [outer]

    async def child():
        assert _open_blocks() == []  # those around it are its parent's
        with CancelScope() as scope:
            assert _open_blocks() == [scope]

    loop.run_until(loop.create_task(main()))


def test_cancel_reaches_the_innermost_piece(loop):
    async def main():
        async with TaskGroup() as group:
            child = group.create_task(sleep(10))
            with _piece_scope(False) as outer:
                with _piece_scope(False) as inner, CancelScope():
                    assert current_task().cancel("by the piece")
                    assert current_task().cancel("again")
                    with pytest.raises(sleeploop.CancelledError, match="by the piece"):
                        await sleep(1)
                assert (inner.cancel_called, outer.cancel_called) == (True, False)
                await sleep(1)
            assert not child.cancelled()
            current_task().cancel()
        assert child.cancelled()

    task = loop.create_task(main())
    with pytest.raises(sleeploop.CancelledError):
        loop.run_until(task)
    assert loop.time() == 1


def test_tear_off(loop, caplog):
    async def main():
        with CancelScope() as outer:
            scope, group = CancelScope(deadline=2), TaskGroup()
            scope.__enter__()
            await group.__aenter__()
            create = group.create_task
            cleaned = create(clean_up())
            with pytest.raises(RuntimeError, match="not entered"):
                _tear_off(CancelScope())
            await checkpoint()
            _tear_off(scope)
            assert _open_blocks() == [outer]
            late = give(1)
            with pytest.raises(RuntimeError):
                create(late)
            late.close()
            await sleep(5)  # its deadline is none any more
            assert cleaned.done()
            assert scope.__exit__(None, None, None) is False  # it means nothing
            assert await group.__aexit__(None, None, None) is None
            _tear_off(outer)
        assert _open_blocks() == []

    async def clean_up():
        try:
            await sleep_forever()
        finally:
            raise ValueError("of a block that is gone")

    loop.run_until(loop.create_task(main()))
    with pytest.raises(ValueError, match="that is gone"):
        loop.close()


def test_interrupts_that_are_dropped(loop):
    async def main():
        me = current_task()
        for drop in True, False:
            loop.call_soon_threadsafe(me.interrupt, "woken already")
            loop.call_soon_threadsafe(me.interrupt, "twice")
            await checkpoint()
            if drop:
                _begin_piece()
                await sleep(1)
            else:
                for _ in range(2):
                    with pytest.raises(sleeploop.Interrupt):
                        await sleep(1)
        _begin_piece()  # there are none

    loop.run_until(loop.create_task(main()))
    assert loop.time() == 1


# ---- the runner --------------------------------------------------------------------------------


def test_pieces_run_in_one_task(loop):
    async def piece(delay):
        await sleep(delay)
        return current_task(), loop.time()

    runner = Runner(loop)
    first, then = runner.run(piece(2), Owner("a")), runner.run(piece(3), Owner("b"))
    assert first[0] is then[0]
    assert (first[0].name, first[1], then[1]) == ("b", 2.0, 5.0)
    runner.close()
    assert first[0].done()


def test_the_loop_is_suspended_between_the_pieces(loop):
    runner = Runner(loop)
    runner.run(give(1), Owner("a"))
    with pytest.raises(RuntimeError):
        sleeploop.current_loop()
    task = loop.create_task(give(5, 1), daemon=True)
    assert runner.run(give(2, 1), Owner("b")) == 2
    assert loop.run_until(task) == 5
    runner.close()


def test_what_a_piece_raises(loop):
    runner = Runner(loop)
    with pytest.raises(LookupError):
        runner.run(fail(LookupError("a")), Owner("a"), final=True)
    with pytest.raises(SystemExit):
        runner.run(fail(SystemExit(3)), Owner("a"), final=True)
    assert runner.run(give(1), Owner("b")) == 1
    runner.close()
    runner.close()
    with pytest.raises(pytest.fail.Exception, match="c cannot run on its loop: it has come to its"):
        runner.run(give(1), Owner("c"))


def test_blocks_may_stay_open_from_one_piece_to_the_next(loop):
    async def enter(scope):
        scope.__enter__()

    async def leave(scope):
        with pytest.raises(sleeploop.CancelledError):
            await sleep(1)
        scope.__exit__(None, None, None)

    runner = Runner(loop)
    owner, scope = Owner("a"), CancelScope()
    runner.run(enter(scope), owner, yields=True)
    assert owner.blocks[1:] == [scope]
    scope.cancel()
    runner.run(leave(scope), owner)
    assert loop.time() == 0
    runner.close()


def test_nothing_is_kept():
    class Thing:
        pass

    async def piece(thing):
        await sleep(1)
        return thing

    async def failing(thing):
        await sleep(1)
        raise LookupError(thing)

    gc.collect()
    gc.disable()
    try:
        runner = Runner(SleepingLoop(speed=math.inf))
        thing = Thing()
        gone = weakref.ref(thing)
        assert runner.run(piece(thing), Owner("a"), final=True) is thing
        with pytest.raises(LookupError) as caught:
            runner.run(failing(thing), Owner("b"), final=True)
        del caught
        runner.run(give(1), Owner("c"), final=True)
        runner.close()
        loop = weakref.ref(runner.loop)
        del thing
        assert gone() is None
        del runner
        assert loop() is None
    finally:
        gc.enable()
