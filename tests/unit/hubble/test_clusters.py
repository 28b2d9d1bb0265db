"""Names of flows where two clusters of a mesh call their pods the same."""

from __future__ import annotations

from typing import Any

import msgspec

from podwire.hubble.message import Messages
from podwire.hubble.pipeline import Pipeline
from podwire.state.tables import IdentityRow, RemoteEndpointRow
from podwire.testing import flows

WEST = (2 << 16) + 7
LABELS = (
    "k8s:app=frontend",
    "k8s:io.cilium.k8s.policy.cluster=west",
    "k8s:io.kubernetes.pod.namespace=prod",
)


def told(make: Any, *addresses: str) -> tuple[Pipeline, flows.MemoryRing]:
    """A pipeline that knows a pod prod/frontend of cluster west as well."""
    pipeline, ring = make()
    pipeline.flows.tables.identities.put(IdentityRow(WEST, LABELS, "remote"))
    pipeline.flows.tables.remote_endpoints.put(
        RemoteEndpointRow("prod", "frontend", WEST, addresses, "192.168.8.1", (), "Job", "far", "west")
    )
    return pipeline, ring


def source(pipeline: Pipeline, ring: flows.MemoryRing, **fields: Any) -> tuple[str, str, str, list[str]]:
    ring.emit(flows.event(**fields))
    pipeline.drain()
    party = Messages(pipeline.flows).flow(pipeline.store.end - 1).source
    return party.cluster_name, party.namespace, party.pod_name, [one.name for one in party.workloads]


def test_each_pod_is_told_with_its_cluster(make: Any) -> None:
    pipeline, ring = told(make, "10.9.1.1")
    assert source(pipeline, ring) == ("default", "prod", "frontend", [])
    theirs = {"source": "10.9.1.1", "source_endpoint": 0, "source_identity": WEST}
    assert source(pipeline, ring, **theirs) == ("west", "prod", "frontend", ["far"])
    pipeline.flows.tables.remote_endpoints.delete(("west", "prod", "frontend"))
    assert source(pipeline, ring, **theirs) == ("west", "prod", "", [])
    assert source(pipeline, ring) == ("default", "prod", "frontend", [])


def test_at_an_address_of_two_clusters_the_identity_says_whose_pod_it_was(make: Any) -> None:
    pipeline, ring = told(make, "10.0.1.1", "10.0.2.2")
    own = {"source_endpoint": 0, "source_identity": 1001}
    assert source(pipeline, ring, **own) == ("default", "prod", "frontend", [])
    theirs = {"source_endpoint": 0, "source_identity": WEST}
    assert source(pipeline, ring, **theirs) == ("west", "prod", "frontend", ["far"])
    other_node = {"source": "10.0.2.2", "source_endpoint": 0}
    assert source(pipeline, ring, **other_node, source_identity=1002)[2] == "backend-7d4b9-x2"
    assert source(pipeline, ring, **other_node, source_identity=WEST)[2:] == ("frontend", ["far"])
    unknown = source(pipeline, ring, **other_node, source_identity=(3 << 16) + 1)
    assert unknown == ("", "", "", []), "of a cluster nobody has told of: no name is better than another's"


def test_of_two_other_clusters_the_label_decides(make: Any) -> None:
    pipeline, ring = told(make, "10.9.1.1")
    tables = pipeline.flows.tables
    row = tables.remote_endpoints.get(("west", "prod", "frontend"))
    assert row is not None
    tables.remote_endpoints.put(msgspec.structs.replace(row, name="aaa", cluster="north"))
    theirs = {"source": "10.9.1.1", "source_endpoint": 0, "source_identity": WEST}
    assert source(pipeline, ring, **theirs)[:3] == ("west", "prod", "frontend")
