"""A node's flows: the store, the names its numbers stand for, and who the node is.

What filters, messages and explanations need to read a row, in one place.
"""

from __future__ import annotations

import hashlib
import uuid
from pathlib import Path
from typing import Any

from podwire.hubble.intern import Interner
from podwire.hubble.store import Store
from podwire.hubble.wire import Kept
from podwire.model.cluster import OWN
from podwire.model.labels import Labels
from podwire.state.views import ReadTables

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_SEQUENCE_BITS = (1 << 62) - 1


class FlowIds:
    """UUIDs that need not be stored: node and boot (48 bits), CPU (12), number on that CPU (62).

    Version 8 of RFC 9562: the same event has the same id, however often it is asked for, also after
    the agent was restarted.
    """

    def __init__(self, node: str, boot: str) -> None:
        digest = hashlib.blake2b(f"{node}\0{boot}".encode(), digest_size=6).digest()
        self._node = int.from_bytes(digest, "big")

    def of(self, cpu: int, sequence: int) -> str:
        number = self._node << 80 | 8 << 76 | (cpu & 0xFFF) << 64 | 2 << 62 | sequence & _SEQUENCE_BITS
        return str(uuid.UUID(int=number))

    def parse(self, text: str) -> tuple[int, int] | None:
        """(cpu, sequence) of an id of this node; None for any other text."""
        try:
            number = uuid.UUID(text).int
        except ValueError:
            return None
        cpu, sequence = number >> 64 & 0xFFF, number & _SEQUENCE_BITS
        return (cpu, sequence) if self.of(cpu, sequence) == text else None


class Flows:
    """`name` is the node's, alone; `node` as Hubble writes it: cluster/name."""

    def __init__(self, store: Store, names: Interner, tables: ReadTables, *, name: str, cluster: str) -> None:
        self.store = store
        self.names = names
        self.tables = tables
        self.name = name
        self.cluster = cluster
        self.node = f"{cluster}/{name}"
        self.kept = Kept()
        self.ids = FlowIds(self.node, _BOOT_ID.read_text().strip())

    def value(self, number: Any) -> Any:
        """What an interned number stands for; None for 0."""
        return self.names.values[int(number)]

    @property
    def node_labels(self) -> Labels:
        """The node's labels, ``key=value``, sorted."""
        row = self.tables.nodes.get((OWN, self.name))
        return tuple(sorted(f"{key}={value}" for key, value in row.labels.items())) if row else ()

    def find(self, text: str) -> int | None:
        """The row of the flow with this UUID, if it is still stored."""
        wanted = self.ids.parse(text)
        if wanted is None:
            return None
        cpu, sequence = wanted
        for first, columns in self.store.chunks(self.store.first, self.store.end, newest_first=True):
            found = (columns["sequence"] == sequence) & (columns["cpu"] & 0xFFF == cpu)
            if found.any():
                return first + int(found.argmax())
        return None
