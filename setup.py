"""The C extension, and the README for the metadata, the rest of which is in pyproject.toml.

The environment may say:
  CFLAGS, LDFLAGS, CC             as for any extension (sanitizers, coverage, another compiler)
  SLEEPLOOP_WERROR=1              a compiler warning fails the build
  SLEEPLOOP_PORTABLE_IDLE=1       wait by plain POSIX calls even where the system has better ones
"""

import os
import re
import tomllib
from glob import glob
from pathlib import Path

from setuptools import Extension, setup


def switched_on(name: str) -> bool:
    return os.environ.get(name) == "1"


def readme() -> str:
    """README.md with links that lead somewhere elsewhere, too, as on PyPI.

    A relative one is made absolute where pyproject.toml tells the repository's address, as
    `Repository` in [project.urls]; else it stays.
    """
    text = Path("README.md").read_text(encoding="utf-8")
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    repository = project.get("urls", {}).get("Repository", "").rstrip("/")
    if not repository:
        return text

    def absolute(link: re.Match[str]) -> str:
        kind = "raw" if link[1] else "blob"  # a picture, or a page
        return f"{link[1]}[{link[2]}]({repository}/{kind}/HEAD/{link[3]})"

    return re.sub(r"(!?)\[([^]]*)\]\((?![a-z]+:|#)([^)]+)\)", absolute, text)


compile_args = ["-std=c11", "-fvisibility=hidden", "-Wall", "-Wextra"]
if switched_on("SLEEPLOOP_WERROR"):
    compile_args.append("-Werror")

# Smaller code is the faster here, and functions begin at a cache line: where they would come to lie
# by chance, each change anywhere made a sleep in virtual time up to 6 % faster or slower.
if "-O" not in os.environ.get("CFLAGS", ""):
    compile_args += ["-O2", "-falign-functions=64"]

macros: list[tuple[str, str | None]] = []
if switched_on("SLEEPLOOP_PORTABLE_IDLE"):
    macros.append(("SLEEPLOOP_PORTABLE_IDLE", "1"))

setup(
    long_description=readme(),
    long_description_content_type="text/markdown",
    ext_modules=[
        Extension(
            "_sleeploop",
            sources=["_sleeploop.c"],
            # One translation unit: without this, an edited header leaves a stale build.
            depends=sorted(glob("csrc/**/*.h", recursive=True)),
            define_macros=macros,
            extra_compile_args=compile_args,
        )
    ],
)
