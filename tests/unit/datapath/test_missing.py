"""Maps that are full, in memory: nobody may do more than the policy that is in force says.

The lookups are written here once more (bpf/lib/policy.h does them); tests/packets asks the programs.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import random
from functools import cache

import pytest
from tests.property.full_maps import ALLOW, DEFAULT, PORTS, Story
from tests.unit.datapath.kernel import MemoryKernel

from podwire.abi import structs
from podwire.abi.enums import EndpointFlags
from podwire.base.addresses import pack, pack_prefix
from podwire.base.aio import Backoff, Supervised
from podwire.bpf.map import U32
from podwire.datapath import rows
from podwire.datapath.write import Writer
from podwire.model.rule import Direction
from podwire.state.tables import EndpointRow

SEED = int(os.environ.get("PODWIRE_SEED", "0")) or random.SystemRandom().randrange(1 << 40)
STORIES, STEPS = 5, 30


def pods(count: int = 3) -> list[EndpointRow]:
    return [
        EndpointRow(
            number, "default", f"pod{number}", "u", f"c{number}", "/n", f"lxc{number}", 4000 + number,
            f"02:00:00:00:00:{number:02x}", f"02:00:00:00:01:{number:02x}", f"10.0.1.{number}", "",
            (f"k8s:n={3000 + number}",), 3000 + number, (), "ready",
        )
        for number in range(1, count + 1)
    ]  # fmt: skip


@cache
def covering(address: str) -> list[bytes]:
    """Keys of all prefixes that hold it, longest first."""
    networks = (ipaddress.ip_network(f"{address}/{bits}", strict=False) for bits in range(32, -1, -1))
    return [structs.PrefixKey(*pack_prefix(str(one))).pack() for one in networks]


class Asked:
    """The kernel's answers, from the maps as they are."""

    def __init__(self, kernel: MemoryKernel) -> None:
        self.maps = kernel.maps

    def row(self, pod: EndpointRow) -> structs.Endpoint:
        raw = self.maps["podwire_devices"].content.get(U32.pack(pod.ifindex))
        return structs.Endpoint.unpack(raw) if raw else structs.Endpoint(flags=int(EndpointFlags.NOT_READY))

    def verdict(self, pod: EndpointRow, direction: Direction, address: str, port: int) -> int:
        row = self.row(pod)
        flags = EndpointFlags(row.flags)
        if EndpointFlags.NOT_READY in flags:
            return DEFAULT
        enforced = EndpointFlags.ENFORCE_INGRESS if direction == 1 else EndpointFlags.ENFORCE_EGRESS
        if enforced not in flags:
            return ALLOW
        identity, exact = self._identity(address)
        if EndpointFlags.ADDRESSES_MISSING in flags and not exact:
            return DEFAULT
        key = rows.peer_key(row.policy, direction, identity)
        raw = self.maps["podwire_policy_peers"].content.get(key)
        peer_class = rows.peer_classes(raw)[identity % rows.PEER_SPAN] if raw else 0
        if not peer_class and EndpointFlags.PEERS_MISSING in flags:
            return DEFAULT
        return self._entry(row.policy, peer_class, direction, port)

    def _identity(self, address: str) -> tuple[int, bool]:
        for name, kind in (
            ("podwire_endpoints", structs.Endpoint),
            ("podwire_ipcache", structs.IpcacheEntry),
        ):
            if raw := self.maps[name].content.get(pack(address)):
                return kind.unpack(raw).identity, True
        held = self.maps["podwire_ipcache_prefixes"].content
        for key in covering(address):
            if raw := held.get(key):
                return structs.IpcacheEntry.unpack(raw).identity, False
        return 2, False

    def _entry(self, policy: int, peer_class: int, direction: Direction, port: int) -> int:
        held = self.maps["podwire_policy"].content
        for key in (
            structs.PolicyKey(96, policy, peer_class, int(direction), 6, port),
            structs.PolicyKey(72, policy, peer_class, int(direction), 0, 0),
        ):
            if raw := held.get(key.pack()):
                return structs.PolicyEntry.unpack(raw).verdict
        return DEFAULT


def too_much(story: Story, asked: Asked) -> list[tuple[object, ...]]:
    """What passes and should not, by the policy that is in force."""
    wrong = []
    there = {address: story.identity_at(address) for address in story.places()}
    for pod in story.pods:
        row = asked.row(pod)
        policy = story.policies.get(row.policy)
        for direction in (Direction.INGRESS, Direction.EGRESS):
            for address, identity in there.items():
                for port in PORTS:
                    if address == pod.ipv4 or asked.verdict(pod, direction, address, port) != ALLOW:
                        continue
                    assert policy is not None, "something passes without a policy"
                    meant = policy.verdict(direction, identity, port)
                    if meant != ALLOW:
                        wrong.append((pod.id, row.policy, row.flags, direction, address, port, meant))
    return wrong


def too_little(story: Story, asked: Asked) -> int:
    """How much does not pass that should, by the policies in the tables."""
    return sum(
        asked.verdict(pod, direction, address, port) != ALLOW
        and story.obeyed[pod.id].verdict(direction, story.identity_at(address), port) == ALLOW
        for pod in story.pods
        for direction in (Direction.INGRESS, Direction.EGRESS)
        for address in story.places()
        for port in PORTS
        if address != pod.ipv4
    )


SIZES = [
    {"podwire_policy": 40},
    {"podwire_policy_peers": 6},
    {"podwire_ipcache": 5},
    {"podwire_ipcache_prefixes": 2},
    {"podwire_endpoints": 2},
    {"podwire_devices": 2},
    {"podwire_policy": 40, "podwire_policy_peers": 6, "podwire_ipcache": 5, "podwire_ipcache_prefixes": 3},
]


@pytest.mark.parametrize("sizes", SIZES, ids=[" ".join(sizes) for sizes in SIZES])
def test_no_full_map_lets_more_through(sizes: dict[str, int]) -> None:
    """Whatever comes and goes, also over a restart; and when all of it fits again nothing is held back."""
    print(f"PODWIRE_SEED={SEED}")
    full = 0

    async def tell(seed: int) -> None:
        nonlocal full
        kernel = MemoryKernel(**sizes)
        story = Story(random.Random(seed), pods())
        story.ready()
        asked = Asked(kernel)
        for life in range(3):  # of the agent
            writer = Writer(story.tables, kernel, "n1", backoff=Backoff(0.001, 0.002))
            async with Supervised("test") as group:
                group.start("write", writer.run())
                await writer.round()
                for _ in range(STEPS // 3):
                    full += bool(writer.errors())
                    assert not (wrong := too_much(story, asked)), (seed, wrong[:5])
                    story.step()
                    await writer.round()
                    assert not (wrong := too_much(story, asked)), (seed, wrong[:5])
                if life == 2 and min(sizes.values()) >= len(story.pods):
                    story.empty()
                    await writer.round()
                    while writer.errors() or len(story.tables.endpoint_failures):
                        await writer.round()
                    assert not too_little(story, asked), seed

    for number in range(STORIES):
        asyncio.run(asyncio.wait_for(tell(SEED + number), 60))
    assert full > STORIES, "the maps were hardly ever full"
