"""set_wakeup(): how whoever drives a loop from outside learns that it has something to do."""

import asyncio
import contextlib
import functools
import gc
import math
import signal
import sys
import threading
import time
import weakref

import pytest

from sleeploop import (
    CancelScope,
    Event,
    Interrupt,
    Lock,
    LoopClosedError,
    Queue,
    SleepingLoop,
    TaskGroup,
    checkpoint,
    current_loop,
    open_channel,
    sleep,
    sleep_forever,
    to_thread,
)
from tests.helpers import fail, give, in_thread


@pytest.fixture
def told():
    """A callback that notes each call."""

    class Told:
        count = 0

        def __call__(self):
            self.count += 1

    return Told()


def suspended(*coros, speed=math.inf):
    """A loop that has nothing to do any more."""
    loop = SleepingLoop(*coros, speed=speed)
    while loop.step():
        pass
    return loop


# ---- the callback --------------------------------------------------------------------------------


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("call", [lambda function, *args: function(*args), in_thread])
def test_it_is_called_once_from_one_step_to_the_next(begun, call, told):
    loop, log = SleepingLoop(speed=math.inf), []
    if begun:
        loop.step()
    assert loop.set_wakeup(told) is None
    assert told.count == 0
    for n in range(1, 4):
        for i in range(3):
            call(loop.call_soon_threadsafe, log.append, i)
            assert told.count == n
        assert loop.step() is True
        assert told.count == n
        assert log == n * [0, 1, 2]
    loop.close()
    assert told.count == 3


def test_what_was_posted_before_it_was_set(told):
    loop = suspended()
    loop.call_soon_threadsafe(print)
    loop.set_wakeup(told)
    assert told.count == 1
    loop.call_soon_threadsafe(print)
    assert told.count == 1
    other = type(told)()
    assert loop.set_wakeup(other) is told  # who has not been told
    assert (told.count, other.count) == (1, 1)
    loop.close()


def test_none_removes_it(told):
    loop = suspended()
    loop.set_wakeup(told)
    assert loop.set_wakeup(None) is told
    assert loop.set_wakeup(None) is None
    loop.call_soon_threadsafe(print)
    assert told.count == 0
    loop.close()


def test_in_which_thread_it_is_called():
    threads = []
    loop = suspended()
    loop.set_wakeup(lambda: threads.append(threading.get_ident()))
    loop.call_soon_threadsafe(print)
    loop.step()
    in_thread(loop.call_soon_threadsafe, print)
    assert threads[0] == threading.get_ident() != threads[1]
    loop.close()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_what_it_raises_is_reported_and_nothing_is_lost(error, monkeypatch):
    def broken():
        raise error

    unraisable, log = [], []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: unraisable.append(args.exc_type))
    loop = suspended()
    loop.set_wakeup(broken)
    loop.call_soon_threadsafe(log.append, 1)
    loop.call_soon_threadsafe(log.append, 2)
    assert unraisable == [error]
    task = loop.create_task(give(5))
    loop.step()
    assert log == [1, 2]
    while loop.step():
        pass
    assert task.result() == 5
    loop.close()


@pytest.mark.parametrize("bad", [5, "f", (), ...])
def test_what_cannot_be_called(bad, told):
    loop = suspended()
    loop.set_wakeup(told)
    with pytest.raises(TypeError, match=r"set_wakeup\(\) takes a function or None, not "):
        loop.set_wakeup(bad)
    assert loop.set_wakeup(None) is told
    loop.close()


def test_wrong_use(told):
    with pytest.raises(TypeError, match="set_wakeup"):
        SleepingLoop().set_wakeup()
    with pytest.raises(RuntimeError, match="__init__"):
        SleepingLoop.__new__(SleepingLoop).set_wakeup(told)
    loop = suspended()
    loop.set_wakeup(told)
    loop.close()
    assert loop.set_wakeup(None) is None  # the end of the run has dropped it
    with pytest.raises(LoopClosedError, match=r"set_wakeup\(\)"):
        loop.set_wakeup(told)
    assert told.count == 0


@pytest.mark.parametrize("end", [SleepingLoop.close, SleepingLoop.run_until_complete, None])
def test_it_is_let_go_with_the_run_or_the_loop(end):
    class Callback:
        def __call__(self):
            pass

    callback, loop = Callback(), SleepingLoop(speed=math.inf)
    callback.loop = loop  # a cycle
    ref = weakref.ref(callback)
    loop.set_wakeup(callback)
    del callback
    if end is not None:
        end(loop)
    else:
        del loop
        gc.collect()
    assert ref() is None


def test_it_drops_itself_while_it_is_called():
    class Callback:
        def __call__(self):
            nonlocal callback
            callback = None
            loop.set_wakeup(None)
            gc.collect()
            log.append(self.__class__.__name__)

    log, callback, loop = [], Callback(), suspended()
    loop.set_wakeup(callback)
    loop.call_soon_threadsafe(print)
    assert log == ["Callback"]
    loop.close()


# ---- what it may do ------------------------------------------------------------------------------


def test_it_may_drive_the_loop():
    log = []
    loop = suspended()
    loop.set_wakeup(lambda: log.append(loop.step()))
    for i in range(3):
        loop.call_soon_threadsafe(log.append, i)
    assert log == [0, True, 1, True, 2, True]
    loop.create_task(give(5))
    assert log[6:] == [True]
    loop.set_wakeup(loop.close)
    loop.call_soon_threadsafe(log.append, "closed")
    assert log[7:] == ["closed"]
    assert "closed" in repr(loop)


def test_it_may_not_drive_it_in_one_of_its_steps(monkeypatch):
    unraisable = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: unraisable.append(str(args.exc_value)))

    async def main():
        current_loop().call_soon_threadsafe(print)

    loop = SleepingLoop(main(), speed=math.inf)
    loop.set_wakeup(loop.step)
    loop.step()
    assert len(unraisable) == 1
    assert "cannot be called while a loop is running in this thread" in unraisable[0]
    loop.close()


def test_it_may_post_and_set_another(told):
    log = []

    def callback():
        loop.call_soon_threadsafe(log.append, 2)
        loop.set_wakeup(told)  # who is told of the two at once
        loop.call_soon_threadsafe(log.append, 3)

    loop = suspended()
    loop.set_wakeup(callback)
    loop.call_soon_threadsafe(log.append, 1)
    assert told.count == 1
    loop.step()
    assert log == [1, 2, 3]
    loop.close()


def test_one_that_sets_itself_again_and_again_ends(monkeypatch):
    unraisable = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: unraisable.append(args.exc_type))
    loop, log = suspended(), []
    for callback in lambda: set_again(loop), functools.partial(set_again, loop):
        loop.set_wakeup(callback)
        loop.call_soon_threadsafe(log.append, 1)
        loop.step()
    assert log == [1, 1]
    assert set(unraisable) <= {RecursionError}
    loop.close()


def set_again(loop):
    loop.set_wakeup(functools.partial(set_again, loop))


# ---- who calls it --------------------------------------------------------------------------------


@pytest.mark.realtime
def test_the_end_of_to_thread(told):
    loop = SleepingLoop(to_thread(go_on_when, go_on := threading.Event()))
    loop.set_wakeup(told)
    while loop.step():
        pass
    assert told.count == 0
    go_on.set()
    until = time.monotonic() + 20
    while told.count == 0 and time.monotonic() < until:
        time.sleep(0.001)
    assert loop.run_until_complete() == ["went on"]
    assert told.count == 1


def go_on_when(event):
    assert event.wait(20)
    return "went on"


def test_a_signal_handler(told):
    loop, log = suspended(), []
    loop.set_wakeup(told)
    old = signal.signal(signal.SIGUSR1, lambda *_: loop.call_soon_threadsafe(log.append, 1))
    try:
        signal.raise_signal(signal.SIGUSR1)
        assert told.count == 1
        loop.step()
        signal.raise_signal(signal.SIGUSR1)
        assert told.count == 2
    finally:
        signal.signal(signal.SIGUSR1, old)
    loop.close()
    assert log == [1, 1]


def make_task(loop):
    loop.create_task(give(1))


def cancel_task(loop):
    loop.tasks()[0].cancel()


def interrupt_task(loop):
    loop.tasks()[0].interrupt()


def cancel_scope(loop):
    loop.scope.cancel()


def set_deadline(loop):
    loop.scope.deadline = 5


def unshield(loop):
    loop.scope.shield = False


def set_speed(loop):
    loop.speed = 60


def set_event(loop):
    loop.event.set()


def put_item(loop):
    loop.queue.put_nowait(1)


def release_lock(loop):
    loop.lock.release()


def leave_block(loop):
    loop.lock.__aexit__(None, None, None)


def call_started(loop):
    loop.started(1)


def send_item(loop):
    loop.sender.send_nowait(1)


@pytest.mark.parametrize(
    "change",
    [
        make_task,
        cancel_task,
        interrupt_task,
        cancel_scope,
        set_deadline,
        unshield,
        set_speed,
        set_event,
        put_item,
        send_item,
        release_lock,
        leave_block,
        call_started,
    ],
)
@pytest.mark.parametrize("call", [lambda function, *args: function(*args), in_thread])
def test_whoever_changes_something_between_two_steps(change, call, told):
    class Loop(SleepingLoop):
        pass

    async def in_scope():
        with loop.scope, contextlib.suppress(Interrupt):
            await sleep_forever()

    async def receive(channel):
        await channel.receive()

    async def keep_lock():
        await loop.lock.acquire()
        await sleep_forever()

    async def child(started):
        loop.started = started
        await sleep_forever()

    async def parent():
        async with TaskGroup() as group:
            await group.start(child)

    loop = Loop(speed=math.inf)
    loop.lock = Lock()
    loop.scope, loop.event, loop.queue = CancelScope(shield=True), Event(), Queue()
    loop.sender, receiver = open_channel(0)
    for coro in (
        in_scope(),
        keep_lock(),
        loop.lock.acquire(),
        parent(),
        loop.event.wait(),
        loop.queue.get(),
        receive(receiver),
    ):
        loop.create_task(coro if hasattr(coro, "cr_code") else wait(coro))
    while loop.step():
        pass
    loop.set_wakeup(told)
    call(change, loop)
    assert told.count == 1
    while loop.step():
        pass
    loop.scope.shield = False
    loop.close()


async def wait(awaitable):
    return await awaitable


def test_a_coroutine_that_is_dropped_in_another_thread_and_had_a_lock(told):
    lock, log = Lock(), []

    async def numbers():
        try:
            async with lock:
                yield 1
        finally:
            log.append("closed")

    async def main():
        box.append(numbers())
        await anext(box[0])
        await sleep_forever()

    async def other():
        async with lock:
            log.append("got it")

    box = []
    loop = suspended(main(), other())
    loop.set_wakeup(told)
    in_thread(box.clear)  # the hook of the loop has it closed by a task
    assert told.count == 1
    while loop.step():
        pass
    assert log == ["closed", "got it"]
    loop.close()


def test_what_is_done_in_a_step_is_seen_by_the_step(told):
    async def main():
        current_loop().create_task(give(1))
        event.set()
        await checkpoint()

    event = Event()
    loop = SleepingLoop(main(), speed=math.inf)
    loop.create_task(wait(event.wait()))
    loop.set_wakeup(told)
    while loop.step():
        pass
    assert told.count == 0
    assert loop.run_until_complete() == [None]


def test_a_loop_that_drives_itself_tells_nobody(told):
    async def main():
        for _ in range(5):
            current_loop().call_soon_threadsafe(print)
            await checkpoint()

    loop = SleepingLoop(main(), speed=math.inf)
    loop.set_wakeup(told)
    loop.run_until_complete()
    assert told.count == 0


def test_a_step_that_fails_drops_it(told):
    loop = SleepingLoop(fail(ValueError("no")), speed=math.inf)
    loop.set_wakeup(told)
    with pytest.raises(ValueError, match="no"):  # noqa: PT012
        while True:
            loop.step()
    assert loop.set_wakeup(None) is None


# ---- another loop --------------------------------------------------------------------------------


async def drive(loop):
    """As in the reference."""
    host, told = asyncio.get_running_loop(), asyncio.Event()
    loop.set_wakeup(lambda: host.call_soon_threadsafe(told.set))
    passes = 0
    while loop.tasks():
        told.clear()
        passes += 1
        if not loop.step():
            seconds = None
            if 0 < loop.speed < math.inf:
                seconds = max(loop.next_wake_time() - loop.time(), 0) / loop.speed
            try:
                async with asyncio.timeout(None if seconds == math.inf else seconds):
                    await told.wait()
            except TimeoutError:
                pass
    loop.close()
    return passes


def by_asyncio(coro, speed, beside=None):
    """How many steps it took."""

    async def main():
        loop = SleepingLoop(coro, speed=speed)
        task = asyncio.create_task(drive(loop))
        if beside is not None:
            await asyncio.sleep(0)
            beside(loop)
        return await asyncio.wait_for(task, 30)

    return asyncio.run(main())


@pytest.mark.realtime
@pytest.mark.parametrize("speed", [1, 100, math.inf])
@pytest.mark.parametrize("n", [1, 5])
def test_driven_by_asyncio(speed, n):
    async def by_thread():
        for _ in range(n):
            await to_thread(time.sleep, 0.02)
        log.append("thread")

    async def by_call():
        for _ in range(n):
            loop, event = current_loop(), Event()
            timer = threading.Timer(0.02, loop.call_soon_threadsafe, [event.set])
            timer.start()
            await event.wait()
        log.append("call")

    async def by_timer():
        for _ in range(n):
            await sleep(0.02)
        log.append("timer")

    for coro in by_thread(), by_call(), by_timer():
        log = []
        assert by_asyncio(coro, speed) < 50 * n  # it does not spin
        assert len(log) == 1


@pytest.mark.realtime
def test_paused_and_driven_by_asyncio():
    """A thread posts what makes it go on."""

    async def main():
        log.append("sleeps")
        await sleep(0.01)
        log.append("has slept")

    def post(loop):
        loop.speed = 0
        threading.Timer(0.05, loop.call_soon_threadsafe, [setattr, loop, "speed", 1]).start()

    log = []
    assert by_asyncio(main(), 1, post) < 50
    assert log == ["sleeps", "has slept"]


@pytest.mark.realtime
def test_a_change_made_beside_it():
    """By another coroutine of the loop that drives it."""

    async def main():
        return await queue.get()

    def put(loop):
        asyncio.get_running_loop().call_later(0.02, queue.put_nowait, "item")

    queue = Queue()
    assert by_asyncio(main(), math.inf, put) < 20
