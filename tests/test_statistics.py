"""stats(): on whose time an object counts, whoever asks and whenever; a loop's; their fields."""

import gc
import math
import random
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest

import sleeploop
from sleeploop import (
    Container,
    LifoQueue,
    LoopClosedError,
    LoopStats,
    PriorityQueue,
    Queue,
    Resource,
    SleepingLoop,
    Store,
    checkpoint,
    create_task,
    current_loop,
    run,
    sleep,
    sleep_forever,
)
from tests.helpers import now, virtual, virtual_loop


class Counted:
    """Something that counts how full it is: made, used for a while, asked for its mean."""

    def __init__(self, **options: Any) -> None:
        self.thing: Any = self.make(stats=True, **options)

    def make(self, **options: Any) -> Any:
        raise NotImplementedError

    async def use(self, seconds: float) -> None:
        """It is at 1 for so long."""
        await self.fill()
        await sleep(seconds)
        await self.empty()

    async def fill(self) -> None:
        await self.thing.put(1)

    async def empty(self) -> None:
        await self.thing.get()

    @property
    def mean(self) -> float:
        mean: float = self.thing.stats()[0].mean
        return mean


class Desk(Counted):
    slot: Any

    def make(self, **options: Any) -> Any:
        return Resource(1, **options)

    async def fill(self) -> None:
        self.slot = await self.thing.request()

    async def empty(self) -> None:
        self.slot.release()


class Tank(Counted):
    def make(self, **options: Any) -> Any:
        return Container(10, **options)

    async def empty(self) -> None:
        await self.thing.get(1)


class Shelf(Counted):
    def make(self, **options: Any) -> Any:
        return Store(**options)


class Line(Counted):
    def make(self, **options: Any) -> Any:
        return Queue(**options)


class Urgent(Counted):
    def make(self, **options: Any) -> Any:
        return PriorityQueue(**options)


class Stack(Counted):
    def make(self, **options: Any) -> Any:
        return LifoQueue(**options)


@pytest.fixture(params=[Desk, Tank, Shelf, Line, Urgent, Stack])
def kind(request: pytest.FixtureRequest) -> type[Counted]:
    cls: type[Counted] = request.param
    return cls


# ---- asked from outside --------------------------------------------------------------------------


def test_between_two_calls_it_means_what_a_task_is_told(kind: type[Counted]) -> None:
    counted = kind()
    inside = []

    async def ask() -> None:
        await sleep(100)
        inside.append(counted.thing.stats())

    loop = virtual_loop(counted.use(10), ask(), sleep(1000))
    loop.run_until(5)
    assert counted.mean == 1
    loop.run_until(100)
    assert counted.mean == 0.1
    assert counted.thing.stats() == inside[0]
    loop.run_until(200)
    assert counted.mean == 0.05
    while loop.next_wake_time() < math.inf:
        loop.step()
    assert counted.mean == 0.01
    loop.close()
    assert counted.mean == 0.01


def test_after_the_run_time_stands_still(kind: type[Counted]) -> None:
    counted = kind()

    async def main() -> Counted:
        made_inside = kind()
        await counted.use(10)
        await made_inside.use(30)
        await sleep(60)
        return made_inside

    assert virtual(main()).mean == 30 / 100
    gc.collect()
    assert counted.mean == 10 / 100


def test_asked_by_a_task_of_another_loop(kind: type[Counted]) -> None:
    counted = kind()
    loop = virtual_loop(counted.use(10), sleep(1000))
    loop.run_until(100)

    async def stranger() -> float:
        await sleep(7000)
        return counted.mean

    assert virtual(stranger()) == 0.1
    loop.run_until(200)
    assert counted.mean == 0.05
    loop.close()


def test_asked_in_another_thread(kind: type[Counted]) -> None:
    counted = kind()
    loop = virtual_loop(counted.use(10), sleep(1000))
    loop.run_until(100)
    told: list[Any] = []

    def ask() -> None:
        try:
            told.append(counted.mean)
        except RuntimeError as error:
            told.append(str(error))

    def thread() -> None:
        asker = threading.Thread(target=ask)
        asker.start()
        asker.join()

    thread()
    loop.call_soon_threadsafe(thread)
    loop.run_until(101)
    assert told[0] == 0.1
    assert "is used by a loop that runs in another thread" in told[1]
    loop.close()


def test_paused(kind: type[Counted]) -> None:
    counted = kind()

    async def main() -> None:
        await counted.use(10)
        await sleep(10)
        loop = current_loop()
        loop.speed = 0
        assert counted.mean == 0.5
        loop.speed = math.inf
        await sleep(20)
        assert counted.mean == 0.25

    virtual(main())


# ---- several runs --------------------------------------------------------------------------------


def test_a_second_run_goes_on_where_the_first_ended(kind: type[Counted]) -> None:
    counted = kind()
    for start, seconds, mean in [(0, 50, 0.5), (50, 10, 0.3), (99, 1, 0.61 / 3)]:

        async def once(start: float, seconds: float, mean: float) -> None:
            await sleep(start)
            await counted.use(seconds)
            await sleep(100 - start - seconds)
            assert counted.mean == pytest.approx(mean)

        virtual(once(start, seconds, mean))
        assert counted.mean == pytest.approx(mean)


def test_a_run_in_which_a_task_waits_in_vain_counts_as_well() -> None:
    tank = Container(10, 4, stats=True)
    shelf = Store[int](stats=True)
    line = Queue[int](stats=True)

    async def main(wait: Any) -> None:
        create_task(wait, daemon=True)
        await sleep(100)

    for _ in range(2):
        virtual(main(tank.get(10)))
        virtual(main(shelf.get()))
        virtual(main(line.get()))
    tank.put_nowait(6)  # when nothing runs
    shelf.put_nowait(1)
    line.put_nowait(1)
    assert tank.stats().level.mean == 4

    async def later() -> None:
        await tank.get(0)
        await shelf.put(2)
        await line.put(2)
        await sleep(200)

    virtual(later())
    assert tank.stats().level == (10, 10, (200 * 4 + 200 * 10) / 400)
    assert shelf.stats().length == (2, 2, (200 * 0 + 200 * 2) / 400)
    assert line.stats().length == (2, 2, (200 * 0 + 200 * 2) / 400)


@pytest.mark.filterwarnings("ignore:.*neither closed nor run:ResourceWarning")
def test_the_loop_is_dropped_in_the_middle(kind: type[Counted]) -> None:
    counted = kind()
    loop = virtual_loop(counted.use(10), sleep(1000))
    loop.run_until(20)
    assert counted.mean == 0.5
    del loop
    gc.collect()
    assert counted.mean == 0.5
    virtual(sleep(50))  # nobody uses it
    assert counted.mean == 0.5
    virtual(counted.use(20))
    assert counted.mean == 30 / 40


def test_the_object_dies_before_its_loop(kind: type[Counted]) -> None:
    async def main() -> None:
        for _ in range(3):
            counted = [kind(), kind(), kind()]
            await counted[0].use(1)
            await counted[2].use(1)
            del counted[1]
            del counted
            gc.collect()
            await sleep(1)

    virtual(main())


def test_two_loops_that_both_live(kind: type[Counted]) -> None:
    """Each counts from its beginning when it comes first, and later from where it then is."""
    counted = kind()

    async def often(*starts: float) -> None:
        for start in starts:
            await sleep(start - now())
            await counted.use(10)
        await sleep_forever()

    first, second = virtual_loop(often(0, 200)), virtual_loop(often(50, 300))
    first.run_until(100)
    assert counted.mean == 10 / 100
    second.run_until(200)  # from its time 0
    assert counted.mean == 20 / 300
    first.run_until(200)  # from now on: it is used again
    second.run_until(250)
    assert counted.mean == 20 / 300
    first.run_until(240)
    assert counted.mean == 30 / 340
    second.run_until(400)  # from 300 on
    assert counted.mean == 40 / 440
    second.close()
    first.run_until(500)
    assert counted.mean == 40 / 440
    first.close()


def test_made_in_a_running_loop_and_used_by_another(kind: type[Counted]) -> None:
    made: list[Counted] = []

    async def make() -> None:
        await sleep(40)
        made.append(kind())
        await sleep(60)

    loop = virtual_loop(make())
    loop.run_until(100)
    (counted,) = made
    assert counted.mean == 0
    virtual(counted.use(40))  # 60 s of the other loop, and then 40 s
    assert counted.mean == 0.4
    loop.close()


def test_what_needs_no_await_counts_where_it_is_done() -> None:
    line = Queue[int](stats=True)

    async def put_and_get() -> None:
        await sleep(10)
        line.put_nowait(1)
        await sleep(10)
        assert line.get_nowait() == 1
        assert line.stats().length.mean == 0.5
        await sleep(20)

    virtual(put_and_get())
    assert line.stats().length == (0, 1, 0.25)
    loop = virtual_loop(put_and_get())
    with pytest.raises(AssertionError):
        loop.run_until_complete()
    assert line.stats().length == (0, 1, 20 / 60)


def test_it_counts_on_its_own_loop_what_a_guest_does() -> None:
    line = Queue[int](stats=True)

    async def mine() -> None:
        await line.put(1)
        await sleep(1000)

    async def guest() -> None:
        await sleep(5000)
        line.put_nowait(2)

    loop = virtual_loop(mine())
    loop.run_until(10)
    virtual(guest())
    loop.run_until(20)
    assert line.stats().length == (2, 2, 1.5)
    loop.close()


def test_an_older_loop_counts_from_then_on(kind: type[Counted]) -> None:
    counted = kind()

    async def older() -> None:
        await sleep(1000)
        thread = threading.Thread(target=lambda: virtual(counted.use(10)))
        thread.start()
        thread.join()
        assert counted.mean == 1
        await counted.use(20)
        assert counted.mean == 1
        await sleep(10)
        assert counted.mean == 30 / 40

    virtual(older())


# ---- loop= ---------------------------------------------------------------------------------------


def test_bound_to_a_loop_it_counts_from_then_on(kind: type[Counted]) -> None:
    loop = virtual_loop(sleep(1000))
    early = kind(loop=loop)
    loop.run_until(60)
    late = kind(loop=loop)
    loop.run_until(100)
    assert early.mean == late.mean == 0
    loop.create_task(early.use(10))
    loop.create_task(late.use(10))
    loop.run_until(110)
    assert early.mean == 10 / 110
    assert late.mean == 10 / 50
    loop.close()


def test_a_bound_object_is_its_loops_business_in_other_threads(kind: type[Counted]) -> None:
    loop = virtual_loop(sleep(1000))
    counted = kind(loop=loop)
    told: list[object] = []

    def ask() -> None:
        for use in counted.thing.stats, lambda: kind(loop=loop):
            try:
                told.append(use())
            except RuntimeError as error:
                told.append(str(error))

    def thread() -> None:
        asker = threading.Thread(target=ask)
        asker.start()
        asker.join()

    loop.call_soon_threadsafe(thread)
    loop.run_until(1)
    assert "is used by a loop that runs in another thread" in str(told[0])
    assert str(told[1]).endswith(
        "(): this loop is running in another thread; have it called there, by "
        "loop.call_soon_threadsafe()"
    )
    loop.close()


def test_another_loop_may_use_a_bound_object(kind: type[Counted]) -> None:
    loop = virtual_loop(sleep(1000))
    loop.run_until(10)
    counted = kind(loop=loop)
    loop.run_until(30)
    virtual(counted.use(20))
    assert counted.mean == 0.5
    loop.close()
    assert counted.mean == 0.5


@pytest.mark.parametrize("make", [Resource, Container, Store, Queue, PriorityQueue, LifoQueue])
def test_wrong_loops(make: Any) -> None:
    name = make.__name__
    for wrong in 5, "loop", SleepingLoop, virtual:
        with pytest.raises(TypeError, match=rf"^{name}\(\): loop must be a SleepingLoop, not "):
            make(loop=wrong)
    closed = virtual_loop()
    closed.close()
    with pytest.raises(LoopClosedError, match=rf"^{name}\(\): this loop has run already"):
        make(loop=closed)
    with pytest.raises(RuntimeError, match=r"SleepingLoop.__init__\(\) was not called"):
        make(loop=SleepingLoop.__new__(SleepingLoop))
    assert make(loop=None).name is None
    assert make(loop=virtual_loop()).name is None


def test_it_does_not_keep_its_loop_alive(kind: type[Counted]) -> None:
    loop = virtual_loop()
    counted = kind(loop=loop)
    ref = weakref.ref(loop)
    del loop
    assert ref() is None
    assert counted.mean == 0


# ---- beside a model ------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(30))
def test_random_runs_beside_their_sums(kind: type[Counted], seed: int) -> None:
    """Several loops, driven by turns, closed, dropped and made; the sums are those of the rule."""
    rng = random.Random(seed)
    counted = kind()
    area = total = 0.0
    full = False
    loops: list[tuple[int, SleepingLoop]] = []
    on: SleepingLoop | None = None
    since = newest = made = 0

    async def change() -> None:
        await (counted.empty() if full else counted.fill())

    def count() -> None:
        nonlocal total, area, since
        if on is not None:
            passed = round(on.time()) - since
            total += passed
            area += passed * full
            since = round(on.time())

    for _ in range(60):
        match rng.randrange(6 if loops else 1):
            case 0:
                made += 1
                loops.append((made, virtual_loop(sleep(10**6))))
            case 1 | 2:
                _, loop = rng.choice(loops)
                loop.run_until(loop.time() + rng.randrange(20))
            case 3 | 4 if not full or kind is not Desk or on is not None:
                # A slot is given back by anybody, and everything else on the loop of its task.
                number, loop = rng.choice(loops)
                if loop is not on and not (kind is Desk and full):
                    count()
                    on, since = loop, 0 if number > newest else round(loop.time())
                    newest = max(newest, number)
                    count()
                count()
                loop.create_task(change())
                loop.run_until(loop.time())
                full = not full
            case 5 if kind is not Desk:
                number, loop = loops.pop(rng.randrange(len(loops)))
                count()
                if loop is on:
                    on = None
                loop.close()
        count()
        assert counted.mean == pytest.approx(area / total if total else float(full))
    for _, loop in loops:
        loop.close()


# ---- a loop's ------------------------------------------------------------------------------------


def test_reset_stats_begins_anew() -> None:
    async def main() -> None:
        loop = current_loop()
        for _ in range(10):
            await sleep(1)
        before = loop.stats()
        assert (before.steps, before.wakeups) == (11, 10)
        assert loop.reset_stats() is None
        after = loop.stats()
        assert after[:6] == (0, 0, 0.0, 0.0, 0.0, 0.0)
        assert 0 <= after.busy_time < 60
        await sleep(1)
        await checkpoint()
        assert loop.stats()[:2] == (2, 1)

    loop = virtual_loop(main())
    loop.run_until_complete()
    assert loop.stats()[:2] == (2, 1)
    loop.reset_stats()
    assert loop.stats() == (0, 0, 0.0, 0.0, 0.0, 0.0, 0.0)


def test_reset_stats_changes_nothing_else() -> None:
    loop = virtual_loop(sleep(5), sleep(10))
    counted = Desk(loop=loop)
    loop.run_until(5)
    assert loop.stats().wakeups == 1
    loop.reset_stats()
    assert (loop.time(), counted.mean, loop.stats().wakeups) == (5, 0, 0)
    assert loop.step() is True
    assert loop.stats().wakeups == 1
    loop.run_until_complete()


@pytest.mark.realtime
def test_a_fast_phase_does_not_hide_a_slow_one() -> None:
    async def main() -> tuple[LoopStats, LoopStats]:
        loop = current_loop()
        slow = create_task(sleep(0.001))
        await checkpoint()
        time.sleep(0.1)
        await slow
        first = loop.stats()
        loop.reset_stats()
        await sleep(0.02)
        return first, loop.stats()

    first, second = run(main(), speed=1)
    assert first.lateness_max >= 0.09
    assert second.lateness_max < first.lateness_max
    assert second.lateness_p99 <= second.lateness_max
    assert second.idle_time > 0.005


def test_reset_stats_is_for_its_own_thread() -> None:
    told = []

    def try_it(loop: SleepingLoop) -> None:
        with pytest.raises(
            RuntimeError, match=r"^reset_stats\(\): this loop is running in another"
        ):
            loop.reset_stats()
        told.append(loop.stats())

    async def main() -> None:
        thread = threading.Thread(target=try_it, args=[current_loop()])
        thread.start()
        thread.join()

    virtual(main())
    assert [stats.steps for stats in told] == [1]


@pytest.mark.realtime
def test_a_wait_that_is_under_way_is_idle_time() -> None:
    loop = SleepingLoop(sleep(0.5), speed=1)
    told: list[LoopStats] = []

    def ask() -> None:
        time.sleep(0.2)
        told.append(loop.stats())

    thread = threading.Thread(target=ask)
    thread.start()
    loop.run_until_complete()
    thread.join()
    assert told[0].idle_time > 0.05
    assert told[0].busy_time < told[0].idle_time


def test_the_time_of_a_later_call_comes_on_top() -> None:
    stats: list[LoopStats] = []

    async def main() -> None:
        for _ in range(2):
            stats.append(current_loop().stats())
            await sleep(1)

    loop = virtual_loop(main(), sleep(5))
    loop.run_until(0)
    between = loop.stats()
    loop.run_until(5)
    assert stats[1].busy_time >= between.busy_time >= stats[0].busy_time >= 0
    loop.close()


# ---- their fields --------------------------------------------------------------------------------

TYPES = [
    value
    for name, value in vars(sleeploop).items()
    if name.endswith("Stats") or name == "Preempted"
]


@pytest.mark.parametrize("cls", TYPES)
def test_fields_are_told_as_by_a_namedtuple(cls: Any) -> None:
    assert cls._fields == cls.__match_args__
    assert len(cls._fields) == cls.n_fields
    value = cls(range(cls.n_fields))
    assert value._asdict() == dict(zip(cls._fields, value, strict=True))
    assert list(value._asdict()) == list(cls._fields)
    assert value._asdict() is not value._asdict()
    with pytest.raises(TypeError):
        cls._asdict(())
    with pytest.raises(TypeError):
        value._asdict(1)


def test_a_dict_of_statistics() -> None:
    stats = Container(5, 2, stats=True).stats()
    assert stats._fields == ("level", "puts", "gets")
    assert stats.level._asdict() == {"now": 2.0, "max": 2.0, "mean": 2.0}
    assert stats._asdict()["puts"] == stats.puts
    assert [cls.__name__ for cls in TYPES] == sorted(cls.__name__ for cls in TYPES)
    assert len(TYPES) == 8


def test_the_fields_of_a_loops() -> None:
    numbers: Callable[[], dict[str, Any]] = virtual_loop().stats()._asdict
    assert numbers() == dict.fromkeys(LoopStats._fields, 0)
