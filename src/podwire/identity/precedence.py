"""Whose word counts, of all that is said of one prefix.

The kernel knows one address space, so an address is one cluster's. What another cluster of the mesh says of
one that this cluster has is refused, and so is what a second one says of the first one's, in the order of
their names. Which clusters give the same addresses to their pods is told by name; never is one pod taken
for the other, also not while the identity of the one that has the address is not known yet.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from podwire.model.cluster import OWN
from podwire.state.tables import IpcacheRow

ORDER = (
    "endpoint",  # a pod of this node
    "host",  # this node's own addresses
    "kube-apiserver",
    "remote-endpoint",  # a pod of another node
    "node",  # another node
    "pod",  # a pod without an endpoint
    "pod-cidr",  # what will be pods, and is none yet
    "other-cluster",  # whatever another cluster says
    "cidr",  # named in a rule
    "service-cidr",  # what will be services
    "world",
)
PLACE = {source: place for place, source in enumerate(ORDER)}
log = logging.getLogger(__name__)


def rank(row: IpcacheRow) -> tuple[int, str, int, int]:
    """The lowest counts."""
    place = PLACE[row.source]
    return PLACE["other-cluster"] if row.cluster else place, row.cluster, place, row.identity


class Overlaps:
    """Prefixes that several clusters have something at. `refused` says of each which one, and what is not."""

    def __init__(self) -> None:
        self.refused: dict[str, str] = {}

    @property
    def problem(self) -> str:
        """For a person; empty = there are none."""
        if not self.refused:
            return ""
        return f"{len(self.refused)} prefixes are of two clusters, first: {next(iter(self.refused.values()))}"

    def settle(self, prefix: str, rows: Sequence[IpcacheRow]) -> Sequence[IpcacheRow]:
        """Of `rows`, by `rank`, those that may count: of one cluster, and what this one says of whatever is
        nobody's."""
        counting = [row for row in rows if row.cluster in (rows[0].cluster, OWN)]
        if len(counting) == len(rows):
            self.refused.pop(prefix, None)
            return rows
        other = next(row for row in rows if row.cluster not in (rows[0].cluster, OWN))
        found = f"{prefix} is {_whom(rows[0])}, not {_whom(other)}"
        if self.refused.get(prefix) != found:
            log.warning("%s: two clusters have the same addresses", found)
        self.refused[prefix] = found
        return counting


def _whom(row: IpcacheRow) -> str:
    of = f"of cluster {row.cluster}" if row.cluster else "of this cluster"
    return f"{row.namespace}/{row.pod} {of}" if row.pod else f"a {row.source} {of}"
