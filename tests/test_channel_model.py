"""Random programs on channels, against the rules in plain Python.

A program is a script for each of some tasks, which share the ends of one channel. What each
operation comes to, in which order, and what every end says of itself after it, has to be what the
reference says: a queue of ready tasks, and lists.
"""

import math
import random
from collections import deque
from collections.abc import Generator, Iterator
from typing import Any

from sleeploop import (
    BrokenResourceError,
    CancelScope,
    ClosedResourceError,
    EndOfChannel,
    WouldBlock,
    checkpoint,
    create_task,
    open_channel,
)
from tests.helpers import virtual
from tests.twins import assert_same, come_by, each_seed

ERRORS = (
    BrokenResourceError,
    ClosedResourceError,
    EndOfChannel,
    StopAsyncIteration,
    WouldBlock,
)
WAITING = ("send", "receive", "next", "loose")


# ---- programs ------------------------------------------------------------------------------------


def make_program(seed: int) -> tuple[float, list[list[tuple[Any, ...]]]]:
    """A size, and scripts; the last one is of the task that makes the others."""
    rng = random.Random(seed)
    size = rng.choice([0, 0, 1, 2, 3, math.inf])
    closing = rng.choice([0.2, 1, 2])
    operations = {
        "send": 9, "receive": 6, "next": 2, "loose": 3, "send_nowait": 3, "receive_nowait": 3,
        "clone_send": 1, "clone_receive": 1, "close_send": closing, "close_receive": closing,
        "cancel": 3, "let_go": 3, "checkpoint": 6,
    }  # fmt: skip
    values = iter(range(10**6))

    def script(length: int, never: tuple[str, ...] = ()) -> Iterator[tuple[Any, ...]]:
        for kind in rng.choices([*operations], [*operations.values()], k=length):
            if kind not in never:
                yield (kind, rng.randrange(100), next(values), rng.random() < 0.05)

    n = rng.randint(1, 8)
    return size, [
        *(list(script(rng.randint(1, 12))) for _ in range(n)),
        list(script(40, never=WAITING)),
    ]


# ---- the reference -------------------------------------------------------------------------------


class RefEnd:
    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.closed = False


class RefTask:
    """`outcome`: None while it is parked; then what comes of the wait."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.done = False
        self.end: Any = None
        self.outcome: Any = None
        self.value: Any = None
        self.loose = False


class Refused(Exception):
    """By the name of the error."""


class Reference:
    def __init__(self, size: float, scripts: list[list[tuple[Any, ...]]]) -> None:
        self.size, self.scripts = size, scripts
        self.buffer: list[int] = []
        self.sends, self.receives = [RefEnd("SendChannel")], [RefEnd("ReceiveChannel")]
        self.senders: list[RefTask] = []
        self.receivers: list[RefTask] = []
        self.tasks = [RefTask(i) for i in range(len(scripts) - 1)]
        self.log: list[Any] = []

    def run(self) -> list[Any]:
        main = RefTask(len(self.scripts) - 1)
        steps = {task: self.play(task) for task in self.tasks}
        steps[main] = self.play_main(main)
        self.ready = deque([main])
        while self.ready:
            task = self.ready.popleft()
            if next(steps[task], "done") == "done":
                task.done = True
        assert main.done
        return self.log

    def play_main(self, main: RefTask) -> Generator[None]:
        self.ready.extend(self.tasks)
        yield from self.play(main)
        while not all(task.done for task in self.tasks):
            for task in self.tasks:
                self.cancel(task)
            self.ready.append(main)
            yield

    def play(self, task: RefTask) -> Generator[None]:
        for operation in self.scripts[task.index]:
            try:
                result = yield from self.perform(task, *operation)
            except Refused as error:
                result = str(error)
            self.log.append((task.index, operation, result, self.snapshot()))

    def snapshot(self) -> list[str]:
        counts = [sum(not end.closed for end in ends) for ends in (self.sends, self.receives)]
        size = "" if self.size == math.inf else f" of {self.size}"
        ends = ""
        if counts != [1, 1]:
            ends = f", open ends: {counts[0]} to send, {counts[1]} to receive"
        texts = []
        for end in self.sends + self.receives:
            n = sum(task.end is end for task in self.senders + self.receivers)
            waiting = f", {n} waiting" if n else ""
            closed = "closed, " if end.closed else ""
            fill = f"{len(self.buffer)}{size} buffered"
            texts.append(f"<{end.kind} ({closed}{fill}{ends}){waiting}>")
        return texts

    def wake(self, task: RefTask, outcome: Any) -> None:
        task.outcome = outcome
        self.ready.append(task)

    def put(self, end: RefEnd, value: int) -> bool:
        if end.closed:
            raise Refused("ClosedResourceError")
        if all(end.closed for end in self.receives):
            raise Refused("BrokenResourceError")
        if self.receivers:
            receiver = self.receivers.pop(0)
            receiver.value = value
            self.wake(receiver, "got")
        elif len(self.buffer) < self.size:
            self.buffer.append(value)
        else:
            return False
        return True

    def get(self, end: RefEnd) -> Any:
        if end.closed:
            raise Refused("ClosedResourceError")
        value = None
        if self.buffer:
            value = self.buffer.pop(0)
            if self.senders and len(self.buffer) < self.size:
                self.buffer.append(self.senders[0].value)
                self.wake(self.senders.pop(0), "sent")
        elif self.senders:
            value = self.senders[0].value
            self.wake(self.senders.pop(0), "sent")
        elif all(end.closed for end in self.sends):
            raise Refused("EndOfChannel")
        return value

    def give_back(self, value: int) -> None:
        if self.receivers:
            receiver = self.receivers.pop(0)
            receiver.value = value
            self.wake(receiver, "got")
        elif not all(end.closed for end in self.receives):
            self.buffer.insert(0, value)

    def close(self, end: RefEnd) -> None:
        if end.closed:
            return
        end.closed = True
        for place in (self.senders, self.receivers):
            for task in [task for task in place if task.end is end]:
                place.remove(task)
                self.wake(task, "ClosedResourceError")
        if end in self.sends and all(end.closed for end in self.sends):
            while self.receivers:
                self.wake(self.receivers.pop(0), "EndOfChannel")
        if end in self.receives and all(end.closed for end in self.receives):
            while self.senders:
                self.wake(self.senders.pop(0), "BrokenResourceError")
            self.buffer.clear()

    def cancel(self, task: RefTask) -> None:
        for place in (self.senders, self.receivers):
            if task in place:
                place.remove(task)
                self.wake(task, "cancelled")

    def perform(
        self, task: RefTask, kind: str, number: int, value: int, cancelled: bool
    ) -> Generator[None, None, Any]:
        send = self.sends[number % len(self.sends)]
        receive = self.receives[number % len(self.receives)]
        other = self.tasks[number % len(self.tasks)]
        if cancelled and kind in WAITING:
            self.ready.append(task)
            yield
            return "cancelled"
        if kind == "send":
            return (yield from self.send(task, send, value))
        if kind in ("receive", "next", "loose"):
            try:
                return (yield from self.receive(task, receive, kind == "loose"))
            except Refused as error:
                if kind == "next" and str(error) == "EndOfChannel":
                    return "StopAsyncIteration"
                raise
        if kind == "send_nowait":
            return "sent" if self.put(send, value) else "WouldBlock"
        if kind == "receive_nowait":
            got = self.get(receive)
            return "WouldBlock" if got is None else got
        if kind.startswith("clone"):
            end, ends = (send, self.sends) if kind == "clone_send" else (receive, self.receives)
            if end.closed:
                raise Refused("ClosedResourceError")
            ends.append(RefEnd(end.kind))
        elif kind.startswith("close"):
            self.close(send if kind == "close_send" else receive)
        elif kind == "cancel":
            self.cancel(other)
        elif kind == "let_go":
            if other.loose and other.outcome not in (None, "cancelled", "let go"):
                if other.outcome == "got":
                    self.give_back(other.value)
                other.outcome = "let go"
        elif kind == "checkpoint":
            self.ready.append(task)
            yield
        return None

    def send(self, task: RefTask, end: RefEnd, value: int) -> Generator[None, None, Any]:
        if self.put(end, value):
            return "sent"
        task.end, task.value, task.outcome = end, value, None
        self.senders.append(task)
        yield
        if task.outcome in ("sent", "cancelled"):
            return task.outcome
        raise Refused(task.outcome)

    def receive(self, task: RefTask, end: RefEnd, loose: bool) -> Generator[None, None, Any]:
        value = self.get(end)
        if value is not None:
            return value
        task.end, task.outcome, task.loose = end, None, loose
        self.receivers.append(task)
        yield
        task.loose = False
        if task.outcome == "EndOfChannel" and self.buffer and not end.closed:
            return self.buffer.pop(0)
        if task.outcome == "got":
            return task.value
        if task.outcome in ("cancelled", "let go"):
            return task.outcome
        raise Refused(task.outcome)


# ---- the real thing ------------------------------------------------------------------------------


class Loose:
    """Awaits something, until it is told to let go of it."""

    def __init__(self, wait: Any) -> None:
        self.wait = wait
        self.parked = self.gone = False

    def __await__(self) -> Generator[Any, Any, Any]:
        try:
            trap = self.wait.send(None)
        except StopIteration as stop:
            return stop.value
        self.parked = True
        yield trap
        self.parked = False
        if self.gone:
            return "let go"
        try:
            self.wait.send(None)
        except StopIteration as stop:
            return stop.value
        raise AssertionError

    def let_go(self) -> None:
        self.gone = True
        self.wait.close()


class Real:
    def __init__(self, size: float, scripts: list[list[tuple[Any, ...]]]) -> None:
        self.size, self.scripts = size, scripts
        self.log: list[Any] = []

    async def main(self) -> list[Any]:
        send, receive = open_channel(self.size)
        self.sends, self.receives = [send], [receive]
        n = len(self.scripts) - 1
        self.scopes: list[Any] = [None] * (n + 1)
        self.loose: list[Any] = [None] * (n + 1)
        self.tasks = [create_task(self.play(i)) for i in range(n)]
        await self.play(n)
        while not all(task.done() for task in self.tasks):
            for i in range(n):
                self.cancel(i)
            await checkpoint()
        return self.log

    async def play(self, index: int) -> None:
        for operation in self.scripts[index]:
            try:
                result = await self.perform(index, *operation)
            except ERRORS as error:
                result = type(error).__name__
            texts = [repr(end) for end in self.sends + self.receives]
            self.log.append((index, operation, result, texts))

    def cancel(self, index: int) -> None:
        if self.scopes[index] is not None:
            self.scopes[index].cancel()

    async def wait(self, index: int, awaitable: Any, cancelled: bool) -> Any:
        result = "cancelled"
        with CancelScope() as scope:
            self.scopes[index] = scope
            if cancelled:
                scope.cancel()
            try:
                result = await awaitable
            finally:
                self.scopes[index] = self.loose[index] = None
        return result

    async def perform(self, index: int, kind: str, number: int, value: int, cancelled: bool) -> Any:
        send = self.sends[number % len(self.sends)]
        receive = self.receives[number % len(self.receives)]
        other = number % len(self.tasks)
        match kind:
            case "send":
                result = await self.wait(index, send.send(value), cancelled)
                return "sent" if result is None else result
            case "receive":
                return await self.wait(index, receive.receive(), cancelled)
            case "next":
                return await self.wait(index, anext(receive), cancelled)
            case "loose":
                self.loose[index] = Loose(receive.receive())
                return await self.wait(index, self.loose[index], cancelled)
            case "send_nowait":
                send.send_nowait(value)
                return "sent"
            case "receive_nowait":
                return receive.receive_nowait()
            case "clone_send":
                self.sends.append(send.clone())
            case "clone_receive":
                self.receives.append(receive.clone())
            case "close_send":
                send.close()
            case "close_receive":
                receive.close()
            case "cancel":
                self.cancel(other)
            case "let_go":
                loose = self.loose[other]
                if loose is not None and loose.parked and self.tasks[other].waiting_on is None:
                    loose.let_go()
            case "checkpoint":
                await checkpoint()
        return None


# ---- compared ------------------------------------------------------------------------------------


def check(seed: int) -> list[Any]:
    program = make_program(seed)
    expected = Reference(*program).run()
    real = virtual(Real(*program).main())
    assert_same(real, expected, program)
    return real


def test_random_programs():
    each_seed(check, times=25)


WANTED = {
    "send": ["sent", "cancelled", "BrokenResourceError", "ClosedResourceError"],
    "receive": ["value", "cancelled", "EndOfChannel", "ClosedResourceError"],
    "next": ["value", "cancelled", "StopAsyncIteration", "ClosedResourceError"],
    "loose": ["value", "cancelled", "EndOfChannel", "ClosedResourceError", "let go"],
    "send_nowait": ["sent", "WouldBlock", "BrokenResourceError", "ClosedResourceError"],
    "receive_nowait": ["value", "WouldBlock", "EndOfChannel", "ClosedResourceError"],
    "clone_send": [None, "ClosedResourceError"],
    "clone_receive": [None, "ClosedResourceError"],
}


def test_the_programs_come_to_everything():
    def kinds(seed: int) -> Iterator[Any]:
        for _, operation, result, _ in check(seed):
            yield operation[0], "value" if isinstance(result, int) else result

    come_by(kinds, [(kind, result) for kind, results in WANTED.items() for result in results], 300)
