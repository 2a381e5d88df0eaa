"""Random schedules and random delays, beside the rules of every() in plain Python."""

import random
from fractions import Fraction
from itertools import count, takewhile

import pytest

from sleeploop import CancelScope, current_loop, every, move_on_after, sleep, sleep_until
from tests.helpers import virtual
from tests.twins import each_seed

NS = 10**9


class Model:
    """The rules, with exact fractions; it looks at one tick after the other."""

    def __init__(self, period, start, missed):
        whole = round(Fraction(period) * NS)
        self.period = whole if whole / 1e9 == period else Fraction(period) * NS
        self.base, self.first = start, 0  # tick `first` is due at `base`
        self.missed = missed
        self.next = 0

    def due(self, index):
        return self.base + round((index - self.first) * self.period)

    def take(self, now):
        """Of the next tick, asked for now: its index, when due, when it comes, how many missed."""
        overdue = list(takewhile(lambda index: self.due(index) <= now, count(self.next)))
        index = overdue[-1] if overdue and self.missed == "skip" else self.next
        skipped, due = index - self.next, self.due(index)
        if due < now and self.missed == "delay":
            self.base, self.first = now, index
        self.next = index + 1
        return index, due, max(now, due), skipped


def random_period(rng):
    return rng.choice(
        [
            rng.randint(1, 5),
            rng.randint(1, 50) / 10,
            rng.random() + 0.01,
            rng.randint(1, 20) / 7,
            rng.randint(1, 99) * 1e-9,
            rng.random() * 1e-7 + 1e-9,
        ]
    )


def random_pause(rng, period):
    """What the body of the loop does between two ticks, in nanoseconds."""
    periods = rng.choice([0, 0, rng.random(), 1, rng.randint(1, 4), rng.random() * 20])
    return round(periods * period * NS)


@pytest.mark.parametrize("missed", ["skip", "burst", "delay"])
def test_random_schedules(missed):
    each_seed(lambda seed: check(seed, missed))


def check(seed, missed):
    rng = random.Random(f"{seed} {missed}")
    period = random_period(rng)
    start = rng.choice([None, rng.uniform(-20, 20) * period])
    pauses = [random_pause(rng, period) for _ in range(60)]

    async def main():
        loop = current_loop()
        ticks = every(period, start=start, missed=missed)
        await sleep_until(rng.uniform(0, 20) * period)
        # As the loop rounds it.
        first = loop.time_ns() if start is None else round(Fraction(start) * NS)
        model = Model(period, first, missed)
        for pause in pauses:
            asked = loop.time_ns()
            index, due, comes, skipped = model.take(asked)
            while rng.random() < 0.3:  # to wait in vain, and lose nothing
                if comes > asked + 1:
                    with move_on_after(0.5e-9 * (comes - asked)) as scope:
                        await anext(ticks)
                    asked = loop.time_ns()
                else:
                    with CancelScope() as scope:
                        scope.cancel()
                        await anext(ticks)
                assert scope.cancelled_caught
            tick = await anext(ticks)
            assert loop.time_ns() == comes
            assert (tick.index, tick.due_ns, tick.missed) == (index, due, skipped)
            assert tick.due == due / 1e9
            assert tick.lateness == (comes - due) / 1e9
            await sleep(pause / 1e9)

    virtual(main())
