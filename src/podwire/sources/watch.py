"""Follow one resource and keep its rows. One loop for all families.

The door (`podwire.kube`) gives a consistent stream: all objects there are, SYNCED, then changes;
after a break it gives the differences. So a table is right whenever the API can be reached, keeps
what it had while the API is away, and catches up after.

An object that cannot be understood never ends the loop: it is logged by name, counted, and an
earlier row of it stays.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from podwire.base.aio import Backoff
from podwire.base.attempts import Attempts
from podwire.base.errors import ApiError, InvalidObject, Unreachable
from podwire.kube import Event, resources
from podwire.kube.resources import Resource
from podwire.sources import endpoints, namespaces, nodes, pods, policies, services, slices
from podwire.sources.objects import Object, name_of
from podwire.state.table import Table
from podwire.state.tables import PolicyRow, Tables

Row = TypeVar("Row")
log = logging.getLogger(__name__)


class Watcher(Protocol):
    """What is needed of `podwire.kube.Client`."""

    def watch(self, resource: Resource) -> AsyncIterator[Event]: ...


@dataclass
class Family(Generic[Row]):
    """One resource, the table its rows go to and how they are made.

    `malformed` holds what is wrong with objects that have no row, by (namespace, name); `synced`
    says whether all objects of the start are in.
    """

    resource: Resource
    table: Table[Row]
    row_of: Callable[[Object], Row | None]  # None = this object has no row
    key_of: Callable[[str, str], Hashable]  # from namespace and name
    malformed: dict[tuple[str, str], str] = field(default_factory=dict)
    synced: bool = False
    error: str = ""  # why it cannot be watched now
    attempts: Attempts = field(default_factory=Attempts)
    _known: set[tuple[str, str]] = field(default_factory=set)

    def apply(self, item: Object) -> None:
        """An object that is new or has changed. Whatever is wrong with it, the others go on."""
        name = _name_or_none(item)
        if name is None:
            log.warning("a %s without a usable name is ignored", self.resource.kind)
            return
        self._known.add(name)
        try:
            if not name[1]:
                raise InvalidObject("metadata.name", "must be given")
            row = self.row_of(item)
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
        if row is None:
            self.table.delete(self.key_of(*name))
        else:
            self.table.put(row)

    def remove(self, name: tuple[str, str]) -> None:
        """An object that is gone."""
        self._known.discard(name)
        self.malformed.pop(name, None)
        self.table.delete(self.key_of(*name))

    async def follow(self, client: Watcher) -> AsyncIterator[None]:
        """One stream; yields when all objects there are have been told."""
        before, self._known = self._known, set()
        try:
            async for event in client.watch(self.resource):
                match event.kind:
                    case "ADDED" | "MODIFIED":
                        self.apply(event.object)
                    case "DELETED":
                        if (gone := _name_or_none(event.object)) is not None:
                            self.remove(gone)
                    case "SYNCED":
                        for name in before - self._known:  # vanished between two streams
                            self.remove(name)
                        before = set()
                        self.synced, self.error = True, ""
                        self.attempts.succeeded()
                        yield
        finally:
            self._known |= before


class Sources:
    """All families of an agent, in walk order. `run` one task per family, or `follow` them."""

    def __init__(
        self,
        tables: Tables,
        *,
        node_name: str,
        parse: policies.Parser,
        kept: Mapping[Hashable, PolicyRow] = {},
        backoff: Backoff = Backoff(0.5, 10.0),
    ) -> None:
        self.tables = tables
        self._kept = kept  # what policies said before an earlier agent saw them refused
        self._backoff = backoff
        self.families: list[Family[Any]] = [
            Family(resources.NAMESPACES, tables.namespaces, namespaces.row_of, _by_name),
            Family(resources.NODES, tables.nodes, lambda item: nodes.row_of(item, node_name), _by_name),
            Family(resources.PODS, tables.pods, pods.row_of, _by_both),
            Family(resources.SERVICES, tables.services, services.row_of, _by_both),
            Family(resources.ENDPOINT_SLICES, tables.slices, slices.row_of, _by_both),
            *(
                Family(one, tables.policies, self._policy_row(one.kind, parse), _policy_key(one.kind))
                for one in POLICIES
            ),
            Family(resources.CILIUM_ENDPOINTS, tables.remote_endpoints, self._remote, _by_both),
        ]

    async def follow(self, client: Watcher, family: Family[Any]) -> None:
        """Until cancelled. A resource the API does not serve (yet) is asked for again."""
        if family.table is self.tables.remote_endpoints:
            await _until_ready(self.tables.nodes)  # whose addresses tell which endpoints are remote
        failures = 0
        while True:
            try:
                async for _ in family.follow(client):
                    failures = 0
                    if all(one.synced for one in self.families if one.table is family.table):
                        family.table.mark_ready()
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

    def _policy_row(self, kind: str, parse: policies.Parser) -> Callable[[Object], Any]:
        def row_of(item: Object) -> Any:
            key = (kind, *name_of(item))
            before = self.tables.policies.get(key) or self._kept.get(key)
            return policies.row_of(item, kind, parse, before)

        return row_of

    def _remote(self, item: Object) -> Any:
        row = endpoints.row_of(item)
        local = {address for node in self.tables.nodes if node.local for address in node.addresses}
        return None if row.node_address in local else row


POLICIES = (
    resources.CILIUM_NETWORK_POLICIES,
    resources.CILIUM_CLUSTERWIDE_NETWORK_POLICIES,
    resources.NETWORK_POLICIES,
)


def _name_or_none(item: Object) -> tuple[str, str] | None:
    try:
        return name_of(item)
    except InvalidObject:
        return None


async def _until_ready(table: Table[Any]) -> None:
    reader = table.changes()
    try:
        while not table.ready:
            await reader.next()
    finally:
        reader.close()


def _by_name(_namespace: str, name: str) -> Hashable:
    return name


def _by_both(namespace: str, name: str) -> Hashable:
    return namespace, name


def _policy_key(kind: str) -> Callable[[str, str], Hashable]:
    return lambda namespace, name: (kind, namespace, name)
