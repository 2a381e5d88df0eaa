"""A task that does pieces of work one by one, from outside of the loop: fixtures, a test.

All of them run in one task, in one context. Between two pieces the loop is suspended and the task
is parked, with whatever blocks the pieces have left open around it.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Coroutine, Iterable
from contextvars import ContextVar
from typing import Any

import pytest
from _sleeploop import (
    CancelledError,
    CancelScope,
    DeadlockError,
    SleepingLoop,
    Task,
    _drive,
    _in_group,
    _is_innermost,
    _park,
    _pause,
    _stop,
    _take_errors,
    _unseen,
    _wait_done,
)

from sleeploop._stacks import traceback_of
from sleeploop._tree import format_tasks, lines, seconds

# What has been cancelled gets this much to clean up: loop time, and passes, as one who swallows
# every CancelledError comes back in every pass, and loop time stands still.
GRACE = 60.0
PASSES = 100_000
# As many may pass at the moment at which a piece ends, until what is ending has ended.
SETTLE = 100

NOTHING = object()

_owner: ContextVar[Owner] = ContextVar("sleeploop test or fixture")


def failure(message: str, *, pytrace: bool = False) -> BaseException:
    return pytest.fail.Exception(message, pytrace=pytrace)


def bared(error: BaseException) -> BaseException:
    """With no frame of this file in front of those of the user's code."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_frame.f_code.co_filename == __file__:
        traceback = traceback.tb_next
    return error.with_traceback(traceback)


def combined(errors: list[BaseException]) -> BaseException:
    """The one there is, or a group of several. What ends the session stands alone."""
    errors = list({id(error): error for error in errors}.values())
    for error in errors:
        if len(errors) == 1 or isinstance(error, KeyboardInterrupt | pytest.exit.Exception):
            return error
    group = BaseExceptionGroup(f"{len(errors)} errors", errors)
    return group.with_traceback(errors[0].__traceback__)


def raise_all(errors: list[BaseException]) -> None:
    """Raise them, if there are any."""
    if not errors:
        return
    error = combined(errors)
    # pytest wants at least one frame to show.
    __tracebackhide__ = error.__traceback__ is not None
    try:
        raise error
    finally:
        del error, errors  # the traceback leads here


async def advance(generator: AsyncGenerator[Any, Any]) -> Any:
    """What an async generator yields next, or NOTHING."""
    try:
        return await generator.__anext__()
    except StopAsyncIteration:
        return NOTHING


def close_now(generator: AsyncGenerator[Any, Any]) -> list[BaseException]:
    """Let its `finally` blocks run as far as they do not await anything. What has failed in it."""
    closing = generator.aclose()
    try:
        closing.send(None)
        closing.close()
    except StopIteration:
        pass
    except BaseException as error:
        return [bared(error)]
    return []


async def join(tasks: Iterable[Task[Any]]) -> None:
    """Wait for the end of tasks, whatever it is, and also where everything is being cancelled."""
    with CancelScope(shield=True):
        for task in tasks:
            await _wait_done(task)


class Owner:
    """A test or a fixture: whose work it is, and whose tasks."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.scope: CancelScope | None = None  # of the setup, if scopes inside of it are open


class Piece:
    """One thing to do."""

    def __init__(self, coro: Coroutine[Any, Any, Any], owner: Owner) -> None:
        self.coro = coro
        self.owner = owner
        self.scope = owner.scope or CancelScope()
        self.result: Any = None
        self.error: BaseException | None = None
        self.done = False

    async def do(self) -> None:
        """In a scope, by which it can be cancelled.

        What a fixture has opened around its `yield` is still open afterwards, inside of that scope,
        which then has to stay open, too, until the fixture has been resumed.
        """
        owner, scope = self.owner, self.scope
        error: BaseException | None = None
        if owner.scope is None:
            scope.__enter__()
        try:
            self.result = await self.coro
        except GeneratorExit:  # nobody waits any more
            raise
        except BaseException as raised:
            error = raised
        if error is None and owner.scope is None and not _is_innermost(scope):
            owner.scope = scope
        else:
            try:
                if scope.__exit__(type(error), error, error and error.__traceback__):
                    error = None
            except BaseException as raised:
                error = raised
        self.error = error and bared(error)
        del error  # its traceback leads here
        self.done = True


class Runner:
    """A loop and the task in it. After an end of the loop, `over` tells why."""

    def __init__(self, loop: SleepingLoop) -> None:
        self.loop = loop
        self.open: list[tuple[Owner, AsyncGenerator[Any, Any]]] = []  # fixtures at their yield
        self.busy = False
        self.over = ""
        self.errors: list[BaseException] = []  # of the end of the loop, to be raised by close()
        self._piece: Piece | None = None
        self._handover: CancelScope | None = None
        self._task: Task[None] | None = None
        self._serving: Any = None

    # ---- inside of the loop --------------------------------------------------------------------

    async def _serve(self) -> None:
        while (piece := self._piece) is not None:
            self._piece = None
            _owner.set(piece.owner)
            await piece.do()
            del piece
            if not _pause(self.loop):
                await self._unwind()
                return
            # A scope that a fixture has opened may have been cancelled, and be still open.
            with CancelScope(shield=True) as self._handover:
                await _park()

    async def _unwind(self) -> None:
        """The run ends: so do the fixtures, while they can."""
        while self.open:
            owner, generator = self.open.pop()
            piece = Piece(advance(generator), owner)
            await piece.do()
            if piece.error is not None and not isinstance(piece.error, CancelledError):
                self.errors.append(piece.error)

    # ---- outside -------------------------------------------------------------------------------

    def _hand_over(self, piece: Piece | None) -> None:
        self._piece = piece
        if self._task is None:
            if piece is None:
                return
            self._serving = self._serve()
            self._task = self.loop.create_task(self._serving)  # here: in the context of now
        elif self._handover is not None:
            self._handover.cancel()
        if piece is not None:
            self._task.name = piece.owner.name
            self._serving.__qualname__ = getattr(piece.coro, "__qualname__", "?")

    def _drive(self, limit: float, passes: int | None = None) -> bool:
        """Until the piece is done; False if it is not. Raises DeadlockError, and after an end of
        the loop whatever has ended it.
        """
        __tracebackhide__ = True
        self.busy = True
        until = self.loop.time() + limit
        try:
            return bool(
                _drive(self.loop, until) if passes is None else _drive(self.loop, until, passes)
            )
        except DeadlockError:
            raise
        except BaseException as error:
            self.over = f"it has ended with {type(error).__name__}"
            raise
        finally:
            self.busy = False

    def _has_time(self, why: list[BaseException]) -> bool:
        """Drive on for the time of grace. If the piece is not done then, stop the loop."""
        try:
            if self._drive(GRACE, PASSES):
                return True
        except DeadlockError:
            pass
        except BaseException as error:
            why.append(bared(error))
            return False
        self.over = "something in it did not end when it was cancelled"
        why.append(
            failure(
                "this did not end when it was cancelled, and the loop had to be closed:\n"
                + format_tasks(self.loop)
            )
        )
        try:
            _stop(self.loop)
        except BaseException as error:
            why.append(bared(error))
        while self.open:
            why += close_now(self.open.pop()[1])
        return False

    def run(
        self,
        coro: Coroutine[Any, Any, Any],
        owner: Owner,
        limit: float = math.inf,
        *,
        final: bool = False,
    ) -> Any:
        """Run a piece and return its result, or raise what went wrong. final: it is the last one of
        that owner.
        """
        __tracebackhide__ = True
        if self.over or self.busy:
            coro.close()
            why = self.over or "it is running, and asked for from inside"
            raise failure(f"{owner.name} cannot run on its loop: {why}")
        errors: list[BaseException] = []
        piece = Piece(coro, owner)
        self._hand_over(piece)
        try:
            if not self._drive(limit) and not piece.done:
                where = traceback_of(coro)
                late = failure(
                    f"{owner.name} was still running after {seconds(limit)} of loop time, its limit"
                    f" (timeout=, or sleeploop_timeout):\n{format_tasks(self.loop)}",
                    pytrace=where is not None,
                )
                errors.append(late.with_traceback(where))
                piece.scope.cancel("the time limit of the test has passed")
                self._has_time(errors)
        except DeadlockError as error:
            errors.append(error.with_traceback(traceback_of(coro)))
            piece.scope.cancel("every task waits: a deadlock")
            self._has_time(errors)
        except BaseException as error:
            errors.append(bared(error))
        raised, piece.error = piece.error, None
        if raised is not None and not (
            self.over and isinstance(raised, CancelledError) and raised.source == "shutdown"
        ):
            errors.insert(0, raised)
        del raised
        if final and not self.over:
            errors += self._end_of(owner, errors)
        try:
            raise_all(errors)
        finally:
            del errors  # its tracebacks lead here
        return piece.result

    def end(self, owner: Owner) -> None:
        """Nothing more of that owner will run."""
        __tracebackhide__ = True
        if not self.over:
            raise_all(self._end_of(owner, []))

    def _tasks_of(self, owner: Owner) -> list[Task[Any]]:
        """Its tasks that have not ended and that nobody will see to: no daemons, and none of a
        group, whose block does.
        """
        return [
            task
            for task in self.loop.tasks()
            if task is not self._task
            and not task.daemon
            and task.context.get(_owner, owner) is owner
            and not _in_group(task)
        ]

    def _end_of(self, owner: Owner, errors: list[BaseException]) -> list[BaseException]:
        """What is wrong now that nothing more of an owner will run, beside some errors."""
        more: list[BaseException] = []
        try:
            left = self._tasks_of(owner)
            if left:  # perhaps they are just ending
                self._drive(0, SETTLE)
                left = self._tasks_of(owner)
            if left:
                tree = "\n".join(f"  {line}" for line in lines(self.loop, of=left))
                what = "task" if len(left) == 1 else "tasks"
                text = f"{owner.name} left {len(left)} {what} running:\n{tree}"
                if errors and not isinstance(
                    errors[0], pytest.skip.Exception | pytest.xfail.Exception
                ):
                    errors[0].add_note(text)
                else:
                    more.append(failure(text))
                self._cancel(left, f"{owner.name} has ended", more)
        except BaseException as error:
            more.append(bared(error))
        if not self.over:
            more += _take_errors(self.loop)
            more += [task.exception() for task in _unseen(self.loop) if not task.daemon]
        return more

    def _cancel(self, tasks: list[Task[Any]], reason: str, errors: list[BaseException]) -> None:
        for task in tasks:
            task.cancel(reason)
        self._hand_over(Piece(join(tasks), Owner("the end")))
        self._has_time(errors)

    def close(self) -> None:
        """End the task and the loop; raise what has failed and nobody has seen."""
        __tracebackhide__ = True
        errors, self.errors = self.errors, []
        if not self.over:
            others = [task for task in self.loop.tasks() if task is not self._task]
            if others:
                self._cancel(others, "the loop is being closed", errors)
        try:
            if not self.over:
                # First: close() would start the thread that watches over an end with tasks left.
                self._hand_over(None)
                self._drive(0, SETTLE)
                self.over = "it has come to its end"
            self.loop.close()
        except BaseException as error:
            errors.append(bared(error))
        try:
            raise_all(errors)
        finally:
            del errors
