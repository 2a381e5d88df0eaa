"""Ends while loops are alive in one way or another; nobody may hear of it."""

import faulthandler
import math
import sys
import threading

import sleeploop


async def forever() -> None:
    try:
        await sleeploop.sleep_forever()
    finally:
        print("nobody may hear of this")


async def busy() -> None:
    while True:
        await sleeploop.checkpoint()


async def endless():
    try:
        while True:
            yield 1
    finally:
        print("nobody may hear of this")


def in_daemon_threads(*coros) -> None:
    """Each on a loop in a thread that will still run at the end."""

    async def main(coro, started) -> None:
        sleeploop.create_task(coro)
        await sleeploop.sleep(0)
        await sleeploop.sleep(0)
        started.set()
        await sleeploop.sleep(3600)

    for coro in coros:
        started = threading.Event()
        threading.Thread(target=sleeploop.run, args=(main(coro, started),), daemon=True).start()
        started.wait()


async def fail() -> None:
    await sleeploop.sleep(1)
    raise LookupError


async def iterate() -> None:
    generator = endless()
    await anext(generator)
    await sleeploop.sleep_forever()


class Loop(sleeploop.SleepingLoop):
    pass


def main(how: str) -> None:
    global kept
    match how:
        case "idle":
            in_daemon_threads(forever(), forever(), sleeploop.sleep(0.01))
        case "busy":
            in_daemon_threads(busy(), busy())
        case "never run":
            kept = Loop(sleeploop.sleep(1), sleeploop.sleep_forever())
            kept.create_task(sleeploop.checkpoint(), daemon=True)
        case "left by an error":
            kept = Loop(fail(), sleeploop.sleep_forever(), speed=math.inf)
            try:
                kept.run_until_complete()
            except LookupError as error:
                kept.error = error
        case "generator":
            in_daemon_threads(iterate())
        case "in a cycle":
            kept = Loop(sleeploop.sleep(1))
            kept.kept = kept, kept.tasks(), sleeploop.sleep(1), sleeploop
            sys.kept = kept


faulthandler.dump_traceback_later(30, exit=True)
main(sys.argv[1])
print("end")
