"""Who is behind an address, when several say they know."""

from __future__ import annotations

from typing import Any

import msgspec

from podwire.identity.ipcache import Ipcache
from podwire.model import identity
from podwire.model.cluster import OWN
from podwire.state.progress import POLICIES
from podwire.state.table import Watch
from podwire.state.tables import (
    IdentityRow,
    IpcacheRow,
    LocalAddressRow,
    NodeRow,
    PodRow,
    ProgressRow,
    RemoteEndpointRow,
    Tables,
)
from podwire.stores.identities import Known
from podwire.testing.walk import Walk


def pod(name: str, node: str, address: str, **more: Any) -> PodRow:
    return PodRow(
        "default",
        name,
        f"uid-{name}",
        node,
        (address,),
        {},
        "default",
        **{"host_network": False, "phase": "Running", "ports": ()} | more,
    )


def remote(name: str, identity: int, address: str, node: str) -> RemoteEndpointRow:
    return RemoteEndpointRow("default", name, identity, (address,), node)


N1 = NodeRow("n1", ("172.18.0.1",), ("10.0.1.0/24",), {}, True, ("10.0.1.254",))
N2 = NodeRow("n2", ("172.18.0.2", "fd00::2"), ("10.0.2.0/24",), {}, False, ("10.0.2.254",))


def row(walk: Walk, prefix: str) -> IpcacheRow:
    found = walk.tables.ipcache.get(prefix)
    assert found is not None, prefix
    return found


def made(**options: Any) -> Walk:
    walk = Walk(**options)
    walk.tables.nodes.put(N1)
    walk.tables.nodes.put(N2)
    walk.settle()
    return walk


def test_nodes_and_their_prefixes() -> None:
    walk = made()
    assert (row(walk, "172.18.0.1/32").identity, row(walk, "172.18.0.2/32").identity) == (1, 6)
    assert (row(walk, "10.0.1.254/32").identity, row(walk, "10.0.2.254/32").identity) == (1, 6)
    assert (row(walk, "10.0.2.0/24").identity, row(walk, "10.0.2.0/24").source) == (3, "pod-cidr")
    assert "fd00::2/128" not in walk.tables.ipcache
    assert not any(one.tunnel for one in walk.tables.ipcache)


def test_with_tunnels_what_is_behind_another_node_is_reached_through_it() -> None:
    walk = made(tunnel=True)
    walk.allocator.apply(Known(5000, Walk.labels({"app": "web"})))
    walk.tables.remote_endpoints.put(remote("web", 5000, "10.0.2.1", "172.18.0.2"))
    walk.tables.pods.put(pod("new", "n2", "10.0.2.2"))
    walk.settle()
    tunnels = {one.prefix: one.tunnel for one in walk.tables.ipcache if one.tunnel}
    assert tunnels == dict.fromkeys(
        ("10.0.2.0/24", "10.0.2.254/32", "10.0.2.1/32", "10.0.2.2/32"), "172.18.0.2"
    )


def test_of_many_addresses_one_is_published_at_a_time() -> None:
    """And it is whole only with the last: until then nobody may take what is not in it for gone."""
    walk = made()
    walk.allocator.apply(Known(5000, Walk.labels({"app": "web"})))
    walk.settle()
    tables = Tables()
    ipcache = Ipcache(tables, tunnel=False, ipv4=True, ipv6=False)
    for table in ipcache.reads()[:-1]:
        table.mark_all_ready()
    for known in walk.tables.identities:
        tables.identities.put(known)
    for progress in walk.tables.progress:
        tables.progress.put(msgspec.structs.replace(progress, identities=tables.identities.revision))
    many = {f"10.1.{number // 250}.{number % 250}" for number in range(1000)}
    for number, address in enumerate(sorted(many)):
        tables.remote_endpoints.put(remote(f"web-{number}", 5000, address, "172.18.0.2"))
    watch = Watch(*ipcache.reads())
    sizes = []
    for _ in ipcache.steps(*watch.take()):
        assert not tables.ipcache.ready
        sizes.append(len(tables.ipcache))
    assert tables.ipcache.ready and {f"{one}/32" for one in many} <= set(tables.ipcache.keys())
    assert max(after - before for before, after in zip([0, *sizes], sizes, strict=False)) <= 1


def test_precedence() -> None:
    walk = made()
    walk.tables.pods.put(pod("web", "n2", "10.0.2.1"))
    walk.settle()
    assert (row(walk, "10.0.2.1/32").identity, row(walk, "10.0.2.1/32").pod) == (3, "web")
    walk.allocator.apply(Known(5000, Walk.labels({"app": "web"})))
    walk.tables.remote_endpoints.put(remote("web", 5000, "10.0.2.1", "172.18.0.2"))
    walk.settle()
    assert (row(walk, "10.0.2.1/32").identity, row(walk, "10.0.2.1/32").source) == (5000, "remote-endpoint")
    walk.endpoint(1, "here", {"app": "here"}, ipv4="10.0.2.1")
    walk.settle()
    assert row(walk, "10.0.2.1/32").source == "endpoint"
    walk.tables.endpoints.delete(1)
    walk.tables.remote_endpoints.delete((OWN, "default", "web"))
    walk.tables.pods.delete(("default", "web"))
    walk.settle()
    assert "10.0.2.1/32" not in walk.tables.ipcache
    assert walk.identity_at("10.0.2.1") == 3


def test_pods_that_are_no_endpoints() -> None:
    walk = made()
    walk.tables.pods.put(pod("host", "n2", "172.18.0.2", host_network=True))
    walk.tables.pods.put(pod("done", "n2", "10.0.2.9", phase="Succeeded"))
    walk.settle()
    assert row(walk, "172.18.0.2/32").identity == 6
    assert "10.0.2.9/32" not in walk.tables.ipcache


def test_an_identity_nobody_has_told_of_is_not_published() -> None:
    walk = made()
    walk.tables.remote_endpoints.put(remote("web", 5000, "10.0.2.1", "172.18.0.2"))
    walk.settle()
    assert "10.0.2.1/32" not in walk.tables.ipcache
    walk.allocator.apply(Known(5000, Walk.labels({"app": "web"})))
    walk.settle()
    assert row(walk, "10.0.2.1/32").identity == 5000


def test_a_pod_keeps_its_old_identity_until_the_new_one_is_known() -> None:
    walk = made()
    walk.allocator.apply(Known(5000, Walk.labels({"app": "web"})))
    walk.tables.remote_endpoints.put(remote("web", 5000, "10.0.2.1", "172.18.0.2"))
    walk.settle()
    walk.tables.remote_endpoints.put(remote("web", 5001, "10.0.2.1", "172.18.0.2"))
    walk.settle()
    assert row(walk, "10.0.2.1/32").identity == 5000
    walk.allocator.apply(Known(5001, Walk.labels({"app": "web", "tier": "a"})))
    walk.settle()
    assert row(walk, "10.0.2.1/32").identity == 5001


def test_another_pod_with_the_address_does_not_inherit_an_identity() -> None:
    walk = made()
    walk.allocator.apply(Known(5000, Walk.labels({"app": "web"})))
    walk.tables.remote_endpoints.put(remote("web", 5000, "10.0.2.1", "172.18.0.2"))
    walk.settle()
    walk.tables.remote_endpoints.delete((OWN, "default", "web"))
    walk.tables.remote_endpoints.put(remote("other", 5001, "10.0.2.1", "172.18.0.2"))
    walk.settle()
    assert "10.0.2.1/32" not in walk.tables.ipcache


def test_a_node_that_goes_takes_its_addresses_with_it() -> None:
    walk = made()
    walk.tables.nodes.delete((OWN, "n2"))
    walk.settle()
    assert {one.prefix for one in walk.tables.ipcache} == {
        "0.0.0.0/0",
        "172.18.0.1/32",
        "10.0.1.254/32",
        "10.0.1.0/24",
    }


def test_all_that_the_kernel_takes_for_the_node_is_the_node() -> None:
    walk = made(ipv6=True)
    for prefix, kind in (
        ("172.30.0.1/32", "local"),
        ("172.18.255.255/32", "broadcast"),
        ("10.9.0.0/16", "local"),
        ("fd00:88::1/128", "local"),
    ):
        walk.tables.local_addresses.put(LocalAddressRow(prefix, kind))
    walk.settle()
    for address in ("172.30.0.1", "172.18.255.255", "10.9.3.4", "fd00:88::1"):
        assert walk.identity_at(address) == identity.HOST, address
    assert walk.identity_at("172.30.0.2") == identity.WORLD_IPV4
    walk.tables.local_addresses.delete("172.30.0.1/32")
    walk.settle()
    assert walk.identity_at("172.30.0.1") == identity.WORLD_IPV4


def test_a_pods_address_is_the_pods_also_where_the_kernel_takes_it_for_the_nodes() -> None:
    walk = made()
    walk.tables.local_addresses.put(LocalAddressRow("10.0.1.7/32", "local"))
    walk.endpoint(1, "web", {"app": "web"}, ipv4="10.0.1.7")
    walk.settle()
    assert row(walk, "10.0.1.7/32").pod == "web"
    walk.tables.endpoints.delete(1)
    walk.settle()
    assert row(walk, "10.0.1.7/32").identity == identity.HOST


def test_a_rule_about_a_part_of_the_nodes_own_prefix_makes_it_nobody_elses() -> None:
    """In either order, and undone when the prefix is the node's no more."""
    for first in ("rule", "prefix"):
        walk = made()
        steps = {
            "rule": lambda walk=walk: walk.apply(to_cidr("10.9.1.0/24")),
            "prefix": lambda walk=walk: walk.tables.local_addresses.put(
                LocalAddressRow("10.9.0.0/16", "local")
            ),
        }
        for name in (first, *(steps.keys() - {first})):
            steps[name]()
            walk.settle()
        assert walk.identity_at("10.9.1.5") == identity.HOST, f"{first} first"
        walk.tables.local_addresses.delete("10.9.0.0/16")
        walk.settle()
        assert identity.is_local(walk.identity_at("10.9.1.5"))


def to_cidr(prefix: str) -> dict[str, Any]:
    return {
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": "to-cidr"},
        "spec": {"endpointSelector": {}, "egress": [{"toCIDR": [prefix]}]},
    }


def test_a_ground_stays_while_one_of_two_claims_it() -> None:
    """The local prefix of the node may be a Service prefix as well: the first to go takes only its own."""
    tables = Tables()
    cache = Ipcache(tables, tunnel=False, ipv4=True, ipv6=False)
    services = IpcacheRow("10.96.0.0/16", identity.WORLD, "service-cidr", holds="services")
    part = IpcacheRow("10.96.1.0/24", 1 << 24, "cidr")
    cache._claim("one", [services])
    cache._claim("two", [services])
    cache._claim("one", [])
    assert cache._within(part).holds == "services"
    cache._claim("two", [])
    assert cache._within(part).holds == ""


def test_of_what_waits_only_that_is_looked_at_of_which_policies_know_now() -> None:
    walk = made()
    ipcache, tables = walk.ipcache, walk.tables
    for number in (5000, 5001):
        tables.identities.put(IdentityRow(number, (f"k8s:n={number}",), "cluster"))
    reads = Watch(*ipcache.reads())
    reads.take()
    for number in range(40):
        tables.remote_endpoints.put(
            remote(f"pod{number}", 5000 + number % 2, f"10.0.2.{number + 1}", "172.18.0.2")
        )
    ipcache.step(*reads.take())
    assert len(ipcache._waits) == 40 and {*ipcache._waiting} == {5000, 5001}
    tables.progress.put(ProgressRow(POLICIES, tables.identities.revision_of(5000), 0))
    assert sum(1 for _ in ipcache.steps(*reads.take())) == 20
    assert row(walk, "10.0.2.1/32").identity == 5000 and "10.0.2.2/32" not in tables.ipcache
    tables.identities.put(IdentityRow(5001, ("k8s:n=other",), "cluster"))  # policies are to reach that now
    ipcache.step(*reads.take())
    tables.progress.put(ProgressRow(POLICIES, tables.identities.revision - 1, 0))
    ipcache.step(*reads.take())
    assert "10.0.2.2/32" not in tables.ipcache
    tables.progress.put(ProgressRow(POLICIES, tables.identities.revision, 0))
    ipcache.step(*reads.take())
    assert row(walk, "10.0.2.2/32").identity == 5001
    assert not ipcache._waits and not ipcache._waiting and not ipcache._reaching and not ipcache._reached_at
