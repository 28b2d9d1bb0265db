"""Tables to maps: the last task of the walk down.

One writer per map (`mirror`), one order for all. What is pointed at is written before what points
at it, and removed after: policy entries, peers, who is behind addresses, backends, sets, frontends,
and the endpoints last. A pod can talk at the moment its own row is there, under its policy; a changed
policy is there whole, under its new number, before the endpoint is switched to it by one write.

What an earlier agent left in the maps stays in force until the tables are ready to say otherwise.
A policy that could not be written whole is not switched to, and the one an endpoint obeys until then
stays as it is. When a map is full, a bigger one takes
its place before anything is lost; if that fails, the rows it concerns say so in `errors`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import msgspec

from podwire.abi import structs
from podwire.base.aio import Backoff
from podwire.bpf.map import U32
from podwire.datapath import rows
from podwire.datapath.leaving import Leaving
from podwire.datapath.maps import Maps
from podwire.datapath.mirror import Grow, Mirror
from podwire.model import identity
from podwire.model.rule import Origin
from podwire.state.progress import policies_know
from podwire.state.table import Batch, Table, Watch
from podwire.state.tables import EndpointPolicyRow, EndpointRow, PolicyFailureRow, Tables

log = logging.getLogger(__name__)

# In the order they are written; removed from in the opposite one.
ORDER = (
    "podwire_policy",
    "podwire_policy_peers",
    "podwire_ipcache",
    "podwire_ipcache_prefixes",
    "podwire_backends",
    "podwire_slots",
    "podwire_rev_nat",
    "podwire_frontends",
    "podwire_endpoints",
    "podwire_devices",
)
POLICY = ORDER[:2]
ENDPOINTS = ORDER[-2:]
Wanted = tuple[EndpointRow | None, EndpointPolicyRow | None]
# What may allow or deny: when one of these changed, connections are asked anew.
DECIDING = (*ORDER[:4], *ENDPOINTS)
IN_A_THREAD = 2000  # entries from which on writing would hold up the loop


class Writer:
    """Keeps the maps of one node equal to its tables. Start `run` once.

    `grow` makes a bigger map (`Programs.bigger`); without it a full map is only reported.
    """

    def __init__(
        self,
        tables: Tables,
        maps: Maps,
        node: str,
        *,
        grow: Grow | None = None,
        backoff: Backoff = Backoff(0.1, 5.0),
    ) -> None:
        self.tables = tables
        self.node = node
        self.synced = False  # everything the ready tables say is in the kernel
        self._maps = maps
        self._mirrors = {name: Mirror(name, maps[name].untyped(), grow) for name in ORDER}
        self._backoff = backoff
        self._failed_rounds = 0
        self._realized: dict[int, tuple[int, EndpointPolicyRow]] = {}  # endpoint → identity, policy
        self._turn = asyncio.Event()
        # Endpoints to write, with their row and policy as they were together with all other rows.
        self._due: dict[int, Wanted] = {}
        self._written: dict[int, Wanted] = {}
        self._early: set[int] = set()  # endpoints whose identity policies do not know yet
        self._lost: set[Hashable] = set()  # devices that have lost their carrier
        self._leaving = Leaving(self._mirrors)

    # What others ask

    def errors(self) -> dict[tuple[str, Hashable], str]:
        """(map, row) → why it is not in the kernel."""
        return {
            (name, row): str(error)
            for name, mirror in self._mirrors.items()
            for row, error in mirror.failed_rows().items()
        }

    def realized(self, endpoint: int) -> EndpointPolicyRow | None:
        """The policy the kernel has for the endpoint now, under the identity its row has.

        None = nothing passes yet, or its identity changed a moment ago.
        """
        row = self.tables.endpoints.get(endpoint)
        identity, policy = self._realized.get(endpoint, (0, None))
        return policy if row is not None and row.identity == identity else None

    async def wait_realized(self, endpoint: int) -> None:
        """Until the kernel has the endpoint with the policy its table has. Ends only with that."""
        while True:
            wanted = self.tables.endpoint_policies.get(endpoint)
            if wanted is not None and self.realized(endpoint) == wanted:
                return
            turn = self._turn
            await turn.wait()

    def usage(self) -> dict[str, tuple[int, int]]:
        """Map → (entries, capacity)."""
        return {name: (len(mirror.held), mirror.map.capacity) for name, mirror in self._mirrors.items()}

    # The task

    async def run(self) -> None:
        """Until cancelled; the maps are closed then, what they hold stays."""
        try:
            for mirror in self._mirrors.values():
                mirror.load()
            self.tables.policy_failures.mark_ready()
            await self._follow()
        finally:
            for mirror in self._mirrors.values():
                mirror.close()

    async def _follow(self) -> None:
        tables = self.tables
        watched = (
            tables.policy_entries,
            tables.policy_peers,
            tables.ipcache,
            tables.backends,
            tables.frontends,
            tables.nodes,
            tables.local_addresses,
            tables.devices,
            tables.endpoint_policies,
            tables.endpoints,
        )
        with Watch(*watched, tables.progress) as watch:
            while True:
                *batches, _ = await self._next(watch, len(watched) + 1)
                self._note(batches)
                if sum(mirror.pending for mirror in self._mirrors.values()) > IN_A_THREAD:
                    await asyncio.to_thread(self._flush)
                else:
                    self._flush()
                self._prune(watched)
                self._failed_rounds = self._failed_rounds + 1 if self.errors() else 0
                self._announce()

    async def _next(self, watch: Watch, count: int) -> tuple[Batch[Any], ...]:
        """Changes; nothing, after a while, if something is to be tried again."""
        if not self._failed_rounds:
            return await watch.next()
        try:
            async with asyncio.timeout(self._backoff.after(self._failed_rounds)):
                return await watch.next()
        except TimeoutError:
            return (Batch((), False, 0),) * count

    def _note(self, batches: Sequence[Batch[Any]]) -> None:
        """Tell the mirrors what the changed rows want."""
        entries, peers, ipcache, backends, frontends, nodes, local, devices, policies, endpoints = batches
        want = self._want
        self._leaving.note("podwire_policy", entries, rows.policy_entry)
        self._leaving.note("podwire_policy_peers", peers, rows.policy_peer)
        if self._leaving:  # peers come and go with the identities while their policy stays
            self._leaving.release(self._wanted_policies())
        want("podwire_ipcache", ipcache, rows.ipcache_exact)
        want("podwire_ipcache_prefixes", ipcache, rows.ipcache_prefix)
        want("podwire_backends", backends, lambda row: rows.backend(row, self.node))
        want("podwire_slots", frontends, rows.slots)
        want("podwire_rev_nat", frontends, rows.rev_nat)
        want("podwire_frontends", frontends, rows.frontend)
        # The node's own addresses never take a pod's row; when the pod goes they are the node's again.
        want("podwire_endpoints", nodes, rows.node_addresses, yields=True)
        want("podwire_endpoints", local, rows.local_address, yields=True)
        changed, self._early = self._early, set()
        for change in devices:
            lost = change.new is not None and change.new.lost
            if lost != (change.key in self._lost):
                self._lost ^= {change.key}
                changed |= {row.id for row in self.tables.endpoints.by("device", change.key)}
        for number in changed.union(change.key for batch in (policies, endpoints) for change in batch):
            assert isinstance(number, int)
            self._due[number] = self._wanted(number)

    def _wanted(self, number: int) -> Wanted:
        """An endpoint as it is to be now. An identity that policies do not know yet is none, as in the
        ipcache: rules that name it would not hold for the pod's first packets."""
        row = self.tables.endpoints.get(number)
        if row is not None and not policies_know(self.tables, row.identity):
            self._early.add(number)
            row = msgspec.structs.replace(row, identity=identity.UNKNOWN)
        return row, self.tables.endpoint_policies.get(number)

    def _want(
        self, name: str, batch: Batch[Any], entries: Callable[[Any], rows.Entries], *, yields: bool = False
    ) -> None:
        mirror = self._mirrors[name]
        for change in batch:
            mirror.want(change.key, entries(change.new) if change.new is not None else {}, yields=yields)

    def _obeyed(self) -> set[int]:
        """Policies of the endpoints as the kernel has them."""
        held = self._mirrors["podwire_devices"].held.values()
        return {structs.Endpoint.unpack(raw).policy for raw in held}

    def _wanted_policies(self) -> set[int]:
        return {row.policy for row in self.tables.endpoint_policies}

    def _flush(self) -> None:
        """Write in order, remove in the opposite one, then have connections asked anew."""
        changed = self._write_and_remove()
        if self._due and self._leaving and self._leaving.would_make_room(self._wanted_policies()):
            changed |= self._make_room()
        if changed & set(DECIDING):
            self._next_epoch()

    def _write_and_remove(self) -> set[str]:
        """The maps in which anything changed."""
        changed = set()
        for name in ORDER:
            if name == ENDPOINTS[0]:
                self._want_endpoints()
            if self._mirrors[name].write():
                changed.add(name)
        for name in reversed(ORDER):
            if name == POLICY[-1] and self._leaving:
                self._leaving.release_all_but(self._obeyed())
            if self._mirrors[name].remove():
                changed.add(name)
        return changed

    def _make_room(self) -> set[str]:
        """Old policy and new one do not fit side by side, but the new one fits: nothing passes between.

        Rows of a policy that is still obeyed may not go one by one: without a denial, more would pass.
        """
        for row, _ in self._due.values():
            if row is not None:
                self._want_endpoint_value(row, rows.endpoint_value(row, None))
        for name in ENDPOINTS:
            self._mirrors[name].write()
        self._leaving.release_all_but(self._obeyed())
        for name in reversed(POLICY):
            self._mirrors[name].remove()
        return self._write_and_remove() | set(POLICY)

    def _want_endpoints(self) -> None:
        """Endpoints whose row or policy changed, but those whose policy could not be written whole."""
        broken = self._broken_policies()
        due, self._due = self._due, {}
        for number, (row, policy) in due.items():
            self._written.pop(number, None)
            if row is None:
                self._realized.pop(number, None)
                for name in ENDPOINTS:
                    self._mirrors[name].want(number, {})
            elif policy is not None and policy.policy in broken:
                self._due[number] = row, policy
                self._want_endpoint(row, self._realized.get(number, (0, None))[1])
            else:
                self._written[number] = row, policy
                self._want_endpoint(row, policy)

    def _want_endpoint(self, row: EndpointRow, policy: EndpointPolicyRow | None) -> None:
        value = rows.endpoint_value(row, policy)
        if policy is None or row.identity == 0:
            value = self._known(value, U32.pack(row.ifindex), rows.endpoint_addresses(row))
        self._want_endpoint_value(row, value)

    def _want_endpoint_value(self, row: EndpointRow, value: structs.Endpoint) -> None:
        packed = rows.with_carrier(value, row.ifindex not in self._lost).pack()
        device, at = U32.pack(row.ifindex), rows.endpoint_addresses(row)
        self._mirrors["podwire_endpoints"].want(row.id, {key: packed for key in at})
        self._mirrors["podwire_devices"].want(row.id, {device: packed} if row.ifindex else {})

    def _known(self, value: structs.Endpoint, device: bytes, at: list[bytes]) -> structs.Endpoint:
        """An earlier agent's row for this very pod stays in force until we know better; else `value`.

        Either map may have it: the other one may have been made new.
        """
        held = [self._mirrors["podwire_devices"].held.get(device)]
        held += [self._mirrors["podwire_endpoints"].held.get(key) for key in at]
        for raw in held:
            known = structs.Endpoint.unpack(raw) if raw is not None else structs.Endpoint()
            if (known.id, known.device, known.mac) == (value.id, value.device, value.mac):
                return known
        return value

    def _broken_policies(self) -> set[int]:
        """Policies of which an entry or a peer is not in the kernel."""
        return {
            int(row[0])  # both keys begin with the policy
            for name in POLICY
            for row in self._mirrors[name].failed_rows()
            if isinstance(row, tuple)
        }

    def _next_epoch(self) -> None:
        state = self._maps["podwire_state"]
        before = state.get(0) or structs.NodeState()
        state.put(0, structs.NodeState(policy_epoch=(before.policy_epoch + 1) & 0xFFFFFFFF))

    def _prune(self, watched: tuple[Table[Any], ...]) -> None:
        """Once all tables are ready, remove what an earlier agent left and nothing wants."""
        if self.synced or not all(table.ready for table in watched):
            return
        for name, mirror in self._mirrors.items():
            if name not in POLICY:
                mirror.prune()
        self._leaving.unpruned = True
        self._flush()
        # What an earlier agent allowed under another configuration (audit mode) is asked about again.
        self._next_epoch()
        self.synced = True
        entries = sum(len(mirror.held) for mirror in self._mirrors.values())
        log.info("the kernel's maps are as the tables say: %d entries", entries)

    def _announce(self) -> None:
        """Note what the kernel now has of endpoints and wake who waits."""
        failed = {row for name in ENDPOINTS for row in self._mirrors[name].failed_rows()}
        for number, (row, policy) in list(self._written.items()):
            if number in failed:
                continue
            del self._written[number]
            if row is not None and row.identity and policy is not None:
                self._realized[number] = row.identity, policy
        self._tell_failures()
        turn, self._turn = self._turn, asyncio.Event()
        turn.set()

    def _tell_failures(self) -> None:
        """Table policy_failures: what whoever applied a policy should be told of it."""
        failed: dict[int, list[str]] = {}
        for name in POLICY:
            for row, error in self._mirrors[name].failed_rows().items():
                if isinstance(row, tuple):
                    failed.setdefault(int(row[0]), []).append(str(error))
        unknown = self._unknown_peers()
        for peer in self.tables.policy_peers if unknown else ():
            if peer.identity in unknown:
                failed.setdefault(peer.policy, []).append(unknown[peer.identity])
        self.tables.policy_failures.replace(
            PolicyFailureRow(policy, len(errors), errors[0], self._origins(policy))
            for policy, errors in failed.items()
        )

    def _unknown_peers(self) -> dict[int, str]:
        """Identities that the kernel does not know some address of: their policies do not hold for it."""
        unknown = {}
        for name in ("podwire_ipcache", "podwire_ipcache_prefixes"):
            for prefix, error in self._mirrors[name].failed_rows().items():
                if (row := self.tables.ipcache.get(prefix)) is not None:
                    unknown[row.identity] = str(error)
        return unknown

    def _origins(self, policy: int) -> tuple[Origin, ...]:
        """The objects that a policy is made of."""
        rules = {entry.rule for entry in self.tables.policy_entries.by("policy", policy)}
        rows = (self.tables.rules.get(rule) for rule in rules)
        return tuple(sorted({origin for row in rows if row is not None for origin in row.origins}))
