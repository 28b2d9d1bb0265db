"""Pods as controllers see them: which are alive, ready, available. Pure."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any

import msgspec

Object = dict[str, Any]
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"


def active(pod: Object) -> bool:
    """Neither ended nor being deleted."""
    if pod["metadata"].get("deletionTimestamp"):
        return False
    return pod.get("status", {}).get("phase") not in ("Succeeded", "Failed")


def condition(body: Object, kind: str) -> Object | None:
    """The condition of a type."""
    conditions: list[Object] = (body.get("status") or {}).get("conditions") or []
    return next((one for one in conditions if one["type"] == kind), None)


def ready(pod: Object) -> bool:
    found = condition(pod, "Ready")
    return found is not None and found["status"] == "True"


def available_in(pod: Object, seconds: int, moment: datetime) -> float | None:
    """Seconds from `moment` until a pod counts as available: 0 at once, None as long as it is not ready."""
    found = condition(pod, "Ready")
    if found is None or found["status"] != "True":
        return None
    since = found.get("lastTransitionTime")
    if not seconds or not since:
        return 0.0
    ready_for = (moment - datetime.fromisoformat(since)).total_seconds()
    # A moment that is still to come was written before the clock was set back: how long ago is not known,
    # and a rollout that waits for the clock to catch up could wait for days.
    return max(0.0, seconds - ready_for) if ready_for >= 0 else 0.0


def template_hash(template: Object) -> str:
    """Ten characters that stand for a template."""
    digest = hashlib.sha256(msgspec.json.encode(template, order="deterministic")).digest()
    return "".join(_ALPHABET[byte % len(_ALPHABET)] for byte in digest[:10])


def set_condition(
    conditions: list[Object],
    kind: str,
    status: str,
    reason: str,
    message: str,
    moment: str,
    *,
    updates: bool = False,
) -> list[Object]:
    """Conditions with this one; its transition time changes only with its status."""
    old = next((one for one in conditions if one["type"] == kind), None)
    new: Object = {"type": kind, "status": status, "reason": reason, "message": message}
    same = old is not None and old["status"] == status
    new["lastTransitionTime"] = old["lastTransitionTime"] if same and old else moment
    if updates:
        unchanged = same and old is not None and (old.get("reason"), old.get("message")) == (reason, message)
        new["lastUpdateTime"] = old["lastUpdateTime"] if unchanged and old else moment
    if old is None:
        return [*conditions, new]
    return [new if one is old else one for one in conditions]
