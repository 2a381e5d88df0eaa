"""What the checkout, the sdist and the wheel hold."""

from __future__ import annotations

import ast
import email
import fnmatch
import importlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import types
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import sleeploop

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NAME = f"sleeploop-{sleeploop.__version__}"

pytestmark = pytest.mark.no_leak_check  # nothing of the loop runs in this process

# What may lie about in a checkout without being a part of it.
LITTER = (
    ".git", ".venv", ".envs", ".*_cache", ".hypothesis", "__pycache__", "build", "dist",
    "*.egg-info", "*.so", "*.py[co]",
)  # fmt: skip


def project_files() -> list[str]:
    """Every file of the project, as git sees it or, in an unpacked sdist, all there are."""
    if (ROOT / ".git").exists() and shutil.which("git"):
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            check=False,
        )
        if listed.returncode == 0:
            names = listed.stdout.decode().split("\0")
            return sorted(name for name in names if name and (ROOT / name).is_file())
    return sorted(walk(ROOT))


def walk(directory: Path, prefix: str = "") -> Iterator[str]:
    for entry in sorted(directory.iterdir()):
        if any(fnmatch.fnmatch(entry.name, pattern) for pattern in LITTER):
            continue
        if entry.is_dir():
            yield from walk(entry, f"{prefix}{entry.name}/")
        elif f"{prefix}{entry.name}" not in ("PKG-INFO", "setup.cfg"):
            yield prefix + entry.name


FILES = project_files()


def matching(*patterns: str) -> set[str]:
    """`*` stays within a directory."""
    return {
        name
        for name in FILES
        for pattern in patterns
        if name.count("/") == pattern.count("/") and fnmatch.fnmatch(name, pattern)
    }


# ---- sdist and wheel ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The sdist of a copy of the project, and the wheel of the sdist alone. Needs no network."""
    pytest.importorskip("setuptools", minversion="77")
    base = tmp_path_factory.mktemp("packaging")
    copy = base / "copy"
    for name in FILES:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy / name)
    sdist = build("sdist", copy, base)
    with tarfile.open(sdist) as archive:
        safe = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # from 3.11.4 on
        archive.extractall(base, **safe)
    wheel = build("wheel", base / NAME, base)
    return sdist, wheel


def build(kind: str, source: Path, target: Path) -> Path:
    # The frontend's part, without one: run the backend's hook in the source directory.
    hook = f"import sys; from setuptools import build_meta as b; b.build_{kind}(sys.argv[1])"
    environment = {k: v for k, v in os.environ.items() if k != "DIST_EXTRA_CONFIG"}
    # No optimiser: that the extension is built and works is all we want to know.
    environment["CFLAGS"] = f"{environment.get('CFLAGS', '')} -O0"
    done = subprocess.run(
        [sys.executable, "-c", hook, str(target)],
        cwd=source,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    (result,) = target.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return result


@pytest.mark.slow
@pytest.mark.xdist_group("built")
def test_sdist_is_the_whole_project(built: tuple[Path, Path]) -> None:
    with tarfile.open(built[0]) as archive:
        packed = {member.name for member in archive if member.isfile()}
    generated = {"PKG-INFO", "setup.cfg"}
    content = {name.removeprefix(f"{NAME}/") for name in packed}
    content = {name for name in content - generated if not name.startswith("sleeploop.egg-info/")}
    assert content == set(FILES)


@pytest.mark.slow
@pytest.mark.xdist_group("built")
def test_wheel_is_the_extension_and_the_package(built: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(built[1]) as archive:
        packed = set(archive.namelist())
    content = {name for name in packed if not name.startswith(f"{NAME}.dist-info/")}
    extensions = {name for name in content if re.fullmatch(r"_sleeploop\.[\w.-]+\.so", name)}
    assert len(extensions) == 1
    assert content - extensions == matching("sleeploop/*") | {"_sleeploop_pytest.py"}
    assert "sleeploop/py.typed" in content


@pytest.mark.slow
@pytest.mark.xdist_group("built")
def test_wheel_works_by_itself(built: tuple[Path, Path], tmp_path: Path) -> None:
    with zipfile.ZipFile(built[1]) as archive:
        archive.extractall(tmp_path)
    program = """
import sys
sys.path.insert(0, sys.argv[1])
import _sleeploop, sleeploop
assert _sleeploop.__file__.startswith(sys.argv[1]), _sleeploop.__file__
assert sleeploop.__file__.startswith(sys.argv[1]), sleeploop.__file__
async def nap():
    return await sleeploop.sleep(3600)
print(sleeploop.run(nap(), speed=float("inf")).total_seconds())
"""
    output = subprocess.check_output([sys.executable, "-I", "-c", program, tmp_path], text=True)
    assert output == "3600.0\n"


def described(project: Path, target: Path) -> str:
    """The description in the metadata that a project is built with."""
    hook = (
        "import sys; from setuptools import build_meta as b; "
        "b.prepare_metadata_for_build_wheel(sys.argv[1])"
    )
    target.mkdir()
    subprocess.run(
        [sys.executable, "-c", hook, str(target)], cwd=project, check=True, capture_output=True
    )
    (metadata,) = target.glob("*.dist-info/METADATA")
    return str(email.message_from_string(metadata.read_text()).get_payload())


@pytest.mark.slow
def test_links_of_the_readme_lead_somewhere_elsewhere_too(tmp_path: Path) -> None:
    pytest.importorskip("setuptools", minversion="77")
    for name in ("setup.py", "pyproject.toml", "README.md", "sleeploop/__init__.py", "LICENSE"):
        (tmp_path / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / "copy" / name)
    for name in matching("_sleeploop*"):
        shutil.copy(ROOT / name, tmp_path / "copy" / name)
    here = described(tmp_path / "copy", tmp_path / "without")
    assert here.strip() == (ROOT / "README.md").read_text().strip()
    assert "](docs/reference.md)" in here

    path = tmp_path / "copy" / "pyproject.toml"
    urls = '[project.urls]\nRepository = "https://example.org/sleeploop/"\n\n[project.opt'
    path.write_text(path.read_text().replace("[project.opt", urls))
    text = described(tmp_path / "copy", tmp_path / "with")
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert len(links) == len(re.findall(r"\]\(([^)]+)\)", here)) > 20
    assert [link for link in links if not link.startswith(("https://", "#"))] == []
    assert "](https://example.org/sleeploop/blob/HEAD/docs/reference.md)" in text
    assert "](https://example.org/sleeploop/raw/HEAD/docs/images/countdown.svg)" in text


# ---- the project itself ------------------------------------------------------------------------


def test_nothing_is_needed_at_run_time() -> None:
    assert PROJECT["dependencies"] == []
    imported = set()
    plugin = {"sleeploop/pytest_plugin.py", "sleeploop/_runner.py"}  # pytest is there when it loads
    for name in matching("sleeploop/*.py") - plugin:
        for node in ast.walk(ast.parse((ROOT / name).read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(str(node.module).partition(".")[0])
    assert imported <= sys.stdlib_module_names | {"sleeploop", "_sleeploop"}


def test_version_is_said_once() -> None:
    version = re.compile(rf"(?<![\d.]){re.escape(sleeploop.__version__)}(?![\d.])")
    sources = matching("*.c", "*.py", "*.toml", "csrc/*/*", "sleeploop/*")
    assert {name for name in sources if version.search((ROOT / name).read_text())} == {
        "sleeploop/__init__.py"
    }


def test_every_export_appears_once() -> None:
    exported = sleeploop.__all__
    assert sorted(exported) == sorted(set(exported))
    public = {
        name
        for name, value in vars(sleeploop).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }
    dunders = {name for name in exported if name.startswith("__")}
    assert set(exported) - dunders == public


def test_types_call_themselves_ours() -> None:
    types_ = [t for t in vars(sleeploop).values() if isinstance(t, type) and t is not TimeoutError]
    assert {t.__module__.partition(".")[0] for t in types_} == {"sleeploop"}


def test_submodules_import_alone() -> None:
    for name in matching("sleeploop/*.py") - {"sleeploop/__main__.py"}:
        module = name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        importlib.import_module(module)


def test_every_file_says_what_it_is_for() -> None:
    """`make map` has a line for each file, and shows it as the file has it."""
    done = subprocess.run(
        [sys.executable, ROOT / "tools/map.py"], capture_output=True, text=True, check=True
    )
    folder, shown = "", set()
    for line in done.stdout.splitlines()[2:]:
        if line.startswith("  "):
            name, _, purpose = line.strip().partition(" ")
            assert len(purpose.strip()) >= 6, f"{folder}{name} does not say what it is for"
            shown.add(f"{folder}{name}")
        elif line:
            folder = line
    inits = matching("*/__init__.py", "*/*/__init__.py")
    everything = matching("csrc/*/*.h", "sleeploop/*.py", "tests/*.py", "tests/*/*.py", "docs/*.md",
                          "benchmarks/*.py", "tools/*")  # fmt: skip
    assert everything - inits - shown == matching("tools/*.txt", "tools/*.allow")


def test_folders_of_the_c_code_know_what_stands_right_of_them() -> None:
    """As CONTRIBUTING.md has it, and `make map`."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    drawing = re.search(r"^_sleeploop\.c > (.*)$", text, re.MULTILINE)
    assert drawing is not None
    assert f'"{drawing[0]}"' in (ROOT / "tools/map.py").read_text()
    level = {
        room: i for i, rooms in enumerate(drawing[1].split(" > ")) for room in rooms.split(", ")
    }
    headers = matching("csrc/*/*.h")
    assert {name.split("/")[1] for name in headers} == set(level)
    for name in headers:
        room = name.split("/")[1]
        for included in re.findall(r'^#include "(.*)"', (ROOT / name).read_text(), re.MULTILINE):
            path = os.path.normpath(f"csrc/{room}/{included}")
            assert path in headers, f"{name} includes {included}"
            other = path.split("/")[1]
            assert other == room or level[other] > level[room], f"{name} includes {path}"


def test_no_paths_of_one_machine() -> None:
    somebodys = re.compile(r"/(?:home|Users)/\w+|(?<![\w.])/root/|[A-Z]:\\Users")
    known = [str(place) for place in (ROOT, Path.home()) if len(place.parts) > 2]
    for name in set(FILES) - {f"tests/{Path(__file__).name}"}:
        text = (ROOT / name).read_text(errors="replace")
        assert not somebodys.search(text), name
        assert not any(place in text for place in known), name


# ---- the first minute on a fresh machine -------------------------------------------------------


def preflight(python: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", str(ROOT / "tools/preflight.sh"), python],
        env={"PATH": os.environ["PATH"], **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def fake_python(directory: Path, body: str) -> str:
    """Answers whatever `python -c` is asked, as the real one would, except for `body`."""
    fake = directory / "python3"
    fake.write_text(f'#!/bin/sh\n{body}\nexec "{sys.executable}" "$@"\n')
    fake.chmod(0o755)
    return str(fake)


def test_preflight_says_nothing_when_all_is_well(tmp_path: Path) -> None:
    done = preflight(fake_python(tmp_path, ""))
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize(
    ("body", "package"),
    [
        ("case $2 in *ensurepip*) exit 1;; esac", "python3-venv"),
        ("case $2 in *get_path*) echo /nowhere; exit;; esac", "python3-dev"),
        ("case $2 in *'\"CC\"'*) echo no-such-compiler -pthread; exit;; esac", "gcc"),
    ],
)
def test_preflight_names_what_is_missing(tmp_path: Path, body: str, package: str) -> None:
    done = preflight(fake_python(tmp_path, body))
    assert done.returncode == 1
    assert done.stdout.count("\n") == 1
    assert done.stdout.endswith(f"apt-get install {package}\n")


def test_preflight_wants_a_newer_python(tmp_path: Path) -> None:
    body = 'case $2 in *version_info*) exit 1;; esac; [ "$1" = -V ] && echo Python 3.9.2 && exit'
    done = preflight(fake_python(tmp_path, body))
    assert done.returncode == 1
    assert "3.11 or newer" in done.stdout
    assert "Python 3.9.2" in done.stdout


def test_preflight_without_any_python(tmp_path: Path) -> None:
    for tool in ("sh", "make", "gcc"):
        (tmp_path / tool).symlink_to(shutil.which(tool) or "/bin/false")
    done = preflight("python3", PATH=str(tmp_path))
    assert done.returncode == 1
    assert done.stdout.endswith("apt-get install python3 python3-venv python3-dev\n")
