"""Files that are whole or not there, and directories that one process has for itself."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def replace_whole(path: Path, content: bytes, mode: int = 0o644, *, durable: bool = True) -> None:
    """Make `path` hold `content`: who reads it sees the old file or the new one, never a part.

    Also after the machine lost its power: what is renamed is on the disk before. OSError if that fails;
    the old file is then as it was. What tells of processes and devices, which are gone then, need not be
    `durable`: the disk is waited for some milliseconds each time, and the file may be empty afterwards.
    """
    beside = path.with_name(path.name + ".tmp")
    beside.unlink(missing_ok=True)  # of a crash
    try:
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), mode)  # the umask may have taken some of it
            file.write(content)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Nobody else is in such a block for this directory meanwhile; waits for whoever is."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
