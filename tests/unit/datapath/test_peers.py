"""The map of peers is what its table says, whatever fails on the way, also with many peers in an entry."""

from __future__ import annotations

import os
import random
import sys
from struct import Struct

import pytest

from podwire.base.errors import KernelError
from podwire.datapath import rows
from podwire.datapath.peers import HeldPeers, PeersMirror
from podwire.model.rule import Direction
from podwire.state.members import Moved
from podwire.state.peers import Classes, PeerRow, Peers

SEED = int(os.environ.get("PODWIRE_SEED", "0")) or random.SystemRandom().randrange(1 << 40)
STORIES, STEPS = 150, 60
KNOWN = (1425, 8994)  # an entry that could not be replaced was given up, but not what else stood in it
POLICIES, IDENTITIES = (7, 8), range(96, 108)
Peer = tuple[int, Direction, int]


class Kernel:
    """A map as a dictionary; the mirror is only told what became of its work."""

    capacity = 1 << 20

    def __init__(self, entries: dict[bytes, bytes]) -> None:
        self.entries = entries

    def items(self) -> list[tuple[bytes, bytes]]:
        return list(self.entries.items())

    def get(self, key: bytes) -> bytes | None:
        return self.entries.get(key)

    def put(self, key: bytes, value: bytes) -> None:
        self.entries[key] = value

    def put_many(self, entries: object) -> int:
        raise NotImplementedError

    def delete_many(self, keys: object) -> int:
        raise NotImplementedError

    def close(self) -> None:
        pass

    def peers(self) -> dict[Peer, int]:
        found = {}
        for key, value in self.entries.items():
            place, first = rows.peer_place(key)
            found |= {(*place, first + at): one for at, one in enumerate(rows.peer_classes(value)) if one}
        return found


class Story:
    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.table = Peers("policy_peers", help="")
        self.reader = self.table.changes()
        self.kernel = Kernel({})
        if self.chance.random() < 0.5:
            self.kernel.entries.update(
                rows.policy_peers(
                    PeerRow(self.chance.choice(POLICIES), Direction.INGRESS, identity, 9)
                    for identity in self.chance.sample(IDENTITIES, 4)
                )
            )
        self.mirror = PeersMirror("podwire_policy_peers", self.kernel, self.table)
        self.mirror.load()

    def change(self) -> None:
        chance = self.chance
        policy, direction = chance.choice(POLICIES), chance.choice(list(Direction))
        choice = chance.random()
        if choice < 0.5:
            self.table.put(PeerRow(policy, direction, chance.choice(IDENTITIES), chance.randint(1, 3)))
        elif choice < 0.75:
            self.table.delete((policy, direction, chance.choice(IDENTITIES)))
        elif choice < 0.9:
            named = chance.sample(IDENTITIES, chance.randint(0, 6))
            self.table.begin(policy, direction, Classes({one: chance.randint(1, 3) for one in named}))
        else:
            self.table.end(policy, direction)

    def note(self) -> None:
        """As the writer does; what left stays until it is released."""
        before = self.kernel.peers()
        for moved in self.reader.take():
            assert isinstance(moved, Moved)
            self.mirror.note(moved)
        self.write(failing=False)
        kept = (self.mirror._left, self.mirror._released)
        left = {(*place, one) for known in kept for place, found in known.items() for one in found}
        assert before.keys() & left <= self.kernel.peers().keys()

    def write(self, *, failing: bool) -> None:
        work = self.mirror.work()
        failures = {key: KernelError("no", 7) for key in work if failing and self.chance.random() < 0.3}
        for key, value in work.items():
            if key not in failures:
                self.kernel.put(key, value)
        self.mirror.wrote(work, failures)
        self.check_held()

    def remove(self, *, failing: bool) -> None:
        """An identity of several that an entry is about goes by a write, when peers are removed."""
        self.mirror.make_smaller()
        self.write(failing=failing)
        keys = self.mirror.leaving()
        if not keys:
            return
        if failing and self.chance.random() < 0.3:
            for key in keys[: len(keys) // 2]:
                self.kernel.entries.pop(key, None)
            self.mirror.removed(keys, KernelError("no", 7))
            return
        for key in keys:
            self.kernel.entries.pop(key, None)
        self.mirror.removed(keys, None)
        self.check_held()

    def check_held(self) -> None:
        if not self.mirror.refused:
            assert dict(self.mirror.held.items()) == self.kernel.entries
            assert len(self.mirror.held) == len(self.kernel.entries)
            of_seven = [key for key in self.kernel.entries if rows.peer_place(key)[0][0] == 7]
            assert self.mirror.held.count_of({7}) == len(of_seven)

    def rest(self) -> None:
        """Everything is noted and released, nothing fails any more, and what an earlier agent left goes."""
        for moved in self.reader.take():
            assert isinstance(moved, Moved)
            self.mirror.note(moved)
        for policy in POLICIES:
            self.mirror.release(policy)
        self.mirror.prune_all_but(set())
        for _ in range(3):
            self.write(failing=False)
            self.remove(failing=False)
        wanted = {(row.policy, row.direction, row.identity): row.peer_class for row in self.table}
        assert self.kernel.peers() == wanted
        assert not self.mirror.unfinished and not self.mirror._left and not self.mirror.has_released


@pytest.mark.parametrize("span", [1, 4, 16])
def test_in_the_end_the_kernel_has_what_the_table_says(span: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "PEER_SPAN", span)
    monkeypatch.setattr(rows, "_PEER_VALUE", Struct(f"={span}I"))
    print(f"PODWIRE_SEED={SEED}")
    for seed in (*KNOWN, *range(SEED, SEED + STORIES)):
        story = Story(seed)
        try:
            for _ in range(STEPS):
                step = story.chance.random()
                if step < 0.6:
                    story.change()
                elif step < 0.75:
                    story.note()
                elif step < 0.85:
                    story.write(failing=True)
                elif step < 0.95:
                    story.remove(failing=True)
                else:
                    story.mirror.release(story.chance.choice(POLICIES))
            story.rest()
        except BaseException:
            print(f"the story of seed {seed}")
            raise


def test_a_peer_is_some_bytes() -> None:
    """Not an object, and not a place in a dictionary."""
    count = 10_000
    held = HeldPeers()
    entries = rows.policy_peers(PeerRow(7, Direction.INGRESS, 256 + one, 1) for one in range(count))
    held.update(entries)
    side = held.of((7, Direction.INGRESS))
    size = sum(sys.getsizeof(getattr(side, name)) for name in Classes.__slots__)
    assert len(side) == count and size <= 10 * count


def test_classes_are_a_sorted_dictionary() -> None:
    print(f"PODWIRE_SEED={SEED}")
    chance = random.Random(SEED)
    known: dict[int, int] = {}
    made = Classes()
    for _ in range(2000):
        identity, peer_class = chance.randrange(60), chance.choice((0, 0, 1, 2, 1 << 31))
        assert made.set(identity, peer_class) == known.get(identity, 0)
        known.pop(identity, None)
        if peer_class:
            known[identity] = peer_class
        assert dict(made.items()) == known and list(made) == sorted(known)
    assert dict(Classes(known).items()) == known
    copy = made.copy()
    made.set(1, 7)
    assert dict(copy.items()) == known
