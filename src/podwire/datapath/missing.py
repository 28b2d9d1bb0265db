"""What the kernel does not know because a map is full, and which endpoints that could let more through.

A row that is missing is no answer, but a lookup has one all the same: an identity without a row is of
the class of any other, an address without one is its prefix's identity or the world's. Endpoints whose
policy says something else to the one than to the other get a flag, and the programs take no such answer
for them (bpf/lib/policy.h). Why so: docs/decisions/full-maps.md.

That is worked out for the maps that are judged here. Of any other that decides nobody knows whom its
lack matters to, so nothing passes anybody (`spec.Lack`).
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from podwire.abi import enums, structs
from podwire.abi.enums import EndpointFlags
from podwire.bpf.map import U32
from podwire.datapath import rows
from podwire.datapath.catalogue import endpoint, ipcache, policy
from podwire.datapath.mirror import Mirror
from podwire.model import identity
from podwire.model.rule import Direction
from podwire.state.views import ReadTables

PEERS_MISSING, ADDRESSES_MISSING = EndpointFlags.PEERS_MISSING, EndpointFlags.ADDRESSES_MISSING
FLAGS = PEERS_MISSING | ADDRESSES_MISSING
QUARANTINED = EndpointFlags.NOT_READY  # nothing passes: a wrong answer cannot be told from a right one
POLICY, PEERS = policy.ENTRIES.name, policy.PEERS.name
ADDRESS, PREFIX, LOCAL = ipcache.EXACT.name, ipcache.PREFIXES.name, endpoint.BY_ADDRESS.name
JUDGED = (POLICY, PEERS, ADDRESS, PREFIX, LOCAL)
ADDRESS_BITS = 128
MOST = 200  # missing addresses beyond which it is not worked out whom they matter to: to everybody
ENFORCED = (
    (Direction.INGRESS, EndpointFlags.ENFORCE_INGRESS),
    (Direction.EGRESS, EndpointFlags.ENFORCE_EGRESS),
)
Mirrors = Mapping[str, Mirror]


class Missing(msgspec.Struct, frozen=True):
    """One moment's shortage. `mistaken`: who is behind an address, and who is found there instead."""

    peers: frozenset[tuple[int, int]] = frozenset()  # (policy, direction) with rows that are not there
    mistaken: frozenset[tuple[int, int]] = frozenset()
    believed: frozenset[tuple[int, int]] = frozenset()  # the same, of rows that will not go
    believed_peers: frozenset[tuple[int, int]] = frozenset()  # (policy, direction) with such a row
    countless: bool = False  # more addresses than were looked at
    closed: str = ""  # why nothing passes anybody
    why: Mapping[EndpointFlags, str] = {}

    def __bool__(self) -> bool:
        wrong = self.believed or self.believed_peers
        return bool(self.peers or self.mistaken or self.countless or self.closed or wrong)


def of(mirrors: Mirrors) -> Missing:
    """What is missing now."""
    why = {}
    lacking: set[tuple[int, int]] = set()
    for key, error in mirrors[POLICY].failures.items():
        row = structs.PolicyKey.unpack(key)
        lacking.add((row.policy, row.direction))
        why[PEERS_MISSING] = str(error)
    for key, error in mirrors[PEERS].failures.items():
        lacking.add(rows.peer_place(key)[0])
        why[PEERS_MISSING] = str(error)
    mistaken: set[tuple[int, int]] = set()
    count = 0
    for name in (LOCAL, ADDRESS, PREFIX):
        for key, error in mirrors[name].failures.items():
            why[ADDRESSES_MISSING] = str(error)
            count += 1
            if count > MOST:
                break
            mistaken |= _mistaken(mirrors, name, key)
    return Missing(
        frozenset(lacking),
        frozenset(mistaken),
        *_believed(mirrors),
        countless=count > MOST,
        closed=_closed(mirrors),
        why=why,
    )


def _closed(mirrors: Mirrors) -> str:
    """Why nothing may pass: the first failure of a map that anything may pass without."""
    failed = (error for one in mirrors.values() if one.closes for error in one.failures.values())
    return next((str(error) for error in failed), "")


def _believed(mirrors: Mirrors) -> tuple[frozenset[tuple[int, int]], frozenset[tuple[int, int]]]:
    """Whom wrong rows stand for that the kernel would neither replace nor remove; whose peers they are."""
    pairs = set()
    for name in (ADDRESS, PREFIX):
        for key, raw in mirrors[name].believed().items():
            if (wanted := mirrors[name].wanted(key)) is not None:
                meant, found = (structs.IpcacheEntry.unpack(one).identity for one in (wanted, raw))
                pairs.add((meant, found))
    blocks = (structs.PolicyPeersKey.unpack(key) for key in mirrors[PEERS].believed())
    return frozenset(pairs), frozenset((row.policy, row.direction) for row in blocks)


def _mistaken(mirrors: Mirrors, name: str, key: bytes) -> set[tuple[int, int]]:
    """Whom a missing row stands for, and whom the programs find in its place."""
    wanted = mirrors[name].wanted(key)
    if wanted is None:
        return set()
    kind = structs.Endpoint if name == LOCAL else structs.IpcacheEntry
    bits, address = (ADDRESS_BITS, key) if name != PREFIX else _prefix(key)
    meant = kind.unpack(wanted).identity
    pairs = {(meant, found) for found in _found(mirrors, bits, address, name)}
    return {(meant, found) for meant, found in pairs if meant != found}


def _prefix(key: bytes) -> tuple[int, bytes]:
    row = structs.PrefixKey.unpack(key)
    return row.prefix_length, row.address


def _found(mirrors: Mirrors, bits: int, address: bytes, name: str) -> set[int]:
    """What lookups that need this row end with, now and when what is to be removed is gone."""
    found = set()
    tables = ((LOCAL, structs.Endpoint), (ADDRESS, structs.IpcacheEntry)) if name != PREFIX else ()
    for table, kind in tables:
        mirror = mirrors[table]
        if (raw := mirror.held.get(address)) is not None:
            found.add(kind.unpack(raw).identity)
            if not mirror.is_leaving(address) and table != name:
                return found  # the other map knows
    prefixes = mirrors[PREFIX]
    for length in range(bits, -1, -1):
        key = structs.PrefixKey(length, _cut(address, length)).pack()
        if (raw := prefixes.held.get(key)) is not None:
            found.add(structs.IpcacheEntry.unpack(raw).identity)
            if not prefixes.is_leaving(key):
                return found
    return found | {identity.WORLD}


def _cut(address: bytes, length: int) -> bytes:
    """The first `length` bits, the rest 0."""
    keep = (1 << ADDRESS_BITS) - (1 << (ADDRESS_BITS - length))
    return (int.from_bytes(address) & keep).to_bytes(ADDRESS_BITS // 8)


def flags(tables: ReadTables, mirrors: Mirrors, missing: Missing, value: structs.Endpoint) -> EndpointFlags:
    """What the endpoint with this row must not take an answer from."""
    needed = EndpointFlags(0)
    directions = [int(one) for one, enforced in ENFORCED if value.flags & enforced]
    if any((value.policy, one) in missing.peers for one in directions):
        needed |= PEERS_MISSING
    if missing.closed or _is_misled(tables, mirrors, missing, value.policy, directions):
        needed |= QUARANTINED
    if missing.countless and directions:
        return needed | ADDRESSES_MISSING
    for one in directions:
        for meant, found in missing.mistaken:
            there = _held_class(mirrors, value.policy, one, found)
            if _class(tables, mirrors, value.policy, one, meant) != there:
                return needed | ADDRESSES_MISSING
    return needed


def _is_misled(
    tables: ReadTables, mirrors: Mirrors, missing: Missing, policy: int, directions: list[int]
) -> bool:
    """Whether a row that is wrong and will not go would have the policy say something else."""
    return any(
        (policy, one) in missing.believed_peers
        or any(
            _class(tables, mirrors, policy, one, meant) != _held_class(mirrors, policy, one, found)
            for meant, found in missing.believed
        )
        for one in directions
    )


def _class(tables: ReadTables, mirrors: Mirrors, policy: int, direction: int, number: int) -> int:
    """As the policy has it. One that no table has any more says what the kernel has of it."""
    row = tables.policy_peers.get((policy, Direction(direction), number))
    return row.peer_class if row is not None else _held_class(mirrors, policy, direction, number)


def _held_class(mirrors: Mirrors, policy: int, direction: int, number: int) -> int:
    raw = mirrors[PEERS].held.get(rows.peer_key(policy, direction, number))
    return rows.peer_classes(raw)[number % rows.PEER_SPAN] if raw is not None else int(enums.PolicyClass.ANY)


def has_class(mirrors: Mirrors, policy: int, number: int) -> bool:
    """Whether the kernel has an identity among a policy's peers, in some direction."""
    return any(_held_class(mirrors, policy, int(one), number) for one in Direction)


def torn(mirrors: Mirrors, work: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """Blocks of peers, there or in `work`, with one of a class that lacks an entry: without its denials
    it would allow more, so nobody may be of it. Nor may he be of none, so the whole block goes."""
    classes = set()
    for key in mirrors[POLICY].failures:
        row = structs.PolicyKey.unpack(key)
        classes.add((row.policy, row.direction, row.peer_class))
    policies = {U32.pack(policy) for policy, _, _ in classes}
    found = {}
    for key, value in ({**mirrors[PEERS].held, **work}).items() if classes else ():
        if key[:4] in policies:  # before all of it is unpacked: there may be many
            place, _ = rows.peer_place(key)
            if any((*place, one) in classes for one in rows.peer_classes(value)):
                found[key] = value
    return found
