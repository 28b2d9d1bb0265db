"""Connections: sweep what has expired, forget a pod's, show them.

The map is an LRU hash that the programs write; an entry that expired counts as gone there, so
sweeping only gives back room before the kernel takes it from connections that live.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Iterator

import msgspec

from podwire.abi import enums, structs
from podwire.base import addresses
from podwire.bpf.map import Map
from podwire.model.rule import Direction

log = logging.getLogger(__name__)

INTERVAL = 60.0  # s between sweeps
BUSY_INTERVAL = 10.0  # while a quarter of the table fills: the kernel would forget idle ones that live
GRACE = 10  # s: an entry may have come back to life between being read and being removed


class Connection(msgspec.Struct, frozen=True):
    """One entry, seen from its endpoint. Times in s of CLOCK_BOOTTIME, counters since it was opened."""

    local: str
    local_port: int
    remote: str
    remote_port: int
    protocol: int
    scope: str  # flow | service
    direction: str  # ingress | egress: who opened it
    expires_in: int  # s; negative = expired
    identity: int
    rule: int
    backend: int
    rev_nat: int
    packets_sent: int
    bytes_sent: int
    packets_received: int
    bytes_received: int
    flags: tuple[str, ...]


def now() -> int:
    """The clock that entries expire by."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME))


def sweep(table: Map[structs.CtKey, structs.CtEntry], at: int) -> tuple[int, int]:
    """Remove what expired more than GRACE before `at`; (removed, left)."""
    import numpy as np

    from podwire.abi.dtypes import CT_ENTRY

    keys, values = table.snapshot()
    expires = np.frombuffer(values, dtype=CT_ENTRY)["expires"].astype("i8")
    gone = np.flatnonzero(expires + GRACE < at).tolist()
    with table.untyped() as bare:
        removed = bare.delete_many(_key(keys, index) for index in gone)
    return removed, len(expires) - removed


def forget(table: Map[structs.CtKey, structs.CtEntry], local: Iterable[str]) -> int:
    """Remove all connections of these addresses: the next pod that has one inherits nothing."""
    gone = {addresses.pack(address) for address in local}
    snapshot, _ = table.snapshot()
    keys = (_key(snapshot, index) for index in range(len(snapshot) // structs.CtKey.SIZE))
    with table.untyped() as bare:
        return bare.delete_many(key for key in keys if key[:16] in gone)


def _key(keys: bytes, index: int) -> bytes:
    # From the bytes and not from an array: numpy leaves padding behind when it copies structs.
    return keys[index * structs.CtKey.SIZE : (index + 1) * structs.CtKey.SIZE]


def dump(table: Map[structs.CtKey, structs.CtEntry], at: int) -> Iterator[Connection]:
    """Every connection, expired ones that were not swept yet as well."""
    for key, entry in table.items():
        yield Connection(
            local=addresses.unpack(key.local),
            local_port=key.local_port,
            remote=addresses.unpack(key.remote),
            remote_port=key.remote_port,
            protocol=key.protocol,
            scope=enums.CtScope(key.scope).name.lower(),
            direction=Direction(entry.direction).word if entry.direction else "",
            expires_in=entry.expires - at,
            identity=entry.identity,
            rule=entry.rule,
            backend=entry.backend,
            rev_nat=entry.rev_nat,
            packets_sent=entry.packets_sent,
            bytes_sent=entry.bytes_sent,
            packets_received=entry.packets_received,
            bytes_received=entry.bytes_received,
            flags=tuple(str(one.name).lower() for one in enums.CtFlags(entry.flags)),
        )


async def run(table: Map[structs.CtKey, structs.CtEntry], *, interval: float = INTERVAL) -> None:
    """Sweep for ever, in a thread beside the loop."""
    pause = interval
    while True:
        await asyncio.sleep(pause)
        removed, left = await asyncio.to_thread(sweep, table, now())
        busy = removed + left > table.capacity // 4
        pause = min(interval, BUSY_INTERVAL) if busy else interval
        if removed:
            log.debug("removed %d expired connections, %d left", removed, left)
