"""PriorityQueue and LifoQueue: what comes first, and comparisons of every kind."""

import contextlib
import functools
import gc
import itertools
import random
import sys
import warnings

import pytest

from sleeploop import (
    Event,
    LifoQueue,
    PriorityQueue,
    Queue,
    TaskGroup,
    all_of,
    checkpoint,
    create_task,
    sleep,
    sleep_forever,
)
from tests.helpers import ended, outcome, virtual
from tests.test_queue import Parked, bring, drain, take


@functools.total_ordering
class Job:
    """Compared by priority alone; counts the comparisons, and lets a test take part in them."""

    compared = 0

    def __init__(self, priority, name=None, meanwhile=None):
        self.priority, self.name, self.meanwhile = priority, name, meanwhile

    def __lt__(self, other):
        Job.compared += 1
        for job in (self, other):
            if job.meanwhile is not None:
                job.meanwhile()
        return self.priority < other.priority

    def __eq__(self, other):
        raise AssertionError("only `<` is to be used")

    __hash__ = None

    def __repr__(self):
        return f"{self.priority}{self.name or ''}"


def test_the_lowest_comes_first():
    numbers = random.Random(1)
    for size in [*range(12), 100, 1000]:
        items = [numbers.randrange(size + 1) for _ in range(size)]
        queue = PriorityQueue()
        for item in items:
            queue.put_nowait(item)
        assert drain(queue) == sorted(items)


def test_first_come_first_served_among_equals():
    """By `<` alone: equal priorities are never asked whether they are equal."""
    numbers = random.Random(2)
    queue = PriorityQueue()
    arrivals = itertools.count()
    expected, got = [], []
    for _ in range(2000):
        if numbers.random() < 0.6:
            job = Job(numbers.randrange(4), next(arrivals))
            queue.put_nowait(job)
            expected.append(job)
        elif expected:
            best = min(expected, key=lambda job: (job.priority, job.name))
            expected = [job for job in expected if job is not best]
            got.append(queue.get_nowait() is best)
    assert len(got) > 500
    assert all(got)


def test_tuples():
    queue = PriorityQueue()
    for entry in [(2, "code"), (1, "eat"), (3, "sleep"), (1, "drink")]:
        queue.put_nowait(entry)
    assert drain(queue) == [(1, "drink"), (1, "eat"), (2, "code"), (3, "sleep")]


def test_the_same_object_several_times():
    queue, job = PriorityQueue(), Job(1)
    for _ in range(5):
        queue.put_nowait(job)
    assert [id(got) for got in drain(queue)] == [id(job)] * 5


def test_few_comparisons():
    Job.compared = 0
    queue = PriorityQueue()
    numbers = random.Random(3)
    for _ in range(1024):
        queue.put_nowait(Job(numbers.random()))
    assert Job.compared < 3 * 1024
    Job.compared = 0
    drain(queue)
    assert Job.compared < 12 * 1024


def test_a_single_item_is_not_compared():
    queue = PriorityQueue()
    for thing in (object(), 1j, None):
        queue.put_nowait(thing)
        assert queue.get_nowait() is thing


def test_an_item_that_is_handed_over_is_not_compared():
    async def main():
        queue, log = PriorityQueue(), []
        for name in "ab":
            create_task(take(queue, log, name))
        await checkpoint()
        queue.put_nowait(1j)
        queue.put_nowait(2j)
        await checkpoint()
        return log

    assert virtual(main()) == [("a", 1j), ("b", 2j)]


def test_who_waits_for_room_comes_in_first_come_first_served():
    """The most urgent of those who wait is not let in before the others."""

    async def main():
        queue, log = PriorityQueue(2), []
        queue.put_nowait(5)
        queue.put_nowait(6)
        async with TaskGroup() as group:
            for n in (9, 1, 7):
                group.create_task(bring(queue, log, n))
            await checkpoint()
            got = []
            for _ in range(5):
                got.append(await queue.get())
                await checkpoint()
        return got, log

    assert virtual(main()) == ([5, 6, 1, 7, 9], [9, 1, 7])


def test_the_latest_comes_first():
    async def main():
        queue, log = LifoQueue(2), []
        async with TaskGroup() as group:
            for n in range(5):
                group.create_task(bring(queue, log, n))
            await checkpoint()
            got = []
            for _ in range(5):
                got.append(await queue.get())
                await checkpoint()
        return got, log

    assert virtual(main()) == ([1, 2, 3, 4, 0], [0, 1, 2, 3, 4])


# ---- comparisons that fail -----------------------------------------------------------------------


def test_what_cannot_be_compared_is_refused_and_nothing_is_lost():
    async def main():
        queue = PriorityQueue()
        for n in (3, 1, 2):
            await queue.put(n)
        with pytest.raises(TypeError, match="not supported"):
            queue.put_nowait("text")
        with pytest.raises(TypeError, match="not supported"):
            await queue.put("text")
        assert queue.qsize() == 3
        assert drain(queue) == [1, 2, 3]
        for _ in range(3):
            queue.task_done()
        with pytest.raises(ValueError, match="once more"):
            queue.task_done()

    virtual(main())


def test_every_comparison_fails_once():
    """Whichever one fails, of put or of get, no item is lost, doubled or out of order."""

    class Fails(Exception):
        pass

    def fail():
        nonlocal countdown
        countdown -= 1
        if countdown == 0:
            raise Fails

    failed = 0
    for at in range(1, 60):
        countdown = at
        queue, inside, numbers = PriorityQueue(), [], random.Random(4)
        while len(inside) < 12:
            job = Job(numbers.randrange(5), len(inside), fail)
            try:
                queue.put_nowait(job)
            except Fails:
                failed += 1
                continue
            inside.append(job)
        got = []
        while not queue.empty():
            try:
                got.append(queue.get_nowait())
            except Fails:
                failed += 1
                assert queue.qsize() == len(inside) - len(got)
        assert [id(job) for job in got] == [
            id(job) for job in sorted(inside, key=lambda job: (job.priority, job.name))
        ]
    assert failed == 59


def test_the_error_of_an_item_that_waits_for_room_goes_to_who_brought_it():
    async def main():
        queue, log = PriorityQueue(2), []
        queue.put_nowait(1)
        queue.put_nowait(2)
        tasks = [create_task(outcome(queue.put(item))) for item in (3, "text", b"", 4)]
        await checkpoint()
        log.append(await queue.get())
        log.append(await queue.get())
        for task in tasks:
            error = await task
            log.append(error if error is None else type(error))
        return log, drain(queue)

    assert virtual(main()) == ([1, 2, None, TypeError, TypeError, None], [3, 4])


def test_the_error_of_a_get_goes_to_who_called_it():
    async def main():
        def fail():
            raise LookupError

        queue = PriorityQueue()
        jobs = [Job(n) for n in range(4)]
        for job in jobs:
            queue.put_nowait(job)
        jobs[2].meanwhile = fail
        error = await outcome(queue.get())
        assert isinstance(error, LookupError)
        assert queue.qsize() == 4
        jobs[2].meanwhile = None
        return [job.priority for job in drain(queue)]

    assert virtual(main()) == [0, 1, 2, 3]


@pytest.mark.parametrize("answer", [NotImplemented, None, "", [], 0, 1, "yes"])
def test_odd_answers(answer):
    class Odd:
        def __lt__(self, other):
            return answer

    queue = PriorityQueue()
    items = [Odd() for _ in range(5)]
    queue.put_nowait(items[0])
    if answer is NotImplemented:
        with pytest.raises(TypeError):
            queue.put_nowait(items[1])
        assert drain(queue) == items[:1]
        return
    for item in items[1:]:
        queue.put_nowait(item)
    got = drain(queue)
    assert set(got) == set(items)
    if not answer:
        assert got == items


# ---- comparisons that interfere ------------------------------------------------------------------


@pytest.mark.parametrize("when", ["put", "get"])
@pytest.mark.parametrize(
    "what",
    ["put_nowait", "get_nowait", "shutdown", "put", "get"],
)
def test_a_comparison_that_uses_the_queue(what, when):
    calls = {
        "put_nowait": lambda: queue.put_nowait(Job(0)),
        "get_nowait": lambda: queue.get_nowait(),
        "shutdown": lambda: queue.shutdown(immediate=True),
        "put": lambda: queue.put(Job(0)).send(None),
        "get": lambda: queue.get().send(None),
    }

    async def main():
        for n in range(3):
            queue.put_nowait(Job(n))
        intruder = Job(1, "!", calls[what])
        if when == "get":
            intruder.meanwhile = None
        error = None
        try:
            queue.put_nowait(intruder)
            intruder.meanwhile = calls[what]
            queue.get_nowait()
        except RuntimeError as caught:
            error = caught
        intruder.meanwhile = None
        assert str(error).startswith(f"Queue.{what}(): <PriorityQueue 'jobs' (")
        assert "is comparing its items right now" in str(error)
        return [repr(job) for job in drain(queue)]

    queue = PriorityQueue(name="jobs")
    assert virtual(main()) == (["0", "1", "2"] if when == "put" else ["0", "1", "1!", "2"])


def test_a_comparison_may_look():
    def look():
        seen.append((queue.qsize(), queue.empty(), queue.full(), queue.maxsize, repr(queue)))
        assert len(gc.get_referents(queue)) == 2  # its type and its item

    queue, seen = PriorityQueue(3), []
    queue.put_nowait(Job(1))
    queue.put_nowait(Job(2, None, look))
    assert seen == [(1, False, False, 3, "<PriorityQueue (1 of 3 items)>")]


def test_a_comparison_may_use_another_queue_or_be_done():
    def use():
        other.put_nowait(1)
        queue.task_done()

    queue, other = PriorityQueue(), Queue()
    queue.put_nowait(Job(1))
    queue.put_nowait(Job(2, None, use))
    assert other.qsize() == 1
    queue.task_done()
    with pytest.raises(ValueError, match="once more"):
        queue.task_done()


def test_a_comparison_that_drops_all_references():
    class Careless:
        def __init__(self, number):
            self.number = number

        def __lt__(self, other):
            kept.clear()
            gc.collect()
            return self.number < other.number

    kept = []
    queue = PriorityQueue()
    for n in (3, 1, 4, 1, 5):
        kept.append(Careless(n))
        queue.put_nowait(kept[-1])
    assert [item.number for item in drain(queue)] == [1, 1, 3, 4, 5]


def test_a_comparison_that_drops_the_queue():
    def drop():
        box.clear()
        gc.collect()

    box = [PriorityQueue()]
    box[0].put_nowait(Job(1))
    box[0].put_nowait(Job(2, None, drop))
    assert box == []
    box.append(PriorityQueue())
    job = Job(1)
    box[0].put_nowait(job)
    box[0].put_nowait(Job(2))
    box[0].put_nowait(Job(3))
    job.meanwhile = drop
    last = Job(0.5)
    box[0].put_nowait(last)
    assert box == []


def test_a_comparison_that_cancels_who_is_being_let_in():
    async def main():
        queue, log = PriorityQueue(2), []
        queue.put_nowait(Job(1))
        queue.put_nowait(Job(2))
        tasks = [
            create_task(bring(queue, log, Job(3, "a", lambda: tasks[0].cancel()))),
            create_task(bring(queue, log, Job(3, "b", lambda: tasks[2].cancel()))),
            create_task(bring(queue, log, Job(3, "c"))),
            create_task(bring(queue, log, Job(3, "d"))),
        ]
        await checkpoint()
        assert queue.get_nowait().priority == 1
        await ended(tasks[0])
        left = [repr(await queue.get()) for _ in range(3)]
        await ended(tasks[2])
        await tasks[3]
        return left, [repr(job) for job in log], queue.qsize()

    assert virtual(main()) == (["2", "3b", "3d"], ["3b", "3d"], 0)


def test_a_comparison_that_gives_an_item_back():
    """It comes back while the heap is being looked through, and is the next, or soon is."""

    async def main(priority):
        queue = PriorityQueue()
        parked = Parked(queue)
        create_task(parked, daemon=True)
        await checkpoint()
        queue.put_nowait(Job(priority, "back"))
        for n in range(1, 6):
            queue.put_nowait(Job(n))

        def give_back():
            if parked.wait is not None:
                parked.wait.close()
                parked.wait = None

        queue.put_nowait(Job(3, "new", give_back))
        assert queue.qsize() == 7
        parked.wait = sleep_forever().__await__()
        return [repr(job) for job in drain(queue)]

    assert virtual(main(0)) == ["0back", "1", "2", "3", "3new", "4", "5"]
    assert virtual(main(3)) == ["1", "2", "3back", "3", "3new", "4", "5"]
    assert virtual(main(9)) == ["1", "2", "3", "3new", "4", "5", "9back"]


def test_a_get_during_which_something_lower_comes_back():
    async def main():
        queue = PriorityQueue()
        parked = Parked(queue)
        create_task(parked, daemon=True)
        await checkpoint()
        queue.put_nowait(Job(0, "back"))
        jobs = [Job(n) for n in range(1, 6)]
        for job in jobs:
            queue.put_nowait(job)

        def give_back():
            jobs[4].meanwhile = None
            parked.wait.close()

        jobs[4].meanwhile = give_back
        got = [repr(queue.get_nowait())]
        parked.wait = sleep_forever().__await__()
        return got + [repr(job) for job in drain(queue)]

    assert virtual(main()) == ["0back", "1", "2", "3", "4", "5"]


def test_what_comes_back_and_cannot_be_compared_is_not_lost():
    async def main():
        queue = PriorityQueue()
        parked = Parked(queue)
        create_task(parked, daemon=True)
        await checkpoint()
        queue.put_nowait("text")
        queue.put_nowait(1)
        queue.put_nowait(2)
        parked.wait.close()
        parked.wait = sleep_forever().__await__()
        assert queue.qsize() == 3
        for _ in range(2):
            with pytest.raises(TypeError, match="not supported"):
                queue.get_nowait()
        queue.put_nowait(0)  # is compared with those in order only
        assert queue.qsize() == 4
        assert set(gc.get_referents(queue)) >= {"text", 0, 1, 2}
        queue.shutdown(immediate=True)
        return gc.get_referents(queue)

    assert virtual(main()) == [PriorityQueue]


def test_an_error_of_a_comparison_that_cancels_whose_item_it_is_is_told(monkeypatch):
    class Item:
        act = None

        def __lt__(self, other):
            if Item.act is not None:
                act, Item.act = Item.act, None
                act()
                raise ArithmeticError
            return False

    async def main():
        queue = PriorityQueue(2)
        queue.put_nowait(Item())
        queue.put_nowait(Item())
        task = create_task(queue.put(Item()))
        await checkpoint()
        Item.act = task.cancel
        queue.get_nowait()
        await ended(task)
        assert task.cancelled()
        assert queue.qsize() == 1

    told = []
    monkeypatch.setattr(sys, "unraisablehook", lambda info: told.append(info.exc_type))
    virtual(main())
    assert told == [ArithmeticError]


def test_what_is_given_back_in_a_comparison_finds_room():
    """However full the queue is by then, and without a comparison of its own."""

    class Item:
        act = None

        def __init__(self, n):
            self.n = n

        def __lt__(self, other):
            if Item.act is not None:
                act, Item.act = Item.act, None
                act()
            return self.n < other.n

    async def main():
        queue = PriorityQueue()
        for n in range(6):
            queue.put_nowait(Item(n))
        coro = all_of(*[queue.get() for _ in range(6)], Event().wait())
        coro.send(None)  # driven by hand
        await sleep(1)
        assert queue.qsize() == 0
        for n in range(14):
            queue.put_nowait(Item(100 + n))

        def close():
            with contextlib.suppress(RuntimeError):
                coro.close()

        Item.act = close
        got = [queue.get_nowait().n for _ in range(queue.qsize())]
        return got + [queue.get_nowait().n for _ in range(queue.qsize())]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        got = virtual(main())
    assert sorted(got) == [*range(6), *range(100, 114)]
