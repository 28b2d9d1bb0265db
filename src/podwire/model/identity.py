"""Security identities: numbers for sets of labels (Cilium's ranges and reserved numbers).

0..255 reserved and fixed; below 2^24 pods of clusters (CiliumIdentity objects), the upper bits the cluster's
number: 256..65535 those of a cluster that is in no mesh, whose number is 0; from 2^24 on local to a node:
prefixes (CIDR).
"""

from __future__ import annotations

import msgspec

from podwire.model.labels import Labels, canonical

UNKNOWN = 0
HOST = 1
WORLD = 2
UNMANAGED = 3
HEALTH = 4
INIT = 5
REMOTE_NODE = 6
KUBE_APISERVER = 7
INGRESS = 8
WORLD_IPV4 = 9
WORLD_IPV6 = 10

RESERVED_LAST = 255
LOCAL_FIRST = 1 << 24
LOCAL_LAST = (1 << 25) - 1
MOST_CLUSTERS = 255  # the highest number of a cluster, unless a mesh is for twice as many
CLUSTER_SHIFTS = {255: 16, 511: 15}  # highest number of a cluster → bits below the cluster's

RESERVED_NAMES: dict[int, str] = {
    UNKNOWN: "unknown",
    HOST: "host",
    WORLD: "world",
    UNMANAGED: "unmanaged",
    HEALTH: "health",
    INIT: "init",
    REMOTE_NODE: "remote-node",
    KUBE_APISERVER: "kube-apiserver",
    INGRESS: "ingress",
    WORLD_IPV4: "world-ipv4",
    WORLD_IPV6: "world-ipv6",
}
RESERVED_NUMBERS: dict[str, int] = {name: number for number, name in RESERVED_NAMES.items()}


class Identity(msgspec.Struct, frozen=True):
    """A number and the labels it stands for."""

    number: int
    labels: Labels


def _reserved(number: int, name: str) -> Identity:
    labels = {f"reserved:{name}"}
    if number == KUBE_APISERVER:  # it is a remote node as well
        labels.add("reserved:remote-node")
    return Identity(number, canonical(labels))


RESERVED: tuple[Identity, ...] = tuple(
    _reserved(number, name) for number, name in RESERVED_NAMES.items() if number != UNKNOWN
)


def of_cluster(cluster: int, most: int = MOST_CLUSTERS) -> range:
    """The numbers that the cluster of this number gives to label sets; `most` is the same in all of a mesh.

    >>> of_cluster(0)
    range(256, 65536)
    >>> of_cluster(3)[0] == 3 << 16
    True
    """
    shift = CLUSTER_SHIFTS[most]
    if not 0 <= cluster <= most:
        raise ValueError(f"{cluster} is no number of a cluster: they are 0 to {most}")
    return range(max(cluster << shift, RESERVED_LAST + 1), (cluster + 1) << shift)


def cluster_of(number: int, most: int = MOST_CLUSTERS) -> int | None:
    """The number of the cluster whose pods have this identity; None for reserved and local ones."""
    return number >> CLUSTER_SHIFTS[most] if RESERVED_LAST < number < LOCAL_FIRST else None


def is_local(number: int) -> bool:
    """Whether a number means something on this node only (a prefix)."""
    return number >= LOCAL_FIRST


def name(number: int) -> str:
    """``world`` for reserved numbers, else the number."""
    return RESERVED_NAMES.get(number, str(number))
