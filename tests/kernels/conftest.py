"""All guests are started with the first test that asks for one, and each test waits for its own."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import NoReturn

import pytest
from tests.kernels import guests
from tests.kernels.guests import Guest

took: dict[str, str] = {}


def lacking(reason: str) -> NoReturn:
    """Skips; where the kernels are what is asked for (PODWIRE_KERNEL_TESTS=required), that is a failure."""
    if os.environ.get("PODWIRE_KERNEL_TESTS") == "required":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def other_clang() -> bool:
    return guests.clang_19()


@pytest.fixture(scope="session")
def started(tmp_path_factory: pytest.TempPathFactory, other_clang: bool) -> dict[str, Future[Guest]]:
    try:
        took["fetching"] = f"{guests.fetch():.0f} s"
    except guests.NotFetched as error:
        lacking(f"the kernels cannot be fetched: {error}")
    if shutil.which("qemu-system-x86_64") is None:
        lacking("the kernels cannot be booted: there is no qemu")
    return guests.start_all(Path(tmp_path_factory.mktemp("kernels")), other_clang)


@pytest.fixture
def guest(started: dict[str, Future[Guest]]) -> Callable[[str], Guest]:
    """Version → what its guest left, once it has ended."""

    def ended(version: str) -> Guest:
        found = started[version].result()
        parts = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in found.phases.items())
        took[version] = f"{found.seconds:.0f} s: {parts}"
        return found

    return ended


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if took:
        terminalreporter.section("where the time went (guests run beside each other)")
        for name, text in took.items():
            terminalreporter.write_line(f"{name:>8}  {text}")
