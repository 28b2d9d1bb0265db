"""What podwire asks of the kernel's network, as netlink messages. Pure: values in, bytes out.

Every message is idempotent: what is there already counts as made, what is gone as removed.
Devices are told by ifindex where the caller knows it, and by name where it makes them.
"""

from __future__ import annotations

import ipaddress
import struct
from errno import EADDRNOTAVAIL, EAFNOSUPPORT, EEXIST, ENODEV, ENOENT, ESRCH

import msgspec

from podwire.net.netlink import CREATE, EXCLUSIVE, REPLACE, Message, attribute, nested

AF_INET, AF_INET6 = 2, 10  # Linux has the same numbers on every architecture
NEWLINK, DELLINK, GETLINK = 16, 17, 18
NEWADDR, DELADDR, GETADDR = 20, 21, 22
NEWROUTE, DELROUTE, GETROUTE = 24, 25, 26
NEWNEIGH, DELNEIGH, GETNEIGH = 28, 29, 30

IFINFO = struct.Struct("=BxHiII")
IFADDR = struct.Struct("=BBBBI")
RTMSG = struct.Struct("=BBBBBBBBI")
NDMSG = struct.Struct("=BxxxiHBB")

UP, NOARP, LOWER_UP = 0x1, 0x80, 0x10000
TABLE_MAIN, TABLE_LOCAL = 254, 255
SCOPE_UNIVERSE, SCOPE_LINK, SCOPE_HOST, SCOPE_NOWHERE = 0, 253, 254, 255
UNICAST, LOCAL, BROADCAST, ANYCAST, MULTICAST, BLACKHOLE, UNREACHABLE = 1, 2, 3, 4, 5, 6, 7
# Who made a route or rule, so that we remove only ours (rtnetlink.h leaves numbers from 17 on to us):
# towards pods of this node, towards other nodes.
PROTOCOL, PROTOCOL_NODES = 0x70, 0x71
PROTOCOL_ADVERTISED = 9  # by a router (RTPROT_RA)
LAST_RESORT = 0xFFFFFFFE  # priority of a route that any other to the same prefix comes before
NODAD, NOPREFIXROUTE = 0x02, 0x200
ONLINK = 4
PERMANENT = 0x80
ADDRESS_GENERATION_NONE = 1


class Veth(msgspec.Struct, frozen=True):
    """One end of a pair. `namespace` is a descriptor of where it goes, -1 = the caller's."""

    name: str
    mac: bytes
    mtu: int = 1500
    namespace: int = -1


class Route(msgspec.Struct, frozen=True, order=True):
    """`prefix` is reached by `ifindex` (0 = the kernel finds it by the gateway) and `via`; `mtu` 0 = the
    device's. `source` is the address the node itself uses."""

    prefix: str
    ifindex: int = 0
    via: str = ""
    source: str = ""
    mtu: int = 0
    onlink: bool = False
    table: int = TABLE_MAIN
    type: int = UNICAST
    priority: int = 0
    protocol: int = PROTOCOL


def _family(address: str) -> int:
    return AF_INET6 if ":" in address else AF_INET


def _raw(address: str) -> bytes:
    return ipaddress.ip_address(address).packed


def _end(end: Veth) -> bytes:
    body = IFINFO.pack(0, 0, 0, 0, 0)
    body += attribute(3, end.name) + attribute(4, end.mtu) + attribute(1, end.mac)
    if end.namespace >= 0:
        body += attribute(28, end.namespace)
    return body


def veth(end: Veth, peer: Veth) -> Message:
    """A pair, both ends down. A device that is there already is no success: Failure with EEXIST."""
    info = attribute(1, "veth") + nested(2, attribute(1 | 0x8000, _end(peer)))
    return Message(
        NEWLINK, CREATE | EXCLUSIVE, _end(end) + nested(18, info), f"make devices {end.name} and {peer.name}"
    )


def bridge(name: str, mtu: int = 1500) -> Message:
    body = IFINFO.pack(0, 0, 0, UP, UP) + attribute(3, name) + attribute(4, mtu)
    return Message(
        NEWLINK,
        CREATE | EXCLUSIVE,
        body + nested(18, attribute(1, "bridge")),
        f"make bridge {name}",
        (EEXIST,),
    )


def vxlan(name: str, port: int, mtu: int) -> Message:
    """A tunnel device that gets its far end and number with each packet (collect metadata)."""
    data = [attribute(15, struct.pack("!H", port)), attribute(25, b"\x01"), attribute(7, b"\x00")]
    # Outer UDP over IPv6 without checksum, as over IPv4: the inner packet has its own.
    data += [attribute(19, b"\x01"), attribute(20, b"\x01")]
    body = IFINFO.pack(0, 0, 0, 0, 0) + attribute(3, name) + attribute(4, mtu)
    body += nested(18, attribute(1, "vxlan"), nested(2, *data))
    return Message(NEWLINK, CREATE | EXCLUSIVE, body, f"make tunnel device {name}", (EEXIST,))


def link_set(
    ifindex: int = 0,
    *,
    name: str = "",
    up: bool | None = None,
    mtu: int = 0,
    master: int | None = None,
    arp: bool | None = None,
) -> Message:
    """Change the device with `ifindex` or `name`; what is not given stays.

    `master` 0 frees it; without `arp` every neighbour is taken to be there.
    """
    flags = (UP if up else 0) | (NOARP if arp is False else 0)
    change = (UP if up is not None else 0) | (NOARP if arp is not None else 0)
    body = IFINFO.pack(0, 0, ifindex, flags, change)
    body += attribute(3, name) if name else b""
    body += attribute(4, mtu) if mtu else b""
    body += attribute(10, master) if master is not None else b""
    return Message(NEWLINK, 0, body, f"change device {name or ifindex}")


def link_silent(ifindex: int = 0, *, name: str = "") -> Message:
    """The device gives itself no IPv6 link-local address: it asks and tells nobody anything.

    Apart from `link_set`: only a device that exists takes it, and the kernel would do `up` first.
    """
    body = IFINFO.pack(0, 0, ifindex, 0, 0) + (attribute(3, name) if name else b"")
    body += nested(26, nested(AF_INET6, attribute(8, bytes([ADDRESS_GENERATION_NONE]))))
    # A kernel without IPv6 has nothing to silence.
    return Message(NEWLINK, 0, body, f"silence device {name or ifindex}", (EAFNOSUPPORT,))


def link_delete(*, ifindex: int = 0, name: str = "") -> Message:
    body = IFINFO.pack(0, 0, ifindex, 0, 0) + (attribute(3, name) if name else b"")
    return Message(DELLINK, 0, body, f"remove device {name or ifindex}", (ENODEV,))


def link_get(*, ifindex: int = 0, name: str = "") -> Message:
    body = IFINFO.pack(0, 0, ifindex, 0, 0) + (attribute(3, name) if name else b"")
    return Message(GETLINK, 0, body, f"read device {name or ifindex}", (ENODEV,))


def address(ifindex: int, prefix: str, *, delete: bool = False) -> Message:
    """Address ``10.0.0.1/24`` on a device; IPv6 without duplicate detection: podwire's are unique."""
    interface = ipaddress.ip_interface(prefix)
    length = interface.network.prefixlen
    raw = interface.ip.packed
    flags = NODAD if interface.version == 6 else 0
    body = IFADDR.pack(AF_INET6 if interface.version == 6 else AF_INET, length, flags, 0, ifindex)
    body += attribute(2, raw) + attribute(1, raw)
    if delete:
        what = f"remove address {prefix} from device {ifindex}"
        return Message(DELADDR, 0, body, what, (EADDRNOTAVAIL, ENODEV))
    body += attribute(8, flags)
    return Message(NEWADDR, CREATE | REPLACE, body, f"give address {prefix} to device {ifindex}")


def _scope(wanted: Route, family: int) -> int:
    """How far it leads; IPv6 does not ask."""
    if family == AF_INET6 or wanted.via or wanted.type not in (UNICAST, LOCAL):
        return SCOPE_UNIVERSE
    return SCOPE_HOST if wanted.type == LOCAL else SCOPE_LINK


def route(wanted: Route, *, delete: bool = False) -> Message:
    network = ipaddress.ip_network(wanted.prefix)
    family = AF_INET6 if network.version == 6 else AF_INET
    scope = SCOPE_NOWHERE if delete else _scope(wanted, family)  # NOWHERE: whichever it has
    flags = ONLINK if wanted.onlink else 0
    table = wanted.table if wanted.table < 256 else 0
    kind = 0 if delete else wanted.type  # 0: whichever it has
    body = RTMSG.pack(family, network.prefixlen, 0, 0, table, wanted.protocol, scope, kind, flags)
    if network.prefixlen:
        body += attribute(1, network.network_address.packed)
    body += attribute(15, wanted.table)
    body += attribute(4, wanted.ifindex) if wanted.ifindex else b""
    body += attribute(5, _raw(wanted.via)) if wanted.via else b""
    body += attribute(7, _raw(wanted.source)) if wanted.source else b""
    body += attribute(6, wanted.priority) if wanted.priority else b""
    body += nested(8, attribute(2, wanted.mtu)) if wanted.mtu else b""
    way = (f" via {wanted.via}" if wanted.via else "") + (
        f" on device {wanted.ifindex}" if wanted.ifindex else ""
    )
    if delete:
        what = f"remove the route to {wanted.prefix}{way}"
        return Message(DELROUTE, 0, body, what, (ESRCH, ENODEV, ENOENT))
    return Message(NEWROUTE, CREATE | REPLACE, body, f"route {wanted.prefix}{way}")


def neighbour(ifindex: int, address: str, mac: bytes, *, delete: bool = False) -> Message:
    """`address` is at `mac`, for ever: nobody asks on the wire."""
    state = 0 if delete else PERMANENT
    body = NDMSG.pack(_family(address), ifindex, state, 0, 0) + attribute(1, _raw(address))
    if delete:
        what = f"forget neighbour {address} on device {ifindex}"
        return Message(DELNEIGH, 0, body, what, (ENOENT, ENODEV))
    return Message(
        NEWNEIGH, CREATE | REPLACE, body + attribute(2, mac), f"set neighbour {address} on device {ifindex}"
    )
