"""Phases and conditions, as a kubelet reports them."""

from __future__ import annotations

from typing import Any

import pytest

from podwire.sandbox.runner import status
from podwire.sandbox.runner.status import ContainerView

RUN = status.running("t")
WAIT = status.waiting("ContainerCreating")


def ended(code: int) -> dict[str, Any]:
    return status.terminated(code, 0, "r", "", "t", "t", "id")


def view(
    state: dict[str, Any], *, init: bool = False, last: dict[str, Any] | None = None, **more: Any
) -> ContainerView:
    return ContainerView("c", "i", init=init, state=state, last=last or {}, **more)


@pytest.mark.parametrize(
    ("views", "policy", "phase"),
    [
        ([view(WAIT)], "Always", "Pending"),
        ([view(RUN)], "Always", "Running"),
        ([view(RUN), view(WAIT)], "Always", "Pending"),
        ([view(RUN), view(ended(1))], "Never", "Running"),
        ([view(ended(0))], "Never", "Succeeded"),
        ([view(ended(0))], "OnFailure", "Succeeded"),
        ([view(ended(0))], "Always", "Running"),
        ([view(ended(1))], "Never", "Failed"),
        ([view(ended(1))], "OnFailure", "Running"),
        ([view(WAIT, last=ended(1))], "Always", "Running"),
        ([view(RUN, init=True), view(WAIT)], "Always", "Pending"),
        ([view(ended(1), init=True), view(WAIT)], "Never", "Failed"),
        ([view(ended(1), init=True), view(WAIT)], "Always", "Pending"),
        ([view(ended(0), init=True), view(RUN)], "Always", "Running"),
        ([view(RUN, init=True, sidecar=True, started=True), view(RUN)], "Always", "Running"),
    ],
)
def test_phases(views: list[ContainerView], policy: str, phase: str) -> None:
    assert status.phase(views, policy) == phase


def whole(
    views: list[ContainerView], old: dict[str, Any] | None = None, time: str = "now", **more: Any
) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "restart_policy": "Always",
        "addresses": ("10.0.1.4", "fd00::4"),
        "host_addresses": ("172.30.1.11",),
        "networked": True,
        "started": "then",
        "gates": [],
        "time": time,
    }
    return status.pod_status(old or {}, views, **(settings | more))


def condition(found: dict[str, Any], kind: str) -> dict[str, Any]:
    return next(one for one in found["conditions"] if one["type"] == kind)


def test_a_pod_is_ready_when_its_containers_are() -> None:
    unready = whole([view(RUN)])
    assert condition(unready, "Ready")["status"] == "False"
    assert "[c]" in condition(unready, "ContainersReady")["message"]
    ready = whole([view(RUN, ready=True)], unready, "later")
    assert condition(ready, "Ready") == {"type": "Ready", "status": "True", "lastTransitionTime": "later"}
    assert condition(ready, "Initialized")["lastTransitionTime"] == "now"
    assert ready["podIP"] == "10.0.1.4"
    assert ready["podIPs"] == [{"ip": "10.0.1.4"}, {"ip": "fd00::4"}]


def test_conditions_of_others_stay_and_gates_count() -> None:
    old = {"conditions": [{"type": "example.com/gate", "status": "False"}]}
    closed = whole([view(RUN, ready=True)], old, gates=["example.com/gate"])
    assert condition(closed, "Ready")["reason"] == "ReadinessGatesNotReady"
    old["conditions"][0]["status"] = "True"
    assert (
        condition(whole([view(RUN, ready=True)], old, gates=["example.com/gate"]), "Ready")["status"]
        == "True"
    )


def test_a_pod_that_is_done_says_so() -> None:
    done = whole([view(ended(0))], restart_policy="Never")
    assert done["phase"] == "Succeeded"
    assert condition(done, "Ready")["reason"] == "PodCompleted"
