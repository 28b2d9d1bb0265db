"""Policies of a cluster in a mesh: whom they mean of equal pods, and whose named ports count."""

from __future__ import annotations

from typing import Any

import pytest

from podwire.abi.enums import PolicyVerdict
from podwire.identity.allocate import preferred
from podwire.model.cluster import OWN, Cluster
from podwire.model.labels import CLUSTER
from podwire.model.rule import Direction
from podwire.policy.parse import parse
from podwire.state.tables import ContainerPort, IdentityRow, PodRow, RemoteEndpointRow
from podwire.testing.walk import Walk

EAST, WEST = Cluster("east", 1), Cluster("west", 2)
INGRESS, EGRESS = Direction.INGRESS, Direction.EGRESS
ALLOW, DEFAULT_DENY = PolicyVerdict.ALLOW, PolicyVerdict.DEFAULT_DENY


def mesh(*, own: bool = True) -> tuple[Walk, int, int]:
    """A node of east with a pod db; numbers of the pods web of both clusters."""
    walk = Walk(cluster=EAST, own_peers=own)
    walk.endpoint(1, "db", {"app": "db"}, ipv4="10.0.1.1")
    numbers = []
    for cluster, source in ((EAST, "cluster"), (WEST, "remote")):
        labels = Walk.labels({"app": "web"}, cluster=cluster.name)
        numbers.append(preferred(labels, cluster.numbers))
        walk.tables.identities.put(IdentityRow(numbers[-1], labels, source))
    walk.settle()
    return walk, numbers[0], numbers[1]


def allow(walk: Walk, **spec: Any) -> None:
    walk.apply(
        {
            "kind": "CiliumNetworkPolicy",
            "metadata": {"name": "a", "namespace": "default"},
            "spec": {"endpointSelector": {"matchLabels": {"app": "db"}}} | spec,
        }
    )
    walk.settle()


def test_a_rule_that_names_a_cluster_means_its_pods_only() -> None:
    walk, ours, theirs = mesh()
    for name, wanted in (("east", (ALLOW, DEFAULT_DENY)), ("west", (DEFAULT_DENY, ALLOW))):
        peer = {"matchLabels": {"app": "web", f"k8s:{CLUSTER}": name}}
        allow(walk, ingress=[{"fromEndpoints": [peer]}])
        assert tuple(walk.verdict(1, INGRESS, one, 6, 80)[0] for one in (ours, theirs)) == wanted


def test_the_entity_cluster_is_the_own_one() -> None:
    walk, ours, theirs = mesh()
    allow(walk, ingress=[{"fromEntities": ["cluster"]}])
    assert walk.verdict(1, INGRESS, ours, 6, 80)[0] == ALLOW
    assert walk.verdict(1, INGRESS, theirs, 6, 80)[0] == DEFAULT_DENY


def test_named_ports_of_equal_pods_are_each_clusters_own() -> None:
    walk, ours, theirs = mesh()

    def web(number: int, port: int, address: str, cluster: str) -> RemoteEndpointRow:
        ports = (ContainerPort("http", port, 6),)
        return RemoteEndpointRow("default", "web", number, (address,), "172.18.0.2", ports, cluster=cluster)

    walk.tables.remote_endpoints.put(web(ours, 8080, "10.0.2.1", OWN))
    walk.tables.remote_endpoints.put(web(theirs, 9090, "10.9.2.1", "west"))
    allow(walk, egress=[{"toPorts": [{"ports": [{"port": "http", "protocol": "TCP"}]}]}])

    def open_ports(number: int) -> list[int]:
        return [port for port in (8080, 9090) if walk.verdict(1, EGRESS, number, 6, port)[0] == ALLOW]

    assert (open_ports(ours), open_ports(theirs)) == ([8080], [9090])
    walk.tables.remote_endpoints.delete(("west", "default", "web"))
    walk.settle()
    assert (open_ports(ours), open_ports(theirs)) == ([8080], [])


def test_a_pod_here_has_its_own_named_ports_whatever_one_elsewhere_is_called() -> None:
    walk, _, theirs = mesh()
    walk.tables.remote_endpoints.put(
        RemoteEndpointRow(
            *("default", "db", theirs, ("10.9.2.1",), "172.19.0.2", (ContainerPort("sql", 5432, 6),)),
            cluster="west",
        )
    )
    own = (ContainerPort("sql", 6000, 6),)
    walk.tables.pods.put(PodRow("default", "db", "u", "n1", ("10.0.1.1",), {}, "", False, "Running", own))
    endpoint = walk.tables.endpoints.get(1)
    assert endpoint is not None
    allow(walk, egress=[{"toPorts": [{"ports": [{"port": "sql", "protocol": "TCP"}]}]}])
    for number, port, other in ((theirs, 5432, 6000), (endpoint.identity, 6000, 5432)):
        assert walk.verdict(1, EGRESS, number, 6, port)[0] == ALLOW
        assert walk.verdict(1, EGRESS, number, 6, other)[0] == DEFAULT_DENY


PEERS: dict[str, dict[str, Any]] = {
    "by labels": {"fromEndpoints": [{"matchLabels": {"app": "web"}}]},
    "all of the namespace": {"fromEndpoints": [{}]},
    "of any namespace": {
        "fromEndpoints": [
            {"matchExpressions": [{"key": "k8s:io.kubernetes.pod.namespace", "operator": "Exists"}]}
        ]
    },
}


@pytest.mark.parametrize("peers", PEERS.values(), ids=PEERS)
def test_peers_selected_by_labels_are_this_clusters_unless_all_are_wanted(peers: dict[str, Any]) -> None:
    for own, wanted in ((True, DEFAULT_DENY), (False, ALLOW)):
        walk, ours, theirs = mesh(own=own)
        allow(walk, ingress=[peers])
        assert walk.verdict(1, INGRESS, ours, 6, 80)[0] == ALLOW
        assert walk.verdict(1, INGRESS, theirs, 6, 80)[0] == wanted


def test_a_network_policy_means_this_clusters_pods_as_well() -> None:
    walk, ours, theirs = mesh()
    peer = {"podSelector": {"matchLabels": {"app": "web"}}, "namespaceSelector": {}}
    walk.apply(
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": "a", "namespace": "default"},
            "spec": {"podSelector": {}, "ingress": [{"from": [peer]}], "policyTypes": ["Ingress"]},
        }
    )
    walk.settle()
    assert walk.verdict(1, INGRESS, ours, 6, 80)[0] == ALLOW
    assert walk.verdict(1, INGRESS, theirs, 6, 80)[0] == DEFAULT_DENY


@pytest.mark.parametrize("operator", ["Exists", "In", "NotIn"])
def test_who_names_a_cluster_in_whatever_way_is_taken_at_his_word(operator: str) -> None:
    walk, _, theirs = mesh()
    asked: dict[str, Any] = {"key": f"k8s:{CLUSTER}", "operator": operator}
    if operator != "Exists":
        asked["values"] = ["west" if operator == "In" else "north"]
    allow(walk, ingress=[{"fromEndpoints": [{"matchExpressions": [asked]}]}])
    assert walk.verdict(1, INGRESS, theirs, 6, 80)[0] == ALLOW


def test_what_is_no_pod_is_of_no_cluster() -> None:
    said = {
        "fromEntities": ["all"],
        "fromCIDR": ["10.0.0.0/8"],
        "fromEndpoints": [{"matchLabels": {"reserved:remote-node": ""}}],
    }
    for kind, peers in said.items():
        item = {
            "kind": "CiliumNetworkPolicy",
            "metadata": {"name": "a", "namespace": "default"},
            "spec": {"endpointSelector": {}, "ingress": [{kind: peers}]},
        }
        assert parse(item, cluster="east", own=True) == parse(item, cluster="east")
