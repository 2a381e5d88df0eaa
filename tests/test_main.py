"""``python -m sleeploop`` as a user runs it."""

import importlib.metadata
import json
import math
import os
import pathlib
import re
import subprocess
import sys

import _sleeploop
import pytest

import sleeploop

ROOT = pathlib.Path(__file__).parent.parent
GUIDE = (ROOT / "docs" / "tracing.md").read_text()


def call(*args, cwd=None, **env):
    return subprocess.run(
        [sys.executable, "-m", "sleeploop", *args],
        env={**os.environ, "SLEEPLOOP_SPEED": "", **env},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def script(tmp_path):
    """A program that says at which speed it runs, with a helper module beside it."""
    (tmp_path / "helper.py").write_text("HOUR = 3600\n")
    path = tmp_path / "program.py"
    path.write_text(
        "import sys, sleeploop, helper\n"
        "async def main():\n"
        "    await sleeploop.sleep(helper.HOUR)\n"
        "    print(sleeploop.current_loop().speed, __name__, sys.argv[1:])\n"
        "sleeploop.run(main())\n"
    )
    return str(path)


def test_the_countdown():
    done = call("--speed", "inf")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "A waiting 0 seconds before starting countdown"
    assert lines[-3:] == ["B lift-off!", "C lift-off!", "A lift-off!"]
    assert len(lines) == 6 + 12 + 3
    assert call(SLEEPLOOP_SPEED="inf").stdout == done.stdout


@pytest.mark.parametrize(
    ("args", "env", "speed"),
    [
        ((), {}, "inf"),
        ((), {"SLEEPLOOP_SPEED": "36000000"}, "36000000.0"),
        (("--speed", "72000000"), {"SLEEPLOOP_SPEED": "1"}, "72000000.0"),
    ],
)
def test_a_script_at_another_speed(script, args, env, speed):
    done = call("run", *args, script, "a", "--speed", "b", **env)
    assert done.stderr == ""
    assert done.stdout == f"{speed} __main__ ['a', '--speed', 'b']\n"


@pytest.mark.parametrize("name", ["program", "package", "package.__main__"])
def test_a_module_at_another_speed(script, tmp_path, name):
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    source = pathlib.Path(script).read_text()
    (package / "__main__.py").write_text(source)
    done = call("run", "-m", name, "a", "-m", "b", cwd=tmp_path)
    assert done.stderr == ""
    assert done.stdout == "inf __main__ ['a', '-m', 'b']\n"


def test_the_version():
    version = importlib.metadata.version("sleeploop")
    assert sleeploop.__version__ == version
    assert call("--version").stdout == f"sleeploop {version}\n"
    with pytest.raises(AttributeError, match="no attribute 'version'"):
        _ = sleeploop.version


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--timeline", "o.png"), "a timeline is an SVG file, not .png: 'o.png'"),
        (("run", "-m", "no.such.module"), "no module, or no package with a __main__: no.such"),
        (("run", "-m", "logging"), "no module, or no package with a __main__: logging"),
        (("run", "-m", "..x"), "no module, or no package with a __main__: ..x"),
        (("--speed", "0"), "invalid speed value: '0'"),
        (("--speed", "nan"), "invalid speed value: 'nan'"),
        (("run", "--speed", "x", "f"), "invalid speed value: 'x'"),
        (("run", "no-such-file.py"), "no such file: no-such-file.py"),
        (("run",), "arguments are required: FILE\n"),
        (("walk",), "invalid choice: 'walk'"),
    ],
)
def test_bad_usage(args, message):
    done = call(*args)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stdout == ""


def test_a_bad_environment_is_named():
    done = call(SLEEPLOOP_SPEED="fast")
    assert done.returncode == 2
    assert "invalid speed value: 'fast'" in done.stderr


def test_help():
    done = call("--help")
    assert done.returncode == 0
    assert "SLEEPLOOP_SPEED" in done.stdout
    assert "--speed" in call("run", "--help").stdout


# ---- --timeline and --trace ----------------------------------------------------------------------


def test_the_pictures_of_the_docs_are_what_the_commands_make(tmp_path):
    """docs/tracing.md tells the commands; when this fails, look at what they make and keep it."""
    commands = re.findall(r"^python -m sleeploop (.*docs/images/.*)$", GUIDE, re.MULTILINE)
    assert len(commands) == len(list((ROOT / "docs" / "images").iterdir())) == 2
    for command in commands:
        name = re.search(r"docs/images/(\S+)", command)[1]
        words = command.replace(f"docs/images/{name}", str(tmp_path / name)).split()
        done = call(*(str(ROOT / w) if w.startswith("tests/") else w for w in words))
        assert done.returncode == 0
        assert done.stderr.startswith(f"sleeploop: wrote {tmp_path / name}: ")
        made = (tmp_path / name).read_text()
        assert made == (ROOT / "docs" / "images" / name).read_text()


@pytest.fixture
def loops(tmp_path):
    """A program with several loops, in another directory than it is started in, the last of which
    fails."""
    path = tmp_path / "loops.py"
    path.write_text(
        "import gc, os, sleeploop\n"
        "os.mkdir('elsewhere')\n"
        "os.chdir('elsewhere')\n"
        "async def fail():\n"
        "    await sleeploop.sleep(1)\n"
        "    raise ValueError('on purpose')\n"
        "sleeploop.SleepingLoop(sleeploop.sleep(5)).run_until_complete()\n"
        "loop = sleeploop.SleepingLoop(sleeploop.sleep(5), trace=2)\n"
        "loop.run_until(1)\n"
        "loop.close()\n"
        "loop = sleeploop.SleepingLoop(sleeploop.sleep(5))\n"
        "loop.run_until(1)\n"
        "del loop\n"
        "gc.collect()\n"
        "sleeploop.run(fail())\n"
    )
    return str(path)


def test_every_loop_of_a_program_is_traced(loops, tmp_path):
    done = call("run", "--timeline", "o.svg", "--trace", "o.x.json", loops, cwd=tmp_path)
    assert done.returncode == 1
    assert "ValueError: on purpose" in done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("sleeploop: ")]
    assert said == [
        "sleeploop: wrote o.svg: 4 events",
        "sleeploop: wrote o.x.json: 4 events",
        "sleeploop: wrote o-2.svg: 2 events, 3 before them are lost",
        "sleeploop: wrote o.x-2.json: 2 events, 3 before them are lost",
        "sleeploop: wrote o-3.svg: 3 events",  # dropped in the middle
        "sleeploop: wrote o.x-3.json: 3 events",
        "sleeploop: wrote o-4.svg: 4 events",
        "sleeploop: wrote o.x-4.json: 4 events",
    ]
    for n in ("", "-2", "-3", "-4"):
        assert (tmp_path / f"o{n}.svg").read_text().startswith("<svg")
        assert json.loads((tmp_path / f"o.x{n}.json").read_text())["traceEvents"]


def test_what_cannot_be_written_does_not_stop_the_program(script, tmp_path):
    done = call("run", "--timeline", "/dev/full", script)
    assert done.returncode == 1
    assert done.stdout == "inf __main__ []\n"
    assert done.stderr == "sleeploop: cannot write /dev/full: No space left on device\n"


def test_a_loop_that_does_not_want_to_be_traced(tmp_path):
    (tmp_path / "program.py").write_text(
        "import sleeploop\n"
        "sleeploop.run(sleeploop.sleep(1), trace=False)\n"
        "sleeploop.run(sleeploop.sleep(2))\n"
    )
    done = call("run", "--trace", "o.json", "program.py", cwd=tmp_path)
    assert done.stderr == "sleeploop: wrote o.json: 4 events\n"


def test_a_program_without_a_loop(tmp_path):
    (tmp_path / "empty.py").write_text("print('hello')\n")
    done = call("run", "--trace", "o.json", "empty.py", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "hello\n")
    assert done.stderr == "sleeploop: wrote nothing: no loop has run (o.json)\n"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--timeline", "nowhere/o.svg"), "--timeline: no such directory: 'nowhere'"),
        (("--trace", "."), "--trace: not the name of a file: '.'"),
        (("--trace", ""), "--trace: not the name of a file: ''"),
        (("--trace", "o", "--timeline", "o"), "--timeline and --trace are the same file: o"),
    ],
)
@pytest.mark.parametrize("command", [(), ("run",)])
def test_bad_outputs(command, args, message, script, tmp_path):
    done = call(*command, *args, *([script] if command else []), cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stdout == ""


def test_an_error_of_the_callback_is_raised_by_the_run():
    """Of the hook behind it: only an OSError is expected."""

    def broken(loop):
        raise RuntimeError("broken")

    _sleeploop._trace_all(True, broken)
    try:
        with pytest.raises(RuntimeError, match="broken"):
            sleeploop.run(sleeploop.sleep(1), speed=math.inf)
        _sleeploop._trace_all(0, None)
        assert sleeploop.SleepingLoop().trace is None
        with pytest.raises(TypeError):
            _sleeploop._trace_all(1)
        with pytest.raises(TypeError):
            _sleeploop._trace_all("x", None)
    finally:
        _sleeploop._trace_all(0, None)
