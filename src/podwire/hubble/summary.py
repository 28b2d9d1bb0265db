"""The one-line summary of a flow: what `hubble observe` prints in parentheses.

Names of ICMP types are those that Hubble prints (gopacket's).
"""

from __future__ import annotations

from typing import Any

from podwire.abi.enums import EventFlags, EventKind
from podwire.model.protocol import ICMP, ICMPV6, IGMP, SCTP, TCP, UDP, VRRP

IPV6 = int(EventFlags.IPV6)
# In the order Hubble prints them.
FLAGS = ((2, "SYN"), (16, "ACK"), (4, "RST"), (1, "FIN"), (8, "PSH"), (32, "URG"), (64, "ECE"), (128, "CWR"))
PLAIN = {UDP: "UDP", SCTP: "SCTP", VRRP: "VRRP", IGMP: "IGMP"}


def summary(row: dict[str, Any], *, with_address: bool) -> str:
    protocol = row["protocol"]
    if row["kind"] == EventKind.SOCKET:
        return {TCP: "TCP", UDP: "UDP"}.get(protocol, "Unknown")
    if not with_address:
        return "Ethernet"
    if protocol == TCP:
        return "TCP Flags: " + ", ".join(name for bit, name in FLAGS if row["tcp_flags"] & bit)
    if protocol == ICMP:
        return "ICMPv4 " + _icmp(ICMPV4_TYPES, ICMPV4_CODES, row["icmp_type"], row["icmp_code"])
    if protocol == ICMPV6:
        return "ICMPv6 " + _icmp(ICMPV6_TYPES, ICMPV6_CODES, row["icmp_type"], row["icmp_code"])
    return PLAIN.get(protocol, "IPv6" if row["flags"] & IPV6 else "IPv4")


def _icmp(types: dict[int, str], codes: dict[int, dict[int, str]], kind: int, code: int) -> str:
    name = types.get(kind)
    if name is None:
        return f"{kind}({code})"
    known = codes.get(kind)
    if known is None:
        return name if code == 0 else f"{name}(Code: {code})"
    return f"{name}({known[code]})" if code in known else f"{name}(Code: {code})"


ICMPV4_TYPES = {
    0: "EchoReply",
    3: "DestinationUnreachable",
    4: "SourceQuench",
    5: "Redirect",
    8: "EchoRequest",
    9: "RouterAdvertisement",
    10: "RouterSolicitation",
    11: "TimeExceeded",
    12: "ParameterProblem",
    13: "TimestampRequest",
    14: "TimestampReply",
    15: "InfoRequest",
    16: "InfoReply",
    17: "AddressMaskRequest",
    18: "AddressMaskReply",
}
ICMPV4_CODES = {
    3: {
        0: "Net",
        1: "Host",
        2: "Protocol",
        3: "Port",
        4: "FragmentationNeeded",
        5: "SourceRoutingFailed",
        6: "NetUnknown",
        7: "HostUnknown",
        8: "SourceIsolated",
        9: "NetAdminProhibited",
        10: "HostAdminProhibited",
        11: "NetTOS",
        12: "HostTOS",
        13: "CommAdminProhibited",
        14: "HostPrecedence",
        15: "PrecedenceCutoff",
    },
    5: {0: "Net", 1: "Host", 2: "TOS+Net", 3: "TOS+Host"},
    11: {0: "TTLExceeded", 1: "FragmentReassemblyTimeExceeded"},
    12: {0: "PointerIndicatesError", 1: "MissingOption", 2: "BadLength"},
}
ICMPV6_TYPES = {
    1: "DestinationUnreachable",
    2: "PacketTooBig",
    3: "TimeExceeded",
    4: "ParameterProblem",
    128: "EchoRequest",
    129: "EchoReply",
    133: "RouterSolicitation",
    134: "RouterAdvertisement",
    135: "NeighborSolicitation",
    136: "NeighborAdvertisement",
    137: "Redirect",
}
ICMPV6_CODES = {
    1: {
        0: "NoRouteToDst",
        1: "AdminProhibited",
        2: "BeyondScopeOfSrc",
        3: "AddressUnreachable",
        4: "PortUnreachable",
        5: "SrcAddressFailedIngressEgressPolicy",
        6: "RejectRouteToDst",
    },
    3: {0: "HopLimitExceeded", 1: "FragmentReassemblyTimeExceeded"},
    4: {0: "ErroneousHeaderField", 1: "UnrecognizedNextHeader", 2: "UnrecognizedIPv6Option"},
}
