"""Store: items that are put and got by what they are, filters and what they may do."""

import gc
import math
import sys
import threading
import types
import weakref

import pytest

from sleeploop import (
    CancelledError,
    CancelScope,
    DeadlockError,
    LevelStats,
    SleepingLoop,
    Store,
    StoreStats,
    TaskGroup,
    WaitStats,
    WouldBlock,
    checkpoint,
    create_task,
    format_tasks,
    move_on_after,
    sleep,
)
from tests.helpers import OnDel, now, outcome, references, virtual

MANY = 100_000


async def note(log, name, wait):
    log.append((name, await wait, now()))


async def within(scope, wait):
    """Await it in the scope; what it came to, or "cancelled"."""
    with scope:
        return await wait
    return "cancelled"


def is_(thing):
    return lambda item: item == thing


def filled(*items, capacity=math.inf):
    store = Store(capacity)
    for item in items:
        store.put_nowait(item)
    return store


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


@types.coroutine
def drop(wait, kept):
    """Wait, and let the await go by without looking at it."""
    trap = wait.send(None)
    yield trap
    kept.append(wait)


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


# ---- filters -------------------------------------------------------------------------------------


def test_what_a_filter_raises_is_raised_where_it_is_awaited():
    def picky(item):
        raise LookupError(item)

    async def main():
        log, shelf = [], Store()
        task = create_task(outcome(shelf.get(picky)))
        create_task(note(log, "next", shelf.get()))
        await checkpoint()
        await shelf.put("a")  # does not raise
        error = await task
        assert isinstance(error, LookupError)
        assert error.args == ("a",)
        assert error.__traceback__.tb_next.tb_frame.f_code is picky.__code__
        await shelf.put("b")
        with pytest.raises(LookupError, match="b"):
            await shelf.get(picky)
        with pytest.raises(LookupError, match="b"):
            shelf.get_nowait(picky)
        return log, shelf.items, repr(shelf)

    expected = ([("next", "a", 0.0)], ("b",), "<Store (1 item)>")
    assert virtual(main()) == expected


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("kind", [StopIteration, StopAsyncIteration, GeneratorExit])
def test_an_error_that_would_be_taken_for_an_end(waits, kind):
    error = kind(5)

    def picky(item):
        raise error

    async def get(shelf):
        try:
            await shelf.get(picky)
        except BaseException as caught:
            return caught
        raise AssertionError

    async def main():
        shelf = Store()
        if not waits:
            shelf.put_nowait("a")
        task = create_task(get(shelf))
        await checkpoint()
        if waits:
            shelf.put_nowait("a")
        assert shelf.items == ("a",)
        return await task

    caught = virtual(main())
    if isinstance(error, StopIteration):
        assert isinstance(caught, RuntimeError)
        assert str(caught) == "Store.get() raised StopIteration"
        assert caught.__cause__ is error
    else:
        assert caught is error


def test_a_filter_whose_answer_fails():
    class Maybe:
        def __bool__(self):
            raise LookupError("maybe")

    async def main():
        shelf = Store()
        task = create_task(outcome(shelf.get(lambda item: Maybe())))
        await checkpoint()
        await shelf.put("a")
        assert isinstance(await task, LookupError)
        return await shelf.get(len)

    assert virtual(main()) == "a"


def test_a_failed_wait_is_no_cycle():
    def picky(item):
        raise LookupError

    async def get(shelf):
        wait = shelf.get(picky)
        marker = OnDel(lambda: died.append(1))
        try:
            await wait
        except LookupError:
            assert marker
        return 5

    async def main():
        shelf = Store()
        task = create_task(get(shelf))
        await checkpoint()
        shelf.put_nowait("a")
        assert await task == 5
        assert died == [1]

    died = []
    gc.collect()
    gc.disable()
    try:
        virtual(main())
    finally:
        gc.enable()


def test_a_filter_may_look_at_the_store_and_put_something_in():
    """What it puts in is offered to the others as soon as it has answered."""

    def picky(item):
        seen.append((item, shelf.items, len(shelf), repr(shelf)))
        if item == "a":
            shelf.put_nowait("b")
        return False

    async def main():
        create_task(shelf.get(picky))
        create_task(note(log, "b", shelf.get(is_("b"))))
        await checkpoint()
        await shelf.put("a")
        assert shelf.items == ("a",)
        await checkpoint()
        assert seen == [
            ("a", ("a",), 1, "<Store (1 item), 2 waiting>"),
            ("b", ("a", "b"), 2, "<Store (2 items), 2 waiting>"),
        ]
        return log

    shelf, log, seen = Store(), [], []
    assert virtual(main()) == [("b", "b", 0.0)]


def test_a_filter_puts_in_what_it_waits_for():
    def picky(item):
        if item == "a":
            shelf.put_nowait("b")
            shelf.put_nowait("c")
        return item == "c"

    shelf = filled("x", "a", "y")
    assert shelf.get_nowait(picky) == "c"
    assert shelf.items == ("x", "a", "y", "b")
    assert virtual(shelf.get(picky)) == "c"
    assert shelf.items == ("x", "a", "y", "b", "b")


def test_what_a_filter_puts_in_is_for_those_first_who_wait():
    async def main():
        def picky(item):
            asked.append(item)
            if item == "a":
                shelf.put_nowait("b")
                shelf.put_nowait("c")
            return item in "bc"

        log, asked, shelf = [], [], filled("x", "a", "y")
        create_task(note(log, "waits", shelf.get(is_("b"))))
        await checkpoint()
        assert await shelf.get(picky) == "c"
        assert asked == ["x", "a", "y", "c"]
        await checkpoint()
        return log

    assert virtual(main()) == [("waits", "b", 0.0)]


def test_a_filter_cannot_take_anything_out():
    def picky(item):
        for call in (shelf.get_nowait, lambda: shelf.get().send(None)):
            try:
                call()
            except RuntimeError as error:
                errors.append(str(error))
        return item == "b"

    async def main():
        task = create_task(shelf.get(picky))
        await checkpoint()
        assert len(errors) == 2
        await shelf.put("b")
        assert len(errors) == 4
        assert shelf.items == ("a",)
        return await task

    shelf, errors = filled("a"), []
    assert virtual(main()) == "b"
    end = " is asking a filter, which must not take anything out of it"
    assert errors[0] == "Store.get_nowait(): <Store (1 item)>" + end
    assert errors[1] == "Store.get(): <Store (1 item)>" + end
    assert virtual(shelf.get()) == "a"


def test_what_a_filter_lets_fall_through_is_the_getters():
    async def main():
        shelf = Store()
        task = create_task(outcome(shelf.get(lambda item: shelf.get_nowait())))
        await checkpoint()
        await shelf.put("a")
        assert isinstance(await task, RuntimeError)
        return shelf.items

    assert virtual(main()) == ("a",)


@pytest.mark.parametrize("answer", [True, False, "raise"])
@pytest.mark.parametrize("victims", [{0}, {1}, {2}, {0, 1}, {1, 2}, {0, 2}, {0, 1, 2}])
def test_a_filter_that_cancels_those_who_wait(victims, answer, monkeypatch):
    """Whoever is cancelled gets nothing; the first of the others does, and is asked once."""

    def picky(item):
        asked.append(1)
        for victim in victims:
            scopes[victim].cancel()
        if answer == "raise":
            raise LookupError
        return answer

    async def main():
        filters = [is_(None), picky, None]
        tasks = [
            create_task(outcome(within(scope, shelf.get(filter))))
            for scope, filter in zip(scopes, filters, strict=True)
        ]
        await checkpoint()
        await shelf.put("a")
        for scope in scopes:
            scope.cancel()
        return [await task for task in tasks]

    unraisable = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: unraisable.append(args.exc_type))
    scopes = [CancelScope() for _ in range(3)]
    shelf, asked = Store(), []
    outcomes = virtual(main())
    assert asked == [1]
    assert outcomes[0] == "cancelled"
    if 1 in victims:
        assert outcomes[1] == "cancelled"
        assert unraisable == [LookupError] * (answer == "raise")
    elif answer == "raise":
        assert isinstance(outcomes[1], LookupError)
    else:
        assert outcomes[1] == ("a" if answer else "cancelled")
    gets_it = 2 not in victims and (1 in victims or answer is not True)
    assert outcomes[2] == ("a" if gets_it else "cancelled")
    assert shelf.items == (() if "a" in outcomes else ("a",))


def test_a_filter_that_cancels_its_own_getter_before_that_waits():
    async def main():
        shelf, scope = filled("a", "b"), CancelScope()
        assert await within(scope, shelf.get(lambda item: scope.cancel())) == "cancelled"
        scope = CancelScope()
        assert await within(scope, shelf.get(lambda item: scope.cancel() or True)) == "a"
        return shelf.items

    assert virtual(main()) == ("b",)


@types.coroutine
def meanwhile(wait, act):
    """Wait, and do something between the beginning of the await and the task's going to sleep."""
    trap = wait.send(None)
    act()
    try:
        while True:
            trap = wait.send((yield trap))
    except StopIteration as stop:
        return stop.value


def test_what_is_put_in_just_before_the_getter_would_wait():
    async def main():
        shelf = Store()
        assert await meanwhile(shelf.get(), lambda: shelf.put_nowait("a")) == "a"
        assert await meanwhile(shelf.get(is_("b")), lambda: shelf.put_nowait("b")) == "b"
        full = filled("x", capacity=1)
        assert await meanwhile(full.put("y"), full.get_nowait) is None
        return shelf.items + full.items

    assert virtual(main()) == ("y",)


def test_a_filter_that_cancels_its_own_getter_just_before_that_would_wait():
    async def main():
        shelf, scope = Store(), CancelScope()

        def picky(item):
            asked.append(item)
            scope.cancel()

        with scope:
            await meanwhile(shelf.get(picky), lambda: shelf.put_nowait("a"))
        assert scope.cancelled_caught
        assert repr(shelf) == "<Store (1 item)>"

    asked = []
    virtual(main())
    assert asked == ["a"]


def test_a_filter_that_fails_just_before_its_getter_would_wait():
    async def main():
        shelf = Store()
        with pytest.raises(ZeroDivisionError):
            await meanwhile(shelf.get(lambda n: 1 / n), lambda: shelf.put_nowait(0))
        return repr(shelf)

    assert virtual(main()) == "<Store (1 item)>"


def test_those_who_wait_are_asked_in_the_order_in_which_they_came_to_wait():
    """Even if the await of one had begun before."""

    async def main():
        log, shelf = [], Store()
        early = shelf.get(lambda item: log.append("early"))

        async def late():
            await shelf.get(lambda item: log.append("late"))

        @types.coroutine
        def get():
            trap = early.send(None)
            yield from checkpoint().__await__()
            yield trap

        async def run():
            await get()

        tasks = [create_task(run()), create_task(late())]
        await sleep(1)
        for _ in range(2):
            shelf.put_nowait("a")
        for task in tasks:
            task.cancel()
        return log

    assert virtual(main()) == ["late", "early"] * 2


def test_an_item_goes_back_while_a_filter_is_asked():
    """Into the middle of everything: at the beginning, while the cursor is at the end."""

    async def main():
        def picky(item):
            asked.append(item)
            if kept:
                kept.pop().close()
            return item == "z"

        shelf, kept, log, asked = Store(), [], [], []
        for _ in range(2):
            create_task(drop(shelf.get(is_("k")), kept))
        await checkpoint()
        for item in "kkxy":
            shelf.put_nowait(item)
        await checkpoint()
        assert (shelf.items, len(kept)) == (("x", "y"), 2)
        create_task(note(log, "k", shelf.get(is_("k"))))
        create_task(note(log, "z", shelf.get(picky)))
        await checkpoint()
        assert shelf.items == ("k", "x", "y")
        assert asked == ["x", "y", "k"]
        shelf.put_nowait("z")
        await checkpoint()
        assert shelf.items == ("k", "x", "y")
        return [entry[:2] for entry in log]

    assert sorted(virtual(main())) == [("k", "k"), ("z", "z")]


def test_what_comes_while_a_filter_is_asked_is_offered_in_order():
    """What goes back before what is put in; each to all who wait, once."""

    def picky(item):
        asked.append(("picky", item))
        if item == "a":
            shelf.put_nowait("b")
            kept[1].close()
            shelf.put_nowait("c")
            kept[0].close()

    async def main():
        for _ in range(2):
            create_task(drop(shelf.get(), kept))
        await checkpoint()
        for item in (0, 1):
            shelf.put_nowait(item)
        await checkpoint()
        create_task(shelf.get(picky), daemon=True)
        create_task(shelf.get(lambda item: asked.append(("other", item))), daemon=True)
        await checkpoint()
        shelf.put_nowait("a")
        assert shelf.items == (0, 1, "a", "b", "c")

    shelf, kept, asked = Store(), [], []
    virtual(main())
    assert asked == [(name, item) for item in ("a", 1, 0, "b", "c") for name in ("picky", "other")]


def test_an_item_goes_back_while_another_is_offered():
    async def main():
        def picky(item):
            if kept:
                kept.pop().close()
            return item == wanted

        for wanted, left in [("b", ("a", "k")), ("k", ("a", "b")), ("c", ("k", "a", "b"))]:
            shelf, kept = Store(), []
            create_task(drop(shelf.get(), kept))
            await checkpoint()
            shelf.put_nowait("k")
            shelf.put_nowait("a")
            task = create_task(meanwhile(shelf.get(is_("never")), list))
            await checkpoint()
            other = create_task(shelf.get(lambda item: item != "a" and picky(item)))
            await checkpoint()
            shelf.put_nowait("b")
            assert not kept
            await checkpoint()
            assert other.done() == (wanted != "c")
            assert sorted(shelf.items) == sorted(left)
            task.cancel()
            other.cancel()

    virtual(main())


def test_a_dying_filter_uses_the_store():
    async def main():
        class Picky(OnDel):
            def __call__(self, item):
                return item == "a"

        shelf = Store()
        task = create_task(shelf.get(Picky(lambda: shelf.put_nowait("from beyond"))))
        await checkpoint()
        await shelf.put("a")
        assert shelf.items == ("from beyond",)
        assert await task == "a"
        shelf.put_nowait("a")
        assert await shelf.get(Picky(lambda: log.append(shelf.get_nowait()))) == "a"
        return log, shelf.items

    log = []
    assert virtual(main()) == (["from beyond"], ())


def test_a_dying_filter_does_not_get_in_between():
    class Picky(OnDel):
        def __call__(self, item):
            return item == "p"

    def put():
        with pytest.raises(WouldBlock):
            shelf.put_nowait("x")
        died.append(shelf.items)

    async def main():
        log = []
        create_task(note(log, "getter", shelf.get(Picky(put))))
        create_task(note(log, "p", shelf.put("p")))
        create_task(note(log, "q", shelf.put("q")))
        await checkpoint()
        assert shelf.get_nowait() == "a"
        assert died == [()]  # there was room, but somebody waited for it
        assert shelf.items == ("q",)
        await checkpoint()
        return [name for name, _, _ in log]

    shelf, died = filled("a", capacity=1), []
    assert virtual(main()) == ["p", "getter", "q"]


def test_a_filter_that_lets_go_of_everything():
    async def main():
        shelf = Store()

        def picky(item):
            nonlocal shelf
            shelf = None
            tasks.clear()
            gc.collect()
            return True

        tasks = [create_task(note(log, "got", shelf.get(picky)))]
        await checkpoint()
        await shelf.put("a")
        await checkpoint()
        return log

    log = []
    assert virtual(main()) == [("got", "a", 0.0)]


def test_an_await_that_its_filter_drives():
    def picky(item):
        for call in (lambda: waits[-1].send(None), lambda: waits[-1].throw(LookupError())):
            try:
                call()
            except Exception as error:
                errors.append(type(error))
        waits[-1].close()
        return item == "b"

    async def main():
        waits.append(shelf.get(picky))
        assert await waits[-1] == "b"
        assert set(errors) == {RuntimeError, LookupError}
        del errors[:]
        waits.append(shelf.get(picky))
        task = create_task(outcome(waits[-1]))
        await checkpoint()
        shelf.put_nowait("b")
        assert isinstance(await task, RuntimeError)  # its await is over, by hand

    waits, errors, shelf = [], [], filled("a", "b")
    virtual(main())
    assert shelf.items == ("b", "a")  # as nobody learned of it


def test_a_put_that_a_filter_drives_puts_once():
    def picky(item):
        with pytest.raises(RuntimeError):
            put[0].send(None)
        return item == "b"

    async def main():
        task = create_task(shelf.get(picky))
        await checkpoint()
        put.append(shelf.put("a"))
        await put[0]
        assert shelf.items == ("a",)
        assert not task.done()
        shelf.put_nowait("b")
        return await task

    put, shelf = [], Store()
    assert virtual(main()) == "b"


# ---- misuse --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("capacity", "error", "message"),
    [
        (0, ValueError, r"^Store\(\): capacity must be 1 or more, not 0$"),
        (-1, ValueError, "not -1$"),
        (10**400, ValueError, r"capacity must be less than 2\*\*63, not 1000"),
        (2.0, TypeError, r"^Store\(\): capacity must be an int or math\.inf, not 2\.0$"),
        (math.nan, TypeError, "not nan$"),
        (-math.inf, TypeError, "not -inf$"),
        (-(10**400), ValueError, "not -1000"),
        ("big", TypeError, r"^Store\(\): capacity must be an int or math\.inf, not 'big'$"),
        (None, TypeError, "not None$"),
        ([1], TypeError, r"not \[1\]$"),
    ],
)
def test_capacities_that_cannot_be(capacity, error, message):
    with pytest.raises(error, match=message):
        Store(capacity)


def test_other_arguments():
    with pytest.raises(TypeError, match=r"^Store\(\): name must be a str, not 5$"):
        Store(name=5)
    with pytest.raises(TypeError, match="1 positional"):
        Store(1, "shelf")
    with pytest.raises(TypeError, match="one argument"):
        Store().put()
    with pytest.raises(TypeError, match=r"^Store.get\(\) takes 1 positional argument but 2 "):
        Store().get(None, None)
    with pytest.raises(TypeError, match="unexpected keyword argument 'key'"):
        Store().get_nowait(key=len)
    for name in ("items", "capacity", "name"):
        with pytest.raises(AttributeError):
            setattr(Store(), name, 1)


@pytest.mark.parametrize("method", ["get", "get_nowait"])
@pytest.mark.parametrize("filter_", [5, "x", ()])
def test_what_is_no_filter(method, filter_):
    shelf = filled("a")
    with pytest.raises(TypeError, match=rf"^Store.{method}\(\): filter must be a function of an i"):
        getattr(shelf, method)(filter_)
    assert shelf.items == ("a",)


def test_without_a_loop_there_is_no_waiting_but_the_rest():
    shelf = filled("a", "b")
    assert shelf.get_nowait(is_("b")) == "b"
    for wait in (shelf.get(), shelf.put("c")):
        with pytest.raises(RuntimeError, match=r"^Store.[gp][eu]t\(\) needs a running loop"):
            wait.send(None)
    assert shelf.items == ("a",)


def test_once():
    async def main():
        shelf = filled("a", "b")
        for wait in (shelf.get(), shelf.put("c")):
            await wait
            with pytest.raises(RuntimeError):
                await wait
        return shelf.items

    assert virtual(main()) == ("b", "c")


def test_another_loop():
    shelf = Store(1)
    first = SleepingLoop(shelf.get(), speed=math.inf)
    first.step()

    async def other():
        return await outcome(shelf.put(1)), await outcome(shelf.get())

    for error in virtual(other()):
        assert isinstance(error, RuntimeError)
        assert "belongs to another loop" in str(error)
    shelf.put_nowait(5)
    assert first.run_until_complete() == [5]
    assert virtual(shelf.put(1)) is None
    first.close()


def test_another_loop_in_a_filter():
    async def main():
        def picky(item):
            try:
                virtual(shelf.put("c"))
            except RuntimeError as error:
                errors.append(str(error))
            return True

        errors, shelf = [], Store()
        task = create_task(shelf.get(picky))
        await checkpoint()
        await shelf.put("a")
        assert len(errors) == 1
        return await task, shelf.items

    assert virtual(main()) == ("a", ())


def test_another_thread():
    shelf, errors = Store(), []

    def meddle():
        for call in (lambda: shelf.put_nowait(1), shelf.get_nowait):
            try:
                call()
            except RuntimeError as error:
                errors.append(str(error))

    async def main():
        task = create_task(shelf.get())
        await checkpoint()
        thread = threading.Thread(target=meddle)
        thread.start()
        thread.join()
        assert len(errors) == 2
        assert all("another thread" in error for error in errors)
        await shelf.put(5)
        await task

    virtual(main())


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


# ---- many, and how things die --------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.no_leak_check  # takes long, and nothing that others do not
def test_many_getters():
    async def get(n):
        order.append((n, await shelf.get()))

    async def main():
        for n in range(MANY):
            create_task(get(n))
        await checkpoint()
        for n in range(MANY):
            shelf.put_nowait(n)
        assert shelf.items == ()

    shelf, order = Store(), []
    virtual(main())
    assert order == [(n, n) for n in range(MANY)]


@pytest.mark.slow
@pytest.mark.no_leak_check  # takes long, and nothing that others do not
def test_many_putters():
    async def main():
        async with TaskGroup() as group:
            for n in range(MANY):
                group.create_task(shelf.put(n))
            await checkpoint()
            assert [await shelf.get() for _ in range(MANY)] == list(range(MANY))
        return repr(shelf)

    shelf = Store(1)
    assert virtual(main()) == "<Store (0 of 1 item)>"


def test_items_are_owned_once():
    async def main():
        item = object()
        before = references(item)
        shelf = filled(item, capacity=1)
        await shelf.get()
        create_task(shelf.get(lambda thing: thing is item))
        await checkpoint()
        await shelf.put(item)
        await checkpoint()
        await shelf.put(item)
        create_task(shelf.put(item))
        await checkpoint()
        assert references(item) == before + 2
        shelf.get_nowait()
        await checkpoint()
        assert references(item) == before + 1
        del shelf
        return references(item) - before

    assert virtual(main()) == 0


def test_a_store_in_itself_is_collected():
    shelf = Store()
    shelf.put_nowait(shelf)
    died = []
    shelf.put_nowait(OnDel(lambda: died.append(1)))
    ref = weakref.ref(shelf)
    assert gc.is_tracked(shelf)
    assert shelf in gc.get_referents(shelf)
    del shelf
    gc.collect()
    assert (ref(), died) == (None, [1])


@pytest.mark.slow
@pytest.mark.no_leak_check  # takes long, and nothing that others do not
def test_a_chain_of_stores_is_freed_without_recursion():
    shelf = None
    for _ in range(MANY):
        outer = Store()
        outer.put_nowait(shelf)
        shelf = outer
    last = weakref.ref(shelf)
    del shelf, outer
    assert last() is None


def test_the_loop_is_dropped_while_tasks_wait():
    async def use(wait):
        try:
            await wait
        finally:
            shelf.put_nowait("cleaned up")

    shelf = Store(5)
    loop = SleepingLoop(use(shelf.get(is_("a"))), use(shelf.get()), speed=math.inf)
    loop.step()
    assert repr(shelf) == "<Store (0 of 5 items), 2 waiting>"
    with pytest.warns(ResourceWarning):
        del loop
        gc.collect()
    assert set(shelf.items) <= {"cleaned up"}
    assert repr(shelf).endswith("items)>")
    shelf.put_nowait("b")


def test_everything_is_dropped_together():
    async def get(shelf):
        await shelf.get(is_("a"))

    shelf = Store(1)
    loop = SleepingLoop(get(shelf), get(shelf), shelf.put(1), shelf.put(2), speed=math.inf)
    loop.step()
    shelf.get_nowait()
    shelf.get_nowait()
    shelf.put_nowait((loop, shelf))
    refs = [weakref.ref(loop), weakref.ref(shelf)]
    with pytest.warns(ResourceWarning):
        del loop, shelf
        gc.collect()
    gc.collect()  # the warning kept the loop, as what it is about
    assert [ref() for ref in refs] == [None, None]


def test_a_granted_item_dies_with_its_store():
    async def get(shelf):
        await shelf.get(is_("a"))

    died = []
    shelf = Store()
    loop = SleepingLoop(get(shelf), get(shelf), speed=math.inf)
    loop.step()
    shelf.put_nowait("a")
    shelf.put_nowait(OnDel(lambda: died.append(1)))
    shelf.put_nowait(shelf)
    shelf.put_nowait(loop)
    with pytest.warns(ResourceWarning):
        del loop, shelf
        gc.collect()
    assert died == [1]


def test_a_wait_that_is_closed_while_its_task_is_parked():
    async def get():
        await waits[0]

    async def main():
        task = create_task(get())
        await checkpoint()
        waits[0].close()
        shelf.put_nowait("a")
        assert isinstance(await outcome(task), RuntimeError)

    shelf = Store()
    waits = [shelf.get()]
    virtual(main())
    assert shelf.items == ("a",)  # as nobody learned of it
