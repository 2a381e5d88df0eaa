"""The rules of the loop in plain Python: a second opinion on order, time, cancellation and errors.

Written from the documented rules, with the plainest data there is, and for virtual time only. It
has sleeploop's names and behaviour, as far as it goes, so that one program runs on either.
"""

from __future__ import annotations

import bisect
import logging
import math
import sys
import types
import weakref
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any, NamedTuple

import sleeploop
from sleeploop import DeadlockError

logger = logging.getLogger("sleeploop")
running: SleepingLoop | None = None


# ---- what is yielded to the loop; besides: None, a datetime, or the Task to join ----------------


class Until(NamedTuple):
    """The loop time to resume at, in nanoseconds."""

    when: float


class Emptiness(NamedTuple):
    """The end of a group's block."""

    group: TaskGroup


class Turn(NamedTuple):
    """At a lock, an event and the like: until its task is taken from the line, and woken."""

    line: list[Task]


class Start:
    """Of a group: until the new task has called started(), or has ended."""

    def __init__(self, group: TaskGroup, starter: Task | None) -> None:
        self.group = group
        self.starter = starter  # while it waits
        self.task: Task | None = None
        self.values: list[Any] = []  # one, once started() has been called

    def started(self, value: Any = None) -> None:
        if self.values:
            raise RuntimeError("started() has been called before")
        if self.starter is None or self.task.done():
            message = "nobody waits for it any more, as the task or its start() has ended"
            raise RuntimeError(f"started(): {message}")
        if self.starter.cause():
            return  # what comes first, counts: start() has been cancelled
        self.values.append(value)
        self.task.join_group(self.group)
        if self.starter.state == "parked":
            self.task.waiters.remove(self.starter)
            self.task.loop.wake(self.starter)

    def outcome(self) -> Any:
        cause, self.starter = self.starter.cause(), None
        if self.values:
            return self.values[0]
        if self.task.state == "failed":
            return self.task.result()
        if cause is not None:
            raise CancelledError("", cause)
        raise RuntimeError(f"start(): {repr(self.task)[:200]} ended without a call of started()")


# ---- cancellation -------------------------------------------------------------------------------


class CancelledError(sleeploop.CancelledError):
    """One that the loop raises. `owner` is the scope that it belongs to."""

    def __init__(self, message: str, owner: CancelScope) -> None:
        super().__init__(*([message] if message else []))
        self.owner = owner

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message}: {self.owner.why()}" if message else self.owner.why()

    def __repr__(self) -> str:
        return f"CancelledError({str(self)!r})"

    source = property(lambda self: self.owner.source)
    source_task = property(lambda self: self.owner.by)
    where = property(lambda self: self.owner.where)
    reason = property(lambda self: self.owner.reason)


def owner(exc: BaseException, cause: CancelScope | None) -> CancelScope | None:
    """The scope that it belongs to; one raised by hand to `cause`, which is in force there."""
    if not isinstance(exc, sleeploop.CancelledError):
        return None
    return exc.owner if isinstance(exc, CancelledError) else cause


class CancelScope:
    """Known to its task from __enter__() to __exit__(); nothing outside of that has any effect."""

    def __init__(
        self, *, deadline: float | None = math.inf, shield: bool = False, times_out: bool = False
    ) -> None:
        self.task: Task | None = None
        self.is_new = True
        self.limit = nanoseconds(math.inf if deadline is None else deadline)  # loop time
        self.delay: float | None = None  # what the limit will be, counted from entering
        self.shielding, self.times_out = shield, times_out
        self.cancelled = self.cancelled_caught = False
        self.source = self.by = self.where = self.reason = None
        self.passed: float | None = None  # the deadline that has cancelled it
        self.tasks: list[Task] = []  # that were made in it, in that order

    def why(self) -> str:
        if self.source == "deadline":
            return f"the deadline at {self.passed / 1e9} s has passed"
        if self.source != "explicit":
            return str(self.reason)
        by = f" by task {self.by!r}" if self.by is not None else ""
        at = f" at {self.where}" if self.where is not None else ""
        reason = self.reason if isinstance(self.reason, str) else repr(self.reason)
        return f"cancelled{by}{at}{f': {reason}' if self.reason is not None else ''}"

    # ---- where it is: outwards -----------------------------------------------------------------

    def outwards(self) -> Iterator[CancelScope]:
        """This one and all around it, as far as the loop."""
        yield self
        if self.task is not None:
            stack = self.task.scopes
            index = stack.index(self)
            outer = stack[index - 1] if index else self.task.base
            yield from outer.outwards()

    def cause(self) -> CancelScope | None:
        """Whose cancellation is in force in it: the outermost that no shield holds back."""
        found = None
        for scope in self.outwards():
            if scope.cancelled:
                found = scope
            if scope.shielding:
                break
        return found

    # ---- what can be done with it ----------------------------------------------------------------

    def cancel(self, reason: object = None) -> None:
        self.cancel_called_at(sys._getframe(1), reason)

    def cancel_called_at(self, frame: types.FrameType, reason: object) -> None:
        if not self.cancelled and (self.is_new or self.task is not None):
            code = frame.f_code
            current = running.current if running is not None else None
            self.where = f"{code.co_filename}:{frame.f_lineno} in {code.co_qualname}"
            self.cancel_because("explicit", reason, current)

    def cancel_because(self, source: str, reason: object, by: Task | None = None) -> None:
        """The first time counts."""
        if self.cancelled:
            return
        self.cancelled, self.source, self.reason = True, source, reason
        self.by = by.name if by is not None else None
        if source == "deadline":
            self.passed = self.limit
        self.changed()

    def changed(self) -> None:
        """The tasks inside that it is in force in now are taken from where they wait."""
        if self.task is not None:
            loop = self.task.loop
            loop.disarm(self)
            if not self.cancelled and self.limit <= loop.now:
                self.cancel_because("deadline", None)
                return
            if not self.cancelled:
                loop.arm(self.limit, self)
            for task in self.tasks_inside():
                loop.take_if_cancelled(task)

    def tasks_inside(self) -> Iterator[Task]:
        """Outer ones first, and those of one scope in order of creation."""
        scopes = [self]
        if self.task is not None:
            yield self.task
            scopes = self.task.scopes[self.task.scopes.index(self) :]
        for scope in scopes:
            for task in list(scope.tasks):
                yield task
                scopes += task.scopes

    @property
    def cancel_called(self) -> bool:
        return self.cancelled

    @property
    def shield(self) -> bool:
        return self.shielding

    @shield.setter
    def shield(self, value: bool) -> None:
        self.shielding = value
        if self.task is not None:
            for task in self.tasks_inside():
                self.task.loop.take_if_cancelled(task)

    @property
    def deadline(self) -> float:
        if self.delay is not None:
            return (current_loop().now + self.delay) / 1e9
        return self.limit / 1e9

    @deadline.setter
    def deadline(self, when: float | None) -> None:
        self.limit, self.delay = nanoseconds(math.inf if when is None else when), None
        self.changed()

    def reschedule(self, when: float | None) -> None:
        self.deadline = when

    def when(self) -> float | None:
        return None if math.isinf(self.deadline) else self.deadline

    def expired(self) -> bool:
        return self.source == "deadline"

    # ---- the block -------------------------------------------------------------------------------

    def enter(self) -> None:
        task = current_task()
        assert self.is_new
        self.is_new = False
        if self.delay is not None:
            self.limit, self.delay = task.loop.now + self.delay, None
        self.task = task
        task.scopes.append(self)
        self.changed()

    def forget_failure(self) -> None:
        if isinstance(self.reason, Failure):
            self.reason = self.reason.short

    def leave(self) -> None:
        self.forget_failure()
        assert self.task is not None
        assert self.task is current_task()
        assert self.task.scopes.pop() is self
        self.task.loop.disarm(self)
        self.task = None

    def rest_of(self, exc: BaseException | None, cause: CancelScope | None) -> BaseException | None:
        """What is left of it without the scope's own cancellation."""
        if isinstance(exc, BaseExceptionGroup):
            own, rest = exc.split(lambda part: owner(part, cause) is self)
            return rest if own is not None else exc
        return None if exc is not None and owner(exc, cause) is self else exc

    def __enter__(self) -> CancelScope:
        self.enter()
        return self

    def __exit__(self, _: object, exc: BaseException | None, __: object) -> bool:
        cause = self.cause()
        self.leave()
        rest = self.rest_of(exc, cause)
        if rest is exc:
            return False
        self.cancelled_caught = True
        if rest is not None:
            raise rest
        if self.times_out and self.source == "deadline":
            raise TimeoutError(f"timed out: {self.why()}") from exc
        return True

    async def __aenter__(self) -> CancelScope:
        return self.__enter__()

    async def __aexit__(self, *exc: Any) -> bool:
        return self.__exit__(*exc)


class TaskGroup:
    def __init__(self) -> None:
        self.cancel_scope = CancelScope()
        self.is_open = False
        self.count = 0  # of its tasks that have not ended
        self.starting = 0  # calls of start() that have not returned
        self.leaving: Task | None = None  # waits for the others
        self.errors: list[Task | BaseException] = []

    def create_task(self, coro: Any, *, name: str | None = None) -> Task:
        self.check_open("create_task()")
        task = current_loop().spawn(coro, name, base=self.cancel_scope)
        task.group = self
        self.count += 1
        return task

    def check_open(self, function: str) -> None:
        if not self.is_open:
            how = "has not been entered; use it inside of its `async with` block"
            if not self.cancel_scope.is_new:
                how = "is finished: its block has been left"
            raise RuntimeError(f"{function}: this TaskGroup {how}")

    async def start(self, async_fn: Callable[..., Any], *args: Any) -> Any:
        self.check_open("start()")
        if current_task().cause():
            # An await in a cancelled scope raises. Its traceback keeps this frame, so that nothing
            # here may keep the task.
            await Trap(Start(self, None))
        start = Start(self, current_task())
        coro = async_fn(*args, started=start.started)
        start.task = current_loop().spawn(coro, None, base=start.starter.innermost())
        start.task.parent = self.cancel_scope.task.number
        self.starting += 1
        await Trap(start)
        self.starting -= 1
        self.check_empty()
        return start.outcome()

    def check_empty(self) -> None:
        if self.leaving is not None and not self.count and not self.starting:
            self.leaving.loop.wake(self.leaving)
            self.leaving = None

    def task_failed(self, task: Task, exc: BaseException) -> None:
        self.errors.append(task)
        self.cancel_scope.cancel_because("failure", failure(task, exc), task)

    async def __aenter__(self) -> TaskGroup:
        self.cancel_scope.enter()
        self.is_open = True
        return self

    async def __aexit__(self, _: object, exc: BaseException | None, __: object) -> bool:
        scope = self.cancel_scope
        cause = scope.cause()  # before the failure of the block is one
        if exc is not None:
            scope.cancel_because("failure", failure(current_task(), exc), current_task())
        end = Trap(Emptiness(self))
        while self.count or self.starting:
            await end
        self.is_open = False
        scope.leave()
        rest = scope.rest_of(exc, cause)
        caught = exc is not None and rest is not exc
        scope.cancelled_caught |= caught
        if rest is not None and stands_alone(rest):
            for error in self.errors:
                current_loop().record(error)
            return False
        if rest is not None and owner(rest, cause) is None:
            self.errors.append(rest)
        if errors := raised(self.errors):
            n = len(errors)
            raise BaseExceptionGroup(f"{n} error{'s' * (n > 1)} in a TaskGroup", errors)
        if rest is not None:
            return False  # the cancellation of a scope further out
        cause = current_task().cause()
        if cause is not None:  # this is an await, too
            raise CancelledError("", cause)
        return caught


# ---- tasks --------------------------------------------------------------------------------------


class Task:
    def __init__(
        self,
        loop: SleepingLoop,
        coro: Any,
        name: str | None,
        *,
        base: CancelScope,
        daemon: bool,
        root: bool,
    ) -> None:
        loop.created += 1
        self.loop, self.coro, self.daemon, self.root = loop, coro, daemon, root
        self.number = loop.created
        parent = base.task if base.task is not None else loop.current
        self.parent = parent.number if parent is not None else 0
        self.name = name if name is not None else f"Task-{loop.created}"
        self.state = "ready to start"  # then: ready, running, parked, returned, failed, cancelled
        self.payload: Any = None  # what it yielded; when it is done: its result or exception, or
        # the scope that cancelled it
        self.since = 0  # when it began to wait, if it is parked
        self.thrown: BaseException | None = None  # at its next step
        self.taken = False  # by a cancellation: CancelledError is thrown at its next step
        self.seen = False  # somebody learned of its failure
        self.raised_on: BaseException | None = None  # the context of that, as it was then
        self.waiters: list[Task] = []
        self.base = base  # the scope that it was made in
        base.tasks.append(self)
        self.scopes: list[CancelScope] = []  # that it has entered; first that of cancel()
        self.own_scope: CancelScope | None = None  # that of cancel()
        self.group: TaskGroup | None = None

    def innermost(self) -> CancelScope:
        return self.scopes[-1] if self.scopes else self.base

    def cause(self) -> CancelScope | None:
        return self.innermost().cause()

    def cause_to_throw(self) -> CancelScope:
        """Somebody may have raised a shield since it was taken from where it waited."""
        cancelled = [scope for scope in self.innermost().outwards() if scope.cancelled]
        return self.cause() or cancelled[-1]

    def join_group(self, group: TaskGroup) -> None:
        self.group = group
        group.count += 1
        for moved in self.move(group.cancel_scope):
            self.loop.take_if_cancelled(moved)
            for scope in moved.scopes[:1]:
                for task in scope.tasks_inside():
                    self.loop.take_if_cancelled(task)

    def starting(self) -> Task | None:
        """The task that it waits for in start(), and that belongs to it."""
        if self.state == "parked" and isinstance(self.payload, Start) and not self.scopes:
            return self.payload.task
        return None

    def move(self, base: CancelScope) -> list[Task]:
        """What has moved: those that belong to it come along."""
        child = self.starting()
        self.base.tasks.remove(self)
        self.base = base
        base.tasks.append(self)
        return [self, *(child.move(base) if child else ())]

    def cancel(self, reason: object = None) -> bool:
        """As if a scope around all that it does were cancelled."""
        if self.done():
            return False
        if self.own_scope is None:
            self.own_scope = own = CancelScope()
            child = self.starting()
            if child:
                child.move(own)
            own.is_new, own.task = False, self
            self.scopes.insert(0, own)
            own.cancel_called_at(sys._getframe(1), reason)
        return True

    def __await__(self) -> Generator[Any, Any, Any]:
        if not self.done() and self is self.loop.current:
            error = RuntimeError(f"await: {self!r} cannot wait for itself")
            del self  # see SleepingLoop.step()
            raise error
        if not self.done() or (self.loop.current and self.loop.current.cause()):
            yield self
        return self.result()

    def done(self) -> bool:
        return self.state in ("returned", "failed", "cancelled")

    def cancelled(self) -> bool:
        return self.state == "cancelled"

    @property
    def wake_time(self) -> float | None:
        if self.state != "parked" or not isinstance(self.payload, (Until, datetime)):
            return None
        return next((when / 1e9 for when, _, task in self.loop.timers if task is self), math.inf)

    def exception(self) -> BaseException | None:
        if self.state == "cancelled":
            raise CancelledError(f"task {self.name!r} was cancelled", self.payload)
        self.seen = True
        if self.state == "failed" and sys.exception() is not self.payload:
            self.restore()
        return self.payload if self.state == "failed" else None

    def restore(self) -> None:
        """Make the exception again what it was when the task ended."""
        above = self.raised_on
        while above is not None and above is not self.payload:
            above = above.__context__
        self.payload.__context__ = self.raised_on if above is None else None  # no circle

    def result(self) -> Any:
        exc = self.exception()
        if exc is not None:
            self.restore()
            raise exc
        return self.payload

    def report(self) -> None:
        self.seen = True
        self.restore()
        if not self.daemon:
            self.loop.record(self.payload)
        log(f"task {self.name!r} failed and nobody retrieved its exception", self.payload)

    def __del__(self) -> None:
        if self.state == "failed" and not self.seen:
            self.report()

    def __repr__(self) -> str:
        doing = self.state
        if doing == "parked":
            doing = self.waits_for()
        elif doing in ("returned", "failed"):
            doing += f"{' with' * (doing == 'failed')} {self.payload!r:.200}"
        cancelling = ", being cancelled" if not self.done() and self.cause() else ""
        return f"<Task {self.name!r} {self.coro.__qualname__}: {doing}{cancelling}>"

    def waits_for(self) -> str:
        if isinstance(self.payload, Task):
            return f"waiting for task {self.payload.name!r}"
        if isinstance(self.payload, Start):
            return f"waiting for task {self.payload.task.name!r} to start"
        if isinstance(self.payload, Emptiness):
            n = self.payload.group.count + self.payload.group.starting
            return f"waiting for the {n} task{'s' * (n > 1)} of its TaskGroup"
        return "sleeping until cancelled"  # as in a deadlock


class Failure(str):
    short: str  # what is kept of it when the block is over


def failure(task: Task, exc: BaseException) -> Failure:
    words = Failure(f"task {task.name!r} failed with {exc!r:.200}")
    is_of_scope = isinstance(exc, CancelledError) and exc.source != "unknown"
    is_plain = not is_of_scope and not isinstance(exc, BaseExceptionGroup)
    words.short = words if is_plain else f"task {task.name!r} failed with {type(exc).__name__}"
    return words


def raised(failures: list[Task | BaseException]) -> list[BaseException]:
    """Each exception once, as the first of the tasks that failed with it did."""
    found: dict[int, BaseException] = {}
    for failure in failures:
        exc = failure.payload if isinstance(failure, Task) else failure
        if id(exc) not in found:
            found[id(exc)] = exc
            if isinstance(failure, Task):
                failure.restore()
    return list(found.values())


def stands_alone(exc: BaseException) -> bool:
    return isinstance(exc, (KeyboardInterrupt, SystemExit))


class SleepingLoop:
    def __init__(
        self,
        *coros: Any,
        speed: float = math.inf,
        shuffle: Sequence[int] | None = None,
        main_only: bool = False,
    ) -> None:
        assert speed == math.inf
        self.choices = iter(shuffle) if shuffle is not None else None
        self.now = 0
        self.start = datetime(2000, 1, 1).astimezone(UTC)
        self.main_only = main_only
        self.created = self.armed = self.wakeups = self.steps = 0
        self.root = CancelScope()  # around all tasks; to cancel it is to end the run
        self.current: Task | None = None
        self.ready: deque[Task] = deque()
        # Sorted: by time, then first come.
        self.timers: list[tuple[float, int, Task | CancelScope]] = []
        self.live: dict[Task, None] = {}  # in order of creation
        self.locks: dict[Any, None] = {}  # that tasks have asked for: told when one has ended
        self.unseen: list[weakref.ref[Task]] = []  # failures, in order
        self.errors: list[Task | BaseException] = []
        self.roots = [self.spawn(coro, None, base=self.root, root=True) for coro in coros]

    def spawn(
        self,
        coro: Any,
        name: str | None,
        *,
        base: CancelScope,
        daemon: bool = False,
        root: bool = False,
    ) -> Task:
        task = Task(self, coro, name, base=base, daemon=daemon, root=root)
        self.live[task] = None
        self.ready.append(task)
        return task

    def create_task(self, coro: Any, *, name: str | None = None, daemon: bool = False) -> Task:
        return self.spawn(coro, name, base=self.root, daemon=daemon)

    def time_ns(self) -> int:
        return self.now

    def tasks(self) -> list[Task]:
        return list(self.live)

    def stats(self) -> types.SimpleNamespace:
        return types.SimpleNamespace(wakeups=self.wakeups, steps=self.steps)

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
                self.fire(self.timers.pop(0)[2])
            for _ in range(len(self.ready)):
                self.step(self.next_task())
        for reference in self.unseen:
            task = reference()
            if task is not None and not task.seen:
                task.report()
        running = None
        self.root.forget_failure()
        return self.outcome()

    def next_task(self) -> Task:
        """The one that has waited longest, or the one that is chosen if there is a choice."""
        choice = 0
        if self.choices is not None and len(self.ready) > 1:
            choice = min(next(self.choices, 0), len(self.ready) - 1)
        task = self.ready[choice]
        del self.ready[choice]
        return task

    def is_over(self) -> bool:
        if self.main_only:
            return self.roots[0].done()
        return all(task.daemon for task in self.live)

    def let_time_pass(self) -> None:
        if self.timers:
            self.now = int(self.timers[0][0])
            return
        assert not self.root.cancelled, "a program must not wait for ever behind a shield"
        message = "every task waits for something that cannot happen any more:"
        self.record(DeadlockError(message + "".join(self.tree(0, "\n  "))))
        self.cancel_all("every task waits: a deadlock")

    def tree(self, parent: int, indent: str) -> Iterator[str]:
        """What the tasks wait for, each below the one that made it, if that is still there."""
        numbers = {task.number for task in self.live}
        for task in self.live:
            if (task.parent if task.parent in numbers else 0) == parent:
                yield f"{indent}{repr(task)[1:-1]}, since {round(task.since / 1e9, 3)} s"
                yield from self.tree(task.number, indent + "  ")

    def outcome(self) -> list[Any]:
        errors = raised(self.errors)
        for exc in errors:
            if isinstance(exc, SystemExit):
                for other in errors:
                    if other is not exc:
                        log("an error of the run that ended with SystemExit", other)
                raise exc
        if len(errors) == 1:
            raise errors[0]
        if errors:
            raise BaseExceptionGroup(f"{len(errors)} failures", errors)
        return [root.result() for root in self.roots]

    def record(self, failure: Task | BaseException) -> None:
        self.errors.append(failure)

    # ---- a task ---------------------------------------------------------------------------------

    def step(self, task: Task) -> None:
        starting, task.state, self.current = task.state == "ready to start", "running", task
        thrown, task.thrown = task.thrown, None
        if task.taken:
            task.taken = False
            thrown = CancelledError("", task.cause_to_throw())
        try:
            if thrown is None and starting and task.cause():
                task.coro.close()
                self.finish(task, "cancelled", task.cause())
                return
            self.steps += 1
            if thrown is not None:
                trap = task.coro.throw(thrown)
            else:
                is_moment = isinstance(task.payload, datetime)
                trap = task.coro.send(self.moment_like(task.payload) if is_moment else None)
        except StopIteration as stop:
            self.finish(task, "returned", stop.value)
        except BaseException as exc:
            cancelled_by = owner(exc, task.cause())
            if cancelled_by in task.innermost().outwards():
                self.finish(task, "cancelled", cancelled_by)
            else:
                self.finish(task, "failed", exc)
        else:
            self.park(task, trap)
        finally:
            self.current = None
            # A task must die with its last handle, but the traceback of a failure keeps this frame.
            del task

    def park(self, task: Task, trap: Any) -> None:
        if not (isinstance(trap, Emptiness) and trap is task.payload):
            task.since = self.now  # else the wait goes on: its group has got another task
        task.payload = trap
        if not (trap is None or isinstance(trap, (Until, Task, datetime, Emptiness, Start, Turn))):
            hint = "await one of sleeploop's own awaitables, or yield a datetime or None"
            task.thrown = TypeError(f"SleepingLoop cannot wait for {trap!r}; {hint}")
            self.wake(task)
        elif task.cause() and (not waits_for_its_own(trap)):
            task.taken = True
            self.wake(task)
        elif isinstance(trap, Task):
            task.state = "parked"
            trap.waiters.append(task)
        elif isinstance(trap, Start):
            task.state = "parked"
            trap.task.waiters.append(task)
        elif isinstance(trap, Turn):
            task.state = "parked"
            trap.line.append(task)
        elif isinstance(trap, Emptiness):
            task.state = "parked"
            trap.group.leaving = task
        else:
            when = self.when(trap)
            if when <= self.now:
                self.wake(task)
                return
            task.state = "parked"
            self.arm(when, task)

    def arm(self, when: float, whose: Task | CancelScope) -> None:
        if when < math.inf:
            self.armed += 1
            bisect.insort(self.timers, (when, self.armed, whose))

    def disarm(self, whose: Task | CancelScope) -> None:
        self.timers = [timer for timer in self.timers if timer[2] is not whose]

    def fire(self, whose: Task | CancelScope) -> None:
        if isinstance(whose, Task):
            self.wake(whose)
        else:
            whose.cancel_because("deadline", None)

    def wake(self, task: Task) -> None:
        task.state = "ready"
        self.ready.append(task)

    def take_if_cancelled(self, task: Task) -> None:
        """What comes first, counts: one that has been woken already keeps what it was woken for."""
        if task.state != "parked" or not task.cause() or waits_for_its_own(task.payload):
            return
        self.disarm(task)
        if isinstance(task.payload, Task):
            task.payload.waiters.remove(task)
        elif isinstance(task.payload, Turn):
            task.payload.line.remove(task)
        task.taken = True
        self.wake(task)

    def cancel_all(self, reason: str, by: Task | None = None) -> None:
        if self.root.cancelled:
            return
        self.root.cancel_because("shutdown", reason, by)
        for task in self.root.tasks_inside():
            self.take_if_cancelled(task)

    def finish(self, task: Task, state: str, payload: Any) -> None:
        task.state, task.payload = state, payload
        task.raised_on = payload.__context__ if state == "failed" else None
        del self.live[task]
        task.base.tasks.remove(task)
        for scope in task.scopes:
            scope.task = None  # nothing can be cancelled there any more
        for waiter in task.waiters:
            self.wake(waiter)
        task.waiters.clear()
        group = task.group
        if state == "failed":
            if group is not None and not stands_alone(payload):
                group.task_failed(task, payload)
            elif task.root or not isinstance(payload, (Exception, sleeploop.CancelledError)):
                task.seen = True
                self.record(task)
                self.cancel_all(failure(task, payload), task)
            else:
                self.unseen.append(weakref.ref(task))
        if group is not None:
            task.seen = True  # the group has it
            if state == "cancelled" and payload is group.cancel_scope:
                group.cancel_scope.cancelled_caught = True
            group.count -= 1
            group.check_empty()
        for lock in list(self.locks):
            lock.task_ended(task)

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


class Trap:
    def __init__(self, what: Emptiness | Start | Turn) -> None:
        self.what = what

    def __await__(self) -> Generator[Emptiness | Start | Turn, None, None]:
        yield self.what


def waits_for_its_own(trap: Any) -> bool:
    """Waiting for one's own tasks is not interrupted: they are cancelled as well, and end first."""
    return isinstance(trap, Emptiness) or (isinstance(trap, Start) and trap.task is not None)


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


def run(
    coro: Coroutine[Any, Any, Any],
    *,
    speed: float = math.inf,
    shuffle: Sequence[int] | None = None,
) -> Any:
    loop = SleepingLoop(coro, speed=speed, shuffle=shuffle, main_only=True)
    return loop.run_until_complete()[0]


def move_on_at(when: float | None, *, shield: bool = False) -> CancelScope:
    return CancelScope(deadline=when, shield=shield)


def move_on_after(delay: float | timedelta | None, *, shield: bool = False) -> CancelScope:
    scope = CancelScope(shield=shield)
    if delay is not None:
        scope.delay = max(0, nanoseconds(delay))
    return scope


def timeout_at(when: float | None, *, shield: bool = False) -> CancelScope:
    return CancelScope(deadline=when, shield=shield, times_out=True)


def timeout(delay: float | timedelta | None, *, shield: bool = False) -> CancelScope:
    scope = move_on_after(delay, shield=shield)
    scope.times_out = True
    return scope


def current_effective_deadline() -> float:
    task = current_task()
    if task.cause():
        return -math.inf
    earliest = math.inf
    for scope in task.innermost().outwards():
        earliest = min(earliest, scope.deadline)
        if scope.shielding:
            break
    return earliest
