"""Which pod's process is it? By the cgroup it runs in.

What happens at a socket is seen before there is a packet, so such events know the process's cgroup
and no source address. A pod's cgroup is a directory below the node's whose path has the pod's UID
(with ``_`` for ``-`` where systemd made it); the cgroup's id is the directory's inode.
"""

from __future__ import annotations

import os
import time

from podwire.state.table import Table
from podwire.state.tables import EndpointRow

# A process of an unknown cgroup must not make us read the tree for each of its connections.
SCAN_EVERY = 1.0


class Cgroups:
    """Endpoints by cgroup id. `root` is the node's cgroup2 directory; empty = nothing is known."""

    def __init__(self, root: str, endpoints: Table[EndpointRow]) -> None:
        self._root = root
        self._endpoints = endpoints
        self._paths: dict[int, str] = {}
        self._scanned = 0.0

    def endpoint(self, number: int) -> EndpointRow | None:
        path = self._path(number)
        if not path:
            return None
        plain = path.replace("_", "-")
        return next((row for row in self._endpoints if row.uid and row.uid in plain), None)

    def _path(self, number: int) -> str:
        known = self._paths.get(number)
        if known is None and self._root and time.monotonic() - self._scanned >= SCAN_EVERY:
            self._scan()
            known = self._paths.get(number)
        return known or ""

    def _scan(self) -> None:
        self._scanned = time.monotonic()
        found = {}
        for directory, _, _ in os.walk(self._root):
            try:
                found[os.stat(directory).st_ino] = directory.removeprefix(self._root)
            except OSError:  # gone while we looked
                continue
        self._paths = found
