"""The way up, wired: ring → reader → decode → enrich → store, and the server on top.

    pipeline = Pipeline(ring, stats_reader, tables, config, node_name)
    await pipeline.run()          # for the life of the agent

A batch is read as soon as there is one, but not more often than every `PACE` seconds unless the
batches are full: an event then waits a few milliseconds, and a trickle of events costs no CPU.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from typing import Any

import msgspec

from podwire.base.aio import Supervised
from podwire.base.config import AgentConfig
from podwire.base.errors import PodwireError
from podwire.hubble.decode import decode
from podwire.hubble.enrich import Enricher
from podwire.hubble.explain import explain_row
from podwire.hubble.flows import Flows
from podwire.hubble.read import Accounts, Loss, LossReason, Reader, Records, RingLike, StatsReader
from podwire.hubble.rpc import Address
from podwire.hubble.serve import Server
from podwire.hubble.services import ServiceIndex
from podwire.hubble.store import BYTES_PER_FLOW, Store
from podwire.model.cluster import Cluster
from podwire.state.views import ReadTables

PACE = 0.02
LOSS_CHECK = 1.0
# How often the offset of the clocks is measured anew: wall time may be set meanwhile.
CLOCK_CHECK = 10.0
# A new agent finds events in the ring before it knows their names. It waits for the tables, but not
# for ever (the API may be away), and shorter when the ring fills meanwhile.
NAMES_AFTER = 5.0
NAMES_AFTER_BUSY = 1.0
BUSY = 1 << 20  # bytes that wait
# A batch that cannot be stored is tried again in parts of so many records.
RETRIED = 64
# Records stored in one step of the event loop.
PART = 1024
COMPLAIN_EVERY = 60.0
log = logging.getLogger(__name__)


class Statistics(msgspec.Struct, frozen=True):
    """emitted = received + lost + waiting; received = stored + overwritten + unreadable."""

    accounts: Accounts
    stored: int
    overwritten: int
    unreadable: int
    capacity: int
    bytes_at_most: int
    names: int
    names_refused: int
    batches: int

    @property
    def lost_by(self) -> dict[LossReason, int]:
        """Every event that was emitted and not stored, by reason."""
        return self.accounts.lost_by | {LossReason.UNREADABLE: self.unreadable}

    @property
    def lost_text(self) -> str:
        """``5 lost``, and how many for each reason that is not the ring being full."""
        lost = self.accounts.lost + self.unreadable
        others = [
            f"{count} {reason}"
            for reason, count in self.lost_by.items()
            if count and reason is not LossReason.RING_FULL
        ]
        return f"{lost} lost ({', '.join(others)})" if others else f"{lost} lost"


class Pipeline:
    """One node's flows. `stats_reader` gives (emitted, lost) of each CPU."""

    def __init__(
        self,
        ring: RingLike,
        stats_reader: StatsReader,
        tables: ReadTables,
        config: AgentConfig,
        node_name: str,
    ) -> None:
        self.reader = Reader(ring, stats_reader)
        self.store = Store(config.hubble_flow_capacity)
        self._enricher = Enricher(
            tables, self.store.mark_used, cgroup=config.cgroup, cluster=Cluster.of(config)
        )
        self.flows = Flows(
            self.store, self._enricher.names, tables, name=node_name, cluster=config.cluster_name
        )
        self.server = Server(self.flows, Address.of_agent(config))
        self._boot_to_wall = boot_to_wall()
        self._complained = -COMPLAIN_EVERY

    @property
    def services(self) -> ServiceIndex:
        """The names of services, which follow their tables."""
        return self._enricher.services

    async def run(self) -> None:
        """Until cancelled."""
        async with Supervised("hubble") as group:
            group.start("follow services", self.services.run())
            group.start("read events", self._read())
            group.start("count what was lost", self._watch_losses())
            group.start("serve flows", self.server.run())
            await group.wait()

    def drain(self) -> int:
        """Store what waits in the ring now; how many events."""
        total = 0
        self.services.catch_up()
        while records := self._batch():
            total += records
        self.check_losses()
        return total

    def take(self, records: Records) -> None:
        """Store one batch of records."""
        most = self.store.capacity
        for start in range(0, len(records), most):
            batch = records[start : start + most]
            for part, columns in self.store.room(len(batch)):
                decode(batch[part], self._boot_to_wall, columns)
                self._enricher.enrich(columns)
                # Before the next part: names may be given free there that this part has.
                self.store.commit(part.stop - part.start)

    def take_what_can_be_read(self, records: Records) -> None:
        """Store a batch; what cannot be decoded or named is counted as lost, and not its neighbours."""
        before = self.store.end
        try:
            self.take(records)
            return
        except Exception as error:  # noqa: BLE001  one record must not end the way of all that follow
            failure = error
        rest = records[self.store.end - before :]
        if len(rest) > RETRIED:
            for start in range(0, len(rest), RETRIED):
                self.take_what_can_be_read(rest[start : start + RETRIED])
            return
        self.store.add_loss(Loss(len(rest), -1, LossReason.UNREADABLE), time.time_ns())
        if time.monotonic() - self._complained > COMPLAIN_EVERY:
            self._complained = time.monotonic()
            log.error("%d events could not be stored", len(rest), exc_info=failure)

    def take_in_parts(self, records: Records) -> Iterator[None]:
        """The same, and a step ends at each part: names that are all new take 10 µs each."""
        for start in range(0, len(records), PART):
            self.take_what_can_be_read(records[start : start + PART])
            yield

    def check_losses(self) -> None:
        """Tell the store what the kernel lost since this was last asked."""
        for loss in self.reader.losses():
            self.store.add_loss(loss, time.time_ns())

    def statistics(self) -> Statistics:
        return Statistics(
            accounts=self.reader.accounts(),
            stored=len(self.store),
            overwritten=self.store.overwritten,
            unreadable=self.store.lost_by[LossReason.UNREADABLE],
            capacity=self.store.capacity,
            bytes_at_most=self.store.capacity * BYTES_PER_FLOW,
            names=len(self.flows.names),
            names_refused=self.flows.names.refused,
            batches=self.reader.batches,
        )

    def explain_json(self, uuid: str) -> dict[str, Any] | None:
        """Why the flow with this UUID was allowed or dropped; None if it is not stored (any more)."""
        row = self.flows.find(uuid)
        return None if row is None else explain_row(self.flows, row)

    def _batch(self) -> int:
        records = self.reader.read()
        if len(records):
            self._enricher.cgroups.learn_now(records["cgroup"])
            self.take_what_can_be_read(records)
        return len(records)

    async def _read(self) -> None:
        started = time.monotonic()
        while not self._enricher.ready:
            patience = NAMES_AFTER_BUSY if self.reader.waiting() > BUSY else NAMES_AFTER
            if time.monotonic() - started > patience:
                break
            self._enricher.follow()
            await asyncio.sleep(PACE)
        while True:
            await self._until_readable()
            while await self._named_batch() == self.reader.most:
                await asyncio.sleep(0)
            await asyncio.sleep(PACE)

    async def _named_batch(self) -> int:
        records = self.reader.read()
        if len(records):
            await self._enricher.cgroups.learn(records["cgroup"])
            for _ in self.take_in_parts(records):
                await asyncio.sleep(0)
        return len(records)

    async def _until_readable(self) -> None:
        # Watched only while nothing waits: the descriptor stays readable until the ring is read, and
        # the loop would turn without end during the pause.
        loop = asyncio.get_running_loop()
        readable = loop.create_future()
        fd = self.reader.fileno()
        loop.add_reader(fd, lambda: None if readable.done() else readable.set_result(None))
        try:
            await readable
        finally:
            loop.remove_reader(fd)

    async def _watch_losses(self) -> None:
        checked = time.monotonic()
        while True:
            await asyncio.sleep(LOSS_CHECK)
            try:
                self.check_losses()
            except PodwireError as error:  # asked again in a second, of sums: nothing goes uncounted
                log.warning("cannot read what was lost: %s", error)
            if time.monotonic() - checked > CLOCK_CHECK:
                checked = time.monotonic()
                self._boot_to_wall = boot_to_wall()


def boot_to_wall() -> int:
    """What to add to CLOCK_BOOTTIME for ns since the epoch; the closest of a few readings."""
    best = None
    for _ in range(5):
        before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        wall = time.time_ns()
        after = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        if best is None or after - before < best[0]:
            best = (after - before, wall - (before + after) // 2)
    assert best is not None
    return best[1]
