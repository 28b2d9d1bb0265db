"""The embedded API as the sandbox's own parts use it: the same objects and rules, without HTTP."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from podwire.apiserver.objects import Objects
from podwire.apiserver.options import DeleteOptions
from podwire.apiserver.status import StatusError
from podwire.apiserver.store import Change
from podwire.controllermanager.events import record
from podwire.controllermanager.podstate import ready

Object = dict[str, Any]


class Cluster:
    """What the sandbox reads and writes of the cluster's objects."""

    def __init__(self, objects: Objects) -> None:
        self.objects = objects

    def follow(self, resource: str, heard: Callable[[Change], None]) -> None:
        """Call `heard` for each change of `resource` from now on, in order."""

        def listener(change: Change) -> None:
            if change.resource == resource:
                heard(change)

        self.objects.store.listeners.append(listener)

    def find(self, resource: str, namespace: str, name: str) -> Object | None:
        return self.objects.find(resource, namespace, name)

    def all(self, resource: str, namespace: str | None = None) -> list[Object]:
        return self.objects.all(resource, namespace)

    def pods_of(self, node: str) -> Iterator[Object]:
        for pod in self.objects.all("pods"):
            if pod["spec"].get("nodeName") == node:
                yield pod

    def says_ready(self, node: str) -> bool:
        """What the node's object says."""
        return ready(self.find("nodes", "", node) or {})

    def ensure(self, resource: str, namespace: str, body: Object) -> None:
        """Create `body`, or give the one that is there its spec, status and labels."""
        kind = self.objects.kind(resource)
        name = body["metadata"]["name"]
        if self.objects.find(resource, namespace, name) is None:
            self.objects.create(kind, namespace, body)
        else:
            parts: Object = {key: body[key] for key in ("spec", "data") if key in body}
            labels = body["metadata"].get("labels", {})
            self.objects.change(kind, namespace, name, lambda old: _with(old, parts, labels))
        if "status" in body and kind.has_status:
            self.edit_status(resource, namespace, name, lambda old: old | {"status": body["status"]})

    def edit_status(
        self, resource: str, namespace: str, name: str, edit: Callable[[Object], Object], uid: str = ""
    ) -> bool:
        """Change the status; False where the object is gone (or is another one by now)."""
        found = self.objects.find(resource, namespace, name)
        if found is None or (uid and found["metadata"]["uid"] != uid):
            return False
        self.objects.change(self.objects.kind(resource), namespace, name, edit, subresource="status")
        return True

    def delete_pod(self, namespace: str, name: str, uid: str) -> None:
        """The node has ended the pod: remove the object."""
        try:
            self.objects.delete(self.objects.kind("pods"), namespace, name, DeleteOptions(grace=0, uid=uid))
        except StatusError as error:
            if error.code not in (404, 409):
                raise

    def event(
        self, about: Object, kind: str, reason: str, message: str, *, source: str, node: str = ""
    ) -> None:
        """An Event about an object; the same again counts up instead of being written anew."""
        try:
            record(self.objects, about, kind, reason, message, source, node)
        except StatusError as error:
            if error.code not in (403, 404):  # its namespace is going or gone
                raise


def _with(old: Object, parts: Object, labels: dict[str, str]) -> Object:
    old.update(parts)
    if labels:
        old["metadata"]["labels"] = {**old["metadata"].get("labels", {}), **labels}
    return old
