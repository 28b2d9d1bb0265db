"""Tables to maps: the last task of the walk down.

One mirror per map (`mirror`), one order for all. Which maps those are, from which rows and at which step,
says the `catalogue`. What is pointed at is written before what points at it, and removed after: the
endpoints come last. A pod can talk at the moment its own row is there, under its policy; a changed policy
is there whole, under its new number, before the endpoint is switched to it by one write.

What an earlier agent left in the maps stays in force until the tables are ready to say otherwise.
A policy that could not be written whole is not switched to, and the one an endpoint obeys until then
stays as it is. When a map is full, a bigger one takes
its place before anything is lost; if that fails, the rows it concerns say so in `errors`.

The kernel is asked in `flush`, in a thread where it is much; what is decided, is decided on the loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from podwire.base.aio import Backoff
from podwire.base.attempts import Attempts
from podwire.base.errors import PodwireError
from podwire.datapath import failures, flush, missing, rows, switching
from podwire.datapath.catalogue import CATALOGUE, conntrack
from podwire.datapath.epochs import Changes, Epochs
from podwire.datapath.flush import Grow
from podwire.datapath.leaving import Leaving
from podwire.datapath.mirror import Target
from podwire.datapath.spec import MapSpec, Rows, Setting, Step, Told, in_order
from podwire.datapath.switching import Switching
from podwire.state.table import Batch, Change, ReadTable, Watch
from podwire.state.tables import EndpointPolicyRow

log = logging.getLogger(__name__)
SLICE = 500  # rows

POLICY_STEPS = (Step.POLICIES, Step.PEERS)
Batches = Mapping[str, Batch[Any]]  # by table


class Kernel(Protocol):
    """What of `podwire.datapath.maps.Maps` is used here."""

    def target(self, name: str) -> Target: ...


class Writer:
    """Keeps the maps of one node equal to its tables. Start `run` once.

    `grow` makes a bigger map (`Programs.bigger`); without it a full map is only reported. `specs` are the
    maps there are: those of the objects that are loaded.
    """

    def __init__(
        self,
        tables: failures.Written,
        maps: Kernel,
        node: str,
        *,
        grow: Grow | None = None,
        backoff: Backoff = Backoff(0.1, 5.0),
        specs: Iterable[MapSpec] = tuple(CATALOGUE.values()),
    ) -> None:
        self.tables = tables
        self._setting = Setting(tables, node)
        self.synced = False  # everything the ready tables say is in the kernel
        self._grow = grow
        self._steps = in_order(specs)
        written = [spec for each in self._steps.values() for spec in each]
        self._rows = [(spec, rows) for spec in written if spec.written for rows in spec.written.rows]
        self._mirrors = {spec.name: spec.mirror(maps.target(spec.name), tables) for spec in written}
        asks = {spec.name: spec.written.asks for spec in written if spec.written}
        self._epochs = Epochs(maps.target(conntrack.STATE.name), asks)
        self._switching = Switching(tables, self._mirrors)
        self._leaving = Leaving(self._mirrors)
        self._backoff = backoff
        self._failed_rounds = 0
        self.attempts = Attempts()
        self._turn = asyncio.Event()

    # What others ask

    def errors(self) -> dict[tuple[str, Hashable], PodwireError]:
        """(map, row) → why it is not in the kernel."""
        return {
            (name, row): error
            for name, mirror in self._mirrors.items()
            for row, error in mirror.failed_rows().items()
        }

    def realized(self, endpoint: int) -> EndpointPolicyRow | None:
        """The policy the kernel has for the endpoint now, under the identity its row has.

        None = nothing passes yet, or its identity changed a moment ago.
        """
        return self._switching.realized(endpoint)

    async def wait_realized(self, endpoint: int) -> None:
        """Until the kernel has the endpoint with the policy its table has. Ends only with that."""
        while True:
            wanted = self.tables.endpoint_policies.get(endpoint)
            if wanted is not None and self.realized(endpoint) == wanted:
                return
            turn = self._turn
            await turn.wait()

    async def round(self) -> None:
        """Until the writer has been round once more."""
        await self._turn.wait()

    def usage(self) -> dict[str, tuple[int, int]]:
        """Map → (entries, capacity)."""
        return {name: (len(mirror.held), mirror.map.capacity) for name, mirror in self._mirrors.items()}

    # The task

    async def run(self) -> None:
        """Until cancelled; the maps are closed then, what they hold stays."""
        try:
            for mirror in self._mirrors.values():
                mirror.load()
            await self._follow()
        finally:
            self.close()

    def close(self) -> None:
        """Close the maps' descriptors."""
        self._epochs.close()
        for mirror in self._mirrors.values():
            mirror.close()

    async def _follow(self) -> None:
        names = dict.fromkeys(name for _, rows in self._rows for name in (rows.table, *rows.looks_at))
        watched = [self.tables.named(name) for name in names]
        with Watch(*watched, self.tables.progress) as watch:
            while True:
                *taken, _ = await self._next(watch)
                batches = dict(zip(names, taken, strict=True))
                self._note(batches)
                await self._note_many(batches)
                await self._flush()
                await self._prune(watched)
                unfinished = self._unfinished()
                self._failed_rounds = self._failed_rounds + 1 if unfinished else 0
                if unfinished:
                    self.attempts.failed(next(iter(self.errors().values()), "something could not be removed"))
                else:
                    self.attempts.succeeded()
                self._announce()

    def _unfinished(self) -> bool:
        return self._epochs.unfinished or any(mirror.unfinished for mirror in self._mirrors.values())

    async def _next(self, watch: Watch) -> tuple[Batch[Any], ...]:
        """Changes; nothing, after a while, if something is to be tried again."""
        if not self._failed_rounds:
            return await watch.next()
        try:
            async with asyncio.timeout(self._backoff.after(self._failed_rounds)):
                return await watch.next()
        except TimeoutError:
            return watch.take()  # what came in the same moment, or nothing

    async def _note_many(self, batches: Batches) -> None:
        """Of what comes by the ten thousand at a start, so much at a time that others have turns. After
        `_note`, which looks at the tables: they must be as they were when the batches were taken."""
        for spec, of in self._rows:
            changes = batches[of.table].changes if of.told is Told.AT_ONCE else ()
            for start in range(0, len(changes), SLICE):
                self._want(spec, of, changes[start : start + SLICE])
                await asyncio.sleep(0)

    def _note(self, batches: Batches) -> None:
        """Tell the mirrors what the changed rows of policies and endpoints want."""
        self._leaving.note(batches["policy_entries"], rows.policy_entry)
        self._leaving.note_peers(batches["policy_peers"])
        if self._leaving:  # peers come and go with the identities while their policy stays
            self._leaving.release(self._wanted_policies())
        self._switching.note_devices(batches["devices"])
        changed = (*batches["endpoint_policies"], *batches["endpoints"])
        self._switching.note(change.key for change in changed)

    def _want(self, spec: MapSpec, of: Rows, changes: Iterable[Change[Any]]) -> None:
        mirror, shared = self._mirrors[spec.name], len(spec.tables) > 1
        for change in changes:
            entries = of.entries(change.new, self._setting) if change.new is not None else {}
            row = (of.table, change.key) if shared else change.key  # keys of two tables may be the same
            mirror.want(row, entries, yields=of.yields)

    def _wanted_policies(self) -> set[int]:
        return {row.policy for row in self.tables.endpoint_policies}

    async def _flush(self) -> None:
        """Write in order, remove in the opposite one, then have connections asked anew."""
        changed = Changes()
        wanted = self._wanted_policies()
        try:
            await self._write_and_remove(changed)
            if self._switching.due and self._leaving and self._leaving.would_make_room(wanted):
                await self._make_room(changed)
        finally:  # cancelled, too: what was written counts for the connections there are
            self._epochs.changed(changed)

    async def _write_and_remove(self, changed: Changes) -> None:
        """Adds to `changed` what was written and removed."""
        for step, specs in self._steps.items():
            if step is Step.ADDRESSES:
                await self._guard(changed)
            if step is Step.ENDPOINTS:
                shortage = missing.of(self._mirrors)
                self._switching.want(shortage, failures.broken_policies(self._mirrors))
            for spec in specs:
                await self._write(spec.name, changed)
        await self._remove(tuple(Step), changed)
        if any(mirror.believed() for mirror in self._mirrors.values()):
            await self._guard(changed)  # a wrong row will not go: whom it would mislead talks to nobody

    async def _guard(self, changed: Changes) -> None:
        """Peers that are not in the kernel must be none to endpoints before an address may lead to them."""
        shortage, broken = missing.of(self._mirrors), failures.broken_policies(self._mirrors)
        if (shortage or broken) and self._switching.guard(shortage, broken):
            for name in switching.MAPS:
                await self._write(name, changed)

    async def _write(self, name: str, changed: Changes) -> None:
        mirror = self._mirrors[name]
        work = mirror.work()
        torn = missing.torn(self._mirrors, work) if name == missing.PEERS else {}
        work = {key: value for key, value in work.items() if key not in torn}
        if work:
            fresh = changed.add(name, work)  # also if we are cancelled before it is known
            if not await flush.write(mirror, self._grow, work):
                changed.take_back(name, fresh)
        if torn:
            mirror.withhold(torn, next(iter(self._mirrors[missing.POLICY].failures.values())))

    async def _remove(self, steps: Sequence[Step], changed: Changes) -> None:
        """A refusal ends it: what the rows that stay point at stays as well."""
        for step in reversed(steps):
            if step is Step.PEERS and self._leaving:
                # Policies that tables have are as the tables say, whether obeyed or not.
                self._leaving.release_all_but(self._switching.obeyed() - self._wanted_policies())
                self._leaving.make_smaller()  # before, an identity that goes would count as any other
                await self._write(missing.PEERS, changed)
            for spec in reversed(self._steps[step]):
                mirror = self._mirrors[spec.name]
                keys = mirror.leaving()
                changed.add(spec.name, keys)  # of a removal that is refused some may be gone
                await flush.remove(mirror, keys)
                if mirror.refused:
                    return

    async def _make_room(self, changed: Changes) -> None:
        """Old policy and new one do not fit side by side, but the new one fits: nothing passes between.

        Rows of a policy that is still obeyed may not go one by one: without a denial, more would pass.
        """
        self._switching.want_nothing()
        for name in switching.MAPS:
            await self._write(name, changed)
        await self._remove(POLICY_STEPS, changed)
        await self._write_and_remove(changed)

    async def _prune(self, watched: Iterable[ReadTable[Any]]) -> None:
        """Once all tables are ready, remove what an earlier agent left and nothing wants."""
        if self.synced or not all(table.ready for table in watched):
            return
        leaving = {spec.name for spec, of in self._rows if of.told is Told.LEAVING}
        for name, mirror in self._mirrors.items():
            if name not in leaving:
                mirror.prune()
        self._leaving.unpruned = True
        await self._flush()
        # What an earlier agent allowed under another configuration (audit mode), or wrote and did not live
        # to have asked about, is asked about again.
        self._epochs.all_changed()
        # Only now it is known that nothing is missing, where an earlier agent's flags say so.
        self._switching.complete = True
        await self._flush()
        self.synced = True
        entries = sum(len(mirror.held) for mirror in self._mirrors.values())
        log.info("the kernel's maps are as the tables say: %d entries", entries)

    def _announce(self) -> None:
        """Note what the kernel now has of endpoints and wake who waits."""
        self._switching.announce()
        failures.tell(self.tables, self._mirrors)
        failures.tell_endpoints(self.tables, self._mirrors, self._switching.flagged)
        if self.synced:  # before, that nothing is said of a policy means nothing
            failures.mark_ready(self.tables)
        turn, self._turn = self._turn, asyncio.Event()
        turn.set()
