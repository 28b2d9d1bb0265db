"""Namespaces: what each has from the start, and emptying those that are deleted. Old events go, too."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from podwire.apiserver.objects import Objects
from podwire.apiserver.store import Change
from podwire.controllermanager.loop import Controller

Object = dict[str, Any]
_EVENTS_LIVE = 3600.0
_SWEEP = 60.0
_EVENTS = ("events", "")


class Namespaces(Controller):
    name = "namespaces"

    def __init__(self, objects: Objects, authority: bytes) -> None:
        super().__init__(objects)
        self._authority = authority.decode()

    def start(self) -> Iterable[str | tuple[str, str]]:
        return [*(one["metadata"]["name"] for one in self.objects.all("namespaces")), _EVENTS]

    def keys(self, change: Change) -> Iterable[str]:
        if change.resource == "namespaces":
            return [change.stored.name]
        if change.kind == "DELETED" and change.stored.namespace:
            return [change.stored.namespace]
        return ()

    def reconcile(self, key: str | tuple[str, str]) -> float | None:
        if isinstance(key, tuple):
            self._sweep_events()
            return _SWEEP
        space = self.objects.find("namespaces", "", key)
        if space is None:
            return None
        if space["metadata"].get("deletionTimestamp"):
            self._empty(key)
        else:
            self._furnish(key)
        return None

    def _furnish(self, name: str) -> None:
        objects = self.objects
        if objects.find("serviceaccounts", name, "default") is None:
            objects.create(objects.kind("serviceaccounts"), name, {"metadata": {"name": "default"}})
        data = {"ca.crt": self._authority}
        known = objects.find("configmaps", name, "kube-root-ca.crt")
        if known is None:
            body = {"metadata": {"name": "kube-root-ca.crt"}, "data": data}
            objects.create(objects.kind("configmaps"), name, body)
        elif known.get("data") != data:
            objects.change(
                objects.kind("configmaps"), name, "kube-root-ca.crt", lambda body: {**body, "data": data}
            )

    def _empty(self, name: str) -> None:
        objects, left = self.objects, False
        for resource in objects.store.resources():
            kind = objects.registry.of_resource(resource)
            if kind is None or not kind.namespaced:
                continue
            for stored in objects.store.list(resource, name):
                if not stored.object["metadata"].get("deletionTimestamp"):
                    left |= not objects.delete(kind, name, stored.name).removed
                else:
                    left = True
        if not left:
            objects.finalize_namespace(name, [])

    def _sweep_events(self) -> None:
        moment = datetime.now(UTC)
        for stored in self.objects.store.list("events"):
            time = stored.object.get("lastTimestamp") or stored.object["metadata"]["creationTimestamp"]
            if (moment - datetime.fromisoformat(time)).total_seconds() > _EVENTS_LIVE:
                self.objects.store.remove("events", stored.namespace, stored.name)
