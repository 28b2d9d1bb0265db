"""What policy.compute writes: of all other tables it only reads."""

from __future__ import annotations

from typing import Protocol

from podwire.state.peers import Peers
from podwire.state.table import Table
from podwire.state.tables import EndpointPolicyRow, EntryRow, ProgressRow, RuleRow
from podwire.state.views import ReadTables


class Written(ReadTables, Protocol):
    """The tables, with those that are written here."""

    @property
    def rules(self) -> Table[RuleRow]: ...

    @property
    def endpoint_policies(self) -> Table[EndpointPolicyRow]: ...

    @property
    def policy_peers(self) -> Peers: ...

    @property
    def policy_entries(self) -> Table[EntryRow]: ...

    @property
    def progress(self) -> Table[ProgressRow]: ...
