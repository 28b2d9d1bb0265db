"""Handlers of podwire's own paths under /podwire/v1: tables, maps, explanations, events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from aiohttp import web

from podwire.agent.interface import Node
from podwire.agent.server import lists
from podwire.agent.server.routes import NODE, Answer, Route
from podwire.base.aio import paced
from podwire.base.errors import NotFound

MONITOR = "/podwire/v1/monitor"
HEARTBEAT = 5.0  # s between empty lines on a quiet stream, so that a client that left is noticed


async def tables(node: Node, _: web.Request) -> Answer:
    """All tables, in walk order."""
    return Answer(
        [
            {
                "name": one.name,
                "rows": len(one),
                "ready": one.ready,
                "revision": one.revision,
                "help": one.help,
                "waits_for": one.waits_for,
            }
            for one in node.tables
        ]
    )


async def table(node: Node, request: web.Request) -> Answer:
    """The rows of one table."""
    name = request.match_info["name"]
    if name not in node.tables.names():
        raise NotFound(f"there is no table {name[:60]}", hint=f"there are {', '.join(node.tables.names())}")
    return Answer(map(_row, lists.rows(node.tables.named(name))))


async def dump(request: web.Request) -> web.StreamResponse:
    """What a map of the kernel holds: lb, ct, policy or ipcache; `pod`, `address`, `port`, `protocol`,
    `endpoint` filter it."""
    return await lists.send(request, lists.dumped(request), lists.AS_THEY_ARE)


async def explain(node: Node, request: web.Request) -> Answer:
    """Why a flow was allowed or dropped."""
    return Answer(await node.explain(request.match_info["uuid"]))


async def metrics(node: Node, _: web.Request) -> Answer:
    """All metrics, in Prometheus' text format."""
    return Answer(node.metrics().text(), plain=True)


async def monitor(request: web.Request) -> web.StreamResponse:
    """Events as JSON lines until the client leaves."""
    lists.open_ended(request)
    answer = web.StreamResponse(headers={"Content-Type": "application/json-lines"})
    async with request.app[NODE].subscribe_events() as events:
        await answer.prepare(request)
        try:
            async for event in paced(events, HEARTBEAT):
                await answer.write(b"\n" if event is None else _line(event))
        except ConnectionError:
            pass  # the client left
    return answer


def _line(event: Mapping[str, Any]) -> bytes:
    return msgspec.json.encode(event, enc_hook=str) + b"\n"


def _row(row: Any) -> Any:
    """Selectors are shown as people write them."""
    shape = msgspec.to_builtins(row, enc_hook=str)
    if hasattr(row, "selector") and isinstance(shape, dict):
        shape["selector"] = str(row.selector)
    return shape


ROUTES: list[Route] = [
    ("GET", "/podwire/v1/tables", tables),
    ("GET", "/podwire/v1/tables/{name}", table),
    ("GET", "/podwire/v1/explain/{uuid}", explain),
    ("GET", "/podwire/v1/metrics", metrics),
]
