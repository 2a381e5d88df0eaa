"""Objects that call back, change their minds, raise or die where C code least expects it."""

import copy
import gc
import logging
import math
import pickle
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

import pytest

import sleeploop
from sleeploop import (
    DeadlockError,
    LoopClosedError,
    SleepingLoop,
    Task,
    checkpoint,
    create_task,
    current_loop,
    current_task,
    run,
    sleep,
    sleep_forever,
    sleep_until,
)
from tests.helpers import OnDel, awaited_error, fail_at_once, give, virtual, yielding


class Duck:
    """A coroutine by its methods alone; ends at the first step unless told otherwise."""

    def send(self, value: Any) -> Any:
        raise StopIteration(self)

    def throw(self, exc: BaseException) -> Any:
        raise exc

    def close(self) -> None:
        pass


class Incomparable:
    """Has no use for being compared, hashed or tested."""

    def refuse(self, *args: object) -> Any:
        raise AssertionError("nobody may ask this")

    __eq__ = __lt__ = __le__ = __gt__ = __ge__ = __bool__ = refuse
    __hash__ = refuse


class Report(logging.Handler):
    """Calls back for each message of sleeploop's logger while installed."""

    def __init__(self, callback: Callable[[str], object]) -> None:
        super().__init__()
        self.callback = callback

    def emit(self, record: logging.LogRecord) -> None:
        self.callback(record.getMessage())

    def __enter__(self) -> "Report":
        logging.getLogger("sleeploop").addHandler(self)
        return self

    def __exit__(self, *exc: object) -> None:
        logging.getLogger("sleeploop").removeHandler(self)


# ---- what is still borrowed while something dies -------------------------------------------------


def ask_current_task(answers: list[Any]) -> None:
    try:
        answers.append(current_task())
    except RuntimeError as error:
        answers.append(error)


def test_the_dying_result_of_a_finished_task_cannot_bring_the_task_back():
    answers = []

    async def main():
        create_task(give(OnDel(lambda: ask_current_task(answers))))
        await sleep(1)

    virtual(main())
    gc.collect()
    assert [str(a) for a in answers] == [
        "current_task(): the loop is running, but no task is right now"
    ]


def test_the_dying_error_of_a_failed_task_cannot_bring_the_task_back(monkeypatch):
    monkeypatch.setattr(logging.getLogger("sleeploop"), "disabled", True)  # handlers keep errors
    answers = []

    class Failure(Exception):
        def __del__(self):
            ask_current_task(answers)

    async def main():
        create_task(fail_at_once(Failure()), daemon=True)
        await sleep(1)

    virtual(main())
    gc.collect()
    assert [type(answer) for answer in answers] == [RuntimeError]


def test_a_log_handler_may_ask_for_the_current_task():
    async def main():
        create_task(fail_at_once(ValueError()), daemon=True)
        await sleep(1)

    answers = []
    with Report(lambda text: ask_current_task(answers)):
        virtual(main())
    assert len(answers) == 1
    assert "Task-" in repr(answers[0]) or isinstance(answers[0], RuntimeError)


@pytest.mark.parametrize("year", [1999, 2001])
def test_a_yielded_datetime_dies_while_the_task_is_resumed(year):
    calls = []

    class Moment(datetime):
        def __del__(self):
            calls.append(current_task().name)
            create_task(give(None, 5))

    async def main():
        await yielding(Moment(year, 1, 1))
        await sleep(10)
        return len(current_loop().tasks())

    assert virtual(main()) == 1
    assert set(calls) == {"Task-1"}


def test_arguments_dropped_by_the_attributes_they_are_asked_for():
    class Fickle(Duck):
        @property
        def send(self):
            coros.clear()
            gc.collect()
            return super().send

    coros = [Fickle(), Fickle()]
    loop = SleepingLoop(*coros, speed=math.inf)
    assert coros == []
    assert [type(r) for r in loop.run_until_complete()] == [Fickle, Fickle]


def test_a_deadlock_report_that_changes_what_it_reports():
    class Talkative(Duck):
        def __getattr__(self, name):
            create_task(give(None, 5), name="too late")
            gc.collect()
            raise AttributeError(name)

        def send(self, value):
            return sleeper.send(value)

        def throw(self, exc):
            sleeper.throw(exc)

    sleeper = sleep_forever()
    loop = SleepingLoop(Talkative(), sleep_forever(), speed=math.inf)
    with pytest.raises(DeadlockError) as caught:
        loop.run_until_complete()
    assert str(caught.value).count("sleeping until cancelled") == 2
    assert loop.tasks() == []


# ---- what is yielded -----------------------------------------------------------------------------


def test_a_yielded_object_whose_attributes_fail(capsys):
    class Hidden:
        def __getattribute__(self, name):
            raise ZeroDivisionError(name)

        def __repr__(self):
            raise ZeroDivisionError

    async def main():
        with pytest.raises(TypeError, match="cannot wait for <Hidden object>"):
            await yielding(Hidden())
        return "went on"

    assert virtual(main()) == "went on"
    assert capsys.readouterr().err == ""


def test_a_yielded_object_whose_attributes_call_back():
    made = []

    class Busy:
        def __getattr__(self, name):
            made.append(create_task(give(name)))
            gc.collect()
            raise AttributeError(name)

        def __repr__(self):
            with pytest.raises(RuntimeError, match="while a loop is running"):
                run(coro)
            return "<busy>"

    async def main():
        with pytest.raises(TypeError, match="<busy>"):
            await yielding(Busy())
        return [await task for task in made]

    coro = give(1)
    names = virtual(main())
    coro.close()
    assert names
    assert all(isinstance(name, str) for name in names)


def test_an_object_that_only_claims_to_be_a_datetime():
    class Impostor:
        __class__ = datetime

    async def main():
        with pytest.raises(TypeError, match="cannot wait for"):
            await yielding(Impostor())

    virtual(main())


class Zone(tzinfo):
    """A time zone that calls back for its offset."""

    def __init__(self, offset: Callable[[], Any]) -> None:
        self.offset = offset

    def utcoffset(self, when: datetime | None) -> Any:
        return self.offset()

    def dst(self, when: datetime | None) -> Any:
        return timedelta(0)


@pytest.mark.parametrize("bad", [5, timedelta(days=2), ZeroDivisionError], ids=str)
def test_a_time_zone_that_fails_fails_the_coroutine_only(bad):
    def offset():
        if bad is ZeroDivisionError:
            raise bad
        return bad

    async def main():
        moment = datetime(2000, 1, 2, tzinfo=Zone(offset))
        with pytest.raises((TypeError, ValueError, ZeroDivisionError)):
            await yielding(moment)
        with pytest.raises((TypeError, ValueError, ZeroDivisionError)):
            sleep_until(moment)
        await sleep(1)
        return current_loop().time()

    assert virtual(main()) == 1


def test_a_time_zone_that_fails_only_at_the_wake_up():
    async def main():
        offsets = iter([timedelta(0)])
        with pytest.raises(RuntimeError, match="raised StopIteration"):
            await yielding(datetime(2000, 1, 2, tzinfo=Zone(lambda: next(offsets))))
        await sleep(1)

    virtual(main())


def test_a_time_zone_that_calls_back():
    made = []

    def offset():
        made.append(create_task(give(current_task().name)))
        gc.collect()
        return timedelta(0)

    async def main():
        await yielding(datetime(2000, 1, 2, tzinfo=Zone(offset)))
        return {await task for task in made}

    assert virtual(main()) == {"Task-1"}


def test_a_cancelled_task_is_not_put_back_by_a_wall_clock_that_went_back():
    """Woken, then cancelled before its step, in which the moment is suddenly an hour ahead."""
    offset = timedelta(0)
    seen = []

    async def until():
        try:
            await yielding(datetime.now(UTC).replace(tzinfo=Zone(lambda: offset)))
        except sleeploop.CancelledError:
            seen.append("cancelled")
            raise

    async def failing():
        nonlocal offset
        await checkpoint()
        offset = timedelta(hours=-1)
        raise ValueError

    with pytest.raises(ValueError, match=r"^$"):
        SleepingLoop(failing(), until()).run_until_complete()
    assert seen == ["cancelled"]


@pytest.mark.parametrize("days", [2**62, -(2**62), 2**70, 1.5, None])
def test_a_timedelta_that_lies_about_its_fields(days):
    class Lie(timedelta):
        @property
        def days(self):
            return days

    class Moment(datetime):
        def astimezone(self, tz=None):
            return self

        def __sub__(self, other):
            return Lie(1)

    async def main():
        for make in (lambda: sleep(Lie(1)), lambda: sleep_until(Moment(2000, 1, 2, tzinfo=UTC))):
            try:
                made = make()
            except (TypeError, ValueError, OverflowError):
                continue
            make = made  # accepted: some time or other, but a time
            assert repr(make).startswith("<sleep")
        return await sleep(1)

    assert virtual(main()) == timedelta(seconds=1)


# ---- containers that change or compare -----------------------------------------------------------


def test_nothing_is_ever_compared_hashed_or_tested():
    class Moment(Incomparable, datetime):
        pass

    class Coroutine(Incomparable, Duck):
        pass

    async def main(value):
        await yielding(Moment(2000, 1, 2, tzinfo=UTC))
        task = create_task(give(value, 5))
        create_task(Coroutine())
        return await task

    values = [Incomparable() for _ in range(5)]
    results = SleepingLoop(*map(main, values), speed=math.inf).run_until_complete()
    assert all(a is b for a, b in zip(results, values, strict=True))


def test_failures_seen_while_they_are_being_reported():
    """Each report marks all the others as seen, so that the list changes under the walk."""
    tasks = []
    messages = []

    def see_all(message):
        messages.append(message)
        for task in tasks:
            task.exception()

    async def main():
        tasks.extend(create_task(fail_at_once(ValueError(i))) for i in range(100))
        await sleep(1)

    with Report(see_all), pytest.raises(ValueError, match=r"^0$"):
        virtual(main())
    assert messages == ["task 'Task-2' failed and nobody retrieved its exception"]


def test_tasks_made_by_a_log_handler_at_the_very_end_are_not_lost():
    """They are refused or run to their end; not left lying about."""
    outcomes = []
    tasks = []

    async def late():
        outcomes.append("ran")

    def spawn(message):
        coro = late()
        try:
            tasks.append(create_task(coro))
        except RuntimeError:
            coro.close()
            outcomes.append("refused")

    async def main():
        failing.append(create_task(fail_at_once(ValueError())))
        await sleep(1)

    failing = []
    loop = SleepingLoop(main(), speed=math.inf)
    with Report(spawn), pytest.raises(ValueError, match=r"^$"):
        loop.run_until_complete()
    assert len(outcomes) == 1 or [t.cancelled() for t in tasks] == [True]
    assert loop.tasks() == []


def test_lists_handed_out_are_the_caller_s():
    async def main():
        loop = current_loop()
        loop.tasks().clear()
        loop.tasks().append(None)
        return loop.tasks()

    loop = SleepingLoop(main(), give(2), speed=math.inf)
    loop.tasks().clear()
    results = loop.run_until_complete()
    assert [len(results[0]), results[1]] == [2, 2]


def test_lists_of_the_loop_s_own_are_out_of_reach():
    async def main():
        for obj in gc.get_referents(current_loop()):
            if isinstance(obj, list):
                obj.clear()
        await sleep(1)
        return "unharmed"

    assert virtual(main()) == "unharmed"


# ---- objects half made ---------------------------------------------------------------------------


class Bare(SleepingLoop):
    """Forgets to call SleepingLoop.__init__()."""

    def __init__(self, *args: object) -> None:
        pass


@pytest.mark.parametrize("make", [Bare, lambda: SleepingLoop.__new__(SleepingLoop)])
def test_a_loop_that_was_never_initialised(make):
    loop = make()
    coro = give(1)
    with pytest.raises(RuntimeError, match=r"__init__\(\) was not called"):
        loop.run_until_complete()
    with pytest.raises(RuntimeError, match=r"__init__\(\) was not called"):
        loop.create_task(coro)
    coro.close()
    assert "not started" in repr(loop)
    assert (loop.time(), loop.time_ns(), loop.tasks(), loop.speed) == (0.0, 0, [], 1.0)
    assert loop.stats().steps == 0
    assert isinstance(loop.now(), datetime)
    assert loop.now(UTC).tzinfo is UTC
    gc.get_referents(loop)


def test_a_loop_initialised_twice():
    coro = give(2)
    loop = SleepingLoop(give(1), speed=math.inf)
    with pytest.raises(RuntimeError, match="was called before"):
        loop.__init__(coro, speed=2)
    coro.close()
    assert (loop.speed, loop.run_until_complete()) == (math.inf, [1])


def test_a_loop_initialised_during_and_after_its_run():
    async def main():
        with pytest.raises(RuntimeError, match="was called before"):
            loop.__init__()
        await sleep(1)
        return 1

    loop = SleepingLoop(main(), speed=math.inf)
    assert loop.run_until_complete() == [1]
    with pytest.raises(RuntimeError, match="was called before"):
        loop.__init__()


def test_a_failed_init_can_be_made_good():
    loop = Bare()
    with pytest.raises(ValueError, match="nan"):
        SleepingLoop.__init__(loop, speed=math.nan)
    with pytest.raises(TypeError):
        SleepingLoop.__init__(loop, None)
    SleepingLoop.__init__(loop, give(1), speed=math.inf)
    assert loop.run_until_complete() == [1]


@pytest.mark.parametrize("argument", ["speed", "start", "coro"])
def test_a_loop_initialised_and_run_by_an_argument_of_its_own_init(argument):
    results = []

    def inner():
        SleepingLoop.__init__(loop, give("inner"), speed=math.inf)
        results.extend(loop.run_until_complete())

    class Speed:
        def __float__(self):
            inner()
            return 5.0

    class Start(datetime):
        def astimezone(self, tz=None):
            inner()
            return super().astimezone(tz)

    class Coro(Duck):
        @property
        def send(self):
            if not results:
                inner()
            return super().send

    loop = Bare()
    outer = Coro() if argument == "coro" else Duck()
    with pytest.raises(RuntimeError):
        SleepingLoop.__init__(
            loop,
            outer,
            speed=Speed() if argument == "speed" else math.inf,
            start=Start(2000, 1, 1) if argument == "start" else None,
        )
    assert results == ["inner"]
    assert loop.tasks() == []
    assert loop.speed == math.inf


@pytest.mark.parametrize("argument", ["coro", "daemon"])
def test_a_task_made_while_its_loop_runs_to_its_end(argument):
    class Coro(Duck):
        @property
        def send(self):
            finish()
            return super().send

    class Daemon:
        def __bool__(self):
            finish()
            return False

    def finish():
        if "not started" in repr(loop):
            loop.run_until_complete()

    loop = SleepingLoop(speed=math.inf)
    coro = Coro() if argument == "coro" else Duck()
    with pytest.raises(LoopClosedError):
        loop.create_task(coro, daemon=Daemon() if argument == "daemon" else False)
    assert loop.tasks() == []


def type_of_sleeps() -> type:
    nap = sleep(0)
    nap.close()
    return type(nap)


@pytest.mark.parametrize("kind", [Task, type_of_sleeps()])
def test_types_that_only_we_can_make(kind):
    for make in (kind, lambda: kind.__new__(kind), lambda: object.__new__(kind)):
        with pytest.raises(TypeError):
            make()
    with pytest.raises(TypeError):
        type("Sub", (kind,), {})
    with pytest.raises(TypeError):
        kind.attribute = 1


@pytest.mark.usefixtures("forgetful")
@pytest.mark.parametrize("make", [lambda: SleepingLoop(give(1)), lambda: sleep(1)])
@pytest.mark.filterwarnings("ignore:coroutine 'give' was never awaited")
def test_nothing_can_be_copied_or_pickled(make):
    thing = make()
    for duplicate in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError):
            duplicate(thing)
    for protocol in range(2):
        with pytest.raises((TypeError, pickle.PicklingError)):
            pickle.loads(pickle.dumps(thing, protocol))
    del thing
    gc.collect()


# ---- running inside of running -------------------------------------------------------------------


def test_a_loop_started_again_while_it_is_being_started(monkeypatch):
    """Before its first step it asks the threading module for the main thread, in Python."""
    genuine = threading.main_thread
    inner = []

    def again():
        monkeypatch.undo()
        try:
            inner.append(loop.run_until_complete())
        except RuntimeError as error:
            inner.append(error)
        return genuine()

    monkeypatch.setattr(threading, "main_thread", again)
    loop = SleepingLoop(give(1, delay=5), speed=math.inf)
    assert loop.run_until_complete() == [1]
    assert isinstance(inner[0], RuntimeError)


def test_a_start_that_fails_leaves_the_loop_as_it_was(monkeypatch):
    class Refused(Exception):
        pass

    def refuse():
        raise Refused

    loop = SleepingLoop(give(1), speed=math.inf)
    with monkeypatch.context() as patch:
        patch.setattr(threading, "main_thread", refuse)
        with pytest.raises(Refused):
            loop.run_until_complete()
        assert "not started" in repr(loop)
        coro = give(2)
        with pytest.raises(Refused):
            run(coro, speed=math.inf)
    assert loop.run_until_complete() == [1]
    assert virtual(coro) == 2


def test_a_task_made_while_the_loop_looks_for_a_deadlock(monkeypatch):
    """It asks the signal module who else could wake a task, and that is Python code, too."""
    import _signal

    genuine = _signal.getsignal
    ran = []

    async def late():
        ran.append("late")

    def getsignal(number):
        if not ran:
            monkeypatch.undo()
            loop.create_task(late())
        return genuine(number)

    async def main():
        await sleep(1)
        monkeypatch.setattr(_signal, "getsignal", getsignal)
        await create_task(sleep_forever())

    loop = SleepingLoop(main(), speed=math.inf)
    with pytest.raises(DeadlockError, match=r"main(?s:.*)sleeping until cancelled") as caught:
        loop.run_until_complete()
    assert ran == ["late"]
    assert "ready" not in str(caught.value)


def test_a_context_that_is_entered_already():
    async def main():
        mine = current_task()
        with pytest.raises(RuntimeError, match="already entered"):
            mine.context.run(print)
        with pytest.raises(RuntimeError, match="while a loop is running"):
            mine.context.copy().run(run, coro)
        await sleep(1)
        return mine.context.copy().run(lambda: current_task() is mine)

    coro = give(1)
    assert virtual(main())
    coro.close()


def test_a_task_whose_context_a_thread_occupies_fails_and_is_closed():
    entered, leave = threading.Event(), threading.Event()
    ended = []

    async def work():
        try:
            await sleep(1)
        finally:
            ended.append(current_task().name)

    def occupy():
        entered.set()
        leave.wait()

    async def main():
        task = create_task(work(), name="occupied")
        await checkpoint()
        thread = threading.Thread(target=task.context.run, args=(occupy,))
        thread.start()
        entered.wait()
        try:
            with pytest.raises(RuntimeError, match="already entered"):
                await task
        finally:
            leave.set()
            thread.join()
        return await give("went on", 1)

    assert virtual(main()) == "went on"
    assert ended == ["occupied"]


def test_refused_spawns_do_not_wedge_the_loop():
    async def main():
        for bad in (None, 5, give, Duck, (give,)):
            with pytest.raises(TypeError):
                create_task(bad)
        coro = give(1)
        with pytest.raises(TypeError):
            create_task(coro, name=5)
        assert current_loop().tasks() == [current_task()]
        return await create_task(coro)

    assert virtual(main()) == 1


# ---- awaitables driven by hand -------------------------------------------------------------------


def used_up(make: Callable[[], Any], how: str) -> Any:
    trap = make()
    if how == "throw":
        with pytest.raises(LookupError):
            trap.throw(LookupError)
    elif how == "send, throw":
        trap.send(None)
        with pytest.raises(LookupError):
            trap.throw(LookupError())
    else:
        trap.close()
    return trap


@pytest.mark.parametrize("how", ["throw", "close", "send, throw"])
def test_an_awaitable_thrown_into_or_closed_is_used_up(how):
    async def main():
        task = create_task(give(1))
        for make in (sleep_forever, checkpoint, lambda: sleep(1), task.__await__):
            trap = used_up(make, how)
            for again in (lambda t=trap: t.send(None), lambda t=trap: next(t)):
                with pytest.raises(RuntimeError, match="awaited before"):
                    again()
            with pytest.raises(KeyError):
                trap.throw(KeyError)
            assert trap.close() is None
        return await task

    assert virtual(main()) == 1


def test_throwing_what_is_no_exception():
    class Sly(Exception):
        def __new__(cls):
            return "no exception"

    trap = sleep(1)
    for args in [(), (5,), (int,), (None,), (Sly,), (ValueError, None, 5), (ValueError,) * 4]:
        with pytest.raises(TypeError):
            trap.throw(*args)
    with pytest.raises(ValueError, match="text"):
        trap.throw(ValueError, "text", None)


def test_a_join_shared_by_two_tasks():
    async def share(join: Iterator[Any]) -> Any:
        class Shared:
            def __await__(self):
                return join

        return await Shared()

    async def main():
        task = create_task(give("result", 5))
        join = task.__await__()
        sharing = [create_task(share(join)), create_task(share(join))]
        await sleep(10)
        return [t.exception() or t.result() for t in sharing]

    first, second = virtual(main())
    assert first == "result"
    assert second == "result" or isinstance(second, RuntimeError)


def test_a_trap_closed_under_the_task_that_waits():
    async def main():
        trap = sleep(5)
        task = create_task(trap)
        await sleep(1)
        trap.close()
        with pytest.raises(RuntimeError, match="awaited before"):
            await task
        return current_loop().time()

    assert virtual(main()) == 5


# ---- the hooks for async generators --------------------------------------------------------------


def test_strangers_in_the_hooks_for_async_generators(caplog):
    """Anybody can call the hooks with anything."""

    class Stranger:
        def __init__(self, aclose):
            self.answer = aclose

        @property
        def aclose(self):
            if isinstance(self.answer, Exception):
                raise self.answer
            return lambda: self.answer

    errors = [ValueError(1), ValueError(2)]
    strangers = [Stranger(answer) for answer in (*errors, None, Duck(), sleep(1))]

    async def main():
        first, last = sys.get_asyncgen_hooks()
        for stranger in strangers:
            first(stranger)
        with pytest.raises(TypeError):
            first(5)  # cannot be referenced weakly
        with pytest.raises(AttributeError):
            last(5)
        return 1

    with pytest.raises(ExceptionGroup) as caught:
        virtual(main())
    assert list(caught.value.exceptions) == errors
    assert "a task takes a coroutine, not None" in caplog.text


# ---- reprs ---------------------------------------------------------------------------------------


def test_a_result_that_contains_its_task():
    async def main():
        task = create_task(give(box))
        box.append(task)
        await task
        return repr(task), repr(box)

    box = []
    assert virtual(main()) == (
        "<Task 'Task-2' give: returned [<Task ...>]>",
        "[<Task 'Task-2' give: returned [...]>]",
    )


@pytest.mark.parametrize("name", [5, None, b"bytes"])
def test_a_fake_coroutine_whose_name_is_no_str(name):
    class Fake(Duck):
        __qualname__ = "hidden"

    fake = Fake()
    fake.__qualname__ = name
    (task,) = SleepingLoop(fake).tasks()
    assert repr(task) == "<Task 'Task-1' Fake object: ready to start>"


def test_a_repr_that_fails_fails_alone():
    class Mute(Duck):
        def __repr__(self):
            raise ZeroDivisionError

    class Failure(Exception):
        def __repr__(self):
            raise RecursionError

    (task,) = SleepingLoop(Mute()).tasks()
    assert "Mute object: ready to start" in repr(task)
    mute = Mute()
    with pytest.raises(RuntimeError, match="<Mute object>"):
        SleepingLoop(mute, mute)
    with pytest.raises(Failure):
        virtual(fail_at_once(Failure()))


def test_an_error_whose_repr_looks_around():
    class Failure(Exception):
        def __repr__(self):
            looks.append((current_loop().tasks(), create_task(give(1))))
            gc.collect()
            return "seen"

    async def main():
        create_task(asks())
        await checkpoint()
        await fail_at_once(Failure())

    async def asks():
        words.append(str(await awaited_error(sleep_forever())))

    looks, words = [], []
    with pytest.raises(Failure):
        virtual(main())
    assert words == ["task 'Task-1' failed with seen"]
    assert all(task.cancelled() for _, task in looks)
