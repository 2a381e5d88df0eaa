"""The pytest plugin: deadlocks, limits, leftovers, failures nobody saw."""

import subprocess
import sys
import textwrap

import pytest

from tests.plugin import HEADER, LEAN, run

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.no_leak_check  # a run of pytest keeps things


def test_a_deadlock_is_shown_where_it_is(pytester):
    result = run(
        pytester,
        """
        @pytest.fixture
        async def log():
            yield
            await sleep(1)
            print("fixture cleaned up")

        async def wait():
            try:
                await sleep_forever()
            finally:
                await checkpoint()

        @MARK
        async def test(log):
            await sleep(5)
            try:
                await wait()
            finally:
                with CancelScope(shield=True):
                    await sleep(1)
                print("cleaned up at", current_loop().time())
        """,
        "-s",
        failed=1,
    )
    result.stdout.fnmatch_lines(
        [
            "*cleaned up at 6.0",
            "*fixture cleaned up",
            ">   *await wait()",
            ">   *await sleep_forever()",
            "E   *DeadlockError: every task waits for something that cannot happen any more:",
            "E   *Task 'test' test: sleeping until cancelled, since 5.0 s, at *.py:* in wait",
        ]
    )


def test_the_limit(pytester):
    pytester.makeini("[pytest]\nsleeploop_timeout = 3600")
    result = run(
        pytester,
        """
        from datetime import timedelta

        async def beat():
            while True:
                await sleep(60)

        @MARK
        async def test_ini():
            async with TaskGroup() as group:
                group.create_task(beat(), name="beat")

        @MARK(timeout=5)
        async def test_just_in_time():
            await sleep(5)

        @MARK(timeout=5)
        async def test_late():
            try:
                await sleep(5.5)
            except CancelledError as error:
                assert "limit" in str(error)

        @MARK(timeout=0)
        async def test_none():
            await sleep(10 ** 9)

        @MARK(timeout=timedelta(days=366))
        async def test_a_year():
            await sleep(timedelta(days=365))

        @MARK(timeout=0.25, speed=10)
        async def test_at_another_speed():
            await sleep(60)

        @MARK(timeout=0.25, speed=10)
        async def test_forever():
            await sleep_forever()
        """,
        passed=3,
        failed=4,
    )
    result.stdout.fnmatch_lines(
        [
            "> *TaskGroup() as group:",
            "E *Failed: test_ini was still running after 3600.0 s of loop time, its limit *:",
            "E *Task 'test_ini' test_ini: waiting for the 1 task of its TaskGroup, since 0.0 s*",
            "E *  Task 'beat' beat: sleeping until 3660.0 s*",
            "E *test_late was still running after 5.0 s*",
            "E *test_at_another_speed was still running after 0.25 s*",
            "E *test_forever was still running after 0.25 s*",
        ]
    )


def test_there_is_a_limit_by_default(pytester):
    result = run(
        pytester,
        """
        @MARK
        async def test():
            while True:
                await sleep(3600)
        """,
        failed=1,
    )
    result.stdout.fnmatch_lines("*still running after 2592000.0 s of loop time*")


def test_those_who_do_not_end(pytester):
    result = run(
        pytester,
        """
        kept = []

        async def swallow():
            while True:
                try:
                    await sleep(1)
                except CancelledError:
                    pass

        @pytest.fixture
        async def log():
            try:
                yield
            finally:
                print("closed")

        @MARK(timeout=5)
        async def test_swallows(log):
            await swallow()

        @MARK(timeout=5)
        async def test_shields():
            with CancelScope(shield=True):
                while True:
                    await sleep(1)

        @MARK
        async def test_deadlocks():
            with CancelScope(shield=True):
                await sleep_forever()

        @MARK
        async def test_leaves():
            create_task(swallow())

        @MARK
        async def test_daemon():
            create_task(swallow(), daemon=True)
            await sleep(1)

        @MARK
        async def test_goes_on():
            await sleep(1)
        """,
        "-s",
        passed=2,
        failed=4,
        errors=2,
    )
    text = str(result.stdout).partition("short test summary info")[0]  # which in CI repeats it all
    assert text.count("did not end when it was cancelled, and the loop had to be closed") == 5
    assert text.count("closed\n") == 1


@pytest.mark.parametrize(
    "end",
    [
        "with CancelScope(shield=True): await sleep_forever()",
        "create_task(give_up()); await sleep(1)",
        "create_task(give_up())",
        "current_loop().call_soon_threadsafe(give_up_now)",
        "current_loop().call_soon_threadsafe(give_up_now); await sleep(1)",
    ],
)
def test_after_the_end_of_the_shared_loop_there_is_another_one(pytester, end):
    result = run(
        pytester,
        f"""
        def give_up_now():
            pytest.fail("in another task")

        async def give_up():
            give_up_now()

        @pytest.fixture(scope="session")
        async def wide():
            async with TaskGroup():
                print("set up")
                try:
                    yield current_loop()
                finally:
                    print("torn down")

        @pytest.fixture(scope="module")
        def plain(wide):
            return wide

        @MARK
        async def test_ends_it(plain):
            {end}

        @pytest.mark.parametrize("n", [1, 2])
        @MARK
        async def test_next(plain, n):
            assert plain is current_loop()
            await sleep(1)
            assert plain.time() == n
        """,
        "-s",
        passed=2,
        failed=1,
    )
    text = str(result.stdout)
    assert (text.count("set up"), text.count("torn down")) == (2, 2)


def test_leftovers(pytester):
    result = run(
        pytester,
        """
        cleaned = []

        async def wait():
            try:
                await sleep_forever()
            finally:
                cleaned.append(1)

        async def parent():
            async with TaskGroup() as group:
                group.create_task(wait(), name="child")

        @MARK
        async def test_two():
            create_task(wait(), name="a")
            create_task(parent(), name="b")
            await sleep(1)

        @MARK
        async def test_they_were_cancelled():
            assert len(cleaned) == 2

        @MARK
        async def test_daemons_may_stay():
            create_task(wait(), daemon=True)

        @MARK
        async def test_what_is_just_ending():
            tasks = [create_task(wait()) for _ in range(3)]
            await sleep(1)
            for task in tasks:
                task.cancel()
            create_task(sleep(0))

        @MARK
        async def test_failed_anyway():
            create_task(wait(), name="c")
            await sleep(1)
            assert False
        """,
        passed=3,
        failed=2,
    )
    result.stdout.fnmatch_lines(
        [
            "test_two left 2 tasks running:",
            "  Task 'a' wait: sleeping until cancelled, since 0.0 s, at *",
            "  Task 'b' parent: waiting for the 1 task of its TaskGroup, since 0.0 s, at *",
            "    Task 'child' wait: sleeping until cancelled, since 0.0 s, at *",
            "> *assert False",
            "*test_failed_anyway left 1 task running:*",
        ]
    )


def test_many_leftovers(pytester):
    result = run(
        pytester,
        """
        @MARK
        async def test():
            create_task(sleep_forever(), daemon=True)
            for _ in range(1000):
                create_task(sleep_forever())
        """,
        failed=1,
    )
    told = str(result.stdout).count("sleep_forever: sleeping until")
    assert told in (1, 2)  # where CI is set, the summary has the whole message again
    result.stdout.fnmatch_lines(["test left 1000 tasks running:", "  Task *(and 999 more like it)"])


def test_code_that_needs_another_loop(pytester):
    result = run(
        pytester,
        """
        import asyncio

        @MARK
        async def test_sleep():
            await asyncio.sleep(1)

        @MARK
        async def test_future():
            await asyncio.Future(loop=asyncio.new_event_loop())

        @MARK
        async def test_queue():
            await asyncio.Queue().get()

        @pytest.fixture
        async def server():
            async with TaskGroup() as group:
                group.create_task(asyncio.sleep(1))
                yield

        @MARK
        async def test_fixture(server): await sleep(1)

        @MARK
        async def test_mine():
            raise RuntimeError("no event")
        """,
        "-Wignore",
        failed=5,
        errors=1,
    )
    for name in "test_sleep", "test_future", "test_queue", "server":
        result.stdout.fnmatch_lines(f"*{name} runs on a SleepingLoop, *await what sleeploop has*")
    result.stdout.no_fnmatch_line("*test_mine runs on a SleepingLoop*")


# ---- in a debugger -----------------------------------------------------------------------------

DEBUGGED = """
    @pytest.fixture
    async def log():
        yield
        print("torn down")

    async def helper():
        await sleep(1)
        raise ValueError("in the helper")

    @MARK
    async def test_fails(log):
        create_task(sleep(100), name="beside")
        await helper()

    @MARK
    async def test_leaves(log):
        create_task(sleep(100), name="beside")
"""


@pytest.mark.parametrize(
    ("test", "frames"),
    [("test_fails", ["helper()", "test_fails()"]), ("test_leaves", ["test_leaves()"])],
)
def test_a_debugger(pytester, test, frames):
    pytester.makepyfile(HEADER + textwrap.dedent(DEBUGGED))
    words = ["-m", "pytest", *LEAN, "--pdb", "-k", test]
    commands = "print(format_tasks())\n" + "up\n" * len(frames) + "q\n"
    done = subprocess.run(
        [sys.executable, *words], input=commands, capture_output=True, text=True, check=False
    )
    shown = done.stdout.partition("entering PDB")[2].splitlines()
    lines = [line for line in shown if line.startswith((">", "(Pdb)", "  Task"))]
    pytest.LineMatcher(lines).fnmatch_lines(
        [
            f">*test_a_debugger.py(*){frames[0]}",
            f"(Pdb) Task '{test}' (has ended): *",
            "  Task 'beside' sleep: sleeping until 100.0 s, since 0.0 s",
            *(f"(Pdb) >*test_a_debugger.py(*){frame}" for frame in frames[1:]),
            "(Pdb) [*][*][*] Oldest frame",
            "(Pdb) torn down",
        ],
    )


def test_a_failure_that_nobody_has_seen(pytester):
    result = run(
        pytester,
        """
        async def fail(text):
            await sleep(1)
            raise ValueError(text)

        kept = []

        @pytest.fixture
        async def failing():
            return create_task(fail("of the fixture"))

        @MARK
        async def test_kept():
            kept.append(create_task(fail("kept")))
            await sleep(5)

        @MARK
        async def test_dropped():
            create_task(fail("dropped"))
            await sleep(5)

        @MARK
        async def test_kept_future():
            kept.append(Future(name="kept"))
            kept[-1].set_exception(ValueError("of a future"))

        @MARK
        async def test_dropped_future():
            Future().set_exception(ValueError("of another"))

        @MARK
        async def test_seen(failing):
            with pytest.raises(ValueError):
                await failing

        @MARK
        async def test_unseen(failing):
            await sleep(5)

        @MARK
        async def test_group():
            create_task(fail("beside"))
            await sleep(5)
            raise KeyError("of the test")

        @MARK
        async def test_skipped():
            create_task(fail("before the skip"))
            await sleep(5)
            pytest.skip("no")
        """,
        passed=1,
        failed=7,
    )
    result.stdout.fnmatch_lines(
        [
            "E *ValueError: kept",
            "E *ValueError: dropped",
            "E *ValueError: of a future",
            "E *ValueError: of another",
            "E *ValueError: of the fixture",
            "*ExceptionGroup: 2 errors (2 sub-exceptions)",
            "*KeyError: 'of the test'",
            "*ValueError: beside",
            "*ValueError: before the skip",
        ]
    )


def test_what_ends_the_run_ends_the_test(pytester):
    result = run(
        pytester,
        """
        import time

        @pytest.fixture
        async def log():
            yield
            print("cleaned up")

        async def give_up():
            pytest.fail("in a task")

        @MARK
        async def test_fails_in_a_task(log):
            create_task(give_up())
            await sleep(5)

        @MARK(strict=0.5, speed=1000)
        async def test_lags(log):
            create_task(sleep(0.5), daemon=True)
            await sleep(0)
            time.sleep(0.01)
            await sleep(5)
        """,
        "-s",
        failed=2,
    )
    result.stdout.fnmatch_lines(["E *Failed: in a task", "*LagError: the loop is *"])
    assert str(result.stdout).count("cleaned up") >= 2


def test_an_async_generator_left_open_is_closed(pytester):
    run(
        pytester,
        """
        log = []

        async def numbers():
            try:
                yield 1
            finally:
                await sleep(1)
                log.append("closed")

        @MARK
        async def test():
            global kept
            kept = numbers()
            await anext(kept)

        def test_then():
            assert log == ["closed"]
        """,
        passed=2,
    )


def test_a_daemon_that_fails_at_the_end_is_logged(pytester):
    run(
        pytester,
        """
        async def fail_at_the_end():
            try:
                await sleep_forever()
            finally:
                raise ValueError("at the end")

        @MARK
        async def test():
            create_task(fail_at_the_end(), daemon=True)
            await sleep(1)

        @pytest.fixture
        def log(caplog):
            yield
            assert "at the end" in caplog.text
        """,
        passed=1,
    )
