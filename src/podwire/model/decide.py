"""The policy language's definition, as directly as it can be written: who may talk to whom, and why.

Nothing here is compiled, numbered or cached. Tests compare what the kernel is given with what this
says, and explanations (`hubble.explain`) ask it why a clause does not mean a packet.

1. Only rules whose subject selects the endpoint count.
2. The node may always reach its own pods.
3. Else a deny clause that means the peer and the port denies.
4. Else an allow clause that means them allows. If one of those redirects, the packet goes through that
   proxy, whatever is allowed without one, also by a clause that says more: what a proxy is to see, it sees.
   Of several proxies it is the one with the lowest number.
5. Else, if any of the rules restricts the direction, the packet is denied; if none does, allowed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum

import msgspec

from podwire.model.implied import LOCALHOST, enforced, restricts
from podwire.model.labels import Labels
from podwire.model.protocol import WITH_PORTS
from podwire.model.rule import Clause, Direction, Effect, Ports, Rule

# Name of a port → the (protocol, port) that have it.
NamedPorts = Mapping[str, Iterable[tuple[int, int]]]


class Outcome(Enum):
    ALLOWED = "allowed"
    DENIED = "denied by a rule"
    DEFAULT_DENIED = "nothing allows it"
    UNRESTRICTED = "no rule restricts it"

    @property
    def passes(self) -> bool:
        return self in (Outcome.ALLOWED, Outcome.UNRESTRICTED)


class Decision(msgspec.Struct, frozen=True):
    """`because`: every rule, with the clause, that says so; no clause where the default decided.

    `redirect`: the listener of the proxy through which it is allowed; 0 = none.
    """

    outcome: Outcome
    because: tuple[tuple[Rule, Clause | None], ...] = ()
    redirect: int = 0


def decide(
    rules: Iterable[Rule],
    endpoint: Labels,
    direction: Direction,
    peer: Labels | None,
    protocol: int,
    port: int,
    *,
    named: NamedPorts | None = None,
) -> Decision:
    """May `endpoint` receive from (or send to) `peer`, on destination `port` of `protocol`?

    `peer` None is an address nothing is known of. `named` are the named ports of the destination:
    the endpoint on ingress, the peer on egress. ICMP's type is the port's high byte.
    """
    selecting = [rule for rule in rules if rule.subject.matches(endpoint)]
    (localhost,) = LOCALHOST.clauses
    if (
        direction is localhost.direction
        and means_peer(localhost, peer)
        and any(enforced(rule, direction) for rule in selecting)
    ):
        return Decision(Outcome.ALLOWED, ((LOCALHOST, localhost),))
    meant = [
        (rule, clause)
        for rule in selecting
        for clause in rule.clauses
        if clause.direction is direction
        and means_peer(clause, peer)
        and means_port(clause, protocol, port, named or {})
    ]
    denying = tuple((rule, clause) for rule, clause in meant if clause.effect is Effect.DENY)
    if denying:
        return Decision(Outcome.DENIED, denying)
    if meant:
        redirect = min((clause.redirect for _, clause in meant if clause.redirect), default=0)
        because = tuple((rule, clause) for rule, clause in meant if clause.redirect == redirect)
        return Decision(Outcome.ALLOWED, because, redirect)
    restricting = tuple((rule, None) for rule in selecting if restricts(rule, direction))
    return Decision(Outcome.DEFAULT_DENIED if restricting else Outcome.UNRESTRICTED, restricting)


def named_ports(ports: Iterable[tuple[str, int, int]]) -> dict[str, frozenset[tuple[int, int]]]:
    """(name, protocol, port) → name to all the (protocol, port) that have it."""
    found: dict[str, set[tuple[int, int]]] = {}
    for name, protocol, port in ports:
        found.setdefault(name, set()).add((protocol, port))
    return {name: frozenset(known) for name, known in found.items()}


def means_peer(clause: Clause, peer: Labels | None) -> bool:
    if clause.peers is None:
        return True
    return peer is not None and any(selector.matches(peer) for selector in clause.peers)


def means_port(clause: Clause, protocol: int, port: int, named: NamedPorts) -> bool:
    if clause.ports is None:
        return True
    return any(holds(ports, protocol, port, named) for ports in clause.ports)


def holds(ports: Ports, protocol: int, port: int, named: NamedPorts) -> bool:
    if protocol not in ((ports.protocol,) if ports.protocol else WITH_PORTS):
        return False
    if ports.name:
        return (protocol, port) in set(named.get(ports.name, ()))
    return ports.first <= port <= ports.last
