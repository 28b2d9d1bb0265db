"""Numbers that stay: of backends, of services' reverse translations, of sets of backends.

The kernel's connections remember these numbers, so what the kernel already holds is restored
first, and a number that became free is not given out again before all others were.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Collection, Hashable, Iterable, Mapping
from typing import Generic, TypeVar

from podwire.abi import enums
from podwire.base.numbers import Circle

Name = TypeVar("Name", bound=Hashable)


class OutOfNumbers(Exception):
    """All numbers are taken."""


class Numbers(Generic[Name]):
    """Numbers 1..`last` for names, in a circle."""

    def __init__(self, last: int, restored: Mapping[Name, int]) -> None:
        self.last = last
        self._of: dict[Name, int] = {}
        self._taken: set[int] = set()
        for name, number in sorted(restored.items(), key=lambda pair: pair[1]):
            if 0 < number <= last and number not in self._taken:
                self._of[name] = number
                self._taken.add(number)
        self._circle = Circle(1, last)
        self._circle.begin_after(max(self._taken, default=0))

    def __len__(self) -> int:
        return len(self._of)

    def of(self, name: Name) -> int:
        """The number of `name`, a new one if it has none. OutOfNumbers if none is free."""
        number = self._of.get(name)
        if number is not None:
            return number
        number = self._circle.next(self._taken.__contains__, most=len(self._taken))
        if number is None:
            raise OutOfNumbers
        self._taken.add(number)
        self._of[name] = number
        return number

    def release(self, name: Name) -> None:
        number = self._of.pop(name, None)
        if number is not None:
            self._taken.discard(number)

    def names(self) -> Iterable[Name]:
        return list(self._of)


class Sets:
    """Numbers of sets of many backends, and the order of each. A set is named; few backends need none.

    What the kernel has under a number after a restart must be of the same set: numbers are made from names,
    and those in `reserved`, which the kernel's frontends have, are given to nobody but them (`kept`). A set
    that changes keeps what it can where it is (`placed`).
    """

    def __init__(self, few: int = enums.FRONTEND_SLOTS, *, reserved: Collection[int] = ()) -> None:
        self._few = few
        self._reserved = frozenset(reserved)
        self._numbers: dict[str, int] = {}
        self._taken: set[int] = set()
        self._places: dict[str, tuple[int, ...]] = {}

    def place(self, name: str, backends: Collection[int], kept: int = 0) -> tuple[int, tuple[int, ...]]:
        """(the set's number, its backends in their places); 0 if they are few. `kept` is the number that
        the kernel has for it, 0 none."""
        if len(backends) <= self._few:
            self.forget(name)
            return 0, tuple(sorted(backends))
        places = self._places[name] = placed(self._places.get(name, ()), backends)
        return self._number(name, kept), places

    def forget(self, name: str) -> None:
        """The set is not there any more."""
        self._places.pop(name, None)
        number = self._numbers.pop(name, None)
        if number is not None:
            self._taken.discard(number)

    def _number(self, name: str, kept: int) -> int:
        known = self._numbers.get(name)
        if known is not None:
            return known
        number, salt = kept, 0
        while not number or number in self._taken:
            number = name_number(name, salt)
            number = 0 if number in self._reserved else number
            salt += 1
        self._numbers[name] = number
        self._taken.add(number)
        return number


def placed(before: tuple[int, ...], wanted: Collection[int]) -> tuple[int, ...]:
    """`wanted` in an order in which as many as possible stand where they stood, without gaps. Pure.

    What is new takes the places of what is gone; if more go than come, the last move to theirs.
    """
    new = iter(sorted(set(wanted).difference(before)))
    kept = set(wanted)
    places = [number if number in kept else next(new, None) for number in before]
    places.extend(new)
    gaps = [at for at, number in enumerate(places) if number is None]
    for at in gaps:
        while places and places[-1] is None:
            places.pop()
        if at < len(places):
            places[at] = places.pop()
    return tuple(number for number in places if number is not None)


def name_number(name: str, salt: int = 0) -> int:
    """A 32-bit number of a name, never 0."""
    digest = hashlib.blake2b(name.encode(), digest_size=4, salt=struct.pack("<I", salt)).digest()
    return int.from_bytes(digest, "little") or 1
