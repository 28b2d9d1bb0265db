"""CustomResourceDefinitions: names, versions, and schemas that are structural."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import msgspec

from podwire.apiserver import crd, jsonpath
from podwire.apiserver.kinds import Cluster, Strategy
from podwire.apiserver.metadata import is_label, is_subdomain
from podwire.apiserver.status import FieldError, forbidden_field, invalid, required
from podwire.base.moments import now

Object = dict[str, Any]
_VERSION = re.compile(r"^v[1-9][0-9]*((alpha|beta)[1-9][0-9]*)?$")
_REFUSED = ("$ref", "$schema", "id", "patternProperties", "dependencies", "additionalItems", "definitions")
_DEPTH = 60
_PLACEMENT = "CustomResourceDefinition"


class Definitions(Strategy):
    generation = True

    def default(self, body: Object) -> None:
        names = body.get("spec", {}).get("names") or {}
        if names.get("kind"):
            names.setdefault("singular", names["kind"].lower())
            names.setdefault("listKind", names["kind"] + "List")
        body.get("spec", {}).setdefault("conversion", {"strategy": "None"})

    def create(self, body: Object, cluster: Cluster) -> None:
        errors = list(_valid(body, None)) or list(_clashes(body, cluster))
        if errors:
            raise invalid(_PLACEMENT, "apiextensions.k8s.io", body["metadata"]["name"], errors)
        body["status"] = crd.accepted(body, now())

    def update(self, body: Object, old: Object, cluster: Cluster) -> None:
        if errors := list(_valid(body, old)):
            raise invalid(_PLACEMENT, "apiextensions.k8s.io", body["metadata"]["name"], errors)
        conditions = old.get("status", {}).get("conditions")
        body["status"] = {**crd.accepted(body, now()), **({"conditions": conditions} if conditions else {})}

    def deleted(self, body: Object, cluster: Cluster) -> None:
        cluster.purge(body["metadata"]["name"])


def _clashes(body: Object, cluster: Cluster) -> Iterator[FieldError]:
    spec = body["spec"]
    for kind in cluster.registry:
        if kind.group == spec["group"] and kind.kind == spec["names"]["kind"]:
            yield FieldError("spec.names.kind", "is in use by another resource", value=kind.kind)
        if kind.group == spec["group"] and kind.plural == spec["names"]["plural"]:
            yield FieldError("spec.names.plural", "is in use by another resource", value=kind.plural)


def _valid(body: Object, old: Object | None) -> Iterator[FieldError]:
    spec = body["spec"]
    names = spec["names"]
    if body["metadata"]["name"] != f"{names['plural']}.{spec['group']}":
        yield FieldError(
            "metadata.name", 'must be spec.names.plural+"."+spec.group', value=body["metadata"]["name"]
        )
    if not is_subdomain(spec["group"]) or "." not in spec["group"]:
        yield FieldError("spec.group", "should be a domain with at least one dot", value=spec["group"])
    for name in ("plural", "singular"):
        if not is_label(names.get(name) or ""):
            yield FieldError(f"spec.names.{name}", "must be a DNS label", value=names.get(name))
    if old is not None and (
        old["spec"]["scope"] != spec["scope"] or old["spec"]["names"]["kind"] != names["kind"]
    ):
        yield FieldError("spec", "scope and kind are immutable", value="")
    if (spec.get("conversion") or {}).get("strategy", "None") != "None":
        yield forbidden_field("spec.conversion", "only strategy None is supported")
    versions = spec["versions"]
    if sum(bool(one.get("storage")) for one in versions) != 1:
        yield FieldError("spec.versions", "must have exactly one version marked as storage version", value="")
    seen: set[str] = set()
    for index, version in enumerate(versions):
        path = f"spec.versions[{index}]"
        if not _VERSION.match(version["name"]) or version["name"] in seen:
            yield FieldError(f"{path}.name", "must be unique, as v1 or v1beta1", value=version["name"])
        seen.add(version["name"])
        for number, column in enumerate(version.get("additionalPrinterColumns") or []):
            if detail := jsonpath.fault(column["jsonPath"]):
                at = f"{path}.additionalPrinterColumns[{number}].jsonPath"
                yield FieldError(
                    at, f"must be a JSONPath of members and indexes: {detail}", value=column["jsonPath"]
                )
        schema = (version.get("schema") or {}).get("openAPIV3Schema")
        if schema is None:
            yield required(f"{path}.schema.openAPIV3Schema", "schemas are required")
            continue
        if schema.get("type") != "object":
            yield FieldError(
                f"{path}.schema.openAPIV3Schema.type", "must be object at the root", value=schema.get("type")
            )
        yield from _faults(msgspec.json.encode(schema), f"{path}.schema.openAPIV3Schema")


@lru_cache(maxsize=32)
def _faults(schema: bytes, path: str) -> tuple[FieldError, ...]:
    """The same schemas come again at every start."""
    return tuple(_structural(msgspec.json.decode(schema), path, 0))


def _structural(schema: Any, path: str, depth: int, *, typed: bool = True) -> Iterator[FieldError]:
    if not isinstance(schema, dict) or depth > _DEPTH:
        yield FieldError(path, "must be a schema, not nested too deeply", value="")
        return
    for name in _REFUSED:
        if name in schema:
            yield forbidden_field(f"{path}.{name}", "is not supported")
    free = schema.get("x-kubernetes-preserve-unknown-fields") or schema.get("x-kubernetes-int-or-string")
    if typed and not schema.get("type") and not free:
        yield required(f"{path}.type", "must not be empty for specified object fields")
    if isinstance(pattern := schema.get("pattern"), str) and not _compiles(pattern):
        yield FieldError(f"{path}.pattern", "must be a regular expression", value=pattern)
    properties = schema.get("properties") or {}
    if isinstance(properties, dict):
        for name, inner in properties.items():
            yield from _structural(inner, f"{path}.properties[{name}]", depth + 1, typed=typed)
    if schema.get("type") == "array" and typed and "items" not in schema:
        yield required(f"{path}.items", "must be specified")
    if "items" in schema:
        yield from _structural(schema["items"], f"{path}.items", depth + 1, typed=typed)
    if isinstance(schema.get("additionalProperties"), dict):
        yield from _structural(
            schema["additionalProperties"], f"{path}.additionalProperties", depth + 1, typed=typed
        )
    for name in ("allOf", "anyOf", "oneOf"):
        for index, inner in enumerate(schema.get(name) or []):
            yield from _structural(inner, f"{path}.{name}[{index}]", depth + 1, typed=False)
    if "not" in schema:
        yield from _structural(schema["not"], f"{path}.not", depth + 1, typed=False)


def _compiles(pattern: str) -> bool:
    try:
        re.compile(pattern)
    except re.error:
        return False
    return True
