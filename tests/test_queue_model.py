"""Random programs of tasks around one queue, beside the rules in plain Python.

Every await may be cancelled by another task, before or after it was granted, and what a task was
given may be taken from its hands before it learns of it. What is compared is the log: which
operation of which task came to what, in which order, at what time; and the statistics.
"""

import heapq
import itertools
import math
import random
from collections import deque

import pytest

from sleeploop import (
    CancelScope,
    LifoQueue,
    PriorityQueue,
    Queue,
    QueueEmpty,
    QueueFull,
    QueueShutDown,
    checkpoint,
    create_task,
    sleep,
)
from tests.helpers import now, virtual
from tests.twins import assert_same, come_by, each_seed

KINDS = {"fifo": Queue, "lifo": LifoQueue, "priority": PriorityQueue}
OPERATIONS = {  # how often each comes
    "put": 10,
    "get": 8,
    "next": 3,
    "put_nowait": 4,
    "get_nowait": 4,
    "sleep": 5,
    "checkpoint": 3,
    "cancel": 6,
    "close": 3,
    "done": 5,
    "join": 2,
    "shutdown": 0.15,
}
WAITING = {"put", "get", "next", "join"}
END = 1000


class Item:
    """Only its priority is compared; only its name is logged."""

    def __init__(self, priority, name):
        self.priority, self.name = priority, name

    def __lt__(self, other):
        return self.priority < other.priority


# ---- programs ------------------------------------------------------------------------------------


def random_operation(rng, n_tasks):
    kind = rng.choices(list(OPERATIONS), list(OPERATIONS.values()))[0]
    argument = None
    if kind in ("put", "put_nowait"):
        argument = rng.randrange(4)
    elif kind == "sleep":
        argument = rng.randrange(1, 5)
    elif kind in ("cancel", "close"):
        argument = rng.randrange(n_tasks)
    elif kind == "shutdown":
        argument = rng.random() < 0.5
    return kind, argument


def random_program(rng):
    n_tasks = rng.randrange(2, 9)
    return [
        [random_operation(rng, n_tasks) for _ in range(rng.randrange(1, 14))]
        for _ in range(n_tasks)
    ]


# ---- the rules -----------------------------------------------------------------------------------


class Waiting:
    def __init__(self, task, kind, item, since):
        self.task, self.kind, self.item, self.since = task, kind, item, since
        self.outcome = None  # until it is woken


class Model:
    """A loop that runs who is ready, first in, first out; and a queue by its rules."""

    def __init__(self, program, order, maxsize):
        self.program, self.order = program, order
        self.maxsize = maxsize or math.inf
        self.log, self.closes = [], []
        self.time, self.timers, self.sleeps = 0, [], itertools.count()
        self.ready = deque(range(len(program)))
        self.at = [0] * len(program)  # the operation that each task is in
        self.waits = [None] * len(program)  # where it stands in it
        self.items, self.arrivals = [], 0
        self.getters, self.putters, self.joiners = [], [], []
        self.unfinished, self.shut, self.at_once = 0, False, False
        self.area, self.changed, self.length, self.longest = 0, 0, 0, 0
        self.puts, self.gets = [], []  # how long each has waited, None: not at all

    def run(self):
        while True:
            if not self.ready:
                if not self.timers or self.timers[0][0] >= END:
                    break
                self.time = self.timers[0][0]
                while self.timers and self.timers[0][0] == self.time:
                    self.ready.append(heapq.heappop(self.timers)[2])
            task = self.ready.popleft()
            self.step(task)
        self.time = END
        self.note()
        return self

    def step(self, task):
        wait = self.waits[task]
        if wait is not None:
            self.waits[task] = None
            self.ended(task, wait.outcome)
        while self.at[task] < len(self.program[task]):
            outcome = self.operate(task, *self.program[task][self.at[task]])
            if outcome == "waits":
                return
            self.ended(task, outcome)

    def ended(self, task, outcome):
        self.log.append((self.time, task, self.at[task], outcome))
        self.at[task] += 1

    def wake(self, wait, outcome):
        wait.outcome = outcome
        self.ready.append(wait.task)

    def wait(self, task, place, kind, item=None):
        self.waits[task] = Waiting(task, kind, item, self.time)
        if place is not None:
            place.append(self.waits[task])
        return "waits"

    # what is in the queue

    def note(self):
        """The length changes now."""
        self.area += self.length * (self.time - self.changed)
        self.changed, self.length = self.time, len(self.items)
        self.longest = max(self.longest, self.length)

    def add(self, item, number=None, front=False):
        if number is None:
            self.arrivals += 1
            number = self.arrivals
        if front and self.order == "fifo":
            self.items.insert(0, (item, number))
        else:
            self.items.append((item, number))

    def next_item(self):
        if self.order == "fifo":
            return self.items.pop(0)
        if self.order == "lifo":
            return self.items.pop()
        best = min(self.items, key=lambda entry: (entry[0].priority, entry[1]))
        self.items.remove(best)
        return best

    def hand_over(self, item, number):
        getter = self.getters.pop(0)
        getter.item = (item, number)
        self.gets.append(self.time - getter.since)
        self.wake(getter, item.name)

    # operations

    def operate(self, task, kind, argument):
        return getattr(self, kind)(task, argument)

    def put(self, task, priority):
        item = Item(priority, f"{task}.{self.at[task]}")
        outcome = self.try_put(item)
        return self.wait(task, self.putters, "put", item) if outcome == "full" else outcome

    def put_nowait(self, task, priority):
        return self.try_put(Item(priority, f"{task}.{self.at[task]}"))

    def try_put(self, item):
        if self.shut:
            return "shut down"
        if len(self.items) >= self.maxsize:
            return "full"
        if self.getters:
            self.arrivals += 1
            self.hand_over(item, self.arrivals)
        else:
            self.add(item)
        self.unfinished += 1
        self.puts.append(None)
        self.note()
        return "in"

    def get(self, task, _):
        outcome = self.get_nowait(task, _)
        return self.wait(task, self.getters, "get") if outcome == "empty" else outcome

    def next(self, task, _):
        outcome = self.get_nowait(task, _)
        if outcome == "empty":
            return self.wait(task, self.getters, "next")
        return "end" if outcome == "shut down" else outcome

    def get_nowait(self, _task, _):
        if not self.items:
            return "shut down" if self.shut else "empty"
        item, _ = self.next_item()
        while self.putters and len(self.items) < self.maxsize:
            putter = self.putters.pop(0)
            self.add(putter.item)
            self.unfinished += 1
            self.puts.append(self.time - putter.since)
            self.wake(putter, "in")
        self.gets.append(None)
        self.note()
        return item.name

    def sleep(self, task, seconds):
        heapq.heappush(self.timers, (self.time + seconds, next(self.sleeps), task))
        return self.wait(task, None, "sleep")

    def checkpoint(self, task, _):
        self.wait(task, None, "checkpoint")
        self.ready.append(task)
        return "waits"

    def cancel(self, _task, other):
        wait = self.waits[other]
        if wait is None or wait.kind not in WAITING or wait.outcome is not None:
            return None  # it is not waiting, or has what it waited for
        place = {"put": self.putters, "join": self.joiners}.get(wait.kind, self.getters)
        place.remove(wait)
        self.wake(wait, "cancelled")
        return None

    def close(self, _task, other):
        wait = self.waits[other]
        granted = wait is not None and wait.kind in ("get", "next") and isinstance(wait.item, tuple)
        self.closes.append(granted)
        if not granted:
            return None
        item, number = wait.item
        wait.item, wait.outcome = None, "closed"
        if self.at_once:
            self.finish(1)
        elif self.getters:
            self.hand_over(item, number)
        else:
            self.add(item, number, front=True)
        self.note()
        return None

    def done(self, _task, _):
        if self.unfinished == 0:
            return "too often"
        self.finish(1)
        return None

    def finish(self, n):
        self.unfinished -= min(n, self.unfinished)
        if self.unfinished == 0:
            while self.joiners:
                self.wake(self.joiners.pop(0), "joined")

    def join(self, task, _):
        return self.wait(task, self.joiners, "join") if self.unfinished else "joined"

    def shutdown(self, _task, immediate):
        self.shut = True
        if immediate:
            self.at_once = True
            n = len(self.items)
            self.items.clear()
            self.finish(n)
            self.note()
        while self.getters:
            getter = self.getters.pop(0)
            self.wake(getter, "end" if getter.kind == "next" else "shut down")
        while self.putters:
            self.wake(self.putters.pop(0), "shut down")


# ---- the same by the library ---------------------------------------------------------------------


class Real:
    def __init__(self, program, order, maxsize, closes):
        self.program, self.closes = program, iter(closes)
        self.queue = KINDS[order](maxsize, stats=True)
        self.log = []
        self.scopes, self.waits = {}, {}

    async def run(self):
        for task in range(len(self.program)):
            create_task(self.follow(task))
        await sleep(END)
        log, self.log = self.log, []
        return log, self.queue.stats()

    async def follow(self, task):
        for at, (kind, argument) in enumerate(self.program[task]):
            if kind in WAITING:
                outcome = await self.wait(task, kind, Item(argument, f"{task}.{at}"))
            else:
                outcome = await getattr(self, kind)(argument, f"{task}.{at}")
            self.log.append((now(), task, at, outcome))

    async def wait(self, task, kind, item):
        outcome = "cancelled"
        wait = {
            "put": lambda: self.queue.put(item),
            "get": self.queue.get,
            "next": self.queue.__anext__,
            "join": self.queue.join,
        }[kind]()
        with CancelScope() as scope:
            self.scopes[task], self.waits[task] = scope, wait
            try:
                got = await wait
                outcome = {"put": "in", "join": "joined"}.get(kind) or got.name
            except QueueShutDown:
                outcome = "shut down"
            except StopAsyncIteration:
                outcome = "end"
            except RuntimeError as error:
                outcome = "closed" if "was awaited before" in str(error) else error
            del self.scopes[task], self.waits[task]
        if outcome == "cancelled":
            del self.scopes[task], self.waits[task]
        return outcome

    async def put_nowait(self, priority, name):
        try:
            self.queue.put_nowait(Item(priority, name))
        except QueueFull:
            return "full"
        except QueueShutDown:
            return "shut down"
        return "in"

    async def get_nowait(self, *_):
        try:
            return self.queue.get_nowait().name
        except QueueEmpty:
            return "empty"
        except QueueShutDown:
            return "shut down"

    async def sleep(self, seconds, _):
        await sleep(seconds)

    async def checkpoint(self, *_):
        await checkpoint()

    async def cancel(self, other, _):
        if other in self.scopes:
            self.scopes[other].cancel()

    async def close(self, other, _):
        if next(self.closes):
            self.waits[other].close()

    async def done(self, *_):
        try:
            self.queue.task_done()
        except ValueError:
            return "too often"

    async def shutdown(self, immediate, _):
        self.queue.shutdown(immediate)


# ---- side by side --------------------------------------------------------------------------------


def wait_stats(waits):
    waited = [wait for wait in waits if wait is not None]
    mean = sum(waited) / len(waits) if waits else 0
    return len(waits), len(waited), pytest.approx(mean), max(waited, default=0)


def compare(program, order, maxsize):
    model = Model(program, order, maxsize).run()
    real = Real(program, order, maxsize, model.closes)
    log, stats = virtual(real.run())
    assert_same(log, model.log, program)
    assert real.queue.qsize() == len(model.items)
    assert stats.length == (len(model.items), model.longest, pytest.approx(model.area / END))
    assert stats.puts == wait_stats(model.puts)
    assert stats.gets == wait_stats(model.gets)
    left = [real.queue.get_nowait().name for _ in range(real.queue.qsize())]
    assert left == [model.next_item()[0].name for _ in left]
    return model


@pytest.mark.parametrize("maxsize", [0, 1, 2, 3])
@pytest.mark.parametrize("order", KINDS)
def test_random_programs(order, maxsize):
    def play(seed):
        rng = random.Random(f"{order} {maxsize} {seed}")
        return compare(random_program(rng), order, maxsize)

    def kinds(seed):
        model = play(seed)
        for *_, outcome in model.log:
            if outcome is None or "." not in outcome:
                yield outcome
        for closed in model.closes:
            yield "closed", closed

    wanted = {None, "in", "empty", "shut down", "end", "cancelled", "closed", "too often", "joined"}
    wanted |= {("closed", True), ("closed", False)} | ({"full"} if maxsize else set())
    each_seed(play, times=2)
    come_by(kinds, wanted)
