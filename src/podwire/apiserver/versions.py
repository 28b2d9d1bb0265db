"""One object in several versions: as it is stored and as a kind serves it. Pure.

Custom kinds differ in their apiVersion alone (conversion strategy None); events are served both as
``v1`` and as ``events.k8s.io/v1``, where the same things have other names.
"""

from __future__ import annotations

from typing import Any

from podwire.apiserver.kinds import Kind

Object = dict[str, Any]

_EVENT_NAMES = {
    "involvedObject": "regarding",
    "message": "note",
    "source": "deprecatedSource",
    "firstTimestamp": "deprecatedFirstTimestamp",
    "lastTimestamp": "deprecatedLastTimestamp",
    "count": "deprecatedCount",
    "reportingComponent": "reportingController",
}


def served(kind: Kind, body: Object) -> Object:
    """A stored object as `kind` shows it; the very object where nothing differs."""
    if not kind.storage or body["apiVersion"] == kind.api_version:
        return body
    if kind.group == "events.k8s.io":
        body = {_EVENT_NAMES.get(name, name): value for name, value in body.items()}
    return {**body, "apiVersion": kind.api_version}


def stored(kind: Kind, body: Object, api_version: str) -> Object:
    """An object of `kind` as it is kept."""
    if not kind.storage:
        return body
    if kind.group == "events.k8s.io":
        names = {new: old for old, new in _EVENT_NAMES.items()}
        body = {names.get(name, name): value for name, value in body.items()}
        body.setdefault("involvedObject", {})
    return {**body, "apiVersion": api_version}
