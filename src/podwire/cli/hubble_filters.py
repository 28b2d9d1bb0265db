"""Flags of `podwire hubble observe` to Hubble's filters.

A flag about either end (``--pod``) makes two filters, one for flows from there and one for flows to
there; both carry all other flags. ``--not`` turns the next flag into a filter of the blacklist.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from podwire.api import flow_pb2
from podwire.base.errors import UsageError
from podwire.model import identity

LONGEST = 4096  # characters of a value: no name, address or pattern has more
Values = Callable[[str], list[Any]]

EVENT_TYPES = {
    "drop": 1,
    "debug": 2,
    "capture": 3,
    "trace": 4,
    "policy-verdict": 5,
    "trace-sock": 7,
    "l7": 129,
    "agent": 130,
}
TRACE_POINTS = {
    0: "to-endpoint",
    1: "to-proxy",
    2: "to-host",
    3: "to-stack",
    4: "to-overlay",
    5: "from-endpoint",
    6: "from-proxy",
    7: "from-host",
    8: "from-stack",
    9: "from-overlay",
    10: "from-network",
    11: "to-network",
    12: "from-crypto",
    13: "to-crypto",
}
UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
TCP_FLAGS = ("SYN", "FIN", "RST", "PSH", "ACK", "URG", "ECE", "CWR", "NS")


def _text(value: str) -> list[Any]:
    return [value]


def _uuid(value: str) -> list[Any]:
    if not UUID.fullmatch(value):
        raise UsageError(f"invalid --uuid value: {value[:60]!r}", hint="`-o json` shows the UUIDs of flows")
    return [value]


def _enum(flag: str, enum: Any) -> Values:
    def convert(value: str) -> list[Any]:
        names = list(enum.keys())
        if value not in names:
            raise UsageError(f"invalid --{flag} value: {value}", hint=f"one of {', '.join(names)}")
        return [enum.Value(value)]

    return convert


def _identity(value: str) -> list[Any]:
    number = identity.RESERVED_NUMBERS.get(value, 0)
    if not number and not (value.isascii() and value.isdigit()):
        names = ", ".join(identity.RESERVED_NUMBERS)
        raise UsageError(f"{value!r} is no security identity", hint=f"a number or one of {names}")
    return [number or int(value)]


def _workload(value: str) -> list[Any]:
    kind, slash, name = value.partition("/")
    return [flow_pb2.Workload(kind=kind, name=name) if slash else flow_pb2.Workload(name=value)]


def _event_type(value: str) -> list[Any]:
    name, colon, sub = value.partition(":")
    kind = EVENT_TYPES.get(name)
    if kind is None:
        if not name.isdigit():
            raise UsageError(
                f"unknown event type {name!r}", hint=f"a number or one of {', '.join(EVENT_TYPES)}"
            )
        kind = int(name)
    if not colon:
        return [flow_pb2.EventTypeFilter(type=kind)]
    points = {name: number for number, name in TRACE_POINTS.items()} if kind == EVENT_TYPES["trace"] else {}
    if sub not in points and not sub.isdigit():
        known = ", ".join(points) or "numbers only"
        raise UsageError(f"unknown sub-type {sub!r} of {name}", hint=f"known: {known}")
    number = points[sub] if sub in points else int(sub)
    return [flow_pb2.EventTypeFilter(type=kind, match_sub_type=True, sub_type=number)]


def _tcp_flags(value: str) -> list[Any]:
    names = [name.upper() for name in value.split(",")]
    for name in names:
        if name not in TCP_FLAGS:
            raise UsageError(f"unknown tcp flag: {name}", hint=f"one of {', '.join(TCP_FLAGS)}")
    return [flow_pb2.TCPFlags(**dict.fromkeys(names, True))]


def _ip_version(value: str) -> list[Any]:
    versions = {"4": flow_pb2.IPv4, "6": flow_pb2.IPv6, "none": flow_pb2.IP_NOT_USED}
    name = value.lower().removeprefix("ip").removeprefix("v")
    if name not in versions:
        raise UsageError(f"invalid --ip-version value: {value}", hint="one of none, v4, v6")
    return [versions[name]]


def _direction(value: str) -> list[Any]:
    if value.lower() not in ("ingress", "egress"):
        raise UsageError(f"{value}: invalid traffic direction, expected ingress or egress")
    return [flow_pb2.TrafficDirection.Value(value.upper())]


def _header(value: str) -> list[Any]:
    key, colon, text = value.partition(":")
    if not colon:
        raise UsageError(f"invalid http-header value {value!r}, expected name:value")
    return [flow_pb2.HTTPHeader(key=key, value=text)]


def _trace_number(value: str) -> list[Any]:
    if not value.isdigit() or int(value) == 0:
        raise UsageError(f"invalid --ip-trace-id value {value!r}; must be a number greater than 0")
    return [int(value)]


def _constant(value: Any) -> Values:
    return lambda _: [value]


# Flags about either end: name → the field without its side, and how to read a value.
SIDED: dict[str, tuple[str, Values]] = {
    "pod": ("pod", _text),
    "ip": ("ip", _text),
    "fqdn": ("fqdn", _text),
    "label": ("label", _text),
    "service": ("service", _text),
    "workload": ("workload", _workload),
    "identity": ("identity", _identity),
    "port": ("port", _text),
    "cluster": ("cluster_name", _text),
}
PLAIN: dict[str, tuple[str, Values]] = {
    "uuid": ("uuid", _uuid),
    "snat-ip": ("source_ip_xlated", _text),
    "ipv4": ("ip_version", _constant(flow_pb2.IPv4)),
    "ipv6": ("ip_version", _constant(flow_pb2.IPv6)),
    "ip-version": ("ip_version", _ip_version),
    "trace-id": ("trace_id", _text),
    "ip-trace-id": ("ip_trace_id", _trace_number),
    "verdict": ("verdict", _enum("verdict", flow_pb2.Verdict)),
    "drop-reason-desc": ("drop_reason_desc", _enum("drop-reason-desc", flow_pb2.DropReason)),
    "http-status": ("http_status_code", _text),
    "http-method": ("http_method", _text),
    "http-path": ("http_path", _text),
    "http-url": ("http_url", _text),
    "http-header": ("http_header", _header),
    "type": ("event_type", _event_type),
    "protocol": ("protocol", _text),
    "node-name": ("node_name", _text),
    "node-label": ("node_labels", _text),
    "tcp-flags": ("tcp_flags", _tcp_flags),
    "traffic-direction": ("traffic_direction", _direction),
    "interface": ("interface", lambda value: [flow_pb2.NetworkInterface(name=value)]),
    "encrypted": ("encrypted", _constant(True)),
    "unencrypted": ("encrypted", _constant(False)),
}
# Groups of flags of which only one may be given.
CONFLICTS = (
    (
        "from-fqdn",
        "from-ip",
        "ip",
        "fqdn",
        "from-namespace",
        "namespace",
        "from-all-namespaces",
        "all-namespaces",
    ),
    ("from-fqdn", "from-ip", "ip", "fqdn", "from-pod", "pod"),
    ("to-fqdn", "to-ip", "ip", "fqdn", "to-namespace", "namespace", "to-all-namespaces", "all-namespaces"),
    ("to-fqdn", "to-ip", "ip", "fqdn", "to-pod", "pod"),
    ("to-pod", "namespace", "all-namespaces"),
    ("from-pod", "namespace", "all-namespaces"),
    ("to-service", "namespace", "all-namespaces"),
    ("from-service", "namespace", "all-namespaces"),
    ("label", "from-label"),
    ("label", "to-label"),
    ("service", "from-service"),
    ("service", "to-service"),
    ("port", "to-port"),
    ("port", "from-port"),
    ("identity", "to-identity"),
    ("identity", "from-identity"),
    ("workload", "to-workload"),
    ("workload", "from-workload"),
    ("encrypted", "unencrypted"),
)


class FilterFlags:
    """Collects flags in the order of the command line; then `whitelist` and `blacklist`."""

    def __init__(self) -> None:
        self._white = _Pair()
        self._black = _Pair()
        self._not = False

    def add(self, flag: str, value: str) -> None:
        """UsageError for a wrong value or a flag that contradicts another."""
        if flag == "not":
            if self._not:
                raise UsageError("consecutive --not statements")
            self._not = True
            return
        (self._black if self._not else self._white).add(flag, value)
        self._not = False

    def whitelist(self) -> list[Any]:
        if self._not:
            raise UsageError("trailing --not found in the arguments")
        return self._white.filters()

    def blacklist(self) -> list[Any]:
        return self._black.filters()


class _Pair:
    """Filters for the two ends; the answer is either."""

    def __init__(self) -> None:
        self._left = flow_pb2.FlowFilter()
        self._right = flow_pb2.FlowFilter()
        self._given: set[str] = set()
        # Namespaces by the flag's side; they qualify pods and services once all flags are known.
        self._namespaces: dict[str, list[str]] = {"": [], "from-": [], "to-": []}

    def add(self, flag: str, value: str) -> None:
        if not value.isprintable() or not value or len(value) > LONGEST:
            raise UsageError(
                f"invalid --{flag} value: {value[:60]!r}",
                hint=f"it must be text that can be printed, of 1 to {LONGEST} characters",
            )
        self._given.add(flag)
        for group in CONFLICTS:
            both = [name for name in group if name in self._given]
            if len(both) > 1:
                raise UsageError(f"filters --{both[0]} and --{both[1]} cannot be combined")
        if flag in PLAIN:
            field, convert = PLAIN[flag]
            for each in (self._left, self._right):
                _extend(each, field, convert, flag, value)
            return
        side = next((side for side in ("from-", "to-") if flag.startswith(side)), "")
        noun = flag.removeprefix(side)
        if noun == "namespace" and not NAMESPACE.fullmatch(value):
            raise UsageError(
                f"invalid --{flag} value: {value[:60]!r}",
                hint="a namespace has lower-case letters, digits and hyphens, at most 63",
            )
        if noun in ("namespace", "all-namespaces"):
            self._namespaces[side].append(value if noun == "namespace" else "")
            return
        field, convert = SIDED[noun]
        # One side: the same in both. Either end: sources in the one, destinations in the other.
        sources = {"from-": (self._left, self._right), "to-": (), "": (self._left,)}[side]
        destinations = {"from-": (), "to-": (self._left, self._right), "": (self._right,)}[side]
        for each in sources:
            _extend(each, f"source_{field}", convert, flag, value)
        for each in destinations:
            _extend(each, f"destination_{field}", convert, flag, value)

    def filters(self) -> list[Any]:
        if not self._given:
            return []
        for each in (self._left, self._right):
            _qualify(each, "destination", self._namespaces["to-"])
            _qualify(each, "source", self._namespaces["from-"])
        _qualify(self._left, "source", self._namespaces[""])
        _qualify(self._right, "destination", self._namespaces[""])
        return [self._left] if self._left == self._right else [self._left, self._right]


def flags_of(field: str) -> list[str]:
    """The flags whose values go into a field of FlowFilter."""
    found = [flag for flag, (into, _) in PLAIN.items() if into == field]
    for noun, (into, _) in SIDED.items():
        for side, ends in (
            ("", ("source", "destination")),
            ("from-", ("source",)),
            ("to-", ("destination",)),
        ):
            if field in [f"{end}_{into}" for end in ends]:
                found.append(side + noun)
    for noun in ("namespace", "all-namespaces"):  # they qualify pods and services
        if field.endswith(("_pod", "_service")):
            found += [side + noun for side in ("", "from-", "to-")]
    return found


def _extend(wanted: Any, field: str, convert: Values, flag: str, value: str) -> None:
    """Each field has a range of its own, which protobuf alone knows: what it refuses is the flag's fault."""
    try:
        getattr(wanted, field).extend(convert(value))
    except (ValueError, OverflowError) as error:
        raise UsageError(
            f"invalid --{flag} value: {value[:60]!r}", hint="the filter cannot hold it: too big, or no text"
        ) from error


def _qualify(wanted: Any, side: str, namespaces: list[str]) -> None:
    if not namespaces:
        return
    pods, services = getattr(wanted, f"{side}_pod"), getattr(wanted, f"{side}_service")
    if not pods and not services:
        pods.append("")
    for names in (pods, services):
        qualified = []
        for name in names:
            namespace, slash, _ = name.partition("/")
            if slash and namespace not in namespaces and "" not in namespaces:
                raise UsageError(f"namespace conflict: {', '.join(namespaces)} does not contain {name!r}")
            qualified += [name] if slash else [f"{each}/{name}" for each in namespaces]
        del names[:]
        names.extend(qualified)
