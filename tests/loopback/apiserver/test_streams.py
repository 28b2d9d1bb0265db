"""Streams to pods over the server's sockets: whatever one of them does, the others and the server go on."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from tests.patience import within

from podwire.apiserver import ApiServer, ServerConfig
from podwire.apiserver.portforward import PROTOCOL
from podwire.apiserver.spdy import DICTIONARY
from podwire.apiserver.streams import ExecStream, PortStream
from podwire.base.aio import Channel, Room, cancelling, eventually
from podwire.base.errors import Unreachable
from podwire.kube.credentials import Access

Object = dict[str, Any]
POD = "/api/v1/namespaces/default/pods/p"
REFUSED, BROKEN = 1, 2  # ports


class Connection:
    """A connection that gives back what it gets."""

    def __init__(self) -> None:
        self._pieces: Channel[bytes] = Channel(16)

    async def read(self) -> bytes:
        return await self._pieces.receive()

    async def write(self, data: bytes) -> None:
        await self._pieces.send(data)

    async def close_write(self) -> None:
        await self._pieces.send(b"")

    async def close(self) -> None:
        return


class Runtime:
    """A pod whose ports echo, refuse or fail, and whose log never ends."""

    async def exec(self, *_: Any, **__: Any) -> ExecStream:
        raise LookupError("nobody thought of this")

    async def attach(self, *_: Any, **__: Any) -> ExecStream:
        raise LookupError("nor of this")

    async def logs(self, *_: Any, **__: Any) -> AsyncIterator[bytes]:
        while True:
            yield b"a line\n"
            await asyncio.sleep(0.01)

    async def port_forward(self, namespace: str, pod: str, port: int) -> PortStream:
        if port == REFUSED:
            raise Unreachable("nothing answers there")
        if port == BROKEN:
            raise LookupError("nobody thought of this")
        return Connection()


def with_pod(directory: Path, work: Callable[[ApiServer, aiohttp.ClientSession], Awaitable[None]]) -> None:
    async def main() -> None:
        server = ApiServer(ServerConfig(directory=directory), Runtime())
        await server.start()
        try:
            spec = {"nodeName": "n1", "containers": [{"name": "c", "image": "busybox"}]}
            body = {"metadata": {"name": "p", "namespace": "default"}, "spec": spec}
            server.objects.create(server.objects.kind("pods"), "default", body)
            credentials = server.authority.client("anna", ("system:masters",))
            access = Access(server.url, server.authority.pem, credentials.certificate, credentials.key)
            connector = aiohttp.TCPConnector(ssl=access.tls())
            async with aiohttp.ClientSession(server.url, connector=connector) as session:
                await asyncio.wait_for(work(server, session), 30)
        finally:
            await server.stop()

    asyncio.run(main())


class Kubectl:
    """The client's side of a port-forward."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket, self._deflate = socket, zlib.compressobj(zdict=DICTIONARY)
        self.got: dict[int, bytes] = {}
        self.over: set[int] = set()  # streams that the server ended or gave up

    async def open(self, stream: int, kind: str, port: int, request: str) -> None:
        headers = {"streamtype": kind, "port": str(port), "requestid": request}
        block = len(headers).to_bytes(4, "big")
        for pair in headers.items():
            block += b"".join(len(text).to_bytes(4, "big") + text.encode() for text in pair)
        packed = self._deflate.compress(block) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
        body = stream.to_bytes(4, "big") + bytes(6) + packed
        await self.socket.send_bytes(
            (0x80000000 | 3 << 16 | 1).to_bytes(4, "big") + b"\0" + len(body).to_bytes(3, "big") + body
        )

    async def send(self, stream: int, data: bytes) -> None:
        await self.socket.send_bytes(stream.to_bytes(4, "big") + b"\0" + len(data).to_bytes(3, "big") + data)

    async def hear(self) -> None:
        async for message in self.socket:
            raw: bytes = message.data
            first, ended, body = int.from_bytes(raw[:4], "big"), raw[4] & 1, raw[8:]
            if not first & 0x80000000:
                self.got[first] = self.got.get(first, b"") + body
                self.over |= {first} if ended else set()
            elif first & 0xFFFF == 3:
                self.over.add(int.from_bytes(body[:4], "big"))


def test_connections_of_one_name_and_connections_that_fail(tmp_path: Path) -> None:
    """The name is the client's; what fails is told on its error stream, and the others go on."""

    async def work(server: ApiServer, session: aiohttp.ClientSession) -> None:
        async with session.ws_connect(f"{POD}/portforward", protocols=(PROTOCOL,)) as socket:
            kubectl = Kubectl(socket)
            async with cancelling("hear", kubectl.hear()):
                for stream in (1, 3):
                    await kubectl.open(stream, "data", 80, "same")
                for stream, port in ((5, REFUSED), (9, BROKEN)):
                    await kubectl.open(stream, "error", port, f"{port}")
                    await kubectl.open(stream + 2, "data", port, f"{port}")
                await eventually(lambda: {5, 9} <= kubectl.over, timeout=10, what="the failures")
                assert b"nothing answers there" in kubectl.got[5]
                assert b"nobody thought of this" in kubectl.got[9]
                for stream in (1, 3):
                    await kubectl.send(stream, b"hello %d" % stream)
                await eventually(
                    lambda: (kubectl.got.get(1), kubectl.got.get(3)) == (b"hello 1", b"hello 3"),
                    timeout=10,
                    what="echoes",
                )
        # Both connections still run: the request ends nevertheless, and with it its room.
        await eventually(lambda: server.remote.room.taken == 0, timeout=10, what="the end of the request")

    with_pod(tmp_path, work)


def test_there_is_an_end_to_the_connections_of_one_client(tmp_path: Path) -> None:
    async def work(server: ApiServer, session: aiohttp.ClientSession) -> None:
        async with session.ws_connect(f"{POD}/portforward", protocols=(PROTOCOL,)) as socket:
            kubectl = Kubectl(socket)
            async with cancelling("hear", kubectl.hear()):
                for number in range(300):
                    await kubectl.open(2 * number + 1, "data", 80, str(number))
                await eventually(lambda: len(kubectl.over) == 300 - 256, timeout=10, what="refusals")

    with_pod(tmp_path, work)


def test_there_is_an_end_to_the_connections_of_all_port_forwards(tmp_path: Path) -> None:
    async def work(server: ApiServer, session: aiohttp.ClientSession) -> None:
        server.remote.forwarded = Room("forwarded connections", 1)
        async with AsyncExitStack() as opened:
            kubectls = []
            for _ in range(2):
                asked = session.ws_connect(f"{POD}/portforward", protocols=(PROTOCOL,))
                kubectls.append(Kubectl(await opened.enter_async_context(asked)))
                await opened.enter_async_context(cancelling("hear", kubectls[-1].hear()))
            first, second = kubectls
            await first.open(1, "data", 80, "one")
            await first.send(1, b"hello")
            await eventually(lambda: first.got.get(1) == b"hello", timeout=within(10), what="an echo")
            await second.open(1, "error", 80, "one")
            await second.open(3, "data", 80, "one")
            await eventually(lambda: 3 in second.over, timeout=within(10), what="a refusal")
            assert b"there are 1 forwarded connections already" in second.got[1]
            await first.send(1, b" again")
            await eventually(lambda: first.got[1] == b"hello again", timeout=within(10), what="an echo")
        await eventually(lambda: server.remote.forwarded.taken == 0, timeout=within(10), what="room")

    with_pod(tmp_path, work)


@pytest.mark.parametrize("what", ["exec?command=x", "attach?stdout=1"])
def test_a_stream_that_fails_does_not_end_the_server(tmp_path: Path, what: str) -> None:
    async def work(server: ApiServer, session: aiohttp.ClientSession) -> None:
        for _ in range(2):
            async with session.ws_connect(f"{POD}/{what}", protocols=("v5.channel.k8s.io",)) as socket:
                message = await socket.receive()
                assert b"Failure" in message.data and b"of this" in message.data
        async with session.get(POD) as response:
            assert response.status == 200
        await eventually(lambda: server.remote.room.taken == 0, timeout=10, what="the end of the request")

    with_pod(tmp_path, work)


def test_when_there_is_no_room_for_a_stream_a_client_is_told(tmp_path: Path) -> None:
    async def work(server: ApiServer, session: aiohttp.ClientSession) -> None:
        server.remote.room = Room("streams to pods", 1)
        server.handlers.room = Room("watches", 1)
        for path, told in (
            (f"{POD}/log?follow=true", "there are 1 streams to pods already; try again later"),
            ("/api/v1/pods?watch=true", "there are 1 watches already; try again later"),
        ):
            async with session.get(path) as first:
                assert (first.status, bool(await first.content.readline())) == (200, True)
                async with session.get(path) as second:
                    body = await second.json()
                assert (second.status, body["reason"], body["message"]) == (429, "TooManyRequests", told)
                first.close()

            async def again(path: str = path) -> bool:
                async with session.get(path) as later:
                    later.close()
                    return later.status == 200

            await eventually(again, timeout=10, what="room again")

    with_pod(tmp_path, work)


def test_the_service_of_the_api_comes_back(tmp_path: Path) -> None:
    async def work(server: ApiServer, session: aiohttp.ClientSession) -> None:
        objects = server.objects
        for resource in ("services", "endpointslices.discovery.k8s.io"):
            objects.delete(objects.kind(resource), "default", "kubernetes")
        async with cancelling("run", server.run()):
            await eventually(
                lambda: objects.find("services", "default", "kubernetes"), timeout=10, what="the Service"
            )
        assert objects.find("endpointslices.discovery.k8s.io", "default", "kubernetes") is not None

    with_pod(tmp_path, work)
