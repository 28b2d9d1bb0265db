"""Flows as text, in the forms of `hubble observe`: compact, dict, table, json.

What comes from the network is escaped: nothing in a flow can move the cursor, colour the screen
or begin a line of its own.
"""

from __future__ import annotations

import json
import posixpath
import unicodedata
from datetime import UTC, datetime
from typing import Any, TextIO

from podwire.abi.enums import DROP_TEXT
from podwire.api import flow_pb2, relay_pb2
from podwire.cli.hubble_drops import DROP_TEXTS
from podwire.cli.hubble_filters import TRACE_POINTS
from podwire.model.flow import CLAUSE_LABEL, DEFAULT_DENY_LABEL
from podwire.model.identity import RESERVED_NAMES

DROP, CAPTURE, TRACE, POLICY_VERDICT, SOCKET = 1, 3, 4, 5, 7
MATCHES = ("none", "L3-Only", "L3-L4", "L4-Only", "all", "L3-Proto", "Proto-Only")
SOCKET_POINTS = {1: "pre-xlate-fwd", 2: "post-xlate-fwd", 3: "pre-xlate-rev", 4: "post-xlate-rev"}
DROP_REASONS = DROP_TEXTS | {int(reason): text for reason, text in DROP_TEXT.items() if reason >= 220}
RED, GREEN, YELLOW, MAGENTA, CYAN = 31, 32, 33, 35, 36
VERDICT_COLOURS = {1: GREEN, 5: GREEN, 2: RED, 3: RED, 4: YELLOW, 6: YELLOW, 7: YELLOW}
TIME_FORMATS = {
    "StampMilli": "",
    "YearMonthDay": "%Y-%m-%d",
    "YearMonthDayHour": "%Y-%m-%dT%HZ",
    "YearMonthDayHourMinute": "%Y-%m-%dT%H:%MZ",
    "RFC3339": "%Y-%m-%dT%H:%M:%SZ",
    "RFC3339Milli": "3",
    "RFC3339Micro": "6",
    "RFC3339Nano": "9",
    "RFC1123Z": "%a, %d %b %Y %H:%M:%S +0000",
}


def escape(text: str) -> str:
    """`text` without control characters; those a terminal acts on first become visible."""
    if text.isprintable():
        return text
    made = text.replace("\x1b", "^[").replace("\r", "\\r")
    return "".join(
        f"\\x{ord(char):02x}" if unicodedata.category(char) in ("Cc", "Cf", "Zl", "Zp") else char
        for char in made
    )


def stamp(time: Any, form: str = "StampMilli") -> str:
    """A protobuf Timestamp in UTC, in one of `TIME_FORMATS`."""
    at = datetime.fromtimestamp(time.seconds, UTC)
    pattern = TIME_FORMATS[form]
    if form == "StampMilli":
        return f"{at:%b} {at.day:2d} {at:%H:%M:%S}.{time.nanos // 1_000_000:03d}"
    if pattern.isdigit():
        fraction = f"{time.nanos:09d}"[: int(pattern)].rstrip("0")
        return f"{at:%Y-%m-%dT%H:%M:%S}{'.' if fraction else ''}{fraction}Z"
    return at.strftime(pattern)


class Style:
    """How flows are printed. `colour` paints what `hubble` paints."""

    def __init__(
        self,
        *,
        time_format: str = "StampMilli",
        translate: bool = True,
        node: bool = False,
        policies: bool = False,
        because: bool = False,
        colour: bool = False,
    ) -> None:
        self.time_format = time_format
        self.translate = translate
        self.node = node
        self.policies = policies
        self.because = because
        self.colour = colour

    def paint(self, colour: int, text: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self.colour else text

    def time(self, time: Any) -> str:
        return stamp(time, self.time_format)


# --- the parts of a flow -----------------------------------------------------------------------------


def hosts(flow: Any, style: Style) -> tuple[str, str]:
    if not flow.HasField("IP"):
        if not flow.HasField("ethernet"):
            return "", ""
        ends = flow.ethernet.source, flow.ethernet.destination
        return style.paint(CYAN, escape(ends[0])), style.paint(CYAN, escape(ends[1]))
    ports = _ports(flow)
    return (
        _host(flow.IP.source, ports[0], flow, "source", style),
        _host(flow.IP.destination, ports[1], flow, "destination", style),
    )


def _host(address: str, port: int, flow: Any, side: str, style: Style) -> str:
    endpoint, service = getattr(flow, side), getattr(flow, f"{side}_service")
    namespace = service.namespace if flow.HasField(f"{side}_service") else endpoint.namespace
    names = getattr(flow, f"{side}_names")
    host = address
    if style.translate:
        if endpoint.pod_name:
            host = posixpath.join(namespace, endpoint.pod_name)
        elif service.name:
            host = posixpath.join(namespace, service.name)
        elif names:
            host = ",".join(names)
    host = escape(host)
    if port:
        host = f"[{host}]" if ":" in host else host
        host = f"{host}:{style.paint(YELLOW, str(port))}"
    return style.paint(CYAN, host)


def _ports(flow: Any) -> tuple[int, int]:
    protocol = flow.l4.WhichOneof("protocol")
    if protocol not in ("TCP", "UDP", "SCTP"):
        return 0, 0
    layer = getattr(flow.l4, protocol)
    return layer.source_port, layer.destination_port


def identity(number: int, style: Style) -> str:
    name = RESERVED_NAMES.get(number)
    return style.paint(MAGENTA, f"({name})" if name else f"(ID:{number})")


def flow_type(flow: Any) -> str:
    if flow.HasField("l7"):
        return _layer7_type(flow.l7)
    sub = flow.event_type.sub_type
    match flow.event_type.type:
        case 4:
            return TRACE_POINTS.get(sub, str(sub))
        case 1:
            return DROP_REASONS.get(sub, f"{sub}, 0")
        case 5:
            number = flow.policy_match_type
            match = MATCHES[number] if number < len(MATCHES) else "unknown"
            return f"policy-verdict:{match} {_enum(flow_pb2.TrafficDirection, flow.traffic_direction)}"
        case 3:
            return _enum(flow_pb2.DebugCapturePoint, flow.debug_capture_point)
        case 7:
            point = flow.sock_xlate_point
            return SOCKET_POINTS.get(point, _enum(flow_pb2.SocketTranslationPoint, point))
        case _:
            return "UNKNOWN"


def _layer7_type(layer: Any) -> str:
    kind = _enum(flow_pb2.L7FlowType, layer.type).lower()
    record = layer.WhichOneof("record")
    if record == "dns":
        return escape(f"dns-{kind} {layer.dns.observation_source}")
    return f"{record or 'l7'}-{kind}"


def verdict(flow: Any, style: Style) -> str:
    number = flow.verdict
    text = _enum(flow_pb2.Verdict, number)
    if flow.event_type.type == POLICY_VERDICT and number in (1, 2, 3, 4, 5):
        text = "ALLOWED" if number in (1, 5) else "AUDITED" if number == 4 else "DENIED"
        if style.policies and number != 4:
            text += _policy_names(flow, "allowed" if number in (1, 5) else "denied")
    colour = VERDICT_COLOURS.get(number)
    return style.paint(colour, text) if colour else text


def _policy_names(flow: Any, effect: str) -> str:
    direction = {1: "ingress", 2: "egress"}.get(flow.traffic_direction)
    policies = getattr(flow, f"{direction}_{effect}_by") if direction else ()
    named = [f"{escape(p.name)} ({escape(p.kind)})" for p in policies if p.kind and p.name]
    return f" BY {', '.join(named)}" if named else ""


def because(flow: Any) -> str:
    """The rules behind the verdict: ``prod/backend spec.ingress[0]``; - if no rule was asked."""
    policies = [
        *flow.ingress_denied_by,
        *flow.egress_denied_by,
        *flow.ingress_allowed_by,
        *flow.egress_allowed_by,
    ]
    found = []
    for policy in policies:
        name = f"{policy.namespace}/{policy.name}" if policy.namespace else policy.name
        clause = next((label for label in policy.labels if label.startswith(CLAUSE_LABEL)), "")
        found.append(escape(f"{name} {clause.removeprefix(CLAUSE_LABEL)}".strip()))
    if any(DEFAULT_DENY_LABEL in policy.labels for policy in policies):
        return f"default deny ({', '.join(found)})"
    return ", ".join(found) or "-"


def summary(flow: Any, style: Style) -> str:
    text = f"IP Trace ID: {flow.ip_trace_id.trace_id}; " if flow.ip_trace_id.trace_id else ""
    text += escape(flow.Summary)
    if flow.auth_type:
        colour = RED if flow.auth_type == flow_pb2.TEST_ALWAYS_FAIL else GREEN
        text += "; Auth: " + style.paint(colour, _enum(flow_pb2.AuthType, flow.auth_type))
    return text


def _enum(enum: Any, number: int) -> str:
    return str(enum.Name(number)) if number in enum.values() else str(number)


# --- json --------------------------------------------------------------------------------------------


def as_json(message: Any) -> str:
    """proto3's JSON with the names of the .proto, in its order; as Go's encoder writes it."""
    from google.protobuf.json_format import MessageToDict

    made = _in_order(MessageToDict(message, preserving_proto_field_name=True), message.DESCRIPTOR)
    text = json.dumps(made, separators=(",", ":"), ensure_ascii=False)
    return "".join(_JSON_ESCAPES.get(char) or _invisible(char) for char in text)


# What Go's encoder escapes besides what JSON must.
_JSON_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}


def _invisible(char: str) -> str:
    """The escape of a character that would act on a terminal; others as they are."""
    if char.isprintable():
        return char
    units = char.encode("utf-16-be")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))


def _in_order(made: Any, descriptor: Any) -> Any:
    """Keys in the order of declaration; MessageToDict has them in that of their numbers."""
    if not isinstance(made, dict) or descriptor.full_name.startswith("google.protobuf."):
        return made
    ordered = {}
    for field in descriptor.fields:
        if field.name in made:
            value = made[field.name]
            if field.message_type is not None:
                value = (
                    [_in_order(item, field.message_type) for item in value]
                    if isinstance(value, list)
                    else _in_order(value, field.message_type)
                )
            ordered[field.name] = value
    return ordered


# --- tables ------------------------------------------------------------------------------------------


def table(rows: list[list[str]], out: TextIO) -> None:
    """Columns three blanks apart; the last one is not padded. Rows have equal lengths."""
    if not rows:
        return
    widths = [max(2, *(len(row[i]) + 3 for row in rows)) for i in range(len(rows[0]) - 1)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        out.write("".join(cells) + row[-1] + "\n")


def node_state(state: int) -> str:
    return str(relay_pb2.NodeState.Name(state)) if state in relay_pb2.NodeState.values() else str(state)
