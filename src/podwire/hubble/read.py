"""The first step up: batches of records from the ring buffer, and what never got into it.

Each event has a number of its own CPU, also when the ring was full, and the kernel counts both
(`struct event_stats`). So every event is accounted for: emitted = received + lost + waiting, for
this reader since it was opened, and waiting is 0 once the ring has been read empty.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

Records = NDArray[Any]
# Per CPU: (events emitted, of those lost because the ring was full).
StatsReader = Callable[[], list[tuple[int, int]]]


class RingLike(Protocol):
    """What `podwire.bpf.events.Ring` offers: up to `most` records of `podwire.abi.dtypes.EVENT`."""

    def read(self, most: int = ...) -> Records: ...

    def fileno(self) -> int: ...

    def waiting(self) -> int: ...


class Loss(msgspec.Struct, frozen=True):
    """Events of one CPU (-1: of several) that were emitted and never stored."""

    count: int
    cpu: int


class Accounts(msgspec.Struct, frozen=True):
    """Since the reader was opened. `gap` is what the sequence numbers say is missing: it may be
    smaller than `lost` (losses at the end of a sequence are not seen until the next event)."""

    emitted: int
    received: int
    lost: int
    waiting: int
    gap: int

    @property
    def reconciled(self) -> bool:
        return self.emitted == self.received + self.lost + self.waiting and self.waiting >= 0


class Reader:
    """Reads one ring; keeps the accounts. `stats` is asked at once: what was lost before is not ours."""

    def __init__(self, ring: RingLike, stats: StatsReader, *, most: int = 8192) -> None:
        self._ring = ring
        self._stats = stats
        self.most = most
        self._before = stats()
        # Grown when a CPU shows up that the kernel did not count before (hotplug).
        self._highest = np.zeros(max(1, len(self._before)), dtype=np.uint64)
        self._first = np.zeros_like(self._highest)
        self._count = np.zeros_like(self._highest)
        self.received = 0
        self._backlog = 0  # records that were in the ring when the reader was opened
        self._told_lost = 0
        self._told: dict[int, int] = {}
        self.batches = 0

    def fileno(self) -> int:
        """Readable while records wait."""
        return self._ring.fileno()

    def waiting(self) -> int:
        """Bytes in the ring now."""
        return self._ring.waiting()

    def read(self) -> Records:
        """Up to `most` records, oldest first; empty when none waits."""
        records = self._ring.read(self.most)
        if len(records):
            self._account(records)
        return records

    def losses(self) -> list[Loss]:
        """What was lost since this was last asked, by CPU."""
        found = []
        for cpu, (_, lost) in enumerate(self._stats()):
            before = self._told.get(cpu, self._lost_before(cpu))
            if lost > before:
                found.append(Loss(lost - before, cpu))
                self._told[cpu] = lost
        self._told_lost += sum(loss.count for loss in found)
        return found

    def accounts(self) -> Accounts:
        now = self._stats()
        emitted = self._backlog + sum(pair[0] for pair in now) - sum(pair[0] for pair in self._before)
        lost = sum(pair[1] for pair in now) - sum(pair[1] for pair in self._before)
        seen = self._count > 0
        spans = self._highest[seen] - self._first[seen] + np.uint64(1)
        gap = int(spans.sum()) - int(self._count[seen].sum())
        return Accounts(emitted, self.received, lost, emitted - lost - self.received, gap)

    def _lost_before(self, cpu: int) -> int:
        return self._before[cpu][1] if cpu < len(self._before) else 0

    def _account(self, records: Records) -> None:
        cpus, sequences = records["cpu"], records["sequence"]
        self._grow(int(cpus.max()) + 1)
        self.batches += 1
        self.received += len(records)
        # One CPU's numbers may change places by a few: an interrupt emits between the counting and
        # the reserving of what it interrupted. So spans are compared with counts, not neighbours.
        for cpu in np.flatnonzero(np.bincount(cpus)):
            own = sequences[cpus == cpu]
            if self._count[cpu] == 0:
                self._first[cpu] = own.min()
            self._first[cpu] = min(self._first[cpu], own.min())
            self._highest[cpu] = max(self._highest[cpu], own.max())
            self._count[cpu] += np.uint64(len(own))
            emitted_before = self._before[cpu][0] if cpu < len(self._before) else 0
            if self._first[cpu] <= emitted_before:
                self._backlog += int((own <= emitted_before).sum())

    def _grow(self, cpus: int) -> None:
        if cpus > len(self._highest):
            more = cpus - len(self._highest)
            self._highest, self._first, self._count = (
                np.pad(array, (0, more)) for array in (self._highest, self._first, self._count)
            )
