"""Containers that somebody may type into: `stdin: true`, with or without `tty: true`.

The control process holds the other side. With a terminal it also writes the log, and gives what
comes to whoever is attached; a control process that is started anew has lost it, and the
container sees its input end.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import struct
import subprocess
import termios
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path

from podwire.apiserver.streams import STDOUT
from podwire.base.aio import Channel
from podwire.sandbox.runner.process import Process, ended, readable, writable

PIECE = 64 << 10
LINE_MAX = 16 << 10  # bytes of a line in a log, as podwire-init writes them
UNREAD = 256  # pieces an attached client may be behind before it loses the oldest


class Input:
    """The writing side of a container's standard input; `theirs` is the other, for its start."""

    def __init__(self, *, tty: bool) -> None:
        self.tty = tty
        self._ours: int | None
        if tty:
            self._ours, self.theirs = os.openpty()
        else:
            self.theirs, self._ours = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._ours, False)
        self._readers: list[Channel[bytes]] = []
        self._line = b""  # what came since the last end of a line, for who attaches now

    def started(self) -> None:
        """The container has its side: ours is the only copy left here."""
        os.close(self.theirs)

    async def write(self, data: bytes) -> None:
        while data:
            if self._ours is None:
                raise BrokenPipeError
            try:
                data = data[os.write(self._ours, data) :]
            except BlockingIOError:
                await writable(self._ours)

    def resize(self, columns: int, rows: int) -> None:
        if self.tty and self._ours is not None:
            fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def close(self) -> None:
        if self._ours is not None:
            os.close(self._ours)
            self._ours = None
        for reader in self._readers:
            reader.close()

    async def keep_log(self, path: Path) -> None:
        """Read the terminal until the container has closed it; lines go to the log at `path`."""
        with path.open("ab", buffering=0) as log:
            while self._ours is not None:
                try:
                    data = os.read(self._ours, PIECE)
                except BlockingIOError:
                    await readable(self._ours)
                    continue
                except OSError:
                    break  # the last holder of the other side is gone
                for reader in self._readers:
                    reader.offer(data)
                *lines, self._line = (self._line + data).split(b"\n")
                stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f000Z").encode()
                for line in lines:
                    log.write(stamp + b" stdout F " + line.rstrip(b"\r") + b"\n")
                if len(self._line) > LINE_MAX:  # a line without an end: in parts, as a container's pipe is
                    log.write(stamp + b" stdout P " + self._line + b"\n")
                    self._line = b""
        self.close()

    async def output(self) -> AsyncIterator[tuple[int, bytes]]:
        """What comes from the terminal from now on, and the line it is in."""
        reader: Channel[bytes] = Channel(UNREAD)
        if self._line:
            reader.offer(self._line)
        if self._ours is None:
            reader.close()
        self._readers.append(reader)
        try:
            async for data in reader:
                yield STDOUT, data
        finally:
            self._readers.remove(reader)


def input_of(container: dict[str, object]) -> Input | None:
    """For a container that wants one."""
    if container.get("tty"):
        return Input(tty=True)
    return Input(tty=False) if container.get("stdin") else None


def stdin_of(given: Input | None) -> int:
    return subprocess.DEVNULL if given is None else given.theirs


class Attachment:
    """A client at a container's main process: `lines` is its output where it has no terminal."""

    def __init__(
        self,
        given: Input | None,
        lines: AsyncIterator[tuple[int, bytes]],
        main: Process,
        exit_code: Callable[[], int],
        *,
        once: bool,
    ) -> None:
        self._input, self._lines, self._main, self._exit_code = given, lines, main, exit_code
        self._once = once

    async def write_stdin(self, data: bytes) -> None:
        if self._input is None:
            raise BrokenPipeError
        await self._input.write(data)

    async def close_stdin(self) -> None:
        """`stdinOnce`: the first client's end of input is the container's."""
        if self._input is not None and self._once and not self._input.tty:
            self._input.close()

    async def resize(self, columns: int, rows: int) -> None:
        if self._input is not None:
            self._input.resize(columns, rows)

    def output(self) -> AsyncIterator[tuple[int, bytes]]:
        return self._input.output() if self._input is not None and self._input.tty else self._lines

    async def wait(self) -> int:
        await ended(self._main)
        return self._exit_code()

    async def close(self) -> None:
        return await asyncio.sleep(0)
