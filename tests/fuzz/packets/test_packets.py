"""Random, cut and changed packets through every program: none crashes, none passes a closed pod.

The seed is printed; PODWIRE_FUZZ_SEED repeats a run, PODWIRE_FUZZ_PACKETS says how many.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoRequest,
    ICMPv6ND_NS,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
)
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw

from podwire.abi.enums import EndpointFlags
from podwire.base.addresses import pack
from podwire.base.errors import KernelError
from podwire.bpf.object import SkbContext
from podwire.datapath import objects
from podwire.net import namespaces
from podwire.testing.world import DROPPED, PASS, UNDERLAY, UNDERLAY_MAC, Pod, World

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(240)]

ROOT = Path(__file__).parents[3]
PACKETS = int(os.environ.get("PODWIRE_FUZZ_PACKETS", "1000000"))
FAR = ("10.0.2.9", "fd00:10:2::9")
SERVICE = ("10.96.0.10", "fd00:96::10")
LINK_UPKEEP = {130, 131, 132, 133, 135, 136, 143}
MUTANTS = 20_000


def seeds(pod: Pod, other: Pod) -> Iterator[Packet]:
    """Sound frames from, to and about `pod`, which the mutations begin with."""
    sent = Ether(src=pod.mac.hex(":"), dst=pod.host_mac.hex(":"))
    came = Ether(src="02:aa:00:00:00:02", dst="02:aa:00:00:00:01")
    for link, pairs in (
        (
            sent,
            [(pod.ipv4, other.ipv4), (pod.ipv4, FAR[0]), (pod.ipv4, SERVICE[0]), (pod.ipv4, "169.254.42.1")],
        ),
        (came, [(FAR[0], pod.ipv4), (other.ipv4, pod.ipv4)]),
    ):
        for source, to in pairs:
            ip = IP(src=source, dst=to)
            yield from (
                link / ip / one for one in (TCP(sport=9, dport=80), UDP(sport=9, dport=80) / b"x", ICMP())
            )
            yield link / ip / ICMP(type=3, code=3) / IP(src=to, dst=source) / UDP(sport=80, dport=9)
            yield (
                link
                / IP(src=source, dst=to, flags="MF", id=7, proto=17)
                / Raw(bytes(UDP(sport=9, dport=80)) * 2)
            )
            yield link / IP(src=source, dst=to, frag=2, id=7, proto=17) / Raw(b"y" * 16)
            yield link / IP(src=source, dst=to, options=b"\x07\x07\x04\0\0\0\0\0") / TCP()
    for link, pairs in (
        (sent, [(pod.ipv6, other.ipv6), (pod.ipv6, FAR[1]), (pod.ipv6, SERVICE[1])]),
        (came, [(FAR[1], pod.ipv6)]),
    ):
        for source, to in pairs:
            ip6 = IPv6(src=source, dst=to)
            yield from (
                link / ip6 / one
                for one in (TCP(sport=9, dport=80), UDP(sport=9, dport=80), ICMPv6EchoRequest())
            )
            yield link / ip6 / ICMPv6DestUnreach() / IPv6(src=to, dst=source) / UDP(sport=80, dport=9)
            yield link / ip6 / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / TCP()
            yield link / ip6 / IPv6ExtHdrFragment(nh=17, id=7, m=1) / UDP(sport=9, dport=80) / Raw(b"z" * 16)
            yield link / ip6 / IPv6ExtHdrFragment(nh=17, id=7, offset=3) / Raw(b"z" * 16)
    yield sent / ARP(psrc=pod.ipv4, pdst="169.254.1.1")
    yield sent / IPv6(src="fe80::1", dst="ff02::1:ff00:1", hlim=255) / ICMPv6ND_NS(tgt="fe80::2")


def change(chance: random.Random, frame: bytes, others: list[bytes]) -> bytes:
    """One mutation of `frame`; never shorter than the kernel's test run takes."""
    kind = chance.random()
    if kind < 0.05:
        head = frame[:14] if chance.random() < 0.8 else chance.randbytes(14)
        return head + chance.randbytes(chance.randrange(46, 200))
    raw = bytearray(frame)
    if kind < 0.25:
        return bytes(raw[: chance.randrange(15, len(raw) + 1)])
    if kind < 0.35:
        other = chance.choice(others)
        at = chance.randrange(14, min(len(raw), len(other)))
        return bytes(raw[:at]) + other[at:]
    if kind < 0.4:
        at = chance.randrange(14, len(raw))
        raw[at:at] = chance.randbytes(chance.randrange(1, 64))
    for _ in range(chance.randrange(1, 5)):
        at = chance.randrange(12 if chance.random() < 0.1 else 14, len(raw))
        raw[at] = chance.choice((0, 255, chance.randrange(256), raw[at] ^ 1 << chance.randrange(8)))
    return bytes(raw)


def is_link_upkeep(frame: bytes) -> bool:
    """ARP, or ICMPv6 that lives on one link: the only things a closed pod may say to the node."""
    if frame[12:14] == b"\x08\x06":
        return True
    if frame[12:14] != b"\x86\xdd" or not (frame[38:40] == b"\xff\x02" or frame[38:39] == b"\xfe"):
        return False
    next_header, at = frame[20], 54
    while next_header in (0, 43, 44, 60) and at + 8 <= len(frame):
        size = 8 if next_header == 44 else (frame[at + 1] + 1) * 8
        next_header, at = frame[at], at + size
    return next_header == 58 and at < len(frame) and frame[at] in LINK_UPKEEP and frame[21] in (1, 255)


@pytest.fixture
def world() -> Iterator[World]:
    constants: dict[str, int | bytes] = {"config_node_ipv4": pack("192.168.7.1"), "config_tunnel_device": 1}
    with World(Path(objects.directory()), constants) as made:
        closed = EndpointFlags.ENFORCE_INGRESS | EndpointFlags.ENFORCE_EGRESS
        made.pod(1, 1001, policy=1, flags=closed)
        made.pod(2, 1002)
        for address in FAR:
            made.known(address, 2002)
        for number, address in enumerate(SERVICE, 1):
            backend = made.pod(2, 1002).address(":" in address)
            for offset, protocol in ((0, 6), (10, 17)):
                made.service(
                    address, 80, protocol, {number + offset: (backend, 8080)}, number=number + offset
                )
        yield made


Judge = Callable[[int, bytes], bool]


def test_nothing_passes_a_closed_pod(world: World) -> None:
    seed = int(os.environ.get("PODWIRE_FUZZ_SEED", random.SystemRandom().randrange(1 << 32)))
    print(f"PODWIRE_FUZZ_SEED={seed}")
    chance = random.Random(seed)
    closed, other = world.pod(1, 1001, policy=1, flags=EndpointFlags(3)), world.pod(2, 1002)
    frames = [bytes(one) for one in seeds(closed, other)]
    pods = {pack(one) for one in (closed.ipv4, closed.ipv6)}

    def silent(verdict: int, frame: bytes) -> bool:
        return verdict == DROPPED or (verdict == PASS and is_link_upkeep(frame))

    def away(verdict: int, frame: bytes) -> bool:
        # A frame for another machine is left to the stack, which forwards none of those.
        if frame[:6] != UNDERLAY_MAC or frame[12:14] not in (b"\x08\x00", b"\x86\xdd"):
            return verdict in (DROPPED, PASS)
        return verdict == DROPPED or destination(frame) not in pods

    programs: list[tuple[str, SkbContext, Judge]] = [
        ("from_pod", SkbContext(ifindex=closed.device), silent),
        ("to_pod", SkbContext(ifindex=closed.device, ingress_ifindex=other.device), silent),
        ("from_network", SkbContext(ifindex=world.device(UNDERLAY)), away),
        ("from_overlay", SkbContext(ifindex=other.device), lambda verdict, frame: verdict == DROPPED),
        ("to_overlay", SkbContext(ifindex=other.device), lambda verdict, frame: True),
        ("from_pod", SkbContext(ifindex=other.device), lambda verdict, frame: True),
    ]
    namespaces.run(world.namespace, hammer, world, programs, frames, chance)
    emitted = [one.emitted for one in world.statistics.per_cpu(0)]
    assert sum(emitted) > PACKETS // 20


def destination(frame: bytes) -> bytes:
    if frame[12:14] == b"\x08\x00":
        return bytes(10) + b"\xff\xff" + frame[30:34]
    return frame[38:54]


def hammer(
    world: World, programs: list[tuple[str, SkbContext, Judge]], frames: list[bytes], chance: Any
) -> None:
    """PACKETS runs. Mutants are made once and mutated further, as making one takes longer than running it."""
    done = 0
    while done < PACKETS:
        mutants = frames + [change(chance, chance.choice(frames), frames) for _ in range(MUTANTS)]
        mutants += [change(chance, chance.choice(mutants), frames) for _ in range(MUTANTS)]
        for name, context, judge in programs:
            run = world.programs[f"podwire_{name}"].test_run
            for frame in mutants:
                try:
                    ran = run(frame, context)
                except KernelError:  # shorter than an IP header: the kernel does not make such a packet
                    continue
                done += 1
                if not judge(ran.retval, frame):
                    raise AssertionError(f"{name} gave {ran.retval} for {frame.hex()}")
        while len(world.ring.read(most=100_000)):
            pass
