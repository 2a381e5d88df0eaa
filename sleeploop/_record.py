"""For the command line: whatever loops a program makes are traced, and their traces written."""

from __future__ import annotations

import gc
import itertools
import os
import sys
from argparse import ArgumentTypeError
from collections.abc import Callable
from typing import Any

from _sleeploop import SleepingLoop, _trace_all

from sleeploop.tracing import Trace


def output(path: str) -> str:
    """A path for argparse, which says what is wrong with it before anything has started."""
    directory = os.path.dirname(path) or "."
    if not path or os.path.isdir(path):
        raise ArgumentTypeError(f"not the name of a file: {path!r}")
    if not os.path.isdir(directory):
        raise ArgumentTypeError(f"no such directory: {directory!r}")
    if not os.access(path if os.path.exists(path) else directory, os.W_OK):
        raise ArgumentTypeError(f"no permission to write {path!r}")
    return path


def picture(path: str) -> str:
    """Likewise of a picture."""
    extension = os.path.splitext(path)[1]
    if extension and extension.lower() != ".svg":
        raise ArgumentTypeError(f"a timeline is an SVG file, not {extension}: {path!r}")
    return output(path)


def _say(text: str) -> None:
    print(f"sleeploop: {text}", file=sys.stderr)


def _numbered(path: str, n: int) -> str:
    """`out.svg`, `out-2.svg` and so on."""
    root, extension = os.path.splitext(path)
    return path if n == 1 else f"{root}-{n}{extension}"


class Recorder:
    """Traces every loop from now on, and writes at the end of each run, also of one that fails."""

    def __init__(self, timeline: str | None, trace: str | None) -> None:
        self.failed = False
        self._directory = os.getcwd()  # a script may change it
        self._process = os.getpid()
        self._numbers = itertools.count(1)
        self._outputs: list[tuple[str, Callable[[Any, str], None]]] = []
        if timeline:
            self._outputs.append((timeline, Trace.write_svg))
        if trace:
            self._outputs.append((trace, Trace.write_json))
        if self._outputs:
            _trace_all(True, self._write)

    def _write(self, loop: SleepingLoop) -> None:
        if os.getpid() != self._process:  # a fork's loops would write over ours
            return
        n = next(self._numbers)
        trace = loop.trace
        for name, write in self._outputs:
            path = _numbered(name, n)
            try:
                write(trace, os.path.join(self._directory, path))
            except OSError as error:
                self.failed = True
                _say(f"cannot write {path}: {error.strerror or error}")
            else:
                _say(f"wrote {path}: {trace.summary()}")

    def finish(self) -> None:
        """The program is over."""
        if self._outputs:
            gc.collect()  # a loop that was driven bit by bit, and dropped in the middle
            _trace_all(0, None)
            if next(self._numbers) == 1:
                _say(f"wrote nothing: no loop has run ({', '.join(n for n, _ in self._outputs)})")
