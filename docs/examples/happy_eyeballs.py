"""Happy eyeballs: connect to the fastest of a host's addresses, and leave nothing behind.

A host has several addresses, of which any may be slow, refuse or never answer (RFC 8305). So they
race: the next attempt begins when the one before has failed, or has not succeeded within a quarter
of a second. The first connection wins; the attempts that are under way are given up.

All attempts live in one task group. When the block is left, be it by a winner, by a timeout around
it or by an error, they have ended, and each has closed what it had opened.
"""

import math
from typing import NamedTuple

from sleeploop import CancelledError, TaskGroup, current_loop, move_on_after, run, sleep, timeout

HEAD_START = 0.25


class Address(NamedTuple):
    """An address, and how it behaves."""

    name: str
    seconds: float = math.inf  # until it answers
    refuses: bool = False


open_connections: set[str] = set()


def say(text: str) -> None:
    print(f"  {current_loop().time():5.3f} s  {text}")


async def connect(address: Address) -> str:
    """Open a connection, in place of a socket's."""
    say(f"{address.name}: trying")
    try:
        await sleep(address.seconds)
    except CancelledError as error:
        say(f"{address.name}: given up, {error.reason or error}")
        raise
    if address.refuses:
        say(f"{address.name}: refused")
        raise ConnectionRefusedError(f"{address.name} refused the connection")
    say(f"{address.name}: connected")
    open_connections.add(address.name)
    return address.name


async def connect_to_any(addresses: list[Address]) -> str:
    """A connection to whichever address answers first."""
    winners: list[str] = []
    errors: list[Exception] = []

    async def attempt(address: Address) -> None:
        try:
            connection = await connect(address)
        except OSError as error:
            errors.append(error)
            return
        if winners:
            say(f"{connection}: too late by a hair, closed")
            open_connections.remove(connection)
        else:
            winners.append(connection)
            group.cancel_scope.cancel(f"{address.name} was faster")

    async with TaskGroup() as group:
        for address in addresses:
            task = group.create_task(attempt(address), name=address.name)
            with move_on_after(HEAD_START):
                await task  # stops waiting when the time is over; the attempt goes on
    if not winners:
        raise ExceptionGroup("no address answers", errors)
    return winners[0]


HOSTS = {
    "All is well": [Address("2001:db8::1", 0.05), Address("192.0.2.1", 0.04)],
    "IPv6 is broken": [Address("2001:db8::2"), Address("192.0.2.2", 0.04)],
    "The first refuses, the second is slow": [
        Address("2001:db8::3", 0.01, refuses=True),
        Address("2001:db8::4", 0.7),
        Address("192.0.2.3", 0.1),
    ],
    "A dead heat": [Address("2001:db8::5", 0.35), Address("192.0.2.4", 0.1)],
    "All refuse": [
        Address("2001:db8::6", 0.1, refuses=True),
        Address("192.0.2.5", 0.1, refuses=True),
    ],
    "Nobody answers": [Address("2001:db8::7"), Address("192.0.2.6")],
}


async def try_host(title: str, addresses: list[Address]) -> None:
    """Connect, within a second."""
    print(title)
    winner = None
    try:
        async with timeout(1):
            winner = await connect_to_any(addresses)
    except* (ConnectionError, TimeoutError) as group:
        for error in group.exceptions:
            say(f"{type(error).__name__}: {error}")
    else:
        say(f"{winner} it is")
    assert open_connections == ({winner} if winner else set())
    assert len(current_loop().tasks()) == 1  # no attempt goes on behind our back
    open_connections.clear()


if __name__ == "__main__":
    for title, addresses in HOSTS.items():
        run(try_host(title, addresses), speed=math.inf)
