"""Objects as kubectl prints them: metav1.Table rows. Pure."""

from __future__ import annotations

from typing import Any

from podwire.apiserver.kinds import Kind
from podwire.apiserver.store import Stored

Object = dict[str, Any]


def render(kind: Kind, stored: Stored) -> bytes:
    """The JSON of an object as `kind` serves it."""
    return stored.encoded


def partial(body: Object) -> Object:
    """PartialObjectMetadata."""
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": body["metadata"]}


def table(
    kind: Kind, chosen: list[Stored], include: str, *, meta: Object | None = None, revision: int = 0
) -> Object:
    """A Table with one row an object."""
    columns = [
        {"name": "Name", "type": "string", "format": "name", "description": "", "priority": 0},
        {"name": "Created At", "type": "date", "format": "", "description": "", "priority": 0},
    ]
    rows = []
    for one in chosen:
        cells = [one.name, one.object["metadata"]["creationTimestamp"]]
        row: Object = {"cells": cells}
        if include == "Metadata":
            row["object"] = partial(one.object)
        elif include == "Object":
            row["object"] = one.object
        rows.append(row)
    head = meta or {"resourceVersion": str(revision)}
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": head,
        "columnDefinitions": columns,
        "rows": rows,
    }
