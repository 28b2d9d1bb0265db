"""Addresses as the datapath sees them: 16 bytes, IPv4 as v4-mapped (RFC 4291, 2.5.5.2).

A prefix is an address and a length of 0..128 bits; IPv4 /n is 96 + n. Text comes in and goes
out through `ipaddress`, so what it accepts is what podwire accepts.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from functools import lru_cache

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

V4_MAPPED = bytes(10) + b"\xff\xff"
ZERO = bytes(16)


@lru_cache(maxsize=65536)
def pack(address: str) -> bytes:
    """The 16 bytes of `address`; ValueError if it is none."""
    parsed = ipaddress.ip_address(address)
    return parsed.packed if parsed.version == 6 else V4_MAPPED + parsed.packed


@lru_cache(maxsize=65536)
def unpack(raw: bytes) -> str:
    """Text of 16 bytes; IPv4 where v4-mapped. All zero is the empty string: no address."""
    if raw == ZERO:
        return ""
    if raw[:12] == V4_MAPPED:
        return f"{raw[12]}.{raw[13]}.{raw[14]}.{raw[15]}"
    return str(ipaddress.IPv6Address(raw))


def pack_prefix(prefix: str) -> tuple[int, bytes]:
    """(bits, 16 bytes) of ``10.0.0.0/8`` or an address alone; host bits are cleared."""
    network = ipaddress.ip_network(prefix, strict=False)
    base = 96 if network.version == 4 else 0
    return base + network.prefixlen, pack(str(network.network_address))


def unpack_prefix(bits: int, raw: bytes) -> str:
    """The prefix as text; the inverse of `pack_prefix`."""
    if raw[:12] == V4_MAPPED and bits >= 96:
        return f"{raw[12]}.{raw[13]}.{raw[14]}.{raw[15]}/{bits - 96}"
    return f"{ipaddress.IPv6Address(raw)}/{bits}"


def family(address: str) -> int:
    """4 or 6, of an address or a prefix."""
    return 6 if ":" in address else 4


def is_exact(prefix: str) -> bool:
    """Whether `prefix` (canonical text) is one address."""
    return prefix.endswith("/128") if ":" in prefix else prefix.endswith("/32")


def exact(address: str) -> str:
    """``10.0.0.1`` → ``10.0.0.1/32``."""
    return f"{address}/{128 if ':' in address else 32}"


def join(address: str, port: int) -> str:
    """``10.0.0.1:80`` or ``[fd00::1]:80``."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def containing(prefix: str) -> Iterator[IPNetwork]:
    """`prefix` and every shorter prefix that holds it, longest first."""
    network = ipaddress.ip_network(prefix, strict=False)
    while True:
        yield network
        if network.prefixlen == 0:
            return
        network = network.supernet()
