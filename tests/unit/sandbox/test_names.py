"""Names that others are made of: of events, network namespaces, hosts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwire.apiserver import ClusterSettings, bootstrap
from podwire.apiserver.builtin import registry
from podwire.apiserver.objects import Objects
from podwire.apiserver.store import Store
from podwire.sandbox.cluster import Cluster
from podwire.sandbox.places import Places
from podwire.sandbox.runner.pod import host_name


@contextmanager
def world() -> Iterator[Cluster]:
    store = Store(":memory:")
    objects = Objects(store, registry(), ClusterSettings())
    for name in bootstrap.NAMESPACES:
        objects.create(objects.kind("namespaces"), "", {"metadata": {"name": name}})
    yield Cluster(objects)
    store.close()


@given(st.integers(1, 253), st.sampled_from("a.-"))
def test_events_have_names_whatever_the_objects(length: int, filling: str) -> None:
    """Every name that is cut is still a name."""
    with world() as cluster:
        name = ("a" + filling.join("a" * length))[: length - 1].rstrip("-.") + "a"
        about = {"kind": "Pod", "apiVersion": "v1", "metadata": {"name": name, "namespace": "default"}}
        cluster.event(about, "Normal", "Test", "a message", source="test", node="n1")
        (event,) = cluster.all("events", "default")
        assert event["involvedObject"]["name"] == name


@given(st.text("ab.-", min_size=1, max_size=253), st.text("ab-", min_size=1, max_size=63))
def test_names_of_namespaces_fit_and_differ(pod: str, namespace: str) -> None:
    places = Places("a-sandbox-of-20-char", Path("/"))
    found = places.pod_netns(namespace, pod).name
    assert len(found) <= 255
    assert found != places.pod_netns(namespace, pod + "a").name
    assert found != places.pod_netns(namespace + "a", pod).name


@pytest.mark.parametrize(
    ("name", "host"),
    [("web-0", "web-0"), ("a" * 70, "a" * 63), ("a" * 62 + "-b", "a" * 62), ("a" * 63 + ".b", "a" * 63)],
)
def test_host_names_are_cut_as_a_kubelet_does(name: str, host: str) -> None:
    assert host_name(name) == host
