"""Labels of endpoints to identities of the cluster: the same labels, the same number, on all nodes.

In the walk: agent.labeling has given endpoints their labels; the numbers go into table identities
and into the endpoints' rows.

A number is a hash of the labels, so nodes that see the same labels at the same time try to create
the same object, and one of them is told it exists already. Only if other labels have it the next
number is tried, among those of this cluster: what another one may give is never given here. Objects that
nobody uses any more are the operator's to remove: it marks them a while before, and who uses one all the
same takes the mark away, so that it stays.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from functools import partial
from hashlib import blake2b
from typing import Protocol

import msgspec

from podwire.base.aio import Backoff, Supervised, each, in_slices
from podwire.base.attempts import Attempts
from podwire.base.errors import PodwireError
from podwire.identity.prefixes import Prefixes
from podwire.model.cluster import DEFAULT, Cluster
from podwire.model.identity import RESERVED, Identity
from podwire.model.labels import CLUSTER, Labels, values
from podwire.state.table import Batch, Table, Watch
from podwire.state.tables import EndpointRow, IdentityRow
from podwire.state.views import ReadTables
from podwire.state.writers import ALLOCATE
from podwire.stores.identities import Gone, IdentityStore, Known, Synced

AT_ONCE = 16  # numbers that are asked for together: each is a round trip or two
log = logging.getLogger(__name__)


class Written(ReadTables, Protocol):
    """The tables, with those that are written here."""

    @property
    def endpoints(self) -> Table[EndpointRow]: ...

    @property
    def identities(self) -> Table[IdentityRow]: ...


def preferred(labels: Labels, numbers: range = DEFAULT.numbers) -> int:
    """The one of `numbers` that `labels` have unless another set has it."""
    text = blake2b("\n".join(labels).encode(), digest_size=8).digest()
    return numbers[int.from_bytes(text, "big") % len(numbers)]


class Allocator:
    """One node's part in giving out the cluster's identities."""

    def __init__(
        self,
        tables: Written,
        prefixes: Prefixes,
        *,
        cluster: Cluster = DEFAULT,
        backoff: Backoff = Backoff(0.1, 10.0),
    ) -> None:
        self.tables = tables
        self.prefixes = prefixes
        self._cluster = cluster
        self._numbers = cluster.numbers
        self.synced = False  # have all identities of the cluster been told
        self.errors: dict[Labels, str] = {}  # label sets that wait for a number, and why
        self._unused: set[int] = set()  # what the operator found nobody to use
        self._held: set[int] = set()  # of those, what is used here: it has to be told
        self.attempts = Attempts()
        self._expected: dict[Labels, None] = {}
        self._backoff = backoff
        self._endpoints = Watch(tables.endpoints, tables.identities)
        for identity in RESERVED:
            tables.identities.put(IdentityRow(identity.number, identity.labels, "reserved"))

    def apply(self, event: Known | Gone) -> None:
        """What the store says. Numbers that are not this cluster's to give mean nothing in it."""
        if event.number not in self._numbers:
            log.warning("identity %s is ignored: it is none of cluster %s", event.number, self._cluster.name)
            return
        self._unused.discard(event.number)
        if isinstance(event, Known):
            self.tables.identities.put(IdentityRow(event.number, event.labels, "cluster"))
            if event.unused:
                self._unused.add(event.number)
                if self.tables.endpoints.by("labels", event.labels):
                    self._held.add(event.number)
            return
        row = self.tables.identities.get(event.number)
        if row is not None and row.source == "cluster":
            self.tables.identities.delete(event.number)

    def number_of(self, labels: Labels) -> int:
        """The number the cluster has for `labels`; 0 if none is known. Of two, all nodes take the lower."""
        rows = self.tables.identities.by("labels", labels)
        return min((row.number for row in rows if row.source == "cluster"), default=0)

    def step(self, endpoints: Iterable[EndpointRow]) -> list[Labels]:
        """Give endpoints the numbers that are known; the label sets that still need one."""
        wanted: dict[Labels, None] = {}
        for row in endpoints:
            if not row.labels:
                continue
            number = self.number_of(row.labels)
            if number in self._unused:
                self._held.add(number)
            if not number:
                wanted[row.labels] = None
            elif number != row.identity:
                self.tables.endpoints.put(msgspec.structs.replace(row, identity=number))
        return list(wanted)

    def expect(self, labels: Labels) -> None:
        """An endpoint with these labels will come, and is to find its number there: that is a round trip."""
        if labels not in self._expected and not self.number_of(labels):
            self._expected[labels] = None
            self._endpoints.wake()

    async def create(self, store: IdentityStore, labels: Labels) -> Identity:
        """Take a number for `labels`, or find the one another node took."""
        of = values(labels).get(("k8s", CLUSTER), self._cluster.name)
        if of != self._cluster.name:
            raise PodwireError(
                f"labels of cluster {of} get no identity of cluster {self._cluster.name}",
                hint="its own agents number them",
            )
        numbers = self._numbers
        number = preferred(labels, numbers)
        for _ in numbers:
            known = self.tables.identities.get(number)
            taken = known.labels if known is not None else await store.create(number, labels)
            if taken is None or taken == labels:
                return Identity(number, labels)
            number = numbers[(number + 1 - numbers[0]) % len(numbers)]
        raise PodwireError(
            f"all {len(numbers)} identities of the cluster are taken",
            hint="look for labels that differ in every pod, and leave them out of identities",
        )

    async def run(self, store: IdentityStore) -> None:
        """Follow the store and the endpoints, until cancelled."""
        async with Supervised("identity") as group:
            group.start("follow identities", self._follow(store))
            group.start("number prefixes", self._number_prefixes())
            group.start("number endpoints", self._number(store))
            await group.wait()

    async def _follow(self, store: IdentityStore) -> None:
        failures = 0
        while True:
            stale = {row.number for row in self.tables.identities if row.source == "cluster"}
            try:
                async for event in store.watch():
                    failures = 0
                    if isinstance(event, Synced):
                        for number in stale:  # vanished while nobody watched
                            self.apply(Gone(number))
                        stale = set()
                        self.synced = True
                        self.tables.identities.mark_ready(ALLOCATE)
                        self._endpoints.wake()
                        continue
                    stale.discard(event.number)
                    self.apply(event)
                    if self._held:
                        self._endpoints.wake()
            except PodwireError as error:
                failures += 1
                log.warning("following the cluster's identities: %s; trying on", error)
            await asyncio.sleep(self._backoff.after(failures))

    async def _number_prefixes(self) -> None:
        with self.prefixes.watch() as watch:
            while True:
                await in_slices(self.prefixes.steps(*await watch.next()))

    async def _number(self, store: IdentityStore) -> None:
        failures = 0
        with self._endpoints as watch:
            concerned: dict[int, None] = {}
            while True:
                timeout = self._backoff.after(failures) if self.errors else None
                try:
                    async with asyncio.timeout(timeout):
                        endpoints, identities = await watch.next()
                    concerned |= self.concerned(endpoints, identities)
                except TimeoutError:
                    pass
                if not self.synced:
                    continue  # a number that exists already must not be taken for a new one
                wanted = self.step(self._rows(concerned))
                expected, self._expected = self._expected, {}
                wanted += [one for one in expected if one not in wanted and not self.number_of(one)]
                self.errors = {}
                await each(wanted, partial(self._make, store), AT_ONCE)
                await each(tuple(self._held), partial(self._hold, store), AT_ONCE)
                unfinished = set(self.step(self._rows(concerned)))
                concerned = {row.id: None for row in self._rows(concerned) if row.labels in unfinished}
                failures = failures + 1 if self.errors else 0
                if self.errors:
                    self.attempts.failed(next(iter(self.errors.values())))
                elif wanted:
                    self.attempts.succeeded()

    async def _make(self, store: IdentityStore, labels: Labels) -> None:
        """Have a number for `labels`; why there is none yet is in `errors`."""
        try:
            made = await self.create(store, labels)
            self.apply(Known(made.number, made.labels))
        except PodwireError as error:
            self.errors[labels] = str(error)
            log.warning("no identity yet for %s: %s", ", ".join(labels), error)
        except Exception as error:  # other endpoints get their identities all the same
            self.errors[labels] = repr(error)
            log.exception("no identity yet for %s", ", ".join(labels))

    async def _hold(self, store: IdentityStore, number: int) -> None:
        """Have it known that `number` is used: found unused for long enough, it would be deleted."""
        try:
            await store.hold(number)
            self._held.discard(number)
        except PodwireError as error:
            row = self.tables.identities.get(number)
            self.errors[row.labels if row is not None else ()] = str(error)
            log.warning("identity %d is used here, which cannot be told: %s; trying on", number, error)

    def concerned(self, endpoints: Batch[EndpointRow], identities: Batch[IdentityRow]) -> dict[int, None]:
        """Ids of the endpoints that changes may give another number."""
        found = {change.new.id: None for change in endpoints if change.new is not None}
        for change in identities:
            for row in (change.old, change.new):  # one that stands for other labels now leaves those it had
                if row is None or row.source != "cluster":
                    continue
                found |= {one.id: None for one in self.tables.endpoints.by("labels", row.labels)}
        return found

    def _rows(self, numbers: Iterable[int]) -> list[EndpointRow]:
        found = (self.tables.endpoints.get(number) for number in numbers)
        return [row for row in found if row is not None]
