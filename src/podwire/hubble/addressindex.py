"""(address, port, protocol) → a number, for whole batches at once, and changed one by one.

Sorted arrays answer a batch by one binary search. A key that is there is changed in place; new ones
wait in a small second set of arrays until there are enough to be worth a copy of the first. So a
change costs a search, and now and then a copy (8 ms at 300,000 keys), never a sort of everything.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from podwire.base import addresses

Array = NDArray[Any]
Key = tuple[int, int, int]  # the address's two words, port and protocol
# New keys that wait for the copy. They are sorted anew at each change, which this keeps short.
WAITING = 256
NOTHING = 0
_FACTORS = tuple(
    np.random.default_rng().integers(1, 1 << 63, size=3, dtype="u8") * np.uint64(2) + np.uint64(1)
)
_WORDS = struct.Struct("=QQ")
_KINDS = ("u8", "u8", "u8", "u8", "u4")  # mixed, high, low, rest, number


def key_of(address: str, port: int, protocol: int) -> Key:
    """Not through `addresses.pack`, which remembers: there are more of these than it can."""
    if ":" in address:
        raw = socket.inet_pton(socket.AF_INET6, address)
    else:
        raw = addresses.V4_MAPPED + socket.inet_pton(socket.AF_INET, address)
    high, low = _WORDS.unpack(raw)
    return high, low, port << 8 | protocol


def mix(high: Array, low: Array, rest: Array) -> Array:
    """What keys are sorted by. With random odd factors: nobody outside can make two the same."""
    mixed: Array = high * _FACTORS[0] ^ low * _FACTORS[1]
    mixed ^= mixed >> np.uint64(31)
    mixed ^= rest * _FACTORS[2]
    return mixed


class AddressIndex:
    """Numbers by key; `NOTHING` where there is none."""

    def __init__(self) -> None:
        self._sorted = _empty()
        self._waiting: dict[Key, int] = {}
        self._overlay = _empty()

    def __len__(self) -> int:
        return int(np.count_nonzero(self._sorted[4])) + len(self._waiting)

    def put(self, numbers: Mapping[Key, int]) -> None:
        """Set what these keys stand for; `NOTHING` removes."""
        if not numbers:
            return
        made = _arrays(numbers)
        place, there = _find(self._sorted, *made[:4])
        self._sorted[4][place[there]] = made[4][there]
        for key, known in zip(numbers, there.tolist(), strict=True):
            if known:
                continue
            if numbers[key] == NOTHING:
                self._waiting.pop(key, None)
            else:
                self._waiting[key] = numbers[key]
        if len(self._waiting) > WAITING:
            self._merge()
        self._overlay = _in_order(_arrays(self._waiting)) if self._waiting else _empty()

    def look_up(self, mixed: Array, high: Array, low: Array, rest: Array) -> Array:
        """The numbers of a batch of keys; `mixed` is their `mix`."""
        found = np.zeros(len(mixed), dtype="u4")
        for arrays in (self._sorted, self._overlay):
            if len(arrays[0]):
                place, there = _find(arrays, mixed, high, low, rest)
                np.copyto(found, arrays[4][place], where=there)
        return found

    def _merge(self) -> None:
        more = _in_order(_arrays(self._waiting))
        self._waiting = {}
        old = self._sorted
        removed = old[4] == NOTHING
        if np.count_nonzero(removed) > len(removed) // 4:
            old = tuple(array[~removed] for array in old)
        at = np.searchsorted(old[0], more[0])
        self._sorted = tuple(np.insert(array, at, new) for array, new in zip(old, more, strict=True))


def _empty() -> tuple[Array, ...]:
    return tuple(np.zeros(0, dtype=kind) for kind in _KINDS)


def _arrays(numbers: Mapping[Key, int]) -> tuple[Array, ...]:
    high, low, rest = np.array(list(numbers), dtype="u8").reshape(-1, 3).T.copy()
    return mix(high, low, rest), high, low, rest, np.array(list(numbers.values()), dtype="u4")


def _in_order(arrays: tuple[Array, ...]) -> tuple[Array, ...]:
    order = np.argsort(arrays[0])
    return tuple(array[order] for array in arrays)


def _find(
    arrays: tuple[Array, ...], mixed: Array, high: Array, low: Array, rest: Array
) -> tuple[Array, Array]:
    """(place, whether the key is there) of each key."""
    if not len(arrays[0]):
        return np.zeros(len(mixed), dtype=np.intp), np.zeros(len(mixed), dtype=bool)
    place = np.searchsorted(arrays[0], mixed)
    place[place == len(arrays[0])] = 0
    there = (arrays[1][place] == high) & (arrays[2][place] == low) & (arrays[3][place] == rest)
    return place, there
