"""What is there before the first test is left out of every collection: many tests collect."""

import gc
import warnings
from collections.abc import Iterator

import pytest


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()


@pytest.fixture
def forgetful() -> Iterator[None]:
    """For what leaves awaitables that are never awaited, and is about something else."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
        yield
        gc.collect()
