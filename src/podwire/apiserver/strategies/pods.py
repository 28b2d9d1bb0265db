"""Pods: defaults, and what may change once they exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from podwire.apiserver.formats import quantity
from podwire.apiserver.kinds import Cluster, Strategy
from podwire.apiserver.metadata import is_label
from podwire.apiserver.status import FieldError, forbidden_field, required
from podwire.apiserver.strategies.selectors import selector_valid

Object = dict[str, Any]

_ENV = re.compile(r"^[-._a-zA-Z][-._a-zA-Z0-9]*$")
_PORT_NAME = re.compile(r"^(?=.*[a-z])[a-z0-9]+(-[a-z0-9]+)*$")
_PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
_PROBE_DEFAULTS = {"timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3}
_FIXED = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)


class Pods(Strategy):
    grace = True

    def default(self, body: Object) -> None:
        default_spec(body.get("spec") or {})

    def create(self, body: Object, cluster: Cluster) -> None:
        spec = body["spec"]
        spec.setdefault("priority", 0)
        spec.setdefault("preemptionPolicy", "PreemptLowerPriority")
        account = spec.setdefault("serviceAccountName", spec.get("serviceAccount") or "default")
        spec["serviceAccount"] = account
        tolerations = spec.setdefault("tolerations", [])
        for key in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"):
            if not any(one.get("key") in (key, None, "") for one in tolerations):
                tolerations.append(
                    {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
                )
        body["status"] = {"phase": "Pending", "qosClass": _qos(spec)}

    def validate(self, body: Object, old: Object | None) -> Iterator[FieldError]:
        spec = body.get("spec")
        if not spec:
            yield required("spec")
            return
        if old is None:
            yield from spec_valid(spec, "spec")
        elif spec != old["spec"] and _fixed(spec, old["spec"]) != _fixed(old["spec"], old["spec"]):
            yield forbidden_field("spec", _FIXED)


def default_spec(spec: Object) -> None:
    """What a pod's or template's spec gets where it says nothing."""
    spec.setdefault("securityContext", {})
    for container in [*(spec.get("containers") or []), *(spec.get("initContainers") or [])]:
        if not container.get("imagePullPolicy"):
            container["imagePullPolicy"] = "Always" if _latest(container.get("image", "")) else "IfNotPresent"
        container.setdefault("resources", {})
        _default_requests(container["resources"])
        for name in _PROBES:
            probe = container.get(name)
            if probe:
                for key, value in _PROBE_DEFAULTS.items():
                    probe[key] = probe.get(key) or value
        for port in container.get("ports") or []:
            if spec.get("hostNetwork"):
                port["hostPort"] = port.get("hostPort") or port["containerPort"]


def _default_requests(resources: Object) -> None:
    limits = resources.get("limits")
    if limits:
        resources["requests"] = {**limits, **(resources.get("requests") or {})}


def _latest(image: str) -> bool:
    name = image.rsplit("/", 1)[-1]
    return "@" not in name and (":" not in name or name.endswith(":latest"))


def _qos(spec: Object) -> str:
    resources = [one.get("resources") or {} for one in spec["containers"]]
    if not any(one.get("limits") or one.get("requests") for one in resources):
        return "BestEffort"
    guaranteed = all(
        {"cpu", "memory"} <= set(one.get("limits") or {})
        and all(quantity(value) == quantity(one["requests"][key]) for key, value in one["limits"].items())
        for one in resources
    )
    return "Guaranteed" if guaranteed else "Burstable"


def _fixed(spec: Object, old: Object) -> Object:
    """The part of a spec that must stay as it is."""
    kept = {
        key: value
        for key, value in spec.items()
        if key
        not in ("activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds", "schedulingGates")
    }
    if not old.get("nodeName"):
        kept.pop("nodeName", None)
    for name in ("containers", "initContainers"):
        if name in kept:
            kept[name] = [{**one, "image": "", "imagePullPolicy": ""} for one in kept[name]]
    return kept


def spec_valid(spec: Object, path: str) -> Iterator[FieldError]:
    """What a pod's spec must fulfil beyond its schema."""
    volumes = set()
    for index, volume in enumerate(spec.get("volumes") or []):
        place = f"{path}.volumes[{index}]"
        if not is_label(volume["name"]):
            yield FieldError(f"{place}.name", "must be a DNS label", value=volume["name"])
        sources = [key for key in volume if key != "name"]
        if len(sources) > 1:
            yield forbidden_field(place, f"may not specify more than 1 volume type ({', '.join(sources)})")
        volumes.add(volume["name"])
    names: set[str] = set()
    for kind in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(kind) or []):
            place = f"{path}.{kind}[{index}]"
            if container["name"] in names:
                reason = "FieldValueDuplicate"
                yield FieldError(f"{place}.name", "is there already", reason=reason, value=container["name"])
            names.add(container["name"])
            yield from _container(container, place, volumes)
    yield from _affinity(spec.get("affinity") or {}, f"{path}.affinity")
    if spec.get("hostname") and not is_label(spec["hostname"]):
        yield FieldError(f"{path}.hostname", "must be a DNS label", value=spec["hostname"])


def _container(container: Object, path: str, volumes: set[str]) -> Iterator[FieldError]:
    if not is_label(container["name"]):
        yield FieldError(f"{path}.name", "must be a DNS label (e.g. 'my-name')", value=container["name"])
    if not container.get("image"):
        yield required(f"{path}.image", "must be given")
    ports: set[str] = set()
    for index, port in enumerate(container.get("ports") or []):
        name = port.get("name")
        if not name:
            continue
        if len(name) > 15 or not _PORT_NAME.match(name):
            detail = "must be at most 15 lower case letters, digits and single '-', with a letter among them"
            yield FieldError(f"{path}.ports[{index}].name", detail, value=name)
        if name in ports:
            reason = "FieldValueDuplicate"
            yield FieldError(f"{path}.ports[{index}].name", "is there already", reason=reason, value=name)
        ports.add(name)
    for index, variable in enumerate(container.get("env") or []):
        if not _ENV.match(variable["name"]):
            detail = "must consist of letters, digits, '_', '-' or '.', and not begin with a digit"
            yield FieldError(f"{path}.env[{index}].name", detail, value=variable["name"])
        if variable.get("value") and variable.get("valueFrom"):
            detail = "may not be specified when `value` is not empty"
            yield FieldError(f"{path}.env[{index}].valueFrom", detail, value="")
    for index, mount in enumerate(container.get("volumeMounts") or []):
        if mount["name"] not in volumes:
            reason = "FieldValueNotFound"
            yield FieldError(
                f"{path}.volumeMounts[{index}].name", "no such volume", reason=reason, value=mount["name"]
            )
    for name in _PROBES:
        probe = container.get(name)
        given = [one for one in ("exec", "httpGet", "tcpSocket", "grpc") if one in (probe or {})]
        if probe is not None and len(given) != 1:
            detail = "must have exactly one of exec, httpGet, tcpSocket, grpc"
            yield FieldError(
                f"{path}.{name}", detail, reason="FieldValueRequired" if not given else "FieldValueForbidden"
            )
    yield from _resources(container.get("resources") or {}, f"{path}.resources")


def _resources(resources: Object, path: str) -> Iterator[FieldError]:
    limits = resources.get("limits") or {}
    for name, value in (resources.get("requests") or {}).items():
        if name in limits and quantity(value) > quantity(limits[name]):
            detail = f"must be less than or equal to {name} limit of {limits[name]}"
            yield FieldError(f"{path}.requests.{name}", detail, value=value)


def _affinity(affinity: Object, path: str) -> Iterator[FieldError]:
    for kind in ("podAffinity", "podAntiAffinity"):
        terms = (affinity.get(kind) or {}).get("requiredDuringSchedulingIgnoredDuringExecution") or []
        for index, term in enumerate(terms):
            place = f"{path}.{kind}.requiredDuringSchedulingIgnoredDuringExecution[{index}]"
            if not term.get("topologyKey"):
                yield required(f"{place}.topologyKey", "can not be empty")
            yield from selector_valid(f"{place}.labelSelector", term.get("labelSelector"))
