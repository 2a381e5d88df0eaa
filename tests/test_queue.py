"""Queue: items, those who wait for them, and those who wait for room."""

import gc
import math
import threading
import weakref
from types import GenericAlias

import pytest

import sleeploop
from sleeploop import (
    CancelledError,
    CancelScope,
    DeadlockError,
    LifoQueue,
    PriorityQueue,
    Queue,
    QueueEmpty,
    QueueFull,
    QueueShutDown,
    SleepingLoop,
    TaskGroup,
    WouldBlock,
    checkpoint,
    create_task,
    current_loop,
    current_task,
    format_tasks,
    move_on_after,
    sleep,
)
from tests.helpers import CROWD, OnDel, ended, now, outcome, virtual, yielding

KINDS = [Queue, LifoQueue, PriorityQueue]
each_kind = pytest.mark.parametrize("kind", KINDS)


def drain(queue):
    return [queue.get_nowait() for _ in range(queue.qsize())]


async def take(queue, log, name):
    log.append((name, await queue.get()))


async def bring(queue, log, item):
    await queue.put(item)
    log.append(item)


# ---- in and out ----------------------------------------------------------------------------------


def test_first_in_first_out():
    async def main():
        queue = Queue()
        for n in range(100):
            await queue.put(n)
        return [await queue.get() for _ in range(100)]

    assert virtual(main()) == list(range(100))


@each_kind
def test_what_need_not_wait_does_not_switch_tasks(kind):
    async def main():
        queue = kind(2)
        steps = current_loop().stats().steps
        await queue.put(1)
        await queue.put(2)
        assert {await queue.get(), await queue.get()} == {1, 2}
        await queue.join() if queue.task_done() or queue.task_done() else None
        await queue.join()
        assert current_loop().stats().steps == steps

    virtual(main())


@each_kind
def test_sizes(kind):
    queue = kind(2)
    seen = [(queue.qsize(), queue.empty(), queue.full())]
    for _ in range(2):
        queue.put_nowait(1)
        seen.append((queue.qsize(), queue.empty(), queue.full()))
    assert seen == [(0, True, False), (1, False, False), (2, False, True)]
    assert queue.maxsize == 2


@each_kind
def test_a_queue_without_a_limit_is_never_full(kind):
    queue = kind()
    for n in range(1000):
        queue.put_nowait(n)
        assert not queue.full()
    assert (queue.maxsize, queue.qsize()) == (0, 1000)
    assert sorted(drain(queue)) == list(range(1000))


@each_kind
def test_at_once_or_not_at_all(kind):
    queue = kind(1)
    with pytest.raises(
        QueueEmpty, match=rf"^Queue.get_nowait\(\) would have to wait: {kind.__name__} \(empty\)$"
    ):
        queue.get_nowait()
    queue.put_nowait("a")
    with pytest.raises(QueueFull, match=rf"wait: {kind.__name__} \(full, 1 item\)$"):
        queue.put_nowait("b")
    assert drain(queue) == ["a"]


def test_the_errors_are_kinds_of_would_block():
    assert issubclass(QueueEmpty, WouldBlock)
    assert issubclass(QueueFull, WouldBlock)
    assert not issubclass(QueueShutDown, WouldBlock)


def test_the_variants_are_queues():
    assert issubclass(PriorityQueue, Queue)
    assert issubclass(LifoQueue, Queue)


def test_anything_may_be_an_item():
    async def main():
        items = [None, True, (), (1, 2), StopIteration(3), StopAsyncIteration(), KeyError, queue]
        for item in items:
            await queue.put(item)
        got = [await queue.get() for _ in items]
        assert all(a is b for a, b in zip(got, items, strict=True))
        for item in items:
            create_task(queue.put(item))
            assert await queue.get() is item

    queue = Queue()
    virtual(main())


def test_a_ring_that_grows_while_it_is_wrapped_around():
    queue, expected, n = Queue(), [], 0
    for size in (5, 3, 20, 1, 100, 0):
        while len(expected) < size:
            queue.put_nowait(n)
            expected.append(n)
            n += 1
        while len(expected) > size // 2:
            assert queue.get_nowait() == expected.pop(0)
    assert drain(queue) == expected


# ---- handed over ---------------------------------------------------------------------------------


def test_an_item_goes_to_who_has_waited_longest():
    async def main():
        queue, log = Queue(), []
        async with TaskGroup() as group:
            for name in "abc":
                group.create_task(take(queue, log, name))
            await checkpoint()
            for n in range(3):
                queue.put_nowait(n)
                assert queue.empty()
                with pytest.raises(QueueEmpty):  # it has an owner already
                    queue.get_nowait()
        return log

    assert virtual(main()) == [("a", 0), ("b", 1), ("c", 2)]


def test_nobody_gets_in_between():
    async def main():
        queue, log = Queue(), []
        async with TaskGroup() as group:
            group.create_task(take(queue, log, "waiter"))
            await checkpoint()
            await queue.put("first")
            group.create_task(take(queue, log, "latecomer"))
            with move_on_after(1) as scope:
                await queue.get()
            assert scope.cancelled_caught
            await queue.put("second")
        return log

    assert virtual(main()) == [("waiter", "first"), ("latecomer", "second")]


@each_kind
def test_who_waits_for_room_is_let_in_when_an_item_leaves(kind):
    async def main():
        queue, log = kind(1), []
        queue.put_nowait(0)
        async with TaskGroup() as group:
            for n in (1, 2):
                group.create_task(bring(queue, log, n))
            await checkpoint()
            assert queue.qsize() == 1
            assert queue.get_nowait() == 0
            assert queue.qsize() == 1
            with pytest.raises(QueueFull):
                queue.put_nowait("in between")
            assert await queue.get() == 1
            assert log == []
            assert await queue.get() == 2
            assert queue.empty()
        return log

    assert virtual(main()) == [1, 2]


def test_a_getter_and_a_putter_in_turns():
    async def consume():
        while (item := await a.get()) is not None:
            log.append(item)
            await b.put(-item)

    async def main():
        create_task(consume())
        for n in range(5):
            await a.put(n)
            log.append(await b.get())
        await a.put(None)

    a, b, log = Queue(), Queue(), []
    virtual(main())
    assert log == [0, 0, 1, -1, 2, -2, 3, -3, 4, -4]


@pytest.mark.slow
@each_kind
def test_a_crowd_waits(kind):
    async def main():
        queue, log = kind(1), []
        for n in range(CROWD):
            create_task(take(queue, log, n))
        await checkpoint()
        assert queue.qsize() == 0
        for n in range(CROWD):
            await queue.put(n)
        await checkpoint()
        return log

    assert virtual(main()) == [(n, n) for n in range(CROWD)]


@pytest.mark.slow
def test_a_crowd_waits_for_room():
    async def main():
        queue = Queue(3)
        for n in range(CROWD):
            create_task(queue.put(n))
        await checkpoint()
        assert queue.qsize() == 3
        return [await queue.get() for _ in range(CROWD)]

    assert virtual(main()) == list(range(CROWD))


# ---- cancelled -----------------------------------------------------------------------------------


@each_kind
def test_the_item_of_a_cancelled_put_is_not_in_the_queue(kind):
    async def main():
        queue, log = kind(1), []
        queue.put_nowait(0)
        tasks = [create_task(bring(queue, log, n)) for n in (1, 2, 3)]
        await checkpoint()
        tasks[1].cancel()
        await ended(tasks[1])
        got = [await queue.get() for _ in range(3)]
        assert queue.empty()
        return got, log

    assert virtual(main()) == ([0, 1, 3], [1, 3])


def test_who_is_cancelled_while_it_waits_gets_nothing():
    async def main():
        queue, log = Queue(), []
        tasks = [create_task(take(queue, log, name)) for name in "abc"]
        await checkpoint()
        tasks[0].cancel()
        queue.put_nowait(1)
        queue.put_nowait(2)
        await ended(tasks[0])
        await tasks[2]
        return log

    assert virtual(main()) == [("b", 1), ("c", 2)]


def test_who_is_cancelled_after_it_was_given_an_item_has_it():
    async def main():
        queue, log = Queue(), []
        task = create_task(take(queue, log, "a"))
        await checkpoint()
        queue.put_nowait(1)
        task.cancel()
        await task
        return log, queue.qsize()

    assert virtual(main()) == ([("a", 1)], 0)


def test_who_is_cancelled_after_its_item_went_in_has_put_it():
    async def main():
        queue, log = Queue(1), []
        queue.put_nowait(0)
        task = create_task(bring(queue, log, 1))
        await checkpoint()
        assert queue.get_nowait() == 0
        task.cancel()
        await task
        return log, drain(queue)

    assert virtual(main()) == ([1], [1])


@each_kind
@pytest.mark.parametrize("method", ["put", "get", "__anext__", "join"])
def test_in_a_cancelled_scope_nothing_happens(kind, method):
    async def main():
        queue = kind()
        queue.put_nowait(1)
        if method == "join":
            queue.task_done()
        with CancelScope() as scope:
            scope.cancel()
            with pytest.raises(CancelledError):
                await (queue.put(2) if method == "put" else getattr(queue, method)())
        return drain(queue)

    assert virtual(main()) == [1]


def test_a_cancelled_crowd_leaves_the_others_in_order():
    async def main():
        queue, log = Queue(), []
        tasks = [create_task(take(queue, log, n)) for n in range(1000)]
        await checkpoint()
        for task in tasks[::2] + tasks[1:100:2]:
            task.cancel()
        for n in range(450):
            await queue.put(n)
        await sleep(1)
        assert repr(queue) == "<Queue (empty)>"
        return log

    assert virtual(main()) == list(zip(range(101, 1000, 2), range(450), strict=True))


# ---- given back ----------------------------------------------------------------------------------


class Parked:
    """A coroutine that parks a task in get(), and is then driven by the test instead."""

    def __init__(self, queue):
        self.wait = queue.get().__await__()

    def send(self, value):
        return self.wait.send(value)

    def throw(self, error):
        raise error

    def close(self):
        pass


@pytest.mark.parametrize("how", ["close", "throw", "drop"])
@pytest.mark.parametrize(
    ("kind", "expected"),
    [(Queue, [1, 2, 3]), (LifoQueue, [1, 3, 2]), (PriorityQueue, [1, 2, 3])],
)
def test_what_a_getter_never_learns_of_goes_back_to_the_front(kind, expected, how):
    async def main():
        queue = kind()
        parked = Parked(queue)
        create_task(parked, daemon=True)
        await checkpoint()
        queue.put_nowait(1)  # its own, as of now
        queue.put_nowait(2)
        queue.put_nowait(3)
        assert queue.qsize() == 2
        if how == "close":
            parked.wait.close()
        elif how == "throw":
            with pytest.raises(KeyError):
                parked.wait.throw(KeyError())
        parked.wait = sleeploop.sleep_forever().__await__()
        await checkpoint()  # it is dropped at the latest when its task has run
        return drain(queue)

    assert virtual(main()) == expected


def test_what_goes_back_goes_to_who_waits_first():
    async def main():
        queue, log = Queue(), []
        parked = Parked(queue)
        create_task(parked, daemon=True)
        await checkpoint()
        create_task(take(queue, log, "next"))
        await checkpoint()
        queue.put_nowait(1)
        parked.wait.close()
        parked.wait = sleeploop.sleep_forever().__await__()
        await sleep(1)
        return log, queue.qsize()

    assert virtual(main()) == ([("next", 1)], 0)


def test_what_goes_back_to_a_full_queue_makes_it_longer_than_its_limit():
    async def main():
        async def close():
            parked.wait.close()
            parked.wait = sleeploop.sleep_forever().__await__()
            assert repr(queue) == "<Queue 'q' (full, 2 items), 1 waiting>"

        queue, log = Queue(1, name="q"), []
        parked = Parked(queue)
        create_task(parked, daemon=True)
        await checkpoint()
        create_task(bring(queue, log, 3))
        create_task(close())
        queue.put_nowait(1)  # which the parked task would learn of next
        queue.put_nowait(2)
        await checkpoint()
        assert await queue.get() == 1
        assert (queue.qsize(), log) == (1, [])  # there is no room yet
        assert [await queue.get(), await queue.get()] == [2, 3]

    virtual(main())


def test_what_goes_back_to_a_queue_that_was_shut_down():
    async def main(immediate):
        queue = Queue()
        queue.put_nowait(0)
        queue.get_nowait()
        joining = create_task(queue.join(), daemon=True)
        parked = Parked(queue)
        create_task(parked, daemon=True)
        await checkpoint()
        queue.put_nowait(1)
        queue.shutdown(immediate)
        queue.task_done()  # of 0
        parked.wait.close()
        parked.wait = sleeploop.sleep_forever().__await__()
        await checkpoint()
        return drain(queue), joining.done()

    assert virtual(main(False)) == ([1], False)
    assert virtual(main(True)) == ([], True)  # what would come back is dropped, and so done


def test_a_wait_that_was_closed_by_hand():
    """Its item is not lost, and its task learns what was done to it."""

    async def main():
        queue = Queue()

        async def take_by_hand():
            wait = queue.get()
            waits.append(wait)
            return await wait

        waits = []
        task = create_task(take_by_hand(), name="a")
        await checkpoint()
        waits[0].close()
        queue.put_nowait(1)
        error = await outcome(task)
        assert isinstance(error, RuntimeError)
        assert "was awaited before" in str(error)
        waits.clear()
        del error, task
        gc.collect()
        return drain(queue)

    assert virtual(main()) == [1]


def test_coroutines_that_are_closed_when_the_run_stops_give_back():
    async def main():
        create_task(take(queue, [], "a"), daemon=True)
        await checkpoint()
        queue.put_nowait(1)
        queue.put_nowait(2)

    queue = Queue()
    loop = SleepingLoop(main(), speed=math.inf)
    assert loop.step()
    assert loop.step()
    assert queue.qsize() == 1  # 1 is on its way
    loop.close()
    del loop
    gc.collect()
    assert drain(queue) == [2]  # it learned of 1 before it was cancelled


# ---- wrong use -----------------------------------------------------------------------------------


@each_kind
def test_arguments(kind):
    name = f"{kind.__name__}()"
    for bad, error, text in [
        (-1, ValueError, "maxsize must be 0 or more, not -1"),
        (10**30, ValueError, f"maxsize must be less than 2**63, not {10**30}"),
        (-(10**30), ValueError, f"maxsize must be 0 or more, not {-(10**30)}"),
        (1.0, TypeError, "maxsize must be an int, 0 for no limit, not 1.0"),
        (math.inf, TypeError, "maxsize must be an int, 0 for no limit, not inf"),
        ("5", TypeError, "maxsize must be an int, 0 for no limit, not '5'"),
        (None, TypeError, "maxsize must be an int, 0 for no limit, not None"),
    ]:
        with pytest.raises(error) as caught:
            kind(bad)
        assert str(caught.value).startswith(f"{name}: {text}")
    with pytest.raises(TypeError, match="name must be a str, not 5"):
        kind(name=5)
    with pytest.raises(TypeError, match="positional"):
        kind(1, "name")
    assert kind(maxsize=True).maxsize == 1


class Index:
    def __init__(self, result):
        self.result = result

    def __index__(self):
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


def test_a_size_that_is_computed():
    assert Queue(Index(3)).maxsize == 3
    with pytest.raises(LookupError):
        Queue(Index(LookupError()))
    with pytest.raises(ValueError, match="must be 0 or more, not -3"):
        Queue(Index(-3))


@pytest.mark.parametrize(
    ("method", "args"),
    [("put", ()), ("put", (1, 2)), ("get", (1,)), ("put_nowait", ()), ("shutdown", (1, 2))],
)
def test_wrong_numbers_of_arguments(method, args):
    with pytest.raises(TypeError):
        getattr(Queue(), method)(*args)


@pytest.mark.parametrize("method", ["put", "get", "__anext__", "join"])
def test_without_a_loop(method):
    queue = Queue()
    wait = queue.put(1) if method == "put" else getattr(queue, method)()
    with pytest.raises(RuntimeError, match="needs a running loop"):
        wait.send(None)
    assert queue.empty()


def test_an_await_counts_once():
    async def main():
        queue = Queue()
        wait = queue.put(1)
        await wait
        with pytest.raises(RuntimeError, match=r"this Queue.put\(\) was awaited before"):
            await wait
        wait = queue.get()
        assert await wait == 1
        queue.put_nowait(2)
        with pytest.raises(RuntimeError, match=r"this Queue.get\(\) was awaited before"):
            await wait
        return drain(queue)

    assert virtual(main()) == [2]


def test_an_awaitable_that_nobody_awaits_does_nothing():
    died = []
    queue = Queue()
    queue.put_nowait(1)
    with pytest.warns(RuntimeWarning, match=r"coroutine 'Queue\.get' was never awaited"):
        queue.get()
    assert drain(queue) == [1]
    with pytest.warns(RuntimeWarning, match=r"coroutine 'Queue\.put' was never awaited"):
        queue.put(OnDel(lambda: died.append(True)))
    assert died == [True]


def test_a_wait_that_is_yielded_by_another_task():
    async def main():
        queue = Queue()
        wait = queue.get()
        task = create_task(outcome(wait))
        await checkpoint()
        with pytest.raises(TypeError, match="instead of yielding it"):
            await yielding(wait)
        queue.put_nowait(1)
        return await task

    assert virtual(main()) == 1


def test_a_queue_may_serve_one_loop_after_the_other():
    queue = Queue()
    queue.put_nowait(0)

    async def main(n):
        assert await queue.get() == n
        await queue.put(n + 1)

    for n in range(3):
        virtual(main(n))
    assert drain(queue) == [3]


def test_the_tasks_of_another_loop_keep_out_while_some_wait():
    async def wait():
        await queue.get()

    async def other():
        return [str(await outcome(queue.put(1))), str(await outcome(queue.get()))]

    queue = Queue(name="jobs")
    loop = SleepingLoop(wait(), speed=math.inf)
    loop.step()
    texts = virtual(other())
    assert texts == [
        f"Queue.{name}(): <Queue 'jobs' (empty), 1 waiting> belongs to another loop, whose tasks "
        "have it or wait for it"
        for name in ("put", "get")
    ]
    queue.put_nowait(5)
    loop.step()
    loop.close()


def test_other_threads_keep_out():
    calls = {
        "put_nowait": lambda: queue.put_nowait(1),
        "get_nowait": lambda: queue.get_nowait(),
        "task_done": lambda: queue.task_done(),
        "shutdown": lambda: queue.shutdown(),
    }
    texts = []

    def intrude():
        for call in calls.values():
            try:
                call()
            except RuntimeError as error:
                texts.append(str(error))

    async def main():
        await queue.put(0)
        thread = threading.Thread(target=intrude)
        thread.start()
        thread.join()
        assert await queue.get() == 0

    queue = Queue()
    virtual(main())
    assert [text.partition(":")[0] for text in texts] == [f"Queue.{name}()" for name in calls]
    assert all("runs in another thread" in text for text in texts)


# ---- reports -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("forgetful")
def test_reprs():
    queue = Queue(3, name="jobs")
    assert repr(Queue()) == "<Queue (empty)>"
    texts = []
    for n in range(3):
        texts.append(repr(queue))
        queue.put_nowait(n)
    texts.append(repr(queue))
    assert texts == [
        "<Queue 'jobs' (empty)>",
        "<Queue 'jobs' (1 of 3 items)>",
        "<Queue 'jobs' (2 of 3 items)>",
        "<Queue 'jobs' (full, 3 items)>",
    ]
    queue.shutdown()
    assert repr(queue) == "<Queue 'jobs' (full, 3 items, shut down)>"
    queue.shutdown(immediate=True)
    assert repr(queue) == "<Queue 'jobs' (empty, shut down)>"
    lifo = LifoQueue()
    lifo.put_nowait(1)
    assert repr(lifo) == "<LifoQueue (1 item)>"
    assert (queue.name, lifo.name) == ("jobs", None)
    assert repr(queue.get()) == "<Queue.get() of Queue 'jobs' (empty, shut down), not awaited yet>"


def test_a_queue_that_holds_itself_has_a_repr():
    queue = Queue()
    queue.put_nowait(queue)
    assert repr(queue) == "<Queue (1 item)>"


def test_what_tasks_wait_for():
    async def main():
        jobs, full = Queue(name="jobs"), PriorityQueue(1, name="urgent")
        full.put_nowait(1)

        async def loop_over():
            async for _ in jobs:
                pass

        tasks = [
            create_task(coro, name=f"{n}")
            for n, coro in enumerate([jobs.get(), full.put(2), full.join(), loop_over()])
        ]
        await checkpoint()
        assert [task.waiting_on for task in tasks] == [jobs, full, full, jobs]
        assert repr(jobs) == "<Queue 'jobs' (empty), 2 waiting>"
        return format_tasks()

    lines = virtual(main()).splitlines()[1:]
    assert [line.partition("waiting for ")[2].partition(", since")[0] for line in lines] == [
        "Queue 'jobs' (empty)",
        "PriorityQueue 'urgent' (full, 1 item)",
        "PriorityQueue 'urgent' (1 item unfinished)",
        "Queue 'jobs' (empty)",
    ]


def test_a_deadlock_tells_of_the_queue():
    async def main():
        await Queue(name="jobs").get()

    with pytest.raises(DeadlockError, match=r"waiting for Queue 'jobs' \(empty\)"):
        virtual(main())


# ---- ownership -----------------------------------------------------------------------------------


def test_an_item_by_hand_is_the_value_of_a_stop_iteration():
    async def main():
        queue = Queue()
        for item in ((1, 2), KeyError(3), "text"):
            queue.put_nowait(item)
            with pytest.raises(StopIteration) as caught:
                next(queue.get().__await__())
            assert type(caught.value) is StopIteration
            assert caught.value.value is item
            queue.put_nowait(item)
            with pytest.raises(StopIteration) as caught:
                queue.get().send(None)
            assert caught.value.value is item
            assert caught.value.args == (item,)

    virtual(main())


def test_generic():
    assert Queue[int].__origin__ is Queue
    assert isinstance(PriorityQueue[int], GenericAlias)
    queue = LifoQueue[str](3)
    assert type(queue) is LifoQueue
    assert queue.maxsize == 3


@each_kind
def test_cycles_are_collected(kind):
    class Item:
        def __lt__(self, other):
            return False

    queue = kind()
    refs = [weakref.ref(queue)]
    for _ in range(3):
        item = Item()
        item.queue = queue
        queue.put_nowait(item)
        refs.append(weakref.ref(item))
    del queue, item
    assert refs[0]() is not None
    gc.collect()
    assert [ref() for ref in refs] == [None] * 4


@each_kind
def test_items_whose_death_uses_the_queue(kind):
    """By the queue's own end, by shutdown() and by the collector."""

    class Item:
        def __init__(self, queue):
            self.queue = queue

        def __lt__(self, other):
            return False

        __gt__ = __lt__

        def __del__(self):
            died.append(self.queue.qsize())
            outcomes.append(put(self.queue))

    def put(queue):
        try:
            queue.put_nowait(1)
        except QueueShutDown as error:
            return error
        return queue.get_nowait()

    for how in ("shutdown", "collector"):
        died, outcomes = [], []
        queue = kind()
        for _ in range(3):
            queue.put_nowait(Item(queue))
        if how == "shutdown":
            queue.shutdown(immediate=True)
            assert died == [0, 0, 0]
            assert {type(error) for error in outcomes} == {QueueShutDown}
        del queue
        gc.collect()
        assert len(died) == 3


@each_kind
def test_items_that_refill_the_queue_as_they_die(kind):
    class Item:
        def __init__(self, box):
            self.box = box

        def __lt__(self, other):
            return False

        def __del__(self):
            died.append(True)
            if len(died) < 10:
                self.box[0].put_nowait(Item(self.box))

    died = []
    box = [kind()]
    box[0].put_nowait(Item(box))
    box[0].put_nowait(Item(box))
    ref = weakref.ref(box[0])
    del box
    for _ in range(12):
        gc.collect()
    assert ref() is None
    assert len(died) >= 10


def test_a_chain_of_queues_is_freed_without_recursion():
    queue = None
    for n in range(200_000):
        outer = [Queue, LifoQueue, PriorityQueue][n % 3]()
        outer.put_nowait(queue)
        queue = outer
    last = weakref.ref(queue)
    del queue, outer
    assert last() is None


def test_items_are_let_go_when_they_are_taken():
    async def main():
        queue = Queue(1)
        for _ in range(3):
            await queue.put(OnDel(lambda: died.append(True)))
            await queue.get()
        assert len(died) == 3  # also the last one: nothing of it is kept by whatever brought it
        queue.put_nowait(1)
        task = create_task(queue.put(OnDel(lambda: died.append(True))))
        await checkpoint()
        task.cancel()
        await ended(task)
        del task  # whose coroutine it was
        assert len(died) == 4

    died = []
    virtual(main())


def test_a_loop_that_is_dropped_while_tasks_wait():
    async def main():
        create_task(queue.get())
        create_task(full.put(1))
        create_task(full.join())
        await sleep(5)

    queue, full = Queue(), Queue(1)
    full.put_nowait(0)
    loop = SleepingLoop(main(), speed=math.inf)
    loop.step()
    loop.step()
    assert "1 waiting" in repr(queue)
    del loop
    with pytest.warns(ResourceWarning, match="neither closed nor run"):
        gc.collect()
    assert repr(queue) == "<Queue (empty)>"
    assert repr(full) == "<Queue (full, 1 item)>"
    queue.put_nowait(3)
    assert drain(queue) == [3]
    assert drain(full) == [0]


def test_a_queue_in_a_loop_that_is_garbage():
    async def main(loop):
        queue = Queue()
        refs.append(weakref.ref(queue))
        queue.put_nowait(loop)
        queue.put_nowait(current_task())
        create_task(queue.join())
        await Queue().get()

    refs, box = [], []
    loop = SleepingLoop(main(box), speed=math.inf)
    box.append(loop)
    loop.step()
    loop.step()
    del loop, box
    with pytest.warns(ResourceWarning, match="neither closed nor run"):
        gc.collect()
    assert [ref() for ref in refs] == [None]


def test_times():
    async def main():
        queue = Queue(1)
        async with TaskGroup() as group:

            async def produce():
                for n in range(3):
                    await queue.put(n)
                    log.append(("in", n, now()))

            group.create_task(produce())
            for _ in range(3):
                await sleep(2)
                log.append(("out", await queue.get(), now()))

    log = []
    virtual(main())
    assert log == [
        ("in", 0, 0.0),
        ("out", 0, 2.0),
        ("in", 1, 2.0),
        ("out", 1, 4.0),
        ("in", 2, 4.0),
        ("out", 2, 6.0),
    ]
