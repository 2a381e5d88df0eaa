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


class Waiting:
    """Tasks that wait at everything, and one that has what they wait for."""

    def __init__(self) -> None:
        self.lock, self.queue = sleeploop.Lock(name="lock"), sleeploop.Queue(1, name="queue")
        self.resource = sleeploop.Resource(name="resource", stats=True)
        self.condition = sleeploop.Condition(name="condition")
        self.ends = sleeploop.open_channel(1, name="ends")

    async def hold(self) -> None:
        async with self.lock, self.resource.request():
            await self.queue.put(self)
            await self.ends[0].send(self)
            await forever()

    async def at_lock(self) -> None:
        async with self.lock:
            print("nobody may hear of this")

    async def at_queue(self) -> None:
        try:
            await self.queue.put(1)
        finally:
            print("nobody may hear of this")

    async def at_condition(self) -> None:
        async with self.condition:
            await self.condition.wait()

    async def at_all(self) -> None:
        await sleeploop.first_of(
            self.lock.acquire(), self.queue.put(2), self.resource.request(), self.ends[0].send(3)
        )

    def coros(self):
        return self.hold(), self.at_lock(), self.at_queue(), self.at_condition(), self.at_all()

    async def together(self) -> None:
        await sleeploop.gather(*self.coros())


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
        case "waiting":
            kept = Waiting()
            in_daemon_threads(kept.together(), Waiting().together())
            assert kept.lock.locked()
            assert kept.queue.full()
        case "waiting, suspended":
            waiting = Waiting()
            kept = Loop(*waiting.coros(), speed=math.inf)
            kept.run_until(1)
            assert waiting.lock.locked()
            assert waiting.queue.full()
            kept.kept = sys.kept = kept.tasks(), waiting, waiting.queue.get(), sleeploop
        case "in a cycle":
            kept = Loop(sleeploop.sleep(1))
            kept.kept = kept, kept.tasks(), sleeploop.sleep(1), sleeploop
            sys.kept = kept


faulthandler.dump_traceback_later(30, exit=True)
main(sys.argv[1])
print("end")
