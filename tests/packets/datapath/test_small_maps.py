"""Maps of the real kernel that are full: what the programs let pass is never more than the policy says.

Each story runs the shipped writer on the maps of the shipped programs. Every flow is asked about again after
each change, as the connection that it is by then, and once more as a new one.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from tests.packets.test_worlds import ETHERNET, OBJECTS, frame
from tests.patience import cases
from tests.property.full_maps import ALLOW, PORTS, Story
from tests.unit.datapath.test_missing import pods

from podwire.abi.enums import DropReason, EventKind
from podwire.abi.structs import Endpoint
from podwire.base.aio import Backoff, Supervised
from podwire.bpf.map import Map
from podwire.datapath.write import Writer
from podwire.model.rule import Direction
from podwire.state.tables import EndpointRow
from podwire.testing import world as kernel

pytestmark = pytest.mark.kernel

SEED = int(os.environ.get("PODWIRE_SEED", "0")) or random.SystemRandom().randrange(1 << 40)
STORIES, EARLIER, STEPS = cases(3), 12, 6  # EARLIER: steps before anything is asked
SIZES: list[dict[str, int]] = [
    {"podwire_policy": 40},
    {"podwire_policy_peers": 6},
    {"podwire_ipcache": 4},
    {"podwire_ipcache_prefixes": 2},
    {"podwire_endpoints": 2},
    {"podwire_devices": 2},
    {"podwire_conntrack": 16},
    {"podwire_policy": 60, "podwire_policy_peers": 8, "podwire_ipcache": 6, "podwire_ipcache_prefixes": 3},
]


@pytest.fixture(params=SIZES, ids=[" ".join(sizes) for sizes in SIZES])
def small(request: pytest.FixtureRequest) -> Iterator[kernel.World]:
    with kernel.World(Path(OBJECTS), max_entries=request.param) as made:
        yield made


class Targets:
    """The maps of a world, for a writer."""

    def __init__(self, world: kernel.World) -> None:
        self.world = world

    def target(self, name: str) -> Map[bytes, bytes]:
        return (self.world.state if name == "podwire_state" else self.world.maps[name]).untyped()


class Node:
    """The pods of a story on the devices of a world, and packets from and to them."""

    def __init__(self, world: kernel.World, ipv6: bool) -> None:
        self.world, self.ipv6 = world, ipv6
        self.reasons: Counter[int] = Counter()
        self.shapes = {}
        self.rows = []
        for row in pods():
            shape = world.shape(row.id, row.identity)
            self.shapes[row.id] = shape
            mac, host_mac = (one.hex(":") for one in (shape.mac, shape.host_mac))
            at = {"ipv4": "", "ipv6": shape.ipv6} if ipv6 else {"ipv4": shape.ipv4}
            self.rows.append(
                msgspec.structs.replace(row, ifindex=shape.device, mac=mac, host_mac=host_mac, **at)
            )

    def passes(self, row: EndpointRow, direction: Direction, address: str, port: int, number: int) -> bool:
        shape, own = self.shapes[row.id], row.addresses[0]
        if direction is Direction.EGRESS:
            sent = frame(own, address, 6, port, 2000 + number, shape.host_mac + shape.mac)
            outcome = self.world.from_pod(shape, sent)
        else:
            others = [one for one in self.shapes.values() if one.address(self.ipv6) == address]
            on = others[0].device if others else self.world.device(kernel.UNDERLAY)
            sent = frame(address, own, 6, port, 3000 + number, ETHERNET)
            outcome = self.world.to_pod(shape, sent, received_on=on)
        drops = [event for event in outcome.events if event["kind"] == EventKind.DROP]
        self.reasons.update(int(event["reason"]) for event in drops)
        return not any(event["direction"] == direction for event in drops)

    def in_force(self, row: EndpointRow) -> Endpoint:
        return self.world.maps["podwire_devices"].get(row.ifindex) or Endpoint()

    def too_much(self, story: Story, number: int) -> list[tuple[object, ...]]:
        wrong = []
        there = {address: story.identity_at(address) for address in story.places()}
        for row in story.pods:
            policy = story.policies.get(self.in_force(row).policy)
            for direction in (Direction.INGRESS, Direction.EGRESS):
                for address, identity in there.items():
                    for port in PORTS:
                        if address == row.addresses[0] or not self.passes(
                            row, direction, address, port, number
                        ):
                            continue
                        assert policy is not None, "something passes without a policy"
                        if policy.verdict(direction, identity, port) != ALLOW:
                            wrong.append((self.in_force(row), direction, address, identity, port))
        return wrong


@pytest.mark.parametrize("ipv6", [False, True], ids=["ipv4", "ipv6"])
def test_no_full_map_lets_more_through(small: kernel.World, ipv6: bool) -> None:
    print(f"PODWIRE_SEED={SEED}")
    full = 0
    reasons: Counter[int] = Counter()

    async def tell(seed: int) -> None:
        nonlocal full
        small.reset()
        node = Node(small, ipv6)
        story = Story(random.Random(seed), node.rows, ipv6)
        story.ready()
        writer = Writer(story.tables, Targets(small), "n1", backoff=Backoff(0.001, 0.002))
        async with Supervised("test") as group:
            group.start("write", writer.run())
            await writer.round()
            for _ in range(EARLIER):
                story.step()
                await writer.round()
            for step in range(STEPS):
                for number in (0, 1 + step):  # a connection of before, and a new one
                    assert not (wrong := node.too_much(story, number)), (seed, wrong[:5])
                full += bool(writer.errors())
                story.step()
                await writer.round()
        reasons.update(node.reasons)

    sizes = {name: table.capacity for name, table in small.maps.items()}
    tight = min(sizes["podwire_ipcache"], sizes["podwire_ipcache_prefixes"]) < 10
    limited = sizes["podwire_conntrack"] > 16  # else the maps of tables have room
    for number in range(10 * STORIES):
        told = reasons[DropReason.PEER_UNKNOWN] or not tight
        if number >= STORIES and told and (full > 2 or not limited):
            break  # how often maps are full, and who is asked about then, is a matter of chance
        asyncio.run(asyncio.wait_for(tell(SEED + number), 120))
    if limited:
        assert full > 2, "the maps were hardly ever full"
    if tight:
        assert reasons[DropReason.PEER_UNKNOWN], "nobody was denied for not being known"
