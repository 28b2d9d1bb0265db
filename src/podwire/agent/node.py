"""One node's agent as its local socket shows it (`interface.Node`), put together by `wiring`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from podwire.agent import dumps
from podwire.agent.attachments import Attachments
from podwire.agent.interface import DISABLED, FAILURE, OK, WARNING, Addresses, EndpointRequest
from podwire.base.config import AgentConfig
from podwire.base.errors import NotFound
from podwire.base.telemetry import Metrics
from podwire.datapath.endpoints import Plumbing
from podwire.datapath.programs import Programs
from podwire.datapath.write import Writer
from podwire.hubble.message import Messages
from podwire.hubble.pipeline import Pipeline
from podwire.ipam.pools import Pools
from podwire.loadbalancer.frontends import Frontends
from podwire.sources import nodes
from podwire.sources.report import Reporter
from podwire.sources.watch import Sources
from podwire.state.tables import EndpointRow, Tables

Component = tuple[str, str]


class Node:
    """Everything that is asked of a node; nothing here decides."""

    def __init__(
        self,
        config: AgentConfig,
        tables: Tables,
        *,
        pools: Pools,
        attachments: Attachments,
        plumbing: Plumbing,
        programs: Programs,
        writer: Writer,
        sources: Sources,
        reporter: Reporter,
        frontends: Frontends,
        pipeline: Pipeline,
        metrics: Metrics,
        problems: Callable[[], Mapping[str, str]],
    ) -> None:
        self.config = config
        self.tables = tables
        self._pools = pools
        self._attachments = attachments
        self._plumbing = plumbing
        self._programs = programs
        self._writer = writer
        self._sources = sources
        self._reporter = reporter
        self._frontends = frontends
        self._pipeline = pipeline
        self._metrics = metrics
        self._problems = problems

    async def allocate(self, owner: str, family: str, expiration: bool) -> Addresses:
        given = self._pools.allocate(owner, family, expiration=expiration)
        return Addresses(given.ipv4, given.ipv6, given.expires)

    async def release(self, address: str) -> None:
        self._pools.release(address)

    def allocations(self) -> Mapping[str, str]:
        return self._pools.allocations()

    async def attach(self, request: EndpointRequest) -> EndpointRow:
        return await self._attachments.attach(request)

    async def detach(self, container_id: str) -> None:
        await self._attachments.detach(container_id)

    def mtu(self) -> int:
        return self._plumbing.mtu

    def status(self) -> Mapping[str, Component]:
        return {
            "kubernetes": self._kubernetes(),
            "datapath": self._datapath(),
            "policy": self._policy(),
            "services": self._services(),
            "hubble": self._hubble(),
            **{name: (WARNING, problem) for name, problem in self._problems().items() if problem},
        }

    def bpf_dump(self, name: str) -> Sequence[Mapping[str, Any]]:
        return dumps.DUMPS[name](self._programs.maps, self.tables)

    def metrics(self) -> str:
        return self._metrics.text()

    async def explain(self, uuid: str) -> Mapping[str, Any]:
        found = self._pipeline.explain_json(uuid)
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

        messages, store = Messages(self._pipeline.flows), self._pipeline.store
        cursor = store.end
        while True:
            await store.wait(cursor)
            cursor = max(cursor, store.first)
            while cursor < store.end:
                yield MessageToDict(messages.flow(cursor), preserving_proto_field_name=True)
                cursor += 1

    # Components

    def _kubernetes(self) -> Component:
        if self._reporter.api.away:
            return WARNING, f"{self._reporter.api.away}; what was known is in force"
        errors = self._sources.errors()
        if errors:
            return FAILURE, "; ".join(f"{name}: {error}" for name, error in errors.items())
        waiting = self._sources.waiting()
        if waiting:
            return WARNING, f"waiting for {', '.join(waiting)}"
        malformed = self._sources.malformed()
        if malformed:
            return WARNING, "; ".join(f"{name}: {error}" for name, error in malformed.items())
        if clashes := nodes.clashes(self.tables.nodes):
            return WARNING, "; ".join(clashes)
        if self._reporter.error:
            return WARNING, self._reporter.error
        return OK, "all objects known"

    def _datapath(self) -> Component:
        errors = self._writer.errors()
        if errors:
            (name, row), error = next(iter(errors.items()))
            return FAILURE, f"{len(errors)} rows are not in the kernel, first {name} {row}: {error}"
        if not self._writer.synced:
            return WARNING, "not all tables are known yet; what an earlier agent wrote is in force"
        return OK, f"{len(self._programs.attached())} programs attached, maps equal to tables"

    def _policy(self) -> Component:
        refused = [row for row in self.tables.policies if row.error]
        if refused:
            named = "; ".join(f"{row.kind} {row.namespace}/{row.name}: {row.error}" for row in refused[:5])
            return WARNING, f"{len(refused)} not in force: {named}"
        if self.config.enable_policy == "never":
            return DISABLED, "enforcement is off by configuration"
        return OK, f"{len(self.tables.policies)} policies in force"

    def _services(self) -> Component:
        problems = self._frontends.problems
        if problems:
            (address, problem), *_ = problems.items()
            return (
                WARNING,
                f"{len(problems)} frontends not served, first {address[0]}:{address[1]}: {problem}",
            )
        return OK, f"{len(self.tables.frontends)} frontends, {len(self.tables.backends)} backends"

    def _hubble(self) -> Component:
        statistics = self._pipeline.statistics()
        accounts = statistics.accounts
        return OK, (
            f"{statistics.stored}/{statistics.capacity} flows, "
            f"{accounts.emitted} emitted, {accounts.received} received, {accounts.lost} lost"
        )
