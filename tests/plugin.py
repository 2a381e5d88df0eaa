"""How the tests of the pytest plugin run pytest, in this process."""

import textwrap

import pytest

import sleeploop.pytest_plugin  # noqa: F401  here: else each run in this process would import it anew


def lean(*beside: str) -> tuple[str, ...]:
    """Arguments that leave out all plugins but those: they take most of the time of such a run."""
    others = ("cacheprovider", "hypothesispytest", "xdist", "asyncio", "anyio")
    return tuple(f"-pno:{name}" for name in others if name not in beside)


LEAN = lean()

HEADER = """
import math
import pytest
import sleeploop
from sleeploop import *

MARK = pytest.mark.sleeploop
"""


def run(
    pytester: pytest.Pytester,
    source: str,
    *args: str,
    beside: tuple[str, ...] = (),
    **outcomes: int,
) -> pytest.RunResult:
    """Run a test file of that source, and see that it comes out like that."""
    pytester.makepyfile(HEADER + textwrap.dedent(source))
    result = pytester.runpytest_inprocess(*lean(*beside), *args)
    result.assert_outcomes(**outcomes)
    return result
