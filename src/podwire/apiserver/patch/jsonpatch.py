"""JSON patch (RFC 6902). Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from podwire.apiserver.status import StatusError, bad_request

_MOST = 10_000
_COPIED = 3 * 1024 * 1024  # bytes that copy operations may make altogether


def apply(target: Any, operations: Any) -> Any:
    """`target` after all operations, in order. 400 where one is malformed, 422 where one does not fit."""
    if not isinstance(operations, list) or len(operations) > _MOST:
        raise bad_request(f"a JSON patch is a list of at most {_MOST} operations")
    copied = 0
    for index, one in enumerate(operations):
        if not isinstance(one, dict) or not isinstance(one.get("path"), str):
            raise bad_request(f"operation {index} of the JSON patch needs op and path")
        if one.get("op") == "copy" and isinstance(one.get("from"), str):
            copied += len(msgspec.json.encode(_lookup(target, _pointer(one["from"], index), index)))
            if copied > _COPIED:
                raise StatusError(413, "RequestEntityTooLarge", "the JSON patch copies more than 3 MiB")
        target = _one(target, one, index)
    return target


def _one(target: Any, operation: dict[str, Any], index: int) -> Any:
    name, path = operation.get("op"), _pointer(operation["path"], index)
    if name in ("add", "replace", "test") and "value" not in operation:
        raise bad_request(f"operation {index} of the JSON patch needs a value")
    match name:
        case "add":
            return _add(target, path, _copy(operation["value"]), index)
        case "remove":
            return _remove(target, path, index)
        case "replace":
            _lookup(target, path, index)
            if not path:
                return _copy(operation["value"])
            return _add(_remove(target, path, index), path, _copy(operation["value"]), index)
        case "test":
            if _lookup(target, path, index) != operation["value"]:
                raise _unfit(index, f"testing {operation['path']}: the value is another")
            return target
        case "copy" | "move":
            if not isinstance(operation.get("from"), str):
                raise bad_request(f"operation {index} of the JSON patch needs from")
            source = _pointer(operation["from"], index)
            value = _copy(_lookup(target, source, index))
            if name == "move":
                if path[: len(source)] == source and path != source:
                    raise _unfit(index, "a value cannot be moved into itself")
                target = _remove(target, source, index)
            return _add(target, path, value, index)
    raise bad_request(f"operation {index} of the JSON patch has an unknown op")


def _pointer(text: str, index: int) -> list[str]:
    if text == "":
        return []
    if not text.startswith("/"):
        raise bad_request(f"operation {index} of the JSON patch: a path begins with /")
    return [part.replace("~1", "/").replace("~0", "~") for part in text[1:].split("/")]


def _lookup(target: Any, path: list[str], index: int) -> Any:
    for step in path:
        if isinstance(target, dict) and step in target:
            target = target[step]
        elif isinstance(target, list):
            target = target[_position(target, step, index, len(target) - 1)]
        else:
            raise _unfit(index, f"there is nothing at {'/'.join(path)[:200]}")
    return target


def _add(target: Any, path: list[str], value: Any, index: int) -> Any:
    if not path:
        return value
    owner = _lookup(target, path[:-1], index)
    if isinstance(owner, dict):
        owner[path[-1]] = value
    elif isinstance(owner, list):
        place = len(owner) if path[-1] == "-" else _position(owner, path[-1], index, len(owner))
        owner.insert(place, value)
    else:
        raise _unfit(index, f"{'/'.join(path)[:200]} is not in an object or a list")
    return target


def _remove(target: Any, path: list[str], index: int) -> Any:
    if not path:
        raise _unfit(index, "the whole object cannot be removed")
    _lookup(target, path, index)
    owner = _lookup(target, path[:-1], index)
    if isinstance(owner, dict):
        del owner[path[-1]]
    else:
        del owner[_position(owner, path[-1], index, len(owner) - 1)]
    return target


def _position(owner: list[Any], step: str, index: int, last: int) -> int:
    if not step.isascii() or not step.isdigit() or len(step) > 9 or int(step) > last:
        raise _unfit(index, f"the list has no item {step[:40]}")
    return int(step)


def _copy(value: Any) -> Any:
    return msgspec.json.decode(msgspec.json.encode(value))


def _unfit(index: int, why: str) -> StatusError:
    return StatusError(422, "Invalid", f"the JSON patch cannot be applied: operation {index}: {why}")
