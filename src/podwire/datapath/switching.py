"""Endpoints in the kernel: which policy each is switched to, and what it is kept on.

An endpoint is one value in two maps, by address and by device. It is switched to a changed policy by
one write, when that policy is whole in the kernel; until then it stays on the one it obeys.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Set
from typing import Any

import msgspec

from podwire.abi import structs
from podwire.bpf.map import U32
from podwire.datapath import rows
from podwire.datapath.mirror import Mirror
from podwire.model import identity
from podwire.state.progress import policies_know
from podwire.state.table import Batch
from podwire.state.tables import EndpointPolicyRow, EndpointRow, Tables

BY_ADDRESS, BY_DEVICE = MAPS = ("podwire_endpoints", "podwire_devices")
Wanted = tuple[EndpointRow | None, EndpointPolicyRow | None]


class Switching:
    """What the two maps of endpoints are to hold, and what they hold."""

    def __init__(self, tables: Tables, mirrors: Mapping[str, Mirror]) -> None:
        self.tables = tables
        # Endpoints to write, with their row and policy as they were together with all other rows.
        self.due: dict[int, Wanted] = {}
        self._mirrors = {name: mirrors[name] for name in MAPS}
        self._realized: dict[int, tuple[int, EndpointPolicyRow]] = {}  # endpoint → identity, policy
        self._written: dict[int, Wanted] = {}
        self._early: set[int] = set()  # endpoints whose identity policies do not know yet
        self._lost: set[Hashable] = set()  # devices that have lost their carrier

    def realized(self, endpoint: int) -> EndpointPolicyRow | None:
        """The policy the kernel has for the endpoint now, under the identity its row has."""
        row = self.tables.endpoints.get(endpoint)
        identity, policy = self._realized.get(endpoint, (0, None))
        return policy if row is not None and row.identity == identity else None

    def note(self, changed: Iterable[Hashable]) -> None:
        """These endpoints, or what policies know of their identities, changed."""
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

    def want(self, broken: Set[int]) -> None:
        """Endpoints whose row or policy changed, but those whose policy is `broken`, not whole."""
        due, self.due = self.due, {}
        for number, (row, policy) in due.items():
            self._written.pop(number, None)
            if row is None:
                self._realized.pop(number, None)
                for mirror in self._mirrors.values():
                    mirror.want(number, {})
            elif policy is not None and policy.policy in broken:
                self.due[number] = row, policy
                self._want_row(row, self._realized.get(number, (0, None))[1])
            else:
                self._written[number] = row, policy
                self._want_row(row, policy)

    def want_nothing(self) -> None:
        """Nothing passes endpoints that are due, until they are wanted otherwise."""
        for row, _ in self.due.values():
            if row is not None:
                self._want_value(row, rows.endpoint_value(row, None))

    def _want_row(self, row: EndpointRow, policy: EndpointPolicyRow | None) -> None:
        value = rows.endpoint_value(row, policy)
        if policy is None or row.identity == 0:
            value = self._known(value, U32.pack(row.ifindex), rows.endpoint_addresses(row))
        self._want_value(row, value)

    def _want_value(self, row: EndpointRow, value: structs.Endpoint) -> None:
        packed = rows.with_carrier(value, row.ifindex not in self._lost).pack()
        device, at = U32.pack(row.ifindex), rows.endpoint_addresses(row)
        self._mirrors[BY_ADDRESS].want(row.id, {key: packed for key in at})
        self._mirrors[BY_DEVICE].want(row.id, {device: packed} if row.ifindex else {})

    def _known(self, value: structs.Endpoint, device: bytes, at: list[bytes]) -> structs.Endpoint:
        """An earlier agent's row for this very pod stays in force until we know better; else `value`.

        Either map may have it: the other one may have been made new.
        """
        held = [self._mirrors[BY_DEVICE].held.get(device)]
        held += [self._mirrors[BY_ADDRESS].held.get(key) for key in at]
        for raw in held:
            known = structs.Endpoint.unpack(raw) if raw is not None else structs.Endpoint()
            if (known.id, known.device, known.mac) == (value.id, value.device, value.mac):
                return known
        return value

    def announce(self) -> None:
        """Note what the kernel now has."""
        failed = {row for mirror in self._mirrors.values() for row in mirror.failed_rows()}
        for number, (row, policy) in list(self._written.items()):
            if number in failed:
                continue
            del self._written[number]
            if row is not None and row.identity and policy is not None:
                self._realized[number] = row.identity, policy
