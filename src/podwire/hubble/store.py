"""The fourth step up: the last flows, as a ring of columns in memory.

A row has a number that is never used again; rows `first`..`end - 1` are there. Writing is in
place: `room` gives the columns to fill, `commit` makes them visible. Everything happens in one
thread between two awaits, so a reader sees whole batches only; a reader that awaits must ask
`first` again.

Memory is bounded by the capacity (`BYTES_PER_FLOW` each) and touched only as it fills.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from podwire.hubble import decode, enrich
from podwire.hubble.decode import Columns
from podwire.hubble.read import Loss, LossReason

Array = NDArray[Any]
COLUMNS: dict[str, str] = decode.DECODED | enrich.NAMED
BYTES_PER_FLOW = sum(np.dtype(kind).itemsize for kind in COLUMNS.values())
CHUNK = 1 << 14


class LossRecord(msgspec.Struct, frozen=True):
    """A loss, and where in the store it would have been. `time` in ns since the epoch."""

    row: int
    time: int
    count: int
    cpu: int
    reason: LossReason


class Store:
    """`capacity` flows, the oldest overwritten by the newest."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.end = 0
        self.losses: deque[LossRecord] = deque(maxlen=1024)
        self.lost_by: dict[LossReason, int] = dict.fromkeys(LossReason, 0)
        self._columns: Columns = {name: np.zeros(capacity, dtype=kind) for name, kind in COLUMNS.items()}
        self._changed = asyncio.Event()

    @property
    def first(self) -> int:
        return max(0, self.end - self.capacity)

    def __len__(self) -> int:
        return self.end - self.first

    @property
    def overwritten(self) -> int:
        return self.first

    # --- writing ---------------------------------------------------------------------------------

    def room(self, count: int) -> Iterator[tuple[slice, Columns]]:
        """Where the next `count` rows go: slices of the batch with their columns, two at a wrap.

        At most `capacity` rows at once. Each part is filled and committed before the next.
        """
        begin, done = self.end, 0
        while done < count:
            place = (begin + done) % self.capacity
            part = min(count - done, self.capacity - place)
            yield slice(done, done + part), self._view(place, part)
            done += part

    def commit(self, count: int) -> None:
        """The rows filled through `room` are there now."""
        self.end += count
        self.wake()

    @property
    def lost(self) -> int:
        """Events that never came here, for whatever reason."""
        return sum(self.lost_by.values())

    def add_loss(self, loss: Loss, time: int) -> None:
        self.lost_by[loss.reason] += loss.count
        self.losses.append(LossRecord(self.end, time, loss.count, loss.cpu, loss.reason))
        self.wake()

    def mark_used(self, mark: Array) -> None:
        """Set `mark[n]` for each interned number n that a stored flow has."""
        for name in enrich.NAMED:
            mark[self._columns[name][: min(self.end, self.capacity)]] = True

    # --- reading ---------------------------------------------------------------------------------

    def chunks(self, first: int, end: int, *, newest_first: bool = False) -> Iterator[tuple[int, Columns]]:
        """Rows first..end-1 in pieces: (number of the piece's first row, its columns)."""
        if newest_first:
            while end > first:
                start = max(first, end - CHUNK)
                place = start % self.capacity
                if place + (end - start) > self.capacity:  # a piece does not wrap
                    start = end - (end % self.capacity or self.capacity)
                    place = 0
                yield start, self._view(place, end - start)
                end = start
            return
        while first < end:
            place = first % self.capacity
            count = min(end - first, CHUNK, self.capacity - place)
            yield first, self._view(place, count)
            first += count

    def rows(self, numbers: Array) -> Iterator[dict[str, int]]:
        """Rows by number, which must be there, as plain numbers; copied out at the first step."""
        places = numbers % self.capacity
        lists = [column[places].tolist() for column in self._columns.values()]
        for values in zip(*lists, strict=True):
            yield dict(zip(COLUMNS, values, strict=True))

    def pick(self, numbers: Array, names: Iterable[str]) -> Columns:
        """Copies of some columns of rows by number, which must be there."""
        places = numbers % self.capacity
        return {name: self._columns[name][places] for name in names}

    async def wait(self, row: int) -> None:
        """Until a row numbered `row` or later is there, or something was lost meanwhile."""
        lost = self.lost
        while self.end <= row and self.lost == lost:
            await self._changed.wait()

    def wake(self) -> None:
        """Let everybody who waits look again."""
        woken, self._changed = self._changed, asyncio.Event()
        woken.set()

    def _view(self, place: int, count: int) -> Columns:
        return {name: column[place : place + count] for name, column in self._columns.items()}
