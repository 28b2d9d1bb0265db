"""Numbers for names: what a column can hold of a value that has a name.

`Interner` gives equal values one small number. It is bounded: when it is full, the numbers that no
stored flow has any more are given free (`used` says which are in use), and if that gives no room,
new values become 0, "nothing known", and are counted.

`NameCache` remembers, for keys of machine words, the number of what they resolved to: the hot path
of naming is a few array operations, and Python runs only for keys not seen lately.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
NOTHING = 0


class Interner:
    """Values by number. Number 0 is `nothing`. Values must hash and compare by content."""

    def __init__(self, capacity: int, used: Callable[[Array], None]) -> None:
        self.capacity = capacity
        self.values: list[Any] = [None]
        self.refused = 0  # values that became 0 because there was no room
        self.sweeps = 0  # how often numbers may have changed their meaning
        self._numbers: dict[Any, int] = {}
        self._free: list[int] = []
        self._used = used

    def __len__(self) -> int:
        return len(self._numbers)

    def number(self, value: Any) -> int:
        known = self._numbers.get(value)
        if known is not None:
            return known
        if self._free:
            number = self._free.pop()
            self.values[number] = value
        elif len(self.values) < self.capacity:
            number = len(self.values)
            self.values.append(value)
        else:
            self.refused += 1
            return NOTHING
        self._numbers[value] = number
        return number

    @property
    def full(self) -> bool:
        return not self._free and len(self.values) >= self.capacity

    def sweep(self) -> int:
        """Give free what no flow has; how many. Whoever keeps numbers must forget them."""
        mark = np.zeros(len(self.values), dtype=bool)
        mark[NOTHING] = True
        self._used(mark)
        gone = np.flatnonzero(~mark).tolist()
        free = set(self._free)
        for number in gone:
            if number not in free:
                del self._numbers[self.values[number]]
                self.values[number] = None
        self._free = gone
        self.sweeps += 1
        return len(gone)


class NameCache:
    """Direct-mapped: keys of `words` 64-bit words → two numbers. Exact: a key is compared whole."""

    def __init__(self, words: int, bits: int = 13) -> None:
        slots = 1 << bits
        self._shift = np.uint64(64 - bits)
        self.keys = np.zeros((words, slots), dtype="u8")
        self._filled = np.zeros(slots, dtype=bool)
        self.values = np.zeros((2, slots), dtype="u4")
        # Odd random factors: nobody outside can choose addresses that share a slot.
        random = np.random.default_rng()
        self._factors = random.integers(1, 1 << 63, size=words, dtype="u8") * np.uint64(2) + np.uint64(1)

    @property
    def filled(self) -> int:
        """How many keys are known."""
        return int(self._filled.sum())

    def clear(self) -> None:
        self._filled[:] = False

    def forget(self, which: Array) -> None:
        """The slots for which `which` is true; made from `keys` and `values`, which are by slot."""
        self._filled &= ~which

    def look_up(self, key: tuple[Array, ...], resolve: Callable[[int], tuple[int, int]]) -> Array:
        """(2, n) numbers for `n` keys; `resolve(i)` says them for the key at index i."""
        mixed = np.zeros(len(key[0]), dtype="u8")
        for word, factor in zip(key, self._factors, strict=True):
            mixed ^= word * factor
            mixed ^= mixed >> np.uint64(29)
            mixed *= factor
        slots = (mixed >> self._shift).astype(np.intp)
        hit = self._filled[slots]
        for word, known in zip(key, self.keys, strict=True):
            hit &= known[slots] == word
        values: Array = self.values[:, slots]
        if not hit.all():
            self._resolve(key, slots, np.flatnonzero(~hit), values, resolve)
        return values

    def _resolve(
        self,
        key: tuple[Array, ...],
        slots: Array,
        missed: Array,
        values: Array,
        resolve: Callable[[int], tuple[int, int]],
    ) -> None:
        known: dict[tuple[int, ...], tuple[int, int]] = {}
        columns = [word[missed].tolist() for word in key]
        for index, slot, words in zip(
            missed.tolist(), slots[missed].tolist(), zip(*columns, strict=True), strict=True
        ):
            pair = known.get(words)
            if pair is None:
                pair = known[words] = resolve(index)
                self.keys[:, slot] = words
                self.values[:, slot] = pair
                self._filled[slot] = True
            values[0, index], values[1, index] = pair
