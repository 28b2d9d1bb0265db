"""Moments as Kubernetes writes them: RFC 3339 in UTC, to the second (metav1.Time) or to the microsecond.

Only `now` asks the clock; modules that call themselves pure are given a moment.
"""

from __future__ import annotations

from datetime import UTC, datetime


def written(moment: datetime, *, micro: bool = False) -> str:
    """A moment in UTC; `micro`: as metav1.MicroTime, which Leases have."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ" if micro else "%Y-%m-%dT%H:%M:%SZ")


def at(seconds: float) -> str:
    """So many seconds after 1970.

    >>> at(0.9)
    '1970-01-01T00:00:00Z'
    """
    return written(datetime.fromtimestamp(seconds, UTC))


def now(*, micro: bool = False) -> str:
    """This moment, by the machine's clock."""
    return written(datetime.now(UTC), micro=micro)
