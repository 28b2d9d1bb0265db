"""Whatever an object holds, the loop that reads it goes on."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

from podwire.kube import Event
from podwire.policy.parse import parse
from podwire.sources.watch import Sources
from podwire.state.tables import Tables

SEED = random.randrange(1 << 32)
WRONG: list[Any] = [
    None,
    True,
    -1,
    1 << 80,
    1.5,
    "",
    "x",
    "\x00\ud800",
    [],
    {},
    [None],
    [[]],
    {"a": {}},
    [{}],
    ["x"],
]

META = {"namespace": "prod", "name": "web", "uid": "u", "labels": {"app": "web"}, "generation": 1}
OBJECTS: dict[str, dict[str, Any]] = {
    "namespaces": {"metadata": META},
    "nodes": {
        "metadata": META,
        "spec": {"podCIDRs": ["10.0.1.0/24"], "podCIDR": "10.0.1.0/24"},
        "status": {"addresses": [{"type": "InternalIP", "address": "172.20.0.1"}]},
    },
    "pods": {
        "metadata": META | {"ownerReferences": [{"kind": "ReplicaSet", "name": "web-1", "controller": True}]},
        "spec": {
            "nodeName": "n1",
            "hostNetwork": False,
            "serviceAccountName": "default",
            "containers": [
                {"name": "c", "ports": [{"name": "http", "containerPort": 80, "protocol": "TCP"}]}
            ],
        },
        "status": {"phase": "Running", "podIP": "10.0.1.5", "podIPs": [{"ip": "10.0.1.5"}]},
    },
    "services": {
        "metadata": META,
        "spec": {
            "type": "NodePort",
            "clusterIP": "10.96.0.1",
            "clusterIPs": ["10.96.0.1"],
            "externalIPs": ["192.0.2.1"],
            "selector": {"app": "web"},
            "sessionAffinity": "ClientIP",
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 5}},
            "internalTrafficPolicy": "Cluster",
            "trafficDistribution": "PreferClose",
            "ports": [
                {"name": "http", "port": 80, "targetPort": "http", "nodePort": 30000, "protocol": "TCP"}
            ],
        },
        "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.2"}]}},
    },
    "endpointslices": {
        "metadata": META | {"labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 80, "protocol": "TCP"}],
        "endpoints": [
            {"addresses": ["10.0.1.5"], "conditions": {"ready": True, "serving": True}, "nodeName": "n1"}
        ],
    },
    "ciliumnetworkpolicies": {
        "metadata": META,
        "spec": {
            "endpointSelector": {"matchLabels": {"app": "web"}},
            "ingress": [
                {
                    "fromEndpoints": [
                        {"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]}
                    ],
                    "toPorts": [{"ports": [{"port": "80", "endPort": 90, "protocol": "TCP"}]}],
                }
            ],
            "egress": [
                {"toCIDRSet": [{"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}], "toEntities": ["world"]}
            ],
        },
    },
    "networkpolicies": {
        "metadata": META,
        "spec": {
            "podSelector": {"matchLabels": {"app": "web"}},
            "policyTypes": ["Ingress"],
            "ingress": [
                {
                    "from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}],
                    "ports": [{"port": 80}],
                }
            ],
        },
    },
    "ciliumendpoints": {
        "metadata": META,
        "status": {
            "identity": {"id": 300},
            "networking": {"addressing": [{"ipv4": "10.0.2.1", "ipv6": "fd00::1"}], "node": "172.20.0.2"},
            "named-ports": [{"name": "http", "port": 80, "protocol": "TCP"}],
        },
    },
}


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of all values in an object."""
    inner: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        inner = list(value.items())
    elif isinstance(value, list):
        inner = list(enumerate(value))
    return [path, *(found for key, one in inner for found in places(one, (*path, key)))][0 if path else 1 :]


def replaced(item: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(item)
    parent: Any = changed
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = value
    return changed


def event(item: dict[str, Any]) -> Event:
    """With the name it had, whatever has become of the one inside: that is another reader's."""
    return Event("MODIFIED", "prod", "web", json.dumps(item).encode())


def test_each_value_of_each_object_may_be_wrong() -> None:
    for family in Sources(Tables(), node_name="n1", parse=parse).families:
        item = OBJECTS.get(family.resource.plural)
        if item is None:
            assert family.resource.plural == "ciliumclusterwidenetworkpolicies"  # as the namespaced one
            continue
        family.apply(event(item))
        assert not family.malformed and family.key_of("prod", "web") in family.table, family.resource.plural
        for path in places(item):
            for wrong in WRONG:
                family.apply(event(replaced(item, path, wrong)))
        family.apply(event(item))
        assert ("prod", "web") not in family.malformed


def test_several_may_be_wrong_at_once() -> None:
    print(f"seed {SEED}")
    chance = random.Random(SEED)
    families = {one.resource.plural: one for one in Sources(Tables(), node_name="n1", parse=parse).families}
    for _ in range(400):
        plural, item = chance.choice(list(OBJECTS.items()))
        for _ in range(chance.randrange(1, 4)):
            item = replaced(item, chance.choice(places(item)), chance.choice(WRONG))
        families[plural].apply(event(item))
