"""The command line of the benchmarks: which workloads, of which peers, and the report on them."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable, Iterable, Sequence

from benchmarks import report
from benchmarks.measure import US, Run, progress
from benchmarks.peers import PEERS
from benchmarks.workload import Workload


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
