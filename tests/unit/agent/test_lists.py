"""Answers that may be long: sent while they are made, to the end or not closed."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from podwire.agent.server import lists
from podwire.base.aio import eventually
from podwire.base.errors import InvalidObject, KernelError, NotFound, Unreachable
from podwire.client import http
from podwire.client.agent import AgentClient, AsyncAgentClient
from podwire.state.tables import IpcacheRow

Serve = Callable[[Callable[[AsyncAgentClient, Any], Awaitable[None]]], None]
LB = "/podwire/v1/bpf/lb"


def _rows(client: AsyncAgentClient, path: str, **query: str) -> list[Any]:
    """As the command line reads them, which does not use asyncio."""
    return [json.loads(one) for one in AgentClient(client.path).rows(path, **query)]


def test_items_come_one_by_one_and_as_one_list(serve: Serve) -> None:
    async def test(client: AsyncAgentClient, node: Any) -> None:
        node.more = [[], [{"slot": 1}], [{"slot": number} for number in range(2, 700)]]
        rows = await asyncio.to_thread(_rows, client, LB)
        assert [row["slot"] for row in rows] == list(range(700))
        assert rows == await client.get(LB)
        assert [json.loads(one["value"]) for one in (await client.get("/v1/map/lb"))["cache"]] == rows
        assert await client.get("/podwire/v1/bpf/ct") == (await asyncio.to_thread(_rows, client, LB))[1:]
        node.more = []
        assert await client.get("/podwire/v1/bpf/ct") == []
        assert await asyncio.to_thread(_rows, client, "/podwire/v1/bpf/ct") == []
        assert (await client.get("/v1/map/ct"))["cache"] == []

    serve(test)


def test_filters_are_the_agents_to_apply(serve: Serve) -> None:
    async def test(client: AsyncAgentClient, node: Any) -> None:
        await asyncio.to_thread(_rows, client, "/podwire/v1/bpf/ct", address="fd00::/8", port="80")
        await client.get("/v1/map/ct", protocol="tcp")
        assert node.asked == [{"address": "fd00::/8", "port": "80"}, {"protocol": "tcp"}]
        for wrong in ({"port": "x"}, {"colour": "red"}, {"address": "10.0.0.0/64"}):
            with pytest.raises(InvalidObject, match=next(iter(wrong))):
                await asyncio.to_thread(_rows, client, "/podwire/v1/bpf/ct", **wrong)
        with pytest.raises(NotFound, match="endpoint 77"):
            await client.get("/podwire/v1/bpf/ct", endpoint="77")
        with pytest.raises(NotFound, match="no map nothing"):
            await client.get("/podwire/v1/bpf/nothing")

    serve(test)


def test_a_list_that_fails_on_the_way_is_never_taken_for_whole(serve: Serve) -> None:
    def failing() -> Iterator[Any]:
        yield [{"slot": 1}]
        raise KernelError("read map podwire_frontends", 5)

    async def test(client: AsyncAgentClient, node: Any) -> None:
        for ask in (client.get(LB), asyncio.to_thread(_rows, client, LB), client.get("/v1/map/lb")):
            node.more = failing()
            with pytest.raises(Unreachable, match=r"in the middle|no JSON"):
                await ask
        assert node.dumping == 0

    serve(test)


def test_no_more_is_made_than_a_client_takes(serve: Serve) -> None:
    """An endless map, a client that reads a little of it, waits, and leaves."""

    async def test(client: AsyncAgentClient, node: Any) -> None:
        made = itertools.count()
        node.more = ([{"n": next(made), "of": "x" * 10_000}] for _ in itertools.repeat(None))
        reader, writer = await asyncio.open_unix_connection(client.path, limit=20_000)
        writer.write(http.request("GET", LB, {}, {}, None))
        for _ in range(100):
            await reader.readline()
        for _ in range(20):  # others are answered meanwhile, and time passes
            await client.get("/v1/healthz")
        assert node.dumping == 1 and next(made) < 200
        writer.close()
        await eventually(lambda: node.dumping == 0, timeout=5, what="the dump to end with its client")

    serve(test)


def test_who_stops_the_agent_waits_for_no_reader(serve: Serve) -> None:
    """`serve` closes the server in the middle of an endless list; it comes back at once."""
    asking = socket.socket(socket.AF_UNIX)

    async def test(client: AsyncAgentClient, node: Any) -> None:
        node.more = ([{"of": "x" * 10_000}] for _ in itertools.repeat(None))
        asking.connect(client.path)
        asking.sendall(http.request("GET", LB, {}, {}, None))
        assert await asyncio.to_thread(asking.recv, 8) == b"HTTP/1.0"

    with asking:
        serve(test)


def test_a_large_table_is_made_in_slices(serve: Serve) -> None:
    """Another is answered before all of its rows are made: it waits for a slice, not for the table."""

    async def test(client: AsyncAgentClient, node: Any) -> None:
        for number in range(20_000):
            text = f"10.1.{number // 256}.{number % 256}/32"
            node.tables.ipcache.put(IpcacheRow(text, 1234, "remote", namespace="prod", pod=f"p{number}"))
        _, writer = await asyncio.open_unix_connection(client.path)
        for path in ("/podwire/v1/tables/ipcache", "/v1/ip"):
            assert len(await asyncio.to_thread(_rows, client, path)) == 20_001
        writer.write(http.request("GET", "/podwire/v1/tables/ipcache", {}, {}, None))
        assert (await client.get("/v1/healthz"))["cilium"]["state"] == "Ok"
        writer.close()

    serve(test)


def test_slices_end_by_number() -> None:
    async def test() -> None:
        sizes = [len(some) async for some in lists.sliced(iter(range(lists.AT_ONCE * 2 + 1)))]
        assert sum(sizes) == lists.AT_ONCE * 2 + 1 and max(sizes) <= lists.AT_ONCE

    asyncio.run(test())
