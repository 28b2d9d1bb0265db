"""Packets between a pod and the node, other nodes and the world."""

from __future__ import annotations

from typing import Any

import pytest
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from podwire.abi.enums import CtFlags, Direction, DropReason, EndpointFlags, EventKind
from podwire.testing.world import DROPPED, PASS, REDIRECTED, World

pytestmark = pytest.mark.kernel

BOTH = EndpointFlags.ENFORCE_INGRESS | EndpointFlags.ENFORCE_EGRESS


def test_the_node_reaches_its_pods_whatever_policy_says(world: World, family: Any, kit: Any) -> None:
    world.node(family.node)
    pod = world.pod(1, 1001, policy=3, flags=BOTH)
    outcome = world.to_pod(pod, bytes(family.tcp(family.node, pod, 50000, 8080)))
    assert outcome.verdict == PASS
    (trace,) = outcome.events
    assert trace["source_identity"] == 1 and trace["point"] == 0
    (entry,) = world.connections().values()
    assert entry.flags & CtFlags.NODE_ORIGIN
    world.bump()
    back = world.from_pod(pod, bytes(family.tcp(pod, family.node, 8080, 50000, "SA")))
    assert back.verdict == PASS and back.events[0]["point"] == 2


def test_what_the_stack_forwards_is_asked_of_policy(world: World, family: Any, kit: Any) -> None:
    pod = world.pod(1, 1001, policy=3, flags=EndpointFlags.ENFORCE_INGRESS)
    world.rule(3, Direction.INGRESS, protocol=6, port=80)
    world.known(family.remote, 2002)
    packet = bytes(family.tcp(family.remote, pod, 5000, 80))
    outcome = world.to_pod(pod, packet, received_on=world.device("pw4"))
    assert outcome.verdict == PASS
    assert kit.of_kind(outcome, EventKind.VERDICT)[0]["source_identity"] == 2002
    denied = world.to_pod(
        pod, bytes(family.tcp(family.remote, pod, 5000, 81)), received_on=world.device("pw4")
    )
    assert kit.drops(denied) == [DropReason.POLICY_DENIED]


def test_the_nodes_name_from_elsewhere_is_a_lie(world: World, family: Any, kit: Any) -> None:
    world.node(family.node)
    pod, other = world.pod(1, 1001), world.pod(2, 1002)
    packet = bytes(family.tcp(family.node, pod, 50000, 8080))
    forwarded = world.to_pod(pod, packet, received_on=world.device("pw4"))
    assert kit.drops(forwarded) == [DropReason.INVALID_SOURCE_IP]
    for source in (family.node, family.of(other), family.hairpin):
        outside = world.from_network(bytes(family.tcp(source, pod, 50000, 8080)))
        assert kit.drops(outside) == [DropReason.INVALID_SOURCE_IP]


def test_a_mark_opens_nothing_and_does_not_survive(world: World, family: Any, kit: Any) -> None:
    pod = world.pod(1, 1001)
    server = world.pod(2, 1002, policy=3, flags=EndpointFlags.ENFORCE_INGRESS)
    for mark in (0xFFFFFFFF, 0x0F00, 0x200, 1):
        for outcome in (
            world.from_pod(pod, bytes(family.tcp(pod, server, 4000, 80)), mark=mark),
            world.from_network(bytes(family.tcp(family.remote, server, 4000, 80)), mark=mark),
            world.to_pod(
                server,
                bytes(family.tcp(family.remote, server, 4001, 80)),
                mark=mark,
                received_on=world.device("pw4"),
            ),
        ):
            assert kit.drops(outcome) == [DropReason.POLICY_DENIED]


def test_to_pod_takes_only_its_own_addresses(world: World, family: Any, kit: Any) -> None:
    pod, other = world.pod(1, 1001), world.pod(2, 1002)
    outcome = world.to_pod(pod, bytes(family.tcp(family.node, other, 50000, 8080)))
    assert kit.drops(outcome) == [DropReason.UNKNOWN_L3_TARGET]


def test_from_the_network_with_the_senders_identity(world: World, family: Any, kit: Any) -> None:
    pod = world.pod(1, 1001, policy=3, flags=EndpointFlags.ENFORCE_INGRESS)
    world.known(family.remote, 2002)
    world.peer(3, 2002, Direction.INGRESS, 8)
    world.rule(3, Direction.INGRESS, peer_class=8, protocol=6, port=80, rule=21)
    packet = family.tcp(family.remote, pod, 5000, 80)
    outcome = world.from_network(bytes(packet))
    assert outcome.verdict == REDIRECTED
    kit.same(family.routed(packet, pod), outcome.packet)
    verdict = kit.of_kind(outcome, EventKind.VERDICT)[0]
    assert verdict["rule"] == 21 and verdict["source_identity"] == 2002
    stranger = world.from_network(bytes(family.tcp(family.node[:-1] + "9", pod, 5000, 80)))
    assert kit.drops(stranger) == [DropReason.POLICY_DENIED]


def test_what_is_not_for_a_pod_is_the_stacks(world: World, family: Any, kit: Any) -> None:
    world.node(family.node)
    pod = world.pod(1, 1001)
    for packet in (
        family.tcp(family.remote, family.node, 5000, 22),
        family.frame(family.remote, family.node, Raw(b"x" * 64), **{"nh" if family.ipv6 else "proto": 132}),
        family.tcp(family.remote, family.node[:-1] + "8", 5000, 22),
    ):
        outcome = world.from_network(bytes(packet))
        assert outcome.verdict == PASS and not outcome.events.size
    foreign = family.tcp(family.remote, pod, 5000, 80)
    foreign[Ether].dst = "02:aa:00:00:00:77"
    outcome = world.from_network(bytes(foreign))
    assert outcome.verdict == PASS and not world.connections()


def test_to_the_node_and_the_world(world: World, family: Any, kit: Any) -> None:
    world.node(family.node)
    pod = world.pod(1, 1001, policy=3, flags=EndpointFlags.ENFORCE_EGRESS)
    world.peer(3, 1, Direction.EGRESS, 2)
    world.rule(3, Direction.EGRESS, peer_class=2)
    host = world.from_pod(pod, bytes(family.tcp(pod, family.node, 4000, 22)))
    assert host.verdict == PASS and kit.of_kind(host, EventKind.TRACE)[0]["point"] == 2
    world_out = world.from_pod(pod, bytes(family.tcp(pod, family.remote, 4000, 22)))
    assert world_out.verdict == DROPPED
    assert kit.of_kind(world_out, EventKind.DROP)[0]["destination_identity"] == 2


def test_counts_are_of_packets_and_bytes(world: World, family: Any, kit: Any) -> None:
    pod = world.pod(1, 1001)
    packet = bytes(family.tcp(pod, family.remote, 4000, 22))
    for _ in range(3):
        world.from_pod(pod, packet)
    outcome = world.from_pod(pod, packet[:-4])
    (reason,) = kit.drops(outcome)
    assert world.counted() == {(0, Direction.EGRESS): 3, (reason, Direction.EGRESS): 1}


def test_a_pods_address_from_another_device_is_no_pods(world: World, family: Any, kit: Any) -> None:
    """A second network of the node cannot speak as one of its pods."""
    client, server = world.pod(1, 1001), world.pod(2, 1002)
    packet = bytes(family.tcp(client, server, 50000, 8080))
    assert world.to_pod(server, packet, received_on=client.device).verdict == PASS
    outcome = world.to_pod(server, packet, received_on=world.device("pw4"))
    assert outcome.verdict == DROPPED
    assert kit.drops(outcome) == [DropReason.INVALID_SOURCE_IP]
