"""One endpoint's flood takes its own share of connections, of what Services remember, and no more."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from podwire.abi.enums import CtFlags, CtShare, Direction, DropReason, EndpointFlags
from podwire.abi.structs import CtEntry
from podwire.bpf.map import U32, Map
from podwire.datapath import objects
from podwire.datapath.conntrack import GRACE, Conntrack, now
from podwire.testing.world import DROPPED, PASS, REDIRECTED, Pod, World

pytestmark = pytest.mark.kernel

TABLE, SHARE, OVERFLOW = 2048, 512, 512
FLOOD = 2500


@pytest.fixture
def node() -> Iterator[World]:
    sizes = {"podwire_conntrack": TABLE, "podwire_ct_overflow": OVERFLOW}
    with World(
        Path(objects.directory()), {"config_ct_share": SHARE, "config_ct_table": TABLE}, sizes
    ) as world:
        yield world


def connections_of(world: World) -> Conntrack:
    made, gone = (world.shared()[f"podwire_ct_{name}"].typed(U32, U32) for name in ("made", "gone"))
    return Conntrack(world.maps["podwire_conntrack"], world.maps["podwire_ct_overflow"], made, gone)


def flood(world: World, frame: Any, send: Any, packets: int = 2, port_at: int = 34) -> None:
    """FLOOD flows, each of several packets: a map that forgets the least used holds on to those."""
    raw = bytearray(bytes(frame))
    for port in range(1024, 1024 + FLOOD):
        raw[port_at : port_at + 2] = port.to_bytes(2, "big")
        send(bytes(raw), repeat=packets)


class Talk:
    """A client that nobody may call, and a server that answers it."""

    def __init__(self, world: World, family: Any) -> None:
        self.world, self.family = world, family
        self.client = world.pod(1, 1001, policy=1, flags=EndpointFlags.ENFORCE_INGRESS)
        self.server = world.pod(2, 1002)

    def opens(self, port: int) -> bool:
        ask = self.family.tcp(self.client, self.server, port, 80)
        return self.world.from_pod(self.client, bytes(ask)).verdict == REDIRECTED and self.goes_on(port, "SA")

    def goes_on(self, port: int, flags: str = "PA") -> bool:
        answer = self.family.tcp(self.server, self.client, 80, port, flags)
        return bool(self.world.from_pod(self.server, bytes(answer)).verdict == REDIRECTED)


@pytest.mark.parametrize("target", ["the world", "the server", "a service"])
def test_a_pods_flood_forgets_nobodys_connections(node: World, kit: Any, target: str) -> None:
    family = kit.Family(False)
    talk = Talk(node, family)
    noisy = node.pod(3, 1003)
    node.service(family.service, 53, 17, {31: (family.remote, 53)})
    to = {"the world": family.remote, "the server": talk.server, "a service": family.service}[target]
    assert talk.opens(4000)
    flood(
        node,
        family.udp(noisy, to, 1024, 53),
        lambda frame, repeat: node.from_pod(noisy, frame, repeat=repeat),
    )
    assert talk.goes_on(4000)
    for port in range(5000, 5000 + 2 * OVERFLOW, 10):  # its new ones find room as well
        assert talk.opens(port), port
    assert all(talk.goes_on(port) for port in range(5000, 5000 + 2 * OVERFLOW, 10))
    assert connections_of(node).used()[noisy.id * 2 + CtShare.OUT] == SHARE


def test_a_pods_flood_to_itself_takes_its_own_share(node: World, kit: Any) -> None:
    """By way of its own Service; nobody is asked about it, as about the node's own."""
    family = kit.Family(False)
    talk = Talk(node, family)
    noisy = node.pod(3, 1003)
    node.service(family.service, 80, 6, {31: (noisy.ipv4, 8080)})
    assert talk.opens(4000)
    frame = family.tcp(noisy, family.service, 1024, 80)
    for _ in range(2):
        flood(node, frame, lambda f, repeat: node.from_pod(noisy, f, repeat=repeat), packets=1)
    assert connections_of(node).used()[noisy.id * 2 + CtShare.OUT] == SHARE
    assert talk.goes_on(4000) and talk.opens(4001)


def test_a_flood_from_afar_leaves_the_pods_own_connections(node: World, kit: Any) -> None:
    family = kit.Family(False)
    talk = Talk(node, family)
    assert talk.opens(4000)
    flood(
        node,
        family.udp(family.remote, talk.server, 1024, 53),
        lambda f, repeat: node.from_network(f, repeat=repeat),
    )
    used = connections_of(node).used()
    assert used[talk.server.id * 2 + CtShare.IN] == SHARE
    assert talk.goes_on(4000) and talk.opens(4001)


def test_a_flood_from_afar_to_many_leaves_room_for_what_pods_open(node: World, kit: Any) -> None:
    family = kit.Family(False)
    talk = Talk(node, family)
    others = [node.pod(number, 1000 + number) for number in (3, 4)]
    for target in (talk.server, talk.client, *others):
        flood(
            node,
            family.udp(family.remote, target, 1024, 53),
            lambda f, repeat: node.from_network(f, repeat=repeat),
        )
    used = connections_of(node).used()
    assert sum(count for share, count in used.items() if share & 1) == TABLE // 2
    assert talk.opens(4000)
    flood(
        node,
        family.udp(family.remote, others[0], 1024, 54),
        lambda f, repeat: node.from_network(f, repeat=repeat),
    )
    assert talk.goes_on(4000)


def test_a_flood_of_the_node_itself_leaves_room_for_what_pods_open(node: World, kit: Any) -> None:
    family = kit.Family(False)
    talk = Talk(node, family)
    target = node.pod(3, 1003)
    for port in (53, 54):
        flood(
            node,
            family.udp(family.node, target, 1024, port),
            lambda f, repeat: node.to_pod(target, f, repeat=repeat),
        )
    assert talk.opens(4000)
    flood(
        node,
        family.udp(family.node, target, 1024, 55),
        lambda f, repeat: node.to_pod(target, f, repeat=repeat),
    )
    assert talk.goes_on(4000)


def test_the_nodes_own_probes_are_never_beyond_a_share(node: World, kit: Any) -> None:
    family = kit.Family(False)
    server = node.pod(2, 1002, policy=1, flags=EndpointFlags.ENFORCE_EGRESS)  # it may only answer
    flood(
        node,
        family.udp(family.remote, server, 1024, 53),
        lambda f, repeat: node.from_network(f, repeat=repeat),
    )
    probe = bytes(family.tcp(family.node, server, 40000, 8080))
    assert node.to_pod(server, probe).verdict == PASS
    flood(
        node,
        family.udp(family.remote, server, 1024, 54),
        lambda f, repeat: node.from_network(f, repeat=repeat),
    )
    answer = bytes(family.tcp(server, family.node, 8080, 40000, "SA"))
    assert node.from_pod(server, answer).verdict == PASS


def test_what_is_swept_is_given_back(node: World, kit: Any) -> None:
    family = kit.Family(False)
    noisy, connections = node.pod(3, 1003), connections_of(node)
    send = lambda frame, repeat: node.from_pod(noisy, frame, repeat=repeat)  # noqa: E731
    share = noisy.id * 2 + CtShare.OUT
    flood(node, family.udp(noisy, family.remote, 1024, 53), send, packets=1)
    assert connections.used() == {share: SHARE} and len(node.maps["podwire_ct_overflow"]) > 0
    assert connections.sweep(now()) == (0, len(node.connections()))
    assert connections.used() == {share: SHARE}
    later = now() + 60 + GRACE + 2
    removed, left = connections.sweep(later)
    assert removed > SHARE and left == 0 and connections.used() == {}
    overflow = node.shared()["podwire_ct_made"][U32.pack(0)], node.shared()["podwire_ct_gone"][U32.pack(0)]
    assert overflow[0] == overflow[1], "the overflow is empty and not looked at"
    flood(node, family.udp(noisy, family.remote, 1024, 53), send, packets=1)
    assert connections.used() == {share: SHARE}


def test_a_flow_that_comes_back_while_it_is_swept_is_kept(node: World, kit: Any) -> None:
    family = kit.Family(False)
    client, server = node.pod(1, 1001), node.pod(2, 1002)
    packet = bytes(family.udp(client, server, 4000, 53))
    node.from_pod(client, packet)
    table = node.maps["podwire_conntrack"]
    for key, entry in list(table.items()):
        table[key] = CtEntry(expires=1, share=entry.share, direction=entry.direction, flags=entry.flags)

    class Meanwhile(Map):  # type: ignore[type-arg]
        """A packet comes between reading the table and removing from it."""

        def snapshot(self) -> tuple[bytes, bytes]:
            taken = super().snapshot()
            node.from_pod(client, packet)
            return taken

    with table.typed(table.key, table.value) as own:
        own.__class__ = Meanwhile
        connections = connections_of(node)
        connections.table = own
        assert connections.sweep(now()) == (0, 2)
    assert len(table) == 2


def test_a_denied_flow_leaves_no_memory(world: World, family: Any, kit: Any) -> None:
    client = world.pod(1, 1001, policy=4, flags=EndpointFlags.ENFORCE_EGRESS)
    server = world.pod(2, 1002)
    world.service(family.service, 80, 6, {31: (family.of(server), 8080)})
    for port in range(5000, 5020):
        assert kit.drops(world.from_pod(client, bytes(family.tcp(client, family.service, port, 80))))
    assert not world.connections()


def seconds_left(world: World) -> dict[str, int]:
    return {
        "memory" if entry.flags & CtFlags.MEMORY else key.local_port: entry.expires - now()
        for key, entry in world.connections().items()
    }


def opened(world: World, family: Any) -> tuple[Pod, Pod]:
    client, server = world.pod(1, 1001), world.pod(2, 1002)
    world.service(family.service, 80, 6, {31: (family.of(server), 8080)})
    for sender, receiver, ports, flags in (
        (client, family.service, (4000, 80), "S"),
        (server, client, (8080, 4000), "SA"),
        (client, family.service, (4000, 80), "A"),
    ):
        assert (
            world.from_pod(sender, bytes(family.tcp(sender, receiver, *ports, flags))).verdict == REDIRECTED
        )
    assert min(seconds_left(world).values()) > 7000
    return client, server


@pytest.mark.parametrize("closer", ["client", "server", "both", "client resets", "server resets"])
def test_a_memory_lives_as_long_as_its_connection(world: World, family: Any, closer: str) -> None:
    client, server = opened(world, family)
    flags = "R" if closer.endswith("resets") else "FA"
    if not closer.startswith("server"):
        world.from_pod(client, bytes(family.tcp(client, family.service, 4000, 80, flags)))
    if not closer.startswith("client"):
        world.from_pod(server, bytes(family.tcp(server, client, 8080, 4000, flags)))
    left = seconds_left(world)["memory"]
    if closer == "both":
        assert left <= 60
    elif closer.endswith("resets"):
        assert 60 < left <= 120
    else:
        assert left > 7000, "the other side may go on"


def test_a_memory_lives_while_only_the_backend_sends(world: World, family: Any) -> None:
    client, server = world.pod(1, 1001), world.pod(2, 1002)
    world.service(family.service, 53, 17, {31: (family.of(server), 5353)})
    world.from_pod(client, bytes(family.udp(client, family.service, 4000, 53)))
    table = world.maps["podwire_conntrack"]
    for key, entry in list(table.items()):
        table[key] = msgspec.structs.replace(entry, expires=entry.expires - 30)
    assert seconds_left(world)["memory"] <= 30
    world.from_pod(server, bytes(family.udp(server, client, 5353, 4000)))
    assert seconds_left(world)["memory"] > 50


def test_an_error_neither_keeps_nor_shortens_a_memory(world: World, family: Any) -> None:
    client, _ = opened(world, family)
    error = family.unreachable(client, family.service, family.tcp(family.service, client, 80, 4000))
    assert world.from_pod(client, bytes(error)).verdict == REDIRECTED
    assert seconds_left(world)["memory"] > 7000


def test_a_number_that_is_another_backends_now_is_not_believed(world: World, family: Any) -> None:
    """An agent that starts anew may give a freed number again."""
    client, old, stranger = world.pod(1, 1001), world.pod(2, 1002), world.pod(3, 1003)
    world.service(family.service, 80, 6, {31: (family.of(old), 8080)}, number=1)
    world.from_pod(client, bytes(family.tcp(client, family.service, 4000, 80)))
    world.service(family.service, 80, 6, {33: (family.of(old), 9090)}, number=1)
    world.service(family.service[:-1] + "1", 80, 6, {31: (family.of(stranger), 8080)}, number=2)
    outcome = world.from_pod(client, bytes(family.tcp(client, family.service, 4000, 80, "A")))
    assert family.network(family.parse(outcome.packet)).dst == family.of(old)


def test_a_new_connection_gets_no_backend_that_left(world: World, family: Any) -> None:
    """Also if the backend is still there, for another Service."""
    client, old, new = world.pod(1, 1001), world.pod(2, 1002), world.pod(3, 1003)
    world.service(family.service, 80, 6, {31: (family.of(old), 8080)})
    ask = bytes(family.tcp(client, family.service, 4000, 80))
    world.from_pod(client, ask)
    world.service(family.service, 80, 6, {32: (family.of(new), 8080)})
    outcome = world.from_pod(client, ask)
    assert family.network(family.parse(outcome.packet)).dst == family.of(new)


def test_a_forged_reset_does_not_end_what_goes_on(world: World, family: Any) -> None:
    """Nobody here knows sequence numbers; who pushes once a minute must not be cut off."""
    client = world.pod(1, 1001, policy=1, flags=EndpointFlags.ENFORCE_INGRESS)
    world.from_pod(client, bytes(family.tcp(client, family.remote, 4000, 443)))
    world.from_network(bytes(family.tcp(family.remote, client, 443, 4000, "SA")))
    world.from_pod(client, bytes(family.tcp(client, family.remote, 4000, 443, "A")))
    world.from_network(bytes(family.tcp(family.remote, client, 443, 4000, "R")))
    assert 100 < seconds_left(world)[4000] <= 120
    assert (
        world.from_network(bytes(family.tcp(family.remote, client, 443, 4000, "PA", b"x"))).verdict
        == REDIRECTED
    )


def test_a_refused_connection_is_forgotten_as_soon_as_a_closed_one(world: World, family: Any) -> None:
    client = world.pod(1, 1001)
    world.from_pod(client, bytes(family.tcp(client, family.remote, 4000, 443)))
    world.from_network(bytes(family.tcp(family.remote, client, 443, 4000, "RA")))
    assert seconds_left(world)[4000] <= 10


def test_a_denied_flow_does_not_block_the_other_direction_for_ever(
    world: World, family: Any, kit: Any
) -> None:
    """Fixed ports both ways (NTP, SIP, WireGuard): what was revoked ends, what is allowed begins."""
    both = EndpointFlags.ENFORCE_INGRESS | EndpointFlags.ENFORCE_EGRESS
    one, two = world.pod(1, 1001, policy=1, flags=both), world.pod(2, 1002)
    world.rule(1, Direction.EGRESS, protocol=17, port=123)
    assert world.from_pod(one, bytes(family.udp(one, two, 123, 123))).verdict == REDIRECTED
    world.pod(1, 1001, policy=2, flags=both)
    world.rule(2, Direction.INGRESS, protocol=17, port=123)
    (key,) = [
        key
        for key, entry in world.connections().items()
        if entry.direction == Direction.EGRESS and entry.policy == 1
    ]
    half = world.connections()[key].expires - 30
    world.maps["podwire_conntrack"][key] = msgspec.structs.replace(world.connections()[key], expires=half)
    for _ in range(3):
        assert kit.drops(world.from_pod(two, bytes(family.udp(two, one, 123, 123)))) == [
            DropReason.POLICY_DENIED
        ]
    assert world.connections()[key].expires == half, "answers do not keep what was revoked"
    assert world.from_pod(one, bytes(family.udp(one, two, 123, 123))).verdict == DROPPED
    assert world.connections()[key].expires > half, "what is sent does: else its answers would pass as calls"
    world.maps["podwire_conntrack"][key] = msgspec.structs.replace(world.connections()[key], expires=1)
    assert world.from_pod(two, bytes(family.udp(two, one, 123, 123))).verdict == REDIRECTED


def test_nobody_takes_a_memory_away_from_outside(world: World, family: Any, kit: Any) -> None:
    """Under the Service's own address, which only translation may show to a client."""
    client, _ = opened(world, family)
    lie = family.tcp(family.service, client, 80, 4000, "A")
    assert kit.drops(world.from_network(bytes(lie))) == [DropReason.INVALID_SOURCE_IP]
    assert seconds_left(world)["memory"] > 7000
