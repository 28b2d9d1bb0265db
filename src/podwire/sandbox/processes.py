"""What the keeper runs: the real control process and the real agent, imported only there."""

from __future__ import annotations

import asyncio
import importlib
import socket
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from podwire.base.aio import Supervised
from podwire.sandbox.keeper import Work
from podwire.sandbox.places import Places
from podwire.sandbox.plan import Plan
from podwire.sandbox.runner.process import Process

AGENT = "podwire.agent.__main__"
RELAY = "podwire.hubble.relay"


def work() -> Work:
    """The processes of a sandbox."""
    return Work(_common, _control, _warm, _agent, _relay, _guard, _look, _renew, _outdated)


def _control(plan: Plan, places: Places, sockets: list[socket.socket], progress: int | None) -> None:
    from podwire.sandbox import control

    control.main(plan, places, sockets, progress)


def _common() -> None:
    for module in ("asyncio", "aiohttp.web", "yaml", "podwire.kube"):
        importlib.import_module(module)


def _warm() -> None:
    importlib.import_module(AGENT)
    importlib.import_module(RELAY)


def _agent(config: Path) -> None:
    importlib.import_module(AGENT).main(["--config", str(config)])


def _relay(nodes: list[tuple[str, str]], places: Places, sockets: list[socket.socket]) -> None:
    from podwire.hubble.relay import Peer, Relay
    from podwire.hubble.rpc import Address

    relay = Relay([Peer(name, target) for name, target in nodes], Address(socket=str(places.hubble)))
    asyncio.run(_beside_keeper(relay.run(), places, sockets))


async def _beside_keeper(
    work: Coroutine[Any, Any, None], places: Places, sockets: list[socket.socket]
) -> None:
    """`work`, and the third look after the keeper; it holds the API's sockets for that alone."""
    from podwire.sandbox import succession

    async with Supervised("relay") as group:
        group.start("relay", work)
        group.start("watch the keeper", succession.watch(places, sockets))
        await group.wait()


def _guard(places: Places, kept: Process, sockets: list[socket.socket]) -> None:
    from podwire.sandbox import succession

    succession.guard(places, kept, sockets)


def _look(places: Places) -> None:
    """The last look after the keeper, beside an agent: a thread, for an agent's tasks know no sandbox."""
    from podwire.sandbox import succession

    threading.Thread(
        target=succession.look, args=(places,), name="look after the keeper", daemon=True
    ).start()


def _renew(places: Places, sockets: list[socket.socket], restart: str) -> None:
    from podwire.sandbox import succession

    succession.become(places, sockets, restart)


def _outdated() -> bool:
    from podwire.sandbox import succession

    return succession.outdated()
