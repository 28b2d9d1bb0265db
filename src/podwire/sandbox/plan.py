"""A lab with addresses: what each node, world and the API server get. Pure.

Sandboxes have an index of their own (1-250), so that addresses tell them apart: the underlay is
172.30.<index>.0/24, with .1 the bridge (where the API server listens), .11 the first node, .101
the first world; for IPv6 fd00:30:<index>::/64 alike. Pods of node i get 10.0.<i>.0/24 and
fd00:10:0:<i>::/64 in every sandbox, as in the lab files; sandboxes never meet.
"""

from __future__ import annotations

import ipaddress

import msgspec

from podwire.base.errors import InvalidObject
from podwire.sandbox.lab import Lab, NodeSpec, World

INDEX_MAX = 250
SERVICE_CIDRS = {4: "10.96.0.0/16", 6: "fd00:10:96::/112"}
DNS_ADDRESSES = {4: "10.96.0.10", 6: "fd00:10:96::a"}
LOCAL = ("127.0.0.0/8", "169.254.0.0/16", "fe80::/10", "::1/128")
API_PORT = 6443
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


class Node(msgspec.Struct, frozen=True):
    """A node: `addresses` and `pod_cidrs` are one per family, IPv4 first."""

    name: str
    addresses: tuple[str, ...]
    pod_cidrs: tuple[str, ...]
    routers: tuple[str, ...]  # the node's own addresses inside the pod CIDRs: the last usable ones


class Outside(msgspec.Struct, frozen=True):
    """A world: where it is on the underlay (one address per family of the sandbox), and what it is."""

    world: World
    addresses: tuple[str, ...]


class Plan(msgspec.Struct, frozen=True):
    """Everything `up` needs to know, and `list`, `env` and `exec` later."""

    name: str
    index: int
    lab: Lab
    bridge: tuple[str, ...]
    nodes: tuple[Node, ...]
    worlds: tuple[Outside, ...]
    service_cidrs: tuple[str, ...]
    dns: tuple[str, ...]

    @property
    def families(self) -> tuple[int, ...]:
        return families(self.lab)

    def node(self, name: str) -> Node | None:
        return next((node for node in self.nodes if node.name == name), None)


def families(lab: Lab) -> tuple[int, ...]:
    return ((4,) if lab.ipv4 else ()) + ((6,) if lab.ipv6 else ())


def plan(lab: Lab, name: str, index: int) -> Plan:
    """The addresses of `lab` as sandbox `name` with `index`; InvalidObject where they would clash."""
    kinds = families(lab)
    nodes = tuple(_node(node, number, index, kinds) for number, node in enumerate(lab.node_specs, start=1))
    worlds = tuple(
        Outside(world, tuple(_underlay(family, index, 100 + number) for family in kinds))
        for number, world in enumerate(lab.worlds, start=1)
    )
    result = Plan(
        name=name,
        index=index,
        lab=lab,
        bridge=tuple(_underlay(family, index, 1) for family in kinds),
        nodes=nodes,
        worlds=worlds,
        service_cidrs=tuple(SERVICE_CIDRS[family] for family in kinds),
        dns=tuple(DNS_ADDRESSES[family] for family in kinds),
    )
    _check_overlaps(result)
    return result


def _node(spec: NodeSpec, number: int, index: int, kinds: tuple[int, ...]) -> Node:
    usual = {4: f"10.0.{number}.0/24", 6: f"fd00:10:0:{number:x}::/64"}
    path = f"nodes[{number - 1}].podCIDRs"
    chosen: dict[int, Network] = {network.version: network for network in _networks(spec.pod_cidrs, path)}
    if spec.pod_cidrs and sorted(chosen) != sorted(kinds):
        families = " and ".join(f"IPv{family}" for family in kinds)
        raise InvalidObject(path, f"one CIDR is needed for each of {families}")
    cidrs = tuple(str(chosen.get(family, usual[family])) for family in kinds)
    routers = tuple(str(_last_usable(ipaddress.ip_network(cidr))) for cidr in cidrs)
    addresses = tuple(_underlay(family, index, 10 + number) for family in kinds)
    return Node(spec.name, addresses, cidrs, routers)


def _networks(cidrs: tuple[str, ...], path: str) -> list[Network]:
    found: list[Network] = []
    for number, text in enumerate(cidrs):
        try:
            network = ipaddress.ip_network(text)
        except ValueError as error:
            raise InvalidObject(f"{path}[{number}]", f"{text} is not a CIDR: {error}") from error
        if network.max_prefixlen - network.prefixlen < 3:
            raise InvalidObject(f"{path}[{number}]", f"{text} has no room for pods", hint="/24 is usual")
        found.append(network)
    return found


def _last_usable(network: Network) -> IPAddress:
    return network[-2]


def _underlay(family: int, index: int, host: int) -> str:
    return f"172.30.{index}.{host}" if family == 4 else f"fd00:30:{index:x}::{host:x}"


def _check_overlaps(plan: Plan) -> None:
    """Nothing of the cluster overlaps anything else of it, and no world has one of its addresses."""
    used = [(cidr, "which services use") for cidr in plan.service_cidrs]
    used += [(cidr, "which the underlay uses") for cidr in ("172.30.0.0/16", "fd00:30::/32")]
    used += [(cidr, "which is local to each host") for cidr in LOCAL]
    for number, node in enumerate(plan.nodes):
        for cidr in node.pod_cidrs:
            _check_free(f"nodes[{number}].podCIDRs", cidr, used)
        used += [(cidr, f"which node {node.name} uses for its pods") for cidr in node.pod_cidrs]
    for number, outside in enumerate(plan.worlds):
        for place, text in enumerate(outside.world.addresses):
            path = f"worlds[{number}].addresses[{place}]"
            version = ipaddress.ip_address(text).version
            if version not in plan.families:
                raise InvalidObject(
                    path, f"{text} needs ipFamily {'ipv6' if version == 6 else 'ipv4'} or dual"
                )
            _check_free(path, text, used, hint="take one of 203.0.113.0/24")


def _check_free(path: str, cidr: str, used: list[tuple[str, str]], hint: str | None = None) -> None:
    wanted = ipaddress.ip_network(cidr)
    for other, whose in used:
        network = ipaddress.ip_network(other)
        if network.version == wanted.version and wanted.overlaps(network):
            raise InvalidObject(path, f"{cidr} overlaps {other}, {whose}", hint=hint)
