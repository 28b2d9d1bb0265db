"""Plans of sandboxes, on disk: what `plan` computed once, for all processes to read."""

from __future__ import annotations

from pathlib import Path

import msgspec

from podwire.base.files import replace_whole
from podwire.sandbox.plan import Plan


def save(plan: Plan, path: Path) -> None:
    """Write the plan so that a reader sees all of it or nothing."""
    replace_whole(path, msgspec.json.encode(plan))


def load(path: Path) -> Plan:
    """The plan a sandbox was made by; FileNotFoundError before it was written."""
    return msgspec.json.decode(path.read_bytes(), type=Plan)
