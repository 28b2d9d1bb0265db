"""What conntrack remembers: states, times, counts, and errors about known connections."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from podwire.abi.enums import CtFlags, Direction, DropReason, EndpointFlags, EventKind
from podwire.abi.structs import CtKey
from podwire.base.addresses import pack
from podwire.datapath import objects
from podwire.testing.world import DROPPED, PASS, REDIRECTED, World

pytestmark = pytest.mark.kernel

INGRESS, EGRESS = Direction.INGRESS, Direction.EGRESS


def seconds_left(world: World, key: CtKey) -> int:
    now = int(time.clock_gettime(time.CLOCK_BOOTTIME))
    return world.maps["podwire_conntrack"][key].expires - now


def key_of(family: Any, local: Any, remote: Any, local_port: int, remote_port: int, protocol: int) -> CtKey:
    addresses = [family.of(one) if not isinstance(one, str) else one for one in (local, remote)]
    return CtKey(pack(addresses[0]), pack(addresses[1]), local_port, remote_port, protocol)


def test_the_life_of_a_tcp_connection(world: World, family: Any) -> None:
    client, server = world.pod(1, 1001), world.pod(2, 1002)
    key = key_of(family, client, server, 4000, 80, 6)

    def there(flags: str) -> None:
        assert (
            world.from_pod(client, bytes(family.tcp(client, server, 4000, 80, flags))).verdict == REDIRECTED
        )

    def back(flags: str) -> None:
        assert (
            world.from_pod(server, bytes(family.tcp(server, client, 80, 4000, flags))).verdict == REDIRECTED
        )

    there("S")
    assert 50 < seconds_left(world, key) <= 60
    back("SA")
    there("A")
    assert 7900 < seconds_left(world, key) <= 8000
    there("FA")
    assert seconds_left(world, key) > 7900
    back("FA")
    there("A")
    assert seconds_left(world, key) <= 10
    entry = world.connections()[key]
    assert entry.packets_sent == 4 and entry.packets_received == 2
    assert entry.flags == CtFlags.CLOSING_LOCAL | CtFlags.CLOSING_REMOTE | CtFlags.SEEN_REPLY
    there("S")
    again = world.connections()[key]
    assert again.packets_sent == 1 and not again.flags and seconds_left(world, key) > 50


def test_a_reset_closes_both_sides(world: World, family: Any) -> None:
    client, server = world.pod(1, 1001), world.pod(2, 1002)
    world.from_pod(client, bytes(family.tcp(client, server, 4000, 80, "S")))
    world.from_pod(server, bytes(family.tcp(server, client, 80, 4000, "RA")))
    for local, remote, ports in ((client, server, (4000, 80)), (server, client, (80, 4000))):
        assert seconds_left(world, key_of(family, local, remote, *ports, 6)) <= 10


def test_traces_tell_what_is_new(world: World, family: Any, kit: Any) -> None:
    client, server = world.pod(1, 1001), world.pod(2, 1002)
    told = []
    for sender, receiver, ports, flags in (
        (client, server, (4000, 80), "S"),
        (server, client, (80, 4000), "SA"),
        (client, server, (4000, 80), "A"),
        (client, server, (4000, 80), "PA"),
        (server, client, (80, 4000), "PA"),
        (client, server, (4000, 80), "FA"),
        (server, client, (80, 4000), "FA"),
        (client, server, (4000, 80), "A"),
    ):
        outcome = world.from_pod(sender, bytes(family.tcp(sender, receiver, *ports, flags)))
        told.append([int(one["reason"]) for one in kit.of_kind(outcome, EventKind.TRACE)])
    assert told == [[1], [3], [], [], [], [2], [3], []]


def test_a_connection_is_told_again_after_the_interval(world: World, family: Any) -> None:
    client, server = world.pod(1, 1001), world.pod(2, 1002)
    packet = bytes(family.udp(client, server, 4000, 53))
    assert len(world.from_pod(client, packet).events) == 1
    assert len(world.from_pod(client, packet).events) == 0
    key = key_of(family, server, client, 53, 4000, 17)
    entry = world.connections()[key]
    world.maps["podwire_conntrack"][key] = msgspec.structs.replace(entry, reported=entry.reported - 5)
    assert len(world.from_pod(client, packet).events) == 1


def test_what_expired_is_asked_again(world: World, family: Any, kit: Any) -> None:
    client = world.pod(1, 1001)
    server = world.pod(2, 1002, policy=9, flags=EndpointFlags.ENFORCE_EGRESS)
    world.from_pod(client, bytes(family.udp(client, server, 4000, 53)))
    back = bytes(family.udp(server, client, 53, 4000))
    assert world.from_pod(server, back).verdict == REDIRECTED
    key = key_of(family, server, client, 53, 4000, 17)
    entry = world.connections()[key]
    world.maps["podwire_conntrack"][key] = msgspec.structs.replace(entry, expires=1)
    assert kit.drops(world.from_pod(server, back)) == [DropReason.POLICY_DENIED]


def test_an_error_about_a_known_connection_is_related(world: World, family: Any, kit: Any) -> None:
    both = EndpointFlags.ENFORCE_INGRESS | EndpointFlags.ENFORCE_EGRESS
    client = world.pod(1, 1001, policy=1, flags=both)
    server = world.pod(2, 1002, policy=2, flags=both)
    world.rule(1, EGRESS, protocol=17, port=53)
    world.rule(2, INGRESS, protocol=17, port=53)
    asked = family.udp(client, server, 4000, 53)
    error = bytes(family.unreachable(server, client, asked))
    assert kit.drops(world.from_pod(server, error)) == [DropReason.POLICY_DENIED]
    assert world.from_pod(client, bytes(asked)).verdict == REDIRECTED
    outcome = world.from_pod(server, error)
    assert outcome.verdict == REDIRECTED
    (trace,) = kit.of_kind(outcome, EventKind.TRACE)
    assert trace["reason"] == 4 and trace["protocol"] == family.icmp_protocol


def test_a_router_may_complain_about_a_known_connection(world: World, family: Any, kit: Any) -> None:
    client = world.pod(1, 1001, policy=1, flags=EndpointFlags.ENFORCE_INGRESS)
    asked = family.tcp(client, family.remote, 4000, 443)
    error = bytes(family.too_big(family.node[:-1] + "7", client, asked, 1280))
    assert kit.drops(world.from_network(error)) == [DropReason.POLICY_DENIED]
    assert world.from_pod(client, bytes(asked)).verdict == PASS
    assert world.from_network(error).verdict == REDIRECTED


@pytest.mark.parametrize("lie", ["not mine", "to another"])
def test_a_pod_cannot_complain_about_others_connections(
    world: World, family: Any, kit: Any, lie: str
) -> None:
    client, server, liar = world.pod(1, 1001), world.pod(2, 1002), world.pod(3, 1003)
    asked = family.udp(client, server, 4000, 53)
    world.from_pod(client, bytes(asked))
    if lie == "not mine":
        error = family.unreachable(liar, client, asked)
        assert kit.drops(world.from_pod(liar, bytes(error))) == [DropReason.INVALID_SOURCE_IP]
        return
    world.write(msgspec.structs.replace(server, policy=3, flags=EndpointFlags.ENFORCE_EGRESS))
    error = family.unreachable(server, liar, asked)
    outcome = world.from_pod(server, bytes(error))
    assert outcome.verdict == DROPPED and kit.drops(outcome) == [DropReason.POLICY_DENIED]


def test_a_full_table_goes_on_in_the_overflow(kit: Any) -> None:
    family, small = kit.Family(False), {"podwire_conntrack": 1024}
    with World(Path(objects.directory()), max_entries=small) as world:
        client, server = world.pod(1, 1001), world.pod(2, 1002)
        frame = bytearray(bytes(family.udp(client, server, 1024, 53)))
        for port in range(1024, 1024 + 3000):
            frame[34:36] = port.to_bytes(2, "big")
            assert world.from_pod(client, bytes(frame)).verdict == REDIRECTED
        known = {key.local_port for key in world.connections() if key.remote_port == 53}
        assert len(world.maps["podwire_conntrack"]) == 1024
        assert {1024, 1024 + 2999} <= known
