"""csrc/base/timerheap.h by itself: compiled into a small library, and compared with heapq."""

from __future__ import annotations

import ctypes
import heapq
import itertools
import os
import random
import shlex
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.twins import examples

TESTS = Path(__file__).resolve().parent
CSRC = TESTS.parent / "csrc"
MIN_CAP = 64
SEQ_MAX = 2**32 - 1

pytestmark = pytest.mark.xdist_group("timeq")  # which compiles it once

Driver = Any  # the functions of timeq_driver.c


def link_command() -> list[str]:
    """How this Python's extensions are linked, or whatever compiler there is."""
    for command in (os.environ.get("CC"), sysconfig.get_config_var("LDSHARED"), "cc -shared"):
        words = shlex.split(command or "")
        if words and shutil.which(words[0]):
            return [*words, *(["-shared"] if "-bundle" not in words else [])]
    pytest.fail("the heap cannot be tested: there is no C compiler (set CC, or install gcc)")


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Driver:
    library = tmp_path_factory.mktemp("timeq") / "timeq_driver.so"
    include = sorted({sysconfig.get_path("include"), sysconfig.get_path("platinclude")})
    command = [
        *link_command(),
        *["-std=c11", "-fPIC", "-O1", "-g", "-UNDEBUG", "-fvisibility=hidden"],
        *(f"-I{directory}" for directory in [*include, CSRC]),
        str(TESTS / "native" / "timeq_driver.c"),
        *("-o", str(library)),
    ]
    # A sanitizer that this Python was started with would look at the compiler, too.
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}"
    return declare(ctypes.PyDLL(str(library)))


def declare(library: ctypes.PyDLL) -> Driver:
    queue = owner = ctypes.c_void_p
    size, time, number = ctypes.c_size_t, ctypes.c_int64, ctypes.c_uint32
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "starve": (None, [ctypes.c_int]),
        "new": (queue, []),
        "clear": (None, [queue]),
        "free": (None, [queue]),
        "push": (owner, [queue, time, time]),
        "cancel": (None, [queue, owner]),
        "free_owner": (None, [owner]),
        "next": (ctypes.c_int, [queue, ctypes.POINTER(time)]),
        "pop": (time, [queue]),
        "len": (size, [queue]),
        "cap": (size, [queue]),
        "dead": (size, [queue]),
        "next_seq": (number, [queue]),
        "set_next_seq": (None, [queue, number]),
        "check": (ctypes.c_char_p, [queue]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, f"driver_{name}")
        function.restype, function.argtypes = result, arguments
    return library


@contextmanager
def starving(driver: Driver) -> Iterator[None]:
    driver.driver_starve(1)
    try:
        yield
    finally:
        driver.driver_starve(0)


class Timers:
    """The queue beside its model, a heapq in which the cancelled stay until they come up."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.queue = driver.driver_new()
        self.ids = itertools.count()
        self.owners: dict[int, int] = {}  # the living: id -> address
        self.heap: list[tuple[int, int]] = []  # (when, id); ids grow with each push

    def push(self, when: int) -> int:
        owner = self.driver.driver_push(self.queue, when, id := next(self.ids))
        if owner is None:
            raise MemoryError
        self.owners[id] = owner
        heapq.heappush(self.heap, (when, id))
        return id

    def cancel(self, id: int) -> None:
        self.driver.driver_cancel(self.queue, self.owners.pop(id))

    def first(self) -> tuple[int, int] | None:
        while self.heap and self.heap[0][1] not in self.owners:
            heapq.heappop(self.heap)
        return self.heap[0] if self.heap else None

    def assert_next(self) -> None:
        when = ctypes.c_int64()
        found = self.driver.driver_next(self.queue, ctypes.byref(when))
        first = self.first()
        assert (when.value if found else None) == (first[0] if first else None)

    def pop(self) -> int | None:
        first = self.first()
        id: int = self.driver.driver_pop(self.queue)
        assert id == (first[1] if first else -1)
        if first is None:
            return None
        heapq.heappop(self.heap)
        del self.owners[id]
        return id

    def pop_all(self) -> list[int]:
        return list(iter(self.pop, None))

    def clear(self) -> None:
        self.driver.driver_clear(self.queue)
        for owner in self.owners.values():
            self.driver.driver_free_owner(owner)
        self.owners.clear()
        self.heap.clear()

    def close(self) -> None:
        self.clear()
        self.driver.driver_free(self.queue)

    @property
    def size(self) -> int:
        return int(self.driver.driver_len(self.queue))

    @property
    def cap(self) -> int:
        return int(self.driver.driver_cap(self.queue))

    @property
    def dead(self) -> int:
        return int(self.driver.driver_dead(self.queue))

    def jump(self, seq: int) -> None:
        self.driver.driver_set_next_seq(self.queue, max(seq, self.seq))

    @property
    def seq(self) -> int:
        return int(self.driver.driver_next_seq(self.queue))

    def check(self) -> None:
        wrong = self.driver.driver_check(self.queue)
        assert wrong is None, wrong.decode()
        assert self.size - self.dead == len(self.owners)


@pytest.fixture
def timers(driver: Driver) -> Iterator[Timers]:
    timers = Timers(driver)
    yield timers
    timers.check()
    timers.close()


# ---- anything, in any order --------------------------------------------------------------------

# Few moments, so that most are shared; and both ends of the range.
moments = st.one_of(st.integers(-2, 5), st.integers(-(2**63), 2**63 - 1))
shares = st.integers(0, 2**32)


class Machine(RuleBasedStateMachine):
    driver: Driver

    def __init__(self) -> None:
        super().__init__()
        self.timers = Timers(self.driver)

    @rule(when=moments)
    def push(self, when: int) -> None:
        self.timers.push(when)

    @rule(seed=shares, count=st.integers(1, 600), spread=st.sampled_from([1, 10, 10**9]))
    def push_many(self, seed: int, count: int, spread: int) -> None:
        rng = random.Random(seed)
        for _ in range(count):
            self.timers.push(rng.randrange(spread))

    @precondition(lambda self: self.timers.owners)
    @rule(which=shares)
    def cancel(self, which: int) -> None:
        self.timers.cancel(list(self.timers.owners)[which % len(self.timers.owners)])

    @rule(seed=shares, share=st.sampled_from([0.1, 0.5, 0.9, 1]))
    def cancel_many(self, seed: int, share: float) -> None:
        ids = list(self.timers.owners)
        for id in random.Random(seed).sample(ids, int(share * len(ids))):
            self.timers.cancel(id)

    @rule()
    def pop(self) -> None:
        self.timers.pop()

    @rule(share=st.sampled_from([0.1, 0.5, 0.9, 1]))
    def pop_many(self, share: float) -> None:
        for _ in range(int(share * len(self.timers.owners))):
            self.timers.pop()

    @rule()
    def next(self) -> None:
        self.timers.assert_next()

    @rule(before=st.integers(0, 3))
    def come_to_the_last_numbers(self, before: int) -> None:
        self.timers.jump(SEQ_MAX - before)

    @rule()
    def clear(self) -> None:
        self.timers.clear()

    @rule(when=moments, seed=shares)
    def run_short_of_memory(self, when: int, seed: int) -> None:
        """A push may fail, and leaves all as it was; nothing else does."""
        full = self.timers.size == self.timers.cap
        with starving(self.driver):
            with pytest.raises(MemoryError) if full else nullcontext():
                self.timers.push(when)
            self.cancel_many(seed, 0.9)
            self.timers.pop()

    @invariant()
    def is_consistent(self) -> None:
        self.timers.check()

    def teardown(self) -> None:
        self.timers.pop_all()
        self.timers.close()


@pytest.mark.no_leak_check  # Hypothesis keeps books
def test_any_sequence(driver: Driver) -> None:
    machine = type("TimersMachine", (Machine,), {"driver": driver})
    run_state_machine_as_test(machine, settings=settings(examples(times=2), stateful_step_count=40))


def test_a_long_life(timers: Timers) -> None:
    """What a loop does: arm, cancel most, pop what is due, as time passes."""
    rng = random.Random(1)
    now = 0
    for round in range(400):
        for _ in range(rng.randrange(120)):
            timers.push(now + rng.choice((1, 5, 5, 30, 1000, rng.randrange(10**6))))
        for id in rng.sample(list(timers.owners), rng.randrange(len(timers.owners) // 2 + 1)):
            timers.cancel(id)
        now += rng.randrange(10)
        while (first := timers.first()) and first[0] <= now:
            timers.assert_next()
            timers.pop()
        if round % 20 == 0:
            timers.check()
    timers.pop_all()


# ---- one thing each ----------------------------------------------------------------------------


def test_equal_times_leave_in_the_order_of_their_pushes(timers: Timers) -> None:
    ids = [timers.push(7) for _ in range(5000)]
    assert timers.pop_all() == ids


def test_the_ends_of_the_range(timers: Timers) -> None:
    times = [2**63 - 1, 0, -(2**63), 2**63 - 2, -1, -(2**63), 2**63 - 1]
    for when in times:
        timers.push(when)
    assert timers.pop_all() == [2, 5, 4, 1, 3, 0, 6]


def test_nothing_to_pop(timers: Timers) -> None:
    timers.assert_next()
    assert timers.pop() is None
    timers.cancel(timers.push(1))
    timers.assert_next()
    assert timers.pop() is None
    assert timers.size == 0


@pytest.mark.parametrize("armed", [1, 2, 63, 64, 65, 1000])
@pytest.mark.parametrize("before", [0, 1, 5])
def test_numbers_run_out(timers: Timers, armed: int, before: int) -> None:
    """Order survives when the sequence number starts anew, for dead and living."""
    ids = [timers.push(n % 3) for n in range(armed)]
    for id in ids[::4]:
        timers.cancel(id)
    timers.jump(SEQ_MAX - before)
    for n in range(10):
        timers.push(n % 3)
        timers.check()
    assert timers.seq <= armed + 10
    timers.pop_all()


def test_renumbering_happens_when_it_must_only(timers: Timers) -> None:
    timers.push(0)
    timers.jump(SEQ_MAX - 1)
    timers.push(0)
    assert timers.seq == SEQ_MAX
    timers.push(0)
    assert timers.seq == 3
    assert timers.pop_all() == [0, 1, 2]


# ---- memory ------------------------------------------------------------------------------------


def assert_bounded(timers: Timers) -> None:
    """By the living. Entries first: half of them may be dead. Then the room for them."""
    assert timers.size <= 2 * len(timers.owners) + MIN_CAP
    assert timers.cap <= 8 * len(timers.owners) + 8 * MIN_CAP


@pytest.mark.parametrize("order", ["oldest first", "newest first", "any"])
def test_mass_cancels_give_memory_back(timers: Timers, order: str) -> None:
    ids = [timers.push(random.Random(n).randrange(10**6)) for n in range(20_000)]
    full = timers.cap
    if order == "newest first":
        ids.reverse()
    elif order == "any":
        random.Random(2).shuffle(ids)
    for n, id in enumerate(ids):
        timers.cancel(id)
        if n % 64 == 0:
            assert_bounded(timers)
    assert timers.cap <= MIN_CAP < full


def test_one_timer_armed_and_cancelled_for_ever(timers: Timers) -> None:
    """A timeout around every operation: each is cancelled long before its time."""
    for now in range(20_000):
        timers.cancel(timers.push(now + 10**9))
        assert timers.size <= MIN_CAP
    assert timers.cap <= MIN_CAP


def test_popping_gives_memory_back(timers: Timers) -> None:
    for when in range(20_000):
        timers.push(when)
    while timers.pop() is not None:
        assert_bounded(timers)
    assert timers.cap <= MIN_CAP


def test_popping_drops_the_dead(timers: Timers) -> None:
    """Even those whose time is far: nobody may cancel any more."""
    far = [timers.push(10**9) for _ in range(1000)]
    for when in range(1001):
        timers.push(when)
    for id in far:
        timers.cancel(id)
    while len(timers.owners) > 1:
        timers.pop()
        assert_bounded(timers)


def test_growing_needs_memory(driver: Driver, timers: Timers) -> None:
    ids = [timers.push(1) for _ in range(MIN_CAP)]
    with starving(driver):
        with pytest.raises(MemoryError):
            timers.push(0)
        timers.check()
    late = timers.push(1)
    assert timers.pop_all() == [*ids, late]
