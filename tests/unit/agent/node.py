"""A node in memory: real tables, an agent's answers, no kernel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from podwire.agent.dumps import read
from podwire.agent.interface import Addresses, EndpointRequest, Facts
from podwire.base.aio import Channel
from podwire.base.attempts import Attempts
from podwire.base.config import AgentConfig
from podwire.base.errors import Conflict, NotFound
from podwire.base.telemetry import Metrics
from podwire.model.rule import Clause, Direction, Effect, Origin, Ports, Rule
from podwire.model.selector import Selector, equals
from podwire.state.tables import (
    BackendRow,
    ContainerPort,
    EndpointPolicyRow,
    EndpointRow,
    EntryRow,
    FrontendRow,
    IdentityRow,
    IpcacheRow,
    NodeRow,
    PeerRow,
    PolicyRow,
    RuleRow,
    SelectionRow,
    ServicePort,
    ServiceRow,
    Tables,
)

LABELS = ("k8s:app=web", "k8s:io.kubernetes.pod.namespace=prod")
FLOW = "11111111-2222-3333-4444-555555555555"


class MemoryNode:
    """`podwire.agent.interface.Node`."""

    def __init__(self, run_dir: str = "/nowhere") -> None:
        self.tables = example_tables()
        self.config = AgentConfig(node_name="n1", run_dir=run_dir, enable_ipv6=True)
        self.owners: dict[str, str] = {"10.0.1.1": "prod/web-1"}
        self.components = {
            "kubernetes": ("Ok", "1.32"),
            "datapath": ("Ok", "tcx"),
            "hubble": ("Ok", "listening"),
        }
        self.events: Channel[Mapping[str, Any]] = Channel(100)
        self.subscribers = 0
        self.dumping = 0
        self.asked: list[dict[str, str]] = []
        self.more: Iterable[Sequence[Mapping[str, Any]]] = ()
        self.known = Facts(
            attach_mode="tcx",
            socket_services=True,
            pod_device="veth",
            segments=(65536, 65536, 65536, 65536),
            maps={"podwire_ipcache": 65536},
            route_mtu=1450,
            ring_bytes=4 << 20,
            flows=3,
            flows_at_most=4096,
            flows_seen=5,
            uptime=61.2,
            lost=1,
            unknown=0,
            watched=("core/v1::Pod", "core/v1::Node"),
        )
        self.attempts = {"write maps": Attempts(lambda: 1.7e9), "tell the API": Attempts(lambda: 1.7e9)}

    async def allocate(self, owner: str, family: str, expiration: bool) -> Addresses:
        number = len(self.owners) + 1
        given = Addresses(
            ipv4="" if family == "ipv6" else f"10.0.1.{number}",
            ipv6="" if family == "ipv4" else f"fd00:1::{number:x}",
            expires="uuid" if expiration else "",
        )
        self.owners |= {address: owner for address in (given.ipv4, given.ipv6) if address}
        return given

    async def release(self, address: str) -> None:
        if self.owners.pop(address, None) is None:
            raise NotFound(f"nobody has the address {address}")

    def allocations(self) -> Mapping[str, str]:
        return self.owners

    async def attach(self, request: EndpointRequest) -> EndpointRow:
        if request.pod == "taken":
            raise Conflict("there is an endpoint of this pod", hint="detach it first")
        row = endpoint(7, request.pod, request.ipv4, request.ipv6, container=request.container_id)
        self.tables.endpoints.put(row)
        return row

    async def detach(self, container_id: str) -> None:
        rows = self.tables.endpoints.by("container", container_id)
        if not rows:
            raise NotFound(f"there is no endpoint of container {container_id}")
        self.tables.endpoints.delete(rows[0].id)

    def mtu(self) -> int:
        return 1500

    def facts(self) -> Facts:
        return self.known

    def status(self) -> Mapping[str, tuple[str, str]]:
        return self.components

    def controllers(self) -> Mapping[str, Attempts]:
        return self.attempts

    async def bpf_dump(
        self, name: str, query: Mapping[str, str]
    ) -> AsyncIterator[Sequence[Mapping[str, Any]]]:
        read(name, query).known(name, self.tables)
        self.asked.append(dict(query))
        self.dumping += 1
        try:
            yield DUMPED[name]
            for block in self.more:
                yield block
        finally:
            self.dumping -= 1

    def metrics(self) -> Metrics:
        found = Metrics()
        dropped = [({"reason": 'Policy "x"'}, 12345678.0)]
        found.reading("podwire_drop_count_total", "counter", "drops", lambda: dropped)
        found.reading("up", "gauge", "here", lambda: [({}, 1.0)])
        return found

    async def explain(self, uuid: str) -> Mapping[str, Any]:
        if uuid != FLOW:
            raise NotFound(f"there is no flow {uuid}", hint="flows are kept for a while only")
        return EXPLANATION

    @asynccontextmanager
    async def _subscribed(self) -> AsyncIterator[AsyncIterator[Mapping[str, Any]]]:
        self.subscribers += 1
        try:
            yield aiter(self.events)
        finally:
            self.subscribers -= 1

    def subscribe_events(self) -> Any:
        return self._subscribed()


DUMPED: dict[str, list[dict[str, Any]]] = {
    "lb": [
        {
            "frontend": "10.96.0.1:80/TCP",
            "service": "prod/web",
            "rev_nat": 1,
            "set": 77,
            "slot": 0,
            "backend": "10.0.1.1:8080",
        }
    ],
    "ct": [],
    "policy": [
        {"policy": 9, "direction": "ingress", "because": "CiliumNetworkPolicy prod/allow-web ingress[0]"}
    ],
    "ipcache": [{"prefix": "10.0.1.1/32", "identity": 1234, "tunnel": ""}],
}
EXPLANATION: dict[str, Any] = {
    "uuid": FLOW,
    "flow": "prod/client:4000 -> prod/web-1:80",
    "verdict": "DROPPED",
    "because": "nothing allows it: prod/allow-web selects the endpoint",
}


def endpoint(number: int, pod: str, ipv4: str, ipv6: str = "", *, container: str = "c1") -> EndpointRow:
    return EndpointRow(
        id=number,
        namespace="prod",
        pod=pod,
        uid="u1",
        container_id=container,
        netns="/run/netns/x",
        interface=f"lxc{number}",
        ifindex=40 + number,
        mac="02:00:00:00:00:01",
        host_mac="02:00:00:00:00:02",
        ipv4=ipv4,
        ipv6=ipv6,
        labels=LABELS,
        identity=1234,
        ports=(ContainerPort("http", 8080, 6),),
        state="ready",
        created=1.7e9,
    )


def example_tables() -> Tables:
    """A little of everything."""
    tables = Tables()
    origin = Origin("CiliumNetworkPolicy", "prod", "allow-web", "u9")
    subject = Selector((equals("k8s", "app", "web"),))
    clause = Clause(
        Direction.INGRESS,
        Effect.ALLOW,
        0,
        (Selector((equals("k8s", "app", "client"),)),),
        (Ports(6, 8080, 8080),),
        "spec.ingress[0]",
    )
    rule = Rule(origin, 0, subject, (clause,), True, False)
    tables.nodes.put(
        NodeRow(
            "n1", ("172.20.0.1",), ("10.0.1.0/24", "fd00:1::/64"), {}, True, ("10.0.1.254", "fd00:1::ffff")
        )
    )
    tables.nodes.put(NodeRow("n2", ("172.20.0.2",), ("10.0.2.0/24",), {}, False, ("10.0.2.254",)))
    tables.services.put(
        ServiceRow(
            "prod",
            "web",
            "NodePort",
            ("10.96.0.1",),
            (ServicePort("http", 80, 6, "http", 30080),),
            {},
            {},
            not_served=("NodePort 30080",),
        )
    )
    tables.policies.put(PolicyRow("CiliumNetworkPolicy", "prod", "allow-web", "u9", 1, (rule,)))
    tables.policies.put(
        PolicyRow("NetworkPolicy", "prod", "broken", "u8", 1, (), "spec.ingress[0].from: must be a list")
    )
    tables.endpoints.put(endpoint(5, "web-1", "10.0.1.1", "fd00:1::1"))
    tables.identities.put(IdentityRow(1234, LABELS, "cluster"))
    tables.identities.put(IdentityRow(1235, ("k8s:app=client",), "cluster"))
    tables.selections.put(SelectionRow(subject, frozenset({1234}), 1))
    tables.ipcache.put(IpcacheRow("10.0.1.1/32", 1234, "local", namespace="prod", pod="web-1"))
    tables.rules.put(RuleRow(55, Direction.INGRESS, (origin,), "ingress[0]", False))
    tables.endpoint_policies.put(EndpointPolicyRow(5, 9, True, False, 3))
    tables.policy_peers.put(PeerRow(9, Direction.INGRESS, 1235, 4))
    tables.policy_entries.put(EntryRow(9, 4, Direction.INGRESS, 6, 8080, 16, 1, 2, 0, 55))
    tables.backends.put(BackendRow(3, "10.0.1.1", 8080, 6, "active", "n1"))
    tables.frontends.put(FrontendRow("10.96.0.1", 80, 6, "prod", "web", "http", "NodePort", 1, 77, (3,)))
    for table in tables:
        table.mark_all_ready()
    return tables


async def until_cancelled() -> None:
    await asyncio.Event().wait()
