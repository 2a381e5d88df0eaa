"""Store: misuse; many of everything, and how it dies."""

import gc
import math
import threading
import weakref

import pytest

from sleeploop import (
    SleepingLoop,
    Store,
    TaskGroup,
    checkpoint,
    create_task,
)
from tests.helpers import CROWD, OnDel, outcome, references, virtual
from tests.waits import filled, is_

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


# ---- many, and how things die --------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.no_leak_check  # takes long, and nothing that others do not
def test_many_getters():
    async def get(n):
        order.append((n, await shelf.get()))

    async def main():
        for n in range(CROWD):
            create_task(get(n))
        await checkpoint()
        for n in range(CROWD):
            shelf.put_nowait(n)
        assert shelf.items == ()

    shelf, order = Store(), []
    virtual(main())
    assert order == [(n, n) for n in range(CROWD)]


@pytest.mark.slow
@pytest.mark.no_leak_check  # takes long, and nothing that others do not
def test_many_putters():
    async def main():
        async with TaskGroup() as group:
            for n in range(CROWD):
                group.create_task(shelf.put(n))
            await checkpoint()
            assert [await shelf.get() for _ in range(CROWD)] == list(range(CROWD))
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
    for _ in range(100_000):
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
