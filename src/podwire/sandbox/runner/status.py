"""What is reported of a pod: container statuses, conditions, phase. Pure; times are arguments."""

from __future__ import annotations

from typing import Any

import msgspec

Object = dict[str, Any]
WAITING, RUNNING, TERMINATED = "waiting", "running", "terminated"


class ContainerView(msgspec.Struct):
    """A container as it is now. `state` and `last` are in the API's shape."""

    name: str
    image: str
    init: bool = False
    sidecar: bool = False  # an init container that goes on running
    state: Object = msgspec.field(default_factory=lambda: waiting("ContainerCreating"))
    last: Object = {}
    ready: bool = False
    started: bool = False
    restarts: int = 0
    id: str = ""

    @property
    def running(self) -> bool:
        return RUNNING in self.state

    @property
    def exit_code(self) -> int | None:
        """Of the run that ended; None while it waits or runs."""
        return self.state[TERMINATED]["exitCode"] if TERMINATED in self.state else None

    @property
    def ran(self) -> bool:
        """Whether it ever got as far as running."""
        return WAITING not in self.state or bool(self.last)

    @property
    def passed(self) -> bool:
        """Whether an init container lets the next one start."""
        return self.started if self.sidecar else self.exit_code == 0


def shown(view: ContainerView) -> Object:
    return {
        "name": view.name,
        "image": view.image,
        "imageID": "",
        "containerID": f"podwire://{view.id}" if view.id else "",
        "state": view.state,
        "lastState": view.last,
        "ready": view.ready if not view.init or view.sidecar else view.exit_code == 0,
        "started": view.started,
        "restartCount": view.restarts,
    }


def phase(views: list[ContainerView], restart_policy: str) -> str:
    """The kubelet's rules for Pending, Running, Succeeded, Failed."""
    for view in views:
        if view.init and not view.passed:
            failed = view.exit_code not in (None, 0) and restart_policy == "Never" and not view.sidecar
            return "Failed" if failed else "Pending"
    main = [view for view in views if not view.init]
    if any(not view.ran for view in main):
        return "Pending"
    if any(view.exit_code is None for view in main) or restart_policy == "Always":
        return "Running"
    if all(view.exit_code == 0 for view in main):
        return "Succeeded"
    return "Failed" if restart_policy == "Never" else "Running"


def pod_status(
    old: Object,
    views: list[ContainerView],
    *,
    restart_policy: str,
    addresses: tuple[str, ...],
    host_addresses: tuple[str, ...],
    networked: bool,
    started: str,
    gates: list[str],
    time: str,
    node_ready: bool = True,
) -> Object:
    """The whole status; `old` gives the transition times that stay. Pods of a node that is not ready are
    not ready either, as the node's controller says too."""
    now_phase = phase(views, restart_policy)
    main = [view for view in views if not view.init]
    serving = main + [view for view in views if view.sidecar]
    finished = now_phase in ("Succeeded", "Failed")
    unready = [view.name for view in serving if not view.ready]
    why_unready = ("PodCompleted", "") if finished else ("ContainersNotReady", _unready(unready))
    waiting_init = [view.name for view in views if view.init and not view.passed]
    why_init = ("ContainersNotInitialized", f"containers with incomplete status: [{' '.join(waiting_init)}]")
    known = {one["type"]: one for one in old.get("conditions") or []}
    ungated = [gate for gate in gates if (known.get(gate) or {}).get("status") != "True"]
    all_ready = not unready and not finished
    why = _why(why_unready, all_ready, ungated) if not all_ready or ungated else ("NodeNotReady", "")
    conditions = [
        _condition(known, "PodReadyToStartContainers", networked and not finished, time),
        _condition(known, "Initialized", not waiting_init, time, *why_init),
        _condition(known, "Ready", all_ready and not ungated and node_ready, time, *why),
        _condition(known, "ContainersReady", all_ready, time, *why_unready),
        known.get("PodScheduled") or _condition(known, "PodScheduled", True, time),
    ]
    ours = {one["type"] for one in conditions}
    status: Object = {
        **{key: old[key] for key in ("qosClass", "reason", "message") if key in old},
        "phase": now_phase,
        "conditions": conditions + [one for kind, one in known.items() if kind not in ours],
        "startTime": started,
        "containerStatuses": [shown(view) for view in main],
    }
    if any(view.init for view in views):
        status["initContainerStatuses"] = [shown(view) for view in views if view.init]
    if host_addresses:
        status["hostIP"] = host_addresses[0]
        status["hostIPs"] = [{"ip": address} for address in host_addresses]
    if addresses:
        status["podIP"] = addresses[0]
        status["podIPs"] = [{"ip": address} for address in addresses]
    status.setdefault("qosClass", "BestEffort")
    return status


def _unready(names: list[str]) -> str:
    return f"containers with unready status: [{' '.join(names)}]"


def _why(unready: tuple[str, str], all_ready: bool, ungated: list[str]) -> tuple[str, str]:
    if all_ready and ungated:
        return (
            "ReadinessGatesNotReady",
            f'corresponding condition of pod readiness gate "{ungated[0]}" does not exist.',
        )
    return unready


def _condition(
    known: dict[str, Object], kind: str, true: bool, time: str, reason: str = "", message: str = ""
) -> Object:
    status = "True" if true else "False"
    before = known.get(kind)
    since = before["lastTransitionTime"] if before and before.get("status") == status else time
    found: Object = {"type": kind, "status": status, "lastTransitionTime": since}
    if not true and reason:
        found |= {"reason": reason} | ({"message": message} if message else {})
    return found


def waiting(reason: str, message: str = "") -> Object:
    return {WAITING: {"reason": reason} | ({"message": message} if message else {})}


def running(since: str) -> Object:
    return {RUNNING: {"startedAt": since}}


def terminated(code: int, number: int, reason: str, message: str, began: str, ended: str, id: str) -> Object:
    found: Object = {"exitCode": code, "reason": reason, "startedAt": began, "finishedAt": ended}
    if number:
        found["signal"] = number
    if message:
        found["message"] = message
    return {TERMINATED: found | {"containerID": f"podwire://{id}"}}
