"""Three walks through the C code: how many calls each takes, and through how many files.

    make walk                   the figures: those of tools/walk.txt, and today's where they differ
    make walk ARGS=-v           and each call in turn, with its file
    make walk ARGS=--update     write today's figures to tools/walk.txt

put -> get: a task is parked in `await queue.get()`, at a new Queue. The walk begins where another
one calls `queue.put(x)`, and ends where the getter's coroutine goes on and has the value.
cancel -> CancelledError: a task is parked in `await sleep(1)`. The walk begins where another one
calls its cancel(), and ends where CancelledError is raised in its coroutine.
sleep -> wake-up: the walk begins where the only task calls `sleep(1)`, in virtual time, and ends
where its coroutine goes on.

The task that puts or cancels then gives way by `await aside`, a sleep(0) that was made before the
walk begins: how that parks belongs to the walk, as does the loop's pass to the next task.

Counted are entries of functions in `_sleeploop.c` and `csrc/`: every one, since the compiler
inlines nothing here, so also the smallest accessor, but none of CPython's headers. Python's own
code between the marks is not counted. The committed figures are those of CPython 3.11.
"""

import argparse
import ctypes
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import _sleeploop

import sleeploop

ROOT = Path(__file__).resolve().parent.parent
COMMITTED = ROOT / "tools/walk.txt"
REFERENCE = (3, 11)

recorder = ctypes.CDLL(None)  # tools/walk.c is preloaded
if not hasattr(recorder, "walk_begin"):
    sys.exit("walk: tools/walk.c is not preloaded; `make walk` does it")
recorder.walk_address.restype = ctypes.c_size_t
begin = recorder.walk_begin
end = recorder.walk_end


async def put_get() -> None:
    queue: sleeploop.Queue[str] = sleeploop.Queue()

    async def getter() -> None:
        await queue.get()
        end()

    async with sleeploop.TaskGroup() as group:
        group.create_task(getter())
        await sleeploop.sleep(1)
        aside = sleeploop.sleep(0)
        begin()
        await queue.put("x")
        await aside


async def cancel() -> None:
    async def sleeper() -> None:
        try:
            await sleeploop.sleep(1)
        except sleeploop.CancelledError:
            end()
            raise

    async with sleeploop.TaskGroup() as group:
        task = group.create_task(sleeper())
        await sleeploop.sleep(0.5)
        aside = sleeploop.sleep(0)
        begin()
        task.cancel()
        await aside


async def wake_up() -> None:
    begin()
    await sleeploop.sleep(1)
    end()


Walk = Callable[[], Coroutine[Any, Any, None]]
WALKS: dict[str, Walk] = {
    "put -> get": put_get,
    "cancel -> CancelledError": cancel,
    "sleep -> wake-up": wake_up,
}
Functions = dict[int, tuple[str, str]]  # name and file, by address

HEADINGS = ["calls", "functions", "files"]


@dataclass(frozen=True)
class Call:
    depth: int
    function: str
    file: str


def functions() -> Functions:
    """All functions of the extension."""
    if shutil.which("nm") is None:
        sys.exit("walk: cannot find nm; on Debian or Ubuntu: apt-get install binutils")
    symbols = subprocess.run(
        ["nm", "--line-numbers", "--defined-only", _sleeploop.__file__],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: Functions = {}
    for line in symbols.stdout.splitlines():
        symbol, _, place = line.partition("\t")  # "0041dac t wait_new<TAB>/csrc/sync/../x.h:33"
        if place:
            address, _, name = symbol.split()
            file = os.path.relpath(place.rpartition(":")[0], ROOT)
            found[int(address, 16)] = name, file
    return found


def record(walk: Walk) -> list[tuple[int, int]]:
    """Depth and address of each call."""
    sleeploop.run(walk(), speed=math.inf)
    n = recorder.walk_calls()
    return [(recorder.walk_depth(i), recorder.walk_address(i)) for i in range(n)]


def take(walk: Walk, known: Functions) -> list[Call]:
    record(walk)  # whatever is made once only is made here
    calls = record(walk)
    top = min(depth for depth, _ in calls)
    return [Call(depth - top, *known[address]) for depth, address in calls]


def figures(calls: list[Call]) -> list[str]:
    functions = {(call.file, call.function) for call in calls}
    files = {call.file for call in calls}
    return [str(len(calls)), str(len(functions)), str(len(files))]


def table(rows: dict[str, list[str]]) -> str:
    lines = [("", HEADINGS), *rows.items()]
    return "".join(f"{name:<24}" + "".join(f"{n:>12}" for n in row) + "\n" for name, row in lines)


def committed() -> dict[str, list[str]]:
    rows = [line.rsplit(maxsplit=len(HEADINGS)) for line in COMMITTED.read_text().splitlines()]
    return {name: row for name, *row in rows[1:]}


def beside(was: list[str], now: list[str]) -> list[str]:
    return [n if n == before else f"{before} -> {n}" for before, n in zip(was, now, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(prog="make walk", description=__doc__.partition("\n")[0])
    parser.add_argument("-v", "--verbose", action="store_true", help="print each call")
    parser.add_argument("--update", action="store_true", help="commit to today's figures")
    args = parser.parse_args()
    if sys.version_info[:2] != REFERENCE:
        text = f"the committed figures are those of CPython {REFERENCE[0]}.{REFERENCE[1]}"
        if args.update:
            sys.exit(f"walk: {text}")
        print(f"This is CPython {sys.version_info[0]}.{sys.version_info[1]}; {text}.\n")

    known = functions()
    walks = {name: take(walk, known) for name, walk in WALKS.items()}
    if args.verbose:
        for name, calls in walks.items():
            print(f"{name}\n")
            for call in calls:
                print(f"  {'  ' * call.depth + call.function:<64} {call.file}")
            print()
    now = {name: figures(calls) for name, calls in walks.items()}
    if args.update:
        COMMITTED.write_text(table(now))
    was = committed()
    print(table({name: beside(was[name], row) for name, row in now.items()}), end="")


main()
