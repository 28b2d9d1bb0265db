"""Objects as kubectl prints them: metav1.Table with the columns of their kind. Pure."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from podwire.apiserver import columns, jsonpath, versions
from podwire.apiserver.kinds import Kind
from podwire.apiserver.store import Stored

Object = dict[str, Any]


class Column(NamedTuple):
    """A column: its head, and what stands in it."""

    name: str
    priority: int
    value: Callable[[Object], Any]
    type: str = "string"
    format: str = ""
    description: str = ""


def render(kind: Kind, stored: Stored) -> bytes:
    """The JSON of an object as `kind` serves it."""
    shown = versions.served(kind, stored.object)
    return stored.encoded if shown is stored.object else msgspec.json.encode(shown)


def partial(body: Object) -> Object:
    """PartialObjectMetadata."""
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": body["metadata"]}


def table(
    kind: Kind,
    chosen: list[Stored],
    include: str,
    moment: datetime,
    *,
    meta: Object | None = None,
    revision: int = 0,
) -> Object:
    """A Table with one row an object, read at `moment`. `include` says what of the object comes along."""
    heads = of_kind(kind)
    rows = []
    for one in chosen:
        row: Object = {"cells": [_cell(head.value(one.object), moment) for head in heads]}
        if include == "Metadata":
            row["object"] = partial(one.object)
        elif include == "Object":
            row["object"] = versions.served(kind, one.object)
        rows.append(row)
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": meta or {"resourceVersion": str(revision)},
        "columnDefinitions": [_definition(head) for head in heads],
        "rows": rows,
    }


def _cell(value: Any, moment: datetime) -> Any:
    return value.at(moment) if isinstance(value, columns.Since) else value


def of_kind(kind: Kind) -> list[Column]:
    """The columns of a kind: declared here, by its definition, or name and age."""
    name = Column("Name", 0, lambda body: body["metadata"]["name"], format="name")
    if kind.resource in columns.COLUMNS:
        own = [Column(head, priority, value) for head, priority, value in columns.COLUMNS[kind.resource]]
        return own if kind.resource == "events" else [name, *own]
    if kind.columns:
        return [name, *(_declared(one) for one in kind.columns)]
    return [name, Column("Age", 0, columns.age)]


def _declared(column: Object) -> Column:
    path, kind = column["jsonPath"], column["type"]

    def value(body: Object) -> Any:
        found = jsonpath.find(path, body)
        if not found or found[0] is None:
            return None
        if kind == "date":
            return columns.Since(found[0]) if isinstance(found[0], str) else None
        if kind in ("integer", "number", "boolean") and len(found) == 1:
            return found[0]
        return ",".join(one if isinstance(one, str) else msgspec.json.encode(one).decode() for one in found)

    more = {"format": column.get("format", ""), "description": column.get("description", "")}
    shown = "string" if kind == "date" else kind
    return Column(column["name"], column.get("priority", 0), value, shown, **more)


def _definition(head: Column) -> Object:
    return {
        "name": head.name,
        "type": head.type,
        "format": head.format,
        "description": head.description,
        "priority": head.priority,
    }
