"""What a pod's containers are to run, from its spec.

Environment, command and arguments follow the kubelet: later entries of `env` win over earlier ones
and over `envFrom`, ``$(NAME)`` refers to what is defined, ``$$(NAME)`` stays as it is. Nothing is
read but which programs are installed (`images`).
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from podwire.base.errors import PodwireError
from podwire.sandbox import images

Object = dict[str, Any]
Find = Callable[[str, str], Object | None]  # (resource, name) → object of the pod's namespace
_REFERENCE = re.compile(r"\$\$|\$\(([A-Za-z_][A-Za-z0-9_.-]*)\)")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# What a pod may ask for and does not get here: it shares the host's file system and runs as root.
IGNORED = ("securityContext", "runtimeClassName", "hostPID", "hostIPC")
IGNORED_IN_CONTAINER = ("resources", "securityContext", "volumeDevices")


class Refused(PodwireError):
    """A container cannot be run as it is written; `reason` is the kubelet's word for it."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Facts(msgspec.Struct, frozen=True):
    """What a pod learns about itself when it is placed."""

    node: str
    host_addresses: tuple[str, ...]
    addresses: tuple[str, ...]


def command(container: Object, environment: Mapping[str, str]) -> list[str]:
    """The command line of a container. Refused if there is nothing to run."""
    given = [expand(word, environment) for word in container.get("command") or []]
    args = [expand(word, environment) for word in container.get("args") or []]
    if given:
        return given + args
    image = container.get("image", "")
    ports = sorted({int(port["containerPort"]) for port in container.get("ports") or []})
    try:
        found = images.command(image, args, ports)
    except ValueError as error:
        raise Refused("CreateContainerConfigError", str(error)) from error
    if found is None:
        raise Refused(
            "ErrImageNeverPull",
            f"no stand-in is known for image “{image}”, and a sandbox pulls none: give the container a "
            "command that exists on this machine, or an image of the table in the sandbox guide",
        )
    return found


def expand(text: str, environment: Mapping[str, str]) -> str:
    """``$(NAME)`` replaced where NAME is defined."""

    def replaced(match: re.Match[str]) -> str:
        if match.group(0) == "$$":
            return "$"
        name = match.group(1)
        return environment.get(name, match.group(0))

    return _REFERENCE.sub(replaced, text)


def environment(
    container: Object, pod: Object, facts: Facts, find: Find, services: list[Object]
) -> dict[str, str]:
    """The environment of a container; Refused names what it refers to and is not there."""
    found = {"PATH": PATH, "HOME": "/root", "HOSTNAME": pod["metadata"]["name"]}
    found |= {"POD_NAMESPACE": pod["metadata"]["namespace"], "NODE_NAME": facts.node}
    found |= service_links(services)
    for source in container.get("envFrom") or []:
        found |= _from(source, find)
    for entry in container.get("env") or []:
        if "valueFrom" in entry:
            value = _value_from(entry["name"], entry["valueFrom"], container, pod, facts, find)
            if value is not None:
                found[entry["name"]] = value
        else:
            found[entry["name"]] = expand(str(entry.get("value", "")), found)
    return found


def service_links(services: list[Object]) -> dict[str, str]:
    """``BACKEND_SERVICE_HOST``, ``BACKEND_SERVICE_PORT`` … as in Kubernetes."""
    found: dict[str, str] = {}
    for service in services:
        spec = service["spec"]
        address, ports = spec.get("clusterIP"), spec.get("ports") or []
        if not address or address == "None" or not ports:
            continue
        prefix = service["metadata"]["name"].upper().replace("-", "_")
        found[f"{prefix}_SERVICE_HOST"] = address
        found[f"{prefix}_SERVICE_PORT"] = str(ports[0]["port"])
        for port in ports:
            if port.get("name"):
                found[f"{prefix}_SERVICE_PORT_{port['name'].upper().replace('-', '_')}"] = str(port["port"])
    return found


def _from(source: Object, find: Find) -> dict[str, str]:
    prefix = source.get("prefix", "")
    for key, resource in (("configMapRef", "configmaps"), ("secretRef", "secrets")):
        if key in source:
            data = data_of(
                resource, source[key].get("name", ""), find, optional=bool(source[key].get("optional"))
            )
            return {prefix + name: value.decode(errors="replace") for name, value in data.items()}
    return {}


def _value_from(
    name: str, source: Object, container: Object, pod: Object, facts: Facts, find: Find
) -> str | None:
    if "fieldRef" in source:
        return field(source["fieldRef"]["fieldPath"], pod, facts)
    if "resourceFieldRef" in source:
        raise Refused(
            "CreateContainerConfigError", f"env {name}: resourceFieldRef is not supported in a sandbox"
        )
    for key, resource in (("configMapKeyRef", "configmaps"), ("secretKeyRef", "secrets")):
        if key in source:
            wanted = source[key]
            optional = bool(wanted.get("optional"))
            data = data_of(resource, wanted.get("name", ""), find, optional=optional)
            if wanted["key"] in data:
                return data[wanted["key"]].decode(errors="replace")
            if optional:
                return None
            what = "configmap" if resource == "configmaps" else "secret"
            raise Refused(
                "CreateContainerConfigError", f"couldn't find key {wanted['key']} in {what} {wanted['name']}"
            )
    raise Refused("CreateContainerConfigError", f"env {name}: valueFrom names no known source")


def field(path: str, pod: Object, facts: Facts) -> str:
    """The downward API's fields."""
    meta, spec = pod["metadata"], pod["spec"]
    for part in ("labels", "annotations"):
        if path.startswith(f"metadata.{part}['") and path.endswith("']"):
            return str((meta.get(part) or {}).get(path[len(f"metadata.{part}['") : -2], ""))
    values: dict[str, str] = {
        "metadata.name": meta["name"],
        "metadata.namespace": meta["namespace"],
        "metadata.uid": meta["uid"],
        "spec.nodeName": facts.node,
        "spec.serviceAccountName": spec.get("serviceAccountName", "default"),
        "status.podIP": facts.addresses[0] if facts.addresses else "",
        "status.podIPs": ",".join(facts.addresses),
        "status.hostIP": facts.host_addresses[0] if facts.host_addresses else "",
        "status.hostIPs": ",".join(facts.host_addresses),
    }
    if path not in values:
        raise Refused("CreateContainerConfigError", f"fieldPath {path} is not supported in a sandbox")
    return values[path]


def data_of(resource: str, name: str, find: Find, *, optional: bool) -> dict[str, bytes]:
    """The data of a ConfigMap or Secret."""
    found = find(resource, name)
    if found is None:
        if optional:
            return {}
        what = "configmap" if resource == "configmaps" else "secret"
        raise Refused("CreateContainerConfigError", f'{what} "{name}" not found')
    if resource == "secrets":
        return {key: base64.b64decode(value) for key, value in (found.get("data") or {}).items()}
    plain = {key: value.encode() for key, value in (found.get("data") or {}).items()}
    return plain | {key: base64.b64decode(value) for key, value in (found.get("binaryData") or {}).items()}


def ignored(pod: Object) -> list[str]:
    """Paths of what is in the spec and has no effect here; told once, in an Event."""
    spec = pod["spec"]
    found = [f"spec.{name}" for name in IGNORED if spec.get(name)]
    for number, container in enumerate(spec.get("containers") or []):
        path = f"spec.containers[{number}]"
        found += [f"{path}.{name}" for name in IGNORED_IN_CONTAINER if container.get(name)]
        found += [
            f"{path}.ports[{place}].hostPort"
            for place, port in enumerate(container.get("ports") or [])
            if port.get("hostPort") and not spec.get("hostNetwork")
        ]
        hooks = container.get("lifecycle") or {}
        found += [f"{path}.lifecycle.postStart"] if hooks.get("postStart") else []
        found += (
            [f"{path}.lifecycle.preStop"] if hooks.get("preStop") and "exec" not in hooks["preStop"] else []
        )
    return found
