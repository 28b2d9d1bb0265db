"""ICMP errors: about a connection that is known, or about none; never a way around a rule."""

from __future__ import annotations

from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6PacketTooBig,
    ICMPv6ParamProblem,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
)
from scapy.packet import Packet, Raw

from podwire.abi.enums import Direction, DropReason, EndpointFlags
from podwire.testing.world import DROPPED, PASS, REDIRECTED, World

pytestmark = pytest.mark.kernel

IN, OUT = EndpointFlags.ENFORCE_INGRESS, EndpointFlags.ENFORCE_EGRESS
SCTP = 132


def error_about(family: Any, source: Any, to: Any, inner: bytes) -> Packet:
    kind: Packet = ICMPv6DestUnreach(code=4) if family.ipv6 else ICMP(type=3, code=3)
    return family.frame(source, to, kind / Raw(inner))


def unreadable(family: Any, source: Any, to: Any) -> bytes:
    """About something that nobody here tracks."""
    own, asked = family.of(source), family.of(to)
    inner = IPv6(src=asked, dst=own, nh=SCTP) if family.ipv6 else IP(src=asked, dst=own, proto=SCTP)
    return bytes(error_about(family, source, to, bytes(inner / Raw(b"x" * 16))))


def test_an_unreadable_error_does_not_pass_for_an_echo(world: World, family: Any) -> None:
    """An echo of identifier 0 has the same ports as an error: none."""
    client = world.pod(1, 1001)
    server = world.pod(2, 1002, policy=77, flags=IN)
    world.rule(77, Direction.INGRESS, protocol=family.icmp_protocol, port=family.echo_type << 8)
    assert world.from_pod(client, unreadable(family, client, server)).verdict == DROPPED
    assert world.from_pod(client, bytes(family.echo(client, server, id=0))).verdict == REDIRECTED
    assert world.from_pod(client, unreadable(family, client, server)).verdict == DROPPED


def test_an_echo_does_not_pass_for_an_error(world: World, family: Any) -> None:
    client = world.pod(1, 1001)
    server = world.pod(2, 1002, policy=77, flags=IN)
    kind = (1 << 8 | 4) if family.ipv6 else (3 << 8 | 3)
    world.rule(77, Direction.INGRESS, protocol=family.icmp_protocol, port=kind)
    ping = bytes(family.echo(client, server, id=0))
    assert world.from_pod(client, ping).verdict == DROPPED
    assert world.from_pod(client, unreadable(family, client, server)).verdict == REDIRECTED
    assert world.from_pod(client, ping).verdict == DROPPED


@pytest.mark.parametrize("identifier", [0, 7])
def test_who_may_answer_an_echo_may_not_ask_one(world: World, family: Any, identifier: int) -> None:
    client = world.pod(1, 1001, policy=77, flags=IN | OUT)
    server = world.pod(2, 1002)
    world.rule(77, Direction.EGRESS, protocol=family.icmp_protocol, port=family.echo_type << 8)
    ask = bytes(family.echo(server, client, id=identifier))
    assert world.from_pod(server, ask).verdict == DROPPED
    assert world.from_pod(client, bytes(family.echo(client, server, id=identifier))).verdict == REDIRECTED
    answer = bytes(family.echo(server, client, id=identifier, reply=True))
    assert world.from_pod(server, answer).verdict == REDIRECTED
    assert world.from_pod(server, ask).verdict == DROPPED


def inners(family: Any, source: str, to: str) -> dict[str, Packet]:
    """Datagrams 4000 → 53 as a kernel would take them, whatever stands before the ports."""
    datagram = UDP(sport=4000, dport=53) / Raw(b"?" * 8)
    if not family.ipv6:
        return {"plain": IP(src=source, dst=to) / datagram}
    head = IPv6(src=source, dst=to)
    return {
        "plain": head / datagram,
        "destination options": head / IPv6ExtHdrDestOpt() / datagram,
        "hop by hop": head / IPv6ExtHdrHopByHop() / datagram,
        "first fragment": head / IPv6ExtHdrFragment(nh=17, id=9, m=1) / datagram,
        "several": head / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / IPv6ExtHdrDestOpt() / datagram,
    }


def test_nobody_complains_about_a_strangers_connection(world: World, kit: Any, family: Any) -> None:
    client, server, liar = world.pod(1, 1001), world.pod(2, 1002), world.pod(3, 1003)
    world.from_pod(client, bytes(family.udp(client, server, 4000, 53)))
    for how, inner in inners(family, family.of(client), family.of(server)).items():
        lie = world.from_pod(liar, bytes(error_about(family, liar, client, bytes(inner))))
        assert kit.drops(lie) == [DropReason.INVALID_SOURCE_IP], how
        true = world.from_pod(server, bytes(error_about(family, server, client, bytes(inner))))
        assert true.verdict == REDIRECTED, how


def test_nobody_complains_to_the_node_about_its_own(world: World, kit: Any) -> None:
    family = kit.Family(False)
    world.node(family.node)
    liar = world.pod(3, 1003)
    inner = bytes(IP(src="127.0.0.1", dst="127.0.0.53") / UDP(sport=4000, dport=53))
    outcome = world.from_pod(liar, bytes(error_about(family, liar, family.node, inner)))
    assert kit.drops(outcome) == [DropReason.INVALID_SOURCE_IP]


def test_the_path_mtu_is_learned_whatever_headers_stand_before_the_ports(world: World, kit: Any) -> None:
    """A router's too-big belongs to the connection, also where nobody may call."""
    family = kit.Family(True)
    client = world.pod(1, 1001, policy=1, flags=IN)
    assert world.from_pod(client, bytes(family.udp(client, family.remote, 4000, 53))).verdict == PASS
    for how, inner in inners(family, client.ipv6, family.remote).items():
        error = family.frame("fd00:7::7", client, ICMPv6PacketTooBig(mtu=1280) / Raw(bytes(inner)))
        assert world.from_network(bytes(error)).verdict == REDIRECTED, how
    later = (
        IPv6(src=client.ipv6, dst=family.remote) / IPv6ExtHdrFragment(nh=17, id=9, offset=5) / Raw(b"?" * 8)
    )
    error = family.frame("fd00:7::7", client, ICMPv6PacketTooBig(mtu=1280) / Raw(bytes(later)))
    assert kit.drops(world.from_network(bytes(error))) == [DropReason.POLICY_DENIED]


def test_an_error_is_read_no_further_than_its_packet_goes(world: World, kit: Any, family: Any) -> None:
    """What trails the packet makes no connection of what it says."""
    client = world.pod(1, 1001, policy=1, flags=IN)
    world.from_pod(client, bytes(family.udp(client, family.remote, 4000, 53)))
    about = family.udp(client, family.remote, 4000, 53)
    error = bytearray(bytes(family.unreachable(family.remote, client, about)))
    place = slice(18, 20) if family.ipv6 else slice(16, 18)
    length = int.from_bytes(error[place], "big") - 8
    assert world.from_network(bytes(error)).verdict == REDIRECTED
    error[place] = length.to_bytes(2, "big")
    assert kit.drops(world.from_network(bytes(error))) == [DropReason.POLICY_DENIED]


@pytest.mark.parametrize("readable", [False, True])
def test_one_kind_of_error_opens_no_way_for_another(
    world: World, family: Any, kit: Any, readable: bool
) -> None:
    client = world.pod(1, 1001)
    server = world.pod(2, 1002, policy=77, flags=IN)
    allowed = (1 << 8 | 4) if family.ipv6 else (3 << 8 | 3)
    world.rule(77, Direction.INGRESS, protocol=family.icmp_protocol, port=allowed)

    def error(kind: Packet) -> bytes:
        inner = bytes(family.udp(server, client, 4000, 53).payload) if readable else bytes(b"x" * 28)
        return bytes(family.frame(client, server, kind / Raw(inner)))

    fine = ICMPv6DestUnreach(code=4) if family.ipv6 else ICMP(type=3, code=3)
    other = ICMPv6ParamProblem() if family.ipv6 else ICMP(type=12)
    if not readable:  # nobody complains about what it was never sent
        assert kit.drops(world.from_pod(client, error(fine))) == [DropReason.INVALID_SOURCE_IP]
        return
    for _ in range(2):
        assert kit.drops(world.from_pod(client, error(other))) == [DropReason.POLICY_DENIED]
        assert world.from_pod(client, error(fine)).verdict == REDIRECTED
    assert not world.connections()


def test_an_error_is_about_a_connection_that_only_the_receiver_knows(world: World, family: Any) -> None:
    client = world.pod(1, 1001, policy=77, flags=IN)
    server = world.pod(2, 1002)
    assert world.from_pod(client, bytes(family.udp(client, server, 4000, 53))).verdict == REDIRECTED
    table = world.maps["podwire_conntrack"]
    for key in list(world.connections()):
        if key.local_port == 53:
            del table[key]
    about = family.udp(client, server, 4000, 53)
    assert world.from_pod(server, bytes(family.unreachable(server, client, about))).verdict == REDIRECTED


def test_a_later_fragment_of_an_error_is_asked_about_by_its_kind(world: World, kit: Any) -> None:
    """It has no header: with echo replies allowed (type 0) it passed as one."""
    family = kit.Family(False)
    client = world.pod(1, 1001)
    server = world.pod(2, 1002, policy=77, flags=IN)
    world.rule(77, Direction.INGRESS, protocol=1, port=0)
    inner = bytes(family.udp(server, client, 4000, 53).payload)
    whole = bytes(ICMP(type=3, code=3) / Raw(inner + b"x" * 20))
    first = family.frame(client, server, Raw(whole[:40]), id=9, flags="MF", proto=1)
    later = family.frame(client, server, Raw(whole[40:]), id=9, frag=5, proto=1)
    for fragment in (first, later):
        assert kit.drops(world.from_pod(client, bytes(fragment))) == [DropReason.POLICY_DENIED]
