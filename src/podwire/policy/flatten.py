"""Clauses about ports to longest-prefix-match cells: one lookup, the right verdict.

Each clause names a set of ports; each set splits into prefixes. At every prefix that any clause has,
the cell says what all clauses that cover that prefix say together. Two prefixes that hold the same
port lie within each other, so the clauses covering the longest one are exactly those that mean the
port: no order of precedence is needed in the kernel. Denial wins because a cell below a denied one is
left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from podwire.abi.enums import PolicyMatch, PolicyVerdict

# (protocol, port, bits): protocol 0 is any; bits 0..16 of the port count.
Node = tuple[int, int, int]
ANY_PROTOCOL = (6, 17, 132)
WHOLE: Node = (0, 0, 0)


class Cell(NamedTuple):
    """What the kernel does at a node; fields as in EntryRow."""

    protocol: int
    port: int
    bits: int
    verdict: int
    match: int
    rule: int


class Meaning(NamedTuple):
    """One clause as it concerns one class of peers. `nodes` None: any protocol and port."""

    rule: int
    deny: bool
    named_peer: bool
    nodes: tuple[Node, ...] | None


@lru_cache(maxsize=4096)
def split(first: int, last: int) -> tuple[tuple[int, int], ...]:
    """The fewest (port, bits) that hold `first`..`last` and nothing else."""
    found = []
    while first <= last:
        size = first & -first if first else 1 << 16
        while first + size - 1 > last:
            size >>= 1
        found.append((first, 17 - size.bit_length()))
        first += size
    return tuple(found)


def nodes(protocol: int, first: int, last: int) -> list[Node]:
    """Nodes of a range of ports; protocol 0 is TCP, UDP and SCTP."""
    protocols = (protocol,) if protocol else ANY_PROTOCOL
    return [(one, port, bits) for one in protocols for port, bits in split(first, last)]


def flatten(meanings: Iterable[Meaning], restricted: bool, default_rule: int) -> tuple[Cell, ...]:
    """Cells of one class, shortest prefix first. `restricted`: what nothing allows is denied."""
    allowed: dict[Node, Meaning] = {}
    denied: dict[Node, Meaning] = {}
    for meaning in meanings:
        chosen = denied if meaning.deny else allowed
        for node in (WHOLE,) if meaning.nodes is None else meaning.nodes:
            known = chosen.get(node)
            if known is None or (meaning.named_peer and not known.named_peer):
                chosen[node] = meaning
    cells = [_cell(WHOLE, denied.get(WHOLE) or allowed.get(WHOLE)) or _default(restricted, default_rule)]
    if WHOLE in denied:
        return tuple(cells)
    for node in sorted({*allowed, *denied} - {WHOLE}, key=lambda node: (node[2], node)):
        if not (denied and _below(node, denied)):
            cell = _cell(node, denied.get(node) or allowed.get(node))
            if cell is not None:
                cells.append(cell)
    return tuple(cells)


def _below(node: Node, denied: dict[Node, Meaning]) -> bool:
    """Whether a shorter prefix that holds `node` is denied."""
    protocol, port, bits = node
    return any((protocol, port >> (16 - n) << (16 - n), n) in denied for n in range(bits))


def _cell(node: Node, meaning: Meaning | None) -> Cell | None:
    if meaning is None:
        return None
    verdict = PolicyVerdict.DENY if meaning.deny else PolicyVerdict.ALLOW
    return Cell(*node, verdict, _match(node, meaning.named_peer), meaning.rule)


def _match(node: Node, named_peer: bool) -> int:
    """How precise it is, in Hubble's words."""
    protocol, _, bits = node
    if not protocol:
        return PolicyMatch.L3 if named_peer else PolicyMatch.ALL
    if not bits:
        return PolicyMatch.L3_PROTO if named_peer else PolicyMatch.PROTO_ONLY
    return PolicyMatch.L3_L4 if named_peer else PolicyMatch.L4


def _default(restricted: bool, rule: int) -> Cell:
    if restricted:
        return Cell(*WHOLE, PolicyVerdict.DEFAULT_DENY, PolicyMatch.NONE, rule)
    return Cell(*WHOLE, PolicyVerdict.ALLOW, PolicyMatch.ALL, 0)
