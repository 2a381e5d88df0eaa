"""The two methods that stand in a Lock itself: acquire() and release()."""

import contextlib
import gc
import types
import weakref

import pytest

from sleeploop import (
    Event,
    Lock,
    checkpoint,
    create_task,
    current_task,
)
from tests.helpers import OnDel, references, virtual
from tests.waits import taken

# ---- the two methods that stand in a lock itself -------------------------------------------------


def test_they_keep_the_lock_and_not_the_other_way_round():
    lock = Lock(name="kept")
    ref = weakref.ref(lock)
    enter, leave = lock.__aenter__, lock.__aexit__
    before = references(lock)
    more = [lock.__aenter__ for _ in range(100)]
    assert {id(method) for method in more} == {id(enter)}
    assert references(enter) >= 101
    assert references(lock) == before  # once for all of them
    del more, lock
    assert enter.__self__ is ref()
    assert "Lock 'kept'" in repr(enter)
    del enter
    assert ref() is not None
    assert leave.__self__ is ref()
    del leave
    assert ref() is None


def test_they_are_used_when_nobody_else_has_the_lock():
    async def main():
        enter = Lock(name="only").__aenter__
        assert await enter() is None
        lock = enter.__self__
        del enter
        assert lock.owner is current_task()
        leave = lock.__aexit__
        del lock
        await leave(None, None, None)
        assert "unlocked" in repr(leave)

    virtual(main())


def test_made_and_dropped_again_and_again():
    lock = Lock()
    before = references(lock)
    for _ in range(1000):
        lock.__aenter__
        (lock.__aexit__, lock.__aenter__, lock.__aexit__)
    assert references(lock) == before


def test_wrong_arguments():
    async def main():
        lock = Lock(name="l")
        for call in (
            lambda: lock.__aenter__(1),
            lambda: lock.__aenter__(x=1),
            lambda: lock.__aexit__(),
            lambda: lock.__aexit__(None, None),
            lambda: lock.__aexit__(None, None, None, None),
            lambda: lock.__aexit__(None, None, tb=None),
            lambda: Lock.__aenter__(),
            lambda: Lock.__aenter__(lock, 1),
            lambda: Lock.__aexit__(lock),
            lambda: Lock.__aenter__(5),
            lambda: Lock.__aenter__(Event()),
            lambda: Lock.__aexit__(object(), None, None, None),
            lambda: Lock.__aenter__(self=lock),
        ):
            with pytest.raises(TypeError, match=r"__a(enter|exit)__"):
                call()
            assert not lock.locked()

    virtual(main())


def test_found_in_the_type_by_those_who_look_there():
    for name in ("__aenter__", "__aexit__"):
        found = vars(Lock)[name]
        assert found.__get__(None, Lock) is found
        lock = Lock()
        assert found.__get__(lock) is getattr(lock, name)
        for other in (object(), 5, Event(), Lock, found):
            with pytest.raises(TypeError, match="take an object of their type"):
                found.__get__(other)
        assert types.MethodType(found, lock).__self__ is lock
        assert not hasattr(found, "__set__")
        assert not hasattr(found, "__dict__")

    class Borrower:
        __aenter__, __aexit__ = Lock.__aenter__, Lock.__aexit__

    async def main():
        with pytest.raises(TypeError, match="take an object of their type"):
            async with Borrower():
                pass

    virtual(main())


def test_they_have_no_life_of_their_own():
    lock = Lock()
    enter = lock.__aenter__
    with pytest.raises(TypeError, match="weak reference"):
        weakref.ref(enter)
    with pytest.raises(AttributeError):
        enter.extra = 1
    with pytest.raises(AttributeError):
        enter.__self__ = 5
    assert not gc.is_tracked(enter)
    assert hash(enter) == hash(lock.__aenter__)
    assert enter != lock.__aexit__
    assert enter != Lock().__aenter__
    assert gc.get_referents(enter) == []


def test_the_last_reference_goes_while_it_is_called():
    """The call itself holds it."""

    async def main():
        stack = [Lock(name="l")]
        wait = stack.pop().__aenter__()
        await wait
        with pytest.raises(TypeError):
            Lock().__aexit__(OnDel(gc.collect))
        async with Lock():
            gc.collect()
        async with contextlib.AsyncExitStack() as exits:
            ref = weakref.ref(await_lock := Lock())
            await exits.enter_async_context(await_lock)
            del await_lock
            gc.collect()
            assert ref().locked()
        assert ref() is None

    virtual(main())


def test_everything_the_collector_knows_can_be_looked_at():
    async def main():
        lock, event = await taken([]), Event()
        tasks = [create_task(event.wait()), create_task(lock.acquire())]
        await checkpoint()
        seen = []
        for thing in gc.get_objects():
            if type(thing).__name__ == "Wait":
                kind, what = gc.get_referents(thing)
                assert kind is type(thing)
                seen += [repr(thing)] * (what in (lock, event))
        assert sorted(seen) == [
            "<Event.wait() of Event, waiting>",
            "<Lock.acquire() of Lock 'l' held by task 'holder' since 0.0 s, waiting>",
        ]
        event.set()
        for task in tasks:
            assert await task

    gc.collect()
    virtual(main())
