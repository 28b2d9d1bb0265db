"""An unmodified kube-proxy, pointed at the embedded API: it syncs, follows, and has nothing to complain of.

Both are in a network namespace of their own, so its rules are nobody else's.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from podwire import controllermanager
from podwire.apiserver import ApiServer, ServerConfig
from podwire.apiserver.store import Change
from podwire.base.aio import cancelling, eventually
from podwire.net import namespaces

pytestmark = [pytest.mark.compat, pytest.mark.timeout(300)]

ROOT = Path(__file__).resolve().parents[3]
Object = dict[str, Any]
QUIET = 3.0  # seconds it must say nothing more in
_COMPLAINT = re.compile(r"^[EF]\d{4} ")


@pytest.fixture(scope="session")
def kube_proxy() -> Path:
    """The program, as `tools/build-kube-proxy` has built it."""
    asked = subprocess.run([ROOT / "tools" / "build-kube-proxy", "--path"], capture_output=True, text=True)
    program = Path(asked.stdout.strip())
    if not program.exists():
        pytest.skip("kube-proxy is not built: run tools/build-kube-proxy (make peers)")
    return program


@pytest.fixture
def place() -> Iterator[str]:
    """A network namespace with loopback and an address, removed after."""
    name = f"pw-kubeproxy-{os.getpid()}"
    namespaces.create(name)
    try:
        for command in ("link set lo up", "addr add 192.0.2.10/32 dev lo"):
            subprocess.run(["nsenter", f"--net=/run/netns/{name}", "ip", *command.split()], check=True)
        yield name
    finally:
        namespaces.delete(name)


def service(name: str, **spec: Any) -> Object:
    ports = [{"name": "http", "port": 80, "targetPort": 8080}]
    spec = {"selector": {"app": name}, "ports": ports, **spec}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": spec,
    }


def pod(name: str, app: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": {"app": app}},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "x"}]},
    }


def running(address: str, ready: str = "True") -> Object:
    condition = {"type": "Ready", "status": ready, "lastTransitionTime": "2026-01-01T00:00:00Z"}
    return {
        "status": {
            "phase": "Running",
            "podIP": address,
            "podIPs": [{"ip": address}],
            "conditions": [condition],
        }
    }


class Proxy:
    """The program, its log, and the rules it has made."""

    def __init__(self, place: str, log: Path) -> None:
        self.place = place
        self.log = log

    def rules(self) -> str:
        command = ["nsenter", f"--net=/run/netns/{self.place}", "nft", "list", "ruleset"]
        return subprocess.run(command, capture_output=True, text=True).stdout

    def said(self) -> str:
        return self.log.read_text()

    async def has(self, text: str) -> None:
        await eventually(lambda: text in self.rules(), timeout=60, what=f"{text} in the rules", interval=0.1)

    async def lacks(self, text: str) -> None:
        await eventually(lambda: text not in self.rules(), timeout=60, what=f"no {text}", interval=0.1)


@asynccontextmanager
async def proxying(program: Path, place: str, server: ApiServer, directory: Path) -> AsyncIterator[Proxy]:
    kubeconfig = directory / "proxy.kubeconfig"
    kubeconfig.write_bytes(server.kubeconfig("system:kube-proxy"))
    config = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": str(kubeconfig)},
        "mode": "nftables",
        "hostnameOverride": "n1",
        "clusterCIDR": "10.244.0.0/16",
        "conntrack": {"maxPerCore": 0, "min": 0},
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
    }
    file = directory / "config.yaml"
    file.write_text(yaml.safe_dump(config))
    log = directory / "kube-proxy.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["nsenter", f"--net=/run/netns/{place}", str(program), "--config", str(file), "--v=2"],
            stdout=output,
            stderr=output,
        )
    try:
        yield Proxy(place, log)
    finally:
        process.terminate()
        process.wait(20)


async def scenario(program: Path, place: str, directory: Path) -> None:
    listening = namespaces.open_socket(place, socket.AF_INET)
    listening.bind(("192.0.2.10", 0))
    server = ApiServer(ServerConfig(directory=directory / "state", sockets=[listening]))
    await server.start()
    try:
        objects = server.objects
        node = {"metadata": {"name": "n1"}, "spec": {"podCIDR": "10.244.1.0/24"}}
        ready = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
        node["status"] = {
            "addresses": [{"type": "InternalIP", "address": "192.0.2.10"}],
            "conditions": [ready],
        }
        objects.create(objects.kind("nodes"), "", node)
        async with (
            cancelling("controllers", controllermanager.run(server)),
            proxying(program, place, server, directory) as proxy,
        ):
            await follow(server, proxy)
    finally:
        await server.stop()


async def follow(server: ApiServer, proxy: Proxy) -> None:
    """Services, pods and changes, made in this process; the rules must follow each."""
    objects = server.objects
    pods, services = objects.kind("pods"), objects.kind("services")

    def run(name: str, address: str, ready: str = "True") -> None:
        objects.change(
            pods, "default", name, lambda body: body | running(address, ready), subresource="status"
        )

    await proxy.has("10.96.0.1")  # the API's own service
    address = objects.create(services, "default", service("web")).stored.object["spec"]["clusterIP"]
    objects.create(pods, "default", pod("web-1", "web"))
    run("web-1", "10.244.1.5")
    await proxy.has("10.244.1.5:8080")
    assert address in proxy.rules()
    objects.create(pods, "default", pod("web-2", "web"))
    run("web-2", "10.244.1.6")
    await proxy.has("10.244.1.6:8080")
    run("web-1", "10.244.1.5", "False")
    await proxy.lacks("10.244.1.5:8080")
    port = objects.create(services, "default", service("out", type="NodePort")).stored.object["spec"][
        "ports"
    ][0]
    objects.create(pods, "default", pod("out-1", "out"))
    run("out-1", "10.244.1.7")
    await proxy.has("10.244.1.7:8080")
    assert str(port["nodePort"]) in proxy.rules()
    objects.delete(services, "default", "web")
    await proxy.lacks(address)
    said = len(proxy.said())
    revision, changes = server.store.revision, list[Change]()
    server.store.listeners.append(changes.append)
    await asyncio.sleep(QUIET)  # the thing under test is that nothing happens
    after = proxy.said()[said:]
    assert not _complaints(proxy.said())
    assert "Reflector" not in after and "failed" not in after, after
    written = [(one.kind, one.resource, one.stored.name) for one in changes]
    assert server.store.revision == revision, written
    events = objects.all("events")
    assert any(one["reason"] == "Starting" for one in events), [one["reason"] for one in events]


def _complaints(text: str) -> list[str]:
    """Errors it logs, but for those about programs of the machine it would clean up with."""
    return [
        line for line in text.splitlines() if _COMPLAINT.match(line) and "Error removing ipset" not in line
    ]


def test_kube_proxy_syncs_and_is_quiet(kube_proxy: Path, place: str, tmp_path: Path) -> None:
    try:
        asyncio.run(scenario(kube_proxy, place, tmp_path))
    finally:
        log = tmp_path / "kube-proxy.log"
        print(log.read_text()[-8000:] if log.exists() else "kube-proxy was not started")
