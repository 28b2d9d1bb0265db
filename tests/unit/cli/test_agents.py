"""Which agent is meant, and what is said where there is none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from podwire.base.errors import NotFound, NotPermitted, UsageError
from podwire.cli.agents import find


@pytest.fixture
def sandboxes(tmp_path: Path) -> Path:
    for name, nodes in (("a", ["n10", "n2"]), ("b", ["n1"]), ("empty", [])):
        (tmp_path / name).mkdir()
        for node in nodes:
            (tmp_path / name / "nodes" / node).mkdir(parents=True)
    (tmp_path / ".a.lock").write_text("")
    return tmp_path


def test_the_first_node_of_the_first_sandbox(sandboxes: Path) -> None:
    agent = find(None, sandboxes=sandboxes, host=sandboxes / "none")
    assert agent.path == str(sandboxes / "a/nodes/n2/podwire.sock") and agent.node == "n2"


def test_the_default_sandbox_comes_before_the_first(sandboxes: Path) -> None:
    (sandboxes / "default" / "nodes" / "n1").mkdir(parents=True)
    assert find(None, sandboxes=sandboxes, host=sandboxes / "none").path.endswith(
        "default/nodes/n1/podwire.sock"
    )


def test_a_named_one(sandboxes: Path) -> None:
    assert find(None, "b", sandboxes=sandboxes).path.endswith("b/nodes/n1/podwire.sock")
    assert find(None, None, "n10", sandboxes=sandboxes).path.endswith("a/nodes/n10/podwire.sock")
    assert find("/x.sock").path == "/x.sock"


def test_what_is_not_there_is_named(sandboxes: Path) -> None:
    with pytest.raises(NotFound, match="no sandbox c") as caught:
        find(None, "c", sandboxes=sandboxes)
    assert caught.value.hint == "sandboxes here: a, b, empty"
    with pytest.raises(NotFound, match="no node n3"):
        find(None, "a", "n3", sandboxes=sandboxes)
    with pytest.raises(NotFound, match="has no nodes"):
        find(None, "empty", sandboxes=sandboxes)
    with pytest.raises(NotFound, match="no agent runs here"):
        find(None, sandboxes=sandboxes / "none", host=sandboxes / "none")
    with pytest.raises(UsageError, match="two agents"):
        find("/x.sock", "a")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to become somebody else")
def test_who_may_not_look_is_told_so(sandboxes: Path) -> None:
    for place in (sandboxes, *sandboxes.parents[:-2]):
        place.chmod(0o755)
    sandboxes.chmod(0o700)
    os.seteuid(65534)
    try:
        with pytest.raises(NotPermitted, match="only root"):
            find(None, sandboxes=sandboxes, host=Path("/nonexistent"))
    finally:
        os.seteuid(0)
