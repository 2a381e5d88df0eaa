"""Every example in the docs is run, and every public thing has one."""

import doctest
import inspect
import os
import pathlib
import re
import subprocess
import sys

import pytest

import sleeploop
import sleeploop.testing
import sleeploop.tracing

ROOT = pathlib.Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_examples_of_a_page_print_what_it_says(page):
    """A page's python blocks are one program; its text blocks are what that prints.

    Lines are those of `example.py`, and which ones does not matter.
    """
    text = page.read_text()
    program, expected = "".join(blocks(text, "python")), "".join(blocks(text, "text"))
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "SLEEPLOOP_SPEED": ""},
    )
    assert done.stderr == ""
    output = done.stdout.replace("<string>:", "example.py:")
    assert re.sub(r"(?<=example.py:)\d+", "N", output) == re.sub(
        r"(?<=example.py:)\d+", "N", expected
    )


def public_things():
    yield "sleeploop", sleeploop
    yield "testing", sleeploop.testing
    yield "tracing", sleeploop.tracing
    for module, name in [
        (part, name)
        for part in (sleeploop, sleeploop.testing, sleeploop.tracing)
        for name in part.__all__
    ]:
        thing = getattr(module, name)
        yield name, thing
        if inspect.isclass(thing) and not issubclass(thing, BaseException):
            for member, value in vars(thing).items():
                if not member.startswith("_"):
                    yield f"{name}.{member}", value


@pytest.mark.parametrize(
    ("name", "thing"), [pytest.param(*pair, id=pair[0]) for pair in public_things()]
)
def test_docstrings(name, thing):
    if isinstance(thing, int):  # the structseq's counts of fields
        return
    assert thing.__doc__
    test = doctest.DocTestParser().get_doctest(thing.__doc__, {}, name, None, 0)
    runner = doctest.DocTestRunner(verbose=False)
    runner.run(test)
    assert runner.summarize(verbose=False).failed == 0


@pytest.mark.parametrize("name", [n for n in sleeploop.__all__ if n[0].islower()])
def test_every_function_has_an_example(name):
    assert f"sleeploop.{name}(" in getattr(sleeploop, name).__doc__


def test_the_reference_names_everything():
    pages = [(ROOT / "docs" / name).read_text() for name in ("reference.md", "waiting.md")]
    reference = "".join(pages)
    missing = [
        name
        for name, thing in public_things()
        if f"`{name.rpartition('.')[2]}" not in reference and not isinstance(thing, int)
    ]
    assert missing == []


@pytest.mark.parametrize(
    "page", sorted((ROOT / "docs").glob("promises*.md")), ids=lambda page: page.name
)
def test_every_promise_has_a_test_that_exists(page):
    page = page.read_text()
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    promises = [row for row in rows if not row.startswith(("| promise |", "| --- |"))]
    assert [row for row in promises if "`tests/test_" not in row] == []
    named = re.findall(r"(tests/\w+\.py)::(\w+)", page)
    assert len(named) >= len(promises) > 10
    missing = [
        f"{file}::{test}"
        for file, test in named
        if not re.search(rf"^def {test}\(", (ROOT / file).read_text(), re.MULTILINE)
    ]
    assert missing == []


# ---- links ---------------------------------------------------------------------------------------

LINKED = [
    *PAGES,
    *(ROOT / name for name in ("CHANGELOG.md", "CONTRIBUTING.md")),
    *(ROOT / name / "README.md" for name in ("benchmarks", "docs/examples")),
]


def prose(page: pathlib.Path) -> str:
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(page: pathlib.Path) -> set[str]:
    """Where links can lead to in a page: its headings, as GitHub writes them."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE):
        text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        anchor = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        n = sum(
            other == anchor or re.fullmatch(rf"{anchor}-\d+", other) is not None for other in found
        )
        found.add(f"{anchor}-{n}" if n else anchor)
    return found


@pytest.mark.parametrize("page", LINKED, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page):
    links = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]*`", "", prose(page)))
    broken = []
    for link in links:
        if re.match(r"[a-z]+:", link):  # another site's
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("page", PAGES[1:], ids=lambda page: page.name)
def test_a_page_begins_with_its_contents(page):
    text = prose(page)
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    beginning = text.partition("\n## ")[0]
    if len(headings) > 2:
        assert re.findall(r"^\[(.*)\]\(#", beginning, re.MULTILINE) == headings


@pytest.mark.parametrize("page", LINKED, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_of_the_code_that_a_page_names_is_there(page):
    """`core/kinds.h` or `csrc/core/kinds.h`; or `kinds.h`, as no two have the same name.

    Not in the changelog, which tells of the past.
    """
    headers = {str(path.relative_to(ROOT / "csrc")) for path in (ROOT / "csrc").glob("*/*.h")}
    known = headers | {f"csrc/{name}" for name in headers}
    known |= {name.rpartition("/")[2] for name in headers}
    named = re.findall(r"(?<![\w./])[\w./]+\.h\b", page.read_text())
    assert page.name == "CHANGELOG.md" or set(named) - known == set()


def test_the_index_leads_to_every_page():
    index = (ROOT / "docs" / "README.md").read_text()
    missing = [page.name for page in PAGES[1:] if f"({page.name})" not in index]
    assert missing == ["README.md"]
