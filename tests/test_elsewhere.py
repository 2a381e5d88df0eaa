"""Our awaitables on a loop that is not ours: they say so where that loop shows them."""

import asyncio
import copy
import math
import pickle
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

import sleeploop
from sleeploop import (
    Event,
    Lock,
    Queue,
    Resource,
    TaskGroup,
    checkpoint,
    create_task,
    every,
    sleep,
    sleep_forever,
    sleep_until,
)
from tests import plainloop
from tests.helpers import virtual

ONE = timedelta(days=1)


def asked(awaitable: Any) -> Any:
    """What it yields on another loop."""
    try:
        return awaitable.__await__().send(None)
    finally:
        awaitable.close()


SLEEPS = {
    "sleep()": lambda: sleep(1),
    "sleep_until()": lambda: sleep_until(datetime(2050, 1, 1)),
    "sleep_forever()": sleep_forever,
    "checkpoint()": checkpoint,
}


@pytest.mark.parametrize("name", SLEEPS)
def test_asyncio_shows_the_advice(name):
    async def main():
        await SLEEPS[name]()

    with pytest.raises(RuntimeError) as caught:
        asyncio.run(main())
    text = str(caught.value)
    assert re.match(
        rf"Task got bad yield: <sleeploop's {re.escape(name)}, to wake up at \d{{4}}-", text
    )
    assert "on a loop that is not sleeploop's: run the program by sleeploop.run()" in text


@pytest.mark.parametrize("zone", [None, UTC, timezone(2 * timedelta(hours=1))])
def test_it_is_a_datetime_and_what_is_made_of_it_is_a_plain_one(zone):
    when = datetime(2050, 6, 1, 12, 30, 15, 123456, zone)
    moment = asked(sleep_until(when))
    assert isinstance(moment, datetime)
    same = when if zone is None else when.astimezone(UTC)
    assert (moment, str(moment), hash(moment)) == (same, str(same), hash(same))
    assert sorted([moment, same + ONE, same - ONE])[1] is moment
    assert max(same - ONE, moment) is moment
    made = [
        *(moment + ONE - ONE, ONE + moment - ONE, moment.replace(), moment.replace(fold=0)),
        *(copy.copy(moment), copy.deepcopy(moment), pickle.loads(pickle.dumps(moment))),
        *(moment.fromisoformat(moment.isoformat()), type(moment)(*moment.timetuple()[:6])),
    ]
    assert {type(one) for one in [*made, moment.astimezone()]} == {datetime}
    assert made[:-1] == [same] * (len(made) - 1)
    assert type(moment - same) is timedelta
    assert (moment - same, same - moment) == (timedelta(0), timedelta(0))


def test_the_teaching_loop_goes_on_working(monkeypatch):
    monkeypatch.setattr(plainloop, "clock", plainloop.VirtualClock(datetime.now()))
    log = []

    async def count(name):
        for i in range(3):
            log.append((name, i, await sleep(1) >= timedelta(seconds=1)))

    plainloop.SleepingLoop(count("a"), count("b")).run_until_complete()
    assert log == [(name, i, True) for i in range(3) for name in "ab"]


def test_where_datetime_is_pure_python():
    program = (
        "import sys\n"
        "sys.modules['_datetime'] = None\n"
        "import datetime, sleeploop\n"
        "coro = sleeploop.sleep(5)\n"
        "when = coro.send(None)\n"
        "assert isinstance(when, datetime.datetime) and 'not sleeploop' in repr(when)\n"
        "second = datetime.timedelta(seconds=1)\n"
        "assert type(when + second) is type(when.replace()) is datetime.datetime\n"
        "try:\n"
        "    coro.send(when + second)\n"
        "except StopIteration as stop:\n"
        "    print(stop.value)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.stderr, done.returncode) == ("0:00:06\n", "", 0)


def test_code_with_builtins_of_its_own():
    scope: dict[str, Any] = {"__builtins__": {}}
    exec("def ask(sleep):\n    return sleep(1).send(None)\n", scope)
    assert "not sleeploop's" in repr(scope["ask"](sleep))


# ---- a loop that runs in a step of ours ----------------------------------------------------------


async def in_group() -> None:
    async with TaskGroup() as group:
        group.create_task(sleep(1))


async def ticking() -> None:
    async for _ in every(1):
        pass


async def requesting(resource: Resource) -> None:
    for _ in range(2):
        await resource.request()


async def starting(group: TaskGroup) -> None:
    async def server(*, started: Any) -> None:
        await sleep(1)
        started()

    await group.start(server)


async def locking(lock: Lock) -> None:
    async with lock:
        pass


async def awaiting(awaitable: Any) -> None:
    await awaitable


@pytest.mark.parametrize(
    "make",
    [
        lambda task, group: awaiting(sleep(1)),
        lambda task, group: awaiting(task),
        lambda task, group: awaiting(Event().wait()),
        lambda task, group: awaiting(Queue().get()),
        lambda task, group: in_group(),
        lambda task, group: ticking(),
        lambda task, group: requesting(Resource()),
        lambda task, group: starting(group),
    ],
)
def test_it_says_so_as_well(make):
    async def main():
        async with TaskGroup() as group:
            task = create_task(sleep(1))
            with pytest.raises(RuntimeError) as caught:
                asyncio.run(make(task, group))
            assert str(caught.value).startswith("Task got bad yield: <")
            assert "on a loop that is not sleeploop's: await it in a coroutine" in str(caught.value)
            group.cancel_scope.cancel()

    virtual(main())


def test_what_waits_where_it_should_says_nothing_of_the_kind():
    async def main():
        event, lock = Event(), Lock()
        await lock.acquire()
        waits = [sleep(1), event.wait(), every(1).__anext__(), lock.acquire()]
        tasks = [create_task(wait) for wait in waits]
        await checkpoint()
        texts = [repr(wait) for wait in waits]
        for task in tasks:
            task.cancel()
        return texts

    assert not any("not sleeploop" in text for text in virtual(main()))
    nap = sleep(math.inf)
    assert "not sleeploop" not in repr(nap)
    nap.close()


def test_others_say_it_in_their_own_error():
    async def main():
        for wait in (Event().wait(), every(1).__anext__(), TaskGroup().start(print)):
            with pytest.raises(RuntimeError, match=r"running loop.*sleeploop\.run\(\)"):
                await wait

    asyncio.run(main())
    assert sleeploop.run(sleep(0), speed=math.inf) >= timedelta(0)
