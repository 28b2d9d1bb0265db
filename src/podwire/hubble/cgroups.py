"""Which pod's process is it? By the cgroup it runs in.

What happens at a socket is seen before there is a packet, so such events know the process's cgroup
and no source address. A pod's cgroup is a directory below the node's whose path has the pod's UID
(with ``_`` for ``-`` where systemd made it); the cgroup's id is the directory's inode.

Reading the tree takes as long as it is large: `learn` does it in a thread, before events of cgroups
not seen yet are named. A cgroup that was not found then is not looked for again: its id is not used
a second time.
"""

from __future__ import annotations

import asyncio
import os
import time

import numpy as np
from numpy.typing import NDArray

from podwire.state.table import ReadTable
from podwire.state.tables import EndpointRow

# A process of an unknown cgroup must not make us read the tree for each of its connections.
SCAN_EVERY = 1.0
# Directories looked at in one reading, and ids remembered as not there: a tree larger than this is
# not known whole, and its events keep no address.
MOST = 1 << 16


class Cgroups:
    """Endpoints by cgroup id. `root` is the node's cgroup2 directory; empty = nothing is known."""

    def __init__(self, root: str, endpoints: ReadTable[EndpointRow]) -> None:
        self._root = root
        self._endpoints = endpoints
        self._paths: dict[int, str] = {}
        self._absent: set[int] = set()
        self._found: dict[int, EndpointRow | None] = {}  # while the endpoints are those of `_revision`
        self._revision = -1
        self._scanned = -SCAN_EVERY
        self.left_out = 0  # readings that ended at MOST

    def endpoint(self, number: int) -> EndpointRow | None:
        if self._revision != self._endpoints.revision:
            self._revision = self._endpoints.revision
            self._found.clear()
        if number in self._found:
            return self._found[number]
        if number not in self._paths:
            return None
        plain = self._paths[number].replace("_", "-")
        row = next((row for row in self._endpoints if row.uid and row.uid in plain), None)
        self._found[number] = row
        return row

    async def learn(self, numbers: NDArray[np.uint64]) -> None:
        """Read the tree if some of these cgroups are not known, and not too often."""
        missing = self._missing(numbers)
        if missing:
            self._take(await asyncio.to_thread(scan, self._root), missing)

    def learn_now(self, numbers: NDArray[np.uint64]) -> None:
        """The same where nothing else waits."""
        missing = self._missing(numbers)
        if missing:
            self._take(scan(self._root), missing)

    def _missing(self, numbers: NDArray[np.uint64]) -> set[int]:
        if not self._root or not numbers.any() or time.monotonic() - self._scanned < SCAN_EVERY:
            return set()
        there = set(np.unique(numbers[numbers != 0]).tolist())
        return there - self._paths.keys() - self._absent

    def _take(self, scanned: tuple[dict[int, str], int], missing: set[int]) -> None:
        self._scanned = time.monotonic()
        self._paths, more = scanned
        self.left_out += more
        self._found.clear()
        if len(self._absent) > MOST:
            self._absent.clear()
        self._absent |= missing - self._paths.keys()


def scan(root: str) -> tuple[dict[int, str], int]:
    """Inode → path below `root`, of at most `MOST` directories; 1 if there are more, else 0."""
    found: dict[int, str] = {}
    for directory, _, _ in os.walk(root):
        if len(found) >= MOST:
            return found, 1
        try:
            found[os.stat(directory).st_ino] = directory.removeprefix(root)
        except OSError:  # gone while we looked
            continue
    return found, 0
