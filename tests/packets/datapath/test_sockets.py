"""Services at the socket: real sockets of a cgroup of our own, in a namespace of our own."""

from __future__ import annotations

import errno
import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.patience import within

from podwire.abi.dtypes import EVENT
from podwire.abi.enums import DropReason, EventKind
from podwire.abi.structs import (
    Backend,
    EventStats,
    Frontend,
    FrontendKey,
    MetricKey,
    MetricValue,
    RevNat,
    Slot,
    SlotKey,
)
from podwire.base.addresses import pack
from podwire.bpf import probe
from podwire.bpf.events import Ring
from podwire.bpf.link import attach_cgroup
from podwire.bpf.map import U32, U64, raw
from podwire.bpf.object import ObjectSpec, load
from podwire.datapath import objects
from podwire.net import namespaces
from podwire.testing.world import frontend

pytestmark = pytest.mark.kernel

MPTCP = 262
OBJECT = Path(objects.directory(), "sock.bpf.o")


class Sockets:
    """The socket programs on a cgroup, with the maps they read and write."""

    def __init__(self, stack: ExitStack) -> None:
        name = f"podwire-sockets-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self.namespace = name
        namespaces.create(name)
        stack.callback(namespaces.delete, name)
        namespaces.run(name, _loopback_up)
        self.directory = Path(probe.cgroup2(), name)
        self.directory.mkdir()
        stack.callback(self.directory.rmdir)
        self.object = stack.enter_context(load(ObjectSpec(str(OBJECT))))
        for program in self.object.programs.values():
            stack.callback(attach_cgroup(program, str(self.directory)).detach)
        self.ring = stack.enter_context(Ring.of(self.object.maps["podwire_events"], EVENT))
        typed: dict[str, tuple[Any, Any]] = {
            "frontends": (FrontendKey, Frontend),
            "slots": (SlotKey, Slot),
            "backends": (U32, Backend),
            "rev_nat": (U32, RevNat),
            "sockets": (U64, raw(40)),
            "metrics": (MetricKey, MetricValue),
            "event_stats": (U32, EventStats),
        }
        self.maps = {
            name: stack.enter_context(self.object.map(f"podwire_{name}", *codecs))
            for name, codecs in typed.items()
        }

    @contextmanager
    def inside(self) -> Iterator[None]:
        """A socket belongs to the cgroup its maker is in."""
        line = next(
            line for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::")
        )
        home = Path(probe.cgroup2() + line[3:], "cgroup.procs")
        (self.directory / "cgroup.procs").write_text(str(os.getpid()))
        try:
            yield
        finally:
            home.write_text(str(os.getpid()))

    def open(self, family: int, kind: int = socket.SOCK_STREAM, protocol: int = 0) -> socket.socket:
        with self.inside():
            made = namespaces.open_socket(self.namespace, family, kind, protocol)
        made.settimeout(within(2))
        return made

    def service(
        self,
        address: str,
        port: int,
        protocol: int,
        *backends: tuple[str, int],
        number: int = 1,
        many: bool = False,
    ) -> None:
        """`many`: as if there were so many that they are a set of their own."""
        slots = [Slot(pack(where), at, 100 * number + place) for place, (where, at) in enumerate(backends)]
        for place, slot in enumerate(slots):
            self.maps["backends"][slot.backend] = Backend(slot.address, slot.port, protocol)
            if many:
                self.maps["slots"][SlotKey(number, place)] = slot
        self.maps["rev_nat"][number] = RevNat(pack(address), port)
        row = frontend(number, slots, many=many)
        self.maps["frontends"][FrontendKey(pack(address), port, protocol)] = row

    def events(self, kind: EventKind) -> Any:
        found = self.ring.read()
        return found[found["kind"] == kind]


def _loopback_up() -> None:
    from podwire.net.stack import Stack

    with Stack() as stack:
        stack.ensure_link("lo", up=True)


@pytest.fixture
def sockets() -> Iterator[Sockets]:
    with ExitStack() as stack:
        yield Sockets(stack)


class Addresses(msgspec.Struct, frozen=True):
    """Of one way to write them: `service` as rows have it, `asked` as the socket does."""

    family: int
    service: str
    asked: str
    local: str
    shown: str


WAYS = {
    "ipv4": Addresses(socket.AF_INET, "10.96.0.10", "10.96.0.10", "127.0.0.1", "127.0.0.1"),
    "ipv6": Addresses(socket.AF_INET6, "fd00:96::10", "fd00:96::10", "::1", "::1"),
    "mapped": Addresses(socket.AF_INET6, "10.96.0.10", "::ffff:10.96.0.10", "127.0.0.1", "::ffff:127.0.0.1"),
}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Addresses:
    return WAYS[request.param]


def listening(sockets: Sockets, way: Addresses, kind: int = socket.SOCK_STREAM) -> socket.socket:
    family = socket.AF_INET6 if ":" in way.local else socket.AF_INET
    made = sockets.open(family, kind)
    made.bind((way.local, 0))
    if kind == socket.SOCK_STREAM:
        made.listen()
    return made


def test_connect_reaches_a_backend_and_shows_the_service(sockets: Sockets, way: Addresses) -> None:
    with listening(sockets, way) as server, sockets.open(way.family) as client:
        sockets.service(way.service, 80, 6, (way.local, server.getsockname()[1]))
        with sockets.inside():  # the event tells the caller's cgroup
            client.connect((way.asked, 80))
        accepted, _ = server.accept()
        accepted.close()
        assert client.getpeername()[:2] == (way.asked, 80)
    (event,) = sockets.events(EventKind.SOCKET)
    assert bytes(event["original"]) == pack(way.service) and event["original_port"] == 80
    assert bytes(event["destination"]) == pack(way.local) and event["point"] == 2
    assert event["cookie"] and event["cgroup"] == sockets.directory.stat().st_ino


def test_datagrams_go_there_and_seem_to_come_back(sockets: Sockets, way: Addresses) -> None:
    with listening(sockets, way, socket.SOCK_DGRAM) as one, listening(sockets, way, socket.SOCK_DGRAM) as two:
        places = [(way.local, server.getsockname()[1]) for server in (one, two)]
        sockets.service(way.service, 53, 17, *places)
        for _ in range(5):
            with sockets.open(way.family, socket.SOCK_DGRAM) as client:
                for number in range(4):
                    client.sendto(b"%d" % number, (way.asked, 53))
                got = {server: [] for server in (one, two)}
                for server, heard in got.items():
                    server.setblocking(False)
                    while True:
                        try:
                            heard.append(server.recvfrom(100))
                        except BlockingIOError:
                            break
                counts = sorted(len(heard) for heard in got.values())
                assert counts == [0, 4], "one socket, one Service, one backend"
                (server,) = (server for server, heard in got.items() if heard)
                server.sendto(b"answer", got[server][0][1])
                data, peer = client.recvfrom(100)
                assert data == b"answer" and peer[:2] == (way.asked, 53)


def test_a_connected_datagram_socket(sockets: Sockets, way: Addresses) -> None:
    with (
        listening(sockets, way, socket.SOCK_DGRAM) as server,
        sockets.open(way.family, socket.SOCK_DGRAM) as client,
    ):
        sockets.service(way.service, 53, 17, (way.local, server.getsockname()[1]))
        client.connect((way.asked, 53))
        client.send(b"question")
        _, peer = server.recvfrom(100)
        server.sendto(b"answer", peer)
        data, seen = client.recvfrom(100)
        assert data == b"answer" and seen[:2] == (way.asked, 53)
        assert client.getpeername()[:2] == (way.asked, 53)


def test_nobody_serves_it(sockets: Sockets, way: Addresses) -> None:
    sockets.service(way.service, 80, 6)
    sockets.service(way.service, 80, 17, number=2)
    with sockets.open(way.family) as client, pytest.raises(OSError) as refused:
        client.connect((way.asked, 80))
    assert refused.value.errno == errno.EHOSTUNREACH
    with sockets.open(way.family, socket.SOCK_DGRAM) as client, pytest.raises(OSError) as refused:
        client.sendto(b"?", (way.asked, 80))
    assert refused.value.errno == errno.EHOSTUNREACH
    told = sockets.events(EventKind.DROP)
    assert [int(one["reason"]) for one in told] == [DropReason.NO_BACKEND] * 2
    assert [int(one["protocol"]) for one in told] == [6, 17]


def test_what_is_no_service_is_left_alone(sockets: Sockets, way: Addresses) -> None:
    with listening(sockets, way) as server, sockets.open(way.family) as client:
        sockets.service(way.service, 80, 6, (way.local, 1))
        port = server.getsockname()[1]
        client.connect((way.shown, port))
        assert client.getpeername()[:2] == (way.shown, port)
    assert not sockets.ring.read().size


def test_a_closed_socket_leaves_nothing(sockets: Sockets, way: Addresses) -> None:
    kinds = {socket.SOCK_STREAM: 6, socket.SOCK_DGRAM: 17}
    for kind, protocol in kinds.items():
        with listening(sockets, way, kind) as server:
            sockets.service(way.service, 80, protocol, (way.local, server.getsockname()[1]))
            with sockets.open(way.family, kind) as client:
                client.connect((way.asked, 80))
                assert len(list(sockets.maps["sockets"].items())) == 1
            assert not list(sockets.maps["sockets"].items())


def test_sockets_that_the_kernel_makes_leave_nothing_either(sockets: Sockets, way: Addresses) -> None:
    """An MPTCP socket connects by one that the kernel has made, and closes it unsaid."""
    try:
        socket.socket(way.family, socket.SOCK_STREAM, MPTCP).close()
    except OSError:
        pytest.skip("MPTCP: this kernel has none, or it is off")
    with listening(sockets, way) as server:
        sockets.service(way.service, 80, 6, (way.local, server.getsockname()[1]))
        for _ in range(3):
            with sockets.open(way.family, socket.SOCK_STREAM, MPTCP) as client:
                client.connect((way.asked, 80))
                server.accept()[0].close()
        assert not list(sockets.maps["sockets"].items())


def test_a_full_table_of_sockets_costs_time_and_nothing_else(sockets: Sockets, way: Addresses) -> None:
    """What finds no room in it is kept with the socket."""
    table = sockets.maps["sockets"]
    table.put_many((number, bytes(40)) for number in range(1 << 40, (1 << 40) + table.capacity))
    with listening(sockets, way) as server, sockets.open(way.family) as client:
        sockets.service(way.service, 80, 6, (way.local, server.getsockname()[1]))
        client.connect((way.asked, 80))
        assert client.getpeername()[:2] == (way.asked, 80)
        assert len(list(table.items())) == table.capacity


def test_a_socket_that_connects_again(sockets: Sockets, way: Addresses) -> None:
    """Each time its peer is the Service it asked last, or the backend if it asked none."""
    first, second = way.asked, way.asked[:-2] + "77"
    with listening(sockets, way, socket.SOCK_DGRAM) as one, listening(sockets, way, socket.SOCK_DGRAM) as two:
        ports = [server.getsockname()[1] for server in (one, two)]
        sockets.service(way.service, 53, 17, (way.local, ports[0]))
        sockets.service(way.service[:-2] + "77", 53, 17, (way.local, ports[1]), number=2)
        with sockets.open(way.family, socket.SOCK_DGRAM) as client:
            for asked, server in ((first, one), (second, two), (first, one)):
                client.connect((asked, 53))
                client.send(b"?")
                assert server.recv(10) == b"?" and client.getpeername()[:2] == (asked, 53)
            client.connect((way.shown, ports[1]))
            assert client.getpeername()[:2] == (way.shown, ports[1])


def test_a_datagram_socket_leaves_a_backend_that_is_gone(sockets: Sockets, way: Addresses) -> None:
    with (
        listening(sockets, way, socket.SOCK_DGRAM) as gone,
        listening(sockets, way, socket.SOCK_DGRAM) as new,
        sockets.open(way.family, socket.SOCK_DGRAM) as client,
    ):
        sockets.service(way.service, 53, 17, (way.local, gone.getsockname()[1]))
        client.sendto(b"1", (way.asked, 53))
        assert gone.recv(10) == b"1"
        sockets.maps["backends"].delete(100)
        sockets.service(way.service, 53, 17, (way.local, new.getsockname()[1]), number=2)
        client.sendto(b"2", (way.asked, 53))
        assert new.recv(10) == b"2"


def test_a_socket_that_asks_several_services_by_turns(sockets: Sockets, way: Addresses) -> None:
    """Each answer shows the Service that was asked; of more than four the oldest is forgotten."""
    asked = [way.asked[:-2] + f"{number}" for number in range(11, 16)]
    services = [way.service[:-2] + f"{number}" for number in range(11, 16)]
    with ExitStack() as stack:
        client = stack.enter_context(sockets.open(way.family, socket.SOCK_DGRAM))
        servers = [stack.enter_context(listening(sockets, way, socket.SOCK_DGRAM)) for _ in services]
        for number, (service, server) in enumerate(zip(services, servers, strict=True), 1):
            sockets.service(service, 53, 17, (way.local, server.getsockname()[1]), number=number)

        def ask(number: int) -> str:
            client.sendto(b"?", (asked[number], 53))
            _, peer = servers[number].recvfrom(100)
            servers[number].sendto(b"!", peer)
            return str(client.recvfrom(100)[1][0])

        for _ in range(3):
            assert [ask(number) for number in range(4)] == asked[:4]
        _, peer = (client.sendto(b"?", (asked[0], 53)), servers[0].recvfrom(100)[1])
        assert ask(4) == asked[4]
        servers[0].sendto(b"late", peer)
        assert client.recvfrom(100)[1][0] == way.shown, "forgotten, so the backend shows"
        assert ask(1) == asked[1]


def test_what_a_freed_number_was_given_to_is_not_believed(sockets: Sockets, way: Addresses) -> None:
    """The number of a backend that went may be a stranger's by now."""
    with (
        listening(sockets, way, socket.SOCK_DGRAM) as gone,
        listening(sockets, way, socket.SOCK_DGRAM) as stranger,
        listening(sockets, way, socket.SOCK_DGRAM) as new,
        sockets.open(way.family, socket.SOCK_DGRAM) as client,
    ):
        sockets.service(way.service, 53, 17, (way.local, gone.getsockname()[1]))
        client.sendto(b"1", (way.asked, 53))
        assert gone.recv(10) == b"1"
        sockets.service(way.service, 53, 17, (way.local, new.getsockname()[1]), number=2)
        sockets.maps["backends"][100] = Backend(pack(way.local), stranger.getsockname()[1], 17)
        client.sendto(b"2", (way.asked, 53))
        assert new.recv(10) == b"2"


@pytest.mark.parametrize("many", [False, True])
def test_balance_over_backends(sockets: Sockets, way: Addresses, many: bool) -> None:
    with ExitStack() as stack:
        servers = [stack.enter_context(listening(sockets, way)) for _ in range(4)]
        places = [(way.local, one.getsockname()[1]) for one in servers]
        sockets.service(way.service, 80, 6, *places, many=many)
        for _ in range(60):
            with sockets.open(way.family) as client:
                client.connect((way.asked, 80))
        reached = 0
        for server in servers:
            server.setblocking(False)
            try:
                server.accept()[0].close()
                reached += 1
            except BlockingIOError:
                pass
        assert reached == 4
