"""A served node in memory."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from podwire.agent import server
from podwire.client.agent import AsyncAgentClient

Serve = Callable[[Callable[[AsyncAgentClient, Any], Awaitable[None]]], None]


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def memory() -> ModuleType:
    """tests/unit/agent/node.py"""
    return load(Path(__file__).with_name("node.py"))


@pytest.fixture
def serve(memory: ModuleType, tmp_path: Path) -> Serve:
    """Run a test with a client of a served node."""

    def run(test: Callable[[AsyncAgentClient, Any], Awaitable[None]]) -> None:
        async def main() -> None:
            node = memory.MemoryNode(str(tmp_path))
            async with server.listening(node, node.config.socket):
                await test(AsyncAgentClient(node.config.socket, node="n1"), node)

        asyncio.run(main())

    return run
