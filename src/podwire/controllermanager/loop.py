"""Calling controllers: what changed makes keys dirty, dirty keys are reconciled one at a time."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Hashable, Iterable
from typing import Any

from podwire.apiserver.objects import Objects
from podwire.apiserver.store import Change
from podwire.base.aio import Backoff, boundary
from podwire.base.clock import Attention
from podwire.base.errors import ApiError, StorageError
from podwire.base.queue import Queue

log = logging.getLogger(__name__)
Object = dict[str, Any]
Key = Hashable
Item = tuple[int, Key]  # number of a controller, and one of its keys

_BACKOFF = Backoff(first=0.05, most=5.0)
_TURN = 64  # reconciliations before the loop serves clients again
# Seconds of work after which a key has to rest, so that a large one does not take the whole loop; and
# how many times as long.
_CHEAP = 0.05
_REST = 4.0
# s between two turns of the loop of which more do not count as time in which one could have heard: nodes
# are looked at every 5 s, so that a longer gap is this process's own absence.
_GAP = 10.0


class Controller:
    """One controller. `watches` names resources; an empty tuple is all of them."""

    name = ""
    watches: tuple[str, ...] = ()

    def __init__(self, objects: Objects) -> None:
        self.objects = objects
        self.attention = Attention(_GAP)  # the loop's, once the controller is in one

    def start(self) -> Iterable[Key]:
        """Keys to begin with."""
        return ()

    def keys(self, change: Change) -> Iterable[Key]:
        """Which keys a change makes dirty."""
        return ()

    def reconcile(self, key: Any) -> float | None:
        """Bring one key in order; seconds after which to look again, or None."""
        raise NotImplementedError


class Controllers:
    """All controllers of a server and what they still have to do."""

    def __init__(self, objects: Objects, controllers: Iterable[Controller]) -> None:
        self.controllers = list(controllers)
        self._store = objects.store
        self._queue: Queue[Item] = Queue(_BACKOFF)
        self._free: dict[Item, float] = {}
        self._wake: asyncio.Event | None = None
        self._attention = Attention(_GAP)
        self._store.listeners.append(self._hear)
        for index, controller in enumerate(self.controllers):
            controller.attention = self._attention
            with boundary(f"{controller.name}: looking at what there is"):
                for key in controller.start():
                    self._queue.add((index, key))

    def close(self) -> None:
        """Hear no more changes; before the store is closed."""
        if self._hear in self._store.listeners:
            self._store.listeners.remove(self._hear)

    async def run(self) -> None:
        """Reconcile for ever."""
        self._wake = asyncio.Event()
        loop = asyncio.get_running_loop()
        while True:
            self.settle(loop.time(), _TURN, rest=True)
            if len(self._queue):
                await asyncio.sleep(0)
                continue
            self._wake.clear()
            try:
                async with asyncio.timeout_at(self._queue.next()):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def settle(self, now: float, most: int = 100_000, *, rest: bool = False) -> None:
        """Reconcile what is dirty or due at `now`, at most so many keys; with `rest` not large ones."""
        self._attention.look(now)
        for _ in range(most):
            item = self._queue.take(now)
            if item is None:
                return
            free = self._free.get(item, 0.0)
            if rest and free > now:
                self._queue.put_off(item, free)
            else:
                self._one(item, now)

    def _one(self, item: Item, now: float) -> None:
        index, key = item
        controller = self.controllers[index]
        began = time.perf_counter()
        try:
            again = controller.reconcile(key)
        except (ApiError, StorageError) as error:
            level = logging.WARNING if self._queue.failed(item, now) == 5 else logging.DEBUG
            log.log(level, "%s: %s: %s", controller.name, key, error)
        except Exception:  # the boundary of one key: the others, and the API, go on; it is tried again
            if self._queue.failed(item, now) == 1:
                log.exception("%s: %s failed", controller.name, key)
        else:
            self._queue.done(item, None if again is None else now + again)
        cost = time.perf_counter() - began
        if cost > _CHEAP:
            self._free[item] = now + cost * _REST
        else:
            self._free.pop(item, None)

    def _hear(self, change: Change) -> None:
        for index, controller in enumerate(self.controllers):
            if not controller.watches or change.resource in controller.watches:
                with boundary(f"{controller.name}: a change of {change.resource} {change.stored.name}"):
                    for key in controller.keys(change):
                        self._queue.add((index, key))
        if self._wake is not None:
            self._wake.set()


def place(body: Object) -> tuple[str, str]:
    """(namespace, name)."""
    return str(body["metadata"].get("namespace", "")), str(body["metadata"]["name"])


def owned_by(change: Change, kind: str) -> Iterable[tuple[str, str]]:
    """(namespace, name) of controlling owners of `kind`, before and after a change."""
    found: dict[tuple[str, str], None] = {}
    for stored in (change.stored, change.previous):
        for owner in (stored.object["metadata"].get("ownerReferences") or []) if stored else []:
            if owner.get("controller") and owner["kind"] == kind:
                found[stored.namespace if stored else "", owner["name"]] = None
    return found
