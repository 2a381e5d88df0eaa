"""The pytest plugin: an empty async test beside an empty plain one.

Each measurement is two runs of pytest: of so many async tests that do nothing, with the plugin and
no other; and of as many plain ones, without it. What counts is the time between collection and the
summary. asyncio's figure is that of pytest-asyncio.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import tempfile
from collections.abc import Generator, Sequence
from pathlib import Path
from time import perf_counter_ns

import pytest

from benchmarks.peers import Peer
from benchmarks.workload import AtMost, Workload, finished

MODULES = itertools.count()  # no two of one name in one process
PLAIN = "def test_{i}(): pass\n"
ASYNC = {
    "sleeploop": ("_sleeploop_pytest", "import pytest\npytestmark = pytest.mark.sleeploop\n"),
    "asyncio": ("pytest_asyncio.plugin", "import pytest\npytestmark = pytest.mark.asyncio\n"),
}


class Stopwatch:
    def __init__(self) -> None:
        self.passed: list[None] = []
        self.began = 0
        self.elapsed = 0

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self) -> Generator[None, object, object]:
        self.began = perf_counter_ns()
        result = yield
        self.elapsed = perf_counter_ns() - self.began
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and report.passed:
            self.passed.append(None)


def run(test: str, times: int, plugins: Sequence[str] = (), head: str = "") -> int:
    """The nanoseconds that pytest takes for so many tests."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / f"test_{next(MODULES)}.py"
        path.write_text(head + "".join(test.format(i=i) for i in range(times)))
        (Path(directory) / "pytest.ini").write_text("[pytest]\n")
        watch = Stopwatch()
        words = [f"-p{plugin}" for plugin in (*plugins, "no:cacheprovider")]
        with contextlib.redirect_stdout(io.StringIO()):
            pytest.main(["-q", "-Wignore", *words, str(path)], plugins=[watch])
        finished(watch.passed, times)
        return watch.elapsed


def measure(peer: Peer, times: int) -> dict[str, float]:
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    plugin, head = ASYNC[peer.name]
    run("async " + PLAIN, 10, [plugin], head)  # imports
    plain, marked = [], []
    for _ in range(5):  # the quickest of several: pytest's own time varies more than the difference
        plain.append(run(PLAIN, times))
        marked.append(run("async " + PLAIN, times, [plugin], head))
    return {"us per test beyond a plain one": (min(marked) - min(plain)) / times / 1000}


WORKLOADS = [
    Workload(
        name="plugin",
        title="{times:,} empty async tests, run by pytest",
        module="benchmarks.bench_plugin",
        figures={"us per test beyond a plain one": (AtMost(200),)},
        size={"times": 1_000},
        quick={"times": 200},
        needs="pytest",
    )
]

if __name__ == "__main__":
    from benchmarks.harness import main

    main(WORKLOADS)
