"""Formats of text in objects: quantities, times, base64, patterns. Pure."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from datetime import datetime
from functools import lru_cache
from typing import Any

Object = dict[str, Any]

_QUANTITY = re.compile(r"^[+-]?(\d+(\.\d*)?|\.\d+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?\d+)?$")


def quantity(value: Any) -> float:
    """The number a resource.Quantity stands for; ValueError if it is none."""
    text = str(value)
    if not _QUANTITY.fullmatch(text):
        raise ValueError(text)
    found = re.match(r"^([+-]?[\d.]+)(.*)$", text)
    assert found
    suffix = found[2]
    if suffix[:1] in ("e", "E") and len(suffix) > 1:
        return float(text)
    powers = {
        "n": 1e-9,
        "u": 1e-6,
        "m": 1e-3,
        "": 1,
        "k": 1e3,
        "M": 1e6,
        "G": 1e9,
        "T": 1e12,
        "P": 1e15,
        "E": 1e18,
    }
    if suffix.endswith("i"):
        return float(found[1]) * float(1024 ** ("KMGTPE".index(suffix[0]) + 1))
    return float(found[1]) * powers[suffix]


def text_faults(schema: Object, value: str) -> Iterator[str]:
    """What `schema` says against the text, as ends of sentences."""
    if len(value) > schema.get("maxLength", len(value)):
        yield f"must have at most {schema['maxLength']} characters"
    if len(value) < schema.get("minLength", 0):
        yield f"must have at least {schema['minLength']} characters"
    pattern = schema.get("pattern")
    if pattern and not _pattern(pattern).search(value):
        yield f"must match {pattern}"
    match schema.get("format"):
        case "date-time":
            if not _is_time(value):
                yield "must be a time as RFC 3339 writes it (e.g. 2006-01-02T15:04:05Z)"
        case "byte":
            if not _is_base64(value):
                yield "must be base64"
        case "quantity":
            if not _QUANTITY.fullmatch(value):
                yield "must be a quantity: a number with an optional suffix (e.g. 100m, 1.5, 2Gi, 1e3)"


@lru_cache(maxsize=1024)
def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error:  # Go's syntax has a little that Python's lacks; refused when a CRD is created
        return re.compile("")


@lru_cache(maxsize=4096)
def _is_time(text: str) -> bool:
    try:
        return "T" in text and datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


def _is_base64(text: str) -> bool:
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return False
    return True
