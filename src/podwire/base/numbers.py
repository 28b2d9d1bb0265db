"""Numbers given in a circle, so that one that was given back rests for as long as there are others."""

from __future__ import annotations

from collections.abc import Callable


class Circle:
    """Numbers `first`..`last`. The next one is looked for behind the one given last."""

    def __init__(self, first: int, last: int) -> None:
        self.first = first
        self.last = last
        self._next = first

    def begin_after(self, number: int) -> None:
        """`number` was the last one given, in an earlier life; one outside of the circle says nothing."""
        if self.first <= number <= self.last:
            self._next = number + 1

    def next(self, taken: Callable[[int], bool], most: int | None = None) -> int | None:
        """The next number that is not taken; None if all are.

        `most` is how many of the numbers are taken, where the caller knows: one more is not looked at.
        """
        count = max(0, self.last - self.first + 1)
        for step in range(count if most is None else min(count, most + 1)):
            number = self.first + (self._next - self.first + step) % count
            if not taken(number):
                self._next = number + 1
                return number
        return None
