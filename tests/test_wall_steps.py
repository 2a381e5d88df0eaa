"""The system's wall clock is set while somebody waits for a moment of it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def wallshift(tmp_path_factory):
    """The library that, preloaded, lets a process set a wall clock of its own."""
    compiler = shutil.which(os.environ.get("CC", "cc").split()[0])
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("needs Linux and a C compiler")
    library = tmp_path_factory.mktemp("native") / "wallshift.so"
    source = HERE / "native" / "wallshift.c"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-Wall", "-Werror", str(source), "-o", library, "-ldl"],
        check=True,
    )
    return library


@pytest.mark.realtime
@pytest.mark.slow
@pytest.mark.no_leak_check
@pytest.mark.skipif("libasan" in os.environ.get("LD_PRELOAD", ""), reason="preloads by itself")
def test_a_loop_notices_within_a_second_and_never_wakes_anybody_early(wallshift):
    done = subprocess.run(
        [sys.executable, "-m", "tests.isolated.wall_steps", "sleep", "yield"],
        cwd=HERE.parent,
        env={**os.environ, "LD_PRELOAD": str(wallshift), "SLEEPLOOP_SPEED": ""},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr == ""
    assert done.stdout.split("\n") == [
        *(
            f"{how} {name}"
            for how in ("sleep", "yield")
            for name in ("forward", "backward", "back_and_forth", "busy")
        ),
        "suspended",
        "",
    ]
