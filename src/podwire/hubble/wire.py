"""Rows to bytes: `GetFlowsResponse` as it travels, put together from parts that were made before.

Most of what a flow's message says it says of many flows: who is at either end, what was decided,
on which device. Such parts are made once as a message (`hubble.message`), kept as bytes by the
columns they were made from, and joined: in Protocol Buffers the fields of a message are the
concatenation of its fields. Only what is different in every flow (its time, its id, its ports) is
written here byte by byte, for 256 rows at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from podwire.abi.enums import EventKind
from podwire.api import flow_pb2, observer_pb2
from podwire.base import addresses
from podwire.model.protocol import SCTP, TCP, UDP

Array = NDArray[Any]
Columns = dict[str, Array]
Make = Callable[[dict[str, Any]], bytes]
# Parts kept of one group: a few hundred bytes each.
MOST_KEPT = 4096
# Groups kept: those of some masks that are in use; clients choose masks.
MOST_GROUPS = 40

_LENGTH_DELIMITED = 2
_FLOW = flow_pb2.Flow.DESCRIPTOR.fields_by_name
_RESPONSE = observer_pb2.GetFlowsResponse.DESCRIPTOR.fields_by_name


def varint(value: int) -> bytes:
    """Of a number that is not negative."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _tag(fields: Any, name: str, wire_type: int = _LENGTH_DELIMITED) -> bytes:
    return varint(fields[name].number << 3 | wire_type)


TIME = _tag(_FLOW, "time")
UUID = _tag(_FLOW, "uuid") + bytes([36])
L4 = _tag(_FLOW, "l4")
IP = _tag(_FLOW, "IP")
RESPONSE_FLOW = _tag(_RESPONSE, "flow")
RESPONSE_TIME = _tag(_RESPONSE, "time")
_LAYERS = flow_pb2.Layer4.DESCRIPTOR.fields_by_name
WITH_PORTS = {
    TCP: _tag(_LAYERS, "TCP"),
    UDP: _tag(_LAYERS, "UDP"),
    SCTP: _tag(_LAYERS, "SCTP"),
}
_SOURCE_PORT, _DESTINATION_PORT = b"\x08", b"\x10"  # fields 1 and 2 of each of them
# Lengths below 128 are one byte, and nearly all lengths here are below 4096.
_LENGTHS = [varint(length) for length in range(4096)]


def length(value: int) -> bytes:
    return _LENGTHS[value] if value < 4096 else varint(value)


class Group:
    """Parts that depend on the same few columns, kept by their values."""

    def __init__(self, columns: Sequence[str], make: Make) -> None:
        self.columns = tuple(columns)
        self._make = make
        self._most = MOST_KEPT
        self._kept: dict[bytes, bytes] = {}

    def forget(self) -> None:
        self._kept.clear()

    def retire(self) -> None:
        """Keep nothing beyond a batch from now on: too many others are kept."""
        self._most = 0
        self._kept.clear()

    def of(self, columns: Columns, count: int) -> list[bytes]:
        """The bytes of each row; `columns` are those of the rows asked for."""
        keys = _keys([columns[name] for name in self.columns], count)
        found = list(map(self._kept.get, keys))
        if None in found:
            if len(self._kept) + count > self._most:
                self._kept.clear()
            for index, part in enumerate(found):
                if part is None:
                    found[index] = self._part(keys[index], columns, index)
        return found  # type: ignore[return-value]  # no None is left

    def _part(self, key: bytes, columns: Columns, index: int) -> bytes:
        part = self._kept.get(key)
        if part is None:
            part = self._make({name: int(columns[name][index]) for name in self.columns})
            self._kept[key] = part
        return part


def _keys(columns: list[Array], count: int) -> list[bytes]:
    """The values of each row side by side, as bytes."""
    widths = [column.itemsize for column in columns]
    rows = np.empty((count, sum(widths)), dtype="u1")
    at = 0
    for column, width in zip(columns, widths, strict=True):
        rows[:, at : at + width] = column.view("u1").reshape(count, width)
        at += width
    keys: list[bytes] = rows.view(f"V{at}").ravel().tolist()
    return keys


class Kept:
    """The groups of all requests to a node: those for the same parts are the same."""

    def __init__(self) -> None:
        self._groups: dict[Hashable, Group] = {}
        self._sweeps = 0

    def __len__(self) -> int:
        return len(self._groups)

    def group(self, key: Hashable, columns: Sequence[str], make: Make) -> Group:
        group = self._groups.pop(key, None) or Group(columns, make)
        self._groups[key] = group  # the last one used
        if len(self._groups) > MOST_GROUPS:
            self._groups.pop(next(iter(self._groups))).retire()
        return group

    def meanings(self, sweeps: int) -> None:
        """Interned numbers mean what they did when names were swept `sweeps` times."""
        if sweeps != self._sweeps:
            self._sweeps = sweeps
            for group in self._groups.values():
                group.forget()


def stamps(times: Array) -> list[bytes]:
    """google.protobuf.Timestamp with its length, of ns since the epoch."""
    seconds, nanos = np.divmod(times, 1_000_000_000)
    prefix, last = b"", -1
    made = []
    for second, nano in zip(seconds.tolist(), nanos.tolist(), strict=True):
        if second != last:
            last, prefix = second, b"\x08" + varint(second)
        if nano >= 1 << 21:  # all but the first two milliseconds of a second
            if nano >= 1 << 28:
                tail = b"\x10%c%c%c%c%c" % (
                    nano & 127 | 128,
                    nano >> 7 & 127 | 128,
                    nano >> 14 & 127 | 128,
                    nano >> 21 & 127 | 128,
                    nano >> 28,
                )
            else:
                tail = b"\x10%c%c%c%c" % (
                    nano & 127 | 128,
                    nano >> 7 & 127 | 128,
                    nano >> 14 & 127 | 128,
                    nano >> 21,
                )
        else:
            tail = b"\x10" + varint(nano) if nano else b""
        made.append(b"%c%b%b" % (len(prefix) + len(tail), prefix, tail))
    return made


class Uuids:
    """The field `uuid`; `of(cpu, sequence)` defines it, and its first half is the same for a CPU."""

    def __init__(self, of: Callable[[int, int], str]) -> None:
        self._of = of
        self._heads: dict[int, bytes] = {}

    def of(self, cpus: Array, sequences: Array) -> list[bytes]:
        variant = np.uint64(2 << 62) | sequences & np.uint64((1 << 62) - 1)
        high, low = (variant >> np.uint64(48)).tolist(), (variant & np.uint64((1 << 48) - 1)).tolist()
        heads = [self._heads.get(cpu) or self._head(cpu) for cpu in cpus.tolist()]
        return [b"%b%04x-%012x" % parts for parts in zip(heads, high, low, strict=True)]

    def _head(self, cpu: int) -> bytes:
        head = self._heads[cpu] = UUID + self._of(cpu, 0)[:19].encode()
        return head


class _Texts(dict[bytes, bytes]):
    """A field with the text of an address of 16 bytes in it; no address is left out."""

    def __init__(self, tag: int) -> None:
        super().__init__()
        self._tag = tag

    def __missing__(self, raw: bytes) -> bytes:
        if raw[:12] == addresses.V4_MAPPED:
            text = b"%d.%d.%d.%d" % (raw[12], raw[13], raw[14], raw[15])
        else:
            text = addresses.unpack(raw).encode()
        field = self[raw] = b"%c%c%b" % (self._tag, len(text), text) if text else b""
        return field


class Ips:
    """The field `IP`: the addresses, and behind them what `behind` has of the row."""

    def __init__(self) -> None:
        self._sources, self._destinations = _Texts(0x0A), _Texts(0x12)

    def of(self, columns: Columns, behind: list[bytes], count: int) -> list[bytes]:
        """A row without addresses has no such field."""
        found = []
        for texts, side in ((self._sources, "source"), (self._destinations, "destination")):
            if len(texts) > MOST_KEPT:
                texts.clear()
            keys = _keys([columns[f"{side}_high"], columns[f"{side}_low"]], count)
            found.append([texts[key] for key in keys])
        made = []
        for source, destination, rest, addressed in zip(
            *found, behind, columns["addressed"].tolist(), strict=True
        ):
            inner = source + destination + rest
            made.append(b"%b%c%b" % (IP, len(inner), inner) if addressed else b"")
        return made


IP_COLUMNS = ("flags",)
LAYER_COLUMNS = ("kind", "protocol", "tcp_flags", "icmp_type", "icmp_code", "addressed", "layer")


class _Field(dict[int, bytes]):
    """A field with a small number in it: each number is written once. 0 is left out."""

    def __init__(self, tag: bytes) -> None:
        super().__init__({0: b""})
        self._tag = tag

    def __missing__(self, value: int) -> bytes:
        written = self[value] = self._tag + varint(value)
        return written


class Ports:
    """The field `l4` of protocols that have ports; what comes behind the ports is `flags` of the row."""

    # At most 65,536 of each, shared by all requests.
    _source = _Field(_SOURCE_PORT)
    _destination = _Field(_DESTINATION_PORT)

    def of(self, columns: Columns, flags: list[bytes]) -> list[bytes]:
        """`columns` has `layer`: the protocol, or 0 of a row without such a layer."""
        made = []
        sources, destinations = self._source, self._destination
        for layer, source, destination, behind in zip(
            columns["layer"].tolist(),
            columns["source_port"].tolist(),
            columns["destination_port"].tolist(),
            flags,
            strict=True,
        ):
            if not layer:
                made.append(behind)
                continue
            inner = sources[source] + destinations[destination] + behind
            size = len(inner)
            made.append(b"%b%c%b%c%b" % (L4, size + 2, WITH_PORTS[layer], size, inner))
        return made


DERIVED_FROM = (
    "source_high",
    "source_low",
    "destination_high",
    "destination_low",
    "protocol",
    "kind",
    "cookie",
    "cgroup",
)


def derived(columns: Columns) -> Columns:
    """The columns, and what parts of messages ask of several of them together.

    `cookie` and `cgroup` mean something only at sockets: elsewhere they are 0, and one part serves all.
    """
    addressed = (
        columns["source_high"]
        | columns["source_low"]
        | columns["destination_high"]
        | columns["destination_low"]
    ) != 0
    protocol = columns["protocol"]
    with_ports = addressed & ((protocol == TCP) | (protocol == UDP) | (protocol == SCTP))
    socket = columns["kind"] == EventKind.SOCKET
    return columns | {
        "addressed": addressed,
        "layer": np.where(with_ports, protocol, 0).astype("u1"),
        "cookie": np.where(socket, columns["cookie"], 0),
        "cgroup": np.where(socket, columns["cgroup"], 0),
    }


DERIVED = frozenset({"addressed", "layer"})
