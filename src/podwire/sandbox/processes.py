"""What the keeper runs: the real control process and the real agent, imported only there."""

from __future__ import annotations

import asyncio
import importlib
import socket
from pathlib import Path

from podwire.sandbox.keeper import Work
from podwire.sandbox.places import Places
from podwire.sandbox.plan import Plan

AGENT = "podwire.agent.__main__"
RELAY = "podwire.hubble.relay"


def work() -> Work:
    """The processes of a sandbox."""
    return Work(common=_common, control=_control, warm=_warm, agent=_agent, relay=_relay)


def _control(plan: Plan, places: Places, sockets: list[socket.socket], progress: int) -> None:
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


def _relay(nodes: list[tuple[str, str]], listen: Path) -> None:
    from podwire.hubble.relay import Peer, Relay
    from podwire.hubble.rpc import Address

    relay = Relay([Peer(name, target) for name, target in nodes], Address(socket=str(listen)))
    asyncio.run(relay.run())
