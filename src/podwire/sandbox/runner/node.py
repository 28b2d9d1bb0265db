"""The pods of one node: each pod bound to it gets a worker, each worker that ends is forgotten.

A pod is a boundary: one that fails, however it fails, is told in its Events and taken up again, and the
others do not notice. What the API says of a pod is compared with what it is whenever somebody else has
written it, or its node.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import msgspec

from podwire.apiserver.store import Change
from podwire.base.aio import Backoff, Supervised, boundary
from podwire.sandbox.cluster import Cluster
from podwire.sandbox.places import Places
from podwire.sandbox.plan import Node, Plan
from podwire.sandbox.record import Record
from podwire.sandbox.runner.place import Place, Saved
from podwire.sandbox.runner.pod import PodWorker

log = logging.getLogger(__name__)
Object = dict[str, Any]
RETRY = Backoff(first=0.5, most=10.0)  # between tries to go on with a pod that failed
TOGETHER = 0.05  # s in which changes are gathered before statuses are compared


class NodeRunner:
    """Runs the pods of `node` until cancelled; they go on running when it is."""

    def __init__(self, plan: Plan, places: Places, record: Record, cluster: Cluster, node: Node) -> None:
        self.plan, self.places, self.record, self.cluster, self.node = plan, places, record, cluster, node
        self.workers: dict[str, PodWorker] = {}  # by uid
        self._group = Supervised(f"pods of {node.name}")
        self._names: dict[tuple[str, str], PodWorker] = {}
        self._written: set[str] = set()  # uids of pods whose object somebody wrote
        self._told = asyncio.Event()

    def worker(self, namespace: str, name: str) -> PodWorker | None:
        return self._names.get((namespace, name))

    async def run(self) -> None:
        async with self._group as group:
            self.cluster.follow("pods", self._heard)
            self.cluster.follow("nodes", self._heard_of_node)
            await self._clear_strangers()
            for pod in list(self.cluster.pods_of(self.node.name)):
                with boundary(f"taking up pod {pod['metadata']['name']}"):
                    self._have(pod)
            group.start("compare statuses", self._compare())
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
        self._written.add(uid)
        self._told.set()

    def _heard_of_node(self, change: Change) -> None:
        """Whether a pod is ready depends on its node, too."""
        if change.stored.name == self.node.name:
            self._written.update(self.workers)
            self._told.set()

    async def _compare(self) -> None:
        """Where the API no longer says what a pod is, say it again. Not in the listener: a write in the
        middle of another's announcement would reach some listeners before it."""
        while True:
            await self._told.wait()
            await asyncio.sleep(TOGETHER)
            self._told.clear()
            written, self._written = self._written, set()
            for worker in [self.workers[uid] for uid in written if uid in self.workers]:
                with boundary(f"status of pod {worker.namespace}/{worker.name}"):
                    worker.changed()

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
        failures = 0
        while True:
            with boundary(f"pod {worker.namespace}/{worker.name}", worker.failed):
                await worker.work()
                break
            failures += 1
            await asyncio.sleep(RETRY.after(failures))
            worker.go_on()
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
            with boundary(f"removing what is left of pod {directory.name}"):
                saved = self._saved(directory.name)
                if saved is None or saved.node != self.node.name or saved.uid in known:
                    continue
                host = saved.netns == str(self.places.netns(self.node.name))
                place = Place(self.places, self.record, saved, host_network=host)
                await asyncio.to_thread(place.remove)
