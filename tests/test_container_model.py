"""Random programs of tasks at Containers, against a reference written from the rules."""

from sleeploop import CancelScope, Container, WouldBlock
from tests.helpers import now, virtual
from tests.twins import Visitors, each_seed


class Reference:
    """A Container in plain Python: two lines, of which the head of either goes when it can."""

    def __init__(self, capacity, level):
        self.capacity, self.level = capacity, level
        self.getters, self.putters = [], []  # (name, amount), who came first is first
        self.granted = []  # (name, what), in the order in which they were let go

    def settle(self):
        while True:
            if self.getters and self.getters[0][1] <= self.level:
                name, amount = self.getters.pop(0)
                self.level -= amount
                self.granted.append((name, "get"))
            elif self.putters and self.level + self.putters[0][1] <= self.capacity:
                name, amount = self.putters.pop(0)
                self.level += amount
                self.granted.append((name, "put"))
            else:
                return

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
        for line in (self.getters, self.putters):
            line[:] = [entry for entry in line if entry[0] != name]
        self.settle()


class Program(Visitors):
    def __init__(self, seed):
        super().__init__(seed)
        capacity = self.rng.choice([5, 8, 20])
        level = self.rng.randrange(capacity + 1)
        self.thing = Container(capacity, level, stats=True)
        self.twin = Reference(capacity, level)
        self.leave = self.twin.leave
        self.counts = {"get": 0, "put": 0}  # of those that need not wait

    def compare(self):
        super().compare()
        assert self.thing.level == self.twin.level

    def amount(self):
        return self.rng.choice(
            [0, 0.5, 1, 1, 2, 3, self.rng.randrange(int(self.thing.capacity) + 1)]
        )

    async def wait(self):
        name, what, amount = next(self.names), self.rng.choice(["get", "put"]), self.amount()
        had, at_once = False, None
        with CancelScope() as self.scopes[name]:
            if self.rng.random() < 0.1:
                self.scopes[name].cancel()
            else:
                at_once = self.twin.at_once(what, amount)
                if at_once:
                    self.counts[what] += 1
                else:
                    self.twin.wait(name, what, amount)
            await getattr(self.thing, what)(amount)
            had = True
            if not at_once:
                self.log.append((name, what, now()))
        del self.scopes[name]
        if at_once is None:
            assert not had
        elif at_once:
            assert had
        self.compare()

    def act(self):
        what = self.rng.choice(["get", "put", "cancel", "cancel"])
        if what == "cancel":
            self.cancel_one()
            return
        amount = self.amount()
        try:
            getattr(self.thing, f"{what}_nowait")(amount)
            done = True
            self.counts[what] += 1
        except WouldBlock:
            done = False
        assert done == self.twin.at_once(what, amount)


def check(seed):
    """How many had to wait."""
    program = Program(seed)
    virtual(program.main())
    assert program.log == program.expected
    stats = program.thing.stats()
    for what, counted in (("get", stats.gets), ("put", stats.puts)):
        granted = sum(entry[1] == what for entry in program.expected)
        assert counted.count == program.counts[what] + granted
    assert stats.level.now == program.twin.level
    return stats.gets.waited + stats.puts.waited


def test_random_programs():
    assert sum(each_seed(check, times=5)) > 100
