"""A keeper that cannot start a process goes on keeping the others, and tries again."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from podwire.sandbox import plan, processes
from podwire.sandbox.keeper import Keeper
from podwire.sandbox.lab import Lab
from podwire.sandbox.places import Places


class Here(Places, frozen=True):
    """A sandbox's places below a directory of the test's."""

    below: Path = Path()

    @property
    def directory(self) -> Path:
        return self.below


def test_a_fork_that_is_refused_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = Here("unit", tmp_path / "cgroup", tmp_path)
    keeper = Keeper(plan.plan(Lab(nodes=1), "unit", 1), places, lambda: [], None, processes.work(), [])

    def refuse() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    with subprocess.Popen(["sleep", "600"]) as started:
        try:
            with monkeypatch.context() as patched:
                patched.setattr(os, "fork", refuse)
                keeper._add("agent n1", lambda: None)
            child = keeper.children["agent n1"]
            assert child.starts == 0
            assert child.due > time.monotonic()
            with monkeypatch.context() as patched:
                patched.setattr(os, "fork", lambda: started.pid)
                child.due = time.monotonic()
                keeper._start_due()
            assert (child.starts, child.due) == (1, 0.0)
            assert [key.data for key in keeper.selector.get_map().values()] == [child]
        finally:
            started.kill()
            keeper.selector.close()
            keeper.server.close()
            if child.pidfd >= 0:
                os.close(child.pidfd)
