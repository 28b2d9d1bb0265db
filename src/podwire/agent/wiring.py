"""The agent: the walk from top to bottom, one task each.

Start: who am I (the Node object) → the node's own devices and routes → programs on the maps that are
there → endpoints of an earlier life → everything below. The maps stay as they were until the tables
are ready, so a start, also after a crash, changes nothing that is right already.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from contextlib import closing
from pathlib import Path

from podwire.agent.alone import alone
from podwire.agent.kernel import Kernel
from podwire.agent.node import Node
from podwire.agent.server import listening
from podwire.agent.stages import Stages
from podwire.agent.whoami import Whoami
from podwire.base.aio import Supervised
from podwire.base.config import AgentConfig
from podwire.datapath import conntrack
from podwire.kube import Client
from podwire.state.table import Watch
from podwire.state.views import ReadTables
from podwire.stores.identities import KubeIdentities

log = logging.getLogger(__name__)


async def run(config: AgentConfig, told: asyncio.Event) -> None:
    """Until `told` to stop."""
    started = time.monotonic()
    async with alone(Path(config.run_dir)), _client(config) as client:
        whoami = Whoami(config.node_name, Path(config.run_dir))
        me = await whoami.find(client)
        with closing(Kernel(config, me)) as kernel:
            stages = Stages(config, client, me, kernel)
            restored = stages.attachments.restore()
            # The collector looks for circles in all dicts there are, at 100,000 pods for 100 ms each time.
            # The tables' are here by now, empty: they stay for ever, and what is in them has no circles.
            gc.freeze()
            async with Supervised("agent") as group, listening(Node(stages), config.socket):
                _start(group, stages, client)
                group.start("remember this node", _remember(whoami, stages.tables))
                log.info("started in %.2f s, %d endpoints restored", time.monotonic() - started, restored)
                await told.wait()


def _start(group: Supervised, stages: Stages, client: Client) -> None:
    """All tasks, in walk order."""
    for family in stages.sources.families:
        group.start(f"watch {family.resource.plural}", stages.sources.follow(client, family))
    group.start("follow the node's network", stages.network.run())
    group.start("keep refused policies", stages.kept.run(stages.tables))
    group.start("label endpoints", stages.labeling.run())
    group.start("allocate identities", stages.allocator.run(KubeIdentities(client, stages.cluster.numbers)))
    group.start("select identities", stages.select.run())
    group.start("merge the ipcache", stages.ipcache.run())
    group.start("resolve policies", stages.compute.run())
    group.start("choose backends", stages.frontends.run())
    group.start("keep routes", stages.routes.run())
    group.start("follow this node's object", stages.itself.run())
    group.start("write maps", stages.writer.run())
    group.once("take over from other maps", stages.kernel.take_over_when_filled(stages.writer))
    group.start("settle endpoints", stages.attachments.settle())
    group.start("remove what is left of endpoints", stages.attachments.finish())
    group.start("make links of filters", stages.links.run())
    group.start("remember endpoints", stages.attachments.remember())
    group.start("give back unused addresses", stages.pools.run())
    group.start("sweep connections", conntrack.run(conntrack.Conntrack.of(stages.maps)))
    group.start("measure how late the loop is", stages.lag.run())
    group.start("read flows", stages.pipeline.run())
    group.start("tell the API", stages.reporter.run())


def _client(config: AgentConfig) -> Client:
    agent = f"podwire-agent/{config.node_name}"
    if config.kubeconfig:
        return Client.from_kubeconfig(config.kubeconfig, agent=agent)
    return Client.in_cluster(agent=agent)


async def _remember(whoami: Whoami, tables: ReadTables) -> None:
    """Keep the copy of this node's object that a start without the API needs."""
    with Watch(tables.nodes) as watch:
        while True:
            (nodes,) = await watch.next()
            for change in nodes:
                if change.new is not None and change.new.local and change.new.pod_cidrs:
                    whoami.remember(change.new)
