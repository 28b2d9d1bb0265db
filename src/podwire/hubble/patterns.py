"""Patterns of names as Hubble's filters write them: ``*.example.com``, ``cluster/worker-*``."""

from __future__ import annotations

import re

from podwire.base.errors import InvalidObject

_ANY = r"(?:[-0-9_a-z]+(?:\.[-0-9_a-z]+)*)"


def names(wanted: list[str]) -> re.Pattern[str]:
    """DNS names; ``*`` stands for any characters of a name, dots included."""
    return re.compile("|".join(_name(text) for text in wanted))


def node_names(wanted: list[str]) -> re.Pattern[str]:
    """``cluster/node``; without a slash, nodes of any cluster; an empty half matches everything."""
    return re.compile("|".join(_node(text) for text in wanted))


def _node(text: str) -> str:
    if not text:
        raise InvalidObject("", "a pattern must not be empty")
    if text.count("/") > 1:
        raise InvalidObject("", f"{text!r} has more than one slash")
    cluster, _, node = text.rpartition("/")
    return f"{_name(cluster) if cluster else _ANY}/{_name(node) if node else _ANY}"


def _name(text: str) -> str:
    plain = text.strip().removesuffix(".").lower()
    if not plain:
        raise InvalidObject("", "a pattern must not be empty")
    if plain.endswith("."):
        raise InvalidObject("", f"{text!r} ends with more than one dot")
    wrong = re.search(r"[^-0-9_a-z.*]", plain)
    if wrong:
        raise InvalidObject("", f"{wrong[0]!r} cannot be in a name ({text!r})")
    return re.escape(plain).replace(r"\*", "[-.0-9a-z]*")
