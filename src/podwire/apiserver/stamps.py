"""What the server gives an object by the clock and by chance: times, a uid, a generated name."""

from __future__ import annotations

import random
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

from podwire.base.moments import now, written

Object = dict[str, Any]

_SUFFIX = "bcdfghjklmnpqrstvwxz2456789"


def after(seconds: int) -> str:
    """metav1.Time so many seconds from now."""
    return written(datetime.now(UTC) + timedelta(seconds=min(seconds, 10**9)))


def generated(prefix: str) -> str:
    """`prefix` with five random characters, cut to fit a DNS label."""
    return prefix[:58] + "".join(random.choices(_SUFFIX, k=5))


def fill(metadata: Object) -> None:
    """What a new object gets from the server; what only the server may set is thrown away."""
    for name in ("resourceVersion", "selfLink", "deletionTimestamp", "deletionGracePeriodSeconds"):
        metadata.pop(name, None)
    if not metadata.get("name") and metadata.get("generateName"):
        metadata["name"] = generated(metadata["generateName"])
    metadata["uid"] = str(uuid.uuid4())
    metadata["creationTimestamp"] = now()
