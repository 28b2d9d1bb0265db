"""NetworkPolicy: what it means, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from podwire.base.errors import InvalidObject
from podwire.model.rule import Direction, Ports, Rule
from podwire.policy.parse import parse

NAMESPACE = "k8s:io.kubernetes.pod.namespace"


def rule(spec: dict[str, Any]) -> Rule:
    policy = {
        "kind": "NetworkPolicy",
        "metadata": {"name": "policy", "namespace": "prod"},
        "spec": {"podSelector": {}} | spec,
    }
    (found,) = parse(policy)
    return found


def peers(spec: dict[str, Any]) -> list[str] | None:
    (clause,) = rule(spec).clauses
    return None if clause.peers is None else [str(selector) for selector in clause.peers]


@pytest.mark.parametrize(
    ("spec", "ingress", "egress"),
    [
        ({}, True, False),  # nothing said: nothing comes in
        ({"ingress": [{}]}, True, False),
        ({"egress": [{}]}, True, True),
        ({"egress": []}, True, False),
        ({"policyTypes": ["Egress"]}, False, True),
        ({"policyTypes": ["Ingress", "Egress"]}, True, True),
        ({"policyTypes": []}, True, False),
    ],
)
def test_policy_types(spec: dict[str, Any], ingress: bool, egress: bool) -> None:
    found = rule(spec)
    assert (found.default_deny_ingress, found.default_deny_egress) == (ingress, egress)


def test_rules_of_a_direction_that_is_no_policy_type_do_not_count() -> None:
    found = rule({"policyTypes": ["Egress"], "ingress": [{}], "egress": [{}]})
    assert [clause.direction for clause in found.clauses] == [Direction.EGRESS]


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({}, None),  # everybody, the world included
        ({"from": []}, None),
        ({"from": None}, None),
        ({"from": [{"podSelector": {}}]}, [f"{NAMESPACE}=prod"]),
        ({"from": [{"namespaceSelector": {}}]}, [f"has {NAMESPACE}"]),
        (
            {"from": [{"podSelector": {"matchLabels": {"app": "web"}}}]},
            [f"k8s:app=web, {NAMESPACE}=prod"],
        ),
        (
            {
                "from": [
                    {
                        "podSelector": {"matchLabels": {"app": "web"}},
                        "namespaceSelector": {"matchLabels": {"team": "red"}},
                    }
                ]
            },
            [f"k8s:app=web, k8s:io.cilium.k8s.namespace.labels.team=red, has {NAMESPACE}"],
        ),
        (
            {"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}]},
            ["has cidr:10.0.0.0/8, not cidr:10.1.0.0/16"],
        ),
        (
            {"from": [{"podSelector": {}}, {"ipBlock": {"cidr": "10.0.0.0/8"}}]},
            [f"{NAMESPACE}=prod", "has cidr:10.0.0.0/8"],
        ),
    ],
)
def test_peers(entry: dict[str, Any], expected: list[str] | None) -> None:
    assert peers({"ingress": [entry]}) == expected


@pytest.mark.parametrize(
    ("ports", "expected"),
    [
        (None, None),
        ([], None),
        ([{}], (Ports(6),)),  # all of TCP
        ([{"protocol": "UDP"}], (Ports(17),)),
        ([{"port": 80}], (Ports(6, 80, 80),)),
        ([{"port": 80, "endPort": 90}], (Ports(6, 80, 90),)),
        ([{"port": "http"}], (Ports(6, 0, 0, "http"),)),
        ([{"port": 80}, {"port": 80, "protocol": "SCTP"}], (Ports(6, 80, 80), Ports(132, 80, 80))),
    ],
)
def test_ports(ports: Any, expected: Any) -> None:
    (clause,) = rule({"ingress": [{"ports": ports}]}).clauses
    assert clause.ports == expected


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"podSelektor": {}}, "spec.podSelektor: unknown field"),
    ({"policyTypes": ["ingress"]}, "spec.policyTypes[0]: unknown policy type"),
    ({"ingress": [{"to": []}]}, "spec.ingress[0].to: unknown field"),
    ({"ingress": [{"from": [{}]}]}, "spec.ingress[0].from[0]: names no peer"),
    (
        {"ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}}]}]},
        "spec.ingress[0].from[0].ipBlock: cannot be combined with podSelector",
    ),
    ({"ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.1"}}]}]}, "spec.ingress[0].from[0].ipBlock.cidr: "),
    ({"ingress": [{"ports": [{"port": 0}]}]}, "spec.ingress[0].ports[0].port: must be from 1 to 65535"),
    ({"ingress": [{"ports": [{"port": 65536}]}]}, "spec.ingress[0].ports[0].port: must be from 1 to 65535"),
    ({"ingress": [{"ports": [{"port": 1.5}]}]}, "spec.ingress[0].ports[0].port: must be a number"),
    ({"ingress": [{"ports": [{"port": "80"}]}]}, "spec.ingress[0].ports[0].port: '80' is neither"),
    (
        {"ingress": [{"ports": [{"port": 80, "endPort": 79}]}]},
        "spec.ingress[0].ports[0].endPort: must be from 80",
    ),
    ({"ingress": [{"ports": [{"endPort": 79}]}]}, "spec.ingress[0].ports[0].endPort: needs a port"),
    (
        {"ingress": [{"ports": [{"port": "http", "endPort": 79}]}]},
        "spec.ingress[0].ports[0].endPort: a range",
    ),
    ({"ingress": [{"ports": [{"protocol": "tcp"}]}]}, "spec.ingress[0].ports[0].protocol: unknown protocol"),
    ({"podSelector": {"matchLabels": {"k8s:app": "a"}}}, "spec.podSelector.matchLabels.k8s:app: "),
]


@pytest.mark.parametrize(("spec", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_what_is_wrong_is_refused_with_its_path(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidObject) as caught:
        rule(spec)
    assert message in str(caught.value)
