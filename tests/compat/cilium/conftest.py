"""The unmodified cilium-dbg, and an agent in memory for it to ask."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from podwire.agent import server

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def binary() -> Path:
    """Path of cilium-dbg. Building it takes minutes, so it is asked for: tools/build-cilium-dbg."""
    builder = ROOT / "tools" / "build-cilium-dbg"
    path = Path(
        subprocess.run([builder, "--path"], check=True, capture_output=True, text=True).stdout.strip()
    )
    if not path.exists():
        pytest.skip(f"cilium-dbg is not built: run {builder.relative_to(ROOT)}")
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


@pytest.fixture
def dbg(binary: Path, node: Any) -> Dbg:
    """Run cilium-dbg against the node; what it printed. A failure fails the test."""

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
