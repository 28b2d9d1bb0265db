"""Numbers that say what they stand for: 32 bits of a hash of the content, never 0.

The same content has the same number on every node and after every restart, so rows that are in the
kernel already need not be written again.
"""

from __future__ import annotations

from collections.abc import Container
from hashlib import blake2b

from podwire.base.errors import PodwireError

MOST_TRIES = 1 << 16


def digest(content: bytes) -> bytes:
    return blake2b(content, digest_size=16).digest()


def of(content: bytes, salt: int = 0) -> int:
    """The number of `content`; another one for each `salt`."""
    text = blake2b(content, digest_size=4, salt=salt.to_bytes(8, "little")).digest()
    return int.from_bytes(text, "little") or 1


def free(content: bytes, taken: Container[int]) -> int:
    """The first number of `content` that is not taken by another content."""
    for salt in range(MOST_TRIES):
        number = of(content, salt)
        if number not in taken:
            return number
    raise PodwireError("no free number is left", hint="fewer policy rules are needed")


class Registry:
    """Contents → numbers, no two alike. The first to come keeps its number while it is held."""

    def __init__(self) -> None:
        self._numbers: dict[bytes, int] = {}
        self._contents: dict[int, bytes] = {}

    def take(self, content: bytes) -> int:
        known = self._numbers.get(content)
        if known is not None:
            return known
        number = free(content, self._contents)
        self._numbers[content] = number
        self._contents[number] = content
        return number

    def release(self, content: bytes) -> None:
        number = self._numbers.pop(content, None)
        if number is not None:
            del self._contents[number]
