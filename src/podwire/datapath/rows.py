"""Rows of tables to entries of maps. Pure: one function per table.

In the walk: the last translation down. Each function gives the keys and values one row stands for,
packed as the kernel has them.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_address
from struct import Struct

import msgspec

from podwire.abi import enums, structs
from podwire.base import addresses
from podwire.bpf.map import U32
from podwire.model import identity
from podwire.model.cluster import OWN
from podwire.model.rule import Direction
from podwire.state.tables import (
    BackendRow,
    EndpointPolicyRow,
    EndpointRow,
    EntryRow,
    FrontendRow,
    IpcacheRow,
    LocalAddressRow,
    NodeRow,
    PeerRow,
)

Entries = Mapping[bytes, bytes]
HOLDS = {"pods": enums.IpcacheFlags.PODS, "services": enums.IpcacheFlags.SERVICES}
HOST = structs.Endpoint(identity=identity.HOST, flags=int(enums.EndpointFlags.HOST)).pack()

DIRECTIONS = {int(one): one for one in Direction}
NODEPORT_TYPES = ("NodePort", "LoadBalancer")


def policy_entry(row: EntryRow) -> Entries:
    """Stage two. A port without all its bits is a prefix; a protocol of 0 is any, with any port."""
    if row.protocol == 0:
        length, protocol, port = enums.POLICY_PREFIX_DIRECTION, 0, 0
    else:
        length = enums.POLICY_PREFIX_PROTOCOL + row.port_bits
        protocol = row.protocol
        port = row.port & (0xFFFF << (16 - row.port_bits)) & 0xFFFF
    key = structs.PolicyKey(length, row.policy, row.peer_class, int(row.direction), protocol, port)
    value = structs.PolicyEntry(row.rule, row.proxy_port, row.verdict, row.match)
    return {key.pack(): value.pack()}


# Stage one: how peers become entries of their map, and back. All that knows it is here.

# Identities that one entry is about, from one that is a multiple of it.
PEER_SPAN = 1 << enums.PEER_BLOCK_BITS
_PEER_KEY, _PEER_VALUE = structs.PolicyPeersKey.LAYOUT, Struct(f"={PEER_SPAN}I")


def peer_key(policy: int, direction: int, identity: int) -> bytes:
    """Of the entry that says the identity's class."""
    return _PEER_KEY.pack(policy, identity // PEER_SPAN, direction)


def peer_place(key: bytes) -> tuple[tuple[int, Direction], int]:
    """((policy, direction), the first identity) that an entry is about."""
    policy, block, direction = _PEER_KEY.unpack(key)
    return (policy, DIRECTIONS[direction]), block * PEER_SPAN


def peer_value(classes: Sequence[int]) -> bytes:
    """The classes of an entry's identities; 0 = none."""
    return _PEER_VALUE.pack(*classes)


def peer_classes(value: bytes) -> tuple[int, ...]:
    return _PEER_VALUE.unpack(value)


def policy_peers(found: Iterable[PeerRow]) -> Entries:
    """The entries of rows that are there, all of them: one entry may be made of several."""
    entries: dict[bytes, list[int]] = {}
    for row in found:
        key = peer_key(row.policy, row.direction, row.identity)
        entries.setdefault(key, [0] * PEER_SPAN)[row.identity % PEER_SPAN] = row.peer_class
    return {key: peer_value(classes) for key, classes in entries.items()}


def ipcache_value(row: IpcacheRow) -> bytes:
    tunnel = addresses.pack(row.tunnel) if row.tunnel else addresses.ZERO
    flags = int(HOLDS[row.holds]) if row.holds else 0
    return structs.IpcacheEntry(identity=row.identity, flags=flags, tunnel=tunnel, key=row.key).pack()


def ipcache_exact(row: IpcacheRow) -> Entries:
    """An address alone; nothing for a prefix."""
    if not addresses.is_exact(row.prefix):
        return {}
    return {addresses.pack(row.prefix.split("/")[0]): ipcache_value(row)}


def ipcache_prefix(row: IpcacheRow) -> Entries:
    """A prefix; nothing for an address alone."""
    if addresses.is_exact(row.prefix):
        return {}
    return {structs.PrefixKey(*addresses.pack_prefix(row.prefix)).pack(): ipcache_value(row)}


def backend(row: BackendRow, node: str) -> Entries:
    """`node` is this node's name; one of another cluster may have the same."""
    flags = enums.BackendFlags.TERMINATING if row.state == "terminating" else enums.BackendFlags(0)
    if row.node == node and row.cluster == OWN:
        flags |= enums.BackendFlags.LOCAL
    value = structs.Backend(addresses.pack(row.address), row.port, row.protocol, int(flags))
    return {U32.pack(row.id): value.pack()}


def slots(row: FrontendRow) -> Entries:
    """The set of many backends, place by place; nothing for few. Several frontends may have the same set."""
    if not row.set:
        return {}
    return {structs.SlotKey(row.set, place).pack(): value for place, value in enumerate(_slots(row))}


def _slots(row: FrontendRow) -> list[bytes]:
    return [
        structs.Slot(addresses.pack(address), port, number).pack()
        for number, (address, port) in zip(row.backends, row.places, strict=True)
    ]


def slot_of(frontend: structs.Frontend, place: int) -> structs.Slot:
    """One of few backends, from the frontend's entry."""
    return structs.Slot.unpack(frontend.slots[place * structs.Slot.SIZE :][: structs.Slot.SIZE])


def rev_nat(row: FrontendRow) -> Entries:
    if not row.rev_nat:
        return {}
    return {U32.pack(row.rev_nat): structs.RevNat(addresses.pack(row.address), row.port).pack()}


def frontend(row: FrontendRow) -> Entries:
    """With its backends, if they are few."""
    flags = enums.FrontendFlags.AFFINITY if row.affinity_timeout else enums.FrontendFlags(0)
    if row.type in NODEPORT_TYPES:
        flags |= enums.FrontendFlags.NODEPORT
    key = structs.FrontendKey(addresses.pack(row.address), row.port, row.protocol)
    value = structs.Frontend(
        set=row.set,
        count=len(row.backends),
        rev_nat=row.rev_nat,
        flags=int(flags),
        affinity_timeout=row.affinity_timeout,
        slots=b"" if row.set else b"".join(_slots(row)),
    )
    return {key.pack(): value.pack()}


def endpoint_value(row: EndpointRow, policy: EndpointPolicyRow | None) -> structs.Endpoint:
    """A pod whose identity or policy is not known yet is there, and nothing passes."""
    flags = enums.EndpointFlags(0)
    if policy is None or row.identity == identity.UNKNOWN:
        flags |= enums.EndpointFlags.NOT_READY
    else:
        flags |= enums.EndpointFlags.ENFORCE_INGRESS if policy.enforce_ingress else enums.EndpointFlags(0)
        flags |= enums.EndpointFlags.ENFORCE_EGRESS if policy.enforce_egress else enums.EndpointFlags(0)
    return structs.Endpoint(
        device=row.ifindex,
        identity=row.identity,
        policy=policy.policy if policy is not None else 0,
        id=row.id,
        flags=int(flags),
        mac=_mac(row.mac),
        host_mac=_mac(row.host_mac),
        ipv4=addresses.pack(row.ipv4) if row.ipv4 else addresses.ZERO,
        ipv6=addresses.pack(row.ipv6) if row.ipv6 else addresses.ZERO,
    )


def endpoint_entry(value: structs.Endpoint, carrier: bool) -> bytes:
    """The endpoint as it is while its device has a carrier, or has lost it.

    Its epoch is of all that decides about its connections, so another pod at its addresses, or one that
    policy is asked about otherwise, has another. Not of the carrier: without one nothing passes anyway.
    """
    known = msgspec.structs.replace(value, flags=value.flags & ~enums.EndpointFlags.DOWN, epoch=0)
    flags = known.flags | (0 if carrier else int(enums.EndpointFlags.DOWN))
    return msgspec.structs.replace(known, flags=flags, epoch=zlib.crc32(known.pack())).pack()


def endpoint_addresses(row: EndpointRow) -> list[bytes]:
    """Keys in podwire_endpoints."""
    return [addresses.pack(address) for address in row.addresses]


def node_addresses(row: NodeRow) -> Entries:
    """This node's own addresses in podwire_endpoints: what is for them goes to its stack."""
    if not row.local:
        return {}
    return {addresses.pack(address): HOST for address in (*row.addresses, *row.router_addresses)}


def local_address(row: LocalAddressRow) -> Entries:
    """An address that the kernel takes for the node's own, in podwire_endpoints.

    Not a prefix (the ipcache has those), and not loopback: nothing on a wire or in a tunnel is for it.
    """
    address = row.prefix.split("/")[0]
    if not addresses.is_exact(row.prefix) or ip_address(address).is_loopback:
        return {}
    return {addresses.pack(address): HOST}


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", "")) if text else bytes(6)
