"""Rows of policies that are to go: they stay while an endpoint in the kernel obeys their policy.

An endpoint is switched when its new policy is whole in the kernel. If that cannot be (a map is full),
the old one stays as it is, although no table has it any more: what was in force stays in force.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Set
from typing import Any

from podwire.abi import structs
from podwire.datapath import rows
from podwire.datapath.mirror import Mirror

KEYS: dict[str, type[structs.PolicyKey] | type[structs.PolicyPeerKey]] = {
    "podwire_policy": structs.PolicyKey,
    "podwire_policy_peers": structs.PolicyPeerKey,
}


class Leaving:
    """Removes rows of the two policy maps when their policy is obeyed no more."""

    def __init__(self, mirrors: Mapping[str, Mirror]) -> None:
        self._mirrors = {name: mirrors[name] for name in KEYS}
        self._rows: dict[int, set[tuple[str, Hashable]]] = {}  # policy → (map, row)
        self.unpruned = False  # an earlier agent's rows are still to go

    def note(self, name: str, batch: Iterable[Any], entries: Callable[[Any], rows.Entries]) -> None:
        """Changed rows of a policy table: those that are there are wanted, the others leave later."""
        for change in batch:
            policy, row = change.key[0], (name, change.key)
            if change.new is None:
                self._rows.setdefault(policy, set()).add(row)
                continue
            if policy in self._rows:
                self._rows[policy].discard(row)
            self._mirrors[name].want(change.key, entries(change.new))

    def __bool__(self) -> bool:
        return self.unpruned or bool(self._rows)

    def release(self, policies: Iterable[int]) -> None:
        """The next `remove` of the maps takes what leaves from `policies`."""
        for policy in policies:
            for name, row in self._rows.pop(policy, ()):
                self._mirrors[name].want(row, {})

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
