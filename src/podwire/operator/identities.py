"""Identities that nobody uses any more are taken away, so that there are numbers for new ones.

Agents make them and see the endpoints of their own node only; of all nodes, the CiliumEndpoints tell. One
that is in none of them for a while is marked, and one that stays marked and unused for as long is deleted,
as the very version that was marked. So an agent that begins to use it meanwhile only has to take the mark
away: then that version is gone, and with it the deletion. Whiles are counted by this process's own clock
from when it saw them begin: a new leader begins anew, and no clock that is set deletes anything.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from podwire.base import moments
from podwire.kube import Event, Resource, Writes
from podwire.kube.resources import CILIUM_ENDPOINTS, CILIUM_IDENTITIES
from podwire.model.cluster import DEFAULT
from podwire.stores.identities import UNUSED, number_of

Object = dict[str, Any]


class _Used(msgspec.Struct, frozen=True):
    id: int = 0


class _Status(msgspec.Struct, frozen=True):
    identity: _Used | None = None


class _Endpoint(msgspec.Struct, frozen=True):
    status: _Status | None = None


class _Metadata(msgspec.Struct, frozen=True):
    uid: str
    resourceVersion: str
    annotations: dict[str, str] | None = None


class _Identity(msgspec.Struct, frozen=True):
    metadata: _Metadata

    @property
    def marked(self) -> bool:
        return UNUSED in (self.metadata.annotations or {})


_endpoint = msgspec.json.Decoder(_Endpoint).decode
_identity = msgspec.json.Decoder(_Identity).decode


class UnusedIdentities:
    """Deletes CiliumIdentities. `grace`: seconds unused until the mark, and again until the deletion;
    `numbers` are those that agents of this cluster give."""

    name = "unused-identities"
    follows = (CILIUM_IDENTITIES, CILIUM_ENDPOINTS)
    needs_all = True

    def __init__(
        self,
        api: Writes,
        *,
        grace: float,
        numbers: range = DEFAULT.numbers,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api = api
        self._grace = grace
        self._numbers = numbers
        self._clock = clock
        self._identities: dict[str, _Identity] = {}
        self._of: dict[tuple[str, str], int] = {}  # endpoint → its identity
        self._users: Counter[int] = Counter()
        self._since: dict[str, tuple[bool, float]] = {}  # unused: whether it was marked, since when
        self.deleted = 0

    def take(self, resource: Resource, event: Event) -> Iterable[str]:
        if resource is CILIUM_ENDPOINTS:
            return self._use(event)
        if not number_of(event.name, self._numbers):
            return ()  # none that an agent of this cluster gave
        if event.kind == "DELETED":
            self._identities.pop(event.name, None)
        else:
            self._identities[event.name] = _identity(event.raw)
        return (event.name,)

    def _use(self, event: Event) -> list[str]:
        place = event.namespace, event.name
        status = None if event.kind == "DELETED" else _endpoint(event.raw).status
        new = status.identity.id if status is not None and status.identity is not None else 0
        old = self._of.pop(place, 0)
        if new:
            self._of[place] = new
        if new == old:
            return []
        self._users[new] += 1
        self._users[old] -= 1
        for number in (old, 0):
            if not self._users[number] or not number:
                del self._users[number]
        return [str(number) for number in (old, new) if number]

    async def reconcile(self, name: str) -> float | None:
        identity = self._identities.get(name)
        if identity is None or self._users[int(name)]:
            self._since.pop(name, None)
            if identity is not None and identity.marked:
                await self._mark(name, identity, None)
            return None
        marked, since = self._since.get(name, (identity.marked, self._clock()))
        if marked != identity.marked:  # the mark has come, or somebody took it away
            since = self._clock()
        self._since[name] = identity.marked, since
        left = since + self._grace - self._clock()
        if left > 0:
            return left
        if not identity.marked:
            await self._mark(name, identity, moments.now())
            return None  # its event comes
        only = {"uid": identity.metadata.uid, "resourceVersion": identity.metadata.resourceVersion}
        await self._api.delete(CILIUM_IDENTITIES, name, only=only)
        self.deleted += 1
        return None

    async def _mark(self, name: str, identity: _Identity, mark: str | None) -> None:
        version = {"resourceVersion": identity.metadata.resourceVersion}
        patch = {"metadata": {**version, "annotations": {UNUSED: mark}}}
        await self._api.patch(CILIUM_IDENTITIES, name, patch)
