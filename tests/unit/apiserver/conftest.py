"""Objects of a cluster in memory: the API's rules without sockets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from podwire.apiserver import ClusterSettings, bootstrap
from podwire.apiserver.builtin import registry
from podwire.apiserver.kinds import Kind
from podwire.apiserver.objects import Objects
from podwire.apiserver.patching import Target
from podwire.apiserver.store import Store
from podwire.controllermanager import Controllers, standard

Object = dict[str, Any]


class World:
    """A cluster without a server: its objects, its controllers, and words to use them shortly."""

    def __init__(self, path: str = ":memory:") -> None:
        self.store = Store(path)
        kinds = registry()
        bootstrap.follow_definitions(self.store, kinds)
        self.objects = Objects(
            self.store, kinds, ClusterSettings(service_cidrs=("10.96.0.0/24", "fd00::/112"))
        )
        self.controllers: Controllers = standard(self.objects, b"authority")
        bootstrap.bootstrap(self.objects, [("192.0.2.1", 6443)])
        self.now = 0.0
        self.settle()

    def settle(self, after: float = 0.0) -> None:
        """Let the controllers do what is to do, `after` so many seconds."""
        self.now += after
        self.controllers.settle(self.now)

    def kind(self, name: str) -> Kind:
        """By plural."""
        return next(kind for kind in self.objects.registry if kind.plural == name and not kind.storage)

    def create(self, plural: str, body: Object, namespace: str = "default") -> Object:
        kind = self.kind(plural)
        return self.objects.create(kind, namespace if kind.namespaced else "", body).stored.object

    def get(self, plural: str, name: str, namespace: str = "default") -> Object:
        kind = self.kind(plural)
        return self.objects.get(kind, namespace if kind.namespaced else "", name).copy()

    def has(self, plural: str, name: str, namespace: str = "default") -> bool:
        kind = self.kind(plural)
        return self.store.get(kind.resource, namespace if kind.namespaced else "", name) is not None

    def all(self, plural: str, namespace: str | None = None) -> list[Object]:
        return self.objects.all(self.kind(plural).resource, namespace)

    def patch(
        self, plural: str, name: str, form: str, body: Any, options: Any, namespace: str = "default"
    ) -> Object:
        kind = self.kind(plural)
        target = Target(self.objects, kind, namespace if kind.namespaced else "", name)
        return target.patch(form, body, options).stored.object

    def node(self, name: str, **labels: str) -> Object:
        """A ready node."""
        ready = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
        meta = {"name": name, "labels": {"kubernetes.io/hostname": name, **labels}}
        return self.create("nodes", {"metadata": meta, "status": {"conditions": [ready]}})

    def run(self, name: str, address: str, namespace: str = "default", *, ready: bool = True) -> None:
        """What a node would say of a pod that it runs."""
        condition = {"type": "Ready", "status": str(ready), "lastTransitionTime": "2026-01-01T00:00:00Z"}

        def say(body: Object) -> None:
            families = [address, f"fd01::{address.rsplit('.')[-1]}"]
            body["status"] |= {
                "phase": "Running",
                "podIP": address,
                "podIPs": [{"ip": one} for one in families],
                "conditions": [condition],
            }

        self.objects.change(self.kind("pods"), namespace, name, say, subresource="status")


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.store.close()
