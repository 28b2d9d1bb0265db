"""Objects of the API → rows; wrong objects → the path of what is wrong."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from podwire.base.errors import InvalidObject
from podwire.model.cluster import Cluster
from podwire.model.rule import Clause, Direction, Effect, Origin, Rule
from podwire.model.selector import Operator, Requirement, Selector
from podwire.policy.parse import PARSERS, parse
from podwire.sources import endpoints, namespaces, nodes, objects, pods, policies, reports, services, slices
from podwire.sources.endpoints import CiliumEndpoint
from podwire.state.tables import (
    ContainerPort,
    EndpointRow,
    NamespaceRow,
    NodeRow,
    PodRow,
    RemoteEndpointRow,
    ServiceRow,
    SliceEndpoint,
    SliceRow,
)


def namespaces_row(item: dict[str, Any]) -> NamespaceRow:
    return namespaces.row_of(objects.of(objects.Named, item))


def nodes_row(item: dict[str, Any], local: str) -> NodeRow:
    return nodes.row_of(objects.of(nodes.Node, item), local)


def pods_row(item: dict[str, Any]) -> PodRow:
    return pods.row_of(objects.of(pods.Pod, item))


def services_row(item: dict[str, Any]) -> ServiceRow:
    return services.row_of(objects.of(services.Service, item))


def slices_row(item: dict[str, Any]) -> SliceRow:
    return slices.row_of(objects.of(slices.EndpointSlice, item))


def endpoints_row(item: dict[str, Any]) -> RemoteEndpointRow:
    return endpoints.row_of(objects.of(endpoints.CiliumEndpoint, item))


def test_namespace_has_its_name_as_label() -> None:
    row = namespaces_row({"metadata": {"name": "prod", "labels": {"team": "a"}}})
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
    row = nodes_row(node(), "n1")
    assert row.addresses == ("172.20.0.1", "fd00::1", "192.0.2.1")
    assert row.router_addresses == ("10.0.1.254", "fd00:1::ffff:ffff:ffff:ffff")
    assert row.local and not nodes_row(node(), "n2").local


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
    elsewhere = msgspec.structs.replace(row("a", "1.1.1.1", "10.0.0.0/24"), cluster="west")
    assert nodes.clashes([row("a", "1.1.1.1", "10.0.0.0/16"), elsewhere]) == [
        "nodes a and west/a both have the address 1.1.1.1",
        "pod CIDRs overlap: 10.0.0.0/16 of node a and 10.0.0.0/24 of node west/a",
    ]


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
    row = pods_row(pod())
    assert (row.namespace, row.name, row.node, row.phase) == ("prod", "web-7d4b9-abc", "n1", "Running")
    assert row.addresses == ("10.0.1.5", "fd00:1::5")
    assert row.ports == (ContainerPort("http", 8080, 6),)
    assert (row.workload_kind, row.workload_name) == ("Deployment", "web")
    assert row.service_account == "default" and not row.host_network and not row.deleting


def test_finished_pods_have_no_address() -> None:
    assert pods_row(pod(status={"phase": "Succeeded"})).addresses == ()


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
    row = pods_row(pod(metadata={"ownerReferences": owners}))
    assert (row.workload_kind, row.workload_name) == workload


def service(**spec: Any) -> dict[str, Any]:
    base = {"clusterIP": "10.96.0.5", "clusterIPs": ["10.96.0.5"], "ports": [{"name": "http", "port": 80}]}
    return {"metadata": {"namespace": "prod", "name": "web"}, "spec": base | spec}


def test_service() -> None:
    row = services_row(service(sessionAffinity="ClientIP", selector={"app": "web"}))
    assert row.cluster_addresses == ("10.96.0.5",) and row.type == "ClusterIP"
    assert row.affinity_timeout == 10800 and row.selector == {"app": "web"} and row.not_served == ()
    assert (row.ports[0].port, row.ports[0].protocol, row.ports[0].target_port) == (80, 6, "80")


def test_headless_and_external_name_have_no_address() -> None:
    assert services_row(service(clusterIP="None", clusterIPs=["None"])).cluster_addresses == ()
    assert services_row(service(type="ExternalName", clusterIP="", clusterIPs=[])).cluster_addresses == ()


def test_what_is_not_served_is_named() -> None:
    row = services_row(
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
    row = slices_row(
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
    row = endpoints_row(
        {
            "metadata": {"namespace": "prod", "name": "web"},
            "status": {
                "identity": {"id": 12345},
                "networking": {"addressing": [{"ipv4": "10.0.2.3", "ipv6": "FD00::3"}], "node": "172.20.0.2"},
            },
        }
    )
    assert (row.identity, row.addresses, row.node_address) == (12345, ("10.0.2.3", "fd00::3"), "172.20.0.2")
    assert endpoints_row({"metadata": {"name": "a"}}).identity == 0


def test_a_pod_with_an_identity_of_another_cluster_is_refused() -> None:
    def item(number: int) -> CiliumEndpoint:
        return objects.read(
            CiliumEndpoint,
            msgspec.json.encode({"metadata": {"name": "a"}, "status": {"identity": {"id": number}}}),
        )

    east = Cluster("east", 1).numbers
    assert [endpoints.row_of(item(one), east).identity for one in (0, 3, 1 << 16)] == [0, 3, 1 << 16]
    for number in (300, 2 << 16, 1 << 24):
        with pytest.raises(InvalidObject, match="none of this cluster's pods"):
            endpoints.row_of(item(number), east)


def test_a_remote_endpoint_tells_all_that_is_known_of_its_pod() -> None:
    """What this agent writes of an endpoint, another reads: the Pod object is its own node's only."""
    pod_row = pods_row(pod())
    own = EndpointRow(
        1, "prod", pod_row.name, "u1", "c", "", "", 1, "", "", *pod_row.addresses, ("k8s:app=web",), 300,
        pod_row.ports, "ready",
    )  # fmt: skip
    written = reports.endpoint(own, pod_row) | {"status": reports.endpoint_status(own, None, "172.20.0.1")}
    row = endpoints_row(written)
    assert row == RemoteEndpointRow(
        *("prod", pod_row.name, 300, ("10.0.1.5", "fd00:1::5"), "172.20.0.1"),
        *((ContainerPort("http", 8080, 6),), "Deployment", "web"),
    )


def test_ports_that_policy_does_not_know_cost_the_endpoint_nothing() -> None:
    ports = [{"name": "a", "port": 1}, {"name": "b", "port": 2, "protocol": "DCCP"}, {"port": 3}]
    item = {"metadata": {"name": "a"}, "status": {"identity": {"id": 7}, "named-ports": ports}}
    row = endpoints_row(item)
    assert (row.identity, row.ports) == (7, (ContainerPort("a", 1, 6),))


def test_a_wrong_policy_is_a_row_that_says_why() -> None:
    def refuse(item: dict[str, Any]) -> tuple[Any, ...]:
        assert item["kind"] == "CiliumNetworkPolicy"
        raise InvalidObject("spec.ingress[0].fromFoo", "is not supported")

    item = {"metadata": {"namespace": "prod", "name": "p", "uid": "u", "generation": 3}}
    row = policies.row_of(item, "CiliumNetworkPolicy", refuse)
    assert row.error == "spec.ingress[0].fromFoo: is not supported"
    assert (row.generation, row.rules) == (3, ())


def test_a_policy_whose_selector_cannot_be_asked_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Followed, it would select nobody, and a denial of nobody denies nothing. What it said before stays."""

    def denying(key: str) -> tuple[Rule, ...]:
        nobody = Selector((Requirement("cidr", key, Operator.EXISTS),))
        clause = Clause(Direction.INGRESS, Effect.DENY, 0, (nobody,), None, "spec.ingressDeny[0]")
        origin = Origin("CiliumNetworkPolicy", "prod", "p")
        return (Rule(origin, 0, Selector(), (clause,), True, False),)

    item = {"metadata": {"namespace": "prod", "name": "p", "uid": "u"}}
    kind = "CiliumNetworkPolicy"
    monkeypatch.setitem(PARSERS, kind, lambda *_: denying("10.0.0.0/8"))
    before = policies.row_of(item, kind, parse)
    assert before.rules and not before.error
    monkeypatch.setitem(PARSERS, kind, lambda *_: denying("garbage"))
    row = policies.row_of(item, kind, parse, before)
    assert (
        row.error.startswith("spec.ingressDeny[0]: whom (has cidr:garbage) selects")
        and row.rules == before.rules
    )


@pytest.mark.parametrize(
    ("row_of", "item", "path"),
    [
        (pods_row, pod(status={"podIPs": [{"ip": "10.0.0.300"}]}), "status.podIPs[0].ip"),
        (pods_row, pod(status={"podIPs": [{"ip": "::ffff:10.0.2.3"}]}), "status.podIPs[0].ip"),
        (pods_row, pod(status={"podIPs": [{"ip": "fe80::1%eth0"}]}), "status.podIPs[0].ip"),
        (pods_row, pod(metadata={"labels": {"a": 1}}), "metadata.labels.a"),
        (pods_row, {"metadata": {}, "spec": []}, "spec"),
        (services_row, service(ports=[{"port": 70000}]), "spec.ports[0].port"),
        (services_row, service(ports="x"), "spec.ports"),
        (slices_row, {"metadata": {}, "addressType": "FQDN"}, "addressType"),
        (slices_row, {"addressType": "IPv4", "endpoints": [{}]}, "endpoints[0].addresses"),
    ],
)
def test_what_is_wrong_is_named_by_path(row_of: Any, item: dict[str, Any], path: str) -> None:
    with pytest.raises(InvalidObject) as caught:
        row_of(item)
    assert caught.value.path == path
