"""Queues: shutdown(), join() and task_done(), `async for`, and stats()."""

import gc
import math

import pytest

from sleeploop import (
    CancelScope,
    DeadlockError,
    LevelStats,
    LifoQueue,
    PriorityQueue,
    Queue,
    QueueFull,
    QueueShutDown,
    QueueStats,
    SleepingLoop,
    TaskGroup,
    WaitStats,
    checkpoint,
    create_task,
    move_on_after,
    run,
    sleep,
)
from tests.helpers import OnDel, ended, now, outcome, virtual
from tests.test_queue import Parked, bring, drain, each_kind, take

# ---- shutdown() ----------------------------------------------------------------------------------


@each_kind
@pytest.mark.parametrize("immediate", [False, True])
def test_a_queue_that_was_shut_down_takes_nothing(kind, immediate):
    async def main():
        queue = kind(name="jobs")
        queue.shutdown(immediate)
        text = rf"^Queue.put(_nowait)?\(\): {kind.__name__} 'jobs' \(empty, shut down\)$"
        with pytest.raises(QueueShutDown, match=text):
            await queue.put(1)
        with pytest.raises(QueueShutDown, match=text):
            queue.put_nowait(1)
        assert queue.empty()

    virtual(main())


@each_kind
def test_what_is_left_can_still_be_got(kind):
    async def main():
        queue = kind(2)
        queue.put_nowait(1)
        queue.put_nowait(2)
        queue.shutdown()
        assert queue.full()
        assert {await queue.get(), queue.get_nowait()} == {1, 2}
        with pytest.raises(QueueShutDown):
            await queue.get()
        with pytest.raises(QueueShutDown):
            queue.get_nowait()

    virtual(main())


@each_kind
def test_immediately_means_that_nothing_is_left(kind):
    async def main():
        queue = kind()
        for _ in range(3):
            queue.put_nowait(1)
        queue.shutdown(immediate=True)
        assert queue.empty()
        with pytest.raises(QueueShutDown):
            await queue.get()
        with pytest.raises(QueueShutDown):
            queue.get_nowait()

    virtual(main())


@pytest.mark.parametrize("immediate", [False, True])
def test_who_waits_for_an_item_is_told(immediate):
    async def main():
        queue = Queue(name="jobs")
        tasks = [create_task(outcome(queue.get())) for _ in range(3)]
        await checkpoint()
        queue.shutdown(immediate)
        errors = [await task for task in tasks]
        assert [type(error) for error in errors] == [QueueShutDown] * 3
        assert str(errors[0]) == "Queue.get(): Queue 'jobs' (empty, shut down)"

    virtual(main())


@each_kind
@pytest.mark.parametrize("immediate", [False, True])
def test_who_waits_for_room_is_told_and_its_item_is_not_in(kind, immediate):
    async def main():
        queue = kind(1)
        queue.put_nowait(0)
        tasks = [create_task(outcome(queue.put(n))) for n in (1, 2)]
        await checkpoint()
        queue.shutdown(immediate)
        errors = [await task for task in tasks]
        assert [type(error) for error in errors] == [QueueShutDown] * 2
        return drain(queue)

    assert virtual(main()) == ([] if immediate else [0])


def test_what_has_been_handed_over_is_not_taken_away():
    async def main():
        queue, log = Queue(1), []
        getting = create_task(take(queue, log, "getter"))
        await checkpoint()
        queue.put_nowait(1)
        queue.put_nowait(2)
        putting = create_task(bring(queue, log, 3))
        getting.cancel()
        await checkpoint()
        queue.get_nowait()
        queue.shutdown(immediate=True)
        await putting
        await getting
        return log

    assert virtual(main()) == [("getter", 1), 3]


def test_who_is_cancelled_after_it_was_told_is_told_all_the_same():
    async def main():
        queue = Queue()
        task = create_task(outcome(queue.get()))
        await checkpoint()
        queue.shutdown()
        task.cancel()
        assert isinstance(await task, QueueShutDown)

    virtual(main())


def test_who_was_cancelled_before_it_could_be_told_is_cancelled():
    async def main():
        queue = Queue()
        task = create_task(outcome(queue.get()))
        await checkpoint()
        task.cancel()
        queue.shutdown()
        await ended(task)

    virtual(main())


def test_the_order_in_which_tasks_are_told():
    async def main():
        queue, log = Queue(1), []

        async def tell(name, wait):
            log.append((name, type(await outcome(wait))))

        queue.put_nowait(0)
        for name in ("put 1", "put 2"):
            create_task(tell(name, queue.put(1)))
        for name in ("join 1", "join 2"):
            create_task(tell(name, queue.join()))
        await checkpoint()
        queue.shutdown(immediate=True)
        await checkpoint()
        return log

    assert virtual(main()) == [
        ("join 1", type(None)),
        ("join 2", type(None)),
        ("put 1", QueueShutDown),
        ("put 2", QueueShutDown),
    ]


def test_shut_down_again_and_again():
    queue = Queue()
    queue.put_nowait(1)
    queue.shutdown()
    queue.shutdown()
    assert queue.qsize() == 1
    queue.shutdown(True)
    assert queue.qsize() == 0
    queue.shutdown(False)
    with pytest.raises(QueueShutDown):
        queue.get_nowait()


class Truth:
    def __init__(self, result):
        self.result = result

    def __bool__(self):
        if isinstance(self.result, Exception):
            raise self.result
        return self.result()


def test_a_truth_that_fails_or_interferes():
    queue = Queue()
    queue.put_nowait(1)
    with pytest.raises(LookupError):
        queue.shutdown(Truth(LookupError()))
    queue.put_nowait(2)
    queue.shutdown(Truth(lambda: bool(queue.get_nowait())))
    assert repr(queue) == "<Queue (empty, shut down)>"


@each_kind
def test_items_that_die_by_it_find_the_queue_shut_down(kind):
    class Item(OnDel):
        def __lt__(self, other):
            return False

    queue, seen = kind(), []
    for _ in range(3):
        queue.put_nowait(Item(lambda: seen.append(repr(queue))))
    queue.shutdown(immediate=True)
    assert seen == [f"<{kind.__name__} (empty, shut down)>"] * 3


# ---- join() and task_done() ----------------------------------------------------------------------


@each_kind
def test_join_waits_until_all_is_done(kind):
    async def work(queue, seconds):
        while True:
            await queue.get()
            await sleep(seconds)
            queue.task_done()

    async def main():
        queue = kind()
        await queue.join()
        for n in range(6):
            queue.put_nowait(n)
        for seconds in (1, 2):
            create_task(work(queue, seconds), daemon=True)
        await queue.join()
        return now()

    assert virtual(main()) == 4.0


def test_join_counts_what_is_handed_over_and_what_is_let_in():
    async def main():
        queue, log = Queue(1), []
        create_task(take(queue, log, "a"))
        await checkpoint()
        queue.put_nowait(1)
        queue.put_nowait(2)
        putting = create_task(queue.put(3))
        joining = create_task(queue.join())
        await checkpoint()
        queue.get_nowait()
        await putting
        for _ in range(3):
            assert not joining.done()
            queue.task_done()
            await checkpoint()
        assert joining.done()
        assert queue.qsize() == 1

    virtual(main())


def test_who_joins_goes_on_even_if_something_new_comes_before_it_runs():
    async def main():
        queue = Queue()
        queue.put_nowait(1)
        tasks = [create_task(queue.join()) for _ in range(3)]
        await checkpoint()
        queue.task_done()
        queue.put_nowait(2)
        with move_on_after(1) as scope:
            await queue.join()
        assert scope.cancelled_caught
        assert [task.done() for task in tasks] == [True] * 3

    virtual(main())


@each_kind
def test_done_too_often(kind):
    queue = kind(name="jobs")
    for _ in range(2):
        with pytest.raises(
            ValueError, match=rf"^Queue.task_done\(\): <{kind.__name__} 'jobs' \(empty\)>: it was"
        ):
            queue.task_done()
        queue.put_nowait(1)
        queue.task_done()
        queue.get_nowait()


def test_the_count_stays_when_a_put_fails_or_is_cancelled():
    async def main():
        queue = Queue(1)
        queue.put_nowait(1)
        with move_on_after(1):
            await queue.put(2)
        with pytest.raises(QueueFull):
            queue.put_nowait(3)
        queue.task_done()
        await queue.join()
        with pytest.raises(ValueError, match="once more"):
            queue.task_done()

    virtual(main())


def test_join_and_an_immediate_shutdown():
    """What is dropped is done; what has been taken has yet to be."""

    async def main():
        queue = Queue()
        for n in range(5):
            queue.put_nowait(n)
        queue.get_nowait()
        queue.get_nowait()
        joining = create_task(queue.join())
        await checkpoint()
        queue.shutdown(immediate=True)
        await sleep(1)
        assert not joining.done()
        queue.task_done()
        await sleep(1)
        assert not joining.done()
        queue.task_done()
        await joining
        with pytest.raises(ValueError, match="once more"):
            queue.task_done()

    virtual(main())


def test_join_is_released_by_an_immediate_shutdown_if_all_was_left():
    async def main():
        queue = Queue()
        queue.put_nowait(1)
        joining = create_task(queue.join())
        await checkpoint()
        queue.shutdown(immediate=True)
        await joining
        await queue.join()

    virtual(main())


def test_more_is_dropped_than_was_unfinished():
    async def main():
        queue = Queue()
        for n in range(3):
            queue.put_nowait(n)
        queue.task_done()
        queue.task_done()
        queue.shutdown(immediate=True)
        await queue.join()

    virtual(main())


def test_join_and_a_gentle_shutdown():
    async def main():
        queue = Queue()
        queue.put_nowait(1)
        queue.shutdown()
        joining = create_task(queue.join())
        await checkpoint()
        assert not joining.done()
        await queue.get()
        queue.task_done()
        await joining

    virtual(main())


def test_a_join_that_nothing_can_end_is_a_deadlock():
    async def main():
        queue = Queue(name="jobs")
        queue.put_nowait(1)
        await queue.join()

    with pytest.raises(DeadlockError, match=r"waiting for Queue 'jobs' \(1 item unfinished\)"):
        virtual(main())


# ---- async for -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "expected"),
    [(Queue, [2, 1, 3]), (PriorityQueue, [1, 2, 3]), (LifoQueue, [3, 1, 2])],
)
def test_iterating_ends_when_the_queue_is_shut_down_and_empty(kind, expected):
    async def main():
        queue = kind()
        for n in (2, 1, 3):
            queue.put_nowait(n)
        queue.shutdown()
        return [item async for item in queue]

    assert virtual(main()) == expected


def test_iterating_ends_for_all_who_wait():
    async def consume(queue, log, name):
        async for item in queue:
            log.append((name, item))
        log.append((name, "end"))

    async def main():
        queue, log = Queue(), []
        async with TaskGroup() as group:
            for name in "ab":
                group.create_task(consume(queue, log, name))
            await checkpoint()
            for n in range(3):
                await queue.put(n)
            await checkpoint()
            queue.shutdown()
        return log

    assert virtual(main()) == [("a", 0), ("a", 2), ("b", 1), ("a", "end"), ("b", "end")]


def test_iterating_is_ended_by_an_immediate_shutdown():
    async def main():
        queue, log = Queue(), []
        for n in range(3):
            queue.put_nowait(n)
        async for item in queue:
            log.append(item)
            queue.shutdown(immediate=True)
        return log

    assert virtual(main()) == [0]


def test_next_items_by_hand():
    async def main():
        queue = Queue()
        queue.put_nowait(1)
        assert aiter(queue) is queue
        assert await anext(queue) == 1
        queue.shutdown()
        with pytest.raises(StopAsyncIteration):
            await anext(queue)
        return await anext(queue, "default")

    assert virtual(main()) == "default"


def test_iterating_is_cancelled_without_losing_an_item():
    async def main():
        queue, log = Queue(), []
        for n in range(3):
            queue.put_nowait(n)
        with CancelScope() as scope:
            async for item in queue:
                log.append(item)
                if item == 1:
                    scope.cancel()
        return log, drain(queue)

    assert virtual(main()) == ([0, 1], [2])


@pytest.mark.usefixtures("forgetful")
def test_what_an_iterator_never_learns_of_goes_back():
    async def main():
        queue = Queue()
        parked = Parked(queue)
        parked.wait = queue.__anext__()
        create_task(parked, daemon=True)
        await checkpoint()
        queue.put_nowait(1)
        parked.wait.close()
        parked.wait = sleep(9).__await__()
        return drain(queue)

    assert virtual(main()) == [1]


# ---- stats() -------------------------------------------------------------------------------------


@each_kind
def test_only_who_asks_gets_statistics(kind):
    queue = kind(name="jobs")
    with pytest.raises(RuntimeError, match=r"<\w+ 'jobs' \(empty\)> keeps no statistics; make it "):
        queue.stats()
    with pytest.raises(LookupError):
        kind(stats=Truth(LookupError()))


def test_statistics_of_a_new_queue():
    queue = Queue(stats=True)
    nothing = WaitStats((0, 0, 0.0, 0.0))
    assert queue.stats() == QueueStats((LevelStats((0.0, 0.0, 0.0)), nothing, nothing))


@each_kind
def test_statistics(kind):
    """Length 1 for 2 s, 2 for 3 s, 1 for 5 s; the second put waits 3 s, and a get waits 4 s."""

    async def main():
        queue = kind(2, stats=True)
        queue.put_nowait(1)
        await sleep(2)
        await queue.put(2)
        create_task(queue.put(3))
        await sleep(3)
        await queue.get()
        await queue.get()
        await sleep(5)
        queue.get_nowait()
        create_task(queue.get())
        await sleep(4)
        await queue.put(4)
        await sleep(6)
        return queue.stats()

    stats = virtual(main())
    assert stats.length == LevelStats((0.0, 2.0, (2 * 1 + 3 * 2 + 5 * 1) / 20))
    assert stats.puts == WaitStats((4, 1, 3 / 4, 3.0))
    assert stats.gets == WaitStats((4, 1, 4 / 4, 4.0))


def test_statistics_begin_when_the_queue_is_made():
    async def main():
        await sleep(10)
        queue = Queue(stats=True)
        queue.put_nowait(1)
        await sleep(2)
        queue.get_nowait()
        await sleep(2)
        return queue.stats()

    early = Queue(stats=True)
    early.put_nowait(1)
    assert virtual(main()).length.mean == 0.5
    assert early.stats().length == LevelStats((1.0, 1.0, 1.0))


def test_statistics_of_what_is_dropped_and_of_what_comes_back():
    async def main():
        queue = Queue(stats=True)
        parked = Parked(queue)
        create_task(parked, daemon=True)
        await checkpoint()
        queue.put_nowait(1)
        queue.put_nowait(2)
        parked.wait.close()
        parked.wait = sleep(9).__await__()
        assert queue.stats().length.now == 2
        queue.shutdown(immediate=True)
        assert queue.stats().length == LevelStats((0.0, 2.0, 0.0))

    virtual(main())


def test_statistics_by_the_clocks_of_two_loops():
    """The second one begins at 0 again: no time passes until it has caught up."""

    async def main(seconds):
        queue.put_nowait(1)
        await sleep(seconds)
        queue.get_nowait()

    queue = Queue(stats=True)
    virtual(main(4))
    virtual(main(6))
    assert queue.stats().length == LevelStats((0.0, 1.0, 1.0))


def test_a_failed_put_is_not_counted():
    async def main():
        queue = PriorityQueue(1, stats=True)
        await queue.put(1)
        task = create_task(outcome(queue.put("text")))
        with move_on_after(1):
            await queue.put(2)
        await queue.get()
        await task
        with pytest.raises(QueueFull):
            queue.put_nowait(3)
        return queue.stats()

    stats = virtual(main())
    assert (stats.puts.count, stats.puts.waited, stats.gets.count) == (2, 1, 1)


# ---- at other speeds -----------------------------------------------------------------------------


def test_in_real_time():
    async def produce(queue):
        for n in range(3):
            await queue.put(n)
            await sleep(1)
        queue.shutdown()

    async def main():
        queue = Queue(1, stats=True)
        create_task(produce(queue))
        got = [item async for item in queue]
        return got, queue.stats().gets

    got, gets = run(main(), speed=1000)
    assert got == [0, 1, 2]
    assert gets.count == 3
    assert 0 < gets.mean <= gets.max


def test_a_suspended_loop_is_given_an_item_from_outside():
    queue, log = Queue(), []
    loop = SleepingLoop(take(queue, log, "a"), speed=math.inf)
    loop.step()
    queue.put_nowait(1)
    loop.run_until_complete()
    assert log == [("a", 1)]
    gc.collect()
    assert repr(queue) == "<Queue (empty)>"
