"""Clusters: which one an object is of, and which numbers identities of its pods have.

Several clusters may be one mesh. Then two of them may have nodes, services and pods of the same names, so
what has a name of a cluster is known by the cluster first: rows of tables have a `cluster`, and their keys
begin with it. What is of this cluster says so by `OWN`, not by the cluster's name: who reads and writes only
that needs no configuration, and no other cluster can say its way in by a name.
"""

from __future__ import annotations

import msgspec

from podwire.base.config import AgentConfig
from podwire.model import identity

OWN = ""  # the cluster this node is in


class Cluster(msgspec.Struct, frozen=True):
    """This cluster: its name, its number in the mesh (0 = in none), and the mesh's highest number."""

    name: str = "default"
    id: int = 0
    most: int = identity.MOST_CLUSTERS

    @classmethod
    def of(cls, config: AgentConfig) -> Cluster:
        return cls(config.cluster_name, config.cluster_id, config.max_connected_clusters)

    @property
    def numbers(self) -> range:
        """Identities that this cluster may give to label sets of its pods."""
        return identity.of_cluster(self.id, self.most)

    def foreign(self, number: int) -> bool:
        """Whether an identity is that of another cluster's pods."""
        return identity.cluster_of(number, self.most) not in (None, self.id)


DEFAULT = Cluster()
