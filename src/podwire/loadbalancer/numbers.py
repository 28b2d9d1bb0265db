"""Numbers that stay: of backends, of services' reverse translations, of sets of backends.

The kernel's connections remember these numbers, so what the kernel already holds is restored
first, and a number that became free is not given out again before all others were.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Hashable, Iterable, Mapping
from typing import Generic, TypeVar

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
    """Numbers of ordered lists of backends, made from their content.

    A number never means two lists at a time; a list that is changed is another list, written
    whole before a frontend is switched to it.
    """

    def __init__(self) -> None:
        self._content: dict[int, tuple[int, ...]] = {}
        self._users: dict[int, int] = {}

    def take(self, backends: tuple[int, ...]) -> int:
        """The list's number, with one user more; 0 for the empty list."""
        if not backends:
            return 0
        salt = 0
        while True:
            number = content_number(backends, salt)
            if self._content.setdefault(number, backends) == backends:
                self._users[number] = self._users.get(number, 0) + 1
                return number
            salt += 1

    def release(self, number: int) -> None:
        """One user less."""
        if number not in self._users:
            return
        self._users[number] -= 1
        if not self._users[number]:
            del self._users[number], self._content[number]


def content_number(backends: tuple[int, ...], salt: int = 0) -> int:
    """A 32-bit number of the content, never 0; the same in every process."""
    digest = hashlib.blake2b(
        struct.pack(f"<{len(backends)}I", *backends), digest_size=4, salt=struct.pack("<I", salt)
    ).digest()
    return int.from_bytes(digest, "little") or 1
