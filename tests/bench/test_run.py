"""The benchmark measures, judges, and leaves nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

RUN = Path(__file__).with_name("run.py")


def _bench(*arguments: str) -> list[str]:
    return [sys.executable, str(RUN), *arguments]


def _holders() -> set[str]:
    """Pids of the processes that keep the benchmark's namespaces."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if b"netbench" in path.read_bytes():
                found.add(path.parent.name)
        except OSError:
            continue
    return found


@pytest.mark.kernel
def test_a_quick_run_gives_ratios() -> None:
    done = subprocess.run(
        _bench("--quick", "--only", "loopback", "-o", "json"), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    rows = {(row["name"], row["metric"]): row for row in document["rows"]}
    assert {name for name, _ in rows} == {"routed veth", "loopback"}
    assert {metric for _, metric in rows} == {"rr", "connect", "crr", "udp", "udp p99", "stream"}
    assert all(row["value"] > 0 for row in rows.values())
    assert rows["loopback", "rr"]["against"] == "routed veth"
    assert document["targets"] and document["kernel"]


@pytest.mark.kernel
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_run_leaves_nothing(number: signal.Signals) -> None:
    before = _holders()
    process = subprocess.Popen(
        _bench("--only", "bridge"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 30
    while not _holders() - before and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, number)
    assert process.wait(30) != 0
    while _holders() - before and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _holders() - before


def test_an_unknown_name_is_refused() -> None:
    done = subprocess.run(_bench("--only", "nonsense"), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "there is no such section or peer" in done.stderr
