"""The control process: the embedded API, its controllers, the nodes' pod runners, cluster DNS.

Everything it knows is in the API's database and in the pods' directories, so one that is started
anew goes on where the last one ended; pods and agents do not notice.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
from functools import partial
from pathlib import Path
from typing import Any

from podwire import controllermanager
from podwire.apiserver import ApiServer, ServerConfig
from podwire.apiserver.config import ClusterSettings
from podwire.apiserver.local import Local
from podwire.base.aio import Supervised, boundary
from podwire.base.errors import PodwireError
from podwire.base.files import replace_whole
from podwire.operator.controllers import Controllers
from podwire.operator.wiring import Settings, made
from podwire.policy.parse import parse
from podwire.sandbox import manifests, nodes, succession
from podwire.sandbox.cluster import Cluster
from podwire.sandbox.dns import pod as dns
from podwire.sandbox.places import Places
from podwire.sandbox.plan import API_PORT, Plan
from podwire.sandbox.record import Record
from podwire.sandbox.runner.node import NodeRunner
from podwire.sandbox.runner.runtime import Runtime

log = logging.getLogger(__name__)
NAMED = 10  # pods named while they are waited for
ADMIN = ("kubernetes-admin", ("system:masters",))


def main(plan: Plan, places: Places, sockets: list[socket.socket], progress: int | None) -> None:
    """Run until SIGTERM."""
    Control(plan, places, sockets, Progress(progress)).run()


class Progress:
    """JSON lines for who waits for `up`; silent once nobody does."""

    def __init__(self, fd: int | None) -> None:
        self._fd = fd

    def tell(self, **message: Any) -> None:
        if self._fd is None:
            return
        try:
            os.write(self._fd, json.dumps(message).encode() + b"\n")
        except OSError:
            self.close()

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


class Control:
    """One sandbox's control process."""

    def __init__(self, plan: Plan, places: Places, sockets: list[socket.socket], progress: Progress) -> None:
        self.plan, self.places, self.sockets, self.progress = plan, places, sockets, progress

    def run(self) -> None:
        try:
            asyncio.run(self._run())
        except PodwireError as error:
            self.progress.tell(error=str(error), hint=error.hint)
            raise

    async def _run(self) -> None:
        ended = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
        runtime = Runtime()
        server = ApiServer(self._config(), runtime)
        cluster = Cluster(server.objects)
        async with Supervised("control") as group:
            try:
                await server.start()
                self._write_kubeconfigs(server)
                self.progress.tell(say=f"the API server listens at {server.url}")
                for node in self.plan.nodes:
                    nodes.register(cluster, self.plan, node)
                group.start("serve the API", server.run())
                group.start("emulate the controller manager", controllermanager.run(server))
                group.start("operate", self._operate(server))
                record = Record(self.places.record)
                for node in self.plan.nodes:
                    runtime.runners.append(NodeRunner(self.plan, self.places, record, cluster, node))
                for runner in runtime.runners:
                    group.start(f"run pods of {runner.node.name}", runner.run())
                ready = {node.name: asyncio.Event() for node in self.plan.nodes}
                for node in self.plan.nodes:
                    group.start(
                        f"keep node {node.name}", nodes.keep(cluster, self.places, node, ready[node.name])
                    )
                group.start("watch the keeper", succession.watch(self.places, self.sockets))
                group.start("cluster DNS", dns.run(cluster, self.plan, runtime))
                group.once("bring up the lab", self._bring_up(cluster, ready))
                await ended.wait()
            finally:
                await server.stop()

    async def _operate(self, server: ApiServer) -> None:
        """The operator's part, as in any cluster; there is one control process, so nobody is elected."""
        api = Local(server.objects, "podwire-operator")
        controllers = made(api, partial(parse, cluster=self.plan.name), Settings())
        await Controllers(api, controllers).run()

    def _config(self) -> ServerConfig:
        return ServerConfig(
            directory=self.places.api,
            sockets=self.sockets,
            addresses=self.plan.bridge,
            nodes=tuple(address for node in self.plan.nodes for address in node.addresses),
            cluster=ClusterSettings(
                name=self.plan.name,
                service_cidrs=self.plan.service_cidrs,
                pod_cidrs=tuple(cidr for node in self.plan.nodes for cidr in node.pod_cidrs),
            ),
        )

    def _write_kubeconfigs(self, server: ApiServer) -> None:
        """One for people, by loopback; one for each node's agent, by the underlay."""
        replace_whole(self.places.kubeconfig, server.kubeconfig(*ADMIN), mode=0o600)
        bridge = self.plan.bridge[0]
        url = f"https://{f'[{bridge}]' if ':' in bridge else bridge}:{API_PORT}"
        for node in self.plan.nodes:
            user = f"system:node:{node.name}"
            config = server.kubeconfig(user, ("system:nodes", "system:masters"), url)
            replace_whole(self.places.node(node.name) / "kubeconfig", config, mode=0o600)

    async def _bring_up(self, cluster: Cluster, ready: dict[str, asyncio.Event]) -> None:
        """Apply the lab's manifests once; say "ready" when the nodes and its pods are.

        What is wrong with a lab is for who waits for it; the cluster is there all the same.
        """
        with boundary("bringing up the lab", self._not_up):
            done = self.places.directory / "applied"
            if not done.exists():
                applied = manifests.apply_all(cluster, [Path(path) for path in self.plan.lab.manifests])
                done.write_text("")
                if applied:
                    self.progress.tell(say=f"applied {len(applied)} objects of the lab")
            for name, event in ready.items():
                self.progress.tell(
                    waiting=f"the agent of node {name} is not ready (see {self.places.logs}/agent-{name}.log)"
                )
                await event.wait()
            self.progress.tell(say=f"nodes {', '.join(ready)} are ready")
            await self._pods_ready(cluster)
            self.progress.tell(ready=True)
        self.progress.close()

    def _not_up(self, error: Exception) -> None:
        hint = error.hint if isinstance(error, PodwireError) else f"see {self.places.logs}/control.log"
        self.progress.tell(error=str(error) or repr(error), hint=hint)

    async def _pods_ready(self, cluster: Cluster) -> None:
        said: list[str] = []
        while True:
            unready = [pod for pod in cluster.all("pods") if not manifests.settled(pod)]
            if not unready and manifests.workloads_settled(cluster):
                return
            named = [
                f"{pod['metadata']['namespace']}/{pod['metadata']['name']}{manifests.why(pod)}"
                for pod in unready
            ]
            if named != said:
                # Cut: what is longer than a pipe takes at once would be mixed with what the keeper says.
                more = f" and {len(named) - NAMED} more" if len(named) > NAMED else ""
                shown = ", ".join(named[:NAMED])[:2048] or "none made yet"
                self.progress.tell(waiting=f"these pods are not ready: {shown}{more}")
                said = named
            await asyncio.sleep(0.02)
