"""Which service is this address and port? Frontends and backends as sorted arrays.

Ports of clients are new for every connection, so a cache by address and port would miss all the
time; a binary search over the few thousand pairs that services have does not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from podwire.base import addresses
from podwire.hubble.decode import address_words
from podwire.model.flow import ServiceName
from podwire.state.tables import BackendRow, FrontendRow, Tables

Array = NDArray[Any]
_FACTORS = tuple(
    np.random.default_rng().integers(1, 1 << 63, size=3, dtype="u8") * np.uint64(2) + np.uint64(1)
)


def _mix(high: Array, low: Array, rest: Array) -> Array:
    mixed: Array = high * _FACTORS[0] ^ low * _FACTORS[1]
    mixed ^= mixed >> np.uint64(31)
    mixed ^= rest * _FACTORS[2]
    return mixed


class ServiceIndex:
    """(address, port, protocol) → number of a `ServiceName`; 0 where there is none.

    A backend is named after the service it serves, if it serves only one.
    """

    def __init__(self, tables: Tables) -> None:
        self._frontends = tables.frontends
        self._backends = tables.backends
        self._revisions = (-1, -1)
        self._arrays: tuple[Array, ...] = ()

    def refresh(self, number: Callable[[Any], int], *, force: bool = False) -> None:
        """Take over what the tables say now. O(services), and only when they changed."""
        revisions = (self._frontends.revision, self._backends.revision)
        if revisions == self._revisions and not force:
            return
        self._revisions = revisions
        named = self._names()
        words = [address_words(addresses.pack(address)) for address, _, _ in named]
        high = np.array([word[0] for word in words], dtype="u8")
        low = np.array([word[1] for word in words], dtype="u8")
        rest = np.array([port << 8 | protocol for _, port, protocol in named], dtype="u8")
        numbers = np.array([number(name) for name in named.values()], dtype="u4")
        mixed = _mix(high, low, rest)
        order = np.argsort(mixed)
        self._arrays = tuple(array[order] for array in (mixed, high, low, rest, numbers))

    def look_up(self, high: Array, low: Array, port: Array, protocol: Array) -> Array:
        if not self._arrays or not len(self._arrays[0]):
            return np.zeros(len(high), dtype="u4")
        mixed, highs, lows, rests, numbers = self._arrays
        rest = port.astype("u8") << np.uint64(8) | protocol
        place = np.searchsorted(mixed, _mix(high, low, rest))
        place[place == len(mixed)] = 0
        same = (highs[place] == high) & (lows[place] == low) & (rests[place] == rest)
        return np.where(same, numbers[place], np.uint32(0))

    def _names(self) -> dict[tuple[str, int, int], ServiceName]:
        backends: dict[int, BackendRow] = {row.id: row for row in self._backends}
        serving: dict[tuple[str, int, int], set[ServiceName]] = {}
        named: dict[tuple[str, int, int], ServiceName] = {}
        frontends: list[FrontendRow] = list(self._frontends)
        for frontend in frontends:
            name = ServiceName(frontend.namespace, frontend.service)
            for backend in map(backends.get, frontend.backends):
                if backend is not None:
                    key = (backend.address, backend.port, backend.protocol)
                    serving.setdefault(key, set()).add(name)
        for key, names in serving.items():
            if len(names) == 1:
                named[key] = next(iter(names))
        for frontend in frontends:
            key = (frontend.address, frontend.port, frontend.protocol)
            named[key] = ServiceName(frontend.namespace, frontend.service)
        return named
