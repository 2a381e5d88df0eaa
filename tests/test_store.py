"""Store: items that are put and got by what they are, in which order, and what is told of it."""

import gc
import math
import sys

import pytest

from sleeploop import (
    CancelledError,
    CancelScope,
    DeadlockError,
    LevelStats,
    Store,
    StoreStats,
    WaitStats,
    WouldBlock,
    checkpoint,
    create_task,
    format_tasks,
    move_on_after,
    sleep,
)
from tests.helpers import now, virtual
from tests.waits import drop, filled, is_, note, within

# ---- normal use ----------------------------------------------------------------------------------


def test_items_come_and_go():
    async def main():
        shelf = Store(3, name="shelf")
        assert (shelf.items, shelf.capacity, shelf.name, len(shelf)) == ((), 3, "shelf", 0)
        assert type(shelf.capacity) is int
        assert await shelf.put("a") is None
        await shelf.put("b")
        shelf.put_nowait("c")
        assert (shelf.items, len(shelf)) == (("a", "b", "c"), 3)
        assert await shelf.get() == "a"
        assert await shelf.get(is_("c")) == "c"
        assert await shelf.get(filter=None) == "b"
        shelf.put_nowait("d")
        shelf.put_nowait("e")
        assert shelf.get_nowait(filter=is_("e")) == "e"
        assert shelf.get_nowait() == "d"
        return shelf.items

    assert virtual(main()) == ()


def test_what_it_is_when_nobody_says():
    shelf = Store()
    assert (shelf.capacity, shelf.name, shelf.items) == (math.inf, None, ())
    for n in range(1000):
        shelf.put_nowait(n)
    assert len(shelf) == 1000


@pytest.mark.parametrize("capacity", [1, 5, True, math.inf, sys.maxsize])
def test_capacities(capacity):
    expected = capacity if capacity < sys.maxsize else math.inf
    assert Store(capacity).capacity == Store(capacity=capacity).capacity == expected


def test_the_first_that_passes_is_taken_and_the_others_stay_in_order():
    shelf = filled(*range(20))
    taken = [shelf.get_nowait(lambda n: n % 3 == 1) for _ in range(7)]
    assert taken == [1, 4, 7, 10, 13, 16, 19]
    assert shelf.items == tuple(n for n in range(20) if n % 3 != 1)


def test_the_filter_is_asked_in_order_and_no_further_than_it_must():
    async def main():
        asked = []
        shelf = filled(1, 2, 3, 4)
        await shelf.get(lambda n: asked.append(n) or n == 3)
        assert asked == [1, 2, 3]
        del asked[:]
        create_task(shelf.get(lambda n: asked.append(n) or n == 9))
        await checkpoint()
        assert asked == [1, 2, 4]
        del asked[:]
        await shelf.put(5)
        await shelf.put(9)
        await shelf.put(6)
        assert asked == [5, 9]

    virtual(main())


@pytest.mark.usefixtures("forgetful")
def test_what_need_not_wait_does_not_switch_tasks():
    async def main():
        log, shelf = [], Store(1)
        create_task(note(log, "other", checkpoint()))
        await shelf.put(5)
        await shelf.get()
        assert log == []

    virtual(main())


def test_a_getter_waits_for_an_item():
    async def main():
        log, shelf = [], Store()
        create_task(note(log, "getter", shelf.get(is_("b"))))
        for item in "abc":
            await sleep(1)
            await shelf.put(item)
        await checkpoint()
        assert log == [("getter", "b", 2.0)]
        return shelf.items

    assert virtual(main()) == ("a", "c")


def test_a_putter_waits_for_room():
    async def main():
        log, shelf = [], filled("a", capacity=1)
        create_task(note(log, "putter", shelf.put("b")))
        create_task(note(log, "second", shelf.put("c")))
        await sleep(1)
        with pytest.raises(
            WouldBlock, match=r"^Store.put_nowait\(\) would have to wait: Store \(1"
        ):
            shelf.put_nowait("d")
        assert await shelf.get() == "a"
        assert shelf.items == ("b",)
        await sleep(1)
        assert log == [("putter", None, 1.0)]
        assert await shelf.get() == "b"
        await checkpoint()
        return log[1:]

    assert virtual(main()) == [("second", None, 2.0)]


def test_none_and_the_like_are_items():
    async def main():
        shelf = Store()
        task = create_task(shelf.get())
        await checkpoint()
        for item in (None, (), StopIteration(5), CancelledError, None):
            await shelf.put(item)
        assert await task is None
        assert await shelf.get() == ()
        assert isinstance(await shelf.get(), StopIteration)
        assert await create_task(shelf.get()) is CancelledError
        return await shelf.get(lambda item: item is None)

    assert virtual(main()) is None


def test_items_that_are_driven_by_hand():
    """A tuple and an exception are values of a StopIteration like any other."""

    async def main():
        shelf = filled((1, 2), LookupError("an item"), True)
        for expected in ((1, 2), "an item", True):
            with pytest.raises(StopIteration) as caught:
                next(shelf.get())
            assert expected in (caught.value.value, str(caught.value.value))

    virtual(main())


def test_generic():
    assert repr(Store[int]) == "sleeploop.Store[int]"
    assert isinstance(Store[int](), Store)


# ---- first come, first served --------------------------------------------------------------------


def test_each_put_is_offered_to_those_who_wait_in_order():
    async def main():
        log, shelf = [], Store()
        for name, choice in [("Anna", "x"), ("Bert", "y"), ("Carl", "x"), ("Dora", None)]:
            create_task(note(log, name, shelf.get(is_(choice) if choice else None)))
        await checkpoint()
        for item in "xxyz":
            await shelf.put(item)
        await checkpoint()
        return [entry[:2] for entry in log]

    expected = [("Anna", "x"), ("Carl", "x"), ("Bert", "y"), ("Dora", "z")]
    assert virtual(main()) == expected


def test_who_finds_nothing_does_not_hold_back_the_others():
    async def main():
        log, shelf = [], Store(2)
        create_task(note(log, "picky", shelf.get(is_("never"))))
        await checkpoint()
        await shelf.put("a")
        assert await shelf.get() == "a"
        await shelf.put("b")
        assert shelf.get_nowait() == "b"
        return repr(shelf), log

    assert virtual(main()) == ("<Store (0 of 2 items), 1 waiting>", [])


def test_nobody_gets_in_between():
    async def main():
        shelf = Store()
        task = create_task(shelf.get())
        await checkpoint()
        shelf.put_nowait("a")
        assert shelf.items == ()
        with pytest.raises(WouldBlock, match=r"^Store.get_nowait\(\) would have to wait: Store"):
            shelf.get_nowait()
        return await task

    assert virtual(main()) == "a"


def test_what_one_takes_lets_in_what_others_wait_for():
    """In the same moment, in a chain of any length."""

    async def main():
        log, shelf = [], filled("first", capacity=1)
        for n in range(1000):
            create_task(note(log, f"put {n}", shelf.put(n)))
        for n in range(999):
            create_task(note(log, f"get {n}", shelf.get(is_(n))))
        await sleep(1)
        assert log == []
        assert shelf.get_nowait() == "first"
        assert shelf.items == (999,)
        await checkpoint()
        assert {when for _, _, when in log} == {1.0}
        return [name for name, _, _ in log]

    expected = [f"{what} {n}" for n in range(999) for what in ("put", "get")]
    assert virtual(main()) == [*expected, "put 999"]


def test_a_full_store_takes_nothing_whoever_waits():
    async def main():
        log, shelf = [], filled("a", capacity=1)
        create_task(note(log, "getter", shelf.get(is_("b"))))
        await checkpoint()
        with pytest.raises(WouldBlock):
            shelf.put_nowait("b")
        create_task(note(log, "putter", shelf.put("b")))
        await checkpoint()
        assert shelf.get_nowait() == "a"
        await checkpoint()
        return log

    assert virtual(main()) == [("putter", None, 0.0), ("getter", "b", 0.0)]


# ---- cancellation --------------------------------------------------------------------------------


@pytest.mark.parametrize("victim", range(3))
def test_a_cancelled_getter_has_got_nothing(victim):
    async def main():
        shelf = Store()
        scopes = [CancelScope() for _ in range(3)]
        tasks = [create_task(within(scope, shelf.get())) for scope in scopes]
        await checkpoint()
        scopes[victim].cancel()
        for item in "ab":
            shelf.put_nowait(item)
        assert shelf.items == ()
        return [await task for task in tasks]

    expected = ["a", "b"]
    expected.insert(victim, "cancelled")
    assert virtual(main()) == expected


@pytest.mark.parametrize("victim", range(3))
def test_a_cancelled_putter_has_put_nothing(victim):
    async def main():
        shelf = filled("first", capacity=1)
        scopes = [CancelScope() for _ in range(3)]
        tasks = [create_task(within(s, shelf.put(n))) for n, s in enumerate(scopes)]
        await checkpoint()
        scopes[victim].cancel()
        assert [await shelf.get() for _ in range(3)] == [
            "first",
            *(n for n in range(3) if n != victim),
        ]
        return [await task for task in tasks]

    expected = [None, None]
    expected.insert(victim, "cancelled")
    assert virtual(main()) == expected


def test_what_has_been_granted_is_had_whatever_comes():
    async def main():
        shelf, scope = Store(1), CancelScope()
        task = create_task(within(scope, shelf.get()))
        await checkpoint()
        shelf.put_nowait("a")
        scope.cancel()
        assert await task == "a"

        scope = CancelScope()
        shelf.put_nowait("b")
        task = create_task(within(scope, shelf.put("c")))
        await checkpoint()
        shelf.get_nowait()
        scope.cancel()
        assert await task is None
        return shelf.items

    assert virtual(main()) == ("c",)


def test_in_a_cancelled_scope_nothing_happens():
    async def main():
        asked, shelf = [], filled("a")
        for wait in (shelf.get(), shelf.get(asked.append), shelf.put("b")):
            with CancelScope() as scope:
                scope.cancel()
                await wait
                raise AssertionError
        return shelf.items, asked

    assert virtual(main()) == (("a",), [])


def test_giving_up_after_some_time():
    async def main():
        shelf = filled("a")
        with move_on_after(3) as scope:
            await shelf.get(is_("b"))
        assert scope.cancelled_caught
        return now(), repr(shelf)

    assert virtual(main()) == (3.0, "<Store (1 item)>")


def test_an_item_that_nobody_learns_of_goes_back_to_the_front():
    async def main():
        shelf, kept = Store(), []
        create_task(drop(shelf.get(), kept))
        await checkpoint()
        for item in "abc":
            shelf.put_nowait(item)
        assert shelf.items == ("b", "c")
        await checkpoint()
        kept.pop().close()
        return shelf.items

    assert virtual(main()) == ("a", "b", "c")


@pytest.mark.parametrize("how", ["close", "throw", "dropped"])
def test_an_item_that_goes_back_goes_to_whoever_wants_it(how):
    async def main():
        log, shelf, kept = [], Store(), []
        create_task(drop(shelf.get(), kept))
        create_task(note(log, "picky", shelf.get(is_("z"))))
        create_task(note(log, "second", shelf.get(is_("a"))))
        await sleep(1)
        shelf.put_nowait("a")
        await checkpoint()
        wait = kept.pop()
        if how == "close":
            wait.close()
        elif how == "throw":
            with pytest.raises(LookupError):
                wait.throw(LookupError())
        del wait
        gc.collect()
        assert shelf.items == ()
        await checkpoint()
        return log

    assert virtual(main()) == [("second", "a", 1.0)]


def test_items_that_go_back_may_be_more_than_fit():
    async def main():
        shelf, kept = Store(1), []
        for _ in range(20):
            create_task(drop(shelf.get(), kept))
        await checkpoint()
        for n in range(21):
            shelf.put_nowait(n)
        putter = create_task(shelf.put("last"))
        await checkpoint()
        for wait in reversed(kept):
            wait.close()
        assert repr(shelf) == "<Store (21 of 1 item), 1 waiting>"
        assert [shelf.get_nowait() for _ in range(20)] == list(range(20))
        assert not putter.done()
        assert shelf.get_nowait() == 20
        await putter
        return shelf.items

    assert virtual(main()) == ("last",)


def test_what_has_been_put_stays_put():
    async def main():
        shelf, kept = filled("a", capacity=1), []
        create_task(drop(shelf.put("b"), kept))
        await checkpoint()
        shelf.get_nowait()
        await checkpoint()
        kept.pop().close()
        return shelf.items

    assert virtual(main()) == ("b",)


# ---- what is told --------------------------------------------------------------------------------


@pytest.mark.usefixtures("forgetful")
def test_reprs_and_reports():
    async def main():
        shelf = Store(5, name="shelf")
        shelf.put_nowait("a")
        shelf.put_nowait("b")
        assert repr(shelf) == "<Store 'shelf' (2 of 5 items)>"
        task = create_task(shelf.get(is_("c")))
        await checkpoint()
        assert repr(shelf) == "<Store 'shelf' (2 of 5 items), 1 waiting>"
        assert task.waiting_on is shelf
        assert "waiting for Store 'shelf' (2 of 5 items), since 0.0 s" in format_tasks()
        assert repr(shelf.put(1)) == (
            "<Store.put() of Store 'shelf' (2 of 5 items), not awaited yet>"
        )
        task.cancel()

    virtual(main())


def test_a_deadlock_tells_of_it():
    with pytest.raises(DeadlockError, match=r"Store 'shelf' \(0 items\)"):
        virtual(Store(name="shelf").get())


def test_statistics():
    async def main():
        await sleep(10)
        shelf = Store(2, stats=True)
        getter = create_task(shelf.get(is_("c")))
        await sleep(2)
        await shelf.put("a")
        await shelf.put("b")
        putter = create_task(shelf.put("c"))
        await sleep(4)
        assert shelf.get_nowait() == "a"
        await getter
        await putter
        await sleep(2)
        return shelf.stats()

    stats = virtual(main())
    assert type(stats) is StoreStats
    assert type(stats.length) is LevelStats
    assert type(stats.puts) is type(stats.gets) is WaitStats
    assert stats.length == (1.0, 2.0, (2 * 0 + 4 * 2 + 2 * 1) / 8)
    assert stats.puts == (3, 1, 4 / 3, 4.0)
    assert stats.gets == (2, 1, 3.0, 6.0)


def test_no_statistics_unless_asked_for():
    message = r"^Store.stats\(\): <Store \(0 items\)> keeps no statistics; make it with stats=True$"
    with pytest.raises(RuntimeError, match=message):
        Store().stats()
