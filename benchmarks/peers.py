"""The event loops under comparison, behind one small interface; each is imported only when made.

A peer gives the primitives under its own names, unwrapped, and `run(worker, rows)`: start
`worker(*row)` for each row and return when all have ended.  `style` says which form the worker
has: "await" (a coroutine function), "call" (a plain function that blocks its greenlet) or "yield"
(a generator of events).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from typing import Any, ClassVar

from benchmarks.plain_loop import PlainLoop, RealClock, VirtualClock, sleep_by

Rows = Iterable[tuple[Any, ...]]


class Peer:
    name: ClassVar[str]
    style: ClassVar[str] = "await"
    about: ClassVar[Mapping[str, str]] = {}  # what it uses for a need, when that is not obvious
    lacks: ClassVar[Mapping[str, str]] = {}  # need -> why it has none
    release: ClassVar[str | None] = None  # said in place of a version, if it has none of its own

    sleep: Any  # each of these as the peer has it
    checkpoint: Any = None  # only where it is cheaper than sleep(0)
    every: Any = None
    spawn: Any = None
    timeout: Any = None
    group: Any = None
    lock: Any = None
    queue: Any = None
    resource: Any = None

    def __init__(self, virtual: bool = False) -> None:
        raise NotImplementedError

    def run(self, worker: Callable[..., Any], rows: Rows) -> None:
        raise NotImplementedError

    @classmethod
    def version(cls) -> str:
        try:
            return cls.release or metadata.version(cls.name)
        except metadata.PackageNotFoundError:
            return "in place"


class Sleeploop(Peer):
    name = "sleeploop"
    about: ClassVar = {"virtual time": "speed=inf"}

    def __init__(self, virtual: bool = False) -> None:
        import sleeploop

        self.loop = sleeploop.SleepingLoop
        self.speed = math.inf if virtual else 1.0
        self.sleep = sleeploop.sleep
        self.checkpoint = sleeploop.checkpoint
        self.every = sleeploop.every
        self.spawn = sleeploop.create_task
        self.timeout = sleeploop.timeout
        self.group = sleeploop.TaskGroup
        self.lock = sleeploop.Lock
        self.queue = getattr(sleeploop, "Queue", None)
        self.resource = getattr(sleeploop, "Resource", None)
        self.current_loop = sleeploop.current_loop

    def run(self, worker: Callable[..., Any], rows: Rows) -> None:
        self.loop(*(worker(*row) for row in rows), speed=self.speed).run_until_complete()


class Asyncio(Peer):
    name = "asyncio"
    release: ClassVar[str | None] = "of this Python"
    about: ClassVar = {"virtual time": "a selector that jumps"}
    lacks: ClassVar = {"resources": "no resources"}

    def __init__(self, virtual: bool = False) -> None:
        import asyncio

        self.gather = asyncio.gather
        self.runner = asyncio.Runner(loop_factory=jumping_loop if virtual else None)
        self.sleep = asyncio.sleep
        self.spawn = asyncio.create_task
        self.timeout = asyncio.timeout
        self.group = asyncio.TaskGroup
        self.lock = asyncio.Lock
        self.queue = asyncio.Queue

    def run(self, worker: Callable[..., Any], rows: Rows) -> None:
        async def main() -> None:
            await self.gather(*(worker(*row) for row in rows))

        with self.runner as runner:
            runner.run(main())


def jumping_loop() -> Any:
    """asyncio in virtual time, as test helpers do it: instead of waiting, the clock is put on."""
    import asyncio
    import selectors

    class JumpingSelector(selectors.DefaultSelector):
        time = 0.0

        def select(self, timeout: float | None = None) -> Any:
            self.time += timeout or 0.0
            return super().select(0)

    class JumpingLoop(asyncio.SelectorEventLoop):
        def time(self) -> float:
            return selector.time

    selector = JumpingSelector()
    return JumpingLoop(selector)


class Uvloop(Asyncio):
    name = "uvloop"
    about: ClassVar = {}
    lacks: ClassVar = {
        "virtual time": "no virtual clock",
        "pytest": "as asyncio",
        "resources": "no resources",
    }
    release = None

    def __init__(self, virtual: bool = False) -> None:
        import asyncio

        import uvloop

        super().__init__()
        self.runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)


class Trio(Peer):
    name = "trio"
    about: ClassVar = {
        "virtual time": "MockClock(autojump_threshold=0)",
        "tasks": "a nursery each",
        "timeouts": "fail_after()",
        "groups": "a nursery",
        "cancellation": "the nursery's scope",
        "cancelling waiters": "a scope each",
        "queues": "memory channels",
    }
    lacks: ClassVar = {"pytest": "its plugin is not measured", "resources": "no resources"}

    def __init__(self, virtual: bool = False) -> None:
        import trio
        import trio.testing

        self.trio = trio
        self.clock = trio.testing.MockClock(autojump_threshold=0) if virtual else None
        self.sleep = trio.sleep
        self.checkpoint = trio.lowlevel.checkpoint
        self.spawn = self.group = trio.open_nursery
        self.timeout = trio.fail_after
        self.scope = trio.CancelScope
        self.lock = trio.Lock
        self.queue = trio.open_memory_channel

    def run(self, worker: Callable[..., Any], rows: Rows) -> None:
        async def main() -> None:
            async with self.trio.open_nursery() as nursery:
                for row in rows:
                    nursery.start_soon(worker, *row)

        self.trio.run(main, clock=self.clock)


class Curio(Peer):
    # An assert in its kernel searches the ready queue at every wake-up, so many ready tasks are
    # quadratic there.  That is how it comes, and so it is measured.
    name = "curio"
    about: ClassVar = {"timeouts": "timeout_after()"}
    lacks: ClassVar = {
        "virtual time": "no virtual clock",
        "pytest": "no plugin of its own",
        "cancellation": "one after the other, each waited for, quadratic in the number",
        "cancelling waiters": "as the workload `cancel`",
        "resources": "no resources",
    }

    def __init__(self, virtual: bool = False) -> None:
        import curio

        self.curio = curio
        self.sleep = curio.sleep
        self.spawn = curio.spawn
        self.timeout = curio.timeout_after
        self.group = curio.TaskGroup
        self.lock = curio.Lock
        self.queue = curio.Queue

    def run(self, worker: Callable[..., Any], rows: Rows) -> None:
        async def main() -> None:
            async with self.curio.TaskGroup() as group:
                for row in rows:
                    await group.spawn(worker, *row)

        self.curio.run(main)


class Gevent(Peer):
    name = "gevent"
    style = "call"
    about: ClassVar = {
        "groups": "pool.Group",
        "cancellation": "Group.kill()",
        "cancelling waiters": "Greenlet.kill(block=False)",
        "locks": "lock.BoundedSemaphore",
    }
    lacks: ClassVar = {
        "virtual time": "no virtual clock",
        "pytest": "no plugin, nor need of one",
        "resources": "no resources",
    }

    def __init__(self, virtual: bool = False) -> None:
        import gevent
        import gevent.lock
        import gevent.pool
        import gevent.queue

        self.joinall = gevent.joinall
        self.sleep = gevent.sleep
        self.spawn = gevent.spawn
        self.timeout = gevent.Timeout
        self.group = gevent.pool.Group
        self.lock = gevent.lock.BoundedSemaphore
        self.queue = gevent.queue.Queue

    def run(self, worker: Callable[..., Any], rows: Rows) -> None:
        self.joinall([self.spawn(worker, *row) for row in rows])


class Simpy(Peer):
    name = "simpy"
    style = "yield"
    about: ClassVar = {"queues": "Store"}
    lacks: ClassVar = {
        "pytest": "no plugin, nor need of one",
        "real time": "a simulator: a timeout runs from the last event, not from now",
        "timeouts": "no block with a limit",
        "groups": "no groups",
        "cancellation": "an interrupt is one event of many, and ends nothing",
        "cancelling waiters": "as the workload `cancel`",
        "locks": "nothing simpler than the Resource of `mm1`",
    }

    def __init__(self, virtual: bool = False) -> None:
        import simpy

        self.env = simpy.Environment()
        self.sleep = self.env.timeout
        self.spawn = self.env.process
        self.queue = functools.partial(simpy.Store, self.env)
        self.resource = functools.partial(simpy.Resource, self.env)

    def run(self, worker: Callable[..., Any], rows: Rows) -> None:
        for row in rows:
            self.env.process(worker(*row))
        self.env.run()


class Plain(Peer):
    name = "plain"
    release = "the datetime and heapq loop in plain_loop.py"
    about: ClassVar = {"virtual time": "a virtual now"}
    lacks: ClassVar = {
        "tasks": "no tasks that could be joined",
        "pytest": "no plugin",
        "timeouts": "no timeouts",
        "groups": "no groups",
        "cancellation": "no cancellation",
        "cancelling waiters": "no cancellation",
        "locks": "no locks",
        "queues": "no queues",
        "resources": "no resources",
    }

    def __init__(self, virtual: bool = False) -> None:
        self.clock = VirtualClock() if virtual else RealClock()
        self.sleep = sleep_by(self.clock)

    def run(self, worker: Callable[..., Any], rows: Rows) -> None:
        PlainLoop(*(worker(*row) for row in rows), clock=self.clock).run_until_complete()


PEERS: dict[str, type[Peer]] = {
    peer.name: peer for peer in (Sleeploop, Asyncio, Uvloop, Trio, Curio, Gevent, Simpy, Plain)
}
