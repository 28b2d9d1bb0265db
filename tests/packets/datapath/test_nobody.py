"""Packets for addresses that nobody has, and for pods whose device is down: dropped, with a reason."""

from __future__ import annotations

from typing import Any

import pytest

from podwire.abi.enums import Direction, DropReason, EndpointFlags, EventKind, IpcacheFlags
from podwire.testing.world import DROPPED, PASS, REDIRECTED, World

pytestmark = pytest.mark.kernel

PODS = {False: "10.0.1.0/24", True: "fd00:10:1::/64"}
SERVICES = {False: "10.96.0.0/16", True: "fd00:96::/112"}
UNUSED = {False: "10.0.1.200", True: "fd00:10:1::200"}
UNMANAGED, WORLD = 3, 2


@pytest.fixture
def prefixes(world: World, family: Any) -> None:
    """What the ipcache has of the node's own pod CIDR and of the Services'."""
    world.known(PODS[family.ipv6], UNMANAGED, flags=IpcacheFlags.PODS)
    world.known(SERVICES[family.ipv6], WORLD, flags=IpcacheFlags.SERVICES)


def frames(family: Any, source: Any, to: str) -> list[bytes]:
    """TCP, UDP and an echo."""
    return [
        bytes(one)
        for one in (
            family.tcp(source, to, 4000, 80),
            family.udp(source, to, 4000, 53),
            family.echo(source, to),
        )
    ]


@pytest.mark.usefixtures("prefixes")
def test_what_a_pod_sends_to_nobody_ends_here(world: World, family: Any, kit: Any) -> None:
    pod = world.pod(1, 1001)
    for to in (UNUSED[family.ipv6], family.service):
        for packet in frames(family, pod, to):
            for _ in range(2):  # also when the flow is known
                outcome = world.from_pod(pod, packet)
                assert outcome.verdict == DROPPED
                assert kit.drops(outcome) == [DropReason.UNKNOWN_L3_TARGET]
    assert world.counted()[DropReason.UNKNOWN_L3_TARGET, Direction.EGRESS] == 12
    elsewhere = world.from_pod(pod, bytes(family.tcp(pod, family.remote, 4000, 80)))
    assert elsewhere.verdict == PASS and not kit.drops(elsewhere)


@pytest.mark.usefixtures("prefixes")
def test_policy_is_asked_before_anybody_is_looked_for(world: World, family: Any, kit: Any) -> None:
    pod = world.pod(1, 1001, policy=3, flags=EndpointFlags.ENFORCE_EGRESS)
    for packet in frames(family, pod, UNUSED[family.ipv6]):
        assert kit.drops(world.from_pod(pod, packet)) == [DropReason.POLICY_DENIED]


@pytest.mark.usefixtures("prefixes")
def test_a_pod_and_a_service_of_these_prefixes_are_somebody(world: World, family: Any, kit: Any) -> None:
    pod, server = world.pod(1, 1001), world.pod(2, 1002)
    assert world.from_pod(pod, bytes(family.tcp(pod, server, 4000, 80))).verdict == REDIRECTED
    world.service(family.service, 80, 6, {1: (family.of(server), 8080)})
    assert world.from_pod(pod, bytes(family.tcp(pod, family.service, 4001, 80))).verdict == REDIRECTED
    other = world.from_pod(pod, bytes(family.tcp(pod, family.service, 4001, 81)))
    assert kit.drops(other) == [DropReason.UNKNOWN_L3_TARGET], "a port that the Service does not have"


@pytest.mark.usefixtures("prefixes")
def test_what_comes_for_a_pod_that_is_not_there_does_not_go_on(world: World, family: Any, kit: Any) -> None:
    for packet in frames(family, family.remote, UNUSED[family.ipv6]):
        outcome = world.from_network(packet)
        assert outcome.verdict == DROPPED
        assert kit.drops(outcome) == [DropReason.UNKNOWN_L3_TARGET]
    # The node may forward for others, and its own kube-proxy may know Services that we do not.
    for to in ("198.51.100.7" if not family.ipv6 else "2001:db8::7", family.service):
        assert world.from_network(bytes(family.tcp(family.remote, to, 4000, 80))).verdict == PASS
    world.node(UNUSED[family.ipv6])  # the router's address is of the prefix too
    assert world.from_network(bytes(family.tcp(family.remote, UNUSED[family.ipv6], 4000, 80))).verdict == PASS


def test_a_pod_whose_device_is_down_gets_nothing_and_it_is_told(world: World, family: Any, kit: Any) -> None:
    pod, server = world.pod(1, 1001), world.pod(2, 1002, flags=EndpointFlags.DOWN)
    ways = {
        "from a pod": lambda: world.from_pod(pod, bytes(family.tcp(pod, server, 4000, 80))),
        "from the network": lambda: world.from_network(bytes(family.tcp(family.remote, server, 4000, 80))),
        "from the node": lambda: world.to_pod(server, bytes(family.tcp(family.node, server, 4000, 80))),
    }
    for name, send in ways.items():
        outcome = send()
        assert (outcome.verdict, kit.drops(outcome)) == (DROPPED, [DropReason.REDIRECT_FAILED]), name
        assert not len(kit.of_kind(outcome, EventKind.TRACE)), f"{name}: told as delivered"
    assert world.counted()[DropReason.REDIRECT_FAILED, Direction.INGRESS] == len(ways)
    assert (0, Direction.INGRESS) not in world.counted()
    world.pod(2, 1002)  # up again
    for name, send in ways.items():
        assert send().verdict in (PASS, REDIRECTED), name
