"""Connections, block by block as the kernel gives them: there may be a million, and no list of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from podwire.abi import dtypes, enums
from podwire.agent.dumps.names import Names
from podwire.agent.dumps.wanted import Mask, Wanted, among, within
from podwire.base.addresses import join, pack, unpack
from podwire.datapath import conntrack
from podwire.datapath.maps import Maps
from podwire.model import protocol as protocols
from podwire.model.rule import Direction
from podwire.state.views import ReadTables

Rows = list[dict[str, Any]]
ROWS = 512  # that become text at once: between them others may run, and a client that is slow stops it
DIRECTIONS = {int(one): one.word for one in Direction} | {0: ""}
COUNTERS = ("packets_sent", "bytes_sent", "packets_received", "bytes_received")


def connections(maps: Maps, tables: ReadTables, wanted: Wanted) -> Iterator[Rows]:
    """Connections that have not expired, with the pod, the service and the rule of each."""
    names, own = Names(tables), _own(tables, wanted)
    for name in ("podwire_conntrack", "podwire_ct_overflow"):
        for keys, values in maps[name].blocks():
            now = conntrack.now()
            key, entry = np.frombuffer(keys, dtypes.CT_KEY), np.frombuffer(values, dtypes.CT_ENTRY)
            shown = np.flatnonzero((entry["expires"] > now) & _matching(key, wanted, own))
            for start in range(0, len(shown), ROWS):
                part = shown[start : start + ROWS]
                yield _rows(key[part], entry[part], names, now)


def _own(tables: ReadTables, wanted: Wanted) -> list[bytes] | None:
    """Addresses of the endpoints that are wanted; None = all there are, also of pods that are gone."""
    numbers = wanted.endpoints
    if numbers is None:
        return None
    return [pack(one) for row in tables.endpoints if row.id in numbers for one in row.addresses]


def _matching(key: Any, wanted: Wanted, own: list[bytes] | None) -> Mask:
    """An address or a port is wanted at either end."""
    found: Mask = np.ones(len(key), dtype=bool)
    if own is not None:
        found &= among(key["local"], own)
    if wanted.prefix is not None:
        found &= within(key["local"], wanted.prefix) | within(key["remote"], wanted.prefix)
    if wanted.port is not None:
        found &= (key["local_port"] == wanted.port) | (key["remote_port"] == wanted.port)
    if wanted.protocol is not None:
        found &= key["protocol"] == wanted.protocol
    return found


def _rows(key: Any, entry: Any, names: Names, now: int) -> Rows:
    # What stands behind the flags of a remembered backend is a backend: no identity, rule or counters.
    flow = (entry["flags"] & enums.CtFlags.MEMORY) == 0
    whole = {
        name: np.where(flow, entry[name], 0).tolist()  # plain numbers: JSON has no other
        for name in ("identity", "rule", *COUNTERS)
    }
    flags = {number: _flags(number) for number in np.unique(entry["flags"]).tolist()}
    ends = zip(
        map(bytes, key["local"]),
        key["local_port"].tolist(),
        map(bytes, key["remote"]),
        key["remote_port"].tolist(),
        strict=True,
    )
    columns = zip(
        ends,
        key["protocol"].tolist(),
        flow.tolist(),
        entry["direction"].tolist(),
        (entry["expires"].astype("i8") - now).tolist(),
        zip(*(whole[name] for name in COUNTERS), strict=True),
        entry["flags"].tolist(),
        whole["identity"],
        entry["rev_nat"].tolist(),
        whole["rule"],
        strict=True,
    )
    return [
        {
            "endpoint": names.pod(local),
            "protocol": protocols.or_any(protocol),
            "scope": "flow" if is_flow else "service",
            "direction": DIRECTIONS.get(direction, ""),
            "local": join(unpack(local), local_port),
            "remote": join(unpack(remote), remote_port),
            "expires": expires,
            **dict(zip(COUNTERS, counters, strict=True)),
            "flags": flags[flag],
            "identity": identity,
            "service": names.service(rev_nat),
            "because": names.because(rule),
        }
        for (
            (local, local_port, remote, remote_port),
            protocol,
            is_flow,
            direction,
            expires,
            counters,
            flag,
            identity,
            rev_nat,
            rule,
        ) in columns
    ]


def _flags(number: int) -> list[str]:
    return [str(one.name).lower() for one in enums.CtFlags(number)]
