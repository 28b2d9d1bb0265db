"""Table policy_peers: identity → class, for each policy and direction, in arrays (`state.members`).

A node may have a hundred policies that name ten thousand identities each. As rows of a table that is a
gigabyte of Python; as two sorted arrays it is eight bytes a peer. One that comes or goes moves the rest of
the arrays, which is a copy of some kilobytes and takes less than the row's objects took.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterator, Mapping

import msgspec

from podwire.model.rule import Direction
from podwire.state.members import MemberTable, ReadMembers
from podwire.state.table import Key

NUMBER = "I"  # what arrays hold: 32 bits without sign, identities and classes alike
SidePlace = tuple[int, Direction]  # policy, direction


class PeerRow(msgspec.Struct, frozen=True):
    """Stage one: identity → class of peers, for one policy and direction."""

    policy: int
    direction: Direction
    identity: int
    peer_class: int


class Classes:
    """Identity → class (never 0), sorted by identity."""

    __slots__ = ("_classes", "_identities")

    def __init__(self, known: Mapping[int, int] | None = None) -> None:
        found = known or {}
        self._identities = array(NUMBER, sorted(found))
        self._classes = array(NUMBER, map(found.__getitem__, self._identities))

    def copy(self) -> Classes:
        """The same now; it does not follow."""
        made = Classes()
        made._identities, made._classes = self._identities[:], self._classes[:]
        return made

    def get(self, identity: int) -> int:
        """0 = none."""
        place = bisect_left(self._identities, identity)
        found = place < len(self._identities) and self._identities[place] == identity
        return self._classes[place] if found else 0

    def set(self, identity: int, peer_class: int) -> int:
        """Put, or with class 0 remove; the class before."""
        identities, classes = self._identities, self._classes
        place = bisect_left(identities, identity)
        if place == len(identities) or identities[place] != identity:
            if peer_class:
                identities.insert(place, identity)
                classes.insert(place, peer_class)
            return 0
        before = classes[place]
        if peer_class:
            classes[place] = peer_class
        else:
            del identities[place], classes[place]
        return before

    def __len__(self) -> int:
        return len(self._identities)

    def __iter__(self) -> Iterator[int]:
        return iter(self._identities)

    def __contains__(self, identity: int) -> bool:
        return self.get(identity) != 0

    def items(self) -> Iterator[tuple[int, int]]:
        """(identity, class), ascending."""
        return zip(self._identities, self._classes, strict=True)

    def values(self) -> Iterator[int]:
        return iter(self._classes)


NO_PEERS = Classes()


class ReadPeers(ReadMembers[PeerRow]):
    """Policy and direction → who is in which class. A row is one peer; a set is all of a direction.

    This is what readers have of it.
    """

    ROW = PeerRow

    def __init__(self, name: str, *, help: str) -> None:
        super().__init__(name, lambda row: (row.policy, row.direction, row.identity), help=help)
        self._sides: dict[SidePlace, Classes] = {}
        self._count = 0

    def of(self, policy: int, direction: Direction) -> Classes:
        """All peers of a direction as they are now; who reads them does not change them."""
        return self._sides.get((policy, direction), NO_PEERS)

    def sets(self) -> Iterator[SidePlace]:
        return iter(self._sides)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[PeerRow]:
        for (policy, direction), classes in list(self._sides.items()):
            for identity, peer_class in list(classes.items()):
                yield PeerRow(policy, direction, identity, peer_class)

    def __contains__(self, key: Key) -> bool:
        return self.get(key) is not None

    def keys(self) -> list[Key]:
        return [(row.policy, row.direction, row.identity) for row in self]

    def get(self, key: Key) -> PeerRow | None:
        policy, direction, identity = _place(key)
        peer_class = self.of(policy, direction).get(identity)
        return PeerRow(policy, direction, identity, peer_class) if peer_class else None


class Peers(ReadPeers, MemberTable[PeerRow]):
    """The same for who writes it."""

    def begin(self, policy: int, direction: Direction, classes: Classes) -> None:
        """All peers of a direction, instead of those there are; they are the table's from now on."""
        place = policy, direction
        if not self._drop(place) and not len(classes):
            return
        if len(classes):
            self._sides[place] = classes
            self._count += len(classes)
        self._set_moved(place)

    def end(self, policy: int, direction: Direction) -> None:
        """A direction names nobody any more."""
        if self._drop((policy, direction)):
            self._set_moved((policy, direction))

    def _drop(self, place: SidePlace) -> bool:
        gone = self._sides.pop(place, None)
        self._count -= len(gone or ())
        return gone is not None

    def set(self, policy: int, direction: Direction, identity: int, peer_class: int) -> int:
        """Put one peer, or with class 0 remove it; the class it had."""
        place = policy, direction
        classes = self._sides.get(place)
        if classes is None:
            if not peer_class:
                return 0
            classes = self._sides[place] = Classes()
        before = classes.set(identity, peer_class)
        self._count += bool(peer_class) - bool(before)
        if not len(classes):
            del self._sides[place]
        if before != peer_class:
            self._member_moved((place,), identity)
        return before

    def put(self, row: PeerRow) -> bool:
        before = self.set(row.policy, row.direction, row.identity, row.peer_class)
        return before != row.peer_class

    def delete(self, key: Key) -> PeerRow | None:
        policy, direction, identity = _place(key)
        before = self.set(policy, direction, identity, 0)
        return PeerRow(policy, direction, identity, before) if before else None


def _place(key: Key) -> tuple[int, Direction, int]:
    assert isinstance(key, tuple)
    policy, direction, identity = key
    return policy, Direction(direction), identity
