"""What is wrong in a CiliumNetworkPolicy, or not supported, is refused with its path."""

from __future__ import annotations

from typing import Any

import pytest

from podwire.base.errors import InvalidObject
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
