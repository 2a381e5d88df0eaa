"""find_deadlocks(), and what the DeadlockError that ends a run tells of circles."""

import gc
import itertools
import math
import random
import threading
import types

import pytest

import sleeploop
from sleeploop import (
    CancelScope,
    CapacityLimiter,
    DeadlockError,
    Event,
    Lock,
    Resource,
    SleepingLoop,
    TaskGroup,
    _deadlocks,
    checkpoint,
    create_task,
    current_task,
    find_deadlocks,
    first_of,
    gather,
    move_on_after,
    sleep,
    sleep_forever,
    timeout,
)
from tests.helpers import CROWD, virtual
from tests.twins import come_by, each_seed


async def hold(lock, other, delay=0.0):
    """Has a lock, and wants another one later."""
    async with lock:
        await sleep(delay)
        async with other:
            pass


def texts(deadlocks):
    return [str(deadlock) for deadlock in deadlocks]


def names(deadlocks):
    return [[task.name for task in deadlock.tasks] for deadlock in deadlocks]


async def in_a_group(*coros, at=1.0):
    """Runs a, b, c and so on; what is found at a certain time, when all of them are cancelled."""
    async with TaskGroup() as group:
        for name, coro in zip("abcdefgh", coros, strict=False):
            group.create_task(coro, name=name)
        await sleep(at)
        found = find_deadlocks()
        group.cancel_scope.cancel()
    return texts(found), names(found)


# ---- circles -------------------------------------------------------------------------------------


def test_two_locks():
    x, y = Lock(name="x"), Lock(name="y")

    async def late(lock, other):
        await sleep(0.5)
        await hold(lock, other, 0.5)

    assert virtual(in_a_group(hold(x, y, 1), late(y, x), sleep(9), at=2)) == (
        [
            (
                "task 'a' waits for Lock 'y' held by task 'b' since 0.5 s, "
                "which waits for Lock 'x' held by task 'a' since 0.0 s"
            )
        ],
        [["a", "b"]],
    )


def test_the_errors_are_not_raised_and_tell_their_tasks():
    async def main():
        x, y = Lock(), Lock()
        a, b = create_task(hold(x, y)), create_task(hold(y, x))
        await sleep(1)
        (found,) = find_deadlocks()
        assert type(found) is DeadlockError
        assert found.tasks == (a, b)
        assert found.__traceback__ is None
        a.cancel()
        await b
        assert find_deadlocks() == []

    virtual(main())
    assert DeadlockError.tasks == ()
    assert DeadlockError("mine").tasks == ()


def test_the_lowest_number_comes_first():
    x, y, z = (Lock(name=name) for name in "xyz")
    found, who = virtual(in_a_group(hold(x, y), hold(z, x), hold(y, z)))
    assert who == [["a", "c", "b"]]
    assert found == [
        (
            "task 'a' waits for Lock 'y' held by task 'c' since 0.0 s, "
            "which waits for Lock 'z' held by task 'b' since 0.0 s, "
            "which waits for Lock 'x' held by task 'a' since 0.0 s"
        )
    ]


def test_several_circles_and_who_waits_for_them():
    locks = [Lock(name=str(i)) for i in range(4)]
    pairs = (hold(locks[i], locks[i ^ 1]) for i in (2, 0, 3, 1))

    async def outside():
        async with locks[0]:
            pass

    _, who = virtual(in_a_group(*pairs, outside()))
    assert who == [["a", "c"], ["b", "d"]]


def test_no_circle_no_deadlock():
    lock, event = Lock(), Event()
    assert virtual(
        in_a_group(hold(lock, Lock(), 9), hold(Lock(), lock), event.wait(), sleep_forever())
    ) == ([], [])
    assert virtual(in_a_group()) == ([], [])


def test_tasks_that_await_each_other():
    async def join(name):
        await tasks[name]

    async def main():
        for name, other in ("a", "b"), ("b", "c"), ("c", "b"):
            tasks[name] = create_task(join(other), name=name)
        await sleep(1)
        (found,) = find_deadlocks()
        for task in tasks.values():
            task.cancel()
        return str(found)

    tasks = {}
    assert virtual(main()) == "task 'b' waits for task 'c', which waits for task 'b'"
    tasks.clear()


def test_the_end_of_a_group():
    """It waits for all: one that is stuck is enough."""
    lock = Lock(name="x")

    async def parent():
        async with lock, TaskGroup() as group:
            group.create_task(child(), name="child")
            group.create_task(sleep(100), name="sleeper")

    async def child():
        async with lock:
            pass

    assert virtual(in_a_group(parent())) == (
        [
            (
                "task 'a' waits for task 'child' of its TaskGroup, "
                "which waits for Lock 'x' held by task 'a' since 0.0 s"
            )
        ],
        [["a", "child"]],
    )


def test_a_task_that_is_to_start():
    lock = Lock(name="x")

    async def server(*, started):
        async with lock:
            started()

    async def parent():
        async with lock, TaskGroup() as group:
            await group.start(server)

    (text,), (who,) = virtual(in_a_group(parent()))
    assert text == (
        f"task 'a' waits for task '{who[1]}' to start, "
        "which waits for Lock 'x' held by task 'a' since 0.0 s"
    )


def test_the_end_of_a_group_waits_for_those_that_start_in_it_as_well():
    async def server(host, *, started):
        await host
        started()

    async def helper(group, host):
        await group.start(server, host)

    async def parent():
        async with TaskGroup() as group:
            create_task(helper(group, current_task()), name="helper")
            await sleep(0.5)
        return None

    async def main():
        task = create_task(parent(), name="a")
        await sleep(1)
        (found,) = find_deadlocks()
        task.cancel()
        return str(found)

    text = virtual(main())
    assert "task 'a' waits for task 'Task-" in text
    assert text.endswith("of its TaskGroup, which waits for task 'a'")


def test_gather_is_a_group():
    lock = Lock(name="x")

    async def parent():
        async with lock:
            await gather(lock.acquire(), sleep(100))

    assert len(virtual(in_a_group(parent()))[0]) == 1


def test_the_first_of_several_is_stuck_if_all_are():
    x, y = Lock(name="x"), Lock(name="y")

    async def one(lock, other, *more):
        async with lock:
            await sleep(0)
            await first_of(other.acquire(), *more)

    event = Event()
    assert virtual(in_a_group(one(x, y, event.wait()), one(y, x))) == ([], [])
    assert virtual(in_a_group(one(x, y, sleep(9)), one(y, x))) == ([], [])
    (text,), _ = virtual(in_a_group(one(x, y, y.acquire()), one(y, x)))
    assert "waits for the first of 2 tasks, none of which can end, as task 'Task-" in text


async def twice(resource):
    async with resource.request():
        await sleep(0)
        async with resource.request():
            pass


def test_a_task_that_waits_for_what_it_has_itself():
    async def main(n):
        return await in_a_group(*[twice(resource) for _ in range(n)])

    resource = Resource(1, name="r")
    assert virtual(main(1)) == (
        ["task 'a' waits for Resource 'r' (1 of 1 in use by task 'a')"],
        [["a"]],
    )
    resource = Resource(2, name="r")
    assert virtual(main(2)) == (
        ["task 'a' waits for Resource 'r' (2 of 2 in use by task 'a', task 'b')"],
        [["a"]],
    )


def test_a_token_that_a_task_has_itself():
    async def again():
        async with limiter:
            await limiter.acquire_on_behalf_of(object())

    limiter = CapacityLimiter(1, name="l")
    assert virtual(in_a_group(again())) == (
        ["task 'a' waits for CapacityLimiter 'l' (1 of 1 tokens borrowed by task 'a')"],
        [["a"]],
    )


def test_what_a_task_of_another_loop_has_may_come_back():
    """Its number is that of a task here, and whoever borrowed the token for it may release it."""

    async def makes_tasks():
        return [create_task(checkpoint()) for _ in range(3)]

    async def use():
        async with limiter:
            pass

    async def main():
        await limiter.acquire_on_behalf_of(foreign)
        async with TaskGroup() as group:
            user = group.create_task(use())
            group.create_task(asks(user))  # of the same number
            await checkpoint()
            found = find_deadlocks()
            limiter.release_on_behalf_of(foreign)
        return found

    async def asks(task):
        await task

    foreign = virtual(makes_tasks())[1]
    limiter = CapacityLimiter(1)
    assert virtual(main()) == []


def test_who_has_the_only_token_is_gone():
    limiter = CapacityLimiter(1, name="x")

    async def forget():
        await limiter.acquire()

    async def want(when):
        await sleep(when)
        async with limiter:
            pass

    assert virtual(in_a_group(forget(), want(0.25), want(0.5))) == (
        [
            f"task {i!r} waits for CapacityLimiter 'x' (1 of 1 tokens borrowed by task 'a'), "
            "of which tasks that are gone have all"
            for i in "bc"
        ],
        [["b"], ["c"]],
    )


def test_a_deadline_is_told():
    x, y = Lock(name="x"), Lock(name="y")

    async def limited():
        async with timeout(5):
            await hold(x, y)

    assert virtual(in_a_group(limited(), hold(y, x)))[0] == [
        (
            "task 'a' waits until 5.0 s for Lock 'y' held by task 'b' since 0.0 s, "
            "which waits for Lock 'x' held by task 'a' since 0.0 s"
        )
    ]


def test_a_deadline_behind_a_shield_does_not_count():
    x, y = Lock(name="x"), Lock(name="y")

    async def limited():
        with move_on_after(5), CancelScope(shield=True):
            await hold(x, y)

    async def main():
        a, b = create_task(limited()), create_task(hold(y, x))
        await sleep(1)
        (found,) = find_deadlocks()
        b.cancel()
        await a
        return "until" in str(found)

    assert virtual(main()) is False


def test_a_long_circle_is_told_in_short():
    async def main():
        locks = [Lock(name=str(i)) for i in range(50)]
        tasks = [create_task(hold(locks[i], locks[(i + 1) % 50]), name=f"t{i}") for i in range(50)]
        await sleep(1)
        (found,) = find_deadlocks()
        assert found.tasks == tuple(tasks)
        tasks[0].cancel()
        return str(found)

    text = virtual(main())
    assert "task 't9'" in text
    assert ", which waits for one of 31 more, which waits for Lock '42' " in text
    assert text.endswith("which waits for Lock '0' held by task 't0' since 0.0 s")


# ---- whose loop ----------------------------------------------------------------------------------


def test_of_a_loop_that_does_not_run():
    x, y = Lock(), Lock()
    loop = SleepingLoop(hold(x, y), hold(y, x), sleep(10), speed=math.inf)
    assert find_deadlocks(loop) == []
    loop.run_until(1)
    (found,) = find_deadlocks(loop)
    assert found.tasks == tuple(loop.tasks()[:2])
    found.tasks[0].cancel()
    with pytest.raises(sleeploop.CancelledError):
        loop.run_until_complete()
    assert find_deadlocks(loop) == []


def test_wrong_arguments():
    with pytest.raises(RuntimeError, match="needs a running loop"):
        find_deadlocks()
    with pytest.raises(TypeError, match=r"find_deadlocks\(\).*'a loop'"):
        find_deadlocks("a loop")


def test_from_another_thread():
    found = []

    async def main():
        x, y = Lock(), Lock()
        a = create_task(hold(x, y))
        create_task(hold(y, x))
        await sleep(1)
        thread = threading.Thread(target=lambda: found.append(find_deadlocks(loop)))
        thread.start()
        thread.join()
        a.cancel()

    loop = SleepingLoop(main(), speed=math.inf)
    loop.run_until_complete()
    assert len(found[0]) == 1


def test_what_is_found_keeps_nothing_alive_once_it_is_dropped():
    async def main():
        x, y = Lock(), Lock()
        a = create_task(hold(x, y))
        create_task(hold(y, x))
        await sleep(1)
        find_deadlocks()
        a.cancel()

    virtual(main())
    gc.collect()
    before = len(gc.get_objects())
    for _ in range(5):
        virtual(main())
    gc.collect()
    assert len(gc.get_objects()) - before < 20


# ---- the error that ends a run -------------------------------------------------------------------


def ends(*coros):
    with pytest.raises(DeadlockError) as info:
        SleepingLoop(*coros, speed=math.inf).run_until_complete()
    return info.value


def test_it_tells_circles_first():
    x, y = Lock(name="x"), Lock(name="y")
    error = ends(hold(x, y), hold(y, x), Event().wait())
    lines = str(error).splitlines()
    assert lines[:2] == [
        "every task waits for something that cannot happen any more:",
        (
            "  in a circle: task 'Task-1' waits for Lock 'y' held by task 'Task-2' since 0.0 s, "
            "which waits for Lock 'x' held by task 'Task-1' since 0.0 s"
        ),
    ]
    assert [line.partition(":")[0] for line in lines[2:]] == [
        "  Task 'Task-1' hold",
        "  Task 'Task-2' hold",
        "  Task 'Task-3' Event.wait",
    ]
    assert [task.name for task in error.tasks] == ["Task-1", "Task-2"]


def test_it_tells_of_those_who_are_gone():
    """Not that a task has ended with the lock, but that what it left unfinished hangs."""
    lock = Lock(name="x")

    async def items():
        async with lock:
            try:
                yield 1
            finally:
                await Event().wait()

    async def first():
        async for _ in items():
            return

    async def want():
        async with lock:
            pass

    with pytest.raises(ExceptionGroup) as info:  # in the end, the generator hangs as well
        ends(first(), want())
    error = info.value.exceptions[0]
    assert str(error).splitlines()[1] == (
        "  for ever: task 'Task-2' waits for Lock 'x' held since 0.0 s by a task that is gone"
    )
    assert [task.name for task in error.tasks] == ["Task-2"]


def test_without_a_circle():
    error = ends(sleep_forever())
    assert len(str(error).splitlines()) == 2
    assert error.tasks == ()


def test_many_circles():
    coros = []
    for _ in range(12):
        x, y = Lock(), Lock()
        coros += [hold(x, y), hold(y, x)]
    lines = str(ends(*coros)).splitlines()
    assert sum(line.startswith("  in a circle: ") for line in lines) == 10
    assert lines[11] == "  ... and 2 more such"


def test_run_until_a_task_that_is_stuck():
    x, y = Lock(), Lock()
    loop = SleepingLoop(speed=math.inf)
    a, b = loop.create_task(hold(x, y)), loop.create_task(hold(y, x))
    with pytest.raises(DeadlockError, match="in a circle: ") as info:
        loop.run_until(a)
    assert info.value.tasks == (a, b)
    b.cancel()
    loop.run_until_complete()


# ---- large ones ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_crowd_at_one_lock():
    async def main():
        x, y = Lock(name="x"), Lock(name="y")
        a = create_task(hold(x, y), name="a")
        create_task(hold(y, x), name="b")
        await checkpoint()
        waiting = [create_task(x.acquire()) for _ in range(CROWD)]
        await sleep(1)
        (found,) = find_deadlocks()
        assert [task.name for task in found.tasks] == ["a", "b"]
        a.cancel()
        for task in waiting:
            task.cancel()

    virtual(main())


@pytest.mark.slow
def test_a_crowd_in_one_circle_and_one_that_waits_for_what_is_gone():
    async def main():
        n = CROWD
        locks = [Lock() for _ in range(n)]
        tasks = [create_task(hold(locks[i], locks[(i + 1) % n])) for i in range(n)]
        gone = CapacityLimiter(1)
        create_task(gone.acquire())
        await checkpoint()
        tasks += [create_task(gone.acquire()) for _ in range(n)]
        await sleep(1)
        found = find_deadlocks()
        for task in tasks:
            task.cancel()
        return len(found), len(found[0].tasks), {len(one.tasks) for one in found[1:]}

    assert virtual(main()) == (CROWD + 1, CROWD, {1})


# ---- any graph, beside all there is to try -------------------------------------------------------


class Graph:
    """Tasks 1 to n; some wait for what others do, and some of the shared things are shared."""

    def __init__(self, rng):
        n = rng.randint(1, 7)
        self.numbers = list(range(1, n + 1))
        numbers = [*self.numbers, 99]  # which is gone
        self.shared = [rng.sample(numbers, rng.randint(0, min(3, len(numbers)))) for _ in range(2)]
        self.waits = {}
        for number in self.numbers:
            others = [other for other in self.numbers if other != number]
            some = rng.sample(others, rng.randint(0, len(others)))
            how = rng.choice(["", "one", "one", "one", "join", "group", "race", "shared", "start"])
            if how in ("join", "start") and not others:
                how = ""
            self.waits[number] = (
                how,
                {
                    "": None,
                    "one": rng.choice(numbers),
                    "join": rng.choice(others or [0]),
                    "start": (rng.choice(others or [0]), 0),
                    "group": some,
                    "race": some,
                    "shared": rng.randrange(2),
                }[how],
            )
        self.tasks = {i: types.SimpleNamespace(name=f"t{i}", number=i) for i in self.numbers}

    def rows(self, _):
        return [(self.tasks[n], n, *self.copied(n)) for n in self.numbers]

    def copied(self, number):
        how, what = self.waits[number]
        return how, list(what) if isinstance(what, list) else what

    def blockers(self, task):
        how, what = self.waits[task.number]
        assert how == "shared"
        return list(self.shared[what])

    def whom(self, number):
        how, what = self.waits[number]
        if how == "shared":
            return self.shared[what]
        if how == "start":
            return [what[0]]
        return what if isinstance(what, list) else [what] if how else []

    # From here on as the rules have it.

    def stuck(self):
        """Tries all sets of tasks: the largest in which nobody has a way out."""
        for size in range(len(self.numbers), -1, -1):
            for some in itertools.combinations(self.numbers, size):
                if all(self.has_no_way_out(number, {*some, 99}) for number in some):
                    return set(some)
        raise AssertionError("the empty set is one")

    def has_no_way_out(self, number, stuck):
        whom = self.whom(number)
        if self.waits[number][0] == "group":
            return any(other in stuck for other in whom)
        return bool(whom) and all(other in stuck for other in whom)

    def expected(self):
        """The components, each with the length of its shortest circle; who waits for the gone."""
        stuck = self.stuck()
        circles = {}
        for size in range(1, len(stuck) + 1):
            for circle in itertools.permutations(sorted(stuck), size):
                pairs = zip(circle, circle[1:] + circle[:1], strict=True)
                if all(b in self.whom(a) for a, b in pairs):
                    for number in circle:
                        circles.setdefault(number, []).append(circle)
        components = set()
        for number in circles:
            component = {number}
            while True:
                more = {n for member in component for c in circles[member] for n in c}
                if more <= component:
                    break
                component |= more
            components.add(frozenset(component))
        lengths = {c: min(len(circle) for n in c for circle in circles[n]) for c in components}
        alone = {n for n in stuck if not any(other in stuck for other in self.whom(n))}
        return lengths, alone

    def check(self, found):
        lengths, alone = self.expected()
        left = dict(lengths)
        for error in found:
            circle = [task.number for task in error.tasks]
            assert circle[0] == min(circle)
            if len(circle) == 1 and circle[0] in alone:
                alone.remove(circle[0])
                continue
            for number, following in zip(circle, circle[1:] + circle[:1], strict=True):
                assert following in self.whom(number)
            (component,) = [c for c in left if set(circle) <= c]
            assert len(circle) == left.pop(component)
        assert not left
        assert not alone
        assert [e.tasks[0].number for e in found] == sorted(e.tasks[0].number for e in found)


@pytest.fixture
def as_told(monkeypatch):
    """Finds the deadlocks of a Graph."""

    def find(graph):
        monkeypatch.setattr(_deadlocks, "_wait_graph", graph.rows)
        monkeypatch.setattr(_deadlocks, "_blockers", graph.blockers)
        monkeypatch.setattr(_deadlocks, "_effective_deadline", lambda task: math.inf)
        monkeypatch.setattr(_deadlocks, "_describe_wait", lambda task: ("thing", 0.0))
        return _deadlocks._find(None)

    return find


def test_random_graphs(as_told):
    def check(seed):
        graph = Graph(random.Random(seed))
        found = as_told(graph)
        try:
            graph.check(found)
        except AssertionError:
            raise AssertionError((graph.waits, graph.shared, texts(found))) from None
        return [len(error.tasks) for error in found]

    each_seed(check, times=6)
    come_by(check, [1, 2, 3])


def test_what_several_have_together_is_told(as_told):
    graph = Graph(random.Random(0))
    graph.numbers = [1, 2, 3]
    graph.shared = [[2, 3], []]
    graph.tasks = {i: types.SimpleNamespace(name=f"t{i}", number=i) for i in graph.numbers}
    graph.waits = {1: ("shared", 0), 2: ("one", 1), 3: ("", None)}
    assert as_told(graph) == []
    graph.waits[3] = "one", 1
    assert texts(as_told(graph)) == [
        (
            "task 't1' waits for thing, of which task 't2' has some, "
            "which waits for thing held by task 't1' since 0.0 s"
        )
    ]


def test_a_large_tangle_takes_no_time_to_speak_of(as_told):
    """Each of 3,000 waits for all of 20 others: an exhaustive search would take an hour."""
    rng = random.Random(1)
    graph = Graph(rng)
    graph.numbers = list(range(1, 3001))
    graph.tasks = {i: types.SimpleNamespace(name=f"t{i}", number=i) for i in graph.numbers}
    graph.waits = {i: ("group", rng.sample(graph.numbers, 20)) for i in graph.numbers}
    (found,) = as_told(graph)
    assert len(found.tasks) <= 4


def test_tasks_that_come_and_go():
    """Real tasks with a lock each that want others': as the graph that they make."""
    circles = 0
    for seed in range(100):
        rng = random.Random(seed)
        n = rng.randint(2, 6)
        wants = {i: rng.choice([None, *(j for j in range(n) if j != i)]) for i in range(n)}

        async def main(n=n, wants=wants):
            locks = [Lock(name=str(i)) for i in range(n)]
            event = Event()

            async def one(i):
                async with locks[i]:
                    await sleep(1)
                    await (event.wait() if wants[i] is None else locks[wants[i]].acquire())

            async with TaskGroup() as group:
                for i in range(n):
                    group.create_task(one(i), name=str(i))
                await sleep(2)
                found = find_deadlocks()
                group.cancel_scope.cancel()
            return {tuple(int(task.name) for task in error.tasks) for error in found}

        expected = set()
        for i in range(n):
            path = [i]
            while (following := wants[path[-1]]) is not None and following not in path:
                path.append(following)
            if following == i and min(path) == i:
                expected.add(tuple(path))
        assert virtual(main()) == expected, (seed, wants)
        circles += len(expected)
    assert circles > 50
