"""The programs in docs/examples print what is stored next to them."""

import ast
import functools
import os
import pathlib
import re
import runpy
import subprocess
import sys

import pytest

import sleeploop

ROOT = pathlib.Path(__file__).parent.parent
EXAMPLES = ROOT / "docs" / "examples"
PROGRAMS = sorted(EXAMPLES.glob("*.py"))
SLOW = {"bank"}

pytestmark = pytest.mark.no_leak_check  # most of it runs in processes of its own


def named(program):
    marks = [pytest.mark.slow] if program.stem in SLOW else []
    return pytest.param(program, id=program.stem, marks=marks)


@pytest.mark.parametrize("program", [named(program) for program in PROGRAMS])
def test_an_example_prints_what_is_stored(program):
    done = subprocess.run(
        [sys.executable, "-W", "error", program],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT), "SLEEPLOOP_SPEED": ""},
    )
    assert done.stderr == ""
    assert done.stdout == program.with_suffix(".txt").read_text()
    assert done.returncode == 0


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("program", [named(program) for program in PROGRAMS])
def test_an_example_holds_in_other_orders_and_on_other_days(program, seed, monkeypatch, capsys):
    """It prints something else, but what it asserts is so whatever the chances and the order."""
    monkeypatch.setattr(sleeploop, "run", functools.partial(sleeploop.run, seed=seed, shuffle=seed))
    runpy.run_path(str(program), run_name="__main__")
    assert capsys.readouterr().out


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.stem)
def test_an_example_needs_python_and_sleeploop_only(program):
    tree = ast.parse(program.read_text())
    assert ast.get_docstring(tree)
    modules = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            modules.add(node.module.partition(".")[0])
            if node.module == "sleeploop":
                assert {alias.name for alias in node.names} <= set(sleeploop.__all__)
    assert modules - sys.stdlib_module_names == {"sleeploop"}


def test_the_table_has_every_example():
    table = (EXAMPLES / "README.md").read_text()
    rows = re.findall(r"^\| \[`(\w+)\.py`\]\(\1\.py\) \|.*\(\1\.txt\) \|$", table, re.MULTILINE)
    stored = sorted(file.stem for file in EXAMPLES.glob("*.txt"))
    assert sorted(rows) == stored == [program.stem for program in PROGRAMS]
