"""Subclasses of the queues and of the parts of a model: made, used, collected, and misused."""

import contextlib
import copy
import gc
import math
import pickle
import sys
import weakref
from typing import Any

import pytest

from sleeploop import (
    Barrier,
    BoundedSemaphore,
    CapacityLimiter,
    Condition,
    Container,
    DeadlockError,
    Event,
    LifoQueue,
    Lock,
    PriorityQueue,
    Queue,
    QueueFull,
    QueueShutDown,
    Request,
    Resource,
    Semaphore,
    SleepingLoop,
    Store,
    TaskGroup,
    WouldBlock,
    create_task,
    current_loop,
    current_task,
    find_deadlocks,
    format_tasks,
    sleep,
    sleep_forever,
)
from tests.helpers import now, virtual

PARTS: list[Any] = [Resource, Container, Store, Queue, PriorityQueue, LifoQueue]
QUEUES: list[Any] = [Queue, PriorityQueue, LifoQueue]


@pytest.fixture(params=PARTS, ids=lambda part: part.__name__)
def part(request: pytest.FixtureRequest) -> Any:
    return request.param


async def bring(thing: Any) -> None:
    """Whatever makes it fuller."""
    if isinstance(thing, Resource):
        await thing.request()
    else:
        await thing.put(1)


def uses(thing: Any) -> list[Any]:
    """Calls of all that can be done with it."""
    if isinstance(thing, Resource):
        return [thing.request, lambda: thing.request(1, preempt=True)]
    calls = [
        lambda: thing.put(1),
        lambda: thing.put_nowait(1),
        (lambda: thing.get(1)) if isinstance(thing, Container) else thing.get,
        (lambda: thing.get_nowait(1)) if isinstance(thing, Container) else thing.get_nowait,
    ]
    return [*calls, thing.__anext__] if isinstance(thing, Queue) else calls


# ---- what they are for ---------------------------------------------------------------------------


class Machine(Resource):
    """A server of a model that knows more than its slots."""

    def __init__(self, name: str, *, speed: float) -> None:
        super().__init__(2, name=name, stats=True)
        self.speed = speed
        self.made: list[object] = []

    async def make(self, what: object, work: float) -> None:
        async with self.request():
            await sleep(work / self.speed)
            self.made.append(what)


def test_a_model_of_ones_own() -> None:
    async def main() -> Machine:
        machine = Machine("press", speed=2)
        async with TaskGroup() as group:
            for part in "abc":
                group.create_task(machine.make(part, 10))
            await sleep(1)
            assert repr(machine) == (
                "<Machine 'press' (2 of 2 in use by task 'Task-2', task 'Task-3'), 1 waiting>"
            )
            assert repr(machine.queue[0]) == "<Request of Machine 'press', priority 0, waiting>"
        return machine

    machine = virtual(main())
    assert machine.made == ["a", "b", "c"]
    assert machine.stats().in_use.mean == 1.5


class Tank(Container):
    low = 3.0

    def needs_more(self) -> bool:
        return self.level < self.low


class Shelf(Store[tuple[str, int]]):
    async def get_size(self, size: int) -> str:
        name, _ = await self.get(lambda item: item[1] == size)
        return name


class Jobs(PriorityQueue[tuple[int, str]]):
    async def put(self, item: tuple[int, str], /) -> None:  # type: ignore[override]
        await super().put((item[0], item[1].upper()))


def test_methods_of_ones_own() -> None:
    async def main() -> None:
        tank, shelf, jobs = Tank(10, 4), Shelf(name="shirts"), Jobs(5)
        assert not tank.needs_more()
        await tank.get(2)
        assert tank.needs_more()
        await shelf.put(("red", 5))
        await shelf.put(("blue", 4))
        assert await shelf.get_size(4) == "blue"
        assert (repr(tank), repr(shelf)) == (
            "<Tank (level 2.0 of 10.0)>",
            "<Shelf 'shirts' (1 item)>",
        )
        await jobs.put((2, "sweep"))
        await jobs.put((1, "cook"))
        assert [await jobs.get(), await jobs.get()] == [(1, "COOK"), (2, "SWEEP")]

    virtual(main())


def test_which_order_a_subclass_of_a_queue_has() -> None:
    class Both(LifoQueue[int], PriorityQueue[int]):
        pass

    class Deeper(Both):
        pass

    for base, order in [
        (Queue, [2, 3, 1]),
        (PriorityQueue, [1, 2, 3]),
        (LifoQueue, [1, 3, 2]),
        (Both, [1, 3, 2]),
        (Deeper, [1, 3, 2]),
    ]:
        queue: Queue[int] = type("Sub", (base,), {})()
        for item in 2, 3, 1:
            queue.put_nowait(item)
        assert [queue.get_nowait() for _ in range(3)] == order
    with pytest.raises(TypeError, match="is not safe"):
        Queue.__new__(LifoQueue)


def test_attributes_and_weak_references(part: Any) -> None:
    class Plain(part):  # type: ignore[misc]
        pass

    class Slots(part):  # type: ignore[misc]
        __slots__ = ("extra",)

    plain, slots = Plain(name="a"), Slots(name="b")
    plain.extra = slots.extra = [plain]
    assert (plain.name, slots.name) == ("a", "b")
    assert plain.__dict__ == {"extra": [plain]}
    with pytest.raises(AttributeError):
        slots.other = 1
    with pytest.raises(AttributeError):
        part().extra = 1
    refs = [weakref.ref(plain), weakref.ref(slots)]
    assert refs[0]() is plain
    del plain, slots
    gc.collect()
    assert [ref() for ref in refs] == [None, None]


def test_names_in_reports(part: Any) -> None:
    part = type("Müll.Halde", (part,), {"__module__": "somewhere"})

    async def main() -> str:
        thing = part(1, name="x")
        await bring(thing)
        create_task(bring(thing), name="late")
        await sleep(1)
        if part.__base__ in (Resource, Container, Store):
            assert "waiting for Müll.Halde 'x' (" in format_tasks()
            assert thing.n_waiting == 1
        find_deadlocks()
        return repr(thing)

    loop = SleepingLoop(main(), speed=math.inf)
    assert loop.run_until(loop.tasks()[0]).startswith("<Müll.Halde 'x' (")
    loop.close()
    part.__name__ = "Other"
    assert repr(part()).startswith("<Other (")


def test_a_deadlock_names_the_subclass() -> None:
    async def main() -> None:
        machine = Machine("press", speed=1)
        for _ in range(3):
            await machine.request()

    with pytest.raises(DeadlockError, match=r"Machine 'press' \(2 of 2 in use"):
        virtual(main())


def test_which_can_be_subclassed() -> None:
    for base in [*PARTS, SleepingLoop]:
        type("Sub", (base,), {})
    others: list[Any] = [Event, Lock, Condition, Semaphore, BoundedSemaphore, CapacityLimiter]
    for base in [*others, Barrier, Request]:
        with pytest.raises(TypeError, match="not an acceptable base type"):
            type("Sub", (base,), {})


def test_no_type_can_be_changed() -> None:
    """Nor those that are finished only after they have been made: see finish_types()."""
    for kind in [Event, Lock, Condition, Semaphore, BoundedSemaphore, CapacityLimiter, *PARTS]:
        for name in ("__aenter__", "__aexit__", "extra"):
            with pytest.raises(TypeError, match="immutable type"):
                setattr(kind, name, None)
            with pytest.raises(TypeError, match="immutable type"):
                delattr(kind, name)


def test_type_parameters() -> None:
    class Sub(Queue[int]):
        pass

    assert Sub.__bases__ == (Queue,)
    assert repr(Sub[str]).endswith("Sub[str]")


# ---- __init__() ----------------------------------------------------------------------------------


def test_an_init_that_is_forgotten(part: Any) -> None:
    class Forgetful(part):  # type: ignore[misc]
        def __init__(self, extra: object) -> None:
            self.extra = extra

    name = "Queue" if part in QUEUES else part.__name__
    thing = Forgetful(5)
    for use in uses(thing):
        with pytest.raises(RuntimeError, match=rf"^{name}\.__init__\(\) was not called$"):
            use()
    assert repr(thing).startswith("<Forgetful (")
    assert (thing.name, thing.n_waiting) == (None, 0)
    with pytest.raises(RuntimeError, match="keeps no statistics"):
        thing.stats()
    for attribute in dir(thing):
        getattr(thing, attribute)
    if part in QUEUES:
        assert (thing.qsize(), thing.empty()) == (0, True)
        thing.shutdown()
        with pytest.raises(ValueError, match="once more"):
            thing.task_done()
    part.__init__(thing, 3, name="late")  # better late than never
    assert thing.name == "late"
    del thing
    gc.collect()


def test_an_init_that_is_called_twice(part: Any) -> None:
    class Twice(part):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(3, name="once", stats=True)
            with pytest.raises(RuntimeError, match=r"\(\): its __init__\(\) was called before$"):
                super().__init__(4, name="twice", stats=True)

    async def main() -> None:
        thing = Twice()
        assert thing.name == "once"
        await bring(thing)
        await sleep(5)
        for _ in range(3):
            with pytest.raises(RuntimeError, match="was called before"):
                thing.__class__.__base__.__init__(thing)
        assert thing.stats()[0].now == 1

    virtual(main())


def test_an_init_that_calls_itself_while_it_looks_at_its_arguments(part: Any) -> None:
    class Number(int):
        def __index__(self) -> int:
            part.__init__(thing, 2, name="inner", stats=True)
            return 3

        __float__ = __index__  # type: ignore[assignment]

    class Index:
        def __index__(self) -> int:
            part.__init__(thing, 2, name="inner", stats=True)
            return 3

    thing = part.__new__(part)
    with pytest.raises(RuntimeError, match="was called before"):
        part.__init__(thing, Index(), name="outer", stats=True)
    assert thing.name == "inner"
    thing.stats()


@pytest.mark.usefixtures("forgetful")
def test_wrong_arguments_leave_it_unmade(part: Any) -> None:
    thing = part.__new__(part, 1, 2, 3, whatever=4)
    for wrong in [{"name": 5}, {"loop": 5}, {"other": 1}, {"stats": Unclear()}]:
        with pytest.raises((TypeError, ZeroDivisionError)):
            part.__init__(thing, **wrong)
        with pytest.raises(RuntimeError, match="was not called"):
            uses(thing)[0]()
    with pytest.raises((TypeError, ValueError)):
        part.__init__(thing, "x")
    part.__init__(thing)
    uses(thing)[0]()


class Unclear:
    def __bool__(self) -> bool:
        raise ZeroDivisionError


def test_other_bases(part: Any) -> None:
    class Log:
        def __init__(self, **rest: Any) -> None:
            super().__init__(**rest)
            self.log: list[object] = []

    class Mixed(Log, part):  # type: ignore[misc]
        pass

    mixed = Mixed(name="m", stats=True)
    assert (mixed.name, mixed.log) == ("m", [])
    mixed.stats()
    if part is not Resource:
        with pytest.raises(TypeError, match=r"lay-?out conflict"):
            type("Bad", (part, Resource), {})


def test_copies_and_pickles_are_refused(part: Any) -> None:
    class Sub(part):  # type: ignore[misc]
        pass

    for refuse in copy.copy, copy.deepcopy, pickle.dumps:
        for thing in part(), Sub():
            with pytest.raises(TypeError, match="cannot pickle"):
                refuse(thing)


# ---- collected -----------------------------------------------------------------------------------


def test_cycles_through_its_attributes(part: Any) -> None:
    class Sub(part):  # type: ignore[misc]
        pass

    gc.collect()
    before = len(gc.get_objects())
    for _ in range(50):
        thing = Sub(stats=True)
        thing.me = thing
        thing.loop = SleepingLoop(speed=math.inf)
        if part not in (Resource, Container):
            thing.put_nowait(thing)
    del thing
    gc.collect()
    assert len(gc.get_objects()) - before < 20


@pytest.mark.filterwarnings("ignore:.*was neither closed nor run")
def test_cycles_through_tasks_that_wait_at_it(part: Any) -> None:
    class Sub(part):  # type: ignore[misc]
        pass

    def make() -> weakref.ref[Any]:
        thing = Sub(1, stats=True)

        async def main() -> None:
            thing.task = current_task()
            await bring(thing)
            await bring(thing)

        thing.loop = SleepingLoop(main(), speed=math.inf)
        thing.loop.run_until(5)
        return weakref.ref(thing)

    ref = make()
    gc.collect()
    assert ref() is None


@pytest.mark.usefixtures("forgetful")
def test_a_finalizer_that_uses_it(part: Any) -> None:
    log: list[object] = []

    class Sub(part):  # type: ignore[misc]
        def __del__(self) -> None:
            log.append((repr(self).split(" ")[0], self.stats()[0].now, self.n_waiting))
            uses(self)[0]()
            if part is not Resource:
                self.put_nowait(1)

    async def main() -> None:
        Sub(stats=True)
        thing = Sub(stats=True)
        thing.me = thing
        del thing
        gc.collect()

    virtual(main())
    assert log == [("<Sub", 0.0, 0)] * 2


def test_one_that_comes_back_to_life(part: Any) -> None:
    kept: list[Any] = []

    class Sub(part):  # type: ignore[misc]
        def __del__(self) -> None:
            kept.append(self)

    async def main() -> None:
        Sub(2, name="phoenix", stats=True)
        (thing,) = kept
        await bring(thing)
        await sleep(1)
        assert thing.stats()[0].now == 1
        assert thing.name == "phoenix"

    virtual(main())
    kept.clear()
    gc.collect()
    assert kept == []


def test_long_chains() -> None:
    class Chain(Queue[Any]):
        pass

    class Ring(Store[Any]):
        pass

    class Link(Container):
        next: object

    for cls in Chain, Ring:
        thing: Any = None
        for _ in range(50_000):
            outer: Any = cls()
            outer.put_nowait(thing)
            thing = outer
        del thing, outer
    link: Any = None
    for _ in range(50_000):
        linked = Link()
        linked.next = link
        link = linked
    del link, linked
    gc.collect()


def test_its_class_can_go() -> None:
    def make() -> tuple[Any, weakref.ref[Any]]:
        class Sub(Queue[int]):
            pass

        return Sub(), weakref.ref(Sub)

    queue, ref = make()
    gc.collect()
    assert ref() is not None
    queue.put_nowait(1)
    del queue
    gc.collect()
    assert ref() is None


# ---- evil ----------------------------------------------------------------------------------------


def test_a_class_whose_order_of_bases_leaves_ours_out(part: Any) -> None:
    class Meta(type):
        def mro(cls) -> list[type]:
            return [cls, object] if cls.__name__ == "Hidden" else super().mro()

    class Shown(part, metaclass=Meta):  # type: ignore[misc]
        pass

    class Hidden(Shown):
        pass

    hidden = Hidden()
    with pytest.raises(TypeError):
        part.__init__(hidden)
    with pytest.raises(AttributeError):
        hidden.name
    del hidden

    async def main() -> None:
        thing = Shown(1, stats=True)
        await bring(thing)
        waits = create_task(bring(thing))
        await sleep(1)
        thing.__class__ = Hidden
        waits.cancel()
        await sleep(1)
        format_tasks()
        thing.__class__ = Shown
        assert thing.stats()[0].now >= 1

    virtual(main())
    gc.collect()


def test_another_class_of_the_same_kind() -> None:
    class First(Queue[int]):
        pass

    class Second(LifoQueue[int]):
        pass

    queue: Any = First()
    queue.put_nowait(1)
    queue.put_nowait(2)
    with contextlib.suppress(TypeError):
        queue.__class__ = Second
    assert [queue.get_nowait(), queue.get_nowait()] == [1, 2]  # its order is its own


def test_reprs_equality_and_hashes_of_ones_own(part: Any) -> None:
    class Evil(part):  # type: ignore[misc]
        __hash__ = None

        def __repr__(self) -> str:
            raise ZeroDivisionError

        def __eq__(self, other: object) -> bool:
            raise ZeroDivisionError

        def __len__(self) -> int:
            raise ZeroDivisionError

    async def main() -> None:
        thing = Evil(1, name="evil")
        await bring(thing)
        task = create_task(bring(thing))
        await sleep(1)
        format_tasks()
        find_deadlocks()
        if part not in QUEUES:
            assert thing.n_waiting == 1
        with pytest.raises(RuntimeError, match="keeps no statistics"):
            thing.stats()
        task.cancel()

    virtual(main())


def test_misuse_is_told_as_of_its_base() -> None:
    class Line(Queue[int]):
        pass

    class Room(Container):
        pass

    async def main() -> None:
        line, room = Line(1, name="l"), Room(1)
        line.put_nowait(1)
        with pytest.raises(QueueFull, match=r"^Queue.put_nowait\(\) would have to wait: Line 'l'"):
            line.put_nowait(1)
        line.shutdown()
        with pytest.raises(QueueShutDown, match="Line 'l'"):
            await line.put(1)
        with pytest.raises(WouldBlock, match=r"Room \(level 0.0 of 1.0\)"):
            room.get_nowait(1)
        with pytest.raises(ValueError, match="at most the capacity"):
            await room.get(2)
        assert now() == 0

    virtual(main())


def test_reference_counts(part: Any) -> None:
    class Sub(part):  # type: ignore[misc]
        pass

    async def main() -> None:
        for _ in range(20):
            thing = Sub(2, name="x", stats=True, loop=current_loop())
            await bring(thing)

    def used() -> int:
        virtual(main())
        gc.collect()
        return sys.getrefcount(Sub)

    assert used() == used()


def test_the_task_that_waits_holds_it() -> None:
    class Sub(Queue[int]):
        pass

    async def main() -> None:
        task = create_task(Sub().get())  # type: ignore[arg-type]
        await sleep(1)
        gc.collect()
        queue: Any = task.waiting_on
        assert type(queue) is Sub
        queue.put_nowait(5)
        assert await task == 5
        create_task(sleep_forever(), daemon=True)

    virtual(main())
