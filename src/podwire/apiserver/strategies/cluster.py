"""Namespaces, nodes, configuration, events and definitions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from podwire.apiserver import crd
from podwire.apiserver.kinds import Strategy

if TYPE_CHECKING:
    from podwire.apiserver.objects import Objects

Object = dict[str, Any]


class ConfigMaps(Strategy):
    pass


class Secrets(Strategy):
    def default(self, body: Object) -> None:
        body.setdefault("type", "Opaque")


class Events(Strategy):
    pass


class Namespaces(Strategy):
    def create(self, body: Object, objects: Objects) -> None:
        body["spec"] = {"finalizers": ["kubernetes"]}
        body["status"] = {"phase": "Active"}
        body["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = body["metadata"]["name"]


class Nodes(Strategy):
    pass


class Definitions(Strategy):
    generation = True

    def create(self, body: Object, objects: Objects) -> None:
        body["status"] = crd.accepted(body)

    def update(self, body: Object, old: Object, objects: Objects) -> None:
        body["status"] = {**crd.accepted(body), **{"conditions": old["status"]["conditions"]}}
