"""Peers by blocks: what one entry of podwire_policy_peers says of 16 identities.

A block is one value, so an identity that goes is a write and no removal. It is put off like one, for
until its addresses are gone it must not count as any other: `without` is what is written then,
`with_those_before` what is written meanwhile.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator

from podwire.abi import enums, structs
from podwire.model.rule import Direction
from podwire.state.tables import PeerRow, Tables

BLOCK = 1 << enums.PEER_BLOCK_BITS
NOBODY = bytes(structs.PolicyPeers.SIZE)

Block = tuple[int, Direction, int]  # policy, direction, identity / 16
Classes = Iterator[tuple[int, int]]  # identity, class


def block_of(policy: int, direction: Direction, identity: int) -> Block:
    return policy, direction, identity >> enums.PEER_BLOCK_BITS


def key_of(block: Block) -> bytes:
    policy, direction, number = block
    return structs.PolicyPeersKey(policy, number, int(direction)).pack()


def content(tables: Tables, block: Block) -> bytes:
    """As the table has it; NOBODY if it has no row of the block."""
    policy, direction, number = block
    first = number << enums.PEER_BLOCK_BITS
    rows = (tables.policy_peers.get((policy, direction, first + place)) for place in range(BLOCK))
    return array("I", (row.peer_class if row is not None else 0 for row in rows)).tobytes()


def with_those_before(before: bytes | None, now: bytes) -> bytes:
    """`now`, with the identities that it lacks as they were."""
    if before is None:
        return now
    pairs = zip(array("I", before), array("I", now), strict=True)
    return array("I", (new or old for old, new in pairs)).tobytes()


def classes(key: bytes, value: bytes) -> Classes:
    """Identities of a block that are of a class of their own."""
    first = structs.PolicyPeersKey.unpack(key).block << enums.PEER_BLOCK_BITS
    return ((first + place, one) for place, one in enumerate(array("I", value)) if one)


def class_in(value: bytes | None, identity: int) -> int:
    """What a block says of an identity of it; a block that is not there says nothing of anybody."""
    if value is None:
        return int(enums.PolicyClass.ANY)
    return array("I", value)[identity & (BLOCK - 1)]


def entries(rows: Iterable[PeerRow]) -> dict[bytes, bytes]:
    """All blocks of these rows."""
    found: dict[Block, array[int]] = {}
    for row in rows:
        block = block_of(row.policy, row.direction, row.identity)
        found.setdefault(block, array("I", NOBODY))[row.identity & (BLOCK - 1)] = row.peer_class
    return {key_of(block): value.tobytes() for block, value in found.items()}
