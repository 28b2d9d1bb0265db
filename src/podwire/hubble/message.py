"""Rows to Hubble's messages, for the rows that somebody asked for.

Only the parts a field mask wants are filled; without a mask all of them. `hubble.parts` defines each.
`Messages.responses` makes messages of them, one by one; `Messages.encoded` gives the bytes of the
same messages at a fraction of the cost, from parts it made before (`hubble.wire`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from google.protobuf.field_mask_pb2 import FieldMask
from numpy.typing import NDArray

from podwire.abi.enums import EventKind
from podwire.api import flow_pb2, observer_pb2
from podwire.base.errors import InvalidObject
from podwire.hubble import wire
from podwire.hubble.flows import Flows
from podwire.hubble.parts import PARTS, Row, fill_ip_flags, fill_tcp_flags
from podwire.model.flow import PRINTED_FIELDS
from podwire.model.protocol import TCP

Array = NDArray[Any]
MOST_PATHS = 256


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


# Parts that depend on the same columns, and are kept together by their values.
GROUPS: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (
        (
            "kind",
            "sub",
            "verdict",
            "drop_reason",
            "trace_reason",
            "direction",
            "reply",
            "match",
            "proxy_port",
            "device",
            "interface",
            "decision",
        ),
        (
            "verdict",
            "drop_reason",
            "Type",
            "reply",
            "event_type",
            "traffic_direction",
            "policy_match_type",
            "trace_observation_point",
            "trace_reason",
            "drop_reason_desc",
            "is_reply",
            "interface",
            "proxy_port",
            "sock_xlate_point",
            "egress_allowed_by",
            "ingress_allowed_by",
            "egress_denied_by",
            "ingress_denied_by",
            "policy_log",
        ),
    ),
    (("source_endpoint", "source_identity", "source_party", "source_service"), ("source", "source_service")),
    (
        ("destination_endpoint", "destination_identity", "destination_party", "destination_service"),
        ("destination", "destination_service"),
    ),
    (("macs_first", "macs_last"), ("ethernet",)),
    (("kind", "cookie", "cgroup"), ("socket_cookie", "cgroup_id")),
    (("kind", "protocol", "tcp_flags", "icmp_type", "icmp_code", "flags", "addressed"), ("Summary",)),
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
        self._wanted = [name for name in PARTS if name in wanted]
        self._mask, self._clear = _nested(paths)
        self._encoder: Encoder | None = None

    def encoded(self, rows: Array) -> Iterable[bytes]:
        """The same as `responses`, as it travels."""
        cleared = {name for name, _ in self._clear}
        if self._mask is not None or cleared & Encoder.BY_HAND:
            return (response.SerializeToString() for response in self.responses(rows))
        if self._encoder is None:
            self._encoder = Encoder(self, self._wanted, repr(self._clear))
        return self._encoder.encoded(rows)

    def part(self, names: Sequence[str], row: Row) -> bytes:
        """The bytes of some parts of a flow's message."""
        flow = flow_pb2.Flow()
        self._fill(names, row, flow)
        raw: bytes = flow.SerializeToString()
        return raw

    def responses(self, rows: Array) -> Iterator[Any]:
        """GetFlowsResponse for row numbers that are stored now."""
        for row in self.flows.store.rows(rows):
            row["addressed"] = bool(
                row["source_high"] | row["source_low"] | row["destination_high"] | row["destination_low"]
            )
            response = observer_pb2.GetFlowsResponse(node_name=self.flows.node)
            response.time.FromNanoseconds(row["time"])
            response.flow.SetInParent()
            if self._mask is None:
                self._fill(self._wanted, row, response.flow)
            else:
                whole = flow_pb2.Flow()
                self._fill(self._wanted, row, whole)
                # MergeMessage, not JSON: paths such as IP and Summary do not survive camel case.
                self._mask.MergeMessage(whole, response.flow)
            yield response

    def flow(self, number: int) -> Any:
        """flow.Flow of the row numbered `number`; KeyError if it is not stored (any more)."""
        if not self.flows.store.first <= number < self.flows.store.end:
            raise KeyError(number)
        return next(self.responses(np.array([number]))).flow

    def _fill(self, names: Sequence[str], row: Row, flow: Any) -> None:
        for name in names:
            PARTS[name](flow, row, self)
        for name, fields in self._clear:
            if name in names and flow.HasField(name):
                part = getattr(flow, name)
                for field in fields:
                    part.ClearField(field)


class Encoder:
    """Bytes of responses with the parts `wanted`; what is kept is shared by all who ask for the same."""

    # Parts that are written for each row, and not kept.
    BY_HAND = frozenset({"time", "uuid", "IP", "l4"})

    def __init__(self, messages: Messages, wanted: list[str], cleared: str) -> None:
        self._messages = messages
        flows = messages.flows
        self._store = flows.store
        self._uuids = wire.Uuids(flows.ids.of) if "uuid" in wanted else None
        self._ips = wire.Ips() if "IP" in wanted else None
        self._ports = wire.Ports() if "l4" in wanted else None
        self._time = "time" in wanted
        self._head = messages.part([name for name in ("node_name", "node_labels") if name in wanted], {})
        self._tail = (
            observer_pb2.GetFlowsResponse(node_name=flows.node).SerializeToString() + wire.RESPONSE_TIME
        )
        self._groups = []
        for columns, together in GROUPS:
            names = tuple(name for name in together if name in wanted)
            if names:
                make = partial(messages.part, names)
                self._groups.append(flows.kept.group((names, cleared), columns, make))
        self._ip_flags = flows.kept.group(("IP flags",), wire.IP_COLUMNS, _ip_flags)
        self._layers = flows.kept.group(("layers",), wire.LAYER_COLUMNS, self._layer)
        needed = {"time", "cpu", "sequence", "source_port", "destination_port", *wire.DERIVED_FROM}
        needed.update(*(group.columns for group in (*self._groups, self._ip_flags, self._layers)))
        self._columns = sorted(needed - wire.DERIVED)

    def encoded(self, rows: Array) -> Iterator[bytes]:
        flows, count = self._messages.flows, len(rows)
        columns = wire.derived(self._store.pick(rows, self._columns))
        flows.kept.meanings(flows.names.sweeps)
        parts = [group.of(columns, count) for group in self._groups]
        if self._ips is not None:
            parts.append(self._ips.of(columns, self._ip_flags.of(columns, count), count))
        if self._ports is not None:
            parts.append(self._ports.of(columns, self._layers.of(columns, count)))
        if self._uuids is not None:
            parts.append(self._uuids.of(columns["cpu"], columns["sequence"]))
        times = wire.stamps(columns["time"])
        if self._time:
            parts.append([wire.TIME + time for time in times])
        head, tail, length = self._head, self._tail, wire.length
        for time, *made in zip(times, *parts, strict=True):
            flow = head + b"".join(made)
            yield b"%b%b%b%b%b" % (wire.RESPONSE_FLOW, length(len(flow)), flow, tail, time)

    def _layer(self, row: Row) -> bytes:
        """What follows the ports in a layer that has them; a layer that has none, whole."""
        if not row["layer"]:
            return self._messages.part(("l4",), row)
        behind = flow_pb2.TCP()
        if row["layer"] == TCP and row["kind"] != EventKind.SOCKET:
            fill_tcp_flags(behind, row)
        raw: bytes = behind.SerializeToString()
        return raw


def _ip_flags(row: Row) -> bytes:
    """What follows the addresses."""
    behind = flow_pb2.IP()
    fill_ip_flags(behind, row)
    raw: bytes = behind.SerializeToString()
    return raw


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
