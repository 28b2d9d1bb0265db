"""CiliumEndpoints: the pods of other nodes, as their agents tell of them.

Whoever needs to know of a pod of another node takes it from here: its addresses and identity, what its
ports are called, what workload it belongs to. Its Pod object is its own node's to read.
"""

from __future__ import annotations

import sys
from functools import lru_cache
from typing import Annotated

import msgspec

from podwire.base.errors import InvalidObject
from podwire.model.cluster import DEFAULT
from podwire.model.identity import RESERVED_LAST
from podwire.sources.objects import PROTOCOLS, Fields, Metadata, Named, Port, address, items, name_of
from podwire.state.tables import ContainerPort, RemoteEndpointRow

WORKLOAD = "podwire.io/workload"  # annotation: kind/name of the topmost known owner


class Annotations(Fields, frozen=True, gc=False):
    workload: str | None = msgspec.field(name=WORKLOAD, default=None)


class EndpointMetadata(Metadata, frozen=True, gc=False):
    annotations: Annotations | None = None


class Addressing(Fields, frozen=True, gc=False):
    ipv4: str | None = None
    ipv6: str | None = None


class Networking(Fields, frozen=True, gc=False):
    addressing: list[Addressing] | None = None
    node: str | None = None


class Identity(Fields, frozen=True, gc=False):
    id: Annotated[int, msgspec.Meta(ge=0, le=(1 << 32) - 1)] | None = None


class NamedPort(Fields, frozen=True, gc=False):
    name: str | None = None
    port: Port | None = None
    protocol: str | None = None


class Status(Fields, frozen=True, gc=False):
    identity: Identity | None = None
    networking: Networking | None = None
    named_ports: list[NamedPort] | None = msgspec.field(name="named-ports", default=None)


class CiliumEndpoint(Named, frozen=True, gc=False):
    metadata: EndpointMetadata | None = None
    status: Status | None = None


NO_STATUS, NO_NETWORK = Status(), Networking()


def row_of(item: CiliumEndpoint, numbers: range = DEFAULT.numbers) -> RemoteEndpointRow:
    """cilium.io/v2 CiliumEndpoint → row. Identity 0 = its agent does not know it yet.

    `numbers` are the identities of this cluster's pods: it has no pod that is of another cluster.
    """
    namespace, name = name_of(item)
    status = item.status or NO_STATUS
    identity = (status.identity.id if status.identity is not None else None) or 0
    if identity > RESERVED_LAST and identity not in numbers:
        hint = "have all nodes the same cluster-id, and max-connected-clusters?"
        raise InvalidObject("status.identity.id", f"{identity} is none of this cluster's pods", hint=hint)
    networking = status.networking or NO_NETWORK
    annotations = item.metadata.annotations if item.metadata is not None else None
    kind, _, workload = ((annotations and annotations.workload) or "").partition("/")
    return RemoteEndpointRow(
        namespace=namespace,
        name=name,
        identity=identity,
        addresses=tuple(
            address(value, f"status.networking.addressing[{index}]")
            for index, pair in items(networking.addressing)
            for value in (pair.ipv4, pair.ipv6)
            if value
        ),
        node_address=_node(networking.node) if networking.node else "",
        ports=_ports(status.named_ports) if status.named_ports else (),
        workload_kind=sys.intern(kind),
        workload_name=sys.intern(workload),
    )


@lru_cache(1 << 14)
def _node(text: str) -> str:
    """Of a node, which is that of many endpoints: kept once."""
    return address(text, "status.networking.node")


def _ports(ports: list[NamedPort]) -> tuple[ContainerPort, ...]:
    """Those of a protocol that policy knows: of another, nothing but the name would be lost."""
    return _same(
        tuple(
            ContainerPort(port.name, port.port, PROTOCOLS[port.protocol or "TCP"])
            for port in ports
            if port.name and port.port and (port.protocol or "TCP") in PROTOCOLS
        )
    )


@lru_cache(1 << 12)
def _same(ports: tuple[ContainerPort, ...]) -> tuple[ContainerPort, ...]:
    """Pods of one workload call their ports the same: kept once."""
    return ports
