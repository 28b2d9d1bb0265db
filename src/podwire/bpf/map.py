"""A BPF map as a typed mapping.

`Map(fd, key, value)` packs and unpacks by codecs: a struct of `podwire.abi.structs`, `U32`,
`U64`, `ADDRESS` (text to 16 bytes), `raw(size)`. Single operations, batches that fall back to
single ones where the kernel has none for the map's type, per-CPU values, whole maps as numpy
arrays. A write that finds no room raises `MapFull`; what is there stays.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from errno import E2BIG, EINVAL, ENOENT, ENOMEM, ENOSPC, EOPNOTSUPP
from itertools import islice
from typing import Any, Generic, Protocol, Self, TypeVar

from podwire.base import addresses
from podwire.base.errors import MapFull
from podwire.bpf import library
from podwire.bpf.descriptor import Descriptor

K = TypeVar("K")
V = TypeVar("V")
T = TypeVar("T")

BATCH = 4096
ENOTSUPP = 524  # the kernel's own, what batches of some map types answer
NO_BATCH = (EINVAL, EOPNOTSUPP, ENOTSUPP)
FULL = (E2BIG, ENOSPC)


class MapType(IntEnum):
    """The kernel's numbers of the map types in use here."""

    HASH = 1
    ARRAY = 2
    PERCPU_HASH = 5
    PERCPU_ARRAY = 6
    LRU_HASH = 9
    LRU_PERCPU_HASH = 10
    LPM_TRIE = 11
    RINGBUF = 27
    BLOOM_FILTER = 30


PER_CPU = (MapType.PERCPU_HASH, MapType.PERCPU_ARRAY, MapType.LRU_PERCPU_HASH)
NO_PREALLOC = 1  # BPF_F_NO_PREALLOC


class Packable(Protocol):
    """What the structs of `podwire.abi.structs` are."""

    SIZE: Any

    def pack(self) -> bytes: ...

    @classmethod
    def unpack(cls, raw: bytes) -> Any: ...


@dataclass(frozen=True, slots=True)
class Codec(Generic[T]):
    """`size` bytes in the kernel, a `T` here."""

    size: int
    pack: Callable[[T], bytes]
    unpack: Callable[[bytes], T]


def _number(size: int) -> Codec[int]:
    order: Any = sys.byteorder
    return Codec(size, lambda number: number.to_bytes(size, order), lambda raw: int.from_bytes(raw, order))


def raw(size: int) -> Codec[bytes]:
    """Bytes as they are."""
    return Codec(size, bytes, bytes)


def struct(kind: type[Packable]) -> Codec[Any]:
    return Codec(kind.SIZE, lambda value: value.pack(), kind.unpack)


U32 = _number(4)
U64 = _number(8)
ADDRESS: Codec[str] = Codec(16, addresses.pack, addresses.unpack)


def codec(kind: Codec[Any] | type[Packable]) -> Codec[Any]:
    return kind if isinstance(kind, Codec) else struct(kind)


class Map(Descriptor, Generic[K, V]):
    """One map. `name`, `capacity`, `type`, `key_size` and `value_size` are the kernel's."""

    def __init__(self, fd: int, key: Codec[K] | type[Any], value: Codec[V] | type[Any]) -> None:
        super().__init__(fd)
        self.key: Codec[K] = codec(key)
        self.value: Codec[V] = codec(value)
        info = library.map_info(fd)
        self.id = info.id
        self.name = info.name
        self.type = info.type
        self.capacity = info.max_entries
        self.flags = info.flags
        self.key_size = info.key_size
        self.value_size = info.value_size
        if info.type != MapType.RINGBUF and (info.key_size, info.value_size) != (
            self.key.size,
            self.value.size,
        ):
            raise ValueError(
                f"map {info.name} has keys of {info.key_size} and values of {info.value_size} bytes,"
                f" not {self.key.size} and {self.value.size}"
            )
        self.cpus = library.possible_cpus() if info.type in PER_CPU else 1
        # Bytes of one entry's value as the system call copies it: on per-CPU maps every CPU's, aligned.
        aligned = (info.value_size + 7) // 8 * 8 * self.cpus
        self._stride = aligned if info.type in PER_CPU else info.value_size

    @classmethod
    def create(
        cls,
        type: MapType,
        name: str,
        key: Codec[K] | type[Any],
        value: Codec[V] | type[Any],
        capacity: int,
        flags: int = 0,
    ) -> Self:
        """A new map, unpinned."""
        if type == MapType.LPM_TRIE:
            flags |= NO_PREALLOC  # the kernel insists
        fd = library.map_create(type, name, codec(key).size, codec(value).size, capacity, flags)
        return cls(fd, key, value)

    @classmethod
    def open(cls, path: str, key: Codec[K] | type[Any], value: Codec[V] | type[Any]) -> Self:
        """The map pinned at `path`; KernelError (ENOENT) if there is none."""
        return cls(library.open_pinned(path), key, value)

    def typed(self, key: Codec[Any] | type[Any], value: Codec[Any] | type[Any]) -> Map[Any, Any]:
        """The same map with other codecs, on a descriptor of its own."""
        same = Map(os.dup(self.fileno()), key, value)
        same.name = self.name
        return same

    def untyped(self) -> Map[bytes, bytes]:
        """The same map with keys and values as bytes, on a descriptor of its own."""
        return self.typed(raw(self.key_size), raw(self.value_size))

    # One entry

    def get(self, key: K) -> V | None:
        found = library.map_lookup(self.fileno(), self.key.pack(key), self._stride)
        return None if found is None else self.value.unpack(found[: self.value.size])

    def put(self, key: K, value: V, flags: int = 0) -> None:
        """Insert or replace; on a per-CPU map every CPU gets `value`."""
        self._put_raw(self.key.pack(key), self._spread(self.value.pack(value)), flags)

    def delete(self, key: K) -> bool:
        """Whether it was there."""
        return library.map_delete(self.fileno(), self.key.pack(key))

    def __getitem__(self, key: K) -> V:
        found = self.get(key)
        if found is None:
            raise KeyError(key)
        return found

    def __setitem__(self, key: K, value: V) -> None:
        self.put(key, value)

    def __delitem__(self, key: K) -> None:
        if not self.delete(key):
            raise KeyError(key)

    def __contains__(self, key: K) -> bool:
        return library.map_lookup(self.fileno(), self.key.pack(key), self._stride) is not None

    def per_cpu(self, key: K) -> list[V] | None:
        """The value of every CPU."""
        found = library.map_lookup(self.fileno(), self.key.pack(key), self._stride)
        return None if found is None else self._split(found)

    # Many entries

    def __iter__(self) -> Iterator[K]:
        return (self.key.unpack(key) for key, _ in self._raw_items())

    def __len__(self) -> int:
        """Entries now, by walking: for tests and status, not for paths that matter."""
        return sum(1 for _ in self._raw_items())

    def __bool__(self) -> bool:
        return True  # an empty map is not a missing one

    def items(self) -> Iterator[tuple[K, V]]:
        """All entries; those changed meanwhile may be missed or seen as they were."""
        size = self.value.size
        return ((self.key.unpack(key), self.value.unpack(value[:size])) for key, value in self._raw_items())

    def items_per_cpu(self) -> Iterator[tuple[K, list[V]]]:
        return ((self.key.unpack(key), self._split(value)) for key, value in self._raw_items())

    def put_many(self, entries: Iterable[tuple[K, V]]) -> int:
        """Write all, in batches where the kernel has them; how many. `MapFull` stops it."""
        packed = [(self.key.pack(key), self._spread(self.value.pack(value))) for key, value in entries]
        for start in range(0, len(packed), BATCH):
            self._put_batch(packed[start : start + BATCH])
        return len(packed)

    def delete_many(self, keys: Iterable[K]) -> int:
        """Delete those that are there; how many were."""
        packed = [self.key.pack(key) for key in keys]
        return sum(
            self._delete_batch(packed[start : start + BATCH]) for start in range(0, len(packed), BATCH)
        )

    def clear(self) -> int:
        keys = [key for key, _ in self._raw_items()]
        return sum(self._delete_batch(keys[start : start + BATCH]) for start in range(0, len(keys), BATCH))

    def snapshot(self) -> tuple[bytes, bytes]:
        """All keys and all values, each as one block of bytes."""
        batches = list(self.blocks())
        return b"".join(keys for keys, _ in batches), b"".join(values for _, values in batches)

    def blocks(self) -> Iterator[tuple[bytes, bytes]]:
        """The same block by block: who looks at a large map need not have all of it in memory."""
        room = min(BATCH, max(self.capacity, 1))
        cursor = bytearray(max(self.key_size, 8))
        first = True
        while True:
            keys, values = bytearray(room * self.key_size), bytearray(room * self._stride)
            error, count = library.map_lookup_batch(
                self.fileno(), cursor, first, keys, values, room, delete=False
            )
            if error == ENOSPC:  # one bucket of the hash holds more than that
                room *= 2
                continue
            if error in NO_BATCH and first:
                walked = self._walk()
                while some := list(islice(walked, BATCH)):
                    yield b"".join(key for key, _ in some), b"".join(value for _, value in some)
                return
            if error and error != ENOENT:
                self._fail(error, "read")
            if count:
                yield bytes(keys[: count * self.key_size]), bytes(values[: count * self._stride])
            if error == ENOENT:
                return
            first = False

    # Inside

    def _spread(self, value: bytes) -> bytes:
        if self.type not in PER_CPU:
            return value
        return value.ljust(self._stride // self.cpus, b"\0") * self.cpus

    def _split(self, found: bytes) -> list[V]:
        step = self._stride // self.cpus
        return [self.value.unpack(found[at : at + self.value.size]) for at in range(0, self._stride, step)]

    def _fail(self, error: int, action: str) -> None:
        if error in FULL or (error == ENOMEM and action == "write to"):
            raise MapFull(self.name, self.capacity)
        library.fail(f"{action} map {self.name}", error)

    def _put_raw(self, key: bytes, value: bytes, flags: int = 0) -> None:
        result = library.map_update(self.fileno(), key, value, flags)
        if result:
            self._fail(-result, "write to")

    def _put_batch(self, packed: list[tuple[bytes, bytes]]) -> None:
        done = 0
        if len(packed) > 1:
            keys, values = b"".join(key for key, _ in packed), b"".join(value for _, value in packed)
            error, done = library.map_update_batch(self.fileno(), keys, values, len(packed))
            if not error:
                return
            if error not in NO_BATCH:
                self._fail(error, "write to")
            done = 0  # a kernel without batches does not say how many: write all again
        for key, value in packed[done:]:
            self._put_raw(key, value)

    def _delete_batch(self, keys: list[bytes]) -> int:
        deleted = 0
        while len(keys) > 1:
            error, done = library.map_delete_batch(self.fileno(), b"".join(keys), len(keys))
            if not error:
                return deleted + len(keys)
            if error in NO_BATCH:
                break
            if error != ENOENT:
                self._fail(error, "delete from")
            deleted += done
            keys = keys[done + 1 :]  # the batch stopped at one that is not there
        return deleted + sum(library.map_delete(self.fileno(), key) for key in keys)

    def _raw_items(self) -> Iterator[tuple[bytes, bytes]]:
        for keys, values in self.blocks():
            for index in range(len(keys) // self.key_size):
                yield (
                    keys[index * self.key_size : (index + 1) * self.key_size],
                    values[index * self._stride : (index + 1) * self._stride],
                )

    def _walk(self) -> Iterator[tuple[bytes, bytes]]:
        """Without batches: key after key. A key deleted meanwhile begins again at the first."""
        key = library.map_next_key(self.fileno(), None, self.key_size)
        while key is not None:
            value = library.map_lookup(self.fileno(), key, self._stride)
            if value is not None:
                yield key, value
            key = library.map_next_key(self.fileno(), key, self.key_size)
