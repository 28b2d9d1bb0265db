"""What a controller's object controls: found, taken over, and made from a template."""

from __future__ import annotations

from typing import Any

import msgspec

from podwire.apiserver.metadata import controller_of, owner_reference
from podwire.apiserver.objects import Objects
from podwire.apiserver.selectors import match
from podwire.controllermanager.podstate import active

Object = dict[str, Any]


def claimed(objects: Objects, owner: Object, resource: str = "pods") -> list[Object]:
    """What `owner` controls. Pods (or ReplicaSets) without a controller that its selector matches are
    taken over."""
    meta, selector = owner["metadata"], owner["spec"]["selector"]
    found = []
    for one in objects.all(resource, meta["namespace"]):
        controller = controller_of(one)
        if controller is not None:
            if controller["uid"] == meta["uid"]:
                found.append(one)
            continue
        labels = one["metadata"].get("labels") or {}
        if active(one) and match(selector, labels) and not meta.get("deletionTimestamp"):
            found.append(_adopt(objects, owner, resource, one))
    return found


def _adopt(objects: Objects, owner: Object, resource: str, one: Object) -> Object:
    def take(body: Object) -> None:
        owners = [*(body["metadata"].get("ownerReferences") or []), owner_reference(owner)]
        body["metadata"]["ownerReferences"] = owners

    meta = one["metadata"]
    return objects.change(objects.kind(resource), meta["namespace"], meta["name"], take).stored.object


def make(objects: Objects, owner: Object, template: Object, labels: dict[str, str], **spec: Any) -> Object:
    """A pod of a template, controlled by `owner`; `spec` members are laid over the template's."""
    meta = template.get("metadata") or {}
    body = {
        "metadata": {
            "generateName": owner["metadata"]["name"] + "-",
            "labels": {**(meta.get("labels") or {}), **labels},
            "annotations": dict(meta.get("annotations") or {}),
            "ownerReferences": [owner_reference(owner)],
        },
        "spec": {**msgspec.json.decode(msgspec.json.encode(template["spec"])), **spec},
    }
    return objects.create(objects.kind("pods"), owner["metadata"]["namespace"], body).stored.object
