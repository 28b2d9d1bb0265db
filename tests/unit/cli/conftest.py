"""An agent in memory behind a real socket, and `podwire` run against it."""

from __future__ import annotations

import asyncio
import importlib.util
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner, Result

from podwire.agent import server
from podwire.cli import cli


@pytest.fixture(scope="session")
def memory() -> ModuleType:
    """tests/unit/agent/node.py"""
    path = Path(__file__).parents[1] / "agent" / "node.py"
    spec = importlib.util.spec_from_file_location("memory_node", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def node(memory: ModuleType, tmp_path: Path) -> Iterator[Any]:
    """A served node; `node.config.socket` is its socket."""
    served = memory.MemoryNode(str(tmp_path))
    started, loop = threading.Event(), asyncio.new_event_loop()
    stop = asyncio.Event()

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


Podwire = Callable[..., Result]


@pytest.fixture
def podwire(node: Any) -> Podwire:
    """Run a command line against `node`; what it did and printed."""

    def run(*arguments: str) -> Result:
        environment = {"PODWIRE_SOCKET": str(node.config.socket)}
        return CliRunner().invoke(cli, list(arguments), env=environment, standalone_mode=False)

    return run
