"""A lab's manifests: order, lines, and when pods count as up."""

from __future__ import annotations

from pathlib import Path

import pytest

from podwire.base.errors import ConfigError
from podwire.sandbox import manifests


def test_what_others_refer_to_comes_first(tmp_path: Path) -> None:
    kinds = ["Pod", "CiliumNetworkPolicy", "Service", "Deployment", "Namespace", "ConfigMap"]
    path = tmp_path / "all.yaml"
    path.write_text("---\n".join(f"apiVersion: v1\nkind: {kind}\nmetadata: {{name: x}}\n" for kind in kinds))
    found = manifests.ordered(manifests.read(path))
    assert [body["kind"] for body, _ in found] == [
        "Namespace",
        "ConfigMap",
        "Service",
        "CiliumNetworkPolicy",
        "Pod",
        "Deployment",
    ]
    assert [line for _, line in manifests.read(path)][:2] == [1, 5]


@pytest.mark.parametrize("text", ["a: [", "- 1", "kind: Pod", "just text"])
def test_files_that_hold_no_objects_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"x\.yaml"):
        manifests.read(path)


def test_settled_pods_and_why_others_are_not() -> None:
    assert manifests.settled({"status": {"phase": "Succeeded"}})
    assert manifests.settled({"status": {"conditions": [{"type": "Ready", "status": "True"}]}})
    assert not manifests.settled({})
    waiting = {"waiting": {"reason": "ErrImageNeverPull", "message": "no"}}
    assert (
        manifests.why({"status": {"containerStatuses": [{"state": waiting}]}}) == " (ErrImageNeverPull: no)"
    )
