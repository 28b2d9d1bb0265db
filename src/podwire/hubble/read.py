"""The first step up: batches of records from the ring buffer, and what never got into it.

Each event has a number of its own CPU, also when the ring was full, and the kernel counts both
(`struct event_stats`). So every event is accounted for: emitted = received + lost + waiting, for
this reader since it was opened, and waiting is 0 once the ring has been read empty. Each loss has a
reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

Records = NDArray[Any]


class LossReason(StrEnum):
    """Why an event was emitted and is not stored."""

    RING_FULL = "ring-full"  # the kernel's ring had no room
    WITHHELD = "withheld"  # beyond its endpoint's share while the ring was filling
    UNREADABLE = "unreadable"  # it came, and could not be decoded or named


class CpuStats(NamedTuple):
    """What the kernel counts on one CPU. `lost` has the `withheld` in it."""

    emitted: int
    lost: int
    withheld: int = 0


# Per CPU the members of `CpuStats`, as many as the kernel's side counts.
StatsReader = Callable[[], Sequence[tuple[int, ...]]]


class RingLike(Protocol):
    """What `podwire.bpf.events.Ring` offers: up to `most` records of `podwire.abi.dtypes.EVENT`."""

    def read(self, most: int = ...) -> Records: ...

    def fileno(self) -> int: ...

    def waiting(self) -> int: ...


class Loss(msgspec.Struct, frozen=True):
    """Events of one CPU (-1: of several) that were emitted and never stored."""

    count: int
    cpu: int
    reason: LossReason = LossReason.RING_FULL


class Accounts(msgspec.Struct, frozen=True):
    """Since the reader was opened. `gap` is what the sequence numbers say is missing: it may be
    smaller than `lost` (losses at the end of a sequence are not seen until the next event)."""

    emitted: int
    received: int
    lost: int
    waiting: int
    gap: int
    withheld: int = 0

    @property
    def lost_by(self) -> dict[LossReason, int]:
        """`lost`, by reason."""
        return {LossReason.RING_FULL: self.lost - self.withheld, LossReason.WITHHELD: self.withheld}

    @property
    def reconciled(self) -> bool:
        return self.emitted == self.received + self.lost + self.waiting and self.waiting >= 0


class Reader:
    """Reads one ring; keeps the accounts. `stats` is asked at once: what was lost before is not ours."""

    def __init__(self, ring: RingLike, stats: StatsReader, *, most: int = 8192) -> None:
        self._ring = ring
        self._reader = stats
        self.most = most
        self._before = self._stats()
        # Grown when a CPU shows up that the kernel did not count before (hotplug).
        self._highest = np.zeros(max(1, len(self._before)), dtype=np.uint64)
        self._first = np.zeros_like(self._highest)
        self._count = np.zeros_like(self._highest)
        self.received = 0
        self._backlog = 0  # records that were in the ring when the reader was opened
        self._told: list[CpuStats] = list(self._before)
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
        """What was lost since this was last asked, by CPU and reason."""
        found = []
        now = self._stats()
        for cpu, stats in enumerate(now):
            before = self._told[cpu] if cpu < len(self._told) else CpuStats(0, 0)
            withheld = stats.withheld - before.withheld
            for count, reason in (
                (stats.lost - before.lost - withheld, LossReason.RING_FULL),
                (withheld, LossReason.WITHHELD),
            ):
                if count > 0:
                    found.append(Loss(count, cpu, reason))
        self._told = now
        return found

    def accounts(self) -> Accounts:
        now = self._stats()
        emitted, lost, withheld = (
            sum(stats[member] for stats in now) - sum(stats[member] for stats in self._before)
            for member in range(3)
        )
        emitted += self._backlog
        seen = self._count > 0
        spans = self._highest[seen] - self._first[seen] + np.uint64(1)
        gap = int(spans.sum()) - int(self._count[seen].sum())
        return Accounts(emitted, self.received, lost, emitted - lost - self.received, gap, withheld)

    def _stats(self) -> list[CpuStats]:
        return [CpuStats(*members) for members in self._reader()]

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
            emitted_before = self._before[cpu].emitted if cpu < len(self._before) else 0
            if self._first[cpu] <= emitted_before:
                self._backlog += int((own <= emitted_before).sum())

    def _grow(self, cpus: int) -> None:
        if cpus > len(self._highest):
            more = cpus - len(self._highest)
            self._highest, self._first, self._count = (
                np.pad(array, (0, more)) for array in (self._highest, self._first, self._count)
            )
