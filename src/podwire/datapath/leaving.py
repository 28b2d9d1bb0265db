"""Rows of policies that are to go: they stay while an endpoint in the kernel obeys their policy.

An endpoint is switched when its new policy is whole in the kernel. If that cannot be (a map is full),
the old one stays as it is, although no table has it any more: what was in force stays in force.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import Any

from podwire.abi import structs
from podwire.datapath import peers, rows
from podwire.datapath.mirror import Mirror
from podwire.state.tables import Tables

ENTRIES, PEERS = "podwire_policy", "podwire_policy_peers"
KEYS: dict[str, type[structs.PolicyKey] | type[structs.PolicyPeersKey]] = {
    ENTRIES: structs.PolicyKey,
    PEERS: structs.PolicyPeersKey,
}


class Leaving:
    """Removes rows of the two policy maps when their policy is obeyed no more."""

    def __init__(self, tables: Tables, mirrors: Mapping[str, Mirror]) -> None:
        self._tables = tables
        self._mirrors = {name: mirrors[name] for name in KEYS}
        self._rows: dict[int, set[tuple[str, Any]]] = {}  # policy → (map, row)
        self._smaller: set[peers.Block] = set()  # of which identities may go now
        self.unpruned = False  # an earlier agent's rows are still to go

    def note_entries(self, batch: Iterable[Any]) -> None:
        """Changed rows of policy_entries: those that are there are wanted, the others leave later."""
        for change in batch:
            policy, row = change.key[0], (ENTRIES, change.key)
            if change.new is None:
                self._rows.setdefault(policy, set()).add(row)
                continue
            if policy in self._rows:
                self._rows[policy].discard(row)
            self._mirrors[ENTRIES].want(change.key, rows.policy_entry(change.new))

    def note_peers(self, batch: Iterable[Any]) -> None:
        """The same for policy_peers."""
        mirror = self._mirrors[PEERS]
        for block in {peers.block_of(*change.key) for change in batch}:
            key, policy = peers.key_of(block), block[0]
            now = peers.content(self._tables, block)
            kept = peers.with_those_before(mirror.latest(key), now)
            if kept != now:
                self._rows.setdefault(policy, set()).add((PEERS, block))
            elif policy in self._rows:
                self._rows[policy].discard((PEERS, block))
            self._smaller.discard(block)
            mirror.want(block, {key: kept} if kept != peers.NOBODY else {})

    def __bool__(self) -> bool:
        return self.unpruned or bool(self._rows) or bool(self._smaller)

    def release(self, policies: Iterable[int]) -> None:
        """The next `remove` of the maps takes what leaves from `policies`."""
        for policy in policies:
            for name, row in self._rows.pop(policy, ()):
                if name == PEERS:
                    self._smaller.add(row)
                else:
                    self._mirrors[name].want(row, {})

    def make_smaller(self) -> None:
        """Before peers are removed: want blocks without the identities that go."""
        for block in self._smaller:
            now = peers.content(self._tables, block)
            self._mirrors[PEERS].want(block, {peers.key_of(block): now} if now != peers.NOBODY else {})
        self._smaller.clear()

    def release_all_but(self, obeyed: Set[int]) -> None:
        """The same for all policies but those that are obeyed; an earlier agent's rows as well."""
        self.release([policy for policy in self._rows if policy not in obeyed])
        if self.unpruned:
            self.unpruned = False
            for name, kind in KEYS.items():
                kept = self._mirrors[name].prune(lambda key, kind=kind: kind.unpack(key).policy in obeyed)  # type: ignore[misc]
                self.unpruned |= kept

    def would_make_room(self, wanted: Set[int]) -> bool:
        """Whether all of `wanted` would fit if everything that leaves were gone."""
        for name, kind in KEYS.items():
            mirror = self._mirrors[name]
            staying = sum(kind.unpack(key).policy in wanted for key in mirror.held)
            if staying + len(mirror.failures) > mirror.map.capacity:
                return False
        return True
