"""A packet ends where its IP header says, whatever trails it in the frame."""

from __future__ import annotations

from typing import Any

import pytest
from scapy.layers.inet import TCP, UDP
from scapy.layers.inet6 import IPv6ExtHdrDestOpt, IPv6ExtHdrFragment
from scapy.packet import Raw

from podwire.abi.enums import Direction, DropReason, EndpointFlags
from podwire.testing.world import DROPPED, REDIRECTED, World

pytestmark = pytest.mark.kernel

IN, OUT = EndpointFlags.ENFORCE_INGRESS, EndpointFlags.ENFORCE_EGRESS


def shortened(family: Any, frame: Any, payload: int) -> bytes:
    """The frame, with `payload` bytes of it behind the IP header and the rest as its trailer."""
    raw = bytearray(bytes(frame))
    place, length = (slice(18, 20), payload) if family.ipv6 else (slice(16, 18), 20 + payload)
    raw[place] = length.to_bytes(2, "big")
    return bytes(raw)


@pytest.mark.parametrize("protocol, least", [("tcp", 20), ("udp", 8), ("echo", 8)])
def test_a_transport_header_in_the_trailer_is_none(
    world: World, family: Any, kit: Any, protocol: str, least: int
) -> None:
    client, server = world.pod(1, 1001), world.pod(2, 1002)
    ports = () if protocol == "echo" else (4000, 80)
    frame = getattr(family, protocol)(client, server, *ports)
    assert world.from_pod(client, shortened(family, frame, least)).verdict == REDIRECTED
    for payload in (0, least - 1):
        outcome = world.from_pod(client, shortened(family, frame, payload))
        assert kit.drops(outcome) == [DropReason.CT_INVALID_HEADER]


def test_flags_in_the_trailer_do_not_make_a_call_an_answer(world: World, kit: Any) -> None:
    """The call stands in the second fragment, a forged answer behind the first one's end (RFC 1858)."""
    family = kit.Family(False)
    client = world.pod(1, 1001, policy=1, flags=IN | OUT)
    server = world.pod(2, 1002)
    world.rule(1, Direction.EGRESS, protocol=6, port=80)
    assert world.from_pod(client, bytes(family.tcp(client, server, 4000, 80))).verdict == REDIRECTED
    assert world.from_pod(server, bytes(family.tcp(server, client, 80, 4000, "SA"))).verdict == REDIRECTED
    assert world.from_pod(server, bytes(family.tcp(server, client, 80, 4000, "S"))).verdict == DROPPED
    forged = bytes(TCP(sport=80, dport=4000, flags="A", seq=1000))
    first = shortened(family, family.frame(server, client, Raw(forged), id=9, flags="MF", proto=6), 8)
    assert kit.drops(world.from_pod(server, first)) == [DropReason.CT_INVALID_HEADER]
    call = bytes(TCP(sport=80, dport=4000, flags="S", seq=1000))
    second = family.frame(server, client, Raw(call[8:]), id=9, frag=1, proto=6)
    assert kit.drops(world.from_pod(server, bytes(second))) == [DropReason.FRAGMENT_NOT_FOUND]


def test_ports_in_the_trailer_are_none(world: World, kit: Any) -> None:
    """The first fragment ends in a destination option; the real ports stand in the second."""
    family = kit.Family(True)
    client = world.pod(1, 1001)
    server = world.pod(2, 1002, policy=77, flags=IN)
    world.rule(77, Direction.INGRESS, protocol=17, port=53)
    option = bytes([17, 0, 1, 4, 0, 0, 0, 0])  # next UDP, 8 bytes, PadN
    forged = bytes(UDP(sport=4000, dport=53, len=24, chksum=1))
    fragment = IPv6ExtHdrFragment(nh=60, id=5, m=1) / Raw(option + forged)
    first = shortened(family, family.frame(client, server, fragment), 8 + len(option))
    assert kit.drops(world.from_pod(client, first)) == [DropReason.CT_INVALID_HEADER]
    real = bytes(UDP(sport=4000, dport=22, len=24, chksum=1)) + b"x" * 16
    second = family.frame(client, server, IPv6ExtHdrFragment(nh=17, id=5, offset=1) / Raw(real))
    assert kit.drops(world.from_pod(client, bytes(second))) == [DropReason.FRAGMENT_NOT_FOUND]


def test_an_extension_header_in_the_trailer_is_none(world: World, kit: Any) -> None:
    family = kit.Family(True)
    client, server = world.pod(1, 1001), world.pod(2, 1002)
    frame = family.frame(client, server, IPv6ExtHdrDestOpt() / UDP(sport=1, dport=2) / Raw(b"x" * 8))
    assert world.from_pod(client, shortened(family, frame, 16)).verdict == REDIRECTED
    outcome = world.from_pod(client, shortened(family, frame, 4))
    assert kit.drops(outcome) == [DropReason.INVALID_EXTENSION_HEADER]


def test_a_fragment_of_a_fragment_is_refused(world: World, kit: Any) -> None:
    family = kit.Family(True)
    client, server = world.pod(1, 1001), world.pod(2, 1002)
    nested = IPv6ExtHdrFragment(nh=44, id=5, m=1) / IPv6ExtHdrFragment(nh=17, id=6)
    frame = family.frame(client, server, nested / UDP(sport=1, dport=2) / Raw(b"x" * 8))
    assert kit.drops(world.from_pod(client, bytes(frame))) == [DropReason.INVALID_EXTENSION_HEADER]
