"""Does every allocation that can fail, fail cleanly?

    python -m tests.rigs.oom [--full | --quick] [SCENARIO ...]
    python -m tests.rigs.oom --at one:17 SCENARIO       a single case, in this very process
    gdb -ex 'set breakpoint pending on' -ex 'break failing_now' -ex run -ex backtrace \\
        --args python -m tests.rigs.oom --at one:17 SCENARIO            which allocation that is

For each scenario of tests/rigs/oom_scenarios.py: let the 1st, 2nd, 3rd ... allocation that our C
code makes fail, first only that one ("one"), then with the nine after it ("ten"), each time in a
forked child. Never all that follow: CPython itself cannot report an error without any memory, and
aborts or tries for ever.

What may happen is that the scenario ends as always, or that MemoryError comes out of it, alone or
as the cause of something else. Findings are

    a signal        it crashed, or hung until the alarm
    system error    C code returned NULL without an exception, or a value with one
    other error     MemoryError was lost, or something unrelated came out instead
    broken          with memory back, the scenario does not work any more
    leak            the same failure again and again keeps more memory each time; looked for
                    from 3.12 on, as datetime.fromtimestamp() itself leaks before

failalloc.c says what an allocation of ours is. Plain malloc is not seen: our C code uses PyMem_*.
"""

from __future__ import annotations

import argparse
import array
import enum
import faulthandler
import gc
import importlib.util
import itertools
import logging
import os
import signal
import subprocess
import sys
import sysconfig
import tempfile
import textwrap
import time
import traceback
import types
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import IO, NoReturn

from . import (
    clear_caches,
    oom_callbacks,  # noqa: F401 - adds its scenarios
    oom_channels,  # noqa: F401
    oom_conditions,  # noqa: F401
    oom_driving,  # noqa: F401
    oom_orders,  # noqa: F401
    oom_queues,  # noqa: F401
    oom_resources,  # noqa: F401
    oom_scopes,  # noqa: F401
    oom_semaphores,  # noqa: F401
    oom_several,  # noqa: F401
    oom_statistics,  # noqa: F401
    oom_stores,  # noqa: F401
    oom_trace,  # noqa: F401
    oom_waiting,  # noqa: F401
)
from .oom_scenarios import SCENARIOS, Undone

Scenario = Callable[[], object]

HANG = 20  # seconds
QUICK = 25  # cases per scenario and mode
WARMUPS, REPEATS = 2, 4  # of one failure, to see whether it leaks


class Mode(enum.Enum):
    ONE = "one"
    TEN = "ten"


class Outcome(enum.IntEnum):
    """The exit status of a child."""

    SURVIVED = 0
    MEMORY_ERROR = 1
    SYSTEM_ERROR = 2
    OTHER_ERROR = 3
    BROKEN = 4
    LEAK = 5


GOOD = (Outcome.SURVIVED, Outcome.MEMORY_ERROR)


def load_failalloc() -> types.ModuleType:
    """Compile and import failalloc.c."""
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    include = sysconfig.get_path("include")
    compiler = os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"
    source = Path(__file__).with_name("failalloc.c")
    with tempfile.TemporaryDirectory() as directory:
        target = str(Path(directory, f"failalloc{suffix}"))
        # Not optimised: its stack frames are what it is about.
        command = [*compiler.split(), "-O0", "-g", "-shared", "-fPIC", f"-I{include}"]
        environment = {**os.environ, "LD_PRELOAD": ""}  # no sanitizer for the compiler
        subprocess.run([*command, str(source), "-o", target], env=environment, check=True)
        spec = importlib.util.spec_from_file_location("failalloc", target)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return module


failalloc = load_failalloc()


# ---- in the child ------------------------------------------------------------------------------


def fail(scenario: Scenario, mode: Mode, n: int) -> BaseException | None:
    """Run the scenario while allocation number n (and those after it) fails."""
    error: BaseException | None = None
    reports.heard = False
    failalloc.arm(n, n + (1 if mode is Mode.ONE else 10))
    try:
        scenario()
    except BaseException as caught:
        error = caught
    finally:
        failalloc.disarm()
    if isinstance(error, Undone) and (reports.heard or mode is Mode.TEN):
        return None  # of ten failures, some may hit the report itself
    return error


class Reports(logging.Handler):
    """Where errors go that cannot be raised: the log of sleeploop, and sys.unraisablehook."""

    heard = False

    def emit(self, record: logging.LogRecord) -> None:
        self.heard |= record.exc_info is not None and isinstance(record.exc_info[1], MemoryError)

    def unraisable(self, args: sys.UnraisableHookArgs) -> None:
        self.heard |= isinstance(args.exc_value, MemoryError)


reports = Reports()
sys.unraisablehook = reports.unraisable
logging.getLogger("sleeploop").addHandler(reports)
logging.getLogger("sleeploop").propagate = False
# A failure while many coroutines are made leaves some unused.
warnings.simplefilter("ignore", RuntimeWarning)


def among_causes(error: BaseException, kind: type[BaseException]) -> bool:
    """Is there a `kind` in the error, its group, its cause or its context?"""
    seen: set[int] = set()
    pending: list[BaseException | None] = [error]
    while pending:
        one = pending.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, kind):
            return True
        pending += [one.__cause__, one.__context__]
        pending += one.exceptions if isinstance(one, BaseExceptionGroup) else []
    return False


def classify(error: BaseException | None) -> Outcome:
    if error is None:
        return Outcome.SURVIVED
    if among_causes(error, SystemError):
        outcome = Outcome.SYSTEM_ERROR
    elif among_causes(error, MemoryError):
        return Outcome.MEMORY_ERROR
    else:
        outcome = Outcome.OTHER_ERROR
    traceback.print_exception(error)
    return outcome


def try_case(scenario: Scenario, mode: Mode, n: int) -> Outcome:
    outcome = classify(fail(scenario, mode, n))
    if outcome not in GOOD:
        return outcome
    try:
        gc.collect()
        scenario()
    except BaseException:
        traceback.print_exc()
        return Outcome.BROKEN

    if sys.version_info < (3, 12):
        return outcome
    blocks = array.array("q", bytes(8 * (REPEATS + 1)))  # holds no objects
    for i in range(-WARMUPS, REPEATS + 1):
        fail(scenario, mode, n)
        gc.collect()
        clear_caches()
        blocks[max(i, 0)] = sys.getallocatedblocks()
    growth = [after - before for before, after in itertools.pairwise(blocks)]
    if min(growth) > 0:
        print(f"memory blocks grew by {growth}", file=sys.stderr)
        return Outcome.LEAK
    return outcome


# ---- in the parent -----------------------------------------------------------------------------


def in_child(run: Callable[[], Outcome], log: IO[str]) -> int:
    """The exit status of a forked child: an Outcome, or minus the signal that killed it."""
    log.seek(0)
    log.truncate()
    pid = os.fork()
    if pid == 0:
        child(run, log)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def child(run: Callable[[], Outcome], log: IO[str]) -> NoReturn:
    status = 70
    try:
        os.dup2(log.fileno(), 2)
        faulthandler.enable()
        signal.alarm(HANG)
        status = run()
    finally:
        os._exit(status)


def count_allocations(scenario: Scenario) -> int:
    failalloc.arm(0, 0)
    try:
        scenario()
    finally:
        count: int = failalloc.disarm()
    return count


def describe(status: int) -> str:
    if status == -signal.SIGALRM:
        return f"hung for {HANG} s"
    if status < 0:
        return signal.Signals(-status).name
    return Outcome(status).name.lower().replace("_", " ") if status in set(Outcome) else "died"


def sweep(name: str, scenario: Scenario, quick: bool, log: IO[str]) -> int:
    """Number of findings."""
    began = time.monotonic()
    scenario()  # fill caches and free lists, so that the children find them filled
    warmed_up = time.monotonic()
    scenario()
    is_slow = time.monotonic() - warmed_up > 0.1  # it waits in real time
    repr([0])  # the same for the dictionary of the thread
    gc.collect()
    gc.freeze()
    total = count_allocations(scenario)
    step = max(1, total // (QUICK // 10 if is_slow else QUICK)) if quick else 1
    cases = [(mode, n) for mode in Mode for n in range(0, total, step)]
    tally: Counter[str] = Counter()
    found: dict[tuple[int, str], list[str]] = {}
    for mode, n in cases:
        status = in_child(lambda mode=mode, n=n: try_case(scenario, mode, n), log)  # type: ignore[misc]
        tally[describe(status)] += 1
        if status not in GOOD:
            log.seek(0)
            found.setdefault((status, log.read()), []).append(f"{mode.value}:{n}")
    for (status, output), places in found.items():
        print(f"\nFOUND {describe(status)}: --at {places[0]} {name}")
        if places[1:]:
            print(f"    and the same at {', '.join(places[1:])}")
        print(textwrap.indent(output, "    "), flush=True)
    gc.unfreeze()
    seconds = time.monotonic() - began
    outcomes = ", ".join(f"{count} {what}" for what, count in sorted(tally.items()))
    print(f"{name}: {total} allocations, {outcomes} ({seconds:.1f} s)", flush=True)
    return sum(map(len, found.values()))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.rigs.oom", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    extent = parser.add_mutually_exclusive_group()
    extent.add_argument("--full", action="store_true", help="every allocation (the default)")
    extent.add_argument("--quick", action="store_true", help=f"about {QUICK} of each scenario's")
    extent.add_argument("--at", metavar="MODE:N", help="only this case, without a child")
    parser.add_argument("scenario", nargs="*", help=f"of {', '.join(SCENARIOS)}; default: all")
    options = parser.parse_args()
    names = options.scenario or list(SCENARIOS)
    if unknown := [name for name in names if name not in SCENARIOS]:
        parser.error(f"no such scenario: {', '.join(unknown)}")

    if options.at:
        mode, _, n = options.at.partition(":")
        for name in names:
            SCENARIOS[name]()
            SCENARIOS[name]()
            print(name, try_case(SCENARIOS[name], Mode(mode), int(n)).name)
        return 0

    with tempfile.TemporaryFile("w+") as log:
        findings = sum(sweep(name, SCENARIOS[name], options.quick, log) for name in names)
    print(f"oom: {findings} findings" if findings else "oom: nothing found")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
