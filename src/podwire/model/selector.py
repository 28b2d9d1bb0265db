"""Label selectors: which label sets does a rule mean?

A requirement names a key with its source (``k8s``, ``reserved``, ``cidr`` or ``any``), an operator
and values. A selector is the conjunction of its requirements; without any it selects everything.
A requirement on a prefix (source ``cidr``) is met by labels of that prefix and of all inside it.
Selectors are values: equal ones are one selector to the tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from functools import lru_cache

import msgspec

from podwire.model.labels import Labels, cidr, split, values, within


class Operator(StrEnum):
    """Kubernetes' set operators."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    NOT_EXISTS = "DoesNotExist"


class Requirement(msgspec.Struct, frozen=True, order=True, cache_hash=True):
    """One condition on one key. `values` is sorted; empty for Exists and DoesNotExist."""

    source: str
    key: str
    operator: Operator
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[tuple[str, str], str]) -> bool:
        found = self._values_in(labels)
        match self.operator:
            case Operator.IN:
                return not set(found).isdisjoint(self.values)
            case Operator.NOT_IN:
                return set(found).isdisjoint(self.values)
            case Operator.EXISTS:
                return bool(found)
            case Operator.NOT_EXISTS:
                return not found

    def _values_in(self, labels: Mapping[tuple[str, str], str]) -> list[str]:
        """Values of the labels that this requirement is about.

        `any` means a key of whatever source; a prefix means every prefix inside it as well, so that
        an identity needs one label and not one per covering prefix.
        """
        if self.source == "any":
            return [value for (_, key), value in labels.items() if key == self.key]
        if self.source == "cidr":
            return [
                value for (source, key), value in labels.items() if source == "cidr" and within(key, self.key)
            ]
        value = labels.get((self.source, self.key))
        return [] if value is None else [value]

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


class Selector(msgspec.Struct, frozen=True, order=True, cache_hash=True):
    """A conjunction of requirements (sorted). `nothing` selects nothing, whatever else it says."""

    requirements: tuple[Requirement, ...] = ()
    nothing: bool = False

    def matches(self, labels: Labels) -> bool:
        if self.nothing:
            return False
        known = values(labels)
        for requirement in self.requirements:  # asked often: no generator  # noqa: SIM110
            if not requirement.matches(known):
                return False
        return True

    def __str__(self) -> str:
        if self.nothing:
            return "<nothing>"
        return ", ".join(map(str, self.requirements)) or "<everything>"


@lru_cache(maxsize=65536)
def shared(selector: Selector) -> Selector:
    """The same object for equal selectors, so that comparing and looking them up costs nothing."""
    return selector


EVERYTHING = Selector()
NOTHING = Selector(nothing=True)


def equals(source: str, key: str, value: str = "") -> Requirement:
    return Requirement(source, key, Operator.IN, (value,))


def exists(source: str, key: str) -> Requirement:
    return Requirement(source, key, Operator.EXISTS)


def inside(prefix: str, excepted: tuple[str, ...] = ()) -> tuple[Requirement, ...]:
    """Requirements met by what is inside `prefix` and not inside `excepted`."""
    requirements = [Requirement("cidr", split(cidr(prefix))[1], Operator.EXISTS)]
    requirements += [Requirement("cidr", split(cidr(one))[1], Operator.NOT_EXISTS) for one in excepted]
    return tuple(sorted(requirements))
