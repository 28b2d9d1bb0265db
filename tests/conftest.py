"""What all tests share: order by need, root only where marked, nothing left behind.

Tests that touch the kernel are marked ``kernel``, ``cluster`` or ``compat``; without root they are
deselected (not skipped: there is nothing to probe). Around each of them a snapshot is taken of what
this run has on the machine, and a difference fails the test that made it.
"""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from tests.patience import within

from podwire.testing import leaks, whose

# A slow machine is no fault of what is tested.
hypothesis.settings.register_profile("podwire", deadline=None)
hypothesis.settings.load_profile("podwire")

NEEDS_ROOT = ("kernel", "cluster", "compat", "kernels")
SKIPS = Path(__file__).parent / "expected-skips.txt"
ORDER = (
    "unit",
    "loopback",
    "property",
    "docs",
    "packets",
    "scenarios",
    "fuzz",
    "compat",
    "cluster",
    "kernels",
    "bench",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update", action="store_true", help="rewrite the expected blocks of golden files")


def pytest_configure(config: pytest.Config) -> None:
    whose.begin()
    if config.getoption("--update"):
        os.environ["PODWIRE_UPDATE"] = "1"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items.sort(key=_place)
    if "kernels" not in config.option.markexpr:  # minutes, and nothing else of the kind
        _leave_out(config, items, [item for item in items if item.get_closest_marker("kernels")])
    for item in items:
        limit = item.get_closest_marker("timeout")
        seconds = float(limit.args[0] if limit else config.getini("timeout"))
        item.add_marker(pytest.mark.timeout(within(seconds)), append=False)
    if os.geteuid() != 0:
        needing = [item for item in items if any(item.get_closest_marker(name) for name in NEEDS_ROOT)]
        _leave_out(config, items, needing)


def _leave_out(config: pytest.Config, items: list[pytest.Item], unwanted: list[pytest.Item]) -> None:
    if unwanted:
        config.hook.pytest_deselected(items=unwanted)
        items[:] = [item for item in items if item not in unwanted]


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
    """What this run has on the machine is the same after the test as before; see `leaks`."""
    # Guests run beside the test that waits for one of them, and leave with their own.
    watched = [name for name in NEEDS_ROOT if name != "kernels"]
    if not any(request.node.get_closest_marker(name) for name in watched):
        yield
        return
    # Fixtures of wider scope (a sandbox for a module) are set up before this one and removed
    # after it, so they are in both snapshots.
    with leaks.nothing_left():
        yield
