"""What a sleep of ours yields on a loop that is not sleeploop's."""

from __future__ import annotations

from datetime import datetime
from typing import Any, SupportsIndex


class Moment(datetime):
    """When to wake up, as the loop of the teaching example takes it: a datetime.

    A loop that expects something else shows it in its error; so its repr says what to do about
    that. Whatever is made of it is a plain datetime.
    """

    __slots__ = ("_function",)
    _function: str

    def __new__(cls, *args: Any, **kwargs: Any) -> datetime:  # type: ignore[misc]
        return datetime(*args, **kwargs)

    def __repr__(self) -> str:
        return (
            f"<sleeploop's {self._function}, to wake up at {self}, was awaited on a loop that is "
            "not sleeploop's: run the program by sleeploop.run(), or use that loop's own sleep>"
        )

    def replace(self, *args: Any, **kwargs: Any) -> datetime:  # type: ignore[override]
        return datetime.combine(self.date(), self.timetz()).replace(*args, **kwargs)

    def __reduce_ex__(self, protocol: SupportsIndex, /) -> str | tuple[Any, ...]:
        return self.replace().__reduce_ex__(protocol)


def moment(of: datetime, function: str) -> datetime:
    """The same, for a sleep that was made by that function."""
    self = datetime.__new__(
        Moment,
        *(of.year, of.month, of.day, of.hour, of.minute, of.second, of.microsecond, of.tzinfo),
        fold=of.fold,
    )
    self._function = function
    return self
