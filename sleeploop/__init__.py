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
    DeadlockError,
    LoopClosedError,
    LoopStats,
    SleepingLoop,
    Task,
    checkpoint,
    create_task,
    current_loop,
    current_task,
    run,
    sleep,
    sleep_forever,
    sleep_until,
)

__all__ = [
    "CancelledError",
    "DeadlockError",
    "LoopClosedError",
    "LoopStats",
    "SleepingLoop",
    "Task",
    "checkpoint",
    "create_task",
    "current_loop",
    "current_task",
    "run",
    "sleep",
    "sleep_forever",
    "sleep_until",
]
