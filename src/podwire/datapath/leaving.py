"""Rows of policies that are to go: they stay while an endpoint in the kernel obeys their policy.

An endpoint is switched when its new policy is whole in the kernel. If that cannot be (a map is full),
the old one stays as it is, although no table has it any more: what was in force stays in force.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Set
from typing import Any

from podwire.abi import structs
from podwire.datapath import missing, rows
from podwire.datapath.mirror import Mirror
from podwire.datapath.peers import PeersMirror


class Leaving:
    """Removes rows of the two policy maps when their policy is obeyed no more."""

    def __init__(self, mirrors: Mapping[str, Mirror]) -> None:
        self._entries = mirrors[missing.POLICY]
        peers = mirrors[missing.PEERS]
        assert isinstance(peers, PeersMirror)
        self._peers = peers
        self._rows: dict[int, set[Hashable]] = {}  # policy → rows of entries
        self._with_peers: set[int] = set()  # policies that peers leave as well
        self.unpruned = False  # an earlier agent's rows are still to go

    def note(self, batch: Iterable[Any], entries: Callable[[Any], rows.Entries]) -> None:
        """Changed rows of table policy_entries: those that are there are wanted, the others leave later."""
        for change in batch:
            policy, row = change.key[0], change.key
            if change.new is None:
                self._rows.setdefault(policy, set()).add(row)
                continue
            if policy in self._rows:
                self._rows[policy].discard(row)
            self._entries.want(row, entries(change.new))

    def note_peers(self, batch: Iterable[Any]) -> None:
        """The same for table policy_peers."""
        for moved in batch:
            if self._peers.note(moved):
                self._with_peers.add(moved.key[0])

    def __bool__(self) -> bool:
        return self.unpruned or bool(self._rows) or bool(self._with_peers) or self._peers.has_released

    def release(self, policies: Iterable[int]) -> None:
        """The next `remove` of the maps takes what leaves from `policies`."""
        for policy in policies:
            for row in self._rows.pop(policy, ()):
                self._entries.want(row, {})
            if policy in self._with_peers:
                self._with_peers.discard(policy)
                self._peers.release(policy)

    def release_all_but(self, obeyed: Set[int]) -> None:
        """The same for all policies but those that are obeyed; an earlier agent's rows as well."""
        self.release([policy for policy in {*self._rows, *self._with_peers} if policy not in obeyed])
        if self.unpruned:
            kept = self._entries.prune(lambda key: structs.PolicyKey.unpack(key).policy in obeyed)
            self.unpruned = self._peers.prune_all_but(obeyed) or kept

    def make_smaller(self) -> None:
        """As peers are to be removed: want entries without those that were released."""
        self._peers.make_smaller()

    def would_make_room(self, wanted: Set[int]) -> bool:
        """Whether all of `wanted` would fit if everything that leaves were gone."""
        # Of what does not fit, too, only what is of these: the rest goes.
        entries = [*self._entries.held, *self._entries.failures]
        peers = sum(rows.peer_place(key)[0][0] in wanted for key in self._peers.failures)
        needed = (
            (self._entries, sum(structs.PolicyKey.unpack(key).policy in wanted for key in entries)),
            (self._peers, self._peers.held.count_of(wanted) + peers),
        )
        return all(count <= one.map.capacity for one, count in needed)
