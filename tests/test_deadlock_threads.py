"""Which threads may still wake somebody, so that the loop waits instead of reporting a deadlock.

Each program runs in a process of its own: in this one other tests may have left threads.
"""

import subprocess
import sys
import textwrap

import pytest

pytestmark = pytest.mark.realtime

HEAD = """
import faulthandler, gc, math, os, signal, threading, time
import sleeploop as sl
from sleeploop import SleepingLoop, Event, create_task, current_loop, run, sleep, to_thread

faulthandler.dump_traceback_later(20, exit=True)

async def waits():
    await Event(name="bell").wait()

async def uses_a_thread():
    await to_thread(int)
    await Event(name="bell").wait()

def told(function, *args, **kwargs):
    try:
        function(*args, **kwargs)
    except sl.DeadlockError as error:
        print("told", "Event 'bell'" in str(error))
"""


def output(program):
    done = subprocess.run(
        [sys.executable, "-c", HEAD + textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize("speed", ["1", "1000", "math.inf"])
def test_idle_threads_of_the_loops_own_pool(speed):
    program = f"""
    async def several():
        async with sl.TaskGroup() as group:
            for _ in range(3):
                group.create_task(to_thread(time.sleep, 0.01))
        await waits()

    told(run, uses_a_thread(), speed={speed})
    told(run, several(), speed={speed})
    """
    assert output(program) == "told True\ntold True\n"


def test_idle_threads_of_loops_that_are_suspended():
    program = """
    others = [SleepingLoop(uses_a_thread()) for _ in range(3)]
    for other in others:
        other.run_until(other.create_task(to_thread(int)))
    told(run, uses_a_thread())
    for other in others:
        other.close()
    """
    assert output(program) == "told True\n"


def test_threads_of_a_loop_that_has_ended():
    program = """
    async def main():
        await to_thread(int)

    for _ in range(3):
        run(main())
    told(run, waits())
    """
    assert output(program) == "told True\n"


def test_a_loop_that_is_dropped_leaves_its_threads_to_themselves():
    program = """
    loop = SleepingLoop(uses_a_thread())
    loop.run_until(loop.create_task(to_thread(int)))
    import warnings
    warnings.simplefilter("ignore")
    del loop
    gc.collect()
    print(threading.active_count() <= 2)  # it may take them a moment to end
    told(run, waits())
    """
    assert output(program) == "True\ntold True\n"


def test_a_call_that_nobody_waits_for_any_more_may_still_wake_somebody():
    """A signal handler has raised in the middle of to_thread()."""
    program = """
    async def main():
        bell, loop = Event(name="bell"), current_loop()

        def work():
            started.set()
            go_on.wait(10)
            loop.call_soon_threadsafe(bell.set)

        def raise_(*_):
            raise ZeroDivisionError

        async def call():
            await to_thread(work)

        coro = call()
        coro.send(None)  # steps aside
        park = coro.send(None)  # by hand: the thread works, and no task waits for it
        coro.close()
        del coro, park
        started.wait(10)
        threading.Timer(0.1, go_on.set).start()
        print(await bell.wait())
        await Event(name="bell").wait()

    started, go_on = threading.Event(), threading.Event()
    told(run, main())
    """
    assert output(program) == "True\ntold True\n"


def test_a_pool_of_the_programs_own_counts_even_if_it_is_idle():
    """Nobody knows what its threads are there for; when it is shut down, it is a deadlock."""
    program = """
    from concurrent.futures import ThreadPoolExecutor

    async def main():
        pool.submit(int).result()
        bell = Event()
        threading.Timer(0.05, lambda: pool.submit(loop.call_soon_threadsafe, bell.set)).start()
        await bell.wait()
        print("woken")
        timer = threading.Timer(0.1, pool.shutdown)
        timer.start()
        await waits()

    pool = ThreadPoolExecutor()
    loop = SleepingLoop(main())
    told(loop.run_until_complete)
    """
    assert output(program) == "woken\ntold True\n"


def test_a_daemon_thread_counts():
    program = """
    async def main():
        loop, bell = current_loop(), Event()

        def ring():
            time.sleep(0.05)
            loop.call_soon_threadsafe(bell.set)

        threading.Thread(target=ring, daemon=True).start()
        await bell.wait()
        print("woken")
        await uses_a_thread()

    told(run, main())
    """
    assert output(program) == "woken\ntold True\n"


def test_another_loop_in_another_thread_counts_while_it_runs():
    program = """
    async def other():
        await to_thread(int)
        await sleep(0.1)
        loop.call_soon_threadsafe(bell.set)

    async def main():
        threading.Thread(target=run, args=(other(),)).start()
        await bell.wait()
        print("woken")
        await uses_a_thread()

    bell = Event()
    loop = SleepingLoop(main())
    told(loop.run_until_complete)
    """
    assert output(program) == "woken\ntold True\n"


@pytest.mark.parametrize("speed", ["1", "math.inf"])
def test_a_child_does_not_wait_for_threads_that_stayed_in_its_parent(speed):
    program = f"""
    import warnings
    warnings.simplefilter("ignore")

    async def calls():
        try:
            return await to_thread(go_on.wait, 10)
        except RuntimeError as error:
            return str(error)

    async def main():
        task = create_task(calls())
        timer = create_task(sleep(0.1))
        while not started():
            await sl.checkpoint()
        child = os.fork()
        go_on.set()
        said = await task, await to_thread(str, 5)
        await timer
        if child:
            assert said == (True, "5"), said
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
            print("parent")
        else:
            assert said[0].endswith("the thread of this call has stayed in the parent process")
            assert said[1] == "5"
            os._exit(7)

    def started():
        return any(thread.name.startswith("sleeploop") for thread in threading.enumerate())

    go_on = threading.Event()
    run(main(), speed={speed})
    """
    assert output(program) == "parent\n"


# ---- handlers of signals -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "cleanup",
    [
        "await Event(name='bell').wait()",
        "await sl.Queue().get()",
        "await sl.sleep_forever()",
    ],
)
def test_the_end_of_a_run_in_virtual_time_waits_for_no_handler(cleanup):
    program = f"""
    async def stuck():
        try:
            await sl.sleep_forever()
        finally:
            with sl.CancelScope(shield=True):
                {cleanup}

    async def main():
        create_task(stuck())
        await sleep(1)

    signal.signal(signal.SIGUSR1, lambda *_: None)
    try:
        run(main(), speed=math.inf)
    except sl.DeadlockError:
        print("told")
    """
    assert output(program) == "told\n"


def test_a_run_in_virtual_time_waits_for_a_handler_until_it_ends():
    program = """
    async def main():
        await bell.wait()
        return "rung"

    bell = Event()
    signal.signal(signal.SIGUSR1, lambda *_: bell.set())
    threading.Timer(0.1, os.kill, [os.getpid(), signal.SIGUSR1]).start()
    print(run(main(), speed=math.inf))
    """
    assert output(program) == "rung\n"
