"""Cluster DNS over UDP, on a real socket: one client floods, another asks."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import dns.message
import pytest
from tests.patience import within

from podwire.base.aio import cancelling, eventually
from podwire.sandbox.dns import datagrams
from podwire.sandbox.dns.datagrams import Datagrams, Shares

NAME = "web.prod.svc.cluster.local"


def query(number: int) -> bytes:
    made = dns.message.make_query(NAME, "A", id=number)
    return bytes(made.to_wire())


async def echo(data: bytes, client: str) -> bytes | None:
    """As long as an answer takes: parsed, and made anew."""
    response = dns.message.make_response(dns.message.from_wire(data))
    return bytes(response.to_wire())


@contextmanager
def flooding(place: tuple[str, int], source: str, family: int) -> Iterator[None]:
    """Queries from `source` as fast as one thread can send, until the block ends."""
    ended = threading.Event()
    wire = query(1)

    def send() -> None:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.bind((source, 0))
            sock.setblocking(False)
            while not ended.is_set():
                for _ in range(50):
                    try:
                        sock.sendto(wire, place)
                    except OSError:
                        break

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


async def asked(place: tuple[str, int], source: str, family: int, number: int) -> int:
    """Of so many questions, one after the other and each once, how many were answered."""
    loop = asyncio.get_running_loop()
    answered = 0
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.bind((source, 0))
        sock.setblocking(False)
        for one in range(number):
            await loop.sock_sendto(sock, query(one), place)
            try:
                async with asyncio.timeout(within(2)):
                    while int.from_bytes((await loop.sock_recv(sock, 4096))[:2], "big") != one:
                        pass
            except TimeoutError:
                continue
            answered += 1
    return answered


@pytest.mark.parametrize("family", [4, 6])
def test_a_flood_of_one_takes_dns_from_nobody_else(family: int, caplog: pytest.LogCaptureFixture) -> None:
    number = socket.AF_INET if family == 4 else socket.AF_INET6
    # IPv6 has one loopback address: there the flood and the question are of one /64, each of its own socket.
    here, other = ("127.0.0.1", "127.0.0.2") if family == 4 else ("::1", "::1")

    async def main() -> None:
        with socket.socket(number, socket.SOCK_DGRAM) as sock:
            sock.bind((here, 0))
            place = sock.getsockname()[:2]
            shares = Shares()
            async with cancelling("serve", Datagrams(sock, echo, shares).serve()):
                assert await asked(place, other, number, 20) == 20 and not shares.withheld
                if family == 6:
                    return
                with flooding(place, "127.0.0.3", number):
                    await eventually(lambda: shares.withheld > 1000, timeout=within(20), what="a flood")
                    assert await asked(place, other, number, 30) >= 28
                assert len(shares) <= datagrams.WAITING
        told = [record.getMessage() for record in caplog.records if "withheld" in record.getMessage()]
        assert told and all("127.0.0.3" in line for line in told) and len(told) < 40

    asyncio.run(main())


def test_what_fails_in_an_answer_ends_nothing() -> None:
    async def failing(data: bytes, client: str) -> bytes | None:
        if data[:2] == b"\0\0":
            raise ValueError("no answer")
        return await echo(data, client)

    async def main() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("127.0.0.1", 0))
            async with cancelling("serve", Datagrams(sock, failing, Shares()).serve()):
                assert await asked(sock.getsockname(), "127.0.0.2", socket.AF_INET, 3) == 2

    asyncio.run(main())
