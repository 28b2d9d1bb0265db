"""Forgeries on the wire: what a stranger on the underlay or a pod sends to pass for somebody else."""

from __future__ import annotations

import select
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import msgspec
import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import ICMPv6ND_RS, ICMPv6NDOptSrcLLAddr, IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet, Raw
from tests.packets.datapath.lab import TUNNEL_PORT, Lab, ip

from podwire.abi.enums import Direction, DropReason, EndpointFlags, EventKind
from podwire.base.addresses import unpack
from podwire.net import namespaces
from podwire.testing.world import Pod

pytestmark = pytest.mark.kernel

PARTNER = 3003  # a pod of a third node; only it may call the victim
PARTNERS = {False: "10.0.3.9", True: "fd00:10:3::9"}
STRANGER_MAC = "02:66:66:66:66:66"


@pytest.fixture(scope="module")
def tunnels() -> Iterator[Lab]:
    with ExitStack() as stack:
        yield Lab(True, stack)


def victim_of(lab: Lab) -> Pod:
    """Node 2's first pod; `PARTNER` may call it, nobody else."""
    node = lab.nodes[2]
    _, pod = node.pods[1]
    victim = msgspec.structs.replace(pod, policy=9, flags=EndpointFlags.ENFORCE_INGRESS)
    node.world.write(victim)
    node.world.peer(9, PARTNER, Direction.INGRESS, 4)
    node.world.rule(9, Direction.INGRESS, peer_class=4, rule=5)
    return victim


def run(namespace: str, *command: str) -> str:
    inside = ["nsenter", f"--net=/run/netns/{namespace}", *command]
    return subprocess.run(inside, text=True, check=True, capture_output=True).stdout


def send(namespace: str, device: str, *frames: Packet) -> None:
    """From the device, as whoever has a raw socket there."""
    with namespaces.open_socket(namespace, socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind((device, 0))
        for frame in frames:
            raw.send(bytes(frame))


def drops_soon(lab: Lab, least: int = 1) -> list[tuple[int, DropReason]]:
    """Drops at both nodes, `least` of them waited for."""
    found, rings = lab.drops(), [node.world.ring for node in lab.nodes.values()]
    while len(found) < least and select.select(rings, [], [], 5)[0]:
        found += lab.drops()
    return found


def test_an_underlay_host_does_not_speak_as_a_pod_through_a_node(tunnels: Lab, ipv6: bool) -> None:
    """Its packet to a pod of another node is forwarded into the tunnel, and a node is believed there."""
    first, second = tunnels.nodes[1], tunnels.nodes[2]
    victim = victim_of(tunnels)
    first.world.known(PARTNERS[ipv6], PARTNER, "192.168.7.3")
    layer = IPv6(src=PARTNERS[True], dst=victim.ipv6) if ipv6 else IP(src=PARTNERS[False], dst=victim.ipv4)
    frame = Ether(src=STRANGER_MAC, dst=_mac(first.name)) / layer / UDP(sport=1, dport=9999) / Raw(b"forged")
    tunnels.drops()
    send(second.name, "u0", frame)
    assert drops_soon(tunnels) == [(1, DropReason.INVALID_SOURCE_IP)]


def test_a_pod_behind_masquerading_does_not_speak_as_a_node(tunnels: Lab) -> None:
    """Many clusters masquerade what pods send to other than pods; an ordinary socket is enough."""
    first = tunnels.nodes[1]
    namespace, _ = first.pods[1]
    victim = victim_of(tunnels)
    rule = ["-s", "10.0.1.0/24", "!", "-d", "10.0.0.0/8", "-o", "u0", "-j", "MASQUERADE"]
    run(first.name, "iptables", "-t", "nat", "-A", "POSTROUTING", *rule)
    inner = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / IP(src=PARTNERS[False], dst=victim.ipv4)
    forged = VXLAN(vni=PARTNER, flags=8) / inner / UDP(sport=1, dport=9999) / Raw(b"forged")
    tunnels.drops()
    with namespaces.open_socket(namespace, socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(bytes(forged), ("192.168.7.2", TUNNEL_PORT))
    assert drops_soon(tunnels) == [(1, DropReason.ENCAP_PROHIBITED)]


@pytest.mark.parametrize("outer6", [False, True], ids=["over-ipv4", "over-ipv6"])
def test_a_tunnel_from_another_device_is_none(tunnels: Lab, outer6: bool) -> None:
    """A stranger on a second network, under a node's address: the kernel would not have asked."""
    node, victim = tunnels.nodes[2], victim_of(tunnels)
    outside = f"{node.name}out"
    namespaces.create(outside)
    try:
        ip(node.name, f"link add nic2 type veth peer name eth0 netns {outside}", "link set nic2 up")
        ip(outside, "link set eth0 up")
        mac = run(node.name, "ip", "-o", "link", "show", "nic2").split("link/ether ")[1].split()[0]
        inner = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / IP(src="10.0.3.9", dst=victim.ipv4)
        outer = IPv6(src="fd00:7::1", dst="fd00:7::2") if outer6 else IP(src="192.168.7.1", dst="192.168.7.2")
        tunnel = UDP(sport=5555, dport=TUNNEL_PORT, chksum=0) / VXLAN(vni=PARTNER, flags=8) / inner
        frame = Ether(src=STRANGER_MAC, dst=mac) / outer / tunnel / UDP(sport=1, dport=9999) / Raw(b"forged")
        tunnels.drops()
        send(outside, "eth0", frame)
        assert drops_soon(tunnels) == [(2, DropReason.INVALID_IDENTITY)]
    finally:
        namespaces.delete(outside)


def test_what_a_stranger_says_inside_a_tunnel_is_not_told(tunnels: Lab) -> None:
    """The event is about the stranger, not about the identity and addresses that it invents."""
    first = tunnels.nodes[1]
    inner = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / IP(src="10.77.0.1", dst="10.0.1.2")
    packet = IP(src="192.168.7.77", dst="192.168.7.1") / UDP(sport=5555, dport=TUNNEL_PORT, chksum=0)
    frame = Ether(src=STRANGER_MAC, dst=_mac(first.name)) / packet / VXLAN(vni=4242, flags=8) / inner / UDP()
    first.world.events()
    send(tunnels.nodes[2].name, "u0", frame)
    assert select.select([first.world.ring], [], [], 5)[0]
    (event,) = [one for one in first.world.events() if one["kind"] == EventKind.DROP]
    assert DropReason(int(event["reason"])) == DropReason.INVALID_IDENTITY
    assert int(event["source_identity"]) != 4242
    assert unpack(bytes(event["source"])) == "192.168.7.77"
    assert unpack(bytes(event["destination"])) == "192.168.7.1"


@pytest.mark.parametrize("kind", ["arp", "rs"])
def test_a_pod_does_not_fill_the_nodes_table_of_neighbours(lab: Lab, kind: str) -> None:
    node = lab.nodes[1]
    namespace, pod = node.pods[1]
    count = 60
    link = Ether(src=pod.mac.hex(":"), dst=pod.host_mac.hex(":"))
    frames: list[Any] = []
    for number in range(1, count + 1):
        if kind == "arp":
            frames.append(link / ARP(hwsrc=pod.mac.hex(":"), psrc=f"10.66.0.{number}", pdst="192.168.7.1"))
        else:
            asks = ICMPv6ND_RS() / ICMPv6NDOptSrcLLAddr(lladdr=pod.mac.hex(":"))
            frames.append(link / IPv6(src=f"fe80::{number:x}", dst="ff02::2", hlim=255) / asks)
    lab.drops()
    send(namespace, "eth0", *frames)
    assert drops_soon(lab, count) == [(1, DropReason.INVALID_SOURCE_IP)] * count
    family = "-4" if kind == "arp" else "-6"
    neighbours = run(node.name, "ip", family, "neigh", "show", "dev", "v1", "nud", "all")
    known = {line.split()[0] for line in neighbours.splitlines()}  # the pod's own may be among them
    assert not known & {frame[ARP].psrc if kind == "arp" else frame[IPv6].src for frame in frames}


def _mac(namespace: str) -> str:
    return run(namespace, "ip", "-o", "link", "show", "u0").split("link/ether ")[1].split()[0]


def test_a_pod_that_tries_address_after_address_fills_no_neighbours(lab: Lab, ipv6: bool) -> None:
    """Nobody has them, so the node asks for each: only so many, in whatever time it takes."""
    node = lab.nodes[1]
    namespace, _ = node.pods[1]
    family = socket.AF_INET6 if ipv6 else socket.AF_INET
    lab.drops()
    with namespaces.open_socket(namespace, family, socket.SOCK_DGRAM) as client:
        for number in range(100, 250):
            client.sendto(b"?", (f"fd00:7::{number:x}" if ipv6 else f"192.168.7.{number}", 9))
        told = [reason for _, reason in drops_soon(lab, 100)]
        assert set(told) == {DropReason.NEIGHBOURS}
        asked = run(node.name, "ip", "-6" if ipv6 else "-4", "neigh", "show", "dev", "u0", "nud", "all")
        assert sum("INCOMPLETE" in line or "FAILED" in line for line in asked.splitlines()) <= 48
    assert lab.talks((1, 2), (2, 0), ipv6), "another pod has a share of its own"
