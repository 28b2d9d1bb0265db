"""Processes of pods: started through podwire-init, told apart by pid and start time, waited for by pidfd.

A pid alone may be somebody else's by the time it is used. Whoever started a container may have
died since; a pidfd tells the end of any process, also of one that is not a child.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from podwire.base.errors import PodwireError

OUTPUT_MAX = 64 << 10


class ProcessError(PodwireError):
    """podwire-init could not do what it was asked; the message is its own."""


class Process(msgspec.Struct, frozen=True):
    """A process: its pid and when it started, in clock ticks since boot."""

    pid: int
    started: int

    @property
    def alive(self) -> bool:
        return start_time(self.pid) == self.started

    def signal(self, number: int) -> None:
        """Send a signal; nothing happens where the process has ended."""
        try:
            fd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        try:
            if self.alive:
                signal.pidfd_send_signal(fd, number)
        except ProcessLookupError:
            return
        finally:
            os.close(fd)


def process(pid: int) -> Process:
    """The process that has `pid` now; a start time of 0 is that of one that has ended."""
    return Process(pid, start_time(pid) or 0)


def start_time(pid: int) -> int | None:
    """Field 22 of /proc/<pid>/stat; None where there is no such process or only its remains."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat[stat.rindex(")") + 2 :].split()
    return None if fields[0] in "ZX" else int(fields[19])


async def ended(process: Process) -> None:
    """Until `process` has ended; reaps it if it is ours."""
    try:
        fd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        if start_time(process.pid) not in (process.started, None):
            return
        await readable(fd)
    finally:
        os.close(fd)
    reap(process.pid)


def reap(pid: int) -> None:
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return


async def readable(fd: int) -> None:
    """Until `fd` has something to read (or is at its end)."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    loop.add_reader(fd, lambda: None if future.done() else future.set_result(None))
    try:
        await future
    finally:
        loop.remove_reader(fd)


async def writable(fd: int) -> None:
    """Until something can be written to `fd`."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    loop.add_writer(fd, lambda: None if future.done() else future.set_result(None))
    try:
        await future
    finally:
        loop.remove_writer(fd)


async def ask(
    command: Sequence[str],
    environment: Mapping[str, str] | None = None,
    stdin: int = subprocess.DEVNULL,
) -> tuple[int, str]:
    """Run podwire-init, which prints and goes on or ends: (its pid, what it printed).

    Returns at the end of its output. ProcessError carries its error line if it printed none.
    """
    child = subprocess.Popen(
        command,
        env=None if environment is None else dict(environment),
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert child.stdout and child.stderr
    with child.stdout, child.stderr:
        output = await read_all(child.stdout.fileno())
        error = b"" if output else await read_all(child.stderr.fileno())
    if not output:
        child.wait()
        raise ProcessError(error.decode(errors="replace").strip() or f"{command[0]} ended without a word")
    return child.pid, output.decode()


async def read_all(fd: int) -> bytes:
    """Everything until the end of a pipe, at most `OUTPUT_MAX` bytes."""
    os.set_blocking(fd, False)
    found = bytearray()
    while len(found) < OUTPUT_MAX:
        try:
            piece = os.read(fd, OUTPUT_MAX)
        except BlockingIOError:
            await readable(fd)
            continue
        if not piece:
            break
        found += piece
    return bytes(found)
