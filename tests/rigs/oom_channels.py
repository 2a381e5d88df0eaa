"""What tests.rigs.oom runs while memory runs out: channels."""

from __future__ import annotations

import math

import sleeploop
from sleeploop import ReceiveChannel, SendChannel

from .oom_scenarios import scenario


async def produce(send: SendChannel[int], numbers: range) -> None:
    async with send:
        for number in numbers:
            await send.send(number)


async def consume(receive: ReceiveChannel[int], got: list[int]) -> None:
    with receive:
        async for number in receive:
            got.append(number)


async def pipe(size: float) -> list[int]:
    send: SendChannel[int]
    receive: ReceiveChannel[int]
    send, receive = sleeploop.open_channel(size, name="numbers")
    got: list[int] = []
    async with sleeploop.TaskGroup() as group:
        with send, receive:
            for first in (0, 20):
                group.create_task(produce(send.clone(), range(first, first + 20)))
            for _ in range(2):
                group.create_task(consume(receive.clone(), got))
            await sleeploop.checkpoint()
            assert "'numbers' (0 of 0 buffered" in repr(send) or size > 0
    return sorted(got)


@scenario
def channels() -> None:
    assert sleeploop.run(pipe(0), speed=math.inf) == [*range(40)]
    assert sleeploop.run(pipe(3), speed=math.inf) == [*range(40)]


async def refuse() -> None:
    send: SendChannel[int]
    receive: ReceiveChannel[int]
    send, receive = sleeploop.open_channel(2**62)
    other = receive.clone()
    waiting = sleeploop.create_task(other.receive())
    also = sleeploop.create_task(receive.receive())
    await sleeploop.checkpoint()
    other.close()
    send.close()
    for task, error in (
        (waiting, sleeploop.ClosedResourceError),
        (also, sleeploop.EndOfChannel),
    ):
        try:
            await task
        except error:
            continue
        raise AssertionError
    receive.close()
    for call in (receive.clone, receive.receive_nowait, lambda: send.send_nowait(1)):
        try:
            call()
        except sleeploop.ClosedResourceError:
            continue
        raise AssertionError


@scenario
def closed_channels() -> None:
    sleeploop.run(refuse(), speed=math.inf)


async def give_back() -> list[int]:
    send: SendChannel[int]
    receive: ReceiveChannel[int]
    send, receive = sleeploop.open_channel(1)
    waits = [receive.receive() for _ in range(20)]
    tasks = [sleeploop.create_task(wait) for wait in waits]
    await sleeploop.checkpoint()
    for number in range(20):
        send.send_nowait(number)
    for wait in reversed(waits):
        wait.close()
    for task in tasks:
        try:
            await task
        except RuntimeError:
            continue
        raise AssertionError
    return [receive.receive_nowait() for _ in range(20)]


@scenario
def channels_take_back() -> None:
    assert sleeploop.run(give_back(), speed=math.inf) == [*range(20)]
