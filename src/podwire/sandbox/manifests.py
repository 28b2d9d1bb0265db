"""A lab's manifests: read, put in an order that works, created; and when their pods are up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from podwire.apiserver.options import Options
from podwire.apiserver.status import StatusError
from podwire.base.errors import ConfigError, InvalidObject
from podwire.kube.documents import parse_yaml
from podwire.sandbox.cluster import Cluster

Object = dict[str, Any]
STRICT = Options(validation="Strict")  # a mistyped field is told, not left out
# What others refer to comes first; a stable sort keeps the file's order otherwise.
FIRST = ("Namespace", "CustomResourceDefinition", "ServiceAccount", "ConfigMap", "Secret", "Service")
LATER = ("Pod", "Deployment", "DaemonSet", "ReplicaSet")


def read(path: Path) -> list[tuple[Object, int]]:
    """The objects of a file with the line each begins at; a List counts as its items."""
    try:
        documents = list(parse_yaml(path.read_text()))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except (InvalidObject, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    found: list[tuple[Object, int]] = []
    for document in documents:
        body = document.body
        if not isinstance(body, dict) or not body.get("kind") or not body.get("apiVersion"):
            raise ConfigError(f"{path}, line {document.line}: an object needs apiVersion and kind")
        items = body["items"] if body["kind"] == "List" else [body]
        found += [(item, document.line) for item in items]
    return found


def ordered(objects: list[tuple[Object, int]]) -> list[tuple[Object, int]]:
    """Namespaces and what others refer to first; policies before the pods they are about."""

    def place(entry: tuple[Object, int]) -> int:
        kind = entry[0]["kind"]
        if kind in FIRST:
            return FIRST.index(kind)
        return len(FIRST) + (1 if kind in LATER else 0)

    return sorted(objects, key=place)


def apply_all(cluster: Cluster, paths: list[Path]) -> list[str]:
    """Create all objects of the files; ConfigError names the file and line of one that is refused."""
    applied = []
    for path in paths:
        for body, line in ordered(read(path)):
            try:
                applied.append(_apply(cluster, body))
            except StatusError as error:
                raise ConfigError(f"{path}, line {line}: {error}") from error
    return applied


def _apply(cluster: Cluster, body: Object) -> str:
    objects = cluster.objects
    kind = objects.registry.of_kind(body["apiVersion"], body["kind"])
    if kind is None:
        raise StatusError(
            404, "NotFound", f'no matches for kind "{body["kind"]}" in version "{body["apiVersion"]}"'
        )
    meta = body.setdefault("metadata", {})
    namespace = meta.setdefault("namespace", "default") if kind.namespaced else ""
    name = meta.get("name", "")
    if objects.find(kind.resource, namespace, name) is None:
        objects.create(kind, namespace, body, STRICT)
    else:
        cluster.ensure(kind.resource, namespace, body)
    return f"{kind.singular}/{name}"


def settled(pod: Object) -> bool:
    """Whether a pod is ready, or has done what it had to do."""
    status = pod.get("status") or {}
    if status.get("phase") == "Succeeded":
        return True
    return any(one["type"] == "Ready" and one["status"] == "True" for one in status.get("conditions") or [])


def why(pod: Object) -> str:
    """`` (ErrImageNeverPull: …)`` where a container says why it waits."""
    status = pod.get("status") or {}
    for one in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        waiting = one["state"].get("waiting")
        if waiting:
            return f" ({waiting['reason']}{': ' + waiting['message'] if waiting.get('message') else ''})"
    return ""


def workloads_settled(cluster: Cluster) -> bool:
    """Whether every Deployment and DaemonSet has made its pods."""
    for body in cluster.all("deployments.apps"):
        if (body.get("status") or {}).get("readyReplicas", 0) < body["spec"].get("replicas", 1):
            return False
    for body in cluster.all("daemonsets.apps"):
        status = body.get("status") or {}
        if status.get("numberReady", 0) < max(1, status.get("desiredNumberScheduled", 0)):
            return False
    return True
