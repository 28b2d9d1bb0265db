"""The longest prefix that holds an address, of those there are: one look per length in use."""

from __future__ import annotations

from podwire.base import addresses

NOTHING = 0


class Prefixes:
    """Prefix → number. IPv4 and IPv6 apart: ``::/0`` holds no IPv4 address."""

    def __init__(self) -> None:
        # family → bits → those bits → number; the lengths in use, longest first
        self._numbers: dict[int, dict[int, dict[int, int]]] = {4: {}, 6: {}}

    def put(self, prefix: str, number: int) -> None:
        bits, held = _parsed(prefix)
        lengths = self._numbers[addresses.family(prefix)]
        if bits not in lengths:
            lengths[bits] = {}
            for length in sorted(lengths, reverse=True):
                lengths[length] = lengths.pop(length)
        lengths[bits][held] = number

    def remove(self, prefix: str) -> None:
        bits, held = _parsed(prefix)
        lengths = self._numbers[addresses.family(prefix)]
        numbers = lengths.get(bits, {})
        numbers.pop(held, None)
        if not numbers:
            lengths.pop(bits, None)

    def longest(self, address: str) -> int:
        """The number of the longest prefix that holds `address`; `NOTHING` if none does."""
        value = int.from_bytes(addresses.pack(address), "big")
        for bits, numbers in self._numbers[addresses.family(address)].items():
            number = numbers.get(value >> (128 - bits))
            if number is not None:
                return number
        return NOTHING


def _parsed(prefix: str) -> tuple[int, int]:
    bits, raw = addresses.pack_prefix(prefix)
    return bits, int.from_bytes(raw, "big") >> (128 - bits)
