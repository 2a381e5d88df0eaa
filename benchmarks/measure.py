"""One command's measurements: each in a process of its own, the peers in turns."""

from __future__ import annotations

import gc
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from time import monotonic

from benchmarks.peers import PEERS
from benchmarks.workload import Workload

US = "sleeploop"
ENOUGH = 30.0  # seconds in one workload, after which a slow peer gets no further round


class Failed(Exception):
    """Why a child gave no answer."""


def ask_child(*args: str, timeout: float) -> object:
    command = [sys.executable, "-m", "benchmarks.child", *args]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        raise Failed(f"took more than {timeout:g} s") from None
    if done.returncode < 0:
        raise Failed(f"killed by signal {-done.returncode}")
    if done.returncode:
        raise Failed((done.stderr.strip() or "no message").splitlines()[-1])
    return json.loads(done.stdout)


def cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores"


def environment() -> dict[str, str]:
    return {
        "python": f"{platform.python_implementation()} {sys.version}",
        "platform": platform.platform(),
        "CPU": cpu(),
        "load": ", ".join(f"{load:.2f}" for load in os.getloadavg()) + " before the first run",
        "gc": f"left as it is for everyone, thresholds {gc.get_threshold()}",
    }


class Run:
    """The figures of one command: (workload, peer, figure) -> one number a round."""

    def __init__(self, peers: Sequence[str]) -> None:
        self.environment = environment()
        self.versions: dict[str, str] = {}
        self.missing: dict[str, str] = {}
        self.samples: dict[tuple[str, str, str], list[float]] = {}
        self.notes: dict[str, dict[str, str]] = {}  # workload -> peer -> why it has fewer rounds
        for peer in peers:
            progress(f"looking for {peer}")
            try:
                self.versions[peer] = str(ask_child(peer, timeout=30))
            except Failed as why:
                absent = str(why) == f"ModuleNotFoundError: No module named '{peer}'"
                self.missing[peer] = "not installed" if absent else f"does not import: {why}"

    def median(self, workload: str, peer: str, figure: str) -> float | None:
        samples = self.samples.get((workload, peer, figure))
        return median(samples) if samples else None

    def measure(self, workload: Workload, million: bool) -> None:
        """One child for each peer in each round, a different peer first each time."""
        notes = self.notes[workload.name] = {}
        for peer in self.versions:
            if workload.needs in PEERS[peer].lacks:
                notes[peer] = f"left out, {PEERS[peer].lacks[workload.needs]}"
            elif workload.alone and peer != US:
                notes[peer] = "left out, has nothing of the kind"
            elif workload.million and not million and peer != US:
                notes[peer] = "left out without --million"
        peers = [peer for peer in self.versions if peer not in notes]
        spent = dict.fromkeys(peers, 0.0)
        for turn in range(workload.rounds):
            first = turn % max(len(peers), 1)
            for peer in peers[first:] + peers[:first]:
                if peer in notes:
                    continue
                progress(f"{workload.name}, round {turn + 1} of {workload.rounds}: {peer}")
                began = monotonic()
                try:
                    self.sample(workload, peer)
                except Failed as why:
                    notes[peer] = f"failed, {why}"
                spent[peer] += monotonic() - began
                if spent[peer] > ENOUGH and turn + 1 < workload.rounds:
                    notes.setdefault(peer, f"no further rounds after {spent[peer]:.0f} s")

    def sample(self, workload: Workload, peer: str) -> None:
        is_virtual = workload.virtual or workload.needs == "virtual time"
        clock = "virtual" if is_virtual else "real"
        size = json.dumps(dict(workload.size))
        result = ask_child(peer, workload.module, clock, size, timeout=workload.timeout)
        assert isinstance(result, dict)
        for figure, number in result.items():
            self.samples.setdefault((workload.name, peer, figure), []).append(number)


def progress(text: str) -> None:
    """On a terminal one line that changes; elsewhere a line each."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
    elif text:
        print(text, file=sys.stderr, flush=True)
