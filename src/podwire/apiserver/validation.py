"""Structural validation: an object against its OpenAPI schema, each fault with its path. Pure.

Unknown fields are collected and removed (as kube-apiserver drops them); whether they are an error
is for the caller's fieldValidation to say. Defaults that a schema declares are filled in.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from podwire.apiserver.formats import text_faults
from podwire.apiserver.schemas import definition
from podwire.apiserver.schemas.resolve import resolve
from podwire.apiserver.status import FieldError, required, unsupported

Object = dict[str, Any]

_DEPTH = 64


class Checked(msgspec.Struct):
    """What was found: paths of unknown fields, and faults."""

    unknown: list[str] = []
    errors: list[FieldError] = []


def check(schema: Object | None, body: Object, *, strict_null: bool, collect: bool = True) -> Checked:
    """Validate `body` in place: prune, default, collect. `schema` None: anything but metadata is well.

    `strict_null`: null is a value and needs `nullable`, as in custom kinds; else it is the same as nothing.
    """
    checked = Checked()
    checked.unknown += _prune_metadata(body.get("metadata"))
    if schema is not None:
        _Walk(checked, strict_null=strict_null).root(schema, body)
    if not collect:
        checked.unknown.clear()
    return checked


def _prune_metadata(metadata: Any) -> list[str]:
    """Paths of unknown fields, which are removed. Known ones were looked at before (metadata.shape)."""
    if not isinstance(metadata, dict):
        return []
    unknown = sorted(metadata.keys() - definition("ObjectMeta")["properties"].keys())
    for name in unknown:
        del metadata[name]
    return [f"metadata.{name}" for name in unknown]


class _Walk:
    """One pass over one object."""

    def __init__(self, checked: Checked, *, strict_null: bool) -> None:
        self.checked = checked
        self.strict_null = strict_null

    def root(self, schema: Object, body: Object) -> None:
        schema = resolve(schema)
        properties = schema.get("properties") or {}
        outside = {"apiVersion", "kind", "metadata"}
        self._members(schema, properties, body, "", 0, skip=outside)

    def value(self, schema: Object, value: Any, path: str, depth: int) -> None:
        schema = resolve(schema)
        if depth > _DEPTH:
            self._wrong(path, "is nested too deeply", None)
            return
        if value is None:
            if not schema.get("nullable") and self.strict_null:
                self._wrong(path, f"must be of type {schema.get('type', 'object')}: null", None)
            return
        if not self._typed(schema, value, path):
            return
        if isinstance(value, dict):
            self._object(schema, value, path, depth)
        elif isinstance(value, list):
            self._list(schema, value, path, depth)
        else:
            self._scalar(schema, value, path)
        for detail in _combinations(schema, value):
            self._wrong(path, detail, value if not isinstance(value, (dict, list)) else "")

    def _wrong(self, path: str, detail: str, value: Any) -> None:
        self.checked.errors.append(FieldError(path, detail, value=value))

    def _typed(self, schema: Object, value: Any, path: str) -> bool:
        expected = schema.get("type")
        if schema.get("x-kubernetes-int-or-string") or schema.get("format") == "int-or-string":
            fits = isinstance(value, (int, str)) and not isinstance(value, bool)
            expected = "integer or string"
        elif schema.get("format") == "quantity":
            fits = isinstance(value, (int, float, str)) and not isinstance(value, bool)
            expected = "quantity"
        elif expected is None:
            return True
        else:
            fits = _fits(expected, value)
        if not fits:
            self._wrong(path, f"must be of type {expected}, not {_type_name(value)}", _brief(value))
        return fits

    def _object(self, schema: Object, value: Object, path: str, depth: int) -> None:
        extra = schema.get("additionalProperties")
        properties = schema.get("properties")
        if properties is None and isinstance(extra, dict):
            for key in list(value):
                if value[key] is None and not self.strict_null:
                    del value[key]
                    continue
                self.value(
                    extra, value[key], f"{path}.{key}" if "." not in key else f'{path}["{key}"]', depth + 1
                )
        elif properties is None:
            if not schema.get("x-kubernetes-preserve-unknown-fields") and extra is not True:
                self._prune(value, {}, path)
        else:
            self._members(schema, properties, value, path, depth)
        count = len(value)
        if count > schema.get("maxProperties", count) or count < schema.get("minProperties", 0):
            self._wrong(path, f"must not have {count} members", "")

    def _members(
        self,
        schema: Object,
        properties: Object,
        value: Object,
        path: str,
        depth: int,
        skip: set[str] | None = None,
    ) -> None:
        skip = skip or set()
        embedded = (
            {"apiVersion", "kind", "metadata"} if schema.get("x-kubernetes-embedded-resource") else set()
        )
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            self._prune(value, {**properties, **dict.fromkeys(skip | embedded)}, path)
        for name, inner in properties.items():
            if name in skip:
                continue
            if name not in value or (value[name] is None and "default" in resolve(inner)):
                if "default" in (resolved := resolve(inner)):
                    value[name] = _copied(resolved["default"])
                elif name in (schema.get("required") or ()):
                    self.checked.errors.append(required(f"{path}.{name}" if path else name, "must be given"))
                    continue
                else:
                    continue
            if value[name] is None and not self.strict_null:
                del value[name]
                if name in (schema.get("required") or ()):
                    self.checked.errors.append(required(f"{path}.{name}" if path else name, "must be given"))
                continue
            self.value(inner, value[name], f"{path}.{name}" if path else name, depth + 1)

    def _prune(self, value: Object, known: Object, path: str) -> None:
        for name in [name for name in value if name not in known]:
            del value[name]
            self.checked.unknown.append(f"{path}.{name}" if path else name)

    def _list(self, schema: Object, value: list[Any], path: str, depth: int) -> None:
        inner = schema.get("items")
        if inner is not None:
            for index, one in enumerate(value):
                if one is None and not resolve(inner).get("nullable"):
                    self._wrong(f"{path}[{index}]", "must not be null", None)
                    continue
                self.value(inner, one, f"{path}[{index}]", depth + 1)
        count = len(value)
        if count > schema.get("maxItems", count):
            self._wrong(path, f"must have at most {schema['maxItems']} items", count)
        if count < schema.get("minItems", 0):
            self._wrong(path, f"must have at least {schema['minItems']} items", count)
        for index, one in _repeated(schema, value):
            error = FieldError(
                f"{path}[{index}]", "is there already", reason="FieldValueDuplicate", value=_brief(one)
            )
            self.checked.errors.append(error)

    def _scalar(self, schema: Object, value: Any, path: str) -> None:
        allowed = schema.get("enum")
        if allowed and value not in allowed:
            self.checked.errors.append(unsupported(path, value, [str(one) for one in allowed]))
            return
        if isinstance(value, str):
            for detail in text_faults(schema, value):
                self._wrong(path, detail, value)
        elif not isinstance(value, bool):
            for detail in _number_faults(schema, value):
                self._wrong(path, detail, value)


def _fits(expected: str, value: Any) -> bool:
    match expected:
        case "object":
            return isinstance(value, dict)
        case "array":
            return isinstance(value, list)
        case "string":
            return isinstance(value, str)
        case "boolean":
            return isinstance(value, bool)
        case "integer":
            whole = isinstance(value, float) and value.is_integer()
            return (isinstance(value, int) or whole) and not isinstance(value, bool)
        case "number":
            return isinstance(value, (int, float)) and not isinstance(value, bool)
    return True


def _type_name(value: Any) -> str:
    names = {dict: "object", list: "array", str: "string", bool: "boolean", int: "integer", float: "number"}
    return names.get(type(value), "null")


def _brief(value: Any) -> Any:
    return f"<{_type_name(value)}>" if isinstance(value, (dict, list)) else value


def _copied(value: Any) -> Any:
    return msgspec.json.decode(msgspec.json.encode(value)) if isinstance(value, (dict, list)) else value


def _number_faults(schema: Object, value: float) -> Iterator[str]:
    if schema.get("type") == "integer":
        bits = 31 if schema.get("format") == "int32" else 63
        if not -(1 << bits) <= value < 1 << bits:
            yield f"must fit into {bits + 1} bits"
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and value < low:
        yield f"must be greater than or equal to {low}"
    if high is not None and value > high:
        yield f"must be less than or equal to {high}"


def _repeated(schema: Object, value: list[Any]) -> Iterator[tuple[int, Any]]:
    seen: set[Any] = set()
    if schema.get("x-kubernetes-list-type") == "set":
        for index, one in enumerate(value):
            if not isinstance(one, (dict, list)):
                if one in seen:
                    yield index, one
                seen.add(one)
    elif schema.get("x-kubernetes-list-type") == "map":
        keys = schema.get("x-kubernetes-list-map-keys") or []
        for index, one in enumerate(value):
            if isinstance(one, dict):
                key = tuple(str(one.get(name, _default(schema, name))) for name in keys)
                if key in seen:
                    yield index, ", ".join(key)
                seen.add(key)


def _default(schema: Object, name: str) -> Any:
    inner = (resolve(schema.get("items") or {}).get("properties") or {}).get(name) or {}
    return inner.get("default")


def _combinations(schema: Object, value: Any) -> Iterator[str]:
    """anyOf, oneOf and not, as far as structural schemas may use them: only judging, never changing."""
    if schema.get("x-kubernetes-int-or-string"):
        return
    if (choices := schema.get("anyOf")) and not any(_accepts(one, value) for one in choices):
        yield f"must be at least one of: {_choices(choices)}"
    if choices := schema.get("oneOf"):
        fitting = sum(_accepts(one, value) for one in choices)
        if fitting != 1:
            yield f"must be exactly one of: {_choices(choices)}" + (
                f" ({fitting} are given)" if fitting else ""
            )
    if "not" in schema and _accepts(schema["not"], value):
        yield "must not have this form"


def _choices(choices: list[Object]) -> str:
    return "; ".join(", ".join(one.get("required") or ["another form"]) for one in choices)


def _accepts(schema: Object, value: Any) -> bool:
    if isinstance(value, dict):
        if any(name not in value for name in schema.get("required") or ()):
            return False
        inner = schema.get("properties") or {}
        if any(name in value and not _accepts(one, value[name]) for name, one in inner.items()):
            return False
    if (
        isinstance(value, list)
        and "items" in schema
        and not all(_accepts(schema["items"], one) for one in value)
    ):
        return False
    simple: Object = {
        key: schema[key]
        for key in ("type", "enum", "pattern", "format", "minimum", "maximum")
        if key in schema
    }
    checked = Checked()
    if simple and not (isinstance(value, (dict, list)) and simple.get("type") in ("object", "array")):
        _Walk(checked, strict_null=True).value(simple, value, "", 0)
    return not checked.errors and not list(_combinations(schema, value))
