"""The network of namespaces of our own: everything made twice, read back, removed twice."""

from __future__ import annotations

import os
import socket
import subprocess
import uuid
from collections.abc import Iterator

import pytest
from tests.patience import within

from podwire.base.errors import Conflict, NetworkError, NotFound
from podwire.net import messages, namespaces, sysctl
from podwire.net.messages import Route, Veth
from podwire.net.stack import Stack

pytestmark = pytest.mark.kernel

MAC_A, MAC_B = bytes.fromhex("02aabbccdd01"), bytes.fromhex("02aabbccdd02")


@pytest.fixture
def other() -> Iterator[str]:
    name = f"podwire-other-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    namespaces.create(name)
    yield name
    namespaces.delete(name)


@pytest.fixture
def stack(netns: str) -> Iterator[Stack]:
    with Stack(netns) as opened:
        yield opened


def pair(stack: Stack, other: str) -> None:
    target = namespaces.open_namespace(other)
    try:
        stack.ensure_veth(
            Veth("left", MAC_A, mtu=1400),
            Veth("eth0", MAC_B, mtu=1400, namespace=target),
        )
    finally:
        os.close(target)
    stack.apply(messages.link_silent(name="left"), messages.link_set(name="left", up=True))
    with Stack(other) as inside:
        inside.apply(messages.link_silent(name="eth0"), messages.link_set(name="eth0", up=True))


def test_a_pair_straight_into_another_namespace(stack: Stack, other: str) -> None:
    pair(stack, other)
    pair(stack, other)
    left = stack.existing("left")
    assert (left.kind, left.mac, left.mtu, left.up) == ("veth", MAC_A, 1400, True)
    assert stack.link_at(left.ifindex) == left
    with Stack(other) as inside:
        right = inside.existing("eth0")
        assert (right.mac, right.mtu, right.up, right.peer) == (MAC_B, 1400, True, left.ifindex)
        assert inside.addresses(right.ifindex) == []
        assert [link.name for link in inside.links()] == ["lo", "eth0"]
    stack.delete_link("left")
    stack.delete_link("left")
    assert stack.link("left") is None
    with pytest.raises(NotFound, match="no device left"):
        stack.existing("left")


def test_addresses_routes_and_neighbours_of_both_families(stack: Stack, other: str) -> None:
    pair(stack, other)
    left = stack.existing("left").ifindex
    routes = [
        Route("10.1.0.0/16", left, via="10.0.0.2", mtu=1350, source="10.0.0.1"),
        Route("10.9.0.9/32", left),
        Route("192.0.2.0/24", type=messages.BLACKHOLE),
        Route("fd01::/64", left, via="fd00::2", mtu=1350),
        Route("fd09::9/128", left),
    ]
    for _ in range(2):
        stack.apply(
            messages.address(left, "10.0.0.1/24"),
            messages.address(left, "fd00::1/64"),
            *(messages.route(route) for route in routes),
            messages.neighbour(left, "10.0.0.2", MAC_B),
            messages.neighbour(left, "fd00::2", MAC_B),
        )
    assert stack.addresses(left) == [(left, "10.0.0.1/24"), (left, "fd00::1/64")]
    read = {route.prefix: route for route in stack.routes()}
    assert read["10.1.0.0/16"] == routes[0]
    assert read["fd01::/64"] == routes[3]
    assert set(read) == {route.prefix for route in routes}
    assert sorted(stack.neighbours(left)) == [("10.0.0.2", MAC_B), ("fd00::2", MAC_B)]
    # What the kernel made by itself is not ours.
    assert "10.0.0.0/24" in {route.prefix for route in stack.routes(protocol=None)}

    for _ in range(2):
        for route in stack.routes() or routes:
            stack.apply(messages.route(route, delete=True))
        stack.apply(messages.neighbour(left, "10.0.0.2", bytes(6), delete=True))
        stack.apply(messages.address(left, "10.0.0.1/24", delete=True))
    assert stack.routes() == []
    assert stack.addresses(left) == [(left, "fd00::1/64")]


def test_the_way_of_a_pod_works(stack: Stack, other: str) -> None:
    pair(stack, other)
    left = stack.existing("left").ifindex
    stack.apply(
        messages.link_set(1, up=True),
        messages.address(1, "10.0.0.1/32"),
        messages.route(Route("10.0.0.7/32", left, source="10.0.0.1")),
        messages.neighbour(left, "10.0.0.7", MAC_B),
    )
    with Stack(other) as inside:
        right = inside.existing("eth0").ifindex
        inside.apply(
            messages.address(right, "10.0.0.7/32"),
            messages.route(Route("10.0.0.1/32", right)),
            messages.route(Route("0.0.0.0/0", right, via="10.0.0.1")),
            messages.neighbour(right, "10.0.0.1", MAC_A),
        )
    with (
        namespaces.open_socket(other, socket.AF_INET, socket.SOCK_DGRAM) as server,
        namespaces.open_socket(stack.namespace, socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        server.bind(("10.0.0.7", 5000))
        server.settimeout(within(5))
        client.sendto(b"hello", ("10.0.0.7", 5000))
        assert server.recvfrom(100)[0] == b"hello"


def test_a_table_of_its_own(stack: Stack) -> None:
    local = Route("0.0.0.0/0", 1, table=2004, type=messages.LOCAL)
    stack.apply(messages.link_set(1, up=True))
    stack.apply(messages.route(local))
    assert stack.routes(table=2004) == [local]


def test_a_bridge_and_a_tunnel(stack: Stack, other: str) -> None:
    pair(stack, other)
    for _ in range(2):
        bridge = stack.ensure_bridge("br0", mtu=1400)
        tunnel = stack.ensure_vxlan("vx0", port=8472, mtu=1450)
        left = stack.ensure_link("left", master=bridge.ifindex, up=True)
    assert left.master == bridge.ifindex
    assert tunnel.up
    shown = subprocess.run(
        ["nsenter", f"--net={namespaces.path_of(stack.namespace or '')}", "ip", "-d", "link", "show", "vx0"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "external" in shown
    assert "dstport 8472" in shown
    with pytest.raises(Conflict, match="is no bridge"):
        stack.ensure_bridge("left")
    with pytest.raises(NotFound):
        stack.ensure_link("nobody", up=True)


def test_a_refusal_says_what_and_why_and_the_rest_goes(stack: Stack) -> None:
    with pytest.raises(NetworkError, match=r"route 10.1.0.0/16 via 10.99.0.1: Network is unreachable"):
        stack.apply(
            messages.route(Route("10.1.0.0/16", via="10.99.0.1")),
            messages.address(1, "10.5.0.1/32"),
        )
    assert (1, "10.5.0.1/32") in stack.addresses()


def test_settings_of_another_namespace(stack: Stack, other: str) -> None:
    pair(stack, other)
    namespaces.run(other, sysctl.ensure, {"ipv4/conf/eth0/rp_filter": 0, "ipv4/ip_forward": 1})
    assert namespaces.run(other, sysctl.read, "ipv4/ip_forward") == "1"
    assert sysctl.ROOT.exists()
    with pytest.raises(NetworkError, match="read setting ipv4/nothing"):
        sysctl.ensure({"ipv4/nothing": 1})


def test_names_of_namespaces(netns: str) -> None:
    with pytest.raises(Conflict, match="exists already"):
        namespaces.create(netns)
    with pytest.raises(NotFound, match="no network namespace"):
        namespaces.run("podwire-nobody", print)
    assert namespaces.identity(netns) == namespaces.run(netns, namespaces.identity)
    assert namespaces.identity(netns) != namespaces.identity()
    with pytest.raises(ZeroDivisionError):
        namespaces.run(netns, lambda: 1 // 0)
    namespaces.delete("podwire-nobody")
