"""Hubble's filter fields, one by one: each makes, of the values asked for, a test on columns.

The fields that stored flows do not have are in `filter_absent`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from podwire.abi.enums import EventFlags, EventKind
from podwire.api import flow_pb2
from podwire.base import addresses
from podwire.base.errors import InvalidObject
from podwire.hubble import labelselector, patterns
from podwire.hubble.decode import Columns, address_words
from podwire.hubble.flows import Flows
from podwire.hubble.intern import Interner
from podwire.model.flow import NO_PARTY, Party, Reply, ServiceName, Verdict
from podwire.model.protocol import ICMP, ICMPV6, IGMP, SCTP, TCP, UDP, VRRP, WITH_PORTS

Mask = NDArray[Any]
Test = Callable[[Columns], Any]
Maker = Callable[[Any, Any, Flows], Test]

PROTOCOLS: dict[str, tuple[int, ...]] = {
    "icmp": (ICMP, ICMPV6),
    "icmpv4": (ICMP,),
    "icmpv6": (ICMPV6,),
    "tcp": (TCP,),
    "udp": (UDP,),
    "sctp": (SCTP,),
    "vrrp": (VRRP,),
    "igmp": (IGMP,),
    "dns": (),
    "http": (),
    "kafka": (),
}
FLAG_BITS = {"FIN": 1, "SYN": 2, "RST": 4, "PSH": 8, "ACK": 16, "URG": 32, "ECE": 64, "CWR": 128, "NS": 256}


def nothing(columns: Columns) -> Mask:
    return np.zeros(len(columns["time"]), dtype=bool)


def _constant(answer: bool) -> Test:
    return lambda columns: np.full(len(columns["time"]), answer)


class Named:
    """A test on an interned column that asks `says` once per value."""

    def __init__(self, column: str, names: Interner, says: Callable[[Any], bool]) -> None:
        self._column = column
        self._names = names
        self._says = says
        self._sweeps = -1
        self._known = np.empty(0, dtype="i1")

    def __call__(self, columns: Columns) -> Any:
        if self._sweeps != self._names.sweeps:  # numbers may mean something else now
            self._sweeps = self._names.sweeps
            self._known = np.empty(0, dtype="i1")
        if len(self._known) < len(self._names.values):
            more = len(self._names.values) - len(self._known)
            self._known = np.pad(self._known, (0, more), constant_values=-1)
        numbers = columns[self._column]
        answers = self._known[numbers]
        unknown = answers < 0
        if unknown.any():
            for number in np.unique(numbers[unknown]).tolist():
                self._known[number] = self._says(self._names.values[number])
            answers = self._known[numbers]
        return answers == 1


# --- numbers ---------------------------------------------------------------------------------------


def number(column: str) -> Maker:
    return lambda wanted, _, __: _among(column, list(wanted))


def _among(column: str, wanted: Sequence[int]) -> Test:
    values = np.array(wanted, dtype="i8")
    return lambda columns: np.isin(columns[column], values)


def port(column: str) -> Maker:
    def make(wanted: Any, _: Any, __: Flows) -> Test:
        for text in wanted:
            if not re.fullmatch(r"[0-9]{1,5}", text) or int(text) > 65535:
                raise InvalidObject("", f"{text!r} is not a port number")
        matches = _among(column, [int(text) for text in wanted])
        has_ports = _among("protocol", WITH_PORTS)
        return lambda columns: matches(columns) & has_ports(columns) & ~without_address(columns)

    return make


def drop_reason(wanted: Any, _: Any, __: Flows) -> Test:
    reasons = _among("drop_reason", list(wanted))
    return lambda columns: reasons(columns) & (columns["verdict"] == Verdict.DROPPED)


def event_type(wanted: Any, _: Any, __: Flows) -> Test:
    pairs = [(each.type, each.sub_type if each.match_sub_type else None) for each in wanted]

    def test(columns: Columns) -> Any:
        found = nothing(columns)
        for kind, sub in pairs:
            same = np.ones_like(found) if kind == 0 else columns["kind"] == kind
            found |= same if sub is None else same & (columns["sub"] == sub)
        return found

    return test


def protocol(wanted: Any, _: Any, __: Flows) -> Test:
    chosen: list[int] = []
    for text in wanted:
        if text.lower() not in PROTOCOLS:
            raise InvalidObject("", f"{text!r} is none of {', '.join(PROTOCOLS)}")
        chosen += PROTOCOLS[text.lower()]
    among = _among("protocol", chosen)
    return lambda columns: among(columns) & ~without_address(columns)


def reply(wanted: Any, _: Any, __: Flows) -> Test:
    yes, no = True in wanted, False in wanted

    def test(columns: Columns) -> Any:
        # Dropped flows of unknown direction count as no reply, as Hubble's clients expect.
        answers = columns["reply"]
        not_reply = (answers == Reply.NO) | (
            (answers == Reply.UNKNOWN) & (columns["verdict"] == Verdict.DROPPED)
        )
        return (yes & (answers == Reply.YES)) | (no & not_reply)

    return test


def encrypted(wanted: Any, _: Any, __: Flows) -> Test:
    yes, no = True in wanted, False in wanted

    def test(columns: Columns) -> Any:
        is_so = (columns["flags"] & EventFlags.ENCRYPTED) != 0
        return (yes & is_so) | (no & ~is_so)

    return test


def tcp_flags(wanted: Any, _: Any, __: Flows) -> Test:
    sets = [sum(bit for name, bit in FLAG_BITS.items() if getattr(each, name)) for each in wanted]

    def test(columns: Columns) -> Any:
        flags = columns["tcp_flags"].astype("u2")
        found = nothing(columns)
        for bits in sets:
            found |= (flags & bits) == bits
        # Translation at the socket happens before there is a packet: no flags to match.
        return (
            found
            & (columns["protocol"] == TCP)
            & (columns["kind"] != EventKind.SOCKET)
            & ~without_address(columns)
        )

    return test


def without_address(columns: Columns) -> Mask:
    """Rows that are not about IP."""
    words = columns["source_high"] | columns["source_low"]
    none: Mask = (words | columns["destination_high"] | columns["destination_low"]) == 0
    return none


def ip_version(wanted: Any, _: Any, __: Flows) -> Test:
    def test(columns: Columns) -> Any:
        none = without_address(columns)
        six = (columns["flags"] & EventFlags.IPV6) != 0
        versions = np.where(none, flow_pb2.IP_NOT_USED, np.where(six, flow_pb2.IPv6, flow_pb2.IPv4))
        return np.isin(versions, list(wanted))

    return test


# --- addresses -------------------------------------------------------------------------------------


def address(side: str) -> Maker:
    def make(wanted: Any, _: Any, __: Flows) -> Test:
        prefixes = [(prefix_words(text), addresses.family(text) == 6) for text in wanted]

        def test(columns: Columns) -> Any:
            high, low = columns[f"{side}_high"], columns[f"{side}_low"]
            found = nothing(columns)
            mapped = _inside(_MAPPED, high, low)
            for words, six in prefixes:
                match = _inside(words, high, low)
                found |= match & ~mapped if six else match
            return found & ((high != 0) | (low != 0))

        return test

    return make


Words = tuple[np.uint64, np.uint64, np.uint64, np.uint64]


def prefix_words(text: str) -> Words:
    """Mask and value of a prefix as words of address columns."""
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise InvalidObject("", f"{text!r} is neither an address nor a prefix") from error
    bits, raw = addresses.pack_prefix(str(network))
    mask = ((1 << 128) - (1 << (128 - bits))).to_bytes(16, "big")
    return (*address_words(mask), *address_words(raw))


def _inside(words: Words, high: Any, low: Any) -> Mask:
    mask_high, mask_low, value_high, value_low = words
    inside: Mask = ((high & mask_high) == value_high) & ((low & mask_low) == value_low)
    return inside


# All of IPv4: inside the v4-mapped range, and so inside ::/0, where nobody means it.
_MAPPED = prefix_words("0.0.0.0/0")


# --- names -----------------------------------------------------------------------------------------


def _namespaced(wanted: Any) -> list[tuple[str, str]]:
    pairs = []
    for text in wanted:
        if not text:
            raise InvalidObject("", "a name must not be empty")
        namespace, slash, prefix = text.partition("/")
        pairs.append((namespace, prefix) if slash else ("default", text))
    return pairs


def _has_name(pairs: list[tuple[str, str]], namespace: str, name: str) -> bool:
    if not namespace and not name:
        return False
    return any(
        (not wanted or wanted == namespace) and (not prefix or name.startswith(prefix))
        for wanted, prefix in pairs
    )


def pod(side: str) -> Maker:
    def make(wanted: Any, _: Any, flows: Flows) -> Test:
        pairs = _namespaced(wanted)

        def says(party: Party | None) -> bool:
            return party is not None and _has_name(pairs, party.namespace, party.pod)

        return Named(f"{side}_party", flows.names, says)

    return make


def service(side: str) -> Maker:
    def make(wanted: Any, _: Any, flows: Flows) -> Test:
        pairs = _namespaced(wanted)

        def says(name: ServiceName | None) -> bool:
            return name is not None and _has_name(pairs, name.namespace, name.name)

        return Named(f"{side}_service", flows.names, says)

    return make


def label(side: str) -> Maker:
    def make(wanted: Any, _: Any, flows: Flows) -> Test:
        selectors = [labelselector.parse(text) for text in wanted]

        def says(party: Party | None) -> bool:
            return any(selector.matches((party or NO_PARTY).labels) for selector in selectors)

        return Named(f"{side}_party", flows.names, says)

    return make


def workload(side: str) -> Maker:
    def make(wanted: Any, _: Any, flows: Flows) -> Test:
        pairs = [(each.kind, each.name) for each in wanted]

        def says(party: Party | None) -> bool:
            if party is None or not party.workload_name:
                return False
            return any(
                kind in ("", party.workload_kind) and name in ("", party.workload_name)
                for kind, name in pairs
            )

        return Named(f"{side}_party", flows.names, says)

    return make


def cluster(side: str) -> Maker:
    def make(wanted: Any, _: Any, flows: Flows) -> Test:
        names = frozenset(wanted)
        if "" in names:
            raise InvalidObject("", "a name must not be empty")
        return Named(f"{side}_party", flows.names, lambda party: (party or NO_PARTY).cluster in names)

    return make


def interface(wanted: Any, _: Any, flows: Flows) -> Test:
    tests = [_one_interface(each.name, each.index, flows) for each in wanted]

    def test(columns: Columns) -> Any:
        found = nothing(columns)
        for each in tests:
            found |= each(columns)
        return found & (columns["device"] != 0)

    return test


def _one_interface(name: str, index: int, flows: Flows) -> Test:
    named = Named("interface", flows.names, lambda known: known is not None and known.name == name)
    numbered = _among("device", [index])

    def test(columns: Columns) -> Any:
        if not name:
            return numbered(columns) if index else np.ones(len(columns["device"]), dtype=bool)
        return named(columns) & numbered(columns) if index else named(columns)

    return test


def uuid(wanted: Any, _: Any, flows: Flows) -> Test:
    pairs = [pair for pair in map(flows.ids.parse, wanted) if pair is not None]

    def test(columns: Columns) -> Any:
        found = nothing(columns)
        for cpu, sequence in pairs:
            found |= (columns["sequence"] == sequence) & (columns["cpu"] == cpu)
        return found

    return test


# --- the node --------------------------------------------------------------------------------------


def node_name(wanted: Any, _: Any, flows: Flows) -> Test:
    return _constant(any(one.matches(flows.node) for one in patterns.node_names(wanted)))


def node_labels(wanted: Any, _: Any, flows: Flows) -> Test:
    selectors = [labelselector.parse(text) for text in wanted]
    labels = flows.node_labels
    return _constant(any(selector.matches(labels) for selector in selectors))
