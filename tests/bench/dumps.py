"""`podwire bpf ct list` of very many connections: `python tests/bench/dumps.py`. As root.

The agent's own answer over a kernel map, in this process; the client reads in a process of its own and
throws away. The loop is held from when a timer was due until it ran: what the client of another question
waits. One in a hundred may be longer, for so it is on a machine that does something else as well.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from podwire.abi import structs
from podwire.abi.dtypes import CT_ENTRY, CT_KEY
from podwire.agent import server
from podwire.agent.node import Node
from podwire.base.addresses import pack
from podwire.base.aio import cancelling
from podwire.base.config import AgentConfig
from podwire.bpf import library
from podwire.bpf.map import NO_PREALLOC, Map, MapType
from podwire.client import http
from podwire.datapath import conntrack
from podwire.state.tables import Tables

PATH = "/podwire/v1/bpf/ct"
EVERY = 0.002  # s between two looks at the loop


def connections(count: int) -> Map[Any, Any]:
    """Each to another address; every 1000th to port 443."""
    made: Map[Any, Any] = Map.create(
        MapType.HASH, "bench_ct", structs.CtKey, structs.CtEntry, count, NO_PREALLOC
    )
    keys, values = np.zeros(count, dtype=CT_KEY), np.zeros(count, dtype=CT_ENTRY)
    number = np.arange(count, dtype="u4")
    keys["local"] = np.frombuffer(pack("192.0.2.1"), dtype="u1")
    keys["remote"] = np.frombuffer(pack("10.0.0.0"), dtype="u1")
    for place in range(3):
        keys["remote"][:, 15 - place] = (number >> (8 * place)) & 0xFF
    keys["remote_port"] = np.where(number % 1000 == 0, 443, 80)
    keys["protocol"] = 6
    values["expires"] = conntrack.now() + 3600
    error, done = library.map_update_batch(made.fileno(), keys.tobytes(), values.tobytes(), count)
    assert (error, done) == (0, count)
    return made


def read(path: str, query: dict[str, str]) -> int:
    """In a process of its own: how many rows there are."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.connect(path)
        asking.sendall(http.request("GET", PATH, query, {}, None))
        with asking.makefile("rb") as answer:
            while answer.readline() not in (b"\r\n", b""):
                pass
            return sum(1 for _ in http.items(answer))


class Late:
    """How late a timer runs."""

    def __init__(self) -> None:
        self._late: list[float] = []

    def in_a_hundred(self) -> float:
        """ms that one in a hundred is late, or more."""
        return sorted(self._late)[len(self._late) * 99 // 100] * 1e3

    async def look(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + EVERY
            await asyncio.sleep(EVERY)
            self._late.append(loop.time() - due)


def memory(what: str) -> float:
    """MiB of this process, as the kernel says."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{what}:"):
            return int(line.split()[1]) / 1024
    raise LookupError(what)


async def measure(count: int, folder: str) -> None:
    with (
        connections(count) as table,
        Map.create(MapType.HASH, "bench_ov", structs.CtKey, structs.CtEntry, 1, NO_PREALLOC) as empty,
    ):
        maps = {"podwire_conntrack": table, "podwire_ct_overflow": empty}
        config = AgentConfig(node_name="n1", run_dir=folder)
        stages: Any = SimpleNamespace(
            kernel=SimpleNamespace(config=config, programs=SimpleNamespace(maps=maps)), tables=Tables()
        )
        async with server.listening(Node(stages), config.socket):
            late = Late()
            async with cancelling("look", late.look()):
                before = memory("VmRSS")
                Path("/proc/self/clear_refs").write_text("5")
                for name, query, rows in (("all", "", count), ("one port", "443", (count + 999) // 1000)):
                    began = time.perf_counter()
                    command = (sys.executable, __file__, str(config.socket), query)
                    pipe = asyncio.subprocess.PIPE
                    process = await asyncio.create_subprocess_exec(*command, stdout=pipe)
                    printed, _ = await process.communicate()
                    assert int(printed) == rows, printed
                    show(f"{count}: {name}", time.perf_counter() - began, "s")
                show(f"{count}: loop held, p99", late.in_a_hundred(), "ms")
                show(f"{count}: memory at most", memory("VmHWM") - before, "MiB")


def show(name: str, value: float, unit: str) -> None:
    print(f"{name:55} {value:12,.1f} {unit}")


def main() -> None:
    if len(sys.argv) == 3:
        print(read(sys.argv[1], {"port": sys.argv[2]} if sys.argv[2] else {}))
        return
    with tempfile.TemporaryDirectory() as folder:
        for count in (65_536, 1_000_000):
            asyncio.run(measure(count, folder))


if __name__ == "__main__":
    main()
