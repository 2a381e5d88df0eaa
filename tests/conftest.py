"""What is there before the first test is left out of every collection: many tests collect."""

import gc


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()
