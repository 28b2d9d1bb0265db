"""YAML as Kubernetes reads it: JSON's values only, several documents, the line each begins at. Pure.

Aliases are refused (a small text could stand for a huge object), times stay text.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import yaml

from podwire.base.errors import InvalidObject

_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DEPTH = 100


class Document(NamedTuple):
    """One document and the line (from 1) it begins at."""

    body: Any
    line: int


class _Loader(_Base):  # type: ignore[misc]
    """Values that JSON has; no times, no aliases."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in known if tag != "tag:yaml.org,2002:timestamp"]
    for first, known in _Base.yaml_implicit_resolvers.items()
}


def parse_yaml(text: str, *, once: bool = False) -> Iterator[Document]:
    """All documents that are not empty. InvalidObject names the line. `once`: no key may come twice."""
    try:
        _check(text)
        loader = _Loader(text)
        try:
            while loader.check_node():
                node = loader.get_node()
                if once:
                    _check_once(node)
                body = loader.construct_document(node)
                if body is not None:
                    yield Document(_plain(body, node.start_mark.line + 1, 0), node.start_mark.line + 1)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise _wrong(error) from error
    except (ValueError, RecursionError, TypeError) as error:
        raise InvalidObject("", f"not YAML that stands for an object: {error}") from error


def _check(text: str) -> None:
    """Before anything is made of it: the composer recurses in C, where depth would end the process."""
    depth = 0
    for event in yaml.parse(text, _Loader):
        if isinstance(event, yaml.AliasEvent):
            raise InvalidObject(_line(event), "aliases are not supported")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > _DEPTH:
            raise InvalidObject(_line(event), "is nested too deeply")


def _check_once(node: yaml.Node) -> None:
    """YAML's readers take the last of two in silence."""
    seen: set[str] = set()
    for child in node.value if isinstance(node, yaml.CollectionNode) else ():
        if isinstance(child, tuple):
            key, child = child
            if key.value in seen:
                raise InvalidObject(f"line {key.start_mark.line + 1}", f"“{key.value}” is given twice")
            if isinstance(key, yaml.ScalarNode):
                seen.add(key.value)
        _check_once(child)


def _line(event: yaml.Event) -> str:
    return f"line {event.start_mark.line + 1 if event.start_mark else 0}"


def _wrong(error: yaml.YAMLError) -> InvalidObject:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    return InvalidObject(f"line {mark.line + 1}" if mark else "", f"not YAML: {problem}")


def _plain(value: Any, line: int, depth: int) -> Any:
    """`value` if it is made of JSON's values with text as keys."""
    if depth > _DEPTH:
        raise InvalidObject(f"document at line {line}", "is nested too deeply")
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, (str, int, float, bool)):
                raise InvalidObject(f"document at line {line}", f"a key must be text: {str(key)[:60]}")
        return {_key(key): _plain(inner, line, depth + 1) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner, line, depth + 1) for inner in value]
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    raise InvalidObject(
        f"document at line {line}", f"values of type {type(value).__name__} are not supported"
    )


def _key(key: Any) -> str:
    if isinstance(key, bool):
        return "true" if key else "false"
    return str(key)
