"""Nodes that say nothing, for whatever reason; and controllers that fail on one object."""

from __future__ import annotations

from typing import Any

import pytest

from podwire.controllermanager import Controller, Controllers

Object = dict[str, Any]


def pod(name: str, **spec: Any) -> Object:
    return {"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "busybox"}], **spec}}


def silent_node(world: Any) -> None:
    """A node that gave a sign of life once, with two pods: one evicted at once, one after 300 s."""
    world.node("n1")
    lease = {
        "metadata": {"name": "n1"},
        "spec": {"holderIdentity": "n1", "renewTime": "2026-01-01T00:00:00.000000Z"},
    }
    world.create("leases", lease, "kube-node-lease")
    world.create("pods", pod("p"))
    tolerations = [{"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 0}]
    world.create("pods", pod("quick", tolerations=tolerations))
    world.settle()
    for name, address in (("p", "10.1.0.1"), ("quick", "10.1.0.2")):
        world.run(name, address)


def pass_time(world: Any, seconds: float) -> None:
    """As the loop sees it pass: it looks every few seconds."""
    for _ in range(int(seconds / 5)):
        world.settle(5.0)


def ready(world: Any, plural: str, name: str) -> str:
    conditions = world.get(plural, name)["status"]["conditions"]
    return next(str(one["status"]) for one in conditions if one["type"] == "Ready")


def test_a_silent_node(world: Any) -> None:
    silent_node(world)
    pass_time(world, 40)
    assert ready(world, "nodes", "n1") == "True"
    pass_time(world, 10)
    assert ready(world, "nodes", "n1") == "Unknown"
    assert ready(world, "pods", "p") == "False"
    taints = {(one["key"], one["effect"]) for one in world.get("nodes", "n1")["spec"]["taints"]}
    assert taints == {
        ("node.kubernetes.io/unreachable", "NoSchedule"),
        ("node.kubernetes.io/unreachable", "NoExecute"),
    }
    assert world.get("pods", "quick")["metadata"].get("deletionTimestamp")
    pass_time(world, 290)
    assert not world.get("pods", "p")["metadata"].get("deletionTimestamp")
    pass_time(world, 15)
    assert world.get("pods", "p")["metadata"].get("deletionTimestamp")


@pytest.mark.parametrize("renewed", ["1999-01-01T00:00:00.000000Z", "2099-01-01T00:00:00.000000Z"])
def test_what_time_a_node_says_it_is_does_not_matter(world: Any, renewed: str) -> None:
    """A wall clock that is set, on whichever side: another lease than before is a sign of life."""
    silent_node(world)
    for number in range(12):
        world.settle(5.0)
        moment = renewed.replace("000000Z", f"{number:06}Z")
        world.objects.change(
            world.kind("leases"),
            "kube-node-lease",
            "n1",
            lambda body, moment=moment: body | {"spec": body["spec"] | {"renewTime": moment}},
        )
    assert ready(world, "nodes", "n1") == "True"


def test_time_in_which_the_controller_did_not_run_makes_nobody_silent(world: Any) -> None:
    """A stopped process, a suspended machine: hours pass between two turns of the loop."""
    silent_node(world)
    pass_time(world, 10)
    world.settle(7200.0)
    assert ready(world, "nodes", "n1") == "True"
    assert ready(world, "pods", "p") == "True"
    pass_time(world, 50)
    assert ready(world, "nodes", "n1") == "Unknown"
    world.settle(7200.0)
    assert not world.get("pods", "p")["metadata"].get("deletionTimestamp")


def test_a_controller_that_fails_on_one_object_goes_on_with_the_others(world: Any) -> None:
    seen: list[str] = []

    class Faulty(Controller):
        name = "faulty"
        watches = ("configmaps",)

        def keys(self, change: Any) -> list[str]:
            if change.stored.name == "unheard":
                raise LookupError("nobody thought of this")
            return [change.stored.name]

        def reconcile(self, key: str) -> None:
            seen.append(key)
            if key == "bad" and seen.count("bad") < 3:
                raise ZeroDivisionError("nor of this")

    controllers = Controllers(world.objects, [Faulty(world.objects)])
    for name in ("bad", "unheard", "good"):
        world.create("configmaps", {"metadata": {"name": name}})
    for moment in range(5):
        controllers.settle(float(moment))
    assert seen == ["bad", "good", "bad", "bad"]


def test_a_listener_that_fails_is_not_the_failure_of_who_writes(world: Any) -> None:
    heard: list[str] = []

    def faulty(change: Any) -> None:
        raise RuntimeError("it does not want to know")

    world.store.listeners.insert(0, faulty)
    world.store.listeners.append(lambda change: heard.append(change.stored.name))
    world.create("configmaps", {"metadata": {"name": "data"}})
    assert "data" in heard
