"""Sleeps until a datetime while the system's wall clock is set. Run with wallshift.c preloaded."""

import ctypes
import sys
import time
from datetime import UTC, datetime, timedelta

from sleeploop import SleepingLoop, checkpoint, create_task, current_loop, run, sleep, sleep_until
from tests.helpers import yielding

SHIFT = ctypes.c_longlong.in_dll(ctypes.CDLL(None), "wall_shift")


def set_wall_clock(seconds: float) -> None:
    SHIFT.value += round(seconds * 10**9)


async def until(when: datetime, how: str) -> float:
    """Real seconds that it took. The wall clock has reached `when`, whatever was done to it."""
    began = time.monotonic()
    if how == "yield":
        await yielding(when)
    else:
        await sleep_until(when)
    assert datetime.now(UTC) >= when
    return time.monotonic() - began


async def forward(how: str) -> None:
    """It is an hour later all of a sudden: who has waited for that hour wakes within a second."""
    wall = datetime.now(UTC)
    tasks = [create_task(until(wall + timedelta(seconds=s), how)) for s in (1800, 3600, 7200)]
    await sleep(0.05)
    set_wall_clock(3600)
    took = [await task for task in tasks[:2]]
    assert max(took) < 1.05, took
    assert not tasks[2].done()
    assert abs(tasks[2].wake_time - current_loop().time() - 3600) < 60
    tasks[2].cancel()


async def backward(how: str) -> None:
    """It is earlier all of a sudden: nobody wakes before the time that he waits for."""
    task = create_task(until(datetime.now(UTC) + timedelta(seconds=0.2), how))
    await sleep(0.05)
    set_wall_clock(-0.3)
    assert await task >= 0.49


async def back_and_forth(how: str) -> None:
    """Who began to wait in between is not forgotten when it is as it was."""
    wall = datetime.now(UTC)
    first = create_task(until(wall + timedelta(hours=2), how))
    await sleep(0.01)
    set_wall_clock(-3600)
    await sleep(0.01)
    second = create_task(until(wall - timedelta(minutes=30), how))
    await sleep(0.01)
    set_wall_clock(3600)
    assert await second < 1.05
    first.cancel()


async def busy(how: str) -> None:
    """A loop that is never idle notices it as well. Who waits for time to pass does not."""
    task = create_task(until(datetime.now(UTC) + timedelta(hours=1), how))
    relative = create_task(sleep(0.1))
    await sleep(0.01)
    set_wall_clock(3600)
    began = time.monotonic()
    while not task.done():
        await checkpoint()
    assert time.monotonic() - began < 1
    assert timedelta(seconds=0.1) <= await relative < timedelta(seconds=5)


def suspended() -> None:
    """So does one that has stood still, which the wall clock has not."""
    loop = SleepingLoop(speed=1)
    task = loop.create_task(until(datetime.now(UTC) + timedelta(seconds=0.2), "sleep"))
    loop.run_until(0.01)
    time.sleep(0.25)
    assert loop.time() == 0.01
    loop.run_until(task)
    assert loop.time() < 0.15, loop.time()
    loop.close()


if __name__ == "__main__":
    for how in sys.argv[1:]:
        for main in (forward, backward, back_and_forth, busy):
            run(main(how), speed=1)
            print(how, main.__name__)
    suspended()
    print("suspended")
