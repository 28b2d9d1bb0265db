"""Unmodified programs of Cilium's, and an agent in memory for them to ask."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from podwire.agent import server

ROOT = Path(__file__).resolve().parents[3]
CONTAINER = "5f2b1c9d" * 8


def program(name: str) -> Path:
    """Path of a program of Cilium's. Building it takes minutes, so it has to be asked for."""
    builder = ROOT / "tools" / "build-cilium"
    asked = subprocess.run([builder, name, "--path"], check=True, capture_output=True, text=True)
    path = Path(asked.stdout.strip())
    if not path.exists():
        pytest.skip(f"{name} is not built: run {builder.relative_to(ROOT)} {name}")
    return path


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A served node in memory (tests/unit/agent/node.py)."""
    path = ROOT / "tests" / "unit" / "agent" / "node.py"
    spec = importlib.util.spec_from_file_location("memory_node", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    served = module.MemoryNode(str(tmp_path_factory.mktemp("agent")))
    started, loop, stop = threading.Event(), asyncio.new_event_loop(), asyncio.Event()

    async def main() -> None:
        async with server.listening(served, served.config.socket):
            started.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(main()))
    thread.start()
    try:
        assert started.wait(5)
        yield served
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


Dbg = Callable[..., str]
Cni = Callable[..., tuple[int, Any]]


@pytest.fixture
def dbg(node: Any) -> Dbg:
    """Run cilium-dbg against the node; what it printed. A failure fails the test."""
    binary = program("cilium-dbg")

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [binary, "-H", f"unix://{node.config.socket}", *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            env={"PATH": os.environ["PATH"], "HOME": str(node.config.run_dir)},
            check=False,
        )
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    return run


@pytest.fixture
def namespaces() -> Iterator[tuple[str, str]]:
    """Names of two network namespaces: a node's and a pod's."""
    names = (f"pwcni-{os.getpid()}-node", f"pwcni-{os.getpid()}-pod")
    try:
        for name in names:
            subprocess.run(["ip", "netns", "add", name], check=True)
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False)


@pytest.fixture
def cni(node: Any, namespaces: tuple[str, str]) -> Cni:
    """Run cilium-cni in the node's namespace, as a container runtime does: (exit code, its result)."""
    binary = program("cilium-cni")
    inside, pod = namespaces

    def run(verb: str, previous: Any = None) -> tuple[int, Any]:
        config = {"cniVersion": "1.1.0", "name": "cilium", "type": "cilium-cni"}
        done = subprocess.run(
            ["ip", "netns", "exec", inside, binary],
            input=json.dumps(config | ({"prevResult": previous} if previous else {})),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={
                "PATH": os.environ["PATH"],
                "CILIUM_SOCK": str(node.config.socket),
                "CNI_COMMAND": verb,
                "CNI_CONTAINERID": CONTAINER,
                "CNI_NETNS": f"/run/netns/{pod}",
                "CNI_IFNAME": "eth0",
                "CNI_PATH": str(binary.parent),
                "CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAMESPACE=prod;K8S_POD_NAME=new;"
                f"K8S_POD_INFRA_CONTAINER_ID={CONTAINER};K8S_POD_UID=u7",
            },
        )
        return done.returncode, json.loads(done.stdout) if done.stdout.strip() else done.stderr

    return run
