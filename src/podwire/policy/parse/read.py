"""Take values out of decoded JSON: each with its path, each error with that path.

`None` stands for a field that is absent or null, as Go's nil; an empty list is not None.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from podwire.base.errors import InvalidObject
from podwire.model.rule import Origin

NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?", re.ASCII)


def show(value: Any) -> str:
    """A value as a message may quote it: short, on one line."""
    text = repr(value) if not isinstance(value, dict | list) else type(value).__name__
    return text if len(text) <= 60 else text[:57] + "..."


def take(value: Any, path: str) -> dict[str, Any]:
    """An object."""
    if not isinstance(value, dict):
        raise InvalidObject(path, f"must be an object, not {show(value)}")
    return value


def below(path: str, name: Any) -> str:
    """The path of a member. Names come from outside too: what could not be printed as it is, is quoted."""
    text = name if isinstance(name, str) and name.isprintable() and len(name) <= 300 else show(name)
    return f"{path}.{text}" if path else text


def known(
    value: Any, path: str, fields: frozenset[str], refused: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """An object that has no other fields than `fields`; those in `refused` say why."""
    read = take(value, path)
    for name, content in read.items():
        if name in fields:
            continue
        where = below(path, name)
        if refused and name in refused:
            if content is None:
                continue
            raise InvalidObject(where, refused[name])
        raise InvalidObject(where, "unknown field", hint=f"known here: {', '.join(sorted(fields))}")
    return read


def items(value: Any, path: str) -> Iterator[tuple[Any, str]]:
    """Elements of a list, each with its path; none for None."""
    if value is None:
        return
    if not isinstance(value, list):
        raise InvalidObject(path, f"must be a list, not {show(value)}")
    for number, element in enumerate(value):
        yield element, f"{path}[{number}]"


def string(value: Any, path: str) -> str:
    if not isinstance(value, str):
        hint = (
            f'put it in quotes: "{value}"' if isinstance(value, int) and not isinstance(value, bool) else None
        )
        raise InvalidObject(path, f"must be a string, not {show(value)}", hint=hint)
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidObject(path, "is not valid Unicode") from error
    return value


def integer(value: Any, path: str, least: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidObject(path, f"must be a number, not {show(value)}")
    if not least <= value <= most:
        raise InvalidObject(path, f"must be from {least} to {most}, not {show(value)}")
    return value


def boolean(value: Any, path: str) -> bool:
    if not isinstance(value, bool):
        raise InvalidObject(path, f"must be true or false, not {show(value)}")
    return value


def origin(policy: dict[str, Any], *, namespaced: bool) -> Origin:
    """Who the object is; a namespaced one without a namespace is in ``default``."""
    metadata = take(policy.get("metadata"), "metadata")
    name = string(metadata.get("name"), "metadata.name")
    if not NAME.fullmatch(name):
        raise InvalidObject("metadata.name", f"{show(name)} is no valid name of an object")
    namespace = ""
    if namespaced:
        given = metadata.get("namespace")
        namespace = "default" if given is None else string(given, "metadata.namespace")
        if not NAME.fullmatch(namespace):
            raise InvalidObject("metadata.namespace", f"{show(namespace)} is no valid namespace")
    uid = metadata.get("uid")
    return Origin(policy["kind"], namespace, name, "" if uid is None else string(uid, "metadata.uid"))
