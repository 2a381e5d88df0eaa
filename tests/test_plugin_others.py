"""The pytest plugin beside hypothesis, pytest-xdist and other plugins for async tests."""

import importlib.util
import pathlib
import re

import hypothesis  # noqa: F401  here: else each run in this process would import it anew
import pytest

from tests.plugin import LEAN, lean, run

ROOT = pathlib.Path(__file__).parent.parent

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.no_leak_check  # a run of pytest keeps things


def needs(module):
    found = importlib.util.find_spec(module)
    return pytest.mark.skipif(found is None, reason=f"{module} is not installed")


def test_hypothesis(pytester):
    result = run(
        pytester,
        """
        from hypothesis import HealthCheck, given, settings, strategies

        anything = strategies.integers()
        few = settings(max_examples=10, database=None)
        many = settings(few, suppress_health_check=[HealthCheck.function_scoped_fixture])

        @MARK
        @few
        @given(n=anything)
        async def test_each_example_has_a_loop(n):
            assert current_loop().time() == 0
            await sleep(5)

        class TestMethods:
            @MARK
            @few
            @given(anything)
            async def test_method(self, n):
                await sleep(5)

        times = []

        @MARK
        @many
        @given(n=anything)
        async def test_or_all_have_one(loop, n):
            await sleep(5)
            times.append(current_loop().time())

        def test_all_had_one():
            assert times == [5 * (i + 1) for i in range(len(times))] and len(times) > 1

        @MARK
        @settings(few, max_examples=200)
        @given(n=anything)
        async def test_shrinks(n):
            await sleep(5)
            assert n < 10

        @MARK
        @few
        @given(n=anything)
        async def test_leaves_a_task(n):
            create_task(sleep_forever(), name="left")
            await sleep(1)

        @few
        @given(n=anything)
        def test_plain(n): pass
        """,
        passed=5,
        failed=2,
    )
    result.stdout.fnmatch_lines(
        [
            "*assert 10 < 10",
            "*n=10,",
            "test_leaves_a_task left 1 task running:",
        ]
    )


@needs("xdist")
def test_xdist(pytester):
    pytester.makepyfile(
        """
        import pytest
        from sleeploop import *

        pytestmark = pytest.mark.sleeploop

        @pytest.fixture(scope="session")
        async def shared():
            await sleep(1)
            yield 5

        @pytest.mark.parametrize("n", range(6))
        async def test(shared, n):
            await sleep(n)
            assert n != 3
        """
    )
    result = pytester.runpytest_subprocess(*lean("xdist"), "-n", "2")
    result.assert_outcomes(passed=5, failed=1)


def test_an_item_that_runs_again(pytester):
    pytester.makeconftest(
        """
        from _pytest.runner import runtestprotocol

        def pytest_runtest_protocol(item, nextitem):
            item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
            runtestprotocol(item, log=False, nextitem=None)
            for report in runtestprotocol(item, log=False, nextitem=nextitem):
                item.ihook.pytest_runtest_logreport(report=report)
            return True
        """
    )
    run(
        pytester,
        """
        runs = []

        @pytest.fixture
        async def fixture():
            await sleep(1)
            yield

        @MARK
        async def test(fixture):
            assert current_loop().time() == 1
            runs.append(1)
            assert len(runs) == 2
        """,
        passed=1,
    )


@needs("pytest_asyncio")
@pytest.mark.parametrize("mode", ["strict", "auto"])
def test_pytest_asyncio(pytester, mode):
    run(
        pytester,
        """
        import asyncio, pytest_asyncio

        @pytest_asyncio.fixture
        async def theirs():
            await asyncio.sleep(0)
            return asyncio.get_running_loop()

        @pytest.fixture
        async def ours():
            await sleep(5)
            yield current_loop()

        @pytest.mark.asyncio
        async def test_theirs(theirs):
            assert theirs is asyncio.get_running_loop()

        @MARK
        async def test_ours(ours):
            assert ours is current_loop() and ours.time() == 5
        """,
        "-o", f"asyncio_mode={mode}", "-o", "asyncio_default_fixture_loop_scope=function",
        beside=("asyncio",), passed=2,
    )  # fmt: skip


@needs("pytest_asyncio")
def test_both_in_auto_mode(pytester):
    pytester.makeini("[pytest]\nsleeploop_mode = auto")
    run(
        pytester,
        """
        import asyncio

        @pytest.mark.asyncio
        async def test_theirs():
            assert asyncio.get_running_loop()

        async def test_ours():
            assert current_loop().time() == 0
        """,
        "-o", "asyncio_mode=strict", "-o", "asyncio_default_fixture_loop_scope=function",
        beside=("asyncio",), passed=2,
    )  # fmt: skip


@needs("anyio")
@pytest.mark.parametrize("mode", ["strict", "auto"])
def test_anyio(pytester, mode):
    pytester.makeini(f"[pytest]\nsleeploop_mode = {mode}")
    run(
        pytester,
        """
        import anyio, asyncio

        @pytest.fixture
        def anyio_backend():
            return "asyncio"

        @pytest.fixture
        async def value():
            return 5

        @pytest.mark.anyio
        async def test_marked(value):
            await anyio.sleep(0)
            assert value == 5 and asyncio.get_running_loop()

        async def test_with_a_backend(anyio_backend):
            await anyio.sleep(0)

        @MARK
        async def test_ours(value):
            assert value == 5 and current_loop()
        """,
        beside=("anyio",),
        passed=3,
    )


def test_the_files_of_the_guide(pytester, monkeypatch):
    """docs/testing.md: its `py` blocks are test files, its `console` block what pytest says."""
    monkeypatch.setenv("COLUMNS", "80")
    page = (ROOT / "docs" / "testing.md").read_text()
    files = re.findall(r"^```py\n# (\w+\.py)\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert len(files) == page.count("```py\n") == 6
    for name, text in files:
        (pytester.path / name).write_text(f"# {name}\n{text}")
    result = pytester.runpytest_inprocess(*LEAN)
    result.assert_outcomes(passed=6, failed=2)
    (shown,) = re.findall(r"^```console\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    output = str(result.stdout).replace(f"{pytester.path}/", "")
    assert shown in re.sub(r" +$", "", output, flags=re.MULTILINE)
