"""exec and port-forward: processes and connections inside pods, as `PodRuntime` wants them."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import socket
import struct
import subprocess
import termios
from collections.abc import AsyncIterator
from pathlib import Path

from podwire.apiserver.streams import STDERR, STDOUT
from podwire.base.aio import Channel, Supervised
from podwire.base.errors import Unreachable
from podwire.net import namespaces
from podwire.sandbox.runner.process import Process, process, readable, writable

PIECE = 64 << 10


class ExecProcess:
    """A command that runs in a container, with pipes or a terminal."""

    def __init__(self, words: list[str], environment: dict[str, str], *, stdin: bool, tty: bool) -> None:
        self.tty = tty
        self._stdin: int | None = None
        self._outputs: list[tuple[int, int]] = []
        if tty:
            self._child = self._with_terminal(words, environment)
        else:
            self._child = self._with_pipes(words, environment, stdin)
        self._process = process(self._child.pid)

    def _with_terminal(self, words: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
        ours, theirs = os.openpty()
        try:
            child = subprocess.Popen(
                words, env=environment | {"TERM": "xterm"}, stdin=theirs, stdout=theirs, stderr=theirs
            )
        finally:
            os.close(theirs)
        os.set_blocking(ours, False)
        self._stdin, self._outputs = ours, [(STDOUT, ours)]
        return child

    def _with_pipes(
        self, words: list[str], environment: dict[str, str], stdin: bool
    ) -> subprocess.Popen[bytes]:
        source = subprocess.PIPE if stdin else subprocess.DEVNULL
        child = subprocess.Popen(
            words, env=environment, stdin=source, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert child.stdout and child.stderr
        # The descriptors are kept, the file objects around them are not.
        self._outputs = [(STDOUT, os.dup(child.stdout.fileno())), (STDERR, os.dup(child.stderr.fileno()))]
        if child.stdin:
            self._stdin = os.dup(child.stdin.fileno())
        for one in (child.stdin, child.stdout, child.stderr):
            if one:
                one.close()
        for fd in [fd for _, fd in self._outputs] + ([self._stdin] if self._stdin is not None else []):
            os.set_blocking(fd, False)
        return child

    async def write_stdin(self, data: bytes) -> None:
        while data:
            if self._stdin is None:
                raise BrokenPipeError
            try:
                data = data[os.write(self._stdin, data) :]
            except BlockingIOError:
                await writable(self._stdin)

    async def close_stdin(self) -> None:
        if self._stdin is None:
            return
        if self.tty:
            await self.write_stdin(b"\x04")
        else:
            os.close(self._stdin)
        self._stdin = None

    async def resize(self, columns: int, rows: int) -> None:
        if self.tty:
            size = struct.pack("HHHH", rows, columns, 0, 0)
            fcntl.ioctl(self._outputs[0][1], termios.TIOCSWINSZ, size)

    async def output(self) -> AsyncIterator[tuple[int, bytes]]:
        pieces: Channel[tuple[int, bytes]] = Channel(16)
        async with Supervised("output of a command") as group:
            readers = [group.once(f"stream {kind}", _pump(kind, fd, pieces)) for kind, fd in self._outputs]
            group.once("end of output", _close_after(readers, pieces))
            async for piece in pieces:
                yield piece

    async def wait(self) -> int:
        await _ended(self._child, self._process)
        return self._child.returncode if self._child.returncode >= 0 else 128 - self._child.returncode

    async def close(self) -> None:
        if self._child.poll() is None:
            # podwire-init hands SIGHUP on; what survives it ends with podwire-init itself.
            self._process.signal(signal.SIGHUP)
            try:
                async with asyncio.timeout(1):
                    await _ended(self._child, self._process)
            except TimeoutError:
                self._process.signal(signal.SIGKILL)
                await _ended(self._child, self._process)
        for fd in {fd for _, fd in self._outputs} | ({self._stdin} if self._stdin is not None else set()):
            os.close(fd)
        self._outputs, self._stdin = [], None


async def _ended(child: subprocess.Popen[bytes], known: Process) -> None:
    while child.poll() is None:
        fd = os.pidfd_open(child.pid)
        try:
            await readable(fd)
        finally:
            os.close(fd)


async def _pump(kind: int, fd: int, pieces: Channel[tuple[int, bytes]]) -> None:
    while True:
        try:
            data = os.read(fd, PIECE)
        except BlockingIOError:
            await readable(fd)
            continue
        except OSError:
            return  # a terminal whose other side is gone
        if not data:
            return
        await pieces.send((kind, data))


async def _close_after(readers: list[asyncio.Task[None]], pieces: Channel[tuple[int, bytes]]) -> None:
    await asyncio.wait(readers)
    pieces.close()


class PortConnection:
    """One TCP connection into a pod, made inside its network namespace."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, netns: Path, port: int, *, ipv6: bool) -> PortConnection:
        hosts = [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
        problem = ""
        for family, host in reversed(hosts) if ipv6 else hosts:
            sock = namespaces.open_socket(str(netns), family)
            sock.setblocking(False)
            try:
                await asyncio.get_running_loop().sock_connect(sock, (host, port))
            except OSError as error:
                sock.close()
                problem = problem or f"{error.strerror or error}"
                continue
            return cls(*await asyncio.open_connection(sock=sock))
        raise Unreachable(f"nothing in the pod answers on port {port}: {problem}")

    async def read(self) -> bytes:
        try:
            return await self._reader.read(PIECE)
        except ConnectionError:
            return b""

    async def write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def close_write(self) -> None:
        if self._writer.can_write_eof():
            self._writer.write_eof()

    async def close(self) -> None:
        self._writer.close()
