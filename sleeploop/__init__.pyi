"""Types of sleeploop's public surface. Times are seconds unless a name ends in _ns."""

from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable
from contextvars import Context
from datetime import datetime, timedelta, tzinfo
from traceback import StackSummary
from types import GenericAlias, TracebackType
from typing import (
    Any,
    Final,
    Literal,
    Never,
    Protocol,
    Self,
    SupportsFloat,
    SupportsIndex,
    TypeAlias,
    TypeVar,
    final,
    overload,
)

from _typeshed import structseq
from typing_extensions import disjoint_base

__all__ = [
    "CancelScope",
    "CancelledError",
    "DeadlockError",
    "LoopClosedError",
    "LoopStats",
    "SleepingLoop",
    "Task",
    "TaskGroup",
    "as_completed",
    "checkpoint",
    "create_task",
    "current_effective_deadline",
    "current_loop",
    "current_task",
    "format_tasks",
    "gather",
    "move_on_after",
    "move_on_at",
    "run",
    "sleep",
    "sleep_forever",
    "sleep_until",
    "timeout",
    "timeout_at",
    "wait_for",
]

_T = TypeVar("_T")
_T1 = TypeVar("_T1")
_T2 = TypeVar("_T2")
_T3 = TypeVar("_T3")
_T4 = TypeVar("_T4")
_T5 = TypeVar("_T5")
_T_co = TypeVar("_T_co", covariant=True)

# What can be run: send, throw and close are all that the loop calls.
class _Coroutine(Protocol[_T_co]):
    def send(self, value: Any, /) -> Any: ...
    def throw(self, exception: Any, /) -> Any: ...
    def close(self) -> Any: ...

# What the sleep functions return. It is awaited once; its type has no public name.
class _Sleep(Protocol[_T_co]):
    def __await__(self) -> Generator[Any, Any, _T_co]: ...
    def __iter__(self) -> Generator[Any, Any, _T_co]: ...
    def __next__(self) -> Any: ...
    def send(self, value: Any, /) -> Any: ...
    def throw(self, exception: BaseException, /) -> Any: ...
    def close(self) -> None: ...

# What can be run, where its result matters to the caller.
_Runnable: TypeAlias = Coroutine[Any, Any, _T] | Generator[Any, Any, _T] | _Sleep[_T]

# What can be run or awaited.
_Awaitable: TypeAlias = Awaitable[_T] | Generator[Any, Any, _T]

# What as_completed() returns, for `async for` or a plain one; its type has no public name.
class _AsCompleted(Protocol[_T_co]):
    def __aiter__(self) -> Self: ...
    async def __anext__(self) -> Task[_T_co]: ...
    def __iter__(self) -> Self: ...
    def __next__(self) -> Coroutine[Any, Any, _T_co]: ...

_Seconds: TypeAlias = SupportsFloat | SupportsIndex
_Delay: TypeAlias = _Seconds | timedelta | None
_Moment: TypeAlias = _Seconds | datetime | None

@disjoint_base
class CancelledError(BaseException):
    @property
    def reason(self) -> Any: ...
    @property
    def source(self) -> Literal["explicit", "deadline", "failure", "shutdown", "unknown"]: ...
    @property
    def source_task(self) -> str | None: ...
    @property
    def where(self) -> str | None: ...

class DeadlockError(RuntimeError): ...
class LoopClosedError(RuntimeError): ...

@final
class Task(Awaitable[_T_co]):
    @property
    def name(self) -> str: ...
    @name.setter
    def name(self, value: str | None) -> None: ...
    @property
    def coro(self) -> Coroutine[Any, Any, _T_co]: ...
    @property
    def context(self) -> Context: ...
    @property
    def daemon(self) -> bool: ...
    @property
    def wake_time(self) -> float | None: ...
    @property
    def waiting_on(self) -> Any: ...
    @property
    def waiting_since(self) -> float | None: ...
    @property
    def parent(self) -> Task[Any] | None: ...
    @property
    def created_at(self) -> StackSummary | None: ...
    def cancel(self, reason: object = None) -> bool: ...
    def done(self) -> bool: ...
    def cancelled(self) -> bool: ...
    def result(self) -> _T_co: ...
    def exception(self) -> BaseException | None: ...
    def __await__(self) -> Generator[Any, Any, _T_co]: ...
    @classmethod
    def __class_getitem__(cls, item: Any, /) -> GenericAlias: ...

@final
class CancelScope:
    def __new__(cls, *, deadline: _Moment = ..., shield: bool = False) -> Self: ...
    @property
    def cancel_called(self) -> bool: ...
    @property
    def cancelled_caught(self) -> bool: ...
    @property
    def deadline(self) -> float: ...
    @deadline.setter
    def deadline(self, value: _Moment) -> None: ...
    @property
    def shield(self) -> bool: ...
    @shield.setter
    def shield(self, value: bool) -> None: ...
    def cancel(self, reason: object = None) -> None: ...
    def reschedule(self, when: _Moment, /) -> None: ...
    def when(self) -> float | None: ...
    def expired(self) -> bool: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> bool: ...
    def __aenter__(self) -> Awaitable[Self]: ...
    def __aexit__(
        self,
        type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> Awaitable[bool]: ...

@final
class TaskGroup:
    def __new__(cls) -> Self: ...
    @property
    def cancel_scope(self) -> CancelScope: ...
    def create_task(
        self, coro: _Runnable[_T], *, name: str | None = None, context: Context | None = None
    ) -> Task[_T]: ...
    def start(self, async_fn: Callable[..., _Runnable[Any]], /, *args: Any) -> Awaitable[Any]: ...
    def __aenter__(self) -> Awaitable[Self]: ...
    def __aexit__(
        self,
        type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> Awaitable[bool | None]: ...

@final
class LoopStats(structseq[Any], tuple[int, int, float, float, float, float, float]):
    __match_args__: Final = (
        "steps",
        "wakeups",
        "lateness_max",
        "lateness_p50",
        "lateness_p99",
        "idle_time",
        "busy_time",
    )
    @property
    def steps(self) -> int: ...
    @property
    def wakeups(self) -> int: ...
    @property
    def lateness_max(self) -> float: ...
    @property
    def lateness_p50(self) -> float: ...
    @property
    def lateness_p99(self) -> float: ...
    @property
    def idle_time(self) -> float: ...
    @property
    def busy_time(self) -> float: ...

@disjoint_base
class SleepingLoop:
    def __init__(
        self,
        *coros: _Coroutine[Any],
        speed: SupportsFloat | SupportsIndex | None = None,
        start: datetime | None = None,
        debug: bool | None = None,
    ) -> None: ...
    @property
    def speed(self) -> float: ...
    @property
    def debug(self) -> bool: ...
    def run_until_complete(self) -> list[Any]: ...
    def create_task(
        self,
        coro: _Runnable[_T],
        *,
        name: str | None = None,
        daemon: bool = False,
        context: Context | None = None,
    ) -> Task[_T]: ...
    def time(self) -> float: ...
    def time_ns(self) -> int: ...
    def now(self, tz: tzinfo | None = None) -> datetime: ...
    def tasks(self) -> list[Task[Any]]: ...
    def stats(self) -> LoopStats: ...

def run(
    coro: _Runnable[_T],
    *,
    speed: SupportsFloat | SupportsIndex | None = None,
    start: datetime | None = None,
    debug: bool | None = None,
) -> _T: ...
def create_task(
    coro: _Runnable[_T],
    *,
    name: str | None = None,
    daemon: bool = False,
    context: Context | None = None,
) -> Task[_T]: ...
def current_effective_deadline() -> float: ...
def move_on_after(delay: _Delay, *, shield: bool = False) -> CancelScope: ...
def move_on_at(when: _Moment, *, shield: bool = False) -> CancelScope: ...
def timeout(delay: _Delay, *, shield: bool = False) -> CancelScope: ...
def timeout_at(when: _Moment, *, shield: bool = False) -> CancelScope: ...

# The results of awaitables of different types are typed as a tuple, which can tell them apart; at
# run time they are a list all the same.
@overload
def gather(  # type: ignore[overload-overlap]
    aw1: _Awaitable[_T1],
    aw2: _Awaitable[_T2],
    /,
    *,
    return_exceptions: Literal[False] = False,
) -> Coroutine[Any, Any, tuple[_T1, _T2]]: ...
@overload
def gather(  # type: ignore[overload-overlap]
    aw1: _Awaitable[_T1],
    aw2: _Awaitable[_T2],
    aw3: _Awaitable[_T3],
    /,
    *,
    return_exceptions: Literal[False] = False,
) -> Coroutine[Any, Any, tuple[_T1, _T2, _T3]]: ...
@overload
def gather(  # type: ignore[overload-overlap]
    aw1: _Awaitable[_T1],
    aw2: _Awaitable[_T2],
    aw3: _Awaitable[_T3],
    aw4: _Awaitable[_T4],
    /,
    *,
    return_exceptions: Literal[False] = False,
) -> Coroutine[Any, Any, tuple[_T1, _T2, _T3, _T4]]: ...
@overload
def gather(  # type: ignore[overload-overlap]
    aw1: _Awaitable[_T1],
    aw2: _Awaitable[_T2],
    aw3: _Awaitable[_T3],
    aw4: _Awaitable[_T4],
    aw5: _Awaitable[_T5],
    /,
    *,
    return_exceptions: Literal[False] = False,
) -> Coroutine[Any, Any, tuple[_T1, _T2, _T3, _T4, _T5]]: ...
@overload
def gather(
    *aws: _Awaitable[_T], return_exceptions: Literal[False] = False
) -> Coroutine[Any, Any, list[_T]]: ...
@overload
def gather(
    *aws: _Awaitable[_T], return_exceptions: bool
) -> Coroutine[Any, Any, list[_T | BaseException]]: ...
def as_completed(aws: Iterable[_Awaitable[_T]], *, timeout: _Delay = None) -> _AsCompleted[_T]: ...
def wait_for(aw: _Awaitable[_T], timeout: _Delay) -> Coroutine[Any, Any, _T]: ...
def format_tasks(loop: SleepingLoop | None = None) -> str: ...
def current_task() -> Task[Any]: ...
def current_loop() -> SleepingLoop: ...
def sleep(delay: SupportsFloat | SupportsIndex | timedelta, /) -> _Sleep[timedelta]: ...
def sleep_until(when: SupportsFloat | SupportsIndex | datetime, /) -> _Sleep[timedelta]: ...
def sleep_forever() -> _Sleep[Never]: ...
def checkpoint() -> _Sleep[None]: ...
