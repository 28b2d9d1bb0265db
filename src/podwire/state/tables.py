"""All tables of an agent, in walk order: what should be goes down from the first to the last.

Each class is one row; each attribute of `Tables` one table, of which `writers` says who writes it. `podwire
tables` prints them live in this order, ARCHITECTURE.md tells it in this order, `agent/wiring.py` starts their
writers in it. A stage has them as `views.ReadTables`, and only what it writes as a `Table`.
Addresses are text in canonical form; prefixes too (``10.0.0.1/32`` is one address). Protocols are
IPPROTO numbers. A `cluster` is `OWN` for what is of this cluster, else a name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from podwire.model.cluster import OWN
from podwire.model.labels import Labels
from podwire.model.rule import Direction, Origin
from podwire.state.objects import (
    ContainerPort,
    DeviceRow,
    LocalAddressRow,
    NamespaceRow,
    NodeRow,
    PodRow,
    PolicyRow,
    RemoteEndpointRow,
    ReportedEndpointRow,
    ServicePort,
    ServiceRow,
    SliceEndpoint,
    SliceRow,
)
from podwire.state.peers import PeerRow, Peers
from podwire.state.selections import SelectionRow, Selections
from podwire.state.table import Table
from podwire.state.writers import WRITERS

# Rows of what the API holds, and of tables of sets: all of a stage's rows come from this module.
__all__ = [
    "ContainerPort",
    "DeviceRow",
    "LocalAddressRow",
    "NamespaceRow",
    "NodeRow",
    "PeerRow",
    "PodRow",
    "PolicyRow",
    "RemoteEndpointRow",
    "ReportedEndpointRow",
    "SelectionRow",
    "ServicePort",
    "ServiceRow",
    "SliceEndpoint",
    "SliceRow",
]

# --- endpoints and identities ------------------------------------------------------------------


class EndpointRow(msgspec.Struct, frozen=True):
    """A pod of this node with its plumbing. `state` is Cilium's word.

    waiting-for-identity → regenerating → ready; disconnecting.
    """

    id: int
    namespace: str
    pod: str
    uid: str
    container_id: str
    netns: str
    interface: str  # of the host-side veth
    ifindex: int
    mac: str
    host_mac: str
    ipv4: str  # empty = has none
    ipv6: str
    labels: Labels  # that make its identity
    identity: int  # 0 = not known yet
    ports: tuple[ContainerPort, ...]
    state: str
    created: float = 0.0  # s since the epoch
    pod_interface: str = "eth0"  # in the pod; what files of agents that did not keep it mean

    @property
    def addresses(self) -> tuple[str, ...]:
        """Those it has, IPv4 first."""
        return tuple(address for address in (self.ipv4, self.ipv6) if address)


class IdentityRow(msgspec.Struct, frozen=True, gc=False):
    """A number and its labels. `source` is reserved, cluster (a CiliumIdentity of this one), remote (of
    another one, see `model.identity.cluster_of`) or local (a prefix)."""

    number: int
    labels: Labels
    source: str


class IpcacheRow(msgspec.Struct, frozen=True, gc=False):
    """Who is behind a prefix. `source` decided by precedence; `tunnel` is the node to encapsulate to.

    There is one row of a prefix, as the kernel has one, also where two clusters have something there (see
    `identity.precedence`). `holds` is pods (of this node) or services: who has an address of it is in a
    table of its own, so that of no such row is nobody's.
    """

    prefix: str
    identity: int
    source: str
    tunnel: str = ""
    key: int = 0
    namespace: str = ""
    pod: str = ""
    holds: str = ""
    cluster: str = OWN  # whose pod or node it is


# --- policy --------------------------------------------------------------------------------------


class RuleRow(msgspec.Struct, frozen=True):
    """What a rule number in the kernel stands for: the provenance of a verdict.

    `clause` is the path in the object (``ingress[0]``); `default_deny` numbers stand for all
    policies that select the endpoint in that direction: `origins` names them.
    """

    number: int
    direction: Direction
    origins: tuple[Origin, ...]
    clause: str
    default_deny: bool
    labels: Labels = ()
    log: str = ""


class EndpointPolicyRow(msgspec.Struct, frozen=True):
    """Which policy an endpoint obeys. `revision` is Cilium's policy revision it realizes."""

    endpoint: int
    policy: int  # 0 = none selects it
    enforce_ingress: bool
    enforce_egress: bool
    revision: int
    error: str = ""


class PolicyFailureRow(msgspec.Struct, frozen=True):
    """A policy of which `rows` rows (or addresses of its peers) could not be written: no endpoint is
    switched to it. Endpoints that obeyed it before (a peer was added) go on with the rows there are, and are
    denied whom those do not name (table endpoint_failures).
    """

    policy: int
    rows: int
    error: str
    origins: tuple[Origin, ...]  # the objects it is made of


class EndpointFailureRow(msgspec.Struct, frozen=True):
    """An endpoint for which the kernel lacks rows: peers that it does not know by `unknown` (peers: their
    identities; addresses) are denied, for they would be taken for the world or for any other pod. None of
    both: everything is denied, see `error`.
    """

    endpoint: int
    unknown: tuple[str, ...]  # peers | addresses
    error: str


class EntryRow(msgspec.Struct, frozen=True):
    """Stage two: (policy, class, direction, protocol, port prefix) → verdict.

    `protocol` 0 with `port_bits` 0 = any protocol; `port_bits` 0..16 is the length of the port
    prefix. `verdict` and `match` are numbers of bpf/abi/policy.h.
    """

    policy: int
    peer_class: int
    direction: Direction
    protocol: int
    port: int
    port_bits: int
    verdict: int
    match: int
    proxy_port: int
    rule: int


class ProgressRow(msgspec.Struct, frozen=True):
    """How far a stage is: its output says all that these tables said at these revisions.

    policy.compute waits for identity.select: rules count only once it is known whom they select.
    identity.ipcache and datapath.write wait for policy.compute: an address, and a pod here, gets an
    identity only once policies know it.
    """

    stage: str
    identities: int
    policies: int


# --- load balancing --------------------------------------------------------------------------------


class BackendRow(msgspec.Struct, frozen=True):
    id: int
    address: str
    port: int
    protocol: int
    state: str  # active | terminating
    node: str = ""
    cluster: str = OWN  # the node's


class FrontendRow(msgspec.Struct, frozen=True):
    """A service address. `backends` are ids of active ones, each in its place, and `places` (address, port)
    of each; `set` numbers that list where it is long, else 0."""

    address: str
    port: int
    protocol: int
    namespace: str
    service: str
    port_name: str
    type: str
    rev_nat: int
    set: int
    backends: tuple[int, ...]
    affinity_timeout: int = 0
    places: tuple[tuple[str, int], ...] = ()


class Tables:
    """All tables, in walk order."""

    def __init__(self) -> None:
        self._declare_sources()
        self._declare_identities()
        self._declare_policy()
        self._declare_services()
        for table in self:
            table.declare(WRITERS[table.name])

    def _declare_sources(self) -> None:
        self.namespaces: Table[NamespaceRow] = Table(
            "namespaces", lambda row: row.name, help="namespaces and their labels"
        )
        self.nodes: Table[NodeRow] = Table(
            "nodes",
            lambda row: (row.cluster, row.name),
            help="nodes, their addresses and pod CIDRs",
            indexes={"address": lambda row: row.addresses},
        )
        self.pods: Table[PodRow] = Table(
            "pods",
            lambda row: (row.namespace, row.name),
            help="pods of this node",
            indexes={
                "address": lambda row: row.addresses,
                "namespace": lambda row: (row.namespace,),
                "node": lambda row: (row.node,),
            },
        )
        self.services: Table[ServiceRow] = Table(
            "services", lambda row: (row.cluster, row.namespace, row.name), help="services"
        )
        self.slices: Table[SliceRow] = Table(
            "slices",
            lambda row: (row.cluster, row.namespace, row.name),
            help="endpoint slices",
            indexes={"service": lambda row: ((row.cluster, row.namespace, row.service),)},
        )
        self.policies: Table[PolicyRow] = Table(
            "policies",
            lambda row: (row.kind, row.namespace, row.name),
            help="policy objects, parsed; a wrong one says why",
        )
        self.remote_endpoints: Table[RemoteEndpointRow] = Table(
            "remote_endpoints",
            lambda row: (row.cluster, row.namespace, row.name),
            help="pods of other nodes",
            indexes={"address": lambda row: row.addresses, "identity": lambda row: (row.identity,)},
        )
        self.reported_endpoints: Table[ReportedEndpointRow] = Table(
            "reported_endpoints",
            lambda row: (row.namespace, row.name),
            help="pods of this node, as the API was told of them",
        )
        self.local_addresses: Table[LocalAddressRow] = Table(
            "local_addresses", lambda row: row.prefix, help="what the kernel takes for this node's own"
        )
        self.devices: Table[DeviceRow] = Table(
            "devices", lambda row: row.ifindex, help="devices of this node, and whether they carry"
        )

    def _declare_identities(self) -> None:
        self.endpoints: Table[EndpointRow] = Table(
            "endpoints",
            lambda row: row.id,
            help="endpoints of this node",
            indexes={
                "pod": lambda row: ((row.namespace, row.pod),),
                "container": lambda row: (row.container_id,),
                "identity": lambda row: (row.identity,),
                "address": lambda row: row.addresses,
                "device": lambda row: (row.ifindex,),
                "labels": lambda row: (row.labels,),
            },
        )
        self.identities: Table[IdentityRow] = Table(
            "identities",
            lambda row: row.number,
            help="numbers for sets of labels",
            indexes={"labels": lambda row: (row.labels,)},
        )
        self.selections = Selections("selections", help="selectors in use and what they select")
        self.ipcache: Table[IpcacheRow] = Table(
            "ipcache", lambda row: row.prefix, help="who is behind an address"
        )

    def _declare_policy(self) -> None:
        self.rules: Table[RuleRow] = Table(
            "rules", lambda row: row.number, help="rule numbers in the kernel and where they come from"
        )
        self.endpoint_policies: Table[EndpointPolicyRow] = Table(
            "endpoint_policies", lambda row: row.endpoint, help="which policy an endpoint obeys"
        )
        self.policy_peers = Peers("policy_peers", help="stage one: identity to class")
        self.policy_entries: Table[EntryRow] = Table(
            "policy_entries",
            lambda row: (row.policy, row.peer_class, row.direction, row.protocol, row.port, row.port_bits),
            help="stage two: class and port to verdict",
            indexes={
                "policy": lambda row: (row.policy,),
                "class": lambda row: ((row.policy, row.direction, row.peer_class),),
            },
        )
        self.progress: Table[ProgressRow] = Table(
            "progress", lambda row: row.stage, help="how far a stage is with what it reads"
        )

    def _declare_services(self) -> None:
        self.backends: Table[BackendRow] = Table("backends", lambda row: row.id, help="service backends")
        self.frontends: Table[FrontendRow] = Table(
            "frontends",
            lambda row: (row.address, row.port, row.protocol),
            help="service addresses",
            indexes={"service": lambda row: ((row.namespace, row.service),)},
        )
        self.policy_failures: Table[PolicyFailureRow] = Table(
            "policy_failures",
            lambda row: row.policy,
            help="policies that are not whole in the kernel, and why",
        )

        self.endpoint_failures: Table[EndpointFailureRow] = Table(
            "endpoint_failures",
            lambda row: row.endpoint,
            help="endpoints that are denied what the kernel does not know, and why",
        )

    def __iter__(self) -> Iterator[Table[Any]]:
        return iter(vars(self).values())

    def named(self, name: str) -> Table[Any]:
        """KeyError if there is no such table."""
        table = vars(self).get(name)
        if not isinstance(table, Table):
            raise KeyError(name)
        return table

    def names(self) -> Iterable[str]:
        return vars(self).keys()
