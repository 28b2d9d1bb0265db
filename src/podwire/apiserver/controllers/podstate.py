"""Pods as controllers see them: which are alive, ready, available; and making them. Pure but for `make`."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

import msgspec

from podwire.apiserver.metadata import controller_of, owner_reference
from podwire.apiserver.objects import Objects
from podwire.apiserver.selectors import match

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


def available_in(pod: Object, seconds: int) -> float | None:
    """Seconds until a pod counts as available: 0 now, None as long as it is not ready."""
    found = condition(pod, "Ready")
    if found is None or found["status"] != "True":
        return None
    since = found.get("lastTransitionTime")
    if not seconds or not since:
        return 0.0
    ready_for = (datetime.now(UTC) - datetime.fromisoformat(since)).total_seconds()
    # A moment that is still to come was written before the clock was set back: how long ago is not known,
    # and a rollout that waits for the clock to catch up could wait for days.
    return max(0.0, seconds - ready_for) if ready_for >= 0 else 0.0


def claimed(objects: Objects, owner: Object, resource: str = "pods") -> list[Object]:
    """What `owner` controls. Pods (or ReplicaSets) without a controller that its selector matches are
    taken over."""
    meta, selector = owner["metadata"], owner["spec"]["selector"]
    found = []
    for one in objects.all(resource, meta["namespace"]):
        controller = controller_of(one)
        if controller is not None:
            if controller["uid"] == meta["uid"]:
                found.append(one)
            continue
        labels = one["metadata"].get("labels") or {}
        if active(one) and match(selector, labels) and not meta.get("deletionTimestamp"):
            found.append(_adopt(objects, owner, resource, one))
    return found


def _adopt(objects: Objects, owner: Object, resource: str, one: Object) -> Object:
    def take(body: Object) -> None:
        owners = [*(body["metadata"].get("ownerReferences") or []), owner_reference(owner)]
        body["metadata"]["ownerReferences"] = owners

    meta = one["metadata"]
    return objects.change(objects.kind(resource), meta["namespace"], meta["name"], take).stored.object


def make(objects: Objects, owner: Object, template: Object, labels: dict[str, str], **spec: Any) -> Object:
    """A pod of a template, controlled by `owner`; `spec` members are laid over the template's."""
    meta = template.get("metadata") or {}
    body = {
        "metadata": {
            "generateName": owner["metadata"]["name"] + "-",
            "labels": {**(meta.get("labels") or {}), **labels},
            "annotations": dict(meta.get("annotations") or {}),
            "ownerReferences": [owner_reference(owner)],
        },
        "spec": {**msgspec.json.decode(msgspec.json.encode(template["spec"])), **spec},
    }
    return objects.create(objects.kind("pods"), owner["metadata"]["namespace"], body).stored.object


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
