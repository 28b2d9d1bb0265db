"""What the kernel's maps hold, for people: `podwire bpf lb|ct|policy|ipcache list`.

Read from the maps at the moment somebody asks, never from the tables: where the two differ, this
is what packets obey. All run in a thread: tables are asked for a copy of all rows, or for one row, no more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from podwire.abi.enums import POLICY_PREFIX_PORT, POLICY_PREFIX_PROTOCOL, BackendFlags, PolicyVerdict
from podwire.abi.structs import Frontend, SlotKey
from podwire.base.addresses import ZERO, exact, join, unpack, unpack_prefix
from podwire.datapath import conntrack, rows
from podwire.datapath.maps import Maps
from podwire.model import identity
from podwire.model import protocol as protocols
from podwire.model.rule import Direction
from podwire.state.tables import RuleRow
from podwire.state.views import ReadTables

Rows = list[dict[str, Any]]


def address_of(raw: bytes, port: int, protocol: int) -> str:
    return f"{join(unpack(raw), port)}/{protocols.or_any(protocol)}"


def because(tables: ReadTables, number: int) -> str:
    """The rule behind a number, as ``kind namespace/name path``."""
    row = tables.rules.get(number)
    return told(row) if row is not None else (f"rule {number}" if number else "")


def told(row: RuleRow) -> str:
    names = ", ".join(f"{origin.kind} {origin}" for origin in row.origins)
    return f"{names}: default deny, {row.direction.word}" if row.default_deny else f"{names} {row.clause}"


def frontends(maps: Maps, tables: ReadTables) -> Rows:
    """One row a backend; one without a backend for a frontend that has none."""
    services = {(row.address, row.port, row.protocol): row for row in tables.frontends}
    found: Rows = []
    for key, frontend in maps["podwire_frontends"].items():
        known = services.get((unpack(key.address), key.port, key.protocol))
        common = {
            "frontend": address_of(key.address, key.port, key.protocol),
            "service": f"{known.namespace}/{known.service}" if known else "",
            "rev_nat": frontend.rev_nat,
            "set": frontend.set,
        }
        if not frontend.count:
            found.append({**common, "slot": -1, "backend": "", "id": 0, "state": "none"})
        for slot in range(frontend.count):
            found.append({**common, "slot": slot, **_backend(maps, frontend, slot)})
    return sorted(found, key=lambda row: (row["rev_nat"], row["frontend"], row["slot"]))


def _backend(maps: Maps, frontend: Frontend, slot: int) -> dict[str, Any]:
    if frontend.set:
        place = maps["podwire_slots"].get(SlotKey(frontend.set, slot))
    else:
        place = rows.slot_of(frontend, slot)
    chosen = place.backend if place is not None else 0
    backend = maps["podwire_backends"].get(chosen)
    if backend is None:
        return {"id": chosen, "backend": "", "state": "missing"}
    state = "terminating" if backend.flags & BackendFlags.TERMINATING else "active"
    return {"id": chosen, "backend": join(unpack(backend.address), backend.port), "state": state}


def connections(maps: Maps, tables: ReadTables) -> Rows:
    """Connections that have not expired, with the pod, the service and the rule of each."""
    services = {row.rev_nat: f"{row.namespace}/{row.service}" for row in tables.frontends}
    pods = {one: f"{row.namespace}/{row.pod}" for row in tables.endpoints for one in row.addresses}
    return [
        {
            "endpoint": pods.get(one.local, ""),
            "protocol": protocols.or_any(one.protocol),
            "scope": one.scope,
            "direction": one.direction,
            "local": join(one.local, one.local_port),
            "remote": join(one.remote, one.remote_port),
            "expires": one.expires_in,
            "packets_sent": one.packets_sent,
            "bytes_sent": one.bytes_sent,
            "packets_received": one.packets_received,
            "bytes_received": one.bytes_received,
            "flags": list(one.flags),
            "identity": one.identity,
            "service": services.get(one.rev_nat, str(one.rev_nat) if one.rev_nat else ""),
            "because": because(tables, one.rule),
        }
        for one in conntrack.Conntrack.of(maps).dump(conntrack.now())
        if one.expires_in > 0
    ]


def policies(maps: Maps, tables: ReadTables) -> Rows:
    """Entries of stage two, with who is in their class by stage one."""
    members: dict[tuple[int, int, int], list[int]] = {}
    for key, block in maps["podwire_policy_peers"].items():
        first = key.block * rows.PEER_SPAN
        for peer, number in enumerate(rows.peer_classes(block.pack()), first):
            if number:
                members.setdefault((key.policy, number, key.direction), []).append(peer)
    obeying: dict[int, list[int]] = {}
    for obeyed in tables.endpoint_policies:
        obeying.setdefault(obeyed.policy, []).append(obeyed.endpoint)
    found: Rows = []
    for key, entry in maps["podwire_policy"].items():
        named = sorted(members.get((key.policy, key.peer_class, key.direction), ()))
        found.append(
            {
                "policy": key.policy,
                "endpoints": sorted(obeying.get(key.policy, ())),
                "direction": Direction(key.direction).word,
                "peers": [_named(tables, peer) for peer in named] if key.peer_class else ["any other"],
                "port": _ports(key.prefix_length, key.protocol, key.port),
                "verdict": PolicyVerdict(entry.verdict).name.lower().replace("_", " "),
                "proxy_port": entry.proxy_port,
                "because": because(tables, entry.rule),
                "rule": entry.rule,
            }
        )
    return sorted(found, key=lambda row: (row["policy"], row["direction"], row["peers"], row["port"]))


def _named(tables: ReadTables, number: int) -> str:
    """``world``, a pod's labels, or the number."""
    row = tables.identities.get(number)
    if number in identity.RESERVED_NAMES or row is None:
        return identity.name(number)
    return ",".join(one for one in row.labels if not one.startswith("k8s:io.cilium.")) or str(number)


def _ports(prefix_length: int, protocol: int, port: int) -> str:
    if prefix_length < POLICY_PREFIX_PROTOCOL:
        return "any"
    if prefix_length == POLICY_PREFIX_PROTOCOL:
        return f"any/{protocols.or_any(protocol)}"
    span = 1 << (POLICY_PREFIX_PORT - prefix_length)
    numbers = str(port) if span == 1 else f"{port}-{port + span - 1}"
    if protocol not in protocols.WITH_PORTS:
        numbers = str(port >> 8) if span > 1 else f"{port >> 8}.{port & 0xFF}"  # type, or type and code
    return f"{numbers}/{protocols.or_any(protocol)}"


def ipcache(maps: Maps, tables: ReadTables) -> Rows:
    held = {exact(address): entry for address, entry in maps["podwire_ipcache"].items()}
    held |= {
        unpack_prefix(key.prefix_length, key.address): entry
        for key, entry in maps["podwire_ipcache_prefixes"].items()
    }
    found: Rows = []
    for prefix, entry in sorted(held.items()):
        known = tables.ipcache.get(prefix)
        found.append(
            {
                "prefix": prefix,
                "identity": entry.identity,
                "name": _named(tables, entry.identity),
                "pod": f"{known.namespace}/{known.pod}" if known is not None and known.pod else "",
                "tunnel": "" if entry.tunnel == ZERO else unpack(entry.tunnel),
                "source": known.source if known is not None else "",
            }
        )
    return found


DUMPS: dict[str, Callable[[Maps, ReadTables], Rows]] = {
    "lb": frontends,
    "ct": connections,
    "policy": policies,
    "ipcache": ipcache,
}
