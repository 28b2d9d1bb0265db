"""What is remembered of fragments: on whose account, how much of it, and only of what was admitted."""

from __future__ import annotations

from typing import Any

import pytest
from scapy.layers.inet import UDP
from scapy.layers.inet6 import IPv6ExtHdrFragment
from scapy.packet import Raw

from podwire.abi.enums import CtShare, Direction, DropReason, EndpointFlags
from podwire.testing.world import PASS, REDIRECTED, Pod, World

pytestmark = pytest.mark.kernel

PLACES = 64  # of one share, FRAGMENT_PLACES
FLOOD = 10_000  # datagrams; more than all endpoints together had room for
OUT, IN = EndpointFlags.ENFORCE_EGRESS, EndpointFlags.ENFORCE_INGRESS


def parts(family: Any, source: Any, to: Any, id: int = 7, port: int = 53) -> tuple[bytes, bytes]:
    """A UDP datagram in two fragments."""
    whole = bytes(UDP(sport=4000, dport=port, len=80, chksum=1) / Raw(b"x" * 72))
    made = []
    for offset, data, more in ((0, whole[:64], 1), (64, whole[64:], 0)):
        if family.ipv6:
            head = IPv6ExtHdrFragment(nh=17, id=id, offset=offset // 8, m=more)
            made.append(bytes(family.frame(source, to, head / Raw(data))))
        else:
            cut = {"id": id, "frag": offset // 8, "flags": "MF" if more else 0, "proto": 17}
            made.append(bytes(family.frame(source, to, Raw(data), **cut)))
    return made[0], made[1]


def numbered(family: Any, frame: bytes, id: int) -> bytes:
    """The same fragment of another datagram; nobody here looks at the header's checksum."""
    at, length = (14 + 40 + 4, 4) if family.ipv6 else (14 + 4, 2)
    return frame[:at] + id.to_bytes(length, "big") + frame[at + length :]


def places(world: World) -> dict[int, int]:
    """Share → datagrams remembered."""
    shares = [key.share for key in world.maps["podwire_fragments"]]
    return {share: shares.count(share) for share in set(shares)}


@pytest.mark.parametrize("way", ["sends", "is forwarded by the stack"])
def test_a_pods_flood_forgets_nobodys_fragments(world: World, family: Any, kit: Any, way: str) -> None:
    client, server, noisy = world.pod(1, 1001), world.pod(2, 1002), world.pod(3, 1003)
    first, later = parts(family, client, server)
    if way != "sends":
        first, later = parts(family, family.remote, server)
    frame, _ = parts(family, noisy, server)

    def send(packet: bytes) -> int:
        if way == "sends":
            return world.from_pod(client, packet).verdict
        return world.from_network(packet).verdict

    assert send(first) == REDIRECTED
    for id in range(FLOOD):
        if way == "sends":
            world.run_unread("from_pod", numbered(family, frame, id), noisy.device)
        else:
            world.to_pod(server, numbered(family, frame, id), received_on=noisy.device)
    assert places(world)[noisy.id * 2 + CtShare.OUT] == PLACES
    assert send(later) == REDIRECTED


def test_a_flood_from_afar_is_its_targets(world: World, family: Any, kit: Any) -> None:
    """Not what the target sends itself, and nobody else's."""
    client, target = world.pod(1, 1001), world.pod(2, 1002)
    sent, received = parts(family, target, client), parts(family, family.remote, client)
    assert world.from_pod(target, sent[0]).verdict == REDIRECTED
    assert world.from_network(received[0]).verdict == REDIRECTED
    frame, _ = parts(family, family.remote, target)
    for id in range(FLOOD):
        world.run_unread("from_network", numbered(family, frame, id), world.device("pw-under"))
    assert places(world)[target.id * 2 + CtShare.IN] == PLACES
    assert world.from_pod(target, sent[1]).verdict == REDIRECTED
    assert world.from_network(received[1]).verdict == REDIRECTED


def test_what_is_not_admitted_takes_no_place(world: World, family: Any, kit: Any) -> None:
    pod = world.pod(1, 1001, policy=3, flags=OUT | IN)
    for send, ends in (
        (lambda frame: world.from_pod(pod, frame), (pod, family.remote)),
        (lambda frame: world.from_network(frame), (family.remote, pod)),
        (lambda frame: world.to_pod(pod, frame, received_on=world.device("pw-under")), (family.remote, pod)),
    ):
        first, later = parts(family, *ends)
        assert kit.drops(send(first)) == [DropReason.POLICY_DENIED]
        assert not places(world)
        assert kit.drops(send(later)) == [DropReason.FRAGMENT_NOT_FOUND]


def test_datagrams_that_follow_each_other_do_not_share_a_place(world: World, family: Any, kit: Any) -> None:
    """In any order of their fragments: as many as there are places."""
    client = world.pod(1, 1001)
    first, later = parts(family, client, family.remote)
    for start in (0, 0xFFC0, 1000 * PLACES):
        numbers = range(start, start + PLACES)
        assert all(world.from_pod(client, numbered(family, first, id)).verdict == PASS for id in numbers)
        assert all(world.from_pod(client, numbered(family, later, id)).verdict == PASS for id in numbers)


def test_a_datagram_in_anothers_place_is_not_taken_for_it(world: World, family: Any, kit: Any) -> None:
    """What follows of one that was pushed out is asked about under no other's ports."""
    client: Pod = world.pod(1, 1001, policy=3, flags=OUT)
    world.rule(3, Direction.EGRESS, protocol=17, port=53)
    first, later = parts(family, client, family.remote)
    for id in range(1, 2 * PLACES):  # some stand where 0 would
        assert world.from_pod(client, numbered(family, first, id)).verdict == PASS
    lost = world.from_pod(client, numbered(family, later, 0))
    assert kit.drops(lost) == [DropReason.FRAGMENT_NOT_FOUND]
