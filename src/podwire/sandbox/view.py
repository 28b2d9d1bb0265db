"""Looking at sandboxes from outside: which there are, how to reach one, its pods and nodes."""

from __future__ import annotations

from typing import Any

import msgspec

from podwire.base.errors import Conflict, NotFound, Unreachable
from podwire.sandbox import checks, children, orders, succession
from podwire.sandbox.mounts import cgroup2
from podwire.sandbox.places import Places, check_name, names
from podwire.sandbox.plan import Plan
from podwire.sandbox.plans import load
from podwire.sandbox.runner.place import Saved


def overview() -> list[dict[str, Any]]:
    """All sandboxes, as `list` shows them: running, incomplete (coming up, or a process is missing),
    leftover (nothing of it runs)."""
    checks.root()
    return [_shown(name) for name in names()]


def _shown(name: str) -> dict[str, Any]:
    places = Places(name, cgroup2())
    shown: dict[str, Any] = {"name": name, "directory": str(places.directory), "state": "leftover"}
    shown |= {"nodes": [], "pods": 0, "ipFamily": "", "routing": "", "api": "", "processes": []}
    try:
        plan = load(places.state)
    except (OSError, msgspec.MsgspecError):
        return shown
    shown |= {
        "nodes": [node.name for node in plan.nodes],
        "ipFamily": plan.lab.ip_family,
        "routing": plan.lab.routing,
    }
    shown["pods"] = len(list(pods(places)))
    shown["api"] = succession.server_of(places.kubeconfig)
    answer = orders.ask(places, {"do": "status"})
    if answer is not None:
        shown["processes"] = answer["children"]
        whole = places.complete.exists() and all(one["pid"] for one in answer["children"])
        shown["state"] = "running" if whole else "incomplete"
    elif children.lives(places):
        shown["state"] = "incomplete"
    return shown


def open_sandbox(name: str) -> tuple[Places, Plan]:
    """Where a sandbox is and what it is; NotFound lists those there are."""
    checks.root()
    places = Places(check_name(name), cgroup2())
    try:
        return places, load(places.state)
    except (OSError, msgspec.MsgspecError) as error:
        known = ", ".join(names())
        hint = (
            f"sandboxes here: {known}; choose one with --name"
            if known
            else "bring one up: podwire sandbox up"
        )
        raise NotFound(f"there is no sandbox “{name}”", hint=hint) from error


def environment(name: str) -> dict[str, str]:
    """What `kubectl`, `hubble` and `podwire` need to talk to a sandbox."""
    places, _ = open_sandbox(name)
    return {
        "KUBECONFIG": str(places.kubeconfig),
        "HUBBLE_SERVER": f"unix://{places.hubble}",
        "PODWIRE_SANDBOX": name,
    }


def pods(places: Places) -> list[Saved]:
    """The pods that have a place."""
    found = []
    for path in sorted(places.pods.glob("*/pod.json")):
        try:
            found.append(msgspec.json.decode(path.read_bytes(), type=Saved))
        except (OSError, msgspec.MsgspecError):
            continue  # removed meanwhile
    return found


def pod_command(
    name: str, namespace: str, pod: str, container: str | None, command: list[str]
) -> tuple[list[str], dict[str, str]]:
    """(command line, environment) that runs `command` in a pod's container."""
    places, _ = open_sandbox(name)
    known = pods(places)
    saved = next((one for one in known if (one.namespace, one.name) == (namespace, pod)), None)
    if saved is None:
        there = ", ".join(f"{one.namespace}/{one.name}" for one in known) or "none"
        raise NotFound(
            f"there is no pod {pod} in namespace {namespace} of sandbox “{name}”",
            hint=f"pods that run: {there}",
        )
    running = (one for one, run in saved.runs.items() if run.process.alive)  # init containers have ended
    chosen = container or next(running, "")
    run = saved.runs.get(chosen)
    if run is None or not run.process.alive:
        raise Conflict(f"container {chosen or '(none)'} of pod {namespace}/{pod} is not running")
    words = [str(checks.init_program()), "exec", "--pid", str(run.process.pid), "--cgroup", saved.cgroup]
    return [*words, "--dir", run.directory, "--", *command], run.environment


def node_command(name: str, node: str, command: list[str]) -> list[str]:
    """The command line that runs `command` in the network of a node or a world."""
    places, plan = open_sandbox(name)
    members = [one.name for one in plan.nodes] + [one.world.name for one in plan.worlds]
    if node not in members:
        raise NotFound(f"there is no node {node} in sandbox “{name}”", hint=f"it has {', '.join(members)}")
    words = [str(checks.init_program()), "exec", "--netns", str(places.netns(node))]
    return [*words, "--cgroup", str(places.node_cgroup(node)), "--", *command]


def restart(name: str, what: str) -> None:
    """Have the keeper restart one of its processes; a sandbox that lost its keeper gets another one."""
    places, _ = open_sandbox(name)
    if children.lives(places) and children.claimed(places, children.KEEPER) is None:
        succession.revive(places)
    try:
        answer = orders.order(places, {"do": "restart", "what": what})
    except orders.Silent as error:
        known = children.claimed(places, children.KEEPER)
        raise Unreachable(
            f"sandbox “{name}” was asked to restart {what}, and its keeper does not answer yet",
            hint=f"it will do it when it goes on: is process {known.pid if known else '(gone)'} stopped?",
        ) from error
    if answer is None:
        raise Conflict(f"sandbox “{name}” does not run", hint=f"podwire sandbox down --name {name}, then up")
    if "error" in answer:
        raise NotFound(str(answer["error"]))
