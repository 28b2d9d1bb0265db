"""The TCP port of an observer: connections are let in here, and carried to gRPC's own unix socket.

gRPC counts connections but not whose they are, so one client could take all; a `Door` gives each address its
share. TLS is between the client and gRPC: what is carried here is not read.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress

from podwire.base.aio import cancelling
from podwire.base.door import Admission, Door, affordable
from podwire.base.errors import ConfigError

CONNECTIONS = 128  # at once: clients have one each, for all their requests
_PIECE = 1 << 16
_FAREWELL = 5.0  # s for a client to take what was said last


def admission() -> Admission:
    """Places for all clients."""
    return Admission("connections to Hubble", affordable(CONNECTIONS))


def door(listener: socket.socket, server: str, places: Admission) -> Door:
    """Accepts for gRPC, which listens on the unix socket `server`."""

    async def welcome(connection: socket.socket, _: str) -> None:
        await _carry(connection, server)

    return Door([listener], places, welcome)


def listen(address: str) -> socket.socket:
    """Listen on `address` (host:port); who connects waits until there is a door."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, int(port)), family=family, dualstack_ipv6=host == "::")
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {address}: {error.strerror or error}", hint="is the address in use?"
        ) from error


async def _carry(connection: socket.socket, server: str) -> None:
    """Both ways, until gRPC ends the connection: it does when the client has."""
    outer_reader, outer = await asyncio.open_connection(sock=connection)
    try:
        inner_reader, inner = await asyncio.open_unix_connection(server)
        try:
            async with cancelling("carry what a client sends", _copy(outer_reader, inner)):
                await _copy(inner_reader, outer)
            with suppress(TimeoutError):
                async with asyncio.timeout(_FAREWELL):
                    outer.close()
                    await outer.wait_closed()
        finally:
            inner.transport.abort()
    finally:
        outer.transport.abort()


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while piece := await source.read(_PIECE):
        target.write(piece)
        await target.drain()
    if target.can_write_eof():
        target.write_eof()
