"""Volumes of a pod: emptyDir, configMap, secret, downwardAPI and hostPath, as directories bound in.

A pod lives on the host's file system, so a volume can only be mounted over a directory (or, with
subPath, a file) that exists there; anything else is refused with what to do.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from podwire.base.errors import PodwireError
from podwire.sandbox.runner import spec

Object = dict[str, Any]
KINDS = ("emptyDir", "configMap", "secret", "downwardAPI", "hostPath")


class VolumeRefused(PodwireError):
    """A volume cannot be mounted here; the message says why and what to do."""


def binds(
    container: Object, pod: Object, directory: Path, facts: spec.Facts, find: spec.Find
) -> list[tuple[str, str]]:
    """(source, target) of the container's volume mounts; the sources are made and filled."""
    volumes = {volume["name"]: volume for volume in pod["spec"].get("volumes") or []}
    found = []
    for mount in container.get("volumeMounts") or []:
        target = mount["mountPath"]
        if mount["name"] not in volumes:
            raise VolumeRefused(f"volume {mount['name']} is not among the pod's volumes")
        source = _source(volumes[mount["name"]], pod, directory, facts, find)
        if mount.get("subPath"):
            source = source / mount["subPath"]
        if not Path(target).exists():
            raise VolumeRefused(
                f"mountPath {target} does not exist here: pods live on this machine's file system, "
                f"so make it first (mkdir -p {target})"
            )
        if ":" in target or ":" in str(source):
            raise VolumeRefused(f"mountPath {target}: colons are not possible in paths here")
        found.append((str(source), target))
    return found


def _source(volume: Object, pod: Object, directory: Path, facts: spec.Facts, find: spec.Find) -> Path:
    name = volume["name"]
    if "hostPath" in volume:
        return Path(volume["hostPath"]["path"])
    place: Path = directory / "volumes" / name
    place.mkdir(parents=True, exist_ok=True)
    if "emptyDir" in volume:
        return place
    if "configMap" in volume:
        wanted = volume["configMap"]
        _fill(place, _data("configmaps", wanted.get("name", ""), wanted, find), wanted)
    elif "secret" in volume:
        wanted = volume["secret"]
        _fill(place, _data("secrets", wanted.get("secretName", ""), wanted, find), wanted)
    elif "downwardAPI" in volume:
        items = volume["downwardAPI"].get("items") or []
        values = {one["path"]: spec.field(one["fieldRef"]["fieldPath"], pod, facts).encode() for one in items}
        _fill(place, values, {})
    else:
        kind = next((key for key in volume if key != "name"), "nothing")
        raise VolumeRefused(f"volume {name}: {kind} is not supported in a sandbox; {', '.join(KINDS)} are")
    return place


def _data(resource: str, name: str, wanted: Object, find: spec.Find) -> dict[str, bytes]:
    return spec.data_of(resource, name, find, optional=bool(wanted.get("optional")))


def _fill(place: Path, data: dict[str, bytes], wanted: Object) -> None:
    chosen = {one["key"]: one["path"] for one in wanted.get("items") or []} or {key: key for key in data}
    for key, path in chosen.items():
        if key not in data:
            raise VolumeRefused(f"references non-existent config key: {key}")
        target = (place / path).resolve()
        if not target.is_relative_to(place.resolve()):
            raise VolumeRefused(f"path {path} leaves the volume")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data[key])
