"""One map, kept equal to what rows want of it: difference, batch, retry, errors by row.

Unlike a `state.reconcile.Reconciler`, writing and removing are separate steps: the caller writes all
maps in one order and removes from them in the opposite one, so that nothing in the kernel ever
points at what is not there. An entry that several rows want goes with the last of them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Protocol

from podwire.base.errors import MapFull, PodwireError

log = logging.getLogger(__name__)

RowKey = Hashable


class Target(Protocol):
    """What of a `podwire.bpf.map.Map` is used here."""

    capacity: int

    def items(self) -> Iterable[tuple[bytes, bytes]]: ...

    def put(self, key: bytes, value: bytes) -> None: ...

    def put_many(self, entries: Iterable[tuple[bytes, bytes]]) -> int: ...

    def delete_many(self, keys: Iterable[bytes]) -> int: ...

    def close(self) -> None: ...


Grow = Callable[[str, int], Target | None]


class Mirror:
    """Entries are bytes. `grow(name, entries)` is asked for a bigger map when this one is full: it returns
    one with room for so many, holding what the old one held, or None if there cannot be one."""

    def __init__(
        self,
        name: str,
        table: Target,
        grow: Grow | None = None,
    ) -> None:
        self.name = name
        self.map = table
        self.failures: dict[bytes, PodwireError] = {}
        self._grow = grow
        self.held: dict[bytes, bytes] = {}  # in the kernel now
        self._wanted: dict[RowKey, tuple[bytes, ...]] = {}
        self._owner: dict[bytes, RowKey] = {}
        self._shared: dict[bytes, dict[RowKey, bytes]] = {}  # entries that several rows want
        self._dirty: dict[bytes, bytes] = {}
        self._gone: set[bytes] = set()

    def close(self) -> None:
        self.map.close()

    def load(self) -> None:
        """Read what the map holds already."""
        self.held = dict(self.map.items())

    def want(self, row: RowKey, entries: Mapping[bytes, bytes], *, yields: bool = False) -> None:
        """`row` stands for exactly these entries; none = it is gone.

        Of several rows that want an entry the last one has it; one that `yields` only while no other does.
        """
        before = self._wanted.pop(row, ())
        for key in before:
            if key not in entries:
                self._release(key, row)
        for key, value in entries.items():
            self._claim(key, row, value, yields)
        if entries:
            self._wanted[row] = tuple(entries)

    def wants(self, row: RowKey) -> tuple[bytes, ...]:
        return self._wanted.get(row, ())

    @property
    def pending(self) -> int:
        """Entries to write or remove."""
        return len(self._dirty) + len(self._gone)

    def write(self) -> bool:
        """Insert and replace what differs; whether anything did. What fails stays to be done."""
        work = {key: value for key, value in self._dirty.items() if self.held.get(key) != value}
        self._dirty.clear()
        failed_before, self.failures = bool(self.failures), {}
        if not work:
            return False
        try:
            self._write_all(work)
        except PodwireError as error:
            if not failed_before:
                log.warning("writing entry by entry: %s", error)
            self._write_singly(work)
        self.held |= {key: value for key, value in work.items() if key not in self.failures}
        self._dirty = {key: work[key] for key in self.failures}
        return True

    def remove(self) -> bool:
        """Remove what no row wants any more; whether there was any."""
        keys = [key for key in self._gone if key in self.held]
        self._gone.clear()
        if keys:
            try:
                self.map.delete_many(keys)
            except PodwireError as error:
                log.warning("%s: cannot remove %d entries, trying again: %s", self.name, len(keys), error)
                self._gone.update(keys)
                return False
        for key in keys:
            del self.held[key]
        return bool(keys)

    def prune(self, keep: Callable[[bytes], bool] = lambda key: False) -> bool:
        """Give up what an earlier agent left and no row wants: the next `remove` takes it.

        Keys that `keep` holds for stay; whether there are any.
        """
        unwanted = [key for key in self.held if key not in self._owner and key not in self._gone]
        stale = [key for key in unwanted if not keep(key)]
        self._gone.update(stale)
        if stale:
            log.info("%s: removing %d entries that nothing wants any more", self.name, len(stale))
        return len(stale) < len(unwanted)

    def failed_rows(self) -> dict[RowKey, PodwireError]:
        """Rows with an entry that could not be written, and why."""
        rows: dict[RowKey, PodwireError] = {}
        for key, error in list(self.failures.items()):  # another thread may be writing
            for row in self._shared.get(key) or (self._owner.get(key),):
                rows[row] = error
        return rows

    # Inside

    def _claim(self, key: bytes, row: RowKey, value: bytes, yields: bool) -> None:
        owner = self._owner.get(key)
        if yields and key in self._owner and owner != row:
            others = self._shared.get(key) or {owner: self._dirty.get(key, self.held.get(key, value))}
            others.pop(row, None)
            self._shared[key] = {row: value, **others}
            return
        if key in self._owner and owner != row:
            shared = self._shared.setdefault(key, {})
            if owner not in shared:
                shared[owner] = self._dirty.get(key, self.held.get(key, value))
        if key in self._shared:
            self._shared[key].pop(row, None)
            self._shared[key][row] = value
        self._owner[key] = row
        self._gone.discard(key)
        if self.held.get(key) != value:
            self._dirty[key] = value
        else:
            self._dirty.pop(key, None)

    def _release(self, key: bytes, row: RowKey) -> None:
        shared = self._shared.get(key)
        if shared is not None:
            shared.pop(row, None)
            last, value = list(shared.items())[-1]
            if len(shared) == 1:
                del self._shared[key]
            self._owner[key] = last
            self._dirty[key] = value
            return
        self._owner.pop(key, None)
        self._dirty.pop(key, None)
        self.failures.pop(key, None)
        self._gone.add(key)

    def _write_all(self, work: Mapping[bytes, bytes]) -> None:
        """In batches; into a bigger map if this one is full."""
        while True:
            try:
                self.map.put_many(work.items())
                return
            except MapFull:
                needed = len(self.held.keys() | work.keys())
                grown = self._grow(self.name, needed) if self._grow is not None else None
                if grown is None or grown.capacity <= self.map.capacity:
                    raise
                self.map.close()
                self.map = grown

    def _write_singly(self, work: Mapping[bytes, bytes]) -> None:
        for key, value in work.items():
            try:
                self.map.put(key, value)
            except PodwireError as error:
                self.failures[key] = error
