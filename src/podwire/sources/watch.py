"""Follow one resource and keep its rows. One loop for all families.

The door (`podwire.kube`) gives a consistent stream: all objects there are, SYNCED, then changes;
after a break it gives the differences. So a table is right whenever the API can be reached, keeps
what it had while the API is away, and catches up after.

Of pods only this node's are asked for, by a field selector: what the others' are is told by their
CiliumEndpoints, which are a tenth of the size and change when something about the pod's traffic does.

An object that cannot be understood never ends the loop: it is logged by name, counted, and an
earlier row of it stays.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Hashable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from podwire.base.aio import Backoff
from podwire.base.attempts import Attempts
from podwire.base.errors import ApiError, InvalidObject, Unreachable
from podwire.kube import Event, Watches, resources
from podwire.kube.resources import Resource
from podwire.model.cluster import DEFAULT, OWN, Cluster
from podwire.sources import endpoints, namespaces, nodes, pods, policies, services, slices
from podwire.sources.objects import Named, read
from podwire.state.table import Table, until_ready
from podwire.state.tables import (
    NamespaceRow,
    NodeRow,
    PodRow,
    PolicyRow,
    RemoteEndpointRow,
    ReportedEndpointRow,
    ServiceRow,
    SliceRow,
)
from podwire.state.views import ReadTables
from podwire.state.writers import watched

Row = TypeVar("Row")
log = logging.getLogger(__name__)


class Written(ReadTables, Protocol):
    """The tables, with those that are written here."""

    @property
    def namespaces(self) -> Table[NamespaceRow]: ...

    @property
    def nodes(self) -> Table[NodeRow]: ...

    @property
    def pods(self) -> Table[PodRow]: ...

    @property
    def services(self) -> Table[ServiceRow]: ...

    @property
    def slices(self) -> Table[SliceRow]: ...

    @property
    def policies(self) -> Table[PolicyRow]: ...

    @property
    def remote_endpoints(self) -> Table[RemoteEndpointRow]: ...

    @property
    def reported_endpoints(self) -> Table[ReportedEndpointRow]: ...


@dataclass
class Family(Generic[Row]):
    """One resource, the table its rows go to and how they are made: of what is decoded of its objects.

    `malformed` holds what is wrong with objects that have no row, by (namespace, name); `synced`
    says whether all objects of the start are in.
    """

    resource: Resource
    table: Table[Row]
    kind: Any  # the struct of the fields that are read, or dict
    row_of: Callable[[Any], Row]
    key_of: Callable[[str, str], Hashable]  # from namespace and name
    field_selector: str = ""
    malformed: dict[tuple[str, str], str] = field(default_factory=dict)
    synced: bool = False
    error: str = ""  # why it cannot be watched now
    attempts: Attempts = field(default_factory=Attempts)
    _known: dict[tuple[str, str], None] = field(default_factory=dict)

    def apply(self, event: Event) -> None:
        """An object that is new or has changed. Whatever is wrong with it, the others go on."""
        name = event.namespace, event.name
        if not event.name:
            log.warning("a %s without a name is ignored", self.resource.kind)
            return
        self._known[name] = None
        try:
            row = self.row_of(read(self.kind, event.raw))
        except InvalidObject as error:
            if self.malformed.get(name) != str(error):
                log.warning("%s %s is ignored: %s", self.resource.kind, "/".join(filter(None, name)), error)
            self.malformed[name] = str(error)
            return
        except Exception as error:  # a fault of ours over one object must not end the watch
            log.exception("%s %s is ignored", self.resource.kind, "/".join(filter(None, name)))
            self.malformed[name] = f"it cannot be read: {error!r}"
            return
        self.malformed.pop(name, None)
        self.put(name, row)

    def put(self, name: tuple[str, str], row: Row) -> None:
        self.table.put(row)

    def remove(self, name: tuple[str, str]) -> None:
        """An object that is gone."""
        self._known.pop(name, None)
        self.malformed.pop(name, None)
        self.table.delete(self.key_of(*name))

    def mark_ready(self) -> None:
        """All there is of this resource is in."""
        self.table.mark_ready(watched(self.resource.plural))

    async def follow(self, client: Watches) -> AsyncIterator[None]:
        """One stream; yields when all objects there are have been told."""
        before, self._known = self._known, {}
        try:
            async for event in client.watch(self.resource, field_selector=self.field_selector):
                match event.kind:
                    case "ADDED" | "MODIFIED":
                        self.apply(event)
                    case "DELETED":
                        self.remove((event.namespace, event.name))
                    case "SYNCED":
                        for name in before.keys() - self._known.keys():  # vanished between two streams
                            self.remove(name)
                        before = {}
                        self.synced, self.error = True, ""
                        self.attempts.succeeded()
                        yield
        finally:
            self._known |= before


@dataclass
class Nodes(Family[NodeRow]):
    """`moved` is called when this node has other addresses than before."""

    moved: Callable[[], None] = field(kw_only=True)

    def put(self, name: tuple[str, str], row: NodeRow) -> None:
        before = self.table.get((OWN, row.name))
        super().put(name, row)
        if row.local and (before is None or before.addresses != row.addresses):
            self.moved()


@dataclass
class Endpoints(Family[RemoteEndpointRow]):
    """CiliumEndpoints: of other nodes' pods what is known of them; of this node's that they are there."""

    own: Table[ReportedEndpointRow] = field(kw_only=True)
    local: Callable[[str], bool] = field(kw_only=True)  # whether an address is this node's
    _taken: dict[tuple[str, str], RemoteEndpointRow] = field(default_factory=dict)  # for this node's

    def put(self, name: tuple[str, str], row: RemoteEndpointRow) -> None:
        if self.local(row.node_address):
            self._taken[name] = row
            self.own.put(ReportedEndpointRow(*name))
            self.table.delete((OWN, *name))
        else:
            self._taken.pop(name, None)
            self.own.delete(name)
            self.table.put(row)

    def remove(self, name: tuple[str, str]) -> None:
        super().remove(name)
        self._taken.pop(name, None)
        self.own.delete(name)

    def mark_ready(self) -> None:
        super().mark_ready()
        self.own.mark_ready(watched(self.resource.plural))

    def place(self) -> None:
        """Take for this node's what names an address that it has now, and no more what names one that it had:
        another node may have that, and have told of its pods before this was heard. Of what is this node's
        all the same the object is written anew, by whoever tells the API of it, and comes back."""
        here = [row for row in self.table if row.cluster == OWN]
        for row in [*self._taken.values(), *here]:
            name = row.namespace, row.name
            if self.local(row.node_address) is not (name in self._taken):
                self.put(name, row)


class Sources:
    """All families of an agent, in walk order. `run` one task per family, or `follow` them."""

    def __init__(
        self,
        tables: Written,
        *,
        node_name: str,
        parse: policies.Parser,
        cluster: Cluster = DEFAULT,
        kept: Mapping[Hashable, PolicyRow] = {},
        backoff: Backoff = Backoff(0.5, 10.0),
    ) -> None:
        self.tables = tables
        self._node_name = node_name
        self._kept = kept  # what policies said before an earlier agent saw them refused
        self._backoff = backoff
        theirs = Endpoints(
            *(resources.CILIUM_ENDPOINTS, tables.remote_endpoints, endpoints.CiliumEndpoint),
            *(partial(endpoints.row_of, numbers=cluster.numbers), _by_both_here),
            own=tables.reported_endpoints,
            local=self._local,
        )
        self.families: list[Family[Any]] = [
            Family(resources.NAMESPACES, tables.namespaces, Named, namespaces.row_of, _by_name),
            Nodes(
                *(resources.NODES, tables.nodes, nodes.Node, self._node, _node_here),
                moved=theirs.place,
            ),
            Family(
                *(resources.PODS, tables.pods, pods.Pod, pods.row_of, _by_both, f"spec.nodeName={node_name}")
            ),
            Family(resources.SERVICES, tables.services, services.Service, services.row_of, _by_both_here),
            Family(
                *(
                    resources.ENDPOINT_SLICES,
                    tables.slices,
                    slices.EndpointSlice,
                    slices.row_of,
                    _by_both_here,
                )
            ),
            *(
                Family(
                    *(one, tables.policies, dict[str, Any]),
                    *(self._policy_row(one.kind, parse), _policy_key(one.kind)),
                )
                for one in POLICIES
            ),
            theirs,
        ]

    async def follow(self, client: Watches, family: Family[Any]) -> None:
        """Until cancelled. A resource the API does not serve (yet) is asked for again."""
        if family.table is self.tables.remote_endpoints:
            # What this node's pods need comes first: the pods of others are a hundred thousand.
            tables = self.tables
            await until_ready(
                tables.nodes, tables.namespaces, tables.pods, tables.policies, tables.identities
            )
        failures = 0
        while True:
            try:
                async for _ in family.follow(client):
                    failures = 0
                    family.mark_ready()
            except (ApiError, Unreachable, InvalidObject) as error:
                failures += 1
                if family.error != str(error):
                    log.warning("watching %s: %s; trying on", family.resource.plural, error)
                family.error = str(error)
                family.attempts.failed(error)
            await asyncio.sleep(self._backoff.after(failures))

    def malformed(self) -> dict[str, str]:
        """``Pod prod/web`` → what is wrong with it."""
        return {
            f"{family.resource.kind} {'/'.join(filter(None, name))}": error
            for family in self.families
            for name, error in family.malformed.items()
        }

    def waiting(self) -> list[str]:
        """Resources whose objects are not all known yet."""
        return [family.resource.plural for family in self.families if not family.synced]

    def errors(self) -> dict[str, str]:
        """Resource → why it cannot be watched."""
        return {family.resource.plural: family.error for family in self.families if family.error}

    def _policy_row(self, kind: str, parse: policies.Parser) -> Callable[[dict[str, Any]], PolicyRow]:
        def row_of(item: dict[str, Any]) -> PolicyRow:
            metadata = item["metadata"]
            key = (kind, metadata.get("namespace") or "", metadata["name"])
            before = self.tables.policies.get(key) or self._kept.get(key)
            return policies.row_of(item, kind, parse, before)

        return row_of

    def _node(self, item: nodes.Node) -> NodeRow:
        return nodes.row_of(item, self._node_name)

    def _local(self, address: str) -> bool:
        node = self.tables.nodes.get((OWN, self._node_name))
        return node is not None and address in node.addresses


POLICIES = (
    resources.CILIUM_NETWORK_POLICIES,
    resources.CILIUM_CLUSTERWIDE_NETWORK_POLICIES,
    resources.NETWORK_POLICIES,
)


def _by_name(_namespace: str, name: str) -> Hashable:
    return name


def _by_both(namespace: str, name: str) -> Hashable:
    return namespace, name


def _node_here(_namespace: str, name: str) -> Hashable:
    """All that the API has is of this cluster."""
    return OWN, name


def _by_both_here(namespace: str, name: str) -> Hashable:
    return OWN, namespace, name


def _policy_key(kind: str) -> Callable[[str, str], Hashable]:
    return lambda namespace, name: (kind, namespace, name)
