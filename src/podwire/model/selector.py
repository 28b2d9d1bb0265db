"""Label selectors: which label sets does a rule mean?

A requirement names a key with its source (``k8s``, ``reserved``, ``cidr`` or ``any``), an operator
and values. A selector is the conjunction of its requirements; without any it selects everything.
Selectors are values: equal ones are one selector to the tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import msgspec

from podwire.model.labels import Labels, values


class Operator(StrEnum):
    """Kubernetes' set operators."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    NOT_EXISTS = "DoesNotExist"


class Requirement(msgspec.Struct, frozen=True, order=True):
    """One condition on one key. `values` is sorted; empty for Exists and DoesNotExist."""

    source: str
    key: str
    operator: Operator
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[tuple[str, str], str]) -> bool:
        found = (
            [
                value
                for (source, key), value in labels.items()
                if key == self.key and self.source in ("any", source)
            ]
            if self.source == "any"
            else _exact(labels, self.source, self.key)
        )
        match self.operator:
            case Operator.IN:
                return any(value in self.values for value in found)
            case Operator.NOT_IN:
                return not any(value in self.values for value in found)
            case Operator.EXISTS:
                return bool(found)
            case Operator.NOT_EXISTS:
                return not found

    def __str__(self) -> str:
        name = f"{self.source}:{self.key}" if self.source != "any" else self.key
        match self.operator:
            case Operator.IN if len(self.values) == 1:
                return f"{name}={self.values[0]}" if self.values[0] else name
            case Operator.IN | Operator.NOT_IN:
                word = "in" if self.operator is Operator.IN else "notin"
                return f"{name} {word} ({', '.join(self.values)})"
            case Operator.EXISTS:
                return f"has {name}"
            case Operator.NOT_EXISTS:
                return f"not {name}"


def _exact(labels: Mapping[tuple[str, str], str], source: str, key: str) -> list[str]:
    value = labels.get((source, key))
    return [] if value is None else [value]


class Selector(msgspec.Struct, frozen=True, order=True):
    """A conjunction of requirements (sorted). `nothing` selects nothing, whatever else it says."""

    requirements: tuple[Requirement, ...] = ()
    nothing: bool = False

    def matches(self, labels: Labels) -> bool:
        if self.nothing:
            return False
        known = values(labels)
        return all(requirement.matches(known) for requirement in self.requirements)

    def __str__(self) -> str:
        if self.nothing:
            return "<nothing>"
        return ", ".join(map(str, self.requirements)) or "<everything>"


EVERYTHING = Selector()
NOTHING = Selector(nothing=True)


def equals(source: str, key: str, value: str = "") -> Requirement:
    return Requirement(source, key, Operator.IN, (value,))
