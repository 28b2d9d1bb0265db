"""Selectors of rules to the identities they select, by difference.

In the walk: rules and identities are in tables; policy.compute reads the selections. An identity that
comes is tested only against the selectors that one of its labels could satisfy, a selector that comes
only against the identities that have a label it needs: the work is that of the change.

A selector that selects nothing is there, with nothing in it: what cannot be resolved matches nobody.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator

from podwire.model.implied import LOCALHOST
from podwire.model.labels import NAMESPACE, Labels, covering, network, split
from podwire.model.rule import Rule
from podwire.model.selector import Operator, Requirement, Selector
from podwire.state.table import Batch, Watch
from podwire.state.tables import IdentityRow, PolicyRow, ProgressRow, SelectionRow, Tables

STAGE = "identity.select"
EVERY: Hashable = "every"  # the term of selectors that need no label


class Select:
    """Keeps table selections."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables
        self._users: Counter[Selector] = Counter()
        self._selected: dict[Selector, frozenset[int]] = {}
        self._needing: dict[Hashable, set[Selector]] = {}  # term → selectors found by it
        self._having: dict[Hashable, set[int]] = {}  # term → identities that have it
        for selector in _used((LOCALHOST,)):
            self._users[selector] += 1
            self._settle(selector)

    async def run(self) -> None:
        """Until cancelled."""
        with Watch(self.tables.policies, self.tables.identities) as watch:
            while True:
                self.step(*await watch.next())

    def step(self, policies: Batch[PolicyRow], identities: Batch[IdentityRow]) -> None:
        """Make the selections what rules and identities say now."""
        touched: dict[Selector, set[int]] = {}  # identities to test again
        now = ProgressRow(STAGE, self.tables.identities.revision, self.tables.policies.revision)
        for change in identities:
            if change.old is not None and change.new is not None and change.old.labels == change.new.labels:
                continue
            for row, there in ((change.old, False), (change.new, True)):
                if row is not None:
                    for selector in self._note(row, there):
                        touched.setdefault(selector, set()).add(row.number)
        counted: set[Selector] = set()
        for policy in policies:
            for version, by in ((policy.old, -1), (policy.new, 1)):
                for selector in _used(version.rules if version else ()):
                    self._users[selector] += by
                    counted.add(selector)
        for selector, numbers in touched.items():
            if selector in self._selected:
                self._test(selector, numbers)
        for selector in counted:
            self._settle(selector)
        for selector in touched.keys() | counted:
            self._publish(selector)
        if policies.ready and identities.ready:
            self.tables.selections.mark_ready()
        self.tables.progress.put(now)

    def _note(self, row: IdentityRow, there: bool) -> set[Selector]:
        """Index an identity by its labels, or no longer; the selectors it may concern."""
        found: set[Selector] = set(self._needing.get(EVERY, ()))
        for term in terms(row.labels):
            if there:
                self._having.setdefault(term, set()).add(row.number)
            elif term in self._having:
                self._having[term].discard(row.number)
                if not self._having[term]:
                    del self._having[term]
            found |= self._needing.get(term, set())
        return found

    def _test(self, selector: Selector, numbers: Iterable[int]) -> None:
        """Bring one selector up to date about some identities."""
        before = self._selected[selector]
        matching = set()
        for number in numbers:
            row = self.tables.identities.get(number)
            if row is not None and selector.matches(row.labels):
                matching.add(number)
        gone = before.intersection(numbers) - matching
        new = matching - before
        if gone or new:
            self._selected[selector] = (before - gone) | new

    def _settle(self, selector: Selector) -> None:
        """Begin or cease to follow a selector."""
        wanted, known = self._users[selector] > 0, selector in self._selected
        if not wanted:
            del self._users[selector]
        if wanted and not known:
            needed = needs(selector)
            for term in needed:
                self._needing.setdefault(term, set()).add(selector)
            self._selected[selector] = frozenset()
            self._test(selector, self._candidates(needed))
        elif known and not wanted:
            for term in needs(selector):
                self._needing[term].discard(selector)
                if not self._needing[term]:
                    del self._needing[term]
            del self._selected[selector]

    def _candidates(self, needed: Iterable[Hashable]) -> list[int]:
        found: dict[int, None] = {}
        for term in needed:
            numbers = self.tables.identities.keys() if term == EVERY else self._having.get(term, ())
            found |= dict.fromkeys(numbers)  # type: ignore[arg-type]
        return list(found)

    def _publish(self, selector: Selector) -> None:
        identities = self._selected.get(selector)
        if identities is None:
            self.tables.selections.delete(selector)
        else:
            self.tables.selections.put(SelectionRow(selector, identities, self._users[selector]))


def _used(rules: Iterable[Rule]) -> Iterator[Selector]:
    """Selectors of peers, once per clause that uses them."""
    for rule in rules:
        for clause in rule.clauses:
            yield from clause.peers or ()


def terms(labels: Labels) -> Iterator[Hashable]:
    """What an identity can be found by: its labels with and without value and source, its prefixes."""
    for source, key, value in map(split, labels):
        if source == "cidr":
            yield from covering(key)
            continue
        for named in (source, "any"):
            yield named, key, value
            yield named, key


def needs(selector: Selector) -> tuple[Hashable, ...]:
    """Terms of which an identity must have one to be selected; the fewest identities, as far as is known.

    A label's value says more than that there is one, and every pod of a namespace has that label.
    """
    best: tuple[int, tuple[Hashable, ...]] = (9, (EVERY,))
    for one in selector.requirements:
        found = _needed(one)
        if found:
            worth = 0 if one.source == "cidr" else 1 if one.operator is Operator.IN else 3
            worth += one.key == NAMESPACE
            best = min(best, (worth, found), key=lambda choice: choice[0])
    return () if selector.nothing else best[1]


def _needed(one: Requirement) -> tuple[Hashable, ...]:
    if one.operator not in (Operator.IN, Operator.EXISTS):
        return ()
    if one.source == "cidr":
        return (network(one.key),)
    if one.operator is Operator.IN:
        return tuple((one.source, one.key, value) for value in one.values)
    return ((one.source, one.key),)
