"""Endpoints in the kernel: which policy each is switched to, and what it is kept on.

An endpoint is one value in two maps, by address and by device. It is switched to a changed policy by
one write, when that policy is whole in the kernel; until then it stays on the one it obeys. Where the
kernel lacks rows that its policy needs, the value says so (`missing`), before anything else is written
that would let more through, and until all of it is there.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Set
from typing import Any

import msgspec

from podwire.abi import structs
from podwire.abi.enums import EndpointFlags
from podwire.bpf.map import U32
from podwire.datapath import missing, rows
from podwire.datapath.catalogue import endpoint
from podwire.datapath.mirror import Mirror
from podwire.model import identity
from podwire.state import progress
from podwire.state.progress import policies_know
from podwire.state.table import Batch
from podwire.state.tables import EndpointPolicyRow, EndpointRow, ProgressRow
from podwire.state.views import ReadTables

BY_ADDRESS, BY_DEVICE = MAPS = (endpoint.BY_ADDRESS.name, endpoint.BY_DEVICE.name)
Wanted = tuple[EndpointRow | None, EndpointPolicyRow | None]
NONE = EndpointFlags(0)


class Current(msgspec.Struct, frozen=True):
    """An endpoint's row as it was last wanted, but for what is missing."""

    row: EndpointRow
    value: structs.Endpoint
    earlier: bool  # as an earlier agent wrote it: what policies say of it is not known yet


class Switching:
    """What the two maps of endpoints are to hold, and what they hold."""

    def __init__(self, tables: ReadTables, mirrors: Mapping[str, Mirror]) -> None:
        self.tables = tables
        self.complete = False  # all that is missing is known: tables are ready
        # Endpoints to write, with their row and policy as they were together with all other rows.
        self.due: dict[int, Wanted] = {}
        self.flagged: dict[int, EndpointFlags] = {}  # endpoint → what it must not take an answer from
        self._all = mirrors
        self._mirrors = {name: mirrors[name] for name in MAPS}
        self._current: dict[int, Current] = {}
        self._realized: dict[int, tuple[int, EndpointPolicyRow]] = {}  # endpoint → identity, policy
        self._written: dict[int, Wanted] = {}
        self._early: set[int] = set()  # endpoints whose identity policies do not know yet
        self._lost: set[Hashable] = set()  # devices that have lost their carrier
        self._followed: dict[int, int] = {}  # policy → identities (a revision) that it was judged for
        # As the tables were when their changes were taken: they may be further when all is written.
        self._noted: tuple[ProgressRow | None, set[int]] = (None, set())

    def realized(self, endpoint: int) -> EndpointPolicyRow | None:
        """The policy the kernel has for the endpoint now, under the identity its row has."""
        row = self.tables.endpoints.get(endpoint)
        identity, policy = self._realized.get(endpoint, (0, None))
        return policy if row is not None and row.identity == identity else None

    def note(self, changed: Iterable[Hashable]) -> None:
        """These endpoints, or what policies know of their identities, changed."""
        wanted = {row.policy for row in self.tables.endpoint_policies}
        self._noted = self.tables.progress.get(progress.POLICIES), wanted
        early: set[Hashable] = {*self._early}
        self._early.clear()
        for number in early.union(changed):
            assert isinstance(number, int)
            self.due[number] = self._wanted(number)

    def note_devices(self, batch: Batch[Any]) -> None:
        """Devices changed: what has lost its carrier, or has one again, concerns its endpoint."""
        for change in batch:
            lost = change.new is not None and change.new.lost
            if lost != (change.key in self._lost):
                self._lost ^= {change.key}
                self._early.update(row.id for row in self.tables.endpoints.by("device", change.key))

    def _wanted(self, number: int) -> Wanted:
        """An endpoint as it is to be now. An identity that policies do not know yet is none, as in the
        ipcache: rules that name it would not hold for the pod's first packets."""
        row = self.tables.endpoints.get(number)
        if row is not None and not policies_know(self.tables, row.identity):
            self._early.add(number)
            row = msgspec.structs.replace(row, identity=identity.UNKNOWN)
        return row, self.tables.endpoint_policies.get(number)

    def obeyed(self) -> set[int]:
        """Policies of the endpoints as the kernel has them."""
        held = self._mirrors[BY_DEVICE].held.values()
        return {structs.Endpoint.unpack(raw).policy for raw in held}

    def guard(self, shortage: missing.Missing, broken: Set[int]) -> bool:
        """Before addresses are written: raise what flags are needed now; whether there were any."""
        raised = False
        for number, current in self._current.items():
            flagged = self.flagged.get(number, NONE)
            needed = flagged | self._needed(number, current, shortage, broken)
            if needed != flagged:
                self._want_value(number, current, needed)
                raised = True
        return raised

    def want(self, shortage: missing.Missing, broken: Set[int]) -> None:
        """Endpoints whose row or policy changed, but those whose policy is `broken`, not whole; all flags."""
        due, self.due = self.due, {}
        for number, (row, policy) in due.items():
            self._written.pop(number, None)
            if row is None:
                self._forget(number)
            elif policy is not None and policy.policy in broken:
                self.due[number] = row, policy
                self._current[number] = self._as_before(row, self._realized.get(number, (0, None))[1])
            else:
                self._written[number] = row, policy
                self._current[number] = self._as_before(row, policy)
        for number, current in self._current.items():
            needed = self._needed(number, current, shortage, broken)
            if number in due or needed != self.flagged.get(number, NONE):
                self._want_value(number, current, needed)
        self._follow()

    def _forget(self, number: int) -> None:
        self._realized.pop(number, None)
        self._current.pop(number, None)
        self.flagged.pop(number, None)
        for mirror in self._mirrors.values():
            mirror.want(number, {})

    def want_nothing(self) -> None:
        """Nothing passes endpoints that are due, until they are wanted otherwise."""
        for number, (row, _) in self.due.items():
            if row is not None:
                nothing = Current(row, rows.endpoint_value(row, None), earlier=False)
                self._want_value(number, nothing, NONE)

    def _as_before(self, row: EndpointRow, policy: EndpointPolicyRow | None) -> Current:
        """The row under `policy`; while that is not known, as an earlier agent left it."""
        value = rows.endpoint_value(row, policy)
        known = self._known(value, row) if policy is None or row.identity == 0 else None
        return Current(row, known if known is not None else value, earlier=known is not None)

    def _want_value(self, number: int, current: Current, flags: EndpointFlags) -> None:
        row, value = current.row, current.value
        self.flagged.pop(number, None)
        if flags:
            self.flagged[number] = flags
        value = msgspec.structs.replace(value, flags=int((value.flags & ~missing.FLAGS) | flags))
        packed = rows.endpoint_entry(value, row.ifindex not in self._lost)
        device, at = U32.pack(row.ifindex), rows.endpoint_addresses(row)
        self._mirrors[BY_ADDRESS].want(row.id, {key: packed for key in at})
        self._mirrors[BY_DEVICE].want(row.id, {device: packed} if row.ifindex else {})

    def _known(self, value: structs.Endpoint, row: EndpointRow) -> structs.Endpoint | None:
        """An earlier agent's row for this very pod: it stays in force until we know better.

        Either map may have it: the other one may have been made new.
        """
        held = [self._mirrors[BY_DEVICE].held.get(U32.pack(row.ifindex))]
        held += [self._mirrors[BY_ADDRESS].held.get(key) for key in rows.endpoint_addresses(row)]
        for raw in held:
            known = structs.Endpoint.unpack(raw) if raw is not None else structs.Endpoint()
            if (known.id, known.device, known.mac) == (value.id, value.device, value.mac):
                return known
        return None

    # What is missing

    def _needed(
        self, number: int, current: Current, shortage: missing.Missing, broken: Set[int]
    ) -> EndpointFlags:
        """A flag that is there stays while it is not known what is missing: after a start, say."""
        needed = missing.flags(self.tables, self._all, shortage, current.value) if shortage else NONE
        if came := self._came_since(number, current, broken):
            needed |= missing.PEERS_MISSING
            # One that has a class all the same has the number of another, who was asked about.
            if any(missing.has_class(self._all, current.value.policy, one) for one in came):
                needed |= missing.QUARANTINED
        if not self.complete or current.earlier:
            known = self._known(current.value, current.row)
            needed |= EndpointFlags(known.flags & missing.FLAGS) if known is not None else NONE
        return needed

    def _came_since(self, number: int, current: Current, broken: Set[int]) -> list[int]:
        """Identities that a policy was never asked about, if it is one that no table has any more and the
        endpoint is kept on. Of an earlier agent's policy nobody knows when it was asked last."""
        _, wanted = self.due.get(number, (None, None))
        if wanted is None or wanted.policy not in broken or current.value.policy == wanted.policy:
            return []
        judged = self._followed.get(current.value.policy)
        if judged is None:
            return [identity.UNKNOWN] if len(self.tables.identities) else []
        revision_of = self.tables.identities.revision_of
        return [row.number for row in self.tables.identities if revision_of(row.number) > judged]

    def _follow(self) -> None:
        """Policies that tables have are judged for every identity that policy.compute has taken in."""
        row, wanted = self._noted
        kept = {current.value.policy for current in self._current.values()}
        self._followed = {policy: judged for policy, judged in self._followed.items() if policy in kept}
        if row is not None:
            self._followed |= dict.fromkeys(wanted, row.identities)

    def announce(self) -> None:
        """Note what the kernel now has."""
        failed = {row for mirror in self._mirrors.values() for row in mirror.failed_rows()}
        for number, (row, policy) in list(self._written.items()):
            if number in failed:
                continue
            del self._written[number]
            if row is not None and row.identity and policy is not None:
                self._realized[number] = row.identity, policy
