"""What all tests share: order by need, root only where marked, nothing left behind.

Tests that touch the kernel are marked ``kernel``, ``cluster`` or ``compat``; without root they are
deselected (not skipped: there is nothing to probe). Around each of them a snapshot is taken of what
this run has on the machine, and a difference fails the test that made it.
"""

from __future__ import annotations

import fnmatch
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from tests.patience import within
from tests.slowcallbacks import longest_callback, slow_callbacks

from podwire.bpf import probe
from podwire.testing import leaks, whose

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
    # No test asserts a time, an example of a property neither: the machine may be busy.
    hypothesis.settings.register_profile("podwire", deadline=None)
    hypothesis.settings.load_profile("podwire")
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


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Where the time went, folder by folder: set up, run and removed."""
    took: dict[str, float] = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                folder = "/".join(report.nodeid.partition("::")[0].split("/")[:-1])
                took[folder] = took.get(folder, 0.0) + report.duration
    if len(took) > 1:
        terminalreporter.section("time by folder")
        for folder, seconds in sorted(took.items(), key=lambda one: -one[1]):
            terminalreporter.write_line(f"{seconds:7.1f} s  {folder}")


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


@pytest.fixture(scope="session")
def bpffs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A BPF file system of this run's own: the machine may have none, and need not change."""
    path = probe.bpffs(str(tmp_path_factory.mktemp("bpf")))
    yield path
    subprocess.run(["umount", path], check=True)


@pytest.fixture(scope="session", autouse=True)
def cgroup2(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Where the machine has mounted it nowhere, `probe.cgroup2` finds this run's own mount."""
    if os.geteuid() != 0 or probe.mounts("cgroup2"):
        yield
        return
    path = tmp_path_factory.mktemp("cgroup2")
    subprocess.run(["mount", "-t", "cgroup2", "none", path], check=True)
    yield
    subprocess.run(["umount", "--lazy", path], check=True)


def _folder(item: pytest.Item) -> tuple[str, ...]:
    return Path(item.path).relative_to(Path(__file__).parent).parts[:-1]


def _place(item: pytest.Item) -> int:
    folder = (*_folder(item), "")[0]
    return ORDER.index(folder) if folder in ORDER else len(ORDER)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """A test in whose loop a callback takes too long fails, unless it says why it may."""
    limit = longest_callback(_folder(item))
    if limit is None or item.get_closest_marker("holds_the_loop"):
        return (yield)
    with slow_callbacks(within(limit)) as slow:
        result = yield
    if slow:
        raise AssertionError("the event loop was held by " + "; ".join(slow))
    return result


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
