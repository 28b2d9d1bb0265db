"""The node's own network, in a namespace of our own: native and tunnel."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from tests.patience import within

from podwire.base.aio import Supervised, eventually
from podwire.base.config import AgentConfig
from podwire.base.errors import NotFound
from podwire.datapath import routes
from podwire.datapath.routes import RouteTarget
from podwire.model.cluster import OWN
from podwire.net import messages, namespaces, sysctl
from podwire.net.messages import PROTOCOL_ADVERTISED, PROTOCOL_NODES, UNREACHABLE, Route, Veth
from podwire.net.stack import Stack
from podwire.state.reconcile import Reconciler
from podwire.state.tables import NodeRow, Tables

pytestmark = pytest.mark.kernel

ME = NodeRow("n1", ("192.0.2.1", "2001:db8::1"), ("10.0.1.0/24",), {}, True, ("10.0.1.254", "fd00:1::ff"))
OTHER = NodeRow("n2", ("192.0.2.2", "2001:db8::2"), ("10.0.2.0/24", "fd00:2::/64"), {}, False)
FAR = NodeRow("n3", ("198.51.100.3",), ("10.0.3.0/24",), {}, False)


@pytest.fixture
def node(netns: str) -> Iterator[Callable[..., Any]]:
    """Runs functions in a namespace with an underlay device that has ME's addresses."""

    def inside(work: Callable[..., Any], *arguments: Any) -> Any:
        return namespaces.run(netns, work, *arguments)

    with Stack(netns) as stack:
        stack.apply(
            messages.veth(
                Veth("eth0", bytes.fromhex("020000000001")), Veth("far", bytes.fromhex("020000000002"))
            )
        )
        stack.apply(
            messages.link_set(name="eth0", up=True),
            messages.link_set(name="far", up=True),
            messages.address(stack.existing("eth0").ifindex, "192.0.2.1/24"),
            messages.address(stack.existing("eth0").ifindex, "2001:db8::1/64"),
        )
    yield inside


def config_of(mode: str) -> AgentConfig:
    return AgentConfig(node_name="n1", routing_mode=mode)  # type: ignore[arg-type]


def follow(node: Callable[..., Any], netns: str, mode: str, work: Callable[..., Any]) -> None:
    """`work(tables, reconciler, routes_now)` while the node keeps its routes."""
    prepared = node(routes.prepare, config_of(mode), ME)
    target = node(RouteTarget, prepared)

    async def run() -> None:
        tables = Tables()
        reconciler: Reconciler[NodeRow] = Reconciler(tables.nodes, target)
        with Stack(netns) as stack:
            async with Supervised("test") as group:
                group.start("keep routes", reconciler.run())
                await work(
                    tables, reconciler, lambda: {r.prefix: r for r in stack.routes(protocol=PROTOCOL_NODES)}
                )

    try:
        asyncio.run(run())
    finally:
        target.close()


def test_native_routes_come_and_go_with_nodes(node: Callable[..., Any], netns: str) -> None:
    async def work(
        tables: Tables, reconciler: Reconciler[NodeRow], now: Callable[[], dict[str, Route]]
    ) -> None:
        for row in (ME, OTHER, FAR):
            tables.nodes.put(row)
        await eventually(lambda: len(now()) == 3, timeout=within(5), what="routes")
        assert now()["10.0.1.0/24"].type == UNREACHABLE
        assert now()["10.0.2.0/24"].via == "192.0.2.2"
        assert now()["fd00:2::/64"].via == "2001:db8::2"
        # A node that is not on our network: its row says so, the others have their routes.
        await eventually(reconciler.errors, timeout=within(5), what="an error")
        assert list(reconciler.errors()) == [(OWN, "n3")]
        assert "route 10.0.3.0/24 via 198.51.100.3" in reconciler.errors()[OWN, "n3"]
        tables.nodes.delete((OWN, "n2"))
        tables.nodes.delete((OWN, "n3"))
        tables.nodes.delete((OWN, "n1"))
        await eventually(lambda: now() == {}, timeout=within(5), what="no routes")

    follow(node, netns, "native", work)


def test_a_cidr_that_moves_between_nodes_has_one_route(node: Callable[..., Any], netns: str) -> None:
    with_cidrs = msgspec.structs.replace

    def routed() -> list[tuple[str, int]]:
        with Stack(netns) as stack:
            return sorted((one.prefix, one.type) for one in stack.routes(protocol=PROTOCOL_NODES))

    async def work(tables: Tables, *_: Any) -> None:
        cidrs = ("10.0.2.0/24", "fd00:2::/64")
        there = [(cidr, messages.UNICAST) for cidr in cidrs]
        here = [(cidr, UNREACHABLE) for cidr in cidrs]
        for _ in range(2):
            tables.nodes.put(with_cidrs(ME, pod_cidrs=()))
            tables.nodes.put(with_cidrs(OTHER, pod_cidrs=cidrs))
            await eventually(lambda: routed() == there, timeout=within(5), what="routes to the other node")
            tables.nodes.put(with_cidrs(OTHER, pod_cidrs=()))
            tables.nodes.put(with_cidrs(ME, pod_cidrs=cidrs))
            await eventually(lambda: routed() == here, timeout=within(5), what="routes of this node's own")

    follow(node, netns, "native", work)


@pytest.mark.parametrize("mode", ["native", "tunnel"])
def test_what_no_pod_has_goes_nowhere_and_a_pod_or_another_route_comes_first(
    node: Callable[..., Any], netns: str, mode: str
) -> None:
    me = msgspec.structs.replace(ME, pod_cidrs=("10.0.1.0/24", "fd00:1::/64"))

    def way(address: str) -> str:
        """What the kernel does with a packet for it: a device, or why not."""
        command = ["ip", "-n", netns, "-o", "route", "get", address]
        done = subprocess.run(command, capture_output=True, text=True)
        said = done.stdout + done.stderr
        return said.split(" dev ")[1].split()[0] if done.returncode == 0 else said

    async def work(
        tables: Tables, reconciler: Reconciler[NodeRow], now: Callable[[], dict[str, Route]]
    ) -> None:
        with Stack(netns) as stack:
            eth0 = stack.existing("eth0").ifindex
            stack.apply(messages.route(Route("0.0.0.0/0", eth0, via="192.0.2.9")))
            stack.apply(messages.route(Route("::/0", eth0, via="2001:db8::9")))
            stack.apply(messages.route(Route("10.0.1.7/32", eth0)))
            stack.apply(messages.route(Route("fd00:1::7/128", eth0)))
            assert way("10.0.1.200") == way("fd00:1::200") == "eth0"
            tables.nodes.put(me)
            tables.nodes.mark_all_ready()
            await eventually(lambda: len(now()) == 2, timeout=5, what="routes")
            assert "No route to host" in way("10.0.1.200") and "No route to host" in way("fd00:1::200")
            assert way("10.0.1.7") == way("fd00:1::7") == way("10.0.3.1") == "eth0"
            stack.apply(messages.route(Route("10.0.1.0/24", eth0, protocol=4)))  # another's, for all
            assert way("10.0.1.200") == "eth0"
            assert len(now()) == 2
        tables.nodes.put(msgspec.structs.replace(me, pod_cidrs=("fd00:1::/64",)))
        await eventually(lambda: set(now()) == {"fd00:1::/64"}, timeout=5, what="a CIDR to go")

    follow(node, netns, mode, work)
    # A new agent finds its own route as it is to be, and does not make it again.
    target = node(RouteTarget, node(routes.prepare, config_of(mode), me))
    try:
        assert target.load() == {"fd00:1::/64": target.items(me)["fd00:1::/64"]}
    finally:
        target.close()


def test_a_node_that_becomes_a_router_keeps_what_routers_told_it(
    node: Callable[..., Any], netns: str
) -> None:
    with Stack(netns) as stack:
        for name in ("learned", "silent"):
            stack.apply(
                messages.veth(Veth(name, bytes(6)[:5] + b"\x06"), Veth(f"{name}p", bytes(5) + b"\x08"))
            )
            stack.apply(messages.link_set(name=name, up=True), messages.link_set(name=f"{name}p", up=True))
        learned = stack.existing("learned").ifindex
        stack.apply(messages.route(Route("2001:db8:5::/64", learned, protocol=PROTOCOL_ADVERTISED)))
        stack.apply(
            messages.route(
                Route("2001:db8:6::/64", stack.existing("far").ifindex, protocol=PROTOCOL_ADVERTISED)
            )
        )
    node(sysctl.ensure, {"ipv6/conf/far/accept_ra": 0})
    for _ in range(2):
        node(routes.prepare, config_of("native"), ME)
    accepts = {
        name: node(sysctl.read, f"ipv6/conf/{name}/accept_ra")
        for name in ("eth0", "learned", "silent", "far")
    }
    # The node's device and what has such a route; not what might be anybody's, nor what took none.
    assert accepts == {"eth0": "2", "learned": "2", "silent": "1", "far": "0"}


def test_routes_of_nodes_gone_meanwhile_are_removed_and_no_others(
    node: Callable[..., Any], netns: str
) -> None:
    with Stack(netns) as stack:
        eth0 = stack.existing("eth0").ifindex
        stack.apply(messages.route(Route("10.0.9.0/24", eth0, via="192.0.2.9", protocol=PROTOCOL_NODES)))
        stack.apply(messages.route(Route("10.0.1.7/32", eth0)))
        stack.apply(messages.route(Route("10.77.0.0/16", eth0, via="192.0.2.7", protocol=4)))

    async def work(
        tables: Tables, reconciler: Reconciler[NodeRow], now: Callable[[], dict[str, Route]]
    ) -> None:
        tables.nodes.put(OTHER)
        await eventually(lambda: "10.0.2.0/24" in now(), timeout=within(5), what="routes")
        assert "10.0.9.0/24" in now()  # not before the table says that it is ready
        tables.nodes.mark_all_ready()
        await eventually(lambda: "10.0.9.0/24" not in now(), timeout=within(5), what="the old route gone")

    follow(node, netns, "native", work)
    with Stack(netns) as stack:
        assert {"10.0.1.7/32", "10.77.0.0/16"} <= {route.prefix for route in stack.routes(protocol=None)}


def test_tunnel_routes_have_the_tunnels_limit(node: Callable[..., Any], netns: str) -> None:
    async def work(
        tables: Tables, reconciler: Reconciler[NodeRow], now: Callable[[], dict[str, Route]]
    ) -> None:
        tables.nodes.put(OTHER)
        await eventually(lambda: len(now()) == 2, timeout=within(5), what="routes")
        with Stack(netns) as stack:
            tunnel = stack.existing(routes.TUNNEL)
        assert {(route.ifindex, route.via, route.mtu) for route in now().values()} == {
            (tunnel.ifindex, "", 1430)
        }
        assert (tunnel.kind, tunnel.up, tunnel.mtu) == ("vxlan", True, 1430)

    follow(node, netns, "tunnel", work)
    # Back to native: the tunnel device and its routes go.
    prepared = node(routes.prepare, config_of("native"), ME)
    assert prepared.tunnel_device == 0
    with Stack(netns) as stack:
        assert stack.link(routes.TUNNEL) is None
        assert stack.routes(protocol=PROTOCOL_NODES) == []


def test_the_node_is_a_router_with_its_router_addresses(node: Callable[..., Any], netns: str) -> None:
    for _ in range(2):
        prepared = node(routes.prepare, config_of("native"), ME)
    assert (prepared.device, prepared.mtu, prepared.route_mtu) == ("eth0", 1500, 1500)
    assert node(sysctl.read, "ipv4/ip_forward") == "1"
    assert node(sysctl.read, "ipv6/conf/all/forwarding") == "1"
    with Stack(netns) as stack:
        assert {prefix for _, prefix in stack.addresses(1)} >= {"10.0.1.254/32", "fd00:1::ff/128"}
    with pytest.raises(NotFound, match="no device eth9"):
        node(routes.prepare, AgentConfig(node_name="n1", device="eth9"), ME)
    assert os.path.exists(namespaces.path_of(netns))
