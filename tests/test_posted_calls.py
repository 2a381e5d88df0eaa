"""A run ends whatever is posted to it: calls that post the next one, threads that never stop."""

import math
import signal
import threading

import pytest

from sleeploop import (
    DeadlockError,
    Event,
    LoopClosedError,
    SleepingLoop,
    TaskGroup,
    create_task,
    current_loop,
    run,
    sleep,
    sleep_forever,
    to_thread,
)
from tests.helpers import OnDel, fail

SPEEDS = pytest.mark.parametrize("speed", [1, 1000, math.inf])


class Chain:
    """A call that posts the next one, until it is refused."""

    def __init__(self):
        self.refused = []
        self.calls = 0

    def begin(self, loop):
        self.loop = loop
        self()

    def __call__(self):
        self.calls += 1
        try:
            self.loop.call_soon_threadsafe(self)
        except LoopClosedError as error:
            self.refused.append(str(error))
            self.loop = None

    def has_ended(self):
        """It was refused once, when it was called for the last time."""
        (message,) = self.refused
        return ("the run is over" in message or "has run already" in message) and self.calls > 1


async def main(chain, end):
    chain.begin(current_loop())
    create_task(sleep_forever(), daemon=True)
    await sleep(0.001)
    return await end()


async def give_done():
    return "done"


async def interrupt(times):
    for _ in range(times):
        signal.raise_signal(signal.SIGINT)
    await sleep(0)


def step_to_the_end(coro, speed):
    loop = SleepingLoop(coro, speed=speed)
    for _ in range(50):
        loop.step()
    loop.close()


def close(coro, speed):
    loop = SleepingLoop(coro, speed=speed)
    loop.step()
    loop.close()


@SPEEDS
def test_a_run_that_ends_well(speed):
    chain = Chain()
    assert run(main(chain, give_done), speed=speed) == "done"
    assert chain.has_ended()


@SPEEDS
def test_run_until_complete(speed):
    chain = Chain()
    loop = SleepingLoop(main(chain, give_done), speed=speed)
    assert loop.run_until_complete() == ["done"]
    assert chain.has_ended()
    with pytest.raises(LoopClosedError, match="has run already"):
        loop.call_soon_threadsafe(chain)


@SPEEDS
@pytest.mark.parametrize("drive", [step_to_the_end, close])
def test_a_loop_that_is_closed(drive, speed):
    chain = Chain()
    drive(main(chain, sleep_forever), speed)
    assert chain.has_ended()


@SPEEDS
@pytest.mark.parametrize("drive", [lambda coro, speed: run(coro, speed=speed), step_to_the_end])
@pytest.mark.parametrize(
    ("end", "error"),
    [
        (lambda: fail(ValueError("no")), ValueError),
        (lambda: fail(SystemExit(3)), SystemExit),
        (lambda: interrupt(1), KeyboardInterrupt),
        (lambda: interrupt(2), KeyboardInterrupt),
    ],
)
def test_a_run_that_ends_by_an_error(drive, speed, end, error):
    chain = Chain()
    with pytest.raises(error):
        run_and_sleep(drive, main(chain, end), speed)
    assert chain.has_ended()


def run_and_sleep(drive, coro, speed):
    """Steps alone let no time pass at a finite speed."""
    if drive is step_to_the_end and speed != math.inf:
        drive = lambda coro, speed: SleepingLoop(coro, speed=speed).run_until(3600)  # noqa: E731
    drive(coro, speed)


@SPEEDS
def test_threads_that_post_all_the_time(speed):
    accepted, done, threads = [], [], []

    def post(loop, name):
        for i in range(10**9):
            try:
                loop.call_soon_threadsafe(done.append, (name, i))
            except LoopClosedError:
                return
            accepted.append((name, i))
            begun.set()

    async def main():
        for name in range(3):
            threads.append(threading.Thread(target=post, args=(current_loop(), name)))
            threads[-1].start()
        await to_thread(begun.wait, 10)
        await sleep(0.001)

    begun = threading.Event()
    run(main(), speed=speed)
    for thread in threads:
        thread.join()
    assert sorted(done) == sorted(accepted)  # none is lost, none is made after all


def test_what_has_been_posted_is_done_though_no_task_is_left():
    log = []

    async def main():
        loop = current_loop()
        for i in range(3):
            loop.call_soon_threadsafe(log.append, i)

    run(main(), speed=math.inf)
    assert log == [0, 1, 2]


def test_a_call_that_is_made_last_may_fail_and_make_tasks():
    """What it raises is an error of the run, and its tasks are cancelled before they start."""
    tasks = []

    def last():
        tasks.append(loop.create_task(sleep(1)))
        raise ValueError("last")

    loop = SleepingLoop(speed=math.inf)
    loop.call_soon_threadsafe(last)
    with pytest.raises(ValueError, match="last"):
        loop.run_until_complete()
    assert tasks[0].cancelled()


def test_who_does_not_expect_the_refusal_is_told_by_the_run():
    async def main():
        again(current_loop())

    def again(loop):
        loop.call_soon_threadsafe(again, loop)

    with pytest.raises(LoopClosedError, match=r"call_soon_threadsafe\(\): the run is over"):
        run(main(), speed=math.inf)


@pytest.mark.parametrize("speed", [1, math.inf])
def test_the_cleanup_of_a_generator_of_the_last_call_may_use_threads(speed):
    """Their results still come, though nobody can post any more."""
    log = []

    async def numbers():
        try:
            yield 1
        finally:
            log.append(await to_thread(str, 5))
            with pytest.raises(LoopClosedError):
                loop.call_soon_threadsafe(print)
            log.append("refused")

    def last():
        generator = numbers()
        with pytest.raises(StopIteration):
            generator.asend(None).send(None)

    loop = SleepingLoop(speed=speed)
    loop.call_soon_threadsafe(loop.call_soon_threadsafe, last)
    loop.call_soon_threadsafe(last)
    with pytest.raises(LoopClosedError):
        loop.run_until_complete()
    assert log == ["5", "refused"]


@pytest.mark.parametrize("speed", [1, math.inf])
def test_a_cleanup_that_waits_for_a_call_that_nobody_can_make_any_more(speed):
    """At a finite speed as well, whatever other threads there are."""

    async def numbers():
        try:
            yield 1
        finally:
            await Event(name="too late").wait()

    def last():
        generator = numbers()
        with pytest.raises(StopIteration):
            generator.asend(None).send(None)

    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    loop = SleepingLoop(speed=speed)
    loop.call_soon_threadsafe(last)
    try:
        with pytest.raises(DeadlockError):
            loop.run_until_complete()
    finally:
        stop.set()
        thread.join()


def test_a_chain_through_destructors_and_coroutines_that_are_closed():
    """Whatever makes the next call, in the end it is refused."""
    refused = []

    class Closed:
        """What a task can run, though it never does."""

        def send(self, _):
            raise AssertionError

        throw = send

        def close(self):
            post()

    def post():
        try:
            loop.call_soon_threadsafe(again, OnDel(lambda: None))
        except LoopClosedError:
            refused.append(1)

    def again(_):
        loop.create_task(Closed())

    async def main():
        async with TaskGroup() as group:
            group.create_task(sleep(1))
        post()

    loop = SleepingLoop(main(), speed=math.inf)
    loop.run_until_complete()
    assert refused == [1]
