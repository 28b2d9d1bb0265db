"""What all tests share: order by need, root only where marked, nothing left behind.

Tests that touch the kernel are marked ``kernel``, ``cluster`` or ``compat``; without root they are
deselected (not skipped: there is nothing to probe). Around each of them a snapshot of the machine
is taken, and a difference fails the test that made it.
"""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

NEEDS_ROOT = ("kernel", "cluster", "compat")
SKIPS = Path(__file__).parent / "expected-skips.txt"
ORDER = ("unit", "loopback", "property", "docs", "packets", "scenarios", "fuzz", "compat", "cluster", "bench")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update", action="store_true", help="rewrite the expected blocks of golden files")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--update"):
        os.environ["PODWIRE_UPDATE"] = "1"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items.sort(key=_place)
    if os.geteuid() != 0:
        needing = [item for item in items if any(item.get_closest_marker(name) for name in NEEDS_ROOT)]
        if needing:
            config.hook.pytest_deselected(items=needing)
            items[:] = [item for item in items if item not in needing]


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """A skip that `expected-skips.txt` does not list is a failure: what nobody counts is not tested."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None:
        return
    listed = [
        line.partition("|")[0].strip() for line in SKIPS.read_text().splitlines() if line[:1] not in "#"
    ]
    for report in reporter.stats.get("skipped", []):
        reason = str(report.longrepr[2]).removeprefix("Skipped: ")
        if not any(fnmatch.fnmatchcase(reason, pattern) for pattern in listed):
            reporter.write_line(f"unexpected skip: {report.nodeid}: {reason}", red=True)
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
    if os.environ.get("PODWIRE_COMPAT") == "required" and _all_skipped(reporter, "tests/compat/"):
        reporter.write_line("every test of tests/compat was skipped, and some are required here", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _all_skipped(reporter: Any, folder: str) -> bool:
    """Whether tests of this folder were asked for, and none of them ran."""
    skipped, ran = (
        any(
            getattr(report, "nodeid", "").startswith(folder)
            for name in outcomes
            for report in reporter.stats.get(name, [])
        )
        for outcomes in (("skipped",), ("passed", "failed", "error"))
    )
    return skipped and not ran


def _place(item: pytest.Item) -> int:
    folder = Path(item.path).relative_to(Path(__file__).parent).parts[0]
    return ORDER.index(folder) if folder in ORDER else len(ORDER)


@pytest.fixture(autouse=True)
def nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Namespaces, links, pins, cgroups and our processes are the same after the test as before."""
    marked = any(request.node.get_closest_marker(name) for name in NEEDS_ROOT)
    # The comparison is of the whole machine: beside somebody's sandbox it has to be left out.
    if not marked or os.environ.get("PODWIRE_LEAK_CHECK") == "off":
        yield
        return
    from podwire.testing import leaks

    # Fixtures of wider scope (a sandbox for a module) are set up before this one and removed
    # after it, so they are in both snapshots.
    before = leaks.snapshot()
    yield
    left = leaks.difference(before, leaks.snapshot())
    assert not left, "the test left behind: " + "; ".join(left)
