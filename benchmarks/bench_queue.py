"""Queues: two tasks that throw a ball to each other, and one producer with many consumers.

`pingpong`: a ball goes over one queue and comes back over another, each with room for one item, so
that every `get()` has to wait.  `queue`: one producer, 1,000 consumers and a queue with room for
100 items; it ends with a None for each consumer.  Time covers making the coroutines, running them
and closing the loop.  trio has memory channels of that size in place of queues, and SimPy stores.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.peers import Peer
from benchmarks.workload import AtLeast, Workload, finished, has, stopwatch

# ---- ping-pong -----------------------------------------------------------------------------------


async def await_play(put: Any, get: Any, turns: int, serves: bool, done: list[int]) -> None:
    if serves:
        await put(0)
    for _ in range(turns):
        ball = await get()
        await put(ball + 1)
    if serves:
        done.append(await get())


def call_play(put: Any, get: Any, turns: int, serves: bool, done: list[int]) -> None:
    if serves:
        put(0)
    for _ in range(turns):
        ball = get()
        put(ball + 1)
    if serves:
        done.append(get())


def yield_play(put: Any, get: Any, turns: int, serves: bool, done: list[int]) -> Any:
    if serves:
        yield put(0)
    for _ in range(turns):
        ball = yield get()
        yield put(ball + 1)
    if serves:
        done.append((yield get()))


PLAYERS = {"await": await_play, "call": call_play, "yield": yield_play}

# ---- one producer, many consumers ----------------------------------------------------------------


async def await_produce(put: Any, items: int, consumers: int) -> None:
    for item in range(items):
        await put(item)
    for _ in range(consumers):
        await put(None)


async def await_consume(get: Any, done: list[int]) -> None:
    while (item := await get()) is not None:
        done.append(item)


def call_produce(put: Any, items: int, consumers: int) -> None:
    for item in range(items):
        put(item)
    for _ in range(consumers):
        put(None)


def call_consume(get: Any, done: list[int]) -> None:
    while (item := get()) is not None:
        done.append(item)


def yield_produce(put: Any, items: int, consumers: int) -> Any:
    for item in range(items):
        yield put(item)
    for _ in range(consumers):
        yield put(None)


def yield_consume(get: Any, done: list[int]) -> Any:
    while (item := (yield get())) is not None:
        done.append(item)


PRODUCERS = {"await": await_produce, "call": call_produce, "yield": yield_produce}
CONSUMERS = {"await": await_consume, "call": call_consume, "yield": yield_consume}

# ---- both ----------------------------------------------------------------------------------------


def queue(peer: Peer, size: int) -> tuple[Any, Any]:
    """The two methods of a queue with room for that many items: put and get."""
    made = has(peer.queue, "Queue")(size)
    if peer.name == "trio":
        sending, receiving = made
        return sending.send, receiving.receive
    return made.put, made.get


async def await_step(step: Callable[..., Any], *args: Any) -> None:
    await step(*args)


def call_step(step: Callable[..., Any], *args: Any) -> None:
    step(*args)


def yield_step(step: Callable[..., Any], *args: Any) -> Any:
    yield from step(*args)


# `run()` takes one worker for all rows; here they are of two kinds.
STEPS = {"await": await_step, "call": call_step, "yield": yield_step}


def measure(peer: Peer, **size: int) -> dict[str, float]:
    return measure_play(peer, **size) if "turns" in size else measure_crowd(peer, **size)


def measure_play(peer: Peer, turns: int) -> dict[str, float]:
    done: list[int] = []
    (there, caught), (back, returned) = queue(peer, 1), queue(peer, 1)
    # Each of them catches the ball and throws it that many times.
    rows = [(there, returned, turns, True, done), (back, caught, turns + 1, False, done)]
    elapsed = stopwatch(peer.run, PLAYERS[peer.style], rows)
    if done != [2 * turns + 1]:
        raise RuntimeError(f"the ball was thrown {done} times instead of {2 * turns + 1}")
    return {"ns per turn": elapsed / turns}


def measure_crowd(peer: Peer, items: int, consumers: int, room: int) -> dict[str, float]:
    done: list[int] = []
    put, get = queue(peer, room)
    rows: list[tuple[Any, ...]] = [(CONSUMERS[peer.style], get, done)] * consumers
    rows.append((PRODUCERS[peer.style], put, items, consumers))
    elapsed = stopwatch(peer.run, STEPS[peer.style], rows)
    finished(done, items)
    if sum(done) != sum(range(items)):
        raise RuntimeError("other items came out than went in")
    return {"ns per item": elapsed / items}


MODULE = "benchmarks.bench_queue"
WORKLOADS = [
    Workload(
        name="pingpong",
        title="two tasks, two queues, {turns:,} turns",
        module=MODULE,
        figures={"ns per turn": (AtLeast(5, "asyncio"), AtLeast(3, "uvloop"))},
        size={"turns": 100_000},
        quick={"turns": 10_000},
        needs="queues",
    ),
    Workload(
        name="queue",
        title="one producer, {consumers:,} consumers, {items:,} items, room for {room}",
        module=MODULE,
        figures={"ns per item": (AtLeast(5, "asyncio"),)},
        size={"items": 300_000, "consumers": 1_000, "room": 100},
        quick={"items": 30_000, "consumers": 1_000, "room": 100},
        needs="queues",
    ),
]

if __name__ == "__main__":
    from benchmarks.harness import main

    main(WORKLOADS)
