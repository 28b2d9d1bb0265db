"""Which ports have a name, for each identity: what a port name in an egress rule means.

A name is one of a peer's pods, and policy is by identity: where two pods of one identity call
different ports by one name, the name means both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable
from typing import Any

from podwire.model.cluster import OWN
from podwire.model.decide import named_ports
from podwire.model.rule import Direction
from podwire.state.table import Batch
from podwire.state.tables import ContainerPort, PolicyRow

Port = tuple[str, int, int]  # name, protocol, port
PodKey = tuple[str, str, str]  # cluster, namespace, name


def names_others(policies: Iterable[PolicyRow]) -> bool:
    """Whether some rule is about a port of a peer by its name. Only then a start waits for what other nodes'
    pods call theirs: they are many, and come last."""
    return any(
        ports.name and clause.direction is Direction.EGRESS
        for row in policies
        for rule in row.rules
        for clause in rule.clauses
        for ports in clause.ports or ()
    )


def pods_of(endpoints: Batch[Any], pods: Batch[Any], remote: Batch[Any]) -> dict[PodKey, None]:
    """The pods that changes are about. Another cluster's may have the name of one of this cluster."""
    found: dict[PodKey, None] = {}
    for change in endpoints:
        found |= {(OWN, row.namespace, row.pod): None for row in (change.old, change.new) if row is not None}
    for change in pods:
        found |= {(OWN, row.namespace, row.name): None for row in (change.old, change.new) if row is not None}
    for change in remote:
        key: Any = change.key
        found[key] = None
    return found


class Names:
    """Counts (identity, named port) over pods."""

    def __init__(self) -> None:
        self._pods: dict[Hashable, tuple[int, tuple[Port, ...]]] = {}
        self._ports: dict[int, Counter[Port]] = {}

    def put(self, pod: Hashable, identity: int, ports: Iterable[ContainerPort]) -> set[int]:
        """A pod has these ports now; identities whose names changed by it."""
        said = tuple((port.name, port.protocol, port.port) for port in ports)
        if self._pods.get(pod) == (identity, said):
            return set()
        changed = self._drop(pod)
        if identity and said:
            self._pods[pod] = (identity, said)
            self._ports.setdefault(identity, Counter()).update(said)
            changed.add(identity)
        return changed

    def remove(self, pod: Hashable) -> set[int]:
        return self._drop(pod)

    def _drop(self, pod: Hashable) -> set[int]:
        identity, said = self._pods.pop(pod, (0, ()))
        if not identity:
            return set()
        self._ports[identity] -= Counter(said)
        if not self._ports[identity]:
            del self._ports[identity]
        return {identity}

    def of(self, identity: int) -> dict[str, frozenset[tuple[int, int]]]:
        return named_ports(self._ports.get(identity, ()))

    def identities(self) -> list[int]:
        """Those that have any."""
        return list(self._ports)
