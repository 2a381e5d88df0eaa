"""What a shield holds back."""

import math

import pytest

from sleeploop import (
    CancelledError,
    CancelScope,
    DeadlockError,
    checkpoint,
    create_task,
    current_effective_deadline,
    move_on_after,
    sleep,
    sleep_forever,
    sleep_until,
)
from tests.helpers import awaited_error, cancel_at, now, virtual


def test_a_shield_holds_back_what_is_outside():
    async def main():
        with CancelScope() as outer:
            outer.cancel()
            with CancelScope(shield=True) as shielded:
                await sleep(5)
                assert current_effective_deadline() == math.inf
            assert not shielded.cancel_called
            await checkpoint()
            pytest.fail("the shield is gone")
        assert outer.cancelled_caught
        return now()

    assert virtual(main()) == 5.0


@pytest.mark.parametrize("how", ["cancel", "deadline", "inside", "deadline inside"])
def test_a_shield_does_not_hold_back_its_own_cancellation_nor_those_inside(how):
    async def main():
        with CancelScope() as outer, CancelScope(shield=True) as shielded:
            with CancelScope() as inner:
                outer.cancel()
                scope = inner if "inside" in how else shielded
                if "deadline" in how:
                    scope.deadline = 3
                else:
                    create_task(cancel_at(3, scope))
                await sleep_forever()
            assert now() == 3.0
        assert scope.cancelled_caught
        assert [s.cancelled_caught for s in (outer, shielded, inner)].count(True) == 1
        return now()

    assert virtual(main()) == 3.0


def test_cleanup_behind_a_shield_with_a_limit():
    async def main():
        cleaned = []
        with move_on_after(1) as outer:
            try:
                await sleep_forever()
            finally:
                with move_on_after(10, shield=True) as quick:
                    await sleep(2)
                    cleaned.append(now())
                with move_on_after(10, shield=True) as slow:
                    await sleep_forever()
                cleaned.append(now())
        assert (outer.cancelled_caught, quick.cancelled_caught) == (True, False)
        assert slow.cancelled_caught
        return cleaned

    assert virtual(main()) == [3.0, 13.0]


def test_a_shield_can_be_raised_and_lowered_at_any_time():
    async def main():
        events = []
        with CancelScope() as outer, CancelScope() as scope:
            outer.cancel()
            await awaited_error(checkpoint())
            scope.shield = True
            await sleep(1)
            assert scope.shield is True
            scope.shield = False
            await awaited_error(checkpoint())
            scope.shield = 1
            assert scope.shield is True
            create_task(lower_at(3, scope))
            try:
                await sleep_forever()
            finally:
                events.append(now())
        assert (outer.cancelled_caught, scope.cancelled_caught) == (True, False)
        return events

    async def lower_at(when, scope):
        await sleep_until(when)
        scope.shield = False

    assert virtual(main()) == [3.0]


def test_a_shield_set_before_entering():
    async def main():
        scope = CancelScope()
        scope.shield = True
        with CancelScope() as outer:
            outer.cancel()
            with scope:
                await sleep(1)
        return now()

    assert virtual(main()) == 1.0


def test_lowering_one_of_two_shields_lets_nothing_through():
    async def main():
        with CancelScope() as outer, CancelScope(shield=True) as a, CancelScope(shield=True) as b:
            outer.cancel()
            b.shield = False
            await sleep(1)
            b.shield = True
            a.shield = False
            await sleep(1)
            b.shield = False
            await awaited_error(checkpoint())
        return now()

    assert virtual(main()) == 2.0


def test_between_a_cancelled_scope_and_a_cancelled_shield_the_outermost_visible_one_counts():
    async def main():
        with CancelScope() as outer:
            with CancelScope(shield=True) as shielded:
                with CancelScope() as inner:
                    for scope in (outer, shielded, inner):
                        scope.cancel()
                    await checkpoint()
                pytest.fail("the shielded block was cancelled")
            caught = [s.cancelled_caught for s in (outer, shielded, inner)]
        return caught

    assert virtual(main()) == [False, True, False]


def test_task_cancel_is_held_back_by_a_shield():
    async def worker(events):
        with CancelScope(shield=True):
            await sleep(5)
            events.append(now())
        await checkpoint()
        events.append("never")

    async def main():
        events = []
        task = create_task(worker(events))
        await sleep(1)
        assert task.cancel() is True
        with pytest.raises(CancelledError):
            await task
        return [*events, now(), task.cancelled()]

    assert virtual(main()) == [5.0, 5.0, True]


def test_the_end_of_the_run_is_held_back_by_a_shield():
    async def daemon():
        with CancelScope(shield=True):
            await sleep(100)
            events.append(now())
        await checkpoint()
        events.append("never")

    async def main():
        create_task(daemon(), daemon=True)
        await sleep(1)
        return "result"

    events = []
    assert virtual(main()) == "result"
    assert events == [100.0]


def test_a_shield_that_nothing_could_ever_end_is_a_deadlock():
    async def stuck():
        try:
            with CancelScope(shield=True):
                await sleep_forever()
        finally:
            events.append("closed")

    async def main():
        create_task(stuck(), name="stuck")
        await sleep(1)

    events = []
    with pytest.raises(DeadlockError, match="'stuck'"):
        virtual(main())
    assert events == ["closed"]


def test_a_shield_raised_too_late_when_two_scopes_were_cancelled():
    """The task has been taken from where it waits; what it raises is the outermost one's."""

    async def cancel(outer, middle, inner):
        outer.cancel()
        middle.cancel()
        inner.shield = True

    async def main():
        with CancelScope() as outer, CancelScope() as middle, CancelScope() as inner:
            create_task(cancel(outer, middle, inner))
            await sleep_forever()
        return [scope.cancelled_caught for scope in (outer, middle, inner)]

    assert virtual(main()) == [True, False, False]
