"""Security identities: numbers for sets of labels (Cilium's ranges and reserved numbers).

0..255 reserved and fixed; 256..65535 the cluster's pods (CiliumIdentity objects);
from 2^24 on local to a node: prefixes (CIDR).
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

CLUSTER_FIRST = 256
CLUSTER_LAST = 65535
LOCAL_FIRST = 1 << 24
LOCAL_LAST = (1 << 25) - 1

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


def is_local(number: int) -> bool:
    """Whether a number means something on this node only (a prefix)."""
    return number >= LOCAL_FIRST


def name(number: int) -> str:
    """``world`` for reserved numbers, else the number."""
    return RESERVED_NAMES.get(number, str(number))
