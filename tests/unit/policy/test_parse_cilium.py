"""CiliumNetworkPolicy and CiliumClusterwideNetworkPolicy: what they mean, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from podwire.base.errors import InvalidObject
from podwire.model.rule import Clause, Direction, Effect, Origin, Ports, Prefix, Rule
from podwire.model.selector import NOTHING
from podwire.policy.parse import parse


def cnp(spec: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": "policy", "namespace": "prod", "uid": "u1"},
    }
    if spec is not None:
        found["spec"] = {"endpointSelector": {}} | spec
    return found | more


def ccnp(spec: dict[str, Any]) -> dict[str, Any]:
    return cnp(spec, kind="CiliumClusterwideNetworkPolicy", metadata={"name": "policy"})


def one(policy: dict[str, Any]) -> Rule:
    (rule,) = parse(policy)
    return rule


def only(policy: dict[str, Any]) -> Clause:
    (clause,) = one(policy).clauses
    return clause


def peers(policy: dict[str, Any]) -> list[str] | None:
    found = only(policy).peers
    return None if found is None else [str(selector) for selector in found]


NAMESPACE = "k8s:io.kubernetes.pod.namespace"


def test_origin_and_text() -> None:
    rule = one(
        cnp(
            {
                "ingress": [{}],
                "description": "why",
                "log": {"value": "a b"},
                "labels": [{"key": "team", "value": "red"}, "k8s:app=web"],
            }
        )
    )
    assert rule.origin == Origin("CiliumNetworkPolicy", "prod", "policy", "u1")
    assert (rule.description, rule.log) == ("why", "a b")
    assert rule.labels == ("k8s:app=web", "unspec:team=red")


def test_spec_and_specs_are_all_rules() -> None:
    spec = {"endpointSelector": {}, "ingress": [{}]}
    rules = parse(cnp(spec, specs=[spec, spec]))
    assert [rule.index for rule in rules] == [0, 1, 2]
    assert [rule.clauses[0].path for rule in rules] == [
        "spec.ingress[0]",
        "specs[0].ingress[0]",
        "specs[1].ingress[0]",
    ]


@pytest.mark.parametrize(
    ("spec", "ingress", "egress"),
    [
        ({"ingress": [{}]}, True, False),
        ({"egress": [{}]}, False, True),
        ({"ingressDeny": [{}]}, True, False),
        ({"ingress": [{}], "egressDeny": [{}]}, True, True),
        ({"ingress": [{}], "egress": []}, True, False),
        ({"ingress": [{}], "enableDefaultDeny": {"ingress": False}}, False, False),
        ({"ingress": [{}], "enableDefaultDeny": {"egress": True}}, True, True),
        ({"ingress": [{}], "enableDefaultDeny": {"ingress": None}}, True, False),
        ({"ingress": [{}], "enableDefaultDeny": None}, True, False),
    ],
)
def test_default_deny_is_per_direction(spec: dict[str, Any], ingress: bool, egress: bool) -> None:
    rule = one(cnp(spec))
    assert (rule.default_deny_ingress, rule.default_deny_egress) == (ingress, egress)


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({}, []),  # nothing said: nobody
        ({"fromEndpoints": None}, []),
        ({"fromEndpoints": []}, []),  # said, and empty: nobody
        ({"fromEndpoints": [], "toPorts": [{"ports": [{"port": "80"}]}]}, []),
        ({"fromCIDR": [], "toPorts": [{"ports": [{"port": "80"}]}]}, []),
        ({"toPorts": [{"ports": [{"port": "80"}]}]}, None),  # only ports said: whoever
        ({"fromEndpoints": None, "toPorts": [{"ports": [{"port": "80"}]}]}, None),
        ({"icmps": [{"fields": [{"type": 8}]}]}, None),
        ({"fromEndpoints": [{}]}, [f"{NAMESPACE}=prod"]),  # all of the namespace
        ({"fromEntities": ["all"]}, None),
        ({"fromEntities": ["none"]}, ["<nothing>"]),
    ],
)
def test_nil_and_empty_are_different(entry: dict[str, Any], expected: list[str] | None) -> None:
    assert peers(cnp({"ingress": [entry]})) == expected


def test_a_namespaced_policy_selects_subjects_of_its_namespace_only() -> None:
    rule = one(cnp({"endpointSelector": {"matchLabels": {"app": "web"}}, "ingress": [{}]}))
    assert str(rule.subject) == f"app=web, {NAMESPACE}=prod"
    with pytest.raises(InvalidObject, match="of that namespace only"):
        parse(cnp({"endpointSelector": {"matchLabels": {NAMESPACE: "other"}}, "ingress": [{}]}))
    expressions = [{"key": "reserved:init", "operator": "DoesNotExist"}]
    rule = one(cnp({"endpointSelector": {"matchExpressions": expressions}, "ingress": [{}]}))
    assert f"{NAMESPACE}=prod" in str(rule.subject)


@pytest.mark.parametrize(
    ("selector", "namespaced", "clusterwide"),
    [
        ({}, f"{NAMESPACE}=prod", f"has {NAMESPACE}"),
        ({"matchLabels": {NAMESPACE: "other"}}, f"{NAMESPACE}=other", f"{NAMESPACE}=other"),
        (
            {"matchExpressions": [{"key": NAMESPACE, "operator": "Exists"}]},
            f"has {NAMESPACE}",
            f"has {NAMESPACE}",
        ),
        ({"matchLabels": {"reserved:host": ""}}, "reserved:host", "reserved:host"),
        (
            {"matchLabels": {"k8s:io.cilium.k8s.namespace.labels.team": "red"}},
            "k8s:io.cilium.k8s.namespace.labels.team=red",
            "k8s:io.cilium.k8s.namespace.labels.team=red",
        ),
    ],
)
def test_which_namespaces_peers_are_of(selector: dict[str, Any], namespaced: str, clusterwide: str) -> None:
    assert peers(cnp({"ingress": [{"fromEndpoints": [selector]}]})) == [namespaced]
    assert peers(ccnp({"ingress": [{"fromEndpoints": [selector]}]})) == [clusterwide]


def test_cidrs_become_selectors_and_prefixes() -> None:
    policy = cnp({"egress": [{"toCIDRSet": [{"cidr": "10.1.2.3/8", "except": ["10.1.0.0/16"]}]}]})
    assert peers(policy) == ["has cidr:10.0.0.0/8, not cidr:10.1.0.0/16"]
    assert one(policy).prefixes == (Prefix("10.0.0.0/8", ("10.1.0.0/16",)),)
    assert peers(cnp({"egress": [{"toCIDR": ["10.0.0.1", "fd00::/8"]}]})) == [
        "has cidr:10.0.0.1/32",
        "has cidr:fd00--0/8",
    ]


def test_everything_outside_is_the_world() -> None:
    assert peers(cnp({"egress": [{"toCIDR": ["0.0.0.0/0"]}]})) == [
        "has reserved:world",
        "has reserved:world-ipv4",
    ]
    policy = cnp({"egress": [{"toCIDRSet": [{"cidr": "::/0", "except": ["fd00::/8"]}]}]})
    assert peers(policy) == ["not cidr:fd00--0/8, has reserved:world-ipv6"]
    policy = cnp({"egress": [{"toCIDRSet": [{"cidr": "::/0", "except": ["::/0"]}]}]})
    assert only(policy).peers == (NOTHING,)


def test_entities() -> None:
    found = peers(cnp({"egress": [{"toEntities": ["cluster"]}]}))
    assert found is not None
    assert set(found) == {
        "has reserved:host", "has reserved:remote-node", "has reserved:init", "has reserved:ingress",
        "has reserved:health", "has reserved:unmanaged", "has reserved:kube-apiserver",
        "k8s:io.cilium.k8s.policy.cluster=default",
    }  # fmt: skip
    assert "k8s:io.cilium.k8s.policy.cluster=blue" in {
        str(selector)
        for selector in parse(cnp({"egress": [{"toEntities": ["cluster"]}]}), cluster="blue")[0]
        .clauses[0]
        .peers
        or ()
    }


@pytest.mark.parametrize(
    ("port", "expected"),
    [
        ({"port": "80", "protocol": "TCP"}, Ports(6, 80, 80)),
        ({"port": "80", "protocol": "udp"}, Ports(17, 80, 80)),
        ({"port": "80"}, Ports(0, 80, 80)),
        ({"port": "80", "protocol": ""}, Ports(0, 80, 80)),
        ({"port": "0", "protocol": "SCTP"}, Ports(132, 0, 65535)),
        ({"port": "80", "endPort": 90, "protocol": "TCP"}, Ports(6, 80, 90)),
        ({"port": "80", "endPort": 70, "protocol": "TCP"}, Ports(6, 80, 80)),
        ({"port": "65535", "endPort": 65535, "protocol": "TCP"}, Ports(6, 65535, 65535)),
        ({"port": "1", "endPort": 65535, "protocol": "TCP"}, Ports(6, 1, 65535)),
        ({"port": "HTTP", "protocol": "TCP"}, Ports(6, 0, 0, "http")),
        ({"protocol": "VRRP"}, Ports(112)),
        ({"port": "0", "protocol": "IGMP"}, Ports(2)),
    ],
)
def test_ports(port: dict[str, Any], expected: Ports) -> None:
    assert only(cnp({"ingress": [{"toPorts": [{"ports": [port]}]}]})).ports == (expected,)


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ({"type": 8}, Ports(1, 0x0800, 0x08FF)),
        ({"type": "EchoRequest"}, Ports(1, 0x0800, 0x08FF)),
        ({"type": "255"}, Ports(1, 0xFF00, 0xFFFF)),
        ({"type": "EchoRequest", "family": "IPv6"}, Ports(58, 0x8000, 0x80FF)),
        ({"type": 0, "family": "IPv6"}, Ports(58, 0, 255)),
    ],
)
def test_icmp(field: dict[str, Any], expected: Ports) -> None:
    assert only(cnp({"ingress": [{"icmps": [{"fields": [field]}]}]})).ports == (expected,)


def test_deny_is_an_effect() -> None:
    rule = one(cnp({"egressDeny": [{"toEntities": ["world"]}]}))
    assert [(clause.direction, clause.effect) for clause in rule.clauses] == [(Direction.EGRESS, Effect.DENY)]


NAMED = "k8s:io.cilium.k8s.namespace.labels.team"


@pytest.mark.parametrize(
    ("conditions", "namespaced", "clusterwide"),
    [
        (f"{NAMESPACE} NotIn red", f"{NAMESPACE} notin (red), has {NAMESPACE}", None),
        (f"{NAMESPACE} DoesNotExist", f"has {NAMESPACE}, not {NAMESPACE}", None),
        (f"{NAMED} NotIn red", f"{NAMED} notin (red), has {NAMESPACE}", None),
        (f"{NAMED} DoesNotExist", f"not {NAMED}, has {NAMESPACE}", None),
        (f"{NAMED} Exists", f"has {NAMED}", None),
        (
            "reserved:host DoesNotExist",
            f"{NAMESPACE}=prod, not reserved:host",
            f"has {NAMESPACE}, not reserved:host",
        ),
        ("reserved:host Exists", "has reserved:host", None),
        ("app DoesNotExist", f"not app, {NAMESPACE}=prod", f"not app, has {NAMESPACE}"),
    ],
)  # fmt: skip
def test_what_is_only_negative_means_pods(conditions: str, namespaced: str, clusterwide: str | None) -> None:
    key, operator, *given = conditions.split()
    expression = {"key": key, "operator": operator, **({"values": given} if given else {})}
    for side, member in (("ingress", "fromEndpoints"), ("egressDeny", "toEndpoints")):
        spec = {"endpointSelector": {}, side: [{member: [{"matchExpressions": [expression]}]}]}
        assert set(", ".join(peers(cnp(spec)) or ()).split(", ")) == set(namespaced.split(", "))
        assert set(", ".join(peers(ccnp(spec)) or ()).split(", ")) == set(
            (clusterwide or namespaced).split(", ")
        )
