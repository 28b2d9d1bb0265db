"""Who starts a keeper when there is none: the guard, control process, relay, agents, or the next command.

The *guard* is a fork of the keeper that waits for the keeper's end and then becomes the next one. The
control process and the relay look too, should both be killed; agents, should all of these be; and
`podwire sandbox up` and `restart-agent`, should nothing but pods be left. The next keeper is a new
interpreter (`successor`), so that it runs the code that is there now; it finds what still runs by its claims
(`children`). The API's listening sockets are handed on where somebody has them.
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
import subprocess
import sys
import time
from pathlib import Path

import podwire
from podwire.base.aio import boundary
from podwire.base.errors import Unreachable
from podwire.sandbox import children, orders
from podwire.sandbox.children import KEEPER
from podwire.sandbox.places import Places
from podwire.sandbox.runner.process import Process, ended

_STARTED = time.time()  # when this process loaded its code
# s that others leave the guard to start the next keeper: it has the sockets already.
SECOND = 1.0
LAST = 2.0  # s that agents leave the others, some of which have the sockets
PATIENCE = 20.0  # s a command waits for a keeper that it started


def words(places: Places, sockets: list[socket.socket], restart: str = "") -> list[str]:
    """The command line of a keeper that takes over; `sockets` are those of the API, to be inherited."""
    command = [sys.executable, "-P", "-m", "podwire.sandbox.successor", places.name]
    command += [f"--socket={one.fileno()}" for one in sockets]
    return command + ([f"--restart={restart}"] if restart else [])


def become(places: Places, sockets: list[socket.socket], restart: str = "") -> None:
    """This process is a new keeper from now on; it does not return. Its children stay its children."""
    for one in sockets:
        one.set_inheritable(True)
    command = words(places, sockets, restart)
    os.execv(command[0], command)


def guard(places: Places, kept: Process, sockets: list[socket.socket]) -> None:
    """Until the keeper `kept` has ended; then be the next one."""
    _until_ended(kept)
    become(places, sockets)


def spawn(places: Places, sockets: list[socket.socket]) -> subprocess.Popen[bytes]:
    """Start a keeper; where another is first, it ends by itself; unpolled, as a zombie."""
    null = subprocess.DEVNULL
    return subprocess.Popen(
        words(places, sockets),
        stdin=null,
        stdout=null,
        stderr=null,
        start_new_session=True,
        pass_fds=[one.fileno() for one in sockets],
    )


async def watch(places: Places, sockets: list[socket.socket]) -> None:
    """Start a keeper whenever there is none, for ever."""
    spawned: list[subprocess.Popen[bytes]] = []
    while True:
        with boundary("looking after the keeper"):
            spawned = [one for one in spawned if one.poll() is None]
            known = children.claimed(places, KEEPER)
            if known is not None:
                await ended(known)
                await asyncio.sleep(SECOND)
            if children.claimed(places, KEEPER) is None:
                spawned.append(spawn(places, sockets))
        await asyncio.sleep(SECOND)


def look(places: Places) -> None:
    """As `watch`, in a thread of a process that has no sockets and does something else."""
    spawned: list[subprocess.Popen[bytes]] = []
    while True:
        with boundary("looking after the keeper"):
            spawned = [one for one in spawned if one.poll() is None]
            known = children.claimed(places, KEEPER)
            if known is not None:
                _until_ended(known)
                time.sleep(LAST)
            if children.claimed(places, KEEPER) is None:
                spawned.append(spawn(places, []))
        time.sleep(LAST)


def _until_ended(one: Process) -> None:
    try:
        fd = os.pidfd_open(one.pid)
    except ProcessLookupError:
        return
    try:
        if one.alive:
            waiting = select.poll()  # unlike select, for descriptors of any number
            waiting.register(fd, select.POLLIN)
            waiting.poll()
    finally:
        os.close(fd)


def revive(places: Places) -> None:
    """Have a keeper, started now if there is none. Unreachable if it does not come."""
    deadline = time.monotonic() + PATIENCE
    if children.claimed(places, KEEPER) is None:
        spawn(places, [])
    while orders.ask(places, {"do": "status"}) is None:
        if time.monotonic() > deadline:
            raise Unreachable(
                f"sandbox “{places.name}” has no keeper, and a new one does not come",
                hint=f"see {places.logs}/keeper.log",
            )
        time.sleep(0.02)


def outdated() -> bool:
    """Whether the code is newer than what this process loaded."""
    folder = Path(podwire.__file__).parent
    newest = max(path.stat().st_mtime for kind in ("*.py", "*.so") for path in folder.rglob(kind))
    return newest > _STARTED


def server_of(kubeconfig: Path) -> str:
    """The URL in a kubeconfig; empty where there is none."""
    try:
        lines = kubeconfig.read_text().splitlines()
    except OSError:
        return ""
    return next((line.split("server:")[1].strip() for line in lines if "server:" in line), "")
