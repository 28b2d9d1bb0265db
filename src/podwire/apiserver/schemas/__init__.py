"""Schemas of the built-in kinds, by name.

Declared one line a field in the modules beside this one, in the small language that `language`
reads; made into OpenAPI v3 when first asked for.
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any

import msgspec

from podwire.apiserver.schemas import (
    cilium,
    cluster,
    containers,
    extensions,
    language,
    meta,
    network,
    placement,
    pods,
    volumes,
    workloads,
)

Object = dict[str, Any]
_MODULES = (meta, cluster, pods, containers, volumes, placement, workloads, network, extensions)


@cache
def definitions() -> dict[str, Object]:
    """All definitions of built-in kinds and their parts, as OpenAPI v3 schemas."""
    found: dict[str, Object] = {}
    for module in _MODULES:
        found.update(language.parse(module.DEFINITIONS))
    return found


@cache
def wire() -> dict[str, language.Numbers]:
    """Protobuf numbers of all definitions; see `language.wire`."""
    found: dict[str, language.Numbers] = {}
    for module in _MODULES:
        found.update(language.wire(module.DEFINITIONS))
    return found


def definition(name: str) -> Object:
    """The schema called `name`; KeyError if there is none."""
    return definitions()[name]


def written_out(name: str) -> Object:
    """One of Cilium's definitions without references, as a CustomResourceDefinition must have it."""
    found: Object = msgspec.json.decode(_written_out_once(name))  # the caller's own
    return found


@lru_cache(maxsize=64)
def _written_out_once(name: str) -> bytes:
    known = {**definitions(), **language.parse(cilium.DEFINITIONS)}
    return msgspec.json.encode(_written_out(known[name], known))


def _written_out(schema: Object, known: dict[str, Object]) -> Object:
    parts = [schema, *(schema.get("allOf") or [])]
    reference = next((one["$ref"] for one in parts if "$ref" in one), None)
    if reference is not None:
        target = _written_out(known[reference.rsplit("/", 1)[-1]], known)
        beside = {key: value for key, value in schema.items() if key not in ("$ref", "allOf")}
        return {**target, **beside}
    result = dict(schema)
    if "properties" in schema:
        result["properties"] = {name: _written_out(one, known) for name, one in schema["properties"].items()}
    for inner in ("items", "additionalProperties"):
        if isinstance(schema.get(inner), dict):
            result[inner] = _written_out(schema[inner], known)
    return result


def of_kind(group: str, kind: str) -> str:
    """The name of a built-in kind's definition."""
    return "EventsEvent" if (group, kind) == ("events.k8s.io", "Event") else kind
