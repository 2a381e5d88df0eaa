"""Rigs: ways to run the suite, or a few scenarios, that find what a plain run cannot.

leaks       pytest plugin: run every test again and again, and fail when something keeps growing
oom         fail every n-th memory allocation
syscalls    interrupt system calls, or make them fail
asan.sh     run a Python whose extension is instrumented by the sanitizers

The Makefile has a target for each.
"""

import sys
from collections.abc import Callable


def clear_caches() -> None:
    """Empty what CPython keeps for speed: looked-up attributes' names, for one."""
    clear: Callable[[], None] = getattr(sys, "_clear_internal_caches", sys._clear_type_cache)
    clear()
