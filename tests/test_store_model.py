"""Random programs of tasks at Stores, against a reference written from the rules.

Some filters fail, cancel those who wait, themselves among them, or put something in; some of those
who have been given something never learn of it.
"""

import itertools
import math
import types

from sleeploop import CancelScope, Store, WouldBlock
from tests.helpers import now, virtual
from tests.twins import Visitors, each_seed

COLOURS = "rgb"


class Boom(Exception):
    pass


class Reference:
    """A Store in plain Python. Items are different from each other: (colour, number)."""

    def __init__(self, capacity):
        self.capacity = capacity
        self.items = []
        self.returned, self.added = [], []  # items that have to be offered, of either end
        self.getters = []  # (name, filter), who came first is first
        self.putters = []  # (name, item)
        self.granted = []  # (name, outcome), in the order in which they were let go
        self.busy = False

    def settle(self, seeker=None):
        """Offer what is new to those who wait, and then to the one who seeks: what that gets."""
        self.busy, found = True, None
        while True:
            if self.returned:
                item = self.returned.pop(0)
            elif self.added:
                item = self.added.pop(0)
            elif self.putters and len(self.items) < self.capacity:
                name, item = self.putters.pop(0)
                self.items.append(item)
                self.granted.append((name, "put"))
            else:
                break
            for getter in list(self.getters):
                if getter not in self.getters:
                    continue  # it has left meanwhile
                outcome = self.ask(getter[1], item)
                if outcome is not None and getter in self.getters:
                    self.getters.remove(getter)
                    self.granted.append((getter[0], outcome))
                    if outcome == item:
                        self.items.remove(item)
                        break
            if item in self.items and seeker is not None and found is None:
                found = self.ask(seeker, item)
                if found == item:
                    self.items.remove(item)
        self.busy = False
        return found

    def ask(self, likes, item):
        """The item, "failed" or None."""
        try:
            if not likes(item):
                return None
        except Boom:
            return "failed"
        return item

    def put(self, item):
        if len(self.items) >= self.capacity or self.putters:
            return False
        self.items.append(item)
        self.added.append(item)
        if not self.busy:
            self.settle()
        return True

    def get(self, likes):
        """The item, "failed", or None: it has to wait."""
        self.busy = True
        for item in list(self.items):
            outcome = self.ask(likes, item)
            if outcome is not None:
                if outcome == item:
                    self.items.remove(item)
                self.settle()
                return outcome
        return self.settle(likes)

    def leave(self, name):
        for line in (self.getters, self.putters):
            line[:] = [entry for entry in line if entry[0] != name]

    def give_back(self, item):
        self.items.insert(0, item)
        self.returned.append(item)
        if not self.busy:
            self.settle()


@types.coroutine
def drop(wait):
    """Wait, and let the await go by: what has been got is lost, unless it goes back."""
    yield wait.send(None)


class Program(Visitors):
    def __init__(self, seed):
        super().__init__(seed)
        capacity = self.rng.choice([1, 2, 5, math.inf])
        self.thing = Store(capacity, stats=True)
        self.twin = Reference(capacity)
        self.cancelled = set()
        self.numbers = itertools.count()
        self.asked = [[], []]  # what filters were asked, in reality and by the reference

    def compare(self):
        super().compare()
        assert self.thing.items == tuple(self.twin.items)
        assert self.asked[0] == self.asked[1]

    def item(self):
        return self.rng.choice(COLOURS), next(self.numbers)

    def filters(self, name):
        """The same filter twice: with its effects on reality, and on the reference."""
        kind = self.rng.choice(["any", "colour", "colour", "colour", "boom", "cancel", "put"])
        if kind == "any":
            return None, lambda item: True
        colour, other = self.rng.choice(COLOURS), self.rng.choice(COLOURS)
        victims = self.rng.sample(sorted(self.scopes), min(len(self.scopes), 2))
        gift = [self.item()]
        gifts = [gift, list(gift)]

        def likes(item, real):
            self.asked[1 - real].append((name, item))
            if item[0] == other:
                if kind == "boom":
                    raise Boom
                if kind == "cancel":
                    for victim in victims:
                        self.cancel(victim, real)
                if kind == "put" and gifts[real]:
                    self.put(gifts[real].pop(), real)
            return item[0] == colour

        return lambda item: likes(item, True), lambda item: likes(item, False)

    def leave(self, name):
        self.twin.leave(name)
        self.cancelled.add(name)

    def cancel(self, name, real):
        if not real:
            self.leave(name)
        elif name in self.scopes:
            self.scopes[name].cancel()

    def put(self, item, real):
        if not real:
            return self.twin.put(item)
        try:
            self.thing.put_nowait(item)
        except WouldBlock:
            return False
        return True

    async def wait(self):
        await (self.wait_to_put() if self.rng.random() < 0.4 else self.wait_to_get())

    async def wait_to_put(self):
        name, item = next(self.names), self.item()
        with CancelScope() as self.scopes[name]:
            at_once = self.twin.put(item)
            if not at_once:
                self.twin.putters.append((name, item))
            await self.thing.put(item)
            if not at_once:
                self.log.append((name, "put", now()))
        del self.scopes[name]
        self.compare()

    async def wait_to_get(self):
        name, got = next(self.names), None
        with CancelScope() as self.scopes[name]:
            real, likes = self.filters(name)
            expected = self.twin.get(likes)
            if expected is None and name not in self.cancelled:
                self.twin.getters.append((name, likes))
            wait = self.thing.get(real)
            if expected is None and self.rng.random() < 0.2:
                await drop(wait)
                got = "dropped"
            else:
                try:
                    got = await wait
                except Boom:
                    got = "failed"
                if expected is None:
                    self.log.append((name, got, now()))
        del self.scopes[name]
        if got == "dropped":
            self.compare()
            (entry,) = (entry for entry in self.expected if entry[0] == name)
            self.expected.remove(entry)
            if entry[1] != "failed":
                self.twin.give_back(entry[1])
                wait.close()
        elif expected is not None:
            assert got == expected
        self.compare()

    def act(self):
        what = self.rng.choice(["put", "put", "get", "cancel"])
        if what == "cancel":
            self.cancel_one()
        elif what == "put":
            item = self.item()
            assert self.put(item, real=False) == self.put(item, real=True)
        else:
            real, likes = self.filters(-1)
            expected = self.twin.get(likes)
            try:
                got = self.thing.get_nowait(real)
            except WouldBlock:
                got = None
            except Boom:
                got = "failed"
            assert got == expected


def check(seed):
    """How many had to wait, and how many questions were asked."""
    program = Program(seed)
    virtual(program.main())
    assert program.log == program.expected
    assert program.thing.stats().length.now == len(program.twin.items)
    return len(program.log), len(program.asked[0])


def test_random_programs():
    waited, asked = map(sum, zip(*each_seed(check, times=5), strict=True))
    assert waited > 100
    assert asked > 1000
