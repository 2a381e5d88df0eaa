"""Random programs with first_of() and all_of(), beside their rules in plain Python.

Workers follow scripts of their own. At no two times do two of them act, nor anything end by itself
when another acts: so what happens at a time is one step of one worker, which may do several things
in a row, and what follows from it. All of that the reference knows: who stands where in which
line, who gets what, in which order, and who gives it back.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from sleeploop import (
    CancelScope,
    Event,
    Lock,
    TaskGroup,
    all_of,
    current_task,
    first_of,
    run,
    sleep,
    sleep_until,
)
from tests.helpers import now
from tests.twins import assert_same, come_by, each_seed

WORKERS = 4
THINGS = ["lock 0", "lock 1", "lock 2", "event 0", "event 1"]

# An item is what is waited for: a thing, or (kind, seconds) for a sleep or a failure.
# A deed is a step: ("first" or "all", items), or ("do", [(what, which), ...]).


@dataclass
class Program:
    scripts: list[list[tuple[float, Any]]]  # of each worker: when, and what


def any_program(seed: int) -> Program:
    rng = random.Random(seed)
    times = [i + worker / 10 for worker in range(WORKERS) for i in range(1, 16)]
    scripts: list[list[tuple[float, Any]]] = [[] for _ in range(WORKERS)]
    for time in sorted(rng.sample(times, rng.randint(5, len(times)))):
        worker = round(time % 1 * 10)
        scripts[worker].append((time, any_deed(rng, worker)))
    return Program(scripts)


def any_deed(rng: random.Random, worker: int) -> Any:
    if rng.random() < 0.55:
        items: list[Any] = rng.sample(THINGS, rng.randint(1, 4))
        # The times at which these end are nobody else's: in each, the worker's are different.
        while rng.random() < 0.3:
            kind = rng.choice(["sleep", "sleep", "fail"])
            ends = rng.randrange(6) + 0.01 + worker / 1000 + len(items) / 10000
            items.insert(rng.randint(0, len(items)), (kind, ends))
        return rng.choice(["first", "all"]), items
    deeds: list[tuple[str, Any]] = []
    for _ in range(rng.randint(1, 5)):
        what = rng.choice(["release", "release", "release", "cancel", "set", "clear"])
        which: Any = rng.randrange(2)
        if what == "release":
            which = f"lock {rng.randrange(3)}"
        elif what == "cancel":
            which = rng.randrange(WORKERS)
        deeds.append((what, which))
    return "do", deeds


# ---- as it is ------------------------------------------------------------------------------------


async def fail_after(seconds: float) -> None:
    await sleep(seconds)
    raise ValueError


class Real:
    def __init__(self, program: Program) -> None:
        self.program = program
        self.locks = {name: Lock(name=name) for name in THINGS if name.startswith("lock")}
        self.events = [Event(), Event()]
        self.scopes: list[CancelScope | None] = [None] * WORKERS
        self.log: list[Any] = []

    def note(self, worker: int, *what: Any) -> None:
        self.log.append((round(now(), 4), worker, *what))

    def owner(self, name: str) -> int | None:
        owner = self.locks[name].owner
        return int(owner.name) if owner is not None else None

    def awaitable(self, item: Any) -> Any:
        if isinstance(item, tuple):
            kind, seconds = item
            return sleep(seconds) if kind == "sleep" else fail_after(seconds)
        if item in self.locks:
            return self.locks[item].acquire()
        return self.events[int(item[-1])].wait()

    async def request(self, worker: int, how: str, items: list[Any]) -> None:
        items = [item for item in items if item not in self.locks or self.owner(item) != worker]
        if not items:
            return
        names = {self.awaitable(item): item for item in items}
        scope = self.scopes[worker] = CancelScope()
        done: Any = "cancelled"
        try:
            with scope:
                got = await (first_of if how == "first" else all_of)(*names)
                done = [names[aw] for aw in got]
        except ValueError:
            done = "failed"
        self.scopes[worker] = None
        self.note(worker, how, done)

    def do(self, worker: int, deeds: list[Any]) -> None:
        self.note(worker, "owners", [self.owner(name) for name in self.locks])
        for what, which in deeds:
            if what == "release" and self.owner(which) == worker:
                self.locks[which].release()
            elif what == "cancel":
                scope = self.scopes[which]
                if scope is not None:
                    scope.cancel()
            elif what == "set":
                self.events[which].set()
            elif what == "clear":
                self.events[which].clear()

    async def work(self, worker: int) -> None:
        for time, (how, what) in self.program.scripts[worker]:
            if time <= now():
                continue  # it has been waiting meanwhile
            await sleep_until(time)
            if how == "do":
                self.do(worker, what)
            else:
                await self.request(worker, how, what)
        await sleep_until(1000)
        for name, lock in self.locks.items():
            if self.owner(name) == worker:
                lock.release()

    async def main(self) -> list[Any]:
        async with TaskGroup() as group:
            for worker in range(WORKERS):
                group.create_task(self.work(worker), name=str(worker))
            await sleep_until(500)
            for scope in self.scopes:
                if scope is not None:
                    scope.cancel()
            await sleep_until(600)
            self.note(-1, "owners", [self.owner(name) for name in self.locks])
            assert current_task().waiting_on is None
        self.note(-1, "owners", [self.owner(name) for name in self.locks])
        return in_order(self.log)


def in_order(log: list[Any]) -> list[Any]:
    """Of what follows from the same step, no order is promised."""
    return sorted(log, key=lambda entry: (entry[0], entry[2] != "owners", entry[1]))


# ---- as the rules have it ------------------------------------------------------------------------


@dataclass(eq=False)
class Request:
    worker: int
    how: str
    items: list[Any]
    got: list[Any] = field(default_factory=list)
    outcome: str = ""  # "cancelled" or "failed"

    def is_done(self) -> bool:
        return bool(self.got) if self.how == "first" else len(self.got) == len(self.items)


class Rules:
    def __init__(self, program: Program) -> None:
        self.program = program
        self.owners: dict[str, int | None] = {n: None for n in THINGS if n.startswith("lock")}
        self.lines: dict[str, list[Request]] = {name: [] for name in THINGS}
        self.is_set = [False, False]
        self.requests: list[Request | None] = [None] * WORKERS
        self.ends: list[tuple[float, Request, Any]] = []
        self.given_up: list[Request] = []
        self.log: list[Any] = []
        self.now = 0.0

    def note(self, worker: int, *what: Any) -> None:
        self.log.append((round(self.now, 4), worker, *what))

    # What one step does.

    def is_free(self, item: Any) -> bool:
        if item in self.owners:
            return self.owners[item] is None
        return item in THINGS and self.is_set[int(item[-1])]

    def gets(self, request: Request, item: Any) -> None:
        request.got.append(item)
        if item in self.owners:
            self.owners[item] = request.worker

    def pass_on(self, lock: str) -> None:
        self.owners[lock] = None
        if self.lines[lock]:
            self.gets(self.lines[lock].pop(0), lock)

    def leave_lines(self, request: Request) -> None:
        for line in self.lines.values():
            if request in line:
                line.remove(request)

    def give_up(self, request: Request, outcome: str) -> None:
        if not request.outcome:
            request.outcome = outcome
            self.leave_lines(request)
            self.given_up.append(request)

    def begin(self, worker: int, how: str, items: list[Any]) -> None:
        items = [item for item in items if self.owners.get(item, -1) != worker]
        if not items:
            return
        request = self.requests[worker] = Request(worker, how, items)
        for item in items:
            if self.is_free(item):
                self.gets(request, item)
            elif item in THINGS:
                self.lines[item].append(request)
            else:
                self.ends.append((self.now + item[1], request, item))
            if how == "first" and request.got:
                break
        self.follow()

    def do(self, worker: int, deeds: list[Any]) -> None:
        self.note(worker, "owners", list(self.owners.values()))
        for what, which in deeds:
            request = self.requests[which] if what == "cancel" else None
            if what == "release" and self.owners[which] == worker:
                self.pass_on(which)
            elif request is not None:
                if request.is_done():
                    self.leave_lines(request)  # no more than it has got
                else:
                    self.give_up(request, "cancelled")
            elif what == "set":
                self.is_set[which] = True
                while self.lines[f"event {which}"]:
                    self.gets(self.lines[f"event {which}"].pop(0), f"event {which}")
            elif what == "clear":
                self.is_set[which] = False
        self.follow()

    # What follows from it.

    def finish(self, request: Request, done: Any) -> None:
        self.leave_lines(request)
        self.ends = [end for end in self.ends if end[1] is not request]
        self.requests[request.worker] = None
        self.note(request.worker, request.how, done)

    def close_those_that_are_done(self) -> None:
        for request in self.requests:
            if request is not None and not request.outcome and request.is_done():
                order = request.got if request.how == "first" else request.items
                self.finish(request, order)

    def follow(self) -> None:
        self.close_those_that_are_done()
        given_up, self.given_up = self.given_up, []
        for request in given_up:
            for item in reversed(request.got):
                if item in self.owners:
                    self.pass_on(item)
            self.finish(request, request.outcome)
        self.close_those_that_are_done()

    def end(self, request: Request, item: Any) -> None:
        if item[0] == "fail":
            self.give_up(request, "failed")
        else:
            self.gets(request, item)
        self.follow()

    # The run.

    def play(self) -> list[Any]:
        steps = [
            (time, worker, deed)
            for worker, script in enumerate(self.program.scripts)
            for time, deed in script
        ]
        steps.sort(key=lambda step: step[0])
        while steps or self.ends:
            if self.ends and (not steps or min(self.ends, key=first)[0] < steps[0][0]):
                end = min(self.ends, key=first)
                self.ends.remove(end)
                self.now = end[0]
                self.end(*end[1:])
                continue
            self.now, worker, (how, what) = steps.pop(0)
            if self.requests[worker] is not None:
                continue
            if how == "do":
                self.do(worker, what)
            else:
                self.begin(worker, how, what)
        self.now = 500.0
        for request in self.requests:
            if request is not None:
                self.give_up(request, "cancelled")
        self.follow()
        self.now = 600.0
        self.note(-1, "owners", list(self.owners.values()))
        self.now = 1000.0
        self.note(-1, "owners", [None] * len(self.owners))
        return in_order(self.log)


def first(pair: tuple[float, Any, Any]) -> float:
    return pair[0]


# ---- both ----------------------------------------------------------------------------------------


def both(seed: int, **options: Any) -> list[Any]:
    program = any_program(seed)
    real = run(Real(program).main(), speed=math.inf, **options)
    rules = Rules(program).play()
    assert_same(real, rules, program)
    return real


def test_seeded_programs() -> None:
    each_seed(both, times=6)


WANTED = [("first", 1), ("first", 2), ("all", 1), ("all", 2), ("all", 3)]
WANTED += [(how, what) for how in ("first", "all") for what in ("cancelled", "failed")]


def test_they_do_it_all() -> None:
    def kinds(seed: int) -> Iterator[Any]:
        for _, _, how, done in both(seed):
            yield how, done if isinstance(done, str) else min(len(done), 3)

    come_by(kinds, WANTED, times=11)
