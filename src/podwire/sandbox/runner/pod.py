"""One pod from its first sight to its removal.

Its place (namespaces, cgroup) and its addresses are made side by side; the agent attaches it to
the network and answers when traffic may flow; then init containers, one after the other, and the
others together. At the end SIGTERM, the grace period, SIGKILL; detach; everything removed; and
only then the object, so that a name is free when nothing of it is left.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import subprocess
import time
from typing import Any

from podwire.base.aio import Supervised
from podwire.base.errors import NotFound, PodwireError
from podwire.base.moments import now
from podwire.client.agent import AsyncAgentClient
from podwire.sandbox.cluster import Cluster
from podwire.sandbox.places import Places
from podwire.sandbox.plan import Node, Plan
from podwire.sandbox.record import Record
from podwire.sandbox.runner import probes, spec, status, volumes
from podwire.sandbox.runner.container import ContainerWorker
from podwire.sandbox.runner.place import Place, Saved
from podwire.sandbox.runner.process import ended

log = logging.getLogger(__name__)
Object = dict[str, Any]
RETRY_FIRST, RETRY_MOST = 0.2, 5.0
AGENT_POLL = 0.02  # s
DETACH_TIMEOUT = 10.0
HOST_NAME_MAX = 63


class PodWorker:
    """Keeps one pod of `node`."""

    def __init__(
        self, plan: Plan, places: Places, record: Record, cluster: Cluster, node: Node, body: Object
    ) -> None:
        self.plan, self.cluster, self.node, self.body_seen = plan, cluster, node, body
        meta = body["metadata"]
        self.namespace, self.name, self.uid = meta["namespace"], meta["name"], meta["uid"]
        self.host_network = bool(body["spec"].get("hostNetwork"))
        netns = places.netns(node.name) if self.host_network else places.pod_netns(self.namespace, self.name)
        cgroup = places.node_cgroup(node.name) / "pods" / self.uid
        saved = Saved(self.namespace, self.name, self.uid, node.name, str(netns), str(cgroup))
        self.place = Place(places, record, saved, host_network=self.host_network)
        self.node_netns = places.netns(node.name)
        self.agent_socket = places.node(node.name) / "podwire.sock"
        self.agent = AsyncAgentClient(self.agent_socket, node=node.name)
        self.stopping = False
        self.removed = asyncio.Event()
        self._told = asyncio.Event()
        self.init: list[ContainerWorker] = []
        self.main: list[ContainerWorker] = []
        self._new_containers()

    @property
    def body(self) -> Object:
        return self.body_seen

    @property
    def containers(self) -> list[ContainerWorker]:
        return self.init + self.main

    def seen(self, body: Object | None) -> None:
        """The object as it is now; None: it is gone."""
        if body is not None:
            self.body_seen = body
        if body is None or body["metadata"].get("deletionTimestamp"):
            self.stopping = True
            self.gone = body is None
            self._told.set()

    gone = False
    _attaching = False  # the agent may know this pod

    def adopt(self, saved: Saved) -> None:
        """Go on with a pod that an earlier control process made, or was about to."""
        self.place.saved = saved
        self._attaching = True
        for container in self.containers:
            run = saved.runs.get(container.name)
            if run is not None:
                container.adopt(run)

    def go_on(self) -> None:
        """After a failure: from what is there, as a control process that is started anew does."""
        self._new_containers()
        self.adopt(self.place.saved)

    def failed(self, error: Exception) -> None:
        """Say on the object that its worker failed."""
        self.tell("Warning", "SandboxError", f"the sandbox failed with this pod and tries again: {error!r}")

    async def work(self) -> None:
        """The pod's whole life. Cancelled, it leaves the pod running for a next control process."""
        async with Supervised(f"pod {self.namespace}/{self.name}") as group:
            living = group.once("run", self._live())
            telling = group.once("wait for its end", self._told.wait())
            await asyncio.wait((living, telling), return_when=asyncio.FIRST_COMPLETED)
            if not self._told.is_set():
                living.result()
                await self._finish()
                await self._told.wait()
            if not living.done():
                await self._stop_containers()
        await self._remove()

    # -- bringing up

    async def _live(self) -> None:
        """Containers in their place; a place whose first process died is made anew."""
        while True:
            self.changed()
            if not self._in_place:
                if self.place.saved.first and any(one.again() for one in self.containers if one.run):
                    self._begin_anew()  # it died while nobody looked
                await self._make()
            assert self.place.saved.first
            async with Supervised("containers") as group:
                running = group.once("containers", self._run_containers())
                dying = group.once("the pod's first process", ended(self.place.saved.first))
                await asyncio.wait((running, dying), return_when=asyncio.FIRST_COMPLETED)
                if running.done() or self.stopping:
                    await running
                    return
            self._begin_anew()

    @property
    def _in_place(self) -> bool:
        """Whether its place is there and has its network; one without was left by a control process that
        was killed while it made it."""
        return self.place.alive and (self.host_network or self.place.saved.attached)

    def _begin_anew(self) -> None:
        self.tell("Normal", "SandboxChanged", "Pod sandbox changed, it will be killed and re-created.")
        self.place.saved.restarts |= {name: run.number + 1 for name, run in self.place.saved.runs.items()}
        self.place.saved.runs = {}
        self._new_containers()

    def _new_containers(self) -> None:
        pod_spec = self.body["spec"]
        self.init = [ContainerWorker(self, one, init=True) for one in pod_spec.get("initContainers") or []]
        self.main = [ContainerWorker(self, one) for one in pod_spec["containers"]]

    async def _run_containers(self) -> None:
        async with Supervised("work") as group:
            self.changed()
            for container in self.init:
                if container.view.exit_code == 0 and not container.view.sidecar:
                    continue
                working = group.once(f"init container {container.name}", container.work())
                await container.settled.wait()
                if not container.view.sidecar:
                    await working
                    if container.view.exit_code != 0:
                        return
            for container in self.main:
                if container.view.state.get(status.WAITING, {}).get("reason") == "PodInitializing":
                    container.view.state = status.waiting("ContainerCreating")
            works = [group.once(f"container {one.name}", one.work()) for one in self.main]
            await asyncio.gather(*works)

    async def _make(self) -> None:
        """Place and network, tried again until both are there."""
        wait = RETRY_FIRST
        while not self.host_network and not self.agent_socket.exists():
            await asyncio.sleep(AGENT_POLL)  # an agent that is starting is not a failure
        while True:
            try:
                await self._forget_network()
                await self._make_once()
                return
            except (PodwireError, OSError, subprocess.SubprocessError) as error:
                first = f"Failed to create pod sandbox: {error or type(error).__name__}"
                log.warning("%s/%s: %s", self.namespace, self.name, first)
                self.tell("Warning", "FailedCreatePodSandBox", first)
            await asyncio.sleep(wait)
            wait = min(RETRY_MOST, wait * 2)

    async def _make_once(self) -> None:
        self.place.saved.began = time.time()
        hostname = self.body["spec"].get("hostname") or host_name(self.name)
        owner = f"{self.namespace}/{self.name}"
        if self.host_network:
            await self.place.make(self.node.name, self.resolv_conf())
            self.place.saved.addresses = self.node.addresses
        else:
            addresses, _ = await asyncio.gather(
                self.agent.allocate(owner), self.place.make(hostname, self.resolv_conf())
            )
            self.place.saved.addresses = tuple(one for one in (addresses.ipv4, addresses.ipv6) if one)
            self._attaching = True
            await self.agent.attach(
                container_id=self.uid,
                netns=self.place.saved.netns,
                namespace=self.namespace,
                pod=self.name,
                uid=self.uid,
                ipv4=addresses.ipv4,
                ipv6=addresses.ipv6,
            )
            self.place.saved.attached = True
        aliases = [
            (one["ip"], one.get("hostnames") or []) for one in self.body["spec"].get("hostAliases") or []
        ]
        subdomain = self.body["spec"].get("subdomain")
        full = f"{hostname}.{subdomain}.{self.namespace}.svc.cluster.local\t" if subdomain else ""
        self.place.write_hosts(f"{full}{hostname}", aliases)
        self.place.save()
        if ignored := spec.ignored(self.body):
            self.tell("Normal", "SandboxIgnores", f"has no effect in a sandbox: {', '.join(ignored)}")

    def resolv_conf(self) -> str:
        """As the kubelet writes it, by the pod's dnsPolicy and dnsConfig."""
        given = self.body["spec"].get("dnsConfig") or {}
        policy = self.body["spec"].get("dnsPolicy", "ClusterFirst")
        if policy == "ClusterFirst" and self.host_network:
            policy = "Default"
        domain = "cluster.local"
        servers, search, options = [], [], []
        if policy in ("ClusterFirst", "ClusterFirstWithHostNet"):
            servers = list(self.plan.dns)
            search = [f"{self.namespace}.svc.{domain}", f"svc.{domain}", domain]
            options = ["ndots:5"]
        elif policy == "Default":
            servers = list(self.plan.lab.dns.upstreams)
        servers += given.get("nameservers") or []
        search += given.get("searches") or []
        options += [
            ":".join(filter(None, (one["name"], one.get("value")))) for one in given.get("options") or []
        ]
        lines = [f"search {' '.join(search)}"] if search else []
        lines += [f"nameserver {one}" for one in servers[:3]]
        lines += [f"options {' '.join(options)}"] if options else []
        return "\n".join(lines) + "\n"

    # -- what containers need

    @property
    def facts(self) -> spec.Facts:
        return spec.Facts(self.node.name, self.node.addresses, self.place.saved.addresses)

    def environment(self, container: Object) -> dict[str, str]:
        links = self.body["spec"].get("enableServiceLinks", True)
        services = self.cluster.all("services", self.namespace) if links else []
        api = self.cluster.find("services", "default", "kubernetes")
        if api is not None and api not in services:
            services = [api, *services]
        return spec.environment(container, self.body, self.facts, self._find, services)

    def mounts(self, container: Object) -> volumes.Mounts:
        return volumes.mounts(container, self.body, self.place.directory, self.facts, self._find)

    def target(self, container: Object) -> probes.Target:
        ports = {
            one["name"]: int(one["containerPort"]) for one in container.get("ports") or [] if one.get("name")
        }
        address = (self.place.saved.addresses or ("127.0.0.1",))[0]
        return probes.Target(self.node_netns, address, ports)

    def _find(self, resource: str, name: str) -> Object | None:
        return self.cluster.find(resource, self.namespace, name)

    # -- reporting

    def changed(self) -> None:
        """Make the API say what this pod is now. Nothing is written where it does already."""
        found = self.cluster.find("pods", self.namespace, self.name)
        if found is None or found["metadata"]["uid"] != self.uid:
            return
        if self._status(found.get("status") or {}) != found.get("status"):
            self.cluster.edit_status("pods", self.namespace, self.name, self._with_status, self.uid)

    def _with_status(self, old: Object) -> Object:
        old["status"] = self._status(old.get("status") or {})
        return old

    def _status(self, old: Object) -> Object:
        saved, pod_spec = self.place.saved, self.body["spec"]
        return status.pod_status(
            old,
            [container.view for container in self.containers],
            restart_policy=pod_spec.get("restartPolicy", "Always"),
            addresses=saved.addresses,
            host_addresses=self.node.addresses,
            networked=saved.attached or self.host_network,
            started=old.get("startTime") or now(),
            gates=[one["conditionType"] for one in pod_spec.get("readinessGates") or []],
            time=now(),
            node_ready=self.cluster.says_ready(self.node.name),
        )

    def tell(self, kind: str, reason: str, message: str) -> None:
        self.cluster.event(self.body, kind, reason, message, source="kubelet", node=self.node.name)

    # -- the end

    async def _finish(self) -> None:
        """All containers ended for good: the network goes, logs and status stay."""
        await self._detach()
        await self.place.kill()
        await asyncio.to_thread(self.place.remove)
        self.place.save()
        self.changed()

    async def _stop_containers(self) -> None:
        grace = float(self.body["metadata"].get("deletionGracePeriodSeconds") or 0)
        if self.gone or grace <= 0:
            return
        running = [one for one in self.containers if one.view.running]
        if not running:
            return
        for one in running:
            self.tell("Normal", "Killing", f"Stopping container {one.name}")
        try:
            async with asyncio.timeout(grace):
                await asyncio.gather(*(one.stop(grace) for one in running))
                while any(one.view.running for one in running):
                    await asyncio.sleep(0.01)
        except TimeoutError:
            log.info("%s/%s did not end within %g s", self.namespace, self.name, grace)

    async def _remove(self) -> None:
        await self.place.kill()
        await self._detach()
        await asyncio.to_thread(self.place.remove)
        await asyncio.to_thread(_forget, self.place)
        self.cluster.delete_pod(self.namespace, self.name, self.uid)

    async def _detach(self) -> None:
        try:
            await self._forget_network()
        except (PodwireError, TimeoutError) as error:
            log.warning("%s/%s: the agent did not detach it: %s", self.namespace, self.name, error)
        self.place.saved.attached = False

    async def _forget_network(self) -> None:
        """Have the agent forget the pod, if it may know it: what it knows it does not plumb again, so that
        a new place would stay without a network."""
        if self.host_network or not (self._attaching or self.place.saved.attached):
            return
        try:
            async with asyncio.timeout(DETACH_TIMEOUT):
                await self.agent.detach(self.uid)
        except NotFound:
            pass  # it does not know it
        self._attaching = self.place.saved.attached = False


def host_name(pod: str) -> str:
    """A pod's name where a host name must fit: cut as the kubelet cuts it."""
    return pod[:HOST_NAME_MAX].rstrip("-.")


def _forget(place: Place) -> None:
    shutil.rmtree(place.directory, ignore_errors=True)
