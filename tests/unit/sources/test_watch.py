"""Following the API: rows as objects come, break and go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from tests.unit.sources.told import told

from podwire.base.aio import Backoff, cancelling, eventually
from podwire.base.errors import ApiError
from podwire.kube import Event, Resource, resources
from podwire.model.cluster import OWN
from podwire.sources.watch import Family, Sources
from podwire.state.tables import NodeRow, RemoteEndpointRow, ReportedEndpointRow, Tables


class Streams:
    """An API whose streams are written by the test: one list of events (or an error) a stream."""

    def __init__(self, *streams: list[Event | Exception]) -> None:
        self.streams = list(streams)
        self.asked: list[tuple[Resource, str]] = []

    async def watch(self, resource: Resource, *, field_selector: str = "") -> AsyncIterator[Event]:
        self.asked.append((resource, field_selector))
        for event in self.streams.pop(0) if self.streams else []:
            if isinstance(event, Exception):
                raise event
            yield event
        await asyncio.Event().wait()


SYNCED = Event("SYNCED")


def namespace(name: str, **labels: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": labels}}


def sources(tables: Tables) -> Sources:
    return Sources(tables, node_name="n1", parse=lambda item: (), backoff=Backoff(0.001, 0.001))


def family(of: Sources, resource: Resource) -> Family[Any]:
    return next(one for one in of.families if one.resource is resource)


def follow(resource: Resource, streams: Streams, tables: Tables, until: Any) -> Sources:
    all_of = sources(tables)

    async def run() -> None:
        async with cancelling("follow", all_of.follow(streams, family(all_of, resource))):
            await eventually(until, timeout=5, what="the rows")

    asyncio.run(run())
    return all_of


def test_rows_follow_and_the_table_is_ready_when_synced() -> None:
    tables = Tables()
    streams = Streams(
        [
            told("ADDED", namespace("a")),
            told("ADDED", namespace("b")),
            SYNCED,
            told("MODIFIED", namespace("a", team="x")),
            told("DELETED", namespace("b")),
        ]
    )
    follow(
        resources.NAMESPACES,
        streams,
        tables,
        lambda: tables.namespaces.ready and "b" not in tables.namespaces,
    )
    row = tables.namespaces.get("a")
    assert row is not None and row.labels["team"] == "x"


def test_a_malformed_object_is_named_and_the_rest_goes_on() -> None:
    tables = Tables()
    streams = Streams(
        [
            told("ADDED", namespace("good")),
            told("ADDED", namespace("bad", team=1)),
            Event("ADDED", "", "", b"{}"),
            Event("ADDED", "", "worse", b'{"metadata": 5}'),
            told("ADDED", namespace("last")),
            SYNCED,
        ]
    )
    of = follow(resources.NAMESPACES, streams, tables, lambda: tables.namespaces.ready)
    assert set(tables.namespaces.keys()) == {"good", "last"}
    assert of.malformed() == {
        "Namespace bad": "metadata.labels.team: must be a string",
        "Namespace worse": "metadata: must be an object",
    }


def test_an_object_that_became_malformed_keeps_its_row() -> None:
    tables = Tables()
    streams = Streams([told("ADDED", namespace("a", x="1")), told("MODIFIED", namespace("a", x=1)), SYNCED])
    follow(resources.NAMESPACES, streams, tables, lambda: tables.namespaces.ready)
    row = tables.namespaces.get("a")
    assert row is not None and row.labels["x"] == "1"


def test_after_a_refused_stream_what_vanished_meanwhile_goes() -> None:
    tables = Tables()
    refused = ApiError(403, "Forbidden", "not now")
    streams = Streams(
        [refused],
        [told("ADDED", namespace("a")), told("ADDED", namespace("b")), SYNCED, refused],
        [told("ADDED", namespace("b")), SYNCED],
    )
    of = follow(resources.NAMESPACES, streams, tables, lambda: tables.namespaces.keys() == ["b"])
    assert of.errors() == {}


def test_policies_are_ready_when_all_three_kinds_are() -> None:
    tables = Tables()
    all_of = sources(tables)
    kinds = [one for one in all_of.families if one.table is tables.policies]

    async def run() -> None:
        for one in kinds[:2]:
            async with cancelling("follow", all_of.follow(Streams([SYNCED]), one)):
                await eventually(lambda one=one: one.synced, timeout=5, what="sync")
        assert not tables.policies.ready
        async with cancelling("follow", all_of.follow(Streams([SYNCED]), kinds[2])):
            await eventually(lambda: tables.policies.ready, timeout=5, what="sync")

    asyncio.run(run())


def known_here(tables: Tables) -> None:
    """What this node's pods need, without which other nodes' are not asked for."""
    for table in (tables.nodes, tables.namespaces, tables.pods, tables.policies, tables.identities):
        table.mark_all_ready()


def test_other_nodes_pods_come_after_what_is_local() -> None:
    tables, streams = Tables(), Streams([told("ADDED", endpoint("theirs", "172.20.0.2")), SYNCED])
    all_of = sources(tables)

    async def run() -> None:
        async with cancelling("follow", all_of.follow(streams, family(all_of, resources.CILIUM_ENDPOINTS))):
            for table in (tables.nodes, tables.namespaces, tables.pods, tables.policies):
                table.mark_all_ready()
                for _ in range(20):
                    await asyncio.sleep(0)
                assert not streams.asked
            tables.identities.mark_all_ready()
            await eventually(lambda: tables.remote_endpoints.ready, timeout=5, what="the others")

    asyncio.run(run())


def endpoint(name: str, node: str) -> dict[str, Any]:
    status = {"identity": {"id": 300}, "networking": {"addressing": [{"ipv4": "10.0.0.1"}], "node": node}}
    return {"metadata": {"namespace": "prod", "name": name}, "status": status}


def test_only_endpoints_of_other_nodes_are_remote() -> None:
    tables = Tables()
    tables.nodes.put(NodeRow("n1", ("172.20.0.1",), (), {}, True))
    known_here(tables)
    added = [told("ADDED", endpoint("mine", "172.20.0.1")), told("ADDED", endpoint("theirs", "172.20.0.2"))]
    follow(
        resources.CILIUM_ENDPOINTS, Streams([*added, SYNCED]), tables, lambda: tables.remote_endpoints.ready
    )
    assert tables.remote_endpoints.keys() == [(OWN, "prod", "theirs")]
    assert list(tables.reported_endpoints) == [ReportedEndpointRow("prod", "mine")]


def test_an_endpoint_may_come_to_this_node_and_leave_it() -> None:
    """A pod of a set has the name of the one before it, which ran elsewhere."""
    tables = Tables()
    tables.nodes.put(NodeRow("n1", ("172.20.0.1",), (), {}, True))
    tables.nodes.mark_all_ready()
    all_of = sources(tables)
    endpoints = family(all_of, resources.CILIUM_ENDPOINTS)
    for node, here in (("172.20.0.2", False), ("172.20.0.1", True), ("172.20.0.2", False)):
        endpoints.apply(told("MODIFIED", endpoint("db-0", node)))
        assert (("prod", "db-0") in tables.reported_endpoints) is here
        assert ((OWN, "prod", "db-0") in tables.remote_endpoints) is not here
    endpoints.remove(("prod", "db-0"))
    endpoints.apply(told("ADDED", endpoint("db-0", "172.20.0.1")))
    endpoints.remove(("prod", "db-0"))
    assert not len(tables.reported_endpoints) and not len(tables.remote_endpoints)


def test_another_clusters_pods_are_its_own_whatever_address_their_node_has() -> None:
    """Clusters may give their nodes the same addresses."""
    tables = Tables()
    tables.nodes.put(NodeRow("n1", ("172.20.0.1",), (), {}, True))
    all_of = sources(tables)
    theirs = RemoteEndpointRow("prod", "db-0", 131072, ("10.9.1.1",), "172.20.0.1", cluster="west")
    tables.remote_endpoints.put(theirs)
    nodes, endpoints = (family(all_of, one) for one in (resources.NODES, resources.CILIUM_ENDPOINTS))
    for address in ("172.20.0.9", "172.20.0.1"):
        nodes.put(("", "n1"), NodeRow("n1", (address,), (), {}, True))
        assert list(tables.remote_endpoints) == [theirs] and not len(tables.reported_endpoints)
    endpoints.apply(told("ADDED", endpoint("db-0", "172.20.0.1")))  # a pod of the same name, and here
    nodes.put(("", "n1"), NodeRow("n1", ("172.20.0.1", "172.20.0.9"), (), {}, True))
    assert list(tables.remote_endpoints) == [theirs] and len(tables.reported_endpoints) == 1
    endpoints.apply(told("MODIFIED", endpoint("db-0", "172.20.0.2")))
    assert len(tables.remote_endpoints) == 2 and not len(tables.reported_endpoints)
    endpoints.remove(("prod", "db-0"))
    assert list(tables.remote_endpoints) == [theirs]


def test_an_address_that_this_node_gets_makes_what_names_it_its_own() -> None:
    tables = Tables()
    tables.nodes.put(NodeRow("n1", ("172.20.0.1",), (), {}, True))
    all_of = sources(tables)
    endpoints, nodes = (family(all_of, one) for one in (resources.CILIUM_ENDPOINTS, resources.NODES))
    for name, address in (("mine", "172.20.0.7"), ("theirs", "172.20.0.2")):
        endpoints.apply(told("ADDED", endpoint(name, address)))
    assert len(tables.remote_endpoints) == 2
    addresses = [{"type": "InternalIP", "address": "172.20.0.7"}]
    nodes.apply(told("MODIFIED", {"metadata": {"name": "n1"}, "status": {"addresses": addresses}}))
    assert tables.remote_endpoints.keys() == [(OWN, "prod", "theirs")]
    assert tables.reported_endpoints.keys() == [("prod", "mine")]


def test_only_pods_of_this_node_are_asked_for() -> None:
    tables, streams = Tables(), Streams([SYNCED])
    follow(resources.PODS, streams, tables, lambda: tables.pods.ready)
    assert streams.asked == [(resources.PODS, "spec.nodeName=n1")]


def test_an_address_that_passes_to_another_node_takes_with_it_what_names_it() -> None:
    """The other node's pod may be told of before this node's own change is."""
    tables = Tables()
    tables.nodes.put(NodeRow("n1", ("172.20.0.1",), (), {}, True))
    all_of = sources(tables)
    endpoints, nodes = (family(all_of, one) for one in (resources.CILIUM_ENDPOINTS, resources.NODES))
    endpoints.apply(told("ADDED", endpoint("theirs", "172.20.0.1")))
    assert tables.reported_endpoints.keys() == [("prod", "theirs")]
    nodes.apply(told("MODIFIED", node("n1", "172.20.0.77")))
    assert not len(tables.reported_endpoints)
    row = tables.remote_endpoints.get((OWN, "prod", "theirs"))
    assert row is not None and row.addresses == ("10.0.0.1",) and row.identity == 300
    endpoints.remove(("prod", "theirs"))
    nodes.apply(told("MODIFIED", node("n1", "172.20.0.1")))
    assert not len(tables.reported_endpoints) and not len(tables.remote_endpoints), "what is gone stays gone"


def test_a_node_made_anew_with_another_address_is_told_which_endpoints_are_its_own() -> None:
    tables = Tables()
    all_of = sources(tables)
    endpoints, nodes = (family(all_of, one) for one in (resources.CILIUM_ENDPOINTS, resources.NODES))
    nodes.apply(told("ADDED", node("n1", "172.20.0.1")))
    for name, address in (("before", "172.20.0.1"), ("after", "172.20.0.77")):
        endpoints.apply(told("ADDED", endpoint(name, address)))
    nodes.remove(("", "n1"))
    nodes.apply(told("ADDED", node("n1", "172.20.0.77")))
    assert tables.reported_endpoints.keys() == [("prod", "after")]
    assert tables.remote_endpoints.keys() == [(OWN, "prod", "before")]


def node(name: str, address: str) -> dict[str, Any]:
    return {
        "metadata": {"name": name},
        "status": {"addresses": [{"type": "InternalIP", "address": address}]},
    }
