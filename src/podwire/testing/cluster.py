"""A sandbox as a test sees it: pods that try connections, manifests, flows. Public and stable.

Everything waits for what it needs: `apply` returns when the change is in force on all nodes.
"""

from __future__ import annotations

import asyncio
import math
import os
import sys
import time
from collections.abc import Iterable, Sequence
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from podwire.base.errors import NotFound, PodwireError, UsageError
from podwire.kube.client import Client
from podwire.kube.manifests import Manifest, apply_manifests, delete_manifests, load, parse
from podwire.sandbox import connectivity, view
from podwire.sandbox.connectivity import Attempt, Outcome
from podwire.sandbox.runner.place import Saved
from podwire.sandbox.settle import settle
from podwire.testing.observed import Flows

Object = dict[str, Any]
_numbers = count(1)
PROTOCOLS = ("tcp", "udp")  # that a connection can be tried with
POLICIES = ("NetworkPolicy", "CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy")


class Result(msgspec.Struct, frozen=True):
    """What a command gave."""

    code: int
    stdout: str
    stderr: str


class Pod(msgspec.Struct, frozen=True):
    """A pod of a cluster."""

    cluster: Cluster
    namespace: str
    name: str
    node: str
    addresses: tuple[str, ...]

    @property
    def address(self) -> str:
        """Its first address: IPv4 where it has one."""
        return self.addresses[0]

    async def exec(self, *command: str, container: str = "", timeout: float = 30.0) -> Result:
        """Run a command in the pod."""
        words, environment = view.pod_command(
            self.cluster.name, self.namespace, self.name, container or None, list(command)
        )
        return await run(words, environment, timeout)

    async def reach(
        self,
        target: Pod | str,
        port: int = 80,
        protocol: str = "tcp",
        *,
        family: int = 0,
        timeout: float = 1.0,
    ) -> Outcome:
        """Try a connection to a pod, an address or a name: how it came out, and the rule that decided.

        `family` 4 or 6 chooses among a pod's addresses.
        """
        attempt = self._attempt(target, port, protocol, family, timeout)
        since = time.time()
        tried = await asyncio.to_thread(connectivity.attempt_all, self.cluster.name, [attempt], timeout)
        found = await asyncio.to_thread(connectivity.explained, self.cluster.name, tried, since)
        return found[0]

    async def can_reach(
        self,
        target: Pod | str,
        port: int = 80,
        protocol: str = "tcp",
        *,
        family: int = 0,
        timeout: float = 1.0,
    ) -> bool:
        """Whether a connection is made (TCP) or an answer comes (UDP) within `timeout` seconds."""
        attempt = self._attempt(target, port, protocol, family, timeout)
        tried = await asyncio.to_thread(connectivity.attempt_all, self.cluster.name, [attempt], timeout)
        return tried[0].reached

    def _attempt(self, target: Pod | str, port: int, protocol: str, family: int, timeout: float) -> Attempt:
        """UsageError for what no connection can be: that it fails would say nothing about policies."""
        if not isinstance(timeout, int | float) or not 0 < timeout < math.inf:
            raise UsageError(f"timeout {timeout!r} leaves no time", hint="a number of seconds")
        if not isinstance(target, Pod | str) or not target:
            raise UsageError(f"{target!r} is nobody to reach", hint="a Pod, an address or a name")
        if protocol not in PROTOCOLS:
            raise UsageError(f"protocol {protocol!r} cannot be tried", hint=f"one of {', '.join(PROTOCOLS)}")
        if not isinstance(port, int) or not 1 <= port <= 65535:
            raise UsageError(f"port {port} is not a port", hint="1 to 65535")
        if family not in (0, 4, 6):
            raise UsageError(f"family {family} is none", hint="4, 6, or 0 for either")
        if isinstance(target, str):
            return Attempt(self.namespace, self.name, target, port, protocol, shown=target)
        version = {4: ".", 6: ":"}.get(family, "")
        host = next((one for one in target.addresses if version in one), "")
        if not host:
            raise NotFound(f"pod {target.name} has no IPv{family} address")
        pods = (f"{target.namespace}/{target.name}",)
        return Attempt(self.namespace, self.name, host, port, protocol, shown=target.name, pods=pods)


class Matrix(msgspec.Struct, frozen=True):
    """Who reaches whom: ``matrix["n1p1", "n2p1"]``; printed as a table."""

    outcomes: dict[tuple[str, str], Outcome]

    def __getitem__(self, pair: tuple[str, str]) -> bool:
        return self.outcomes[pair].reached

    def __str__(self) -> str:
        sources = list(dict.fromkeys(source for source, _ in self.outcomes))
        targets = list(dict.fromkeys(target for _, target in self.outcomes))
        shown = [outcome.result for outcome in self.outcomes.values()]
        width = max(map(len, ["from \\ to", *sources, *targets, *shown]))
        lines = ["from \\ to".ljust(width) + "  " + "  ".join(target.ljust(width) for target in targets)]
        for source in sources:
            cells = [
                self.outcomes[source, target].result if (source, target) in self.outcomes else "-"
                for target in targets
            ]
            lines.append(source.ljust(width) + "  " + "  ".join(cell.ljust(width) for cell in cells))
        return "\n".join(line.rstrip() for line in lines)


class Cluster:
    """A running sandbox. Use as ``async with Cluster(Path("labs/two-nodes")) as lab:``."""

    def __init__(self, lab: Path, *, name: str = "", base: Path | None = None) -> None:
        self.lab = lab
        self.base = base or Path.cwd()  # where relative manifests are looked for, after the lab's folder
        self.name = name or f"t{os.getpid()}-{next(_numbers)}"
        self._since = 0.0

    async def __aenter__(self) -> Cluster:
        up = await _podwire("sandbox", "up", "--name", self.name, "-f", str(self.lab))
        if up.code:
            raise PodwireError(f"the sandbox did not come up: {up.stderr.strip()}")
        try:
            self._since = time.time()
            await self.settled()
        except BaseException:
            await self._down()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._down()

    async def _down(self) -> None:
        down = await _podwire("sandbox", "down", "--name", self.name)
        if down.code:
            raise PodwireError(f"the sandbox was not removed: {down.stderr.strip()}")

    # -- what there is

    @property
    def directory(self) -> Path:
        """Its directory: logs, kubeconfig, the nodes' sockets."""
        return view.open_sandbox(self.name)[0].directory

    @property
    def kubeconfig(self) -> Path:
        return self.directory / "kubeconfig"

    @property
    def pods(self) -> list[Pod]:
        """All pods that run, by namespace and name."""
        places, _ = view.open_sandbox(self.name)
        return [
            self._pod(one) for one in sorted(view.pods(places), key=lambda one: (one.namespace, one.name))
        ]

    def __getitem__(self, name: str) -> Pod:
        """The pod ``name`` of namespace default, or ``namespace/name``."""
        namespace, _, pod = name.rpartition("/")
        for one in self.pods:
            if (one.namespace, one.name) == (namespace or "default", pod):
                return one
        raise NotFound(
            f"there is no pod {name}", hint=f"pods: {', '.join(f'{p.namespace}/{p.name}' for p in self.pods)}"
        )

    def _pod(self, saved: Saved) -> Pod:
        return Pod(self, saved.namespace, saved.name, saved.node, saved.addresses)

    async def on_node(self, node: str, *command: str, timeout: float = 30.0) -> Result:
        """Run a command in the network of a node or a world."""
        return await run(view.node_command(self.name, node, list(command)), None, timeout)

    # -- changing it

    def client(self) -> Client:
        """A client of the cluster's API; use as ``async with``."""
        return Client.from_kubeconfig(str(self.kubeconfig), agent="podwire-testing")

    async def apply(self, *manifests: str | Path | Object, timeout: float = 30.0) -> list[Object]:
        """Apply files, YAML texts or objects; returns when nodes have them in force and pods are ready."""
        found = self._manifests(manifests)
        async with self.client() as client:
            applied = await apply_manifests(client, found, manager="podwire-testing")
            if any(one["kind"] not in POLICIES for one in applied):
                await self._pods_ready(client, timeout)
        await self.settled(applied, timeout=timeout)
        return applied

    async def delete(self, *manifests: str | Path | Object, timeout: float = 30.0) -> None:
        """Delete what they hold; returns when no node has its policies in force any more."""
        found = self._manifests(manifests)
        async with self.client() as client:
            await delete_manifests(client, found)
        gone = [_policy(one.body, 0) for one in found if one.body["kind"] in POLICIES]
        await asyncio.to_thread(settle, self.name, gone, timeout)

    async def settled(self, objects: Iterable[Object] = (), *, timeout: float = 30.0) -> None:
        """Until all nodes know all pods, and the policies among `objects` are in force everywhere."""
        wanted = [
            _policy(one, one["metadata"].get("generation", 1)) for one in objects if one["kind"] in POLICIES
        ]
        await asyncio.to_thread(settle, self.name, wanted, timeout)

    async def restart_agent(self, node: str) -> None:
        """Restart the agent of a node; returns at once."""
        await asyncio.to_thread(view.restart, self.name, f"agent {node}")

    def _manifests(self, given: Sequence[str | Path | Object]) -> list[Manifest]:
        found: list[Manifest] = []
        for one in given:
            if isinstance(one, dict):
                found.append(Manifest(one, "(object)", 1))
            elif isinstance(one, str) and "\n" in one:
                found += parse(one, "(text)")
            else:
                found += load([self._file(Path(one))])
        return found

    def _file(self, path: Path) -> Path:
        folder = self.lab if self.lab.is_dir() else self.lab.parent
        for candidate in (self.base / path, folder / path, path):
            if candidate.exists():
                return candidate
        raise NotFound(f"there is no manifest {path}", hint=f"looked in {self.base} and {folder}")

    async def _pods_ready(self, client: Client, timeout: float) -> None:
        pods = await client.resource_of("v1", "Pod")
        deadline = time.monotonic() + timeout
        while True:
            unready = [one for one in await client.list(pods) if not _ready(one)]
            if not unready:
                return
            if time.monotonic() > deadline:
                named = ", ".join(one["metadata"]["name"] for one in unready)
                raise TimeoutError(f"these pods were not ready within {timeout:g} s: {named}")
            await asyncio.sleep(0.03)

    # -- what happens in it

    def flows(self, **wanted: Any) -> Flows:
        """Flows by source, destination, verdict, drop_reason, protocol, port; see `observed.Flows`."""
        return Flows(self.name, self._since, **wanted)

    def forget_flows(self) -> None:
        """`flows` shows only what comes from now on."""
        self._since = time.time()

    async def connectivity(
        self,
        pods: Iterable[Pod] | None = None,
        *,
        port: int = 80,
        protocol: str = "tcp",
        timeout: float = 1.0,
    ) -> Matrix:
        """Every pod of namespace default (or of `pods`) tries every other, all at the same time."""
        chosen = list(pods) if pods is not None else [one for one in self.pods if one.namespace == "default"]
        if len(chosen) < 2 or not all(isinstance(one, Pod) for one in chosen):
            raise UsageError("connectivity is between Pods, two at least", hint='lab["name"] is one')
        pairs = [(one, other) for one in chosen for other in chosen if one is not other]
        attempts = [one._attempt(other, port, protocol, 0, timeout) for one, other in pairs]
        tried = await asyncio.to_thread(connectivity.attempt_all, self.name, attempts, timeout)
        return Matrix({(one.name, other.name): out for (one, other), out in zip(pairs, tried, strict=True)})


def _policy(body: Object, generation: int) -> tuple[str, str, str, int]:
    meta = body["metadata"]
    namespace = "" if body["kind"] == "CiliumClusterwideNetworkPolicy" else meta.get("namespace", "default")
    return body["kind"], namespace, meta["name"], generation


def _ready(pod: Object) -> bool:
    status = pod.get("status") or {}
    if pod["metadata"].get("deletionTimestamp") or status.get("phase") == "Succeeded":
        return bool(status.get("phase") == "Succeeded")
    return any(one["type"] == "Ready" and one["status"] == "True" for one in status.get("conditions") or [])


async def run(words: Sequence[str], environment: dict[str, str] | None, timeout: float) -> Result:
    """Run a command line to its end; TimeoutError ends it."""
    child = await asyncio.create_subprocess_exec(
        *words,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(timeout):
            stdout, stderr = await child.communicate()
    except BaseException:
        child.kill()
        await child.wait()
        raise
    assert child.returncode is not None
    return Result(child.returncode, stdout.decode(errors="replace"), stderr.decode(errors="replace"))


async def _podwire(*arguments: str) -> Result:
    return await run([sys.executable, "-m", "podwire.cli", *arguments], None, 120)
