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

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.packets.doors.connections import filled  # noqa: E402

from podwire.abi import structs  # noqa: E402
from podwire.agent import server  # noqa: E402
from podwire.agent.node import Node  # noqa: E402
from podwire.base.aio import cancelling  # noqa: E402
from podwire.base.config import AgentConfig  # noqa: E402
from podwire.bpf.map import NO_PREALLOC, Map, MapType  # noqa: E402
from podwire.client import http  # noqa: E402
from podwire.state.tables import Tables  # noqa: E402

PATH = "/podwire/v1/bpf/ct"
EVERY = 0.002  # s between two looks at the loop


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
        filled(count) as table,
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
