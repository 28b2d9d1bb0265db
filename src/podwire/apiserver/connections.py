"""Connections of clients: how many each may have, and how long it may be silent.

Pods reach this server, known or not. So a place is counted from accept (`base.door`), and one that brings
nothing is given back: the TLS handshake, the head of a request and its body each have their time, and so
has a client to read an answer. What is long by its nature has none: a watch, a log that is followed and a
stream to a pod are answers in progress, and their client has shown who it is.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import ssl
import sys
import termios
from collections.abc import Callable
from typing import Any, cast

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from podwire.base.door import Admission, Door, affordable

CONNECTIONS = 4096  # at once, of all clients
SILENT = 64  # of one client that have not asked for anything yet
HANDSHAKE = 10.0  # s for the TLS handshake
HEAD = 10.0  # s from the first byte of a request (of the first one: from the handshake) to its whole head
_GRACE = 0.5  # s more
IDLE = 120.0  # s between two requests; Go's clients leave a connection after 90
ANSWER = 60.0  # s for a client to read an answer that is written whole


def admission(favoured: tuple[str, ...]) -> Admission:
    """Places for all clients; `favoured` are those whom others must not shut out."""
    return Admission("connections to the API server", affordable(CONNECTIONS), favoured)


def silence() -> Admission:
    """Places for connections that have not asked for anything yet. Each costs some 300 KB (asyncio's buffers
    for TLS are there from the start), and its client nothing: so one may have few."""
    most = affordable(CONNECTIONS)
    return Admission("silent connections to the API server", most, share=max(1, SILENT * most // CONNECTIONS))


def door(
    sockets: list[socket.socket], tls: ssl.SSLContext, server: Server, places: Admission, silent: Admission
) -> Door:
    """Accepts for `server`, and does the handshake."""

    async def welcome(connection: socket.socket, client: str) -> None:
        spoken = silent.enter(_whose(client))
        if spoken is None:
            connection.close()
            return

        def made() -> RequestHandler:
            protocol = server()
            protocol.spoken = spoken
            return protocol

        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                made,
                connection,
                ssl=tls,
                ssl_handshake_timeout=HANDSHAKE,
            )
        except BaseException:
            spoken()
            raise

    return Door(sockets, places, welcome)


def _whose(client: str) -> str:
    """All of 127.0.0.0/8 is one client: whoever is on this machine may take any of those addresses."""
    return "127.0.0.1" if client.startswith("127.") else client


class Server(web.Server):
    """aiohttp's, with connections that end when nothing comes."""

    def __init__(self, handler: Any) -> None:
        super().__init__(handler, handler_cancellation=True)

    def __call__(self) -> Connection:
        # Bodies as they came: a megabyte may unpack to gigabytes, and here that would hold up everybody.
        return Connection(
            self,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=IDLE,
            access_log=None,
            auto_decompress=False,
        )


class Connection(RequestHandler):
    """Between its requests it may be idle for a while; a head that has begun must become whole."""

    __slots__ = ("_answering", "_late", "_reading", "spoken")

    def __init__(self, manager: web.Server, **options: Any) -> None:
        super().__init__(manager, **options)
        self._answering = False
        self.spoken: Callable[[], None] = lambda: None  # called when it asks for something, or ends
        self._late: asyncio.TimerHandle | None = None  # to end it where no head comes
        self._reading: asyncio.TimerHandle | None = None  # to end it where an answer is not read

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._disarm()
        self._forgive()
        self.spoken()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self._answering and self._late is None:
            self._await_head()

    def begin(self) -> None:
        """The head of a request is whole; an answer may take as long as it does."""
        self._answering = True
        self.spoken()
        self._disarm()
        if not self._unsent():
            self._forgive()

    async def finish_response(self, *arguments: Any) -> tuple[web.StreamResponse, bool]:
        if self._reading is None:
            self._reading = asyncio.get_running_loop().call_later(ANSWER, self._judge)
        try:
            finished = await super().finish_response(*arguments)
            # aiohttp would leave what is not sent yet in memory, and take the next request.
            await self._drain_helper()
            return finished
        finally:
            self._answering = False

    def _judge(self) -> None:
        """Long after an answer: its client has read it, or loses it."""
        self._reading = None
        if self._unsent():
            self._abort()

    def _unsent(self) -> int:
        """Bytes that the client's kernel has not taken. None are in asyncio's buffers if there are none here;
        what asyncio says is less, for under TLS it does not count what waits for the socket."""
        if self.transport is None:
            return 0
        queue = fcntl.ioctl(self.transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4))
        return int.from_bytes(queue, sys.byteorder)

    def _await_head(self) -> None:
        self._late = asyncio.get_running_loop().call_later(HEAD, self._overdue)

    def _overdue(self) -> None:
        """Unless it was this process that stood still: what came meanwhile is read first."""
        self._late = asyncio.get_running_loop().call_later(_GRACE, self._abort)

    def _disarm(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _forgive(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    def _abort(self) -> None:
        """Without a farewell, which would have to be waited for."""
        self._late = None
        if self.transport is not None:
            self.transport.abort()


def begun(request: web.BaseRequest) -> None:
    """The head of `request` has come."""
    cast(Connection, request.protocol).begin()
