"""Packets as layers, for both families from one definition; a world to run them in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6PacketTooBig,
    IPv6,
)
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw
from tests.packets.datapath.lab import Lab

from podwire.abi.enums import DropReason, EventKind
from podwire.datapath import objects
from podwire.testing.world import Pod, World

ROOT = Path(__file__).parents[3]
REMOTE = {False: "10.0.2.9", True: "fd00:10:2::9"}
SERVICE = {False: "10.96.0.10", True: "fd00:96::10"}
NODE = {False: "192.168.7.1", True: "fd00:7::1"}
HAIRPIN = {False: "169.254.42.1", True: "fd00:706f:6477:6972::1"}


class Family:
    """Builds frames of one family. Addresses are text, macs bytes."""

    def __init__(self, ipv6: bool) -> None:
        self.ipv6 = ipv6
        self.icmp_protocol = 58 if ipv6 else 1
        self.echo_type = 128 if ipv6 else 8
        self.remote = REMOTE[ipv6]
        self.service = SERVICE[ipv6]
        self.node = NODE[ipv6]
        self.hairpin = HAIRPIN[ipv6]

    def of(self, pod: Pod) -> str:
        return pod.address(self.ipv6)

    def ip(self, source: str, destination: str, hops: int = 64, **fields: Any) -> Packet:
        if self.ipv6:
            return IPv6(src=source, dst=destination, hlim=hops, **fields)
        return IP(src=source, dst=destination, ttl=hops, **fields)

    def frame(self, source: Pod | str, destination: Pod | str, payload: Packet, **fields: Any) -> Packet:
        """From a pod it goes to its gateway, from elsewhere to the underlay device."""
        addresses = [self.of(one) if isinstance(one, Pod) else one for one in (source, destination)]
        if isinstance(source, Pod):
            link = Ether(src=mac(source.mac), dst=mac(source.host_mac))
        else:
            link = Ether(src="02:aa:00:00:00:02", dst="02:aa:00:00:00:01")
        return link / self.ip(*addresses, **fields) / payload

    def tcp(
        self,
        source: Pod | str,
        destination: Pod | str,
        sport: int,
        dport: int,
        flags: str = "S",
        data: bytes = b"",
        **fields: Any,
    ) -> Packet:
        segment = TCP(sport=sport, dport=dport, flags=flags, seq=1000)
        return self.frame(source, destination, segment / Raw(data) if data else segment, **fields)

    def udp(
        self,
        source: Pod | str,
        destination: Pod | str,
        sport: int,
        dport: int,
        data: bytes = b"?",
        **fields: Any,
    ) -> Packet:
        return self.frame(source, destination, UDP(sport=sport, dport=dport) / Raw(data), **fields)

    def echo(self, source: Pod | str, destination: Pod | str, id: int = 7, reply: bool = False) -> Packet:
        if self.ipv6:
            kind: Packet = ICMPv6EchoReply(id=id) if reply else ICMPv6EchoRequest(id=id)
        else:
            kind = ICMP(type=0 if reply else 8, id=id)
        return self.frame(source, destination, kind)

    def unreachable(self, source: Pod | str, destination: Pod | str, about: Packet) -> Packet:
        """Port unreachable, with as much of `about` as routers return."""
        inner = bytes(about.payload)[: 40 + 8 if self.ipv6 else 20 + 8]
        head: Packet = ICMPv6DestUnreach(code=4) if self.ipv6 else ICMP(type=3, code=3)
        return self.frame(source, destination, head / Raw(inner))

    def too_big(self, source: Pod | str, destination: Pod | str, about: Packet, mtu: int) -> Packet:
        inner = bytes(about.payload)[: 40 + 8 if self.ipv6 else 20 + 8]
        head: Packet = ICMPv6PacketTooBig(mtu=mtu) if self.ipv6 else ICMP(type=3, code=4, nexthopmtu=mtu)
        return self.frame(source, destination, head / Raw(inner))

    def parse(self, packet: bytes) -> Packet:
        return Ether(packet)

    def network(self, packet: Packet) -> Packet:
        return packet[IPv6 if self.ipv6 else IP]

    def routed(self, packet: Packet, to: Pod, **changes: Any) -> Packet:
        """As a router hands it to pod `to`: one hop less, other macs, and `changes` to the IP header."""
        after = packet.copy()
        after[Ether].src, after[Ether].dst = mac(to.host_mac), mac(to.mac)
        header = self.network(after)
        setattr(header, "hlim" if self.ipv6 else "ttl", 63)
        for field, value in changes.items():
            setattr(header, field, value)
        return fresh(after)


def mac(raw: bytes) -> str:
    return raw.hex(":")


def fresh(packet: Packet) -> Packet:
    """With lengths and checksums computed anew."""
    copy = packet.copy()
    layer = copy
    while layer:
        for field in ("chksum", "cksum", "len", "plen"):
            if field in layer.fields and not isinstance(layer, Raw):
                delattr(layer, field)
        layer = layer.payload
    return Ether(bytes(copy))


def assert_same(expected: Packet, got: bytes) -> None:
    """Fails with the first layer that differs and its fields."""
    wanted, found = Ether(bytes(expected)), Ether(got)
    while wanted and found:
        assert wanted.name == found.name, f"layer {found.name} where {wanted.name} should be"
        differing = {
            name: (value, found.getfieldval(name))
            for name, value in ((field.name, wanted.getfieldval(field.name)) for field in wanted.fields_desc)
            if value != found.getfieldval(name)
        }
        assert not differing, f"in layer {wanted.name}, (wanted, found): {differing}"
        wanted, found = wanted.payload, found.payload
    assert bool(wanted) == bool(found), f"ends differ: {wanted!r} and {found!r}"


def drops(outcome: Any) -> list[DropReason]:
    events = outcome.events
    return [DropReason(int(one["reason"])) for one in events[events["kind"] == EventKind.DROP]]


def of_kind(outcome: Any, kind: EventKind) -> Any:
    return outcome.events[outcome.events["kind"] == kind]


@pytest.fixture(scope="session")
def loaded_world() -> Iterator[World]:
    with World(
        Path(objects.directory()), {"config_node_ipv4": _node(False), "config_node_ipv6": _node(True)}
    ) as world:
        yield world


def _node(ipv6: bool) -> bytes:
    from podwire.base.addresses import pack

    return pack(NODE[ipv6])


@pytest.fixture
def world(loaded_world: World) -> World:
    """Without rows; those of the test before are gone."""
    loaded_world.reset()
    return loaded_world


@pytest.fixture(params=[False, True], ids=["ipv4", "ipv6"])
def family(request: pytest.FixtureRequest) -> Family:
    return Family(request.param)


@pytest.fixture
def kit() -> Any:
    """What the tests of this folder share, as one namespace: they are not a package."""
    from types import SimpleNamespace

    return SimpleNamespace(drops=drops, of_kind=of_kind, same=assert_same, fresh=fresh, Family=Family)


@pytest.fixture(scope="module", params=[False, True], ids=["native", "tunnel"])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with ExitStack() as stack:
        yield Lab(request.param, stack)


@pytest.fixture(params=[False, True], ids=["ipv4", "ipv6"])
def ipv6(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)
