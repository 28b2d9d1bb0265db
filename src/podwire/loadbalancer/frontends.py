"""Services and their slices to frontends with backends.

In the walk: sources have put services and slices; the rows made here are what datapath.write puts
into the service maps. Only what a change concerns is computed again: one endpoint changed costs
its service, however many there are.

Nothing is written before all services and slices of the start are known: a frontend written
without its backends would break what the kernel does well from before the start.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol

from podwire.loadbalancer.numbers import Numbers, OutOfNumbers, Sets
from podwire.model.cluster import OWN
from podwire.state.table import Table, Watch
from podwire.state.tables import (
    BackendRow,
    FrontendRow,
    ServicePort,
    ServiceRow,
    SliceEndpoint,
    SliceRow,
)
from podwire.state.views import ReadTables
from podwire.state.writers import FRONTENDS

log = logging.getLogger(__name__)

Address = tuple[str, int, int]  # address, port, protocol: key of a frontend, name of a backend
ServiceKey = tuple[str, str, str]  # cluster, namespace, name

SERVED = (socket.IPPROTO_TCP, socket.IPPROTO_UDP)
LAST_BACKEND = (1 << 32) - 1
LAST_REV_NAT = (1 << 32) - 1


class Written(ReadTables, Protocol):
    """The tables, with those that are written here."""

    @property
    def backends(self) -> Table[BackendRow]: ...

    @property
    def frontends(self) -> Table[FrontendRow]: ...


class Use(NamedTuple):
    """What one service does with one backend."""

    active: bool
    node: str
    cluster: str


class Chosen(NamedTuple):
    """What a service amounts to: its frontends with their active backends, and all backends it keeps."""

    frontends: dict[Address, tuple[ServicePort, tuple[Address, ...]]]
    uses: dict[Address, Use]


class Frontends:
    """Keeps `tables.frontends` and `tables.backends`.

    `restored_…` are what the kernel holds: backend → id, frontend → number of its set, frontend →
    number of its reverse translation. `problems` says which frontends are not there and why.
    """

    def __init__(
        self,
        tables: Written,
        *,
        restored_backends: Mapping[Address, int],
        restored_services: Mapping[Address, int],
        restored_sets: Mapping[Address, int],
    ) -> None:
        self.tables = tables
        self.problems: dict[Address, str] = {}
        self._ids: Numbers[Address] = Numbers(LAST_BACKEND, restored_backends)
        self._rev_nats: Numbers[Address] = Numbers(LAST_REV_NAT, restored_services)
        self._sets = Sets(reserved=restored_sets.values())
        self._restored_sets = restored_sets
        self._frontends: dict[ServiceKey, set[Address]] = {}
        self._set_names: dict[ServiceKey, set[str]] = {}
        self._uses: dict[ServiceKey, dict[Address, Use]] = {}
        self._users: dict[Address, dict[ServiceKey, Use]] = {}
        self._wanting: dict[Address, dict[ServiceKey, None]] = {}  # frontends that others hold

    async def run(self) -> None:
        """Until cancelled."""
        with Watch(self.tables.services, self.tables.slices) as watch:
            dirty: dict[ServiceKey, None] = {}
            started = False
            while True:
                services, slices = await watch.next()
                for change in services:
                    key: Any = change.key
                    dirty[key] = None
                for change in slices:
                    for row in (change.old, change.new):
                        if row is not None:
                            dirty[row.cluster, row.namespace, row.service] = None
                if not watch.ready:
                    continue
                self.update(dirty)
                dirty = {}
                if not started:
                    started = True
                    self._forget_unused()
                    self.tables.backends.mark_ready(FRONTENDS)
                    self.tables.frontends.mark_ready(FRONTENDS)

    def update(self, services: Iterable[ServiceKey]) -> None:
        """Compute these services anew, and those that wait for what they give up."""
        work = dict.fromkeys(services)
        while work:
            key = next(iter(work))
            del work[key]
            for freed in self._update(key):
                work |= self._wanting.pop(freed, {})

    def _update(self, key: ServiceKey) -> list[Address]:
        """One service; the frontends it gave up. What another cluster calls by the name has none here."""
        service = self.tables.services.get(key) if key[0] == OWN else None
        chosen = choose(service, self.tables.slices.by("service", key)) if service else Chosen({}, {})
        self._keep_backends(key, chosen.uses)
        held = self._frontends.pop(key, set())
        kept = {
            address
            for address, (port, active) in chosen.frontends.items()
            if service is not None and self._put_frontend(key, service, address, port, active)
        }
        self._keep_sets(
            key, {_set_name(service, at, port) for at, (port, _) in chosen.frontends.items() if service}
        )
        if kept:
            self._frontends[key] = kept
        gone = [address for address in held if address not in kept]
        for address in gone:
            self._delete_frontend(address)
        self._release_backends(key, chosen.uses)
        return gone

    def _put_frontend(
        self,
        key: ServiceKey,
        service: ServiceRow,
        address: Address,
        port: ServicePort,
        active: tuple[Address, ...],
    ) -> bool:
        """Whether the frontend is the service's."""
        old = self.tables.frontends.get(address)
        if old is not None and (OWN, old.namespace, old.service) != key:
            self._wanting.setdefault(address, {})[key] = None
            self._problem(
                address,
                f"{service.namespace}/{service.name} has the address of {old.namespace}/{old.service}",
            )
            return False
        try:
            rev_nat = self._rev_nats.of(address)
            ids = {self._ids.of(one): one[:2] for one in active}
        except OutOfNumbers:
            self._problem(
                address,
                f"{service.namespace}/{service.name} is not served: all {LAST_REV_NAT} numbers are in use",
            )
            return old is not None
        self.problems.pop(address, None)
        number, backends = self._sets.place(
            _set_name(service, address, port), ids, self._restored_sets.get(address, 0)
        )
        self.tables.frontends.put(
            FrontendRow(
                address=address[0],
                port=address[1],
                protocol=address[2],
                namespace=service.namespace,
                service=service.name,
                port_name=port.name,
                type=service.type,
                rev_nat=rev_nat,
                set=number,
                backends=backends,
                places=tuple(ids[one] for one in backends),
                affinity_timeout=service.affinity_timeout,
            )
        )
        return True

    def _delete_frontend(self, address: Address) -> None:
        old = self.tables.frontends.delete(address)
        if old is not None:
            self._rev_nats.release(address)

    def _keep_sets(self, key: ServiceKey, names: set[str]) -> None:
        """Numbers of sets that the service has no more are free."""
        for name in self._set_names.pop(key, set()) - names:
            self._sets.forget(name)
        if names:
            self._set_names[key] = names

    def _keep_backends(self, key: ServiceKey, uses: Mapping[Address, Use]) -> None:
        """Rows for what the service uses, before a frontend names them."""
        before = self._uses.get(key, {})
        for address, use in uses.items():
            if before.get(address) != use:
                self._users.setdefault(address, {})[key] = use
                self._put_backend(address)

    def _release_backends(self, key: ServiceKey, uses: dict[Address, Use]) -> None:
        """What the service no longer uses, after no frontend names it."""
        for address in self._uses.get(key, {}):
            if address not in uses:
                users = self._users[address]
                del users[key]
                if users:
                    self._put_backend(address)
                else:
                    del self._users[address]
                    self.tables.backends.delete(self._ids.of(address))
                    self._ids.release(address)
        if uses:
            self._uses[key] = uses
        else:
            self._uses.pop(key, None)

    def _put_backend(self, address: Address) -> None:
        users = self._users[address].values()
        use = next(iter(users))
        self.tables.backends.put(
            BackendRow(
                id=self._ids.of(address),
                address=address[0],
                port=address[1],
                protocol=address[2],
                state="active" if any(one.active for one in users) else "terminating",
                node=use.node,
                cluster=use.cluster,
            )
        )

    def _problem(self, address: Address, problem: str) -> None:
        if self.problems.get(address) != problem:
            log.error("service address %s: %s", address, problem)
        self.problems[address] = problem

    def _forget_unused(self) -> None:
        """Numbers restored for what no service has any more."""
        for address in self._ids.names():
            if address not in self._users:
                self._ids.release(address)
        for address in self._rev_nats.names():
            if address not in self.tables.frontends:
                self._rev_nats.release(address)


def _set_name(service: ServiceRow, address: Address, port: ServicePort) -> str:
    """All addresses of one family have the same backends."""
    family = 6 if ":" in address[0] else 4
    return f"{service.namespace}/{service.name} {port.name} {port.protocol} {port.port} {family}"


def choose(service: ServiceRow, slices: Iterable[SliceRow]) -> Chosen:
    """Frontends and backends of one service. Pure: the order of slices does not matter.

    New connections go to ready endpoints; only if there is none, to those that terminate and still
    serve (Kubernetes' rule). Others keep the connections they have.
    """
    slices = list(slices)
    frontends: dict[Address, tuple[ServicePort, tuple[Address, ...]]] = {}
    uses: dict[Address, Use] = {}
    for port in service.ports:
        if port.protocol not in SERVED:
            continue
        by_family = {
            family: _behind(port, [one for one in slices if one.family == family]) for family in (4, 6)
        }
        for cluster_address in service.cluster_addresses:
            active, kept = by_family[6 if ":" in cluster_address else 4]
            frontends[(cluster_address, port.port, port.protocol)] = (port, active)
            for address, use in kept.items():
                if address not in uses or use.active:
                    uses[address] = use
    return Chosen(frontends, uses)


def _behind(port: ServicePort, slices: Iterable[SliceRow]) -> tuple[tuple[Address, ...], dict[Address, Use]]:
    """(active backends, all that are kept) of one port in one family."""
    endpoints: dict[Address, SliceEndpoint] = {}
    clusters: dict[Address, str] = {}
    for row in slices:
        for name, number, protocol in row.ports:
            if name == port.name and protocol == port.protocol:
                for endpoint in row.endpoints:
                    address = (endpoint.address, number, protocol)
                    known = endpoints.get(address)
                    # An endpoint may stand in two slices while it moves: the better word holds.
                    if known is None or _rank(endpoint) > _rank(known):
                        endpoints[address] = endpoint
                        clusters[address] = row.cluster
    active = [address for address, one in endpoints.items() if one.ready]
    if not active:
        active = [address for address, one in endpoints.items() if one.serving and one.terminating]
    chosen = set(active)
    kept = {
        address: Use(address in chosen, one.node, clusters[address])
        for address, one in endpoints.items()
        if address in chosen or keeps_connections(port, one)
    }
    return tuple(sorted(active)), kept


def _rank(endpoint: SliceEndpoint) -> tuple[bool, bool, bool, str]:
    return endpoint.ready, endpoint.serving, endpoint.terminating, endpoint.node


def keeps_connections(port: ServicePort, endpoint: SliceEndpoint) -> bool:
    """Whether an endpoint that gets nothing new keeps what it has.

    TCP connections end by themselves. A UDP client would go on for ever, so it keeps its backend
    only while that still serves.
    """
    return port.protocol == socket.IPPROTO_TCP or (endpoint.terminating and endpoint.serving)
