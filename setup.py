"""The C extension. All other metadata is in pyproject.toml.

The environment may say:
  CFLAGS, LDFLAGS, CC             as for any extension (sanitizers, coverage, another compiler)
  SLEEPLOOP_WERROR=1              a compiler warning fails the build
  SLEEPLOOP_PORTABLE_IDLE=1       wait by plain POSIX calls even where the system has better ones
"""

import os
from glob import glob

from setuptools import Extension, setup


def switched_on(name: str) -> bool:
    return os.environ.get(name) == "1"


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
    ext_modules=[
        Extension(
            "_sleeploop",
            sources=["_sleeploop.c"],
            # One translation unit: without this, an edited header leaves a stale build.
            depends=sorted(glob("csrc/**/*.h", recursive=True)),
            define_macros=macros,
            extra_compile_args=compile_args,
        )
    ]
)
