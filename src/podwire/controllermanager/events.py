"""Events: what controllers say about objects. The same thing said again is counted, not repeated.

`podwire.stores.events` does the same where the API is asked and not held.
"""

from __future__ import annotations

from typing import Any

from podwire.apiserver.objects import Objects
from podwire.base.moments import now
from podwire.model.event import Saying, again, event

Object = dict[str, Any]


def record(
    objects: Objects, about: Object, kind: str, reason: str, message: str, component: str, host: str = ""
) -> None:
    """Store or count an event. `kind` is Normal or Warning; `host` the node that says it."""
    first = event(about, Saying(kind, reason, message, component, host), now())
    namespace, name = first["metadata"]["namespace"], first["metadata"]["name"]
    events = objects.kind("events")
    space = objects.find("namespaces", "", namespace)
    if space is None or space["metadata"].get("deletionTimestamp"):
        return
    if objects.find("events", namespace, name) is None:
        objects.create(events, namespace, first)
        return
    objects.change(events, namespace, name, lambda before: before | again(before, first))
