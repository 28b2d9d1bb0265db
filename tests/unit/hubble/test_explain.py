"""Explanations: the rule, its place, and near misses."""

from __future__ import annotations

from typing import Any

from podwire.hubble.message import Messages
from podwire.hubble.pipeline import Pipeline
from podwire.model.rule import Clause, Direction, Effect, Origin, Ports, Rule
from podwire.model.selector import Selector, equals
from podwire.state.tables import PolicyRow


def explained(pipeline: Pipeline, row: int) -> dict[str, Any]:
    found = pipeline.explain_json(Messages(pipeline.flows).flow(row).uuid)
    assert found is not None
    return found


def policy(peers: tuple[Selector, ...] | None, ports: tuple[Ports, ...] | None) -> PolicyRow:
    origin = Origin("CiliumNetworkPolicy", "prod", "backend")
    clause = Clause(Direction.INGRESS, Effect.ALLOW, 0, peers, ports, "spec.ingress[0]")
    subject = Selector((equals("any", "app", "backend"),))
    rule = Rule(origin, 0, subject, (clause,), True, False)
    return PolicyRow("CiliumNetworkPolicy", "prod", "backend", "u", 1, (rule,))


def test_allowed(sampled: Pipeline) -> None:
    found = explained(sampled, 2)
    assert found["decision"] == {
        "policies": [{"kind": "CiliumNetworkPolicy", "namespace": "prod", "name": "backend"}],
        "clause": "spec.ingress[0]",
        "default_deny": False,
    }
    assert "Allowed for ingress by CiliumNetworkPolicy prod/backend, spec.ingress[0]." in found["text"]


def test_denied(sampled: Pipeline) -> None:
    found = explained(sampled, 7)
    assert found["verdict"] == "DROPPED"
    assert "Denied for egress by CiliumNetworkPolicy prod/backend, spec.egressDeny[0]." in found["text"]


def test_default_deny_names_who_selects_and_why_nobody_allowed(sampled: Pipeline) -> None:
    peers, ports = (Selector((equals("any", "app", "frontend"),)),), (Ports(6, 9090, 9090), Ports(17, 1, 99))
    sampled.flows.tables.policies.put(policy(peers, ports))
    found = explained(sampled, 6)
    assert found["decision"]["default_deny"]
    assert "nothing allows" in found["text"]
    assert found["near_misses"] == [
        {
            "policy": "prod/backend",
            "clause": "ingress[0]",
            "why": "the peer is not [app=frontend] and the port is none of 9090/TCP, 1-99/UDP",
        }
    ]
    assert "prod/unauthorized:40000 -> prod/backend-7d4b9-x1:8080 TCP: DROPPED" in found["text"]


def test_a_policy_that_has_changed_since(sampled: Pipeline) -> None:
    sampled.flows.tables.policies.put(policy(None, None))
    assert "changed since" in explained(sampled, 6)["near_misses"][0]["why"]
    sampled.flows.tables.policies.put(policy((), (Ports(),)))
    assert explained(sampled, 6)["near_misses"][0]["why"] == "it allows nobody"


def test_no_policy_asked(sampled: Pipeline) -> None:
    assert explained(sampled, 8)["decision"] is None
    assert "No policy was asked" in explained(sampled, 8)["text"]
    assert "Redirect to the endpoint failed" in explained(sampled, 10)["text"]


def test_a_flow_that_is_not_there(sampled: Pipeline) -> None:
    assert sampled.explain_json("00000000-0000-8000-8000-000000000000") is None
    assert sampled.explain_json("nonsense") is None
