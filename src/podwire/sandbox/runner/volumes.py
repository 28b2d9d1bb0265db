"""Volumes of a pod: emptyDir, configMap, secret, downwardAPI and hostPath, as directories bound in.

A pod lives on the host's file system, where nothing may be made for it. A mount point that is missing
there is added in the container's own view: the nearest directory that exists is covered by an
overlay of itself that has it. Only what is missing directly below ``/`` is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from podwire.base.errors import PodwireError
from podwire.sandbox.runner import spec

Object = dict[str, Any]
FILES = ("resolv.conf", "hosts", "hostname")  # of the pod, mounted over those of /etc
KINDS = ("emptyDir", "configMap", "secret", "downwardAPI", "hostPath")


class VolumeRefused(PodwireError):
    """A volume cannot be mounted here; the message says why and what to do."""


class Mounts(msgspec.Struct, frozen=True):
    """What a container's view of the file system differs in, to be done in this order.

    `overlays` are (lower, upper, work), `binds` (source, target).
    """

    overlays: list[tuple[str, str, str]] = []
    binds: list[tuple[str, str]] = []


def mounts(container: Object, pod: Object, directory: Path, facts: spec.Facts, find: spec.Find) -> Mounts:
    """The mounts of a container; their sources, below the pod's `directory`, are made and filled."""
    volumes = {volume["name"]: volume for volume in pod["spec"].get("volumes") or []}
    targets: list[Path] = []
    binds = []
    for mount in container.get("volumeMounts") or []:
        target = mount["mountPath"]
        if mount["name"] not in volumes:
            raise VolumeRefused(f"volume {mount['name']} is not among the pod's volumes")
        source = _source(volumes[mount["name"]], pod, directory, facts, find)
        if mount.get("subPath"):
            source = _below(source, mount["subPath"], volumes[mount["name"]])
        if not source.exists():
            raise VolumeRefused(f"volume {mount['name']}: there is no {source.name} to mount on {target}")
        if any(mark in text for mark in ":," for text in (target, str(source))):
            raise VolumeRefused(f"mountPath {target}: colons and commas are not possible in paths here")
        binds.append((str(source), target))
        targets.append(Path(target))
    overlays = _overlays(binds, directory / "overlays" / container["name"])
    if any(lower == "/etc" for lower, _, _ in overlays):
        # The overlay shows the host's files again: the pod's own are put over them once more.
        binds = [(str(directory / name), f"/etc/{name}") for name in FILES] + binds
    return Mounts(overlays, binds)


def _overlays(binds: list[tuple[str, str]], place: Path) -> list[tuple[str, str, str]]:
    """One for each directory that lacks a mount point, with the mount points in its upper layer."""
    found: dict[Path, tuple[str, str, str]] = {}
    for source, text in binds:
        target = Path(text)
        if target.exists():
            continue
        lower = next(parent for parent in target.parents if parent.is_dir())
        if lower == Path("/"):
            raise VolumeRefused(
                f"mountPath {target} does not exist here: pods live on this machine's file system, "
                f"so make it first (mkdir -p {target})"
            )
        layers = place / str(len(found)) if lower not in found else Path(found[lower][1]).parent
        upper, work = layers / "upper", layers / "work"
        work.mkdir(parents=True, exist_ok=True)
        upper.mkdir(exist_ok=True)
        point = upper / target.relative_to(lower)
        if Path(source).is_dir():
            point.mkdir(parents=True, exist_ok=True)
        else:
            point.parent.mkdir(parents=True, exist_ok=True)
            point.touch()
        found[lower] = (str(lower), str(upper), str(work))
    return list(found.values())


def _below(source: Path, path: str, volume: Object) -> Path:
    chosen = (source / path).resolve()
    if not chosen.is_relative_to(source.resolve()):
        raise VolumeRefused(f"subPath {path} leaves volume {volume['name']}")
    if "emptyDir" in volume:
        chosen.mkdir(parents=True, exist_ok=True)
    return chosen


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
