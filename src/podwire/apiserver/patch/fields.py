"""Sets of fields: which paths an object has, and FieldsV1, the form they are written down in. Pure.

A path is a tuple of steps as FieldsV1 writes them: ``f:name`` a member, ``k:{"name":"web"}`` an item
of a list keyed by fields, ``v:"text"`` a member of a set. Lists and maps that the schema calls atomic
are one field.
"""

from __future__ import annotations

from typing import Any

import msgspec

from podwire.apiserver.kinds import Kind
from podwire.apiserver.schemas.resolve import resolve

Object = dict[str, Any]
Path = tuple[str, ...]
Paths = set[Path]

_META = {"$ref": "#/components/schemas/ObjectMeta"}
_OWN = frozenset(
    f"f:{name}"
    for name in (
        *("name", "generateName", "namespace", "uid", "resourceVersion", "selfLink", "creationTimestamp"),
        *("generation", "deletionTimestamp", "deletionGracePeriodSeconds", "managedFields"),
    )
)
_missing = object()


def schema_of(kind: Kind) -> Object:
    """The schema of whole objects of `kind`, metadata included."""
    root = resolve(kind.schema or {"type": "object", "x-kubernetes-preserve-unknown-fields": True})
    return {**root, "properties": {**(root.get("properties") or {}), "metadata": _META}}


def paths(schema: Object, body: Object) -> Paths:
    """All fields of a whole object that somebody can own."""
    found: Paths = set()
    properties = schema.get("properties") or {}
    for name, value in body.items():
        if name not in ("apiVersion", "kind"):
            _collect(member_schema(schema, properties, name), value, (f"f:{name}",), found)
    return {path for path in found if not (path[0] == "f:metadata" and (len(path) == 1 or path[1] in _OWN))}


def member_schema(schema: Object, properties: Object, name: str) -> Object:
    """The schema of one member of a map."""
    inner = properties.get(name)
    if inner is None:
        extra = schema.get("additionalProperties")
        inner = extra if isinstance(extra, dict) else {}
    return resolve(inner)


def _collect(schema: Object, value: Any, path: Path, found: Paths) -> None:
    if isinstance(value, dict) and value and not is_atomic(schema):
        properties = schema.get("properties") or {}
        for name, inner in value.items():
            _collect(member_schema(schema, properties, name), inner, (*path, f"f:{name}"), found)
    elif isinstance(value, list) and value and list_type(schema) == "map":
        items = resolve(schema.get("items") or {})
        for item in value:
            step = key_step(schema, item)
            if step is None:
                found.add(path)
                continue
            found.add((*path, step))
            properties = items.get("properties") or {}
            for name, inner in item.items():
                _collect(member_schema(items, properties, name), inner, (*path, step, f"f:{name}"), found)
    elif isinstance(value, list) and value and list_type(schema) == "set":
        for item in value:
            found.add((*path, "v:" + _text(item)))
    else:
        found.add(path)


def is_atomic(schema: Object) -> bool:
    """Whether a map is one field."""
    return schema.get("x-kubernetes-map-type") == "atomic"


def list_type(schema: Object) -> str:
    """atomic, set or map."""
    return str(schema.get("x-kubernetes-list-type") or "atomic")


def key_step(schema: Object, item: Any) -> str | None:
    """``k:{…}`` of an item of a keyed list; None where it has not all keys."""
    if not isinstance(item, dict):
        return None
    properties = resolve(schema.get("items") or {}).get("properties") or {}
    key: Object = {}
    for name in sorted(schema.get("x-kubernetes-list-map-keys") or ()):
        value = item.get(name, (properties.get(name) or {}).get("default", _missing))
        if value is not _missing:
            key[name] = value
    return "k:" + _text(key) if key else None


def lookup(schema: Object, body: Any, path: Path) -> Any:
    """The value at a path, or `MISSING`."""
    for step in path:
        if step.startswith("f:"):
            if not isinstance(body, dict) or step[2:] not in body:
                return _missing
            schema, body = member_schema(schema, schema.get("properties") or {}, step[2:]), body[step[2:]]
        elif step.startswith("k:"):
            index = index_of(schema, body, step)
            if index is None:
                return _missing
            schema, body = resolve(schema.get("items") or {}), body[index]
        else:
            return (
                True
                if isinstance(body, list) and any("v:" + _text(one) == step for one in body)
                else _missing
            )
    return body


MISSING = _missing


def index_of(schema: Object, items: Any, step: str) -> int | None:
    """Where in a keyed list the item of `step` is."""
    if not isinstance(items, list):
        return None
    return next((index for index, item in enumerate(items) if key_step(schema, item) == step), None)


def remove(schema: Object, body: Any, path: Path) -> None:
    """Take the field at `path` away; what becomes empty by it stays, as an empty map or list goes."""
    step, rest = path[0], path[1:]
    if step.startswith("f:"):
        name = step[2:]
        if not isinstance(body, dict) or name not in body:
            return
        if not rest:
            del body[name]
            return
        remove(member_schema(schema, schema.get("properties") or {}, name), body[name], rest)
        if body[name] in ({}, []):
            del body[name]
    elif step.startswith("k:"):
        index = index_of(schema, body, step)
        if index is None:
            return
        if not rest:
            del body[index]
        elif rest[0][2:] not in schema.get("x-kubernetes-list-map-keys", ()):  # a key goes with its item
            remove(resolve(schema.get("items") or {}), body[index], rest)
    elif isinstance(body, list):
        body[:] = [one for one in body if "v:" + _text(one) != step]


def encode(fields: Paths) -> Object:
    """FieldsV1 of a set."""
    tree: Object = {}
    for path in sorted(fields):
        node = tree
        for step in path:
            node = node.setdefault(step, {})
        node["."] = {}
    return _trimmed(tree)


def _trimmed(tree: Object) -> Object:
    """A leaf is written as an empty map; ``.`` only marks nodes that have members, too."""
    return {
        step: {} if step == "." or set(inner) == {"."} else _trimmed(inner)
        for step, inner in sorted(tree.items())
    }


def decode(tree: Any) -> Paths:
    """The set that FieldsV1 stands for; what is no FieldsV1 is an empty set."""
    found: Paths = set()
    _walk(tree, (), found, 0)
    return found


def _walk(tree: Any, path: Path, found: Paths, depth: int) -> None:
    if not isinstance(tree, dict) or depth > 60:
        return
    if path and not tree:
        found.add(path)
    for step, inner in tree.items():
        if step == ".":
            found.add(path)
        elif step[:2] in ("f:", "k:", "v:"):
            _walk(inner, (*path, step), found, depth + 1)


def shown(path: Path) -> str:
    """A path for people: ``.spec.containers[name="web"].image``."""
    text = ""
    for step in path:
        if step.startswith("f:"):
            text += "." + step[2:]
        elif step.startswith("k:"):
            keys = msgspec.json.decode(step[2:])
            text += "[" + ",".join(f"{name}={_text(value)}" for name, value in keys.items()) + "]"
        else:
            text += f"[={step[2:]}]"
    return text


def _text(value: Any) -> str:
    return msgspec.json.encode(value, order="sorted").decode()
