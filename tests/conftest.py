"""What holds for all tests; what they need, they import."""

import gc
import warnings
from collections.abc import Iterator

import pytest


def pytest_itemcollected(item: pytest.Item) -> None:
    """What waits on the clock is one group for pytest-xdist, so that none disturbs another."""
    if item.get_closest_marker("realtime"):
        item.add_marker(pytest.mark.xdist_group("realtime"))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """pytest-xdist 3.8 tells groups by a change of the id that pytest 9.2 does not look at."""
    for item in items:
        told = getattr(item, "_nodeid", item.nodeid)
        if told != item.nodeid:
            item._id = type(item.id).parse(told)


def pytest_collection_finish() -> None:
    """What is there before the first test is left out of every collection: many tests collect."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def forgetful() -> Iterator[None]:
    """For what leaves awaitables that are never awaited, and is about something else."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
        yield
        gc.collect()


@pytest.fixture
def no_collector() -> Iterator[None]:
    """What dies in such a test dies by its reference count."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
