"""One agent a node: a lock on its run directory, held as long as the process lives.

Asked first of all. A second agent would take over the programs of the first one, and remove the
devices of pods that the first is just attaching: to it they belong to no endpoint.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from podwire.base.aio import eventually
from podwire.base.errors import Conflict, StorageError

NAME = "agent.lock"
PATIENCE = 5.0  # s: an agent that was told to stop may still be closing


@asynccontextmanager
async def alone(directory: Path, *, patience: float = PATIENCE) -> AsyncIterator[None]:
    """Conflict if another process has `directory` and does not let go of it within `patience` seconds."""
    path = directory / NAME
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StorageError(f"cannot open {path}: {error.strerror}") from error
    try:
        try:
            await eventually(lambda: _locked(fd), timeout=patience, what=f"the lock on {path}")
        except TimeoutError as error:
            hint = "stop it first, or choose another run-dir"
            raise Conflict(f"another agent uses {directory}", hint=hint) from error
        yield
    finally:
        os.close(fd)  # the kernel lets go of the lock, as it does for a process that was killed


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
