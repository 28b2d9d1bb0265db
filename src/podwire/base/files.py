"""Files that are whole or not there."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def replace_whole(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Make `path` hold `content`: who reads it sees the old file or the new one, never a part.

    Also after the machine lost its power: what is renamed is on the disk before. OSError if that fails;
    the old file is then as it was.
    """
    beside = path.with_name(path.name + ".tmp")
    try:
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        with os.fdopen(handle, "wb") as file:
            if stat.S_ISREG(os.fstat(handle).st_mode):
                os.fchmod(handle, mode)  # one that a crash left may have another, and so may the umask
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
