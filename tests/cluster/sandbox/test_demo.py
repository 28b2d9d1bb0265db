"""`podwire demo`: what it prints, and that it leaves nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest

from podwire.sandbox.places import RUN
from podwire.testing import leaks, whose

pytestmark = pytest.mark.cluster


def test_the_demo_shows_every_rule_at_work() -> None:
    command = [sys.executable, "-m", "podwire.cli", "demo"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    name = f"demo-{child.pid}"
    with whose.claimed({name}), leaks.nothing_left():
        told, _ = child.communicate()
    assert child.returncode == 0, told
    table = [
        line.split()
        for line in told.splitlines()
        if (line.startswith("  ") and "/TCP" in line) or "/UDP " in line
    ]
    assert len([row for row in table if "allowed" in row or "denied" in row]) >= 14
    assert "NOT AS EXPECTED" not in told
    assert "no flow tells" not in told
    assert "default deny (prod/backend)" in told
    for rule in ("ingress[0]", "ingress[1]", "egress[0]", "egress[1]"):
        assert f"prod/backend {rule}" in told
    assert "Policy denied DROPPED" in told
    assert "Everything is removed." in told
    assert not (RUN / name).exists()
