"""Patterns of names as Hubble's filters write them: ``*.example.com``, ``cluster/worker-*``.

Matched without backtracking: the parts between the stars are looked for from left to right, so a
pattern costs what it and the name are long, however many stars a client writes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from podwire.base.errors import InvalidObject

_PLAIN = re.compile(r"[-.0-9a-z]*")
_ANY = re.compile(r"[-0-9_a-z]+(?:\.[-0-9_a-z]+)*")


class Name(msgspec.Struct, frozen=True):
    """A pattern of one name, split at its stars. A star stands for any characters of a name, dots
    included; a pattern without parts for any whole name."""

    parts: tuple[str, ...]

    def matches(self, name: str) -> bool:
        if not self.parts:
            return _ANY.fullmatch(name) is not None
        first, *middle = self.parts
        if not middle:
            return name == first
        last = middle.pop()
        if len(name) < len(first) + len(last) or not (name.startswith(first) and name.endswith(last)):
            return False
        at, end = len(first), len(name) - len(last)
        for part in middle:
            # The leftmost place leaves most for those that follow.
            found = name.find(part, at, end)
            if found < 0 or not _PLAIN.fullmatch(name, at, found):
                return False
            at = found + len(part)
        return _PLAIN.fullmatch(name, at, end) is not None


class Node(msgspec.Struct, frozen=True):
    """``cluster/node``."""

    cluster: Name
    node: Name

    def matches(self, name: str) -> bool:
        cluster, slash, node = name.partition("/")
        return bool(slash) and self.cluster.matches(cluster) and self.node.matches(node)


def names(wanted: Iterable[str]) -> list[Name]:
    """DNS names; ``*`` stands for any characters of a name, dots included."""
    return [_name(text) for text in wanted]


def node_names(wanted: Iterable[str]) -> list[Node]:
    """``cluster/node``; without a slash, nodes of any cluster; an empty half matches everything."""
    return [_node(text) for text in wanted]


def _node(text: str) -> Node:
    if not text:
        raise InvalidObject("", "a pattern must not be empty")
    if text.count("/") > 1:
        raise InvalidObject("", f"{text!r} has more than one slash")
    cluster, _, node = text.rpartition("/")
    return Node(_name(cluster) if cluster else Name(()), _name(node) if node else Name(()))


def _name(text: str) -> Name:
    plain = text.strip().removesuffix(".").lower()
    if not plain:
        raise InvalidObject("", "a pattern must not be empty")
    if plain.endswith("."):
        raise InvalidObject("", f"{text!r} ends with more than one dot")
    wrong = re.search(r"[^-0-9_a-z.*]", plain)
    if wrong:
        raise InvalidObject("", f"{wrong[0]!r} cannot be in a name ({text!r})")
    return Name(tuple(plain.split("*")))
