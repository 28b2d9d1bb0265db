"""Names for the numbers of the kernel: rules, identities, services, pods. Looked up when they are needed.

Tables are asked from a thread: for a copy of all rows, or for one row, no more.
"""

from __future__ import annotations

from functools import cached_property

from podwire.base.addresses import join, pack, unpack
from podwire.model import identity
from podwire.model import protocol as protocols
from podwire.state.tables import RuleRow
from podwire.state.views import ReadTables


def address_of(raw: bytes, port: int, protocol: int) -> str:
    return f"{join(unpack(raw), port)}/{protocols.or_any(protocol)}"


def because(tables: ReadTables, number: int) -> str:
    """The rule behind a number, as ``kind namespace/name path``."""
    row = tables.rules.get(number)
    return told(row) if row is not None else (f"rule {number}" if number else "")


def told(row: RuleRow) -> str:
    names = ", ".join(f"{origin.kind} {origin}" for origin in row.origins)
    return f"{names}: default deny, {row.direction.word}" if row.default_deny else f"{names} {row.clause}"


def named(tables: ReadTables, number: int) -> str:
    """``world``, a pod's labels, or the number."""
    row = tables.identities.get(number)
    if number in identity.RESERVED_NAMES or row is None:
        return identity.name(number)
    return ",".join(one for one in row.labels if not one.startswith("k8s:io.cilium.")) or str(number)


class Names:
    """Those one dump needs, each made once: a rule is behind thousands of connections."""

    def __init__(self, tables: ReadTables) -> None:
        self._tables = tables
        self._because: dict[int, str] = {}
        self._named: dict[int, str] = {}

    def because(self, number: int) -> str:
        if number not in self._because:
            self._because[number] = because(self._tables, number)
        return self._because[number]

    def named(self, number: int) -> str:
        if number not in self._named:
            self._named[number] = named(self._tables, number)
        return self._named[number]

    def service(self, rev_nat: int) -> str:
        return self._services.get(rev_nat, str(rev_nat)) if rev_nat else ""

    def pod(self, address: bytes) -> str:
        """Of this node."""
        return self._pods.get(address, "")

    @cached_property
    def _services(self) -> dict[int, str]:
        return {row.rev_nat: f"{row.namespace}/{row.service}" for row in self._tables.frontends}

    @cached_property
    def _pods(self) -> dict[bytes, str]:
        return {
            pack(one): f"{row.namespace}/{row.pod}" for row in self._tables.endpoints for one in row.addresses
        }
