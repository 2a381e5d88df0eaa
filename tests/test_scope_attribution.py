"""Whose CancelledError it is, who catches it, and what it tells."""

import re
from datetime import datetime

import pytest

from sleeploop import (
    CancelledError,
    CancelScope,
    TaskGroup,
    checkpoint,
    create_task,
    current_task,
    move_on_after,
    sleep,
    sleep_forever,
    timeout,
)
from tests.helpers import awaited_error, now, virtual


async def cancel_and_raise(scope, error):
    with scope:
        scope.cancel("second")
        raise error


# ---- nesting: whose CancelledError it is ---------------------------------------------------------


def test_cancelling_the_outer_one_ends_both():
    async def main():
        with CancelScope() as outer:
            with CancelScope() as inner:
                outer.cancel()
                await sleep(1)
            pytest.fail("the outer block was cancelled")
        assert (outer.cancel_called, outer.cancelled_caught) == (True, True)
        assert (inner.cancel_called, inner.cancelled_caught) == (False, False)

    virtual(main())


def test_cancelling_the_inner_one_leaves_the_outer_alone():
    async def main():
        with CancelScope() as outer:
            with CancelScope() as inner:
                inner.cancel()
                await sleep(1)
            await sleep(1)
            assert (inner.cancel_called, inner.cancelled_caught) == (True, True)
        assert (outer.cancel_called, outer.cancelled_caught) == (False, False)
        return now()

    assert virtual(main()) == 1.0


@pytest.mark.parametrize("first", ["inner", "outer"])
def test_of_two_that_are_cancelled_the_outermost_catches(first):
    async def main():
        with CancelScope() as outer:
            with CancelScope() as inner:
                for scope in (inner, outer) if first == "inner" else (outer, inner):
                    scope.cancel()
                await sleep(1)
            pytest.fail("the outer block was cancelled")
        return inner.cancelled_caught, outer.cancelled_caught

    assert virtual(main()) == (False, True)


def test_an_inner_block_catches_its_own_though_the_outer_was_cancelled_meanwhile():
    async def main():
        events = []
        with CancelScope() as outer:
            with CancelScope() as inner:
                inner.cancel()
                try:
                    await sleep(1)
                finally:
                    outer.cancel()
            events.append("between")
            await checkpoint()
            events.append("never")
        assert inner.cancelled_caught
        assert outer.cancelled_caught
        return events

    assert virtual(main()) == ["between"]


def test_an_error_kept_from_one_block_is_nothing_to_another():
    async def main():
        with CancelScope() as first:
            first.cancel("first")
            error = await awaited_error(checkpoint())
        second = CancelScope()
        with pytest.raises(CancelledError) as info:
            await cancel_and_raise(second, error)
        assert info.value is error
        assert error.reason == "first"
        assert not second.cancelled_caught

    virtual(main())


def test_a_cancelled_error_by_hand_belongs_to_the_cancellation_in_force():
    async def main():
        with CancelScope() as outer:
            with CancelScope() as inner:
                outer.cancel()
                inner.cancel()
                raise CancelledError
            pytest.fail("the outermost cancellation is in force")
        assert (inner.cancelled_caught, outer.cancelled_caught) == (False, True)

        class Own(CancelledError):
            pass

        with CancelScope() as scope:
            scope.cancel()
            raise Own("a kind of its own")
        assert scope.cancelled_caught

    virtual(main())


def test_a_cancelled_error_by_hand_where_nothing_is_cancelled_is_a_failure():
    async def main():
        with CancelScope() as scope:
            with CancelScope() as left:
                left.cancel()
            try:
                raise CancelledError("by hand")
            finally:
                assert not scope.cancelled_caught

    error = CancelledError("by hand")
    assert (error.source, error.source_task, error.where, error.reason) == (
        ("unknown",) + (None,) * 3
    )
    assert (str(error), repr(error)) == ("by hand", "CancelledError('by hand')")
    with pytest.raises(CancelledError, match=r"^by hand$"):
        virtual(main())


def test_the_result_of_a_cancelled_task_belongs_to_what_cancelled_it():
    """A block that is cancelled as well does not take it for its own."""

    async def main():
        task = create_task(sleep_forever(), name="victim")
        await checkpoint()
        task.cancel("not you")
        with pytest.raises(CancelledError, match="victim"):
            await task
        scope = CancelScope()
        with pytest.raises(CancelledError) as info:
            await cancel_and_ask(scope, task)
        assert not scope.cancelled_caught
        assert re.match("task 'victim' was cancelled: cancelled by .*: not you$", str(info.value))
        return info.value.source, info.value.reason, info.value.source_task

    async def cancel_and_ask(scope, task):
        with scope:
            scope.cancel("other")
            task.result()

    assert virtual(main()) == ("explicit", "not you", "Task-1")


def test_the_result_of_a_task_that_fell_to_the_same_cancellation():
    """That error is the block's own, and ends there."""

    async def main():
        with CancelScope() as scope:
            try:
                async with TaskGroup() as group:
                    task = group.create_task(sleep_forever())
                    await checkpoint()
                    scope.cancel("all of you")
            except CancelledError:
                task.result()
            pytest.fail("result() has raised")
        return scope.cancelled_caught

    assert virtual(main())


def test_a_block_takes_its_own_errors_out_of_a_group():
    async def main():
        value, key = ValueError("v"), KeyError("k")
        with CancelScope() as foreign:
            foreign.cancel()
            other = await awaited_error(checkpoint())
        scope = CancelScope()
        with pytest.raises(BaseExceptionGroup) as info:
            await block(scope, value, key, other)
        group = info.value
        assert scope.cancelled_caught
        assert group.message == "outer"
        assert group.exceptions[0] is value
        assert len(group.exceptions) == 2
        assert group.exceptions[1].message == "inner"
        assert group.exceptions[1].exceptions == (key, other)

    async def block(scope, value, key, other):
        with scope:
            scope.cancel()
            own = [await awaited_error(checkpoint()) for _ in range(3)]
            inner = BaseExceptionGroup("inner", [own[0], key, own[1], other])
            only = BaseExceptionGroup("only", [own[2]])
            raise BaseExceptionGroup("outer", [value, inner, only, CancelledError()])

    virtual(main())


def test_a_group_of_nothing_but_its_own_errors_is_caught():
    async def main():
        with CancelScope() as scope:
            scope.cancel()
            own = await awaited_error(checkpoint())
            raise BaseExceptionGroup("all", [own, BaseExceptionGroup("deeper", [own])])
        return scope.cancelled_caught

    assert virtual(main())


def test_a_group_without_any_of_its_own_errors_passes_as_it_is():
    async def main():
        error = ExceptionGroup("x", [ValueError("v")])
        scope = CancelScope()
        with pytest.raises(ExceptionGroup) as info:
            await cancel_and_raise(scope, error)
        assert info.value is error
        return scope.cancelled_caught

    assert virtual(main()) is False


# ---- what the error tells ------------------------------------------------------------------------


def test_who_cancelled_and_where_and_why():
    async def culprit(scope):
        scope.cancel("no time")

    async def main():
        with CancelScope() as scope:
            create_task(culprit(scope), name="the culprit")
            error = await awaited_error(sleep(1))
        return error

    error = virtual(main())
    line = culprit.__code__.co_firstlineno + 1
    where = f"{__file__}:{line} in {culprit.__qualname__}"
    assert (error.source, error.source_task, error.reason) == ("explicit", "the culprit", "no time")
    assert error.where == where
    assert str(error) == f"cancelled by task 'the culprit' at {where}: no time"
    assert repr(error) == f"CancelledError({str(error)!r})"


@pytest.mark.parametrize("reason", [None, "", 5, ("a", "tuple"), ValueError("v")], ids=repr)
def test_a_reason_may_be_anything(reason):
    async def main():
        with CancelScope() as scope:
            scope.cancel(reason=reason)
            return await awaited_error(checkpoint())

    error = virtual(main())
    assert error.reason is reason
    text = reason if isinstance(reason, str) else repr(reason)
    ending = "main" if reason is None else f": {text}"
    assert str(error).endswith(ending)


def test_a_reason_without_a_repr_spoils_nothing():
    class Mute:
        def __repr__(self):
            raise OSError("no repr")

    async def main():
        with CancelScope() as scope:
            scope.cancel(Mute())
            error = await awaited_error(checkpoint())
            assert "Mute object" in str(error)
            raise error
        return scope.cancelled_caught

    assert virtual(main())


def test_the_name_of_the_culprit_as_it_was_then():
    async def main():
        with CancelScope() as scope:
            scope.cancel()
            current_task().name = "renamed"
            first = await awaited_error(checkpoint())
        with CancelScope() as scope:
            scope.cancel()
            second = await awaited_error(checkpoint())
        return first.source_task, second.source_task

    assert virtual(main()) == ("Task-1", "renamed")


def test_what_the_other_causes_tell():
    errors = {}

    async def note(name):
        try:
            await sleep_forever()
        except CancelledError as error:
            errors[name] = error
            raise

    async def fail():
        await sleep(1)
        raise KeyError("k")

    async def main():
        create_task(note("shutdown"))
        with move_on_after(0.5):
            await note("deadline")
        with pytest.raises(ExceptionGroup):
            await group_that_fails()

    async def group_that_fails():
        async with TaskGroup() as group:
            group.create_task(note("failure"))
            group.create_task(fail(), name="b")

    virtual(main())
    told = {n: (e.source, e.source_task, e.where, str(e)) for n, e in errors.items()}
    assert told == {
        "deadline": ("deadline", None, None, "the deadline at 0.5 s has passed"),
        "failure": ("failure", "b", None, "task 'b' failed with KeyError('k')"),
        "shutdown": ("shutdown", None, None, "the run is over"),
    }


def test_what_a_scope_s_repr_tells():
    async def main():
        for make, name in [(CancelScope, "CancelScope"), (lambda: timeout(None), "timeout")]:
            scope = make()
            assert repr(scope) == f"<{name} not entered>"
            with scope:
                assert repr(scope) == f"<{name} entered>"
                scope.deadline = 2.5
                scope.shield = True
                assert repr(scope) == f"<{name} entered, deadline 2.5 s, shielded>"
                scope.cancel()
                assert repr(scope) == f"<{name} entered, deadline 2.5 s, shielded, cancelled>"
            assert repr(scope) == f"<{name} left, deadline 2.5 s, shielded, cancelled>"
        assert repr(move_on_after(3)) == "<CancelScope not entered, 3.0 s from then on>"
        moment = datetime(2030, 1, 1)
        assert re.fullmatch(
            r"<CancelScope not entered, deadline 2030-01-01 00:00:00>",
            repr(CancelScope(deadline=moment)),
        )

    virtual(main())
