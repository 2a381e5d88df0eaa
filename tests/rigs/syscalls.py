"""Do system calls that are interrupted or fail, do so without harm?

    python -m tests.rigs.syscalls [--quick] [SCENARIO ...]

Each scenario really waits, a few hundredths of a second. It first runs under strace unharmed, to
see which of the calls in FAULTS it makes between its two marks. Then it runs again for each of
these calls and each fault: at its 1st, 2nd, 3rd ... call, and at every one or every other.

EINTR must change nothing at all: the same result, never early. Any other error may come out as
OSError or MemoryError, or not at all if there is another way. What is a finding: a crash, a hang,
a wrong result, an unrelated exception, or a loop that afterwards does not work any more.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta

import sleeploop
from sleeploop import SleepingLoop

# Waiting is interrupted by signals, everything can run out of memory, whatever makes descriptors
# can run out of them.
WAITS = ("poll", "ppoll", "select", "pselect6", "epoll_wait", "epoll_pwait", "epoll_pwait2")
SLEEPS = ("clock_nanosleep", "nanosleep")
MAKERS = ("pipe", "pipe2", "eventfd2", "timerfd_create", "signalfd4", "epoll_create1", "dup3")
FAULTS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(WAITS, ("EINTR", "ENOMEM")),
    **dict.fromkeys(SLEEPS, ("EINTR",)),
    **dict.fromkeys(MAKERS, ("EMFILE", "ENFILE", "ENOMEM")),
    "timerfd_settime": ("ENOMEM",),
    "read": ("EINTR", "EAGAIN"),
    "write": ("EINTR", "EAGAIN"),
    "rt_sigaction": ("ENOMEM",),
}
POSITIONS = 3  # single calls tried per system call, apart from "all of them"
HANG = 20  # seconds
ENOUGH = 64  # more waits than without the fault mean that the loop polls

# How a scenario's process ends.
DONE, REFUSED, WRONG, UNRELATED, BROKEN = range(40, 45)
MEANING = ("done", "refused", "wrong result", "unrelated error", "broken afterwards")

SCENARIOS: dict[str, Callable[[], None]] = {}


def scenario(function: Callable[[], None]) -> Callable[[], None]:
    SCENARIOS[function.__name__] = function
    return function


# ---- the scenarios, each in a process of its own -----------------------------------------------


async def nap(seconds: float) -> float:
    before = time.monotonic_ns()
    await sleeploop.sleep(seconds)
    assert time.monotonic_ns() - before >= seconds * 1e9, "woken early"
    return seconds


async def naps(seconds: float, count: int) -> float:
    return sum([await nap(seconds) for _ in range(count)])


async def virtual_nap() -> timedelta:
    return await sleeploop.sleep(3600)


@scenario
def a_few_naps() -> None:
    loop = SleepingLoop(naps(0.01, 3), naps(0.015, 2), nap(0.02))
    assert loop.run_until_complete() == [0.03, 0.03, 0.02]


@scenario
def handled_signals() -> None:
    """A handler in Python runs during the waits, and does not end them."""
    seen: list[int] = []
    old = signal.signal(signal.SIGALRM, lambda number, frame: seen.append(number))
    signal.setitimer(signal.ITIMER_REAL, 0.003, 0.003)
    try:
        sleeploop.run(naps(0.015, 2))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    assert seen


async def until_cancelled(log: list[str]) -> None:
    try:
        await sleeploop.sleep_forever()
    finally:
        log.append("cleaned up")


@scenario
def interrupted() -> None:
    """Ctrl-C ends an idle wait, cleanup runs, and KeyboardInterrupt comes out."""
    log: list[str] = []
    killer = threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGINT))
    killer.start()
    try:
        sleeploop.run(until_cancelled(log))
    except KeyboardInterrupt:
        assert log == ["cleaned up"], log
        return
    finally:
        killer.cancel()  # if the run was refused at once
        killer.join()
    raise AssertionError("no KeyboardInterrupt")


def mark(name: str) -> None:
    """Leaves a line in strace's log: writing to no file at all does nothing else."""
    with contextlib.suppress(OSError):
        os.write(-1, name.encode())


def run_scenario(name: str) -> int:
    """What the traced process does. Nothing is printed between the marks: that is a write, too."""
    failure: BaseException | None = None
    mark("begin")
    try:
        SCENARIOS[name]()
        status = DONE
    except (OSError, MemoryError) as error:
        failure, status = error, REFUSED
    except AssertionError as error:
        failure, status = error, WRONG
    except BaseException as error:
        failure, status = error, UNRELATED
    try:
        # What still fails now is the same fault; but a loop that runs, must run right.
        assert sleeploop.run(virtual_nap(), speed=math.inf) == timedelta(hours=1)
    except (OSError, MemoryError):
        pass
    except BaseException as error:
        failure, status = error, BROKEN
    mark("end")
    if failure is not None:
        print(f"{type(failure).__name__}: {failure}", file=sys.stderr)
    return status


# ---- the injector ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    status: int
    stderr: str
    calls: dict[str, list[int]]  # per system call, which of the process's calls are ours, from 1

    def says(self) -> str:
        if self.status < 0:
            return "a hang" if self.status == -signal.SIGKILL else signal.Signals(-self.status).name
        if self.status in range(DONE, BROKEN + 1):
            return MEANING[self.status - DONE]
        return f"exit status {self.status}"


def trace(name: str, *inject: str) -> Run:
    """Run a scenario under strace and read its log."""
    with tempfile.TemporaryDirectory() as directory:
        log = os.path.join(directory, "strace")
        watched = ",".join(f"?{call}" for call in (*FAULTS, "write"))
        command = ["strace", "-f", "-qqq", "-o", log, "-e", f"trace={watched}", "-e", "signal=none"]
        for what in inject:
            command += ["-e", f"inject={what}"]
        command += [sys.executable, "-m", __spec__.name, "--child", name]
        # The same calls at the same places, every time.
        environment = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # a group, so that strace and its child are killed together
        )
        try:
            stderr = process.communicate(timeout=HANG)[1]
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            stderr = process.communicate()[1]
        with open(log, errors="replace") as lines:
            return Run(process.returncode, stderr.strip(), ours(lines))


def ours(lines: Iterator[str]) -> dict[str, list[int]]:
    counts: Counter[str] = Counter()
    between: dict[str, list[int]] = {}
    began = ended = False
    for line in lines:
        match = re.match(r"(?:\d+ +)?(\w+)\((.*)", line)
        if not match:
            continue  # the resumption of a call, or an exit
        call, arguments = match[1], match[2]
        counts[call] += 1
        if arguments.startswith('-1, "begin"'):
            began = True
        elif arguments.startswith('-1, "end"'):
            ended = True
        elif began and not ended:
            between.setdefault(call, []).append(counts[call])
    return between


def cases(calls: dict[str, list[int]], positions: int) -> Iterator[tuple[str, str, str]]:
    """Call, error and `when` of each fault to inject."""
    for call, places in sorted(calls.items()):
        for error in FAULTS.get(call, ()):
            for place in places[:positions]:
                yield call, error, f"{place}"
            # Something that is always interrupted can never be done: leave every other one be.
            yield call, error, f"{places[0]}+2" if error in ("EINTR", "EAGAIN") else f"{places[0]}+"


def try_scenario(name: str, positions: int) -> tuple[int, int]:
    """Number of cases, number of findings."""
    plain = trace(name)
    if plain.status != DONE:
        print(f"FOUND {name}: {plain.says()} without any fault: {plain.stderr}")
        return 1, 1
    made = {call: len(places) for call, places in sorted(plain.calls.items())}
    print(f"{name}:", ", ".join(f"{call} x{n}" for call, n in made.items()) or "no calls to fail")
    found = tried = 0
    for call, error, when in cases(plain.calls, positions):
        tried += 1
        run = trace(name, f"{call}:error={error}:when={when}")
        good = (DONE,) if error == "EINTR" else (DONE, REFUSED)
        waits = sum(len(run.calls.get(wait, ())) - made.get(wait, 0) for wait in WAITS)
        busy = waits > ENOUGH
        if run.status not in good or busy:
            found += 1
            says = "a busy loop" if run.status in good else run.says()
            print(f"FOUND {name}: {call} {error} at call {when}: {says}: {run.stderr}", flush=True)
    return tried, found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.rigs.syscalls", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--quick", action="store_true", help="only the 1st call, and all of them")
    parser.add_argument("--child", metavar="SCENARIO", help=argparse.SUPPRESS)
    parser.add_argument("scenario", nargs="*", help=f"of {', '.join(SCENARIOS)}; default: all")
    options = parser.parse_args()
    names = options.scenario or list(SCENARIOS)
    if unknown := [name for name in names if name not in SCENARIOS]:
        parser.error(f"no such scenario: {', '.join(unknown)}")

    if options.child:
        # Nothing after the end mark may depend on calls that may still be failing.
        os._exit(run_scenario(options.child))
    if not shutil.which("strace"):
        sys.exit("syscalls: cannot find strace; on Debian or Ubuntu: apt-get install strace")

    results = [try_scenario(name, 1 if options.quick else POSITIONS) for name in names]
    tried, found = (sum(column) for column in zip(*results, strict=True))
    print(f"syscalls: {found or 'no'} findings in {tried} cases")
    return 1 if found else 0


assert all(hasattr(errno, error) for errors in FAULTS.values() for error in errors)

if __name__ == "__main__":
    sys.exit(main())
