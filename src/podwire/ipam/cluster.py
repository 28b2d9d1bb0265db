"""Pod prefixes of nodes, cut from the cluster's pools.

The n-th node gets the n-th block, from 1, so that node ``n2`` of 10.0.0.0/16 has 10.0.2.0/24. What a
node was given it keeps; nothing is given twice, and what overlaps is refused.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from podwire.base.addresses import IPNetwork
from podwire.base.errors import ConfigError, Conflict


class ClusterPool:
    """One pool, cut into blocks of `bits` prefix length. `reserved` must not be given out.

    Raises ConfigError for a pool that cannot be cut so, or that overlaps what is reserved.
    """

    def __init__(self, pool: str, bits: int, *, reserved: Iterable[str] = ()) -> None:
        self.pool = _network(pool)
        self.bits = bits
        if not self.pool.prefixlen < bits <= self.pool.max_prefixlen - 2:
            raise ConfigError(
                f"pod prefixes of length {bits} cannot be cut from {self.pool}",
                hint=f"a length from {self.pool.prefixlen + 1} to {self.pool.max_prefixlen - 2} can",
            )
        for other in map(_network, reserved):
            if _overlap(self.pool, other):
                raise ConfigError(
                    f"the pod pool {self.pool} overlaps {other}", hint="choose prefixes that are disjoint"
                )
        self._given: dict[str, IPNetwork] = {}

    @property
    def size(self) -> int:
        """How many nodes it is enough for."""
        return int(2 ** (self.bits - self.pool.prefixlen)) - 1

    def given(self) -> dict[str, str]:
        """Node → prefix."""
        return {node: str(network) for node, network in self._given.items()}

    def take(self, node: str, prefix: str) -> None:
        """Note what a node has already; Conflict if it overlaps another node's, or another is noted."""
        network = _network(prefix)
        for other, theirs in self._given.items():
            if other == node and theirs != network:
                raise Conflict(f"node {node} has pod prefix {theirs} already, and cannot have {network}")
            if other != node and _overlap(theirs, network):
                raise Conflict(f"pod prefix {network} of node {node} overlaps {theirs} of node {other}")
        self._given[node] = network

    def give(self, node: str) -> str:
        """The node's prefix, as before or the first free one; Conflict if none is left."""
        if node in self._given:
            return str(self._given[node])
        for number in range(1, self.size + 1):
            network = self._block(number)
            if not any(_overlap(network, theirs) for theirs in self._given.values()):
                self._given[node] = network
                return str(network)
        raise Conflict(
            f"the pod pool {self.pool} has no prefix left for node {node}",
            hint=f"it is enough for {self.size} nodes; use a wider pool or longer prefixes",
        )

    def release(self, node: str) -> None:
        self._given.pop(node, None)

    def _block(self, number: int) -> IPNetwork:
        size = 2 ** (self.pool.max_prefixlen - self.bits)
        return ipaddress.ip_network(f"{self.pool.network_address + number * size}/{self.bits}")


def check_disjoint(prefixes: Iterable[tuple[str, str]]) -> None:
    """(what it is, prefix), … must not overlap; ConfigError names the first two that do."""
    seen: list[tuple[str, IPNetwork]] = []
    for what, text in prefixes:
        network = _network(text)
        for other, theirs in seen:
            if _overlap(network, theirs):
                raise ConfigError(
                    f"{what} {network} overlaps {other} {theirs}", hint="choose prefixes that are disjoint"
                )
        seen.append((what, network))


def _network(text: str) -> IPNetwork:
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise ConfigError(f"{text!r} is no prefix: {error}", hint="write it like 10.0.0.0/16") from error


def _overlap(one: IPNetwork, two: IPNetwork) -> bool:
    return one.version == two.version and one.overlaps(two)  # type: ignore[arg-type]
