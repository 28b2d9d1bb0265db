"""How many established connections ask policy again when pods come and go elsewhere.

The shipped writer on the maps of the shipped programs: a pod under a policy has connections to very many
pods elsewhere; then others come and go, one in five with an identity that is new to the policy, and after
each change every connection carries one packet. The rate is of 20 changes and 100,000 packets a second.
`python tests/bench/asked.py`.
"""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

import msgspec  # noqa: E402
from tests.packets.datapath.test_small_maps import Targets  # noqa: E402
from tests.packets.test_worlds import OBJECTS, frame  # noqa: E402
from tests.unit.datapath.test_missing import pods  # noqa: E402

from podwire.base.aio import Supervised  # noqa: E402
from podwire.datapath.write import Writer  # noqa: E402
from podwire.model.rule import Direction  # noqa: E402
from podwire.state.peers import PeerRow  # noqa: E402
from podwire.state.tables import (  # noqa: E402
    EndpointPolicyRow,
    EntryRow,
    IdentityRow,
    IpcacheRow,
    ProgressRow,
    Tables,
)
from podwire.testing import world as kernel  # noqa: E402

CONNECTIONS, IDENTITIES, CHANGES = 1000, 300, 200
TCP, PORT, POLICY, CLASS = 6, 80, 7, 5
FIRST_IDENTITY = 300
CHANGES_A_SECOND, PACKETS_A_SECOND = 20, 100_000
SEED = 20261128
FLAGS_AT, ACK = 47, 0x10


def elsewhere(number: int) -> str:
    return f"10.{2 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"


class Churn:
    """Pods elsewhere, and one here that calls those that stay."""

    def __init__(self, world: kernel.World) -> None:
        self.dice = random.Random(SEED)
        self.world, self.tables = world, Tables()
        row = pods()[0]
        self.shape = world.shape(row.id, row.identity)
        self.caller = msgspec.structs.replace(
            row,
            ifindex=self.shape.device,
            mac=self.shape.mac.hex(":"),
            host_mac=self.shape.host_mac.hex(":"),
            ipv4=self.shape.ipv4,
            ipv6="",
        )
        self.revision = 1
        self.next_identity, self.next_pod = FIRST_IDENTITY + IDENTITIES, CONNECTIONS
        self.others: list[int] = []
        tables = self.tables
        tables.endpoints.replace([self.caller])
        tables.endpoint_policies.replace([EndpointPolicyRow(self.caller.id, POLICY, False, True, 1)])
        tables.policy_entries.put(EntryRow(POLICY, CLASS, Direction.EGRESS, TCP, PORT, 16, 1, 1, 0, 1))
        tables.identities.put(IdentityRow(row.identity, row.labels, "cluster"))
        for number in range(FIRST_IDENTITY, FIRST_IDENTITY + IDENTITIES):
            self._identity(number)
        for number in range(CONNECTIONS):
            self._pod(number, FIRST_IDENTITY + number % IDENTITIES)
        self._progress()
        for table in tables:
            table.mark_all_ready()

    def _identity(self, number: int) -> None:
        self.tables.identities.put(IdentityRow(number, (f"k8s:app=a{number}",), "cluster"))
        self.tables.policy_peers.put(PeerRow(POLICY, Direction.EGRESS, number, CLASS))

    def _pod(self, number: int, identity: int) -> None:
        self.tables.ipcache.put(IpcacheRow(f"{elsewhere(number)}/32", identity, "pods"))

    def _progress(self) -> None:
        self.revision += 1
        row = ProgressRow("policy.compute", self.tables.identities.revision, self.revision)
        self.tables.progress.put(row)

    def change(self) -> None:
        """A pod comes or goes elsewhere."""
        if self.others and self.dice.random() < 0.5:
            gone = self.others.pop(self.dice.randrange(len(self.others)))
            self.tables.ipcache.delete(f"{elsewhere(gone)}/32")
        else:
            identity = FIRST_IDENTITY + self.dice.randrange(IDENTITIES)
            if self.dice.random() < 0.2:
                identity, self.next_identity = self.next_identity, self.next_identity + 1
                self._identity(identity)
            self._pod(self.next_pod, identity)
            self.others.append(self.next_pod)
            self.next_pod += 1
        self._progress()

    def packets(self, *, first: bool = False) -> None:
        """One on each connection; with the first it is opened."""
        for number in range(CONNECTIONS):
            sent = frame(
                self.shape.ipv4, elsewhere(number), TCP, PORT, 4000, self.shape.host_mac + self.shape.mac
            )
            if not first:
                sent = sent[:FLAGS_AT] + bytes([ACK]) + sent[FLAGS_AT + 1 :]
            outcome = self.world.from_pod(self.shape, sent)
            assert outcome.verdict != kernel.DROPPED, f"packet to {elsewhere(number)}: {outcome.events}"

    def epochs(self) -> dict[bytes, int]:
        """What each connection was allowed under."""
        found = self.world.maps["podwire_conntrack"].items()
        return {key.pack(): entry.epoch for key, entry in found if not entry.flags & 0x80}


async def measure(world: kernel.World) -> list[int]:
    """Connections that asked policy again, by change."""
    churn = Churn(world)
    asked = []
    writer = Writer(churn.tables, Targets(world), "n1")
    async with Supervised("asked") as group:
        writing = group.start("write", writer.run())
        while not writer.synced:
            await writer.round()
        churn.packets(first=True)
        before = churn.epochs()
        assert len(before) == CONNECTIONS, len(before)
        for _ in range(CHANGES):
            churn.change()
            await writer.round()
            churn.packets()
            now = churn.epochs()
            asked.append(sum(now[key] != epoch for key, epoch in before.items()))
            before = now
        writing.cancel()
    return asked


def main() -> None:
    with kernel.World(Path(OBJECTS)) as world:
        asked = asyncio.run(measure(world))
    mean = sum(asked) / len(asked)
    print(f"asked: {CHANGES} changes, {CONNECTIONS} connections: most by one change {max(asked)}")
    print(f"packets that ask again  {100 * mean * CHANGES_A_SECOND / PACKETS_A_SECOND:.4f} %", flush=True)


if __name__ == "__main__":
    main()
