"""All stages of an agent, made in walk order and connected by tables; `wiring` starts them."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from podwire.abi import dtypes
from podwire.agent import meters
from podwire.agent.attachments import Attachments
from podwire.agent.itself import Itself, own_cidrs
from podwire.agent.kept import KeptPolicies
from podwire.agent.kernel import Kernel
from podwire.agent.labeling import Labeling
from podwire.agent.links import Links
from podwire.agent.registry import Registry
from podwire.base.attempts import Attempts
from podwire.base.config import AgentConfig
from podwire.base.lag import Lag
from podwire.base.telemetry import Metrics
from podwire.bpf.events import Ring
from podwire.datapath.catalogue import declared_by
from podwire.datapath.maps import Maps, restore_numbers, restore_prefixes
from podwire.datapath.write import Writer
from podwire.hubble.pipeline import Pipeline
from podwire.identity.allocate import Allocator
from podwire.identity.ipcache import Ipcache
from podwire.identity.prefixes import Prefixes
from podwire.identity.select import Select
from podwire.ipam.pools import Pools
from podwire.kube import Client
from podwire.loadbalancer.frontends import Frontends
from podwire.model.cluster import Cluster
from podwire.policy.compute import Compute
from podwire.policy.parse import parse
from podwire.sources.network import Network
from podwire.sources.report import Reporter
from podwire.sources.watch import Sources
from podwire.state.reconcile import Reconciler
from podwire.state.tables import NodeRow, Tables


class Stages:
    """One agent's stages, not running yet. What an earlier life left in the kernel is read here."""

    def __init__(self, config: AgentConfig, client: Client, me: NodeRow, kernel: Kernel) -> None:
        self.kernel = kernel
        self.tables = tables = Tables()
        self.maps = maps = kernel.programs.maps
        self.cluster = cluster = Cluster.of(config)
        tables.nodes.put(me)
        families = {"ipv4": config.enable_ipv4, "ipv6": config.enable_ipv6}
        tunnel = bool(kernel.prepared.tunnel_device)
        numbers = restore_numbers(maps)

        self.kept = KeptPolicies(Path(config.run_dir) / "policies")
        self.sources = Sources(
            tables,
            node_name=config.node_name,
            parse=partial(
                parse,
                cluster=cluster.name,
                own=bool(cluster.id) and config.policy_default_local_cluster,
            ),
            cluster=cluster,
            kept=self.kept.load(),
        )
        self.network = Network(tables)
        known = Prefixes(tables, **families, restored=restore_prefixes(maps))
        self.allocator = Allocator(tables, known, cluster=cluster)
        self.labeling = Labeling(tables, cluster.name, self.allocator.expect)
        self.select = Select(tables)
        self.ipcache = Ipcache(tables, tunnel=tunnel, service_cidrs=config.service_cidrs, **families)
        self.compute = Compute(tables, enable=config.enable_policy)
        self.frontends = Frontends(
            tables,
            restored_backends=numbers.backends,
            restored_services=numbers.services,
            restored_sets=numbers.sets,
        )
        self.routes = Reconciler(tables.nodes, kernel.routes)
        specs = declared_by(kernel.programs.loading.objects).values()
        self.writer = Writer(tables, maps, config.node_name, grow=kernel.programs.bigger, specs=specs)
        self.pools = Pools(own_cidrs(me, config), me.router_addresses)
        self.itself = Itself(tables, kernel, self.pools, self.routes, me)
        self.attachments = Attachments(
            tables,
            kernel.plumbing,
            maps,
            self.writer,
            self.pools,
            Registry(Path(config.run_dir) / "endpoints"),
            self.labeling,
        )
        self.links = Links(kernel.plumbing, tables.endpoints)
        self.ring = Ring.open(maps.path("podwire_events"), dtypes.EVENT)
        self.pipeline = Pipeline(self.ring, partial(event_stats, maps), tables, config, config.node_name)
        self.reporter = Reporter(client, tables, node_name=config.node_name)
        self.metrics = Metrics()
        meters.declare(
            self.metrics,
            tables,
            maps,
            self.writer.usage,
            partial(flow_counts, self.pipeline),
            lambda: (name for name, _ in self.writer.errors()),
            partial(losses, self.pipeline),
            lambda: self.pipeline.server.places.refused,
        )

        self.lag = Lag()
        meters.declare_lag(self.metrics, self.lag)

    def controllers(self) -> dict[str, Attempts]:
        """Task → how what it does has come out so far, in walk order."""
        return {
            **{f"watch {family.resource.plural}": family.attempts for family in self.sources.families},
            "follow the node's network": self.network.attempts,
            "allocate identities": self.allocator.attempts,
            "keep routes": self.routes.attempts,
            "follow this node's object": self.itself.attempts,
            "write maps": self.writer.attempts,
            "tell the API": self.reporter.attempts,
        }

    def problems(self) -> dict[str, str]:
        """Component → what it cannot do now; empty = nothing."""
        return {
            "identity": "; ".join(self.allocator.errors.values()),
            "prefixes": self.allocator.prefixes.error,
            "addresses": self.ipcache.overlaps.problem,
            "routes": "; ".join(self.routes.errors().values()),
            "network": self.network.problem,
            "node": self.itself.problem(),
        }


def event_stats(maps: Maps) -> list[tuple[int, int, int]]:
    """(emitted, lost, of those withheld) of each CPU."""
    return [(each.emitted, each.lost, each.withheld) for each in maps["podwire_event_stats"].per_cpu(0) or ()]


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


def losses(pipeline: Pipeline) -> dict[str, float]:
    """Events that were emitted and never stored, by reason."""
    return {reason.value: count for reason, count in pipeline.statistics().lost_by.items()}
