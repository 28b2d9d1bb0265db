"""The agent, put together: the walk from top to bottom, one task each.

Start: who am I (the Node object) → the node's own devices and routes → programs on the maps that are
there → endpoints of an earlier life → everything below. The maps stay as they were until the tables
are ready, so a start, also after a crash, changes nothing that is right already.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import closing
from functools import partial
from pathlib import Path

from podwire.abi import dtypes
from podwire.agent import meters
from podwire.agent.attachments import Attachments
from podwire.agent.labeling import Labeling
from podwire.agent.node import Node
from podwire.agent.registry import Registry
from podwire.agent.server import listening
from podwire.agent.whoami import Whoami
from podwire.base.aio import Supervised
from podwire.base.config import AgentConfig
from podwire.base.telemetry import Metrics
from podwire.bpf.events import Ring
from podwire.datapath import conntrack, routes
from podwire.datapath.endpoints import Plumbing
from podwire.datapath.maps import Maps, restore_numbers, restore_prefixes
from podwire.datapath.programs import Programs, plan
from podwire.datapath.write import Writer
from podwire.hubble.pipeline import Pipeline
from podwire.identity.allocate import Allocator
from podwire.identity.ipcache import Ipcache
from podwire.identity.prefixes import Prefixes
from podwire.identity.select import Select
from podwire.ipam.pools import Pools
from podwire.kube import Client
from podwire.loadbalancer.frontends import Frontends
from podwire.policy.compute import Compute
from podwire.policy.parse import parse
from podwire.sources.report import Reporter
from podwire.sources.watch import Sources
from podwire.state.reconcile import Reconciler
from podwire.state.table import Watch
from podwire.state.tables import NodeRow, Tables
from podwire.stores.identities import KubeIdentities

log = logging.getLogger(__name__)


async def run(config: AgentConfig, told: asyncio.Event) -> None:
    """Until `told` to stop."""
    started = time.monotonic()
    async with _client(config) as client:
        whoami = Whoami(config.node_name, Path(config.run_dir))
        me = await whoami.find(client)
        with closing(Kernel(config, me)) as kernel:
            await _walk(config, client, whoami, me, kernel, told, started)


def _client(config: AgentConfig) -> Client:
    agent = f"podwire-agent/{config.node_name}"
    if config.kubeconfig:
        return Client.from_kubeconfig(config.kubeconfig, agent=agent)
    return Client.in_cluster(agent=agent)


class Kernel:
    """The node's devices, programs on their hooks, and what pods are plumbed with."""

    def __init__(self, config: AgentConfig, me: NodeRow) -> None:
        self.prepared = prepared = routes.prepare(config, me)
        self.programs = programs = Programs.load(
            plan(
                config,
                me.addresses,
                tunnel_device=prepared.tunnel_device,
                tunnel_mtu=prepared.route_mtu,
            )
        )
        self.config = config
        if not programs.made_new:
            self.take_over()
        self.plumbing = Plumbing(
            programs, gateways=me.router_addresses, mtu=prepared.mtu, route_mtu=prepared.route_mtu
        )
        self.routes = routes.RouteTarget(prepared)

    def take_over(self) -> None:
        """Our programs on every hook, in the place of an earlier agent's where there are any."""
        prepared, programs = self.prepared, self.programs
        programs.replace_all()
        programs.attach_network(prepared.device, prepared.ifindex)
        if prepared.tunnel_device:
            programs.attach_overlay(routes.TUNNEL, prepared.tunnel_device)
        if self.config.socket_lb and self.config.cgroup:
            programs.attach_cgroup(self.config.cgroup)
        programs.drop_old()

    async def take_over_when_filled(self, writer: Writer) -> None:
        """Maps of another layout than an earlier agent had begin empty: its programs run until then."""
        while self.programs.made_new and not writer.synced:
            await asyncio.sleep(0.05)
        if self.programs.made_new:
            self.take_over()
            log.info("took over with new maps: %s", ", ".join(self.programs.made_new))

    def close(self) -> None:
        """Close descriptors; what is in the kernel goes on."""
        self.routes.close()
        self.plumbing.close()
        self.programs.close()


async def _walk(
    config: AgentConfig,
    client: Client,
    whoami: Whoami,
    me: NodeRow,
    kernel: Kernel,
    told: asyncio.Event,
    started: float,
) -> None:
    tables, maps = Tables(), kernel.programs.maps
    tables.nodes.put(me)
    families = {"ipv4": config.enable_ipv4, "ipv6": config.enable_ipv6}

    sources = Sources(tables, node_name=config.node_name, parse=partial(parse, cluster=config.cluster_name))
    reporter = Reporter(client, tables, node_name=config.node_name)
    labeling = Labeling(tables, config.cluster_name)
    prefixes = Prefixes(tables, **families, restored=restore_prefixes(maps))
    allocator = Allocator(tables, prefixes)
    backends, services = restore_numbers(maps)
    frontends = Frontends(tables, restored_backends=backends, restored_services=services)
    writer = Writer(tables, maps, config.node_name, grow=kernel.programs.bigger)
    ipcache = Ipcache(tables, tunnel=bool(kernel.prepared.tunnel_device), **families)
    pools = Pools(me.pod_cidrs, me.router_addresses)
    attachments = Attachments(
        tables, kernel.plumbing, maps, writer, pools, Registry(Path(config.run_dir) / "endpoints"), labeling
    )
    ways = Reconciler(tables.nodes, kernel.routes)
    ring = Ring.open(maps.path("podwire_events"), dtypes.EVENT)
    pipeline = Pipeline(ring, partial(event_stats, maps), tables, config, config.node_name)
    metrics = Metrics()
    meters.declare(metrics, tables, maps, partial(flow_counts, pipeline))
    node = Node(
        config,
        tables,
        pools=pools,
        attachments=attachments,
        plumbing=kernel.plumbing,
        programs=kernel.programs,
        writer=writer,
        sources=sources,
        reporter=reporter,
        frontends=frontends,
        pipeline=pipeline,
        metrics=metrics,
        problems=lambda: {
            "identity": "; ".join(allocator.errors.values()),
            "routes": "; ".join(ways.errors().values()),
        },
    )
    restored = attachments.restore()

    async with Supervised("agent") as group, listening(node, config.socket):
        for family in sources.families:
            group.start(f"watch {family.resource.plural}", sources.follow(client, family))
        group.start("remember this node", _remember(whoami, tables))
        group.start("label endpoints", labeling.run())
        group.start("allocate identities", allocator.run(KubeIdentities(client)))
        group.start("select identities", Select(tables).run())
        group.start("merge the ipcache", ipcache.run())
        group.start("resolve policies", Compute(tables, enable=config.enable_policy).run())
        group.start("choose backends", frontends.run())
        group.start("keep routes", ways.run())
        group.start("write maps", writer.run())
        group.once("take over from programs with other maps", kernel.take_over_when_filled(writer))
        group.start("settle endpoints", attachments.settle())
        group.start("remember endpoints", attachments.remember())
        group.start("give back unused addresses", pools.run())
        group.start("sweep connections", conntrack.run(maps["podwire_conntrack"]))
        group.start("read flows", pipeline.run())
        group.start("tell the API", reporter.run())
        log.info("started in %.2f s, %d endpoints restored", time.monotonic() - started, restored)
        await told.wait()


async def _remember(whoami: Whoami, tables: Tables) -> None:
    """Keep the copy of this node's object that a start without the API needs."""
    with Watch(tables.nodes) as watch:
        while True:
            (nodes,) = await watch.next()
            for change in nodes:
                if change.new is not None and change.new.local and change.new.pod_cidrs:
                    whoami.remember(change.new)


def event_stats(maps: Maps) -> list[tuple[int, int]]:
    """(emitted, lost) of each CPU."""
    return [(each.emitted, each.lost) for each in maps["podwire_event_stats"].per_cpu(0) or ()]


def flow_counts(pipeline: Pipeline) -> dict[str, float]:
    """What became of the datapath's events."""
    statistics = pipeline.statistics()
    accounts = statistics.accounts
    return {
        "emitted": accounts.emitted,
        "received": accounts.received,
        "lost": accounts.lost,
        "waiting": accounts.waiting,
        "stored": statistics.stored,
        "overwritten": statistics.overwritten,
    }
