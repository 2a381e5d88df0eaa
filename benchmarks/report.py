"""What is printed: the head, a table for each figure, the targets; and the record for --json."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from benchmarks.measure import Run
from benchmarks.peers import PEERS
from benchmarks.workload import Median, Workload

Samples = Mapping[tuple[str, str, str], Sequence[float]]


def number(value: float) -> str:
    """Three or four figures that count."""
    places = 0 if abs(value) >= 1000 else 1 if abs(value) >= 100 else 2 if abs(value) >= 1 else 3
    return f"{value:,.{places}f}"


def head(run: Run, quick: bool) -> str:
    peers = run.versions | run.missing
    rows = run.environment | {peer: peers[peer] for peer in PEERS if peer in peers}
    lines = [f"{name:<10} {text}" for name, text in rows.items()]
    if quick:
        lines += ["", "--quick: small sizes and few rounds; figures only show the direction"]
    return "\n".join(lines)


def title(workload: Workload) -> str:
    return f"{workload.name}: {workload.title.format(**workload.size)}"


def tables(workload: Workload, samples: Samples, notes: Mapping[str, str]) -> str:
    lines = ["", title(workload)]
    measured: list[str] = []
    for figure in workload.figures:
        measured = [peer for peer in PEERS if (workload.name, peer, figure) in samples]
        if not measured:
            continue
        columns = ("median", "min", "max", "rounds", "x sleeploop")
        lines += ["", f"  {figure:<18}" + "".join(f"{column:>12}" for column in columns)]
        ours = samples.get((workload.name, "sleeploop", figure))
        for peer in measured:
            values = samples[workload.name, peer, figure]
            middle = median(values)
            cells = [number(middle), number(min(values)), number(max(values)), str(len(values))]
            cells += [f"{number(middle / median(ours))}x" if ours and median(ours) > 0 else "-"]
            lines.append(f"  {peer:<18}" + "".join(f"{cell:>12}" for cell in cells))
    below = [
        f"  {peer}: with {PEERS[peer].about[workload.needs]}"
        for peer in measured
        if workload.needs in PEERS[peer].about
    ]
    below += [f"  {peer}: {note}" for peer, note in notes.items()]
    return "\n".join(lines + [""] * bool(below) + below)


def judged(workloads: Iterable[Workload], median: Median) -> Iterable[dict[str, Any]]:
    for workload in workloads:
        for figure, targets in workload.figures.items():
            for target in targets:
                verdict = target.judge(workload.name, figure, median)
                yield {
                    "workload": workload.name,
                    "figure": figure,
                    "target": str(target),
                    "sleeploop": verdict and verdict[0],
                    "against": verdict and verdict[1],
                    "met": verdict and verdict[2],
                }


def targets(workloads: Iterable[Workload], median: Median, quick: bool) -> str:
    lines = ["", "targets, by the medians" + " (set for the full sizes)" * quick, ""]
    for row in judged(workloads, median):
        if row["met"] is None:
            verdict, figures = "unknown", "not measured"
        else:
            verdict = "met" if row["met"] else "MISSED"
            ours, against = row["sleeploop"], row["against"]
            times = f", {number(against / ours)}x" if ours > 0 else ""
            figures = f"{number(ours)} against {number(against)}{times}"
        what = f"{row['workload']}, {row['figure']}: {row['target']}"
        lines.append(f"  {verdict:<8} {what:<68} {figures}")
    return "\n".join(lines)


def record(workloads: Sequence[Workload], run: Run) -> dict[str, Any]:
    return {
        "environment": run.environment,
        "peers": run.versions,
        "missing": run.missing,
        "workloads": [
            {
                "name": workload.name,
                "size": dict(workload.size),
                "notes": run.notes[workload.name],
                "figures": {
                    figure: {
                        peer: run.samples[workload.name, peer, figure]
                        for peer in run.versions
                        if (workload.name, peer, figure) in run.samples
                    }
                    for figure in workload.figures
                },
            }
            for workload in workloads
        ],
        "targets": list(judged(workloads, run.median)),
    }
