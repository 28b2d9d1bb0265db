"""Nodes: addresses, pod CIDRs, and the address each node holds in its pod CIDRs as gateway."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, ip_network
from itertools import accumulate

from podwire.base.addresses import IPNetwork
from podwire.sources.objects import Object, address, items, labels, mapping, name_of, prefix, text, texts
from podwire.state.tables import NodeRow


def row_of(item: Object, local_name: str) -> NodeRow:
    """v1 Node → row; `local_name` is the node this agent runs on."""
    _, name = name_of(item)
    spec = mapping(item, "spec")
    cidrs = texts(spec, "podCIDRs", "spec")
    if not cidrs and (single := text(spec, "podCIDR", "spec")):
        cidrs = (single,)
    cidrs = tuple(prefix(cidr, f"spec.podCIDRs[{index}]") for index, cidr in enumerate(cidrs))
    return NodeRow(
        name=name,
        addresses=addresses_of(item),
        pod_cidrs=cidrs,
        labels=labels(mapping(item, "metadata")),
        local=name == local_name,
        router_addresses=tuple(router_of(cidr) for cidr in cidrs),
    )


def addresses_of(item: Object) -> tuple[str, ...]:
    """Internal addresses first, then external ones; each once."""
    found: dict[str, list[str]] = {"InternalIP": [], "ExternalIP": []}
    for index, entry in enumerate(items(mapping(item, "status"), "addresses", "status")):
        path = f"status.addresses[{index}]"
        kind = text(entry, "type", path)
        if kind in found:
            found[kind].append(address(text(entry, "address", path), f"{path}.address"))
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
    rows = sorted(rows, key=lambda row: row.name)
    found = []
    owners: dict[str, str] = {}
    for row in rows:
        for own in row.addresses:
            other = owners.setdefault(own, row.name)
            if other != row.name:
                found.append(f"nodes {other} and {row.name} both have the address {own}")
    for version in (4, 6):
        ranges = sorted(
            (
                (network, row.name)
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


def _reaching_further(one: tuple[IPNetwork, str], other: tuple[IPNetwork, str]) -> tuple[IPNetwork, str]:
    return other if int(other[0].broadcast_address) > int(one[0].broadcast_address) else one
