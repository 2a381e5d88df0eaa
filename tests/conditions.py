"""Small coroutines for the tests of Condition."""

from typing import Any

from sleeploop import Condition, current_task


async def wait(condition: Condition, log: list[Any], name: object = None) -> None:
    """Wait, and note who has the lock then."""
    async with condition:
        await condition.wait()
        assert condition.lock.owner is current_task()
        log.append(name if name is not None else current_task().name)


def holds(condition: Condition) -> bool:
    return condition.lock.owner is current_task()
