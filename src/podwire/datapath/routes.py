"""The node's own network: forwarding, router addresses, the tunnel device, ways to other nodes.

In the walk: the table `nodes` says who is there and which pod CIDRs each has. Native routing sends
a CIDR to its node's address; with tunnels it goes to `podwire_vxlan`, whose programs put in the
far end. This node's own CIDRs are unreachable but for its pods, which have routes of their own: what
is for an address that no pod has would leave by the default route, and might come back.

`prepare` runs before the programs are loaded (they are told the device), and again when this node's own
object changes; `RouteTarget` under a
`state.reconcile.Reconciler` from then on. Routes of nodes that are gone are removed, and only those:
podwire marks its routes with a protocol number of its own.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import msgspec

from podwire.base import addresses as text
from podwire.base.config import AgentConfig
from podwire.base.errors import NetworkError, PodwireError
from podwire.net import messages, sysctl
from podwire.net.messages import LAST_RESORT, PROTOCOL_ADVERTISED, PROTOCOL_NODES, UNREACHABLE, Route
from podwire.net.netlink import Message
from podwire.net.stack import Stack
from podwire.state.tables import NodeRow

TUNNEL = "podwire_vxlan"
# Outer IP, UDP and VXLAN headers and the inner Ethernet header.
OVERHEAD = {4: 20 + 8 + 8 + 14, 6: 40 + 8 + 8 + 14}
LOOPBACK = 1


class Prepared(msgspec.Struct, frozen=True):
    """What the programs are told. `tunnel_device` is an ifindex, 0 = native; MTUs in bytes of IP."""

    device: str
    ifindex: int
    mtu: int
    route_mtu: int  # the largest packet towards other nodes
    tunnel_device: int


def prepare(config: AgentConfig, node: NodeRow, gone: Iterable[str] = ()) -> Prepared:
    """Make this node a router with its router addresses, without those that are `gone`; NotFound if the
    device does not exist."""
    sysctl.ensure({"ipv4/ip_forward": 1, "ipv4/conf/all/rp_filter": 0, "ipv4/conf/default/rp_filter": 0})
    with Stack() as stack:
        device = stack.existing(config.device)
        _keep_router_advertisements(stack, device.name)
        sysctl.ensure_present({"ipv6/conf/all/forwarding": 1})
        mtu = config.mtu or device.mtu
        stack.apply(
            messages.link_set(LOOPBACK, up=True),
            *(messages.address(LOOPBACK, text.exact(address)) for address in node.router_addresses),
            *(messages.address(LOOPBACK, text.exact(address), delete=True) for address in gone),
        )
        if config.routing_mode == "native":
            stack.delete_link(TUNNEL)  # of an earlier agent with tunnels
            return Prepared(device.name, device.ifindex, mtu, mtu, 0)
        outer = max(OVERHEAD[text.family(address)] for address in node.addresses)
        tunnel = stack.ensure_vxlan(TUNNEL, port=config.tunnel_port, mtu=mtu - outer)
        sysctl.ensure({f"ipv4/conf/{TUNNEL}/rp_filter": 0})
        return Prepared(device.name, device.ifindex, mtu, mtu - outer, tunnel.ifindex)


def _keep_router_advertisements(stack: Stack, device: str) -> None:
    """Before this node is a router: what has its routes from router advertisements keeps them.

    A router takes none, unless told so (accept_ra 2). Told are the node's device and those that have
    such a route; not all, for a container at the other end of some other device could then be a
    router to this node. One that took none stays so.
    """
    learned = (stack.link_at(route.ifindex) for route in stack.routes(protocol=PROTOCOL_ADVERTISED))
    for name in {device, *(link.name for link in learned if link is not None)}:
        forwarding, accepts = f"ipv6/conf/{name}/forwarding", f"ipv6/conf/{name}/accept_ra"
        if sysctl.present(accepts) and (sysctl.read(forwarding), sysctl.read(accepts)) == ("0", "1"):
            sysctl.ensure({accepts: 2})


class RouteTarget:
    """One route per pod CIDR, for the node's reconciler of the table `nodes`."""

    name = "routes to pods"

    def __init__(self, prepared: Prepared) -> None:
        self.prepared = prepared
        self._stack = Stack()

    def close(self) -> None:
        self._stack.close()

    def load(self) -> Mapping[Hashable, Any]:
        """Prefix → route, of those podwire made."""
        found: dict[Hashable, Any] = {}
        for route in self._stack.routes(protocol=PROTOCOL_NODES):
            # None, which nobody wants, where there are two beside each other: they are written anew.
            found[route.prefix] = None if route.prefix in found else _wanted(route)
        return found

    def items(self, row: NodeRow) -> Mapping[Hashable, Any]:
        if row.local:
            return {
                cidr: Route(cidr, type=UNREACHABLE, priority=LAST_RESORT, protocol=PROTOCOL_NODES)
                for cidr in row.pod_cidrs
            }
        found: dict[Hashable, Any] = {}
        for cidr in row.pod_cidrs:
            route = self._route(cidr, row)
            if route is not None:
                found[cidr] = route
        return found

    def write(self, items: Mapping[Hashable, Any]) -> Mapping[Hashable, PodwireError]:
        failed = self._apply({prefix: messages.route(route) for prefix, route in items.items()})
        # Of a CIDR that has come to this node, or left it, the old route has another priority and stays.
        stale = [
            route
            for route in self._stack.routes(protocol=PROTOCOL_NODES)
            if route.prefix in items and route.prefix not in failed and route.type != items[route.prefix].type
        ]
        removed = self._apply({route.prefix: messages.route(route, delete=True) for route in stale})
        return {**failed, **removed}

    def remove(self, keys: Iterable[Hashable]) -> Mapping[Hashable, PodwireError]:
        gone = {key: Route(str(key), protocol=PROTOCOL_NODES) for key in keys}
        return self._apply({key: messages.route(route, delete=True) for key, route in gone.items()})

    def _route(self, cidr: str, row: NodeRow) -> Route | None:
        if self.prepared.tunnel_device:
            return Route(
                cidr, self.prepared.tunnel_device, mtu=self.prepared.route_mtu, protocol=PROTOCOL_NODES
            )
        via = next((one for one in row.addresses if text.family(one) == text.family(cidr)), "")
        # A node without an address of that family cannot be reached natively.
        return Route(cidr, self.prepared.ifindex, via=via, protocol=PROTOCOL_NODES) if via else None

    def _apply(self, wanted: Mapping[Hashable, Message]) -> dict[Hashable, PodwireError]:
        results = self._stack.attempt(*wanted.values())
        failed: dict[Hashable, PodwireError] = {}
        for key, failure in zip(wanted, results, strict=True):
            if failure is not None:
                failed[key] = NetworkError(str(failure), hint="is the node on this node's network?")
        return failed


def _wanted(route: Route) -> Route:
    """As `items` would say it: what the kernel adds by itself left out."""
    if route.type == UNREACHABLE:  # IPv6 says a device, where nothing goes
        return msgspec.structs.replace(route, source="", onlink=False, ifindex=0)
    return msgspec.structs.replace(route, source="", onlink=False, priority=0)
