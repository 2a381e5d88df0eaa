"""What tests/test_trace_files.py traces: one statement a line, so that all Pythons agree on it.

Run as a script it prints the trace as JSON. tests/data/trace.json is what it has to print.
"""

import math

from sleeploop import (
    CancelScope,
    Lock,
    SleepingLoop,
    TaskGroup,
    checkpoint,
    create_task,
    move_on_after,
    sleep,
)


async def nap(seconds):
    await sleep(seconds)
    await checkpoint()
    return seconds


async def fail(seconds):
    await sleep(seconds)
    raise ValueError(seconds)


async def serve(*, started):
    await sleep(0.25)
    started()
    await sleep(1e-9)


async def cancel_after(seconds, scope):
    await sleep(seconds)
    scope.cancel()


async def write(lock, seconds):
    async with lock:
        await sleep(seconds)


async def main():
    first = create_task(nap(1), name="first <&> \"'\U0001f600")
    second = create_task(nap(1.5))
    await first
    with move_on_after(0.25):
        await second
    await second
    with CancelScope() as scope:
        create_task(cancel_after(1 / 3, scope))
        await sleep(3600)
    try:
        async with TaskGroup() as group:
            await group.start(serve)
            group.create_task(nap(60), name="cancelled")
            group.create_task(fail(2))
    except* ValueError:
        pass
    create_task(nap(math.inf), name="left over", daemon=True)
    lock = Lock(name="db")
    create_task(write(lock, 2), name="writer")
    create_task(write(lock, 3), name="next")
    create_task(write(lock, 1), name="last")
    await sleep(10)


async def tick():
    for _ in range(4):
        await sleep(1)


def trace(**options):
    loop = SleepingLoop(main(), tick(), speed=math.inf, trace=True, **options)
    loop.run_until_complete()
    return loop.trace


if __name__ == "__main__":
    print(trace().to_json(), end="")
