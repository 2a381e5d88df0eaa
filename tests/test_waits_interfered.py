"""Python code that runs while a wait begins or is being placed, and that cancels, interrupts or
closes just that.
"""

import contextlib
import datetime
import math
import sys
import weakref

import pytest

from sleeploop import (
    CancelledError,
    CapacityLimiter,
    Condition,
    Event,
    Interrupt,
    PriorityQueue,
    Resource,
    SleepingLoop,
    Store,
    TaskGroup,
    all_of,
    as_completed,
    checkpoint,
    create_task,
    current_loop,
    current_task,
    first_of,
    gather,
    sleep,
    wait_for,
)
from tests.helpers import OnDel, now, outcome, virtual, yielding


class Case:
    """One kind of wait. act: what the Python code in it does, the first time."""

    waits = True  # if nobody does anything about it
    in_first_of = True  # it is a wait of ours, which first_of() places

    def __init__(self):
        self.act = lambda: None
        self.acted = self.has_raised = self.explodes = False

    def code(self):
        if not self.acted:
            self.acted = True
            self.act()

    def prepare(self):
        """Before it is awaited, in a task of its own."""

    def satisfy(self):
        """It can be had from now on."""

    def clean(self):
        """Whether nobody waits, and nothing is missing."""
        return True


class StoreGet(Case):
    def prepare(self):
        self.store = Store()
        self.store.put_nowait(1)
        self.is_wanted = False

    def wait(self):
        return self.store.get(self.wanted)

    def wanted(self, item):
        self.code()
        return self.is_wanted

    def satisfy(self):
        self.is_wanted = True

    def clean(self):
        return "waiting" not in repr(self.store)


class Delayed:
    """Awaits something, and does something more before the loop gets what that yields."""

    def __init__(self, aw, call):
        self.aw, self.call = aw, call

    def __await__(self):
        inner = self.aw.__await__()
        trap = next(inner)
        self.call()
        try:
            while True:
                try:
                    sent = yield trap
                except BaseException as error:
                    trap = inner.throw(error)
                else:
                    trap = inner.send(sent)
        except StopIteration as stop:
            return stop.value


class StoreGetAgain(StoreGet):
    """When it is about to be parked, something has come."""

    in_first_of = False

    def prepare(self):
        super().prepare()
        self.store.get_nowait()

    def wait(self):
        return Delayed(super().wait(), lambda: self.store.put_nowait(1))


class StorePut(Case):
    """Asks the filter of another one, who waits already."""

    waits = False

    def prepare(self):
        self.store = Store()
        self.getter = create_task(outcome(self.store.get(self.wanted)))

    def wanted(self, item):
        self.code()
        return True

    def wait(self):
        return self.store.put(1)

    def clean(self):
        return self.getter.result() == 1


class Item:
    def __init__(self, case, number):
        self.case, self.number = case, number

    def __lt__(self, other):
        self.case.code()
        return self.number < other.number


class PriorityPut(Case):
    waits = False

    def prepare(self):
        self.queue = PriorityQueue()
        self.acted = True
        for number in (3, 2):
            self.queue.put_nowait(Item(self, number))
        self.acted = False

    def wait(self):
        return self.queue.put(Item(self, 1))

    def clean(self):
        return [self.queue.get_nowait().number for _ in range(3)] == [1, 2, 3]


class PriorityGet(PriorityPut):
    def prepare(self):
        super().prepare()
        self.acted = True
        self.queue.put_nowait(Item(self, 1))
        self.queue.put_nowait(Item(self, 0))
        self.acted = False

    def wait(self):
        return self.queue.get()

    def clean(self):
        return [self.queue.get_nowait().number for _ in range(3)] == [1, 2, 3]


class ConditionWaitFor(Case):
    in_first_of = False

    def prepare(self):
        self.condition = Condition()
        self.holds = False

    async def wait_inside(self):
        async with self.condition:
            return await self.condition.wait_for(self.predicate)

    def wait(self):
        return self.wait_inside()

    def predicate(self):
        self.code()
        return self.holds

    def satisfy(self):
        self.holds = True

    def clean(self):
        return "waiting" not in repr(self.condition) and not self.condition.locked()


class Borrower:
    def __init__(self, case):
        self.case = case

    def __hash__(self):
        return 1

    def __eq__(self, other):
        self.case.code()
        return self is other


class Limiter(Case):
    def prepare(self):
        self.limiter = CapacityLimiter(1)
        self.holder, self.borrower = Borrower(self), Borrower(self)
        self.limiter.acquire_on_behalf_of_nowait(self.holder)

    def wait(self):
        return self.limiter.acquire_on_behalf_of(self.borrower)

    def satisfy(self):
        self.limiter.release_on_behalf_of(self.holder)

    def clean(self):
        return "waiting" not in repr(self.limiter)


class Victim:
    """A coroutine that has a slot, and keeps nothing of what it waits with then."""

    def __init__(self, case):
        self.case = case

    def send(self, _):
        with pytest.raises(StopIteration):
            self.case.victims.__await__().send(None)
        dies = OnDel(self.case.code)
        return Store().get(lambda item, dies=dies: False).__await__().send(None)

    def throw(self, error):
        self.case.interrupt = error
        raise StopIteration

    def close(self):
        pass


class Preemption(Case):
    """What the victim waits with dies."""

    waits = False

    def prepare(self):
        self.resource = Resource()
        self.victims = self.resource.request(priority=1)
        create_task(Victim(self))

    def wait(self):
        return self.resource.request(priority=0, preempt=True)

    def clean(self):
        return self.victims.preempted and self.interrupt.cause.resource is self.resource


class Zone(datetime.tzinfo):
    def __init__(self, case):
        # A datetime is not collected: one that led back to whoever has it would be a leak.
        self.case = weakref.ref(case)

    def utcoffset(self, moment):
        self.case().code()
        return datetime.timedelta(0)

    def dst(self, moment):
        return datetime.timedelta(0)


class YieldedDatetime(Case):
    in_first_of = False

    def wait(self):
        moment = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
        return yielding(moment.replace(tzinfo=Zone(self)))


class Start(Case):
    in_first_of = False
    waits = False

    def wait(self):
        return self.start()

    async def start(self):
        async with TaskGroup() as group:
            return await group.start(self.function)

    def function(self, *, started):
        started(5)
        self.code()
        return checkpoint_in_a_coroutine()


async def checkpoint_in_a_coroutine():
    await checkpoint()


class Awaitable(Case):
    in_first_of = False

    def prepare(self):
        self.event = Event()

    def wait(self):
        return self

    def __await__(self):
        self.code()
        return (yield from self.event.wait().__await__())

    def satisfy(self):
        self.event.set()

    def clean(self):
        return "waiting" not in repr(self.event)


async def waiting(aw):
    return await aw


CASES = [
    StoreGet, StoreGetAgain, StorePut, PriorityPut, PriorityGet, ConditionWaitFor, Limiter,
    Preemption, YieldedDatetime, Start, Awaitable,
]  # fmt: skip


# ---- how it is awaited -------------------------------------------------------------------------


async def plainly(aw):
    return await aw


async def by_first_of(aw):
    return (await first_of(aw, sleep(10)))[aw]


async def by_all_of(aw):
    return (await all_of(sleep(10), aw))[aw]


async def by_gather(aw):
    return (await gather(sleep(10), aw))[1]


async def by_wait_for(aw):
    return await wait_for(aw, 20)


async def by_as_completed(aw):
    (result,) = [await task async for task in as_completed([aw])]
    return result


async def by_both(aw):
    outer = all_of(aw)
    return (await first_of(outer, sleep(10)))[outer][aw]


WAYS = [plainly, by_first_of, by_all_of, by_gather, by_wait_for, by_as_completed, by_both]

every_case = pytest.mark.parametrize("kind", CASES)
every_way = pytest.mark.parametrize("way", WAYS)


def target():
    """The task whose wait it is: the one that runs, or that for which it is being placed."""
    me = current_task()
    return current_loop().tasks()[-1] if me.name == "tested" else me


def drive(kind, way, act):
    """What comes of it: (result or exception, time, the target task, the case)."""
    case = kind()
    targets = []

    def acts():
        targets.append(target())
        act(case, targets[0])

    async def tested():
        case.act = acts
        try:
            got.append(await way(case.wait()))
        except (Exception, CancelledError) as error:
            got.append(error)
            raise
        finally:
            got.append(now())
            await checkpoint()

    async def main():
        case.prepare()
        await sleep(1)
        task = create_task(tested(), name="tested")
        with contextlib.suppress(Exception, CancelledError):
            await task
        await sleep(30)
        assert case.has_raised or case.clean()
        bomb.set()

    async def fails():
        await bomb.wait()
        if case.explodes:
            raise ArithmeticError

    got = []
    bomb = case.bomb = Event()
    start = datetime.datetime(2029, 12, 31, 23, 59, 55, tzinfo=datetime.UTC)
    SleepingLoop(main(), fails(), speed=math.inf, start=start).run_until_complete()
    return *got, targets[0], case


# ---- what it does ------------------------------------------------------------------------------


@every_case
@every_way
def test_it_cancels_the_task(kind, way):
    result, when, task, case = drive(kind, way, lambda _, task: task.cancel("why"))
    if case.waits and task.name == "tested":
        assert isinstance(result, CancelledError)
        assert result.reason == "why"
        assert when == 1
    elif case.waits:
        assert task.cancelled()
        # As of any task of theirs that somebody cancels: the others go on.
        assert isinstance(result, CancelledError | KeyError)
        assert when <= 11
    else:  # what has been got comes first
        assert not isinstance(result, BaseException) or kind is Start  # whose group is cancelled


@every_case
@every_way
def test_it_interrupts_the_task(kind, way):
    refused = []

    def act(case, task):
        if task is current_task():
            with pytest.raises(RuntimeError, match="cannot interrupt itself"):
                task.interrupt("why")
            refused.append(task)
            case.satisfy()
        else:
            assert task.interrupt("why")

    result, when, _, case = drive(kind, way, act)
    if not refused and case.waits:
        assert isinstance(result, Interrupt)
        assert result.cause == "why"
        assert when == 1
    else:  # a task that has what it waited for ends, and awaits nothing more
        assert not isinstance(result, BaseException)


@every_case
@every_way
def test_it_makes_the_wait_succeed(kind, way):
    result, when, *_ = drive(kind, way, lambda case, _: case.satisfy())
    assert not isinstance(result, BaseException)
    assert when <= 11


@every_case
@every_way
def test_it_raises(kind, way):
    def act(case, task):
        case.has_raised = True
        raise LookupError("why")

    if kind is Preemption:
        pytest.skip("a finalizer cannot raise")
    result, when, *_ = drive(kind, way, act)
    if kind is StorePut:  # whose filter it is, gets it
        assert not isinstance(result, BaseException)
    else:
        assert isinstance(result, LookupError | ExceptionGroup)
    assert when == (11 if kind is StorePut and way in (by_all_of, by_gather) else 1)


@every_case
@every_way
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_it_ends_the_run(kind, way, error):
    def act(case, task):
        raise error("why")

    if kind is Preemption:
        pytest.skip("a finalizer cannot raise")
    with pytest.raises(error):
        drive(kind, way, act)


@every_case
@every_way
def test_it_has_another_task_fail_which_ends_the_run(kind, way):
    def act(case, task):
        case.explodes = True
        case.bomb.set()

    with pytest.raises(ArithmeticError):
        drive(kind, way, act)


@every_case
def test_it_closes_the_coroutine(kind):
    """Which it can, while its task is being parked; else it is running."""
    coros, said = [], []
    case = kind()

    def act():
        try:
            if coros[0].cr_running and sys.version_info < (3, 13):
                # CPython would close what a running coroutine awaits, and that is any memory.
                raise ValueError("already executing")
            coros[0].close()
            said.append("closed")
        except (ValueError, RuntimeError) as error:
            said.append(str(error))
        case.satisfy()

    async def main():
        case.prepare()
        await sleep(1)
        case.act = act
        coros.append(waiting(case.wait()))
        task = create_task(coros[0])
        with contextlib.suppress(Exception):
            await wait_for(task, 20)
        task.cancel()
        await sleep(1)
        assert task.done()
        if said[0] == "closed":
            with pytest.raises(RuntimeError, match="already awaited"):
                task.result()

    virtual(main())
    assert said[0] == "closed" or "already executing" in said[0]
    assert case.clean()
