"""Explanations: the rule, its place, and near misses."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from tests.unit.hubble.conftest import Make

from podwire.abi.enums import DROP_TEXT, DropReason
from podwire.hubble.explain import because
from podwire.hubble.message import Messages
from podwire.hubble.pipeline import Pipeline
from podwire.model import implied
from podwire.model.rule import Clause, Direction, Effect, Origin, Ports, Rule
from podwire.model.selector import Selector, equals, inside
from podwire.state.tables import ContainerPort, IdentityRow, PolicyRow, RuleRow
from podwire.testing import flows


def explained(pipeline: Pipeline, row: int) -> dict[str, Any]:
    found = pipeline.explain_json(Messages(pipeline.flows).flow(row).uuid)
    assert found is not None
    return found


def policy(
    peers: tuple[Selector, ...] | None, ports: tuple[Ports, ...] | None, uid: str = "uid-policy"
) -> PolicyRow:
    origin = Origin("CiliumNetworkPolicy", "prod", "backend")
    clause = Clause(Direction.INGRESS, Effect.ALLOW, 0, peers, ports, "spec.ingress[0]")
    subject = Selector((equals("any", "app", "backend"),))
    rule = Rule(origin, 0, subject, (clause,), True, False)
    return PolicyRow("CiliumNetworkPolicy", "prod", "backend", uid, 1, (rule,))


def test_allowed(sampled: Pipeline) -> None:
    sampled.flows.tables.policies.put(policy(None, None))
    found = explained(sampled, 2)
    assert found["decision"] == {
        "policies": [{"kind": "CiliumNetworkPolicy", "namespace": "prod", "name": "backend", "gone": False}],
        "clause": "spec.ingress[0]",
        "direction": "ingress",
        "default_deny": False,
    }
    assert "Allowed for ingress by CiliumNetworkPolicy prod/backend, spec.ingress[0]." in found["text"]


def test_a_policy_that_is_gone_is_not_told_as_if_it_were_there(sampled: Pipeline) -> None:
    """Also one that came again under the same name: it is another."""
    table = sampled.flows.tables.policies
    name = "CiliumNetworkPolicy prod/backend"

    def texts() -> list[str]:
        return [explained(sampled, row)["text"] for row in (2, 6, 7)]

    for there, gone in (
        (policy(None, None), ""),
        (policy(None, None, uid="another"), " (gone since)"),
        (None, " (gone since)"),
    ):
        table.replace([there] if there else [])
        assert f"Allowed for ingress by {name}{gone}, spec.ingress[0]." in texts()[0]
        assert f"Default deny for ingress: selected by {name}{gone}, and nothing allowed this." in texts()[1]
        assert f"Denied for egress by {name}{gone}, spec.egressDeny[0]." in texts()[2]
    decision = explained(sampled, 2)["decision"]
    assert [one["gone"] for one in decision["policies"]] == [True]


def test_what_no_object_says_is_never_gone(make: Make) -> None:
    pipeline, ring = make()
    for number, rule in ((401, implied.LOCALHOST), (402, implied.ALWAYS)):
        pipeline.flows.tables.rules.put(
            RuleRow(number, Direction.INGRESS, (rule.origin,), "ingress[0]", False)
        )
        found = explained(pipeline, denied(pipeline, ring, rule=number))
        assert [one["gone"] for one in found["decision"]["policies"]] == [False]


def test_denied(sampled: Pipeline) -> None:
    sampled.flows.tables.policies.put(policy(None, None))
    found = explained(sampled, 7)
    assert found["verdict"] == "DROPPED"
    assert "Denied for egress by CiliumNetworkPolicy prod/backend, spec.egressDeny[0]." in found["text"]


def test_default_deny_names_who_selects_and_why_nobody_allowed(sampled: Pipeline) -> None:
    peers, ports = (Selector((equals("any", "app", "frontend"),)),), (Ports(6, 9090, 9090), Ports(17, 1, 99))
    sampled.flows.tables.policies.put(policy(peers, ports))
    found = explained(sampled, 6)
    assert found["decision"]["default_deny"]
    assert "nothing allowed" in found["text"]
    assert found["near_misses"] == [
        {
            "policy": "prod/backend",
            "clause": "ingress[0]",
            "lacks": ["peer", "ports"],
            "why": "the peer is not [app=frontend] and the port is none of 9090/TCP, 1-99/UDP",
        }
    ]
    assert "prod/unauthorized:40000 -> prod/backend-7d4b9-x1:8080 TCP: DROPPED" in found["text"]


def test_a_policy_that_has_changed_since(sampled: Pipeline) -> None:
    sampled.flows.tables.policies.put(policy(None, None))
    assert "changed since" in explained(sampled, 6)["near_misses"][0]["why"]
    sampled.flows.tables.policies.put(policy((), (Ports(),)))
    assert explained(sampled, 6)["near_misses"][0]["why"] == "it allows nobody"


def whys(pipeline: Pipeline, row: int, *clauses: tuple[Any, Any], direction: Direction) -> list[str]:
    """Why none of these (peers, ports) allowed a flow that was denied by default."""
    tables = pipeline.flows.tables
    origin = Origin("CiliumNetworkPolicy", "prod", "mine")
    made = tuple(
        Clause(direction, Effect.ALLOW, index, peers, ports, f"spec.x[{index}]")
        for index, (peers, ports) in enumerate(clauses)
    )
    rule = Rule(origin, 0, Selector(), made, True, True)
    tables.policies.put(PolicyRow("CiliumNetworkPolicy", "prod", "mine", "u", 1, (rule,)))
    found = sorted(explained(pipeline, row)["near_misses"], key=lambda miss: miss["clause"])
    return [miss["why"] for miss in found]


def denied(pipeline: Pipeline, ring: flows.MemoryRing, **fields: Any) -> int:
    """The row of a packet that no policy allowed."""
    row = pipeline.store.end
    fields.setdefault("rule", flows.DEFAULT_DENIED)
    ring.emit(flows.event(kind=1, reason=133, **fields))
    pipeline.drain()
    return row


def test_a_named_port_is_what_the_pod_calls_so(make: Make) -> None:
    pipeline, ring = make()
    endpoints = pipeline.flows.tables.endpoints
    row = endpoints.get(12)
    assert row is not None
    endpoints.put(
        msgspec.structs.replace(row, ports=(ContainerPort("http", 80, 6), ContainerPort("admin", 8080, 6)))
    )
    stored = denied(pipeline, ring)
    http, admin, other = ((None, (Ports(6, 0, 0, name),)) for name in ("http", "admin", "metrics"))
    udp = (None, (Ports(17, 0, 0, "admin"),))
    assert whys(pipeline, stored, http, admin, other, udp, direction=Direction.INGRESS) == [
        "the port is none of http/TCP (80)",
        "it matches now; the policy or the labels have changed since",
        "the port is none of metrics/TCP (nothing here is called so)",
        "the port is none of admin/UDP (nothing here is called so)",
    ]


def test_types_of_icmp_are_no_ports(make: Make) -> None:
    pipeline, ring = make()
    echo = denied(pipeline, ring, protocol=1, icmp_type=8, destination_port=0)
    clauses = [
        (None, (Ports(1, 13 << 8, 13 << 8 | 255),)),
        (None, (Ports(1, 3 << 8 | 1, 3 << 8 | 1), Ports(6, 80, 80))),
        (None, (Ports(58, 8 << 8, 8 << 8 | 255),)),
        (None, (Ports(),)),
        (None, (Ports(1, 8 << 8, 8 << 8 | 255),)),
    ]
    assert whys(pipeline, echo, *clauses, direction=Direction.INGRESS) == [
        "the ICMP type is none of ICMP type 13",
        "the ICMP type is none of ICMP type 3 code 1, 80/TCP",
        "the ICMP type is none of ICMPv6 type 8",
        "the ICMP type is none of ANY",
        "it matches now; the policy or the labels have changed since",
    ]


def prefixes(prefix: str, *excepted: str) -> tuple[Selector, ...]:
    return (Selector(inside(prefix, excepted)),)


def test_a_prefix_never_means_a_pod(make: Make) -> None:
    pipeline, ring = make()
    stored = denied(pipeline, ring)
    clauses = [(prefixes("10.0.1.1/32"), None), (prefixes("192.0.2.0/24", "192.0.2.9/32"), None)]
    assert whys(pipeline, stored, *clauses, direction=Direction.INGRESS) == [
        "the peer is not 10.0.1.1/32 (10.0.1.1 is pod prod/frontend: a prefix means only what is outside the"
        " cluster, never pods or nodes)",
        "the peer is not 192.0.2.0/24 except 192.0.2.9/32",
    ]


def test_an_address_is_asked_about_itself_and_not_by_the_prefix_it_had(make: Make) -> None:
    """The identity was that of 198.51.100.0/24; rules that came later name smaller and larger prefixes."""
    pipeline, ring = make()
    tables = pipeline.flows.tables
    local = 1 << 24
    tables.identities.put(IdentityRow(local, ("cidr:198.51.100.0/24", "reserved:world"), "local"))
    stored = denied(pipeline, ring, source="198.51.100.7", source_identity=local, source_endpoint=0)
    clauses = [
        (prefixes("198.51.100.7/32"), None),
        (prefixes("198.51.100.8/32"), None),
        (prefixes("198.0.0.0/8", "198.51.100.0/30"), None),
        (prefixes("198.0.0.0/8", "198.51.100.0/28"), None),
    ]
    changed = "it matches now; the policy or the labels have changed since"
    assert whys(pipeline, stored, *clauses, direction=Direction.INGRESS) == [
        changed,
        "the peer is not 198.51.100.8/32",
        changed,
        "the peer is not 198.0.0.0/8 except 198.51.100.0/28"
        " (198.51.100.7 is in 198.51.100.0/28, which is excepted)",
    ]


def test_a_services_address_and_port_are_not_the_pods(make: Make) -> None:
    pipeline, ring = make()
    egress = RuleRow(104, Direction.EGRESS, (Origin("NetworkPolicy", "prod", "mine"),), "", True)
    pipeline.flows.tables.rules.put(egress)
    stored = denied(pipeline, ring, rule=104, direction=2)
    app = (Selector((equals("k8s", "app", "backend"),)),)
    clauses = [
        (prefixes(f"{flows.SERVICE}/32"), None),
        (app, (Ports(6, 80, 80),)),
        (app, (Ports(6, 81, 81),)),
    ]
    assert whys(pipeline, stored, *clauses, direction=Direction.EGRESS) == [
        "the peer is not 10.96.0.10/32 (10.96.0.10 is Service prod/backend: policy is asked about the pod"
        " behind it, not about the Service's address)",
        "the port is none of 80/TCP (80 is the port of Service prod/backend; policy is asked about the"
        " pod's, 8080)",
        "the port is none of 81/TCP",
    ]


def test_what_was_allowed_and_dropped_for_another_reason_was_not_denied(make: Make) -> None:
    pipeline, ring = make()
    pipeline.flows.tables.policies.put(policy(None, None))
    for reason, verdict in ((221, 2), (133, 2), (181, 2)):
        ring.emit(flows.event(kind=1, reason=reason, rule=flows.ALLOWED, point=verdict))
    ring.emit(flows.event(kind=5, point=1, reason=181, rule=flows.ALLOWED))  # audited
    ring.emit(flows.event(kind=1, reason=133, rule=999))
    ring.emit(flows.event(kind=1, reason=133, rule=0))
    pipeline.drain()
    said = [explained(pipeline, row)["text"].splitlines()[1].strip() for row in range(6)]
    rule = "for ingress by CiliumNetworkPolicy prod/backend, spec.ingress[0]"
    assert said == [
        f"Allowed {rule}, and dropped afterwards: Packet is larger than the path allows.",
        f"Denied {rule}.",
        f"Denied {rule}.",
        f"Denied {rule}. Policy is only audited here, so the packet went on.",
        "Policy dropped it by rule 999, which was not known here when the flow was stored.",
        "Dropped by policy, and the record names no rule: Policy denied.",
    ]


def test_the_nearest_misses_come_first_and_the_rest_is_counted(make: Make) -> None:
    pipeline, ring = make()
    stored = denied(pipeline, ring)
    nobody = (Selector((equals("k8s", "app", "nobody"),)),)
    clauses = [*[(nobody, (Ports(6, 1, 1),))] * 30, (None, (Ports(6, 1, 1),))]
    whys(pipeline, stored, *clauses, direction=Direction.INGRESS)
    found = explained(pipeline, stored)
    assert found["near_misses"][0]["lacks"] == ["ports"]
    assert (len(found["near_misses"]), found["misses_left_out"]) == (20, 11)
    assert found["text"].endswith("and 11 more")


def test_no_policy_asked(sampled: Pipeline) -> None:
    assert explained(sampled, 8)["decision"] is None
    assert "No policy was asked" in explained(sampled, 8)["text"]
    assert "Redirect to the endpoint failed" in explained(sampled, 10)["text"]


def test_a_flow_that_is_not_there(sampled: Pipeline) -> None:
    assert sampled.explain_json("00000000-0000-8000-8000-000000000000") is None
    assert sampled.explain_json("nonsense") is None


@pytest.mark.parametrize("reason", [one for one in DropReason if DROP_TEXT[one].startswith("Policy denied")])
def test_what_is_called_denied_by_policy_is_explained_as_that(reason: DropReason) -> None:
    found = {"decision": None, "rule": 0, "verdict": "DROPPED", "reason": reason}
    assert "not by a policy" not in because(found)
    decision = {"policies": [], "clause": "", "direction": "egress", "default_deny": False}
    assert "afterwards" not in because({**found, "decision": decision})
