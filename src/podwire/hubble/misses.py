"""Near misses: clauses that might have allowed a flow, each with why it does not mean it.

Whether a clause means a packet is asked of the language's definition (`podwire.model.decide`), the
same that the compiled tables are tested against. This module only puts into words what it answers,
and what people mistake: prefixes for pods, a Service's address or port for the pod's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from podwire.base import addresses
from podwire.hubble.decode import address_bytes
from podwire.hubble.flows import Flows
from podwire.model import identity as identities
from podwire.model import protocol as protocols
from podwire.model.decide import NamedPorts, holds, means_peer, means_port, named_ports
from podwire.model.flow import NO_PARTY, Party
from podwire.model.labels import Labels, canonical, cidr, prefix_of, split, within
from podwire.model.rule import Clause, Direction, Effect, Ports, Rule
from podwire.model.selector import Operator, Requirement, Selector
from podwire.state.tables import ContainerPort, FrontendRow
from podwire.state.views import ReadTables

CHANGED = "it matches now; the policy or the labels have changed since"


class Asked(msgspec.Struct, frozen=True):
    """What policy was asked about a flow. `peer` None: nothing is known of it; `port` of ICMP is its
    type (high byte) and code, as in `model.rule.Ports`; `address` is the peer's.

    `named` are the named ports as they are now: those a flow met are not kept with it.
    """

    direction: Direction
    endpoint: Labels
    peer: Labels | None
    protocol: int
    port: int
    address: str
    named: NamedPorts
    peer_name: str  # for people


class Miss(msgspec.Struct, frozen=True):
    """`lacks`: what the clause does not mean of the packet (peer, ports); empty if it means it now."""

    policy: str
    clause: str
    lacks: tuple[str, ...]
    why: str


def asked(flows: Flows, row: dict[str, Any], direction: Direction) -> Asked:
    """What policy was asked about the flow of a row."""
    ingress = direction is Direction.INGRESS
    mine, theirs = ("destination", "source") if ingress else ("source", "destination")
    endpoint: Party = flows.value(row[f"{mine}_party"]) or NO_PARTY
    peer: Party = flows.value(row[f"{theirs}_party"]) or NO_PARTY
    address = _address(row, theirs)
    number = row[f"{theirs}_identity"]
    if ingress:
        named = _own_ports(flows.tables, row[f"{mine}_endpoint"], endpoint.labels)
    else:
        named = _ports_of_identity(flows.tables, number)
    port = row["destination_port"]
    if row["protocol"] in protocols.WITH_TYPES:
        port = row["icmp_type"] << 8 | row["icmp_code"]
    return Asked(
        direction,
        endpoint.labels,
        exactly(peer.labels, address) or None,
        row["protocol"],
        port,
        address,
        named,
        f"pod {peer.namespace}/{peer.pod}" if peer.pod else f"“{identities.name(number)}”",
    )


def exactly(labels: Labels, address: str) -> Labels:
    """An identity of a prefix is the longest one that rules named when the flow was stored; what rules
    say now is asked about the address itself."""
    kept = [label for label in labels if split(label)[0] != "cidr"]
    outside = len(kept) < len(labels) or any(label.startswith("reserved:world") for label in kept)
    return canonical([*kept, cidr(addresses.exact(address))]) if outside and address else labels


def near_misses(asked: Asked, tables: ReadTables) -> list[Miss]:
    """Of the rules that select the endpoint now, each clause that allows something in the direction;
    those that lack least first."""
    services = _Services(tables, asked)
    found = []
    for rule in selecting(tables, asked.endpoint):
        for clause in rule.clauses:
            if clause.direction is asked.direction and clause.effect is Effect.ALLOW:
                lacks, why = _why_not(clause, asked, services)
                found.append(Miss(str(rule.origin), clause.path.removeprefix("spec."), lacks, why))
    return sorted(found, key=lambda miss: len(miss.lacks))


def selecting(tables: ReadTables, labels: Labels) -> list[Rule]:
    """Rules whose subject has these labels."""
    return [rule for row in tables.policies for rule in row.rules if rule.subject.matches(labels)]


def _why_not(clause: Clause, asked: Asked, services: _Services) -> tuple[tuple[str, ...], str]:
    lacks, reasons = [], []
    if not means_peer(clause, asked.peer):
        lacks.append("peer")
        reasons.append(_peer_reason(clause.peers or (), asked, services))
    if not means_port(clause, asked.protocol, asked.port, asked.named):
        lacks.append("ports")
        reasons.append(_port_reason(clause.ports or (), asked, services))
    return tuple(lacks), " and ".join(reasons) or CHANGED


# --- the peer ------------------------------------------------------------------------------------


def _peer_reason(peers: tuple[Selector, ...], asked: Asked, services: _Services) -> str:
    if not peers:
        return "it allows nobody"
    if asked.peer is None:
        return "nothing is known of the peer"
    said = f"the peer is not {' or '.join(map(_peer_text, peers))}"
    hints = dict.fromkeys(hint for peer in peers for hint in _peer_hints(peer, asked, services))
    return f"{said} ({'; '.join(hints)})" if hints else said


def _peer_hints(peer: Selector, asked: Asked, services: _Services) -> Iterator[str]:
    """Why a selector that names the packet's address, or the Service's, does not mean its peer."""
    prefixes = [one for one in peer.requirements if one.source == "cidr"]
    if not prefixes:
        return
    for frontend in services.translated():
        if _inside(prefixes, frontend.address):
            yield (
                f"{frontend.address} is Service {frontend.namespace}/{frontend.service}: policy is asked"
                " about the pod behind it, not about the Service's address"
            )
    if not _inside([one for one in prefixes if one.operator is Operator.EXISTS], asked.address):
        return
    excepted = [
        one for one in prefixes if one.operator is Operator.NOT_EXISTS and not _inside([one], asked.address)
    ]
    if excepted:
        yield f"{asked.address} is in {_prefix_text(excepted[0])}, which is excepted"
    elif asked.peer is not None and not any(split(label)[0] == "cidr" for label in asked.peer):
        yield (
            f"{asked.address} is {asked.peer_name}: a prefix means only what is outside the cluster,"
            " never pods or nodes"
        )


def _inside(prefixes: Iterable[Requirement], address: str) -> bool:
    """Whether what these requirements say about prefixes is so of `address`."""
    if not address:
        return False
    key = split(cidr(addresses.exact(address)))[1]
    return all(within(key, one.key) == (one.operator is Operator.EXISTS) for one in prefixes)


def _peer_text(peer: Selector) -> str:
    held = [one for one in peer.requirements if one.source == "cidr" and one.operator is Operator.EXISTS]
    if not held:
        return f"[{peer}]"
    excepted = [one for one in peer.requirements if one.operator is Operator.NOT_EXISTS]
    text = ", ".join(map(_prefix_text, held))
    return f"{text} except {', '.join(map(_prefix_text, excepted))}" if excepted else text


def _prefix_text(requirement: Requirement) -> str:
    return prefix_of((f"cidr:{requirement.key}",))


# --- the port ------------------------------------------------------------------------------------


def _port_reason(ports: tuple[Ports, ...], asked: Asked, services: _Services) -> str:
    word = "port"
    if asked.protocol in protocols.WITH_TYPES:
        word = f"{protocols.name(asked.protocol)} type"
    elif asked.protocol not in protocols.WITH_PORTS:
        word = "protocol"
    said = f"the {word} is none of {', '.join(port_text(one, asked.named) for one in ports) or 'none'}"
    for frontend in services.translated():
        if any(holds(one, frontend.protocol, frontend.port, asked.named) for one in ports):
            return (
                f"{said} ({frontend.port} is the port of Service {frontend.namespace}/{frontend.service};"
                f" policy is asked about the pod's, {asked.port})"
            )
    return said


def port_text(ports: Ports, named: NamedPorts) -> str:
    """``80/TCP``, ``8000-8080/UDP``, ``http/TCP (80)``, ``ICMP type 8``."""
    name = protocols.name(ports.protocol) if ports.protocol else "ANY"
    if ports.name:
        wanted = (ports.protocol,) if ports.protocol else protocols.WITH_PORTS
        known = sorted({port for protocol, port in named.get(ports.name, ()) if protocol in wanted})
        meaning = ", ".join(map(str, known)) or "nothing here is called so"
        return f"{ports.name}/{name} ({meaning})"
    if (ports.first, ports.last) == (0, 65535):
        return name
    if ports.protocol in protocols.WITH_TYPES:
        text = f"{name} type {ports.first >> 8}"
        return f"{text} code {ports.first & 0xFF}" if ports.first == ports.last else text
    return f"{ports.first}/{name}" if ports.first == ports.last else f"{ports.first}-{ports.last}/{name}"


# --- what the tables say now -----------------------------------------------------------------------


class _Services:
    """Services that a packet on its way to a pod may have been sent to."""

    def __init__(self, tables: ReadTables, asked: Asked) -> None:
        self._tables = tables
        self._asked = asked
        self._found: list[FrontendRow] | None = None

    def translated(self) -> list[FrontendRow]:
        """Frontends with the packet's destination among their backends: only who sends may have meant
        one. Looked for when first asked, for it takes a walk through all."""
        if self._found is None:
            asked = self._asked
            backends = {
                row.id
                for row in self._tables.backends
                if (row.port, row.protocol, row.address) == (asked.port, asked.protocol, asked.address)
            }
            sends = asked.direction is Direction.EGRESS and backends
            self._found = [
                row for row in self._tables.frontends if sends and not backends.isdisjoint(row.backends)
            ]
        return self._found


def _address(row: dict[str, Any], side: str) -> str:
    high, low = row[f"{side}_high"], row[f"{side}_low"]
    return addresses.unpack(address_bytes(high, low)) if high | low else ""


def _own_ports(tables: ReadTables, endpoint: int, labels: Labels) -> NamedPorts:
    row = tables.endpoints.get(endpoint)
    # The number may be another pod's by now.
    return _named(row.ports) if row is not None and row.labels == labels else {}


def _ports_of_identity(tables: ReadTables, number: int) -> NamedPorts:
    """Policy is by identity: a name means whatever any pod of the identity calls so."""
    own = (port for row in tables.endpoints.by("identity", number) for port in row.ports)
    others = (port for row in tables.remote_endpoints.by("identity", number) for port in row.ports)
    return _named((*own, *others))


def _named(ports: Iterable[ContainerPort]) -> NamedPorts:
    return named_ports((port.name, port.protocol, port.port) for port in ports)
