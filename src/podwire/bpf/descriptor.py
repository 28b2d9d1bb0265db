"""A descriptor of a kernel object, closed with its owner.

What is pinned or attached outlives its descriptor; what is not goes with the last one.
"""

from __future__ import annotations

import os
from types import TracebackType
from typing import Self

from podwire.bpf import library


class Descriptor:
    """Owns `fd`. Close it, leave its ``with`` block, or drop it."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        if self._fd < 0:
            raise ValueError(f"{type(self).__name__} is closed")
        return self._fd

    def pin(self, path: str) -> None:
        """Keep the object at `path` on a bpf filesystem when all descriptors are closed."""
        library.pin(self.fileno(), path)

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()
