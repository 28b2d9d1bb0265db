"""The map of peers, kept equal to table policy_peers: a mirror that holds what it holds in arrays.

There may be a million peers on a node. The table says who is in which class, by policy and direction
(`state.peers`), and so does what the kernel has; in between there is only what is to be done. How many
identities an entry of the map is about is `rows.PEER_SPAN`; everything here is by identity, and by entry
where the kernel is asked.

A peer that left the table stays while an endpoint obeys its policy (`leaving`): until it is released, its
entry is wanted as it is. An entry is about several identities, so that one goes may be a write: it is put
off until peers are removed (`make_smaller`), for while addresses lead to it it must not count as any other.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, MutableMapping, Set
from typing import Any

from podwire.base.errors import PodwireError
from podwire.datapath import rows
from podwire.datapath.mirror import Mirror, RowKey, Target
from podwire.model.rule import Direction
from podwire.state.members import Moved
from podwire.state.peers import NO_PEERS, Classes, ReadPeers, SidePlace

MANY = 64  # identities of one direction from which on its arrays are made anew


class HeldPeers(MutableMapping[bytes, bytes]):
    """Entries of the map as keys and values, kept as identities and classes."""

    def __init__(self) -> None:
        self._sides: dict[SidePlace, Classes] = {}
        self._entries: dict[SidePlace, int] = {}  # how many entries those are

    def of(self, place: SidePlace) -> Classes:
        """Peers of one policy and direction; who reads them does not change them."""
        return self._sides.get(place, NO_PEERS)

    def sides(self) -> list[SidePlace]:
        return list(self._sides)

    def count_of(self, policies: Set[int]) -> int:
        """Entries of some policies."""
        return sum(count for (policy, _), count in self._entries.items() if policy in policies)

    def update(self, entries: Any = (), /, **_: Any) -> None:
        """Insert or replace many: pairs, or a mapping."""
        by_side: dict[SidePlace, dict[int, int]] = {}
        for key, value in entries.items() if isinstance(entries, Mapping) else entries:
            place, first = rows.peer_place(key)
            found = by_side.setdefault(place, {})
            for number, peer_class in enumerate(rows.peer_classes(value), first):
                found[number] = peer_class
        for place, found in by_side.items():
            if len(found) < MANY:
                side = self._sides.setdefault(place, Classes())
                for number, peer_class in found.items():
                    side.set(number, peer_class)
            else:
                merged = dict(self.of(place).items()) | found
                self._sides[place] = Classes({number: one for number, one in merged.items() if one})
            self._count(place)

    def _count(self, place: SidePlace) -> None:
        side = self._sides[place]
        if not len(side):
            del self._sides[place]
            self._entries.pop(place, None)
        else:
            self._entries[place] = len({number // rows.PEER_SPAN for number in side})

    def __getitem__(self, key: bytes) -> bytes:
        value: bytes | None = self.get(key)
        if value is None:
            raise KeyError(key)
        return value

    def get(self, key: bytes, default: Any = None) -> Any:
        """As mappings have it, for who asks often for what is not there."""
        place, first = rows.peer_place(key)
        side = self._sides.get(place)
        if side is None:
            return default
        classes = [side.get(number) for number in range(first, first + rows.PEER_SPAN)]
        return rows.peer_value(classes) if any(classes) else default

    def __contains__(self, key: object) -> bool:
        return isinstance(key, bytes) and self.get(key) is not None

    def __setitem__(self, key: bytes, value: bytes) -> None:
        self.update([(key, value)])

    def __delitem__(self, key: bytes) -> None:
        place, first = rows.peer_place(key)
        side = self._sides[place]
        removed = [side.set(number, 0) for number in range(first, first + rows.PEER_SPAN)]
        if not any(removed):
            raise KeyError(key)
        self._count(place)

    def __iter__(self) -> Iterator[bytes]:
        for place, side in list(self._sides.items()):
            yield from dict.fromkeys(rows.peer_key(*place, number) for number in side)

    def __len__(self) -> int:
        return sum(self._entries.values())


class PeersMirror(Mirror):
    """Unlike other mirrors it is told which rows changed (`note`), and asks the table what they are."""

    held: HeldPeers

    def __init__(self, name: str, target: Target, table: ReadPeers) -> None:
        super().__init__(name, target, truthful=True)
        self.held = HeldPeers()
        self._table = table
        self._noted: set[SidePlace] = set()  # what is held of others is an earlier agent's
        self._left: dict[SidePlace, set[int]] = {}  # not in the table any more, and not released
        self._released: dict[SidePlace, set[int]] = {}  # these may go

    def load(self) -> None:
        self.held.update(self.map.items())

    def note(self, moved: Moved) -> bool:
        """Peers of a direction changed: those there are, are wanted; whether any left."""
        place = _side(moved.key)
        now = self._table.of(*place)
        left = self._left.setdefault(place, set())
        if moved.members is None:
            left.update(self._mine(place) if place in self._noted else ())
            left.difference_update(now)
            changed = dict(now.items())
        else:
            changed = {one: peer_class for one in moved.members if (peer_class := now.get(one))}
            left.difference_update(changed)
            left.update(one for one in moved.members if one not in changed and self._has(place, one))
        if place in self._released:  # what is back may not go; what is not, need not be released again
            self._released[place].difference_update(changed)
            left.difference_update(self._released[place])
        if not left:
            del self._left[place]
        if left or len(now):
            self._noted.add(place)
        else:
            self._noted.discard(place)
        self._change(place, changed)
        return bool(left)

    def release(self, policy: int) -> None:
        """What left the table and is of this policy is wanted no more."""
        for direction in Direction:
            if left := self._left.pop((policy, direction), None):
                self._released.setdefault((policy, direction), set()).update(left)

    @property
    def has_released(self) -> bool:
        return bool(self._released)

    def make_smaller(self) -> None:
        """Want entries without what was released."""
        released, self._released = self._released, {}
        for place, left in released.items():
            now = self._table.of(*place)
            # What is back is noted in a moment, together with the entries of the class it is back in.
            self._change(place, {one: 0 for one in left if one not in now})

    def removed(self, keys: Collection[bytes], error: PodwireError | None) -> None:
        super().removed(keys, error)
        for place in {rows.peer_place(key)[0] for key in keys}:
            if not len(self._table.of(*place)) and not self._mine(place):
                self._noted.discard(place)

    def prune_all_but(self, policies: Set[int]) -> bool:
        """Give up what an earlier agent left and no row wants, but of these policies; whether any is kept."""
        kept = False
        # An entry that could not be replaced may be held no more, and be written again as it was.
        pending = {rows.peer_place(key)[0] for key in self._dirty}
        for place in pending.union(self.held.sides()):
            now = self._table.of(*place)
            left = self._left.get(place, set()) | self._released.get(place, set())
            mine = self._mine(place) if place in pending else self.held.of(place)
            unwanted = {one: 0 for one in mine if one not in now and one not in left}
            if unwanted and place[0] in policies:
                kept = True
            else:
                self._change(place, unwanted)
        return kept

    def failed_rows(self) -> dict[RowKey, PodwireError]:
        found: dict[RowKey, PodwireError] = {}
        for key, error in self.failures.items():
            place, first = rows.peer_place(key)
            classes = self._wanted_of(key)
            found |= {(*place, number): error for number, one in enumerate(classes, first) if one}
        return found

    # Inside

    def _owned(self, key: bytes) -> bool:
        return rows.peer_place(key)[0] in self._noted

    def _wanted_of(self, key: bytes) -> tuple[int, ...]:
        """The classes an entry has or is to have; none, if it is to go."""
        value = self._dirty.get(key)
        if value is None and key not in self._gone:
            value = self.held.get(key)
        return rows.peer_classes(value) if value is not None else (0,) * rows.PEER_SPAN

    def _mine(self, place: SidePlace) -> set[int]:
        """Identities with an entry that is wanted, there or to be written."""
        found = set(self.held.of(place))
        for key in self._gone | self._dirty.keys():
            of, first = rows.peer_place(key)
            if of == place:
                found.difference_update(range(first, first + rows.PEER_SPAN))
                found.update(number for number, one in enumerate(self._wanted_of(key), first) if one)
        return found

    def _has(self, place: SidePlace, identity: int) -> bool:
        return self._wanted_of(rows.peer_key(*place, identity))[identity % rows.PEER_SPAN] != 0

    def _change(self, place: SidePlace, changed: Mapping[int, int]) -> None:
        """Want entries as they are wanted, but for these identities' classes."""
        entries: dict[bytes, list[int]] = {}
        for identity, peer_class in changed.items():
            key = rows.peer_key(*place, identity)
            classes = entries.get(key)
            if classes is None:
                classes = entries[key] = list(self._wanted_of(key))
            classes[identity % rows.PEER_SPAN] = peer_class
        new = not len(self.held.of(place))
        for key, classes in entries.items():
            if not any(classes):
                self._give_up(key)
            elif new:  # nothing to compare with, and there may be many
                self._dirty[key] = rows.peer_value(classes)
                self._gone.discard(key)
            else:
                self._want_entry(key, rows.peer_value(classes))


def _side(key: object) -> SidePlace:
    assert isinstance(key, tuple)
    policy, direction = key
    return policy, direction
