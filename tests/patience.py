"""How long tests wait: a number of seconds on a machine of today, times one factor for slower ones.

`PODWIRE_PATIENCE` is the factor; in an emulated machine everything takes some ten times as long.
Nothing else about a test depends on where it runs.
"""

from __future__ import annotations

import os

FACTOR = float(os.environ.get("PODWIRE_PATIENCE", "1"))


def within(seconds: float) -> float:
    """`seconds`, as long as they are here."""
    return seconds * FACTOR
