"""Service maps of the real kernel that are full: a Service leads to one of its backends, or nowhere.

Random stories of Services whose backends, addresses and numbers come and go, through the shipped writer, with
restarts of it. Each packet to a Service's address reaches a backend that the Service has, or is dropped with
a reason: it never goes on to what is behind the address otherwise, nor to what another Service has.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.packets.datapath.test_small_maps import Node, Targets
from tests.packets.test_worlds import OBJECTS, frame
from tests.patience import cases, within

from podwire.abi.enums import DropReason, EventKind
from podwire.base.addresses import pack
from podwire.base.aio import Backoff, Supervised
from podwire.datapath.write import Writer
from podwire.loadbalancer.numbers import Sets
from podwire.state.tables import (
    BackendRow,
    EndpointPolicyRow,
    FrontendRow,
    IdentityRow,
    IpcacheRow,
    ProgressRow,
    Tables,
)
from podwire.testing import world as kernel

pytestmark = pytest.mark.kernel

SEED = int(os.environ.get("PODWIRE_SEED", "0")) or random.SystemRandom().randrange(1 << 40)
STORIES, STEPS, ASKED = cases(3), 25, 3  # ASKED: connections to each Service after each step
TCP, PORTS = 6, (8080, 8081, 8082)
NUMBERS = range(1, 10)  # of backends: few, so that a number is soon another's
REFUSED = {DropReason.NO_BACKEND, DropReason.UNKNOWN_L3_TARGET}
SIZES: list[dict[str, int]] = [
    {"podwire_frontends": 2},
    {"podwire_slots": 4},
    {"podwire_backends": 3},
    {"podwire_rev_nat": 2},
    {"podwire_frontends": 3, "podwire_slots": 6, "podwire_backends": 4, "podwire_rev_nat": 3},
]


@pytest.fixture(params=SIZES, ids=[" ".join(sizes) for sizes in SIZES])
def small(request: pytest.FixtureRequest) -> Iterator[kernel.World]:
    with kernel.World(Path(OBJECTS), max_entries=request.param) as made:
        yield made


class Services:
    """Up to five Services, of pods of the node; a backend has a number while a Service has it."""

    def __init__(self, dice: random.Random, node: Node) -> None:
        self.dice, self.node, self.tables = dice, node, Tables()
        self.addresses = [f"fd00:96::{n}" if node.ipv6 else f"10.96.0.{n}" for n in range(1, 6)]
        self.has: dict[str, list[tuple[str, int]]] = {}  # Service → backends
        self.numbers: dict[tuple[str, int], int] = {}
        self.sets = Sets(few=1)  # so that both shapes are used
        self.rounds = 1
        tables, pods = self.tables, node.rows
        tables.identities.replace(IdentityRow(pod.identity, pod.labels, "cluster") for pod in pods)
        tables.progress.put(ProgressRow("policy.compute", tables.identities.revision, 1))
        tables.endpoints.replace(pods)
        tables.endpoint_policies.replace(EndpointPolicyRow(pod.id, 1, False, False, 1) for pod in pods)
        prefix = "fd00:96::/112" if node.ipv6 else "10.96.0.0/12"
        tables.ipcache.put(IpcacheRow(prefix, 2, "services", holds="services"))
        for table in tables:
            table.mark_all_ready()

    def step(self) -> None:
        dice = self.dice
        service = dice.choice(self.addresses)
        if service in self.has and dice.random() < 0.3:
            del self.has[service]
        else:
            places = [(pod.addresses[0], port) for pod in self.node.rows[1:] for port in PORTS]
            self.has[service] = dice.sample(places, dice.randint(0, 4))
        self.write()

    def write(self) -> None:
        used = {one for backends in self.has.values() for one in backends}
        self.numbers = {one: number for one, number in self.numbers.items() if one in used}
        free = [number for number in NUMBERS if number not in self.numbers.values()]
        self.dice.shuffle(free)
        for one in used - self.numbers.keys():
            self.numbers[one] = free.pop()
        tables = self.tables
        tables.backends.replace(
            BackendRow(number, *one, TCP, "active") for one, number in self.numbers.items()
        )
        rows = []
        for address, backends in self.has.items():
            ids = {self.numbers[one]: one for one in backends}
            number, order = self.sets.place(address, ids)
            rev_nat = 1 + self.addresses.index(address)
            rows.append(
                FrontendRow(
                    *(address, 80, TCP, "default", f"s{rev_nat}", "", "ClusterIP", rev_nat, number, order),
                    places=tuple(ids[one] for one in order),
                )
            )
        tables.frontends.replace(rows)
        self.rounds += 1  # so there is something to go round for
        tables.progress.put(ProgressRow("policy.compute", tables.identities.revision, self.rounds))

    def reached(self, address: str, number: int) -> tuple[str, int] | DropReason | None:
        """Where a new connection to the Service ends; None = beyond the node."""
        row = self.node.rows[0]
        shape = self.node.shapes[row.id]
        sent = frame(row.addresses[0], address, TCP, 80, number, shape.host_mac + shape.mac)
        outcome = self.node.world.from_pod(shape, sent)
        drops = [event for event in outcome.events if event["kind"] == EventKind.DROP]
        if drops:
            return DropReason(int(drops[0]["reason"]))
        ip = outcome.packet[14:]
        at, to = (40, ip[24:40]) if self.node.ipv6 else (20, ip[16:20])
        port = int.from_bytes(ip[at + 2 : at + 4])
        found = [pod.addresses[0] for pod in self.node.rows if pack(pod.addresses[0]).endswith(to)]
        return (found[0], port) if found and outcome.verdict == kernel.REDIRECTED else None


@pytest.mark.parametrize("ipv6", [False, True], ids=["ipv4", "ipv6"])
def test_no_full_service_map_sends_elsewhere(small: kernel.World, ipv6: bool) -> None:
    print(f"PODWIRE_SEED={SEED}")
    seen: Counter[str] = Counter()

    async def tell(seed: int) -> None:
        small.reset()
        story = Services(random.Random(seed), Node(small, ipv6))
        port = 2000
        for _ in range(2):  # the second agent finds what the first one left
            writer = Writer(story.tables, Targets(small), "n1", backoff=Backoff(0.001, 0.002))
            async with Supervised("test") as group:
                group.start("write", writer.run())
                await writer.round()
                for _ in range(STEPS):
                    story.step()
                    await writer.round()
                    seen["full"] += bool(writer.errors())
                    for address in story.addresses:
                        for _ in range(ASKED):
                            port += 1
                            to = story.reached(address, port)
                            if isinstance(to, DropReason):
                                assert to in REFUSED, (seed, address, to)
                            else:
                                assert to in story.has.get(address, []), (seed, address, to)
                            seen["refused" if isinstance(to, DropReason) else "reached"] += 1

    for number in range(STORIES):
        asyncio.run(asyncio.wait_for(tell(SEED + number), within(60)))
    assert seen["full"] > 2 and seen["reached"] > 10 and seen["refused"] > 10, seen
