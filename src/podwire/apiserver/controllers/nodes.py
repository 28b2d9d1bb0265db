"""Nodes: ready as long as they say so. A silent one becomes Unknown, its pods not ready, then evicted."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from podwire.apiserver.controllers import placement, podstate
from podwire.apiserver.controllers.events import record
from podwire.apiserver.controllers.loop import Controller, place
from podwire.apiserver.metadata import now
from podwire.apiserver.objects import DeleteOptions
from podwire.apiserver.store import Change

Object = dict[str, Any]
_LEASES = "leases.coordination.k8s.io"
_SPACE = "kube-node-lease"
_NOT_READY = "node.kubernetes.io/not-ready"
_UNREACHABLE = "node.kubernetes.io/unreachable"
_MINE = (_NOT_READY, _UNREACHABLE)
_SILENT = "Kubelet stopped posting node status."
_LOOK = 5.0


class Nodes(Controller):
    name = "node-controller"
    watches = ("nodes",)

    def start(self) -> Iterable[str]:
        return [one["metadata"]["name"] for one in self.objects.all("nodes")]

    def keys(self, change: Change) -> Iterable[str]:
        return [change.stored.name]

    def reconcile(self, key: str) -> float | None:
        node = self.objects.find("nodes", "", key)
        if node is None:
            self._collect(key)
            return None
        silent = self._silent(node)
        if silent is not None and silent > self.objects.settings.lease_seconds:
            node = self._unknown(node)
        ready = (podstate.condition(node, "Ready") or {}).get("status", "False")
        self._taint(node, {"True": "", "False": _NOT_READY}.get(ready, _UNREACHABLE))
        if ready != "True":
            self._unready(node)
            self._evict(key)
        return _LOOK

    def _silent(self, node: Object) -> float | None:
        """Seconds since the node's last sign of life; None if it never gave one."""
        lease = self.objects.find(_LEASES, _SPACE, node["metadata"]["name"])
        signs = [((lease or {}).get("spec") or {}).get("renewTime")]
        signs.append((podstate.condition(node, "Ready") or {}).get("lastHeartbeatTime"))
        times = [datetime.fromisoformat(one) for one in signs if one]
        return (datetime.now(UTC) - max(times)).total_seconds() if times else None

    def _unknown(self, node: Object) -> Object:
        found = podstate.condition(node, "Ready")
        if found is None or found["status"] == "Unknown":
            return node

        def forget(body: Object) -> None:
            for one in body["status"]["conditions"]:
                if one["type"] == "Ready":
                    one |= {"status": "Unknown", "reason": "NodeStatusUnknown", "message": _SILENT}
                    one["lastTransitionTime"] = now()

        message = f"Node {node['metadata']['name']} status is now: NodeNotReady"
        record(self.objects, node, "Normal", "NodeNotReady", message, self.name)
        kind = self.objects.kind("nodes")
        return self.objects.change(
            kind, "", node["metadata"]["name"], forget, subresource="status"
        ).stored.object

    def _taint(self, node: Object, key: str) -> None:
        taints = node.get("spec", {}).get("taints") or []
        kept = [one for one in taints if one["key"] not in _MINE or one["key"] == key]
        for effect in ("NoSchedule", "NoExecute") if key else ():
            if not any(one["key"] == key and one["effect"] == effect for one in kept):
                kept.append({"key": key, "effect": effect, "timeAdded": now()})
        if kept == taints:
            return

        def mark(body: Object) -> None:
            spec = body.setdefault("spec", {})
            spec["taints"] = kept
            if not kept:
                del spec["taints"]

        self.objects.change(self.objects.kind("nodes"), "", node["metadata"]["name"], mark)

    def _pods(self, node: str) -> list[Object]:
        return [pod for pod in self.objects.all("pods") if pod["spec"].get("nodeName") == node]

    def _unready(self, node: Object) -> None:
        """Nobody can say that the pods of a silent node are ready."""
        for pod in self._pods(node["metadata"]["name"]):
            if podstate.ready(pod):

                def doubt(body: Object) -> None:
                    status = body["status"]
                    status["conditions"] = podstate.set_condition(
                        status["conditions"], "Ready", "False", "NodeNotReady", "", now()
                    )

                self.objects.change(self.objects.kind("pods"), *place(pod), doubt, subresource="status")

    def _evict(self, name: str) -> None:
        node = self.objects.find("nodes", "", name)
        taints = [
            one for one in (node or {}).get("spec", {}).get("taints") or [] if one["effect"] == "NoExecute"
        ]
        moment = datetime.now(UTC)
        for pod in self._pods(name) if taints else ():
            if pod["metadata"].get("deletionTimestamp"):
                continue
            for taint in taints:
                tolerated = placement.toleration(pod, taint)
                since = datetime.fromisoformat(taint.get("timeAdded") or now())
                limit = tolerated.get("tolerationSeconds") if tolerated else 0
                if limit is not None and (moment - since).total_seconds() >= limit:
                    message = "Marking for deletion Pod " + "/".join(place(pod))
                    record(self.objects, pod, "Normal", "TaintManagerEviction", message, self.name)
                    self.objects.delete(self.objects.kind("pods"), *place(pod))
                    break

    def _collect(self, name: str) -> None:
        """The node is gone, and with it whoever could end its pods."""
        for pod in self._pods(name):
            self.objects.delete(self.objects.kind("pods"), *place(pod), DeleteOptions(grace=0))
