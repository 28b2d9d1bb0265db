"""Names: found when a flow is stored, kept whatever happens to the pod, bounded."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np

from podwire.base import addresses
from podwire.base.aio import cancelling, eventually
from podwire.hubble.intern import Interner, NameCache
from podwire.hubble.message import Messages
from podwire.hubble.pipeline import Pipeline
from podwire.state.tables import IpcacheRow
from podwire.testing import flows


def stored(pipeline: Pipeline, ring: flows.MemoryRing, **fields):
    """The flow message of one event."""
    ring.emit(flows.event(**fields))
    pipeline.drain()
    return Messages(pipeline.flows).flow(pipeline.store.end - 1)


def test_both_ends_have_names(make) -> None:
    flow = stored(*make())
    assert (flow.source.namespace, flow.source.pod_name) == ("prod", "frontend")
    assert flow.destination.pod_name == "backend-7d4b9-x1"
    assert flow.destination.workloads[0].name == "backend"
    assert flow.destination.workloads[0].kind == "Deployment"
    assert "k8s:app=backend" in flow.destination.labels
    assert flow.destination.cluster_name == "default"
    assert flow.node_name == "default/n1"


def test_a_name_outlives_its_pod(make) -> None:
    pipeline, ring = make()
    stored(pipeline, ring)
    tables = pipeline.flows.tables
    tables.endpoints.delete(11)
    tables.pods.delete(("prod", "frontend"))
    tables.identities.delete(1001)
    tables.ipcache.delete("10.0.1.1/32")
    assert stored(pipeline, ring).source.pod_name == ""
    assert Messages(pipeline.flows).flow(0).source.pod_name == "frontend"


def test_an_address_that_changes_hands(make) -> None:
    pipeline, ring = make()
    stored(pipeline, ring)
    tables = pipeline.flows.tables
    tables.endpoints.delete(11)
    old = tables.pods.delete(("prod", "frontend"))
    fields = {name: getattr(old, name) for name in old.__struct_fields__}
    tables.pods.put(type(old)(**(fields | {"name": "heir"})))
    assert stored(pipeline, ring, source_endpoint=0).source.pod_name == "heir"


def test_a_pod_of_another_node_by_its_address(make) -> None:
    flow = stored(*make(), destination="10.0.2.2", destination_endpoint=0)
    assert flow.destination.pod_name == "backend-7d4b9-x2"


def test_outside_the_cluster_there_are_labels_and_no_pod(make) -> None:
    flow = stored(*make(), source="203.0.113.9", source_identity=2, source_endpoint=0)
    assert flow.source.pod_name == flow.source.namespace == ""
    assert list(flow.source.labels) == ["reserved:world"]


def test_an_identity_the_kernel_did_not_know(make) -> None:
    pipeline, ring = make()
    pipeline.flows.tables.ipcache.put(IpcacheRow("198.51.100.0/24", 1003, "cidr"))
    world = {"source_identity": 0, "source_endpoint": 0}
    assert stored(pipeline, ring, source="198.51.100.200", **world).source.identity == 1003
    assert stored(pipeline, ring, source="8.8.8.8", **world).source.identity == 2
    assert stored(pipeline, ring, source="10.0.1.1", **world).source.identity == 1001


def test_services_by_frontend_backend_and_what_was_translated(make) -> None:
    pipeline, ring = make()
    known = {"flags": 2}
    frontend = stored(pipeline, ring, destination=flows.SERVICE, destination_port=80, destination_identity=2)
    assert frontend.destination_service.name == "backend"
    assert stored(pipeline, ring).destination_service.name == "backend"
    assert not stored(pipeline, ring, destination_port=81).HasField("destination_service")
    assert not stored(pipeline, ring, protocol=17).HasField("destination_service")
    elsewhere = {"destination": "10.0.9.9", "destination_endpoint": 0, "destination_identity": 2}
    original = {"original": flows.SERVICE, "original_port": 80}
    asked = stored(pipeline, ring, **elsewhere, **original, **known)
    assert (asked.destination_service.name, asked.HasField("source_service")) == ("backend", False)
    answered = stored(pipeline, ring, **elsewhere, **original, flags=6)
    assert (answered.source_service.name, answered.HasField("destination_service")) == ("backend", False)


def test_the_rule_that_decided(make) -> None:
    pipeline, ring = make()
    allowed = stored(pipeline, ring, kind=5, point=1, rule=flows.ALLOWED)
    assert [policy.name for policy in allowed.ingress_allowed_by] == ["backend"]
    assert "podwire:clause=spec.ingress[0]" in allowed.ingress_allowed_by[0].labels
    denied = stored(pipeline, ring, kind=1, reason=133, rule=flows.DEFAULT_DENIED)
    assert [policy.kind for policy in denied.ingress_denied_by] == ["CiliumNetworkPolicy"]
    assert "podwire:default-deny" in denied.ingress_denied_by[0].labels
    assert not denied.ingress_allowed_by and not denied.egress_denied_by
    assert not stored(pipeline, ring, rule=99999).ingress_allowed_by


def test_the_loopback_device_has_its_name(make) -> None:
    assert stored(*make(), device=1).interface.name == "lo"
    flow = stored(*make(), device=4_000_000)
    assert (flow.interface.index, flow.interface.name) == (4_000_000, "")


def test_many_sources_outside_are_one_name(make) -> None:
    pipeline, ring = make(capacity=1 << 14)
    events = np.repeat(flows.event(source="203.0.113.9", source_identity=2, source_endpoint=0), 10_000)
    batch = flows.joined([flows.event()] * 10_000)
    batch[:] = events
    batch["source"][:, 12:16] = np.arange(10_000, dtype=">u4").view("u1").reshape(-1, 4)
    ring.emit(batch)
    before = len(pipeline.flows.names)
    assert pipeline.drain() == 10_000
    assert len(pipeline.flows.names) - before < 20


def test_an_interner_reuses_what_nothing_has_and_counts_what_it_refuses() -> None:
    used: list[int] = []
    names = Interner(4, lambda mark: mark.__setitem__(used, True))
    numbers = [names.number(text) for text in "abc"]
    assert numbers == [1, 2, 3]
    assert names.full
    assert names.number("d") == 0
    assert names.refused == 1
    used[:] = [2]
    assert names.sweep() == 2
    assert names.number("b") == 2
    assert {names.number("d"), names.number("e")} == {1, 3}
    assert names.number("f") == 0
    assert names.values[2] == "b"


def test_names_stay_bounded_when_pods_come_and_go(make) -> None:
    pipeline, ring = make(capacity=1024)
    pipeline._enricher.names.capacity = 64
    for number in range(200):
        row = pipeline.flows.tables.identities.get(1003)
        pipeline.flows.tables.identities.put(type(row)(1003, (f"k8s:run={number}",), "cluster"))
        ring.emit(
            flows.joined([flows.event(source="10.0.1.4", source_identity=1003, source_endpoint=0)] * 32)
        )
        pipeline.drain()
    assert len(pipeline.flows.names.values) <= 64
    assert pipeline.flows.names.refused == 0
    assert list(Messages(pipeline.flows).flow(pipeline.store.end - 1).source.labels) == ["k8s:run=199"]
    assert list(Messages(pipeline.flows).flow(pipeline.store.first).source.labels) == ["k8s:run=168"]


def test_a_cache_never_takes_one_key_for_another() -> None:
    cache = NameCache(2)
    random = np.random.default_rng(1)
    for _ in range(3):
        high, low = random.integers(0, 300, (2, 20_000), dtype="u8")
        found = cache.look_up((high, low), lambda i, h=high, w=low: (int(h[i]), int(w[i])))  # type: ignore[misc]
        assert (found[0] == high).all() and (found[1] == low).all()


def test_addresses_of_both_families_are_different_keys(make) -> None:
    pipeline, ring = make()
    six = stored(pipeline, ring, source="fd00::1:1", destination="fd00::1:2", source_endpoint=0)
    assert six.source.pod_name == "frontend"
    assert addresses.family(six.IP.source) == 6


def test_a_socket_belongs_to_the_pod_of_its_cgroup(tmp_path: Path, make) -> None:
    pod = tmp_path / "pods" / "uid_frontend" / "container"
    pod.mkdir(parents=True)
    pipeline, ring = make(cgroup=str(tmp_path))
    at = {"kind": 7, "point": 2, "source": "", "source_identity": 0, "source_endpoint": 0}
    flow = stored(pipeline, ring, **at, cgroup=pod.stat().st_ino)
    assert (flow.source.pod_name, flow.source.identity, flow.IP.source) == ("frontend", 1001, "10.0.1.1")
    six = stored(pipeline, ring, **at, cgroup=pod.stat().st_ino, destination="fd00::1:2", flags=1)
    assert six.IP.source == "fd00::1:1"
    assert stored(pipeline, ring, **at, cgroup=1).source.pod_name == ""


def test_what_waited_in_the_ring_gets_its_names_once_they_are_known(make) -> None:
    pipeline, ring = make()
    tables = pipeline.flows.tables
    endpoint = tables.endpoints.delete(11)

    async def main() -> None:
        ring.emit(flows.event())
        async with cancelling("pipeline", pipeline.run()):
            for _ in range(20):
                await asyncio.sleep(0)
            assert len(pipeline.store) == 0
            tables.endpoints.put(endpoint)
            for table in tables:
                table.mark_all_ready()
            await eventually(lambda: len(pipeline.store), timeout=5, what="the flow")

    asyncio.run(main())
    assert Messages(pipeline.flows).flow(0).source.pod_name == "frontend"


def test_too_many_are_not_left_waiting_for_their_names(make, monkeypatch) -> None:
    monkeypatch.setattr("podwire.hubble.pipeline.NAMES_AFTER_BUSY", 0.05)
    pipeline, ring = make(capacity=1 << 14)

    events = flows.joined([flows.event()] * 9000)

    async def main() -> None:
        ring.emit(events)
        async with cancelling("pipeline", pipeline.run()):
            await eventually(lambda: len(pipeline.store) == 9000, timeout=4, what="the flows")

    asyncio.run(main())


def test_a_frame_that_is_no_ip_is_its_pods_and_not_the_worlds(make) -> None:
    """The kernel finds the world behind the addresses that the frame has not."""
    pipeline, ring = make()
    pipeline.flows.tables.ipcache.put(IpcacheRow("::/0", 9, "world"))
    fields = {"source": "", "destination": "", "destination_endpoint": 0, "destination_identity": 2}
    own = stored(pipeline, ring, **fields)
    assert (own.source.pod_name, own.source.identity) == ("frontend", 1001)
    assert (own.destination.identity, list(own.destination.labels)) == (0, [])
    # Of a device that the kernel does not know yet it says the world at both ends.
    early = stored(pipeline, ring, **fields, source_endpoint=0, source_identity=2)
    assert (early.source.identity, list(early.source.labels)) == (0, [])
    # The unspecified address of IPv6 is one.
    six = stored(pipeline, ring, **fields, flags=flows.EventFlags.IPV6)
    assert six.destination.identity == 2
