"""Table selections: selectors in use and the identities each selects, by difference (`state.members`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set

import msgspec

from podwire.model.selector import Selector
from podwire.state.members import MemberTable, ReadMembers
from podwire.state.table import Key

NOBODY: frozenset[int] = frozenset()


class SelectionRow(msgspec.Struct, frozen=True):
    """A selector that some rule uses, and the identities it selects now."""

    selector: Selector
    identities: frozenset[int]
    users: int


class ReadSelections(ReadMembers[SelectionRow]):
    """Selector → the identities it selects, and how many clauses use it: what readers have of it."""

    ROW = SelectionRow

    def __init__(self, name: str, *, help: str) -> None:
        super().__init__(name, lambda row: row.selector, help=help)
        self._sets: dict[Selector, set[int]] = {}
        self._users: dict[Selector, int] = {}

    def members(self, selector: Selector) -> Set[int]:
        """Whom it selects now: the set itself, which goes on changing. Nobody, if it is not in use."""
        return self._sets.get(selector, NOBODY)

    def sets(self) -> Iterator[Selector]:
        return iter(self._sets)

    def __len__(self) -> int:
        return len(self._sets)

    def __iter__(self) -> Iterator[SelectionRow]:
        return iter([self._row(selector) for selector in self._sets])

    def __contains__(self, key: Key) -> bool:
        return key in self._sets

    def keys(self) -> list[Key]:
        return list(self._sets)

    def get(self, key: Key) -> SelectionRow | None:
        """As it is now, copied."""
        return self._row(key) if isinstance(key, Selector) and key in self._sets else None

    def _row(self, selector: Selector) -> SelectionRow:
        return SelectionRow(selector, frozenset(self._sets[selector]), self._users[selector])


class Selections(ReadSelections, MemberTable[SelectionRow]):
    """The same for who writes it."""

    def begin(self, selector: Selector, identities: set[int], users: int) -> None:
        """A selector is in use from now on; the set is the table's from now on."""
        self._sets[selector] = identities
        self._users[selector] = users
        self._set_moved(selector)

    def use(self, selector: Selector, users: int) -> None:
        """So many clauses use it; whom it selects is as before."""
        if self._users[selector] != users:
            self._users[selector] = users
            self.revision += 1

    def move(self, identity: int, into: Iterable[Selector], out_of: Iterable[Selector]) -> None:
        """An identity is selected by these selectors now and not by those; all others stay as they are."""
        moved = []
        for selector in into:
            members = self._sets[selector]
            if identity not in members:
                members.add(identity)
                moved.append(selector)
        for selector in out_of:
            members = self._sets[selector]
            if identity in members:
                members.remove(identity)
                moved.append(selector)
        if moved:
            self._member_moved(moved, identity)

    def put(self, row: SelectionRow) -> bool:
        if self.get(row.selector) == row:
            return False
        self.begin(row.selector, set(row.identities), row.users)
        return True

    def delete(self, key: Key) -> SelectionRow | None:
        row = self.get(key)
        if row is not None:
            self.end(row.selector)
        return row

    def end(self, selector: Selector) -> None:
        """Nobody uses it any more."""
        del self._sets[selector], self._users[selector]
        self._set_moved(selector)
