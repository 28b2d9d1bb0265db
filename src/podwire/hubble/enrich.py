"""The third step up: numbers to names.

Each name a flow has (who is at either end, the service, the rule that decided, the device) becomes
one more column of small numbers that stand for interned values (`hubble.intern`). Names are looked
up when the flow is stored: a pod deleted later still has its name in the flows it made.

Work per batch is a few array operations; Python runs for what was not seen lately, and anew for what
a changed row concerns (`hubble.stale`).
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from podwire.abi.enums import EventFlags
from podwire.base import addresses
from podwire.hubble.cgroups import Cgroups
from podwire.hubble.decode import Columns, address_bytes, address_words
from podwire.hubble.intern import NOTHING, Interner, NameCache
from podwire.hubble.prefixes import Prefixes
from podwire.hubble.services import ServiceIndex
from podwire.hubble.stale import Changed
from podwire.model import identity as identities
from podwire.model.cluster import DEFAULT, OWN, Cluster
from podwire.model.flow import NO_PARTY, Decision, Interface, Party, Reply
from podwire.model.labels import CLUSTER, Labels, namespace_of, values
from podwire.state.tables import EndpointRow, PodRow, RemoteEndpointRow
from podwire.state.views import ReadTables

Array = NDArray[Any]

# The columns made here; each is a number of the interner.
NAMED: dict[str, str] = {
    "source_party": "u4",
    "destination_party": "u4",
    "source_service": "u4",
    "destination_service": "u4",
    "decision": "u4",
    "interface": "u4",
}
_RESERVED: dict[int, Labels] = {known.number: known.labels for known in identities.RESERVED}
NOWHERE = "?"  # the cluster of an identity that nobody has told of; none has this name
_ENDED = ("Succeeded", "Failed")


class Enricher:
    """Names for batches, from `tables`. `used` marks the numbers that stored flows have."""

    def __init__(
        self,
        tables: ReadTables,
        used: Callable[[Array], None],
        *,
        cgroup: str = "",
        cluster: Cluster = DEFAULT,
        capacity: int = 1 << 16,
    ) -> None:
        self.names = Interner(capacity, used)
        self._tables = tables
        self._cluster = cluster
        self._parties = NameCache(3, bits=15)  # thousands of pods and few that share a slot
        self._rules = NameCache(1)
        self._devices = NameCache(1)
        self.services = ServiceIndex(tables)
        self.cgroups = Cgroups(cgroup, tables.endpoints)
        self._prefixes = Prefixes()
        self._changed = Changed(tables, self._prefixes)
        self._sweep_pause = 0

    @property
    def ready(self) -> bool:
        """Whether the tables hold all the names there were when the agent started."""
        tables = self._tables
        needed = (
            tables.endpoints,
            tables.pods,
            tables.remote_endpoints,
            tables.identities,
            tables.ipcache,
            tables.nodes,
            tables.rules,
            tables.frontends,
        )
        return all(table.ready for table in needed) and not (self.services.behind or self._changed.behind)

    def enrich(self, columns: Columns) -> None:
        """Fill the columns of `NAMED`, and identities the kernel did not know."""
        self.follow()
        self._place_sockets(columns)
        _nobody(columns)
        self._name_parties(columns)
        self._name_services(columns)
        rules, devices = columns["rule"].astype("u8"), columns["device"].astype("u8")
        columns["decision"][:] = self._rules.look_up((rules,), lambda i: (self._decision(int(rules[i])), 0))[
            0
        ]
        columns["interface"][:] = self._devices.look_up(
            (devices,), lambda i: (self._interface(int(devices[i])), 0)
        )[0]

    def follow(self) -> None:
        """Forget what the tables made wrong, and take over a piece of what they say new."""
        stale = self._changed.take()
        if self._sweep():
            for cache in (self._parties, self._rules, self._devices):
                cache.clear()
            self.services.forget_numbers()
        elif stale is not None:
            stale.forget_parties(self._parties)
            if stale.devices:
                self._devices.clear()
            if stale.rules or stale.everything:
                self._rules.clear()
        self.services.step()

    def _sweep(self) -> bool:
        """Make room for names when there is none; seldom if it does not help."""
        self._sweep_pause = max(0, self._sweep_pause - 1)
        if not self.names.full or self._sweep_pause:
            return False
        self._sweep_pause = 256 if self.names.sweep() < self.names.capacity // 16 else 0
        return True

    def _place_sockets(self, columns: Columns) -> None:
        """Give what was seen at a socket the address of the pod whose process it was."""
        nowhere = (columns["cgroup"] != 0) & (columns["source_high"] == 0) & (columns["source_low"] == 0)
        if not nowhere.any():
            return
        six = (columns["flags"] & EventFlags.IPV6) != 0
        for cgroup in np.unique(columns["cgroup"][nowhere]):
            endpoint = self.cgroups.endpoint(int(cgroup))
            if endpoint is None:
                continue
            own = nowhere & (columns["cgroup"] == cgroup)
            columns["source_endpoint"][own] = endpoint.id
            columns["source_identity"][own] = endpoint.identity
            for address, rows in ((endpoint.ipv4, own & ~six), (endpoint.ipv6, own & six)):
                if address:
                    words = address_words(addresses.pack(address))
                    columns["source_high"][rows], columns["source_low"][rows] = words

    def _name_parties(self, columns: Columns) -> None:
        for side in ("source", "destination"):
            number, endpoint = columns[f"{side}_identity"], columns[f"{side}_endpoint"]
            high, low = columns[f"{side}_high"], columns[f"{side}_low"]
            # Whom the kernel knows to be outside the cluster has no name by address, and there are
            # very many of them: one name for all of an identity.
            outside = endpoint == 0
            outside &= (
                (number == identities.WORLD)
                | (number == identities.WORLD_IPV4)
                | (number == identities.WORLD_IPV6)
                | (number >= identities.LOCAL_FIRST)
            )
            inside = (~outside).astype("u8")
            rest = number.astype("u8") << np.uint64(16) | endpoint
            found = self._parties.look_up(
                (high * inside, low * inside, rest),
                partial(self._party_at, high * inside, low * inside, number, endpoint),
            )
            columns[f"{side}_party"][:] = found[0]
            columns[f"{side}_identity"][:] = found[1]

    def _name_services(self, columns: Columns) -> None:
        protocol = columns["protocol"]
        # What was translated is named by what it was before: `original` is the destination, on
        # replies the source.
        answered = columns["reply"] == Reply.YES
        for side, mine in (("source", answered), ("destination", ~answered)):
            high, low, port = columns[f"{side}_high"], columns[f"{side}_low"], columns[f"{side}_port"]
            mine = mine & (columns["original_port"] != 0)
            if mine.any():
                high = np.where(mine, columns["original_high"], high)
                low = np.where(mine, columns["original_low"], low)
                port = np.where(mine, columns["original_port"], port)
            columns[f"{side}_service"][:] = self.services.look_up(
                high, low, port, protocol, self.names.number
            )

    def _party_at(self, high: Array, low: Array, number: Array, endpoint: Array, i: int) -> tuple[int, int]:
        address = addresses.unpack(address_bytes(high[i], low[i]))
        party, known = self._party(address, int(number[i]), int(endpoint[i]))
        return (self.names.number(party) if party != NO_PARTY else NOTHING), known

    def _party(self, address: str, number: int, endpoint_id: int) -> tuple[Party, int]:
        """Who `address` is, and its identity; `number` and `endpoint_id` as the kernel knew them."""
        endpoint = self._tables.endpoints.get(endpoint_id) if endpoint_id else None
        if endpoint is None and address and not self._cluster.foreign(number):
            endpoint = min(
                self._tables.endpoints.by("address", address), key=lambda row: row.id, default=None
            )
        if number == identities.UNKNOWN:
            number = endpoint.identity if endpoint else self._identity(address)
        labels = self._labels(number) or (endpoint.labels if endpoint else ())
        cluster = values(labels).get(("k8s", CLUSTER), "")
        # Clusters may give the same addresses and names: the identity says whose the pod is.
        of = cluster or NOWHERE if self._cluster.foreign(number) else OWN
        pod = self._pod(address, endpoint, of)
        namespace = endpoint.namespace if endpoint else pod.namespace if pod else ""
        name = endpoint.pod if endpoint else pod.name if pod else ""
        cached = self._tables.ipcache.get(addresses.exact(address)) if address else None
        if not name and cached is not None and cached.cluster == of:
            namespace, name = cached.namespace, cached.pod
        return (
            Party(
                labels=labels,
                namespace=namespace or namespace_of(labels),
                pod=name,
                workload_kind=pod.workload_kind if pod else "",
                workload_name=pod.workload_name if pod else "",
                cluster=cluster,
            ),
            number,
        )

    def _pod(
        self, address: str, endpoint: EndpointRow | None, cluster: str
    ) -> PodRow | RemoteEndpointRow | None:
        if endpoint is not None:
            return self._tables.pods.get((endpoint.namespace, endpoint.pod))
        # An address may be a finished pod's as well; a node's address is no pod's.
        here = self._tables.pods.by("address", address) if cluster == OWN else ()
        pods = [row for row in here if not row.host_network]
        # What several have is one's all the same: names that are remembered and a fresh look agree.
        if pods:
            return min(pods, key=lambda row: (row.phase in _ENDED, row.namespace, row.name))
        elsewhere = [
            row for row in self._tables.remote_endpoints.by("address", address) if row.cluster == cluster
        ]
        return min(elsewhere, key=lambda row: (row.namespace, row.name), default=None)

    def _labels(self, number: int) -> Labels:
        row = self._tables.identities.get(number)
        return row.labels if row is not None else _RESERVED.get(number, ())

    def _identity(self, address: str) -> int:
        """Of an address the kernel did not look up: the longest prefix of the ipcache."""
        if not address:
            return identities.UNKNOWN
        row = self._tables.ipcache.get(addresses.exact(address))
        return row.identity if row is not None else self._prefixes.longest(address)

    def _decision(self, rule: int) -> int:
        row = self._tables.rules.get(rule) if rule else None
        if row is None:
            return NOTHING
        return self.names.number(
            Decision(row.origins, row.clause, row.default_deny, int(row.direction), row.log)
        )

    def _interface(self, device: int) -> int:
        if not device:
            return NOTHING
        try:
            return self.names.number(Interface(socket.if_indextoname(device)))
        except OSError:  # gone already; its index remains
            return NOTHING


def _nobody(columns: Columns) -> None:
    """A frame that is no IP has no addresses. The kernel looks them up all the same, and whom it finds
    behind none of them is the world: of that, only what an endpoint is known by is true."""
    none = (columns["flags"] & EventFlags.IPV6) == 0  # there, :: is an address; 0.0.0.0 is not all zeros
    for side in ("source", "destination"):
        none = none & (columns[f"{side}_high"] == 0) & (columns[f"{side}_low"] == 0)
    for side in ("source", "destination"):
        columns[f"{side}_identity"][none & (columns[f"{side}_endpoint"] == 0)] = identities.UNKNOWN
