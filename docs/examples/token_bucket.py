"""A token bucket: so many calls a second on average, so many at once, first come, first served.

`await bucket.acquire(n)` takes n tokens, and waits until they are there. Whoever stops waiting,
by a timeout or by being cancelled, leaves the line as if it had never been in it, and those
behind move up. A `Lock` is all it takes: the one who has it waits for tokens, the others for it.
"""

import math

from sleeploop import Lock, TaskGroup, current_loop, move_on_after, run, sleep_until


class TokenBucket:
    """It fills up by `rate` tokens a second and holds at most `burst`."""

    def __init__(self, rate: float, burst: float) -> None:
        self.rate, self.burst = rate, burst
        self.full_at = 0.0  # when it will be full again: all that there is to know about its level
        self.turn = Lock(name="turn")

    def level(self) -> float:
        """How many tokens there are now."""
        missing = (self.full_at - current_loop().time()) * self.rate
        return self.burst - max(0.0, missing)

    async def acquire(self, n: float = 1) -> None:
        """Take n tokens, when all who came before have theirs."""
        if not 0 < n <= self.burst:
            raise ValueError(f"acquire() of {n} tokens; the bucket holds {self.burst}")
        async with self.turn:
            await sleep_until(self.full_at - (self.burst - n) / self.rate)
            self.full_at = max(self.full_at, current_loop().time()) + n / self.rate


def say(text: str) -> None:
    print(f"{current_loop().time():6.2f} s  {text}")


async def crawler(bucket: TokenBucket) -> None:
    """Fetches as fast as it may."""
    for page in range(1, 11):
        await bucket.acquire()
        say(f"page {page:2}, tokens left: {bucket.level():.0f}")


async def upload(bucket: TokenBucket) -> None:
    """Needs several at once, and gets them: small requests do not overtake it."""
    await sleep_until(1)
    say("an upload waits for 4 tokens")
    await bucket.acquire(4)
    say("the upload goes through")


async def impatient(bucket: TokenBucket) -> None:
    """Needs even more, but does not wait that long."""
    await sleep_until(1)
    say("somebody impatient waits for 6 tokens")
    with move_on_after(1.5) as limit:
        await bucket.acquire(6)
    assert limit.expired()
    say("somebody impatient gives up")


async def main() -> None:
    """An interface that allows 2 requests a second, and bursts of 6."""
    bucket = TokenBucket(rate=2, burst=6)
    async with TaskGroup() as group:
        for client in crawler, upload, impatient:
            group.create_task(client(bucket), name=client.__name__)
    taken = 10 + 4
    assert current_loop().time() == (taken - bucket.burst) / bucket.rate  # not a moment too late


if __name__ == "__main__":
    run(main(), speed=math.inf)
