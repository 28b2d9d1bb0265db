"""Endpoints have the labels of their pod and of its namespace, and follow them."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from tests.unit.agent.test_registry import row

from podwire.agent.labeling import Labeling
from podwire.base.aio import cancelling, eventually
from podwire.state.tables import ContainerPort, NamespaceRow, PodRow, Tables

POD = PodRow(
    namespace="prod",
    name="web-1",
    uid="u",
    node="n1",
    addresses=(),
    labels={"app": "web", "pod-template-hash": "abc"},
    service_account="builder",
    host_network=False,
    phase="Pending",
    ports=(ContainerPort("http", 8080, 6),),
)


def made() -> tuple[Tables, Labeling]:
    tables = Tables()
    tables.endpoints.put(msgspec.structs.replace(row(1), labels=(), ports=()))
    return tables, Labeling(tables, "mine", lambda expected: None)


def test_labels_are_the_pods_its_namespaces_and_its_accounts() -> None:
    tables, labeling = made()
    tables.pods.put(POD)
    tables.namespaces.put(NamespaceRow("prod", {"team": "a"}))
    labeling.update(1)
    found = tables.endpoints.get(1)
    assert found is not None
    assert found.labels == (
        "k8s:app=web",
        "k8s:io.cilium.k8s.namespace.labels.team=a",
        "k8s:io.cilium.k8s.policy.cluster=mine",
        "k8s:io.cilium.k8s.policy.serviceaccount=builder",
        "k8s:io.kubernetes.pod.namespace=prod",
    )
    assert found.ports == POD.ports


def test_nothing_changes_before_pod_and_namespace_are_known() -> None:
    tables, labeling = made()
    before = tables.endpoints.get(1)
    labeling.update(1)
    tables.pods.put(POD)
    labeling.update(1)
    assert tables.endpoints.get(1) == before


def test_a_pod_of_the_same_name_is_another_one() -> None:
    tables, labeling = made()
    before = tables.endpoints.get(1)
    tables.namespaces.put(NamespaceRow("prod", {}))
    tables.pods.put(msgspec.structs.replace(POD, uid="another"))
    labeling.update(1)
    assert tables.endpoints.get(1) == before


def test_a_changed_label_keeps_the_identity_until_the_new_one_is_known() -> None:
    tables, labeling = made()
    tables.namespaces.put(NamespaceRow("prod", {}))
    tables.pods.put(POD)
    labeling.update(1)
    tables.pods.put(msgspec.structs.replace(POD, labels={"app": "other"}))
    labeling.update(1)
    found = tables.endpoints.get(1)
    assert found is not None
    assert "k8s:app=other" in found.labels
    assert found.identity == 1234


def test_a_pod_whose_labels_nobody_can_make_keeps_no_other_from_its_own() -> None:
    tables, labeling = made()
    tables.endpoints.put(msgspec.structs.replace(row(2), pod="web-2", labels=(), ports=()))
    tables.namespaces.put(NamespaceRow("prod", {}))
    wrong = msgspec.structs.replace(POD, labels=None)
    tables.pods.put(wrong)
    with pytest.raises(AttributeError):
        labeling.update(1)

    def labels_of(number: int) -> tuple[str, ...]:
        found = tables.endpoints.get(number)
        assert found is not None
        return found.labels

    async def scenario() -> None:
        async with cancelling("label", labeling.run()) as labelling:
            tables.pods.put(msgspec.structs.replace(POD, name="web-2"))
            await eventually(lambda: bool(labels_of(2)), timeout=5, what="labels of the other one")
            tables.pods.put(POD)
            await eventually(lambda: bool(labels_of(1)), timeout=5, what="labels, now that they can be made")
            assert not labelling.done()

    asyncio.run(scenario())


def test_what_pods_will_have_is_told_when_they_are_seen() -> None:
    """Not of pods that will have no endpoint."""
    tables, expected = Tables(), list[tuple[str, ...]]()
    labeling = Labeling(tables, "mine", expected.append)
    tables.namespaces.put(NamespaceRow("prod", {}))
    tables.pods.put(POD)
    tables.pods.put(msgspec.structs.replace(POD, name="ended", labels={"app": "ended"}, phase="Succeeded"))
    tables.pods.put(msgspec.structs.replace(POD, name="host", labels={"app": "host"}, host_network=True))
    tables.pods.put(msgspec.structs.replace(POD, name="lost", namespace="unknown"))
    tables.pods.put(msgspec.structs.replace(POD, name="web-2", labels={"app": "last"}))

    async def scenario() -> None:
        async with cancelling("label", labeling.run()):
            await eventually(lambda: len(expected) == 2, timeout=5, what="both")

    asyncio.run(scenario())
    assert [labels[0] for labels in expected] == ["k8s:app=web", "k8s:app=last"]
