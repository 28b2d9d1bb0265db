"""Events: what controllers say about objects. The same thing said again is counted, not repeated."""

from __future__ import annotations

import hashlib
from typing import Any

from podwire.apiserver.objects import Objects
from podwire.apiserver.stamps import now

Object = dict[str, Any]


def record(
    objects: Objects, about: Object, kind: str, reason: str, message: str, component: str, host: str = ""
) -> None:
    """Store or count an event. `kind` is Normal or Warning; `host` the node that says it.

    The name begins with the object's, cut so that the whole is a name.
    """
    meta = about["metadata"]
    namespace = meta.get("namespace") or "default"
    said = "\0".join((meta.get("uid", ""), kind, reason, message, component))
    name = f"{meta['name'][:200].rstrip('-.')}.{hashlib.sha256(said.encode()).hexdigest()[:16]}"
    events = objects.kind("events")
    space = objects.find("namespaces", "", namespace)
    if space is None or space["metadata"].get("deletionTimestamp"):
        return
    if objects.find("events", namespace, name) is not None:

        def again(event: Object) -> None:
            event["count"] = event.get("count", 1) + 1
            event["lastTimestamp"] = now()

        objects.change(events, namespace, name, again)
        return
    moment = now()
    involved = {
        "kind": about["kind"],
        "apiVersion": about["apiVersion"],
        "name": meta["name"],
        "uid": meta.get("uid", ""),
        "resourceVersion": meta.get("resourceVersion", ""),
    }
    if meta.get("namespace"):
        involved["namespace"] = namespace
    body = {
        "metadata": {"name": name, "namespace": namespace},
        "involvedObject": involved,
        "reason": reason,
        "message": message[:1024],
        "source": {"component": component, **({"host": host} if host else {})},
        "reportingComponent": component,
        "firstTimestamp": moment,
        "lastTimestamp": moment,
        "count": 1,
        "type": kind,
    }
    objects.create(events, namespace, body)
