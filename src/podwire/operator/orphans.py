"""What outlives what it is about: CiliumEndpoints without their pod, CiliumNodes without their Node.

An agent takes away what is its own, but one whose machine is gone cannot, and Kubernetes' garbage collector
only knows owners that were named. Two streams are never at the same moment, so what looks lost is left for a
while, asked for by name before it is believed, and deleted as the version that was looked at.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import msgspec

from podwire.base.errors import ApiError
from podwire.kube import Event, Resource, Writes
from podwire.kube.resources import CILIUM_ENDPOINTS, CILIUM_NODES, NODES, PODS

KEPT = "cilium.io/do-not-gc"  # annotation of a CiliumNode that somebody else looks after
Place = tuple[str, str]


class _Owner(msgspec.Struct, frozen=True):
    uid: str


class _Metadata(msgspec.Struct, frozen=True):
    uid: str
    resourceVersion: str
    annotations: dict[str, str] | None = None
    ownerReferences: list[_Owner] | None = None

    def belongs_to(self, uid: str | None) -> bool:
        """Whether the parent of this uid is there and its own. One that names no owner is anybody's of its
        name."""
        owners = self.ownerReferences
        return uid is not None and (not owners or any(owner.uid == uid for owner in owners))


class _Head(msgspec.Struct, frozen=True):
    metadata: _Metadata


_head = msgspec.json.Decoder(_Head).decode


class Orphans:
    """Deletes `children` whose parent of the same name has not been there for `grace` seconds."""

    needs_all = True

    def __init__(
        self,
        api: Writes,
        children: Resource,
        parents: Resource,
        *,
        grace: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = f"orphaned-{children.plural}"
        self.follows = (children, parents)
        self._api = api
        self._children, self._parents = children, parents
        self._grace = grace
        self._clock = clock
        self._heads: dict[Place, _Metadata] = {}  # of children
        self._uids: dict[Place, str] = {}  # of parents
        self._since: dict[Place, float] = {}
        self.deleted = 0

    def take(self, resource: Resource, event: Event) -> Iterable[Place]:
        place = event.namespace, event.name
        if event.kind == "DELETED":
            if resource == self._children:
                self._heads.pop(place, None)
                return (place,)
            self._uids.pop(place, None)
        elif resource == self._children:
            self._heads[place] = _head(event.raw).metadata
        else:
            self._uids[place] = _head(event.raw).metadata.uid
        return (place,) if place in self._heads else ()

    async def reconcile(self, place: Place) -> float | None:
        metadata = self._heads.get(place)
        parent = self._uids.get(place)
        if metadata is None or KEPT in (metadata.annotations or {}) or metadata.belongs_to(parent):
            self._since.pop(place, None)
            return None
        since = self._since.setdefault(place, self._clock())
        left = since + self._grace - self._clock()
        if left > 0:
            return left
        if metadata.belongs_to(await self._asked(place)):
            return self._grace  # what is followed is behind: its event is still to come
        namespace, name = place
        only = {"uid": metadata.uid, "resourceVersion": metadata.resourceVersion}
        await self._api.delete(self._children, name, namespace or None, only=only)
        self.deleted += 1
        return None

    async def _asked(self, place: Place) -> str | None:
        """The parent's uid, by the API itself; None where there is none."""
        namespace, name = place
        try:
            found = await self._api.get(self._parents, name, namespace or None)
        except ApiError as error:
            if error.code != 404:
                raise
            return None
        return str(found["metadata"]["uid"])


def endpoints(api: Writes, *, grace: float, clock: Callable[[], float] = time.monotonic) -> Orphans:
    """CiliumEndpoints without their pod."""
    return Orphans(api, CILIUM_ENDPOINTS, PODS, grace=grace, clock=clock)


def nodes(api: Writes, *, grace: float, clock: Callable[[], float] = time.monotonic) -> Orphans:
    """CiliumNodes without their Node."""
    return Orphans(api, CILIUM_NODES, NODES, grace=grace, clock=clock)
