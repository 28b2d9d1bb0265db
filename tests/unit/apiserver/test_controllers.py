"""Controllers, one step at a time and without a clock of their own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from podwire.apiserver.options import DeleteOptions
from podwire.apiserver.store import Change
from podwire.controllermanager import Controllers
from podwire.controllermanager.loop import Controller, Key

Object = dict[str, Any]


def workload(name: str = "web", image: str = "web:1", **spec: Any) -> Object:
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": image}]}}
    return {
        "metadata": {"name": name},
        "spec": {"selector": {"matchLabels": labels}, "template": template, **spec},
    }


def run_all(world: Any, seen: dict[str, int]) -> None:
    """Nodes take up every pod placed on them, and let go of those that end."""
    for pod in world.all("pods"):
        name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
        if pod["metadata"].get("deletionTimestamp"):
            world.objects.delete(world.kind("pods"), namespace, name, DeleteOptions(grace=0))
        elif pod["spec"].get("nodeName") and pod["status"]["phase"] == "Pending":
            seen["next"] = seen.get("next", 0) + 1
            world.run(name, f"10.1.0.{seen['next']}", namespace)
    world.settle()


def finish(world: Any, seen: dict[str, int], name: str = "web") -> list[int]:
    """Go on until the deployment is done; how many pods were available on the way."""
    available = []
    for _ in range(30):
        run_all(world, seen)
        status = world.get("deployments", name)["status"]
        available.append(status.get("availableReplicas", 0))
        wanted = world.get("deployments", name)["spec"]["replicas"]
        counts = [status.get(name, 0) for name in ("updatedReplicas", "replicas", "availableReplicas")]
        ending = any(pod["metadata"].get("deletionTimestamp") for pod in world.all("pods"))
        if counts == [wanted] * 3 and not ending:
            return available
    raise AssertionError(f"not finished: {status}")


def set_image(world: Any, image: str, name: str = "web") -> None:
    def change(body: Object) -> None:
        body["spec"]["template"]["spec"]["containers"][0]["image"] = image

    world.objects.change(world.kind("deployments"), "default", name, change)
    world.settle()


def test_a_deployment_rolls_without_a_gap(world: Any) -> None:
    for name in ("n1", "n2"):
        world.node(name)
    seen: dict[str, int] = {}
    steps = {"maxSurge": 1, "maxUnavailable": 0}
    world.create("deployments", workload(replicas=4, strategy={"rollingUpdate": steps}))
    world.settle()
    finish(world, seen)
    nodes = [pod["spec"]["nodeName"] for pod in world.all("pods")]
    assert sorted(nodes) == ["n1", "n1", "n2", "n2"]
    set_image(world, "web:2")
    assert len(world.all("pods")) == 5
    assert min(finish(world, seen)) >= 4
    assert {pod["spec"]["containers"][0]["image"] for pod in world.all("pods")} == {"web:2"}
    sets = {one["spec"]["replicas"]: one["metadata"]["annotations"] for one in world.all("replicasets")}
    revision = "deployment.kubernetes.io/revision"
    assert (sets[0][revision], sets[4][revision]) == ("1", "2")
    set_image(world, "web:1")
    finish(world, seen)
    assert len(world.all("replicasets")) == 2
    assert world.get("deployments", "web")["metadata"]["annotations"][revision] == "3"


def test_recreate_ends_all_first(world: Any) -> None:
    world.node("n1")
    seen: dict[str, int] = {}
    world.create("deployments", workload(replicas=2, strategy={"type": "Recreate"}))
    world.settle()
    finish(world, seen)
    set_image(world, "web:2")
    assert all(pod["metadata"].get("deletionTimestamp") for pod in world.all("pods"))
    finish(world, seen)
    assert {pod["spec"]["containers"][0]["image"] for pod in world.all("pods")} == {"web:2"}


def test_old_revisions_are_forgotten(world: Any) -> None:
    world.node("n1")
    seen: dict[str, int] = {}
    world.create("deployments", workload(replicas=1, revisionHistoryLimit=2))
    for number in range(5):
        set_image(world, f"web:{number}")
        finish(world, seen)
    assert len(world.all("replicasets")) == 3


def test_a_rollout_without_progress_is_said_to_have_failed(world: Any) -> None:
    world.create("deployments", workload(progressDeadlineSeconds=0))
    world.settle(1.0)
    conditions = {one["type"]: one for one in world.get("deployments", "web")["status"]["conditions"]}
    assert conditions["Progressing"]["reason"] == "ProgressDeadlineExceeded"
    assert conditions["Available"]["status"] == "False"


def test_replicas_are_replaced_and_orphans_adopted(world: Any) -> None:
    world.node("n1")
    orphan = {
        "metadata": {"name": "o", "labels": {"app": "rs"}},
        "spec": {"containers": [{"name": "c", "image": "x"}]},
    }
    world.create("pods", orphan)
    world.create("replicasets", workload("rs", replicas=2))
    world.settle()
    names = {pod["metadata"]["name"] for pod in world.all("pods")}
    assert len(names) == 2 and "o" in names
    world.objects.delete(world.kind("pods"), "default", "o", DeleteOptions(grace=0))
    world.settle()
    assert len(world.all("pods")) == 2
    assert world.get("replicasets", "rs")["status"]["replicas"] == 2


def test_a_deployment_made_again_takes_over_what_was_left(world: Any) -> None:
    world.node("n1")
    world.create("deployments", workload(replicas=2))
    world.settle()
    names = {pod["metadata"]["name"] for pod in world.all("pods")}
    world.objects.delete(world.kind("deployments"), "default", "web", DeleteOptions(propagation="Orphan"))
    world.settle()
    assert {pod["metadata"]["name"] for pod in world.all("pods")} == names
    made = world.create("deployments", workload(replicas=2))
    world.settle()
    [left] = world.all("replicasets")
    assert [owner["uid"] for owner in left["metadata"]["ownerReferences"]] == [made["metadata"]["uid"]]
    assert {pod["metadata"]["name"] for pod in world.all("pods")} == names


def test_a_daemonset_follows_nodes(world: Any) -> None:
    world.node("n1")
    world.create("daemonsets", workload("agent"))
    world.settle()
    world.node("n2")
    tainted = world.node("n3")
    tainted = world.get("nodes", "n3")
    tainted["spec"]["taints"] = [{"key": "special", "effect": "NoSchedule"}]
    world.objects.update(world.kind("nodes"), "", "n3", tainted)
    world.settle()
    run_all(world, {})
    run_all(world, {"next": 10})
    assert sorted(pod["spec"]["nodeName"] for pod in world.all("pods")) == ["n1", "n2"]
    status = world.get("daemonsets", "agent")["status"]
    assert (status["desiredNumberScheduled"], status["numberReady"]) == (2, 2)
    world.objects.delete(world.kind("nodes"), "", "n2")
    world.settle()
    assert [pod["spec"]["nodeName"] for pod in world.all("pods")] == ["n1"]


def pod(name: str, labels: dict[str, str] | None = None, **spec: Any) -> Object:
    containers = [{"name": "c", "image": "x"}]
    return {"metadata": {"name": name, "labels": labels or {}}, "spec": {"containers": containers, **spec}}


def node_of(world: Any, name: str) -> str:
    world.settle()
    return str(world.get("pods", name)["spec"].get("nodeName", ""))


def why(world: Any, name: str) -> str:
    conditions = world.get("pods", name)["status"].get("conditions") or []
    return next((one["message"] for one in conditions if one["type"] == "PodScheduled"), "")


def test_the_scheduler_chooses_and_explains(world: Any) -> None:
    world.create("pods", pod("early"))
    assert node_of(world, "early") == "" and why(world, "early") == "no nodes available to schedule pods"
    world.node("n1", zone="a")
    world.node("n2", zone="b")
    assert node_of(world, "early") == "n1"
    world.create("pods", pod("second"))
    assert node_of(world, "second") == "n2"
    world.create("pods", pod("picky", nodeSelector={"zone": "c"}))
    assert node_of(world, "picky") == ""
    assert (
        why(world, "picky") == "0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector."
    )
    assert any(one["reason"] == "FailedScheduling" for one in world.all("events"))
    world.node("n3", zone="c")
    assert node_of(world, "picky") == "n3"


def test_affinity_taints_and_spreading(world: Any) -> None:
    for name, zone in (("n1", "a"), ("n2", "a"), ("n3", "b")):
        world.node(name, zone=zone)
    term = {"labelSelector": {"matchLabels": {"app": "db"}}, "topologyKey": "zone"}
    world.create("pods", pod("db", {"app": "db"}, nodeSelector={"zone": "b"}))
    world.create(
        "pods",
        pod("near", affinity={"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}),
    )
    world.create(
        "pods",
        pod("far", affinity={"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}),
    )
    assert (node_of(world, "db"), node_of(world, "near")) == ("n3", "n3")
    assert node_of(world, "far") in ("n1", "n2")
    expression = {"key": "zone", "operator": "NotIn", "values": ["a"]}
    terms = {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}
    world.create("pods", pod("other", affinity=affinity))
    assert node_of(world, "other") == "n3"
    body = world.get("nodes", "n3")
    body["spec"]["taints"] = [{"key": "full", "value": "yes", "effect": "NoSchedule"}]
    world.objects.update(world.kind("nodes"), "", "n3", body)
    world.create("pods", pod("kept-out", nodeSelector={"zone": "b"}))
    assert node_of(world, "kept-out") == "" and "untolerated taint {full: yes}" in why(world, "kept-out")
    tolerations = [{"key": "full", "operator": "Exists"}]
    world.create("pods", pod("let-in", nodeSelector={"zone": "b"}, tolerations=tolerations))
    assert node_of(world, "let-in") == "n3"
    rule = {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}
    rule["labelSelector"] = {"matchLabels": {"app": "even"}}  # type: ignore[assignment]
    tolerant = {"tolerations": tolerations, "topologySpreadConstraints": [rule]}
    zones = []
    for number in range(4):
        world.create("pods", pod(f"even{number}", {"app": "even"}, **tolerant))
        zones.append({"n1": "a", "n2": "a", "n3": "b"}[node_of(world, f"even{number}")])
    assert sorted(zones) == ["a", "a", "b", "b"]


def owned(name: str, owner: Object, *, blocks: bool = False) -> Object:
    reference = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
    }
    return {"metadata": {"name": name, "ownerReferences": [{**reference, "blockOwnerDeletion": blocks}]}}


def test_what_is_owned_goes_with_its_owner(world: Any) -> None:
    kind = world.kind("configmaps")
    root = world.create("configmaps", {"metadata": {"name": "root"}})
    child = world.create("configmaps", owned("child", root))
    world.create("configmaps", owned("grandchild", child))
    world.settle()
    world.objects.delete(kind, "default", "root")
    world.settle()
    assert not any(world.has("configmaps", name) for name in ("root", "child", "grandchild"))
    world.create("configmaps", owned("late", root))
    world.settle()
    assert not world.has("configmaps", "late")


def test_foreground_waits_and_orphans_stay(world: Any) -> None:
    kind = world.kind("configmaps")
    root = world.create("configmaps", {"metadata": {"name": "root"}})
    held = owned("held", root, blocks=True)
    held["metadata"]["finalizers"] = ["example.com/hold"]
    world.create("configmaps", held)
    world.settle()
    world.objects.delete(kind, "default", "root", DeleteOptions(propagation="Foreground"))
    world.settle()
    assert world.has("configmaps", "root")

    def release(body: Object) -> None:
        body["metadata"]["finalizers"] = []

    world.objects.change(kind, "default", "held", release)
    world.settle()
    assert not world.has("configmaps", "root") and not world.has("configmaps", "held")
    parent = world.create("configmaps", {"metadata": {"name": "parent"}})
    world.create("configmaps", owned("stays", parent))
    world.settle()
    world.objects.delete(kind, "default", "parent", DeleteOptions(propagation="Orphan"))
    world.settle()
    assert not world.has("configmaps", "parent")
    assert not world.get("configmaps", "stays")["metadata"].get("ownerReferences")


def test_a_namespace_is_furnished_and_emptied(world: Any) -> None:
    world.create("namespaces", {"metadata": {"name": "prod"}})
    world.settle()
    assert world.get("serviceaccounts", "default", "prod")
    assert world.get("configmaps", "kube-root-ca.crt", "prod")["data"] == {"ca.crt": "authority"}
    world.create("deployments", workload(), "prod")
    world.create(
        "ciliumnetworkpolicies",
        {"metadata": {"name": "p"}, "spec": {"endpointSelector": {}, "ingress": [{}]}},
        "prod",
    )
    world.settle()
    world.objects.delete(world.kind("namespaces"), "", "prod")
    world.settle()
    assert not world.has("namespaces", "prod")
    assert [one for kind in world.store.resources() for one in world.store.list(kind, "prod")] == []


def test_what_ran_on_a_node_that_is_gone_goes(world: Any) -> None:
    world.node("n1")
    world.create("pods", pod("p"))
    assert node_of(world, "p") == "n1"
    world.objects.delete(world.kind("nodes"), "", "n1")
    world.settle()
    assert not world.has("pods", "p")


def test_a_controller_that_cannot_begin_keeps_no_other_from_it(world: Any) -> None:
    class Lost(Controller):
        name = "lost"
        watches = ("configmaps",)

        def start(self) -> Iterable[Key]:
            raise LookupError("nobody thought of this")

        def reconcile(self, key: Any) -> float | None:
            done.append((self.name, key))
            return None

        def keys(self, change: Change) -> Iterable[Key]:
            return (change.stored.name,)

    class Well(Lost):
        name = "well"

        def start(self) -> Iterable[Key]:
            return ("first",)

    done: list[tuple[str, Any]] = []
    both = Controllers(world.objects, [Lost(world.objects), Well(world.objects)])
    both.settle(0.0)
    assert done == [("well", "first")]
    world.create("configmaps", {"metadata": {"name": "c"}})
    both.settle(0.0)
    assert sorted(done) == [("lost", "c"), ("well", "c"), ("well", "first")]
    both.close()
