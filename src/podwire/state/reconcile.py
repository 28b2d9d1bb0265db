"""Keep a target equal to a table: difference, batch, retry, status per row.

At start the target's own content is read (`Target.load`): what the table says already is not
written again, and what it does not say is removed, but only once the table is ready.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from podwire.base.aio import Backoff
from podwire.base.errors import PodwireError
from podwire.state.table import Table, Watch

Row = TypeVar("Row")
log = logging.getLogger(__name__)


class Target(Protocol):
    """Something that holds one item per table row (a kernel map, routes, objects in the API)."""

    name: str

    def load(self) -> Mapping[Hashable, Any]:
        """What it holds now: item key → item, comparable with `items`."""
        ...

    def items(self, row: Any) -> Mapping[Hashable, Any]:
        """What it should hold for one row."""
        ...

    def write(self, items: Mapping[Hashable, Any]) -> Mapping[Hashable, PodwireError]:
        """Write or replace; the failures, by item key."""
        ...

    def remove(self, keys: Iterable[Hashable]) -> Mapping[Hashable, PodwireError]:
        """Remove; a key that is not there is no failure."""
        ...


@dataclass(slots=True)
class Status:
    """How a row stands."""

    done: bool
    error: str = ""
    tries: int = 0


class Reconciler(Generic[Row]):
    """Runs until cancelled. `status` is by table key; `errors()` what stands now."""

    def __init__(self, table: Table[Row], target: Target, *, backoff: Backoff = Backoff(0.05, 5.0)) -> None:
        self.table = table
        self.target = target
        self.status: dict[Hashable, Status] = {}
        self.synced = False  # has the target once been made equal to a ready table
        self._backoff = backoff
        self._held: dict[Hashable, Any] = {}
        self._owner: dict[Hashable, Hashable] = {}
        self._retry: dict[Hashable, Row | None] = {}
        self._failures = 0

    def errors(self) -> dict[Hashable, str]:
        return {key: status.error for key, status in self.status.items() if status.error}

    async def run(self) -> None:
        self._held = dict(self.target.load())
        with Watch(self.table) as watch:
            while True:
                if self._retry:
                    try:
                        async with asyncio.timeout(self._backoff.after(self._failures)):
                            (batch,) = await watch.next()
                        changes, ready = list(batch), batch.ready
                    except TimeoutError:
                        changes, ready = [], self.table.ready
                else:
                    (batch,) = await watch.next()
                    changes, ready = list(batch), batch.ready
                work: dict[Hashable, tuple[Row | None, Row | None]] = {
                    key: (row, row) for key, row in self._retry.items()
                }
                work |= {change.key: (change.old, change.new) for change in changes}
                self._retry = {}
                self.step(work)
                if ready and not self.synced:
                    self.prune()
                    self.synced = True
                self._failures = self._failures + 1 if self._retry else 0

    def step(self, work: Mapping[Hashable, tuple[Row | None, Row | None]]) -> None:
        """Make the target hold what the rows in `work` (key → old, new) say."""
        wanted: dict[Hashable, Any] = {}
        gone: set[Hashable] = set()
        for key, (old, new) in work.items():
            items = dict(self.target.items(new)) if new is not None else {}
            for item in items:
                self._owner[item] = key
            wanted |= items
            if old is not None:
                gone |= {
                    item
                    for item in self.target.items(old)
                    if item not in items and self._owner.get(item) == key
                }
        gone -= wanted.keys()
        write = {item: value for item, value in wanted.items() if self._held.get(item) != value}
        failed = dict(self.target.write(write)) if write else {}
        self._held |= {item: value for item, value in write.items() if item not in failed}
        gone &= self._held.keys()
        failed_removals = dict(self.target.remove(gone)) if gone else {}
        for item in gone:
            if item not in failed_removals:
                self._held.pop(item, None)
                self._owner.pop(item, None)
        self._note(work, failed | failed_removals)

    def prune(self) -> None:
        """Remove what no row owns: leftovers of an earlier life."""
        stale = [item for item in self._held if item not in self._owner]
        if stale:
            log.info("%s: removing %d entries that nothing wants any more", self.target.name, len(stale))
            failed = self.target.remove(stale)
            for item in stale:
                if item not in failed:
                    del self._held[item]

    def _note(
        self, work: Mapping[Hashable, tuple[Row | None, Row | None]], failed: Mapping[Hashable, PodwireError]
    ) -> None:
        by_owner: dict[Hashable, PodwireError] = {}
        for item, error in failed.items():
            by_owner.setdefault(self._owner.get(item, item), error)
        for key, (_, new) in work.items():
            failure = by_owner.get(key)
            if failure is not None:
                tries = self.status[key].tries + 1 if key in self.status else 1
                if tries == 1:
                    log.error("%s: %s: %s", self.target.name, key, failure)
                self.status[key] = Status(False, str(failure), tries)
                self._retry[key] = new
            elif new is None:
                self.status.pop(key, None)
            else:
                self.status[key] = Status(True)
