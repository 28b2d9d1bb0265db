"""podwire as a peer: sandboxes of the benchmark's own, brought up and removed through the command line.

Client and servers are pods whose command is netbench; it is run in them by podwire-init, straight,
without the command line's start. Service peers are compared with the same sandbox's pod-to-pod
path, in which only the service is missing.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from namespaces import NETBENCH, ROOT, BenchError, run
from peers import PORT, SERVICE_PORT

from podwire.kube import resources
from podwire.kube.client import Client
from podwire.sandbox.mounts import cgroup2
from podwire.sandbox.places import Places

PODWIRE = Path(sys.executable).with_name("podwire")
INIT = ROOT / "build" / "podwire-init"
SERVER_SAME, SERVER_OTHER, CLIENT = "server-same", "server-other", "client"
AT_ONCE = 32  # requests to the API


@dataclass
class PodPeer:
    """A client pod and an address it measures."""

    name: str
    client: dict[str, Any]  # its pod.json
    address: str
    port: int

    def command(self, mode: str, count: int) -> list[str]:
        pid = str(self.client["first"]["pid"])
        inside = [str(INIT), "exec", "--pid", pid, "--cgroup", self.client["cgroup"], "--"]
        return [*inside, str(NETBENCH), mode, self.address, str(self.port), str(count)]

    def close(self) -> None:
        """Its sandbox is removed by who made it."""


@dataclass
class Sandbox:
    """A running sandbox; `up_seconds` is how long `podwire sandbox up` took."""

    name: str
    up_seconds: float
    services: int = 0
    addresses: dict[str, str] = field(default_factory=dict)  # of the measured service

    @property
    def places(self) -> Places:
        return Places(self.name, cgroup2())

    def pod(self, name: str) -> dict[str, Any]:
        """What the sandbox wrote down about a pod."""
        for path in self.places.pods.glob("*/pod.json"):
            saved: dict[str, Any] = json.loads(path.read_text())
            if saved["name"] == name and saved["first"]:
                return saved
        raise BenchError(f"sandbox {self.name} has no running pod {name}")

    def peer(self, name: str, server: str) -> PodPeer:
        """The client pod towards another pod."""
        return _answering(PodPeer(name, self.pod(CLIENT), self.pod(server)["addresses"][0], PORT))

    def service_peer(self, name: str) -> PodPeer:
        """The client pod towards the service of `server-same`."""
        return _answering(PodPeer(name, self.pod(CLIENT), self.addresses["service"], SERVICE_PORT))

    def agents(self) -> dict[str, list[int]]:
        """Node → processes of its agent."""
        return {
            node.name: [
                int(pid) for pid in (self.places.agent_cgroup(node.name) / "cgroup.procs").read_text().split()
            ]
            for node in self.places.directory.joinpath("nodes").iterdir()
        }

    def client(self) -> Client:
        return Client.from_kubeconfig(self.places.kubeconfig)

    def have_services(self, count: int) -> None:
        """Have this many services in all, the measured one among them, and wait until they are served."""
        asyncio.run(self._create(range(self.services, count)))
        self.services = count
        self._await_frontends(count)

    async def _create(self, numbers: range) -> None:
        places = asyncio.Semaphore(AT_ONCE)

        async def create(client: Client, number: int) -> None:
            async with places:
                made = await client.create(resources.SERVICES, service(number))
                if number == 0:
                    self.addresses["service"] = made["spec"]["clusterIP"]

        async with self.client() as client:
            await asyncio.gather(*(create(client, number) for number in numbers))

    def _await_frontends(self, count: int) -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            found = json.loads(podwire(self.name, "service", "list", "-o", "json"))
            if len(found) >= count:
                return
            time.sleep(0.2)
        raise BenchError(f"the node serves {len(found)} of {count} services after 120 s")


def podwire(sandbox: str, *command: str, timeout: float = 120) -> str:
    """The command line, about this sandbox's first node."""
    return run(["env", f"PODWIRE_SANDBOX={sandbox}", str(PODWIRE), *command], timeout=timeout)


@contextmanager
def sandbox(
    kind: str, *, routing: str = "native", manifests: list[dict[str, Any]] | None = None
) -> Iterator[Sandbox]:
    """A sandbox of two nodes; removed on every way out. Its name holds our pid: nobody else's is touched."""
    name = f"bench-{kind}-{os.getpid()}"
    with TemporaryDirectory(prefix="podwire-bench-") as folder:
        lab = Path(folder) / "lab.yaml"
        objects = pods() if manifests is None else manifests
        (Path(folder) / "objects.yaml").write_text("\n---\n".join(json.dumps(body) for body in objects))
        lab.write_text(json.dumps({"nodes": 2, "routing": routing, "manifests": ["objects.yaml"]}))
        begin = time.monotonic()
        try:
            run([str(PODWIRE), "sandbox", "up", "--name", name, "-f", str(lab)])
            yield Sandbox(name, time.monotonic() - begin)
        finally:
            if Path(f"/run/podwire/sandboxes/{name}").exists():
                run([str(PODWIRE), "sandbox", "down", "--name", name])


def pods() -> list[dict[str, Any]]:
    """A client and a server on one node, a server on the other."""
    serve = [str(NETBENCH), "serve", "0.0.0.0", str(PORT)]
    return [
        pod(CLIENT, "n1", ["sleep", "infinity"]),
        pod(SERVER_SAME, "n1", serve),
        pod(SERVER_OTHER, "n2", serve),
    ]


def pod(name: str, node: str, command: list[str]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": {"app": name}},
        "spec": {
            "nodeName": node,
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "main", "image": "bench", "command": command}],
        },
    }


def service(number: int) -> dict[str, Any]:
    """Service 0 is the measured one; the others select nobody, and only fill the tables."""
    ports = [{"name": "tcp", "port": SERVICE_PORT, "targetPort": PORT, "protocol": "TCP"}]
    if number == 0:
        ports.append({"name": "udp", "port": SERVICE_PORT, "targetPort": PORT, "protocol": "UDP"})
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": f"bench-{number}", "namespace": "default"},
        "spec": {"selector": {"app": SERVER_SAME if number == 0 else f"nobody-{number}"}, "ports": ports},
    }


def _answering(peer: PodPeer) -> PodPeer:
    """The peer once it answers: a new service takes a moment to reach the kernel."""
    deadline = time.monotonic() + 20
    while True:
        try:
            run(peer.command("rr", 1), timeout=5)
            return peer
        except BenchError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
