"""The scheduler: each pod without a node gets the ready node that fits and has the fewest pods.

Pods of one owner are spread first. A pod that fits nowhere says why, in its condition and an event,
and is tried again when nodes change or pods go.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from podwire.apiserver import subresources
from podwire.apiserver.metadata import controller_of
from podwire.apiserver.objects import Objects
from podwire.apiserver.store import Change
from podwire.base import moments
from podwire.controllermanager import placement, podstate
from podwire.controllermanager.events import record
from podwire.controllermanager.loop import Controller, place

Object = dict[str, Any]
_NAME = "default-scheduler"
_ALL = ("", "")  # the key that stands for every pod that waits


class Scheduler(Controller):
    name = _NAME
    watches = ("pods", "nodes")

    def __init__(self, objects: Objects) -> None:
        super().__init__(objects)
        self._on: dict[str, dict[tuple[str, str], None]] = {}
        self._siblings: Counter[tuple[str, str]] = Counter()  # (node, owner's uid) → pods
        self._pending: dict[tuple[str, str], None] = {}
        self._guarded: dict[tuple[str, str], None] = {}  # pods that keep others away
        for pod in objects.all("pods"):
            self._put(pod)

    def start(self) -> Iterable[tuple[str, str]]:
        return [_ALL]

    def keys(self, change: Change) -> Iterable[tuple[str, str]]:
        if change.resource == "nodes":
            before = change.previous.object if change.previous else None
            return [_ALL] if before is None or _differs(before, change.stored.object) else ()
        if change.previous is not None:
            self._take(change.previous.object)
        if change.kind == "DELETED":
            return [_ALL] if self._pending and change.stored.object["spec"].get("nodeName") else ()
        pod = change.stored.object
        self._put(pod)
        return [place(pod)] if _waits(pod) else []

    def reconcile(self, key: tuple[str, str]) -> float | None:
        for one in list(self._pending) if key == _ALL else [key]:
            pod = self.objects.find("pods", *one)
            if pod is not None and _waits(pod):
                self._place(pod)
        return None

    def _place(self, pod: Object) -> None:
        nodes = self.objects.all("nodes")
        world = placement.World(nodes, self._pods_on, self._labels_of, self._guards())
        refusals: Counter[str] = Counter()
        fitting = []
        for node in nodes:
            why = placement.refusal(pod, node, world)
            if why is None:
                fitting.append(node["metadata"]["name"])
            else:
                refusals[why] += 1
        if fitting:
            self._bind(pod, min(fitting, key=lambda name: self._load(pod, name)))
        else:
            self._refuse(pod, len(nodes), refusals)

    def _load(self, pod: Object, node: str) -> tuple[int, int, str]:
        owner = _owner(pod)
        return self._siblings[node, owner] if owner else 0, len(self._on.get(node, ())), node

    def _bind(self, pod: Object, node: str) -> None:
        namespace, name = place(pod)
        subresources.bind(self.objects, namespace, name, {"target": {"name": node}})
        message = f"Successfully assigned {namespace}/{name} to {node}"
        record(self.objects, pod, "Normal", "Scheduled", message, _NAME)

    def _refuse(self, pod: Object, count: int, refusals: Counter[str]) -> None:
        reasons = ", ".join(f"{number} {why}" for why, number in sorted(refusals.items()))
        message = (
            f"0/{count} nodes are available: {reasons}." if count else "no nodes available to schedule pods"
        )
        old = podstate.condition(pod, "PodScheduled")
        if old is not None and old.get("message") == message:
            return

        def say(body: Object) -> None:
            status = body.setdefault("status", {})
            status["conditions"] = podstate.set_condition(
                status.get("conditions") or [],
                "PodScheduled",
                "False",
                "Unschedulable",
                message,
                moments.now(),
            )

        self.objects.change(self.objects.kind("pods"), *place(pod), say, subresource="status")
        record(self.objects, pod, "Warning", "FailedScheduling", message, _NAME)

    def _pods_on(self, node: str) -> list[Object]:
        found = [self.objects.find("pods", *key) for key in self._on.get(node, ())]
        return [pod for pod in found if pod is not None]

    def _labels_of(self, namespace: str) -> Object:
        space = self.objects.find("namespaces", "", namespace)
        return (space or {}).get("metadata", {}).get("labels") or {}

    def _put(self, pod: Object) -> None:
        if pod.get("status", {}).get("phase") not in ("Succeeded", "Failed"):
            node = pod["spec"].get("nodeName") or ""
            if not node:
                if _waits(pod):
                    self._pending[place(pod)] = None
                return
            there = self._on.setdefault(node, {})
            if place(pod) not in there:
                there[place(pod)] = None
                self._siblings[node, _owner(pod)] += 1
            if (pod["spec"].get("affinity") or {}).get("podAntiAffinity"):
                self._guarded[place(pod)] = None

    def _take(self, pod: Object) -> None:
        node = pod["spec"].get("nodeName") or ""
        self._pending.pop(place(pod), None)
        if place(pod) in self._on.get(node, ()):
            del self._on[node][place(pod)]
            self._siblings[node, _owner(pod)] -= 1
        self._guarded.pop(place(pod), None)

    def _guards(self) -> list[Object]:
        found = [self.objects.find("pods", *key) for key in self._guarded]
        return [pod for pod in found if pod is not None]


def _owner(pod: Object) -> str:
    return str((controller_of(pod) or {}).get("uid", ""))


def _waits(pod: Object) -> bool:
    spec = pod["spec"]
    mine = spec.get("schedulerName", _NAME) == _NAME and not spec.get("schedulingGates")
    return mine and not spec.get("nodeName") and podstate.active(pod)


def _differs(old: Object, new: Object) -> bool:
    """Whether a node's change may matter to pods that wait."""
    parts = [
        (
            body["metadata"].get("labels"),
            body.get("spec"),
            (podstate.condition(body, "Ready") or {}).get("status"),
        )
        for body in (old, new)
    ]
    return parts[0] != parts[1]
