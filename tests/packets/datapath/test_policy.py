"""Who may talk to whom: a packet from a pod of the node to another one."""

from __future__ import annotations

from typing import Any

import pytest
from scapy.layers.inet import ICMP
from scapy.packet import Raw

from podwire.abi.enums import Direction, DropReason, EndpointFlags, EventKind, PolicyVerdict
from podwire.testing.world import DROPPED, PASS, REDIRECTED, World

pytestmark = pytest.mark.kernel

INGRESS, EGRESS = Direction.INGRESS, Direction.EGRESS
CLIENT, SERVER, POLICY = 1001, 1002, 77


def test_without_policy_everything_passes_and_is_told(world: World, family: Any, kit: Any) -> None:
    client, server = world.pod(1, CLIENT), world.pod(2, SERVER)
    packet = family.tcp(client, server, 4000, 80)
    outcome = world.from_pod(client, bytes(packet))
    assert outcome.verdict == REDIRECTED
    kit.same(family.routed(packet, server), outcome.packet)
    (trace,) = outcome.events
    assert trace["kind"] == EventKind.TRACE and trace["point"] == 0 and trace["reason"] == 1
    assert (trace["source_identity"], trace["destination_identity"]) == (CLIENT, SERVER)
    assert (trace["source_port"], trace["destination_port"]) == (4000, 80)
    assert trace["tcp_flags"] == 2 and trace["length"] == len(packet)
    assert world.counted() == {(0, INGRESS): 1, (0, EGRESS): 1}


@pytest.mark.parametrize("direction", [INGRESS, EGRESS])
@pytest.mark.parametrize("verdict", list(PolicyVerdict))
def test_a_rule_decides_in_its_direction(
    world: World, family: Any, kit: Any, direction: Direction, verdict: PolicyVerdict
) -> None:
    enforce = EndpointFlags.ENFORCE_INGRESS if direction == INGRESS else EndpointFlags.ENFORCE_EGRESS
    ours = {"policy": POLICY, "flags": enforce}
    client = world.pod(1, CLIENT, **(ours if direction == EGRESS else {}))
    server = world.pod(2, SERVER, **(ours if direction == INGRESS else {}))
    world.peer(POLICY, CLIENT if direction == INGRESS else SERVER, direction, 5)
    world.rule(POLICY, direction, peer_class=5, protocol=6, port=80, rule=42, verdict=verdict)
    outcome = world.from_pod(client, bytes(family.tcp(client, server, 4000, 80)))
    (told,) = kit.of_kind(outcome, EventKind.VERDICT)
    assert (told["rule"], told["policy"], told["direction"]) == (42, POLICY, direction)
    if verdict == PolicyVerdict.ALLOW:
        assert outcome.verdict == REDIRECTED and told["point"] == 1 and not kit.drops(outcome)
        return
    reason = DropReason.POLICY_DENY if verdict == PolicyVerdict.DENY else DropReason.POLICY_DENIED
    assert outcome.verdict == DROPPED and told["point"] == 2 and told["reason"] == reason
    assert kit.drops(outcome) == [reason]
    assert world.counted()[reason, direction] == 1


def test_nothing_allows_it(world: World, family: Any, kit: Any) -> None:
    client = world.pod(1, CLIENT)
    server = world.pod(2, SERVER, policy=POLICY, flags=EndpointFlags.ENFORCE_INGRESS)
    world.rule(POLICY, INGRESS, protocol=6, port=80)
    for packet in (
        family.tcp(client, server, 4000, 81),
        family.udp(client, server, 4000, 80),
        family.echo(client, server),
    ):
        outcome = world.from_pod(client, bytes(packet))
        assert outcome.verdict == DROPPED and kit.drops(outcome) == [DropReason.POLICY_DENIED]
    assert world.from_pod(client, bytes(family.tcp(client, server, 4000, 80))).verdict == REDIRECTED


def test_replies_follow_their_connection(world: World, family: Any, kit: Any) -> None:
    both = EndpointFlags.ENFORCE_INGRESS | EndpointFlags.ENFORCE_EGRESS
    client = world.pod(1, CLIENT, policy=1, flags=both)
    server = world.pod(2, SERVER, policy=2, flags=both)
    world.rule(1, EGRESS, protocol=6, port=80)
    world.rule(2, INGRESS, protocol=6, port=80)
    stranger = world.from_pod(server, bytes(family.tcp(server, client, 80, 4000, "SA")))
    assert kit.drops(stranger) == [DropReason.POLICY_DENIED]
    assert world.from_pod(client, bytes(family.tcp(client, server, 4000, 80))).verdict == REDIRECTED
    answer = world.from_pod(server, bytes(family.tcp(server, client, 80, 4000, "SA")))
    assert answer.verdict == REDIRECTED
    (trace,) = answer.events
    assert trace["reason"] == 3 and trace["flags"] & 4
    # Whoever may answer may not call: a SYN is no reply.
    call = world.from_pod(server, bytes(family.tcp(server, client, 80, 4000, "S")))
    assert kit.drops(call) == [DropReason.POLICY_DENIED]


def test_icmp_is_asked_by_type(world: World, family: Any, kit: Any) -> None:
    client = world.pod(1, CLIENT)
    server = world.pod(2, SERVER, policy=POLICY, flags=EndpointFlags.ENFORCE_INGRESS)
    world.rule(POLICY, INGRESS, protocol=family.icmp_protocol, port=family.echo_type << 8)
    assert world.from_pod(client, bytes(family.echo(client, server))).verdict == REDIRECTED
    assert world.from_pod(server, bytes(family.echo(server, client, reply=True))).verdict == REDIRECTED
    world.bump()
    assert world.from_pod(server, bytes(family.echo(server, client, reply=True))).verdict == REDIRECTED
    unasked = world.from_pod(client, bytes(family.echo(client, server, id=8, reply=True)))
    assert kit.drops(unasked) == [DropReason.POLICY_DENIED]


def test_no_other_icmp_passes_as_part_of_an_echo(world: World, family: Any, kit: Any) -> None:
    client = world.pod(1, CLIENT)
    server = world.pod(2, SERVER, policy=POLICY, flags=EndpointFlags.ENFORCE_INGRESS)
    world.rule(POLICY, INGRESS, protocol=family.icmp_protocol, port=family.echo_type << 8)
    assert world.from_pod(client, bytes(family.echo(client, server, id=0))).verdict == REDIRECTED
    world.bump()
    assert world.from_pod(server, bytes(family.echo(server, client, id=0, reply=True))).verdict == REDIRECTED
    packet = family.echo(client, server, id=0)
    packet.payload.payload.type = 139 if family.ipv6 else 13
    outcome = world.from_pod(client, bytes(kit.fresh(packet)))
    assert kit.drops(outcome) == [DropReason.POLICY_DENIED]


@pytest.mark.parametrize("how", ["epoch", "policy"])
def test_a_revoked_policy_cuts_what_it_had_allowed(world: World, family: Any, kit: Any, how: str) -> None:
    client = world.pod(1, CLIENT)
    server = world.pod(2, SERVER, policy=1, flags=EndpointFlags.ENFORCE_INGRESS)
    world.rule(1, INGRESS, protocol=6, port=80, rule=11)
    there = bytes(family.tcp(client, server, 4000, 80))
    back = bytes(family.tcp(server, client, 80, 4000, "SA"))
    assert world.from_pod(client, there).verdict == REDIRECTED
    assert world.from_pod(server, back).verdict == REDIRECTED
    if how == "epoch":
        world.maps["podwire_policy"].clear()
        world.bump()
    else:
        world.pod(2, SERVER, policy=2, flags=EndpointFlags.ENFORCE_INGRESS)
    for pod, packet in ((client, bytes(family.tcp(client, server, 4000, 80, "A"))), (server, back)) * 2:
        outcome = world.from_pod(pod, packet)
        assert outcome.verdict == DROPPED and kit.drops(outcome) == [DropReason.POLICY_DENIED]
        (verdict,) = kit.of_kind(outcome, EventKind.VERDICT)
        assert verdict["direction"] == INGRESS and verdict["point"] == 2


def test_an_unchanged_policy_keeps_connections_over_an_epoch(world: World, family: Any) -> None:
    client = world.pod(1, CLIENT)
    server = world.pod(2, SERVER, policy=1, flags=EndpointFlags.ENFORCE_INGRESS)
    world.rule(1, INGRESS, protocol=6, port=80, rule=11)
    world.from_pod(client, bytes(family.tcp(client, server, 4000, 80)))
    world.bump()
    assert world.from_pod(server, bytes(family.tcp(server, client, 80, 4000, "SA"))).verdict == REDIRECTED
    assert {entry.epoch for entry in world.connections().values()} == {1}


def test_not_ready_is_closed_both_ways(world: World, family: Any, kit: Any) -> None:
    client, server = world.pod(1, CLIENT), world.pod(2, SERVER, flags=EndpointFlags.NOT_READY)
    for pod, peer in ((client, server), (server, client)):
        outcome = world.from_pod(pod, bytes(family.udp(pod, peer, 53, 53)))
        assert kit.drops(outcome) == [DropReason.ENDPOINT_NOT_READY]


def test_identity_of_a_remote_peer_exact_then_prefix_then_world(world: World, family: Any, kit: Any) -> None:
    client = world.pod(1, CLIENT, policy=POLICY, flags=EndpointFlags.ENFORCE_EGRESS)
    prefix = "fd00:10:2::/64" if family.ipv6 else "10.0.2.0/24"
    packet = bytes(family.udp(client, family.remote, 5000, 53))
    seen = []
    for prepare in (None, (prefix, 16_777_217), (family.remote, 2002)):
        if prepare:
            world.known(*prepare)
        outcome = world.from_pod(client, packet)
        (verdict,) = kit.of_kind(outcome, EventKind.VERDICT)
        seen.append(int(verdict["destination_identity"]))
    assert seen == [2, 16_777_217, 2002]


@pytest.mark.parametrize("allowed", [0, 8])
def test_a_later_fragment_is_of_the_kind_its_first_one_was(world: World, kit: Any, allowed: int) -> None:
    """Else one that is taken for an echo would make a connection, under which the whole kind passes."""
    family = kit.Family(False)
    pod = world.pod(1, 1001, policy=3, flags=EndpointFlags.ENFORCE_EGRESS)
    world.rule(3, Direction.EGRESS, protocol=1, port=13 << 8)
    message = family.frame(pod, family.remote, ICMP(type=13, id=7) / Raw(b"x" * 32))
    body = bytes(message)[34:]
    first = family.frame(pod, family.remote, Raw(body[:24]), id=99, flags="MF", proto=1)
    later = family.frame(pod, family.remote, Raw(body[24:]), id=99, frag=3, proto=1)
    assert world.from_pod(pod, bytes(first)).verdict == PASS
    world.maps["podwire_policy"].clear()
    world.rule(3, Direction.EGRESS, protocol=1, port=allowed << 8)
    world.bump()
    for packet in (later, first, message):
        assert kit.drops(world.from_pod(pod, bytes(packet))) == [DropReason.POLICY_DENIED]
