"""Services per packet: there, back, to itself, to nobody, and when backends go."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from podwire.abi.enums import BackendFlags, Direction, DropReason, EndpointFlags, EventKind
from podwire.abi.structs import FrontendKey
from podwire.base.addresses import pack
from podwire.testing.world import PASS, REDIRECTED, Pod, World

pytestmark = pytest.mark.kernel

PROTOCOLS = {"tcp": 6, "udp": 17}


@pytest.fixture(params=["tcp", "udp"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def packet(
    family: Any,
    kind: str,
    source: Pod | str,
    destination: Pod | str,
    sport: int,
    dport: int,
    flags: str = "S",
) -> Any:
    if kind == "tcp":
        return family.tcp(source, destination, sport, dport, flags)
    return family.udp(source, destination, sport, dport, b"question")


def test_there_and_back(world: World, family: Any, kit: Any, kind: str) -> None:
    client, server = world.pod(1, 1001), world.pod(2, 1002)
    world.service(family.service, 80, PROTOCOLS[kind], {31: (family.of(server), 8080)})
    there = packet(family, kind, client, family.service, 4000, 80)
    outcome = world.from_pod(client, bytes(there))
    assert outcome.verdict == REDIRECTED
    wanted = packet(family, kind, client, server, 4000, 8080)
    kit.same(family.routed(wanted, server), outcome.packet)
    (trace,) = outcome.events
    assert bytes(trace["original"]) == pack(family.service) and trace["original_port"] == 80
    assert bytes(trace["destination"]) == pack(family.of(server)) and trace["destination_port"] == 8080
    assert trace["destination_identity"] == 1002

    back = packet(family, kind, server, client, 8080, 4000, "SA")
    outcome = world.from_pod(server, bytes(back))
    assert outcome.verdict == REDIRECTED
    wanted = packet(family, kind, family.service, client, 80, 4000, "SA")
    wanted.src, wanted.dst = back.src, back.dst
    kit.same(family.routed(wanted, client), outcome.packet)
    (trace,) = outcome.events
    assert bytes(trace["source"]) == pack(family.of(server)) and bytes(trace["original"]) == pack(
        family.service
    )


def test_policy_is_asked_about_the_backend(world: World, family: Any, kit: Any, kind: str) -> None:
    client = world.pod(1, 1001, policy=4, flags=EndpointFlags.ENFORCE_EGRESS)
    server = world.pod(2, 1002)
    world.peer(4, 1002, Direction.EGRESS, 3)
    world.rule(4, Direction.EGRESS, peer_class=3, protocol=PROTOCOLS[kind], port=8080)
    for port, verdict in ((8080, REDIRECTED), (9090, 2)):
        world.service(family.service, 80, PROTOCOLS[kind], {port: (family.of(server), port)})
        there = packet(family, kind, client, family.service, port, 80)
        assert world.from_pod(client, bytes(there)).verdict == verdict


def test_to_a_backend_far_away(world: World, family: Any, kit: Any, kind: str) -> None:
    client = world.pod(1, 1001)
    world.service(family.service, 80, PROTOCOLS[kind], {31: (family.remote, 8080)})
    outcome = world.from_pod(client, bytes(packet(family, kind, client, family.service, 4000, 80)))
    assert outcome.verdict == PASS
    kit.same(kit.fresh(packet(family, kind, client, family.remote, 4000, 8080)), outcome.packet)
    back = packet(family, kind, family.remote, client, 8080, 4000, "SA")
    outcome = world.from_network(bytes(back))
    assert outcome.verdict == REDIRECTED
    wanted = packet(family, kind, family.service, client, 80, 4000, "SA")
    kit.same(family.routed(wanted, client), outcome.packet)


def test_a_pod_and_itself(world: World, family: Any, kit: Any, kind: str) -> None:
    both = EndpointFlags.ENFORCE_INGRESS | EndpointFlags.ENFORCE_EGRESS
    pod = world.pod(1, 1001, policy=6, flags=both)
    world.service(family.service, 80, PROTOCOLS[kind], {31: (family.of(pod), 8080)})
    for _ in range(2):
        outcome = world.from_pod(pod, bytes(packet(family, kind, pod, family.service, 4000, 80)))
        assert outcome.verdict == REDIRECTED
        wanted = packet(family, kind, pod, pod, 4000, 8080)
        kit.same(family.routed(wanted, pod, src=family.hairpin), outcome.packet)
    outcome = world.from_pod(pod, bytes(packet(family, kind, pod, family.hairpin, 8080, 4000, "SA")))
    assert outcome.verdict == REDIRECTED
    wanted = packet(family, kind, pod, pod, 80, 4000, "SA")
    kit.same(family.routed(wanted, pod, src=family.service), outcome.packet)
    stray = world.from_pod(pod, bytes(packet(family, kind, pod, family.hairpin, 8080, 4001, "SA")))
    assert kit.drops(stray) == [DropReason.UNROUTABLE]


def test_nobody_serves_it(world: World, family: Any, kit: Any, kind: str) -> None:
    client = world.pod(1, 1001)
    world.service(family.service, 80, PROTOCOLS[kind], {})
    outcome = world.from_pod(client, bytes(packet(family, kind, client, family.service, 4000, 80)))
    assert kit.drops(outcome) == [DropReason.NO_BACKEND]
    assert bytes(outcome.events[0]["original"]) == pack(family.service)


def test_a_flow_keeps_its_backend(world: World, family: Any, kind: str) -> None:
    client = world.pod(1, 1001)
    there = bytes(packet(family, kind, client, family.service, 4000, 80))
    backends = {
        number: (f"fd00:10:2::{number:x}" if family.ipv6 else f"10.0.2.{number}", 8080)
        for number in range(1, 51)
    }
    world.service(family.service, 80, PROTOCOLS[kind], backends)
    given = {chosen(world.from_pod(client, there)) for _ in range(20)}
    assert len(given) == 1
    others = {
        chosen(world.from_pod(client, bytes(packet(family, kind, client, family.service, port, 80))))
        for port in range(5000, 5050)
    }
    assert len(others) > 10


def chosen(outcome: Any) -> str:
    from scapy.layers.l2 import Ether

    return str(Ether(outcome.packet).payload.dst)


def test_terminating_keeps_its_flows_and_gets_no_new_ones(world: World, family: Any, kind: str) -> None:
    client = world.pod(1, 1001)
    near, far = (f"fd00:10:2::{n}" if family.ipv6 else f"10.0.2.{n}" for n in (1, 2))
    protocol = PROTOCOLS[kind]
    world.service(family.service, 80, protocol, {1: (near, 80)})
    old = bytes(packet(family, kind, client, family.service, 4000, 80))
    assert chosen(world.from_pod(client, old)) == near
    world.service(family.service, 80, protocol, {2: (far, 80)})
    backends = world.maps["podwire_backends"]
    backends[1] = msgspec.structs.replace(backends[1], flags=BackendFlags.TERMINATING)
    world.services_changed()
    again = bytes(packet(family, kind, client, family.service, 4000, 80, "A"))
    assert chosen(world.from_pod(client, again)) == near
    for port in range(5000, 5020):
        new = bytes(packet(family, kind, client, family.service, port, 80))
        assert chosen(world.from_pod(client, new)) == far
    del backends[1]
    world.services_changed()
    assert chosen(world.from_pod(client, again)) == far


def test_a_socket_that_was_never_answered_finds_the_service_when_it_comes(
    world: World, family: Any, kind: str
) -> None:
    client, server = world.pod(1, 1001), world.pod(2, 1002)
    there = bytes(packet(family, kind, client, family.service, 4000, 80))
    assert world.from_pod(client, there).verdict == PASS
    world.service(family.service, 80, PROTOCOLS[kind], {31: (family.of(server), 8080)})
    assert world.from_pod(client, there).verdict == REDIRECTED


def test_affinity_sends_a_client_to_one_backend(world: World, family: Any, kind: str) -> None:
    client = world.pod(1, 1001)
    backends = {n: (f"fd00:10:2::{n:x}" if family.ipv6 else f"10.0.2.{n}", 80) for n in range(1, 30)}
    world.service(family.service, 80, PROTOCOLS[kind], backends, flags=2)
    given = {
        chosen(world.from_pod(client, bytes(packet(family, kind, client, family.service, port, 80))))
        for port in range(5000, 5020)
    }
    assert len(given) == 1


def test_errors_are_translated_both_ways(world: World, family: Any, kit: Any, kind: str) -> None:
    client, server = world.pod(1, 1001), world.pod(2, 1002)
    world.service(family.service, 80, PROTOCOLS[kind], {31: (family.of(server), 8080)})
    world.from_pod(client, bytes(packet(family, kind, client, family.service, 4000, 80)))
    # The backend complains about what it got; the client must hear of what it sent.
    error = family.unreachable(server, client, packet(family, kind, client, server, 4000, 8080))
    outcome = world.from_pod(server, bytes(error))
    assert outcome.verdict == REDIRECTED
    assert_error(
        family, outcome.packet, source=family.service, inner=(family.of(client), family.service, 4000, 80)
    )
    # The client complains about an answer that seemed to come from the Service.
    error = family.unreachable(client, family.service, packet(family, kind, family.service, client, 80, 4000))
    outcome = world.from_pod(client, bytes(error))
    assert outcome.verdict == REDIRECTED
    assert_error(
        family,
        outcome.packet,
        source=family.of(client),
        inner=(family.of(server), family.of(client), 8080, 4000),
    )
    # A router complains: its own address stays.
    router = family.node[:-1] + "7"
    error = family.too_big(router, client, packet(family, kind, client, server, 4000, 8080), 1280)
    outcome = world.from_network(bytes(error))
    assert outcome.verdict == REDIRECTED
    assert_error(family, outcome.packet, source=router, inner=(family.of(client), family.service, 4000, 80))


def test_a_pod_complains_to_itself(world: World, family: Any, kind: str) -> None:
    pod = world.pod(1, 1001)
    world.service(family.service, 80, PROTOCOLS[kind], {31: (family.of(pod), 8080)})
    assert (
        world.from_pod(pod, bytes(packet(family, kind, pod, family.service, 4000, 80))).verdict == REDIRECTED
    )
    got = packet(family, kind, family.hairpin, pod, 4000, 8080)
    outcome = world.from_pod(pod, bytes(family.unreachable(pod, family.hairpin, got)))
    assert outcome.verdict == REDIRECTED
    assert_error(
        family, outcome.packet, source=family.service, inner=(family.of(pod), family.service, 4000, 80)
    )
    assert family.network(family.parse(outcome.packet)).dst == family.of(pod)


def assert_error(family: Any, raw: bytes, source: str, inner: tuple[str, str, int, int]) -> None:
    """The outer source, the inner packet, and that all checksums are what they should be."""
    from scapy.layers.inet import IP, IPerror
    from scapy.layers.inet6 import IPerror6, IPv6
    from scapy.layers.l2 import Ether

    seen = Ether(raw)
    outer = seen[IPv6 if family.ipv6 else IP]
    about = seen[IPerror6 if family.ipv6 else IPerror]
    ports = about.payload
    assert outer.src == source
    assert (about.src, about.dst, ports.sport, ports.dport) == inner
    stated = outer.payload.cksum if family.ipv6 else outer.payload.chksum
    again = outer.copy()
    if family.ipv6:
        del again.payload.cksum
    else:
        del again.payload.chksum
        head = again[IPerror].copy()
        head.remove_payload()
        del head.chksum
        assert IP(bytes(head)).chksum == about.chksum
    rebuilt = type(outer)(bytes(again))
    assert (rebuilt.payload.cksum if family.ipv6 else rebuilt.payload.chksum) == stated


def test_one_socket_and_two_services_of_one_backend(world: World, family: Any) -> None:
    client, server = world.pod(1, 1001), world.pod(2, 1002)
    other = family.service[:-1] + "1"
    for number, address in ((1, family.service), (2, other)):
        world.service(address, 53, 17, {31: (family.of(server), 53)}, number=number)
    for address in (family.service, other, family.service):
        world.from_pod(client, bytes(family.udp(client, address, 4000, 53)))
        outcome = world.from_pod(server, bytes(family.udp(server, client, 53, 4000)))
        from scapy.layers.l2 import Ether

        assert Ether(outcome.packet).payload.src == address


def test_a_service_that_is_gone_does_not_leak_its_backends(world: World, family: Any, kit: Any) -> None:
    client, server = world.pod(1, 1001), world.pod(2, 1002)
    world.service(family.service, 80, 6, {31: (family.of(server), 8080)})
    world.from_pod(client, bytes(family.tcp(client, family.service, 4000, 80)))
    del world.maps["podwire_rev_nat"][1]
    del world.maps["podwire_frontends"][FrontendKey(pack(family.service), 80, 6)]
    outcome = world.from_pod(server, bytes(family.tcp(server, client, 8080, 4000, "SA")))
    assert kit.drops(outcome) == [DropReason.UNROUTABLE]
    assert not kit.of_kind(outcome, EventKind.VERDICT).size


def test_fragments_to_a_service_and_back(world: World, family: Any, kit: Any) -> None:
    from scapy.layers.inet import IP, UDP
    from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment
    from scapy.layers.l2 import Ether
    from scapy.packet import Raw

    client, server = world.pod(1, 1001), world.pod(2, 1002)
    world.service(family.service, 53, 17, {31: (family.of(server), 5353)})

    def parts(source: Any, to: Any, sport: int, dport: int) -> list[Any]:
        whole = bytes(family.udp(source, to, sport, dport, b"x" * 72).payload.payload)
        made = []
        for offset, data, more in ((0, whole[:40], 1), (40, whole[40:], 0)):
            if family.ipv6:
                head = IPv6ExtHdrFragment(nh=17, id=9, offset=offset // 8, m=more)
                made.append(family.frame(source, to, head / Raw(data)))
            else:
                fields = {"id": 9, "frag": offset // 8, "flags": "MF" if more else 0, "proto": 17}
                made.append(family.frame(source, to, Raw(data), **fields))
        return made

    def arrives(pod: Pod, sent: list[Any]) -> tuple[str, str, bytes]:
        """(source, destination, UDP datagram) that the parts make at the other end."""
        got = [world.from_pod(pod, bytes(one)) for one in sent]
        assert [one.verdict for one in got] == [REDIRECTED] * 2
        seen = [Ether(one.packet)[IPv6 if family.ipv6 else IP] for one in got]
        data = b"".join(bytes(one)[48:] if family.ipv6 else bytes(one)[20:] for one in seen)
        return seen[1].src, seen[1].dst, data

    def wanted(source: Any, to: Any, sport: int, dport: int) -> bytes:
        return bytes(family.udp(source, to, sport, dport, b"x" * 72).payload.payload)

    there = arrives(client, parts(client, family.service, 4000, 53))
    assert there == (family.of(client), family.of(server), wanted(client, family.of(server), 4000, 5353))
    back = arrives(server, parts(server, client, 5353, 4000))
    assert back == (family.service, family.of(client), wanted(family.service, client, 53, 4000))
    assert UDP(back[2]).sport == 53
