"""Why was this flow allowed or dropped? The policy, the rule's place in it, and near misses.

What decided was named when the flow was stored, and is told as what was so then; a policy that is gone
since is said to be. For a packet that nothing allowed, the rules that
select the endpoint now are asked one by one why they did not allow it (`hubble.misses`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from podwire.abi.enums import DROP_TEXT, DropReason
from podwire.api import flow_pb2
from podwire.hubble.flows import Flows
from podwire.hubble.message import Messages
from podwire.hubble.misses import Miss, asked, near_misses
from podwire.model import implied, protocol
from podwire.model.flow import Decision, Verdict
from podwire.model.rule import Direction, Origin

MOST_MISSES = 20
_REASONS = frozenset(map(int, DropReason))
_BY_POLICY = (DropReason.POLICY_DENIED, DropReason.POLICY_DENY)
_PEER_UNKNOWN = "Denied because a map is full: the kernel may not know this peer, or what policy says of it."


def explain_row(flows: Flows, number: int) -> dict[str, Any]:
    """An explanation as JSON-ready data; KeyError if the row is overwritten.

    Keys: uuid, verdict, direction, reason, rule (its number in the kernel), decision (policies with whether
    they are gone, clause, default_deny), near_misses (policy, clause, lacks, why), misses_left_out, text.
    """
    message = Messages(flows).flow(number)
    row = next(flows.store.rows(np.array([number])))
    decision: Decision | None = flows.value(row["decision"])
    misses: list[Miss] = []
    if decision is not None and decision.default_deny:
        misses = near_misses(asked(flows, row, Direction(decision.direction)), flows.tables)
    found = {
        "uuid": message.uuid,
        "verdict": Verdict(row["verdict"]).name,
        "direction": flow_pb2.TrafficDirection.Name(row["direction"]),
        "reason": row["drop_reason"],
        "source": _who(message.source, message.IP.source, row["source_port"]),
        "destination": _who(message.destination, message.IP.destination, row["destination_port"]),
        "protocol": protocol.name(row["protocol"]),
        "rule": row["rule"],
        "decision": None
        if decision is None
        else {
            "policies": [
                {
                    "kind": origin.kind,
                    "namespace": origin.namespace,
                    "name": origin.name,
                    "gone": not _there(flows, origin),
                }
                for origin in decision.origins
            ],
            "clause": decision.clause,
            "direction": Direction(decision.direction).word,
            "default_deny": decision.default_deny,
        },
        "near_misses": [
            {"policy": miss.policy, "clause": miss.clause, "lacks": list(miss.lacks), "why": miss.why}
            for miss in misses[:MOST_MISSES]
        ],
        "misses_left_out": max(0, len(misses) - MOST_MISSES),
    }
    found["text"] = explain(found)
    return found


def _there(flows: Flows, origin: Origin) -> bool:
    """Whether the policy is still there; another may have its name now. What no object says never goes."""
    if origin.kind == implied.KIND:
        return True
    row = flows.tables.policies.get((origin.kind, origin.namespace, origin.name))
    return row is not None and origin.uid in ("", row.uid)


def explain(found: dict[str, Any]) -> str:
    """The explanation for a person."""
    lines = [
        f"{found['source']} -> {found['destination']} {found['protocol']}: {found['verdict']}",
        f"  {because(found)}",
    ]
    if found["near_misses"]:
        lines.append("  Nearest misses:")
        lines += [f"    {miss['policy']} {miss['clause']}: {miss['why']}" for miss in found["near_misses"]]
    if found["misses_left_out"]:
        lines.append(f"    and {found['misses_left_out']} more")
    return "\n".join(lines)


def because(found: dict[str, Any]) -> str:
    """What decided, as a sentence."""
    decision = found["decision"]
    if decision is None:
        return _undecided(found)
    named = ", ".join(
        f"{policy['kind']} {policy['namespace'] + '/' if policy['namespace'] else ''}{policy['name']}"
        f"{' (gone since)' * policy['gone']}"
        for policy in decision["policies"]
    )
    way = decision["direction"]
    audited = " Policy is only audited here, so the packet went on." if found["verdict"] == "AUDIT" else ""
    if decision["default_deny"]:
        return (
            f"Default deny for {way}: selected by {named or 'a policy'}, and nothing allowed this.{audited}"
        )
    rule = f"for {way} by {named}, {decision['clause']}"
    if audited:
        return f"Denied {rule}.{audited}"
    if found["verdict"] != "DROPPED":
        return f"Allowed {rule}."
    if found["reason"] in _BY_POLICY:
        return f"Denied {rule}."
    if found["reason"] == DropReason.PEER_UNKNOWN:
        return f"{_PEER_UNKNOWN} It would be decided {rule}."
    # The rule let it pass, and then something else stood in the way.
    return f"Allowed {rule}, and dropped afterwards: {drop_text(found['reason'])}."


def _undecided(found: dict[str, Any]) -> str:
    if found["rule"]:
        word = "dropped" if found["verdict"] == "DROPPED" else "decided"
        return f"Policy {word} it by rule {found['rule']}, which was not known here when the flow was stored."
    if found["verdict"] != "DROPPED":
        return "No policy was asked."
    if found["reason"] in _BY_POLICY:
        return f"Dropped by policy, and the record names no rule: {drop_text(found['reason'])}."
    if found["reason"] == DropReason.PEER_UNKNOWN:
        return _PEER_UNKNOWN
    return f"Dropped, but not by a policy: {drop_text(found['reason'])}."


def drop_text(reason: int) -> str:
    return DROP_TEXT[DropReason(reason)] if reason in _REASONS else f"reason {reason}"


def _who(endpoint: Any, address: str, port: int) -> str:
    name = f"{endpoint.namespace}/{endpoint.pod_name}" if endpoint.pod_name else address
    return f"{name}:{port}" if port else name
