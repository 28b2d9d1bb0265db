"""Volumes: what is filled, what is bound where, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from podwire.sandbox.runner import spec, volumes

FACTS = spec.Facts("n1", (), ("10.0.1.4",))
VOLUMES = [
    {"name": "config", "configMap": {"name": "c", "items": [{"key": "k", "path": "deep/name"}]}},
    {"name": "empty", "emptyDir": {}},
    {"name": "me", "downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}},
    {"name": "host", "hostPath": {"path": "/no/such/place"}},
    {"name": "claim", "persistentVolumeClaim": {"claimName": "x"}},
]
POD = {"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": {"volumes": VOLUMES}}


def find(resource: str, name: str) -> dict[str, Any] | None:
    return {"data": {"k": "v"}} if (resource, name) == ("configmaps", "c") else None


def mounts(directory: Path, *wanted: dict[str, str]) -> volumes.Mounts:
    return volumes.mounts({"name": "main", "volumeMounts": list(wanted)}, POD, directory, FACTS, find)


def test_what_is_there_is_bound_over(tmp_path: Path) -> None:
    found = mounts(tmp_path, {"name": "config", "mountPath": "/mnt"}, {"name": "me", "mountPath": "/opt"})
    assert found.overlays == []
    assert [target for _, target in found.binds] == ["/mnt", "/opt"]
    assert (tmp_path / "volumes/config/deep/name").read_text() == "v"
    assert (tmp_path / "volumes/me/name").read_text() == "p"


def test_what_is_missing_is_added_by_an_overlay_of_its_parent(tmp_path: Path) -> None:
    found = mounts(
        tmp_path,
        {"name": "config", "mountPath": "/etc/podwire-x/y"},
        {"name": "config", "mountPath": "/etc/podwire-file", "subPath": "deep/name"},
        {"name": "empty", "mountPath": "/usr/podwire-x"},
    )
    assert [lower for lower, _, _ in found.overlays] == ["/etc", "/usr"]
    upper = Path(found.overlays[0][1])
    assert (upper / "podwire-x/y").is_dir()
    assert (upper / "podwire-file").is_file()
    # The pod's own files of /etc come first, above the overlay, then the volumes.
    assert [target for _, target in found.binds][:3] == ["/etc/resolv.conf", "/etc/hosts", "/etc/hostname"]


@pytest.mark.parametrize(
    ("mount", "told"),
    [
        ({"name": "empty", "mountPath": "/podwire-x"}, "mkdir -p /podwire-x"),
        ({"name": "nothing", "mountPath": "/mnt"}, "not among the pod's volumes"),
        ({"name": "host", "mountPath": "/mnt"}, "there is no place"),
        ({"name": "claim", "mountPath": "/mnt"}, "persistentVolumeClaim is not supported"),
        ({"name": "config", "mountPath": "/mnt", "subPath": "../../x"}, "leaves volume config"),
        ({"name": "config", "mountPath": "/mnt", "subPath": "none"}, "there is no none"),
        ({"name": "empty", "mountPath": "/mnt/a:b"}, "colons"),
    ],
)
def test_what_cannot_be_mounted_is_refused(tmp_path: Path, mount: dict[str, str], told: str) -> None:
    with pytest.raises(volumes.VolumeRefused, match=told):
        mounts(tmp_path, mount)
