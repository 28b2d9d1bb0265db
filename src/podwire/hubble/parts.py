"""The parts of a flow's message, each defined by a function that fills it from a row.

A row is the values of columns (`hubble.store`), with `addressed`: whether there are addresses at all.
Names are looked up by the numbers the row has of them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Protocol

from podwire.abi.enums import EventFlags, EventKind
from podwire.api import flow_pb2
from podwire.base import addresses
from podwire.hubble.decode import address_bytes
from podwire.hubble.filter_fields import FLAG_BITS
from podwire.hubble.flows import Flows
from podwire.hubble.summary import summary
from podwire.model.flow import CLAUSE_LABEL, DEFAULT_DENY_LABEL, Decision, Reply, Verdict
from podwire.model.labels import Labels
from podwire.model.protocol import ICMP, ICMPV6, IGMP, SCTP, TCP, UDP, VRRP, WITH_PORTS, WITH_TYPES
from podwire.model.rule import Direction, Origin

Row = dict[str, Any]
TO_ENDPOINT = 101
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


class Context(Protocol):
    """What a part may ask for beside the row."""

    flows: Flows
    node_labels: Labels


Fill = Callable[[Any, Row, Context], None]


def _time(flow: Any, row: Row, _: Context) -> None:
    flow.time.FromNanoseconds(row["time"])


def _ethernet(flow: Any, row: Row, _: Context) -> None:
    raw = row["macs_first"].to_bytes(8, sys.byteorder) + row["macs_last"].to_bytes(4, sys.byteorder)
    if any(raw):
        flow.ethernet.source = raw[:6].hex(":")
        flow.ethernet.destination = raw[6:].hex(":")


def _ip(flow: Any, row: Row, _: Context) -> None:
    if not row["addressed"]:
        return
    flow.IP.source = addresses.unpack(address_bytes(row["source_high"], row["source_low"]))
    flow.IP.destination = addresses.unpack(address_bytes(row["destination_high"], row["destination_low"]))
    fill_ip_flags(flow.IP, row)


def fill_ip_flags(ip: Any, row: Row) -> None:
    ip.ipVersion = flow_pb2.IPv6 if row["flags"] & IPV6 else flow_pb2.IPv4
    ip.encrypted = bool(row["flags"] & ENCRYPTED)


def _l4(flow: Any, row: Row, _: Context) -> None:
    name = PROTOCOL_FIELDS.get(row["protocol"])
    if name is None or not row["addressed"]:
        return
    layer = getattr(flow.l4, name)
    layer.SetInParent()
    if row["protocol"] in WITH_PORTS:
        layer.source_port = row["source_port"]
        layer.destination_port = row["destination_port"]
        if row["protocol"] == TCP and row["kind"] != EventKind.SOCKET:
            fill_tcp_flags(layer, row)
    elif row["protocol"] in WITH_TYPES:
        layer.type = row["icmp_type"]
        layer.code = row["icmp_code"]


def fill_tcp_flags(layer: Any, row: Row) -> None:
    layer.flags.SetInParent()
    for flag, bit in FLAG_BITS.items():
        if row["tcp_flags"] & bit:
            setattr(layer.flags, flag, True)


def _endpoint(side: str) -> Fill:
    def fill(flow: Any, row: Row, messages: Context) -> None:
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
    def fill(flow: Any, row: Row, messages: Context) -> None:
        service = messages.flows.value(row[f"{side}_service"])
        if service is not None:
            message = getattr(flow, f"{side}_service")
            message.name = service.name
            message.namespace = service.namespace

    return fill


def _is_reply(flow: Any, row: Row, _: Context) -> None:
    if row["reply"] != Reply.UNKNOWN:
        flow.is_reply.value = row["reply"] == Reply.YES


def _event_type(flow: Any, row: Row, _: Context) -> None:
    flow.event_type.type = row["kind"]
    flow.event_type.sub_type = row["sub"]


def _observation(flow: Any, row: Row, _: Context) -> None:
    if row["kind"] == EventKind.TRACE:
        flow.trace_observation_point = row["sub"] or TO_ENDPOINT


def _interface(flow: Any, row: Row, messages: Context) -> None:
    if row["device"]:
        flow.interface.index = row["device"]
        known = messages.flows.value(row["interface"])
        flow.interface.name = known.name if known else ""


def _socket(name: str, column: str) -> Fill:
    def fill(flow: Any, row: Row, _: Context) -> None:
        if row["kind"] == EventKind.SOCKET:
            setattr(flow, name, row[column])

    return fill


def _number(name: str, column: str) -> Fill:
    return lambda flow, row, _: setattr(flow, name, row[column])


def _policies(name: str, direction: Direction, denied: bool) -> Fill:
    def fill(flow: Any, row: Row, messages: Context) -> None:
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


def _log(flow: Any, row: Row, messages: Context) -> None:
    decision = messages.flows.value(row["decision"])
    if decision is not None and decision.log:
        flow.policy_log.append(decision.log)


def _uuid(flow: Any, row: Row, messages: Context) -> None:
    flow.uuid = messages.flows.ids.of(row["cpu"], row["sequence"])


def _node_labels(flow: Any, _: Row, messages: Context) -> None:
    flow.node_labels.extend(messages.node_labels)


def _type(flow: Any, row: Row, _: Context) -> None:
    flow.Type = flow_pb2.SOCK if row["kind"] == EventKind.SOCKET else flow_pb2.L3_L4


def _summary(flow: Any, row: Row, _: Context) -> None:
    flow.Summary = summary(row, with_address=row["addressed"])


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
