"""Nodes: addresses, pod CIDRs, and the address each node holds in its pod CIDRs as gateway."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, ip_network
from itertools import accumulate

import msgspec

from podwire.base.addresses import IPNetwork
from podwire.sources.objects import Fields, Named, address, items, labels_of, name_of, prefix
from podwire.state.tables import NodeRow


class NodeSpec(Fields, frozen=True, gc=False):
    pod_cidr: str | None = msgspec.field(name="podCIDR", default=None)
    pod_cidrs: list[str] | None = msgspec.field(name="podCIDRs", default=None)


class NodeAddress(Fields, frozen=True, gc=False):
    type: str | None = None
    address: str | None = None


class NodeStatus(Fields, frozen=True, gc=False):
    addresses: list[NodeAddress] | None = None


class Node(Named, frozen=True, gc=False):
    spec: NodeSpec | None = None
    status: NodeStatus | None = None


def row_of(item: Node, local_name: str) -> NodeRow:
    """v1 Node → row; `local_name` is the node this agent runs on."""
    _, name = name_of(item)
    spec = item.spec or NodeSpec()
    given = spec.pod_cidrs or ([spec.pod_cidr] if spec.pod_cidr else [])
    cidrs = tuple(prefix(cidr, f"spec.podCIDRs[{index}]") for index, cidr in enumerate(given))
    return NodeRow(
        name=name,
        addresses=addresses_of(item),
        pod_cidrs=cidrs,
        labels=labels_of(item),
        local=name == local_name,
        router_addresses=tuple(router_of(cidr) for cidr in cidrs),
    )


def addresses_of(item: Node) -> tuple[str, ...]:
    """Internal addresses first, then external ones; each once."""
    found: dict[str | None, list[str]] = {"InternalIP": [], "ExternalIP": []}
    for index, entry in items(item.status.addresses if item.status is not None else None):
        if entry.type in found:
            found[entry.type].append(address(entry.address or "", f"status.addresses[{index}].address"))
    return tuple(dict.fromkeys(found["InternalIP"] + found["ExternalIP"]))


def router_of(cidr: str) -> str:
    """The gateway of a pod CIDR: its last usable address. No pod is given it.

    >>> router_of("10.0.2.0/24")
    '10.0.2.254'
    """
    network = ip_network(cidr)
    if isinstance(network, IPv4Network) and network.prefixlen < 31:
        return str(network.broadcast_address - 1)
    return str(network.broadcast_address)


def clashes(rows: Iterable[NodeRow]) -> list[str]:
    """Sentences about nodes that claim the same: pod CIDRs that overlap, one address twice.

    Traffic to what two nodes claim goes to one of them, so a person has to know.
    """
    rows = sorted(rows, key=lambda row: (row.cluster, row.name))
    found = []
    owners: dict[str, str] = {}
    for row in rows:
        for own in row.addresses:
            other = owners.setdefault(own, _called(row))
            if other != _called(row):
                found.append(f"nodes {other} and {_called(row)} both have the address {own}")
    for version in (4, 6):
        ranges = sorted(
            (
                (network, _called(row))
                for row in rows
                for cidr in row.pod_cidrs
                if (network := ip_network(cidr)).version == version
            ),
            key=lambda one: (int(one[0].network_address), one[0].prefixlen),
        )
        for (first, owner), (second, other) in zip(
            accumulate(ranges, _reaching_further), ranges[1:], strict=False
        ):
            if int(second.network_address) <= int(first.broadcast_address):
                found.append(f"pod CIDRs overlap: {first} of node {owner} and {second} of node {other}")
    return found


def _called(row: NodeRow) -> str:
    """A node's name, with the cluster's where that is not this one."""
    return f"{row.cluster}/{row.name}" if row.cluster else row.name


def _reaching_further(one: tuple[IPNetwork, str], other: tuple[IPNetwork, str]) -> tuple[IPNetwork, str]:
    return other if int(other[0].broadcast_address) > int(one[0].broadcast_address) else one
