"""Calling controllers: what changed makes keys dirty, dirty keys are reconciled one at a time."""

from __future__ import annotations

import asyncio
import heapq
import logging
import time
from collections.abc import Hashable, Iterable
from itertools import count
from typing import Any

from podwire.apiserver.objects import Objects
from podwire.apiserver.store import Change
from podwire.base.aio import Backoff, boundary
from podwire.base.clock import Attention
from podwire.base.errors import ApiError, StorageError

log = logging.getLogger(__name__)
Object = dict[str, Any]
Key = Hashable

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
        self._dirty: dict[tuple[int, Key], None] = {}
        self._later: list[tuple[float, int, tuple[int, Key]]] = []
        self._order = count()
        self._failures: dict[tuple[int, Key], int] = {}
        self._free: dict[tuple[int, Key], float] = {}
        self._waiting: set[tuple[int, Key]] = set()
        self._wake: asyncio.Event | None = None
        self._attention = Attention(_GAP)
        self._store.listeners.append(self._hear)
        for index, controller in enumerate(self.controllers):
            controller.attention = self._attention
            with boundary(f"{controller.name}: looking at what there is"):
                for key in controller.start():
                    self._dirty[index, key] = None

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
            if self._dirty:
                await asyncio.sleep(0)
                continue
            self._wake.clear()
            left = self._later[0][0] - loop.time() if self._later else None
            try:
                async with asyncio.timeout(left if left is None else max(left, 0.0)):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def settle(self, now: float, most: int = 100_000, *, rest: bool = False) -> None:
        """Reconcile what is dirty or due at `now`, at most so many keys; with `rest` not large ones."""
        self._attention.look(now)
        while self._later and self._later[0][0] <= now:
            item = heapq.heappop(self._later)[2]
            self._waiting.discard(item)
            self._dirty[item] = None
        for _ in range(most):
            if not self._dirty:
                return
            item = next(iter(self._dirty))
            del self._dirty[item]
            if not rest or not self._rests(item, now):
                self._one(item, now)

    def _rests(self, item: tuple[int, Key], now: float) -> bool:
        """Whether the turn of `item` comes later, since it took long last time."""
        free = self._free.get(item, 0.0)
        if free > now and item not in self._waiting:
            self._waiting.add(item)
            heapq.heappush(self._later, (free, next(self._order), item))
        return free > now

    def _one(self, item: tuple[int, Key], now: float) -> None:
        index, key = item
        controller = self.controllers[index]
        began = time.perf_counter()
        try:
            again = controller.reconcile(key)
            self._failures.pop(item, None)
        except (ApiError, StorageError) as error:
            again = self._failed(item)
            level = logging.WARNING if self._failures[item] == 5 else logging.DEBUG
            log.log(level, "%s: %s: %s", controller.name, key, error)
        except Exception:  # the boundary of one key: the others, and the API, go on; it is tried again
            again = self._failed(item)
            if self._failures[item] == 1:
                log.exception("%s: %s failed", controller.name, key)
        cost = time.perf_counter() - began
        if cost > _CHEAP:
            self._free[item] = now + cost * _REST
        else:
            self._free.pop(item, None)
        if again is not None:
            heapq.heappush(self._later, (now + again, next(self._order), item))

    def _failed(self, item: tuple[int, Key]) -> float:
        """Count a failure; seconds until the next try."""
        self._failures[item] = self._failures.get(item, 0) + 1
        return _BACKOFF.after(self._failures[item])

    def _hear(self, change: Change) -> None:
        for index, controller in enumerate(self.controllers):
            if not controller.watches or change.resource in controller.watches:
                with boundary(f"{controller.name}: a change of {change.resource} {change.stored.name}"):
                    for key in controller.keys(change):
                        self._dirty[index, key] = None
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
