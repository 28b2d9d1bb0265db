"""Files that are whole or not there."""

from __future__ import annotations

import os
from pathlib import Path


def replace_whole(path: Path, content: bytes) -> None:
    """Make `path` hold `content`: who reads it sees the old file or the new one, never a part.

    OSError if that fails; the old file is then as it was.
    """
    beside = path.with_suffix(".tmp")
    try:
        beside.write_bytes(content)
        os.replace(beside, path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
