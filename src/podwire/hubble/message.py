"""Rows to Hubble's messages, for the rows that somebody asked for.

`Messages.of` fills only the parts a field mask wants; without a mask all of them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from google.protobuf.field_mask_pb2 import FieldMask
from numpy.typing import NDArray

from podwire.abi.enums import EventFlags, EventKind
from podwire.api import flow_pb2, observer_pb2
from podwire.base import addresses
from podwire.base.errors import InvalidObject
from podwire.hubble.decode import address_bytes
from podwire.hubble.filter_fields import FLAG_BITS
from podwire.hubble.flows import Flows
from podwire.hubble.summary import summary
from podwire.model.flow import CLAUSE_LABEL, DEFAULT_DENY_LABEL, PRINTED_FIELDS, Decision, Reply, Verdict
from podwire.model.protocol import ICMP, ICMPV6, IGMP, SCTP, TCP, UDP, VRRP, WITH_PORTS, WITH_TYPES
from podwire.model.rule import Direction, Origin

Row = dict[str, Any]
Array = NDArray[Any]
TO_ENDPOINT = 101
MOST_PATHS = 256
# As plain numbers: asked per flow, and operations of enumerations cost some.
IPV6, ENCRYPTED = int(EventFlags.IPV6), int(EventFlags.ENCRYPTED)
PROTOCOL_FIELDS = {
    TCP: "TCP",
    UDP: "UDP",
    SCTP: "SCTP",
    ICMP: "ICMPv4",
    ICMPV6: "ICMPv6",
    VRRP: "VRRP",
    IGMP: "IGMP",
}


# What hubble's CLI asks for when it prints text.
PRINTED = frozenset(PRINTED_FIELDS)
# What it prints besides, and so prints wrongly when it gets only what it asked for
# ("policy-verdict:none TRAFFIC_DIRECTION_UNKNOWN"). Who asks for all of the above gets these too.
PRINTED_TOO = (
    "traffic_direction",
    "policy_match_type",
    "sock_xlate_point",
    "egress_allowed_by",
    "ingress_allowed_by",
    "egress_denied_by",
    "ingress_denied_by",
)


class Messages:
    """Messages of one request. Raises InvalidObject for a mask that names no field of a flow."""

    def __init__(self, flows: Flows, mask: FieldMask | None = None) -> None:
        self.flows = flows
        self.node_labels = flows.node_labels
        paths = list(dict.fromkeys(mask.paths)) if mask is not None else []
        if len(paths) > MOST_PATHS:
            raise InvalidObject("field_mask", f"has more than {MOST_PATHS} paths")
        for path in paths:
            if not FieldMask(paths=[path]).IsValidForDescriptor(flow_pb2.Flow.DESCRIPTOR):
                raise InvalidObject("field_mask", f"a flow has no field {path!r}")
        if set(paths) >= PRINTED:
            paths += PRINTED_TOO
        wanted = {path.partition(".")[0] for path in paths} if paths else set(PARTS)
        self._parts = [fill for name, fill in PARTS.items() if name in wanted]
        self._mask, self._clear = _nested(paths)

    def responses(self, rows: Array) -> Iterator[Any]:
        """GetFlowsResponse for row numbers that are stored now."""
        for row in self.flows.store.rows(rows):
            response = observer_pb2.GetFlowsResponse(node_name=self.flows.node)
            response.time.FromNanoseconds(row["time"])
            response.flow.SetInParent()
            if self._mask is None:
                self._fill(row, response.flow)
            else:
                whole = flow_pb2.Flow()
                self._fill(row, whole)
                # MergeMessage, not JSON: paths such as IP and Summary do not survive camel case.
                self._mask.MergeMessage(whole, response.flow)
            yield response

    def flow(self, number: int) -> Any:
        """flow.Flow of the row numbered `number`; KeyError if it is not stored (any more)."""
        if not self.flows.store.first <= number < self.flows.store.end:
            raise KeyError(number)
        return next(self.responses(np.array([number]))).flow

    def _fill(self, row: Row, flow: Any) -> None:
        for fill in self._parts:
            fill(flow, row, self)
        for name, fields in self._clear:
            if flow.HasField(name):
                part = getattr(flow, name)
                for field in fields:
                    part.ClearField(field)


def _nested(paths: list[str]) -> tuple[FieldMask | None, list[tuple[str, list[str]]]]:
    """How to leave out what a mask with paths such as source.identity does not name.

    Fields of the flow's own messages are cleared (most masks, and five times as fast); for deeper
    paths there is a mask to merge with.
    """
    parts: dict[str, set[str]] = {}
    whole = {path for path in paths if "." not in path}
    for path in paths:
        name, dot, rest = path.partition(".")
        if not dot or name in whole:
            continue
        if "." in rest:
            return FieldMask(paths=paths), []
        parts.setdefault(name, set()).add(rest)
    return None, [(name, sorted(_fields_of(name) - kept)) for name, kept in parts.items()]


def _fields_of(name: str) -> set[str]:
    message = flow_pb2.Flow.DESCRIPTOR.fields_by_name[name].message_type
    return {field.name for field in message.fields} if message is not None else set()


Fill = Callable[[Any, Row, Messages], None]


def _time(flow: Any, row: Row, _: Messages) -> None:
    flow.time.FromNanoseconds(row["time"])


def _ethernet(flow: Any, row: Row, _: Messages) -> None:
    raw = row["macs_first"].to_bytes(8, sys.byteorder) + row["macs_last"].to_bytes(4, sys.byteorder)
    if any(raw):
        flow.ethernet.source = raw[:6].hex(":")
        flow.ethernet.destination = raw[6:].hex(":")


def _has_address(row: Row) -> bool:
    return bool(row["source_high"] | row["source_low"] | row["destination_high"] | row["destination_low"])


def _ip(flow: Any, row: Row, _: Messages) -> None:
    if not _has_address(row):
        return
    flow.IP.source = addresses.unpack(address_bytes(row["source_high"], row["source_low"]))
    flow.IP.destination = addresses.unpack(address_bytes(row["destination_high"], row["destination_low"]))
    flow.IP.ipVersion = flow_pb2.IPv6 if row["flags"] & IPV6 else flow_pb2.IPv4
    flow.IP.encrypted = bool(row["flags"] & ENCRYPTED)


def _l4(flow: Any, row: Row, _: Messages) -> None:
    name = PROTOCOL_FIELDS.get(row["protocol"])
    if name is None or not _has_address(row):
        return
    layer = getattr(flow.l4, name)
    layer.SetInParent()
    if row["protocol"] in WITH_PORTS:
        layer.source_port = row["source_port"]
        layer.destination_port = row["destination_port"]
        if row["protocol"] == TCP and row["kind"] != EventKind.SOCKET:
            layer.flags.SetInParent()
            for flag, bit in FLAG_BITS.items():
                if row["tcp_flags"] & bit:
                    setattr(layer.flags, flag, True)
    elif row["protocol"] in WITH_TYPES:
        layer.type = row["icmp_type"]
        layer.code = row["icmp_code"]


def _endpoint(side: str) -> Fill:
    def fill(flow: Any, row: Row, messages: Messages) -> None:
        endpoint = getattr(flow, side)
        endpoint.SetInParent()
        endpoint.ID = row[f"{side}_endpoint"]
        endpoint.identity = row[f"{side}_identity"]
        party = messages.flows.value(row[f"{side}_party"])
        if party is None:
            return
        endpoint.cluster_name = party.cluster
        endpoint.namespace = party.namespace
        endpoint.pod_name = party.pod
        endpoint.labels.extend(party.labels)
        if party.workload_name:
            endpoint.workloads.add(name=party.workload_name, kind=party.workload_kind)

    return fill


def _service(side: str) -> Fill:
    def fill(flow: Any, row: Row, messages: Messages) -> None:
        service = messages.flows.value(row[f"{side}_service"])
        if service is not None:
            message = getattr(flow, f"{side}_service")
            message.name = service.name
            message.namespace = service.namespace

    return fill


def _is_reply(flow: Any, row: Row, _: Messages) -> None:
    if row["reply"] != Reply.UNKNOWN:
        flow.is_reply.value = row["reply"] == Reply.YES


def _event_type(flow: Any, row: Row, _: Messages) -> None:
    flow.event_type.type = row["kind"]
    flow.event_type.sub_type = row["sub"]


def _observation(flow: Any, row: Row, _: Messages) -> None:
    if row["kind"] == EventKind.TRACE:
        flow.trace_observation_point = row["sub"] or TO_ENDPOINT


def _interface(flow: Any, row: Row, messages: Messages) -> None:
    if row["device"]:
        flow.interface.index = row["device"]
        known = messages.flows.value(row["interface"])
        flow.interface.name = known.name if known else ""


def _socket(name: str, column: str) -> Fill:
    def fill(flow: Any, row: Row, _: Messages) -> None:
        if row["kind"] == EventKind.SOCKET:
            setattr(flow, name, row[column])

    return fill


def _number(name: str, column: str) -> Fill:
    return lambda flow, row, _: setattr(flow, name, row[column])


def _policies(name: str, direction: Direction, denied: bool) -> Fill:
    def fill(flow: Any, row: Row, messages: Messages) -> None:
        decision = messages.flows.value(row["decision"])
        if decision is None or decision.direction != direction:
            return
        # An audited packet went through, but it is what denies it that one wants to know.
        if (row["verdict"] in (Verdict.DROPPED, Verdict.AUDIT)) == denied:
            for origin in decision.origins:
                getattr(flow, name).append(policy(origin, decision))

    return fill


def policy(origin: Origin, decision: Decision) -> Any:
    """flow.Policy of one of the policies behind a decision, with the clause in its labels."""
    labels = [
        f"k8s:io.cilium.k8s.policy.derived-from={origin.kind}",
        f"k8s:io.cilium.k8s.policy.name={origin.name}",
    ]
    if origin.namespace:
        labels.append(f"k8s:io.cilium.k8s.policy.namespace={origin.namespace}")
    if origin.uid:
        labels.append(f"k8s:io.cilium.k8s.policy.uid={origin.uid}")
    labels.append(DEFAULT_DENY_LABEL if decision.default_deny else f"{CLAUSE_LABEL}{decision.clause}")
    return flow_pb2.Policy(name=origin.name, namespace=origin.namespace, kind=origin.kind, labels=labels)


def _log(flow: Any, row: Row, messages: Messages) -> None:
    decision = messages.flows.value(row["decision"])
    if decision is not None and decision.log:
        flow.policy_log.append(decision.log)


def _uuid(flow: Any, row: Row, messages: Messages) -> None:
    flow.uuid = messages.flows.ids.of(row["cpu"], row["sequence"])


def _node_labels(flow: Any, _: Row, messages: Messages) -> None:
    flow.node_labels.extend(messages.node_labels)


def _type(flow: Any, row: Row, _: Messages) -> None:
    flow.Type = flow_pb2.SOCK if row["kind"] == EventKind.SOCKET else flow_pb2.L3_L4


def _summary(flow: Any, row: Row, _: Messages) -> None:
    flow.Summary = summary(row, with_address=_has_address(row))


PARTS: dict[str, Fill] = {
    "time": _time,
    "uuid": _uuid,
    "verdict": _number("verdict", "verdict"),
    "drop_reason": _number("drop_reason", "drop_reason"),
    "ethernet": _ethernet,
    "IP": _ip,
    "l4": _l4,
    "source": _endpoint("source"),
    "destination": _endpoint("destination"),
    "Type": _type,
    "node_name": lambda flow, _, messages: setattr(flow, "node_name", messages.flows.node),
    "node_labels": _node_labels,
    "reply": lambda flow, row, _: setattr(flow, "reply", row["reply"] == Reply.YES),
    "event_type": _event_type,
    "source_service": _service("source"),
    "destination_service": _service("destination"),
    "traffic_direction": _number("traffic_direction", "direction"),
    "policy_match_type": _number("policy_match_type", "match"),
    "trace_observation_point": _observation,
    "trace_reason": _number("trace_reason", "trace_reason"),
    "drop_reason_desc": _number("drop_reason_desc", "drop_reason"),
    "is_reply": _is_reply,
    "interface": _interface,
    "proxy_port": _number("proxy_port", "proxy_port"),
    "sock_xlate_point": _socket("sock_xlate_point", "sub"),
    "socket_cookie": _socket("socket_cookie", "cookie"),
    "cgroup_id": _socket("cgroup_id", "cgroup"),
    "Summary": _summary,
    "egress_allowed_by": _policies("egress_allowed_by", Direction.EGRESS, denied=False),
    "ingress_allowed_by": _policies("ingress_allowed_by", Direction.INGRESS, denied=False),
    "egress_denied_by": _policies("egress_denied_by", Direction.EGRESS, denied=True),
    "ingress_denied_by": _policies("ingress_denied_by", Direction.INGRESS, denied=True),
    "policy_log": _log,
}
