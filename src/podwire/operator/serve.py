"""The operator's metrics and its being alive, over HTTP."""

from __future__ import annotations

import asyncio

from aiohttp import web

from podwire.base.errors import NetworkError
from podwire.base.telemetry import Metrics


async def run(metrics: Metrics, host: str, port: int) -> None:
    """``/metrics`` and ``/healthz`` at an address, for ever."""

    async def values(_: web.Request) -> web.Response:
        return web.Response(text=metrics.text(), headers={"Content-Type": "text/plain; version=0.0.4"})

    async def alive(_: web.Request) -> web.Response:
        return web.Response(text="ok")  # who waits for the lease is as well as who has it

    app = web.Application()
    app.router.add_get("/metrics", values)
    app.router.add_get("/healthz", alive)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        await asyncio.get_running_loop().create_future()
    except OSError as error:
        problem = f"cannot serve metrics at {host}:{port}: {error.strerror}"
        raise NetworkError(problem, hint="choose another --metrics address") from error
    finally:
        await runner.cleanup()
