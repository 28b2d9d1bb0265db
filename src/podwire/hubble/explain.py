"""Why was this flow allowed or dropped? The policy, the rule's place in it, and near misses.

What decided was named when the flow was stored. For a packet that nothing allowed, the rules that
select the endpoint now are asked one by one why they did not allow it: the peer, or the port.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from podwire.abi.enums import DROP_TEXT, DropReason
from podwire.api import flow_pb2
from podwire.hubble.flows import Flows
from podwire.hubble.message import Messages
from podwire.model.flow import NO_PARTY, Decision, Party, Verdict
from podwire.model.labels import Labels
from podwire.model.rule import Clause, Direction, Effect, Ports, Rule
from podwire.state.tables import Tables

_L4_NAMES = {6: "TCP", 17: "UDP", 132: "SCTP", 1: "ICMP", 58: "ICMPv6"}
_PORTED = (6, 17, 132)
MOST_MISSES = 20
_REASONS = frozenset(map(int, DropReason))


def explain_row(flows: Flows, number: int) -> dict[str, Any]:
    """An explanation as JSON-ready data; KeyError if the row is overwritten.

    Keys: uuid, verdict, direction, reason, decision (policies, clause, default_deny), near_misses
    (policy, clause, why), text.
    """
    message = Messages(flows).flow(number)
    row = next(flows.store.rows(np.array([number])))
    decision: Decision | None = flows.value(row["decision"])
    misses = _near_misses(flows, row) if decision is not None and decision.default_deny else []
    found = {
        "uuid": message.uuid,
        "verdict": Verdict(row["verdict"]).name,
        "direction": flow_pb2.TrafficDirection.Name(row["direction"]),
        "reason": row["drop_reason"],
        "source": _who(message.source, message.IP.source, row["source_port"]),
        "destination": _who(message.destination, message.IP.destination, row["destination_port"]),
        "protocol": _L4_NAMES.get(row["protocol"], str(row["protocol"])),
        "decision": None
        if decision is None
        else {
            "policies": [
                {"kind": origin.kind, "namespace": origin.namespace, "name": origin.name}
                for origin in decision.origins
            ],
            "clause": decision.clause,
            "default_deny": decision.default_deny,
        },
        "near_misses": misses,
    }
    found["text"] = explain(found)
    return found


def explain(found: dict[str, Any]) -> str:
    """The explanation for a person."""
    lines = [
        f"{found['source']} -> {found['destination']} {found['protocol']}: {found['verdict']}",
        f"  {because(found)}",
    ]
    if found["near_misses"]:
        lines.append("  Nearest misses:")
        lines += [f"    {miss['policy']} {miss['clause']}: {miss['why']}" for miss in found["near_misses"]]
    return "\n".join(lines)


def because(found: dict[str, Any]) -> str:
    """What decided, as a sentence."""
    decision = found["decision"]
    if decision is None:
        if found["verdict"] != "DROPPED":
            return "No policy was asked."
        return f"Dropped, but not by a policy: {drop_text(found['reason'])}."
    named = ", ".join(
        f"{policy['kind']} {policy['namespace'] + '/' if policy['namespace'] else ''}{policy['name']}"
        for policy in decision["policies"]
    )
    way = found["direction"].lower()
    if decision["default_deny"]:
        return f"Default deny for {way}: selected by {named or 'a policy'}, and nothing allows this."
    word = "Denied" if found["verdict"] == "DROPPED" else "Allowed"
    return f"{word} for {way} by {named}, {decision['clause']}."


def drop_text(reason: int) -> str:
    return DROP_TEXT[DropReason(reason)] if reason in _REASONS else f"reason {reason}"


def _who(endpoint: Any, address: str, port: int) -> str:
    name = f"{endpoint.namespace}/{endpoint.pod_name}" if endpoint.pod_name else address
    return f"{name}:{port}" if port else name


def _near_misses(flows: Flows, row: dict[str, Any]) -> list[dict[str, str]]:
    """Clauses in that direction of rules that select the endpoint, each with why it did not match."""
    direction = Direction(row["direction"]) if row["direction"] else Direction.INGRESS
    mine, theirs = ("destination", "source") if direction == Direction.INGRESS else ("source", "destination")
    subject: Party = flows.value(row[f"{mine}_party"]) or NO_PARTY
    peer: Party = flows.value(row[f"{theirs}_party"]) or NO_PARTY
    misses = []
    for rule in selecting(flows.tables, subject.labels):
        for clause in rule.clauses:
            if clause.direction == direction and clause.effect == Effect.ALLOW:
                why = _why_not(clause, peer.labels, row["protocol"], row["destination_port"])
                misses.append(
                    {"policy": str(rule.origin), "clause": clause.path.removeprefix("spec."), "why": why}
                )
    return misses[:MOST_MISSES]


def selecting(tables: Tables, labels: Labels) -> list[Rule]:
    """Rules whose subject has these labels."""
    return [rule for row in tables.policies for rule in row.rules if rule.subject.matches(labels)]


def _why_not(clause: Clause, labels: Labels, protocol: int, port: int) -> str:
    reasons = []
    if clause.peers is not None and not any(peer.matches(labels) for peer in clause.peers):
        wanted = " or ".join(f"[{peer}]" for peer in clause.peers)
        reasons.append(f"the peer is not {wanted}" if wanted else "it allows nobody")
    if clause.ports is not None and not any(_covers(ports, protocol, port) for ports in clause.ports):
        wanted = ", ".join(map(_port_text, clause.ports)) or "none"
        reasons.append(f"the port is none of {wanted}")
    return " and ".join(reasons) or "it matches now; the policy or the labels have changed since"


def _covers(ports: Ports, protocol: int, port: int) -> bool:
    if ports.protocol not in (protocol, 0) or (ports.protocol == 0 and protocol not in _PORTED):
        return False
    return bool(ports.name) or protocol not in _PORTED or ports.first <= port <= ports.last


def _port_text(ports: Ports) -> str:
    name = _L4_NAMES.get(ports.protocol, "ANY" if ports.protocol == 0 else str(ports.protocol))
    if ports.name:
        return f"{ports.name}/{name}"
    if (ports.first, ports.last) == (0, 65535):
        return name
    return f"{ports.first}/{name}" if ports.first == ports.last else f"{ports.first}-{ports.last}/{name}"
