"""Strategic merge patch: a merge patch that knows which lists are keyed. Pure.

Lists with a merge key in the schema are merged item by item; the directives ``$patch``,
``$deleteFromPrimitiveList/…``, ``$setElementOrder/…`` and ``$retainKeys`` are followed.
"""

from __future__ import annotations

from typing import Any

from podwire.apiserver.patch.fields import member_schema
from podwire.apiserver.schemas.resolve import resolve
from podwire.apiserver.status import bad_request

Object = dict[str, Any]
_ORDER = "$setElementOrder/"
_DELETE = "$deleteFromPrimitiveList/"


def merge(schema: Object, target: Object, patch: Object) -> Object:
    """`target` after `patch`; both are maps that `schema` describes."""
    directive = patch.get("$patch")
    if directive == "replace":
        return {key: value for key, value in patch.items() if key != "$patch"}
    if directive == "delete":
        return {}
    if directive not in (None, "merge"):
        raise bad_request(f"unknown $patch directive: {str(directive)[:40]}")
    result = dict(target)
    properties = schema.get("properties") or {}
    retained = patch.get("$retainKeys")
    if isinstance(retained, list):
        result = {key: value for key, value in result.items() if key in retained}
    for name, value in patch.items():
        if name.startswith("$"):
            continue
        inner = member_schema(schema, properties, name)
        if value is None:
            result.pop(name, None)
        elif isinstance(value, dict):
            present = result.get(name)
            result[name] = merge(inner, present if isinstance(present, dict) else {}, value)
        elif isinstance(value, list):
            result[name] = _list(inner, result.get(name), value)
        else:
            result[name] = value
    _directives(schema, properties, result, patch)
    return result


def _directives(schema: Object, properties: Object, result: Object, patch: Object) -> None:
    for name, value in patch.items():
        if name.startswith(_DELETE) and isinstance(value, list):
            field = name.removeprefix(_DELETE)
            if isinstance(result.get(field), list):
                result[field] = [one for one in result[field] if one not in value]
        elif name.startswith(_ORDER) and isinstance(value, list):
            field = name.removeprefix(_ORDER)
            if isinstance(result.get(field), list):
                result[field] = _ordered(member_schema(schema, properties, field), result[field], value)


def _list(schema: Object, target: Any, patch: list[Any]) -> list[Any]:
    key = schema.get("x-kubernetes-patch-merge-key")
    merges = schema.get("x-kubernetes-patch-strategy") == "merge"
    present = target if isinstance(target, list) else []
    if not merges:
        return [_clean(one) for one in patch]
    if key is None:
        return [*present, *(one for one in patch if one not in present)]
    items = resolve(schema.get("items") or {})
    if any(isinstance(one, dict) and one.get("$patch") == "replace" for one in patch):
        return [
            _clean(one) for one in patch if not (isinstance(one, dict) and one.get("$patch") == "replace")
        ]
    result = list(present)
    for one in patch:
        if not isinstance(one, dict) or key not in one:
            raise bad_request(f"the patch has an item without its merge key {key}")
        places = [
            index for index, had in enumerate(result) if isinstance(had, dict) and had.get(key) == one[key]
        ]
        if one.get("$patch") == "delete":
            result = [had for index, had in enumerate(result) if index not in places]
        elif places:
            result[places[0]] = merge(items, result[places[0]], one)
        else:
            result.append(_clean(one))
    return result


def _clean(value: Any) -> Any:
    """A value without directives."""
    if isinstance(value, dict):
        return {
            key: _clean(inner)
            for key, inner in value.items()
            if not key.startswith("$") and inner is not None
        }
    return [_clean(one) for one in value] if isinstance(value, list) else value


def _ordered(schema: Object, items: list[Any], order: list[Any]) -> list[Any]:
    key = schema.get("x-kubernetes-patch-merge-key")
    if key is None:
        wished = {_word(one): index for index, one in enumerate(order)}
        return sorted(items, key=lambda one: wished.get(_word(one), len(wished)))
    names = {_word(one.get(key)): index for index, one in enumerate(order) if isinstance(one, dict)}
    return sorted(
        items, key=lambda one: names.get(_word(one.get(key)) if isinstance(one, dict) else "", len(names))
    )


def _word(value: Any) -> str:
    return f"{type(value).__name__}:{value}"
