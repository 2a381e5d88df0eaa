"""A cron in a time zone: across a leap day, and across the hours that are missing or come twice.

A schedule has five fields, as in a crontab: minute, hour, day of the month, month and day of the
week (0 and 7 are Sunday). A field is `*`, or a list of numbers and ranges, each with a step if need
be: `0,30`, `9-17`, `*/15`, `10-20/5`. If both days are restricted, either one will do.

Times are those of a clock on the wall, which is set forward in spring and back in autumn. The rule:
a job whose time is skipped runs at the first moment after the gap, once, however many of its times
fall into it. A time that comes twice counts at its first coming only.
"""

import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import product
from zoneinfo import ZoneInfo

from sleeploop import TaskGroup, current_loop, move_on_at, run, sleep_until

DAY, MINUTE = timedelta(days=1), timedelta(minutes=1)


def parse(field: str, low: int, high: int) -> frozenset[int]:
    """The numbers that a field of a schedule stands for."""
    numbers: set[int] = set()
    for part in field.split(","):
        span, _, step = part.partition("/")
        first, _, last = (f"{low}-{high}" if span == "*" else span).partition("-")
        begin, end = int(first), int(last or first)
        if not low <= begin <= end <= high:
            raise ValueError(f"{part!r} is not within {low}-{high}")
        numbers.update(range(begin, end + 1, int(step or 1)))
    return frozenset(numbers)


class Schedule:
    """When a line of a crontab is due, in a time zone."""

    def __init__(self, line: str, zone: ZoneInfo) -> None:
        minute, hour, day, month, weekday = line.split()
        self.zone = zone
        self.minutes, self.hours = parse(minute, 0, 59), parse(hour, 0, 23)
        self.days, self.months = parse(day, 1, 31), parse(month, 1, 12)
        self.weekdays = frozenset(number % 7 for number in parse(weekday, 0, 7))
        self.either_day = day != "*" and weekday != "*"

    def matches(self, date: datetime) -> bool:
        """Whether it is due on that day."""
        days = date.day in self.days, date.isoweekday() % 7 in self.weekdays
        return date.month in self.months and (any(days) if self.either_day else all(days))

    def in_utc(self, local: datetime) -> datetime:
        """The first moment at which the clocks show that time or, if they never do, a later one."""
        while True:
            moment = local.replace(tzinfo=self.zone, fold=0).astimezone(UTC)
            if moment.astimezone(self.zone).replace(tzinfo=None) == local:
                return moment
            local += MINUTE

    def after(self, moment: datetime) -> Iterator[datetime]:
        """All moments at which it is due after the given one, in UTC."""
        date = datetime.combine(moment.astimezone(self.zone), datetime.min.time())
        while date.year <= moment.year + 8:  # longer than from one leap day to the next
            if self.matches(date):
                for hour, minute in product(sorted(self.hours), sorted(self.minutes)):
                    due = self.in_utc(date.replace(hour=hour, minute=minute))
                    if due > moment:
                        yield due
                        moment = due
            date += DAY
        raise ValueError("the schedule is for a day that never comes")


JOBS = {
    "leap day": "0 12 29 2 *",
    "accounts": "0 0 1 * *",
    "backup": "30 2 * * *",
    "sync": "*/30 1-3 * * 0",
    "report": "0 9,17 * * 1-5",
}

Runs = list[tuple[str, str]]  # the names of jobs, and when they ran, in UTC


async def repeat(job: str, schedule: Schedule, runs: Runs) -> None:
    """Run a job whenever it is due."""
    for due in schedule.after(current_loop().now(UTC)):
        await sleep_until(due)
        local = current_loop().now(schedule.zone)
        print(f"{local:%a %d %b %Y  %H:%M %Z}".ljust(28), f"{due:%H:%M} UTC  {job}")
        runs.append((job, f"{due:%H:%M}"))


async def cron(days: int, zone: ZoneInfo) -> Runs:
    """Run all jobs for some days."""
    runs: Runs = []
    end = current_loop().now(zone) + days * DAY  # days on the wall: one may have 23 hours, or 25
    async with move_on_at(end), TaskGroup() as group:
        for job, line in JOBS.items():
            group.create_task(repeat(job, Schedule(line, zone), runs), name=job)
    return runs


def show(title: str, year: int, month: int, day: int, *, days: int = 1) -> Runs:
    """Some days in Berlin."""
    print(f"-- {title}")
    zone = ZoneInfo("Europe/Berlin")
    return run(cron(days, zone), speed=math.inf, start=datetime(year, month, day, tzinfo=zone))


if __name__ == "__main__":
    runs = show("The end of February", 2023, 2, 28, days=2)
    assert "leap day" not in dict(runs)

    runs = show("The same in a leap year", 2024, 2, 28, days=3)
    assert runs.count(("leap day", "11:00")) == 1

    runs = show("In spring, 02:00 to 03:00 is skipped", 2024, 3, 31)
    assert runs.count(("backup", "01:00")) == 1
    syncs = [when for job, when in runs if job == "sync"]
    assert syncs == ["00:00", "00:30", "01:00", "01:30"]

    runs = show("In autumn, 02:00 to 03:00 comes twice", 2024, 10, 27)
    assert runs.count(("backup", "00:30")) == 1
    syncs = [when for job, when in runs if job == "sync"]
    assert syncs == ["23:00", "23:30", "00:00", "00:30", "02:00", "02:30"]
