"""How far stages are, asked of table progress."""

from __future__ import annotations

from podwire.model import identity
from podwire.state.views import ReadTables

POLICIES = "policy.compute"


def policies_know(tables: ReadTables, number: int) -> bool:
    """Whether the rows that policies have now take identity `number` into account."""
    if number <= max(identity.RESERVED_NAMES):
        return True
    progress = tables.progress.get(POLICIES)
    revision = tables.identities.revision_of(number)
    return progress is not None and 0 < revision <= progress.identities
