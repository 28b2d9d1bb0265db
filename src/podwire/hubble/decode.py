"""The second step up: kernel records to columns.

Pure, and no Python per event: each column is one operation on an array. Numbers become Hubble's
numbers here; names come in the next step.

Addresses stay 16 bytes (IPv4 as v4-mapped), as two 64-bit halves in memory order: equality and
prefixes need no more, and a half is one machine word.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from podwire.abi.dtypes import EVENT
from podwire.abi.enums import Direction, EventFlags, EventKind, SocketPoint
from podwire.model.flow import Reply, Verdict

Array = NDArray[Any]
Columns = dict[str, Array]

# Name → type of every column that comes from the record itself, in the order they are filled.
DECODED: dict[str, str] = {
    "time": "i8",  # ns since the epoch
    "sequence": "u8",
    "source_high": "u8",
    "source_low": "u8",
    "destination_high": "u8",
    "destination_low": "u8",
    "original_high": "u8",
    "original_low": "u8",
    "cookie": "u8",
    "cgroup": "u8",
    "macs_first": "u8",  # 12 bytes: source, destination
    "macs_last": "u4",
    "source_identity": "u4",
    "destination_identity": "u4",
    "rule": "u4",
    "policy": "u4",
    "length": "u4",
    "device": "u4",
    "source_port": "u2",
    "destination_port": "u2",
    "original_port": "u2",
    "proxy_port": "u2",
    "source_endpoint": "u2",
    "destination_endpoint": "u2",
    "cpu": "u2",
    "error": "u2",
    "kind": "u1",  # Hubble's event type
    "sub": "u1",  # and sub-type: drop reason, observation point, translation point
    "verdict": "u1",
    "drop_reason": "u1",
    "trace_reason": "u1",
    "direction": "u1",
    "reply": "u1",
    "protocol": "u1",
    "tcp_flags": "u1",
    "icmp_type": "u1",
    "icmp_code": "u1",
    "match": "u1",
    "flags": "u1",
}

# Members that are columns as they are.
PLAIN = tuple(
    name for name, kind in DECODED.items() if name in (EVENT.names or ()) and name not in ("time", "kind")
)


def _halves() -> np.dtype[Any]:
    """A view of `struct event` with addresses and MACs as machine words."""
    fields = EVENT.fields
    assert fields is not None
    offsets = {name: field[1] for name, field in fields.items()}
    words = {}
    for name in ("source", "destination", "original"):
        words[f"{name}_high"] = ("u8", offsets[name])
        words[f"{name}_low"] = ("u8", offsets[name] + 8)
    words["macs_first"] = ("u8", offsets["source_mac"])
    words["macs_last"] = ("u4", offsets["source_mac"] + 8)
    return np.dtype(
        {
            "names": list(words),
            "formats": [kind for kind, _ in words.values()],
            "offsets": [offset for _, offset in words.values()],
            "itemsize": EVENT.itemsize,
        }
    )


WORDS = _halves()
_NAMED = WORDS.names or ()

# Verdict by (kind, point), for kinds below 8 and points below 8.
_VERDICTS = np.zeros((8, 8), dtype="u1")
_VERDICTS[EventKind.DROP, :] = Verdict.DROPPED
_VERDICTS[EventKind.TRACE, :] = Verdict.FORWARDED
_VERDICTS[EventKind.VERDICT, :] = np.arange(8)  # the record says it in Hubble's numbers
_VERDICTS[EventKind.SOCKET, SocketPoint.PRE_FORWARD] = Verdict.TRACED
_VERDICTS[EventKind.SOCKET, SocketPoint.PRE_REVERSE] = Verdict.TRACED
_VERDICTS[EventKind.SOCKET, SocketPoint.POST_FORWARD] = Verdict.TRANSLATED
_VERDICTS[EventKind.SOCKET, SocketPoint.POST_REVERSE] = Verdict.TRANSLATED

# Reply by flags & (REPLY_KNOWN | REPLY).
_REPLIES = np.zeros(8, dtype="u1")
_REPLIES[EventFlags.REPLY_KNOWN] = Reply.NO
_REPLIES[EventFlags.REPLY_KNOWN | EventFlags.REPLY] = Reply.YES
_REPLY_BITS = np.uint8(EventFlags.REPLY_KNOWN | EventFlags.REPLY)


def empty(count: int) -> Columns:
    """Columns for `count` rows; memory is touched only where rows are written."""
    return {name: np.zeros(count, dtype=kind) for name, kind in DECODED.items()}


def decode(records: Array, boot_to_wall: int, out: Columns) -> None:
    """Fill `out` (arrays of `len(records)`) from `records` (dtype EVENT).

    `boot_to_wall` is what to add to CLOCK_BOOTTIME to have ns since the epoch.
    """
    out["time"][:] = records["time"]
    out["time"] += boot_to_wall
    words = records.view(WORDS)
    for name in _NAMED:
        out[name][:] = words[name]
    for name in PLAIN:
        out[name][:] = records[name]
    _interpret(records, out)


def _interpret(records: Array, out: Columns) -> None:
    kind = out["kind"]
    kind[:] = records["kind"]
    point, reason = records["point"], records["reason"]
    drop, trace, asked = kind == EventKind.DROP, kind == EventKind.TRACE, kind == EventKind.VERDICT

    verdict = out["verdict"]
    verdict[:] = _VERDICTS[np.minimum(kind, 7), np.minimum(point, 7)]
    forwarded = asked & (verdict == Verdict.FORWARDED)
    verdict[forwarded & (out["proxy_port"] != 0)] = Verdict.REDIRECTED
    verdict[forwarded & (reason != 0)] = Verdict.AUDIT  # denied, but only told
    denied = asked & (verdict == Verdict.DROPPED)

    out["sub"][:] = np.where(drop, reason, np.where(asked, 0, point))
    out["drop_reason"][:] = np.where(drop, reason, 0)
    # A denied verdict has the reason of the drop that follows it; where the record leaves it out,
    # it is what the policy's verdict means.
    out["drop_reason"][denied] = np.where(reason[denied] >= 128, reason[denied], 133)
    out["trace_reason"][:] = np.where(trace, reason, 0)

    out["direction"][out["direction"] > Direction.EGRESS] = Direction.UNKNOWN

    reply = out["reply"]
    reply[:] = _REPLIES[out["flags"] & _REPLY_BITS]
    # Verdicts are asked for the first packet of a connection, which answers nothing.
    reply[asked & ~denied] = Reply.NO


def address_bytes(high: Any, low: Any) -> bytes:
    """The 16 bytes of an address from its two words."""
    return int(high).to_bytes(8, sys.byteorder) + int(low).to_bytes(8, sys.byteorder)


def address_words(raw: bytes) -> tuple[np.uint64, np.uint64]:
    """The inverse of `address_bytes`."""
    words = np.frombuffer(raw, dtype="u8")
    return words[0], words[1]
