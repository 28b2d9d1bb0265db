"""The flood of one endpoint hides nobody else's events, and what is withheld is counted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from podwire.abi.enums import CtShare, EndpointFlags, EventKind
from podwire.abi.structs import EventShare
from podwire.bpf.map import U32
from podwire.datapath import objects
from podwire.testing.world import Pod, World

pytestmark = pytest.mark.kernel

OUT, IN = EndpointFlags.ENFORCE_EGRESS, EndpointFlags.ENFORCE_INGRESS
SHARE = 100
FULL = 60_000  # records; more than the ring has room for


@pytest.fixture
def node() -> Iterator[World]:
    """Its ring is not read until somebody asks for the events."""
    with World(Path(objects.directory()), {"config_event_share": SHARE}) as world:
        yield world


def flood(world: World, frame: bytes, pod: Pod | None = None) -> None:
    """Half as many packets as FULL, each of which is told twice; their events stay in the ring."""
    program, device = ("from_pod", pod.device) if pod else ("from_network", world.device("pw-under"))
    world.run_unread(program, frame, device, repeat=FULL // 2)


def withheld(world: World, pod: Pod, side: CtShare) -> int:
    shares = world.shared()["podwire_event_shares"].typed(U32, EventShare)
    with shares:
        return shares[pod.id * 2 + side].withheld


def told(world: World) -> dict[int, int]:
    """Source endpoint → drops told."""
    events = world.events()
    drops = events[events["kind"] == EventKind.DROP]
    return {
        int(number): int((drops["source_endpoint"] == number).sum())
        for number in set(drops["source_endpoint"])
    }


def test_a_pods_flood_does_not_hide_anothers_drop(node: World, kit: Any) -> None:
    family = kit.Family(False)
    noisy, quiet = node.pod(1, 1001, policy=1, flags=OUT), node.pod(2, 1002, policy=1, flags=OUT)
    flood(node, bytes(family.udp(noisy, family.remote, 4000, 53)), noisy)
    node.run_unread("from_pod", bytes(family.udp(quiet, family.remote, 4000, 53)), quiet.device)
    seen = told(node)
    assert seen[quiet.id] == 1 and seen[noisy.id] > SHARE


def test_a_flood_from_afar_does_not_hide_what_its_target_does(node: World, kit: Any) -> None:
    family = kit.Family(False)
    target = node.pod(1, 1001, policy=1, flags=OUT | IN)
    flood(node, bytes(family.udp(family.remote, target, 4000, 53)))
    assert withheld(node, target, CtShare.IN) > 0 and withheld(node, target, CtShare.OUT) == 0
    node.run_unread("from_pod", bytes(family.udp(target, family.remote, 4000, 53)), target.device)
    assert told(node)[target.id] == 1


def test_what_is_withheld_is_lost_and_counted(node: World, kit: Any) -> None:
    family = kit.Family(False)
    noisy = node.pod(1, 1001, policy=1, flags=OUT)
    flood(node, bytes(family.udp(noisy, family.remote, 4000, 53)), noisy)
    stored = len(node.events())
    cpus = node.statistics.per_cpu(0) or []
    emitted, lost, kept_back = (
        sum(getattr(one, name) for one in cpus) for name in ("emitted", "lost", "withheld")
    )
    assert emitted == FULL and emitted == stored + lost
    assert kept_back == lost == withheld(node, noisy, CtShare.OUT)


def test_while_the_ring_is_read_nobody_is_held_back(node: World, kit: Any) -> None:
    family = kit.Family(False)
    busy = node.pod(1, 1001, policy=1, flags=OUT)
    frame = bytes(family.udp(busy, family.remote, 4000, 53))
    stored = sum(len(node.run("from_pod", frame, busy.device, repeat=5000).events) for _ in range(10))
    assert stored == 100_000 and withheld(node, busy, CtShare.OUT) == 0
