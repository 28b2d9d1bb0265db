"""References inside schemas, followed."""

from __future__ import annotations

from typing import Any

from podwire.apiserver.schemas import definition

Object = dict[str, Any]

# A schema is kept beside its answer, so that its id stays its own.
_resolved: dict[int, tuple[Object, Object]] = {}


def resolve(schema: Object) -> Object:
    """Follow ``$ref`` and a single ``allOf`` with a reference (how OpenAPI v3 describes a reference)."""
    if "$ref" not in schema and "allOf" not in schema:
        return schema
    known = _resolved.get(id(schema))
    if known is None:
        known = _resolved[id(schema)] = (schema, _followed(schema))
    return known[1]


def _followed(schema: Object) -> Object:
    if "$ref" in schema:
        return resolve(definition(str(schema["$ref"]).rsplit("/", 1)[-1]))
    if len(schema["allOf"]) != 1 or "$ref" not in schema["allOf"][0]:
        return schema
    beside = {key: value for key, value in schema.items() if key != "allOf"}
    target = definition(str(schema["allOf"][0]["$ref"]).rsplit("/", 1)[-1])
    return {**target, **beside} if set(beside) - {"description"} else target
