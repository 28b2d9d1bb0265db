"""The language the schemas are written in.

A definition begins at the left margin: a name and what it is; its fields follow, indented::

    Container :: One program that runs in a pod.
      name! string :: Its name, unique in the pod.
      ports []ContainerPort map=containerPort,protocol merge=containerPort :: Ports it listens on.
      imagePullPolicy string enum=Always|Never|IfNotPresent :: When to pull.

``!`` marks a field that must be given. Types: ``string integer int64 boolean number time microtime
bytes quantity intorstring any object``, the name of a definition, ``[]T``, ``map[T]``. Options:
``map=k,k`` (list keyed by fields), ``merge=k`` (strategic merge by that field), ``set``, ``atomic``,
``enum=a|b``, ``default=x``, ``min=n``, ``max=n``, ``pattern=re``, ``minlen=n``, ``maxlen=n``,
``minitems=n``, ``maxitems=n``, ``nullable``, ``retain`` (strategic merge keeps only what is named). ``#n`` is
the field's number in protobuf; ``#2.1`` is number 1 inside message 2, which JSON shows flat. A line
indented deeper goes on with the description.
"""

from __future__ import annotations

from typing import Any

Object = dict[str, Any]
Numbers = dict[int, Any]

_SCALARS: dict[str, Object] = {
    "string": {"type": "string"},
    "integer": {"type": "integer", "format": "int32"},
    "int64": {"type": "integer", "format": "int64"},
    "boolean": {"type": "boolean"},
    "number": {"type": "number"},
    "time": {"type": "string", "format": "date-time"},
    "microtime": {"type": "string", "format": "date-time"},
    "bytes": {"type": "string", "format": "byte"},
    "quantity": {"type": "string", "format": "quantity"},
    "intorstring": {"type": "string", "format": "int-or-string"},
    "xintorstring": {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]},
    "any": {"x-kubernetes-preserve-unknown-fields": True},
    "object": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
}
_NUMBERS = {
    "min": "minimum",
    "max": "maximum",
    "minlen": "minLength",
    "maxlen": "maxLength",
    "minitems": "minItems",
    "maxitems": "maxItems",
}


def parse(text: str) -> dict[str, Object]:
    """Definitions by name. ValueError names the line that cannot be read."""
    found: dict[str, Object] = {}
    current: Object = {}
    for line in _joined(text):
        head, separator, words = line.partition(" :: ")
        if not separator:
            raise ValueError(f"a line without description: {line}")
        if not line.startswith(" "):
            current = {"type": "object", "description": words.strip(), "properties": {}}
            found[head.strip()] = current
            continue
        _field(current, head.split(), words.strip(), line)
    return found


def wire(text: str) -> dict[str, Numbers]:
    """Protobuf numbers: definition → number → (field, type), or a table of its own for flat messages."""
    found: dict[str, Numbers] = {}
    numbers: Numbers = {}
    for line in _joined(text):
        parts = line.partition(" :: ")[0].split()
        if not line.startswith(" "):
            numbers = found.setdefault(parts[0], {})
            continue
        for option in parts[2:]:
            if option.startswith("#"):
                *outer, last = (int(one) for one in option[1:].split("."))
                table = numbers
                for one in outer:
                    table = table.setdefault(one, {})
                table[last] = (parts[0].rstrip("!"), parts[1])
    return found


def _joined(text: str) -> list[str]:
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith("      "):
            lines[-1] += " " + line.strip()
        elif line.strip():
            lines.append(line)
    return lines


def _field(owner: Object, parts: list[str], words: str, line: str) -> None:
    if len(parts) < 2:
        raise ValueError(f"a field without type: {line}")
    name, kind, options = parts[0].rstrip("!"), parts[1], parts[2:]
    schema = _type(kind)
    if "$ref" in schema:
        schema = {"allOf": [schema]}
    schema["description"] = words
    for option in options:
        _option(schema, option, line)
    owner["properties"][name] = schema
    if parts[0].endswith("!"):
        owner.setdefault("required", []).append(name)


def _type(text: str) -> Object:
    if text.startswith("[]"):
        return {"type": "array", "items": _type(text[2:]), "x-kubernetes-list-type": "atomic"}
    if text.startswith("map["):
        return {"type": "object", "additionalProperties": _type(text[4:-1])}
    if text in _SCALARS:
        return dict(_SCALARS[text])
    return {"$ref": f"#/components/schemas/{text}"}


def _option(schema: Object, option: str, line: str) -> None:
    name, _, value = option.partition("=")
    if name.startswith("#"):
        return
    if name in _NUMBERS:
        schema[_NUMBERS[name]] = int(value)
    elif name == "enum":
        schema["enum"] = value.split("|")
    elif name == "default":
        schema["default"] = _literal(schema, value)
    elif name == "pattern":
        schema["pattern"] = value
    elif name == "map":
        schema["x-kubernetes-list-type"] = "map"
        schema["x-kubernetes-list-map-keys"] = value.split(",")
    elif name == "merge":
        schema["x-kubernetes-patch-merge-key"] = value
        schema["x-kubernetes-patch-strategy"] = "merge"
    elif name == "set":
        schema["x-kubernetes-list-type"] = "set"
    elif name == "mergeset":
        schema["x-kubernetes-list-type"] = "set"
        schema["x-kubernetes-patch-strategy"] = "merge"
    elif name == "atomic":
        schema["x-kubernetes-map-type" if schema.get("type") != "array" else "x-kubernetes-list-type"] = (
            "atomic"
        )
    elif name == "retain":
        schema["x-kubernetes-patch-strategy"] = "retainKeys"
    elif name == "nullable":
        schema["nullable"] = True
    else:
        raise ValueError(f"unknown option {option}: {line}")


def _literal(schema: Object, value: str) -> Any:
    if schema.get("type") == "integer" or (schema.get("format") == "int-or-string" and value.isdigit()):
        return int(value)
    return value == "true" if schema.get("type") == "boolean" else value
