"""A door over real sockets: who floods is refused, and no descriptor left is no end."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
from contextlib import ExitStack
from pathlib import Path

from tests.patience import within

from podwire.base.aio import eventually
from podwire.base.door import Admission, Door


async def echo(connection: socket.socket, _: str) -> None:
    reader, writer = await asyncio.open_connection(sock=connection)
    writer.write(await reader.readline())
    await writer.drain()
    await reader.read()
    writer.close()


async def answered(client: socket.socket) -> bytes:
    loop = asyncio.get_running_loop()
    try:
        await loop.sock_sendall(client, b"hello\n")
        return await asyncio.wait_for(loop.sock_recv(client, 100), within(10))
    except ConnectionError:
        return b""


def connected(opened: ExitStack, address: tuple[str, int], source: str) -> socket.socket:
    client = opened.enter_context(socket.create_connection(address, source_address=(source, 0)))
    client.setblocking(False)
    return client


def test_a_flood_from_one_address_leaves_others_theirs() -> None:
    async def scenario() -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        address = listener.getsockname()
        places = Admission("guests", 64)
        with ExitStack() as opened:
            async with Door([listener], places, echo):
                flood = [connected(opened, address, "127.0.0.2") for _ in range(100)]
                await eventually(lambda: places.refused == 84, timeout=within(10), what="refusals")
                assert await answered(connected(opened, address, "127.0.0.3")) == b"hello\n"
                assert places.taken == places.favoured_share + 1
                for one in flood:
                    one.close()
                await eventually(lambda: places.taken <= 1, timeout=within(10), what="room again")
                assert await answered(connected(opened, address, "127.0.0.2")) == b"hello\n"
        await eventually(lambda: places.taken == 0, timeout=within(10), what="nobody")

    asyncio.run(scenario())


def test_without_descriptors_it_waits_for_one() -> None:
    async def scenario() -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with ExitStack() as opened:
            clients = [connected(opened, listener.getsockname(), "127.0.0.2") for _ in range(3)]
            free = os.dup(0)
            os.close(free)
            try:
                async with Door([listener], Admission("guests", 64), echo) as door:
                    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
                    await eventually(lambda: door.exhausted >= 2, timeout=within(10), what="another try")
                    assert door.exhausted < 100  # it does not spin
                    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
                    assert [await answered(one) for one in clients] == [b"hello\n"] * 3
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    asyncio.run(scenario())


def test_what_fails_for_one_connection_is_its_own_failure() -> None:
    async def scenario() -> None:
        async def welcome(connection: socket.socket, client: str) -> None:
            if client == "127.0.0.2":
                raise ZeroDivisionError("nobody thought of this")
            await echo(connection, client)

        listener = socket.create_server(("127.0.0.1", 0))
        places = Admission("guests", 64)
        with ExitStack() as opened:
            async with Door([listener], places, welcome):
                assert await answered(connected(opened, listener.getsockname(), "127.0.0.2")) == b""
                assert await answered(connected(opened, listener.getsockname(), "127.0.0.3")) == b"hello\n"
                assert places.taken == 1

    asyncio.run(scenario())


def test_clients_of_a_unix_socket_are_of_this_machine(tmp_path: Path) -> None:
    async def scenario() -> None:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(tmp_path / "door"))
        places = Admission("guests", 64)
        async with Door([listener], places, echo):
            with socket.socket(socket.AF_UNIX) as client:
                client.setblocking(False)
                await asyncio.get_running_loop().sock_connect(client, str(tmp_path / "door"))
                assert await answered(client) == b"hello\n"

    asyncio.run(scenario())


def test_a_client_has_one_share_by_either_kind_of_listener() -> None:
    """IPv4 on a socket for both families is shown as an IPv6 address."""

    async def scenario() -> None:
        listeners = [
            socket.create_server(("127.0.0.1", 0)),
            socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True),
        ]
        places = Admission("guests", 64)
        with ExitStack() as opened:
            async with Door(listeners, places, echo):
                for number in range(places.favoured_share + 2):
                    address = ("127.0.0.1", listeners[number % 2].getsockname()[1])
                    connected(opened, address, "127.0.0.2")
                await eventually(lambda: places.refused == 2, timeout=within(10), what="refusals")
                assert places.taken == places.favoured_share

    asyncio.run(scenario())
