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


def ports(**port: Any) -> dict[str, Any]:
    return {"ingress": [{"toPorts": [{"ports": [port]}]}]}


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({}, "spec: has no rules"),
    ({"ingress": []}, "spec: has no rules"),
    ({"ingress": {}}, "spec.ingress: must be a list"),
    ({"ingress": [[]]}, "spec.ingress[0]: must be an object"),
    ({"endpointSelector": None, "ingress": [{}]}, "spec.endpointSelector: is missing"),
    ({"endpointSelector": [], "ingress": [{}]}, "spec.endpointSelector: must be an object"),
    ({"nodeSelector": {}, "ingress": [{}]}, "spec.nodeSelector: host policies are not supported yet"),
    ({"ingres": [{}]}, "spec.ingres: unknown field"),
    (
        {"egress": [{}, {"toFQDNs": [{"matchName": "a"}]}]},
        "spec.egress[1].toFQDNs: DNS names are not supported yet",
    ),
    ({"egress": [{"toServices": []}]}, "spec.egress[0].toServices: selecting services is not supported yet"),
    ({"egress": [{"toGroups": []}]}, "spec.egress[0].toGroups: groups of cloud providers"),
    ({"ingress": [{"fromGroups": []}]}, "spec.ingress[0].fromGroups: groups of cloud providers"),
    ({"ingress": [{"fromNodes": [{}]}]}, "spec.ingress[0].fromNodes: selecting nodes"),
    ({"ingress": [{"authentication": {"mode": "required"}}]}, "spec.ingress[0].authentication: mutual auth"),
    ({"egressDeny": [{"toFQDNs": []}]}, "spec.egressDeny[0].toFQDNs: is not possible in a deny rule"),
    ({"ingress": [{"toEndpoints": []}]}, "spec.ingress[0].toEndpoints: unknown field"),
    ({"ingress": [{"fromRequires": []}]}, "spec.ingress[0].fromRequires: was removed"),
    (
        {"ingress": [{"toPorts": [{"ports": [{"port": "80"}], "rules": {"http": []}}]}]},
        "spec.ingress[0].toPorts[0].rules: L7 rules are not supported yet",
    ),
    (
        {"ingress": [{"toPorts": [{"ports": [{"port": "80"}], "listener": {}}]}]},
        "spec.ingress[0].toPorts[0].listener: Envoy listeners",
    ),
    (
        {"ingressDeny": [{"toPorts": [{"ports": [{"port": "80"}], "rules": {}}]}]},
        "spec.ingressDeny[0].toPorts[0].rules: is not possible in a deny rule",
    ),
    ({"ingress": [{"toPorts": [{}]}]}, "spec.ingress[0].toPorts[0].ports: needs at least one port"),
    (
        {"ingress": [{"fromEndpoints": [{}], "fromCIDR": ["10.0.0.0/8"]}]},
        "spec.ingress[0]: fromEndpoints and fromCIDR cannot be combined",
    ),
    (
        {"egress": [{"toPorts": [{"ports": [{"port": "80"}]}], "icmps": [{"fields": [{"type": 8}]}]}]},
        "spec.egress[0].icmps: cannot be combined with toPorts",
    ),
    (ports(port=80), "spec.ingress[0].toPorts[0].ports[0].port: must be a string, not 80"),
    (ports(port="65536"), "spec.ingress[0].toPorts[0].ports[0].port: must be from 0 to 65535"),
    (ports(port="9" * 5000), "spec.ingress[0].toPorts[0].ports[0].port: must be from 0 to 65535"),
    (ports(port="0" * 5000), "spec.ingress[0].toPorts[0].ports[0].port: must be from 0 to 65535"),
    ({"x\x1b[31m": 1}, "spec.'x\\x1b[31m': unknown field"),
    (ports(port="-1"), "spec.ingress[0].toPorts[0].ports[0].port: '-1' is neither"),
    (
        ports(port="0x10000000000000"),
        "spec.ingress[0].toPorts[0].ports[0].port: '0x10000000000000' is neither",
    ),
    (ports(port="٣"), "spec.ingress[0].toPorts[0].ports[0].port: "),
    (ports(port=""), "spec.ingress[0].toPorts[0].ports[0].port: a port is needed"),
    (ports(), "spec.ingress[0].toPorts[0].ports[0].port: a port is needed"),
    (ports(port="80", endPort=65536), "spec.ingress[0].toPorts[0].ports[0].endPort: must be from 0 to 65535"),
    (ports(port="80", endPort=True), "spec.ingress[0].toPorts[0].ports[0].endPort: must be a number"),
    (ports(port="80", endPort="90"), "spec.ingress[0].toPorts[0].ports[0].endPort: must be a number"),
    (ports(port="http", endPort=90), "spec.ingress[0].toPorts[0].ports[0].endPort: a range cannot begin"),
    (ports(port="80", protocol="ICMP"), "spec.ingress[0].toPorts[0].ports[0].protocol: unknown protocol"),
    (ports(port="80", protocol="GRE"), "spec.ingress[0].toPorts[0].ports[0].protocol: unknown protocol"),
    (ports(port="80", protocol="VRRP"), "spec.ingress[0].toPorts[0].ports[0].port: VRRP has no ports"),
    (
        {"ingress": [{"toPorts": [{"ports": [{"port": "80"}] * 41}]}]},
        "spec.ingress[0].toPorts[0].ports: 41 ports, at most 40",
    ),
    (
        {"ingress": [{"icmps": [{"fields": [{"type": 8}] * 41}]}]},
        "spec.ingress[0].icmps[0].fields: 41 ICMP types, at most 40",
    ),
    (
        {"ingress": [{"icmps": [{"fields": [{"type": 256}]}]}]},
        "spec.ingress[0].icmps[0].fields[0].type: must be",
    ),
    (
        {"ingress": [{"icmps": [{"fields": [{"type": "Foo"}]}]}]},
        "fields[0].type: 'Foo' is no ICMP type of IPv4",
    ),
    (
        {"ingress": [{"icmps": [{"fields": [{"type": 8, "family": "v4"}]}]}]},
        "fields[0].family: unknown family",
    ),
    ({"egress": [{"toCIDR": ["10.0.0.0/33"]}]}, "spec.egress[0].toCIDR[0]: '10.0.0.0/33' is no CIDR"),
    ({"egress": [{"toCIDR": ["10.0.0.0/255.0.0.0"]}]}, "spec.egress[0].toCIDR[0]: "),
    (
        {"egress": [{"toCIDR": ["::ffff:10.0.0.0/104"]}]},
        "spec.egress[0].toCIDR[0]: '::ffff:10.0.0.0/104' is IPv4 in",
    ),
    ({"egress": [{"toCIDR": ["fe80::1%eth0"]}]}, "spec.egress[0].toCIDR[0]: "),
    ({"egress": [{"toCIDR": [10]}]}, "spec.egress[0].toCIDR[0]: must be a string"),
    (
        {"egress": [{"toCIDRSet": [{"cidr": "10.0.0.1"}]}]},
        "spec.egress[0].toCIDRSet[0].cidr: '10.0.0.1' has no prefix",
    ),
    ({"egress": [{"toCIDRSet": [{}]}]}, "spec.egress[0].toCIDRSet[0]: needs a cidr"),
    (
        {"egress": [{"toCIDRSet": [{"cidrGroupRef": "a"}]}]},
        "toCIDRSet[0].cidrGroupRef: CIDR groups are not supported",
    ),
    (
        {"egress": [{"toCIDRSet": [{"cidr": "10.0.0.0/16", "except": ["10.1.0.0/24"]}]}]},
        "spec.egress[0].toCIDRSet[0].except[0]: 10.1.0.0/24 is not inside 10.0.0.0/16",
    ),
    (
        {"egress": [{"toCIDRSet": [{"cidr": "10.0.0.0/16", "except": ["fd00::/24"]}]}]},
        "spec.egress[0].toCIDRSet[0].except[0]: fd00::/24 is not inside",
    ),
    ({"egress": [{"toEntities": ["World"]}]}, "spec.egress[0].toEntities[0]: unknown entity 'World'"),
    (
        {"ingress": [{"fromEndpoints": [{"matchLabels": {"a b": "c"}}]}]},
        "spec.ingress[0].fromEndpoints[0].matchLabels.a b: 'a b' is no valid label key",
    ),
    (
        {"ingress": [{"fromEndpoints": [{"matchLabels": {"a": "b" * 64}}]}]},
        "fromEndpoints[0].matchLabels.a: 'bbb",
    ),
    (
        {"ingress": [{"fromEndpoints": [{"matchLabels": {"cidr:10.0.0.0/8": ""}}]}]},
        "prefixes cannot be selected by",
    ),
    ({"ingress": [{"fromEndpoints": [{"matchLabels": {"aws:a": ""}}]}]}, "unknown source of labels 'aws'"),
    (
        {"ingress": [{"fromEndpoints": [{"matchExpressions": [{"key": "a", "operator": "in"}]}]}]},
        "fromEndpoints[0].matchExpressions[0].operator: unknown operator 'in'",
    ),
    (
        {
            "ingress": [
                {"fromEndpoints": [{"matchExpressions": [{"key": "a", "operator": "In", "values": []}]}]}
            ]
        },
        "matchExpressions[0].values: In needs at least one value",
    ),
    (
        {
            "ingress": [
                {
                    "fromEndpoints": [
                        {"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}
                    ]
                }
            ]
        },
        "matchExpressions[0].values: Exists takes no values",
    ),
    (
        {"ingress": [{}], "enableDefaultDeny": {"ingress": "no"}},
        "spec.enableDefaultDeny.ingress: must be true or",
    ),
    ({"ingress": [{}], "log": {"value": "x" * 33}}, "spec.log.value: "),
    ({"ingress": [{}], "log": {"value": "a\nb"}}, "spec.log.value: "),
    ({"ingress": [{}], "description": 1}, "spec.description: must be a string"),
    ({"ingress": [{}], "description": "\ud800"}, "spec.description: is not valid Unicode"),
]


@pytest.mark.parametrize(("spec", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_what_is_wrong_is_refused_with_its_path(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidObject) as caught:
        parse(cnp(spec))
    assert message in str(caught.value) and caught.value.path.startswith("spec")


def test_objects_that_are_no_policies() -> None:
    with pytest.raises(InvalidObject, match="kind: None is no kind of policy"):
        parse({})
    with pytest.raises(InvalidObject, match="must be an object"):
        parse([])
    with pytest.raises(InvalidObject, match="spec: is missing"):
        parse(cnp())
    with pytest.raises(InvalidObject, match=r"metadata\.name"):
        parse(cnp({"ingress": [{}]}, metadata={}))
    with pytest.raises(InvalidObject, match=r"specs\[0\]\.endpointSelector"):
        parse(cnp(specs=[{"ingress": [{}]}]))
