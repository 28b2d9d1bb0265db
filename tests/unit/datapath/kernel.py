"""A kernel in memory: maps with room for so many entries, each step of which can be made to fail."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from errno import EPERM

from podwire.base.errors import KernelError, MapFull


class MemoryMap:
    """A map that counts what is done to it. `refuse` is asked before each step and may raise."""

    def __init__(self, name: str, capacity: int, content: dict[bytes, bytes] | None = None) -> None:
        self.name = name
        self.capacity = capacity
        self.content = dict(content or {})
        self.writes = 0
        self.closed = False
        self.refuse: Callable[[str, bytes], None] = lambda step, key: None
        self.threads: set[int] = set()

    def _step(self, step: str, key: bytes) -> None:
        assert not self.closed, f"{step} on {self.name}, which is closed"
        self.threads.add(threading.get_ident())
        self.refuse(step, key)

    def items(self) -> Iterable[tuple[bytes, bytes]]:
        return list(self.content.items())

    def get(self, key: bytes) -> bytes | None:
        self._step("get", key)
        return self.content.get(key)

    def put(self, key: bytes, value: bytes) -> None:
        self._step("put", key)
        if key not in self.content and len(self.content) >= self.capacity:
            raise MapFull(self.name, self.capacity)
        self.content[key] = value
        self.writes += 1

    def put_many(self, entries: Iterable[tuple[bytes, bytes]]) -> int:
        return len([self.put(key, value) for key, value in entries])

    def delete_many(self, keys: Iterable[bytes]) -> int:
        deleted = 0
        for key in keys:
            self._step("delete", key)
            deleted += self.content.pop(key, None) is not None
        return deleted

    def close(self) -> None:
        self.closed = True


class MemoryKernel:
    """The maps of a node. `sizes` are those that are not big."""

    def __init__(self, **sizes: int) -> None:
        self.sizes = sizes
        self.maps: dict[str, MemoryMap] = {}

    def target(self, name: str) -> MemoryMap:
        """As pinned: what an earlier agent left is there."""
        left = self.maps.get(name)
        capacity = left.capacity if left is not None else self.sizes.get(name, 1 << 16)
        self.maps[name] = MemoryMap(name, capacity, left.content if left is not None else None)
        return self.maps[name]

    def bigger(self, name: str, entries: int) -> MemoryMap | None:
        """As `Programs.bigger`."""
        self.maps[name] = MemoryMap(name, 1 << entries.bit_length(), self.maps[name].content)
        return self.maps[name]


def refused(steps: str, times: int = 1) -> Callable[[str, bytes], None]:
    """A kernel that refuses the first `times` of these steps ("put delete")."""
    left = times

    def refuse(step: str, key: bytes) -> None:
        nonlocal left
        if step in steps.split() and left:
            left -= 1
            raise KernelError(f"{step} an entry", EPERM)

    return refuse
