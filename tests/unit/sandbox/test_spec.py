"""From a pod's spec to what its containers run."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from podwire.sandbox import images
from podwire.sandbox.runner import spec

FACTS = spec.Facts("n1", ("172.30.1.11",), ("10.0.1.4", "fd00::4"))
POD: dict[str, Any] = {
    "metadata": {
        "name": "p",
        "namespace": "ns",
        "uid": "u",
        "labels": {"app": "web"},
        "annotations": {"a/b": "c"},
    },
    "spec": {"serviceAccountName": "robot"},
}
OBJECTS = {
    ("configmaps", "c"): {"data": {"k": "v", "other": "w"}},
    ("secrets", "s"): {"data": {"k": base64.b64encode(b"hidden").decode()}},
}


def find(resource: str, name: str) -> dict[str, Any] | None:
    return OBJECTS.get((resource, name))


def environment(*env: dict[str, Any], sources: list[dict[str, Any]] | None = None) -> dict[str, str]:
    container = {"env": list(env), "envFrom": sources or []}
    return spec.environment(container, POD, FACTS, find, [])


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.name", "p"),
        ("metadata.namespace", "ns"),
        ("metadata.uid", "u"),
        ("metadata.labels['app']", "web"),
        ("metadata.annotations['a/b']", "c"),
        ("spec.nodeName", "n1"),
        ("spec.serviceAccountName", "robot"),
        ("status.podIP", "10.0.1.4"),
        ("status.podIPs", "10.0.1.4,fd00::4"),
        ("status.hostIP", "172.30.1.11"),
    ],
)
def test_the_downward_api(path: str, value: str) -> None:
    entry = {"name": "X", "valueFrom": {"fieldRef": {"fieldPath": path}}}
    assert environment(entry)["X"] == value


def test_references_are_expanded_in_order() -> None:
    found = environment(
        {"name": "A", "value": "1"},
        {"name": "B", "value": "$(A)-$(C)-$$(A)"},
        {"name": "C", "value": "3"},
    )
    assert found["B"] == "1-$(C)-$(A)"


def test_values_of_configmaps_and_secrets() -> None:
    found = environment(
        {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}},
        {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
        {"name": "C", "valueFrom": {"configMapKeyRef": {"name": "no", "key": "k", "optional": True}}},
        sources=[{"prefix": "P_", "configMapRef": {"name": "c"}}],
    )
    assert (found["A"], found["B"], found["P_other"]) == ("v", "hidden", "w")
    assert "C" not in found


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ({"configMapKeyRef": {"name": "no", "key": "k"}}, 'configmap "no" not found'),
        ({"secretKeyRef": {"name": "s", "key": "no"}}, "couldn't find key no in secret s"),
        ({"resourceFieldRef": {"resource": "limits.cpu"}}, "resourceFieldRef is not supported"),
        ({"fieldRef": {"fieldPath": "status.phase"}}, "fieldPath status.phase is not supported"),
    ],
)
def test_what_is_not_there_is_named(source: dict[str, Any], told: str) -> None:
    with pytest.raises(spec.Refused, match=told) as caught:
        environment({"name": "X", "valueFrom": source})
    assert caught.value.reason == "CreateContainerConfigError"


def test_services_are_in_the_environment() -> None:
    service = {
        "metadata": {"name": "my-web"},
        "spec": {"clusterIP": "10.96.0.7", "ports": [{"port": 80}, {"name": "m", "port": 90}]},
    }
    headless = {"metadata": {"name": "h"}, "spec": {"clusterIP": "None", "ports": [{"port": 1}]}}
    found = spec.service_links([service, headless])
    assert found == {
        "MY_WEB_SERVICE_HOST": "10.96.0.7",
        "MY_WEB_SERVICE_PORT": "80",
        "MY_WEB_SERVICE_PORT_M": "90",
    }


def test_a_command_runs_as_it_is() -> None:
    container = {"image": "whatever", "command": ["echo", "$(A)"], "args": ["b"]}
    assert spec.command(container, {"A": "a"}) == ["echo", "a", "b"]


def test_stand_ins() -> None:
    web = spec.command({"image": "registry.k8s.io/e2e/agnhost:2.4", "ports": [{"containerPort": 81}]}, {})
    assert web[-1] == "81" and web[-2].endswith("webserver.py")
    assert spec.command({"image": "busybox:1.36", "args": ["ls", "-l"]}, {}) == ["ls", "-l"]
    assert spec.command({"image": "curlimages/curl"}, {})[-1] == "infinity"
    assert images.base_name("localhost:5000/a/Nginx:1@sha256:00") == "nginx"
    with pytest.raises(spec.Refused) as unknown:
        spec.command({"image": "example.com/x:1"}, {})
    assert unknown.value.reason == "ErrImageNeverPull"
    with pytest.raises(spec.Refused, match="takes no args"):
        spec.command({"image": "httpbin", "args": ["-x"]}, {})


def test_what_has_no_effect_is_told() -> None:
    pod = {
        "spec": {"securityContext": {"runAsUser": 1}, "containers": [{"resources": {"limits": {"cpu": 1}}}]}
    }
    assert spec.ignored(pod) == ["spec.securityContext", "spec.containers[0].resources"]
    container = {
        "ports": [{"containerPort": 1, "hostPort": 1}],
        "lifecycle": {"postStart": {}, "preStop": {"exec": {}}},
    }
    assert spec.ignored({"spec": {"containers": [container]}}) == ["spec.containers[0].ports[0].hostPort"]
