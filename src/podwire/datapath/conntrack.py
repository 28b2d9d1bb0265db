"""Connections: sweep what has expired, count who uses how much, forget a pod's.

Two maps that the programs write: a table in which nothing is forgotten before it expires, so sweeping
is what makes room in it, and an overflow that forgets the oldest by itself. What each share has in the
table is what the programs made less what is gone; the programs count the one, a sweep the other.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Self

from podwire.abi import enums, structs
from podwire.base import addresses
from podwire.base.aio import unbroken
from podwire.bpf.map import Map
from podwire.datapath.maps import Maps

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Numbers = NDArray[np.uint32]

log = logging.getLogger(__name__)

INTERVAL = 60.0  # s between sweeps
BUSY_INTERVAL = 10.0  # while more than an eighth of the table is in use: nothing but a sweep makes room in it
GRACE = 10  # s: an entry may have come back to life between being read and being removed


def now() -> int:
    """The clock that entries expire by."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME))


Table = Map[structs.CtKey, structs.CtEntry]
Counts = Map[int, int]  # by share, see CtShare


class Conntrack:
    """The maps of one node's connections. Methods may run in a thread; one sweep at a time."""

    def __init__(self, table: Table, overflow: Table, made: Counts, gone: Counts) -> None:
        self.table = table
        self.overflow = overflow
        self._made = made
        self._gone = gone

    @classmethod
    def of(cls, maps: Maps) -> Self:
        return cls(*(maps[f"podwire_{name}"] for name in ("conntrack", "ct_overflow", "ct_made", "ct_gone")))

    def sweep(self, at: int) -> tuple[int, int]:
        """Remove what expired more than GRACE before `at`, and settle the shares; (removed, left)."""
        import numpy as np

        made = self._counts(self._made)  # before the entries: what is made meanwhile counts as in use
        removed, shares = _sweep(self.table, at)
        removed_beside, left_beside = _sweep(self.overflow, at)
        used = np.bincount(shares, minlength=len(made))[: len(made)].astype(np.uint32)
        used[enums.CtShare.OVERFLOW] = len(left_beside)  # not 0 = it is looked at
        used[enums.CtShare.AFAR] = int((shares & enums.CtShare.IN).sum())
        self._settle(made - used)
        return removed + removed_beside, len(shares) + len(left_beside)

    def forget(self, local: Iterable[str]) -> int:
        """Remove all connections of these addresses: the next pod that has one inherits nothing."""
        gone = {addresses.pack(address) for address in local}
        return sum(_forget(table, gone) for table in (self.table, self.overflow))

    def in_use(self, share: int) -> int:
        """Entries of one share, as the programs count them."""
        return ((self._made.get(share) or 0) - (self._gone.get(share) or 0)) & 0xFFFFFFFF

    def used(self) -> dict[int, int]:
        """Share → entries in the table, as the programs count them."""
        used = self._counts(self._made) - self._counts(self._gone)
        return {int(share): int(used[share]) for share in used.nonzero()[0] if share > enums.CtShare.AFAR}

    def _settle(self, gone: Numbers) -> None:
        changed = (gone != self._counts(self._gone)).nonzero()[0].tolist()
        self._gone.put_many((share, int(gone[share])) for share in changed)

    @staticmethod
    def _counts(table: Counts) -> Numbers:
        import numpy as np

        keys, values = table.snapshot()
        counts = np.zeros(table.capacity, dtype=np.uint32)
        counts[np.frombuffer(keys, dtype=np.uint32)] = np.frombuffer(values, dtype=np.uint32)
        return counts


def _sweep(table: Table, at: int) -> tuple[int, Numbers]:
    """(removed, the share of each entry that is left)."""
    import numpy as np

    from podwire.abi.dtypes import CT_ENTRY

    keys, values = table.snapshot()
    entries = np.frombuffer(values, dtype=CT_ENTRY)
    expired = entries["expires"].astype("i8") + GRACE < at
    removed = 0
    with table.untyped() as bare:
        for index in np.flatnonzero(expired).tolist():
            key = _key(keys, index)
            # A flow may have come back to life since the entries were read.
            entry = bare.get(key)
            if entry is not None and structs.CtEntry.unpack(entry).expires + GRACE < at:
                removed += bare.delete(key)
            elif entry is not None:
                expired[index] = False
    return removed, entries["share"][~expired]


def _forget(table: Table, local: set[bytes]) -> int:
    import numpy as np

    keys, _ = table.snapshot()
    words = np.frombuffer(keys, dtype=np.uint64).reshape(-1, structs.CtKey.SIZE // 8)
    gone = np.zeros(len(words), dtype=bool)
    for address in local:
        gone |= (words[:, :2] == np.frombuffer(address, dtype=np.uint64)).all(axis=1)
    with table.untyped() as bare:
        return bare.delete_many(_key(keys, index) for index in np.flatnonzero(gone).tolist())


def _key(keys: bytes, index: int) -> bytes:
    # From the bytes and not from an array: numpy leaves padding behind when it copies structs.
    return keys[index * structs.CtKey.SIZE : (index + 1) * structs.CtKey.SIZE]


async def run(connections: Conntrack, *, interval: float = INTERVAL) -> None:
    """Sweep for ever, in a thread beside the loop."""
    pause = interval
    while True:
        await asyncio.sleep(pause)
        removed, left = await unbroken(partial(connections.sweep, now()))
        busy = removed + left > connections.table.capacity // 8
        pause = min(interval, BUSY_INTERVAL) if busy else interval
        if removed:
            log.debug("removed %d expired connections, %d left", removed, left)
