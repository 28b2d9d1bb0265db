"""Clauses about ports to longest-prefix-match cells: one lookup, the right verdict.

Each clause names a set of ports; each set splits into prefixes. At every prefix that any clause has,
the cell says what all clauses that cover that prefix say together. Two prefixes that hold the same
port lie within each other, so the clauses covering the longest one are exactly those that mean the
port: no order of precedence is needed in the kernel. Denial wins because a cell below a denied one is
left out; a redirect to a proxy wins over what is allowed without one because a cell below it that would not
redirect is left out, and of two redirects the lower number, likewise.
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
# As plain numbers: a class is flattened in microseconds, and enumerations cost some.
ALLOW, DENY, DEFAULT_DENY = (
    int(one) for one in (PolicyVerdict.ALLOW, PolicyVerdict.DENY, PolicyVerdict.DEFAULT_DENY)
)
# (any protocol, protocol, port) → match, for clauses that name no peer and for those that do.
MATCHES = (
    (int(PolicyMatch.ALL), int(PolicyMatch.PROTO_ONLY), int(PolicyMatch.L4)),
    (int(PolicyMatch.L3), int(PolicyMatch.L3_PROTO), int(PolicyMatch.L3_L4)),
)


class Cell(NamedTuple):
    """What the kernel does at a node; fields as in EntryRow."""

    protocol: int
    port: int
    bits: int
    verdict: int
    match: int
    rule: int
    redirect: int = 0


class Meaning(NamedTuple):
    """One clause as it concerns one class of peers. `nodes` None: any protocol and port.

    `always` is for the clause that no denial overrides: a node reaches its own pods.
    """

    rule: int
    deny: bool
    named_peer: bool
    nodes: tuple[Node, ...] | None
    always: bool = False
    redirect: int = 0  # the proxy's listener, if it allows


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
    redirected: dict[Node, Meaning] = {}
    for meaning in meanings:
        if meaning.always:
            return (_cell(WHOLE, meaning),)
        chosen = denied if meaning.deny else redirected if meaning.redirect else allowed
        for node in (WHOLE,) if meaning.nodes is None else meaning.nodes:
            known = chosen.get(node)
            # Of two that say the same of a node, who names the peer is told; of two proxies, the lower.
            if known is None or (
                meaning.named_peer and not known.named_peer
                if chosen is not redirected or meaning.redirect == known.redirect
                else meaning.redirect < known.redirect
            ):
                chosen[node] = meaning
    first = denied.get(WHOLE) or redirected.get(WHOLE) or allowed.get(WHOLE)
    cells = [_default(restricted, default_rule) if first is None else _cell(WHOLE, first)]
    if WHOLE in denied:
        return tuple(cells)
    found = {**allowed, **redirected, **denied} if denied or redirected else allowed
    places = [node for node in found if node != WHOLE]
    places.sort(key=_place)
    for node in places:
        if denied and _below(node, denied):
            continue
        meaning = found[node]
        if not (redirected and not meaning.deny and _goes_elsewhere(node, meaning, redirected)):
            cells.append(_cell(node, meaning))
    return tuple(cells)


def _goes_elsewhere(node: Node, meaning: Meaning, redirected: dict[Node, Meaning]) -> bool:
    """Whether a shorter prefix that holds an allowed node has a proxy that counts before its own, or has one
    where it has none: what that prefix's cell says is right for the node, too."""
    protocol, port, bits = node
    for n in range(-1, bits):
        wider = redirected.get((protocol, port >> (16 - n) << (16 - n), n) if n >= 0 else WHOLE)
        if wider is not None and (not meaning.redirect or wider.redirect < meaning.redirect):
            return True
    return False


def _place(node: Node) -> tuple[int, Node]:
    return node[2], node


def _below(node: Node, denied: dict[Node, Meaning]) -> bool:
    """Whether a shorter prefix that holds `node` is denied."""
    protocol, port, bits = node
    return any((protocol, port >> (16 - n) << (16 - n), n) in denied for n in range(bits))


def _cell(node: Node, meaning: Meaning) -> Cell:
    protocol, port, bits = node
    precision = 2 if bits else 1 if protocol else 0
    match = MATCHES[meaning.named_peer][precision]
    if meaning.deny:
        return Cell(protocol, port, bits, DENY, match, meaning.rule)
    return Cell(protocol, port, bits, ALLOW, match, meaning.rule, meaning.redirect)


@lru_cache(maxsize=1024)
def _default(restricted: bool, rule: int) -> Cell:
    if restricted:
        return Cell(*WHOLE, DEFAULT_DENY, int(PolicyMatch.NONE), rule)
    return Cell(*WHOLE, ALLOW, int(PolicyMatch.ALL), 0)
