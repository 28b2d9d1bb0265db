"""Whom a node believes: an identity comes with the way a packet took, never with its address alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from podwire.abi.enums import Direction, DropReason, EndpointFlags
from podwire.base.addresses import pack
from podwire.datapath import objects
from podwire.testing.world import PASS, World

pytestmark = pytest.mark.kernel

IN, OUT = EndpointFlags.ENFORCE_INGRESS, EndpointFlags.ENFORCE_EGRESS
WORLD, REMOTE_NODE, LOCAL_CIDR = 2, 6, 1 << 24 | 1


@pytest.fixture(params=[False, True], ids=["native", "tunnel"])
def tunnel(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def node(tunnel: bool) -> Iterator[World]:
    """A node whose device towards others is pw-under; pw3 and pw4 are other devices of it."""
    constants = {
        "config_node_ipv4": pack("192.168.7.1"),
        "config_node_ipv6": pack("fd00:7::1"),
        "config_tunnel_device": 99 if tunnel else 0,
    }
    with World(Path(objects.directory()), constants, network=True) as world:
        yield world


def third(family: Any) -> str:
    return "fd00:10:3::9" if family.ipv6 else "10.0.3.9"


def test_no_pod_of_the_cluster_comes_from_another_device(
    node: World, tunnel: bool, family: Any, kit: Any
) -> None:
    server = node.pod(2, 1002, policy=3, flags=IN)
    node.known(family.remote, 2002, "192.168.7.2" if tunnel else "")
    node.peer(3, 2002, Direction.INGRESS, 8)
    node.rule(3, Direction.INGRESS, peer_class=8)
    packet = bytes(family.tcp(family.remote, server, 5000, 80))
    strange = node.to_pod(server, packet, received_on=node.device("pw4"))
    assert kit.drops(strange) == [DropReason.INVALID_SOURCE_IP]


@pytest.mark.parametrize("identity", [REMOTE_NODE, 7])
def test_a_node_from_another_device_may_answer_and_calls_as_the_world(
    node: World, family: Any, kit: Any, identity: int
) -> None:
    """A second network, where the API server is: its answers come from there."""
    client = node.pod(2, 1002, policy=3, flags=IN | OUT)
    node.known(family.node[:-1] + "9", identity)
    for direction in (Direction.INGRESS, Direction.EGRESS):
        node.peer(3, identity, direction, 8)
        node.rule(3, direction, peer_class=8)
    there, elsewhere = family.node[:-1] + "9", {"received_on": node.device("pw4")}
    call = node.to_pod(client, bytes(family.tcp(there, client, 5000, 80)), **elsewhere)
    assert kit.drops(call) == [DropReason.POLICY_DENIED]
    assert node.from_pod(client, bytes(family.tcp(client, there, 4000, 443))).verdict == PASS
    for changed in (False, True):
        if changed:
            node.bump()
        answer = bytes(family.tcp(there, client, 443, 4000, "SA"))
        assert node.to_pod(client, answer, **elsewhere).verdict == PASS, changed
    node.peer(3, WORLD, Direction.INGRESS, 9)
    node.rule(3, Direction.INGRESS, peer_class=9)
    call = node.to_pod(client, bytes(family.tcp(there, client, 5001, 80)), **elsewhere)
    assert call.verdict == PASS
    node.maps["podwire_policy_peers"].clear()
    node.bump()
    again = node.to_pod(client, bytes(family.tcp(there, client, 5001, 80, "A")), **elsewhere)
    assert kit.drops(again) == [DropReason.POLICY_DENIED]


def test_the_world_may_come_from_any_device(node: World, family: Any) -> None:
    server = node.pod(2, 1002)
    for source, identity in (("203.0.113.9", LOCAL_CIDR), ("2001:db8::9", LOCAL_CIDR)):
        if (":" in source) != family.ipv6:
            continue
        packet = bytes(family.tcp(source, server, 5000, 80))
        assert node.to_pod(server, packet, received_on=node.device("pw4")).verdict == PASS
        node.known(source, identity)
        assert node.to_pod(server, packet, received_on=node.device("pw4")).verdict == PASS


@pytest.mark.parametrize("tunnel", [True], ids=["tunnel"])
def test_a_node_does_not_vouch_for_whom_it_forwards(node: World, family: Any, kit: Any) -> None:
    """From the underlay or another device, with a remote pod's source, to a third node's pod."""
    node.known(family.remote, 2002, "192.168.7.2")
    node.known(third(family), 3003, "192.168.7.3")
    packet = bytes(family.tcp(family.remote, third(family), 5000, 80))
    for device in ("pw-under", "pw4"):
        outcome = node.run("to_overlay", packet, node.device("pw3"), received_on=node.device(device))
        assert kit.drops(outcome) == [DropReason.INVALID_SOURCE_IP], device


@pytest.mark.parametrize("tunnel", [True], ids=["tunnel"])
def test_a_pod_of_this_node_is_forwarded_from_its_own_device_only(node: World, family: Any, kit: Any) -> None:
    pod = node.pod(1, 1001)
    node.known(family.remote, 2002, "192.168.7.2")
    packet = bytes(family.tcp(pod, family.remote, 5000, 80))
    outcome = node.run("to_overlay", packet, node.device("pw3"), received_on=node.device("pw4"))
    assert kit.drops(outcome) == [DropReason.INVALID_SOURCE_IP]


@pytest.mark.parametrize(
    "target",
    [
        "127.0.0.1",
        "127.0.0.53",
        "255.255.255.255",
        "224.0.0.1",
        "239.1.2.3",
        "0.0.0.0",
        "0.1.2.3",
        "240.0.0.1",
        "::1",
        "::",
        "ff02::1",
        "ff05::1",
        "ff0e::1",
        "fe80::1",
    ],
)
def test_an_address_that_is_nobodys_is_not_the_world(node: World, kit: Any, target: str) -> None:
    """The node's own stack takes them for its own (CVE-2020-8558)."""
    family = kit.Family(":" in target)
    pod = node.pod(1, 1001, policy=3, flags=OUT)
    node.peer(3, WORLD, Direction.EGRESS, 2)
    node.rule(3, Direction.EGRESS, peer_class=2)
    for frame in (
        family.udp(pod, target, 4000, 5353),
        family.tcp(pod, target, 4000, 80),
        family.echo(pod, target),
    ):
        assert kit.drops(node.from_pod(pod, bytes(frame))) == [DropReason.UNKNOWN_L3_TARGET]


def test_a_pod_does_not_speak_to_the_tunnels_port(node: World, tunnel: bool, family: Any, kit: Any) -> None:
    """Where somebody masquerades, its datagram would come from a node."""
    pod = node.pod(1, 1001)
    other = node.pod(2, 1002)
    for target in (family.remote, family.node, other):
        there = node.from_pod(pod, bytes(family.udp(pod, target, 4000, 8472)))
        assert kit.drops(there) == ([DropReason.ENCAP_PROHIBITED] if tunnel else []), target
    assert not kit.drops(node.from_pod(pod, bytes(family.udp(pod, other, 4000, 8473))))
    node.service(family.service, 80, 17, {31: (family.node[:-1] + "2", 8472)})
    hidden = node.from_pod(pod, bytes(family.udp(pod, family.service, 4000, 80)))
    assert kit.drops(hidden) == ([DropReason.ENCAP_PROHIBITED] if tunnel else [])
    assert not kit.drops(node.from_pod(pod, bytes(family.tcp(pod, other, 4000, 8472))))
