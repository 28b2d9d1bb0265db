"""Deployments: a ReplicaSet a template, exchanged step by step; revisions for rollout undo and history."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import msgspec

from podwire.apiserver.metadata import controller_of, owner_reference
from podwire.apiserver.store import Change
from podwire.apiserver.strategies.workloads import share
from podwire.base.moments import now
from podwire.controllermanager import owned, podstate
from podwire.controllermanager.events import record
from podwire.controllermanager.loop import Controller, owned_by, place

Object = dict[str, Any]
_RESOURCE = "deployments.apps"
_SETS = "replicasets.apps"
_HASH = "pod-template-hash"
REVISION = "deployment.kubernetes.io/revision"
_OWN = ("kubectl.kubernetes.io/last-applied-configuration", REVISION)


class Deployments(Controller):
    name = "deployment-controller"
    watches = (_RESOURCE, _SETS, "pods")

    def start(self) -> Iterable[tuple[str, str]]:
        return [place(one) for one in self.objects.all(_RESOURCE)]

    def keys(self, change: Change) -> Iterable[tuple[str, str]]:
        if change.resource == _RESOURCE:
            return [place(change.stored.object)]
        if change.resource == _SETS:
            return owned_by(change, "Deployment")
        if change.kind != "DELETED":
            return ()
        found = []  # Recreate waits for pods to be really gone
        for namespace, name in owned_by(change, "ReplicaSet"):
            owner = self.objects.find(_SETS, namespace, name)
            controller = controller_of(owner) if owner else None
            if controller is not None:
                found.append((namespace, controller["name"]))
        return found

    def reconcile(self, key: tuple[str, str]) -> float | None:
        deployment = self.objects.find(_RESOURCE, *key)
        if deployment is None or deployment["metadata"].get("deletionTimestamp"):
            return None
        if not deployment["spec"].get("paused"):
            new = self._newest(deployment)
            old = [one for one in self._sets(deployment) if one["metadata"]["uid"] != new["metadata"]["uid"]]
            if deployment["spec"]["strategy"]["type"] == "Recreate":
                self._recreate(deployment, new, old)
            else:
                self._roll(deployment, new, old)
            self._forget(deployment, old)
        else:
            self._scale_paused(deployment)
        return self._status(key)

    def _sets(self, deployment: Object) -> list[Object]:
        return owned.claimed(self.objects, deployment, _SETS)

    # -- revisions

    def _newest(self, deployment: Object) -> Object:
        """The ReplicaSet of the present template, made if there is none; it has the highest revision."""
        sets = self._sets(deployment)
        wanted = _bare(deployment["spec"]["template"])
        found = next((one for one in sets if _bare(one["spec"]["template"]) == wanted), None)
        others = [_revision(one) for one in sets if one is not found]
        highest = max(others, default=0)
        if found is None:
            found = self._make(deployment, highest + 1)
        elif _revision(found) <= highest:
            found = self._annotate(found, highest + 1)
        revision = found["metadata"]["annotations"][REVISION]
        if (deployment["metadata"].get("annotations") or {}).get(REVISION) != revision:

            def mark(body: Object) -> None:
                annotations = body["metadata"].get("annotations") or {}
                body["metadata"]["annotations"] = {**annotations, REVISION: revision}

            self.objects.change(self.objects.kind(_RESOURCE), *place(deployment), mark)
        return found

    def _make(self, deployment: Object, revision: int) -> Object:
        meta, spec = deployment["metadata"], deployment["spec"]
        template = _copied(spec["template"])
        digest = podstate.template_hash(template)
        while self.objects.find(_SETS, meta["namespace"], f"{meta['name']}-{digest}") is not None:
            digest = podstate.template_hash({"again": digest})
        labels = {**(template["metadata"].get("labels") or {}), _HASH: digest}
        template["metadata"]["labels"] = labels
        selector = _copied(spec["selector"])
        selector["matchLabels"] = {**(selector.get("matchLabels") or {}), _HASH: digest}
        kept = {key: text for key, text in (meta.get("annotations") or {}).items() if key not in _OWN}
        body = {
            "metadata": {
                "name": f"{meta['name']}-{digest}",
                "labels": labels,
                "annotations": {**kept, REVISION: str(revision)},
                "ownerReferences": [owner_reference(deployment)],
            },
            "spec": {
                "replicas": 0,
                "minReadySeconds": spec.get("minReadySeconds", 0),
                "selector": selector,
                "template": template,
            },
        }
        return self.objects.create(self.objects.kind(_SETS), meta["namespace"], body).stored.object

    def _annotate(self, found: Object, revision: int) -> Object:
        def mark(body: Object) -> None:
            annotations = body["metadata"].get("annotations") or {}
            body["metadata"]["annotations"] = {**annotations, REVISION: str(revision)}

        return self.objects.change(self.objects.kind(_SETS), *place(found), mark).stored.object

    def _forget(self, deployment: Object, old: list[Object]) -> None:
        keep = deployment["spec"].get("revisionHistoryLimit", 10)
        idle = [one for one in old if not one["spec"].get("replicas") and not _count(one, "replicas")]
        for one in sorted(idle, key=_revision)[: max(0, len(idle) - keep)]:
            self.objects.delete(self.objects.kind(_SETS), *place(one))

    # -- steps

    def _roll(self, deployment: Object, new: Object, old: list[Object]) -> None:
        wanted = deployment["spec"].get("replicas", 1)
        surge, missing = steps(deployment)
        total = sum(one["spec"].get("replicas", 0) for one in (new, *old))
        size = new["spec"].get("replicas", 0)
        if size < wanted:
            grow = min(wanted - size, max(0, wanted + surge - total))
            new = self._scale(deployment, new, size + grow)
        elif size > wanted:
            new = self._scale(deployment, new, wanted)
        running = [one for one in old if one["spec"].get("replicas", 0)]
        if not running:
            return
        sizes = sum(one["spec"].get("replicas", 0) for one in running) + new["spec"].get("replicas", 0)
        lagging = new["spec"].get("replicas", 0) - _count(new, "availableReplicas")
        spare = sizes - (wanted - missing) - lagging
        for one in sorted(running, key=_revision):
            present = one["spec"]["replicas"]
            broken = present - _count(one, "availableReplicas")
            shrink = min(present, broken, max(spare, 0))
            if shrink:
                self._scale(deployment, one, present - shrink)
                spare -= shrink
        ready = sum(_count(one, "availableReplicas") for one in (new, *running))
        spare = ready - (wanted - missing)
        for one in sorted(self._fresh(running), key=_revision):
            present = one["spec"].get("replicas", 0)
            shrink = min(present, max(spare, 0))
            if shrink:
                self._scale(deployment, one, present - shrink)
                spare -= shrink

    def _fresh(self, sets: list[Object]) -> list[Object]:
        found = [self.objects.find(_SETS, *place(one)) for one in sets]
        return [one for one in found if one is not None]

    def _recreate(self, deployment: Object, new: Object, old: list[Object]) -> None:
        for one in old:
            if one["spec"].get("replicas", 0):
                self._scale(deployment, one, 0)
        uids = {one["metadata"]["uid"] for one in old}
        for pod in self.objects.all("pods", deployment["metadata"]["namespace"]):
            controller = controller_of(pod)
            ended = pod.get("status", {}).get("phase") in ("Succeeded", "Failed")
            if controller is not None and controller["uid"] in uids and not ended:
                return
        self._scale(deployment, new, deployment["spec"].get("replicas", 1))

    def _scale_paused(self, deployment: Object) -> None:
        sets = [one for one in self._sets(deployment) if one["spec"].get("replicas", 0)]
        if len(sets) == 1:
            self._scale(deployment, sets[0], deployment["spec"].get("replicas", 1))

    def _scale(self, deployment: Object, one: Object, replicas: int) -> Object:
        present = one["spec"].get("replicas", 0)
        if present == replicas:
            return one

        def resize(body: Object) -> None:
            body["spec"]["replicas"] = replicas

        changed = self.objects.change(self.objects.kind(_SETS), *place(one), resize).stored.object
        way = "up" if replicas > present else "down"
        message = f"Scaled {way} replica set {one['metadata']['name']} from {present} to {replicas}"
        record(self.objects, deployment, "Normal", "ScalingReplicaSet", message, self.name)
        return changed

    # -- status

    def _status(self, key: tuple[str, str]) -> float | None:
        deployment = self.objects.find(_RESOURCE, *key)
        if deployment is None:
            return None
        status, again = status_of(deployment, self._sets(deployment), now())
        if status != deployment.get("status"):
            kind = self.objects.kind(_RESOURCE)
            self.objects.change(kind, *key, lambda body: {**body, "status": status}, subresource="status")
        return again


def status_of(deployment: Object, sets: list[Object], moment: str) -> tuple[Object, float | None]:
    """The status, and seconds after which a rollout without progress has failed."""
    spec, old = deployment["spec"], deployment.get("status", {})
    wanted = spec.get("replicas", 1)
    template = _bare(spec["template"])
    new = next((one for one in sets if _bare(one["spec"]["template"]) == template), None)
    total = sum(_count(one, "replicas") for one in sets)
    available = sum(_count(one, "availableReplicas") for one in sets)
    updated = _count(new, "replicas") if new else 0
    numbers = {
        "observedGeneration": deployment["metadata"].get("generation", 1),
        "replicas": total,
        "updatedReplicas": updated,
        "readyReplicas": sum(_count(one, "readyReplicas") for one in sets),
        "availableReplicas": available,
        "unavailableReplicas": max(0, max(total, wanted) - available),
    }
    status: Object = {name: value for name, value in numbers.items() if value}
    conditions = old.get("conditions") or []
    enough = available >= wanted - steps(deployment)[1]
    conditions = podstate.set_condition(
        conditions,
        "Available",
        "True" if enough else "False",
        "MinimumReplicasAvailable" if enough else "MinimumReplicasUnavailable",
        f"Deployment {'has' if enough else 'does not have'} minimum availability.",
        moment,
        updates=True,
    )
    name = new["metadata"]["name"] if new else ""
    complete = updated == wanted == total and available == wanted
    deadline = spec.get("progressDeadlineSeconds", 600)
    progress = next((one for one in conditions if one["type"] == "Progressing"), None)
    moved = {key: value for key, value in numbers.items() if key != "observedGeneration"} != {
        key: old.get(key, 0) for key in numbers if key != "observedGeneration"
    }
    again: float | None = None
    if spec.get("paused"):
        told = ("Unknown", "DeploymentPaused", "Deployment is paused")
    elif complete:
        told = ("True", "NewReplicaSetAvailable", f'ReplicaSet "{name}" has successfully progressed.')
    else:
        waited = _seconds_since(progress["lastUpdateTime"]) if progress and not moved else 0.0
        again = deadline - waited
        if waited >= deadline:
            told = ("False", "ProgressDeadlineExceeded", f'ReplicaSet "{name}" has timed out progressing.')
            again = None
        else:
            told = ("True", "ReplicaSetUpdated", f'ReplicaSet "{name}" is progressing.')
    if moved and progress is not None and not complete:
        conditions = [{**one, "message": ""} if one is progress else one for one in conditions]
    conditions = podstate.set_condition(conditions, "Progressing", *told, moment, updates=True)
    return {**status, "conditions": conditions}, again


def steps(deployment: Object) -> tuple[int, int]:
    """(maxSurge, maxUnavailable) in pods."""
    spec = deployment["spec"]
    wanted = spec.get("replicas", 1)
    if spec["strategy"]["type"] == "Recreate":
        return 0, wanted
    rolling = spec["strategy"]["rollingUpdate"]
    surge, missing = share(rolling["maxSurge"], wanted, up=True), share(rolling["maxUnavailable"], wanted)
    return surge, max(missing, 0 if surge else 1)


def _bare(template: Object) -> Object:
    meta = dict(template.get("metadata") or {})
    labels = {key: value for key, value in (meta.get("labels") or {}).items() if key != _HASH}
    return {**template, "metadata": {**meta, "labels": labels}}


def _revision(one: Object) -> int:
    text = (one["metadata"].get("annotations") or {}).get(REVISION, "0")
    return int(text) if text.isdigit() else 0


def _count(one: Object, name: str) -> int:
    return int(one.get("status", {}).get(name, 0))


def _copied(value: Object) -> Object:
    copied: Object = msgspec.json.decode(msgspec.json.encode(value))
    return copied


def _seconds_since(time: str) -> float:
    return (datetime.now(UTC) - datetime.fromisoformat(time)).total_seconds()
