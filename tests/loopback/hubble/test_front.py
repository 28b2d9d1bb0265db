"""An observer's TCP port: one client's flood or silence leaves others theirs, and the unix socket its own."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.patience import within

from podwire.api import health_pb2
from podwire.apiserver.tls import Authority
from podwire.base.aio import cancelling, eventually
from podwire.base.errors import ConfigError
from podwire.hubble import front, rpc
from podwire.hubble.rpc import Address

Health = health_pb2.HealthCheckRequest


class Observer:
    """An observer with the health service alone, on both of its addresses."""

    def __init__(self, folder: Path, *, mutual: bool = False) -> None:
        self.authority = Authority(folder)
        self.places = front.admission()
        self._held: list[object] = []  # asyncio closes a stream that nobody holds
        given = self.authority.server(("localhost",), ("127.0.0.1",))
        (folder / "crt").write_bytes(given.certificate)
        (folder / "key").write_bytes(given.key)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        (folder / "ca").write_bytes(self.authority.pem)
        self.address = Address(
            str(folder / "hubble.sock"),
            f"127.0.0.1:{self.port}",
            str(folder / "crt"),
            str(folder / "key"),
            str(folder / "ca") if mutual else "",
        )

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        async with cancelling("serve", rpc.serve([rpc.health()], self.address, self.places)):
            await eventually(self._listens, timeout=within(10), what="the port")
            yield

    async def _listens(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except ConnectionError:
            return False
        writer.transport.abort()
        return True

    async def healthy(self, target: str = "", *, known: bool = False) -> int:
        """What the health service says; 0 where it says nothing."""
        given = self.authority.client("anna", ())
        pair = (given.key, given.certificate) if known else (None, None)
        credentials = grpc.ssl_channel_credentials(self.authority.pem, *pair)
        made = (
            grpc.aio.insecure_channel(target)
            if target
            else grpc.aio.secure_channel(f"127.0.0.1:{self.port}", credentials)
        )
        async with made as channel:
            check = channel.unary_unary(
                "/grpc.health.v1.Health/Check",
                request_serializer=Health.SerializeToString,
                response_deserializer=health_pb2.HealthCheckResponse.FromString,
            )
            try:
                answer: Any = await check(Health(), timeout=within(10))
            except grpc.aio.AioRpcError as error:
                assert error.code() == grpc.StatusCode.UNAVAILABLE, error
                return 0
            return int(answer.status)

    async def connect(self, opened: AsyncExitStack, tls: bool) -> asyncio.StreamReader:
        context = None
        if tls:
            context = ssl.create_default_context(cadata=self.authority.pem.decode())
            context.set_alpn_protocols(["h2"])
        source = ("127.0.0.2", 0)
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=context, local_addr=source)
        opened.callback(writer.transport.abort)
        self._held.append(writer)
        return reader


@pytest.mark.parametrize("tls", [True, False], ids=["idle after the handshake", "no handshake"])
def test_a_flood_from_one_address_leaves_others_theirs(
    tmp_path: Path, tls: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(front, "CONNECTIONS", 16)
    share = 4

    async def main() -> None:
        observer = Observer(tmp_path)
        async with observer.serving(), AsyncExitStack() as opened:
            held = [await observer.connect(opened, tls) for _ in range(share)]
            try:
                refused = await (await observer.connect(opened, tls)).read()
            except OSError:
                refused = b""  # as well
            assert refused == b"" and observer.places.refused == 1
            assert await observer.healthy() == 1
            assert await observer.healthy(f"unix:{observer.address.socket}") == 1
            assert not any(one.at_eof() for one in held)

    asyncio.run(asyncio.wait_for(main(), within(60)))


def test_a_handshake_that_does_not_come_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rpc, "_BY_TCP", (("grpc.server_handshake_timeout_ms", 200),))

    async def main() -> None:
        observer = Observer(tmp_path)
        async with observer.serving(), AsyncExitStack() as opened:
            assert await (await observer.connect(opened, tls=False)).read() == b""

    asyncio.run(asyncio.wait_for(main(), within(60)))


def test_certificates_of_clients_are_asked_for_through_it(tmp_path: Path) -> None:
    async def main() -> None:
        observer = Observer(tmp_path, mutual=True)
        async with observer.serving():
            assert await observer.healthy(known=True) == 1
            assert await observer.healthy() == 0

    asyncio.run(asyncio.wait_for(main(), within(60)))


def test_an_address_that_is_taken(tmp_path: Path) -> None:
    async def main() -> None:
        observer = Observer(tmp_path)
        with (
            socket.create_server(("127.0.0.1", observer.port)),
            pytest.raises(ConfigError, match="cannot listen on 127"),
        ):
            await rpc.serve([rpc.health()], observer.address)
        assert not Path(observer.address.socket).exists()

    asyncio.run(asyncio.wait_for(main(), within(60)))
