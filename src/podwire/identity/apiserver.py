"""Where the Kubernetes API is: the endpoints of this cluster's Service default/kubernetes."""

from __future__ import annotations

from collections.abc import Iterable

from podwire.model.cluster import OWN
from podwire.state.table import Change
from podwire.state.tables import PodRow, RemoteEndpointRow, SliceRow
from podwire.state.views import ReadTables

SERVICE = (OWN, "default", "kubernetes")


def concerned(slices: Iterable[Change[SliceRow]]) -> bool:
    """Whether some of the changes are about it."""
    return any(
        row is not None and (row.cluster, row.namespace, row.service) == SERVICE
        for change in slices
        for row in (change.old, change.new)
    )


def concerned_by_pods(
    tables: ReadTables, pods: Iterable[Change[PodRow]], remote: Iterable[Change[RemoteEndpointRow]]
) -> bool:
    """Whether some of the changes are about a pod that is one of its endpoints, or was."""
    known = _known(tables)
    return any(
        row is not None and not known.isdisjoint(row.addresses)
        for changes in (pods, remote)
        for change in changes
        for row in (change.old, change.new)
    )


def addresses(tables: ReadTables) -> tuple[frozenset[str], frozenset[str]]:
    """(those that are nodes' addresses, those outside the cluster). A pod is a pod, and in neither."""
    known = _known(tables)
    of_nodes = {address for address in known if _is_nodes(tables, address)}
    of_pods = {address for address in known - of_nodes if _is_pods(tables, address)}
    return frozenset(of_nodes), frozenset(known - of_nodes - of_pods)


def _known(tables: ReadTables) -> set[str]:
    return {one.address for row in tables.slices.by("service", SERVICE) for one in row.endpoints}


def _is_nodes(tables: ReadTables, address: str) -> bool:
    """Of this cluster: what another cluster calls a node is outside of it."""
    return any(row.cluster == OWN for row in tables.nodes.by("address", address))


def _is_pods(tables: ReadTables, address: str) -> bool:
    own = any(not pod.host_network for pod in tables.pods.by("address", address))
    return own or bool(tables.remote_endpoints.by("address", address))
