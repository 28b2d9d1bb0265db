"""What the tests of faults share: a sandbox for a module, the command line, waiting, editing an agent."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from podwire.base.aio import eventually
from podwire.sandbox import orders, view
from podwire.testing import leaks
from podwire.testing.cluster import Cluster

Object = dict[str, Any]
Done = subprocess.CompletedProcess[str]
_numbers = count(1)


@pytest.fixture(scope="module", autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """For a module as a whole: agents of its sandbox are restarted in tests, and their objects are others."""
    with leaks.nothing_left():
        yield


def new_name() -> str:
    """A sandbox name no other test on this machine has."""
    return f"fault{os.getpid()}-{next(_numbers)}"


def podwire(*arguments: str, before: tuple[str, ...] = (), timeout: float = 120) -> Done:
    """Run the command line to its end; `before` are words in front of it (runuser, unshare)."""
    command = [*before, sys.executable, "-m", "podwire.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


def refused(done: Done, *told: str, code: int | None = None) -> None:
    """It ended with an error of one sentence (and a hint), which says all of `told`; never a traceback."""
    assert done.returncode != 0, done.stdout
    if code is not None:
        assert done.returncode == code, (done.returncode, done.stderr)
    assert "Traceback" not in done.stderr + done.stdout, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1, done.stderr
    for text in told:
        assert text in done.stderr, f"{text!r} is not in: {done.stderr}"


def wait(condition: Callable[[], object], what: str, timeout: float = 60) -> Any:
    """`condition`'s first true answer."""

    async def ask() -> object:
        return await asyncio.to_thread(condition)  # which may run a loop of its own

    return asyncio.run(eventually(ask, timeout=timeout, what=what, interval=0.1))


@contextmanager
def running(folder: Path, text: str, name: str = "") -> Iterator[Cluster]:
    """The sandbox of the lab `text` during the block."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "lab.yaml").write_text(text)
    cluster = Cluster(folder, name=name or new_name())
    with asyncio.Runner() as runner:
        runner.run(cluster.__aenter__())
        try:
            yield cluster
        finally:
            runner.run(cluster.__aexit__(None, None, None))


def process(lab: Cluster, name: str) -> int:
    """The pid of ``agent n1`` or ``control``, as its keeper recorded it; 0 while it does not run."""
    places, _ = view.open_sandbox(lab.name)
    answer = orders.ask(places, {"do": "status"})
    assert answer is not None
    return next(int(child["pid"] or 0) for child in answer["children"] if child["name"] == name)


def status(lab: Cluster, node: str = "n1") -> Object:
    """`podwire status -o json`; empty while the agent does not answer."""
    done = podwire("status", "--sandbox", lab.name, "--node", node, "-o", "json")
    return json.loads(done.stdout) if done.stdout.startswith("{") else {}


def well(lab: Cluster, node: str = "n1") -> bool:
    return bool(status(lab, node).get("cilium", {}).get("state") == "Ok")


def configure(lab: Cluster, node: str = "n1", **options: Any) -> None:
    """Change the configuration of a node's agent, and restart it; returns when it is well again."""
    path = lab.directory / "nodes" / node / "agent.json"
    config = json.loads(path.read_text()) | {key.replace("_", "-"): one for key, one in options.items()}
    path.write_text(json.dumps(config))
    old = process(lab, f"agent {node}")
    assert podwire("sandbox", "restart-agent", "--name", lab.name, node).returncode == 0
    wait(lambda: process(lab, f"agent {node}") not in (0, old) and well(lab, node), "the agent")


def pod(name: str, *, image: str = "busybox", labels: dict[str, str] | None = None, **more: Any) -> Object:
    """A pod that sleeps (or, with image web, answers on all the ports of first-light's)."""
    container: Object = {"name": "main", "image": image, **more}
    if image == "busybox":
        container.setdefault("command", ["sleep", "1000000"])
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": {"app": name, **(labels or {})}},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]},
    }


def policy(name: str, **spec: Any) -> Object:
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": name, "namespace": "default"},
        "spec": spec,
    }


def apply(lab: Cluster, *objects: Object) -> None:
    """Give the API objects without waiting for what comes of them."""
    from podwire.kube.manifests import Manifest, apply_manifests

    async def go() -> None:
        async with lab.client() as client:
            manifests = [Manifest(one, "(test)", 1) for one in objects]
            await apply_manifests(client, manifests, manager="faults")

    asyncio.run(go())


def get(lab: Cluster, version: str, kind: str, name: str, namespace: str = "default") -> Object:
    async def go() -> Object:
        async with lab.client() as client:
            return await client.get(await client.resource_of(version, kind), name, namespace)

    return asyncio.run(go())
