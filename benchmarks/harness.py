"""Runs workloads over the peers, interleaved, and collects the figures; the command line too."""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from statistics import median
from time import monotonic

from benchmarks import report
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


class Run:
    """The figures of one command: (workload, peer, figure) -> one number a round."""

    def __init__(self, peers: Sequence[str]) -> None:
        self.environment = report.environment()
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


def parse(argv: Sequence[str] | None, workloads: Iterable[Workload]) -> argparse.Namespace:
    names = [workload.name for workload in workloads]

    def some_of(known: Sequence[str]) -> Callable[[str], list[str]]:
        def names(text: str) -> list[str]:
            chosen = [name.strip() for name in text.split(",")]
            for name in chosen:
                if not any(k == name or k.startswith(f"{name}-") for k in known):
                    raise argparse.ArgumentTypeError(f"{name!r} is not in {', '.join(known)}")
            return chosen

        return names

    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="sleeploop beside its peers: every workload, interleaved, process by process.",
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, few rounds: a minute")
    parser.add_argument(
        "--only",
        type=some_of(names),
        default=names,
        metavar="NAMES",
        help=f"comma-separated workloads, of {', '.join(names)}",
    )
    parser.add_argument(
        "--peers",
        type=some_of(list(PEERS)),
        default=list(PEERS),
        metavar="NAMES",
        help=f"comma-separated peers beside {US}, of {', '.join(list(PEERS)[1:])}",
    )
    parser.add_argument("--rounds", type=int, help="rounds of each workload")
    parser.add_argument("--json", metavar="FILE", help="write every single figure here")
    parser.add_argument(
        "--million",
        action="store_true",
        help="let the peers too run the million sleepers: minutes more",
    )
    return parser.parse_args(argv)


def choose(workload: Workload, options: argparse.Namespace) -> Workload:
    """The workload as the options have it."""
    if options.quick and workload.quick is not None:
        workload = dataclasses.replace(workload, size=workload.quick, rounds=2)
    return dataclasses.replace(workload, rounds=options.rounds or workload.rounds)


def main(workloads: Sequence[Workload], argv: Sequence[str] | None = None) -> None:
    options = parse(argv, workloads)
    run = Run(list(dict.fromkeys([US, *options.peers])))
    progress("")
    print(report.head(run, options.quick))
    chosen = []
    for workload in workloads:
        if not any(f"{workload.name}-".startswith(f"{name}-") for name in options.only):
            continue
        if options.quick and workload.quick is None:
            print(f"\n{workload.name}: not part of --quick")
            continue
        workload = choose(workload, options)
        chosen.append(workload)
        run.measure(workload, options.million)
        progress("")
        print(report.tables(workload, run.samples, run.notes[workload.name]), flush=True)
    if any(targets for workload in chosen for targets in workload.figures.values()):
        print(report.targets(chosen, run.median, options.quick))
    if options.json:
        with open(options.json, "w") as file:
            json.dump(report.record(chosen, run), file, indent=1)
