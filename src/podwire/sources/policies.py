"""Policy objects of the three kinds, parsed. A wrong one is a row that says why."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from podwire.base.errors import InvalidObject
from podwire.model.rule import Rule
from podwire.state.tables import PolicyRow

Parser = Callable[[dict[str, Any]], tuple[Rule, ...]]


def row_of(item: dict[str, Any], kind: str, parse: Parser, before: PolicyRow | None = None) -> PolicyRow:
    """A policy object → row. `kind` is given: items of lists have none.

    `before` is the row it had: if the object was changed into a wrong one, what it said last stays in
    force. Rules that vanish would let pass what nobody meant to allow.
    """
    given = item.get("metadata")
    metadata: dict[str, Any] = given if isinstance(given, dict) else {}
    namespace, name, uid = (_text(metadata, key) for key in ("namespace", "name", "uid"))
    generation = metadata.get("generation")
    same = before is not None and before.uid == uid  # and not another object of the same name
    error, rules = "", before.rules if before is not None and same else ()
    try:
        rules = parse({**item, "kind": kind})
    except InvalidObject as problem:
        error = str(problem)
    return PolicyRow(
        kind=kind,
        namespace=namespace,
        name=name,
        uid=uid,
        generation=generation if isinstance(generation, int) else 0,
        rules=rules,
        error=error,
    )


def _text(metadata: dict[str, Any], key: str) -> str:
    """Whatever else is wrong with the object: its row says so by its name."""
    value = metadata.get(key)
    return value if isinstance(value, str) else ""
