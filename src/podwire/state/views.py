"""The tables as a stage has them: all to read, and none to write.

What a stage writes it says by a protocol of its own, with those few tables as they are::

    class Written(ReadTables, Protocol):
        @property
        def backends(self) -> Table[BackendRow]: ...

mypy then holds it to that, and a test compares these protocols with who is declared to write
(`state.writers`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from podwire.state.peers import ReadPeers
from podwire.state.selections import ReadSelections
from podwire.state.table import ReadTable
from podwire.state.tables import (
    BackendRow,
    DeviceRow,
    EndpointFailureRow,
    EndpointPolicyRow,
    EndpointRow,
    EntryRow,
    FrontendRow,
    IdentityRow,
    IpcacheRow,
    LocalAddressRow,
    NamespaceRow,
    NodeRow,
    PodRow,
    PolicyFailureRow,
    PolicyRow,
    ProgressRow,
    RemoteEndpointRow,
    ReportedEndpointRow,
    RuleRow,
    ServiceRow,
    SliceRow,
)


class ReadTables(Protocol):
    """All of `podwire.state.tables.Tables`, in walk order."""

    def __iter__(self) -> Iterator[ReadTable[Any]]: ...

    def named(self, name: str) -> ReadTable[Any]:
        """KeyError if there is no such table."""
        ...

    def names(self) -> Iterable[str]: ...

    @property
    def namespaces(self) -> ReadTable[NamespaceRow]: ...

    @property
    def nodes(self) -> ReadTable[NodeRow]: ...

    @property
    def pods(self) -> ReadTable[PodRow]: ...

    @property
    def services(self) -> ReadTable[ServiceRow]: ...

    @property
    def slices(self) -> ReadTable[SliceRow]: ...

    @property
    def policies(self) -> ReadTable[PolicyRow]: ...

    @property
    def remote_endpoints(self) -> ReadTable[RemoteEndpointRow]: ...

    @property
    def reported_endpoints(self) -> ReadTable[ReportedEndpointRow]: ...

    @property
    def local_addresses(self) -> ReadTable[LocalAddressRow]: ...

    @property
    def devices(self) -> ReadTable[DeviceRow]: ...

    @property
    def endpoints(self) -> ReadTable[EndpointRow]: ...

    @property
    def identities(self) -> ReadTable[IdentityRow]: ...

    @property
    def selections(self) -> ReadSelections: ...

    @property
    def ipcache(self) -> ReadTable[IpcacheRow]: ...

    @property
    def rules(self) -> ReadTable[RuleRow]: ...

    @property
    def endpoint_policies(self) -> ReadTable[EndpointPolicyRow]: ...

    @property
    def policy_peers(self) -> ReadPeers: ...

    @property
    def policy_entries(self) -> ReadTable[EntryRow]: ...

    @property
    def progress(self) -> ReadTable[ProgressRow]: ...

    @property
    def backends(self) -> ReadTable[BackendRow]: ...

    @property
    def frontends(self) -> ReadTable[FrontendRow]: ...

    @property
    def policy_failures(self) -> ReadTable[PolicyFailureRow]: ...

    @property
    def endpoint_failures(self) -> ReadTable[EndpointFailureRow]: ...
