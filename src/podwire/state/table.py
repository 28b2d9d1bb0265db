"""A keyed table of frozen rows with revisions, indexes and change streams.

Stages share nothing but tables. A reader subscribes with `changes()` and receives batches: first
all rows there are, then what changed, coalesced by key, so a slow reader costs one entry per key
and never blocks a writer. Work per change is O(1) and per batch O(changed keys).

A table is *ready* when each of its writers has put all that existed at start. Who removes things (from
the kernel, from the API) waits for it, so that a restart never takes the not yet known for gone. Who
those writers are is declared (`state.writers`), and who only reads a table has it as a `ReadTable`.

One event loop, no locks: writers and readers run in the same thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from typing import Any, Generic, TypeVar

import msgspec

Row = TypeVar("Row")
Key = Hashable


class Change(msgspec.Struct, Generic[Row], frozen=True):
    """A row before and after; `old` None = it is new, `new` None = it is gone."""

    key: Key
    old: Row | None
    new: Row | None


class Batch(msgspec.Struct, Generic[Row], frozen=True):
    """Changes since the last batch, and whether the table was ready at that moment."""

    changes: tuple[Change[Row], ...]
    ready: bool
    revision: int

    def __iter__(self) -> Iterator[Change[Row]]:
        return iter(self.changes)

    def __bool__(self) -> bool:
        return bool(self.changes)


class Writers(msgspec.Struct, frozen=True):
    """Who writes a table. It is ready when all of `names` said that what existed at start is in it.

    `editors` change single rows: nobody waits for them.
    """

    names: tuple[str, ...] = ("",)
    editors: tuple[str, ...] = ()


class ReadTable(Generic[Row]):
    """Rows by key. `help` tells people what it holds; `indexes` give each row other keys to find it `by`.

    This is what readers have of it: nothing here changes a row.
    """

    def __init__(
        self,
        name: str,
        key: Callable[[Row], Key],
        *,
        help: str = "",
        indexes: Mapping[str, Callable[[Row], Iterable[Key]]] | None = None,
    ) -> None:
        self.name = name
        self.help = help
        self.revision = 0
        self.writers = Writers()
        self._unready: dict[str, None] = dict.fromkeys(self.writers.names)
        self._key = key
        self._rows: dict[Key, Row] = {}
        self._revisions: dict[Key, int] = {}
        self._indexes = {name: Index(terms) for name, terms in (indexes or {}).items()}
        self._readers: list[Changes[Row]] = []

    @property
    def ready(self) -> bool:
        """Whether all writers have put all there was at start."""
        return not self._unready

    @property
    def waits_for(self) -> tuple[str, ...]:
        """The writers that have not."""
        return tuple(self._unready)

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(list(self._rows.values()))

    def __contains__(self, key: Key) -> bool:
        return key in self._rows

    def keys(self) -> list[Key]:
        return list(self._rows)

    def get(self, key: Key) -> Row | None:
        return self._rows.get(key)

    def by(self, index: str, term: Key) -> list[Row]:
        """Rows that `index` lists under `term`."""
        return [self._rows[key] for key in self._indexes[index].keys_of(term)]

    def revision_of(self, key: Key) -> int:
        """The table's revision when the row was last written; 0 if there is none."""
        return self._revisions.get(key, 0)

    def changes(self) -> Changes[Row]:
        """Subscribe: the first batch holds all rows there are."""
        reader = Changes(self)
        for key, row in self._rows.items():
            reader.add(key, None, row)
        self._readers.append(reader)
        return reader

    def unsubscribe(self, reader: Changes[Row]) -> None:
        if reader in self._readers:
            self._readers.remove(reader)


class Table(ReadTable[Row]):
    """The same for who writes it."""

    def declare(self, writers: Writers) -> None:
        """These write it, and it is ready when they all have said so."""
        self.writers = writers
        self._unready = dict.fromkeys(writers.names)

    def put(self, row: Row) -> bool:
        """Insert or replace; False if the very same row was there."""
        key = self._key(row)
        old = self._rows.get(key)
        if old == row:
            return False
        self.revision += 1
        self._rows[key] = row
        self._revisions[key] = self.revision
        self._changed(key, old, row)
        return True

    def delete(self, key: Key) -> Row | None:
        """Remove and return the row; None if there was none."""
        old = self._rows.pop(key, None)
        if old is not None:
            self.revision += 1
            del self._revisions[key]
            self._changed(key, old, None)
        return old

    def replace(self, rows: Iterable[Row], *, where: Callable[[Row], bool] = lambda row: True) -> None:
        """Make the rows for which `where` holds exactly `rows`."""
        wanted = {self._key(row): row for row in rows}
        for row in self:
            key = self._key(row)
            if key not in wanted and where(row):
                self.delete(key)
        for row in wanted.values():
            self.put(row)

    def mark_ready(self, writer: str = "") -> None:
        """`writer` has put all there was at start. A table of which no writers are declared has one, ""."""
        assert writer in self.writers.names, f"{writer or 'somebody'} is not declared to write {self.name}"
        if writer in self._unready:
            del self._unready[writer]
            if not self._unready:
                for reader in self._readers:
                    reader.wake()

    def mark_all_ready(self) -> None:
        """The same, by who stands for all of its writers."""
        for writer in self.writers.names:
            self.mark_ready(writer)

    def _changed(self, key: Key, old: Row | None, new: Row | None) -> None:
        for index in self._indexes.values():
            index.update(key, old, new)
        for reader in self._readers:
            reader.add(key, old, new)


class Index:
    """Terms → keys of the rows that have them.

    Most terms have one key, which stands there itself: of 100,000 addresses, a dict each is 20 MB.
    """

    def __init__(self, terms: Callable[[Any], Iterable[Key]]) -> None:
        self._terms = terms
        self._keys: dict[Key, Key | _Keys] = {}

    def keys_of(self, term: Key) -> list[Key]:
        keys = self._keys.get(term, _NONE)
        return list(keys) if isinstance(keys, _Keys) else [keys]

    def update(self, key: Key, old: Any, new: Any) -> None:
        for term in self._terms(old) if old is not None else ():
            keys = self._keys.get(term, _NONE)
            if not isinstance(keys, _Keys):
                if keys == key:
                    del self._keys[term]
                continue
            keys.pop(key, None)
            if not keys and keys is not _NONE:
                del self._keys[term]
        for term in self._terms(new) if new is not None else ():
            keys = self._keys.get(term, _NONE)
            if keys is _NONE:
                self._keys[term] = key
            elif isinstance(keys, _Keys):
                keys[key] = None
            elif keys != key:
                self._keys[term] = _Keys({keys: None, key: None})


class _Keys(dict[Key, None]):
    """Several keys, in the order they came. A type of its own: a key may be anything that has a hash."""


_NONE = _Keys()


class Changes(Generic[Row]):
    """A reader's view: what changed since it last asked."""

    def __init__(self, table: ReadTable[Row]) -> None:
        self.table = table
        self._before: dict[Key, Row | None] = {}
        self._latest: dict[Key, Row | None] = {}
        self._told_ready = False
        self._woken: asyncio.Event | None = None

    def add(self, key: Key, old: Row | None, new: Row | None) -> None:
        self._before.setdefault(key, old)
        self._latest[key] = new
        self.wake()

    def wake(self) -> None:
        if self._woken is not None:
            self._woken.set()

    def share(self, event: asyncio.Event) -> None:
        """Set `event` when there is something (for a reader of several tables)."""
        self._woken = event
        if self.pending():
            event.set()

    def pending(self) -> bool:
        return bool(self._latest) or self.table.ready != self._told_ready

    def take(self) -> Batch[Row]:
        """What changed, now; may be empty. Changes that cancel each other out are left out."""
        if not self._latest:
            self._told_ready = self.table.ready
            return Batch((), self.table.ready, self.table.revision)
        changes = tuple(
            Change(key, self._before[key], new)
            for key, new in self._latest.items()
            if self._before[key] != new
        )
        self._before, self._latest = {}, {}
        self._told_ready = self.table.ready
        return Batch(changes, self.table.ready, self.table.revision)

    @property
    def pending_rows(self) -> int:
        """How many keys changed since the last `take` or `drain`."""
        return len(self._latest)

    def drain(self) -> Iterator[Change[Row]]:
        """What changed up to now, as `take` gives it, but worked out row by row as it is asked for: for
        who takes over hundreds of thousands in steps. What changes meanwhile is for the next time."""
        before, latest = self._before, self._latest
        self._before, self._latest = {}, {}
        self._told_ready = self.table.ready
        return (Change(key, before[key], new) for key, new in latest.items() if before[key] != new)

    async def next(self) -> Batch[Row]:
        """Wait until something changed (or the table became ready), then `take`."""
        if self._woken is None:
            self._woken = asyncio.Event()
        while not self.pending():
            self._woken.clear()
            await self._woken.wait()
        return self.take()

    def close(self) -> None:
        self.table.unsubscribe(self)


class Watch:
    """Several subscriptions of one stage, waited for together."""

    def __init__(self, *tables: ReadTable[Any]) -> None:
        self._event = asyncio.Event()
        self._readers: tuple[Changes[Any], ...] = tuple(table.changes() for table in tables)
        for reader in self._readers:
            reader.share(self._event)

    @property
    def ready(self) -> bool:
        return all(reader.table.ready for reader in self._readers)

    def wake(self) -> None:
        """Make the next `next()` return although no table changed."""
        self._event.set()

    async def next(self) -> tuple[Batch[Any], ...]:
        """One batch per table, in the order given; at least one is not empty or a table became ready."""
        await self._event.wait()
        return self.take()

    def pending(self) -> bool:
        """Whether `next` would not wait."""
        return self._event.is_set()

    def take(self) -> tuple[Batch[Any], ...]:
        """One batch per table, now; they may be empty."""
        self._event.clear()
        return tuple(reader.take() for reader in self._readers)

    def close(self) -> None:
        for reader in self._readers:
            reader.close()

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


async def until_ready(*tables: ReadTable[Any]) -> None:
    """Until the writers of all `tables` have put what existed at start."""
    with Watch(*tables) as watch:
        while not watch.ready:
            await watch.next()
