"""Ports and ICMP types of rules: Cilium's ``toPorts`` and ``icmps``, NetworkPolicy's ``ports``."""

from __future__ import annotations

import re
from typing import Any

from podwire.base.errors import InvalidObject
from podwire.model import protocol as protocols
from podwire.model.rule import Ports
from podwire.policy.parse.read import below, integer, items, known, show, string

MOST = 40  # ports, or ICMP types, of one entry
PORT_LAST = 65535
PORT_NAME = re.compile(r"(?=.*[a-z])[a-z0-9]+(-[a-z0-9]+)*", re.ASCII)

PORTED = {protocols.name(number): number for number in protocols.WITH_PORTS}
PORTLESS = {"VRRP": 112, "IGMP": 2}

NOT_YET = {
    "rules": "L7 rules are not supported yet",
    "listener": "Envoy listeners are not supported yet",
    "terminatingTLS": "TLS termination is not supported yet",
    "originatingTLS": "TLS origination is not supported yet",
    "serverNames": "TLS server names are not supported yet",
}
NOT_DENIED = dict.fromkeys(NOT_YET, "is not possible in a deny rule")

ICMPV4_TYPES = {
    "EchoReply": 0, "DestinationUnreachable": 3, "Redirect": 5, "Echo": 8, "EchoRequest": 8,
    "RouterAdvertisement": 9, "RouterSelection": 10, "TimeExceeded": 11, "ParameterProblem": 12,
    "Timestamp": 13, "TimestampReply": 14, "Photuris": 40, "ExtendedEchoRequest": 42,
    "ExtendedEchoReply": 43,
}  # fmt: skip
ICMPV6_TYPES = {
    "DestinationUnreachable": 1, "PacketTooBig": 2, "TimeExceeded": 3, "ParameterProblem": 4,
    "EchoRequest": 128, "EchoReply": 129, "MulticastListenerQuery": 130,
    "MulticastListenerReport": 131, "MulticastListenerDone": 132, "RouterSolicitation": 133,
    "RouterAdvertisement": 134, "NeighborSolicitation": 135, "NeighborAdvertisement": 136,
    "RedirectMessage": 137, "RouterRenumbering": 138, "ICMPNodeInformationQuery": 139,
    "ICMPNodeInformationResponse": 140, "InverseNeighborDiscoverySolicitation": 141,
    "InverseNeighborDiscoveryAdvertisement": 142, "HomeAgentAddressDiscoveryRequest": 144,
    "HomeAgentAddressDiscoveryReply": 145, "MobilePrefixSolicitation": 146,
    "MobilePrefixAdvertisement": 147, "DuplicateAddressRequestCodeSuffix": 157,
    "DuplicateAddressConfirmationCodeSuffix": 158, "ExtendedEchoRequest": 160,
    "ExtendedEchoReply": 161,
}  # fmt: skip
FAMILIES = {
    "IPv4": (protocols.ICMP, ICMPV4_TYPES),
    "IPv6": (protocols.ICMPV6, ICMPV6_TYPES),
}


def cilium(value: Any, path: str, *, deny: bool) -> tuple[Ports, ...] | None:
    """``toPorts``: None where there are none, that is any protocol."""
    found: list[Ports] = []
    entries = list(items(value, path))
    for entry, at in entries:
        read = known(entry, at, frozenset({"ports"}), NOT_DENIED if deny else NOT_YET)
        ports = list(items(read.get("ports"), below(at, "ports")))
        if not ports:
            raise InvalidObject(
                below(at, "ports"), "needs at least one port", hint='all of TCP: {port: "0", protocol: TCP}'
            )
        _few(ports, below(at, "ports"), "ports")
        found += [_cilium_port(one, where) for one, where in ports]
    return tuple(dict.fromkeys(found)) if entries else None


def _few(entries: list[Any], path: str, what: str) -> None:
    if len(entries) > MOST:
        raise InvalidObject(path, f"{len(entries)} {what}, at most {MOST} are possible")


def _cilium_port(value: Any, path: str) -> Ports:
    read = known(value, path, frozenset({"port", "endPort", "protocol"}))
    word = "ANY" if read.get("protocol") is None else string(read["protocol"], f"{path}.protocol").upper()
    port = "" if read.get("port") is None else string(read["port"], f"{path}.port").lower()
    last = 0 if read.get("endPort") is None else integer(read["endPort"], f"{path}.endPort", 0, PORT_LAST)
    if word in PORTLESS:
        if port not in ("", "0") or last:
            raise InvalidObject(f"{path}.port", f"{word} has no ports")
        return Ports(PORTLESS[word])
    if word not in ("", "ANY", *PORTED):
        hint = (
            "use icmps for ICMP"
            if word.startswith("ICMP")
            else f"known: ANY, {', '.join((*PORTED, *PORTLESS))}"
        )
        raise InvalidObject(f"{path}.protocol", f"unknown protocol {show(word)}", hint=hint)
    if not port:
        raise InvalidObject(f"{path}.port", "a port is needed", hint='"0" is every port')
    return _range(PORTED.get(word, 0), port, last, path)


def _range(protocol: int, port: str, last: int, path: str) -> Ports:
    if not (port.isascii() and port.isdigit()):
        _check_name(port, f"{path}.port")
        if last:
            raise InvalidObject(f"{path}.endPort", "a range cannot begin with a named port")
        return Ports(protocol, 0, 0, port)
    if len(port) > 5 or int(port) > PORT_LAST:
        raise InvalidObject(f"{path}.port", f"must be from 0 to {PORT_LAST}, not {show(port)}")
    first = int(port)
    if first == 0:
        if last:
            raise InvalidObject(f"{path}.endPort", "port 0 is every port already")
        return Ports(protocol)
    return Ports(protocol, first, max(first, last))  # an endPort below the port says nothing, as in Cilium


def _check_name(name: str, path: str) -> None:
    if len(name) > 15 or not PORT_NAME.fullmatch(name):
        raise InvalidObject(path, f"{show(name)} is neither a port number nor a port name")


def icmps(value: Any, path: str) -> tuple[Ports, ...] | None:
    """``icmps``: None where there are none."""
    found: list[Ports] = []
    entries = list(items(value, path))
    for entry, at in entries:
        read = known(entry, at, frozenset({"fields"}))
        fields = list(items(read.get("fields"), below(at, "fields")))
        _few(fields, below(at, "fields"), "ICMP types")
        found += [_icmp(one, where) for one, where in fields]
    return tuple(dict.fromkeys(found)) if entries else None


def _icmp(value: Any, path: str) -> Ports:
    read = known(value, path, frozenset({"family", "type"}))
    family = "IPv4" if read.get("family") is None else string(read["family"], f"{path}.family")
    if family not in FAMILIES:
        raise InvalidObject(f"{path}.family", f"unknown family {show(family)}", hint="IPv4 or IPv6")
    protocol, names = FAMILIES[family]
    given = read.get("type")
    if isinstance(given, str) and not (given.isascii() and given.isdigit() and len(given) <= 5):
        if given not in names:
            raise InvalidObject(f"{path}.type", f"{show(given)} is no ICMP type of {family}")
        number = names[given]
    else:
        number = integer(int(given) if isinstance(given, str) else given, f"{path}.type", 0, 255)
    return Ports(protocol, number << 8, number << 8 | 255)


def kubernetes(value: Any, path: str) -> tuple[Ports, ...] | None:
    """``ports`` of a NetworkPolicy rule; TCP unless another protocol is named."""
    found = [_kubernetes_port(one, at) for one, at in items(value, path)]
    return tuple(dict.fromkeys(found)) or None


def _kubernetes_port(value: Any, path: str) -> Ports:
    read = known(value, path, frozenset({"port", "endPort", "protocol"}))
    word = "TCP" if read.get("protocol") is None else string(read["protocol"], f"{path}.protocol")
    if word not in PORTED:
        raise InvalidObject(
            f"{path}.protocol", f"unknown protocol {show(word)}", hint=f"known: {', '.join(PORTED)}"
        )
    port, end = read.get("port"), read.get("endPort")
    if port is None:
        if end is not None:
            raise InvalidObject(f"{path}.endPort", "needs a port to begin at")
        return Ports(PORTED[word])
    if isinstance(port, str):
        _check_name(port, f"{path}.port")
        if end is not None:
            raise InvalidObject(f"{path}.endPort", "a range cannot begin with a named port")
        return Ports(PORTED[word], 0, 0, port)
    first = integer(port, f"{path}.port", 1, PORT_LAST)
    return Ports(
        PORTED[word], first, first if end is None else integer(end, f"{path}.endPort", first, PORT_LAST)
    )
