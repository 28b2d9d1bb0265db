"""A server with synthetic flows, in a process of its own: `serve.py DIRECTORY [NODE [LISTEN]]`.

With LISTEN (host:port) it serves TCP as well, with the certificates in DIRECTORY.
"""

from __future__ import annotations

import asyncio
import sys
import time

from podwire.base.aio import cancelling, eventually
from podwire.base.config import AgentConfig
from podwire.hubble.pipeline import Pipeline
from podwire.model.cluster import OWN
from podwire.testing import flows


async def main(directory: str, node: str = "n1", listen: str = "") -> None:
    ring = flows.MemoryRing()
    config = AgentConfig(
        node_name=node,
        run_dir=directory,
        hubble_listen_address=listen,
        hubble_tls_cert=f"{directory}/server.crt" if listen else "",
        hubble_tls_key=f"{directory}/server.key" if listen else "",
        hubble_tls_ca=f"{directory}/ca.crt" if listen else "",
    )
    pipeline = Pipeline(ring, ring.statistics, flows.tables(), config, node)
    for other in ("n1", "n2"):
        if other != node:  # nobody is to dial addresses that are not there
            pipeline.flows.tables.nodes.delete((OWN, other))
    records = flows.sample()
    # The last one is a minute old: --since and rates have something to tell apart.
    records["time"] += time.clock_gettime_ns(time.CLOCK_BOOTTIME) - 73_000_000_000
    ring.emit(records)
    pipeline.drain()
    async with cancelling("pipeline", pipeline.run()) as running:
        await eventually(
            lambda: config.hubble_socket.exists() or running.done(), timeout=10, what="the socket"
        )
        print("ready", flush=True)
        await running


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
