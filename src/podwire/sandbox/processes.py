"""What the keeper runs: the real control process and the real agent, imported only there."""

from __future__ import annotations

import importlib
import socket
from pathlib import Path

from podwire.sandbox.keeper import Work
from podwire.sandbox.places import Places
from podwire.sandbox.plan import Plan

AGENT = "podwire.agent.__main__"


def work() -> Work:
    """The processes of a sandbox."""
    return Work(control=_control, warm=_warm, agent=_agent)


def _control(plan: Plan, places: Places, sockets: list[socket.socket], progress: int) -> None:
    from podwire.sandbox import control

    control.main(plan, places, sockets, progress)


def _warm() -> None:
    importlib.import_module(AGENT)


def _agent(config: Path) -> None:
    importlib.import_module(AGENT).main(["--config", str(config)])
