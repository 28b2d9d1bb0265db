"""The computing stages of one node without an event loop: put rows in, settle, read rows.

What `agent.wiring` runs as tasks is stepped here in walk order until nothing changes any more. Tests
and scenario files use it; the stages themselves are the shipped ones.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from podwire.identity.allocate import Allocator, preferred
from podwire.identity.ipcache import Ipcache
from podwire.identity.prefixes import Prefixes
from podwire.identity.select import Select
from podwire.model import labels
from podwire.model.cluster import DEFAULT, Cluster
from podwire.policy.compute import Compute
from podwire.policy.parse import parse
from podwire.state.table import Watch
from podwire.state.tables import ContainerPort, EndpointRow, PolicyRow, Tables
from podwire.state.writers import ALLOCATE
from podwire.stores.identities import Known, MemoryIdentities

MOST_ROUNDS = 100
BEFORE = ("sources.", "agent.")  # who writes what these stages begin with


@dataclass
class Walk:
    """One node. `identities` may be shared with the walks of other nodes."""

    ipv4: bool = True
    ipv6: bool = False
    tunnel: bool = False
    service_cidrs: tuple[str, ...] = ()
    cluster: Cluster = DEFAULT
    own_peers: bool = False  # as policy-default-local-cluster
    enable_policy: Literal["default", "always", "never"] = "default"
    restored: dict[str, int] = field(default_factory=dict)
    identities: MemoryIdentities = field(default_factory=MemoryIdentities)

    def __post_init__(self) -> None:
        self.tables = tables = Tables()
        self.prefixes = Prefixes(tables, ipv4=self.ipv4, ipv6=self.ipv6, restored=self.restored)
        self.allocator = Allocator(tables, self.prefixes, cluster=self.cluster)
        self.allocator.synced = True
        tables.identities.mark_ready(ALLOCATE)
        for number, known in self.identities.known.items():
            self.allocator.apply(Known(number, known))
        self.select = Select(tables)
        self.compute = Compute(tables, enable=self.enable_policy)
        self.ipcache = Ipcache(
            tables,
            tunnel=self.tunnel,
            ipv4=self.ipv4,
            ipv6=self.ipv6,
            service_cidrs=self.service_cidrs,
        )
        for table in tables:
            if all(writer.startswith(BEFORE) for writer in table.writers.names):
                table.mark_all_ready()
        self._stages: list[tuple[Watch, Callable[..., None]]] = [
            (self.prefixes.watch(), self.prefixes.step),
            (Watch(tables.endpoints, tables.identities), self._allocate),
            (Watch(tables.policies, tables.identities), self.select.step),
            (Watch(*self.compute.reads()), self.compute.step),
            (Watch(*self.ipcache.reads()), self.ipcache.step),
        ]

    def settle(self) -> None:
        """Step all stages until nothing changes."""
        for _ in range(MOST_ROUNDS):
            pending = [(watch, step) for watch, step in self._stages if watch.pending()]
            if not pending:
                return
            for watch, step in pending:
                step(*watch.take())
        raise AssertionError("the stages do not come to rest")

    def close(self) -> None:
        """Read the tables no more: from here on others run the stages."""
        for watch, _ in self._stages:
            watch.close()
        self._stages = []

    def _allocate(self, endpoints: Any, identities: Any) -> None:
        rows = [self.tables.endpoints.get(one) for one in self.allocator.concerned(endpoints, identities)]
        for wanted in self.allocator.step(row for row in rows if row is not None):
            self.allocator.apply(Known(self.identity(wanted), wanted))
        self.allocator.step(row for row in rows if row is not None)

    def identity(self, wanted: labels.Labels) -> int:
        """The cluster's number for labels."""
        numbers = self.cluster.numbers
        number = preferred(wanted, numbers)
        while self.identities.take(number, wanted) not in (None, wanted):
            number = numbers[(number + 1 - numbers[0]) % len(numbers)]
        return number

    # --- rows that stages before these would write

    def apply(self, *objects: dict[str, Any]) -> None:
        """Policy objects, as the API has them."""
        for one in objects:
            metadata = one["metadata"]
            namespace = "" if "Clusterwide" in one["kind"] else metadata.get("namespace", "default")
            generation = metadata.get("generation", 1)
            rules = parse(one, cluster=self.cluster.name, own=self.own_peers)
            self.tables.policies.put(
                PolicyRow(one["kind"], namespace, metadata["name"], "", generation, rules)
            )

    def endpoint(
        self,
        number: int,
        name: str,
        own: dict[str, str],
        *,
        namespace: str = "default",
        namespace_labels: dict[str, str] | None = None,
        ipv4: str = "",
        ipv6: str = "",
        ports: Iterable[ContainerPort] = (),
    ) -> EndpointRow:
        """A pod of this node; its labels as `agent.labeling` writes them."""
        row = EndpointRow(
            id=number,
            namespace=namespace,
            pod=name,
            uid=f"uid-{name}",
            container_id=f"container-{name}",
            netns="",
            interface="",
            ifindex=0,
            mac="",
            host_mac="",
            ipv4=ipv4,
            ipv6=ipv6,
            labels=self.labels(own, namespace, namespace_labels, self.cluster.name),
            identity=0,
            ports=tuple(ports),
            state="waiting-for-identity",
        )
        self.tables.endpoints.put(row)
        return row

    @staticmethod
    def labels(
        own: dict[str, str],
        namespace: str = "default",
        namespace_labels: dict[str, str] | None = None,
        cluster: str = DEFAULT.name,
    ) -> labels.Labels:
        return labels.of_pod(
            own,
            namespace=namespace,
            namespace_labels={"kubernetes.io/metadata.name": namespace} | (namespace_labels or {}),
            service_account="default",
            cluster=cluster,
        )

    def verdict(
        self, endpoint: int, direction: int, peer: int, protocol: int, port: int
    ) -> tuple[int, int, int]:
        """(verdict, match, rule) as the kernel looks them up: peer's class, then the longest prefix."""
        obeyed = self.tables.endpoint_policies.get(endpoint)
        assert obeyed is not None, f"endpoint {endpoint} has no policy yet"
        if not (obeyed.enforce_ingress if direction == 1 else obeyed.enforce_egress):
            return (1, 0, 0)
        row = self.tables.policy_peers.get((obeyed.policy, direction, peer))
        peer_class = row.peer_class if row is not None else 0
        best = (-1, (0, 0, 0))
        for entry in self.tables.policy_entries.by("class", (obeyed.policy, direction, peer_class)):
            shift = 16 - entry.port_bits
            if entry.protocol and (entry.protocol != protocol or entry.port >> shift != port >> shift):
                continue
            length = entry.port_bits + 1 if entry.protocol else 0
            best = max(best, (length, (entry.verdict, entry.match, entry.rule)))
        assert best[0] >= 0, "a class without entries"
        return best[1]

    def identity_at(self, address: str) -> int:
        """What the ipcache says of an address: the longest prefix."""
        parsed = ipaddress.ip_address(address)
        found = [
            (network.prefixlen, row.identity)
            for row in self.tables.ipcache
            if (network := ipaddress.ip_network(row.prefix)).version == parsed.version and parsed in network
        ]
        return max(found)[1]
