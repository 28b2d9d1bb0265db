"""Very many connections in a kernel map, asked for over the agent's socket by `podwire`.

Memory is what the kernel says of processes; that nobody waits is the limit of a callback, and that
others are answered between two rows.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.packets.doors.connections import filled
from tests.slowcallbacks import slow_callbacks

from podwire.abi import structs
from podwire.agent import server
from podwire.agent.node import Node
from podwire.base.aio import cancelling
from podwire.base.config import AgentConfig
from podwire.bpf.map import NO_PREALLOC, Map, MapType
from podwire.client.agent import AsyncAgentClient
from podwire.state.tables import Tables

LOOP_HELD = 0.02  # s
ROOM = 40 << 20  # bytes that a dump may need, of the agent or of the client, however much there is


@pytest.fixture
def overflow() -> Iterator[Map[Any, Any]]:
    with Map.create(MapType.HASH, "test_ov", structs.CtKey, structs.CtEntry, 1, NO_PREALLOC) as empty:
        yield empty


def node_of(table: Any, overflow: Any, run_dir: Path) -> Node:
    """The agent's own answers, over this one map."""
    maps = {"podwire_conntrack": table, "podwire_ct_overflow": overflow}
    config = AgentConfig(node_name="n1", run_dir=str(run_dir))
    kernel = SimpleNamespace(config=config, programs=SimpleNamespace(maps=maps))
    stages: Any = SimpleNamespace(kernel=kernel, tables=Tables())
    return Node(stages)


def memory_of(what: str, process: int | str = "self") -> int:
    """Bytes of a process: VmRSS now, VmHWM at most since it began, or since `at_most_from_now`."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == what:
            return int(value.split()[0]) << 10
    raise LookupError(what)


def at_most_from_now() -> None:
    Path("/proc/self/clear_refs").write_text("5")


async def podwire(socket: str, *arguments: str) -> tuple[int, int, str, str]:
    """(lines, memory at most, first and last line) of a command; what it prints is counted, not kept."""
    command = [sys.executable, "-m", "podwire.cli", "bpf", "ct", "list", "--socket", socket, *arguments]

    def run() -> tuple[int, int, str, str]:
        lines, memory, first, last = 0, 0, "", ""
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                first, last = first or line, line
                lines += 1
                if lines % 500 == 1:
                    memory = memory_of("VmHWM", process.pid)
        assert process.returncode == 0
        return lines, memory, first, last

    return await asyncio.to_thread(run)


@pytest.mark.parametrize(
    ("count", "filters", "shown"), [(65_536, (), 65_536), (1_000_000, ("--port", "443"), 1000)]
)
@pytest.mark.timeout(300)
def test_very_many_connections_in_bounded_memory_and_nobody_waits(
    count: int, filters: tuple[str, ...], shown: int, overflow: Map[Any, Any], tmp_path: Path
) -> None:
    async def run(node: Node) -> None:
        async with server.listening(node, Path(node.config.socket)):
            other = AsyncAgentClient(node.config.socket)
            before = memory_of("VmRSS")
            at_most_from_now()
            async with cancelling("dump", podwire(node.config.socket, *filters, "-o", "json")) as asked:
                answers = 0
                while not asked.done():
                    await other.get("/podwire/v1/tables")
                    answers += 1
                lines, client, first, last = await asked
            assert (lines, first, last) == (shown + 2, "[\n", "]\n")
            assert answers > 5
            assert memory_of("VmHWM") - before < ROOM
            assert client < ROOM + (40 << 20)  # an interpreter with its modules has that

    with filled(count) as table, slow_callbacks(LOOP_HELD) as slow:
        asyncio.run(run(node_of(table, overflow, tmp_path)))
    assert not slow


def test_a_filter_finds_the_few_among_very_many(overflow: Map[Any, Any], tmp_path: Path) -> None:
    async def run(node: Node) -> None:
        async with server.listening(node, Path(node.config.socket)):
            client = AsyncAgentClient(node.config.socket)
            found = await client.get("/podwire/v1/bpf/ct", port="443")
            assert len(found) == 66 and {row["remote"].rpartition(":")[2] for row in found} == {"443"}
            (one,) = await client.get("/podwire/v1/bpf/ct", address="10.0.1.2")
            assert one["remote"] == "10.0.1.2:80" and json.dumps(one)
            assert len(await client.get("/podwire/v1/bpf/ct", address="10.0.7.0/24")) == 256
            assert await client.get("/podwire/v1/bpf/ct", address="fd00::/8") == []

    with filled(65_536) as table, slow_callbacks(LOOP_HELD) as slow:
        asyncio.run(run(node_of(table, overflow, tmp_path)))
    assert not slow
