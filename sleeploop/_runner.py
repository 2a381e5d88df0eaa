"""A task that does pieces of work one by one, from outside of the loop: fixtures, a test.

All of them run in one task, and in the context of whoever asks for them, as plain fixtures do.
Between two pieces the loop is suspended and the task is parked, with the blocks around it that
fixtures hold open. In everything else a piece is as good as a task of its own: what it leaves open
is an error and is torn off, and that it was cancelled or interrupted ends with it.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable
from contextlib import suppress
from contextvars import ContextVar
from traceback import walk_tb
from types import CodeType, TracebackType
from typing import Any

import pytest
from _sleeploop import (
    CancelledError,
    CancelScope,
    DeadlockError,
    Interrupt,
    LoopClosedError,
    SleepingLoop,
    Task,
    _begin_piece,
    _drive,
    _in_group,
    _open_blocks,
    _park,
    _pause,
    _piece_scope,
    _share_context,
    _stop,
    _take_errors,
    _tear_off,
    _unseen,
    _wait_done,
    _was_torn,
    checkpoint,
)

from sleeploop._stacks import traceback_of
from sleeploop._tree import report, seconds

# What has been cancelled gets this much to clean up: loop time, and passes, as one who swallows
# every CancelledError comes back in every pass, and loop time stands still.
GRACE = 60.0
PASSES = 100_000
# As many may pass at the moment at which a piece ends, until what is ending has ended.
SETTLE = 100

NOTHING = object()

_RULE = (
    "a `with` block must be left by whoever has entered it, and before that ends; and an async "
    "generator must not be abandoned at a `yield` inside of one"
)

# How code fails that needs another library's loop: where, or with which words.
_OTHERS = ("asyncio", "anyio", "sniffio", "trio", "curio")
_REFUSALS = ("no running event loop", "no current event loop", "an asyncio future")

_ignore_interrupts = suppress(Interrupt)  # one serves all

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


def users_part(traceback: TracebackType | None, test: Any = None) -> TracebackType | None:
    """Of what raise_all() has raised, the frames of the user's code. If there are none: the line at
    which the test begins. None if it was not raised here.
    """
    ours = found = None
    while traceback is not None:
        if traceback.tb_frame.f_code is raise_all.__code__:
            ours, found = traceback, traceback.tb_next
        traceback = traceback.tb_next
    if ours is None or found is not None or not hasattr(test, "__code__"):
        return found
    code = test.__code__
    lines = "\n" * (code.co_firstlineno - 1)
    there: CodeType = compile(f"{lines}raise LookupError", code.co_filename, "exec")
    try:
        exec(there.replace(co_name=code.co_name), test.__globals__)
    except LookupError as error:
        found = error.__traceback__
    return found and found.tb_next


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


def tell(text: str, errors: list[BaseException]) -> None:
    """One more thing that is wrong: a note on the first error, or a failure of its own if there is
    none, or one whose notes pytest does not show.
    """
    first = errors[0] if errors else pytest.skip.Exception()
    if not isinstance(first, pytest.skip.Exception | pytest.xfail.Exception) and getattr(
        first, "pytrace", True
    ):
        with suppress(Exception):  # of a class that has its own idea of notes
            BaseException.add_note(first, text)
            return
    errors.append(failure(text))


def needs_another_loop(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return any(map(needs_another_loop, error.exceptions))
    if not isinstance(error, RuntimeError | TypeError | AttributeError):
        return False
    frames = [frame for frame, _ in walk_tb(error.__traceback__)]
    module = frames[-1].f_globals.get("__name__") if frames else ""
    text = error.args[0] if error.args else ""
    return str(module).partition(".")[0] in _OTHERS or (
        isinstance(text, str) and any(words in text for words in _REFUSALS)
    )


def explain(error: BaseException, name: str) -> None:
    """Add what to do about it if it comes of code that needs another library's loop."""
    if needs_another_loop(error):
        tell(
            f"{name} runs on a SleepingLoop, by @pytest.mark.sleeploop or sleeploop_mode = auto. "
            "It can await what sleeploop has - sleep(), tasks, events, queues, to_thread() - "
            "and nothing of asyncio or of what is built on it. For a test of such code, use the "
            "plugin that is made for it, and its mark instead: @pytest.mark.asyncio, of "
            "pytest-asyncio, or @pytest.mark.anyio.",
            [error],
        )


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
            while not task.done():
                with _ignore_interrupts:
                    await _wait_done(task)


async def settle(is_settled: Callable[[], bool]) -> None:
    """Let pass what is happening at this moment, if that comes to an end."""
    with CancelScope(shield=True):
        for _ in range(SETTLE):
            if is_settled():
                return
            with _ignore_interrupts:
                await checkpoint()


class Owner:
    """A test or a fixture: whose work it is, and whose tasks. wide: it outlives the test."""

    def __init__(self, name: str, *, wide: bool = False) -> None:
        self.name = name
        self.wide = wide
        self.blocks: list[CancelScope] = []  # of the setup, the outermost first, while it is open
        self.speed: float | None = None  # of the loop, before it


class Piece:
    """One thing to do. yields: it is a fixture's setup, which may leave blocks open."""

    def __init__(
        self, coro: Coroutine[Any, Any, Any], owner: Owner, *, yields: bool = False
    ) -> None:
        self.coro = coro
        self.owner = owner
        self.yields = yields
        self.scope = owner.blocks[0] if owner.blocks else _piece_scope(False)
        self.result: Any = None
        self.error: BaseException | None = None
        self.caught = False  # by its scope: that has been cancelled
        self.has_torn = False  # a block that was open before
        self.wrong = ""  # with its blocks
        self.done = False

    async def do(self) -> None:
        """In a scope, by which it can be cancelled.

        What a fixture has opened around its `yield` is still open afterwards, inside of that scope,
        which then has to stay open, too, until the fixture has been resumed.
        """
        owner, scope = self.owner, self.scope
        error: BaseException | None = None
        _begin_piece()
        outside = _open_blocks()
        if owner.blocks:
            outside = [block for block in outside if block not in owner.blocks]
        else:
            scope.__enter__()
        try:
            self.result = await self.coro
        except GeneratorExit:  # nobody waits any more
            raise
        except BaseException as raised:
            error = raised
        blocks = _open_blocks()
        if blocks[: len(outside)] == outside:
            del blocks[: len(outside)]
        else:
            self.has_torn = True
            blocks = [block for block in blocks if block not in outside]
        is_at_yield = error is None and self.yields and self.result is not NOTHING
        if is_at_yield and len(blocks) > 1 and blocks[0] is scope:
            owner.blocks = blocks
        else:
            owner.blocks = []
            try:
                self.leave(blocks, error)
            except BaseException as raised:
                error = raised
        self.error = error and bared(error)
        del error  # its traceback leads here
        self.done = True

    def leave(self, blocks: list[CancelScope], error: BaseException | None) -> None:
        """Leave its scope, and tear off what is still open inside of it."""
        inside = blocks[blocks[0] is self.scope :] if blocks else []
        if inside:
            self.wrong = f"ended inside of {', '.join(map(repr, inside))}"
            _tear_off(inside[0])
        elif self.has_torn:
            self.wrong = "left a block that had been open before"
        elif _was_torn():
            self.wrong = "entered a block that was left elsewhere (see the log)"
        if len(inside) < len(blocks):
            self.caught = self.scope.__exit__(type(error), error, error and error.__traceback__)


class Runner:
    """A loop and the task in it."""

    def __init__(self, loop: SleepingLoop) -> None:
        self.loop = loop
        self.open: list[tuple[Owner, AsyncGenerator[Any, Any]]] = []  # fixtures at their yield
        self.busy = False
        self._over = ""
        self.errors: list[BaseException] = []  # of the end of the loop, to be raised by close()
        self.speed: float = loop.speed  # that a test finds: its own, or what wide fixtures have set
        self.left: list[Task[Any]] = []  # by a test, which has been told
        self._torn = False
        self._piece: Piece | None = None
        self._handed_over = False
        self._parking: CancelScope | None = None
        self._task: Task[None] | None = None
        self._serving: Any = None

    @property
    def over(self) -> str:
        """After an end of the loop, why that is."""
        if not self._over and self._task is not None and self._task.done():
            self._over = "it has been closed"
        return self._over

    @property
    def spoilt(self) -> bool:
        """Whether what is still open of fixtures is of no use any more."""
        return (
            self._torn
            or bool(self.over)
            or any(block.cancel_called for owner, _ in self.open for block in owner.blocks)
        )

    # ---- inside of the loop --------------------------------------------------------------------

    async def _serve(self) -> None:
        while (piece := await self._next()) is not None:
            token = _owner.set(piece.owner)
            await piece.do()
            _owner.reset(token)
            del piece
            if not _pause(self.loop):
                break
        await self._unwind()

    async def _next(self) -> Piece | None:
        """Wait until there is something to do, or it is the end: None.

        Who cancels or interrupts the task meanwhile means what is over.
        """
        shield = False
        while not self._handed_over:
            self._serving.__qualname__ = "(has ended)"
            try:
                with _piece_scope(shield) as self._parking, _ignore_interrupts:
                    await _park()
            except CancelledError:  # by a scope that a fixture has opened, or the run ends
                if not self._handed_over and not _pause(self.loop):
                    return None
                shield = True
        self._handed_over = False
        piece, self._piece = self._piece, None
        return piece

    async def _unwind(self) -> None:
        """The run ends: so do the fixtures, while they can."""
        while self.open:
            owner, generator = self.open.pop()
            piece = Piece(advance(generator), owner)
            piece.scope.shield = True
            piece.scope.deadline = self.loop.time() + GRACE
            await piece.do()
            if piece.error is not None and not isinstance(piece.error, CancelledError):
                self.errors.append(piece.error)
            if piece.wrong:
                self.errors.append(failure(f"{owner.name} {piece.wrong}: {_RULE}"))

    # ---- outside -------------------------------------------------------------------------------

    def _hand_over(self, piece: Piece | None) -> None:
        """Have the task do a piece next, or end: None. Not if somebody has closed the loop."""
        if self._task is None:
            if piece is None:
                return
            self._serving = self._serve()
            try:
                self._task = self.loop.create_task(self._serving)
            except LoopClosedError:
                self._serving.close()
                self._over = "it has been closed"
                return
            _share_context(self._task)
        elif self._parking is not None:
            self._parking.cancel()
        self._piece, self._handed_over = piece, True
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
            self._over = f"it has ended with {type(error).__name__}"
            raise
        finally:
            self.busy = False

    def _has_time(self, errors: list[BaseException]) -> bool:
        """Drive on for the time of grace. If the piece is not done then, stop the loop."""
        try:
            if self._drive(GRACE, PASSES):
                return True
        except DeadlockError:
            pass
        except BaseException as error:
            errors.append(bared(error))
            return False
        self._over = "something in it did not end when it was cancelled"
        errors.append(
            failure(
                "this did not end when it was cancelled, and the loop had to be closed:\n"
                + report(self.loop)
            )
        )
        try:
            _stop(self.loop)
        except BaseException as error:
            errors.append(bared(error))
        while self.open:
            errors += close_now(self.open.pop()[1])
        return False

    def run(
        self,
        coro: Coroutine[Any, Any, Any],
        owner: Owner,
        limit: float = math.inf,
        *,
        yields: bool = False,
        final: bool = False,
        tidy: bool = True,
    ) -> Any:
        """Run a piece and return its result, or raise what went wrong.

        yields: see Piece. final: it is the last one of that owner. tidy: the tasks that it has left
        end here, and not with the next tidy().
        """
        __tracebackhide__ = True
        errors: list[BaseException] = []
        if self.left:
            self._tidy(errors)
        piece = self._begin(Piece(coro, owner, yields=yields))
        try:
            if not self._drive(limit) and not piece.done:
                where = traceback_of(coro)
                late = failure(
                    f"{owner.name} was still running after {seconds(limit)} of loop time, its limit"
                    f" (timeout=, or sleeploop_timeout):\n{report(self.loop)}",
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
            (errors and piece.caught)
            or (self.over and isinstance(raised, CancelledError) and raised.source == "shutdown")
        ):
            explain(raised, owner.name)
            errors.insert(0, raised)
        del raised
        self._torn = self._torn or piece.has_torn
        if piece.wrong:
            tell(f"{owner.name} {piece.wrong}: {_RULE}", errors)
        if final or errors:
            self._end_of(owner, errors)
        if tidy and self.left:
            self._tidy(errors)
        if owner.wide and not self.over:
            self.speed = self.loop.speed
        try:
            raise_all(errors)
        finally:
            del errors  # its tracebacks lead here
        return piece.result

    def _begin(self, piece: Piece) -> Piece:
        """Have the task do it next."""
        __tracebackhide__ = True
        owner = piece.owner
        if not self.over and not self.busy:
            self._hand_over(piece)
        if self.over or self.busy:
            piece.coro.close()
            why = self.over or "it is running, and asked for from inside"
            raise failure(f"{owner.name} cannot run on its loop: {why}")
        if owner.speed is None:
            owner.speed = self.loop.speed
        return piece

    def end(self, owner: Owner) -> None:
        """Nothing more of that owner will run."""
        __tracebackhide__ = True
        errors: list[BaseException] = []
        self._end_of(owner, errors)
        self._tidy(errors)
        raise_all(errors)

    def tidy(self) -> None:
        """Nobody looks any more at what a test has left: it ends."""
        __tracebackhide__ = True
        errors: list[BaseException] = []
        self._tidy(errors)
        raise_all(errors)

    def keep_time(self) -> None:
        """After a test: the loop is as fast as it was before."""
        if not self.over and self.loop.speed != self.speed:
            self.loop.speed = self.speed

    def _tasks_of(self, owner: Owner) -> list[Task[Any]]:
        """Its tasks that have not ended and that nobody will see to, as a group's block does."""
        return [
            task
            for task in self.loop.tasks()
            if task is not self._task
            and task.context.get(_owner, owner) is owner
            and not _in_group(task)
        ]

    def _is_settled(self, owner: Owner) -> bool:
        """Nothing of that owner is left but daemons, and nothing is about to happen."""
        return self.loop.next_wake_time() > self.loop.time() and all(
            task.daemon for task in self._tasks_of(owner)
        )

    def _end_of(self, owner: Owner, errors: list[BaseException]) -> None:
        """See what is wrong now that nothing more of an owner will run."""
        if self.over:
            return
        if owner.speed is not None and self.loop.speed != owner.speed:
            self.loop.speed = owner.speed
        try:
            if not self._is_settled(owner):  # perhaps it is just ending
                self._hand_over(Piece(settle(lambda: self._is_settled(owner)), Owner(owner.name)))
                self._drive(math.inf)
        except BaseException as error:
            errors.append(bared(error))
        if not self.over:
            self.left += self._tasks_of(owner)
            left = [task for task in self.left if not task.daemon]
            if left:
                what = "task" if len(left) == 1 else "tasks"
                tree = report(self.loop, left)
                tell(f"{owner.name} left {len(left)} {what} running:\n{tree}", errors)
        self._take_failures(errors)

    def _take_failures(self, errors: list[BaseException]) -> None:
        """Those that nobody has seen: of tasks, and of futures."""
        if not self.over:
            errors += _take_errors(self.loop)
            for failed in _unseen(self.loop):
                if not (isinstance(failed, Task) and failed.daemon):
                    errors.append(failed.exception())

    def _tidy(self, errors: list[BaseException]) -> None:
        left, self.left = self.left, []
        if left and not self.over:
            self._cancel(left, "the test or fixture that it is from has ended", errors)
            self._take_failures(errors)

    def _cancel(self, tasks: list[Task[Any]], reason: str, errors: list[BaseException]) -> None:
        for task in tasks:
            task.cancel(reason)
        self._hand_over(Piece(join(tasks), Owner("the end")))
        self._has_time(errors)

    def close(self) -> None:
        """End the task and the loop; raise what has failed and nobody has seen."""
        __tracebackhide__ = True
        errors, self.errors = self.errors, []
        self.left = []
        if not self.over:
            others = [task for task in self.loop.tasks() if task is not self._task]
            if others:
                self._cancel(others, "the loop is being closed", errors)
        try:
            if not self.over:
                # First: close() would start the thread that watches over an end with tasks left.
                self._hand_over(None)
                self._drive(0, SETTLE)
                self._over = "it has come to its end"
            self.loop.close()
        except BaseException as error:
            errors.append(bared(error))
        try:
            raise_all(errors)
        finally:
            del errors
