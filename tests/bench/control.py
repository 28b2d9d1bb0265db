"""The control plane: sandbox-up time, memory, the command line's answer, pods attached, services in bulk.

Everything is asked of a sandbox as a user has it; times are wall clock of the commands a user types.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from measure import Row
from namespaces import BenchError, Namespace
from peers import PORT
from sandboxes import AT_ONCE, Sandbox, pod, podwire, sandbox

from podwire.client.agent import AgentClient
from podwire.kube import resources
from podwire.kube.client import Client

SERVICES, ENDPOINTS_EACH = 1000, 10
PODS = 40
KINDS = {"Pod": resources.PODS, "Service": resources.SERVICES, "EndpointSlice": resources.ENDPOINT_SLICES}


def rows(*, quick: bool, tell: Callable[[str], None]) -> list[Row]:
    """All figures of this section; BenchError where a sandbox does not come up."""
    found: list[Row] = []
    ups: list[float] = []
    for number in range(1 if quick else 3):
        tell(f"sandbox up, round {number + 1}")
        with sandbox("up") as one:
            ups.append(one.up_seconds)
            if number == 0:
                found += _of_running(one, quick=quick, tell=tell)
    return [Row("control", "sandbox", "up", statistics.median(ups), "s"), *found]


def _of_running(one: Sandbox, *, quick: bool, tell: Callable[[str], None]) -> list[Row]:
    found = [Row("control", "agent", "rss idle", memory(one), "MiB")]
    tell("podwire status")
    found.append(Row("control", "cli", "status", _status_ms(one, 3 if quick else 11), "ms"))
    count = 20 if quick else 100
    tell(f"attaching {count} pods")
    found += _attach(one, count)
    tell("starting whole pods")
    found.append(Row("control", "pods", "rate", _pods(one, 10 if quick else PODS), "/s"))
    if not quick:
        tell(f"{SERVICES} services with {ENDPOINTS_EACH} endpoints each")
        _load(one)
        found.append(Row("control", "agent", "rss loaded", memory(one), "MiB"))
    return found


def memory(one: Sandbox) -> float:
    """Resident memory of the biggest agent, pages shared with the process that forked it included."""
    return max(sum(_resident(pid) for pid in pids) for pids in one.agents().values())


def _resident(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise BenchError(f"process {pid} has no memory: it has ended")


def _status_ms(one: Sandbox, rounds: int) -> float:
    samples = []
    for _ in range(rounds):
        begin = time.perf_counter()
        podwire(one.name, "status")
        samples.append((time.perf_counter() - begin) * 1000)
    return statistics.median(samples)


def _attach(one: Sandbox, count: int) -> list[Row]:
    """Pods attached one after the other as a CNI plugin does it, each with labels of its own.

    Their network namespaces are ours.
    """
    names = [f"bulk-{number}" for number in range(count)]
    asyncio.run(_bind(one, names))
    agent = AgentClient(one.places.node("n1") / "podwire.sock")
    samples = []
    with ExitStack() as stack:
        spaces = [Namespace.create() for _ in names]
        for space in spaces:
            stack.callback(space.close)
        begin = time.perf_counter()
        for name, space in zip(names, spaces, strict=True):
            samples.append(_attach_one(agent, name, space))
        took = time.perf_counter() - begin
        for name in names:
            agent.detach(f"bench-{name}")
    ordered = sorted(samples)
    return [
        Row("control", "attach", "rate", count / took, "/s"),
        Row("control", "attach", "p50", ordered[count // 2] * 1000, "ms"),
        Row("control", "attach", "p99", ordered[count - 1 - count // 100] * 1000, "ms"),
    ]


def _attach_one(agent: AgentClient, name: str, space: Namespace) -> float:
    """Seconds from asking for an address until the pod can talk."""
    begin = time.perf_counter()
    given = agent.allocate(f"default/{name}")
    netns = f"/proc/{space.pid}/ns/net"
    agent.attach(container_id=f"bench-{name}", netns=netns, namespace="default", pod=name, ipv4=given.ipv4)
    return time.perf_counter() - begin


async def _bind(one: Sandbox, names: Sequence[str]) -> None:
    """Pods of node n1 that nobody but us makes: its runner leaves alone what had ended before it came."""
    bodies = [pod(name, "", ["true"]) for name in names]
    for body in bodies:
        del body["spec"]["nodeName"]
        body["spec"]["schedulerName"] = "bench"
    await create(one, bodies)
    ended = {"status": {"phase": "Succeeded"}}
    target = {"apiVersion": "v1", "kind": "Node", "name": "n1"}
    async with one.client() as client:
        for name in names:
            await client.patch(resources.PODS, name, ended, "default", subresource="status")
            binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": target}
            await client.request("POST", resources.PODS.path("default", name, "binding"), body=binding)


async def create(one: Sandbox, bodies: Sequence[dict[str, Any]]) -> None:
    places = asyncio.Semaphore(AT_ONCE)

    async def post(client: Client, body: dict[str, Any]) -> None:
        async with places:
            await client.create(KINDS[body["kind"]], body)

    async with one.client() as client:
        await asyncio.gather(*(post(client, body) for body in bodies))


def _pods(one: Sandbox, count: int) -> float:
    """Whole pods per second on one node: created, scheduled, their processes started, ready."""
    begin = time.monotonic()
    asyncio.run(create(one, [pod(f"whole-{number}", "n1", ["sleep", "infinity"]) for number in range(count)]))
    return count / (asyncio.run(_all_ready(one, "whole-", count)) - begin)


async def _all_ready(one: Sandbox, prefix: str, count: int) -> float:
    deadline = time.monotonic() + 60
    async with one.client() as client:
        while time.monotonic() < deadline:
            bodies = await client.list(resources.PODS, "default")
            if sum(body["metadata"]["name"].startswith(prefix) and _ready(body) for body in bodies) == count:
                return time.monotonic()
            await asyncio.sleep(0.02)
    raise BenchError(f"not all of {count} pods are ready after 60 s")


def _ready(body: dict[str, Any]) -> bool:
    conditions = body.get("status", {}).get("conditions") or []
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def _load(one: Sandbox) -> None:
    """Services whose endpoints are slices of our own making, until the agent serves them all."""
    asyncio.run(create(one, [bulk_service(number) for number in range(SERVICES)]))
    asyncio.run(create(one, [bulk_slice(number) for number in range(SERVICES)]))
    deadline = time.monotonic() + 60
    while podwire(one.name, "service", "list").count("=> 10.10") < SERVICES * ENDPOINTS_EACH:
        if time.monotonic() > deadline:
            raise BenchError("the agent does not serve all services after 60 s")
        time.sleep(0.2)


def bulk_service(number: int) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": f"bulk-{number}", "namespace": "default"},
        "spec": {"ports": [{"port": 80, "targetPort": PORT, "protocol": "TCP"}]},
    }


def bulk_slice(number: int) -> dict[str, Any]:
    addresses = [
        f"10.{100 + (number >> 10)}.{number >> 2 & 255}.{(number & 3) * ENDPOINTS_EACH + one + 1}"
        for one in range(ENDPOINTS_EACH)
    ]
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"bulk-{number}",
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": f"bulk-{number}"},
        },
        "addressType": "IPv4",
        "ports": [{"port": PORT, "protocol": "TCP"}],
        "endpoints": [{"addresses": [address], "conditions": {"ready": True}} for address in addresses],
    }
