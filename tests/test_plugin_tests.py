"""The pytest plugin: which tests it runs, with which loop, and what a mark may say."""

import subprocess
import sys

import pytest

from tests.plugin import LEAN, run

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.no_leak_check  # a run of pytest keeps things


def test_a_marked_test_runs_in_virtual_time(pytester):
    run(
        pytester,
        """
        @MARK
        async def test_function():
            await sleep(3600)
            assert current_loop().time() == 3600
            assert current_loop().speed == math.inf

        class TestMethods:
            def setup_method(self):
                self.delay = 5

            @MARK
            async def test_method(self):
                await sleep(self.delay)
                assert current_loop().time() == 5
        """,
        passed=2,
    )


@pytest.mark.parametrize("mark", ["pytestmark = MARK", ""])
def test_a_marked_module_or_class(pytester, mark):
    run(
        pytester,
        f"""
        {mark}
        @MARK
        class TestAll:
            async def test_one(self):
                await sleep(1)
            @pytest.mark.parametrize("n", [1, 2, 3])
            async def test_many(self, n):
                await sleep(n)
                assert current_loop().time() == n
            def test_plain(self):
                with pytest.raises(RuntimeError):
                    current_loop()
        """,
        passed=5,
    )


def test_the_mark_takes_what_a_loop_takes(pytester):
    run(
        pytester,
        """
        from datetime import datetime

        @MARK(speed=1000, start=datetime(2030, 1, 1), seed=7, debug=True, strict=60, shuffle=3)
        async def test_all():
            loop = current_loop()
            assert (loop.speed, loop.debug) == (1000, True)
            assert loop.now().year == 2030
            assert loop.random("x").random() == SleepingLoop(seed=7).random("x").random()
            assert loop.schedule == ()

        pytestmark = MARK(start=datetime(2031, 1, 1), seed=1)

        @MARK(seed=2)
        async def test_the_nearest_counts():
            assert current_loop().now().year == 2031
            assert current_loop().random("x").random() == SleepingLoop(seed=2).random("x").random()
        """,
        passed=2,
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("sped=1, x=2", "*got 'sped', 'x'; it takes timeout, speed, start, *shuffle*"),
        ("1", "*takes keyword arguments only, not 1"),
        ("speed=-1", "*speed must be a positive number or math.inf, not -1"),
        ("start='now'", "*start must be a datetime, not 'now'"),
        ("timeout=-1", "*takes a timeout in seconds of loop time, 0 for none, not -1"),
        ("timeout='5'", "*takes a timeout in seconds of loop time, 0 for none, not '5'"),
        ("timeout=math.nan", "*takes a timeout in seconds of loop time, 0 for none, not nan"),
    ],
)
def test_a_wrong_argument(pytester, arguments, message):
    result = run(pytester, f"@MARK({arguments})\nasync def test(): print('ran')", errors=1)
    result.stdout.fnmatch_lines(message)
    result.stdout.no_fnmatch_line("*ran*")


def test_a_mark_on_what_is_no_async_test(pytester):
    result = run(
        pytester,
        """
        @MARK
        def test_plain(): pass

        @MARK
        async def test_generator(): yield

        @pytest.mark.skip
        @MARK
        def test_skipped(): pass
        """,
        errors=2,
        skipped=1,
    )
    result.stdout.fnmatch_lines(
        [
            "*is for `async def` functions, and test_plain is none; *",
            "*must not yield*test_generator*",
        ]
    )


def test_strict_mode_leaves_unmarked_tests_alone(pytester):
    result = run(pytester, "async def test(): pass", failed=1)
    result.stdout.fnmatch_lines("*async def functions are not natively supported*")


def test_auto_mode(pytester):
    pytester.makeini("[pytest]\nsleeploop_mode = auto\nmarkers = asyncio\n trio")
    result = run(
        pytester,
        """
        async def test_ours():
            assert current_loop().speed == math.inf

        @pytest.mark.asyncio
        async def test_theirs(): pass

        @pytest.mark.trio
        class TestTrio:
            async def test_theirs_too(self): pass

            @MARK
            async def test_the_nearest_mark_counts(self):
                assert current_loop().speed == math.inf

        @pytest.fixture
        def anyio_backend(): pass

        async def test_with_a_backend(anyio_backend): pass

        def test_plain(): pass

        async def test_generator(): yield
        """,
        "-p", "no:anyio", "-p", "no:asyncio", "-p", "no:trio",
        passed=3,
        failed=3,
        errors=1,
    )  # fmt: skip
    result.stdout.fnmatch_lines(
        [
            "*must not yield*test_generator*",
            "FAILED *test_theirs *",
            "FAILED *test_theirs_too *",
            "FAILED *test_with_a_backend *",
        ]
    )


def test_unittest_runs_its_own(pytester):
    pytester.makeini("[pytest]\nsleeploop_mode = auto")
    run(
        pytester,
        """
        import asyncio, unittest
        pytestmark = MARK

        class TestTheirs(unittest.IsolatedAsyncioTestCase):
            async def test(self):
                assert asyncio.get_running_loop()
        """,
        passed=1,
    )


@pytest.mark.parametrize(
    "line", ["sleeploop_mode = maybe", "sleeploop_timeout = soon", "sleeploop_timeout = -1"]
)
def test_a_wrong_option(pytester, line):
    pytester.makeini(f"[pytest]\n{line}")
    result = pytester.runpytest_inprocess(*LEAN)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(f"ERROR: {line.split()[0]} is *, not {line.split()[2]!r}")


def test_the_fixture_loop(pytester):
    run(
        pytester,
        """
        @pytest.fixture
        async def told(loop):
            assert current_loop() is loop
            return loop

        @MARK
        async def test_async(told, loop):
            assert current_loop() is loop is told

        async def double(x):
            await sleep(x)
            return 2 * x

        kept = []

        def test_plain(loop):
            assert loop.run_until(loop.create_task(double(5))) == 10
            assert loop.time() == 5
            kept.append(loop)

        def test_it_was_closed():
            with pytest.raises(LoopClosedError):
                kept[0].run_until(10)
        """,
        passed=3,
    )


def test_threads(pytester):
    run(
        pytester,
        """
        import time

        @MARK
        async def test():
            create_task(sleep(1), daemon=True)
            await to_thread(time.sleep, 0.01)
            assert current_loop().time() == 0
        """,
        passed=1,
    )


def test_a_failure_nobody_saw_in_the_loop_of_a_plain_test(pytester):
    result = run(
        pytester,
        """
        async def fail():
            raise ValueError("unseen")

        def test(loop):
            task = loop.create_task(fail())
            loop.run_until(1)
        """,
        passed=1,
        errors=1,
    )
    result.stdout.fnmatch_lines("*ValueError: unseen")


def test_a_fixture_of_the_users_own_called_loop(pytester):
    run(
        pytester,
        """
        @pytest.fixture
        def loop():
            return "mine"

        @MARK
        async def test(loop):
            assert loop == "mine"
        """,
        passed=1,
    )


def test_a_skipped_test_is_never_called(pytester):
    run(
        pytester,
        """
        @pytest.fixture
        def skips():
            pytest.skip("no")

        @MARK
        @pytest.mark.skip
        async def test_mark(): pass

        @MARK
        async def test_fixture(skips): pass

        @MARK
        async def test_call():
            await sleep(1)
            pytest.skip("in the middle")
        """,
        "-W", "error", "-p", "no:asyncio",
        skipped=3,
    )  # fmt: skip


def test_outcomes(pytester):
    result = run(
        pytester,
        """
        @MARK
        async def test_fail(): pytest.fail("on purpose")

        @MARK
        async def test_xfail(): pytest.xfail("known")

        @MARK
        @pytest.mark.xfail(raises=DeadlockError, strict=True)
        async def test_expected(): await sleep_forever()

        @MARK
        async def test_returns(): return 1

        @MARK
        async def test_raises():
            await sleep(1)
            wrong = 1
            assert wrong == 2
        """,
        "-W", "default",
        failed=2,
        xfailed=2,
        passed=1,
        warnings=1,
    )  # fmt: skip
    result.stdout.fnmatch_lines(["*on purpose", "*assert wrong == 2", "*assert 1 == 2"])
    result.stdout.no_fnmatch_line("*_runner.py*")
    result.stdout.no_fnmatch_line("*pytest_plugin.py*")


def test_pytest_exit_ends_the_session(pytester):
    pytester.makepyfile(
        """
        import pytest
        @pytest.mark.sleeploop
        async def test_one(): pytest.exit("enough")
        def test_two(): pass
        """
    )
    result = pytester.runpytest_inprocess(*LEAN)
    result.assert_outcomes()
    result.stdout.fnmatch_lines("*Exit: enough*")


def test_ctrl_c_ends_the_session_after_cleanup(pytester):
    pytester.makepyfile(
        """
        import signal, pytest
        from sleeploop import *

        @pytest.fixture(scope="session")
        async def outer():
            async with TaskGroup():
                yield
                print("outer cleaned up")

        @pytest.fixture
        async def inner(outer):
            try:
                yield
            finally:
                with CancelScope(shield=True):
                    await sleep(1)
                print("inner cleaned up")

        @pytest.mark.sleeploop
        async def test_one(inner):
            signal.raise_signal(signal.SIGINT)
            try:
                await sleep(1)
            finally:
                print("test cleaned up")

        def test_two():
            print("not reached")
        """
    )
    result = pytester.runpytest_subprocess(*LEAN, "-s", "-o", "log_cli=true")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(
        ["*test cleaned up", "inner cleaned up", "outer cleaned up", "*KeyboardInterrupt*"]
    )
    result.stdout.no_fnmatch_line("not reached")
    result.stdout.no_fnmatch_line("*RuntimeError*")
    assert "Error" not in str(result.stderr)


def test_help(pytester):
    result = pytester.runpytest_inprocess(*LEAN, "--markers")
    result.stdout.fnmatch_lines("@pytest.mark.sleeploop(*timeout=*): run an async test*")
    result = pytester.runpytest_inprocess(*LEAN, "--fixtures")
    result.stdout.fnmatch_lines(["loop -- *", "*The SleepingLoop that the async test runs on.*"])
    result = pytester.runpytest_inprocess(*LEAN, "--help")
    result.stdout.fnmatch_lines(["*sleeploop_mode*", "*sleeploop_timeout*"])


def test_without_the_plugin(pytester):
    run(pytester, "def test(): pass", "-p", "no:sleeploop", passed=1)
    result = run(pytester, "async def test(): pass", "-p", "no:sleeploop", failed=1)
    result.stdout.no_fnmatch_line("*SleepingLoop*")


def test_a_session_without_a_test_for_it_imports_nothing(tmp_path):
    (tmp_path / "test_plain.py").write_text("def test(): pass")
    program = f"""
import sys, pytest
assert pytest.main(["-q", *{LEAN}]) == 0
assert "_sleeploop_pytest" in sys.modules
loaded = [m for m in sys.modules if m.partition(".")[0] in ("sleeploop", "_sleeploop")]
assert loaded == [], loaded
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True)
    assert done.returncode == 0, done
