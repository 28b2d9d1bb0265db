"""What the kernel's maps hold, for people: `podwire bpf lb|ct|policy|ipcache list`.

Read from the maps at the moment somebody asks, never from the tables: where the two differ, this
is what packets obey. A dump is an iterator of blocks of rows, each step of it taken in a thread:
what the kernel gives is decoded, filtered and ordered as arrays of numbers, and a block becomes text
only when whoever asked has taken the one before. Tables are asked for a copy of all rows, or for one
row, no more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from podwire.agent.dumps.connections import connections
from podwire.agent.dumps.ipcache import ipcache
from podwire.agent.dumps.policies import policies
from podwire.agent.dumps.services import frontends
from podwire.agent.dumps.wanted import Wanted, read
from podwire.datapath.maps import Maps
from podwire.state.views import ReadTables

__all__ = ["DUMPS", "Rows", "Wanted", "read"]

Rows = list[dict[str, Any]]
DUMPS: dict[str, Callable[[Maps, ReadTables, Wanted], Iterator[Rows]]] = {
    "lb": frontends,
    "ct": connections,
    "policy": policies,
    "ipcache": ipcache,
}
