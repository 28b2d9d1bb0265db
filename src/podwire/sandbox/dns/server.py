"""Cluster DNS on the wire: the answers of `zone`, over UDP and TCP, inside the kube-dns pod's network.

The Service kube-system/kube-dns has a real pod behind it, whose traffic goes through the datapath
like any other's; only its "container" is served here, on sockets opened in its network namespace.
Names outside the cluster go to the lab's upstreams; without any they are refused at once.

Each query is a boundary: one that cannot be answered, for whatever reason, is answered SERVFAIL, and so is
one to be forwarded for which there is no room. Pods ask, and pods may ask anything, as often as they can:
each address has its share of what waits for upstreams, of the TCP connections (`base.door`), and of what is
answered over UDP (`datagrams`).
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from podwire.base.aio import Supervised, seldom
from podwire.base.door import Admission, Door, affordable
from podwire.net import namespaces
from podwire.sandbox.dns.datagrams import Datagrams, Shares
from podwire.sandbox.dns.zone import Record, Zone, pointed_at

log = logging.getLogger(__name__)
TTL = 5
UDP_PLAIN = 512
UPSTREAM_TIMEOUT = 3.0
PORT = 53
QUERIES = 1024  # that wait for upstreams at once; others are answered in the same breath
STREAMS = 512  # TCP connections at once
IDLE = 10.0  # s a TCP connection may take for a whole query, and to read its answer


class Answerer:
    """Wire in, wire out."""

    def __init__(self, zone: Zone, upstreams: tuple[str, ...]) -> None:
        self.zone, self.upstreams = zone, upstreams
        self.forwarding = Admission("queries that cluster DNS forwards", affordable(QUERIES))
        self.failures = 0

    async def answer(self, wire: bytes, *, udp: bool, client: str = "") -> bytes | None:
        """The response to a query of `client`; None where there is nothing to say (not a query, not DNS)."""
        try:
            query = dns.message.from_wire(wire)
        except Exception:  # noqa: BLE001  the parser's boundary: bytes from anybody, which are no query
            return _format_error(wire)
        if query.flags & dns.flags.QR:
            return None
        size = max(UDP_PLAIN, query.payload) if udp else 65535
        try:
            return await self._answered(query, wire, client, size, udp)
        except Exception as error:  # noqa: BLE001  the boundary of one query; `_failed` logs it
            self._failed(query, error)
        return _wire(_response(query, dns.rcode.SERVFAIL), size)

    async def datagram(self, wire: bytes, client: str) -> bytes | None:
        """The same, for what came over UDP."""
        return await self.answer(wire, udp=True, client=client)

    def _failed(self, query: Any, error: Exception) -> None:
        """In the log, and more and more seldom: who asks can ask again and again."""
        self.failures += 1
        if seldom(self.failures):
            asked = query.question[0].to_text() if query.question else "nothing"
            log.warning("%s cannot be answered (%d so far): %r", asked, self.failures, error)

    async def _answered(self, query: Any, wire: bytes, client: str, size: int, udp: bool) -> bytes:
        if len(query.question) != 1 or query.opcode() != 0:
            return _wire(_response(query, dns.rcode.NOTIMP), size)
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True).lower()
        local = self._local(name)
        if local is not False:
            return _wire(self._respond(query, name, local), size)
        if not self.upstreams:
            return _wire(_response(query, dns.rcode.REFUSED), size)
        leave = self.forwarding.enter(client)
        if leave is None:
            return _wire(_response(query, dns.rcode.SERVFAIL), size)
        try:
            forwarded = await self._forward(wire, udp=udp)
        finally:
            leave()
        return forwarded if forwarded else _wire(_response(query, dns.rcode.SERVFAIL), size)

    def _local(self, name: str) -> Any:
        """Records, None (no such name), or False: not ours to answer."""
        address = pointed_at(name)
        if address is not None:
            found = self.zone.reverse(address)
            return found if found is not None else False
        return self.zone.lookup(name) if self.zone.owns(name) else False

    def _respond(self, query: Any, name: str, records: list[Record] | None) -> Any:
        response = _response(query, dns.rcode.NXDOMAIN if records is None else dns.rcode.NOERROR)
        response.flags |= dns.flags.AA
        question = query.question[0]
        wanted = dns.rdatatype.to_text(question.rdtype)
        chosen = [one for one in records or [] if wanted in (one.type, "ANY") or one.type == "CNAME"]
        for kind in dict.fromkeys(one.type for one in chosen):
            data = [one.data for one in chosen if one.type == kind]
            response.answer.append(dns.rrset.from_text(question.name, TTL, "IN", kind, *data))
        if not chosen:
            zone = dns.name.from_text(self.zone.domain)
            soa = f"ns.dns.{self.zone.domain}. hostmaster.{self.zone.domain}. 1 7200 1800 86400 {TTL}"
            response.authority.append(dns.rrset.from_text(zone, TTL, "IN", "SOA", soa))
        return response

    async def _forward(self, wire: bytes, *, udp: bool) -> bytes | None:
        for upstream in self.upstreams:
            try:
                async with asyncio.timeout(UPSTREAM_TIMEOUT):
                    return await (_ask_udp(wire, upstream) if udp else _ask_tcp(wire, upstream))
            except (OSError, asyncio.IncompleteReadError) as error:
                log.warning("upstream %s did not answer: %s", upstream, error or type(error).__name__)
        return None


def _response(query: Any, code: Any) -> Any:
    response = dns.message.make_response(query, recursion_available=True)
    response.set_rcode(code)
    return response


def _wire(message: Any, size: int) -> bytes:
    try:
        packed: bytes = message.to_wire(max_size=size)
    except dns.exception.TooBig:
        message.answer.clear()
        message.flags |= dns.flags.TC
        packed = message.to_wire(max_size=size)
    return packed


def _format_error(wire: bytes) -> bytes | None:
    """FORMERR with the query's id, where there is as much as a header of a query."""
    if len(wire) < 12 or wire[2] & 0x80:
        return None
    return wire[:2] + bytes((0x80 | (wire[2] & 0x79), 1)) + bytes(8)


async def _ask_udp(wire: bytes, upstream: str) -> bytes:
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET6 if ":" in upstream else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.connect((upstream, PORT))
        await loop.sock_sendall(sock, wire)
        return await loop.sock_recv(sock, 65535)


async def _ask_tcp(wire: bytes, upstream: str) -> bytes:
    reader, writer = await asyncio.open_connection(upstream, PORT)
    try:
        writer.write(len(wire).to_bytes(2, "big") + wire)
        return await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
    finally:
        writer.close()


async def serve(
    answerer: Answerer, netns: Path, families: tuple[int, ...], until: Callable[[], Awaitable[None]]
) -> None:
    """Answer on port 53 of the namespace until `until` returns."""

    async with AsyncExitStack() as opened, Supervised("cluster DNS") as group:
        streams: list[socket.socket] = []
        shares = Shares()
        for family in families:
            number, host = (socket.AF_INET6, "::") if family == 6 else (socket.AF_INET, "0.0.0.0")
            datagrams = _bound(netns, number, socket.SOCK_DGRAM, host)
            opened.callback(datagrams.close)
            group.start(f"datagrams of IPv{family}", Datagrams(datagrams, answerer.datagram, shares).serve())
            streams.append(_bound(netns, number, socket.SOCK_STREAM, host))
            opened.callback(streams[-1].close)
        async with door(answerer, streams):
            await until()


def door(answerer: Answerer, listeners: list[socket.socket]) -> Door:
    """Accepts TCP connections, and answers what they ask one after the other."""
    places = Admission("TCP connections to cluster DNS", affordable(STREAMS))
    return Door(listeners, places, _stream_handler(answerer))


def _bound(netns: Path, family: int, kind: int, host: str) -> socket.socket:
    sock = namespaces.open_socket(str(netns), family, kind)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    sock.setblocking(False)
    sock.bind((host, PORT))
    return sock


def _stream_handler(answerer: Answerer) -> Callable[[socket.socket, str], Awaitable[None]]:
    async def handle(connection: socket.socket, client: str) -> None:
        reader, writer = await asyncio.open_connection(sock=connection)
        try:
            while True:
                async with asyncio.timeout(IDLE):
                    size = int.from_bytes(await reader.readexactly(2), "big")
                    asked = await reader.readexactly(size)
                wire = await answerer.answer(asked, udp=False, client=client)
                if wire:
                    writer.write(len(wire).to_bytes(2, "big") + wire)
                    async with asyncio.timeout(IDLE):
                        await writer.drain()
        except asyncio.IncompleteReadError:
            return
        finally:
            writer.transport.abort()

    return handle
