"""What tests.rigs.oom runs while memory runs out: containers and stores."""

from __future__ import annotations

import contextlib
import math

import sleeploop
from sleeploop import Container, Store, WouldBlock

from .oom_scenarios import scenario


async def car(tank: Container, litres: float) -> float:
    with sleeploop.move_on_after(3):
        await tank.get(litres)
        return litres
    return 0


async def refuel() -> list[float]:
    tank = Container(10, 5, name="tank", stats=True)
    async with sleeploop.TaskGroup() as group:
        cars = [group.create_task(car(tank, litres)) for litres in (8, 2, 10)]
        await sleeploop.sleep(1)
        assert repr(tank) == "<Container 'tank' (level 5.0 of 10.0), 3 waiting>"
        await tank.put(5)
        await sleeploop.sleep(1)
        with contextlib.suppress(WouldBlock):
            tank.get_nowait(1)
        await sleeploop.sleep(2)
    assert tank.stats().gets.count == 2
    return [task.result() for task in cars]


@scenario
def containers() -> None:
    assert sleeploop.run(refuel(), speed=math.inf) == [8, 2, 0]


def fails(item: object) -> bool:
    raise LookupError(item)


async def pick(shelf: Store[object], wanted: object) -> object:
    try:
        return await shelf.get(fails if wanted is fails else lambda item: item == wanted)
    except LookupError as error:
        return error.args[0]


async def shop() -> list[object]:
    shelf = Store[object](12, name="shelf", stats=True)
    async with sleeploop.TaskGroup() as group:
        picking = [group.create_task(pick(shelf, item)) for item in (7, fails, 11, 18, "last")]
        await sleeploop.checkpoint()
        for item in range(20):
            group.create_task(shelf.put(item))
        await sleeploop.checkpoint()
        assert repr(shelf) == "<Store 'shelf' (12 of 12 items), 8 waiting>"
        assert shelf.items == (0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 12, 13)
        await sleeploop.sleep(1)
        for item in range(6):
            assert await shelf.get() == item
        assert shelf.get_nowait(lambda item: item == 12) == 12
        await shelf.put("last")
        dropped = shelf.get(lambda item: item == 13)
        assert await dropped == 13
    assert shelf.stats().puts.count == 21
    return [task.result() for task in picking]


@scenario
def stores() -> None:
    assert sleeploop.run(shop(), speed=math.inf) == [7, 0, 11, 18, "last"]
