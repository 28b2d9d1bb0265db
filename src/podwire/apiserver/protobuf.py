"""Kubernetes' protobuf → the same object as JSON values. Pure.

kubectl sends its own typed objects (create, run, expose, …) only in this form. The field numbers are
declared with the schemas. Nothing is ever answered in protobuf: those clients accept JSON, too.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from podwire.apiserver.schemas import of_kind, wire
from podwire.apiserver.status import bad_request
from podwire.base.moments import written

Object = dict[str, Any]
Table = dict[int, Any]
MEDIA_TYPE = "application/vnd.kubernetes.protobuf"

_MAGIC = b"k8s\x00"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DEPTH = 40

# Written even where they say nothing, so that zero is not to be told from absent; absent is meant.
_ZERO_IS_ABSENT = frozenset(
    [
        "nodePort",
        "hostPort",
        "minReadySeconds",
        "healthCheckNodePort",
        "generation",
        "periodSeconds",
        "timeoutSeconds",
        "successThreshold",
        "failureThreshold",
        "initialDelaySeconds",
        "count",
        "leaseTransitions",
        "observedGeneration",
        "signal",
        "hostNetwork",
        "hostPID",
        "hostIPC",
        "stdin",
        "stdinOnce",
        "tty",
        "readOnly",
        "paused",
        "unschedulable",
        "publishNotReadyAddresses",
        "deprecatedCount",
    ]
)


class Malformed(Exception):
    """The bytes are no message."""


def decode(raw: bytes) -> Object:
    """The object in a body of `MEDIA_TYPE`; 400 if it is none or of a kind that is not known."""
    if not raw.startswith(_MAGIC):
        raise bad_request("the body is not Kubernetes protobuf: it does not begin with its four bytes")
    try:
        envelope = {number: value for number, value in _fields(raw[len(_MAGIC) :])}
        kind = {number: _text(value) for number, value in _fields(_bytes(envelope.get(1, b"")))}
        api_version, name = kind.get(1, ""), kind.get(2, "")
        definition = of_kind(api_version.rpartition("/")[0], name)
        if definition not in wire():
            raise bad_request(
                f"{name[:60]} in version {api_version[:60]} is not understood in protobuf; send JSON"
            )
        body = _message(definition, _bytes(envelope.get(2, b"")), 0)
    except (Malformed, UnicodeDecodeError, OverflowError, msgspec.DecodeError) as error:
        raise bad_request(f"the body is not Kubernetes protobuf: {error}") from error
    return {"kind": name, "apiVersion": api_version, **body}


def _message(definition: str, raw: bytes, depth: int) -> Object:
    if depth > _DEPTH:
        raise Malformed("nested too deeply")
    body: Object = {}
    _into(body, wire()[definition], raw, depth)
    return body


def _into(body: Object, table: Table, raw: bytes, depth: int) -> None:
    for number, value in _fields(raw):
        target = table.get(number)
        if target is None:
            continue
        if isinstance(target, dict):
            _into(body, target, _bytes(value), depth + 1)
            continue
        name, kind = target
        if kind.startswith("[]"):
            items = body.setdefault(name, [])
            items += _repeated(kind[2:], value, depth)
        elif kind.startswith("map["):
            entry = {number: inner for number, inner in _fields(_bytes(value))}
            key = _text(entry.get(1, b""))
            body.setdefault(name, {})[key] = _value(kind[4:-1], entry.get(2, b""), depth)
        else:
            decoded = _value(kind, value, depth)
            if decoded is None or decoded == "" or (not decoded and name in _ZERO_IS_ABSENT):
                continue
            body[name] = decoded


def _repeated(kind: str, value: Any, depth: int) -> list[Any]:
    if kind in ("integer", "int64") and isinstance(value, bytes):
        return [_signed(one) for one in _varints(value)]
    return [_value(kind, value, depth)]


def _value(kind: str, value: Any, depth: int) -> Any:
    match kind:
        case "string":
            return _text(value)
        case "boolean":
            return bool(_number(value))
        case "integer" | "int64":
            return _signed(_number(value))
        case "bytes":
            return base64.b64encode(_bytes(value)).decode()
        case "time" | "microtime":
            return _time(_bytes(value), micro=kind == "microtime")
        case "quantity":
            return next((_text(inner) for number, inner in _fields(_bytes(value)) if number == 1), "0")
        case "intorstring":
            parts = dict(_fields(_bytes(value)))
            return _text(parts.get(3, b"")) if parts.get(1) == 1 else _signed(_number(parts.get(2, 0)))
        case "object" | "any":
            inner = next((_bytes(inner) for number, inner in _fields(_bytes(value)) if number == 1), b"")
            return msgspec.json.decode(inner) if inner else None
    return _message(kind, _bytes(value), depth + 1)


def _time(raw: bytes, *, micro: bool) -> str | None:
    parts = dict(_fields(raw))
    if not parts:
        return None
    seconds, nanos = _signed(_number(parts.get(1, 0))), _number(parts.get(2, 0))
    if (seconds, nanos) == (-62135596800, 0):
        return None  # Go's zero time
    moment = _EPOCH + timedelta(seconds=seconds, microseconds=nanos // 1000)
    return written(moment, micro=micro)


def _fields(raw: bytes) -> Iterator[tuple[int, Any]]:
    """(number, value): an int of varints and fixed, bytes of everything else."""
    at, end = 0, len(raw)
    while at < end:
        tag, at = _varint(raw, at)
        number, form = tag >> 3, tag & 7
        if form == 0:
            value, at = _varint(raw, at)
            yield number, value
            continue
        if form == 2:
            size, at = _varint(raw, at)
        elif form in (1, 5):
            size = 8 if form == 1 else 4
        else:
            raise Malformed(f"wire type {form}")
        if at + size > end:
            raise Malformed("it ends too early")
        part = raw[at : at + size]
        yield number, part if form == 2 else int.from_bytes(part, "little")
        at += size


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(raw) or shift > 63:
            raise Malformed("a number ends too early or is too long")
        byte = raw[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (1 << 64) - 1, at
        shift += 7


def _varints(raw: bytes) -> Iterator[int]:
    at = 0
    while at < len(raw):
        value, at = _varint(raw, at)
        yield value


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _bytes(value: Any) -> bytes:
    if not isinstance(value, bytes):
        raise Malformed("a number where a message is expected")
    return value


def _number(value: Any) -> int:
    if not isinstance(value, int):
        raise Malformed("a message where a number is expected")
    return value


def _text(value: Any) -> str:
    return _bytes(value).decode()
