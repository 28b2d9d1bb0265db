"""One node's agent as its local socket shows it (`interface.Node`), put together by `wiring`."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Hashable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from podwire.agent import dumps
from podwire.agent.interface import DISABLED, FAILURE, OK, WARNING, Addresses, EndpointRequest, Facts
from podwire.agent.stages import Stages
from podwire.base.aio import unbroken
from podwire.base.attempts import Attempts
from podwire.base.errors import MapFull, NotFound, PodwireError
from podwire.base.telemetry import Metrics
from podwire.datapath.catalogue import CATALOGUE
from podwire.datapath.endpoints import KIND
from podwire.datapath.hooks import Where
from podwire.hubble.message import Messages
from podwire.kube.resources import Resource
from podwire.sources import nodes
from podwire.state.tables import EndpointRow

Component = tuple[str, str]


class Node:
    """Everything that is asked of a node; nothing here decides."""

    def __init__(self, stages: Stages) -> None:
        self.config = stages.kernel.config  # without what the kernel does not have
        self.tables = stages.tables
        self._stages = stages
        self._started = time.monotonic()
        self._looked_at: tuple[int, list[str]] = (-1, [])  # revision of the nodes, their clashes

    async def allocate(self, owner: str, family: str, expiration: bool) -> Addresses:
        given = self._stages.pools.allocate(owner, family, expiration=expiration)
        return Addresses(given.ipv4, given.ipv6, given.expires)

    async def release(self, address: str) -> None:
        await self._stages.attachments.release(address)

    def allocations(self) -> Mapping[str, str]:
        return self._stages.pools.allocations()

    async def attach(self, request: EndpointRequest) -> EndpointRow:
        return await self._stages.attachments.attach(request)

    async def detach(self, container_id: str) -> None:
        await self._stages.attachments.detach(container_id)

    def mtu(self) -> int:
        return self._stages.kernel.plumbing.mtu

    def facts(self) -> Facts:
        stages, kernel = self._stages, self._stages.kernel
        found, ring = stages.pipeline.statistics(), stages.ring.statistics()
        devices = self.tables.devices
        capacity = {name: capacity for name, (_, capacity) in stages.writer.usage().items()}
        attached = kernel.programs.attached()
        return Facts(
            attach_mode=kernel.programs.attach_mode(attached),
            socket_services=kernel.programs.is_on(Where.CGROUP, attached),
            pod_device=self._pod_device(),
            segments=next((row.segments for row in devices if row.name == self.config.device), (0, 0, 0, 0)),
            maps=capacity | {"podwire_conntrack": stages.maps["podwire_conntrack"].capacity},
            route_mtu=kernel.plumbing.route_mtu,
            ring_bytes=ring.size,
            flows=found.stored,
            flows_at_most=found.capacity,
            flows_seen=stages.pipeline.store.end,
            uptime=time.monotonic() - self._started,
            lost=found.accounts.lost,
            unknown=ring.foreign,
            watched=tuple(_told(family.resource) for family in stages.sources.families),
        )

    def _pod_device(self) -> str:
        for row in self.tables.endpoints:
            device = self.tables.devices.get(row.ifindex)
            if device is not None and device.kind:
                return device.kind
        return KIND

    def status(self) -> Mapping[str, Component]:
        return {
            "kubernetes": self._kubernetes(),
            "kernel": self._kernel(),
            "datapath": self._datapath(),
            "policy": self._policy(),
            "services": self._services(),
            "hubble": self._hubble(),
            **{name: (WARNING, problem) for name, problem in self._stages.problems().items() if problem},
        }

    def controllers(self) -> Mapping[str, Attempts]:
        return self._stages.controllers()

    async def bpf_dump(
        self, name: str, query: Mapping[str, str]
    ) -> AsyncIterator[Sequence[Mapping[str, Any]]]:
        """In a thread: maps may be large, and who attaches a pod must not wait for who looks at one."""
        wanted = dumps.read(name, query).known(name, self.tables)
        steps = dumps.DUMPS[name](self._stages.kernel.programs.maps, self.tables, wanted)
        while (rows := await unbroken(partial(next, steps, None))) is not None:
            if rows:
                yield rows

    def metrics(self) -> Metrics:
        return self._stages.metrics

    async def explain(self, uuid: str) -> Mapping[str, Any]:
        found = self._stages.pipeline.explain_json(uuid)
        if found is None:
            raise NotFound(
                f"no flow {uuid} is stored on node {self.config.node_name}",
                hint="old flows are overwritten; another node may have it",
            )
        return found

    @asynccontextmanager
    async def subscribe_events(self) -> AsyncIterator[AsyncIterator[Mapping[str, Any]]]:
        yield self._events()

    async def _events(self) -> AsyncIterator[Mapping[str, Any]]:
        from google.protobuf.json_format import MessageToDict

        messages, store = Messages(self._stages.pipeline.flows), self._stages.pipeline.store
        cursor = store.end
        while True:
            await store.wait(cursor)
            while cursor < store.end:
                cursor = max(cursor, store.first)  # a client that is slow misses what was overwritten
                yield MessageToDict(messages.flow(cursor), preserving_proto_field_name=True)
                cursor += 1

    # Components

    def _kubernetes(self) -> Component:
        if self._stages.reporter.api.away:
            return WARNING, f"{self._stages.reporter.api.away}; what was known is in force"
        errors = self._stages.sources.errors()
        if errors:
            return FAILURE, "; ".join(f"{name}: {error}" for name, error in errors.items())
        waiting = self._stages.sources.waiting()
        if waiting:
            return WARNING, f"waiting for {', '.join(waiting)}"
        malformed = self._stages.sources.malformed()
        if malformed:
            return WARNING, "; ".join(f"{name}: {error}" for name, error in malformed.items())
        if clashes := self._clashes():
            return WARNING, "; ".join(clashes)
        if self._stages.reporter.error:
            return WARNING, self._stages.reporter.error
        return OK, "all objects known"

    def _clashes(self) -> list[str]:
        """Looked for once each time the nodes change: there may be thousands, and status is asked often."""
        revision = self.tables.nodes.revision
        if self._looked_at[0] != revision:
            self._looked_at = revision, nodes.clashes(self.tables.nodes)
        return self._looked_at[1]

    def _kernel(self) -> Component:
        here = f"Linux {os.uname().release}"
        if degraded := self._stages.kernel.degraded:
            state = WARNING if any(part.less for part in degraded) else OK
            return state, f"{here}: {'; '.join(degraded.values())}"
        return OK, f"{here} has all that is used"

    def _datapath(self) -> Component:
        errors = self._stages.writer.errors()
        if errors:
            named = f"{len(errors)} rows are not in the kernel: {unwritten(errors)}"
            # Once the tables were known, what was written stays: pods go on, only what is new waits.
            synced = self._stages.writer.synced
            return (WARNING, f"{named}; what was in force stays") if synced else (FAILURE, named)
        if not self._stages.writer.synced:
            return WARNING, "not all tables are known yet; what an earlier agent wrote is in force"
        programs = self._stages.kernel.programs
        attached = programs.attached()  # asks the kernel for each
        return OK, (
            f"{len(attached)} programs attached ({programs.attach_mode(attached)}, "
            f"{self._stages.kernel.variant} objects), maps equal to tables"
        )

    def _policy(self) -> Component:
        problems = []
        if failed := list(self.tables.policy_failures):
            named = "; ".join(
                f"{', '.join(map(str, row.origins)) or row.policy}: {row.error}" for row in failed[:5]
            )
            problems.append(f"{len(failed)} not whole in the kernel: {named}")
        if restricted := list(self.tables.endpoint_failures):
            problems.append(
                f"{len(restricted)} endpoints are denied peers that the kernel may not know: "
                f"{restricted[0].error}"
            )
        if problems:
            return WARNING, "; ".join(problems)
        refused = [row for row in self.tables.policies if row.error]
        if refused:
            named = ", ".join(f"{row.kind} {row.namespace}/{row.name}" for row in refused[:5])
            return WARNING, f"{len(refused)} not in force: {named}{' …' * (len(refused) > 5)}"
        if self.config.enable_policy == "never":
            return DISABLED, "enforcement is off by configuration"
        return OK, f"{len(self.tables.policies)} policies in force"

    def _services(self) -> Component:
        problems = self._stages.frontends.problems
        if problems:
            (address, problem), *_ = problems.items()
            return (
                WARNING,
                f"{len(problems)} frontends not served, first {address[0]}:{address[1]}: {problem}",
            )
        return OK, f"{len(self.tables.frontends)} frontends, {len(self.tables.backends)} backends"

    def _hubble(self) -> Component:
        statistics = self._stages.pipeline.statistics()
        accounts = statistics.accounts
        return OK, (
            f"{statistics.stored}/{statistics.capacity} flows, "
            f"{accounts.emitted} emitted, {accounts.received} received, {statistics.lost_text}"
        )


def _told(resource: Resource) -> str:
    """``core/v1::Pod``, as Cilium's clients know it."""
    return f"{resource.group or 'core'}/{resource.version}::{resource.kind}"


def unwritten(errors: Mapping[tuple[str, Hashable], PodwireError]) -> str:
    """By map: why its first row could not be written, what it holds, and which option gives it room.

    A row may be held back for another map's sake: room is wanted where that one is full.
    """
    first: dict[str, PodwireError] = {}
    for (name, _), error in errors.items():
        first.setdefault(error.name if isinstance(error, MapFull) else name, error)
    return "; ".join(
        f"{error}{_room(error) if isinstance(error, MapFull) else ''}" for error in first.values()
    )


def _room(full: MapFull) -> str:
    spec = CATALOGUE.get(full.name)
    if spec is None:
        return ""
    options = f"{spec.size.replace('_', '-')} or map-growth-max" if spec.size else ""
    room = f" (raise {options} and restart the agent)" if options else " (its size is fixed)"
    return f"{room}; it holds {spec.help}"
