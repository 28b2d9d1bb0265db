"""Two clusters of a mesh with the same names: who is whose, and what is refused."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from podwire.base.errors import PodwireError
from podwire.identity import allocate
from podwire.identity.allocate import preferred
from podwire.model import identity
from podwire.model.cluster import OWN, Cluster
from podwire.state.tables import (
    IdentityRow,
    IpcacheRow,
    NodeRow,
    PodRow,
    RemoteEndpointRow,
    SliceEndpoint,
    SliceRow,
)
from podwire.stores.identities import Known, MemoryIdentities, document, read
from podwire.testing.walk import Walk

EAST, WEST = Cluster("east", 1), Cluster("west", 2)
WEB = {"app": "web"}
EASTERN, WESTERN = (Walk.labels(WEB, cluster=one.name) for one in (EAST, WEST))
WEST_WEB = preferred(WESTERN, WEST.numbers)


def node(name: str, address: str, cidr: str, *, local: bool = False, cluster: str = OWN) -> NodeRow:
    return NodeRow(name, (address,), (cidr,), {}, local, (), cluster)


def remote(name: str, number: int, address: str, cluster: str = OWN) -> RemoteEndpointRow:
    return RemoteEndpointRow("default", name, number, (address,), "172.18.0.9", cluster=cluster)


def east(**options: Any) -> Walk:
    """A node of cluster east, told of the identity that cluster west gave to its pods web."""
    walk = Walk(cluster=EAST, **options)
    walk.tables.nodes.put(node("n1", "172.18.0.1", "10.0.1.0/24", local=True))
    walk.tables.identities.put(IdentityRow(WEST_WEB, WESTERN, "remote"))
    walk.settle()
    return walk


def row(walk: Walk, address: str) -> IpcacheRow:
    found = walk.tables.ipcache.get(f"{address}/32")
    assert found is not None, address
    return found


# --- numbers -------------------------------------------------------------------------------------


def test_equal_pods_of_two_clusters_have_identities_of_their_clusters() -> None:
    shared = MemoryIdentities()
    numbers = []
    for cluster in (EAST, WEST):
        walk = Walk(cluster=cluster, identities=shared)
        walk.endpoint(1, "web", WEB, ipv4="10.0.1.1")
        walk.settle()
        endpoint = walk.tables.endpoints.get(1)
        assert endpoint is not None
        numbers.append(endpoint.identity)
    assert [identity.cluster_of(one) for one in numbers] == [1, 2]
    assert shared.known == dict(zip(numbers, (EASTERN, WESTERN), strict=True))


def test_the_allocator_goes_round_in_its_own_range(monkeypatch: pytest.MonkeyPatch) -> None:
    walk, store = east(), MemoryIdentities()
    monkeypatch.setattr(allocate, "preferred", lambda labels, numbers: numbers[-1])
    store.take(EAST.numbers[-1], ("k8s:app=other",))
    made = asyncio.run(walk.allocator.create(store, EASTERN))
    assert made.number == EAST.numbers[0] == 1 << 16


def test_a_range_that_is_full_gives_none_of_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    walk, store = east(), MemoryIdentities()
    monkeypatch.setattr(walk.allocator, "_numbers", EAST.numbers[:3])
    for number in EAST.numbers[:3]:
        store.take(number, (f"k8s:app={number}",))
    with pytest.raises(PodwireError, match="all 3 identities"):
        asyncio.run(walk.allocator.create(store, EASTERN))
    assert len(store.known) == 3


def test_another_clusters_numbers_and_labels_are_not_given() -> None:
    walk, store = east(), MemoryIdentities()
    with pytest.raises(PodwireError, match="labels of cluster west") as refused:
        asyncio.run(walk.allocator.create(store, WESTERN))
    assert refused.value.hint and not store.known
    walk.allocator.apply(Known(WEST_WEB + 1, EASTERN))
    assert WEST_WEB + 1 not in walk.tables.identities and walk.allocator.number_of(EASTERN) == 0
    walk.allocator.apply(Known(EAST.numbers[7], EASTERN))
    assert walk.allocator.number_of(EASTERN) == EAST.numbers[7]
    assert walk.allocator.number_of(WESTERN) == 0, "known, but not this cluster's to give"


def test_objects_with_another_clusters_numbers_are_ignored() -> None:
    raw = msgspec.json.encode(document(WEST_WEB, WESTERN))
    assert read(str(WEST_WEB), raw, EAST.numbers) is None
    assert read(str(WEST_WEB), raw, WEST.numbers) == Known(WEST_WEB, WESTERN)
    assert read("300", raw, EAST.numbers) is None, "a number of a cluster that is in no mesh"


# --- addresses -----------------------------------------------------------------------------------


def test_pods_and_nodes_of_the_same_name_do_not_meet() -> None:
    walk = east(tunnel=True)
    walk.allocator.apply(Known(EAST.numbers[7], EASTERN))
    tables = walk.tables
    tables.nodes.put(node("n2", "172.18.0.2", "10.0.2.0/24"))
    tables.nodes.put(node("n2", "172.19.0.2", "10.9.2.0/24", cluster="west"))
    tables.remote_endpoints.put(remote("web", EAST.numbers[7], "10.0.2.1"))
    tables.remote_endpoints.put(remote("web", WEST_WEB, "10.9.2.1", "west"))
    walk.settle()
    assert (row(walk, "10.0.2.1").identity, row(walk, "10.0.2.1").cluster) == (EAST.numbers[7], OWN)
    assert (row(walk, "10.9.2.1").identity, row(walk, "10.9.2.1").cluster) == (WEST_WEB, "west")
    through = {one.prefix: one.tunnel for one in tables.ipcache if one.source == "pod-cidr"}
    assert (through["10.0.2.0/24"], through["10.9.2.0/24"]) == ("172.18.0.2", "172.19.0.2")

    tables.remote_endpoints.delete(("west", "default", "web"))
    tables.nodes.delete(("west", "n2"))
    walk.settle()
    assert row(walk, "10.0.2.1").identity == EAST.numbers[7] and "10.9.2.0/24" not in tables.ipcache
    assert row(walk, "172.18.0.2").identity == identity.REMOTE_NODE
    assert not walk.ipcache.overlaps.refused


def test_a_node_of_this_name_elsewhere_is_not_the_one_a_pod_runs_on() -> None:
    walk = east(tunnel=True)
    walk.tables.nodes.put(node("n2", "172.19.0.2", "10.9.2.0/24", cluster="west"))
    walk.tables.pods.put(PodRow("default", "web", "u", "n2", ("10.0.2.1",), {}, "", False, "Running", ()))
    walk.settle()
    assert row(walk, "10.0.2.1").tunnel == "", "n2 of this cluster is not known yet"
    walk.tables.nodes.put(node("n2", "172.18.0.2", "10.0.2.0/24"))
    walk.settle()
    assert row(walk, "10.0.2.1").tunnel == "172.18.0.2"


@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_an_address_of_two_clusters_is_this_ones_whoever_comes_first(first: str) -> None:
    walk = east()
    walk.allocator.apply(Known(EAST.numbers[7], EASTERN))
    rows = [remote("web", EAST.numbers[7], "10.0.2.1"), remote("web", WEST_WEB, "10.0.2.1", "west")]
    for one in rows if first == "ours" else reversed(rows):
        walk.tables.remote_endpoints.put(one)
        walk.settle()
    assert (row(walk, "10.0.2.1").identity, row(walk, "10.0.2.1").cluster) == (EAST.numbers[7], OWN)
    said = "10.0.2.1/32 is default/web of this cluster, not default/web of cluster west"
    assert walk.ipcache.overlaps.refused == {"10.0.2.1/32": said} and said in walk.ipcache.overlaps.problem

    walk.tables.remote_endpoints.delete((OWN, "default", "web"))
    walk.settle()
    assert (row(walk, "10.0.2.1").identity, row(walk, "10.0.2.1").cluster) == (WEST_WEB, "west")
    assert not walk.ipcache.overlaps.problem


def test_an_address_whose_identity_is_not_known_yet_is_not_another_clusters_meanwhile() -> None:
    walk = east()
    walk.tables.remote_endpoints.put(remote("web", EAST.numbers[9], "10.0.2.1"))
    walk.tables.remote_endpoints.put(remote("web", WEST_WEB, "10.0.2.1", "west"))
    walk.settle()
    assert "10.0.2.1/32" not in walk.tables.ipcache
    walk.allocator.apply(Known(EAST.numbers[9], EASTERN))
    walk.settle()
    assert row(walk, "10.0.2.1").identity == EAST.numbers[9]


def test_a_pod_of_which_nothing_but_its_address_is_known_keeps_that() -> None:
    walk = east()
    walk.tables.remote_endpoints.put(remote("web", WEST_WEB, "10.0.2.1", "west"))
    walk.tables.pods.put(PodRow("default", "new", "u", "n1", ("10.0.2.1",), {}, "", False, "Running", ()))
    walk.settle()
    assert (row(walk, "10.0.2.1").identity, row(walk, "10.0.2.1").pod) == (identity.UNMANAGED, "new")
    assert "default/new of this cluster" in walk.ipcache.overlaps.problem


def test_of_two_other_clusters_the_first_by_name_has_an_address() -> None:
    walk = east()
    north = preferred(Walk.labels(WEB, cluster="north"), identity.of_cluster(3))
    walk.tables.identities.put(IdentityRow(north, Walk.labels(WEB, cluster="north"), "remote"))
    walk.tables.remote_endpoints.put(remote("web", WEST_WEB, "10.9.2.1", "west"))
    walk.tables.remote_endpoints.put(remote("web", north, "10.9.2.1", "north"))
    walk.settle()
    assert (row(walk, "10.9.2.1").identity, row(walk, "10.9.2.1").cluster) == (north, "north")
    assert "default/web of cluster west" in walk.ipcache.overlaps.problem


def test_another_clusters_pod_is_a_pod_where_a_rule_names_its_address() -> None:
    walk = east()
    spec = {"endpointSelector": {}, "ingress": [{"fromCIDR": ["10.9.2.1/32"]}]}
    walk.apply({"kind": "CiliumNetworkPolicy", "metadata": {"name": "a"}, "spec": spec})
    walk.tables.remote_endpoints.put(remote("web", WEST_WEB, "10.9.2.1", "west"))
    walk.settle()
    assert (row(walk, "10.9.2.1").identity, row(walk, "10.9.2.1").source) == (WEST_WEB, "remote-endpoint")
    assert not walk.ipcache.overlaps.problem


# --- the API ---------------------------------------------------------------------------------------


def test_the_api_server_is_this_clusters() -> None:
    walk = east()

    def kubernetes(address: str, cluster: str = OWN) -> SliceRow:
        one = SliceEndpoint(address, True, True, False, "")
        return SliceRow("default", "kubernetes", "kubernetes", 4, (one,), (("https", 6443, 6),), cluster)

    walk.tables.slices.put(kubernetes("172.19.0.1", "west"))
    walk.settle()
    assert not any(one.source == "local" for one in walk.tables.identities)
    walk.tables.slices.put(kubernetes("172.18.0.1"))
    walk.settle()
    assert row(walk, "172.18.0.1").identity == identity.HOST
    assert "172.19.0.1/32" not in walk.tables.ipcache
    walk.tables.slices.put(kubernetes("172.18.0.7"))
    walk.tables.nodes.put(node("n7", "172.18.0.7", "10.9.7.0/24", cluster="west"))
    walk.settle()
    assert identity.is_local(row(walk, "172.18.0.7").identity), "what another cluster calls a node is outside"
