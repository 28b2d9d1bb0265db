"""`podwire demo`: what it prints, and that it leaves nothing."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

pytestmark = pytest.mark.cluster


def test_the_demo_shows_every_rule_at_work(cli: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = cli("demo")
    assert done.returncode == 0, done.stdout + done.stderr
    table = [
        line.split()
        for line in done.stdout.splitlines()
        if (line.startswith("  ") and "/TCP" in line) or "/UDP " in line
    ]
    assert len([row for row in table if "allowed" in row or "denied" in row]) >= 14
    assert "NOT AS EXPECTED" not in done.stdout
    assert "no flow tells" not in done.stdout
    assert "default deny (prod/backend)" in done.stdout
    for rule in ("ingress[0]", "ingress[1]", "egress[0]", "egress[1]"):
        assert f"prod/backend {rule}" in done.stdout
    assert "Policy denied DROPPED" in done.stdout
    assert "Everything is removed." in done.stdout
    assert "demo-" not in cli("sandbox", "list").stdout
