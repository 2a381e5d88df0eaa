"""What becomes of a Future's outcome: who gets it when something comes between; none gets lost."""

import copy
import gc
import logging
import math
import pickle
import threading
import weakref
from contextlib import suppress

import pytest

from sleeploop import (
    CancelledError,
    CancelScope,
    Future,
    Interrupt,
    SleepingLoop,
    TaskGroup,
    checkpoint,
    create_task,
    first_of,
    move_on_after,
    sleep,
    sleep_forever,
)
from tests.helpers import OnDel, awaited_error, fail_at_the_end, outcome, virtual

LOST = "Future 'f' failed and nobody retrieved its exception"


async def get(future):
    return await future


def failed(error, name="f"):
    future = Future(name=name)
    future.set_exception(error)
    return future


def waiting_at(future):
    """A loop that is suspended while its task waits; and the task."""
    loop = SleepingLoop(speed=math.inf)
    task = loop.create_task(get(future))
    loop.step()
    assert future.n_waiting == 1
    return loop, task


# ---- who gets it, when something comes between ---------------------------------------------------


def test_cancelled_after_it_was_set_and_before_it_ran():
    async def wait(future, log):
        log.append(await outcome(future))
        try:
            await checkpoint()
        except CancelledError:
            log.append("cancelled")
            raise

    async def main():
        log, error = [], KeyError("k")
        for outcome_of in lambda f: f.set_result("v"), lambda f: f.set_exception(error):
            future = Future()
            task = create_task(wait(future, log))
            await checkpoint()
            outcome_of(future)
            task.cancel()
            await sleep(1)
            assert task.cancelled()
        assert log == ["v", "cancelled", error, "cancelled"]

    virtual(main())


def test_set_after_the_waiter_was_cancelled_in_the_same_step():
    async def main():
        future = Future()
        task = create_task(get(future))
        await checkpoint()
        task.cancel()
        future.set_exception(KeyError("k"))
        await sleep(1)
        assert task.cancelled()
        assert repr(future.exception()) == "KeyError('k')"  # nobody has seen it but here

    virtual(main())


def test_in_a_cancelled_scope_it_raises_set_or_not_and_has_seen_nothing(caplog):
    async def main():
        with CancelScope() as scope:
            scope.cancel()
            await awaited_error(failed(KeyError("k")))

    with pytest.raises(KeyError):
        virtual(main())
    assert caplog.messages == [LOST]


def test_interrupted_while_it_waits():
    async def main():
        future = Future()
        task = create_task(outcome(future))
        await checkpoint()
        task.interrupt("why")
        future.set_result(1)
        await sleep(0)
        return await task, future.n_waiting

    error, n_waiting = virtual(main())
    assert isinstance(error, Interrupt)
    assert n_waiting == 0


def test_the_await_is_closed_by_hand():
    async def main():
        future = Future()
        future.__await__()  # alone is no mistake
        for begun in False, True:
            wait = future.__await__()
            if begun:
                next(wait)
            wait.close()
            with pytest.raises(RuntimeError):
                next(wait)
        coro = get(future)
        coro.send(None)
        coro.close()
        assert future.n_waiting == 0
        future.set_result("v")
        with pytest.raises(StopIteration) as info:
            next(future.__await__())
        assert info.value.value == "v"
        return await future

    assert virtual(main()) == "v"


def test_a_failure_that_comes_to_an_await_closed_by_hand_is_not_seen():
    async def main():
        future = Future(name="f")
        coro = get(future)
        coro.send(None)
        future.set_exception(KeyError("k"))
        coro.close()

    with pytest.raises(KeyError):
        virtual(main())


def test_dropped_by_all_but_those_who_wait():
    async def main():
        task = create_task(get(Future(name="f")))
        await checkpoint()
        future = task.waiting_on
        ref = weakref.ref(future)
        future.set_result("v")
        del future
        assert await task == "v"
        return ref()

    assert virtual(main()) is None


def test_one_that_comes_first_of_several_and_one_that_does_not(caplog):
    async def main():
        a, b = Future(name="a"), Future(name="b")
        task = create_task(first_of(a, b))
        await checkpoint()
        a.set_result(1)
        b.set_exception(KeyError("b"))
        assert await task == {a: 1}

    with pytest.raises(KeyError, match="b"):
        virtual(main())
    assert caplog.messages == ["Future 'b' failed and nobody retrieved its exception"]


def test_a_loop_that_is_closed_while_its_task_waits():
    future = Future()
    loop, task = waiting_at(future)
    loop.close()
    assert task.cancelled()
    assert (future.n_waiting, future.done()) == (0, False)
    future.set_result(1)


@pytest.mark.filterwarnings("ignore:.*was neither closed nor run to its end:ResourceWarning")
def test_a_loop_that_is_dropped_while_its_task_waits():
    future = Future()
    loop, task = waiting_at(future)
    loop.call_soon_threadsafe(future.add_done_callback, print)
    loop.step()
    ref = weakref.ref(loop)
    del loop, task
    gc.collect()
    assert ref() is None
    assert future.n_waiting == 0
    assert future.remove_done_callback(print) == 1
    future.set_result(1)


# ---- failures that nobody has seen ---------------------------------------------------------------


@pytest.mark.parametrize("keep", [True, False])
def test_one_that_nobody_asks_for_is_logged_and_raised(keep, caplog):
    async def main():
        kept.append(failed(KeyError("k")))
        if not keep:
            kept.clear()
            assert caplog.messages == [LOST]
        await sleep(1)

    kept = []
    with pytest.raises(KeyError):
        virtual(main())
    assert caplog.messages == [LOST]
    assert caplog.records[0].exc_info[0] is KeyError
    kept.clear()
    gc.collect()
    assert len(caplog.messages) == 1


def test_one_that_no_task_has_used_is_of_the_run_in_which_it_is_set(caplog):
    async def main(future):
        future.set_exception(KeyError("k"))
        await sleep(1)

    futures = [Future(name="f") for _ in range(2)]
    virtual(first_of(futures[0], sleep(1)))  # its loop is gone
    for future in futures:
        with pytest.raises(KeyError):
            virtual(main(future))
    assert caplog.messages == [LOST] * 2


def test_several_are_a_group_with_those_of_tasks():
    async def fail():
        raise ValueError("of a task")

    async def main():
        create_task(fail())
        await sleep(0)
        return [failed(KeyError(i)) for i in range(2)]

    with pytest.raises(ExceptionGroup, match=r"^3 failures") as info:
        virtual(main())
    assert {str(error) for error in info.value.exceptions} == {"of a task", "0", "1"}


def test_an_exception_that_two_have_is_raised_once():
    async def main():
        error = KeyError("k")
        return failed(error), failed(error)

    with pytest.raises(KeyError):
        virtual(main())


@pytest.mark.parametrize(
    "look",
    [
        lambda future: future.exception(),
        lambda future: future.result(),
        lambda future: next(future.__await__()),
    ],
)
def test_whoever_asks_has_seen_it(look, caplog):
    async def main():
        future = failed(KeyError("k"))
        with suppress(KeyError):
            look(future)

    virtual(main())
    assert caplog.messages == []


def test_one_of_two_waiters_is_enough():
    async def main():
        future = Future()
        tasks = [create_task(outcome(future)) for _ in range(2)]
        await checkpoint()
        tasks[0].cancel()
        future.set_exception(error := KeyError("k"))
        await sleep(1)
        return tasks[0].cancelled(), tasks[1].result() is error

    assert virtual(main()) == (True, True)


def test_repr_and_done_and_callbacks_do_not_see_it():
    async def main():
        future = Future(name="f")
        future.add_done_callback(lambda future: (repr(future), future.done()))
        future.set_exception(KeyError("k"))
        await sleep(1)

    with pytest.raises(KeyError):
        virtual(main())


def test_without_a_loop_it_is_logged_when_it_is_dropped(caplog):
    future = failed(KeyError("k"))
    assert caplog.messages == []
    del future
    gc.collect()
    assert caplog.messages == [LOST]


def test_set_after_the_run_it_is_logged_when_it_is_dropped(caplog):
    async def main():
        return Future(name="f")

    future = virtual(main())
    future.set_exception(KeyError("k"))
    assert caplog.messages == []
    del future
    assert caplog.messages == [LOST]


def test_in_a_suspended_loop_the_end_of_the_run_raises_it(caplog):
    future = Future(name="f")
    loop, task = waiting_at(future)
    task.cancel()
    loop.step()
    future.set_exception(KeyError("k"))
    with pytest.raises(KeyError):
        loop.close()
    assert caplog.messages == [LOST]


@pytest.mark.filterwarnings("ignore:.*was neither closed nor run to its end:ResourceWarning")
def test_of_a_loop_that_was_dropped_it_is_logged_when_it_is_dropped(caplog):
    future = Future(name="f")
    loop, task = waiting_at(future)
    task.cancel()
    loop.step()
    loop.create_task(sleep_forever())
    future.set_exception(KeyError("k"))
    del loop, task
    gc.collect()
    assert caplog.messages == []
    del future
    assert caplog.messages == [LOST]


def test_it_dies_in_another_thread(caplog):
    async def main():
        box = [failed(KeyError("k"))]
        thread = threading.Thread(target=box.clear)
        thread.start()
        thread.join()
        assert caplog.messages == [LOST]

    with pytest.raises(KeyError):
        virtual(main())


@pytest.mark.parametrize("todo", ["drop", "see", "collect", "fail"])
def test_what_a_log_handler_may_do(todo, caplog):
    class Handler(logging.Handler):
        def emit(self, record):
            if todo == "drop":
                kept.clear()
            elif todo == "see":
                kept[0].exception()
            elif todo == "collect":
                gc.collect()
            elif len(log) < 3:
                log.append(None)
                kept.append(failed(KeyError("k")))

    async def main():
        kept.append(failed(KeyError("k")))

    kept, log = [], []
    logger, handler = logging.getLogger("sleeploop"), Handler()
    logger.addHandler(handler)
    try:
        with pytest.raises((KeyError, ExceptionGroup)):
            virtual(main())
    finally:
        logger.removeHandler(handler)
    assert caplog.messages == [LOST] * (1 + len(log))


def test_a_log_handler_that_keeps_one_that_is_dropped():
    class Handler(logging.Handler):
        def emit(self, record):
            kept.extend(f for f in gc.get_objects() if type(f) is Future and f.name == "kept")

    kept = []
    logger, handler = logging.getLogger("sleeploop"), Handler()
    logger.addHandler(handler)
    try:
        error = KeyError("k")
        failed(error, "kept")
    finally:
        logger.removeHandler(handler)
    (future,) = kept
    assert future.exception() is error


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit, CancelledError])
def test_exceptions_that_are_no_failures_elsewhere(kind):
    async def main():
        for error in kind, kind("x"):
            future = Future()
            future.set_exception(error)
            with pytest.raises(kind):
                await future
            with pytest.raises(kind):
                future.result()
        create_task(get(failed(kind("lost"))), daemon=False)
        await sleep(1)

    with pytest.raises(kind, match="lost"):
        virtual(main())


def test_a_failure_at_the_end_of_the_run(caplog):
    async def main():
        create_task(at_the_end())
        await sleep(1)

    async def at_the_end():
        try:
            await sleep_forever()
        finally:
            kept.append(failed(KeyError("k")))

    kept = []
    with pytest.raises(KeyError):
        virtual(main())
    assert caplog.messages == [LOST]


def test_a_cancellation_in_which_it_waits_is_replaced_by_its_failure():
    async def main():
        future = Future()
        with move_on_after(1):
            async with TaskGroup() as group:
                group.create_task(fail_at_the_end(KeyError("k")))
                await future

    with pytest.raises(ExceptionGroup):
        virtual(main())


# ---- tracebacks ----------------------------------------------------------------------------------


def test_each_who_asks_gets_it_as_it_was_given():
    def frames(error):
        traceback, names = error.__traceback__, []
        while traceback is not None:
            names.append(traceback.tb_frame.f_code.co_name)
            traceback = traceback.tb_next
        return names

    def made():
        try:
            raise KeyError("k")
        except KeyError as error:
            return error

    async def main():
        future = failed(made())
        for _ in range(3):
            with pytest.raises(KeyError) as info:
                await future
            assert frames(info.value) == ["main", "made"]
        assert frames(future.exception()) == ["made"]
        handled = ValueError()
        try:
            raise handled
        except ValueError:
            with pytest.raises(KeyError) as info:
                future.result()
        assert info.value.__context__ is handled
        assert future.exception().__context__ is None
        try:
            await future
        except KeyError:
            assert frames(future.exception()) == ["main", "made"]  # it is being handled

    virtual(main())


@pytest.mark.parametrize(
    "twin_of", [copy.copy, copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))]
)
def test_its_cancelled_error_can_be_copied(twin_of):
    future = Future(name="f")
    future.cancel("why")
    error = future.exception
    with pytest.raises(CancelledError) as info:
        error()
    assert str(twin_of(info.value)) == str(info.value)
    for refused in copy.copy, pickle.dumps:
        with pytest.raises(TypeError):
            refused(future)


# ---- memory --------------------------------------------------------------------------------------


class Hostile:
    def __repr__(self):
        raise ZeroDivisionError

    __eq__ = __hash__ = None


def test_hostile_results():
    future = Future(name="f")
    future.set_result(hostile := Hostile())
    assert future.result() is hostile
    assert "Future 'f' with result" in repr(future)
    with pytest.raises(RuntimeError, match="has its outcome already"):
        future.set_result(1)
    holds_itself = Future()
    holds_itself.set_result([holds_itself])
    assert repr(holds_itself) == "<Future with result [<Future ...>]>"


def test_an_outcome_that_dies_with_it():
    log = []
    future = Future()
    future.set_result(OnDel(lambda: log.append("gone")))
    del future
    assert log == ["gone"]


def test_a_future_in_a_circle_with_itself_is_collected(monkeypatch):
    logged = []  # and nothing else of it, as pytest's own log would keep it
    logger = logging.getLogger("sleeploop")
    monkeypatch.setattr(logger, "error", lambda text, *args, exc_info: logged.append(text % args))
    future = Future(name="f")
    future.set_result(future)
    refs = [weakref.ref(future)]

    class Error(Exception):
        pass

    future = failed(Error(), "f")
    future.exception().future = future
    refs.append(weakref.ref(future))
    unseen = Future(name="f")
    error = Error()
    error.future = unseen
    unseen.set_exception(error)
    refs.append(weakref.ref(unseen))
    del future, unseen, error
    gc.collect()
    assert logged == [LOST]  # of the last
    gc.collect()  # whoever was looked at by a finalizer goes only now, as of 3.15
    assert [ref() for ref in refs] == [None] * 3


@pytest.mark.filterwarnings("ignore:.*was neither closed nor run to its end:ResourceWarning")
def test_a_task_that_waits_for_what_holds_it():
    loop = SleepingLoop(speed=math.inf)
    future = Future()
    task = loop.create_task(get(future))
    loop.call_soon_threadsafe(future.add_done_callback, lambda _, task=task: task)
    loop.step()
    refs = weakref.ref(loop), weakref.ref(future), weakref.ref(task)
    del loop, future, task
    gc.collect()
    assert [ref() for ref in refs] == [None] * 3


def test_one_whose_callbacks_hold_it_is_collected():
    async def main():
        future = Future()
        future.add_done_callback(lambda _: future)
        return weakref.ref(future)

    ref = virtual(main())
    gc.collect()
    assert ref() is None


@pytest.mark.parametrize("link", ["result", "exception"])
def test_a_long_chain(link):
    future = None
    for _ in range(100_000):
        last, future = future, Future()
        if link == "result":
            future.set_result(last)
        else:
            error = KeyError()
            error.last = last
            future.set_exception(error)
            future.exception()
        last = error = None
    del future


def test_many_waiters_and_many_failures_in_order():
    async def main():
        futures = [Future() for _ in range(1000)]
        tasks = [create_task(get(future)) for future in futures for _ in range(2)]
        await checkpoint()
        for future in futures:
            future.set_result(future)
        return [await task for task in tasks] == [f for f in futures for _ in range(2)]

    assert virtual(main())


def test_a_finalizer_that_finds_one_that_is_garbage():
    log = []

    class Last:
        def __del__(self):
            self.future.cancel()
            log.append(self.future.done())

    last = Last()
    last.future = Future()
    last.future.set_result(last)
    del last
    gc.collect()
    assert log == [True]
