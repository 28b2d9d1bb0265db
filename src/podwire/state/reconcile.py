"""Keep a target equal to a table: difference, batch, retry, status per row.

At start the target's own content is read (`Target.load`): what the table says already is not
written again, and what it does not say is removed, but only once the table is ready.

Each row claims the items it wants. An item that two rows claim is the first one's, the second is told
so in its status, and gets it when the first lets go.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from podwire.base.aio import Backoff
from podwire.base.attempts import Attempts
from podwire.base.errors import PodwireError
from podwire.state.table import Change, ReadTable, Watch

Row = TypeVar("Row")
Item = Hashable
log = logging.getLogger(__name__)
NOTHING = object()


class Target(Protocol):
    """Something that holds items for table rows (a kernel map, routes, objects in the API)."""

    name: str

    def load(self) -> Mapping[Item, Any]:
        """What it holds now: item → value, comparable with those of `items`."""
        ...

    def items(self, row: Any) -> Mapping[Item, Any]:
        """What it should hold for one row."""
        ...

    def write(self, items: Mapping[Item, Any]) -> Mapping[Item, PodwireError]:
        """Write or replace; the failures, by item."""
        ...

    def remove(self, keys: Iterable[Item]) -> Mapping[Item, PodwireError]:
        """Remove; an item that is not there is no failure."""
        ...


@dataclass(slots=True)
class Status:
    """How a row stands."""

    done: bool
    error: str = ""
    tries: int = 0


class Reconciler(Generic[Row]):
    """Runs until cancelled. `status` is by table key; `errors()` what stands now."""

    def __init__(
        self, table: ReadTable[Row], target: Target, *, backoff: Backoff = Backoff(0.05, 5.0)
    ) -> None:
        self.table = table
        self.target = target
        self.status: dict[Hashable, Status] = {}
        self.synced = False  # has the target once been made equal to a ready table
        self.attempts = Attempts()
        self._backoff = backoff
        self._held: dict[Item, Any] = {}  # what the target holds
        self._claims: dict[Item, dict[Hashable, Any]] = {}  # item → row key → value, first claim first
        self._items: dict[Hashable, tuple[Item, ...]] = {}  # row key → items
        self._failed: dict[Item, tuple[Hashable, PodwireError]] = {}  # to try again → row key, why
        self._rounds = 0  # that failed in a row

    def errors(self) -> dict[Hashable, str]:
        return {key: status.error for key, status in self.status.items() if status.error}

    async def run(self) -> None:
        self.load()
        with Watch(self.table) as watch:
            while True:
                changes: tuple[Change[Row], ...] = ()
                wait = self._backoff.after(self._rounds) if self._failed else None
                try:
                    async with asyncio.timeout(wait):
                        (batch,) = await watch.next()
                        changes = batch.changes
                except TimeoutError:
                    pass  # nothing changed; what failed is tried again
                self.step(changes)
                if self.table.ready and not self.synced:
                    self.prune()

    def load(self) -> None:
        """Take in what the target holds, before the first step."""
        self._held = dict(self.target.load())

    def step(self, changes: Iterable[Change[Row]] = ()) -> None:
        """Make the target hold what changed rows say; what failed before is tried again."""
        due: dict[Item, Hashable] = {item: key for item, (key, _) in self._failed.items()}
        concerned: dict[Hashable, None] = dict.fromkeys(due.values())
        for change in changes:
            concerned[change.key] = None
            due |= self._claim(change.key, self.target.items(change.new) if change.new is not None else {})
        self._settle(due)
        if self._failed:
            _, why = next(iter(self._failed.values()))
            self.attempts.failed(why)
        elif due:
            self.attempts.succeeded()
        for item in due:
            concerned |= dict.fromkeys(self._claims.get(item, ()))
        self._tell(concerned)

    def anew(self) -> None:
        """Ask the target anew what it holds and should hold: something besides the rows has changed."""
        self.load()
        self.step([Change(key, row, row) for key in self.status if (row := self.table.get(key)) is not None])

    def prune(self) -> None:
        """Remove what no row claims: leftovers of an earlier life."""
        stale = [item for item in self._held if item not in self._claims]
        if stale:
            log.info("%s: removing %d entries that nothing wants any more", self.target.name, len(stale))
            self._settle(dict.fromkeys(stale))
        self.synced = True

    def _claim(self, key: Hashable, wanted: Mapping[Item, Any]) -> dict[Item, Hashable]:
        """What one row wants from now on; the items this concerns, with the row's key."""
        concerned: dict[Item, Hashable] = {}
        for item in self._items.pop(key, ()):
            concerned[item] = key
            if item not in wanted:
                claims = self._claims[item]
                del claims[key]
                if not claims:
                    del self._claims[item]
        for item, value in wanted.items():
            concerned[item] = key
            self._claims.setdefault(item, {})[key] = value
        if wanted:
            self._items[key] = tuple(wanted)
        return concerned

    def _settle(self, due: Mapping[Item, Hashable]) -> None:
        """Write, then remove, what is due; `due` is item → the row key it is due for."""
        write: dict[Item, Any] = {}
        gone: list[Item] = []
        for item in due:
            claims = self._claims.get(item)
            if not claims:
                gone += [item] if item in self._held else []
            elif self._held.get(item, NOTHING) != (value := next(iter(claims.values()))):
                write[item] = value
        failures: dict[Item, PodwireError] = {}
        if write:
            failures |= self.target.write(write)
            self._held |= {item: value for item, value in write.items() if item not in failures}
        if gone:
            failed = self.target.remove(gone)
            failures |= failed
            for item in gone:
                if item not in failed:
                    del self._held[item]
        for item, key in due.items():
            self._failed.pop(item, None)
            if item in failures:
                self._failed[item] = (next(iter(self._claims.get(item, {key: None}))), failures[item])
        self._rounds = self._rounds + 1 if failures else 0

    def _tell(self, concerned: Iterable[Hashable]) -> None:
        """Bring the status of rows up to date."""
        failed: dict[Hashable, str] = {}
        for owner, failure in self._failed.values():
            failed.setdefault(owner, str(failure))
        for key in concerned:
            items = self._items.get(key, ())
            error = failed.get(key, "")
            if not error:
                error = next((text for item in items if (text := self._conflict(item, key))), "")
            known = self.status.get(key)
            if error:
                tries = known.tries + 1 if known is not None and known.error else 1
                if tries == 1:
                    log.error("%s: %s: %s", self.target.name, key, error)
                self.status[key] = Status(False, error, tries)
            elif key in self.table:
                self.status[key] = Status(True)
            else:
                self.status.pop(key, None)

    def _conflict(self, item: Item, key: Hashable) -> str:
        """Why a row does not have an item it claims: another has it."""
        first, *_ = self._claims[item]
        return "" if first == key else f"{item} belongs to {first} already"
