"""pytest plugin: does a test leave something behind each time it runs?

    python -m pytest -p tests.rigs.leaks --leaks 3:4      (-n auto: on all processors at once)

Before each test is run and reported as usual, it runs 3 times to fill caches and 4 times more with
a sample taken after each. What grew every single time is suspected, and the test runs up to 8 times
more, until nothing has grown: a cache that fills late, or a thread that has not quite ended. What
grew in all of them has leaked, and the test fails. Fixtures of the test itself are set up and torn
down each time, those of its module are not. References are counted by debug interpreters only (they
have `sys.gettotalrefcount`); memory blocks and file descriptors by all.

A test that keeps something on purpose carries the marker `no_leak_check` and runs once. So do
Hypothesis tests: their own bookkeeping grows.
"""

from __future__ import annotations

import array
import collections
import gc
import itertools
import os
import sys
from collections.abc import Generator, Iterator
from typing import Any

import pytest
from _pytest.runner import runtestprotocol

from . import clear_caches

COUNTS_REFERENCES = hasattr(sys, "gettotalrefcount")
DESCRIPTORS = next((d for d in ("/proc/self/fd", "/dev/fd") if os.path.isdir(d)), None)

tally: collections.Counter[str] = collections.Counter()
verdict: pytest.StashKey[str] = pytest.StashKey()

MORE = 8  # runs that a suspicion has to stand


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--leaks", metavar="WARMUPS:RUNS", help="repeat each test and fail it when it leaks"
    )


def pytest_collection_finish(session: pytest.Session) -> None:
    if session.config.getoption("leaks"):
        # What exists by now stays. Taken out of the collector's sight, it costs no time at each
        # of the many collections to come.
        gc.collect()
        gc.freeze()


def pytest_runtest_protocol(item: pytest.Item) -> None:
    option: str | None = item.config.getoption("leaks")
    if option is None or not isinstance(item, pytest.Function):
        return
    if item.get_closest_marker("no_leak_check"):
        tally["marked no_leak_check"] += 1
    elif getattr(item.obj, "is_hypothesis_test", False):
        tally["by hypothesis"] += 1
    else:
        warmups, runs = map(int, option.split(":"))
        found = repeat(item, warmups, runs)
        if found is None:
            tally["skipped or failed"] += 1
        else:
            tally["checked"] += 1
            item.stash[verdict] = found


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    result = yield
    if found := item.stash.get(verdict, ""):
        pytest.fail(found, pytrace=False)
    return result


def repeat(test: pytest.Function, warmups: int, runs: int) -> str | None:
    """What is wrong: "" when nothing is, None when that cannot be said."""
    samples = Samples(1 + runs + MORE)
    finalizers: list[int] = []
    for row in range(-warmups, runs + MORE + 1):
        if row > runs and not samples.leaks():
            break
        # Row 0 is the sample before the first counted run: there is no run before it.
        if row != 0:
            # Called thus, it tears down all that is not needed by the test's module or class.
            reports = runtestprotocol(test, log=False, nextitem=test.parent)  # type: ignore[arg-type]
            if any(report.skipped for report in reports):
                return None
            if failure := next((r.longreprtext for r in reports if r.failed), None):
                # A test that fails always is reported by its ordinary run.
                return f"fails when repeated:\n{failure}" if row > -warmups else None
            del reports
            test._report_sections.clear()
            finalizers = forget_finished(test, finalizers)
        samples.take(max(row, 0))
    return samples.leaks()


def forget_finished(test: pytest.Function, before: list[int]) -> list[int]:
    """Undo a leak of pytest's own.

    Each set-up of a fixture leaves a finalizer with the wider fixtures that it uses, `tmp_path`
    with `tmp_path_factory` for one. It does nothing any more, but stays until the wider one ends.
    """
    definitions = [d for ds in test._fixtureinfo.name2fixturedefs.values() for d in ds]
    for definition, count in zip(definitions, before, strict=False):
        del definition._finalizers[count:]
    return [len(definition._finalizers) for definition in definitions]


class Samples:
    """Rows of measurements in memory allocated beforehand, so that measuring changes nothing."""

    what = ("references", "memory blocks", "file descriptors")
    counted = (COUNTS_REFERENCES, True, DESCRIPTORS is not None)

    def __init__(self, rows: int) -> None:
        self.columns = [array.array("q", bytes(8 * rows)) for _ in self.what]
        self.taken = 0

    def take(self, row: int) -> None:
        # Finalizers make garbage of their own; three rounds settle all but the pathological.
        for _ in range(3):
            if gc.collect() == 0:
                break
        clear_caches()
        self.taken = row + 1
        references, blocks, descriptors = self.columns
        if COUNTS_REFERENCES:
            references[row] = sys.gettotalrefcount()
        if DESCRIPTORS is not None:
            descriptors[row] = len(os.listdir(DESCRIPTORS))
        blocks[row] = sys.getallocatedblocks()

    def leaks(self) -> str:
        return "\n".join(self._leaks())

    def _leaks(self) -> Iterator[str]:
        for what, column in zip(self.what, self.columns, strict=True):
            growth = [after - before for before, after in itertools.pairwise(column[: self.taken])]
            if min(growth) > 0:
                yield f"leaked {what}: {growth} in as many runs"


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """A worker of pytest-xdist has finished: its tally is ours."""
    tally.update(getattr(node, "workeroutput", {}).get("leaks", {}))


def pytest_sessionfinish(session: pytest.Session) -> None:
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["leaks"] = dict(tally)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if not config.getoption("leaks"):
        return
    counted = ", ".join(w for w, can in zip(Samples.what, Samples.counted, strict=True) if can)
    once = ", ".join(f"{n} {why}" for why, n in tally.items() if why != "checked")
    terminalreporter.section("leaks")
    terminalreporter.line(f"{tally['checked']} tests checked for {counted}")
    if once:
        terminalreporter.line(f"not checked: {once}")
    if not COUNTS_REFERENCES:
        terminalreporter.line("no references: that takes a debug build (Debian: python3-dbg)")
