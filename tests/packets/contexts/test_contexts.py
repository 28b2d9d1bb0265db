"""The same headers for packets of the stack and for frames of a driver: the same is read and written.

The seed is printed; PODWIRE_SEED repeats a run.
"""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoRequest,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
)
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw

from podwire.base.addresses import pack
from podwire.base.errors import KernelError
from podwire.bpf import probe
from podwire.bpf.object import Object, ObjectSpec, load

pytestmark = pytest.mark.kernel

ROOT = Path(__file__).parents[3]
SEED = int(os.environ.get("PODWIRE_SEED", "0")) or random.SystemRandom().randrange(1 << 40)
MUTANTS = 4000
CONTEXTS = ("skb", "xdp")
NEW = {"new_ipv4": pack("10.9.8.7"), "new_ipv6": pack("fd00:9::8:7"), "new_port": 4711}


def sound() -> Iterator[Packet]:
    """Frames of each kind that is read."""
    link = Ether(src="02:aa:00:00:00:02", dst="02:aa:00:00:00:01")
    ip, back = IP(src="10.0.1.1", dst="10.0.2.9"), IP(src="10.0.2.9", dst="10.0.1.1")
    ip6, back6 = IPv6(src="fd00::1", dst="fd00::9"), IPv6(src="fd00::9", dst="fd00::1")
    datagram = UDP(sport=4000, dport=53) / Raw(b"question")
    yield from (link / ip / one for one in (TCP(sport=4000, dport=80) / b"odd", datagram, ICMP(id=7)))
    yield link / ip / UDP(sport=4000, dport=53, chksum=0) / Raw(b"without a checksum")
    yield link / ip / ICMP(type=3, code=3) / back / UDP(sport=53, dport=4000)
    yield link / IP(src="10.0.1.1", dst="10.0.2.9", options=b"\x07\x07\x04\0\0\0\0\0") / TCP()
    yield link / IP(src="10.0.1.1", dst="10.0.2.9", flags="MF", id=7, proto=17) / Raw(bytes(datagram))
    yield link / IP(src="10.0.1.1", dst="10.0.2.9", frag=2, id=7, proto=17) / Raw(b"y" * 16)
    yield from (
        link / ip6 / one for one in (TCP(sport=4000, dport=80) / b"odd", datagram, ICMPv6EchoRequest(id=7))
    )
    yield link / ip6 / ICMPv6DestUnreach() / back6 / TCP(sport=53, dport=4000)
    yield link / ip6 / IPv6ExtHdrDestOpt() / datagram
    yield link / ip6 / IPv6ExtHdrFragment(nh=17, id=7, m=1) / datagram
    yield link / ip6 / IPv6ExtHdrFragment(nh=17, id=7, offset=3) / Raw(b"z" * 16)
    yield link / ARP()


def changed(chance: random.Random, frame: bytes) -> bytes:
    """Cut, or with other bytes."""
    if chance.random() < 0.2:
        return frame[: chance.randrange(15, len(frame) + 1)]
    raw = bytearray(frame)
    for _ in range(chance.randrange(1, 4)):
        raw[chance.randrange(12, len(raw))] = chance.randrange(256)
    return bytes(raw)


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    if not probe.supported("bpf_xdp_load_bytes"):
        pytest.skip("bpf_xdp_load_bytes: this kernel has none (Linux 5.18)")
    directory = tmp_path_factory.mktemp("twins")
    made = {}
    for context in CONTEXTS:
        made[context] = directory / f"{context}.bpf.o"
        words = [
            "clang-16",
            "-O2",
            "-g",
            "-target",
            "bpf",
            "-mcpu=v3",
            "-Wall",
            "-Werror",
            "-Wno-unused-parameter",
        ]
        paths = [f"-I{ROOT / 'build' / 'include'}", f"-I{ROOT / 'bpf'}"]
        front = ["-include", f"{ROOT}/bpf/kernel/modern.h", "-include", f"{ROOT}/bpf/ctx/{context}.h"]
        source = str(Path(__file__).parent / "twin.bpf.c")
        subprocess.run([*words, *paths, *front, "-c", source, "-o", str(made[context])], check=True)
    return made


def loaded(stack: ExitStack, twins: dict[str, Path], translating: int) -> dict[str, Object]:
    constants: dict[str, int | bytes] = {"translating": translating, **NEW}
    return {
        context: stack.enter_context(load(ObjectSpec(str(path), constants)))
        for context, path in twins.items()
    }


def run(one: Object, frame: bytes) -> tuple[bytes, bytes] | None:
    """(what is known of it, the frame afterwards); None if the kernel runs nothing on such a frame."""
    try:
        result = one.program("twin").test_run(frame)
    except KernelError:
        return None
    ((_, told),) = one.maps["told"].items()
    return told, result.data


@pytest.mark.parametrize("translating", [0, 1, 2], ids=["read", "source", "destination"])
def test_both_read_and_write_the_same(twins: dict[str, Path], translating: int) -> None:
    print(f"PODWIRE_SEED={SEED}")
    chance = random.Random(SEED)
    frames = [bytes(one) for one in sound()]
    frames += [changed(chance, chance.choice(frames)) for _ in range(MUTANTS)]
    read = 0
    with ExitStack() as stack:
        both = loaded(stack, twins, translating)
        for frame in frames:
            skb, xdp = (run(both[context], frame) for context in CONTEXTS)
            if skb is None or xdp is None:  # the stack wants more of an Ethernet frame than a driver
                continue
            assert skb == xdp, frame.hex()
            read += 1
    assert read > MUTANTS // 2


def test_both_drop_what_cannot_be_read(twins: dict[str, Path]) -> None:
    """By numbers of their own: what says drop to the stack says pass to a driver."""
    good, bad = bytes(next(sound())), bytes(Ether() / IP(ihl=4) / TCP())
    with ExitStack() as stack:
        for context, path in twins.items():
            one = stack.enter_context(load(ObjectSpec(str(path), {"dropping": 1}))).program("twin")
            verdicts = [one.test_run(frame).retval for frame in (good, bad)]
            assert verdicts == {"skb": [0, 2], "xdp": [2, 1]}[context]
