"""DaemonSets: one pod on every node that fits, exchanged a few at a time; past templates are kept."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from podwire.apiserver.metadata import controller_of, owner_reference
from podwire.apiserver.store import Change
from podwire.apiserver.strategies.workloads import share
from podwire.controllermanager import owned, placement, podstate
from podwire.controllermanager.events import record
from podwire.controllermanager.loop import Controller, owned_by, place

Object = dict[str, Any]
_RESOURCE = "daemonsets.apps"
_REVISIONS = "controllerrevisions.apps"
_HASH = "controller-revision-hash"
_TOLERATED = ("not-ready", "unreachable", "disk-pressure", "memory-pressure", "pid-pressure", "unschedulable")


class DaemonSets(Controller):
    name = "daemonset-controller"
    watches = (_RESOURCE, "pods", "nodes")

    def start(self) -> Iterable[tuple[str, str]]:
        return [place(one) for one in self.objects.all(_RESOURCE)]

    def keys(self, change: Change) -> Iterable[tuple[str, str]]:
        if change.resource == _RESOURCE:
            return [place(change.stored.object)]
        if change.resource == "nodes":
            old, new = change.previous, change.stored
            same = old is not None and _seen(old.object) == _seen(new.object) and change.kind == "MODIFIED"
            return () if same else self.start()
        return owned_by(change, "DaemonSet")

    def reconcile(self, key: tuple[str, str]) -> float | None:
        owner = self.objects.find(_RESOURCE, *key)
        if owner is None:
            return None
        if not owner["metadata"].get("deletionTimestamp"):
            digest, revision = self._revision(owner)
            self._place(owner, digest)
            self._exchange(owner, digest)
            self._status(key, digest)
            self._forget(owner, revision)
        return None

    def _nodes(self, owner: Object) -> list[str]:
        template = owner["spec"]["template"]
        return [
            node["metadata"]["name"]
            for node in self.objects.all("nodes")
            if _fits(template, node) and not node["metadata"].get("deletionTimestamp")
        ]

    def _place(self, owner: Object, digest: str) -> None:
        wanted = set(self._nodes(owner))
        pods = self.objects.kind("pods")
        seen: set[str] = set()
        for pod in owned.claimed(self.objects, owner):
            node, ended = pod["spec"].get("nodeName", ""), pod.get("status", {}).get("phase") == "Failed"
            if node not in wanted or node in seen or ended:
                if not pod["metadata"].get("deletionTimestamp"):
                    self.objects.delete(pods, *place(pod))
                if ended:
                    continue
            seen.add(node)
        for node in sorted(wanted - seen):
            template = owner["spec"]["template"]
            tolerations = [*(template["spec"].get("tolerations") or []), *_tolerations()]
            pod = owned.make(
                self.objects, owner, template, {_HASH: digest}, nodeName=node, tolerations=tolerations
            )
            message = f"Created pod: {pod['metadata']['name']}"
            record(self.objects, owner, "Normal", "SuccessfulCreate", message, self.name)

    def _exchange(self, owner: Object, digest: str) -> None:
        strategy = owner["spec"]["updateStrategy"]
        if strategy["type"] != "RollingUpdate":
            return
        pods = [pod for pod in owned.claimed(self.objects, owner) if podstate.active(pod)]
        count = len(self._nodes(owner))
        most = max(1, share(strategy["rollingUpdate"].get("maxUnavailable", 1), count, up=True))
        missing = count - sum(podstate.ready(pod) for pod in pods)
        for pod in sorted(pods, key=podstate.ready):
            if (pod["metadata"].get("labels") or {}).get(_HASH) == digest:
                continue
            ready = podstate.ready(pod)
            if ready and missing >= most:
                return
            self.objects.delete(self.objects.kind("pods"), *place(pod))
            missing += ready
            message = f"Deleted pod: {pod['metadata']['name']}"
            record(self.objects, owner, "Normal", "SuccessfulDelete", message, self.name)

    def _status(self, key: tuple[str, str], digest: str) -> None:
        owner = self.objects.find(_RESOURCE, *key)
        if owner is None:
            return
        pods = [pod for pod in owned.claimed(self.objects, owner) if podstate.active(pod)]
        wanted = set(self._nodes(owner))
        on = {pod["spec"].get("nodeName", "") for pod in pods}
        ready = sum(podstate.ready(pod) for pod in pods)
        updated = sum((pod["metadata"].get("labels") or {}).get(_HASH) == digest for pod in pods)
        status: Object = {
            "currentNumberScheduled": len(on & wanted),
            "numberMisscheduled": len(on - wanted),
            "desiredNumberScheduled": len(wanted),
            "numberReady": ready,
            "observedGeneration": owner["metadata"].get("generation", 1),
            "updatedNumberScheduled": updated,
            "numberAvailable": ready,
            "numberUnavailable": max(0, len(wanted) - ready),
        }
        if status != owner.get("status"):
            kind = self.objects.kind(_RESOURCE)
            self.objects.change(kind, *key, lambda body: {**body, "status": status}, subresource="status")

    # -- revisions

    def _owned(self, owner: Object) -> list[Object]:
        uid = owner["metadata"]["uid"]
        found = self.objects.all(_REVISIONS, owner["metadata"]["namespace"])
        return [one for one in found if (controller_of(one) or {}).get("uid") == uid]

    def _revision(self, owner: Object) -> tuple[str, int]:
        """(hash, number) of the present template; a template that was there before gets a new number."""
        data = {"spec": {"template": {**owner["spec"]["template"], "$patch": "replace"}}}
        digest = podstate.template_hash(owner["spec"]["template"])
        known = self._owned(owner)
        highest = max((one["revision"] for one in known), default=0)
        found = next((one for one in known if one["metadata"]["labels"].get(_HASH) == digest), None)
        kind = self.objects.kind(_REVISIONS)
        if found is None:
            labels = {**(owner["spec"]["template"]["metadata"].get("labels") or {}), _HASH: digest}
            meta = {
                "name": f"{owner['metadata']['name']}-{digest}",
                "labels": labels,
                "ownerReferences": [owner_reference(owner)],
            }
            body = {"metadata": meta, "data": data, "revision": highest + 1}
            self.objects.create(kind, owner["metadata"]["namespace"], body)
            return digest, highest + 1
        if found["revision"] < highest:
            self.objects.change(kind, *place(found), lambda body: {**body, "revision": highest + 1})
            return digest, highest + 1
        return digest, highest

    def _forget(self, owner: Object, newest: int) -> None:
        keep = owner["spec"].get("revisionHistoryLimit", 10)
        old = sorted(
            (one for one in self._owned(owner) if one["revision"] != newest), key=lambda one: one["revision"]
        )
        for one in old[: max(0, len(old) - keep)]:
            self.objects.delete(self.objects.kind(_REVISIONS), *place(one))


def _fits(template: Object, node: Object) -> bool:
    spec = {
        **template["spec"],
        "tolerations": [*(template["spec"].get("tolerations") or []), *_tolerations()],
    }
    pod = {"spec": spec}
    return placement.selected(pod, node) and not placement.untolerated(pod, node, ("NoSchedule", "NoExecute"))


def _tolerations() -> list[Object]:
    found = []
    for name in _TOLERATED:
        effect = "NoExecute" if name in ("not-ready", "unreachable") else "NoSchedule"
        found.append({"key": f"node.kubernetes.io/{name}", "operator": "Exists", "effect": effect})
    keys = ("not-ready", "unreachable")
    found += [
        {"key": f"node.kubernetes.io/{name}", "operator": "Exists", "effect": "NoSchedule"} for name in keys
    ]
    return found


def _seen(node: Object) -> tuple[Any, ...]:
    """What of a node a DaemonSet looks at."""
    meta = node["metadata"]
    return meta.get("labels"), node.get("spec"), meta.get("deletionTimestamp")
