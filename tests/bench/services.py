"""Many services in one node's agent: `python tests/bench/services.py [SERVICES]` (5,000 × 10 endpoints).

A sandbox gets the services and their slices through its API, as a cluster would; measured is the
CPU time of one node's agent from nothing until the kernel has every frontend and backend, and
again for an agent that starts anew beside them. Then one endpoint of one service is replaced, 200
times: how long from sending the change to the API until the kernel picks from the new set.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from control import bulk_service, bulk_slice, create
from namespaces import BenchError
from sandboxes import Sandbox, podwire, sandbox

from podwire.abi.structs import FrontendKey
from podwire.base.addresses import pack
from podwire.datapath.maps import Maps
from podwire.kube import resources

SERVICES, ENDPOINTS_EACH, CHANGES = 5000, 10, 200
NODE = "n1"


def maps(one: Sandbox) -> Maps:
    """The maps the node's programs use now."""
    found = sorted(path.parent for path in one.places.node_bpf(NODE).glob("maps-*/podwire_frontends"))
    if not found:
        raise BenchError(f"node {NODE} has no map of frontends")
    return Maps(str(found[-1]))


def cpu_seconds(one: Sandbox) -> float:
    """Of the node's agent so far, user and system."""
    total = 0
    for pid in one.agents()[NODE]:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def settled(one: Sandbox, services: int) -> None:
    """Wait until the kernel has all frontends and backends, and the agent rests."""

    def full() -> bool:
        now = maps(one)
        enough = len(now["podwire_frontends"]) >= services
        done = enough and len(now["podwire_backends"]) >= services * ENDPOINTS_EACH
        now.close()
        return done

    _wait(full, 240, "the kernel does not have all services")
    _wait(lambda: _rests(one), 60, "the agent does not come to rest")


def _rests(one: Sandbox) -> bool:
    before = cpu_seconds(one)
    time.sleep(0.5)
    return cpu_seconds(one) - before <= 0.02


def _wait(condition: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise BenchError(f"{what} after {seconds:.0f} s")
        time.sleep(0.2)


def change_times(one: Sandbox) -> list[float]:
    """Seconds from sending a slice with one other endpoint until the frontend has another set of backends."""
    address = _address(one, "bulk-0")
    key = FrontendKey(pack(address), 80, 6)
    now = maps(one)
    frontends = now["podwire_frontends"]
    samples = []

    async def change() -> None:
        async with one.client() as client:
            for number in range(CHANGES):
                body = bulk_slice(0)
                body["endpoints"][0]["addresses"] = [f"10.200.0.{number + 1}"]
                before = frontends[key].slots
                begin = time.perf_counter()
                patch = {"endpoints": body["endpoints"]}
                await client.patch(resources.ENDPOINT_SLICES, "bulk-0", patch, "default")
                while frontends[key].slots == before:
                    if time.perf_counter() - begin > 10:
                        raise BenchError("a changed endpoint is not in the kernel after 10 s")
                    await asyncio.sleep(0.0005)
                samples.append(time.perf_counter() - begin)

    asyncio.run(change())
    now.close()
    return samples


def _address(one: Sandbox, name: str) -> str:
    async def ask() -> dict[str, Any]:
        async with one.client() as client:
            return await client.get(resources.SERVICES, name, "default")

    return str(asyncio.run(ask())["spec"]["clusterIP"])


def say(name: str, value: float, unit: str) -> None:
    print(f"{name:50} {value:10.2f} {unit}", flush=True)


def main() -> None:
    services = int(sys.argv[1]) if len(sys.argv) > 1 else SERVICES
    with sandbox("services", manifests=[]) as one:
        before = cpu_seconds(one)
        asyncio.run(create(one, [bulk_service(number) for number in range(services)]))
        asyncio.run(create(one, [bulk_slice(number) for number in range(services)]))
        settled(one, services)
        say("cpu, from nothing", cpu_seconds(one) - before, "s")
        samples = sorted(change_times(one))
        say("one endpoint changed, p50", samples[len(samples) // 2] * 1000, "ms")
        say("one endpoint changed, p99", samples[len(samples) - 1 - len(samples) // 100] * 1000, "ms")
        podwire(one.name, "sandbox", "restart-agent", "--name", one.name, NODE)
        _wait(lambda: _well(one), 60, "the agent is not well")
        _wait(lambda: _rests(one), 60, "the agent does not come to rest")
        say("cpu, agent started anew", cpu_seconds(one), "s")


def _well(one: Sandbox) -> bool:
    try:
        answer = json.loads(podwire(one.name, "status", "--node", NODE, "-o", "json"))
    except BenchError:
        return False
    return bool(answer["cilium"]["state"] == "Ok")


if __name__ == "__main__":
    main()
