"""``python -m sleeploop``: the countdown, or somebody's script at another speed."""

import argparse
import importlib.util
import os
import runpy
import sys
from collections.abc import Sequence
from typing import Any

from sleeploop import SleepingLoop, __version__, sleep
from sleeploop._record import Recorder, output, picture

SPEED_VARIABLE = "SLEEPLOOP_SPEED"


async def countdown(label: str, length: int, *, delay: float = 0) -> None:
    """Wait, then count down to zero, a second a number."""
    print(f"{label} waiting {delay} seconds before starting countdown")
    waited = await sleep(delay)
    print(f"{label} starting after waiting {waited}")
    while length:
        print(f"{label} T-minus {length}")
        await sleep(1)
        length -= 1
    print(f"{label} lift-off!")


def run_countdown(speed: float | None) -> None:
    """Three countdowns side by side in one thread: 5 s of loop time."""
    loop = SleepingLoop(
        countdown("A", 5),
        countdown("B", 3, delay=2),
        countdown("C", 4, delay=1),
        speed=speed,
    )
    for task, label in zip(loop.tasks(), "ABC", strict=True):
        task.name = label
    loop.run_until_complete()


def run_script(file: str, args: Sequence[str]) -> None:
    """Run a Python file as ``python FILE ARGS`` would."""
    sys.argv = [file, *args]
    if not sys.flags.safe_path:
        sys.path[0] = os.path.dirname(os.path.abspath(file))
    runpy.run_path(file, run_name="__main__")


def can_run_module(name: str) -> bool:
    """Whether there is such a module, or a package with a ``__main__``."""
    try:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.submodule_search_locations is not None:
            spec = importlib.util.find_spec(f"{name}.__main__")
    except (ImportError, ValueError):  # there is no package further up; or it is no name at all
        return False
    return spec is not None


def run_module(name: str, args: Sequence[str]) -> None:
    """Run a module or a package as ``python -m NAME ARGS`` would."""
    sys.argv = [name, *args]  # run_module() puts the file's path there
    runpy.run_module(name, run_name="__main__", alter_sys=True)


def speed(text: str) -> float:
    """A speed for argparse, which turns ValueError into "invalid speed value"."""
    value = float(text)
    if not value > 0:
        raise ValueError
    return value


def add_outputs(parser: argparse.ArgumentParser, **default: Any) -> None:
    """The options that trace whatever runs."""
    add = parser.add_argument
    add("--timeline", type=picture, metavar="FILE.svg", help="draw what the tasks did", **default)
    add(
        "--trace",
        type=output,
        metavar="FILE.json",
        help="write it for https://ui.perfetto.dev or chrome://tracing",
        **default,
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and run what it asks for."""
    parser = argparse.ArgumentParser(
        prog="python -m sleeploop",
        description="Run three countdowns side by side in one thread.",
        epilog="A speed is a positive number: 1 real time, 60 a minute a second, inf as fast as "
        f"the machine can go. The default comes from the environment's {SPEED_VARIABLE}.",
    )
    parser.add_argument(
        "--speed",
        type=speed,
        metavar="X",
        default=os.environ.get(SPEED_VARIABLE) or None,  # argparse checks a str like the option
        help="default 1",
    )
    parser.add_argument("--version", action="version", version=f"sleeploop {__version__}")
    add_outputs(parser)
    commands = parser.add_subparsers(title="commands", dest="command", metavar="run")
    run = commands.add_parser(
        "run",
        help="run a Python script or module at another speed",
        description="Run a Python script, or with -m a module or a package, with "
        f"{SPEED_VARIABLE} set, the default of every loop's speed: a whole program in virtual time "
        "without an edit.",
    )
    run.add_argument(
        "--speed",
        type=speed,
        metavar="X",
        default=argparse.SUPPRESS,
        help=f"default: what {SPEED_VARIABLE} says, or else inf",
    )
    add_outputs(run, default=argparse.SUPPRESS)
    run.add_argument("-m", action="store_true", dest="is_module", help="FILE is a module's name")
    run.add_argument("file", metavar="FILE", help="the script")
    rest = run.add_argument("args", nargs=argparse.REMAINDER, metavar="ARGS", help="its arguments")
    rest.required = False  # nobody is to be told that they are missing
    options = parser.parse_args(argv)
    if options.timeline and options.timeline == options.trace:
        parser.error(f"--timeline and --trace are the same file: {options.trace}")
    if options.command == "run":
        os.environ[SPEED_VARIABLE] = str(options.speed or "inf")
        if options.is_module and not can_run_module(options.file):
            run.error(f"no module, or no package with a __main__: {options.file}")
        if not options.is_module and not os.path.isfile(options.file):
            run.error(f"no such file: {options.file}")
    recorder = Recorder(options.timeline, options.trace)
    try:
        if options.command != "run":
            run_countdown(options.speed)
        elif options.is_module:
            run_module(options.file, options.args)
        else:
            run_script(options.file, options.args)
    finally:
        recorder.finish()
    if recorder.failed:
        sys.exit(1)


if __name__ == "__main__":
    main()
