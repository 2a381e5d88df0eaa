"""The rules of the loop in plain Python: a second opinion on order, time, cancellation and errors.

Written from the documented rules, with the plainest data there is, and for virtual time only. It
has sleeploop's names and behaviour, as far as it goes, so that one program runs on either.
"""

from __future__ import annotations

import bisect
import logging
import math
import types
import weakref
from collections import deque
from collections.abc import Coroutine, Generator
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any, NamedTuple

from sleeploop import CancelledError, DeadlockError

logger = logging.getLogger("sleeploop")
running: SleepingLoop | None = None


class Until(NamedTuple):
    """Yielded by everything that sleeps: the loop time to resume at, in nanoseconds."""

    when: float


class Task:
    def __init__(
        self, loop: SleepingLoop, coro: Any, name: str | None, *, daemon: bool, root: bool
    ) -> None:
        loop.created += 1
        self.loop, self.coro, self.daemon, self.root = loop, coro, daemon, root
        self.name = name if name is not None else f"Task-{loop.created}"
        self.state = "ready to start"  # then: ready, running, parked, returned, failed, cancelled
        self.payload: Any = None  # what it yielded; when it is done: its result or its exception
        self.thrown: BaseException | None = None  # at its next step
        self.cancelling = loop.reason is not None
        self.seen = False  # somebody learned of its failure
        self.waiters: list[Task] = []

    def __await__(self) -> Generator[Any, Any, Any]:
        if not self.done() and self is self.loop.current:
            error = RuntimeError(f"await: {self!r} cannot wait for itself")
            del self  # see SleepingLoop.step()
            raise error
        if not self.done() or (self.loop.current and self.loop.current.cancelling):
            yield self
        return self.result()

    def done(self) -> bool:
        return self.state in ("returned", "failed", "cancelled")

    def cancelled(self) -> bool:
        return self.state == "cancelled"

    @property
    def wake_time(self) -> float | None:
        if self.state != "parked" or isinstance(self.payload, Task):
            return None
        return next((when / 1e9 for when, _, task in self.loop.timers if task is self), math.inf)

    def exception(self) -> BaseException | None:
        if self.state == "cancelled":
            raise CancelledError(f"task {self.name!r} was cancelled")
        self.seen = True
        return self.payload if self.state == "failed" else None

    def result(self) -> Any:
        exc = self.exception()
        if exc is not None:
            raise exc
        return self.payload

    def report(self) -> None:
        self.seen = True
        if not self.daemon:
            self.loop.record(self.payload)
        log(f"task {self.name!r} failed and nobody retrieved its exception", self.payload)

    def __del__(self) -> None:
        if self.state == "failed" and not self.seen:
            self.report()

    def __repr__(self) -> str:
        doing = self.state
        if doing == "parked":
            doing = "sleeping until cancelled"
            if isinstance(self.payload, Task):
                doing = f"waiting for task {self.payload.name!r}"
        cancelling = ", being cancelled" if self.cancelling else ""
        return f"<Task {self.name!r} {self.coro.__qualname__}: {doing}{cancelling}>"


class SleepingLoop:
    def __init__(self, *coros: Any, speed: float = math.inf, main_only: bool = False) -> None:
        assert speed == math.inf
        self.now = 0
        self.start = datetime(2000, 1, 1).astimezone(UTC)
        self.main_only = main_only
        self.created = self.armed = self.wakeups = 0
        self.reason: str | None = None  # of the cancellation that ends the run
        self.current: Task | None = None
        self.ready: deque[Task] = deque()
        self.timers: list[tuple[float, int, Task]] = []  # sorted: by time, then first come
        self.live: dict[Task, None] = {}  # in order of creation
        self.unseen: list[weakref.ref[Task]] = []  # failures, in order
        self.errors: list[BaseException] = []
        self.roots = [self.spawn(coro, None, daemon=False, root=True) for coro in coros]

    def spawn(self, coro: Any, name: str | None, *, daemon: bool, root: bool) -> Task:
        task = Task(self, coro, name, daemon=daemon, root=root)
        self.live[task] = None
        self.ready.append(task)
        return task

    def create_task(self, coro: Any, *, name: str | None = None, daemon: bool = False) -> Task:
        return self.spawn(coro, name, daemon=daemon, root=False)

    def time_ns(self) -> int:
        return self.now

    def tasks(self) -> list[Task]:
        return list(self.live)

    def stats(self) -> types.SimpleNamespace:
        return types.SimpleNamespace(wakeups=self.wakeups)

    # ---- the run ----------------------------------------------------------------------------

    def run_until_complete(self) -> list[Any]:
        global running
        running = self
        while self.live:
            if self.is_over():
                self.cancel_all("the run is over")
            if not self.ready:
                self.let_time_pass()
            while self.timers and self.timers[0][0] <= self.now:
                self.wakeups += 1
                self.wake(self.timers.pop(0)[2])
            for _ in range(len(self.ready)):
                self.step(self.ready.popleft())
        for reference in self.unseen:
            task = reference()
            if task is not None and not task.seen:
                task.report()
        running = None
        return self.outcome()

    def is_over(self) -> bool:
        if self.main_only:
            return self.roots[0].done()
        return all(task.daemon for task in self.live)

    def let_time_pass(self) -> None:
        if self.timers:
            self.now = int(self.timers[0][0])
            return
        waits = "\n  ".join(repr(task) for task in self.live)
        error = DeadlockError(
            f"every task waits for something that cannot happen any more:\n  {waits}"
        )
        self.record(error)
        self.cancel_all(f"the run failed with {error!r:.200}")

    def outcome(self) -> list[Any]:
        for exc in self.errors:
            if isinstance(exc, SystemExit):
                for other in self.errors:
                    if other is not exc:
                        log("an error of the run that ended with SystemExit", other)
                raise exc
        if len(self.errors) == 1:
            raise self.errors[0]
        if self.errors:
            raise BaseExceptionGroup(f"{len(self.errors)} tasks failed", self.errors)
        return [root.result() for root in self.roots]

    def record(self, exc: BaseException) -> None:
        if not any(exc is other for other in self.errors):
            self.errors.append(exc)

    # ---- a task ---------------------------------------------------------------------------------

    def step(self, task: Task) -> None:
        starting, task.state, self.current = task.state == "ready to start", "running", task
        thrown, task.thrown = task.thrown, None
        try:
            if thrown is not None:
                trap = task.coro.throw(thrown)
            elif starting and task.cancelling:
                task.coro.close()
                self.finish(task, "cancelled", None)
                return
            else:
                is_moment = isinstance(task.payload, datetime)
                trap = task.coro.send(self.moment_like(task.payload) if is_moment else None)
        except StopIteration as stop:
            self.finish(task, "returned", stop.value)
        except BaseException as exc:
            if task.cancelling and isinstance(exc, CancelledError):
                self.finish(task, "cancelled", None)
            else:
                self.finish(task, "failed", exc)
        else:
            self.park(task, trap)
        finally:
            self.current = None
            # A task must die with its last handle, but the traceback of a failure keeps this frame.
            del task

    def park(self, task: Task, trap: Any) -> None:
        task.payload = trap
        if not (trap is None or isinstance(trap, (Until, Task, datetime))):
            hint = "await one of sleeploop's own awaitables"
            self.throw(task, TypeError(f"SleepingLoop cannot wait for {trap!r}; {hint}"))
        elif task.cancelling:
            self.throw(task, CancelledError(self.reason))
        elif isinstance(trap, Task):
            task.state = "parked"
            trap.waiters.append(task)
        else:
            when = self.when(trap)
            if when <= self.now:
                self.wake(task)
                return
            task.state = "parked"
            if when < math.inf:
                self.armed += 1
                bisect.insort(self.timers, (when, self.armed, task))

    def wake(self, task: Task) -> None:
        task.state = "ready"
        self.ready.append(task)

    def throw(self, task: Task, exc: BaseException) -> None:
        task.thrown = exc
        self.wake(task)

    def cancel_all(self, reason: str) -> None:
        if self.reason is not None:
            return
        self.reason = reason
        for task in self.live:
            task.cancelling = True
            if task.state == "parked":
                self.timers = [timer for timer in self.timers if timer[2] is not task]
                if isinstance(task.payload, Task):
                    task.payload.waiters.remove(task)
                self.throw(task, CancelledError(reason))

    def finish(self, task: Task, state: str, payload: Any) -> None:
        task.state, task.payload = state, payload
        del self.live[task]
        for waiter in task.waiters:
            self.wake(waiter)
        task.waiters.clear()
        if state != "failed":
            return
        if task.root or not isinstance(payload, (Exception, CancelledError)):
            task.seen = True
            self.record(payload)
            self.cancel_all(f"task {task.name!r} failed with {payload!r:.200}")
        else:
            self.unseen.append(weakref.ref(task))

    # ---- time -----------------------------------------------------------------------------------

    def when(self, trap: Until | datetime | None) -> float:
        if trap is None:
            return self.now
        if isinstance(trap, datetime):
            return (trap.astimezone(UTC) - self.start) // timedelta(microseconds=1) * 1000
        return trap.when if trap.when < 2**63 - 1 else math.inf

    def moment_like(self, like: datetime) -> datetime:
        now = self.start + timedelta(microseconds=self.now // 1000)
        return now.astimezone(like.tzinfo) if like.tzinfo else now.astimezone().replace(tzinfo=None)


def log(message: str, exc: BaseException) -> None:
    logger.error("%s", message, exc_info=exc)


def nanoseconds(time: float | timedelta) -> float:
    if isinstance(time, timedelta):
        return time // timedelta(microseconds=1) * 1000
    if math.isinf(time):
        return time
    nearest = round(Fraction(time) * 10**9)
    return max(nearest, 1) if time > 0 else nearest


@types.coroutine
def wait_until(when: float) -> Generator[Until, None, timedelta]:
    loop = current_loop()
    began = loop.now
    yield Until(when)
    return timedelta(microseconds=math.ceil(Fraction(loop.now - began, 1000)))


# ---- the module's functions, as sleeploop has them ---------------------------------------------


async def sleep(delay: float | timedelta) -> timedelta:
    return await wait_until(current_loop().now + max(0, nanoseconds(delay)))


async def sleep_until(when: float | datetime) -> timedelta:
    if isinstance(when, datetime):
        return await wait_until(current_loop().when(when))
    return await wait_until(nanoseconds(when))


async def sleep_forever() -> None:
    await wait_until(math.inf)


async def checkpoint() -> None:
    await wait_until(0)


def current_loop() -> SleepingLoop:
    assert running is not None
    return running


def current_task() -> Task:
    task = current_loop().current
    assert task is not None
    return task


def create_task(coro: Any, *, name: str | None = None, daemon: bool = False) -> Task:
    return current_loop().create_task(coro, name=name, daemon=daemon)


def run(coro: Coroutine[Any, Any, Any], *, speed: float = math.inf) -> Any:
    return SleepingLoop(coro, speed=speed, main_only=True).run_until_complete()[0]
