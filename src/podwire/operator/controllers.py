"""Controllers: what changes makes keys due, due keys are brought in order, one object at a time.

Written on `kube.Api`, so that the same ones run beside the embedded API and against a real one. Each kind is
followed once for all controllers; a controller keeps of an object what it needs. One that acts on what is
not there is asked only while all that it follows is whole: the not yet known must not be taken for gone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Hashable, Iterable
from itertools import count
from typing import Any, Protocol

from podwire.base.aio import Backoff, Supervised, boundary, seldom
from podwire.base.errors import ApiError, PodwireError
from podwire.base.queue import Queue
from podwire.kube import Event, Resource, Watches
from podwire.kube.lease import LeadershipLost

log = logging.getLogger(__name__)
Key = Hashable
Place = tuple[str, str]

_BACKOFF = Backoff(first=0.05, most=60.0)
_WATCHING = Backoff(first=0.1, most=10.0)
_TURN = 64  # keys before others have a turn
WORKERS = 4  # keys of one controller that are under way at once: each is a round trip or two
_EXPECTED = (404, 409)  # it is gone, or another by now: its event is on its way


class Controller(Protocol):
    """One of them. `take` learns and never waits; `reconcile` acts on what was learnt."""

    @property
    def name(self) -> str: ...

    @property
    def follows(self) -> tuple[Resource, ...]: ...

    @property
    def needs_all(self) -> bool:
        """It acts on what is not there, and so only while all that it follows is known."""
        ...

    def take(self, resource: Resource, event: Event) -> Iterable[Key]:
        """Learn what an ADDED, MODIFIED or DELETED says; the keys that have to be looked at."""
        ...

    async def reconcile(self, key: Any) -> float | None:
        """Bring one key in order; seconds after which to look again, or None.

        What the API refuses is raised, and tried again after a while.
        """
        ...


class Work:
    """A controller with what it has to do, and how that goes."""

    def __init__(self, controller: Controller, backoff: Backoff) -> None:
        self.controller = controller
        self.queue: Queue[Key] = Queue(backoff)
        self.unknown = set(controller.follows)  # what is not known whole
        self.done = self.failed = 0
        self._in_a_row = 0  # failures, of whichever keys
        self.wake = asyncio.Event()

    @property
    def idle(self) -> bool:
        return not self.unknown and self.queue.idle

    @property
    def waits(self) -> bool:
        """It must not act yet."""
        return self.controller.needs_all and bool(self.unknown)

    def hear(self, resource: Resource, event: Event) -> None:
        with boundary(f"{self.controller.name}: {resource.kind} {event.namespace}/{event.name}"):
            for key in self.controller.take(resource, event):
                self.queue.add(key)
        self.wake.set()

    def know(self, resource: Resource, *, whole: bool) -> None:
        if whole:
            self.unknown.discard(resource)
        else:
            self.unknown.add(resource)
        self.wake.set()

    async def run(self) -> None:
        """One worker, for ever."""
        clock = asyncio.get_running_loop().time
        for number in count(1):
            if number % _TURN == 0:  # most keys are in order, and looking at one waits for nothing
                await asyncio.sleep(0)
            key = self.queue.take(clock()) if not self.waits else None
            if key is not None:
                await self._one(key)
                continue
            self.wake.clear()
            try:
                async with asyncio.timeout_at(None if self.waits else self.queue.next()):
                    await self.wake.wait()
            except TimeoutError:
                pass  # something is due

    async def _one(self, key: Key) -> None:
        clock = asyncio.get_running_loop().time
        try:
            again = await self.controller.reconcile(key)
        except PodwireError as error:
            self._failed(key, error)
        except Exception as error:  # the boundary of one key: the others go on, and it is tried again
            if self._failed(key, error) == 1:
                log.exception("%s: %s", self.controller.name, key)
        else:
            self.done += 1
            self._in_a_row = 0
            self.queue.done(key, None if again is None else clock() + again)
        finally:
            self.wake.set()  # another worker may wait for what is due again

    def _failed(self, key: Key, error: Exception) -> int:
        self.failed += 1
        self._in_a_row += 1
        failures = self.queue.failed(key, asyncio.get_running_loop().time())
        expected = isinstance(error, ApiError) and error.code in _EXPECTED and failures < 4
        told = not expected and not isinstance(error, LeadershipLost) and seldom(failures)
        # While the API is away all keys fail, and say the same.
        level = logging.WARNING if told and seldom(self._in_a_row) else logging.DEBUG
        log.log(level, "%s: %s: %s; trying on", self.controller.name, key, error)
        return failures


class Controllers:
    """Some controllers on an API."""

    def __init__(
        self, api: Watches, controllers: Iterable[Controller], *, backoff: Backoff = _BACKOFF
    ) -> None:
        self._api = api
        self.works = [Work(controller, backoff) for controller in controllers]
        self.objects: dict[Resource, set[Place]] = {
            resource: set() for work in self.works for resource in work.controller.follows
        }

    @property
    def idle(self) -> bool:
        """All is known and nothing is due."""
        return all(work.idle for work in self.works)

    async def run(self) -> None:
        """Until cancelled."""
        async with Supervised("controllers") as group:
            for resource in self.objects:
                group.start(f"follow {resource.plural}", self._follow(resource))
            for work in self.works:
                for number in range(WORKERS):
                    group.start(f"{work.controller.name} {number + 1}", work.run())
            await group.wait()

    async def _follow(self, resource: Resource) -> None:
        """A stream that ends begins anew from nothing: what is not in the new one has gone meanwhile."""
        works = [work for work in self.works if resource in work.controller.follows]
        known, failures = self.objects[resource], 0
        while True:
            missing = set(known)
            try:
                async for event in self._api.watch(resource):
                    place = event.namespace, event.name
                    if event.kind in ("SYNCED", "RESTARTED"):
                        failures = 0
                        for gone in missing if event.kind == "SYNCED" else ():
                            known.discard(gone)
                            _tell(works, resource, Event("DELETED", *gone))
                        missing = set()
                        for work in works:
                            work.know(resource, whole=event.kind == "SYNCED")
                        continue
                    missing.discard(place)
                    if event.kind == "DELETED":
                        known.discard(place)
                    else:
                        known.add(place)
                    _tell(works, resource, event)
            except PodwireError as error:  # not served yet, or not for us
                if seldom(failures + 1):
                    log.warning("watching %s: %s; trying on", resource.plural, error)
            for work in works:
                work.know(resource, whole=False)
            failures += 1
            await asyncio.sleep(_WATCHING.after(failures))


def _tell(works: list[Work], resource: Resource, event: Event) -> None:
    for work in works:
        work.hear(resource, event)
