"""OpenAPI v3 of what is served: what `kubectl explain`, `apply` and `diff` ask for. Pure.

One document a group and version: the schemas its kinds need, and the paths with the parameters that
tell kubectl what the server can do (fieldValidation, dryRun).
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from podwire.apiserver.kinds import Kind, Registry
from podwire.apiserver.schemas import definitions, of_kind

Object = dict[str, Any]
V2_PROTOBUF = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
_REF = "#/components/schemas/"
_TYPED: Object = {
    "apiVersion": {"type": "string", "description": "Version of the API this object is written in."},
    "kind": {"type": "string", "description": "What kind of object it is."},
}
_METHODS = {
    "get": "get",
    "list": "get",
    "create": "post",
    "update": "put",
    "patch": "patch",
    "delete": "delete",
}
_WRITES = ("post", "put", "patch")


def index(registry: Registry) -> Object:
    """``/openapi/v3``: where the documents are."""
    found: Object = {}
    for group, versions in registry.groups().items():
        for version in versions:
            place = f"apis/{group}/{version}" if group else f"api/{version}"
            digest = hashlib.sha256(msgspec.json.encode(document(registry, group, version))).hexdigest()[:32]
            found[place] = {"serverRelativeURL": f"/openapi/v3/{place}?hash={digest}"}
    return {"paths": found}


def document(registry: Registry, group: str, version: str) -> Object:
    """One group and version."""
    schemas: Object = {}
    paths: Object = {}
    for kind in registry.of_version(group, version):
        name = schema_name(kind)
        schemas[name] = _root(kind)
        _collect(schemas[name], schemas)
        paths.update(_paths(kind, name))
    for one in ("DeleteOptions", "Scale"):
        schemas.setdefault(one, _closed(definitions()[one]))
        _collect(schemas[one], schemas)
    info = {"title": "podwire", "version": "v1"}
    return {"openapi": "3.0.0", "info": info, "paths": paths, "components": {"schemas": schemas}}


def schema_name(kind: Kind) -> str:
    """The name of a kind's schema in its document."""
    if kind.custom:
        return ".".join([*reversed(kind.group.split(".")), kind.version, kind.kind])
    return of_kind(kind.group, kind.kind)


def _root(kind: Kind) -> Object:
    base = kind.schema or {"type": "object"} if kind.custom else definitions()[of_kind(kind.group, kind.kind)]
    properties = {**(base.get("properties") or {}), **_TYPED}
    if kind.custom:
        words = {"allOf": [{"$ref": _REF + "ObjectMeta"}], "description": "Standard metadata."}
        properties["metadata"] = words
    names = {"group": kind.group, "version": kind.version, "kind": kind.kind}
    return {**_closed(base), "properties": properties, "x-kubernetes-group-version-kind": [names]}


def _closed(schema: Object) -> Object:
    return {key: value for key, value in schema.items() if key != "x-kubernetes-preserve-unknown-fields"}


def _collect(schema: Any, schemas: Object) -> None:
    """Bring in every definition that is referred to."""
    if isinstance(schema, list):
        for one in schema:
            _collect(one, schemas)
    elif isinstance(schema, dict):
        reference = schema.get("$ref")
        if isinstance(reference, str):
            name = reference.removeprefix(_REF)
            if name not in schemas and name in definitions():
                schemas[name] = definitions()[name]
                _collect(schemas[name], schemas)
        for one in schema.values():
            _collect(one, schemas)


def _paths(kind: Kind, schema: str) -> Object:
    base = f"/apis/{kind.group}/{kind.version}" if kind.group else f"/api/{kind.version}"
    place = f"{base}/namespaces/{{namespace}}/{kind.plural}" if kind.namespaced else f"{base}/{kind.plural}"
    found = {place: _operations(kind, schema, ("list", "create"))}
    if kind.namespaced and "list" in kind.verbs:
        found[f"{base}/{kind.plural}"] = _operations(kind, schema, ("list",))
    if "get" in kind.verbs:
        found[place + "/{name}"] = _operations(kind, schema, ("get", "update", "patch", "delete"))
    if kind.has_status:
        found[place + "/{name}/status"] = _operations(kind, schema, ("get", "update", "patch"))
    return found


def _operations(kind: Kind, schema: str, verbs: tuple[str, ...]) -> Object:
    names = {"group": kind.group, "version": kind.version, "kind": kind.kind}
    content = {"application/json": {"schema": {"$ref": _REF + schema}}}
    found: Object = {}
    for verb in verbs:
        if verb not in kind.verbs:
            continue
        method = _METHODS[verb]
        operation: Object = {
            "operationId": f"{verb}{kind.kind}",
            "responses": {"200": {"description": "OK", "content": content}},
            "x-kubernetes-action": {"create": "post", "update": "put"}.get(verb, verb),
            "x-kubernetes-group-version-kind": names,
        }
        if method in _WRITES:
            operation["parameters"] = [
                _parameter(one) for one in ("dryRun", "fieldManager", "fieldValidation")
            ]
        if method == "patch":
            operation["parameters"].append(_parameter("force", "boolean"))
        found[method] = operation
    return found


def _parameter(name: str, kind: str = "string") -> Object:
    return {"name": name, "in": "query", "schema": {"type": kind}}
