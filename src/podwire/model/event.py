"""An Event of the API: what somebody says about an object, as all who say something write it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

Object = dict[str, Any]
MESSAGE_MOST = 1024  # characters the API takes


class Saying(msgspec.Struct, frozen=True):
    """`kind` is Normal or Warning; `host` the node that says it."""

    kind: str
    reason: str
    message: str
    component: str
    host: str = ""


def event(about: Mapping[str, Any], saying: Saying, moment: str, same: Iterable[str] = ()) -> Object:
    """The first one, written at `moment`. Its name is made of what it says: said again, it is the same.

    `same` is what makes two the same: by default all that is said. The name begins with the object's,
    cut so that the whole is a name.
    """
    meta = about["metadata"]
    namespace = meta.get("namespace") or ""
    parts = tuple(same) or (saying.kind, saying.reason, saying.message, saying.component)
    digest = hashlib.sha256("\0".join((meta.get("uid") or "", *parts)).encode()).hexdigest()[:16]
    involved = {
        "kind": about["kind"],
        "apiVersion": about["apiVersion"],
        "namespace": namespace,
        "name": meta["name"],
        "uid": meta.get("uid"),
        "resourceVersion": meta.get("resourceVersion"),
    }
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": f"{meta['name'][:200].rstrip('-.')}.{digest}",
            "namespace": namespace or "default",  # an object without one is spoken of there
        },
        "involvedObject": {name: value for name, value in involved.items() if value},
        "type": saying.kind,
        "reason": saying.reason,
        "message": saying.message[:MESSAGE_MOST],
        "source": {"component": saying.component, **({"host": saying.host} if saying.host else {})},
        "reportingComponent": saying.component,
        "firstTimestamp": moment,
        "lastTimestamp": moment,
        "count": 1,
    }


def again(before: Mapping[str, Any], said: Mapping[str, Any]) -> Object:
    """What changes of the Event `before` when `said`, of the same name, is said: it is counted."""
    return {
        "count": int(before.get("count") or 1) + 1,
        "lastTimestamp": said["lastTimestamp"],
        "message": said["message"],
    }
