"""Selectors of rules to the identities they select, by difference.

In the walk: rules and identities are in tables; policy.compute reads the selections. Identities are listed
under their terms (`model.terms`), selectors under those they need. An identity that comes is tested against
the selectors that one of its labels could satisfy; whom a selector that comes selects is an intersection of
lists. So the work is that of the change, and none of it looks at pairs that have nothing in common.

An identity moves in and out of all selections in one piece, a selector comes with all it selects: in
between, the event loop gets its turn, and nobody ever sees half of one.

A selector that selects nothing is there, with nothing in it: what cannot be resolved matches nobody.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Set
from typing import Protocol

from podwire.base.aio import boundary, in_slices
from podwire.model.implied import LOCALHOST
from podwire.model.labels import Labels
from podwire.model.rule import Rule
from podwire.model.selector import NOTHING, Selector
from podwire.model.terms import EVERY, Asked, Term, own_terms, terms
from podwire.state.selections import Selections
from podwire.state.table import Batch, Change, Table, Watch
from podwire.state.tables import IdentityRow, PolicyRow, ProgressRow
from podwire.state.views import ReadTables
from podwire.state.writers import SELECT

STAGE = "identity.select"


class Written(ReadTables, Protocol):
    """The tables, with those that are written here."""

    @property
    def selections(self) -> Selections: ...

    @property
    def progress(self) -> Table[ProgressRow]: ...


class Select:
    """Keeps table selections."""

    def __init__(self, tables: Written) -> None:
        self.tables = tables
        self._users: Counter[Selector] = Counter()
        self._asked: dict[Selector, Asked] = {}
        self._needing: dict[Term, set[Selector]] = {}  # term → selectors found by it
        self._listed: dict[Term, set[int]] = {}  # term → identities that have it
        self._all: set[int] = set()
        self._sources: set[str] = set()  # of labels that are, or were, listed
        for selector in _used((LOCALHOST,)):
            self._users[selector] += 1
            self._settle(selector)

    async def run(self) -> None:
        """Until cancelled."""
        with Watch(self.tables.policies, self.tables.identities) as watch:
            while True:
                await in_slices(self.steps(*await watch.next()))

    def step(self, policies: Batch[PolicyRow], identities: Batch[IdentityRow]) -> None:
        """Make the selections what rules and identities say now."""
        for _ in self.steps(policies, identities):
            pass

    def steps(self, policies: Batch[PolicyRow], identities: Batch[IdentityRow]) -> Iterator[None]:
        """`step`, in pieces: after each one, others may have their turn."""
        now = ProgressRow(STAGE, self.tables.identities.revision, self.tables.policies.revision)
        for change in identities:
            with boundary(f"selecting identity {change.key}"):
                self._take_identity(change)
            yield
        counted: dict[Selector, None] = {}
        for policy in policies:
            for version, by in ((policy.old, -1), (policy.new, 1)):
                for selector in _used(version.rules if version else ()):
                    self._users[selector] += by
                    counted[selector] = None
        for selector in counted:
            self._settle(selector)
            yield
        if policies.ready and identities.ready:
            self.tables.selections.mark_ready(SELECT)
        self.tables.progress.put(now)
        if self.tables.selections.ready:
            self.tables.progress.mark_ready(SELECT)

    # --- identities

    def _take_identity(self, change: Change[IdentityRow]) -> None:
        """List an identity under its labels, and move it into and out of selections."""
        old, new = change.old, change.new
        if old is not None and new is not None and old.labels == new.labels:
            return
        row = new or old
        assert row is not None
        before = self._unlist(row.number, old.labels) if old is not None else frozenset()
        after = self._list(row.number, new.labels) if new is not None else frozenset()
        found: set[Selector] = set(self._needing.get(EVERY, ()))
        for term in before | after:
            found |= self._needing.get(term, set())
        into: list[Selector] = []
        out_of: list[Selector] = []
        for selector in found:
            matches = new is not None and self._asked[selector].matches(after)
            (into if matches else out_of).append(selector)
        self.tables.selections.move(row.number, into, out_of)

    def _list(self, number: int, labels: Labels) -> Set[Term]:
        self._all.add(number)
        for term in own_terms(labels):
            self._listed.setdefault(term, set()).add(number)
            if isinstance(term, tuple) and isinstance(term[0], str):
                self._sources.add(term[0])
        return terms(labels)

    def _unlist(self, number: int, labels: Labels) -> Set[Term]:
        self._all.discard(number)
        for term in own_terms(labels):
            listed = self._listed.get(term)
            if listed is not None:
                listed.discard(number)
                if not listed:
                    del self._listed[term]
        return terms(labels)

    # --- selectors

    def _settle(self, selector: Selector) -> None:
        """Begin or cease to follow a selector."""
        users, known = self._users[selector], selector in self._asked
        if not users:
            del self._users[selector]
        if users and not known:
            self._begin(selector, users)
        elif users:
            self.tables.selections.use(selector, users)
        elif known:
            for term in self._asked.pop(selector).needs:
                self._needing[term].discard(selector)
                if not self._needing[term]:
                    del self._needing[term]
            self.tables.selections.end(selector)

    def _begin(self, selector: Selector, users: int) -> None:
        asked = Asked(NOTHING)
        with boundary(f"selecting by {selector}"):  # by what cannot be asked, nobody is selected
            asked = Asked(selector)
        self._asked[selector] = asked
        for term in asked.needs:
            self._needing.setdefault(term, set()).add(selector)
        self.tables.selections.begin(selector, self._selected(asked), users)

    def _selected(self, asked: Asked) -> set[int]:
        """All that a selector selects: intersections of what is listed, the shortest list first."""
        if asked.nothing:
            return set()
        lists = sorted((self._having(one) for one in asked.some), key=len)
        found = set(lists[0] if lists else self._all)
        for more in lists[1:]:
            found &= more
        for term in asked.none:
            found -= self._having((term,))
        return found

    def _having(self, asked: Iterable[Term]) -> Set[int]:
        """Identities listed under one of these terms; not copied where it is but one."""
        lists = [
            listed
            for term in asked
            for own in self._of_sources(term)
            if (listed := self._listed.get(own)) is not None
        ]
        return lists[0] if len(lists) == 1 else set[int]().union(*lists)

    def _of_sources(self, term: Term) -> Iterable[Term]:
        """`any` source is each source there is: they are not listed twice."""
        if isinstance(term, tuple) and term[0] == "any":
            return ((source, *term[1:]) for source in self._sources)
        return (term,)


def _used(rules: Iterable[Rule]) -> Iterator[Selector]:
    """Selectors of peers, once per clause that uses them."""
    for rule in rules:
        for clause in rule.clauses:
            yield from clause.peers or ()
