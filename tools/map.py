"""A map of the house: each file with the line that says what it is for.

    python tools/map.py [FOLDER ...]

The line is the first of the file itself: of a module's docstring, or of the comment at the top. For
folders of C code, what stands right of a `>` knows nothing of what stands left of it.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROOMS = "_sleeploop.c > api > run > sync, sim, scope, time > wait > core > poll > base"
FOLDERS = ("csrc", "sleeploop", "tests", "benchmarks", "tools", "docs")
KINDS = (".c", ".h", ".py", ".sh", ".md")


def purpose(path: Path) -> str:
    """What a file says that it is for, one line; "" if it does not."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        line = (ast.get_docstring(ast.parse(text)) or "").partition("\n\n")[0]
    elif path.suffix in (".c", ".h"):
        comment = re.match(r"/\* [\w.]+: (.*?)(?:\n \*\n|\*/)", text, re.DOTALL)
        line = re.sub(r"\n \* ?", " ", comment[1]) if comment else ""
    elif path.suffix == ".md":
        line = (re.search(r"^# (.*)", text, re.MULTILINE) or ["", ""])[1]
    else:
        comment = re.search(r"^# (?!usage)((?:[A-Z]).*(?:\n# \S.*)*)", text, re.MULTILINE)
        line = re.sub(r"\n# ?", " ", comment[1]) if comment else ""
    return " ".join(line.split())


def files(folder: Path) -> list[Path]:
    return sorted(
        path for path in folder.iterdir() if path.suffix in KINDS and path.name != "__init__.py"
    )


def main(names: list[str]) -> None:
    for name in names or FOLDERS:
        top = ROOT / name
        if name == "csrc":
            print(f"csrc: {ROOMS}\n")
        for folder in [top, *sorted(path for path in top.rglob("*") if path.is_dir())]:
            if paths := files(folder):
                print(f"{folder.relative_to(ROOT)}/")
                for path in paths:
                    print(f"  {path.name:24} {purpose(path)}")
                print()


if __name__ == "__main__":
    main(sys.argv[1:])
