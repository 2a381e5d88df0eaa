"""The other Pythons of this machine.

    python3 tools/pythons.py versions [pytest arguments]
        run the test suite on the newest patch release of every further CPython that we support
    python3 tools/pythons.py every (release | debug | all) [pytest arguments]
        run it on every one of those builds, the one that runs this among them
    python3 tools/pythons.py debug
        print the path of a debug build, which counts references; nothing when there is none

Standard library only: it runs before any environment exists.
"""

import glob
import json
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

OLDEST = (3, 11)

# What we must know of an interpreter before anything is built for it.
PROBE = """
import importlib.util, json, os, sys, sysconfig
print(json.dumps({
    "path": sys._base_executable,
    "implementation": sys.implementation.name,
    "version": sys.version_info[:3],
    "level": sys.version_info.releaselevel,
    "debug": hasattr(sys, "gettotalrefcount"),
    "threaded": bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
    "venv": importlib.util.find_spec("ensurepip") is not None,
    "header": os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")),
}))
"""


@dataclass(frozen=True)
class Interpreter:
    path: str
    implementation: str
    version: tuple[int, int, int]
    level: str
    debug: bool
    threaded: bool
    venv: bool
    header: bool

    @property
    def minor(self) -> tuple[int, int]:
        return self.version[:2]

    def __str__(self) -> str:
        return f"{'.'.join(map(str, self.version))} ({self.path})"

    def unusable(self) -> str | None:
        """Why the suite cannot run on it."""
        if self.implementation != "cpython":
            return f"it is {self.implementation}, not CPython"
        if self.threaded:
            return "a free-threaded build, which is not supported yet"
        if not self.venv:
            return f"no ensurepip (Debian package: {self.name}-venv)"
        if not self.header:
            return f"no Python.h (Debian package: {self.name}-dev)"
        return None

    @property
    def kind(self) -> str:
        return "debug" if self.debug else "release"

    @property
    def name(self) -> str:
        return "python{}.{}".format(*self.minor)


def probe(command: str) -> Interpreter | None:
    """What `command` is; None when it does not run, like a launcher whose target is gone."""
    try:
        answer = subprocess.run(
            [command, "-I", "-c", PROBE],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
            timeout=30,
            check=True,
        ).stdout
        facts = json.loads(answer)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    facts["version"] = tuple(facts["version"])
    return Interpreter(**facts)


def candidates() -> list[str]:
    """Every file that by its name and place may be a Python we want."""
    places = os.environ.get("PATH", os.defpath).split(os.pathsep)
    places += ["/usr/local/bin", "/usr/bin"]
    places += sorted(glob.glob(str(Path.home() / ".pyenv/versions/*/bin")))
    places += sorted(glob.glob("/opt/python/*/bin"))
    found: list[str] = []
    for place in dict.fromkeys(places):
        for name in sorted(os.listdir(place)) if os.path.isdir(place) else ():
            named = re.fullmatch(r"python3\.(\d+)(t|d|-dbg)?", name)
            if named and (3, int(named[1])) >= OLDEST and os.access(f"{place}/{name}", os.X_OK):
                found.append(f"{place}/{name}")
    return found


def interpreters() -> tuple[list[Interpreter], list[str]]:
    """The distinct interpreters, and the candidates that do not run."""
    found: dict[str, Interpreter] = {}
    broken: list[str] = []
    for command in candidates():
        interpreter = probe(command)
        if interpreter is None:
            broken.append(command)
        else:
            found.setdefault(os.path.realpath(interpreter.path), interpreter)
    return list(found.values()), broken


def run_versions(arguments: list[str]) -> int:
    """On one of each further version; a debug build is what `make leaks` uses."""
    own = probe(sys.executable)
    assert own is not None
    print("Looking for CPython {}.{} and later".format(*OLDEST))
    chosen = choose("release", own)
    if not chosen:
        print("No further CPython on PATH, in ~/.pyenv/versions, /usr/local or /opt/python")
    return run_suites("make versions", chosen, arguments)


def choose(kind: str, own: Interpreter | None = None) -> list[Interpreter]:
    """The newest of each version and kind, but for our own version; says why not the others."""
    found, broken = interpreters()
    chosen: list[Interpreter] = []
    for command in broken:
        print(f"  skipped: {command} does not run here")
    newest_first = sorted(found, key=lambda one: (one.version, one.level == "final"), reverse=True)
    for one in newest_first:
        why = None
        if own is not None and one.minor == own.minor:
            why = f"make test runs {own}"
        elif kind not in (one.kind, "all"):
            why = f"a {one.kind} build"
        elif one.unusable():
            why = one.unusable()
        elif any((one.minor, one.kind) == (other.minor, other.kind) for other in chosen):
            why = "there is a newer one of its kind"
        else:
            chosen.append(one)
        print(f"  {'skipped' if why else 'to run'}: {one}{': ' + why if why else ''}")
    return chosen[::-1]


def run_suites(target: str, chosen: list[Interpreter], arguments: list[str]) -> int:
    failures = 0
    verdicts: list[str] = []
    for one in chosen:
        print(f"\n=== {one}", flush=True)
        began = time.monotonic()
        env = ".envs/{}.{}".format(*one.minor) + ("d" if one.debug else "")
        made = subprocess.run(["sh", "tools/env.sh", one.path, env, "test"])
        status = made.returncode
        if status == 0:
            status = subprocess.run([f"{env}/bin/python", "-m", "pytest", *arguments]).returncode
        failures += status != 0
        seconds = time.monotonic() - began
        verdicts.append(f"  {'FAILED' if status else 'passed'}: {one} in {seconds:.0f} s")
    if verdicts:
        print(f"\n{target}:", *verdicts, sep="\n")
    return 1 if failures else 0


def print_debug() -> int:
    """The newest debug build."""
    usable = [one for one in interpreters()[0] if one.debug and not one.unusable()]
    if usable:
        print(max(usable, key=lambda one: one.version).path)
    else:
        print(
            "No debug interpreter: memory blocks and descriptors are counted, references are not"
            " (Debian package: python3-dbg)",
            file=sys.stderr,
        )
    return 0


def main() -> int:
    match sys.argv[1:]:
        case ["debug"]:
            return print_debug()
        case ["versions", *arguments]:
            return run_versions(arguments)
        case ["every", "release" | "debug" | "all" as kind, *arguments]:
            chosen = choose(kind)
            return run_suites("make newer", chosen, arguments) if chosen else 1
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    sys.exit(main())
