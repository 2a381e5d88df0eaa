"""Random programs of tasks at Containers, against a reference written from the rules."""

import random

import pytest

from sleeploop import (
    CancelScope,
    Container,
    TaskGroup,
    WouldBlock,
    checkpoint,
    create_task,
    current_loop,
    current_task,
    sleep,
)
from tests.helpers import now, virtual


class Reference:
    """A Container in plain Python: two lines, of which the head of either goes when it can."""

    def __init__(self, capacity, level):
        self.capacity, self.level = capacity, level
        self.getters, self.putters = [], []  # (name, amount), who came first is first
        self.granted = []  # names, in the order in which they were let go

    def settle(self):
        while True:
            if self.getters and self.getters[0][1] <= self.level:
                name, amount = self.getters.pop(0)
                self.level -= amount
            elif self.putters and self.level + self.putters[0][1] <= self.capacity:
                name, amount = self.putters.pop(0)
                self.level += amount
            else:
                return
            self.granted.append(name)

    def can(self, what, amount):
        if what == "get":
            return not self.getters and amount <= self.level
        return not self.putters and self.level + amount <= self.capacity

    def at_once(self, what, amount):
        """Whether it is done without waiting; then it has been done."""
        if not self.can(what, amount):
            return False
        self.level += amount if what == "put" else -amount
        self.settle()
        return True

    def wait(self, name, what, amount):
        (self.getters if what == "get" else self.putters).append((name, amount))

    def leave(self, name):
        """Cancelled: whether it had been waiting still."""
        for line in (self.getters, self.putters):
            for entry in line:
                if entry[0] == name:
                    line.remove(entry)
                    self.settle()
                    return True
        return False


class Program:
    """Tasks do random things to the container; each is done to the reference as well."""

    def __init__(self, seed):
        self.rng = random.Random(seed)
        capacity = self.rng.choice([5, 8, 20])
        level = self.rng.randrange(capacity + 1)
        self.tank = Container(capacity, level, stats=True)
        self.reference = Reference(capacity, level)
        self.log, self.expected = [], []  # who had to wait and was let go, in that order, and when
        self.scopes = {}
        self.names = iter(range(10**6))
        self.counts = {"get": 0, "put": 0}

    def compare(self):
        """Between two steps nothing may differ; whoever was let go runs in that order."""
        assert self.tank.level == self.reference.level
        waiting = len(self.reference.getters) + len(self.reference.putters)
        assert repr(self.tank).endswith(f", {waiting} waiting>" if waiting else ")>")
        self.expected += [(name, now()) for name in self.reference.granted]
        for name in self.reference.granted:
            self.counts[self.waits[name]] += 1
        del self.reference.granted[:]

    def amount(self):
        return self.rng.choice(
            [0, 0.5, 1, 1, 2, 3, self.rng.randrange(int(self.tank.capacity) + 1)]
        )

    async def wait(self):
        """One waiting call, which somebody may cancel."""
        name, what, amount = next(self.names), self.rng.choice(["get", "put"]), self.amount()
        scope = self.scopes[name] = CancelScope()
        self.waits[name] = what
        had = False
        with scope:
            if self.rng.random() < 0.1:
                scope.cancel()
                at_once = None
            else:
                at_once = self.reference.at_once(what, amount)
                if at_once:
                    self.counts[what] += 1
                else:
                    self.reference.wait(name, what, amount)
            await getattr(self.tank, what)(amount)
            had = True
            if not at_once:
                self.log.append((name, now()))
        del self.scopes[name]
        if at_once is None:
            assert not had
        elif at_once:
            assert had
        self.compare()

    def act(self):
        """Something that needs no waiting."""
        what = self.rng.choice(["get", "put", "cancel", "cancel"])
        if what == "cancel":
            if self.scopes:
                name = self.rng.choice(sorted(self.scopes))
                self.reference.leave(name)
                self.scopes[name].cancel()
        else:
            amount = self.amount()
            try:
                getattr(self.tank, f"{what}_nowait")(amount)
                done = True
                self.counts[what] += 1
            except WouldBlock:
                done = False
            assert done == self.reference.at_once(what, amount)
        self.compare()

    async def worker(self):
        for _ in range(self.rng.randrange(1, 8)):
            action = self.rng.random()
            if action < 0.5:
                await self.wait()
            elif action < 0.85:
                self.act()
            else:
                await self.rng.choice([checkpoint, lambda: sleep(self.rng.randrange(3))])()

    async def main(self):
        self.waits = {}
        async with TaskGroup() as group:
            for _ in range(self.rng.randrange(2, 12)):
                group.create_task(self.worker())
            create_task(self.end(group), daemon=True)
        self.compare()

    async def end(self, group):
        """Who waits for ever is cancelled, one by one."""
        await sleep(100)
        while self.scopes:
            name = self.rng.choice(sorted(self.scopes))
            self.reference.leave(name)
            self.scopes[name].cancel()
            self.compare()
            await sleep(10)
        assert len(current_loop().tasks()) >= 1
        assert current_task().name


@pytest.mark.parametrize("block", range(10))
def test_random_programs(block):
    waited = 0
    for seed in range(block * 100, block * 100 + 100):
        program = Program(seed)
        virtual(program.main())
        assert program.log == program.expected, seed
        stats = program.tank.stats()
        assert (stats.gets.count, stats.puts.count) == (
            program.counts["get"],
            program.counts["put"],
        )
        assert stats.level.now == program.reference.level
        waited += stats.gets.waited + stats.puts.waited
    assert waited > 100
