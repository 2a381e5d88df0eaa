"""gather(), as_completed() and wait_for() beside asyncio, and random ones beside their rules."""

from __future__ import annotations

import asyncio
import math
import selectors
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sleeploop
from sleeploop import (
    CancelledError,
    CancelScope,
    current_loop,
    current_task,
    gather,
    move_on_after,
    sleep,
    wait_for,
)
from tests.helpers import now, virtual
from tests.twins import examples

# ---- the same program on asyncio -----------------------------------------------------------------


class JumpingSelector(selectors.SelectSelector):
    """Instead of waiting, time jumps."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        assert timeout is not None, "asyncio waits for ever"
        self.now += timeout
        return super().select(0)


class JumpingLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.jumping = JumpingSelector()
        super().__init__(self.jumping)

    def time(self) -> float:
        return self.jumping.now


def on_asyncio(program: Callable[..., Awaitable[Any]]) -> Any:
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        time = runner.get_loop().time
        return runner.run(noted(program, SimpleNamespace(**vars(asyncio), now=time)))


def on_sleeploop(program: Callable[..., Awaitable[Any]]) -> Any:
    return virtual(noted(program, SimpleNamespace(**vars(sleeploop), now=now)))


async def noted(program: Callable[..., Awaitable[Any]], api: Any) -> Any:
    """What a program returns or raises, what it logs, and when; in no order within a moment."""
    log: list[Any] = []

    def note(what: Any) -> Any:
        log.append((comparable(what), api.now()))
        return what

    try:
        note(("returned", await program(api, note)))
    except (Exception, api.CancelledError) as error:
        note(("raised", error))
    return sorted(log, key=lambda entry: (entry[1], repr(entry)))


def comparable(value: Any) -> Any:
    if isinstance(value, BaseException):
        told = isinstance(value, ValueError)
        return (type(value).__name__, *(value.args if told else ()))
    if isinstance(value, (list, tuple)):
        return [comparable(item) for item in value]
    return value


class Kit:
    """What the programs have in common."""

    def __init__(self, api: Any, note: Callable[[Any], Any]) -> None:
        self.api, self.note = api, note

    async def give(self, value: Any, delay: float) -> Any:
        try:
            await self.api.sleep(delay)
        except self.api.CancelledError:
            self.note(("cancelled", value))
            raise
        return value

    async def fail(self, what: str, delay: float) -> Any:
        await self.give(what, delay)
        raise ValueError(what)

    async def stubborn(self, value: Any, delay: float) -> Any:
        try:
            await self.api.sleep(delay)
        except self.api.CancelledError:
            self.note(("went on", value))
        return value

    async def fail_in_cleanup(self, what: str) -> Any:
        try:
            await self.api.sleep(1000)
        finally:
            raise ValueError(what)

    async def later(self, delay: float, call: Callable[[], Any]) -> None:
        await self.api.sleep(delay)
        call()

    async def attempt(self, aw: Awaitable[Any]) -> Any:
        try:
            return await aw
        except (Exception, self.api.CancelledError) as error:
            return error


async def results_in_order(api, note):
    kit = Kit(api, note)
    task = api.create_task(kit.give("t", 2))
    return await api.gather(kit.give("c", 3), task, kit.give("a", 1))


async def gather_of_nothing(api, note):
    return await api.gather()


async def gather_of_one_task_twice(api, note):
    task = api.create_task(Kit(api, note).give("t", 2))
    return await api.gather(task, task)


async def first_failure(api, note):
    kit = Kit(api, note)
    return await api.gather(kit.give("a", 1), kit.fail("f", 2), kit.give("b", 1.5))


async def failure_of_a_task(api, note):
    kit = Kit(api, note)
    return await api.gather(api.create_task(kit.fail("f", 2)), kit.give("b", 1.5))


async def return_exceptions(api, note):
    kit = Kit(api, note)
    cancelled = api.create_task(kit.give("cancelled", 9))
    api.create_task(kit.later(1.5, cancelled.cancel))
    return await api.gather(
        kit.fail("f", 1),
        kit.give("a", 3),
        cancelled,
        api.create_task(kit.fail("g", 2)),
        return_exceptions=True,
    )


async def cancelled_error_by_hand(api, note):
    async def raise_it():
        await api.sleep(1)
        raise api.CancelledError

    kit = Kit(api, note)
    note(await api.gather(raise_it(), kit.give("a", 3), return_exceptions=True))
    return await api.gather(raise_it(), kit.give("a", 0.5))


async def a_child_cancels_itself(api, note):
    async def cancel_itself():
        api.current_task().cancel()
        await api.sleep(1)

    kit = Kit(api, note)
    return await api.gather(cancel_itself(), kit.give("a", 3), return_exceptions=True)


async def gather_is_cancelled(api, note):
    kit = Kit(api, note)

    async def caller():
        return await api.gather(kit.give("a", 5), kit.give("b", 6), kit.give("c", 1))

    task = api.create_task(caller())
    api.create_task(kit.later(3, task.cancel))
    note(await kit.attempt(task))
    return task.cancelled()


async def gather_with_return_exceptions_is_cancelled(api, note):
    kit = Kit(api, note)

    async def caller():
        return await api.gather(
            kit.fail("f", 1), kit.give("a", 5), kit.give("c", 1), return_exceptions=True
        )

    task = api.create_task(caller())
    api.create_task(kit.later(3, task.cancel))
    return await kit.attempt(task)


async def nested_gathers(api, note):
    kit = Kit(api, note)
    inner = api.gather(kit.fail("f", 1), kit.give("a", 2), return_exceptions=True)
    return await api.gather(inner, kit.give("b", 3), api.gather())


async def nested_gathers_are_cancelled(api, note):
    kit = Kit(api, note)

    async def caller():
        inner = api.gather(kit.give("a", 5), kit.give("b", 6))
        return await api.gather(inner, kit.give("c", 7))

    task = api.create_task(caller())
    api.create_task(kit.later(3, task.cancel))
    return await kit.attempt(task)


async def wait_for_in_time(api, note):
    kit = Kit(api, note)
    for limit in (None, 5, 2.5):
        note(await api.wait_for(kit.give("a", 2), limit))
        note(await api.wait_for(api.create_task(kit.give("t", 2)), limit))
        note(await kit.attempt(api.wait_for(kit.fail("f", 2), limit)))


async def wait_for_out_of_time(api, note):
    kit = Kit(api, note)
    for limit in (1, 0.5):
        note(await kit.attempt(api.wait_for(kit.give("a", 2), limit)))
        note(await kit.attempt(api.wait_for(kit.fail_in_cleanup("f"), limit)))
        note(await kit.attempt(api.wait_for(kit.stubborn("s", 2), limit)))


async def wait_for_without_time(api, note):
    kit = Kit(api, note)
    for limit in (0, -1):
        task, failed = api.create_task(kit.give("t", 1)), api.create_task(kit.fail("f", 1))
        await api.sleep(2)
        note(await api.wait_for(task, limit))
        note(await kit.attempt(api.wait_for(failed, limit)))
        note(await kit.attempt(api.wait_for(api.sleep(3), limit)))


async def wait_for_is_cancelled(api, note):
    kit = Kit(api, note)
    task = api.create_task(api.wait_for(kit.give("a", 9), 5))
    api.create_task(kit.later(3, task.cancel))
    note(await kit.attempt(task))
    return task.cancelled()


async def wait_for_of_a_cancelled_task(api, note):
    kit = Kit(api, note)
    task = api.create_task(kit.give("a", 9))
    api.create_task(kit.later(3, task.cancel))
    return await kit.attempt(api.wait_for(task, 5))


async def nested_wait_for(api, note):
    kit = Kit(api, note)

    async def inner(limit):
        try:
            return await api.wait_for(kit.give("a", 9), limit)
        except TimeoutError:
            return "inner"

    note(await kit.attempt(api.wait_for(inner(5), 2)))
    note(await kit.attempt(api.wait_for(inner(2), 5)))


async def gather_of_limited(api, note):
    kit = Kit(api, note)
    return await api.gather(
        api.wait_for(kit.give("a", 1), 2),
        api.wait_for(kit.give("b", 3), 2),
        api.wait_for(api.gather(kit.give("c", 3), kit.give("d", 2)), 2.5),
        return_exceptions=True,
    )


async def as_they_complete(api, note):
    kit = Kit(api, note)
    task = api.create_task(kit.give("t", 2))
    for aw in api.as_completed([kit.give("c", 3), task, kit.fail("f", 2.5), kit.give("a", 1)]):
        note(await kit.attempt(aw))


async def as_nothing_completes(api, note):
    return list(api.as_completed([]))


async def as_they_complete_out_of_time(api, note):
    kit = Kit(api, note)
    aws = [kit.stubborn(n, n) for n in (1, 2, 5, 4)]
    for aw in api.as_completed(aws, timeout=3):
        note(await kit.attempt(aw))
    await api.sleep(10)


async def the_first_of_several(api, note):
    kit = Kit(api, note)
    first = await next(iter(api.as_completed([kit.give("slow", 2), kit.give("fast", 1)])))
    await api.sleep(10)
    return first


async def completing_awaitables_in_any_order(api, note):
    kit = Kit(api, note)
    aws = list(api.as_completed([kit.give(n, n) for n in (3, 1, 2)]))
    return await api.gather(*reversed(aws))


PROGRAMS = [
    results_in_order,
    gather_of_nothing,
    gather_of_one_task_twice,
    first_failure,
    failure_of_a_task,
    return_exceptions,
    cancelled_error_by_hand,
    a_child_cancels_itself,
    gather_is_cancelled,
    gather_with_return_exceptions_is_cancelled,
    nested_gathers,
    nested_gathers_are_cancelled,
    wait_for_in_time,
    wait_for_out_of_time,
    wait_for_without_time,
    wait_for_is_cancelled,
    wait_for_of_a_cancelled_task,
    nested_wait_for,
    gather_of_limited,
    as_they_complete,
    as_nothing_completes,
    as_they_complete_out_of_time,
    the_first_of_several,
    completing_awaitables_in_any_order,
]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_as_on_asyncio(program):
    assert on_sleeploop(program) == on_asyncio(program)


# ---- random ones, beside their rules -------------------------------------------------------------


class Failure(Exception):
    pass


@dataclass
class Leaf:
    """Sleeps and returns, or fails; cancelled it takes its time, and may fail then."""

    seconds: int
    fails: bool
    cleanup_seconds: int
    cleanup_fails: bool
    number: int = 0
    delay: float = 0.0
    cleanup: float = 0.0

    def number_all(self, unique: Unique) -> None:
        self.number = unique.number()
        self.delay = self.seconds + unique.fraction()
        self.cleanup = self.cleanup_seconds + unique.fraction()

    async def play(self) -> Any:
        try:
            await sleep(self.delay)
        except CancelledError:
            with CancelScope(shield=True):
                await sleep(self.cleanup)
            if self.cleanup_fails:
                raise Failure("cleanup", self.number) from None
            raise
        if self.fails:
            raise Failure("failed", self.number)
        return self.number

    def expect(self, cancels: list[float]) -> Ended:
        cancelled = min(cancels)
        if self.delay <= cancelled:
            if self.fails:
                return Ended(self.delay, error=("failed", self.number))
            return Ended(self.delay, value=self.number)
        if self.cleanup_fails:
            return Ended(cancelled + self.cleanup, error=("cleanup", self.number))
        return Ended(cancelled + self.cleanup, cause=cancelled)


@dataclass
class Limit:
    child: Node
    seconds: int
    delay: float = 0.0

    def number_all(self, unique: Unique) -> None:
        self.delay = self.seconds + unique.fraction()
        self.child.number_all(unique)

    async def play(self) -> Any:
        return await wait_for(self.child.play(), self.delay)

    def expect(self, cancels: list[float]) -> Ended:
        ended = self.child.expect([*cancels, self.delay])
        return Ended(ended.when, error="timeout") if ended.cause == self.delay else ended


@dataclass
class Gather:
    children: list[Node]
    return_exceptions: bool

    def number_all(self, unique: Unique) -> None:
        for child in self.children:
            child.number_all(unique)

    async def play(self) -> Any:
        coros = [child.play() for child in self.children]
        return await gather(*coros, return_exceptions=self.return_exceptions)

    def expect(self, cancels: list[float]) -> Ended:
        ends = [child.expect(cancels) for child in self.children]
        if not self.return_exceptions:
            # The first failure cancels the others, if nothing further out has.
            failed = min((end.when for end in ends if end.error), default=math.inf)
            ends = [child.expect([*cancels, failed]) for child in self.children]
        when = max((end.when for end in ends), default=0.0)
        errors = [end for end in ends if end.error]
        # Of several cancellations the outermost one counts. They stand in order.
        cause = next((cancel for cancel in cancels if cancel < when), None)
        if self.return_exceptions:
            errors = [end for end in errors if end.when > min(cancels)] if cause else []
        if errors:
            errors.sort(key=lambda end: end.when)
            told = [end.error for end in errors]
            return Ended(when, error=told[0] if len(told) == 1 else tuple(told))
        if cause is not None:
            return Ended(when, cause=cause)
        return Ended(when, value=[end.error or end.value for end in ends])


Node = Leaf | Limit | Gather


@dataclass
class Ended:
    """When something has ended, and with what; cause: the time of the cancellation."""

    when: float
    value: Any = None
    error: Any = None
    cause: float | None = None


class Unique:
    """Nothing happens at the same moment: each fraction of a second is a bit of its own."""

    def __init__(self) -> None:
        self.numbers = self.bits = 0

    def number(self) -> int:
        self.numbers += 1
        return self.numbers

    def fraction(self) -> float:
        self.bits += 1
        return 2.0**-self.bits


def told(what: Any) -> Any:
    """Exceptions as the rules have them."""
    if isinstance(what, BaseExceptionGroup):
        return tuple(told(error) for error in what.exceptions)
    if isinstance(what, TimeoutError):
        return "timeout"
    if isinstance(what, Failure):
        return what.args
    return [told(item) for item in what] if isinstance(what, list) else what


seconds = st.integers(0, 5)
leaves = st.builds(Leaf, seconds, st.booleans(), st.integers(0, 2), st.booleans())
nodes = st.recursive(
    leaves,
    lambda inner: (
        st.builds(Limit, inner, seconds)
        | st.builds(Gather, st.lists(inner, max_size=4), st.booleans())
    ),
    max_leaves=8,
)


@examples(times=5)
@given(nodes, seconds)
def test_random_ones(node, seconds):
    async def play():
        with move_on_after(limit) as scope:
            try:
                value = told(await node.play())
                return Ended(now(), value=value)
            except Exception as error:
                return Ended(now(), error=told(error))
        assert scope.cancelled_caught
        return Ended(now(), cause=limit)

    async def main():
        ended = await play()
        assert current_loop().tasks() == [current_task()], "a task has outlived it"
        return ended

    unique = Unique()
    limit = seconds + unique.fraction()
    node.number_all(unique)
    ended, expected = virtual(main()), node.expect([limit])
    assert ended.when == pytest.approx(expected.when, abs=1e-7)
    ended.when = expected.when
    assert ended == expected
