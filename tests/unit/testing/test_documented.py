"""What README and the guide apply is what lies in the lab, and denies what they say."""

from __future__ import annotations

from pathlib import Path

from podwire.testing.node import ScenarioNode

ROOT = Path(__file__).parents[3]
DENY = ROOT / "labs" / "two-nodes" / "deny-all.yaml"


def test_the_guide_shows_the_file() -> None:
    assert DENY.read_text() in (ROOT / "docs/guides/testing-policies.md").read_text()
    assert "labs/two-nodes/deny-all.yaml" in (ROOT / "README.md").read_text()


def test_the_file_is_a_policy_in_force() -> None:
    node = ScenarioNode()
    node.apply(DENY.read_text())
    node.settle()
    (policy,) = node.tables.policies
    assert (policy.namespace, policy.name) == ("default", "deny-all")
    assert not policy.error


def test_pages_that_programs_name_exist() -> None:
    import re

    for path in (ROOT / "src/podwire").rglob("*.py"):
        for page in re.findall(r"docs/[a-z-]+/[a-z-]+\.md", path.read_text()):
            assert (ROOT / page).is_file(), f"{path}: {page}"
