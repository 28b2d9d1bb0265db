"""Rows of what the Kubernetes API holds: the first tables of the walk, written by sources.

Others take them from `podwire.state.tables`, where all tables are. What another cluster of the mesh may have
as well under the same name has a `cluster`; pods, namespaces and policies are always of this one.
"""

from __future__ import annotations

import msgspec

from podwire.model.cluster import OWN
from podwire.model.rule import Rule


class NamespaceRow(msgspec.Struct, frozen=True):
    name: str
    labels: dict[str, str]


class NodeRow(msgspec.Struct, frozen=True):
    """A node. `addresses` are its own (InternalIP first), `pod_cidrs` what its pods get."""

    name: str
    addresses: tuple[str, ...]
    pod_cidrs: tuple[str, ...]
    labels: dict[str, str]
    local: bool
    router_addresses: tuple[str, ...] = ()  # the gateway addresses in the pod CIDRs, held by the node
    cluster: str = OWN


class ContainerPort(msgspec.Struct, frozen=True, gc=False):
    name: str
    port: int
    protocol: int


class PodRow(msgspec.Struct, frozen=True):
    namespace: str
    name: str
    uid: str
    node: str
    addresses: tuple[str, ...]
    labels: dict[str, str]
    service_account: str
    host_network: bool
    phase: str
    ports: tuple[ContainerPort, ...]  # named ones only
    workload_kind: str = ""  # of the topmost known owner: Deployment, DaemonSet, …
    workload_name: str = ""
    deleting: bool = False


class ServicePort(msgspec.Struct, frozen=True):
    name: str
    port: int
    protocol: int
    target_port: str
    node_port: int = 0


class ServiceRow(msgspec.Struct, frozen=True):
    namespace: str
    name: str
    type: str
    cluster_addresses: tuple[str, ...]  # empty for headless ones
    ports: tuple[ServicePort, ...]
    labels: dict[str, str]
    selector: dict[str, str]
    affinity_timeout: int = 0  # s; 0 = none
    not_served: tuple[str, ...] = ()  # parts nothing answers for yet: NodePort 30080, …
    cluster: str = OWN


class SliceEndpoint(msgspec.Struct, frozen=True):
    address: str
    ready: bool
    serving: bool
    terminating: bool
    node: str


class SliceRow(msgspec.Struct, frozen=True):
    """An EndpointSlice. `ports` are (name, port, protocol)."""

    namespace: str
    name: str
    service: str
    family: int
    endpoints: tuple[SliceEndpoint, ...]
    ports: tuple[tuple[str, int, int], ...]
    cluster: str = OWN


class PolicyRow(msgspec.Struct, frozen=True):
    """A policy object. `error` says why it is not in force as it is; `rules` are then those it had before."""

    kind: str
    namespace: str
    name: str
    uid: str
    generation: int
    rules: tuple[Rule, ...]
    error: str = ""


class LocalAddressRow(msgspec.Struct, frozen=True):
    """What the node's stack takes for its own: a route of the kernel's table `local`. `kind` is its type.

    local, broadcast, anycast or multicast.
    """

    prefix: str
    kind: str


class DeviceRow(msgspec.Struct, frozen=True):
    """A device of the node. `carrier`: it is up and, of a pod's pair, so is the other end.

    `lost`: it has none any more. One that was made this moment has none yet, which is no loss.
    """

    ifindex: int
    name: str
    up: bool
    carrier: bool
    lost: bool
    kind: str = ""  # veth, vxlan, …; empty for hardware
    segments: tuple[int, int, int, int] = (0, 0, 0, 0)  # GSO, GRO, and both for IPv4 at most; 0 = not known


class RemoteEndpointRow(msgspec.Struct, frozen=True, gc=False):
    """A pod of another node, as its CiliumEndpoint tells of it, or of another cluster."""

    namespace: str
    name: str
    identity: int
    addresses: tuple[str, ...]
    node_address: str
    ports: tuple[ContainerPort, ...] = ()  # named ones
    workload_kind: str = ""
    workload_name: str = ""
    cluster: str = OWN


class ReportedEndpointRow(msgspec.Struct, frozen=True, gc=False):
    """A CiliumEndpoint that the API has of this node: one the agent wrote, in this life or an earlier one."""

    namespace: str
    name: str
