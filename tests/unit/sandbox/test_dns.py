"""Cluster DNS: names of services, endpoints and pods; and its behaviour towards what is no query."""

from __future__ import annotations

import asyncio
import socket
from contextlib import AsyncExitStack
from typing import Any

import dns.message
import dns.rcode
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.patience import within

from podwire.apiserver.metadata import is_resolvable
from podwire.base.aio import cancelling, eventually
from podwire.sandbox.dns import server
from podwire.sandbox.dns.datagrams import Datagrams, Shares
from podwire.sandbox.dns.server import Answerer
from podwire.sandbox.dns.zone import SLICES, Zone, pointed_at

Object = dict[str, Any]


def service(name: str, addresses: list[str], ports: list[Object] | None = None, **spec: Any) -> Object:
    given_ports = ports if ports is not None else [{"name": "http", "port": 80}]
    cluster = {"clusterIP": addresses[0], "clusterIPs": addresses} if addresses else {"clusterIP": "None"}
    return {
        "metadata": {"name": name, "namespace": "prod"},
        "spec": {**cluster, "ports": given_ports, **spec},
    }


OBJECTS: dict[str, list[Object]] = {
    "namespaces": [{"metadata": {"name": "prod"}}],
    "services": [
        service("web", ["10.96.0.7", "fd00:10:96::7"]),
        service("db", []),
        {
            "metadata": {"name": "out", "namespace": "prod"},
            "spec": {"type": "ExternalName", "externalName": "a.example"},
        },
    ],
    SLICES: [
        {
            "metadata": {"name": "db-1", "namespace": "prod", "labels": {"kubernetes.io/service-name": "db"}},
            "ports": [{"name": "sql", "port": 5432, "protocol": "TCP"}],
            "endpoints": [
                {"addresses": ["10.0.1.3"], "hostname": "db-0", "conditions": {"ready": True}},
                {"addresses": ["10.0.2.3"], "conditions": {"ready": True}},
                {"addresses": ["10.0.2.4"], "conditions": {"ready": False}},
            ],
        }
    ],
    "pods": [{"metadata": {"name": "p", "namespace": "prod"}, "status": {"podIPs": [{"ip": "10.0.1.9"}]}}],
}


def every(resource: str, namespace: str | None) -> list[Object]:
    found = OBJECTS.get(resource, [])
    return [one for one in found if namespace is None or one["metadata"].get("namespace") == namespace]


def find(resource: str, namespace: str, name: str) -> Object | None:
    return next((one for one in every(resource, namespace or None) if one["metadata"]["name"] == name), None)


ANSWERER = Answerer(Zone(find, every), ())


def ask(name: str, kind: str = "A", *, udp: bool = True) -> Any:
    wire = asyncio.run(ANSWERER.answer(dns.message.make_query(name, kind).to_wire(), udp=udp))
    assert wire is not None
    return dns.message.from_wire(wire)


def data(name: str, kind: str = "A") -> list[str]:
    response = ask(name, kind)
    assert response.rcode() == dns.rcode.NOERROR, name
    return sorted(one.to_text() for rrset in response.answer for one in rrset)


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("web.prod.svc.cluster.local", "A", ["10.96.0.7"]),
        ("WEB.prod.svc.Cluster.Local", "A", ["10.96.0.7"]),
        ("web.prod.svc.cluster.local", "AAAA", ["fd00:10:96::7"]),
        ("db.prod.svc.cluster.local", "A", ["10.0.1.3", "10.0.2.3"]),
        ("db-0.db.prod.svc.cluster.local", "A", ["10.0.1.3"]),
        ("10-0-2-3.db.prod.svc.cluster.local", "A", ["10.0.2.3"]),
        ("_http._tcp.web.prod.svc.cluster.local", "SRV", ["0 100 80 web.prod.svc.cluster.local."]),
        (
            "_sql._tcp.db.prod.svc.cluster.local",
            "SRV",
            ["0 100 5432 10-0-2-3.db.prod.svc.cluster.local.", "0 100 5432 db-0.db.prod.svc.cluster.local."],
        ),
        ("out.prod.svc.cluster.local", "A", ["a.example."]),
        ("10-0-1-9.prod.pod.cluster.local", "A", ["10.0.1.9"]),
        ("7.0.96.10.in-addr.arpa", "PTR", ["web.prod.svc.cluster.local."]),
        ("3.1.0.10.in-addr.arpa", "PTR", ["db-0.db.prod.svc.cluster.local."]),
    ],
)
def test_names_that_are(name: str, kind: str, expected: list[str]) -> None:
    assert data(name, kind) == expected


@pytest.mark.parametrize(
    "name",
    [
        "nothing.prod.svc.cluster.local",
        "web.other.svc.cluster.local",
        "x.web.prod.svc.cluster.local",
        "10-0-2-4.db.prod.svc.cluster.local",
        "10-9-9-9.prod.pod.cluster.local",
        "a.b.cluster.local",
    ],
)
def test_names_that_are_not_have_an_soa(name: str) -> None:
    response = ask(name)
    assert response.rcode() == dns.rcode.NXDOMAIN
    assert response.authority


def test_a_name_without_that_type_exists() -> None:
    for name, kind in (
        ("db.prod.svc.cluster.local", "AAAA"),
        ("prod.svc.cluster.local", "A"),
        ("cluster.local", "A"),
    ):
        response = ask(name, kind)
        assert response.rcode() == dns.rcode.NOERROR
        assert not response.answer
        assert response.authority


def test_other_names_are_refused_without_an_upstream() -> None:
    assert ask("example.com").rcode() == dns.rcode.REFUSED
    assert ask("1.2.0.192.in-addr.arpa", "PTR").rcode() == dns.rcode.REFUSED


def test_other_names_are_asked_of_the_upstream(monkeypatch: pytest.MonkeyPatch) -> None:
    async def ask_through() -> tuple[bytes | None, bytes]:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as upstream:
            upstream.bind(("127.0.0.1", 0))
            upstream.setblocking(False)
            monkeypatch.setattr(server, "PORT", upstream.getsockname()[1])
            query = dns.message.make_query("example.com", "A")
            asked = loop.create_task(
                Answerer(Zone(find, every), ("127.0.0.1",)).answer(query.to_wire(), udp=True)
            )
            wire, client = await loop.sock_recvfrom(upstream, 512)
            await loop.sock_sendto(upstream, b"the answer", client)
            return await asked, wire

    answer, asked = asyncio.run(ask_through())
    assert answer == b"the answer"
    assert dns.message.from_wire(asked).question[0].name.to_text() == "example.com."


def test_an_answer_that_does_not_fit_is_truncated_on_udp_only() -> None:
    OBJECTS[SLICES][0]["endpoints"] += [{"addresses": [f"10.1.0.{number}"]} for number in range(1, 100)]
    try:
        assert ask("db.prod.svc.cluster.local").flags & dns.flags.TC
        assert len(ask("db.prod.svc.cluster.local", udp=False).answer[0]) == 101
    finally:
        del OBJECTS[SLICES][0]["endpoints"][3:]


@given(st.binary(max_size=300))
def test_bytes_that_are_no_query_do_no_harm(wire: bytes) -> None:
    answer = asyncio.run(ANSWERER.answer(wire, udp=True))
    assert answer is None or answer[:2] == wire[:2]


LABELS = st.lists(st.text("abcxyz019-_", min_size=1, max_size=70), min_size=1, max_size=6)


@given(st.one_of(LABELS.map(".".join), st.text(max_size=80), st.just("a" * 64 + ".com")))
def test_whatever_a_service_stands_for_a_query_is_answered(name: str) -> None:
    """What the API accepts resolves; what it would refuse, and is there all the same, is SERVFAIL."""
    stands_for = {**OBJECTS["services"][2], "spec": {"type": "ExternalName", "externalName": name}}

    def find_it(resource: str, namespace: str, wanted: str) -> Object | None:
        return stands_for if (resource, wanted) == ("services", "out") else find(resource, namespace, wanted)

    query = dns.message.make_query("out.prod.svc.cluster.local", "A").to_wire()
    wire = asyncio.run(Answerer(Zone(find_it, every), ()).answer(query, udp=True))
    assert wire is not None
    response = dns.message.from_wire(wire)
    assert response.rcode() in (dns.rcode.NOERROR, dns.rcode.SERVFAIL)
    if is_resolvable(name.rstrip(".")):
        assert response.rcode() == dns.rcode.NOERROR
        assert response.answer[0][0].to_text() == name.rstrip(".") + "."


@given(LABELS, st.integers(0, 300), st.integers(0, 15), st.booleans())
def test_any_query_is_answered(labels: list[str], kind: int, opcode: int, udp: bool) -> None:
    shortened = [label[:63] for label in labels][:3]
    query = dns.message.make_query(".".join([*shortened, "svc.cluster.local"]), kind)
    query.set_opcode(opcode)
    wire = asyncio.run(ANSWERER.answer(query.to_wire(), udp=udp))
    assert wire is not None and wire[:2] == query.id.to_bytes(2, "big")


def test_a_query_that_fails_is_answered_and_so_is_the_next() -> None:
    """In the server's own tasks: what one query raises must not end them."""

    def faulty(resource: str, namespace: str, name: str) -> Object | None:
        if name == "bad":
            raise ZeroDivisionError("nobody thought of this")
        return find(resource, namespace, name)

    async def scenario() -> list[int]:
        loop, codes = asyncio.get_running_loop(), []
        answerer = Answerer(Zone(faulty, every), ())
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as place:
            place.bind(("127.0.0.1", 0))
            serving = Datagrams(place, answerer.datagram, Shares()).serve()
            client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            client.setblocking(False)
            client.connect(place.getsockname())
            async with cancelling("DNS", serving):
                for name in ("bad", "web", "bad", "web"):
                    query = dns.message.make_query(f"{name}.prod.svc.cluster.local", "A")
                    await loop.sock_sendall(client, query.to_wire())
                    wire = await asyncio.wait_for(loop.sock_recv(client, 512), 5)
                    codes.append(int(dns.message.from_wire(wire).rcode()))
            client.close()
        return codes

    assert asyncio.run(scenario()) == [dns.rcode.SERVFAIL, dns.rcode.NOERROR] * 2


def test_who_waits_for_upstreams_leaves_others_their_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """And names of the cluster need no room at all."""

    async def scenario() -> list[int]:
        codes = []
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
            silent.bind(("127.0.0.1", 0))
            monkeypatch.setattr(server, "PORT", silent.getsockname()[1])
            monkeypatch.setattr(server, "UPSTREAM_TIMEOUT", within(60))
            answerer = Answerer(Zone(find, every), ("127.0.0.1",))
            share = answerer.forwarding.share
            outside = dns.message.make_query("example.com", "A").to_wire()
            async with AsyncExitStack() as waiting:
                for _ in range(share):
                    ask = answerer.answer(outside, udp=True, client="10.0.1.1")
                    await waiting.enter_async_context(cancelling("ask", ask))
                await eventually(lambda: answerer.forwarding.taken == share, timeout=5, what="a full share")
                for client, name in (("10.0.1.1", "example.com"), ("10.0.1.1", "cluster.local")):
                    wire = await answerer.answer(
                        dns.message.make_query(name, "A").to_wire(), udp=True, client=client
                    )
                    assert wire is not None
                    codes.append(int(dns.message.from_wire(wire).rcode()))
                ask = answerer.answer(outside, udp=True, client="10.0.1.2")
                await waiting.enter_async_context(cancelling("ask", ask))
                await eventually(lambda: answerer.forwarding.taken == share + 1, timeout=5, what="another")
            assert answerer.forwarding.taken == 0
        return codes

    assert asyncio.run(scenario()) == [dns.rcode.SERVFAIL, dns.rcode.NOERROR]


def test_connections_are_bounded() -> None:
    """One address has its share, and another is answered all the same."""

    async def scenario() -> tuple[bytes, int]:
        listening = socket.create_server(("127.0.0.1", 0))
        address = listening.getsockname()
        async with server.door(ANSWERER, [listening]) as door, AsyncExitStack() as opened:

            async def connected(source: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
                reader, writer = await asyncio.open_connection(*address, local_addr=(source, 0))
                opened.callback(writer.close)
                return reader, writer

            for _ in range(door.admission.favoured_share):
                await connected("127.0.0.2")
            reader, _ = await connected("127.0.0.2")
            try:
                got = await asyncio.wait_for(reader.read(), 5)
            except ConnectionError:
                got = b""  # as well
            return got, await asked(*await connected("127.0.0.3"))

    assert asyncio.run(scenario()) == (b"", dns.rcode.NOERROR)  # closed, not kept waiting


async def asked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
    """The code of an answer over TCP."""
    wire = dns.message.make_query("web.prod.svc.cluster.local", "A").to_wire()
    writer.write(len(wire).to_bytes(2, "big") + wire)
    size = int.from_bytes(await asyncio.wait_for(reader.readexactly(2), 5), "big")
    return int(dns.message.from_wire(await reader.readexactly(size)).rcode())


def test_a_query_that_fails_does_not_end_its_connection() -> None:
    def faulty(resource: str, namespace: str, name: str) -> Object | None:
        raise ZeroDivisionError("nobody thought of this")

    async def scenario() -> list[int]:
        listening = socket.create_server(("127.0.0.1", 0))
        async with server.door(Answerer(Zone(faulty, every), ()), [listening]):
            reader, writer = await asyncio.open_connection(*listening.getsockname())
            codes = [await asked(reader, writer) for _ in range(2)]
            writer.close()
        return codes

    assert asyncio.run(scenario()) == [dns.rcode.SERVFAIL] * 2


def test_reverse_names() -> None:
    assert pointed_at("1.0.0.127.in-addr.arpa") == "127.0.0.1"
    assert pointed_at("1." + "0." * 31 + "ip6.arpa") == "::1"
    for wrong in ("x.0.0.127.in-addr.arpa", "0.0.127.in-addr.arpa", "example.com", "1.ip6.arpa"):
        assert pointed_at(wrong) is None
