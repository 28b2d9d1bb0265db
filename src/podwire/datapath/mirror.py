"""One map, kept equal to what rows want of it: difference, retry, errors by row.

Unlike a `state.reconcile.Reconciler`, writing and removing are separate steps: the caller writes all
maps in one order and removes from them in the opposite one, so that nothing in the kernel ever
points at what is not there. An entry that several rows want goes with the last of them.

A mirror calls no kernel. It gives what is to be done as a value (`work`, `leaving`), a thread may do that
(`flush`), and it is told what became of it (`wrote`, `removed`): nothing here is shared with a thread.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, MutableMapping
from typing import Protocol

from podwire.base.errors import PodwireError

log = logging.getLogger(__name__)

RowKey = Hashable


class Target(Protocol):
    """What of a `podwire.bpf.map.Map` is used here."""

    capacity: int

    def items(self) -> Iterable[tuple[bytes, bytes]]: ...

    def get(self, key: bytes) -> bytes | None: ...

    def put(self, key: bytes, value: bytes) -> None: ...

    def put_many(self, entries: Iterable[tuple[bytes, bytes]]) -> int: ...

    def delete_many(self, keys: Iterable[bytes]) -> int: ...

    def close(self) -> None: ...


class Mirror:
    """What rows want of one map, and what it holds. Entries are bytes.

    `truthful`: an entry that cannot be replaced is removed, for what it says is wrong. `closes`: without an
    entry anything may pass, so nothing may pass any endpoint (`missing`).
    """

    def __init__(self, name: str, table: Target, *, truthful: bool = False, closes: bool = False) -> None:
        self.name = name
        self.map = table
        self.failures: dict[bytes, PodwireError] = {}
        self.closes = closes
        self._truthful = truthful
        self.failing = False  # before the work at hand, too
        self.held: MutableMapping[bytes, bytes] = {}  # in the kernel now
        self._wanted: dict[RowKey, tuple[bytes, ...]] = {}
        self._owner: dict[bytes, RowKey] = {}
        self._shared: dict[bytes, dict[RowKey, bytes]] = {}  # entries that several rows want
        self._dirty: dict[bytes, bytes] = {}
        self._gone: set[bytes] = set()
        self._unsure: set[bytes] = set()  # of a removal that failed: some may be gone all the same

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

    def wanted(self, key: bytes) -> bytes | None:
        """What an entry that is not written yet is to be."""
        return self._dirty.get(key)

    def is_leaving(self, key: bytes) -> bool:
        """Whether the entry is still there and to be removed."""
        return key in self._gone

    def work(self) -> dict[bytes, bytes]:
        """What to insert or replace now; `wrote` is to be told what became of it."""
        work = {key: value for key, value in self._dirty.items() if self._differs(key, value)}
        self._dirty.clear()
        self.failing, self.failures = bool(self.failures), {}
        return work

    def wrote(self, work: Mapping[bytes, bytes], failures: Mapping[bytes, PodwireError]) -> bool:
        """`work` was written but for `failures`, which stay to be done; whether anything was."""
        self.failures = dict(failures)
        done = {key: value for key, value in work.items() if key not in failures}
        self.held.update(done)
        self._unsure.difference_update(done)
        self._gone.difference_update(done)
        self._dirty |= {key: work[key] for key in failures}
        if self._truthful:
            self._gone.update(key for key in failures if key in self.held)
        return bool(done)

    def withhold(self, entries: Mapping[bytes, bytes], why: PodwireError) -> None:
        """Wanted entries that may not be in the kernel for now: they stay to be done, those there go."""
        for key, value in entries.items():
            if self._owned(key):
                self.failures[key] = why
                self._dirty[key] = value
                self._gone.add(key)

    def leaving(self) -> list[bytes]:
        """What no row wants any more; `removed` is to be told what became of it."""
        keys = [key for key in self._gone if key in self.held]
        self._gone.clear()
        return keys

    def removed(self, keys: Collection[bytes], error: PodwireError | None) -> None:
        """`keys` are gone; with `error` some of them may be, and they stay to be removed."""
        if error is not None:
            log.warning("%s: cannot remove %d entries, trying again: %s", self.name, len(keys), error)
            self._gone.update(keys)
            self._unsure.update(keys)
            return
        for key in keys:
            del self.held[key]
        self._unsure.difference_update(keys)

    def believed(self) -> dict[bytes, bytes]:
        """Entries there that could neither be replaced nor removed: what they say is not so."""
        if not self._truthful:
            return {}
        return {key: self.held[key] for key in self._unsure if key in self.held and key in self.failures}

    @property
    def refused(self) -> bool:
        """Whether something is still to be removed that could not be."""
        return bool(self._unsure)

    @property
    def unfinished(self) -> bool:
        """Whether something is to be tried again."""
        return bool(self.failures or self._unsure)

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
        for key, error in self.failures.items():
            for row in self._shared.get(key) or (self._owner.get(key),):
                rows[row] = error
        return rows

    # Inside

    def _owned(self, key: bytes) -> bool:
        """Whether some row wants the entry."""
        return key in self._owner

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
        self._want_entry(key, value)

    def _want_entry(self, key: bytes, value: bytes) -> None:
        self._gone.discard(key)
        if self._differs(key, value):
            self._dirty[key] = value
        else:
            self._dirty.pop(key, None)

    def _differs(self, key: bytes, value: bytes) -> bool:
        return self.held.get(key) != value or key in self._unsure or key in self._gone

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
        self._give_up(key)

    def _give_up(self, key: bytes) -> None:
        """The entry is to go."""
        self._dirty.pop(key, None)
        self.failures.pop(key, None)
        self._gone.add(key)
