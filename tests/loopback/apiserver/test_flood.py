"""One client cannot shut the others out, by however many connections or by silence."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from tests.patience import within

from podwire.apiserver import ApiServer, ServerConfig, connections, content
from podwire.base.aio import cancelling, eventually
from podwire.base.door import Admission
from podwire.kube.credentials import Access

MAPS = "/api/v1/namespaces/default/configmaps"
HELLO = b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n"
Connected = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Clients:
    """Clients of one server, each with an address of its own."""

    def __init__(self, server: ApiServer, opened: AsyncExitStack) -> None:
        self.server, self._opened = server, opened
        self._connected: list[Connected] = []  # asyncio closes a stream that nobody holds
        self.tls = ssl.create_default_context(cadata=server.authority.pem.decode())

    async def connect(self, source: str, *, tls: bool = True, known: bool = False) -> Connected:
        host, port = self.server.url.removeprefix("https://").split(":")
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)  # what is not read comes to a halt
        sock.setblocking(False)
        sock.bind((source, 0))
        await asyncio.get_running_loop().sock_connect(sock, (host, int(port)))
        given: dict[str, Any] = {"server_hostname": host} if tls else {}
        context = self.access().tls() if known else self.tls
        reader, writer = await asyncio.open_connection(sock=sock, ssl=context if tls else None, **given)
        self._opened.callback(writer.transport.abort)
        self._connected.append((reader, writer))
        return reader, writer

    def access(self) -> Access:
        given = self.server.authority.client("anna", ("system:masters",))
        return Access(self.server.url, self.server.authority.pem, given.certificate, given.key)

    def known(self, source: str) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(ssl=self.access().tls(), local_addr=(source, 0))
        return aiohttp.ClientSession(self.server.url, connector=connector)


@contextlib.asynccontextmanager
async def serving(directory: Path, most: int = 64, silent: int = 64) -> AsyncIterator[Clients]:
    server = ApiServer(ServerConfig(directory=directory))
    server.silent = Admission("silent connections", most, share=silent)
    server.admission = Admission("connections to the API server", most)
    await server.start()
    try:
        async with AsyncExitStack() as opened:
            yield Clients(server, opened)
    finally:
        await server.stop()


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await asyncio.wait_for(work(), within(60))

    asyncio.run(main())


async def answered(connection: Connected) -> bool:
    reader, writer = connection
    writer.write(HELLO)
    return b" 200 " in await reader.readline()


async def closed(reader: asyncio.StreamReader) -> bool:
    try:
        return await reader.read() == b""
    except (ConnectionError, ssl.SSLError):
        return True  # as well


@pytest.mark.parametrize("tls", [True, False], ids=["idle after the handshake", "no handshake"])
def test_a_flood_from_one_address_leaves_room_for_others(tmp_path: Path, tls: bool) -> None:
    async def work() -> None:
        async with serving(tmp_path) as clients:
            places = clients.server.admission
            for _ in range(places.favoured_share):
                await clients.connect("127.0.0.2", tls=tls)
            await eventually(
                lambda: places.taken == places.favoured_share,
                timeout=within(10),
                what="the share to be taken",
            )
            for _ in range(8):
                with contextlib.suppress(OSError):
                    reader, _ = await clients.connect("127.0.0.2", tls=tls)
                    assert await closed(reader)
            assert places.refused == 8 and places.taken == places.favoured_share
            assert await answered(await clients.connect("127.0.0.3"))

    run(work)


def test_places_are_given_back(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(tmp_path) as clients:
            places = clients.server.admission
            held = [
                await clients.connect("127.0.0.2", tls=bool(number % 2))
                for number in range(places.favoured_share)
            ]
            for _, writer in held:
                writer.close()
            await eventually(lambda: places.taken == 0, timeout=within(10), what="nobody")
            assert await answered(await clients.connect("127.0.0.2"))

    run(work)


def test_silence_ends_a_connection_but_not_a_watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HANDSHAKE", "HEAD", "IDLE", "ANSWER"):
        monkeypatch.setattr(connections, name, 0.2)
    monkeypatch.setattr(content, "SLOWEST", 0.2)

    async def work() -> None:
        async with (
            serving(tmp_path) as clients,
            clients.known("127.0.0.3") as session,
            session.get(f"{MAPS}?watch=true") as watch,
        ):
            silent, _ = await clients.connect("127.0.0.2", tls=False)
            mute, _ = await clients.connect("127.0.0.2")
            slow, writer = await clients.connect("127.0.0.2")
            writer.write(HELLO[:-2])  # a head without its end
            kept = await clients.connect("127.0.0.2")
            assert await answered(kept)
            assert await closed(silent) and await closed(mute) and await closed(slow)
            await kept[0].read()
            await eventually(
                lambda: clients.server.admission.taken == 1, timeout=within(10), what="the watch alone"
            )
            made = {"metadata": {"name": "made"}}
            async with session.post(MAPS, json=made) as response:
                assert response.status == 201
            while (event := msgspec.json.decode(await watch.content.readline()))["type"] != "ADDED" or (
                event["object"]["metadata"]["name"] != "made"
            ):
                pass

    run(work)


def test_a_head_that_comes_byte_by_byte_is_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte is no new time, in the first request nor in a later one."""
    monkeypatch.setattr(connections, "HEAD", 0.3)

    async def work() -> None:
        async with serving(tmp_path) as clients:
            for first in (True, False):
                reader, writer = await clients.connect("127.0.0.2")
                if not first:
                    assert await answered((reader, writer))
                    assert (await reader.readuntil(b"\r\n\r\n")).endswith(b"\r\n\r\n")
                    assert await reader.readexactly(2) == b"ok"

                writer.write(HELLO[:-2] + b"X: ")

                async def drip(writer: asyncio.StreamWriter) -> None:
                    while True:
                        writer.write(b"G")
                        await asyncio.sleep(0.02)  # slower than a head, faster than any silence

                async with cancelling("drip", drip(writer)):
                    assert await closed(reader)

    run(work)


def test_a_head_that_came_while_the_process_stood_still_is_not_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEAD", 0.1)

    async def work() -> None:
        async with serving(tmp_path) as clients:
            for number in range(5):
                connection = await clients.connect("127.0.0.2")
                served = clients.server._runner
                assert served is not None and served.server is not None
                while len(served.server.connections) <= number:
                    await asyncio.sleep(0)  # until the server has it
                connection[1].write(HELLO)
                time.sleep(0.2)  # the loop of both stands still
                assert b" 200 " in await connection[0].readline()

    run(work)


def test_a_body_that_does_not_come_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content, "SLOWEST", 0.2)

    async def work() -> None:
        async def never() -> AsyncIterator[bytes]:
            yield b"{"
            await asyncio.get_running_loop().create_future()

        async with (
            serving(tmp_path) as clients,
            clients.known("127.0.0.2") as session,
            session.post(MAPS, data=never()) as response,
        ):
            body: Any = await response.json()
            assert (response.status, body["reason"]) == (408, "Timeout")

    run(work)


@pytest.mark.parametrize(
    ("packed", "encoding", "status", "reason"),
    [
        (gzip.compress(b" " * (64 << 20)), "gzip", 413, "RequestEntityTooLarge"),
        (gzip.compress(b"{}")[:-4], "gzip", 400, "BadRequest"),
        (b"no gzip", "gzip", 400, "BadRequest"),
        (b"{}", "br", 415, "UnsupportedMediaType"),
    ],
    ids=["bomb", "cut", "garbage", "unknown"],
)
def test_a_packed_body_is_unpacked_so_far_and_no_further(
    tmp_path: Path, packed: bytes, encoding: str, status: int, reason: str
) -> None:
    async def work() -> None:
        headers = {"Content-Encoding": encoding, "Content-Type": "application/json"}
        async with serving(tmp_path) as clients, clients.known("127.0.0.2") as session:
            async with session.post(MAPS, data=packed, headers=headers) as response:
                body: Any = await response.json()
                assert (response.status, body["reason"]) == (status, reason)
            good = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "packed"}}
            raw = gzip.compress(json.dumps(good).encode())
            headers["Content-Encoding"] = "gzip"
            async with session.post(MAPS, data=raw, headers=headers) as response:
                assert response.status == 201

    run(work)


def test_who_does_not_read_an_answer_loses_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "ANSWER", 0.3)

    async def work() -> None:
        async with serving(tmp_path) as clients:
            server = clients.server
            kind = server.objects.kind("configmaps")
            for number in range(16):
                body = {"metadata": {"name": f"m{number}"}, "data": {"text": "x" * 900_000}}
                server.objects.create(kind, "default", body)
            reader, writer = await clients.connect("127.0.0.2", known=True)
            writer.write(HELLO.replace(b"/readyz", MAPS.encode()))
            assert b" 200 " in await reader.readline()
            await eventually(lambda: server.admission.taken == 0, timeout=within(10), what="nobody")

    run(work)


@pytest.mark.parametrize("tls", [True, False], ids=["idle after the handshake", "no handshake"])
def test_silent_connections_of_one_client_are_few(tmp_path: Path, tls: bool) -> None:
    """All of loopback is one client; who has asked for something is silent no more."""

    async def work() -> None:
        async with serving(tmp_path, most=1024, silent=8) as clients:
            silent = clients.server.silent
            for _ in range(20):
                assert await answered(await clients.connect("127.0.0.2"))
            assert silent.taken == silent.refused == 0
            for number in range(8):
                await clients.connect(f"127.0.0.{2 + number}", tls=tls)
            await eventually(lambda: silent.taken == 8, timeout=within(10), what="all to be silent")
            with contextlib.suppress(OSError):
                reader, _ = await clients.connect("127.0.9.9", tls=tls)
                assert await closed(reader)
            assert silent.refused == 1 and clients.server.admission.refused == 0
        await eventually(lambda: silent.taken == 0, timeout=within(10), what="all to be given back")

    run(work)


def test_what_is_silent_costs_few_places_by_default() -> None:
    silent, places = connections.silence(), connections.admission(())
    assert silent.share == silent.favoured_share <= places.share // 4
