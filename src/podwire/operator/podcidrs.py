"""Each node's pod CIDRs, cut from the cluster's pools; for clusters in which nobody else gives them.

They are written into the Node, where agents look for their own and for the others', and where Kubernetes
allows that once: what a node has it keeps until it goes. What was given back is given last. Who leads next
knows what was given from the Nodes alone, listed after it began to lead; a CIDR that is on its way to the
API is nobody else's, also if no answer comes.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import product

import msgspec

from podwire.base import moments
from podwire.base.addresses import IPNetwork
from podwire.base.errors import ConfigError
from podwire.base.numbers import Circle
from podwire.kube import Event, Resource, Writes
from podwire.kube.resources import NODES
from podwire.model.event import Saying, event
from podwire.stores.events import say

EXHAUSTED = "CIDRNotAvailable"  # as kube-controller-manager calls it
SHARED = "CIDRShared"
LOOK = 60.0  # s between looks for room, where nothing says that there is some
_LARGEST = 24  # bits of a pool's number of CIDRs


class Pool:
    """One range, cut into CIDRs of `size` bits."""

    def __init__(self, text: str, size: int) -> None:
        try:
            self.range: IPNetwork = ipaddress.ip_network(text)
        except ValueError as error:
            raise ConfigError(f"pool {text} is no CIDR: {error}", hint="for example 10.0.0.0/8") from error
        least, most = self.range.prefixlen, self.range.max_prefixlen
        if not least <= size <= most:
            raise ConfigError(f"pool {text} cannot be cut into CIDRs of /{size}", hint=f"{least} to {most}")
        if size - least > _LARGEST:
            raise ConfigError(
                f"pool {text} would be cut into more than 2^{_LARGEST} CIDRs of /{size}",
                hint="take a smaller range or larger CIDRs",
            )
        self.size = size
        self.count = 1 << (size - least)
        self._taken: Counter[int] = Counter()
        self._circle = Circle(0, self.count - 1)

    def next(self) -> IPNetwork | None:
        """A CIDR that is free, and taken from now on; None if none is."""
        number = self._circle.next(lambda one: one in self._taken, len(self._taken))
        if number is None:
            return None
        self._taken[number] += 1
        step = 1 << (self.range.max_prefixlen - self.size)
        return ipaddress.ip_network((int(self.range.network_address) + number * step, self.size))

    def take(self, cidr: IPNetwork) -> bool:
        """Whether it was nobody's, not even in part."""
        free = True
        for number in self._numbers(cidr):
            free &= number not in self._taken
            self._taken[number] += 1
        return free

    def give_back(self, cidr: IPNetwork) -> None:
        for number in self._numbers(cidr):
            self._taken[number] -= 1
            if not self._taken[number]:
                del self._taken[number]

    def _numbers(self, cidr: IPNetwork) -> Iterator[int]:
        """Of the CIDRs that `cidr` overlaps, whoever gave it and however large it is."""
        if cidr.version != self.range.version or not cidr.overlaps(self.range):
            return
        shift = self.range.max_prefixlen - self.size
        base = int(self.range.network_address)
        first = max(0, (int(cidr.network_address) - base) >> shift)
        last = min(self.count - 1, (int(cidr.broadcast_address) - base) >> shift)
        yield from range(first, last + 1)


class _Spec(msgspec.Struct, frozen=True):
    podCIDR: str | None = None
    podCIDRs: list[str] | None = None

    @property
    def cidrs(self) -> list[IPNetwork]:
        texts = self.podCIDRs or ([self.podCIDR] if self.podCIDR else [])
        return [ipaddress.ip_network(text, strict=False) for text in texts]


class _Metadata(msgspec.Struct, frozen=True):
    name: str
    uid: str
    resourceVersion: str


class _Node(msgspec.Struct, frozen=True):
    metadata: _Metadata
    spec: _Spec = _Spec()


_node = msgspec.json.Decoder(_Node).decode


class PodCidrs:
    """Gives every Node without pod CIDRs one of each family of which there are pools."""

    name = "pod-cidrs"
    follows = (NODES,)
    needs_all = True

    def __init__(self, api: Writes, pools: Iterable[Pool]) -> None:
        self._api = api
        self._families: dict[int, list[Pool]] = {}
        for pool in apart(pools):
            self._families.setdefault(pool.range.version, []).append(pool)
        self._nodes: dict[str, _Node] = {}
        self._chosen: dict[str, list[IPNetwork]] = {}  # given, and not yet seen in the Node
        self.waiting: set[str] = set()  # nodes for which there is none
        self._sharing: set[str] = set()  # nodes with a CIDR that was another's already: it has to be told

    def take(self, resource: Resource, event: Event) -> Iterable[str]:
        new = _node(event.raw) if event.kind != "DELETED" else None
        given = new.spec.cidrs if new is not None else []  # or what is none ends here, and all stays as it is
        old = self._nodes.pop(event.name, None)
        if new is not None:
            if given:
                self._forget(event.name)
            # All of them, and also those that an update leaves as they were: the old are given back below.
            free = [self._take(cidr) for cidr in given]
            if old is None or old.spec.cidrs != given:
                self._sharing |= set() if all(free) else {event.name}
            self._nodes[event.name] = new
        freed = [] if old is None else old.spec.cidrs
        for cidr in freed:
            self._give_back(cidr)
        # What one node gave back others may wait for.
        left = self._nodes[event.name].spec.cidrs if event.name in self._nodes else []
        return (event.name, *(self.waiting if freed != left else ()))

    async def reconcile(self, name: str) -> float | None:
        node = self._nodes.get(name)
        if node is None:
            self._forget(name)
            self._sharing.discard(name)
            return None
        if node.spec.cidrs:
            if name in self._sharing:
                await self._complain(node, SHARED, self._shared(node))
                self._sharing.discard(name)
            return None
        cidrs = self._chosen.get(name) or self._choose(name)
        if not cidrs:
            if name not in self.waiting:
                await self._complain(node, EXHAUSTED, self._exhausted())
                self.waiting.add(name)
            return LOOK
        self.waiting.discard(name)
        texts = [str(cidr) for cidr in cidrs]
        version = {"resourceVersion": node.metadata.resourceVersion}
        patch = {"metadata": version, "spec": {"podCIDR": texts[0], "podCIDRs": texts}}
        # Not given back if it fails: without an answer nobody knows whether the node has it.
        await self._api.patch(NODES, name, patch)
        return None

    def _choose(self, name: str) -> list[IPNetwork]:
        """One of each family, or none at all: a node gets its CIDRs once."""
        found: list[IPNetwork] = []
        for pools in self._families.values():
            cidr = next((cidr for pool in pools if (cidr := pool.next()) is not None), None)
            if cidr is None:
                for other in found:
                    self._give_back(other)
                return []
            found.append(cidr)
        self._chosen[name] = found
        return found

    def _forget(self, name: str) -> None:
        self.waiting.discard(name)
        for cidr in self._chosen.pop(name, ()):
            self._give_back(cidr)

    def _take(self, cidr: IPNetwork) -> bool:
        return all([pool.take(cidr) for pool in self._families.get(cidr.version, ())])

    def _give_back(self, cidr: IPNetwork) -> None:
        for pool in self._families.get(cidr.version, ()):
            pool.give_back(cidr)

    def _exhausted(self) -> str:
        ranges = ", ".join(str(pool.range) for pools in self._families.values() for pool in pools)
        return f"no pod CIDR is free in {ranges}; give the operator another pool"

    def _shared(self, node: _Node) -> str:
        others = [
            other.metadata.name
            for other in self._nodes.values()
            if other is not node
            and any(_overlap(*pair) for pair in product(node.spec.cidrs, other.spec.cidrs))
        ]
        cidrs = ", ".join(map(str, node.spec.cidrs))
        whose = ", ".join(others[:5]) or "another node, which is gone by now"
        return f"pod CIDR {cidrs} is also that of {whose}: pods may get one address; delete one Node"

    async def _complain(self, node: _Node, reason: str, message: str) -> None:
        about = {
            "kind": "Node",
            "apiVersion": "v1",
            "metadata": {"name": node.metadata.name, "uid": node.metadata.uid},
        }
        saying = Saying("Warning", reason, message, "podwire-operator")
        await say(self._api, event(about, saying, moments.now()))


def apart(pools: Iterable[Pool]) -> list[Pool]:
    """The pools; ConfigError if two have a CIDR in common: it would be given twice."""
    found: list[Pool] = []
    for pool in pools:
        for other in found:
            if _overlap(pool.range, other.range):
                raise ConfigError(
                    f"pools {other.range} and {pool.range} overlap", hint="a CIDR would be given twice"
                )
        found.append(pool)
    return found


def _overlap(one: IPNetwork, other: IPNetwork) -> bool:
    return one.version == other.version and one.overlaps(other)
