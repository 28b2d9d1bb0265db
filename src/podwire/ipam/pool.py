"""Addresses of one prefix: the first to the first pod, the last to the node's router."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from podwire.base.errors import Conflict, NotFound


class Pool:
    """`prefix` without its first address, its last, and the router's, which is the one before that.

    Addresses are given round and round, so that one is not used again at once: connections and
    caches may still mean its last owner.
    """

    def __init__(self, prefix: str) -> None:
        self.network = ipaddress.ip_network(prefix)
        self.capacity = max(0, self.network.num_addresses - 3)
        if not self.capacity:
            raise Conflict(f"pod prefix {prefix} has no room for pods", hint="use a shorter prefix")
        self._owners: dict[int, str] = {}  # place in the prefix, from 1 → owner
        self._last = 0

    @property
    def router(self) -> str:
        """The gateway of the pods, held by the node."""
        return str(self.network[-2])

    def __len__(self) -> int:
        return len(self._owners)

    def __contains__(self, address: str) -> bool:
        """Whether a pod may have `address`."""
        return self._place(address) is not None

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """(address, owner)."""
        for place, owner in self._owners.items():
            yield str(self.network[place]), owner

    def owner(self, address: str) -> str | None:
        place = self._place(address)
        return None if place is None else self._owners.get(place)

    def give(self, owner: str) -> str:
        """A free address; Conflict if there is none."""
        if len(self._owners) < self.capacity:
            for step in range(len(self._owners) + 1):  # among so many, one is free
                place = (self._last + step) % self.capacity + 1
                if place not in self._owners:
                    self._owners[place] = owner
                    self._last = place
                    return str(self.network[place])
        raise Conflict(
            f"all {self.capacity} addresses of {self.network} are in use",
            hint="delete pods on this node, or give nodes shorter pod prefixes",
        )

    def take(self, address: str, owner: str) -> None:
        """Note that `owner` has `address` already; Conflict if it is another's or of no pod here."""
        place = self._place(address)
        if place is None:
            raise Conflict(f"{address} is no pod address of {self.network}")
        known = self._owners.setdefault(place, owner)
        if known != owner:
            raise Conflict(f"{address} belongs to {known}, and cannot be {owner}'s")
        self._last = max(self._last, place)

    def release(self, address: str) -> str:
        """Give it back; its last owner. NotFound if nobody has it."""
        place = self._place(address)
        owner = None if place is None else self._owners.pop(place, None)
        if owner is None:
            raise NotFound(f"address {address} is not in use")
        return owner

    def _place(self, address: str) -> int | None:
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return None
        if parsed.version != self.network.version or parsed not in self.network:
            return None
        place = int(parsed) - int(self.network.network_address)
        return place if 1 <= place <= self.capacity else None
