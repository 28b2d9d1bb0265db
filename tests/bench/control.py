"""The control plane: sandbox-up time, memory, the command line's answer, pods attached, services in bulk.

Everything is asked of a sandbox as a user has it; times are wall clock of the commands a user types.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from measure import Row
from namespaces import BenchError
from peers import PORT
from sandboxes import AT_ONCE, Sandbox, pod, podwire, sandbox

from podwire.kube import resources
from podwire.kube.client import Client

SERVICES, ENDPOINTS_EACH = 1000, 10
PODS = 40


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
    count = 10 if quick else PODS
    tell(f"attaching {count} pods")
    found.append(Row("control", "attach", "rate", asyncio.run(_attach(one, count)), "/s"))
    if not quick:
        tell(f"{SERVICES} services with {ENDPOINTS_EACH} endpoints each")
        asyncio.run(_load(one))
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


async def _attach(one: Sandbox, count: int) -> float:
    """Pods per second, from the first one created to the last one ready on one node."""
    places = asyncio.Semaphore(AT_ONCE)

    async def create(client: Client, number: int) -> None:
        async with places:
            await client.create(resources.PODS, pod(f"bulk-{number}", "n1", ["sleep", "infinity"]))

    async with one.client() as client:
        begin = time.monotonic()
        await asyncio.gather(*(create(client, number) for number in range(count)))
        while time.monotonic() < begin + 60:
            running = await client.list(resources.PODS, "default")
            ready = [
                body for body in running if body["metadata"]["name"].startswith("bulk-") and _ready(body)
            ]
            if len(ready) == count:
                return count / (time.monotonic() - begin)
            await asyncio.sleep(0.02)
    raise BenchError(f"{len(ready)} of {count} pods are ready after 60 s")


def _ready(body: dict) -> bool:  # type: ignore[type-arg]
    conditions = body.get("status", {}).get("conditions") or []
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


async def _load(one: Sandbox) -> None:
    """Services whose endpoints are slices of our own making, until the agent serves them all."""
    places = asyncio.Semaphore(AT_ONCE)

    async def create(client: Client, number: int) -> None:
        async with places:
            await client.create(resources.SERVICES, _bulk_service(number))
            await client.create(resources.ENDPOINT_SLICES, _bulk_slice(number))

    async with one.client() as client:
        await asyncio.gather(*(create(client, number) for number in range(SERVICES)))
    deadline = time.monotonic() + 60
    while podwire(one.name, "service", "list").count("10.1.") < SERVICES * ENDPOINTS_EACH:
        if time.monotonic() > deadline:
            raise BenchError("the agent does not serve all services after 60 s")
        await asyncio.sleep(0.2)


def _bulk_service(number: int) -> dict:  # type: ignore[type-arg]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": f"bulk-{number}", "namespace": "default"},
        "spec": {"ports": [{"port": 80, "targetPort": PORT, "protocol": "TCP"}]},
    }


def _bulk_slice(number: int) -> dict:  # type: ignore[type-arg]
    addresses = [
        f"10.1.{number >> 2}.{(number & 3) * ENDPOINTS_EACH + one + 1}" for one in range(ENDPOINTS_EACH)
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
