"""``python -m sleeploop`` as a user runs it."""

import os
import subprocess
import sys

import pytest


def call(*args, **env):
    return subprocess.run(
        [sys.executable, "-m", "sleeploop", *args],
        env={**os.environ, "SLEEPLOOP_SPEED": "", **env},
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


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--speed", "0"), "invalid speed value: '0'"),
        (("--speed", "nan"), "invalid speed value: 'nan'"),
        (("run", "--speed", "x", "f"), "invalid speed value: 'x'"),
        (("run", "no-such-file.py"), "no such file: no-such-file.py"),
        (("run",), "required: FILE"),
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
