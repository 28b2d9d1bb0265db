"""Changes to one client as they happen: a line of JSON each.

A watcher holds what it has not sent yet, bounded; a client that does not read is cut off and
starts again from the last revision it saw, as a watch may end at any time.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from podwire.apiserver.selectors import Predicate
from podwire.apiserver.status import gone
from podwire.apiserver.store import Change, Store, Stored, TooOld

Object = dict[str, Any]
PENDING = 16_384
WATCHES = 2048  # at once, of all clients; an agent has about ten
BOOKMARK_SECONDS = 30.0
INITIAL_EVENTS_END = "k8s.io/initial-events-end"

Render = Callable[[Stored], bytes]


class Watcher:
    """One watch of one resource. Iterate `next()` for batches of encoded events."""

    def __init__(
        self, store: Store, resource: str, namespace: str | None, selects: Predicate | None, render: Render
    ) -> None:
        self._store = store
        self._resource = resource
        self._namespace = namespace
        self._selects = selects
        self._render = render
        self._pending: deque[bytes] = deque()
        self._wake = asyncio.Event()
        self.overrun = False
        self.revision = store.revision

    def open(self, since: int | None) -> None:
        """Begin: with the present state as ADDED where `since` is None or 0, else with what came after."""
        if since:
            try:
                for change in self._store.since(self._resource, since):
                    self._hear(change)
            except TooOld as error:
                raise gone(str(error)) from error
        else:
            for stored in self._store.list(self._resource, self._namespace):
                if self._selects is None or self._selects(stored.object):
                    self._push("ADDED", stored)
        self.revision = self._store.revision
        self._store.listeners.append(self._hear)

    def end(self) -> None:
        """Tell whoever iterates that it is over; the client begins again elsewhere or later."""
        self.overrun = True
        self._wake.set()

    def close(self) -> None:
        if self._hear in self._store.listeners:
            self._store.listeners.remove(self._hear)
        self._wake.set()

    async def next(self, timeout: float) -> list[bytes]:
        """Events that wait, or an empty list after `timeout` seconds without one."""
        if not self._pending and not self.overrun:
            self._wake.clear()
            try:
                async with asyncio.timeout(timeout):
                    await self._wake.wait()
            except TimeoutError:
                return []
        batch = list(self._pending)
        self._pending.clear()
        return batch

    def bookmark(self, api_version: str, kind: str, *, initial: bool = False) -> bytes:
        """Tells the client how far it is, so that it can resume from there."""
        meta: Object = {"resourceVersion": str(self._store.revision), "creationTimestamp": None}
        if initial:
            meta["annotations"] = {INITIAL_EVENTS_END: "true"}
        event = {"type": "BOOKMARK", "object": {"kind": kind, "apiVersion": api_version, "metadata": meta}}
        return msgspec.json.encode(event) + b"\n"

    def _hear(self, change: Change) -> None:
        if change.resource != self._resource:
            return
        if self._namespace is not None and change.stored.namespace != self._namespace:
            return
        kind = change.kind
        if self._selects is not None:
            before = change.previous is not None and self._selects(change.previous.object)
            after = kind != "DELETED" and self._selects(change.stored.object)
            if not before and not after:
                return
            kind = "MODIFIED" if before and after else "ADDED" if after else "DELETED"
        if len(self._pending) >= PENDING:
            self.overrun = True
            self._wake.set()
            return
        self._push(kind, change.stored)
        self._wake.set()

    def _push(self, kind: str, stored: Stored) -> None:
        self._pending.append(b'{"type":"%b","object":%b}\n' % (kind.encode(), self._render(stored)))


def every(*predicates: Predicate | None) -> Predicate | None:
    """All of those given, or None where none is."""
    given = [one for one in predicates if one is not None]
    if not given:
        return None
    return given[0] if len(given) == 1 else lambda body: all(one(body) for one in given)


def encoded(events: Iterable[bytes]) -> bytes:
    return b"".join(events)


def clock() -> float:
    """Seconds of the running loop's clock."""
    return asyncio.get_running_loop().time()
