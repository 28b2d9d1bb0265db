"""Objects of the API → rows; wrong objects → the path of what is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from podwire.base.errors import InvalidObject
from podwire.sources import endpoints, namespaces, nodes, pods, policies, services, slices
from podwire.state.tables import ContainerPort, NodeRow, SliceEndpoint


def test_namespace_has_its_name_as_label() -> None:
    row = namespaces.row_of({"metadata": {"name": "prod", "labels": {"team": "a"}}})
    assert row.labels == {"kubernetes.io/metadata.name": "prod", "team": "a"}


def node(name: str = "n1") -> dict[str, Any]:
    return {
        "metadata": {"name": name, "labels": {"zone": "a"}},
        "spec": {"podCIDRs": ["10.0.1.0/24", "fd00:1::/64"]},
        "status": {
            "addresses": [
                {"type": "ExternalIP", "address": "192.0.2.1"},
                {"type": "Hostname", "address": "n1"},
                {"type": "InternalIP", "address": "172.20.0.1"},
                {"type": "InternalIP", "address": "FD00::1"},
            ]
        },
    }


def test_node_lists_internal_addresses_first_and_routers_of_its_pod_cidrs() -> None:
    row = nodes.row_of(node(), "n1")
    assert row.addresses == ("172.20.0.1", "fd00::1", "192.0.2.1")
    assert row.router_addresses == ("10.0.1.254", "fd00:1::ffff:ffff:ffff:ffff")
    assert row.local and not nodes.row_of(node(), "n2").local


@pytest.mark.parametrize(
    ("cidr", "router"),
    [("10.0.2.0/24", "10.0.2.254"), ("10.0.0.0/31", "10.0.0.1"), ("10.0.0.4/32", "10.0.0.4")],
)
def test_router_is_the_last_usable_address(cidr: str, router: str) -> None:
    assert nodes.router_of(cidr) == router


def test_nodes_that_claim_the_same_are_named() -> None:
    def row(name: str, address: str, *cidrs: str) -> NodeRow:
        return NodeRow(name, (address,), cidrs, {}, False)

    assert (
        nodes.clashes(
            [row("a", "172.20.0.1", "10.0.1.0/24", "fd00:1::/64"), row("b", "172.20.0.2", "10.0.2.0/24")]
        )
        == []
    )
    assert nodes.clashes([row("a", "172.20.0.1", "10.0.0.0/16"), row("b", "172.20.0.1", "10.0.2.0/24")]) == [
        "nodes a and b both have the address 172.20.0.1",
        "pod CIDRs overlap: 10.0.0.0/16 of node a and 10.0.2.0/24 of node b",
    ]
    nested = [
        row("a", "1.1.1.1", "10.0.0.0/16"),
        row("b", "1.1.1.2", "10.0.1.0/24"),
        row("c", "1.1.1.3", "10.0.9.0/24"),
    ]
    assert len(nodes.clashes(nested)) == 2


def pod(**changes: Any) -> dict[str, Any]:
    item: dict[str, Any] = {
        "metadata": {
            "namespace": "prod",
            "name": "web-7d4b9-abc",
            "uid": "u1",
            "labels": {"app": "web", "pod-template-hash": "7d4b9"},
            "ownerReferences": [{"kind": "ReplicaSet", "name": "web-7d4b9", "controller": True}],
        },
        "spec": {
            "nodeName": "n1",
            "containers": [
                {"name": "c", "ports": [{"name": "http", "containerPort": 8080}, {"containerPort": 9}]}
            ],
        },
        "status": {
            "phase": "Running",
            "podIP": "10.0.1.5",
            "podIPs": [{"ip": "10.0.1.5"}, {"ip": "fd00:1::5"}],
        },
    }
    for key, value in changes.items():
        item[key] = item[key] | value
    return item


def test_pod() -> None:
    row = pods.row_of(pod())
    assert (row.namespace, row.name, row.node, row.phase) == ("prod", "web-7d4b9-abc", "n1", "Running")
    assert row.addresses == ("10.0.1.5", "fd00:1::5")
    assert row.ports == (ContainerPort("http", 8080, 6),)
    assert (row.workload_kind, row.workload_name) == ("Deployment", "web")
    assert row.service_account == "default" and not row.host_network and not row.deleting


def test_finished_pods_have_no_address() -> None:
    assert pods.row_of(pod(status={"phase": "Succeeded"})).addresses == ()


@pytest.mark.parametrize(
    ("owners", "workload"),
    [
        ([], ("Pod", "web-7d4b9-abc")),
        ([{"kind": "DaemonSet", "name": "log", "controller": True}], ("DaemonSet", "log")),
        ([{"kind": "ReplicaSet", "name": "alone", "controller": True}], ("ReplicaSet", "alone")),
        ([{"kind": "Node", "name": "n1"}], ("Pod", "web-7d4b9-abc")),
    ],
)
def test_workload(owners: list[dict[str, Any]], workload: tuple[str, str]) -> None:
    row = pods.row_of(pod(metadata={"ownerReferences": owners}))
    assert (row.workload_kind, row.workload_name) == workload


def service(**spec: Any) -> dict[str, Any]:
    base = {"clusterIP": "10.96.0.5", "clusterIPs": ["10.96.0.5"], "ports": [{"name": "http", "port": 80}]}
    return {"metadata": {"namespace": "prod", "name": "web"}, "spec": base | spec}


def test_service() -> None:
    row = services.row_of(service(sessionAffinity="ClientIP", selector={"app": "web"}))
    assert row.cluster_addresses == ("10.96.0.5",) and row.type == "ClusterIP"
    assert row.affinity_timeout == 10800 and row.selector == {"app": "web"} and row.not_served == ()
    assert (row.ports[0].port, row.ports[0].protocol, row.ports[0].target_port) == (80, 6, "80")


def test_headless_and_external_name_have_no_address() -> None:
    assert services.row_of(service(clusterIP="None", clusterIPs=["None"])).cluster_addresses == ()
    assert services.row_of(service(type="ExternalName", clusterIP="", clusterIPs=[])).cluster_addresses == ()


def test_what_is_not_served_is_named() -> None:
    row = services.row_of(
        service(
            type="NodePort",
            ports=[{"port": 80, "nodePort": 30080}, {"port": 81, "protocol": "SCTP", "name": "s"}],
            externalIPs=["192.0.2.9"],
            internalTrafficPolicy="Local",
            sessionAffinity="ClientIP",
            sessionAffinityConfig={"clientIP": {"timeoutSeconds": 60}},
        )
    )
    assert row.not_served == (
        "NodePort 30080",
        "external address 192.0.2.9",
        "SCTP port 81",
        "affinity timeout 60 s (clients are kept while the backends stay the same)",
        "internalTrafficPolicy Local",
    )


def test_slice() -> None:
    row = slices.row_of(
        {
            "metadata": {
                "namespace": "prod",
                "name": "web-1",
                "labels": {"kubernetes.io/service-name": "web"},
            },
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}, {"name": "all"}],
            "endpoints": [
                {"addresses": ["10.0.1.5", "10.0.1.6"], "nodeName": "n1"},
                {
                    "addresses": ["10.0.1.7"],
                    "conditions": {"ready": False, "serving": True, "terminating": True},
                },
            ],
        }
    )
    assert row.service == "web" and row.family == 4 and row.ports == (("http", 8080, 6),)
    assert row.endpoints == (
        SliceEndpoint("10.0.1.5", True, True, False, "n1"),
        SliceEndpoint("10.0.1.7", False, True, True, ""),
    )


def test_remote_endpoint() -> None:
    row = endpoints.row_of(
        {
            "metadata": {"namespace": "prod", "name": "web"},
            "status": {
                "identity": {"id": 12345},
                "networking": {"addressing": [{"ipv4": "10.0.2.3", "ipv6": "FD00::3"}], "node": "172.20.0.2"},
            },
        }
    )
    assert (row.identity, row.addresses, row.node_address) == (12345, ("10.0.2.3", "fd00::3"), "172.20.0.2")
    assert endpoints.row_of({"metadata": {"name": "a"}}).identity == 0


def test_a_wrong_policy_is_a_row_that_says_why() -> None:
    def refuse(item: dict[str, Any]) -> tuple[Any, ...]:
        assert item["kind"] == "CiliumNetworkPolicy"
        raise InvalidObject("spec.ingress[0].fromFoo", "is not supported")

    item = {"metadata": {"namespace": "prod", "name": "p", "uid": "u", "generation": 3}}
    row = policies.row_of(item, "CiliumNetworkPolicy", refuse)
    assert row.error == "spec.ingress[0].fromFoo: is not supported"
    assert (row.generation, row.rules) == (3, ())


@pytest.mark.parametrize(
    ("row_of", "item", "path"),
    [
        (pods.row_of, pod(status={"podIPs": [{"ip": "10.0.0.300"}]}), "status.podIPs[0].ip"),
        (pods.row_of, pod(status={"podIPs": [{"ip": "::ffff:10.0.2.3"}]}), "status.podIPs[0].ip"),
        (pods.row_of, pod(status={"podIPs": [{"ip": "fe80::1%eth0"}]}), "status.podIPs[0].ip"),
        (pods.row_of, pod(metadata={"labels": {"a": 1}}), "metadata.labels.a"),
        (pods.row_of, {"metadata": {}, "spec": []}, "spec"),
        (services.row_of, service(ports=[{"port": 70000}]), "spec.ports[0].port"),
        (services.row_of, service(ports="x"), "spec.ports"),
        (slices.row_of, {"metadata": {}, "addressType": "FQDN"}, "addressType"),
        (slices.row_of, {"addressType": "IPv4", "endpoints": [{}]}, "endpoints[0].addresses"),
    ],
)
def test_what_is_wrong_is_named_by_path(row_of: Any, item: dict[str, Any], path: str) -> None:
    with pytest.raises(InvalidObject) as caught:
        row_of(item)
    assert caught.value.path == path
