"""The garbage collector: what is owned goes with its owners, as the deletion said.

Background: dependents go after the owner. Foreground: the owner waits for those that block it.
Orphan: dependents lose their owner and stay.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from podwire.apiserver.objects import Objects
from podwire.apiserver.options import DeleteOptions
from podwire.apiserver.store import Change, Stored
from podwire.controllermanager.loop import Controller

Object = dict[str, Any]
Place = tuple[str, str, str]
FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"


class GarbageCollector(Controller):
    name = "garbage collector"

    def __init__(self, objects: Objects) -> None:
        super().__init__(objects)
        self._dependents: dict[str, set[Place]] = {}
        self._uids: dict[str, Place] = {}
        for resource in objects.store.resources():
            for stored in objects.store.list(resource):
                self._learn(resource, stored)

    def start(self) -> Iterable[Place]:
        owned = {place for places in self._dependents.values() for place in places}
        return [*owned, *self._uids.values()]

    def keys(self, change: Change) -> Iterable[Place]:
        stored = change.stored
        place = (change.resource, stored.namespace, stored.name)
        meta = stored.object["metadata"]
        if change.previous is not None:
            self._forget(place, change.previous)
        dirty: list[Place] = []
        owners = meta.get("ownerReferences") or []
        if change.kind == "DELETED":
            dirty += self._dependents.get(meta["uid"], ())
            dirty += [self._uids[owner["uid"]] for owner in owners if owner["uid"] in self._uids]
        else:
            self._learn(change.resource, stored)
            if owners or meta.get("deletionTimestamp"):
                dirty.append(place)
        return dirty

    def reconcile(self, key: Place) -> float | None:
        stored = self.objects.store.get(*key)
        if stored is None:
            return None
        meta = stored.object["metadata"]
        finalizers = meta.get("finalizers") or []
        if meta.get("deletionTimestamp") and ORPHAN in finalizers:
            self._orphan(key, stored)
        elif meta.get("deletionTimestamp") and FOREGROUND in finalizers:
            self._foreground(key, stored)
        elif not meta.get("deletionTimestamp"):
            self._owners_gone(key, stored)
        return None

    def _owners_gone(self, key: Place, stored: Stored) -> None:
        owners = stored.object["metadata"].get("ownerReferences") or []
        if not owners or any(owner["uid"] in self._uids for owner in owners):
            waiting = [owner for owner in owners if self._waits(owner)]
            if not waiting or len(waiting) < len([o for o in owners if o["uid"] in self._uids]):
                return
            self._delete(key, DeleteOptions(propagation="Foreground"))
            return
        self._delete(key, DeleteOptions(propagation="Background"))

    def _waits(self, owner: Object) -> bool:
        place = self._uids.get(owner["uid"])
        stored = self.objects.store.get(*place) if place else None
        meta = stored.object["metadata"] if stored else {}
        return bool(meta.get("deletionTimestamp")) and FOREGROUND in (meta.get("finalizers") or [])

    def _foreground(self, key: Place, stored: Stored) -> None:
        uid = stored.object["metadata"]["uid"]
        blocking = False
        for place in sorted(self._dependents.get(uid, ())):
            dependent = self.objects.store.get(*place)
            if dependent is None:
                continue
            owner = next(one for one in dependent.object["metadata"]["ownerReferences"] if one["uid"] == uid)
            blocking |= bool(owner.get("blockOwnerDeletion"))
            if not dependent.object["metadata"].get("deletionTimestamp"):
                self._owners_gone(place, dependent)
        if not blocking or not self._dependents.get(uid):
            self._drop_finalizer(key, FOREGROUND)

    def _orphan(self, key: Place, stored: Stored) -> None:
        uid = stored.object["metadata"]["uid"]
        for place in sorted(self._dependents.get(uid, ())):
            resource, namespace, name = place

            def leave(body: Object) -> None:
                owners = [one for one in body["metadata"]["ownerReferences"] if one["uid"] != uid]
                body["metadata"]["ownerReferences"] = owners

            if self.objects.store.get(*place) is not None:
                self.objects.change(self.objects.kind(resource), namespace, name, leave)
        self._drop_finalizer(key, ORPHAN)

    def _drop_finalizer(self, key: Place, finalizer: str) -> None:
        resource, namespace, name = key

        def drop(body: Object) -> None:
            left = [one for one in body["metadata"].get("finalizers") or [] if one != finalizer]
            body["metadata"]["finalizers"] = left

        self.objects.change(self.objects.kind(resource), namespace, name, drop)

    def _delete(self, key: Place, options: DeleteOptions) -> None:
        resource, namespace, name = key
        self.objects.delete(self.objects.kind(resource), namespace, name, options)

    def _learn(self, resource: str, stored: Stored) -> None:
        place = (resource, stored.namespace, stored.name)
        meta = stored.object["metadata"]
        self._uids[meta["uid"]] = place
        for owner in meta.get("ownerReferences") or []:
            self._dependents.setdefault(owner["uid"], set()).add(place)

    def _forget(self, place: Place, stored: Stored) -> None:
        meta = stored.object["metadata"]
        if self._uids.get(meta["uid"]) == place:
            del self._uids[meta["uid"]]
        for owner in meta.get("ownerReferences") or []:
            places = self._dependents.get(owner["uid"], set())
            places.discard(place)
            if not places:
                self._dependents.pop(owner["uid"], None)
