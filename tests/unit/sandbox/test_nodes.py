"""What is said of nodes and pods is compared with what the API has: others write there, too."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from podwire.apiserver import ClusterSettings, bootstrap
from podwire.apiserver.builtin import registry
from podwire.apiserver.objects import Objects
from podwire.apiserver.store import Store
from podwire.base.aio import Backoff, cancelling, eventually
from podwire.controllermanager import standard
from podwire.sandbox import control, nodes, plan
from podwire.sandbox.cluster import Cluster
from podwire.sandbox.dns import pod as dns_pod
from podwire.sandbox.lab import Lab
from podwire.sandbox.places import Places
from podwire.sandbox.record import Record
from podwire.sandbox.runner import node as runner_node
from podwire.sandbox.runner import status
from podwire.sandbox.runner.node import NodeRunner
from podwire.sandbox.runner.place import Place, Run, Saved
from podwire.sandbox.runner.pod import PodWorker
from podwire.sandbox.runner.process import process
from podwire.sandbox.runner.runtime import Runtime

Object = dict[str, Any]
PLAN = plan.plan(Lab(nodes=1), "unit", 1)
NODE = PLAN.nodes[0]


class Here(Places, frozen=True):
    """A sandbox's places below a directory of the test's."""

    below: Path = Path()

    @property
    def directory(self) -> Path:
        return self.below


@pytest.fixture
def places(tmp_path: Path) -> Here:
    made = Here("unit", tmp_path / "cgroup", tmp_path)
    for directory in (made.pods, made.node(NODE.name)):
        directory.mkdir(parents=True)
    return made


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with in_memory() as made:
        yield made


@contextmanager
def in_memory() -> Iterator[Cluster]:
    store = Store(":memory:")
    kinds = registry()
    bootstrap.follow_definitions(store, kinds)
    objects = Objects(store, kinds, ClusterSettings())
    bootstrap.bootstrap(objects, [("192.0.2.1", 6443)])
    made = Cluster(objects)
    standard(objects, b"authority").settle(0.0)
    nodes.register(made, PLAN, NODE)
    yield made
    store.close()


def condition(cluster: Cluster, resource: str, namespace: str, name: str) -> Object:
    found = cluster.find(resource, namespace, name) or {}
    return next((one for one in found["status"]["conditions"] if one["type"] == "Ready"), {})


def write(cluster: Cluster, resource: str, namespace: str, name: str, **ready: str) -> None:
    """As somebody else writes the condition Ready."""

    def edit(old: Object) -> Object:
        old["status"]["conditions"] = [
            one | ready if one["type"] == "Ready" else one for one in old["status"]["conditions"]
        ]
        return old

    cluster.edit_status(resource, namespace, name, edit)


@asynccontextmanager
async def agent(places: Places) -> AsyncIterator[None]:
    """A socket that says an agent is well."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = b'{"cilium": {"state": "Ok", "msg": ""}}'
        writer.write(b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n")
        writer.write(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        await writer.drain()
        writer.close()

    path = places.node(NODE.name) / "podwire.sock"
    async with await asyncio.start_unix_server(answer, path):
        yield


def test_a_node_that_was_declared_silent_says_that_it_is_ready(cluster: Cluster, places: Here) -> None:
    ready = asyncio.Event()

    def status_of_node() -> str:
        return str(condition(cluster, "nodes", "", NODE.name)["status"])

    async def scenario() -> None:
        async with (
            agent(places),
            cancelling("keep the node", nodes.keep(cluster, places, NODE, ready)),
        ):
            await eventually(lambda: status_of_node() == "True", timeout=5, what="the node")
            for word in ("Unknown", "False"):
                write(cluster, "nodes", "", NODE.name, status=word, reason="NodeStatusUnknown")
                await eventually(lambda: status_of_node() == "True", timeout=5, what=f"ready after {word}")
            taint = {"key": nodes.NOT_READY, "effect": "NoSchedule"}
            cluster.objects.change(
                cluster.objects.kind("nodes"),
                "",
                NODE.name,
                lambda old: old | {"spec": old["spec"] | {"taints": [taint]}},
            )
            await eventually(
                lambda: "taints" not in (cluster.find("nodes", "", NODE.name) or {})["spec"],
                timeout=5,
                what="the end of the taint",
            )

    asyncio.run(scenario())
    assert ready.is_set()


def test_a_node_that_was_ready_has_a_grace_when_its_agent_is_away(cluster: Cluster, places: Here) -> None:
    """Also in a control process that has just started, and however long that was stopped."""
    write(cluster, "nodes", "", NODE.name, status="True")

    async def scenario() -> None:
        keeping = nodes._Keeping(cluster, places, NODE, asyncio.Event())
        keeping.attention.look(0.0)  # hours ago
        await keeping.look()
        await keeping.look()

    asyncio.run(scenario())
    assert condition(cluster, "nodes", "", NODE.name)["status"] == "True"


def test_what_cannot_be_written_does_not_end_the_keeping_of_a_node(
    cluster: Cluster, places: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[str] = []

    def refuse(*_: Any, **__: Any) -> bool:
        tries.append("")
        raise LookupError("nobody thought of this")

    monkeypatch.setattr(nodes, "SLOW", 0.01)
    monkeypatch.setattr(cluster, "edit_status", refuse)

    async def scenario() -> None:
        async with (
            agent(places),
            cancelling("keep the node", nodes.keep(cluster, places, NODE, asyncio.Event())) as keeping,
        ):
            await eventually(lambda: len(tries) > 2, timeout=5, what="another try")
            assert not keeping.done()

    asyncio.run(scenario())


def running_pod(cluster: Cluster, places: Here) -> tuple[NodeRunner, PodWorker]:
    """A pod whose containers run and are ready, as its worker sees it; no process is behind it."""
    body = {
        "metadata": {"name": "p", "namespace": "default"},
        "spec": {"nodeName": NODE.name, "containers": [{"name": "c", "image": "busybox"}]},
    }
    made = cluster.objects.create(cluster.objects.kind("pods"), "default", body).stored.object
    runner = NodeRunner(PLAN, places, Record(places.record), cluster, NODE)
    worker = PodWorker(PLAN, places, runner.record, cluster, NODE, made)
    runner.workers[worker.uid] = worker
    view = worker.main[0].view
    view.state, view.ready, view.started = status.running("2026-01-01T00:00:00Z"), True, True
    return runner, worker


def test_a_pod_says_again_what_somebody_else_wrote_over(cluster: Cluster, places: Here) -> None:
    write(cluster, "nodes", "", NODE.name, status="True")
    runner, worker = running_pod(cluster, places)

    def pod_status() -> str:
        return str(condition(cluster, "pods", "default", "p").get("status"))

    async def scenario() -> None:
        cluster.follow("pods", runner._heard)
        cluster.follow("nodes", runner._heard_of_node)
        worker.changed()
        async with cancelling("compare", runner._compare()):
            assert pod_status() == "True"
            write(cluster, "pods", "default", "p", status="False", reason="NodeNotReady")
            await eventually(lambda: pod_status() == "True", timeout=5, what="the pod's own word")
            # As long as its node is not ready neither is the pod, whoever says so; then it is again.
            write(cluster, "nodes", "", NODE.name, status="Unknown")
            await eventually(lambda: pod_status() == "False", timeout=5, what="the node's word")
            write(cluster, "nodes", "", NODE.name, status="True")
            await eventually(lambda: pod_status() == "True", timeout=5, what="the pod's word again")

    asyncio.run(scenario())


def test_saying_the_same_again_writes_nothing(cluster: Cluster, places: Here) -> None:
    _, worker = running_pod(cluster, places)
    worker.changed()
    before = cluster.objects.store.revision
    worker.changed()
    worker.changed()
    assert cluster.objects.store.revision == before


def test_a_pod_whose_worker_fails_is_taken_up_again(
    cluster: Cluster, places: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is said on the object; its worker goes on, and so do the node's other pods."""
    tries: list[str] = []

    async def work(self: PodWorker) -> None:
        tries.append(self.name)
        if self.name == "bad" and tries.count("bad") < 3:
            raise LookupError("nobody thought of this")
        await self._told.wait()

    monkeypatch.setattr(PodWorker, "work", work)
    monkeypatch.setattr(runner_node, "RETRY", Backoff(first=0.01, most=0.01))

    async def scenario() -> None:
        runner = NodeRunner(PLAN, places, Record(places.record), cluster, NODE)
        async with cancelling("run pods", runner.run()) as running:
            for name in ("bad", "good"):
                spec = {"nodeName": NODE.name, "containers": [{"name": "c", "image": "busybox"}]}
                body = {"metadata": {"name": name, "namespace": "default"}, "spec": spec}
                await asyncio.sleep(0)
                cluster.objects.create(cluster.objects.kind("pods"), "default", body)
            await eventually(lambda: tries.count("bad") == 3, timeout=5, what="a third try")
            assert not running.done()

    asyncio.run(scenario())
    assert tries.count("good") == 1
    events = [one for one in cluster.all("events") if one["reason"] == "SandboxError"]
    assert [(one["involvedObject"]["name"], one["count"]) for one in events] == [("bad", 2)]


def test_a_status_that_cannot_be_written_does_not_end_the_comparing(
    cluster: Cluster, places: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner, worker = running_pod(cluster, places)
    tries: list[str] = []

    def refuse() -> None:
        tries.append("")
        raise LookupError("nobody thought of this")

    monkeypatch.setattr(worker, "changed", refuse)

    async def scenario() -> None:
        async with cancelling("compare", runner._compare()) as comparing:
            for count in (1, 2):
                runner._written.add(worker.uid)
                runner._told.set()
                await eventually(lambda count=count: len(tries) == count, timeout=5, what="a try")  # type: ignore[misc]
            assert not comparing.done()

    asyncio.run(scenario())


@pytest.mark.parametrize("part", ["_saved", "_have"])
def test_a_pod_that_nobody_can_make_sense_of_keeps_no_node_from_running(
    cluster: Cluster, places: Here, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    """At its start a node looks at what was left, and at what is there: each pod's failure is its own."""
    made = NodeRunner(PLAN, places, Record(places.record), cluster, NODE)
    for name in ("bad", "good"):
        (places.pods / name).mkdir()
        spec = {"nodeName": NODE.name, "containers": [{"name": "c", "image": "busybox"}]}
        body = {"metadata": {"name": name, "namespace": "default"}, "spec": spec}
        cluster.objects.create(cluster.objects.kind("pods"), "default", body)
    looked: list[str] = []

    def fail(one: str | Object) -> None:
        looked.append(one if isinstance(one, str) else one["metadata"]["name"])
        raise LookupError("nobody thought of this")

    monkeypatch.setattr(made, part, fail)

    async def scenario() -> None:
        async with cancelling("run pods", made.run()) as running:
            await eventually(lambda: "compare statuses" in made._group.running, timeout=5, what="the node")
            assert not running.done()

    asyncio.run(scenario())
    assert {"bad", "good"} <= set(looked)


def test_what_is_left_of_a_pod_and_cannot_be_removed_keeps_no_node_from_running(
    cluster: Cluster, places: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Place) -> None:
        raise OSError("it is busy")

    monkeypatch.setattr(Place, "remove", refuse)
    left = Saved("default", "left", "1-2-3", NODE.name, "/nowhere/netns", "/nowhere/cgroup")
    (places.pods / left.uid).mkdir()
    (places.pods / left.uid / "pod.json").write_bytes(msgspec.json.encode(left))
    (places.pods / "odd").mkdir()
    (places.pods / "odd" / "pod.json").write_bytes(b"{")

    async def scenario() -> None:
        runner = NodeRunner(PLAN, places, Record(places.record), cluster, NODE)
        async with cancelling("run pods", runner.run()):
            await eventually(lambda: "compare statuses" in runner._group.running, timeout=5, what="the node")

    asyncio.run(scenario())
    assert (places.pods / left.uid / "pod.json").exists()  # for the next control process


def test_a_hook_that_fails_does_not_keep_a_container_from_ending(cluster: Cluster, places: Here) -> None:
    _, worker = running_pod(cluster, places)
    container = worker.main[0]
    container.spec = {"name": "c", "lifecycle": {"preStop": {"exec": {"command": ["a\0b"]}}}}
    child = subprocess.Popen(["sleep", "100"])
    try:
        container.run = Run(0, process(child.pid), process(child.pid), 0.0, {}, "/")
        worker.place.saved.runs["c"] = container.run
        asyncio.run(container.stop(5.0))
        assert child.wait(10) == -signal.SIGTERM
    finally:
        child.kill()
        child.wait()
    assert [one["reason"] for one in cluster.all("events") if one["reason"] == "FailedPreStopHook"]


def test_cluster_dns_is_tried_again(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[str] = []

    def refuse(*_: Any) -> None:
        tries.append("")
        raise LookupError("nobody thought of this")

    monkeypatch.setattr(dns_pod, "ensure", refuse)
    monkeypatch.setattr(dns_pod, "AGAIN", 0.01)

    async def scenario() -> None:
        async with cancelling("cluster DNS", dns_pod.run(cluster, PLAN, Runtime())) as serving:
            await eventually(lambda: len(tries) > 2, timeout=5, what="another try")
            assert not serving.done()

    asyncio.run(scenario())


def test_a_lab_that_fails_is_told_to_who_waits_and_ends_nothing(
    cluster: Cluster, places: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise LookupError("nobody thought of this")

    monkeypatch.setattr(control.manifests, "apply_all", refuse)
    reader, writer = os.pipe()
    made = control.Control(PLAN, places, [], control.Progress(writer))
    asyncio.run(made._bring_up(cluster, {}))
    with open(reader) as told:
        message = json.loads(told.read())
    assert message["error"] == "nobody thought of this"
    assert "control.log" in message["hint"]
