"""Where the Kubernetes API is: the endpoints of Service default/kubernetes."""

from __future__ import annotations

from collections.abc import Iterable

from podwire.state.table import Change
from podwire.state.tables import SliceRow, Tables

SERVICE = ("default", "kubernetes")


def concerned(slices: Iterable[Change[SliceRow]]) -> bool:
    """Whether some of the changes are about it."""
    return any(
        row is not None and (row.namespace, row.service) == SERVICE
        for change in slices
        for row in (change.old, change.new)
    )


def addresses(tables: Tables) -> tuple[frozenset[str], frozenset[str]]:
    """(those that are nodes' addresses, those outside the cluster). A pod is a pod, and in neither."""
    known = {one.address for row in tables.slices.by("service", SERVICE) for one in row.endpoints}
    of_nodes = {address for address in known if tables.nodes.by("address", address)}
    of_pods = {
        address for address in known for pod in tables.pods.by("address", address) if not pod.host_network
    }
    return frozenset(of_nodes), frozenset(known - of_nodes - of_pods)
