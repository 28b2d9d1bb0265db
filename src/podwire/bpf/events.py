"""Read a BPF ring buffer: the first step of the way up.

The ring is memory that kernel and agent share: the consumer's position is ours to write, the
producer's position and the data are not, and the data is mapped twice in a row, so that a record
that wraps is contiguous. `Ring.read` copies the records out as one numpy array; no Python runs per
record. Records are of one size; others are passed over and counted.
"""

from __future__ import annotations

import mmap
import os
import sys
from typing import TYPE_CHECKING, Any

import msgspec

from podwire.base.errors import KernelError
from podwire.bpf import library
from podwire.bpf.descriptor import Descriptor
from podwire.bpf.map import MapType

if TYPE_CHECKING:
    import numpy as np

PAGE = mmap.PAGESIZE


class RingStatistics(msgspec.Struct):
    """Of one reader. `waiting` and `size` are bytes now; the others count since it was opened."""

    size: int
    waiting: int = 0
    records: int = 0
    reads: int = 0
    discarded: int = 0
    foreign: int = 0


class Ring(Descriptor):
    """A ring buffer map, open for reading by one reader.

    `fileno()` polls readable while records wait: give it to `loop.add_reader` or epoll.
    """

    def __init__(self, fd: int, dtype: np.dtype[Any]) -> None:
        """Takes `fd`. `dtype` is the record's, for example `podwire.abi.dtypes.EVENT`."""
        super().__init__(fd)
        info = library.map_info(fd)
        if info.type != MapType.RINGBUF:
            raise ValueError(f"map {info.name} is not a ring buffer")
        self.dtype = dtype
        self._counts = RingStatistics(size=info.max_entries)
        try:
            self._consumer = mmap.mmap(fd, PAGE, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
            self._producer = mmap.mmap(
                fd, PAGE + 2 * info.max_entries, mmap.MAP_SHARED, mmap.PROT_READ, offset=PAGE
            )
        except OSError as error:
            self.close()
            raise KernelError(f"map ring buffer {info.name}", error.errno or 0) from error

    @classmethod
    def open(cls, path: str, dtype: np.dtype[Any]) -> Ring:
        """The ring buffer pinned at `path`."""
        return cls(library.open_pinned(path), dtype)

    @classmethod
    def of(cls, table: Descriptor, dtype: np.dtype[Any]) -> Ring:
        """The ring buffer behind `table`, on a descriptor of its own."""
        return cls(os.dup(table.fileno()), dtype)

    def read(self, most: int = 8192) -> np.ndarray[Any, Any]:
        """Up to `most` records, oldest first, and their room given back to the kernel.

        Stops at a record that a program is still writing. Empty if none waits.
        """
        import numpy as np

        out = np.empty(min(most, self.waiting() // (self.dtype.itemsize + 8) + 1), dtype=self.dtype)
        copied, passed = library.ring_read(
            self._consumer, self._producer, self._counts.size, PAGE, out, self.dtype.itemsize, len(out)
        )
        self._counts.reads += 1
        self._counts.records += copied
        self._counts.discarded += passed.discarded
        self._counts.foreign += passed.foreign
        return out[:copied]

    def waiting(self) -> int:
        """Bytes that wait to be read, headers included."""
        produced = int.from_bytes(self._producer[:8], sys.byteorder)
        return produced - int.from_bytes(self._consumer[:8], sys.byteorder)

    def statistics(self) -> RingStatistics:
        return msgspec.structs.replace(self._counts, waiting=self.waiting())

    def close(self) -> None:
        for mapped in (getattr(self, "_consumer", None), getattr(self, "_producer", None)):
            if mapped is not None:
                mapped.close()
        super().close()
