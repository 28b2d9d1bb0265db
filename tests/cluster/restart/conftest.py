"""Load on a sandbox while its agents are killed: who connects from where, and what came of it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from podwire.base.aio import eventually
from podwire.base.errors import PodwireError
from podwire.client.agent import AgentClient
from podwire.sandbox import orders, view
from podwire.testing.cluster import Cluster

HERE = Path(__file__).parent
LOAD = HERE / "load.py"
RATE = 500.0  # connections a second of each client and each stranger
Object = dict[str, Any]


def sleeper(name: str, app: str, node: str) -> Object:
    """A pod that waits to be told to connect."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": app}},
        "spec": {
            "nodeName": node,
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "wait", "image": "busybox", "command": ["sleep", "1000000"]}],
        },
    }


async def populate(lab: Cluster) -> None:
    """The server, its policy, and a client and a stranger on each node."""
    await lab.apply(
        (HERE / "pods.yaml").read_text().replace("@LOAD@", str(LOAD)),
        *(sleeper(f"{app}-{node}", app, node) for app in ("client", "stranger") for node in ("n1", "n2")),
    )


def agent(lab: Cluster, node: str) -> AgentClient:
    places, _ = view.open_sandbox(lab.name)
    return AgentClient(places.node(node) / "podwire.sock", node=node, timeout=5)


def process(lab: Cluster, name: str) -> int:
    """The pid of ``agent n1`` or ``control``, as its keeper recorded it; 0 while it does not run."""
    places, _ = view.open_sandbox(lab.name)
    answer = orders.ask(places, {"do": "status"})
    assert answer is not None
    return next(int(child["pid"] or 0) for child in answer["children"] if child["name"] == name)


async def kill_agent(lab: Cluster, node: str, *, state: str = "maps equal to tables") -> None:
    """Kill -9 the agent of a node, and wait until its successor says `state` of the datapath."""
    name = f"agent {node}"
    old = process(lab, name)
    os.kill(old, signal.SIGKILL)

    def back() -> bool:
        if process(lab, name) in (0, old):
            return False
        try:
            answer = agent(lab, node).get("/v1/healthz")
        except PodwireError:
            return False
        components = answer["podwire"]["components"]
        return state in components["datapath"]["msg"]

    await eventually(back, timeout=30, what=f"the agent of {node} to be back", interval=0.05)


@asynccontextmanager
async def load(lab: Cluster, target: str, port: int, pods: tuple[str, ...]) -> AsyncIterator[Object]:
    """Connections from each pod to `target` during the block; after it, what became of them by pod."""
    outcomes: Object = {}
    running = {}
    for pod in pods:
        words, environment = view.pod_command(
            lab.name,
            "default",
            pod,
            None,
            [sys.executable, "-I", str(LOAD), "connect", target, str(port), str(RATE)],
        )
        running[pod] = await asyncio.create_subprocess_exec(
            *words, env=environment, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
    try:
        yield outcomes
    finally:
        for pod, child in running.items():
            stdout, _ = await child.communicate(b"")
            outcomes[pod] = json.loads(stdout)
