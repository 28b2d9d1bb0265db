"""A relay in front of fifty nodes: `python tests/bench/relay.py`.

The nodes' observers, the relay and its client are in this process, so what is measured is the work of all
of them on one core: a real relay has that of the relay alone. Memory is what the process had more at most
than before it was asked.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc

from podwire.api import observer_pb2
from podwire.base.aio import cancelling, eventually
from podwire.base.config import AgentConfig
from podwire.hubble.pipeline import Pipeline
from podwire.hubble.relay import Relay
from podwire.hubble.relay_nodes import Peer
from podwire.hubble.rpc import Address
from podwire.hubble.serve import Server
from podwire.testing import flows

NODES, EACH = 50, 1000
START = 10.0


def node(name: str, number: int, folder: Path) -> Pipeline:
    """Its flows interleave with those of the others."""
    ring = flows.MemoryRing()
    config = AgentConfig(node_name=name, run_dir=str(folder), hubble_flow_capacity=1024)
    made = Pipeline(ring, ring.statistics, flows.tables(), config, name)
    for flow in range(EACH):
        ring.emit(flows.event(time=(1 + flow * NODES + number) * 1_000_000))
    made.drain()
    return made


def memory(what: str) -> float:
    """MiB of this process, as the kernel says."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{what}:"):
            return int(line.split()[1]) / 1024
    raise LookupError(what)


async def asked(channel: Any, **fields: Any) -> AsyncIterator[Any]:
    call = channel.unary_stream(
        "/observer.Observer/GetFlows",
        request_serializer=observer_pb2.GetFlowsRequest.SerializeToString,
        response_deserializer=observer_pb2.GetFlowsResponse.FromString,
    )(observer_pb2.GetFlowsRequest(**fields))
    async for response in call:
        if response.HasField("flow"):
            yield response


async def timed(channel: Any, **fields: Any) -> tuple[float, float, int]:
    """(s to the first flow, s to the last, flows)."""
    began, first, count = time.perf_counter(), 0.0, 0
    async for _ in asked(channel, **fields):
        first = first or time.perf_counter() - began
        count += 1
    return first, time.perf_counter() - began, count


async def measure(folder: Path) -> None:
    nodes = {f"n{number}": node(f"n{number}", number, folder) for number in range(NODES)}
    sockets = {name: folder / f"{name}.sock" for name in nodes}
    async with AsyncExitStack() as stack:
        for name, made in nodes.items():
            serving = Server(made.flows, Address(socket=str(sockets[name]))).run()
            await stack.enter_async_context(cancelling(name, serving))
        place = folder / "relay.sock"
        peers = [Peer(f"default/{name}", f"unix://{socket}") for name, socket in sockets.items()]
        await stack.enter_async_context(cancelling("relay", Relay(peers, Address(socket=str(place))).run()))
        await eventually(place.exists, timeout=START, what="the relay")
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(f"unix://{place}"))
        await timed(channel, number=1)  # all are connected
        _, last, count = await timed(channel, number=100)
        assert count == 100
        show("50 nodes: last 100 flows", last * 1e3, "ms")
        before = memory("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")
        first, last, count = await timed(channel, number=(1 << 64) - 1)
        assert count == NODES * EACH
        show("50 nodes: all flows, until the first", first * 1e3, "ms")
        show("50 nodes: all flows", count / last, "events/s")
        show("50 nodes: all flows, memory at most", memory("VmHWM") - before, "MiB")


def show(name: str, value: float, unit: str) -> None:
    print(f"{name:55} {value:12,.1f} {unit}")


def main() -> None:
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measure(Path(folder)))


if __name__ == "__main__":
    main()
