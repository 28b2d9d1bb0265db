"""The pods of one node: each pod bound to it gets a worker, each worker that ends is forgotten."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import msgspec

from podwire.apiserver.store import Change
from podwire.base.aio import Supervised
from podwire.sandbox.cluster import Cluster
from podwire.sandbox.places import Places
from podwire.sandbox.plan import Node, Plan
from podwire.sandbox.record import Record
from podwire.sandbox.runner.place import Place, Saved
from podwire.sandbox.runner.pod import PodWorker

log = logging.getLogger(__name__)
Object = dict[str, Any]


class NodeRunner:
    """Runs the pods of `node` until cancelled; they go on running when it is."""

    def __init__(self, plan: Plan, places: Places, record: Record, cluster: Cluster, node: Node) -> None:
        self.plan, self.places, self.record, self.cluster, self.node = plan, places, record, cluster, node
        self.workers: dict[str, PodWorker] = {}  # by uid
        self._group = Supervised(f"pods of {node.name}")
        self._names: dict[tuple[str, str], PodWorker] = {}

    def worker(self, namespace: str, name: str) -> PodWorker | None:
        return self._names.get((namespace, name))

    async def run(self) -> None:
        async with self._group as group:
            self.cluster.follow("pods", self._heard)
            await self._clear_strangers()
            for pod in list(self.cluster.pods_of(self.node.name)):
                self._have(pod)
            await group.wait()

    def _heard(self, change: Change) -> None:
        body = change.stored.object
        uid = body["metadata"]["uid"]
        if body["spec"].get("nodeName") != self.node.name and uid not in self.workers:
            return
        if change.kind == "DELETED":
            if uid in self.workers:
                self.workers[uid].seen(None)
            return
        self._have(body)

    def _have(self, body: Object) -> None:
        uid = body["metadata"]["uid"]
        worker = self.workers.get(uid)
        if worker is not None:
            worker.seen(body)
            return
        if (body.get("status") or {}).get("phase") in ("Succeeded", "Failed") and not self._saved(uid):
            return
        worker = PodWorker(self.plan, self.places, self.record, self.cluster, self.node, body)
        before = self._names.get((worker.namespace, worker.name))
        self.workers[uid] = self._names[worker.namespace, worker.name] = worker
        if (saved := self._saved(uid)) is not None and before is None:
            worker.adopt(saved)
        worker.seen(body)
        self._group.once(f"pod {worker.namespace}/{worker.name} ({uid})", self._work(worker, before))

    async def _work(self, worker: PodWorker, before: PodWorker | None) -> None:
        if before is not None:
            await before.removed.wait()  # its namespaces have the same names
        try:
            await worker.work()
        except Exception:  # the supervised boundary of one pod: the others go on
            log.exception("pod %s/%s failed", worker.namespace, worker.name)
            worker.tell("Warning", "SandboxError", "the sandbox could not run this pod; see its control.log")
        worker.removed.set()
        self.workers.pop(worker.uid, None)
        if self._names.get((worker.namespace, worker.name)) is worker:
            del self._names[worker.namespace, worker.name]

    # -- after the control process was started anew

    def _saved(self, uid: str) -> Saved | None:
        try:
            return msgspec.json.decode((self.places.pods / uid / "pod.json").read_bytes(), type=Saved)
        except (OSError, msgspec.MsgspecError):
            return None

    async def _clear_strangers(self) -> None:
        """Pods that were deleted while nobody looked."""
        known = {pod["metadata"]["uid"] for pod in self.cluster.pods_of(self.node.name)}
        for directory in list(self.places.pods.iterdir()):
            saved = self._saved(directory.name)
            if saved is None or saved.node != self.node.name or saved.uid in known:
                continue
            host = saved.netns == str(self.places.netns(self.node.name))
            place = Place(self.places, self.record, saved, host_network=host)
            await asyncio.to_thread(place.remove)
