"""A sandbox for a module, and the podwire command."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]


def podwire(*arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end."""
    command = [sys.executable, "-m", "podwire.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


@pytest.fixture
def cli() -> Run:
    return podwire


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A sandbox name no other test on this machine has."""
    return f"s{os.getpid()}-{abs(hash(request.node.nodeid)) % 10000}"
