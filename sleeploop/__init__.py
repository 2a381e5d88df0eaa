"""The event loop for coroutines that sleep, at any speed.

>>> import math
>>> from sleeploop import SleepingLoop, sleep
>>> async def nap(seconds):
...     await sleep(seconds)
...     return seconds
>>> SleepingLoop(nap(3600), nap(60), speed=math.inf).run_until_complete()
[3600, 60]
"""

from _sleeploop import (
    CancelledError,
    CancelScope,
    Container,
    ContainerStats,
    DeadlockError,
    Event,
    Every,
    LagError,
    LevelStats,
    Lock,
    LoopClosedError,
    LoopStats,
    SleepingLoop,
    Store,
    StoreStats,
    Task,
    TaskGroup,
    Tick,
    WaitStats,
    WouldBlock,
    checkpoint,
    create_task,
    current_effective_deadline,
    current_loop,
    current_task,
    every,
    move_on_after,
    move_on_at,
    run,
    sleep,
    sleep_forever,
    sleep_until,
    timeout,
    timeout_at,
)

from sleeploop._combine import as_completed, gather, wait_for
from sleeploop._threads import to_thread
from sleeploop._tree import format_tasks

__all__ = [
    "CancelScope",
    "CancelledError",
    "Container",
    "ContainerStats",
    "DeadlockError",
    "Event",
    "Every",
    "LagError",
    "LevelStats",
    "Lock",
    "LoopClosedError",
    "LoopStats",
    "SleepingLoop",
    "Store",
    "StoreStats",
    "Task",
    "TaskGroup",
    "Tick",
    "WaitStats",
    "WouldBlock",
    "as_completed",
    "checkpoint",
    "create_task",
    "current_effective_deadline",
    "current_loop",
    "current_task",
    "every",
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
    "to_thread",
    "wait_for",
]
