"""The part of the pytest plugin that every run of pytest loads: options, the mark, `loop`.

It is a module of its own, and imports nothing of sleeploop, so that a run without a test for it
does not pay for it. sleeploop/pytest_plugin.py runs the tests, and comes with the first of them.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from sleeploop import SleepingLoop
    from sleeploop.pytest_plugin import Plugin, Run

MARK = "sleeploop"
# Marks by which other plugins know what is theirs.
FOREIGN = frozenset(
    {"asyncio", "asyncio_cooperative", "anyio", "curio", "gen_test", "tornado", "tornasync", "trio",
     "twisted", "inlineCallbacks"}
)  # fmt: skip

THE_PLUGIN: pytest.StashKey[Plugin] = pytest.StashKey()
THE_RUN: pytest.StashKey[Run] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini(
        "sleeploop_mode",
        "strict: run async tests marked with @pytest.mark.sleeploop on a SleepingLoop; "
        "auto: also those without a mark of another plugin",
        default="strict",
    )
    parser.addini(
        "sleeploop_timeout",
        "seconds of loop time that a test may take, and each setup and each teardown of an async "
        "fixture; 0: no limit (default: 30 days)",
        default=str(30 * 24 * 3600),
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        f"{MARK}(*, timeout=..., **options): run an async test on a SleepingLoop, in virtual time. "
        "timeout: seconds of loop time; options: those of SleepingLoop, as speed=, start=, seed=. "
        "See docs/testing.md",
    )
    mode = config.getini("sleeploop_mode")
    if mode not in ("strict", "auto"):
        raise pytest.UsageError(f"sleeploop_mode is strict or auto, not {mode!r}")
    timeout = config.getini("sleeploop_timeout")
    try:
        valid = float(timeout) >= 0
    except ValueError:
        valid = False
    if not valid:
        raise pytest.UsageError(f"sleeploop_timeout is a number of seconds, not {timeout!r}")


def function_of(item: pytest.Function) -> Any:
    """The test as it was written: what hypothesis makes of it is no coroutine function."""
    return getattr(getattr(item.obj, "hypothesis", None), "inner_test", item.obj)


def is_test_case(item: pytest.Function) -> bool:
    unittest = sys.modules.get("unittest")
    return unittest is not None and item.cls is not None and issubclass(item.cls, unittest.TestCase)


def is_ours(item: pytest.Item) -> bool:
    """Whether the test runs on a SleepingLoop. Fails it if it is marked and cannot."""
    if not isinstance(item, pytest.Function):
        return False
    nearest = next((m for m in item.iter_markers() if m.name == MARK or m.name in FOREIGN), None)
    if nearest is None:
        if item.config.getini("sleeploop_mode") != "auto" or "anyio_backend" in item.fixturenames:
            return False
    elif nearest.name != MARK:
        return False
    if is_test_case(item):
        return False  # its own class knows how to run it
    function = function_of(item)
    if inspect.iscoroutinefunction(function):
        return True
    if inspect.isasyncgenfunction(function):
        pytest.fail(f"an async test must not yield, and {item.name} does", pytrace=False)
    if nearest is None:
        return False
    if nearest in item.own_markers:
        pytest.fail(
            f"@pytest.mark.{MARK} is for `async def` functions, and {item.name} is none; "
            "a test that is not async can drive the fixture `loop` itself",
            pytrace=False,
        )
    return False  # of a marked class or module not all tests need be async


def pytest_runtest_setup(item: pytest.Item) -> None:
    if is_ours(item):
        assert isinstance(item, pytest.Function)
        config = item.config
        plugin = config.stash.get(THE_PLUGIN, None)
        if plugin is None:
            from sleeploop.pytest_plugin import Plugin

            plugin = config.stash[THE_PLUGIN] = Plugin(config)
            config.pluginmanager.register(plugin, "sleeploop-tests")
        plugin.begin(item)


@pytest.fixture
def loop(request: pytest.FixtureRequest) -> Iterator[SleepingLoop]:
    """The SleepingLoop that the async test runs on. In a test that is not async, a new one in
    virtual time, which the test can drive by run_until(), and which is closed after it.
    """
    run = request.node.stash.get(THE_RUN, None)
    if run is not None:
        yield run.use_loop()
        return
    from math import inf

    from sleeploop import SleepingLoop

    loop = SleepingLoop(speed=inf)
    yield loop
    loop.close()
