"""Nodes: ready as long as they say so. A silent one becomes Unknown, its pods not ready, then evicted.

How long a node has been silent, and how long its pods have been tolerating that, is counted in time in
which this controller could have heard (`base.clock`): times written by others are only compared for being
others than before. So neither a clock that is set, nor a suspended machine, nor a stopped process evicts.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from podwire.apiserver.objects import Objects
from podwire.apiserver.options import DeleteOptions
from podwire.apiserver.store import Change
from podwire.base.moments import now
from podwire.controllermanager import placement, podstate
from podwire.controllermanager.events import record
from podwire.controllermanager.loop import Controller, place

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

    def __init__(self, objects: Objects) -> None:
        super().__init__(objects)
        self._heard: dict[str, tuple[tuple[str, ...], float]] = {}  # node → its last signs of life, when
        self._tainted: dict[str, dict[str, float]] = {}  # node → taint that evicts → since when

    def start(self) -> Iterable[str]:
        return [one["metadata"]["name"] for one in self.objects.all("nodes")]

    def keys(self, change: Change) -> Iterable[str]:
        return [change.stored.name]

    def reconcile(self, key: str) -> float | None:
        node = self.objects.find("nodes", "", key)
        if node is None:
            self._heard.pop(key, None)
            self._tainted.pop(key, None)
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
        else:
            self._tainted.pop(key, None)
        return _LOOK

    def _silent(self, node: Object) -> float | None:
        """Seconds since the node gave another sign of life than before; None if it never gave one."""
        name = node["metadata"]["name"]
        lease = self.objects.find(_LEASES, _SPACE, name)
        renewed = ((lease or {}).get("spec") or {}).get("renewTime") or ""
        signs = (renewed, (podstate.condition(node, "Ready") or {}).get("lastHeartbeatTime") or "")
        if not any(signs):
            return None
        if name not in self._heard or self._heard[name][0] != signs:
            self._heard[name] = signs, self.attention.seconds
        return self.attention.seconds - self._heard[name][1]

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
        before, moment = self._tainted.get(name, {}), self.attention.seconds
        since = self._tainted[name] = {one["key"]: before.get(one["key"], moment) for one in taints}
        for pod in self._pods(name) if taints else ():
            if pod["metadata"].get("deletionTimestamp"):
                continue
            for taint in taints:
                tolerated = placement.toleration(pod, taint)
                limit = tolerated.get("tolerationSeconds") if tolerated else 0
                if limit is not None and moment - since[taint["key"]] >= limit:
                    message = "Marking for deletion Pod " + "/".join(place(pod))
                    record(self.objects, pod, "Normal", "TaintManagerEviction", message, self.name)
                    self.objects.delete(self.objects.kind("pods"), *place(pod))
                    break

    def _collect(self, name: str) -> None:
        """The node is gone, and with it whoever could end its pods."""
        for pod in self._pods(name):
            self.objects.delete(self.objects.kind("pods"), *place(pod), DeleteOptions(grace=0))
