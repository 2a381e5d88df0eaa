"""Future: set once, by whoever has it, and awaited by any number of tasks."""

import contextvars
import math
import threading

import pytest

import sleeploop
from sleeploop import (
    CancelledError,
    CancelScope,
    DeadlockError,
    Future,
    LoopClosedError,
    SleepingLoop,
    TaskGroup,
    all_of,
    as_completed,
    checkpoint,
    create_task,
    current_loop,
    current_task,
    first_of,
    gather,
    move_on_after,
    run,
    sleep,
    timeout,
    wait_for,
)
from sleeploop.testing import explore
from tests.helpers import fail, now, outcome, virtual

VARIABLE = contextvars.ContextVar("VARIABLE", default="unset")


async def set_at(when, future, value):
    await sleep(when)
    future.set_result(value)


def later(when, value):
    """One that has its outcome then."""
    future = Future(name=str(value))
    create_task(set_at(when, future, value))
    return future


def done(value):
    future = Future()
    future.set_result(value)
    return future


async def get(future):
    return await future


async def note(future, log, name):
    log.append((name, await outcome(future), now()))


def in_a_thread(call):
    """What a call raises in another thread, in a list."""
    errors = []

    def target():
        try:
            call()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=target)
    thread.start()
    thread.join()
    return errors


# ---- normal use ----------------------------------------------------------------------------------


def test_all_who_wait_get_the_result_in_the_order_in_which_they_came():
    async def main():
        future, log = Future(), []
        async with TaskGroup() as group:
            for name in "abc":
                group.create_task(note(future, log, name))
            await sleep(2)
            assert future.n_waiting == 3
            assert future.set_result("v") is None
            assert future.n_waiting == 0
            assert log == []
        assert await future == "v"
        return log

    assert virtual(main()) == [("a", "v", 2.0), ("b", "v", 2.0), ("c", "v", 2.0)]


def test_what_is_there_already_need_not_be_waited_for():
    async def main():
        log, error = [], KeyError("k")
        create_task(sleep(0)).add_done_callback(log.append)
        assert await done(7) == 7
        failed = Future()
        failed.set_exception(error)
        for _ in range(2):
            assert await outcome(failed) is error
        cancelled = Future()
        cancelled.cancel()
        with pytest.raises(CancelledError):
            await cancelled
        return list(log)  # nobody else has had a turn

    assert virtual(main()) == []


def test_an_exception_or_a_class_of_them():
    async def main():
        for given in (error := KeyError("k")), ZeroDivisionError:
            future, log = Future(), []
            async with TaskGroup() as group:
                group.create_task(note(future, log, "a"))
                group.create_task(note(future, log, "b"))
                await checkpoint()
                assert future.set_exception(given) is None
            assert log[0][1] is log[1][1] is future.exception()
            assert future.exception() is error or type(future.exception()) is ZeroDivisionError
            with pytest.raises((KeyError, ZeroDivisionError)):
                future.result()
            assert (future.done(), future.cancelled()) == (True, False)

    virtual(main())


def test_states():
    future = Future(name="f")
    assert (future.done(), future.cancelled(), future.name) == (False, False, "f")
    for ask in future.result, future.exception:
        with pytest.raises(RuntimeError, match=r"<Future 'f' pending> has no outcome yet"):
            ask()
    future.set_result(None)
    assert (future.done(), future.cancelled()) == (True, False)
    assert (future.result(), future.exception()) == (None, None)


def test_cancelled():
    future = Future(name="f")
    assert future.cancel(reason="enough") is True
    assert future.cancel() is False
    assert (future.done(), future.cancelled()) == (True, True)
    for ask in future.result, future.exception, lambda: virtual(get(future)):
        with pytest.raises(CancelledError, match=r"^Future 'f' was cancelled: .*enough"):
            ask()
    assert done(1).cancel() is False


def test_reprs():
    async def main():
        future = Future()
        create_task(get(future), daemon=True)
        await checkpoint()
        return repr(future)

    assert virtual(main()) == "<Future pending, 1 waiting>"
    assert repr(Future(name="f")) == "<Future 'f' pending>"
    assert repr(done("v")) == "<Future with result 'v'>"
    failed = Future(name="f")
    failed.set_exception(KeyError("k"))
    assert repr(failed) == "<Future 'f' failed with KeyError('k')>"
    failed.exception()
    cancelled = Future()
    cancelled.cancel()
    assert repr(cancelled) == "<Future cancelled>"
    assert Future[int].__origin__ is Future


def test_set_before_there_is_a_loop_and_used_by_one_after_the_other():
    future = Future()
    virtual(outcome(wait_for(future, 1)))
    run(set_at(0, future, "v"))
    assert [virtual(get(future)) for _ in range(2)] == ["v", "v"]


def test_each_waiter_may_be_cancelled_alone():
    async def main():
        future, log = Future(), []
        async with TaskGroup() as group:
            tasks = [group.create_task(note(future, log, i)) for i in range(4)]
            await sleep(1)
            tasks[1].cancel()
            tasks[2].cancel()
            await sleep(1)
            assert (future.n_waiting, future.done()) == (2, False)
            future.set_result("v")
        return log

    assert virtual(main()) == [(0, "v", 2.0), (3, "v", 2.0)]


# ---- with all the others -------------------------------------------------------------------------


def test_what_waits_for_several():
    async def main():
        assert await gather(done(1), later(2, 2)) == [1, 2]
        one = later(1, "one")
        assert await gather(one, one) == ["one", "one"]
        a, b = later(2, "a"), later(1, "b")
        assert await first_of(a, b) == {b: "b"}
        assert await all_of(a, b) == {a: "a", b: "b"}
        assert [await task async for task in as_completed([later(2, 2), later(1, 1)])] == [1, 2]
        assert await wait_for(later(1, "w"), 2) == "w"
        assert await sleeploop.shield(later(1, "s")) == "s"

    virtual(main())


def test_time_limits_leave_it_alone():
    async def main():
        future = later(5, "v")
        with pytest.raises(TimeoutError):
            await wait_for(future, 1)
        with pytest.raises(TimeoutError), timeout(1):
            await future
        with move_on_after(1) as scope:
            await first_of(future, Future())
        assert scope.cancelled_caught
        assert (future.n_waiting, future.done(), now()) == (0, False, 3.0)
        assert (await future, now()) == ("v", 5.0)

    virtual(main())


def test_a_failure_in_what_waits_for_several():
    async def main():
        for function in gather, first_of, all_of:
            failing, other = Future(), Future()
            task = create_task(function(failing, other))
            await checkpoint()
            failing.set_exception(error := ValueError())
            assert await outcome(task) is error
            assert other.n_waiting == 0

    virtual(main())


def test_its_cancellation_is_an_error_and_does_not_cancel():
    async def main():
        future = Future(name="f")
        with CancelScope() as scope:
            task = create_task(get(future))
            await checkpoint()
            create_task(set_at(1, Future(), None))
            future.cancel("why")
            with pytest.raises(CancelledError, match=r"Future 'f' was cancelled: .*: why"):
                await future
            await sleep(1)  # nothing is cancelled here
        assert not scope.cancelled_caught
        assert (task.done(), task.cancelled()) == (True, False)  # it has failed
        assert isinstance(task.exception(), CancelledError)
        try:
            async with TaskGroup() as group:
                group.create_task(get(future))
        except BaseExceptionGroup as error:
            return error.exceptions

    (error,) = virtual(main())
    assert isinstance(error, CancelledError)


def test_reports():
    async def main():
        create_task(get(future), name="waiter")
        await sleep(1)
        (task,) = (task for task in current_loop().tasks() if task.name == "waiter")
        assert task.waiting_on is future
        assert "'waiter' get: waiting for Future 'soup', since" in sleeploop.format_tasks()
        assert sleeploop.find_deadlocks() == []  # a thread may set it
        await future

    future = Future(name="soup")
    with pytest.raises(DeadlockError) as info:
        virtual(main())
    assert str(info.value).count("waiting for Future 'soup', since") == 2


def test_a_trace_names_it():
    async def main():
        await later(1, "soup")

    loop = SleepingLoop(main(), speed=math.inf, trace=True)
    loop.run_until_complete()
    assert any("'soup'" in str(event) for event in loop.trace.events)


def test_every_order():
    async def check():
        future, log = Future(), []
        async with TaskGroup() as group:
            for name in "ab":
                group.create_task(note(future, log, name))
            group.create_task(set_at(0, future, "v"))
            group.create_task(get(future)).cancel()
        assert sorted(log) == [("a", "v", 0.0), ("b", "v", 0.0)]

    assert explore(check, runs=100).schedules > 1


def test_step_by_step():
    loop = SleepingLoop(speed=math.inf)
    future = Future()
    task = loop.create_task(get(future))
    while loop.step():
        pass
    assert loop.next_wake_time() == math.inf
    future.set_result("v")
    assert not task.done()
    loop.step()
    assert task.result() == "v"
    loop.close()


def test_set_while_the_loop_is_suspended_its_driver_is_told():
    loop, told = SleepingLoop(speed=math.inf), []
    future, called = Future(), []
    task = loop.create_task(get(future))
    while loop.step():
        pass
    loop.call_soon_threadsafe(lambda: future.add_done_callback(called.append))
    loop.step()
    loop.set_wakeup(lambda: told.append(future.done()))
    future.set_result("v")
    assert told == [False]  # before anything has changed
    loop.step()
    assert (task.result(), called) == ("v", [future])
    future.add_done_callback(called.append)
    assert told == [False, True]
    loop.close()
    assert called == [future] * 2


def test_a_driver_that_sets_it_when_it_is_told():
    for call, wanted in [
        (lambda future: future.cancel(), False),
        (lambda future: future.set_result(1), RuntimeError),
        (lambda future: future.set_exception(KeyError), RuntimeError),
    ]:
        loop, future = SleepingLoop(speed=math.inf), Future(name="f")
        task = loop.create_task(get(future))
        loop.step()
        loop.set_wakeup(
            lambda loop=loop, future=future: (loop.set_wakeup(None), future.set_result(0))
        )
        if wanted is RuntimeError:
            with pytest.raises(RuntimeError, match="<Future 'f' with result 0> has its outcome"):
                call(future)
        else:
            assert call(future) is wanted
        loop.run_until(task)
        assert task.result() == 0
        loop.close()


# ---- wrong use -----------------------------------------------------------------------------------


def test_wrong_types():
    future = Future(name="f")
    with pytest.raises(TypeError, match=r"Future\(\): name must be a str, not 7"):
        Future(name=7)
    with pytest.raises(TypeError):
        Future("name")
    with pytest.raises(TypeError, match="not an acceptable base type"):
        type("Sub", (Future,), {})
    for wrong in "x", 7, None, int:
        with pytest.raises(TypeError, match=r"set_exception\(\) takes an exception, not "):
            future.set_exception(wrong)
    for wrong in StopIteration, StopIteration(1):
        with pytest.raises(TypeError, match="which would end the await"):
            future.set_exception(wrong)
    with pytest.raises(TypeError, match="argument"):
        future.set_exception(UnicodeDecodeError)  # cannot be called without
    with pytest.raises(TypeError):
        future.set_result()
    with pytest.raises(TypeError, match=r"Future\.cancel\(\)"):
        future.cancel(why="x")
    assert not future.done()


def test_a_class_that_makes_no_exception():
    class Odd(Exception):
        def __new__(cls):
            return made

    for given, message in (7, "not 7"), (StopIteration(), "not StopIteration"):
        made = given
        with pytest.raises(TypeError, match=message):
            Future().set_exception(Odd)


def test_a_class_that_sets_the_outcome_as_it_is_made():
    class Hasty(Exception):
        def __init__(self):
            future.set_result("first")

    future = Future()
    with pytest.raises(RuntimeError, match="with result 'first'> has its outcome already"):
        future.set_exception(Hasty)
    assert future.result() == "first"


def test_set_twice():
    for first in (
        lambda future: future.set_result(1),
        lambda future: future.set_exception(KeyError("k")),
        lambda future: future.cancel(),
    ):
        future = Future(name="f")
        first(future)
        was = repr(future)
        for again in lambda f=future: f.set_result(2), lambda f=future: f.set_exception(KeyError):
            with pytest.raises(RuntimeError, match=r"Future 'f' .* has its outcome already"):
                again()
        assert future.cancel() is False
        assert repr(future) == was
        if not future.cancelled():
            future.exception()


def test_another_thread_is_refused():
    async def main():
        future = Future(name="f")
        for call in (
            lambda: future.set_result(1),
            lambda: future.set_exception(KeyError("k")),
            lambda: future.cancel(),
            lambda: future.add_done_callback(print),
            lambda: future.remove_done_callback(print),
            lambda: virtual(get(future)),
        ):
            (error,) = in_a_thread(call)
            assert type(error) is RuntimeError
            assert "'f' pending> is used by a loop that runs in another thread" in str(error)
        assert not future.done()
        current_loop().call_soon_threadsafe(future.set_result, "v")
        assert await future == "v"

    virtual(main())


def test_no_loop():
    future = Future()
    with pytest.raises(RuntimeError, match=r"Future\.add_done_callback\(\)"):
        future.add_done_callback(print)
    assert future.remove_done_callback(print) == 0
    with pytest.raises(RuntimeError, match=r"Future\.__await__\(\)"):
        get(future).send(None)
    with pytest.raises(TypeError):
        sleeploop.run(future)


def test_two_loops_at_once():
    async def inner():
        with pytest.raises(RuntimeError, match="belongs to another loop"):
            await future
        with pytest.raises(RuntimeError, match="belongs to another loop"):
            await called

    future, called, seen = Future(name="f"), Future(name="c"), []
    loop = SleepingLoop(speed=math.inf)
    task = loop.create_task(get(future))
    loop.call_soon_threadsafe(lambda: called.add_done_callback(seen.append))
    loop.step()
    virtual(inner())
    future.set_result(1)
    called.set_result(2)
    loop.run_until(task)
    assert (task.result(), seen) == (1, [called])
    assert virtual(get(called)) == 2
    loop.close()


# ---- callbacks -----------------------------------------------------------------------------------


def test_callbacks_in_order_before_those_who_wait():
    async def main(log):
        future = Future()
        create_task(note(future, log, "waiter"))
        await checkpoint()
        for i in range(3):
            future.add_done_callback(lambda *args, i=i: log.append((i, *args, now())))
        await sleep(1)
        future.set_result("v")
        assert log == []
        await sleep(1)
        return log == [*((i, future, 1.0) for i in range(3)), ("waiter", "v", 1.0)]

    assert virtual(main([]))


def test_callbacks_whatever_the_outcome_is():
    async def main():
        log, futures = [], [Future() for _ in range(3)]
        for future in futures:
            future.add_done_callback(log.append)
        futures[0].set_result(1)
        futures[1].set_exception(KeyError("k"))
        futures[2].cancel()
        assert log == []
        await sleep(0)
        futures[1].exception()
        return log == futures

    assert virtual(main())


def test_the_context_of_a_callback():
    async def main():
        future, log = Future(), []
        context = contextvars.copy_context()
        context.run(VARIABLE.set, "given")
        VARIABLE.set("current")
        future.add_done_callback(lambda _: log.append(VARIABLE.get()))
        future.add_done_callback(lambda _: log.append(VARIABLE.get()), context=context)
        VARIABLE.set("later")
        future.set_result(None)
        future.add_done_callback(lambda _: log.append(VARIABLE.get()))
        await sleep(0)
        return log

    assert virtual(main()) == ["current", "given", "later"]


def test_added_when_it_is_done_time_does_not_jump_past_it():
    async def main():
        log = []

        def chain(future):
            log.append(now())
            if len(log) < 3:
                future.add_done_callback(chain)

        done(1).add_done_callback(chain)
        await sleep(5)
        return log

    assert virtual(main()) == [0.0] * 3


def test_an_error_of_a_callback_ends_the_run():
    log = []

    async def main():
        future = Future()
        future.add_done_callback(lambda _: 1 / 0)
        future.add_done_callback(log.append)
        future.set_result(1)
        await sleep(5)

    with pytest.raises(ZeroDivisionError):
        virtual(main())
    assert len(log) == 1


def test_removing_callbacks():
    class Equal:
        def __init__(self, name):
            self.name = name

        def __call__(self, future):
            log.append(self.name)

        def __eq__(self, other):
            while todo:
                todo.pop()()
            return self.name == other.name

        __hash__ = None

    async def main():
        future = Future()
        assert future.remove_done_callback(print) == 0
        for name in "abab":
            future.add_done_callback(Equal(name))
        assert future.remove_done_callback(Equal("a")) == 2
        assert future.remove_done_callback(Equal("a")) == 0
        todo.append(lambda: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            future.remove_done_callback(Equal("b"))
        assert future.remove_done_callback(Equal("b")) == 2
        future.add_done_callback(Equal("a"))
        todo.append(lambda: future.set_result(1))
        assert future.remove_done_callback(Equal("a")) == 0  # fell due meanwhile
        await sleep(0)
        return log

    log, todo = [], []
    assert virtual(main()) == ["a"]


def test_removed_in_a_comparison():
    class Removing:
        def __eq__(self, other):
            return future.remove_done_callback(print) >= 0

        __hash__ = None

    async def main():
        for _ in range(3):
            future.add_done_callback(print)
        return future.remove_done_callback(Removing())

    future = Future()
    assert virtual(main()) == 0
    future.set_result(1)


def test_callbacks_that_are_none():
    async def main():
        future = Future()
        with pytest.raises(TypeError, match=r"Future\.add_done_callback\(\) takes a function, not"):
            future.add_done_callback("x")
        with pytest.raises(TypeError, match="context must be"):
            future.add_done_callback(print, context=7)
        with pytest.raises(TypeError):
            future.add_done_callback()

    virtual(main())


def test_callbacks_after_the_run():
    async def main():
        future.add_done_callback(log.append)

    future, log = Future(name="f"), []
    virtual(main())
    for call in future.set_result, future.set_exception:
        with pytest.raises(LoopClosedError, match="'f' pending> has callbacks, and the run of"):
            call(KeyError("k"))
    with pytest.raises(LoopClosedError):
        future.cancel()
    with pytest.raises(RuntimeError, match=r"add_done_callback\(\)"):
        future.add_done_callback(print)
    assert future.remove_done_callback(log.append) == 1
    future.set_result("v")
    assert virtual(get(future)) == "v"
    assert log == []


def test_a_callback_at_the_end_of_the_run():
    async def main():
        future.add_done_callback(log.append)
        try:
            await sleep(9)
        finally:
            future.set_result(current_task())

    future, log = Future(), []
    with pytest.raises(ZeroDivisionError):
        virtual(gather(main(), fail(ZeroDivisionError(), 1)))
    assert log == [future]
