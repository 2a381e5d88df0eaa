"""Copies and pickles of the exceptions of the package: none gets lost by what it holds."""

import copy
import gc
import math
import pickle
import weakref

import pytest

import sleeploop
from sleeploop import (
    CancelledError,
    CancelScope,
    DeadlockError,
    Interrupt,
    Lock,
    SleepingLoop,
    TaskGroup,
    create_task,
    current_task,
    move_on_after,
    run,
    sleep,
    sleep_forever,
)
from tests.helpers import awaited_error, fail, virtual

ERRORS = sorted(
    {
        kind
        for kind in vars(sleeploop).values()
        if isinstance(kind, type)
        and issubclass(kind, BaseException)
        and kind.__module__ == "sleeploop"  # TimeoutError is Python's
    },
    key=lambda kind: kind.__name__,
)
PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
WAYS = [copy.copy, copy.deepcopy] + [
    lambda error, protocol=protocol: pickle.loads(pickle.dumps(error, protocol))
    for protocol in PROTOCOLS
]
every_way = pytest.mark.parametrize(
    "twin_of", WAYS, ids=["copy", "deepcopy", *(f"pickle{n}" for n in PROTOCOLS)]
)


class Mine(CancelledError):
    __slots__ = ("slot",)

    def __init__(self, code, *, more):
        super().__init__(f"code {code}")
        self.code, self.more, self.slot = code, more, "slot"


class Stubborn:
    """Can neither be copied nor pickled."""

    def __reduce_ex__(self, protocol):
        raise TypeError("no copies")

    def __repr__(self):
        return "<a stubborn one>"


class Ungrateful:
    """Can be pickled, and then not be made again."""

    def __init__(self, argument):
        pass

    def __reduce__(self):
        return Ungrateful, ()

    def __repr__(self):
        return "<an ungrateful one>"


def told(error):
    return error.reason, error.source, error.source_task, error.where, str(error), repr(error)


async def cancelled_by(how):
    """A CancelledError of a source."""
    if how == "deadline":
        with move_on_after(3):
            return await awaited_error(sleep_forever())
    if how == "explicit":
        with CancelScope() as scope:
            scope.cancel(("a reason", 5))
            return await awaited_error(sleep(1))
    if how == "failure":
        errors = []

        async def victim():
            errors.append(await awaited_error(sleep_forever()))

        try:
            async with TaskGroup() as group:
                group.create_task(victim())
                group.create_task(fail(ValueError("no luck"), 1), name="bad one")
        except* ValueError:
            pass
        return errors[0]
    return None


def error_by(how):
    if how == "by hand":
        return CancelledError("by", "hand")
    if how == "shutdown":
        errors = []

        async def daemon():
            errors.append(await awaited_error(sleep_forever()))

        async def main():
            create_task(daemon(), daemon=True)
            await sleep(1)

        virtual(main())
        return errors[0]
    return virtual(cancelled_by(how))


sources = pytest.mark.parametrize("how", ["explicit", "deadline", "failure", "shutdown", "by hand"])


# ---- CancelledError --------------------------------------------------------------------------


@every_way
@sources
def test_it_keeps_what_it_knows(how, twin_of):
    error = error_by(how)
    assert error.source == how or how == "by hand"
    error.add_note("a note")
    error.extra = [1, 2]
    twin = twin_of(error)
    assert twin is not error
    assert type(twin) is CancelledError
    assert told(twin) == told(error)
    assert twin.args == error.args
    assert (twin.__notes__, twin.extra) == (["a note"], [1, 2])
    again = twin_of(twin)
    assert told(again) == told(error)


@every_way
def test_the_error_of_a_task(twin_of):
    async def main():
        task = create_task(sleep_forever_in_a_task(), name="poor")
        await sleep(1)
        task.cancel("a reason")
        return await awaited_error(task)

    error = virtual(main())
    assert "task 'poor' was cancelled" in str(error)
    assert told(twin_of(error)) == told(error)


async def sleep_forever_in_a_task():
    await sleep_forever()


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
def test_a_copy_is_of_the_same_scope(duplicate):
    async def main():
        with CancelScope() as scope:
            scope.cancel()
            try:
                await sleep(1)
            except CancelledError as error:
                raise duplicate(error) from None
        return scope.cancelled_caught

    assert virtual(main())


def test_a_copy_keeps_the_reason_itself():
    reason = Stubborn()

    async def main():
        with CancelScope() as scope:
            scope.cancel(reason)
            return await awaited_error(sleep(1))

    error = virtual(main())
    assert copy.copy(error).reason is copy.deepcopy(error).reason is reason


def test_what_comes_out_of_a_pickle_is_nobodys_cancellation_here():
    async def main():
        with CancelScope() as scope:
            scope.cancel("here")
            error = await awaited_error(sleep(1))
            raise pickle.loads(pickle.dumps(error))

    with pytest.raises(CancelledError, match="here"):
        virtual(main())


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("reason", "instead"),
    [
        (Stubborn(), "<a stubborn one>"),
        (Ungrateful(1), "<an ungrateful one>"),
        ((1, Stubborn()), (1, "<a stubborn one>")),
        ({"key": Stubborn()}, "{'key': <a stubborn one>}"),
        (test_the_error_of_a_task, test_the_error_of_a_task),
        (ValueError("x").args, ("x",)),
    ],
)
def test_a_reason_that_cannot_be_pickled_becomes_its_repr(protocol, reason, instead):
    async def main():
        with CancelScope() as scope:
            scope.cancel(reason)
            return await awaited_error(sleep(1))

    error = virtual(main())
    twin = pickle.loads(pickle.dumps(error, protocol))
    assert twin.reason == instead
    assert (twin.source, twin.source_task, twin.where) == (
        error.source, error.source_task, error.where,
    )  # fmt: skip


def test_the_text_stays_the_same_though_the_reason_is_another():
    class Long(Stubborn):
        def __repr__(self):
            return "x" * 1000

    class Mute(Stubborn):
        def __repr__(self):
            raise ValueError

    class Text(str):
        __slots__ = ()

    async def main(reason):
        with CancelScope() as scope:
            scope.cancel(reason)
            return await awaited_error(sleep(1))

    for reason in Stubborn(), Long(), Mute(), Text("a text"):
        error = virtual(main(reason))
        assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_tasks_and_locks_as_reasons():
    async def main():
        with CancelScope() as scope:
            scope.cancel([current_task(), Lock(name="lock")])
            error = await awaited_error(sleep(1))
            return pickle.loads(pickle.dumps(error)).reason, copy.deepcopy(error).reason

    text, reason = virtual(main())
    assert "Task-1" in text
    assert "'lock'" in text
    assert isinstance(reason[1], Lock)


def test_a_reason_that_leads_back_to_the_error():
    class_of_reason = Holder

    async def main():
        with CancelScope() as scope:
            scope.cancel(reason := class_of_reason())
            error = reason.held = await awaited_error(sleep(1))
            return error

    error = virtual(main())
    twin = pickle.loads(pickle.dumps(error))
    assert twin.reason.held is twin
    twin = copy.deepcopy(error)
    assert twin.reason is error.reason
    error.__dict__["own"] = error
    assert copy.deepcopy(error).own is not error
    del error.reason.held, error.own


class Holder:
    held = None


def test_reasons_within_reasons():
    """Each is tried once, not twice for each further one."""
    count = 0

    class Counting:
        def __reduce__(self):
            nonlocal count
            count += 1
            return int, ()

    async def main(reason):
        with CancelScope() as scope:
            scope.cancel(reason)
            return await awaited_error(sleep(1))

    reason = Counting()
    for _ in range(30):
        reason = virtual(main(reason))
    twin = pickle.loads(pickle.dumps(reason))
    assert count < 100
    for _ in range(30):
        twin = twin.reason
    assert twin == 0


def test_a_copy_holds_no_more_than_the_error():
    reason = Holder()
    dies = weakref.ref(reason)

    async def main(reason):
        with CancelScope() as scope:
            scope.cancel(reason)
            return await awaited_error(sleep(1))

    error = virtual(main(reason))
    twins = [twin_of(error) for twin_of in WAYS]
    del error, reason, twins
    gc.collect()
    assert dies() is None


@every_way
def test_a_subclass(twin_of):
    error = Mine(5, more="x")
    twin = twin_of(error)
    assert type(twin) is Mine
    assert (twin.args, twin.code, twin.more, twin.slot) == (("code 5",), 5, "x", "slot")


@every_way
def test_in_a_group(twin_of):
    group = BaseExceptionGroup("several", [error_by("explicit"), Interrupt(Stubborn())])
    if twin_of is copy.deepcopy:
        pytest.skip("a group is not ours")
    twin = twin_of(group)
    assert told(twin.exceptions[0]) == told(group.exceptions[0])


GOOD = ({}, "explicit", None, None, None, 0)


@pytest.mark.parametrize(
    ("place", "value", "kind"),
    [
        (0, [1], TypeError),
        (0, {1: 2}, TypeError),
        (0, {"reason": 1}, AttributeError),
        (1, None, TypeError),
        (1, b"explicit", TypeError),
        (1, "unknown", ValueError),
        (1, "explicit\0", ValueError),
        (1, "\ud800", UnicodeEncodeError),
        (3, 5, TypeError),
        (3, b"task", TypeError),
        (4, object, TypeError),
        (4, test_the_error_of_a_task.__code__, TypeError),
        (5, 2**63, OverflowError),
        (5, 1.5, TypeError),
        (5, None, TypeError),
    ],
)
def test_bad_states(place, value, kind):
    error = CancelledError()
    with pytest.raises(kind):
        error.__setstate__((*GOOD[:place], value, *GOOD[place + 1 :]))
    assert told(error) == told(CancelledError())


@pytest.mark.parametrize("source", ["deadline", "failure", "shutdown"])
def test_a_reason_that_only_an_explicit_one_may_have(source):
    error = CancelledError()
    with pytest.raises(TypeError, match="reason must be a str or None, not 5"):
        error.__setstate__(({}, source, 5, None, None, 0))
    error.__setstate__(({}, source, "a reason", "a task", "a place", -(2**63)))
    assert told(error)[:4] == ("a reason", source, "a task", "a place")
    assert str(error)


@pytest.mark.parametrize("state", [(), (1,), GOOD[:5], (*GOOD, 1), [*GOOD], "state", 5])
def test_states_of_another_kind(state):
    with pytest.raises(TypeError):
        CancelledError().__setstate__(state)


def test_states_of_other_exceptions():
    error = CancelledError()
    error.__setstate__(None)
    error.__setstate__({"extra": 1})
    assert error.extra == 1


def test_an_error_that_is_somebodys_stays_so():
    error = error_by("explicit")
    with pytest.raises(ValueError, match="knows already whose cancellation it is"):
        error.__setstate__(GOOD)
    assert error.reason == ("a reason", 5)


def test_a_scope_out_of_a_pickle_is_of_no_use():
    twin = pickle.loads(pickle.dumps(error_by("explicit")))
    (scope,) = [found for found in gc.get_referents(twin) if type(found) is CancelScope]

    async def main():
        scope.cancel()
        with pytest.raises(RuntimeError, match="has been entered before"), scope:
            pass
        return scope.cancel_called, scope.cancelled_caught, repr(scope)

    assert virtual(main())[:2] == (True, False)


# ---- the others ------------------------------------------------------------------------------


@every_way
@pytest.mark.parametrize("kind", ERRORS)
def test_every_exception(kind, twin_of):
    error = kind("text", 5)
    error.extra = "extra"
    error.add_note("a note")
    twin = twin_of(error)
    assert type(twin) is kind
    assert (twin.args, twin.extra, twin.__notes__) == (("text", 5), "extra", ["a note"])
    assert str(twin) == str(error)


@pytest.mark.parametrize("kind", ERRORS)
def test_nothing_that_it_holds_makes_it_fail(kind):
    lock, stubborn = Lock(name="lock"), Stubborn()
    error = kind(lock, [stubborn])
    error.extra = lock
    for duplicate in copy.copy, copy.deepcopy:
        twin = duplicate(error)
        assert twin.args[0] is twin.extra is lock
        assert twin.args[1][0] is stubborn
    for protocol in PROTOCOLS:
        twin = pickle.loads(pickle.dumps(error, protocol))
        assert twin.args == (repr(lock), "[<a stubborn one>]")
        assert twin.extra == repr(lock)


@every_way
def test_an_interrupt(twin_of):
    twin = twin_of(Interrupt({"cause": 1}))
    assert twin.cause == {"cause": 1}


def test_a_deep_copy_is_deep():
    error = Interrupt(cause := ["list"])
    assert copy.copy(error).cause is cause
    assert copy.deepcopy(error).cause == cause
    assert copy.deepcopy(error).cause is not cause


def test_a_deadlock():
    async def dine(mine, other):
        await mine.acquire()
        await sleep(1)
        await other.acquire()

    a, b = Lock(name="a"), Lock(name="b")
    with pytest.raises(DeadlockError) as info:
        SleepingLoop(dine(a, b), dine(b, a), speed=math.inf).run_until_complete()
    error = info.value
    assert len(error.tasks) == 2
    assert copy.copy(error).tasks == copy.deepcopy(error).tasks == error.tasks
    twin = pickle.loads(pickle.dumps(error))
    assert str(twin) == str(error)
    assert twin.tasks == tuple(map(repr, error.tasks))


def test_a_preempted_request():
    async def main():
        resource = sleeploop.Resource(1)

        async def first():
            async with resource.request(priority=2):
                try:
                    await sleep(10)
                except Interrupt as interrupt:
                    return interrupt

        task = create_task(first())
        await sleep(1)
        async with resource.request(priority=1, preempt=True):
            return await task

    error = virtual(main())
    assert copy.copy(error).cause == error.cause
    assert "Task-1" in repr(pickle.loads(pickle.dumps(error)).cause)


def test_a_class_with_a_way_of_its_own():
    error = Own("x")
    error.kept = "kept"
    for twin_of in WAYS[2:]:
        assert twin_of(error).kept == "by itself"


class Own(Interrupt):
    def __reduce__(self):
        return Own, self.args, {"kept": "by itself"}


def test_errors_of_a_run_can_be_sent_on():
    """As multiprocessing and the like do."""

    async def main():
        await fail(Interrupt(current_task()))

    with pytest.raises(Interrupt) as info:
        run(main(), speed=math.inf)
    assert "Task-1" in pickle.loads(pickle.dumps(info.value)).cause
