"""An API to talk to, for the tests of this folder."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from podwire.apiserver import ApiServer, ServerConfig
from podwire.kube import Client
from podwire.kube import resources as known

Object = dict[str, Any]
MAPS = known.CONFIG_MAPS


def config_map(name: str, **data: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default"},
        "data": data,
    }


@asynccontextmanager
async def serving(directory: Path, port: int = 0) -> AsyncIterator[ApiServer]:
    server = ApiServer(ServerConfig(directory=directory, port=port))
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


def with_client(directory: Path, work: Callable[[Client, ApiServer], Awaitable[None]]) -> None:
    async def main() -> None:
        async with (
            serving(directory) as server,
            Client.from_kubeconfig(directory / "admin.kubeconfig") as client,
        ):
            await work(client, server)

    asyncio.run(main())


@asynccontextmanager
async def answering(*texts: str) -> AsyncIterator[str]:
    """The address of a server that answers with each of `texts` in turn, the last one again and again."""
    asked = 0

    async def answer(_: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        return web.Response(text=texts[min(asked, len(texts)) - 1])

    async with responding(answer) as address:
        yield address


@asynccontextmanager
async def responding(answer: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[str]:
    """The address of a server that answers each GET as `answer` does."""
    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
