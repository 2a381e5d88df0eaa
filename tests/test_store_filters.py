"""Store: filters, and what they may do."""

import gc
import sys
import types

import pytest

from sleeploop import (
    CancelScope,
    Store,
    WouldBlock,
    checkpoint,
    create_task,
    sleep,
)
from tests.helpers import OnDel, outcome, virtual
from tests.waits import drop, filled, is_, note, within

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
