"""IP protocols: their numbers and names, for everybody who prints, filters or decides."""

from __future__ import annotations

ICMP, IGMP, TCP, UDP, ICMPV6, VRRP, SCTP = 1, 2, 6, 17, 58, 112, 132

# Those that have ports, and what ports without a protocol mean in a policy.
WITH_PORTS = (TCP, UDP, SCTP)
# Those of which policy asks the type (high byte) and code (low byte) where others have a port.
WITH_TYPES = (ICMP, ICMPV6)
NAMES: dict[int, str] = {
    ICMP: "ICMP",
    IGMP: "IGMP",
    TCP: "TCP",
    UDP: "UDP",
    ICMPV6: "ICMPv6",
    VRRP: "VRRP",
    SCTP: "SCTP",
}


def name(number: int) -> str:
    """``TCP``; the number of a protocol without a name here."""
    return NAMES.get(number, str(number))


def or_any(number: int) -> str:
    """The same, where 0 stands for each of them."""
    return name(number) if number else "ANY"


def number(text: str) -> int | None:
    """Of a name in any case, or of a number as text; None if it is neither."""
    if text.isascii() and text.isdigit() and len(text) <= 3:
        return int(text) if int(text) < 256 else None
    return _NUMBERS.get(text.upper())


_NUMBERS = {name.upper(): number for number, name in NAMES.items()}
