"""Tables whose rows are sets of many members that come and go one at a time.

A frozen row with all members would be copied, kept and compared by each reader for one that comes. So
the set belongs to the table, rows are made for who looks at one, and a reader is told *which* members of
which sets may be others than when it last asked; what they are now it asks the table. So changes coalesce
by member, and a reader that is late finds what is there, never what was there in between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence, Set
from typing import Any, ClassVar, TypeVar

import msgspec

from podwire.state.table import Batch, Change, Changes, Key, ReadTable, Table

Row = TypeVar("Row")


class Moved(Change[Any], frozen=True):
    """Members of one set that may have come, gone or changed; None = any of it, the set itself as well.

    `key` is the set's. `old` and `new` are never there.
    """

    members: Set[int] | None = None


class Moves(Changes[Row]):
    """A reader's view of such a table."""

    def __init__(self, table: ReadTable[Row]) -> None:
        super().__init__(table)
        self._moved: dict[Key, set[int] | None] = {}

    def all_of(self, key: Key) -> None:
        """The set is new, gone, or another."""
        self._moved[key] = None
        self.wake()

    def one_of(self, keys: Sequence[Key], member: int) -> None:
        """A member of these sets came, went or changed."""
        moved = self._moved
        if not moved:  # else it is awake
            self.wake()
        for key in keys:
            if key not in moved:
                moved[key] = {member}
            elif (members := moved[key]) is not None:
                members.add(member)

    def forget(self) -> None:
        """As `take`, for who knows it already."""
        self._moved = {}

    def pending(self) -> bool:
        return bool(self._moved) or self.table.ready != self._told_ready

    def take(self) -> Batch[Row]:
        moved, self._moved = self._moved, {}
        self._told_ready = self.table.ready
        changes: tuple[Change[Row], ...] = tuple(
            Moved(key, None, None, members) for key, members in moved.items()
        )
        return Batch(changes, self.table.ready, self.table.revision)


class ReadMembers(ReadTable[Row]):
    """What readers have of both tables of sets: who moved, instead of rows before and after."""

    ROW: ClassVar[type[msgspec.Struct]]  # what a row is

    def __init__(self, name: str, key: Callable[[Row], Key], *, help: str) -> None:
        super().__init__(name, key, help=help)
        self._moves: list[Moves[Row]] = []

    def sets(self) -> Iterable[Key]:
        """Keys of the sets there are."""
        raise NotImplementedError

    def revision_of(self, key: Key) -> int:
        """Not kept for members."""
        raise NotImplementedError(f"table {self.name} has no revisions of rows")

    def changes(self) -> Moves[Row]:
        reader = Moves(self)
        for key in self.sets():
            reader.all_of(key)
        self._moves.append(reader)
        self._readers.append(reader)
        return reader

    def unsubscribe(self, reader: Changes[Row]) -> None:
        super().unsubscribe(reader)
        self._moves = [one for one in self._moves if one is not reader]


class MemberTable(ReadMembers[Row], Table[Row]):
    """The same for who writes it."""

    def _set_moved(self, key: Key) -> None:
        self.revision += 1
        for reader in self._moves:
            reader.all_of(key)

    def _member_moved(self, keys: Sequence[Key], member: int) -> None:
        self.revision += len(keys)
        for reader in self._moves:
            reader.one_of(keys, member)
