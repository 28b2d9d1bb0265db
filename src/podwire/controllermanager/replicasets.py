"""ReplicaSets: as many pods as wanted, no more."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from podwire.apiserver.selectors import match
from podwire.apiserver.status import StatusError
from podwire.apiserver.store import Change
from podwire.base.moments import now
from podwire.controllermanager import owned, podstate
from podwire.controllermanager.events import record
from podwire.controllermanager.loop import Controller, owned_by, place

Object = dict[str, Any]
_RESOURCE = "replicasets.apps"
_BURST = 500


class ReplicaSets(Controller):
    name = "replicaset-controller"
    watches = (_RESOURCE, "pods")

    def start(self) -> Iterable[tuple[str, str]]:
        return [place(one) for one in self.objects.all(_RESOURCE)]

    def keys(self, change: Change) -> Iterable[tuple[str, str]]:
        if change.resource == _RESOURCE:
            return [place(change.stored.object)]
        owners = list(owned_by(change, "ReplicaSet"))
        if owners or change.kind == "DELETED":
            return owners
        labels = change.stored.object["metadata"].get("labels") or {}
        sets = self.objects.all(_RESOURCE, change.stored.namespace)
        return [place(one) for one in sets if match(one["spec"]["selector"], labels)]

    def reconcile(self, key: tuple[str, str]) -> float | None:
        owner = self.objects.find(_RESOURCE, *key)
        if owner is None:
            return None
        pods = owned.claimed(self.objects, owner)
        alive = [pod for pod in pods if podstate.active(pod)]
        failure: StatusError | None = None
        if not owner["metadata"].get("deletionTimestamp"):
            try:
                self._adjust(owner, alive)
            except StatusError as error:
                failure = error
                record(self.objects, owner, "Warning", "FailedCreate", f"Error creating: {error}", self.name)
        again = self._status(key, failure)
        if failure is not None:
            return 2.0
        return again

    def _adjust(self, owner: Object, alive: list[Object]) -> None:
        missing = owner["spec"].get("replicas", 1) - len(alive)
        template = owner["spec"]["template"]
        for _ in range(min(missing, _BURST)):
            pod = owned.make(self.objects, owner, template, {})
            message = f"Created pod: {pod['metadata']['name']}"
            record(self.objects, owner, "Normal", "SuccessfulCreate", message, self.name)
        if missing < 0:
            for pod in sorted(alive, key=_worth)[:-missing]:
                namespace, name = place(pod)
                self.objects.delete(self.objects.kind("pods"), namespace, name)
                record(self.objects, owner, "Normal", "SuccessfulDelete", f"Deleted pod: {name}", self.name)

    def _status(self, key: tuple[str, str], failure: StatusError | None) -> float | None:
        owner = self.objects.find(_RESOURCE, *key)
        if owner is None:
            return None
        pods = [pod for pod in owned.claimed(self.objects, owner) if podstate.active(pod)]
        seconds, moment = owner["spec"].get("minReadySeconds", 0), datetime.now(UTC)
        waits = [wait for pod in pods if (wait := podstate.available_in(pod, seconds, moment)) is not None]
        labels = owner["spec"]["template"]["metadata"].get("labels") or {}
        full = [pod for pod in pods if labels.items() <= (pod["metadata"].get("labels") or {}).items()]
        old = owner.get("status", {})
        conditions = [one for one in old.get("conditions") or [] if one["type"] != "ReplicaFailure"]
        if failure is not None:
            conditions = podstate.set_condition(
                old.get("conditions") or [], "ReplicaFailure", "True", "FailedCreate", str(failure), now()
            )
        status: Object = {
            "replicas": len(pods),
            "fullyLabeledReplicas": len(full),
            "readyReplicas": len(waits),
            "availableReplicas": sum(wait == 0 for wait in waits),
            "observedGeneration": owner["metadata"].get("generation", 1),
        }
        status = {name: value for name, value in status.items() if value or name == "replicas"}
        if conditions:
            status["conditions"] = conditions
        if status != old:
            kind = self.objects.kind(_RESOURCE)
            self.objects.change(kind, *key, lambda body: {**body, "status": status}, subresource="status")
        return min((wait for wait in waits if wait > 0), default=None)


def _worth(pod: Object) -> tuple[bool, bool, bool, str]:
    """Sorts pods: first those that are missed least."""
    placed = bool(pod["spec"].get("nodeName"))
    running = pod.get("status", {}).get("phase") == "Running"
    newest = "".join(chr(0x10FFFF - ord(one)) for one in pod["metadata"]["creationTimestamp"])
    return placed, running, podstate.ready(pod), newest
