"""One endpoint and its policies as the stages before the writer write them; maps in memory."""

from __future__ import annotations

from array import array
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from tests.unit.datapath.kernel import MemoryKernel

from podwire.abi import structs
from podwire.base.aio import Backoff, Supervised
from podwire.bpf.map import U32
from podwire.datapath.catalogue import CATALOGUE
from podwire.datapath.epochs import SERVICE
from podwire.datapath.spec import MapSpec
from podwire.datapath.write import Writer
from podwire.model.rule import Direction
from podwire.state.tables import (
    EndpointPolicyRow,
    EndpointRow,
    EntryRow,
    IdentityRow,
    PeerRow,
    ProgressRow,
    Tables,
)

WEB = EndpointRow(
    1, "default", "web", "u", "c1", "/n", "lxc1", 4711, "02:00:00:00:00:01", "02:00:00:00:00:02",
    "10.0.1.5", "", ("k8s:app=web",), 1234, (), "ready",
)  # fmt: skip
DEVICE = U32.pack(WEB.ifindex)


class Node:
    """Tables of a node with one endpoint, all of them ready."""

    def __init__(self, **sizes: int) -> None:
        self.kernel = MemoryKernel(**sizes)
        self.tables = Tables()
        self.identity(WEB.identity)
        self.tables.endpoints.put(WEB)

    def identity(self, number: int) -> None:
        self.tables.identities.put(IdentityRow(number, (f"k8s:n={number}",), "cluster"))
        self.tables.progress.put(ProgressRow("policy.compute", self.tables.identities.revision, 0))

    def obey(self, policy: int, entries: list[EntryRow], peers: list[PeerRow]) -> None:
        """What policy.compute does: the rows of the policy before go in the same moment."""
        self.tables.policy_entries.replace(entries)
        self.tables.policy_peers.replace(peers)
        self.tables.endpoint_policies.put(EndpointPolicyRow(WEB.id, policy, True, True, policy))

    def ready(self) -> None:
        for table in self.tables:
            table.mark_all_ready()

    @asynccontextmanager
    async def writer(
        self, *, grow: bool = False, specs: Iterable[MapSpec] = tuple(CATALOGUE.values())
    ) -> AsyncIterator[Writer]:
        made = Writer(
            self.tables,
            self.kernel,
            "n1",
            grow=self.kernel.bigger if grow else None,
            backoff=Backoff(0.001, 0.01),
            specs=specs,
        )
        async with Supervised("test") as group:
            group.start("write", made.run())
            yield made
        assert all(one.closed for one in self.kernel.maps.values())

    def endpoint(self) -> structs.Endpoint:
        """As the kernel has it."""
        raw = self.kernel.maps["podwire_devices"].content.get(DEVICE)
        return structs.Endpoint.unpack(raw) if raw is not None else structs.Endpoint()

    def epochs(self) -> tuple[int, int]:
        """(all that policy is asked again by, service)."""
        raw = self.kernel.maps["podwire_state"].content.get(U32.pack(0), bytes(structs.NodeState.SIZE))
        words = array("I", raw)
        return sum(words) - words[SERVICE], words[SERVICE]


def entry(policy: int, port: int, *, peer_class: int = 1, verdict: int = 1) -> EntryRow:
    return EntryRow(policy, peer_class, Direction.INGRESS, 6, port, 16, verdict, 2, 0, policy)


def peer(policy: int, identity: int, peer_class: int = 1) -> PeerRow:
    return PeerRow(policy, Direction.INGRESS, identity, peer_class)
