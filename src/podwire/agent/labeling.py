"""Pods and namespaces → the labels and named ports of this node's endpoints.

In the walk: sources have put pods and namespaces into tables; identity.allocate turns the labels
written here into identities. A pod that changes its labels, or whose namespace does, gets another
identity without being plumbed again. What a pod will have is told as soon as the pod is seen: while its
containers are made, its identity can be.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from podwire.base.aio import boundary
from podwire.model import labels
from podwire.state.table import Table, Watch
from podwire.state.tables import EndpointRow, NamespaceRow, PodRow
from podwire.state.views import ReadTables


class Written(ReadTables, Protocol):
    """The tables, with those that are written here."""

    @property
    def endpoints(self) -> Table[EndpointRow]: ...


def labels_of(pod: PodRow, namespace: NamespaceRow, cluster: str) -> labels.Labels:
    """Labels that make the identity of `pod`."""
    return labels.of_pod(
        pod.labels,
        namespace=pod.namespace,
        namespace_labels=namespace.labels,
        service_account=pod.service_account,
        cluster=cluster,
    )


FINISHED = ("Succeeded", "Failed")


class Labeling:
    """Keeps endpoints' labels equal to their pods'; `expect` is told labels that endpoints will have."""

    def __init__(self, tables: Written, cluster: str, expect: Callable[[labels.Labels], None]) -> None:
        self._tables = tables
        self._cluster = cluster
        self._expect = expect

    async def run(self) -> None:
        tables = self._tables
        with Watch(tables.namespaces, tables.pods, tables.endpoints) as watch:
            while True:
                namespaces, pods, endpoints = await watch.next()
                concerned = {row.id for change in endpoints if (row := change.new) is not None}
                for change in pods:
                    if (pod := change.new) is not None and not pod.host_network and pod.phase not in FINISHED:
                        with boundary(f"labels of pod {pod.namespace}/{pod.name}"):
                            self.expect(pod.namespace, pod.name)
                    concerned |= {row.id for row in tables.endpoints.by("pod", change.key)}
                for change in namespaces:
                    concerned |= {row.id for row in tables.endpoints if row.namespace == change.key}
                for number in concerned:
                    with boundary(f"labels of endpoint {number}"):
                        self.update(number)

    def expect(self, namespace: str, name: str) -> None:
        """An endpoint of this pod will come, or is being made."""
        pod, known = self._tables.pods.get((namespace, name)), self._tables.namespaces.get(namespace)
        if pod is not None and known is not None:
            self._expect(labels_of(pod, known, self._cluster))

    def update(self, number: int) -> None:
        """Give one endpoint the labels its pod has now; what is not known yet changes nothing."""
        endpoint = self._tables.endpoints.get(number)
        if endpoint is None:
            return
        pod = self._tables.pods.get((endpoint.namespace, endpoint.pod))
        namespace = self._tables.namespaces.get(endpoint.namespace)
        if pod is None or namespace is None or (endpoint.uid and pod.uid and endpoint.uid != pod.uid):
            return
        wanted = labels_of(pod, namespace, self._cluster)
        if wanted != endpoint.labels or pod.ports != endpoint.ports:
            self._tables.endpoints.put(self._relabeled(endpoint, wanted, pod))

    def _relabeled(self, endpoint: EndpointRow, wanted: labels.Labels, pod: PodRow) -> EndpointRow:
        # The old identity stays until the new one is known: traffic goes on under it meanwhile.
        return msgspec.structs.replace(endpoint, labels=wanted, ports=pod.ports)
