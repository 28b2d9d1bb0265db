"""Ending the processes of a cgroup on kernels that have no cgroup.kill (before Linux 5.14)."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from podwire.bpf import probe
from podwire.sandbox import record

pytestmark = pytest.mark.kernel

# Waits for ever, and has a child that does.
PARENT = "import os, signal; os.fork(); signal.pause()"


@pytest.fixture
def cgroup() -> Iterator[Path]:
    made = Path(probe.cgroup2(), f"podwire-doors-{os.getpid()}")
    (made / "below").mkdir(parents=True)
    yield made
    record.remove_cgroup(made)


def members(cgroup: Path) -> list[str]:
    return (cgroup / "below" / "cgroup.procs").read_text().split()


def test_members_are_killed_one_by_one_until_none_is_left(cgroup: Path) -> None:
    def enter() -> None:
        (cgroup / "below" / "cgroup.procs").write_text(str(os.getpid()))

    with subprocess.Popen([sys.executable, "-c", PARENT], preexec_fn=enter) as child:
        while len(members(cgroup)) < 2:
            assert child.poll() is None
        while "populated 1" in (cgroup / "cgroup.events").read_text():
            record.kill_each(cgroup)
        assert child.wait() == -9
    record.kill_each(cgroup)  # none left is no error
