"""How long tests wait, and how much they try at random: one factor for machines slower than today's.

`PODWIRE_PATIENCE` is the factor; in an emulated machine everything takes some ten times as long.
Nothing else about a test depends on where it runs.
"""

from __future__ import annotations

import os

FACTOR = float(os.environ.get("PODWIRE_PATIENCE", "1"))


def within(seconds: float) -> float:
    """`seconds`, as long as they are here."""
    return seconds * FACTOR


def cases(number: int) -> int:
    """How many random cases fit into the same time here."""
    return max(1, int(number / FACTOR))
