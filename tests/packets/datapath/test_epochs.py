"""What a change has connections asked again by: those it may concern, and no others."""

from __future__ import annotations

from array import array
from pathlib import Path
from typing import Any

import msgspec
import pytest

from podwire.abi.enums import Direction, EndpointFlags, ReservedIdentity
from podwire.abi.structs import NodeState
from podwire.base.addresses import pack
from podwire.datapath import epochs, objects
from podwire.datapath.catalogue import CATALOGUE
from podwire.testing.world import DROPPED, PASS, REDIRECTED, UNDERLAY, Pod, World

pytestmark = pytest.mark.kernel

BOTH = EndpointFlags.ENFORCE_INGRESS | EndpointFlags.ENFORCE_EGRESS
POLICIES = {1: 7, 2: 8}


def bump(world: World, *places: int) -> None:
    words = array("I", world.state[0].pack())
    for place in places:
        words[place] += 1
    world.state[0] = NodeState.unpack(words.tobytes())


class Calls:
    """Pod 1 calls pods 3 and 4, pod 2 calls pod 3; then nothing is allowed any more to who is asked."""

    def __init__(self, world: World, family: Any) -> None:
        self.world, self.family = world, family
        self.pods = {
            number: world.pod(
                number, 1000 * number, policy=POLICIES.get(number, 0), flags=BOTH * (number < 3)
            )
            for number in (1, 2, 3, 4)
        }
        for policy in POLICIES.values():
            world.rule(policy, Direction.EGRESS)
        self.flags = "S"
        assert self.pass_() == {(1, 3), (1, 4), (2, 3)}
        self.flags = "A"
        self._forbid()
        assert self.pass_() == {(1, 3), (1, 4), (2, 3)}

    def _forbid(self) -> None:
        self.world.maps["podwire_policy"].clear()

    def pass_(self) -> set[tuple[int, int]]:
        """Who may still say something to whom."""
        verdicts = {
            (sender, receiver): self.world.from_pod(
                self.pods[sender],
                bytes(
                    self.family.tcp(self.pods[sender], self.pods[receiver], 4000 + receiver, 80, self.flags)
                ),
            ).verdict
            for sender, receiver in ((1, 3), (1, 4), (2, 3))
        }
        assert set(verdicts.values()) <= {REDIRECTED, DROPPED}
        return {pair for pair, verdict in verdicts.items() if verdict == REDIRECTED}

    def address(self, number: int) -> bytes:
        return pack(self.family.of(self.pods[number]))


def test_who_is_behind_an_address(world: World, family: Any) -> None:
    calls = Calls(world, family)
    bump(world, epochs.of_address(calls.address(3)))
    assert calls.pass_() == {(1, 4)}


def test_of_which_class_an_identity_is(world: World, family: Any) -> None:
    calls = Calls(world, family)
    assert epochs.of_block(3000 >> 4) != epochs.of_block(4000 >> 4)
    bump(world, epochs.of_block(4000 >> 4))
    assert calls.pass_() == {(1, 3), (2, 3)}


def test_what_a_policy_says(world: World, family: Any) -> None:
    calls = Calls(world, family)
    bump(world, epochs.of_policy(POLICIES[2]))
    assert calls.pass_() == {(1, 3), (1, 4)}


def test_an_endpoint_itself(world: World, family: Any) -> None:
    calls = Calls(world, family)
    pod = calls.pods[1]
    for name, key in (
        ("podwire_devices", pod.device),
        ("podwire_endpoints", pack(pod.ipv4)),
        ("podwire_endpoints", pack(pod.ipv6)),
    ):
        row = world.maps[name][key]
        world.maps[name][key] = msgspec.structs.replace(row, epoch=row.epoch + 1)
    assert calls.pass_() == {(2, 3)}


def test_all_of_the_node(world: World, family: Any) -> None:
    calls = Calls(world, family)
    world.bump()
    assert calls.pass_() == set()


def test_a_denied_one_stays_denied(world: World, family: Any) -> None:
    calls = Calls(world, family)
    bump(world, epochs.of_policy(POLICIES[2]))
    for _ in range(3):
        assert calls.pass_() == {(1, 3), (1, 4)}
    world.rule(POLICIES[2], Direction.EGRESS)
    assert calls.pass_() == {(1, 3), (1, 4), (2, 3)}


def asks(name: str) -> epochs.Asks:
    written = CATALOGUE[name].written
    assert written is not None
    return written.asks


@pytest.mark.parametrize(
    ("name", "key", "place"),
    [
        ("podwire_ipcache", pack("10.0.9.1"), epochs.of_address(pack("10.0.9.1"))),
        ("podwire_endpoints", pack("fd00::1"), epochs.of_address(pack("fd00::1"))),
        ("podwire_ipcache_prefixes", bytes(20), epochs.POLICY),
        ("podwire_slots", bytes(8), epochs.SERVICE),
    ],
)
def test_a_key_bumps_its_place(name: str, key: bytes, place: int) -> None:
    assert epochs.places(asks(name), {key}) == {place}


def test_many_keys_bump_all() -> None:
    keys = {pack(f"10.1.{number >> 8}.{number & 255}") for number in range(epochs.MANY + 1)}
    assert epochs.places(asks("podwire_ipcache"), keys) == {epochs.POLICY}


def answered_call(world: World, family: Any, pod: Pod, **received: int) -> None:
    """Somebody at the remote address calls the pod, which answers."""
    for flags in ("S", "A"):
        call = family.routed(family.tcp(family.remote, pod, 80, 4000, flags), pod)
        assert world.to_pod(pod, bytes(call), **received).verdict == PASS
        if flags == "S":
            assert world.from_pod(pod, bytes(family.tcp(pod, family.remote, 4000, 80, "SA"))).verdict == PASS


@pytest.mark.parametrize("idle", [False, True])
def test_a_call_back_is_to_who_is_there_now(world: World, family: Any, idle: bool) -> None:
    """The connection remembers who called; the address has become another's, whom the pod may not call."""
    pod = world.pod(1, 1000, policy=7, flags=EndpointFlags.ENFORCE_EGRESS)
    world.known(family.remote, 5000)
    world.peer(7, 5000, Direction.EGRESS, 3)
    world.rule(7, Direction.EGRESS, peer_class=3)
    answered_call(world, family, pod, received_on=world.device(UNDERLAY))
    world.known(family.remote, 6000)
    bump(world, epochs.of_address(pack(family.remote)))
    if not idle:  # what it says in between is no permission for that one
        world.from_pod(pod, bytes(family.tcp(pod, family.remote, 4000, 80, "A")))
    assert world.from_pod(pod, bytes(family.tcp(pod, family.remote, 4000, 80, "S"))).verdict == DROPPED


def test_a_call_back_to_a_node_is_no_call_to_the_world(family: Any) -> None:
    """By another network a node calls as the world, which the pod may call; the node it may not."""
    with World(Path(objects.directory()), network=True) as world:
        pod = world.pod(1, 1000, policy=7, flags=EndpointFlags.ENFORCE_EGRESS)
        world.known(family.remote, ReservedIdentity.REMOTE_NODE)
        world.peer(7, ReservedIdentity.WORLD, Direction.EGRESS, 3)
        world.rule(7, Direction.EGRESS, peer_class=3)
        answered_call(world, family, pod, received_on=1)
        assert world.from_pod(pod, bytes(family.tcp(pod, family.remote, 4000, 80, "S"))).verdict == DROPPED


def test_what_the_node_opened_is_the_nodes_while_the_address_is(world: World, family: Any) -> None:
    """A probe's source address moves away: who has it now is asked, and so is the pod that answers him."""
    pod = world.pod(1, 1000, policy=7, flags=BOTH)
    world.node(family.remote)
    probe = bytes(family.udp(family.remote, pod, 5000, 53))
    answer = bytes(family.udp(pod, family.remote, 53, 5000))
    assert world.to_pod(pod, probe).verdict == PASS
    bump(world, epochs.of_address(pack(family.remote)))
    assert world.from_pod(pod, answer).verdict == PASS  # something changed, and it is the node's still
    del world.maps["podwire_endpoints"][pack(family.remote)]
    bump(world, epochs.of_address(pack(family.remote)))
    assert world.from_network(probe).verdict == DROPPED
    assert world.from_pod(pod, answer).verdict == DROPPED
