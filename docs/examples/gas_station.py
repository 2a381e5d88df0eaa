"""A gas station: cars queue for a pump and for fuel, and a truck refills the tank.

Cars come at random. Each waits for a pump - a van for the one that stands under the high roof - and
keeps it until it has its fuel. When the tank is nearly empty, a truck is sent for; until it comes,
those at the pumps wait for fuel, and those behind them for a pump.

The pumps are a `Store`: whoever comes first takes the first pump that will do, and puts it back.
That a van waits for its pump does not hold back the cars behind it. The tank is a `Container`:
there it is strictly first come, first served, so that a van that wants 80 litres is not passed by
for ever by cars that want 10. Both keep statistics of how long others waited for them.
"""

import math
from dataclasses import dataclass

from sleeploop import Container, Store, TaskGroup, current_loop, every, run, sleep

HOURS = 4
TANK, LOW, TRUCK_TAKES = 800, 200, 15 * 60  # litres; below that the truck is sent for; seconds
FLOW = 0.5  # litres per second


@dataclass(frozen=True)
class Pump:
    number: int
    has_high_roof: bool


@dataclass(frozen=True)
class Customer:
    name: str
    is_van: bool
    litres: int

    def can_use(self, pump: Pump) -> bool:
        return pump.has_high_roof or not self.is_van


class Station:
    """Two pumps, one tank, and what has gone through it."""

    def __init__(self) -> None:
        self.pumps = Store[Pump](2, name="pumps", stats=True)
        self.pumps.put_nowait(Pump(1, has_high_roof=False))
        self.pumps.put_nowait(Pump(2, has_high_roof=True))
        self.tank = Container(TANK, level=TANK, name="tank", stats=True)
        self.sold = self.delivered = 0
        self.in_use: set[Pump] = set()

    async def serve(self, customer: Customer) -> None:
        came = current_loop().time()
        pump = await self.pumps.get(customer.can_use)
        assert customer.can_use(pump)
        assert pump not in self.in_use
        self.in_use.add(pump)
        waited_for_pump = current_loop().time() - came

        await self.tank.get(customer.litres)
        waited_for_fuel = current_loop().time() - came - waited_for_pump
        await sleep(customer.litres / FLOW)
        self.sold += customer.litres

        self.in_use.remove(pump)
        await self.pumps.put(pump)
        if waited_for_fuel > 0:
            say(f"{customer.name} has waited at pump {pump.number} for {waited_for_fuel:.0f} s")
        elif waited_for_pump > 600:
            say(f"{customer.name} has waited {waited_for_pump:.0f} s for pump {pump.number}")

    async def watch_the_tank(self) -> None:
        async for _ in every(60):
            if self.tank.level < LOW:
                say(f"the truck is sent for: {self.tank}")
                await sleep(TRUCK_TAKES)
                litres = int(self.tank.capacity - self.tank.level)
                say(f"the truck brings {litres} litres")
                self.delivered += litres
                await self.tank.put(litres)


def say(text: str) -> None:
    minutes = int(current_loop().time() // 60)
    print(f"{minutes // 60}:{minutes % 60:02}  {text}")


async def customers(station: Station) -> int:
    """They come for some hours. How many have been there, once all are served."""
    rng = current_loop().random("customers")
    count = 0
    async with TaskGroup() as group:
        while True:
            await sleep(rng.expovariate(1 / 75))
            if current_loop().time() > HOURS * 3600:
                break
            count += 1
            is_van = rng.random() < 0.2
            name = f"{'van' if is_van else 'car'} {count}"
            litres = rng.randint(40, 80) if is_van else rng.randint(10, 40)
            group.create_task(station.serve(Customer(name, is_van, litres)), name=name)
        say("the station closes")
    return count


async def main() -> None:
    station = Station()
    async with TaskGroup() as group:
        watcher = group.create_task(station.watch_the_tank(), name="watcher")
        count = await customers(station)
        watcher.cancel()

    pumps, tank = station.pumps.stats(), station.tank.stats()
    assert len(station.pumps) == 2
    assert pumps.gets.count == tank.gets.count == count
    assert station.tank.level == TANK + station.delivered - station.sold
    print(f"\n{count} have been served, {station.sold} litres sold, {station.delivered} delivered.")
    print(f"Pumps in use: {2 - pumps.length.mean:.2f} of 2 on average.")
    print(f"In the tank: {tank.level.mean:.0f} litres on average.")
    print("\nwaiting for   had to   mean s   longest s")
    for what, waits in ("a pump", pumps.gets), ("fuel", tank.gets):
        print(f"{what:11}{waits.waited:9}{waits.mean:9.0f}{waits.max:12.0f}")


if __name__ == "__main__":
    run(main(), speed=math.inf)
