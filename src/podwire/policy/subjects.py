"""Which rules select which endpoints: both are listed under terms (`model.terms`), as in identity.select.

A group of endpoints whose labels change meets the rules that could select it, a rule that changes the
groups it could select. Ten thousand policies that each mean a few pods are not gone through for each pod.
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from typing import NamedTuple

from podwire.model.labels import Labels, namespace_of
from podwire.model.selector import Selector
from podwire.model.terms import EVERY, Asked, Term, terms
from podwire.policy.live import Group
from podwire.policy.resolve import Prepared

PolicyKey = tuple[str, str, str]  # kind, namespace, name


class Place(NamedTuple):
    """Where a rule stands among those an endpoint obeys: the cluster's first, then by object, as written."""

    of_namespace: bool
    key: PolicyKey
    number: int  # of the rule in its object


class Subjects:
    """Rules of policies, and groups of endpoints, by what they could have in common."""

    def __init__(self) -> None:
        self._rules: dict[PolicyKey, tuple[Prepared, ...]] = {}
        # Namespace, or "" → term that the subject needs → rules.
        self._needing: dict[str, dict[Term, dict[Place, Prepared]]] = {}
        self._groups: dict[Term, set[Group]] = {}
        self._terms: dict[Group, Set[Term]] = {}
        self._asked: dict[Selector, Asked] = {}
        self._users: dict[Selector, int] = {}

    # --- rules

    def put(self, key: PolicyKey, rules: tuple[Prepared, ...]) -> tuple[Prepared, ...]:
        """Make these the rules of a policy; those it had."""
        before = self._rules.pop(key, ())
        for place, rule in _places(key, before):
            self._unlist(place, rule)
        for place, rule in _places(key, rules):
            self._list(place, rule)
        if rules:
            self._rules[key] = rules
        return before

    def _list(self, place: Place, rule: Prepared) -> None:
        subject = rule.subject
        self._users[subject] = self._users.get(subject, 0) + 1
        if subject not in self._asked:
            self._asked[subject] = Asked(subject)
        space = self._needing.setdefault(place.key[1], {})
        for term in self._asked[subject].needs:
            space.setdefault(term, {})[place] = rule

    def _unlist(self, place: Place, rule: Prepared) -> None:
        subject, space = rule.subject, self._needing[place.key[1]]
        for term in self._asked[subject].needs:
            del space[term][place]
            if not space[term]:
                del space[term]
        if not space:
            del self._needing[place.key[1]]
        self._users[subject] -= 1
        if not self._users[subject]:
            del self._users[subject], self._asked[subject]

    def rules_for(self, labels: Labels) -> list[Prepared]:
        """The rules that select endpoints with these labels, in order."""
        there = terms(labels)
        found: dict[Place, Prepared] = {}
        matching: dict[Selector, bool] = {}
        for namespace in {"", namespace_of(labels)}:
            space = self._needing.get(namespace, {})
            for term in (EVERY, *there) if space else ():
                for place, rule in space.get(term, {}).items():
                    subject = rule.subject
                    if subject not in matching:
                        matching[subject] = self._asked[subject].matches(there)
                    if matching[subject]:
                        found[place] = rule
        return [found[place] for place in sorted(found)]

    # --- groups

    def add(self, group: Group) -> None:
        self._terms[group] = there = terms(group.labels)
        for term in (EVERY, *there):
            self._groups.setdefault(term, set()).add(group)

    def discard(self, group: Group) -> None:
        for term in (EVERY, *self._terms.pop(group, ())):
            groups = self._groups.get(term)
            if groups is not None:
                groups.discard(group)
                if not groups:
                    del self._groups[term]

    def groups_of(self, subjects: Iterable[Selector]) -> set[Group]:
        """The groups that some of these select."""
        found: set[Group] = set()
        for subject in subjects:
            asked = self._asked.get(subject) or Asked(subject)
            for term in asked.needs:
                for group in self._groups.get(term, ()):
                    if group not in found and asked.matches(self._terms[group]):
                        found.add(group)
        return found


def _places(key: PolicyKey, rules: Iterable[Prepared]) -> Iterable[tuple[Place, Prepared]]:
    return ((Place(bool(key[1]), key, number), rule) for number, rule in enumerate(rules))
