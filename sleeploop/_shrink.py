"""Making a failing schedule simpler, by trying simpler ones. Knows no loop."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

Choices = tuple[int, ...]

_LAST = 65535  # too large a number means the last task


def stripped(choices: Choices) -> Choices:
    """Without the zeros at its end, which are chosen anyway."""
    end = len(choices)
    while end > 0 and choices[end - 1] == 0:
        end -= 1
    return choices[:end]


def deviations(choices: Choices) -> list[int]:
    """Where another task than the first one is chosen."""
    return [i for i, choice in enumerate(choices) if choice]


def cost(choices: Choices) -> tuple[int, int, Choices]:
    """What is to become small: deviations first, then the length."""
    return len(deviations(choices)), len(choices), choices


class _BudgetUsedUp(Exception):
    pass


class Shrinker:
    """Delta debugging: leave out ever smaller parts, as long as it still fails.

    After Zeller and Hildebrandt, "Simplifying and isolating failure-inducing input", IEEE
    Transactions on Software Engineering 28(2), 2002. `attempt` runs a schedule, and returns the
    choices that were made, or None if it does not fail in the same way. `budget` is how often it
    may be called. `best` is the simplest so far, at any time.
    """

    def __init__(
        self, choices: Choices, attempt: Callable[[Choices], Choices | None], budget: int
    ) -> None:
        self.best = stripped(choices)
        self.attempts = 0
        self._length = len(choices)
        self._attempt = attempt
        self._budget = budget
        self._tried: set[Choices] = set()

    def run(self) -> None:
        """Until nothing helps any more, or the budget is used up."""
        with contextlib.suppress(_BudgetUsedUp):
            self._run()

    def _run(self) -> None:
        before = None
        while before != self.best and self.best:
            before = self.best
            self._zero()
            self._cut_out()
            self._hasten()
            self._lower()
            if before == self.best:
                self._one_alone()

    def _try(self, candidate: Choices) -> bool:
        candidate = stripped(candidate)
        cheaper = cost(candidate) < cost(self.best)
        if not cheaper or candidate in self._tried:
            return False
        if self.attempts >= self._budget:
            raise _BudgetUsedUp
        self._tried.add(candidate)
        self.attempts += 1
        made = self._attempt(candidate)
        if made is None:
            return False
        # What was too large has been lowered, and the run may have ended earlier.
        self.best = min(self.best, stripped(made), key=cost)
        return True

    # Each pass goes from the end to the front: what is left of a change stays as it was.

    def _zero(self) -> None:
        """Choose the first task, at some of the places where it was another."""
        size = len(deviations(self.best))
        while size:
            end = len(deviations(self.best))
            while end > 0:
                changed = set(deviations(self.best)[max(0, end - size) : end])
                self._try(tuple(0 if i in changed else c for i, c in enumerate(self.best)))
                end -= size
            size //= 2

    def _cut_out(self) -> None:
        """Leave out a deviation with the zeros before it, or as many of those as can be."""
        for number in reversed(range(len(deviations(self.best)))):
            size = len(self.best)
            while size and number < len(deviations(self.best)):
                before, place = [-1, *deviations(self.best)][number : number + 2]
                size = min(size, place - before)
                if not self._try(self.best[: before + 1] + self.best[before + 1 + size :]):
                    size //= 2

    def _hasten(self) -> None:
        """Make the last deviation sooner, be it by the second task or by the last one."""
        *_, before, last = -1, -1, *deviations(self.best)
        self._one_after(self.best[: before + 1], last)

    def _one_alone(self) -> None:
        """Where two deviations or more can only go together, another one may do without."""
        if len(deviations(self.best)) > 1:
            self._one_after((), self._length)

    def _one_after(self, beginning: Choices, end: int) -> None:
        """One deviation somewhere before `end`: to the second task, or to the last one."""
        for i in range(end - len(beginning)):
            for choice in 1, _LAST:
                if self._try((*beginning, *(0,) * i, choice)):
                    return

    def _lower(self) -> None:
        """Choose a task nearer to the first one."""
        for i in reversed(deviations(self.best)):
            for choose in (lambda c: 1, lambda c: c // 2, lambda c: c - 1):
                if i < len(self.best):
                    choice = choose(self.best[i])
                    self._try((*self.best[:i], choice, *self.best[i + 1 :]))
